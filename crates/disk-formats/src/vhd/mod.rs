//! Virtual PC's VHD: fixed, dynamic (a table of blocks), and differencing (blocks over a parent).
//!
//! Facts: Microsoft's "Virtual Hard Disk Image Format Specification" 1.0. The size of the disk is
//! what the footer calls its current size; programs that take the product of its geometry
//! instead see a disk that is up to 8 MiB shorter.

mod footer;

use std::io;
use std::sync::Arc;

use aiv_volume_io::ReadAt;

use self::footer::Kind;
use crate::bytes::be32;
use crate::follow::names_of_windows;
use crate::layer::{Layer, Place};
use crate::open::{Identity, ParentRef, Understood};
use crate::pages::Pages;
use crate::{Error, Format, Result};

const SECTOR: u64 = 512;
/// A block of which nothing was ever written.
const UNUSED: u32 = u32::MAX;

pub(crate) fn open(file: Arc<dyn ReadAt>) -> Result<Understood> {
    let (footer, mut notes) = footer::read(&*file)?;
    let identity = Some(Identity::Guid(footer.unique_id));
    if footer.saved_state {
        notes.push("the machine was suspended when it was last written".into());
    }
    let Some(at) = footer.header_at() else {
        let layer = Box::new(Fixed { size: footer.size, file });
        return Ok(Understood { layer, parent: None, identity, notes });
    };
    let dynamic = footer::read_dynamic(&*file, at, &footer)?;
    let parent = (footer.kind == Kind::Differencing).then(|| ParentRef {
        names: names_of_windows(&dynamic.names),
        format: Some(Format::Vhd),
        expected: vec![Identity::Guid(dynamic.parent_id)],
    });
    let layer = Box::new(Blocks {
        size: footer.size,
        table: dynamic.table,
        block_size: dynamic.block_size.into(),
        over_parent: parent.is_some(),
        pages: Pages::new(file),
    });
    Ok(Understood { layer, parent, identity, notes })
}

fn corrupt(section: &'static str, offset: u64, what: String) -> Error {
    Error::Corrupt { format: Format::Vhd, section, offset, what }
}

struct Fixed {
    size: u64,
    file: Arc<dyn ReadAt>,
}

impl Layer for Fixed {
    fn len(&self) -> u64 {
        self.size
    }

    fn find(&self, at: u64) -> io::Result<(u64, Place)> {
        Ok((self.size - at, Place::Data { file: 0, offset: at }))
    }

    fn data(&self, index: usize) -> Option<&dyn ReadAt> {
        (index == 0).then_some(&*self.file)
    }
}

struct Blocks {
    size: u64,
    /// First byte of the block allocation table, which lies inside the file and covers the disk.
    table: u64,
    block_size: u64,
    over_parent: bool,
    pages: Pages,
}

impl Blocks {
    /// First byte of a block in the file: its sector bitmap, rounded up to sectors, then its
    /// data. `None` when it has none.
    fn block(&self, index: u64) -> io::Result<Option<u64>> {
        let at = self.table + index * 4;
        let sector = be32(&self.pages.array::<4>(at)?, 0);
        if sector == UNUSED {
            return Ok(None);
        }
        let start = u64::from(sector) * SECTOR;
        let needed = self.block_size.min(self.size - index * self.block_size);
        let (end, file_len) = (start + self.bitmap_len() + needed, self.pages.file().len());
        if end > file_len {
            let what = format!("block {index} ends at {end}, the file at {file_len}");
            return Err(corrupt("block allocation table", at, what).into());
        }
        Ok(Some(start))
    }

    fn bitmap_len(&self) -> u64 {
        self.block_size.div_ceil(SECTOR * 8).next_multiple_of(SECTOR)
    }

    /// The run of sectors at `inside` a block that have the same bit: the image's own, or the
    /// parent's. The first sector has the highest bit.
    fn same_sectors(&self, bitmap: u64, inside: u64) -> io::Result<(u64, bool)> {
        let first = inside / SECTOR;
        let mut run = None;
        let mut sector = first;
        while sector < self.block_size / SECTOR {
            let [byte] = self.pages.array::<1>(bitmap + sector / 8)?;
            let bit = byte & (0x80 >> (sector % 8)) != 0;
            let own = *run.get_or_insert(bit);
            if own != bit {
                break;
            }
            // A whole byte of the same is eight sectors.
            let whole = if own { 0xFF } else { 0 };
            sector += if sector.is_multiple_of(8) && byte == whole { 8 } else { 1 };
        }
        Ok((sector.min(self.block_size / SECTOR) * SECTOR - inside, run.unwrap_or(true)))
    }
}

impl Layer for Blocks {
    fn len(&self) -> u64 {
        self.size
    }

    fn find(&self, at: u64) -> io::Result<(u64, Place)> {
        let inside = at % self.block_size;
        let rest = self.block_size - inside;
        let Some(start) = self.block(at / self.block_size)? else {
            return Ok((rest, Place::Parent));
        };
        let data = Place::Data { file: 0, offset: start + self.bitmap_len() + inside };
        // Without a parent the bitmap is no more than a hint, and not all programs keep it.
        if !self.over_parent {
            return Ok((rest, data));
        }
        let (len, own) = self.same_sectors(start, inside)?;
        Ok((len, if own { data } else { Place::Parent }))
    }

    fn data(&self, index: usize) -> Option<&dyn ReadAt> {
        (index == 0).then(|| &**self.pages.file())
    }
}
