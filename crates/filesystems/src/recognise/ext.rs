use super::head::Head;
use super::{Recognised, text};
use crate::bytes::{array, le16, le32};
use crate::ext::{SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE, features};
use crate::{FilesystemKind, Result};

/// ext2, ext3, ext4 and their external journals: one superblock, told apart by features the
/// way `blkid` does.
pub(super) fn ext(head: &Head<'_>) -> Result<Option<Recognised>> {
    let at = SUPERBLOCK_OFFSET;
    let Some(sb) = head.with_magic(at, SUPERBLOCK_SIZE, 0x38, &[0x53, 0xef]) else {
        return Ok(None);
    };
    // Two bytes are little evidence; a block size no ext filesystem has unmasks an accident.
    let log_block_size = le32(sb, 0x18);
    if log_block_size > 6 || le16(sb, 0x4c) > 1 {
        return Ok(None);
    }
    let (compat, incompat, ro_compat) = (le32(sb, 0x5c), le32(sb, 0x60), le32(sb, 0x64));
    let mut found = Recognised::new(kind(compat, incompat, ro_compat));
    let blocks_hi = if incompat & features::INCOMPAT_64BIT != 0 { le32(sb, 0x150) } else { 0 };
    let blocks = u64::from(le32(sb, 4)) | u64::from(blocks_hi) << 32;
    found.label = text::label(&array::<16>(sb, 0x78));
    found.uuid = text::uuid(array(sb, 0x68));
    found.block_size = Some(1024 << log_block_size);
    found.size = blocks.checked_mul(1024 << log_block_size);
    Ok(Some(found))
}

fn kind(compat: u32, incompat: u32, ro_compat: u32) -> FilesystemKind {
    const EXT3_RO_COMPAT: u32 = features::RO_COMPAT_SPARSE_SUPER
        | features::RO_COMPAT_LARGE_FILE
        | features::RO_COMPAT_BTREE_DIR;
    const EXT2_INCOMPAT: u32 = features::INCOMPAT_FILETYPE | features::INCOMPAT_META_BG;
    const EXT3_INCOMPAT: u32 = EXT2_INCOMPAT | features::INCOMPAT_RECOVER;

    let journal = compat & features::COMPAT_HAS_JOURNAL != 0;
    let within =
        |incompat_known: u32| ro_compat & !EXT3_RO_COMPAT == 0 && incompat & !incompat_known == 0;
    if incompat & features::INCOMPAT_JOURNAL_DEV != 0 {
        FilesystemKind::ExtJournal
    } else if !journal && within(EXT2_INCOMPAT) {
        FilesystemKind::Ext2
    } else if journal && within(EXT3_INCOMPAT) {
        FilesystemKind::Ext3
    } else {
        FilesystemKind::Ext4
    }
}
