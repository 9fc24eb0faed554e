//! What a VHDX says about its disk.

use aiv_volume_io::ReadAt;

use super::header::guid;
use super::{corrupt, unsupported};
use crate::bytes::{le16, le32, le64, take, utf16};
use crate::follow::names_of_windows;
use crate::open::{Identity, ParentRef};
use crate::{Error, Format, Result};

const TABLE_LEN: usize = 64 << 10;
const ITEMS_MAX: u16 = 2047;
const BLOCK_SIZES: std::ops::RangeInclusive<u64> = 1 << 20..=256 << 20;
const SIZE_MAX: u64 = 64 << 40;
/// Longest parent locator believed: a few names, each as long as a path of Windows can be.
const LOCATOR_MAX: u32 = 1 << 20;

/// CAA16737-FA36-4D43-B3B6-33F0AA44E76B
const PARAMETERS: [u8; 16] = guid(0xCAA1_6737, 0xFA36, 0x4D43, 0xB3B6_33F0_AA44_E76B);
/// 2FA54224-CD1B-4876-B211-5DBED83BF4B8
const SIZE: [u8; 16] = guid(0x2FA5_4224, 0xCD1B, 0x4876, 0xB211_5DBE_D83B_F4B8);
/// 8141BF1D-A96F-4709-BA47-F233A8FAAB5F
const SECTOR: [u8; 16] = guid(0x8141_BF1D, 0xA96F, 0x4709, 0xBA47_F233_A8FA_AB5F);
/// A8D35F2D-B30B-454D-ABF7-D3D84834AB0C
const LOCATOR: [u8; 16] = guid(0xA8D3_5F2D, 0xB30B, 0x454D, 0xABF7_D3D8_4834_AB0C);
/// Known, and not needed for reading: page 83 data, physical sector size.
const OTHERS: [[u8; 16]; 2] = [
    guid(0xBECA_12AB, 0xB2E6, 0x4523, 0x93EF_C309_E000_C746),
    guid(0xCDA3_48C7, 0x445D, 0x4471, 0x9CC9_E988_5251_C556),
];
/// B04AEFB7-D19E-4A81-B789-25B8E9445913
const LOCATOR_KIND: [u8; 16] = guid(0xB04A_EFB7, 0xD19E, 0x4A81, 0xB789_25B8_E944_5913);

pub(super) struct Metadata {
    /// Bytes of the disk: whole sectors, at most 64 TiB.
    pub(super) size: u64,
    /// 512 or 4096.
    pub(super) sector: u64,
    /// A power of two from 1 to 256 MiB.
    pub(super) block_size: u64,
    pub(super) over_parent: bool,
    pub(super) parent: Option<ParentRef>,
}

pub(super) fn read(file: &dyn ReadAt, (region, region_len): (u64, u64)) -> Result<Metadata> {
    let wrong = |what: String| corrupt("metadata", region, what);
    if region_len < TABLE_LEN as u64 {
        return Err(wrong(format!("a region of {region_len} bytes")));
    }
    let mut table = vec![0; TABLE_LEN];
    file.read_exact_at(&mut table, region).map_err(Error::io("read the metadata", region))?;
    if take::<8>(&table, 0) != *b"metadata" {
        return Err(wrong("there is none".into()));
    }
    let count = le16(&table, 10);
    if count > ITEMS_MAX {
        return Err(wrong(format!("{count} items")));
    }
    let (mut parameters, mut size, mut sector, mut locator) = (None, None, None, None);
    for entry in table[32..].chunks_exact(32).zip(0..count).map(|(entry, _)| entry) {
        let id = take::<16>(entry, 0);
        let (at, len, flags) = (le32(entry, 16), le32(entry, 20), le32(entry, 24));
        let wanted = match id {
            PARAMETERS => &mut parameters,
            SIZE => &mut size,
            SECTOR => &mut sector,
            LOCATOR => &mut locator,
            _ if OTHERS.contains(&id) => continue,
            _ if flags & 4 != 0 => {
                return Err(unsupported("it has metadata that is required and not known".into()));
            }
            _ => continue,
        };
        if (at as usize) < TABLE_LEN || u64::from(at) + u64::from(len) > region_len {
            return Err(wrong(format!("item of {len} bytes at {at}")));
        }
        if wanted.replace((region + u64::from(at), len)).is_some() {
            return Err(wrong("an item is listed twice".into()));
        }
    }
    let number = |item: Option<(u64, u32)>, what: &str| {
        let (at, len) = item.ok_or_else(|| wrong(format!("there is no {what}")))?;
        let mut bytes = [0; 8];
        let count = usize::try_from(len).unwrap_or(usize::MAX).min(bytes.len());
        file.read_exact_at(&mut bytes[..count], at).map_err(Error::io("read the metadata", at))?;
        Ok::<_, Error>(bytes)
    };
    let parameters = number(parameters, "block size")?;
    let size = le64(&number(size, "disk size")?, 0);
    let sector = u64::from(le32(&number(sector, "sector size")?, 0));
    let block_size = u64::from(le32(&parameters, 0));
    let over_parent = le32(&parameters, 4) & 2 != 0;
    if sector != 512 && sector != 4096 {
        return Err(wrong(format!("sectors of {sector} bytes")));
    }
    if !block_size.is_power_of_two() || !BLOCK_SIZES.contains(&block_size) {
        return Err(wrong(format!("blocks of {block_size} bytes")));
    }
    if size > SIZE_MAX || !size.is_multiple_of(sector) {
        return Err(wrong(format!("a disk of {size} bytes")));
    }
    let parent = match (over_parent, locator) {
        (false, _) => None,
        (true, None) => return Err(wrong("it has a parent without a name".into())),
        (true, Some((at, len))) => Some(parent(file, at, len)?),
    };
    Ok(Metadata { size, sector, block_size, over_parent, parent })
}

fn parent(file: &dyn ReadAt, at: u64, len: u32) -> Result<ParentRef> {
    let wrong = |what: String| corrupt("parent locator", at, what);
    if !(20..=LOCATOR_MAX).contains(&len) {
        return Err(wrong(format!("{len} bytes")));
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or_default()];
    file.read_exact_at(&mut bytes, at).map_err(Error::io("read the parent locator", at))?;
    if take::<16>(&bytes, 0) != LOCATOR_KIND {
        return Err(unsupported("its parent is named in a way that is not known".into()));
    }
    let (mut relative, mut others, mut expected) = (Vec::new(), Vec::new(), Vec::new());
    for entry in bytes[20..].chunks_exact(12).take(le16(&bytes, 18).into()) {
        let text = |at: u32, len: u16| {
            let from = usize::try_from(at).unwrap_or(usize::MAX);
            let found = bytes.get(from..).and_then(|rest| rest.get(..len.into()));
            found.map(|found| utf16(found, u16::from_le_bytes))
        };
        let key = text(le32(entry, 0), le16(entry, 8));
        let value = text(le32(entry, 4), le16(entry, 10));
        let (Some(key), Some(value)) = (key, value) else {
            return Err(wrong("an entry lies outside".into()));
        };
        match key.as_str() {
            "relative_path" => relative.push(value),
            "volume_path" | "absolute_win32_path" => others.push(value),
            "parent_linkage" | "parent_linkage2" => {
                let id = parse_guid(&value).ok_or_else(|| wrong(format!("linkage '{value}'")))?;
                expected.push(Identity::Guid(id));
            }
            _ => {}
        }
    }
    relative.append(&mut others);
    if expected.is_empty() {
        return Err(wrong("it does not say which parent it is".into()));
    }
    Ok(ParentRef { names: names_of_windows(&relative), format: Some(Format::Vhdx), expected })
}

/// `{83ED2F16-24C2-49A6-A959-78E1B9C7F0A2}`
fn parse_guid(text: &str) -> Option<[u8; 16]> {
    let inner = text.strip_prefix('{')?.strip_suffix('}')?;
    let digits: String = inner.split('-').collect();
    if digits.len() != 32 || !digits.is_ascii() {
        return None;
    }
    let part = |from: usize, to: usize| u64::from_str_radix(digits.get(from..to)?, 16).ok();
    let a = u32::try_from(part(0, 8)?).ok()?;
    let b = u16::try_from(part(8, 12)?).ok()?;
    let c = u16::try_from(part(12, 16)?).ok()?;
    Some(guid(a, b, c, part(16, 32)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guid_in_text_is_the_one_on_disk() {
        let text = "{B04AEFB7-D19E-4A81-B789-25B8E9445913}";
        assert_eq!(parse_guid(text), Some(LOCATOR_KIND));
        assert_eq!(parse_guid(&text.to_lowercase()), Some(LOCATOR_KIND));
        for wrong in ["", "{}", "{B04AEFB7}", "B04AEFB7-D19E-4A81-B789-25B8E9445913", "{é}"] {
            assert_eq!(parse_guid(wrong), None, "{wrong}");
        }
    }
}
