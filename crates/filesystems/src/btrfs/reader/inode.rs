//! What the record of a file says.

use super::super::superblock::Root;
use crate::bytes::{le32, le64};
use crate::{Device, FileFlags, FileType, Metadata, Owner, Timestamp};

/// Bytes of an inode item.
const LEN: usize = 160;

const NO_CHECKSUMS: u64 = 1 << 0;
const IMMUTABLE: u64 = 1 << 6;
const APPEND_ONLY: u64 = 1 << 7;
const NO_DUMP: u64 = 1 << 8;
const COMPRESSED: u64 = 1 << 11;
const VERITY: u64 = 1 << 32;

/// A file of a subvolume.
pub(super) struct Inode {
    /// Where the tree of its subvolume begins.
    pub(super) root: Root,
    pub(super) metadata: Metadata,
    /// Whether there are no checksums of its contents.
    pub(super) is_unchecked: bool,
}

impl Inode {
    /// Nothing when the item is too short, or the file longer than a kernel can count.
    pub(super) fn parse(root: Root, item: &[u8]) -> Option<Self> {
        if item.len() < LEN || le64(item, 16) > i64::MAX.cast_unsigned() {
            return None;
        }
        let (mode, flags) = (le32(item, 52), le64(item, 64));
        let file_type = FileType::of_mode(mode);
        let mut metadata = Metadata::of(file_type);
        metadata.len = le64(item, 16);
        metadata.allocated = Some(le64(item, 24));
        metadata.links = le32(item, 40);
        metadata.owner = Some(Owner { user: le32(item, 44), group: le32(item, 48) });
        metadata.mode = Some((mode & 0o7777) as u16);
        if matches!(file_type, FileType::CharDevice | FileType::BlockDevice) {
            metadata.device = Some(device(le32(item, 56)));
        }
        metadata.flags = FileFlags::default()
            .with(FileFlags::IMMUTABLE, flags & IMMUTABLE != 0)
            .with(FileFlags::APPEND_ONLY, flags & APPEND_ONLY != 0)
            .with(FileFlags::NO_DUMP, flags & NO_DUMP != 0)
            .with(FileFlags::COMPRESSED, flags & COMPRESSED != 0)
            .with(FileFlags::VERITY, flags & VERITY != 0);
        metadata.accessed = Some(time(item, 112));
        metadata.changed = Some(time(item, 124));
        metadata.modified = Some(time(item, 136));
        // Older kernels left it zero.
        metadata.created = Some(time(item, 148)).filter(|time| time.seconds != 0);
        Some(Self { root, metadata, is_unchecked: flags & NO_CHECKSUMS != 0 })
    }
}

/// As the kernel has it in memory, in the low half of the field: 12 bits and 20 bits.
fn device(number: u32) -> Device {
    Device { major: number >> 20, minor: number & 0xf_ffff }
}

fn time(item: &[u8], at: usize) -> Timestamp {
    Timestamp::utc(le64(item, at).cast_signed(), le32(item, at + 8).min(999_999_999))
}
