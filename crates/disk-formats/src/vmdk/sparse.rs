//! An extent of grains: a directory of tables of grains, which may be compressed.

use std::io;
use std::sync::Arc;

use aiv_volume_io::ReadAt;

use super::descriptor::{self, Descriptor};
use super::{SECTOR, corrupt, unsupported};
use crate::bytes::{le16, le32, le64};
use crate::layer::{Layer, Place};
use crate::pages::Pages;
use crate::{Error, Result, inflate};

const HEADER_LEN: usize = 512;
/// The directory lies at the end, and the last header there says where.
const AT_END: u64 = u64::MAX;
/// Grains are 64 KiB by rule; others are powers of two from 4 KiB up.
const GRAIN_SECTORS: std::ops::RangeInclusive<u64> = 8..=4096;
/// 512 by rule.
const TABLE_ENTRIES: std::ops::RangeInclusive<u32> = 1..=1 << 16;
/// A compressed grain has its place and its length in front.
const GRAIN_HEAD: u64 = 12;

const HAS_ZERO_GRAINS: u32 = 1 << 2;
const COMPRESSED: u32 = 1 << 16;
const NEWLINES: u32 = 1;
/// A second directory, and marks between compressed grains: neither changes what is read.
const HARMLESS: u32 = 1 << 1 | 1 << 17;
const KNOWN: u32 = NEWLINES | HARMLESS | HAS_ZERO_GRAINS | COMPRESSED;

pub(super) struct Sparse {
    pages: Pages,
    /// Bytes.
    size: u64,
    /// Bytes of a grain, a power of two.
    grain: u64,
    table_entries: u64,
    /// First byte of the grain directory, which lies inside the file and covers the disk.
    directory: u64,
    has_zero_grains: bool,
    is_compressed: bool,
    /// Sectors, as the header says.
    text: (u64, u64),
    unclean: bool,
}

pub(super) fn open(file: Arc<dyn ReadAt>) -> Result<Sparse> {
    let front = header(&*file, 0)?;
    let at = if le64(&front, 56) == AT_END {
        // Footer and end marker are the last two sectors.
        file.len().checked_sub(2 * SECTOR).ok_or_else(|| {
            corrupt("header", 56, "the file ends before the footer it speaks of".into())
        })?
    } else {
        0
    };
    let bytes = header(&*file, at)?;
    let wrong = |field: u64, what: String| corrupt("header", at + field, what);
    let (version, flags) = (le32(&bytes, 4), le32(&bytes, 8));
    if !(1..=3).contains(&version) || flags & !KNOWN != 0 {
        return Err(unsupported(format!("version {version} with flags {flags:#x} is not known")));
    }
    if flags & NEWLINES != 0 && bytes[73..77] != *b"\n \r\n" {
        let what = "its line ends were changed: it was transferred as text, and is lost";
        return Err(wrong(73, what.into()));
    }
    let is_compressed = flags & COMPRESSED != 0;
    if is_compressed && le16(&bytes, 77) != 1 {
        let what = format!("compression {} is not known", le16(&bytes, 77));
        return Err(unsupported(what));
    }
    let (grain, entries) = (le64(&bytes, 20), le32(&bytes, 44));
    if !grain.is_power_of_two() || !GRAIN_SECTORS.contains(&grain) {
        return Err(wrong(20, format!("grains of {grain} sectors")));
    }
    if !TABLE_ENTRIES.contains(&entries) {
        return Err(wrong(44, format!("{entries} entries in a grain table")));
    }
    let size = le64(&bytes, 12).checked_mul(SECTOR);
    let size = size.ok_or_else(|| wrong(12, format!("{} sectors", le64(&bytes, 12))))?;
    let tables = size.div_ceil(grain * SECTOR * u64::from(entries));
    let directory = le64(&bytes, 56).checked_mul(SECTOR);
    let end = directory.and_then(|at| at.checked_add(tables.checked_mul(4)?));
    let Some(directory) = directory.filter(|_| end.is_some_and(|end| end <= file.len())) else {
        let what = format!("directory of {tables} tables at sector {}", le64(&bytes, 56));
        return Err(wrong(56, what));
    };
    Ok(Sparse {
        size,
        grain: grain * SECTOR,
        table_entries: entries.into(),
        directory,
        has_zero_grains: flags & HAS_ZERO_GRAINS != 0,
        is_compressed,
        text: (le64(&front, 28), le64(&front, 36)),
        unclean: front[72] != 0,
        pages: Pages::new(file),
    })
}

fn header(file: &dyn ReadAt, at: u64) -> Result<[u8; HEADER_LEN]> {
    let mut bytes = [0; HEADER_LEN];
    let count = usize::try_from(file.len().saturating_sub(at)).unwrap_or(HEADER_LEN);
    let there = count.min(HEADER_LEN);
    file.read_exact_at(&mut bytes[..there], at).map_err(Error::io("read the header", at))?;
    match &bytes[..4] {
        b"KDMV" if there == HEADER_LEN => Ok(bytes),
        b"COWD" => Err(unsupported("sparse extents of ESX (COWD) are not read; convert it".into())),
        _ => Err(corrupt("header", at, "there is none".into())),
    }
}

impl Sparse {
    /// The description inside the extent, where it is a disk of its own.
    pub(super) fn descriptor(&self) -> Result<Option<Descriptor>> {
        let (at, len) = self.text;
        if at == 0 || len == 0 {
            return Ok(None);
        }
        let bytes = at.checked_mul(SECTOR).zip(len.checked_mul(SECTOR));
        let (at, len) = bytes.ok_or_else(|| corrupt("header", 28, format!("sector {at}")))?;
        descriptor::read(&**self.pages.file(), at, len).map(Some)
    }

    pub(super) fn notes(&self) -> Vec<String> {
        let note = "the image was not closed properly; what its tables say is what is read";
        self.unclean.then(|| note.to_owned()).into_iter().collect()
    }

    /// The sector of the grain that holds `at`, and where that was read; `None` where there is no
    /// table for it.
    fn entry(&self, at: u64) -> io::Result<Option<(u64, u32)>> {
        let index = at / self.grain;
        let slot = self.directory + index / self.table_entries * 4;
        let table = u64::from(le32(&self.pages.array::<4>(slot)?, 0)) * SECTOR;
        if table == 0 {
            return Ok(None);
        }
        let slot = table + index % self.table_entries * 4;
        if slot + 4 > self.pages.file().len() {
            let what = format!("grain table at {table}, past the end");
            return Err(corrupt("grain directory", slot, what).into());
        }
        Ok(Some((slot, le32(&self.pages.array::<4>(slot)?, 0))))
    }
}

impl Sparse {
    /// How many of the entries behind `slot`, which is that of byte `at`, are zero as well: tables
    /// of nothing are what most of a large disk has.
    fn absent_after(&self, slot: u64, at: u64) -> io::Result<u64> {
        let mut entries = [0; 512];
        let left = self.table_entries - 1 - at / self.grain % self.table_entries;
        let there = self.pages.file().len().saturating_sub(slot + 4);
        let len = (left * 4).min(there).min(entries.len() as u64) / 4 * 4;
        let found = &mut entries[..usize::try_from(len).map_err(io::Error::other)?];
        self.pages.read(found, slot + 4)?;
        Ok(found.chunks_exact(4).take_while(|entry| **entry == [0; 4]).count() as u64)
    }
}

impl Layer for Sparse {
    fn len(&self) -> u64 {
        self.size
    }

    fn find(&self, at: u64) -> io::Result<(u64, Place)> {
        let inside = at % self.grain;
        let rest = self.grain - inside;
        let Some((slot, sector)) = self.entry(at)? else {
            let share = self.grain * self.table_entries;
            return Ok((share - at % share, Place::Parent));
        };
        let place = match sector {
            0 => return Ok((rest + self.absent_after(slot, at)? * self.grain, Place::Parent)),
            1 if self.has_zero_grains => Place::Zero,
            _ if self.is_compressed => Place::Packed { unit: at - inside },
            _ => {
                let offset = u64::from(sector) * SECTOR;
                let needed = self.grain.min(self.size - (at - inside));
                let file_len = self.pages.file().len();
                if offset + needed > file_len {
                    let what = format!("grain at {offset}, the file ends at {file_len}");
                    return Err(corrupt("grain table", slot, what).into());
                }
                Place::Data { file: 0, offset: offset + inside }
            }
        };
        Ok((rest, place))
    }

    fn data(&self, index: usize) -> Option<&dyn ReadAt> {
        (index == 0).then(|| &**self.pages.file())
    }

    fn unpack(&self, unit: u64) -> io::Result<Vec<u8>> {
        let (_, sector) = self.entry(unit)?.ok_or(io::ErrorKind::InvalidInput)?;
        let (at, file_len) = (u64::from(sector) * SECTOR, self.pages.file().len());
        let wrong = |what: String| io::Error::from(corrupt("compressed grain", at, what));
        if at + GRAIN_HEAD > file_len {
            return Err(wrong(format!("the file ends at {file_len}")));
        }
        let head = self.pages.array::<12>(at)?;
        let (lba, len) = (le64(&head, 0), u64::from(le32(&head, 8)));
        if lba != unit / SECTOR {
            return Err(wrong(format!("it is that of sector {lba}, not {}", unit / SECTOR)));
        }
        // Deflate grows what it cannot shrink by less than this.
        let longest = self.grain + self.grain / 8 + 64;
        if len > longest || at + GRAIN_HEAD + len > file_len {
            return Err(wrong(format!("{len} bytes, the file ends at {file_len}")));
        }
        let as_len = |len: u64| usize::try_from(len).map_err(io::Error::other);
        let mut packed = vec![0; as_len(len)?];
        self.pages.file().read_exact_at(&mut packed, at + GRAIN_HEAD)?;
        let mut out = vec![0; as_len(self.grain)?];
        // The last grain of a disk may be cut where the disk ends.
        let needed = as_len(self.grain.min(self.size - unit))?;
        let done = inflate::deflate(&packed, &mut out, true)
            .or_else(|| inflate::deflate(&packed, &mut out[..needed], true));
        done.map(|()| out).ok_or_else(|| wrong(format!("{len} bytes are no grain")))
    }
}
