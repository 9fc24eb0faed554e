//! The footer of a VHD, its copy at the front, and the header of dynamic ones.

use aiv_volume_io::ReadAt;

use super::corrupt;
use crate::bytes::{be32, be64, take, utf16};
use crate::format::VHD_COOKIE;
use crate::{Error, Format, Result};

const FOOTER_LEN: usize = 512;
/// Virtual PC before 2004 wrote the footer without its last byte.
const OLD_FOOTER_LEN: u64 = 511;
const HEADER_LEN: usize = 1024;
/// The format has 2,040 GiB; some programs write larger ones, as far as sectors can be counted.
const SIZE_MAX: u64 = (1 << 32) * 512;
/// 2 MiB is the rule. Others are allowed: powers of two that hold sectors.
const BLOCK_SIZES: std::ops::RangeInclusive<u32> = 512..=1 << 28;
const LOCATORS: usize = 8;
/// Longest name of a parent believed: as long as a path of Windows can be, in UTF-16.
const NAME_MAX: u32 = 65_536;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Fixed,
    Dynamic,
    Differencing,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) kind: Kind,
    /// Bytes of the disk, at most [`SIZE_MAX`].
    pub(super) size: u64,
    pub(super) unique_id: [u8; 16],
    pub(super) saved_state: bool,
    header_at: u64,
}

impl Footer {
    /// Where the header of a dynamic disk is.
    pub(super) fn header_at(&self) -> Option<u64> {
        (self.kind != Kind::Fixed).then_some(self.header_at)
    }
}

/// The footer at the end, or where that one is damaged, its copy at the front.
pub(super) fn read(file: &dyn ReadAt) -> Result<(Footer, Vec<String>)> {
    let len = file.len();
    let mut first = None;
    let ends = [FOOTER_LEN as u64, OLD_FOOTER_LEN].map(|count| len.checked_sub(count));
    let ends = ends.into_iter().flatten().map(|at| (at, false));
    for (at, copy) in ends.chain([(0, true)]) {
        let mut bytes = [0; FOOTER_LEN];
        let count = usize::try_from(len - at).unwrap_or(FOOTER_LEN).min(FOOTER_LEN);
        file.read_exact_at(&mut bytes[..count], at).map_err(Error::io("read the footer", at))?;
        match understand(&bytes, at) {
            // Only dynamic disks have a copy: in a fixed one, the front is content.
            Ok(footer) if !copy => {
                check_fixed(&footer, at)?;
                return Ok((footer, Vec::new()));
            }
            Ok(footer) if footer.kind != Kind::Fixed => {
                let note = "the footer at the end is damaged or missing; its copy is used";
                return Ok((footer, vec![note.into()]));
            }
            Ok(_) => {}
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(first.unwrap_or_else(|| corrupt("footer", 0, "the file is too short for one".into())))
}

fn check_fixed(footer: &Footer, at: u64) -> Result<()> {
    if footer.kind == Kind::Fixed && footer.size > at {
        let what = format!("a fixed disk of {} bytes in a file with {at} in front", footer.size);
        return Err(corrupt("footer", at, what));
    }
    Ok(())
}

/// One's complement of the sum of all bytes but those of the checksum itself.
fn checksum(bytes: &[u8], at: usize) -> u32 {
    let others = bytes.iter().enumerate().filter(|(index, _)| !(at..at + 4).contains(index));
    !others.fold(0u32, |sum, (_, byte)| sum.wrapping_add(u32::from(*byte)))
}

fn understand(bytes: &[u8; FOOTER_LEN], at: u64) -> Result<Footer> {
    let wrong = |what: String| Err(corrupt("footer", at, what));
    if bytes[..8] != *VHD_COOKIE {
        return wrong("there is none".into());
    }
    let (found, stored) = (checksum(bytes, 64), be32(bytes, 64));
    if found != stored {
        return wrong(format!("checksum {found:#010x}, expected {stored:#010x}"));
    }
    let version = be32(bytes, 12);
    if version >> 16 != 1 {
        let what = format!("version {}.{}", version >> 16, version & 0xFFFF);
        return Err(Error::Unsupported { format: Format::Vhd, what });
    }
    let kind = match be32(bytes, 60) {
        2 => Kind::Fixed,
        3 => Kind::Dynamic,
        4 => Kind::Differencing,
        other => return wrong(format!("disk type {other}, known are 2 to 4")),
    };
    let size = be64(bytes, 48);
    if size > SIZE_MAX || !size.is_multiple_of(512) {
        return wrong(format!("a disk of {size} bytes"));
    }
    let saved_state = bytes[84] != 0;
    Ok(Footer { kind, size, unique_id: take(bytes, 68), saved_state, header_at: be64(bytes, 16) })
}

/// What reading a dynamic disk needs, checked.
pub(super) struct Dynamic {
    /// First byte of the block allocation table.
    pub(super) table: u64,
    /// A power of two, at least a sector.
    pub(super) block_size: u32,
    pub(super) parent_id: [u8; 16],
    /// As they are written: the relative ones first.
    pub(super) names: Vec<String>,
}

pub(super) fn read_dynamic(file: &dyn ReadAt, at: u64, footer: &Footer) -> Result<Dynamic> {
    let mut bytes = [0; HEADER_LEN];
    if at.checked_add(HEADER_LEN as u64).is_none_or(|end| end > file.len()) {
        return Err(corrupt("footer", 16, format!("the header is at {at}, past the end")));
    }
    file.read_exact_at(&mut bytes, at).map_err(Error::io("read the header", at))?;
    let wrong = |what: String| Err(corrupt("header", at, what));
    let (found, stored) = (checksum(&bytes, 36), be32(&bytes, 36));
    if bytes[..8] != *b"cxsparse" {
        return wrong("there is none".into());
    }
    if found != stored {
        return wrong(format!("checksum {found:#010x}, expected {stored:#010x}"));
    }
    if be32(&bytes, 24) >> 16 != 1 {
        let what = format!("version {:#x} of the header", be32(&bytes, 24));
        return Err(Error::Unsupported { format: Format::Vhd, what });
    }
    let block_size = be32(&bytes, 32);
    if !block_size.is_power_of_two() || !BLOCK_SIZES.contains(&block_size) {
        return wrong(format!("blocks of {block_size} bytes"));
    }
    let (table, entries) = (be64(&bytes, 16), u64::from(be32(&bytes, 28)));
    let needed = footer.size.div_ceil(block_size.into());
    let end = table.checked_add(needed * 4);
    if entries < needed || end.is_none_or(|end| end > file.len()) {
        return wrong(format!("table of {entries} blocks at {table}, the disk has {needed}"));
    }
    let names = if footer.kind == Kind::Differencing { names(file, &bytes)? } else { Vec::new() };
    Ok(Dynamic { table, block_size, parent_id: take(&bytes, 40), names })
}

fn names(file: &dyn ReadAt, header: &[u8; HEADER_LEN]) -> Result<Vec<String>> {
    let (mut relative, mut others) = (Vec::new(), Vec::new());
    for index in 0..LOCATORS {
        let locator = &header[576 + index * 24..][..24];
        let (code, len, at) = (be32(locator, 0), be32(locator, 8), be64(locator, 16));
        let into = match &code.to_be_bytes() {
            b"W2ru" => &mut relative,
            b"W2ku" => &mut others,
            _ => continue,
        };
        if len > NAME_MAX || at.checked_add(len.into()).is_none_or(|end| end > file.len()) {
            let what = format!("{len} bytes at {at}");
            return Err(corrupt("parent locator", 576 + index as u64 * 24, what));
        }
        let mut bytes = vec![0; usize::try_from(len).unwrap_or_default()];
        file.read_exact_at(&mut bytes, at).map_err(Error::io("read a parent locator", at))?;
        into.push(utf16(&bytes, u16::from_le_bytes));
    }
    others.push(utf16(&header[64..576], u16::from_be_bytes));
    relative.append(&mut others);
    Ok(relative)
}
