use std::io;
use std::sync::Arc;

use aiv_volume_io::{ReadAt, SlotCopy, SlotFile};

use super::Shared;
use crate::fault::{Fault, Op};

/// A finished file whose key slots are changed, and what they were before.
pub(super) struct Slots {
    name: String,
    file: Arc<dyn ReadAt>,
    inner: Box<dyn SlotFile>,
    shared: Arc<Shared>,
    /// Offset and bytes of what was written over since the last sync.
    before: Vec<(u64, Vec<u8>)>,
}

impl Slots {
    pub(super) fn new(
        name: &str,
        file: Arc<dyn ReadAt>,
        inner: Box<dyn SlotFile>,
        shared: Arc<Shared>,
    ) -> Self {
        Self { name: name.to_owned(), file, inner, shared, before: Vec::new() }
    }
}

impl SlotFile for Slots {
    fn write(&mut self, copy: SlotCopy<'_>) -> io::Result<()> {
        self.shared.check(Op::WriteSlots, &self.name)?;
        if self.shared.keeps_back() {
            let mut before = vec![0; SlotCopy::SIZE];
            self.file.read_exact_at(&mut before, copy.offset())?;
            self.before.push((copy.offset(), before));
        }
        self.inner.write(copy)
    }

    fn sync(&mut self) -> io::Result<()> {
        let fault = self.shared.enter(Op::Sync, &self.name, 0);
        let before = std::mem::take(&mut self.before);
        match fault {
            Some(Fault::SyncFailsThenSucceeds) => {
                // The kernel drops the dirty pages: what is read from now on is the medium.
                for (offset, bytes) in before {
                    self.inner.write(SlotCopy::new(offset, &bytes)?)?;
                }
                Err(Fault::SyncFailsThenSucceeds.error())
            }
            Some(fault) => Err(fault.error()),
            None => self.inner.sync(),
        }
    }
}
