use super::head::Head;
use super::{Recognised, text};
use crate::bytes::{array, be32, le32};
use crate::{FilesystemKind, Result};

const MD_MAGIC: u32 = 0xa92b_4efc;

/// A member of a Linux software RAID: format 1.1 and 1.2 near the front, 1.0 and 0.90 near the
/// end, where a mirror shows its contents as if there were no RAID.
pub(super) fn md_member(head: &Head<'_>) -> Result<Option<Recognised>> {
    for at in [0, 4096] {
        if let Some(found) = head.get(at, 256).and_then(version_1) {
            return Ok(Some(found));
        }
    }
    let len = head.volume_len();
    // 1.0: between 8 and 12 KiB before the end, on a 4 KiB boundary.
    if let Some(at) = (len & !511).checked_sub(8 << 10).map(|at| at & !4095)
        && let Some(found) = head.far(at, 256)?.as_deref().and_then(version_1)
    {
        return Ok(Some(found));
    }
    // 0.90: the last whole, aligned 64 KiB.
    let Some(at) = (len & !0xffff).checked_sub(64 << 10) else { return Ok(None) };
    Ok(head.far(at, 256)?.as_deref().and_then(version_0))
}

fn version_1(sb: &[u8]) -> Option<Recognised> {
    if le32(sb, 0) != MD_MAGIC || le32(sb, 4) != 1 {
        return None;
    }
    let mut found = Recognised::new(FilesystemKind::MdRaidMember);
    found.uuid = text::uuid(array(sb, 16));
    found.label = text::label(&array::<32>(sb, 32));
    Some(found)
}

/// Format 0.90 is in the byte order of the machine that made it.
fn version_0(sb: &[u8]) -> Option<Recognised> {
    let word: fn(&[u8], usize) -> u32 = match () {
        () if le32(sb, 0) == MD_MAGIC => le32,
        () if be32(sb, 0) == MD_MAGIC => be32,
        () => return None,
    };
    if word(sb, 4) != 0 || word(sb, 8) != 90 {
        return None;
    }
    let mut uuid = [0; 16];
    for (part, at) in uuid.chunks_exact_mut(4).zip([20, 52, 56, 60]) {
        part.copy_from_slice(&word(sb, at).to_be_bytes());
    }
    let mut found = Recognised::new(FilesystemKind::MdRaidMember);
    found.uuid = text::uuid(uuid);
    Some(found)
}
