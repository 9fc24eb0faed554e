//! Hyper-V's VHDX: blocks of up to 256 MiB behind one table, with a log in front of its tables.
//!
//! Facts: Microsoft's [MS-VHDX]. A log that was not replayed yet is replayed in memory, so that
//! everything behind it is read as the next program that opens the file would see it.

mod header;
mod log;
mod metadata;

use std::io;
use std::sync::Arc;

use aiv_volume_io::ReadAt;

use self::metadata::Metadata;
use crate::bytes::le64;
use crate::layer::{Layer, Place};
use crate::open::{Identity, Understood};
use crate::pages::Pages;
use crate::{Error, Format, Result};

const MIB: u64 = 1 << 20;
/// A sector bitmap has this many bits: 1 MiB of them.
const BITMAP_BITS: u64 = 8 * MIB;

const NOT_PRESENT: u64 = 0;
/// The disk may hold anything there: never written, or given back.
const UNDEFINED: u64 = 1;
const ZERO: u64 = 2;
const UNMAPPED: u64 = 3;
const PRESENT: u64 = 6;
const PARTLY_PRESENT: u64 = 7;
/// State of an entry; its other bits are reserved up to the offset in MiB.
const STATE: u64 = 7;
const RESERVED: u64 = 0xF_FFF8;

pub(crate) fn open(file: Arc<dyn ReadAt>) -> Result<Understood> {
    let header = header::read(&*file)?;
    let mut notes = Vec::new();
    let file = match log::replay(file, &header)? {
        log::Replay::Empty(file) => file,
        log::Replay::Done(file) => {
            let note = "the image was not closed properly; its log was replayed in memory";
            notes.push(note.into());
            file
        }
    };
    let regions = header::regions(&*file)?;
    let metadata = metadata::read(&*file, regions.metadata)?;
    let layer = Blocks::new(file, regions.table, &metadata)?;
    let parent = metadata.parent;
    let identity = Some(Identity::Guid(header.data_id));
    Ok(Understood { layer: Box::new(layer), parent, identity, notes })
}

fn corrupt(section: &'static str, offset: u64, what: String) -> Error {
    Error::Corrupt { format: Format::Vhdx, section, offset, what }
}

fn unsupported(what: String) -> Error {
    Error::Unsupported { format: Format::Vhdx, what }
}

struct Blocks {
    pages: Pages,
    size: u64,
    sector: u64,
    block_size: u64,
    over_parent: bool,
    /// First byte of the block allocation table, which lies inside the file and covers the disk.
    table: u64,
    /// Payload blocks for each bitmap block; entries lie in groups of these and their bitmap.
    ratio: u64,
}

impl Blocks {
    fn new(file: Arc<dyn ReadAt>, table: (u64, u64), metadata: &Metadata) -> Result<Self> {
        let Metadata { size, sector, block_size, over_parent, .. } = *metadata;
        // Sectors are 512 or 4096 bytes, blocks at most 256 MiB: at least 16.
        let ratio = BITMAP_BITS * sector / block_size;
        let blocks = size.div_ceil(block_size);
        let groups = blocks.div_ceil(ratio);
        // Without a parent the last group ends with its last block.
        let entries = match over_parent {
            true => groups * (ratio + 1),
            false => blocks + blocks.saturating_sub(1) / ratio,
        };
        if entries * 8 > table.1 {
            let what = format!("{} bytes for {entries} entries", table.1);
            return Err(corrupt("block allocation table", table.0, what));
        }
        let pages = Pages::new(file);
        Ok(Self { pages, size, sector, block_size, over_parent, table: table.0, ratio })
    }

    /// State and offset in the file of an entry that must lie in it with `len` bytes.
    fn entry(&self, index: u64) -> io::Result<(u64, u64, u64)> {
        let at = self.table + index * 8;
        let entry = le64(&self.pages.array::<8>(at)?, 0);
        if entry & RESERVED != 0 {
            let what = format!("entry {entry:#x} has reserved bits");
            return Err(corrupt("block allocation table", at, what).into());
        }
        Ok((entry & STATE, (entry >> 20) * MIB, at))
    }

    fn check_inside(&self, at: u64, start: u64, len: u64) -> io::Result<()> {
        let file_len = self.pages.file().len();
        if start < MIB || start.checked_add(len).is_none_or(|end| end > file_len) {
            let what = format!("{len} bytes at {start}, the file ends at {file_len}");
            return Err(corrupt("block allocation table", at, what).into());
        }
        Ok(())
    }

    /// The run of sectors at byte `at` of the disk that have the same bit: the image's own, or
    /// the parent's; at most to the end of the block. The first sector has the lowest bit.
    fn same_sectors(&self, at: u64) -> io::Result<(u64, bool)> {
        let block = at / self.block_size;
        let group = block / self.ratio;
        let (state, bitmap, entry_at) = self.entry(group * (self.ratio + 1) + self.ratio)?;
        if state != PRESENT {
            let what = format!("a block in parts without a bitmap (state {state})");
            return Err(corrupt("block allocation table", entry_at, what).into());
        }
        self.check_inside(entry_at, bitmap, MIB)?;
        let (mut sector, end) = (at / self.sector, (block + 1) * (self.block_size / self.sector));
        let first_of_group = group * BITMAP_BITS;
        let mut run = None;
        while sector < end {
            let bit = sector - first_of_group;
            let [byte] = self.pages.array::<1>(bitmap + bit / 8)?;
            let found = byte >> (bit % 8) & 1 != 0;
            let own = *run.get_or_insert(found);
            if own != found {
                break;
            }
            let whole = if own { 0xFF } else { 0 };
            sector += if bit.is_multiple_of(8) && byte == whole { 8 } else { 1 };
        }
        Ok((sector.min(end) * self.sector - at, run.unwrap_or(true)))
    }
}

impl Layer for Blocks {
    fn len(&self) -> u64 {
        self.size
    }

    fn find(&self, at: u64) -> io::Result<(u64, Place)> {
        let block = at / self.block_size;
        let inside = at % self.block_size;
        let rest = self.block_size - inside;
        let (state, start, entry_at) = self.entry(block + block / self.ratio)?;
        let data = Place::Data { file: 0, offset: start.saturating_add(inside) };
        Ok(match state {
            NOT_PRESENT => (rest, Place::Parent),
            // Nobody may rely on what is read there; zeros betray nothing.
            UNDEFINED | ZERO | UNMAPPED => (rest, Place::Zero),
            PRESENT => {
                let needed = self.block_size.min(self.size - (at - inside));
                self.check_inside(entry_at, start, needed)?;
                (rest, data)
            }
            PARTLY_PRESENT if self.over_parent => {
                let needed = self.block_size.min(self.size - (at - inside));
                self.check_inside(entry_at, start, needed)?;
                let (len, own) = self.same_sectors(at)?;
                (len, if own { data } else { Place::Parent })
            }
            other => {
                let what = format!("state {other} of block {block} is not known");
                return Err(corrupt("block allocation table", entry_at, what).into());
            }
        })
    }

    fn data(&self, index: usize) -> Option<&dyn ReadAt> {
        (index == 0).then(|| &**self.pages.file())
    }
}
