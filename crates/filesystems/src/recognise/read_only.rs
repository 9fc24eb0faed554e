use super::head::Head;
use super::{Recognised, text};
use crate::bytes::{array, le16, le32, le64};
use crate::{FilesystemKind, Result};

pub(super) fn squashfs(head: &Head<'_>) -> Result<Option<Recognised>> {
    let Some(sb) = head.with_magic(0, 96, 0, b"hsqs") else { return Ok(None) };
    if le16(sb, 28) < 4 {
        return Ok(None);
    }
    let mut found = Recognised::new(FilesystemKind::Squashfs);
    found.block_size = Some(le32(sb, 12));
    found.size = Some(le64(sb, 40));
    Ok(Some(found))
}

pub(super) fn erofs(head: &Head<'_>) -> Result<Option<Recognised>> {
    let magic = 0xe0f5_e1e2_u32.to_le_bytes();
    let Some(sb) = head.with_magic(1024, 128, 0, &magic) else { return Ok(None) };
    let mut found = Recognised::new(FilesystemKind::Erofs);
    found.block_size = 1u32.checked_shl(u32::from(sb[12]));
    found.size =
        found.block_size.and_then(|size| u64::from(le32(sb, 36)).checked_mul(u64::from(size)));
    found.uuid = text::uuid(array(sb, 48));
    found.label = text::label(&array::<16>(sb, 64));
    Ok(Some(found))
}

/// The primary volume descriptor of ISO 9660 is sector 16. Its identity is the time the volume
/// was made, as `blkid` writes it. Joliet and Rock Ridge names are not read.
pub(super) fn iso9660(head: &Head<'_>) -> Result<Option<Recognised>> {
    let Some(pvd) = head.with_magic(0x8000, 2048, 0, b"\x01CD001") else { return Ok(None) };
    let mut found = Recognised::new(FilesystemKind::Iso9660);
    let block_size = u32::from(le16(pvd, 128));
    found.label = text::label(&array::<32>(pvd, 40));
    found.block_size = Some(block_size);
    found.size = Some(u64::from(le32(pvd, 80)) * u64::from(block_size));
    let made: [u8; 16] = array(pvd, 813);
    if made.iter().all(u8::is_ascii_digit) && made != [b'0'; 16] {
        let digits =
            |range: std::ops::Range<usize>| String::from_utf8_lossy(&made[range]).into_owned();
        let parts = [0..4, 4..6, 6..8, 8..10, 10..12, 12..14, 14..16].map(digits);
        found.uuid = parts.join("-");
    }
    Ok(Some(found))
}
