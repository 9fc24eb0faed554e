use crate::appender::Appender;
use crate::error::Result;
use crate::layout::PageHeader;
use crate::seal::Access;

/// Collects entries of one level into pages and appends each full page.
pub(super) struct PageBuilder {
    access: Access,
    header: PageHeader,
    first_page: u64,
    entries: Vec<u8>,
    per_page: usize,
}

impl PageBuilder {
    /// `header` carries kind, level, image, and the number of the first page; `access` seals.
    pub(super) fn new(header: PageHeader, access: &Access) -> Self {
        let (entry_size, per_page) = header.kind.shape();
        let entries = Vec::with_capacity(entry_size * per_page);
        Self { access: access.clone(), header, first_page: header.page_no, entries, per_page }
    }

    pub(super) fn push(&mut self, first: u64, entry: &[u8], file: &mut Appender) -> Result<()> {
        if self.header.count == 0 {
            self.header.first = first;
        }
        self.entries.extend_from_slice(entry);
        self.header.count += 1;
        if usize::from(self.header.count) == self.per_page {
            self.write(file)?;
        }
        Ok(())
    }

    fn write(&mut self, file: &mut Appender) -> Result<()> {
        file.append(&self.access.build_page(self.header, &self.entries)?)?;
        self.entries.clear();
        self.header.count = 0;
        self.header.page_no += 1;
        Ok(())
    }

    /// Writes the last page and returns how many pages the level has.
    pub(super) fn close(mut self, file: &mut Appender) -> Result<u64> {
        if self.header.count > 0 {
            self.write(file)?;
        }
        Ok(self.header.page_no - self.first_page)
    }
}
