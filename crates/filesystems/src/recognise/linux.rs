use super::head::Head;
use super::{Recognised, text};
use crate::bytes::{array, be32, be64, le32, le64};
use crate::{FilesystemKind, Result, swap};

pub(super) fn xfs(head: &Head<'_>) -> Result<Option<Recognised>> {
    let Some(sb) = head.with_magic(0, 512, 0, b"XFSB") else { return Ok(None) };
    let (block_size, blocks) = (be32(sb, 4), be64(sb, 8));
    let mut found = Recognised::new(FilesystemKind::Xfs);
    found.uuid = text::uuid(array(sb, 32));
    found.label = text::label(&array::<12>(sb, 108));
    found.block_size = Some(block_size);
    found.size = blocks.checked_mul(u64::from(block_size));
    Ok(Some(found))
}

pub(super) fn btrfs(head: &Head<'_>) -> Result<Option<Recognised>> {
    let Some(sb) = head.with_magic(0x1_0000, 4096, 0x40, b"_BHRfS_M") else { return Ok(None) };
    let mut found = Recognised::new(FilesystemKind::Btrfs);
    found.uuid = text::uuid(array(sb, 0x20));
    found.label = text::label(&array::<256>(sb, 0x12b));
    found.block_size = Some(le32(sb, 0x90));
    // The size of this device (its `dev_item`), not of all devices together.
    found.size = Some(le64(sb, 0xc9 + 8));
    Ok(Some(found))
}

pub(super) fn f2fs(head: &Head<'_>) -> Result<Option<Recognised>> {
    let magic = 0xf2f5_2010_u32.to_le_bytes();
    let Some(sb) = head.with_magic(1024, 1280, 0, &magic) else { return Ok(None) };
    let log_block_size = le32(sb, 16);
    let mut found = Recognised::new(FilesystemKind::F2fs);
    found.uuid = text::uuid(array(sb, 108));
    found.label = text::label_utf16le(&array::<1024>(sb, 124));
    found.block_size = 1u32.checked_shl(log_block_size);
    found.size = found.block_size.and_then(|size| le64(sb, 36).checked_mul(u64::from(size)));
    Ok(Some(found))
}

/// Swap space of Linux 2.2 and later. Its magic ends the first page, and pages differ by
/// machine.
pub(super) fn swap(head: &Head<'_>) -> Result<Option<Recognised>> {
    if sleeps_by_tuxonice(head) {
        return Ok(None);
    }
    for page_size in swap::PAGE_SIZES {
        if head.with_magic(page_size - 10, 10, 0, swap::MAGIC).is_none() {
            continue;
        }
        let Some(info) = head.get(1024, 512) else { continue };
        // Version 1, in either byte order.
        if ![1, 1u32.swap_bytes()].contains(&le32(info, 0)) {
            continue;
        }
        return Ok(Some(swap_info(FilesystemKind::Swap, info, page_size)));
    }
    Ok(None)
}

/// Swap space that was marked when the system was suspended to it: in place of its magic, or at
/// its beginning.
pub(super) fn swap_suspended(head: &Head<'_>) -> Result<Option<Recognised>> {
    for page_size in swap::PAGE_SIZES {
        let Some(end) = head.get(page_size - 10, 10) else { continue };
        let Some(info) = head.get(1024, 512) else { continue };
        let replaced = swap::SUSPENDED.iter().any(|magic| end.starts_with(magic));
        if replaced || sleeps_by_tuxonice(head) && end == swap::MAGIC {
            return Ok(Some(swap_info(FilesystemKind::SwapSuspended, info, page_size)));
        }
    }
    Ok(None)
}

fn sleeps_by_tuxonice(head: &Head<'_>) -> bool {
    head.with_magic(0, swap::TUXONICE.len(), 0, swap::TUXONICE).is_some()
}

fn swap_info(kind: FilesystemKind, info: &[u8], page_size: usize) -> Recognised {
    let page_size = u32::try_from(page_size).unwrap_or(u32::MAX);
    let little = le32(info, 0) != 1u32.swap_bytes();
    let last_page = if little { le32(info, 4) } else { be32(info, 4) };
    let mut found = Recognised::new(kind);
    found.uuid = text::uuid(array(info, 12));
    found.label = text::label(&array::<16>(info, 28));
    found.block_size = Some(page_size);
    found.size = Some((u64::from(last_page) + 1) * u64::from(page_size));
    found
}
