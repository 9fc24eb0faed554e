use super::head::Head;
use super::{Recognised, text};
use crate::bytes::{array, be16, le32, le64};
use crate::{FilesystemKind, Result};

pub(super) fn luks(head: &Head<'_>) -> Result<Option<Recognised>> {
    let Some(header) = head.with_magic(0, 512, 0, b"LUKS\xba\xbe") else { return Ok(None) };
    let mut found = Recognised::new(FilesystemKind::LuksContainer);
    found.uuid = text::label(&array::<40>(header, 168));
    // Version 1 keeps the cipher's name where version 2 has its label.
    if be16(header, 6) == 2 {
        found.label = text::label(&array::<48>(header, 24));
    }
    Ok(Some(found))
}

pub(super) fn bcache(head: &Head<'_>) -> Result<Option<Recognised>> {
    const MAGIC: [u8; 16] = [
        0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca, 0x82, 0x65, 0xf5, 0x7f, 0x48, 0xba, 0x6d,
        0x81,
    ];
    let sb = head.with_magic(4096, 512, 24, &MAGIC);
    // It says in which sector it is. The same magic with another number begins a bcachefs.
    let Some(sb) = sb.filter(|sb| le64(sb, 8) == 8) else { return Ok(None) };
    let mut found = Recognised::new(FilesystemKind::Bcache);
    found.uuid = text::uuid(array(sb, 40));
    found.label = text::label(&array::<32>(sb, 72));
    Ok(Some(found))
}

pub(super) fn dm_integrity(head: &Head<'_>) -> Result<Option<Recognised>> {
    let found = head.with_magic(0, 512, 0, b"integrt\0").is_some();
    Ok(found.then(|| Recognised::new(FilesystemKind::DmIntegrity)))
}

pub(super) fn vdo(head: &Head<'_>) -> Result<Option<Recognised>> {
    let Some(sb) = head.with_magic(0, 512, 0, b"dmvdo001") else { return Ok(None) };
    let mut found = Recognised::new(FilesystemKind::Vdo);
    found.uuid = text::uuid(array(sb, 40));
    Ok(Some(found))
}

/// An LVM2 label is in one of the first four sectors.
pub(super) fn lvm2(head: &Head<'_>) -> Result<Option<Recognised>> {
    for sector in 0..4 {
        let Some(label) = head.with_magic(sector * 512, 512, 0, b"LABELONE") else { continue };
        if label[24..32] != *b"LVM2 001" || le64(label, 8) != sector as u64 {
            continue;
        }
        let header_at = usize::try_from(le32(label, 20)).unwrap_or(usize::MAX);
        let header = header_at.checked_add(40).and_then(|end| label.get(header_at..end));
        let Some(header) = header else { continue };
        let mut found = Recognised::new(FilesystemKind::Lvm2Member);
        found.uuid = lvm_uuid(&array(header, 0));
        found.size = Some(le64(header, 32));
        return Ok(Some(found));
    }
    Ok(None)
}

/// LVM groups its 32 letters 6-4-4-4-4-4-6.
fn lvm_uuid(letters: &[u8; 32]) -> String {
    let mut text = String::with_capacity(38);
    for (i, &letter) in letters.iter().enumerate() {
        if matches!(i, 6 | 10 | 14 | 18 | 22 | 26) {
            text.push('-');
        }
        text.push(char::from(letter));
    }
    text
}

/// ZFS has no single magic; a label is a ring of uberblocks, a few of which must be there.
/// Name and identity of the pool are in nested lists and not read.
pub(super) fn zfs(head: &Head<'_>) -> Result<Option<Recognised>> {
    const UBERBLOCK_MAGIC: u64 = 0x00ba_b10c;
    /// As many as `blkid` asks for; stray bytes do not make four.
    const UBERBLOCKS_MIN: usize = 4;
    let uberblocks =
        (128 << 10..256 << 10).step_by(1024).filter_map(|at| head.get(at, 8)).filter(|block| {
            let magic = le64(block, 0);
            magic == UBERBLOCK_MAGIC || magic.swap_bytes() == UBERBLOCK_MAGIC
        });
    let found = uberblocks.count() >= UBERBLOCKS_MIN;
    Ok(found.then(|| Recognised::new(FilesystemKind::Zfs)))
}
