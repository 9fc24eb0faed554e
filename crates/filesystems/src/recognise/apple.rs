use super::head::Head;
use super::{Recognised, text};
use crate::bytes::{array, be32, le32, le64};
use crate::{FilesystemKind, Result};

pub(super) fn apfs(head: &Head<'_>) -> Result<Option<Recognised>> {
    let Some(sb) = head.with_magic(0, 88, 32, b"NXSB") else { return Ok(None) };
    let (block_size, blocks) = (le32(sb, 36), le64(sb, 40));
    let mut found = Recognised::new(FilesystemKind::Apfs);
    found.uuid = text::uuid(array(sb, 72));
    found.block_size = Some(block_size);
    found.size = blocks.checked_mul(u64::from(block_size));
    Ok(Some(found))
}

/// HFS+ and HFSX. The label is a key in the catalog tree and not read.
pub(super) fn hfs_plus(head: &Head<'_>) -> Result<Option<Recognised>> {
    let Some(sb) = head.get(1024, 512) else { return Ok(None) };
    // Signature and version belong together: "H+" 4, "HX" 5.
    if !sb.starts_with(b"H+\0\x04") && !sb.starts_with(b"HX\0\x05") {
        return Ok(None);
    }
    let (block_size, blocks) = (be32(sb, 40), be32(sb, 44));
    let mut found = Recognised::new(FilesystemKind::HfsPlus);
    found.block_size = Some(block_size);
    found.size = Some(u64::from(blocks) * u64::from(block_size));
    Ok(Some(found))
}
