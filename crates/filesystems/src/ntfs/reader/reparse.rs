//! Reparse points, and the files by which Interix and ntfs-3g mean links and devices.
//!
//! Facts: Microsoft, [MS-FSCC] 2.1.2 (reparse points) and what ntfs-3g makes of system files.
//!
//! What a link of Windows says is given as follows. Of its two names the substitute name is
//! taken, which is what Windows follows; `\` becomes `/`. A relative one is given so
//! (`../folder/file`). An absolute one loses the `\??\` in front, which names no folder:
//! `C:/folder`, `Volume{…}/`, `UNC/server/share`. A link of WSL is given as it is.

use crate::bytes::{le16, le32, le64};
use crate::reader::wtf8;
use crate::{Device, FileType};

const MOUNT_POINT: u32 = 0xa000_0003;
const SYMLINK: u32 = 0xa000_000c;
const LX_SYMLINK: u32 = 0xa000_001d;
const AF_UNIX: u32 = 0x8000_0023;
const LX_FIFO: u32 = 0x8000_0024;
const LX_CHR: u32 = 0x8000_0025;
const LX_BLK: u32 = 0x8000_0026;
pub(super) const WOF: u32 = 0x8000_0017;
pub(super) const DEDUP: u32 = 0x8000_0013;

/// A file of a cloud: its tag is one of sixteen.
const CLOUD: u32 = 0x9000_001a;
const CLOUD_MASK: u32 = 0xffff_0fff;
/// Marks that say that the bytes are elsewhere: offline, recall on open, recall on data access.
const ELSEWHERE: u32 = 0x1000 | 0x4_0000 | 0x40_0000;

/// Bytes of a reparse point (Microsoft: 16 KiB).
pub(super) const REPARSE_MAX: u64 = 16 << 10;

/// A reparse point.
pub(super) struct Reparse<'a> {
    pub(super) tag: u32,
    pub(super) data: &'a [u8],
}

impl<'a> Reparse<'a> {
    pub(super) fn parse(value: &'a [u8]) -> Option<Self> {
        let head = value.get(..8)?;
        let data = value.get(8..8 + usize::from(le16(head, 4)))?;
        Some(Self { tag: le32(head, 0), data })
    }

    /// What it makes of a file or folder with these marks.
    pub(super) fn file_type(&self, is_folder: bool, marks: u32) -> FileType {
        match self.tag {
            MOUNT_POINT | SYMLINK | LX_SYMLINK => FileType::Link,
            AF_UNIX => FileType::Socket,
            LX_FIFO => FileType::Pipe,
            LX_CHR => FileType::CharDevice,
            LX_BLK => FileType::BlockDevice,
            // Its names are there whatever a driver would add.
            _ if is_folder => FileType::Folder,
            WOF | DEDUP => FileType::File,
            tag if tag & CLOUD_MASK == CLOUD && marks & ELSEWHERE == 0 => FileType::File,
            tag => FileType::Reparse { tag },
        }
    }

    /// What a link says.
    pub(super) fn target(&self) -> Option<Vec<u8>> {
        let names_at = match self.tag {
            MOUNT_POINT => 8,
            SYMLINK => 12,
            LX_SYMLINK => return self.data.get(4..).map(<[u8]>::to_vec),
            _ => return None,
        };
        let head = self.data.get(..names_at)?;
        let at = names_at + usize::from(le16(head, 0));
        let name = self.data.get(at..at + usize::from(le16(head, 2)))?;
        let name = wtf8(units(name));
        let is_relative = self.tag == SYMLINK && le32(head, 8) & 1 != 0;
        let name = match name.strip_prefix(br"\??\") {
            Some(rest) if !is_relative => rest,
            _ => &name,
        };
        Some(name.iter().map(|&byte| if byte == b'\\' { b'/' } else { byte }).collect())
    }
}

fn units(bytes: &[u8]) -> impl Iterator<Item = u16> {
    bytes.as_chunks().0.iter().map(|&unit| u16::from_le_bytes(unit))
}

/// What a system file is that Interix or ntfs-3g made.
pub(super) struct Interix {
    pub(super) file_type: FileType,
    pub(super) device: Option<Device>,
    pub(super) target: Vec<u8>,
}

impl Interix {
    /// The longest such file: the name of a link has 4096 units.
    pub(super) const MAX: u64 = 8 + 2 * 4096;

    /// By the bytes of a system file.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        const LINK: &[u8; 8] = b"IntxLNK\x01";
        let plain = |file_type| Some(Self { file_type, device: None, target: Vec::new() });
        let device = |file_type| {
            let number = |at| bytes.get(at..at + 8).map(|bytes| le64(bytes, 0));
            let number = |at| number(at).and_then(|number| u32::try_from(number).ok());
            let device = Device { major: number(8)?, minor: number(16)? };
            Some(Self { file_type, device: Some(device), target: Vec::new() })
        };
        match bytes.get(..8) {
            None if bytes.is_empty() => plain(FileType::Pipe),
            None if bytes.len() == 1 => plain(FileType::Socket),
            Some(b"IntxCHR\0") if bytes.len() >= 24 => device(FileType::CharDevice),
            Some(b"IntxBLK\0") if bytes.len() >= 24 => device(FileType::BlockDevice),
            Some(magic) if magic == LINK && bytes.len() > 8 => {
                let target = wtf8(units(&bytes[8..]));
                Some(Self { file_type: FileType::Link, device: None, target })
            }
            _ => None,
        }
    }
}
