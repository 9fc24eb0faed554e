//! An inode: what is known about a file, and its two forks.
//!
//! Facts: `xfs_format.h`, `struct xfs_dinode`.

use super::super::checksum;
use super::fork::Place;
use super::layout::{At, Layout};
use crate::bytes::{array, be16, be32, be64};
use crate::reader::{Device, FileFlags, FileType, Metadata, Owner, Timestamp};
use crate::{Error, Result};

const CORE_LEN: usize = 100;
/// Of version 3, which only version 5 of the filesystem has.
const CORE_LEN_3: usize = 176;
const CRC_AT: usize = 100;

const FLAG_REALTIME: u16 = 1 << 0;
const FLAG_IMMUTABLE: u16 = 1 << 3;
const FLAG_APPEND: u16 = 1 << 4;
const FLAG_NO_DUMP: u16 = 1 << 7;
const FLAG2_REFLINK: u64 = 1 << 1;
const FLAG2_BIGTIME: u64 = 1 << 3;
const FLAG2_WIDE_COUNTS: u64 = 1 << 4;

/// Where large times begin to count: -2^31 seconds.
const BIGTIME_START: i64 = 1 << 31;

/// Of which two a file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    /// Contents, names, or what a link says.
    Data,
    /// Extended attributes.
    Attributes,
}

/// An inode that is what it should be.
pub(super) struct Inode {
    pub(super) number: u64,
    /// Byte offset on the volume.
    pub(super) offset: u64,
    /// All of its bytes.
    bytes: Vec<u8>,
}

impl Inode {
    pub(super) fn read(layout: &Layout<'_>, number: u64) -> Result<Self> {
        let offset = layout.inode_offset(number).ok_or_else(|| {
            Error::damaged(format!("there can be no inode of the number {number}"), None)
        })?;
        let mut bytes = vec![0; layout.shape.inode_size];
        let at = layout.read(&mut bytes, offset, "read inode")?;
        let inode = Self { number, offset, bytes };
        inode.check(layout, at)?;
        Ok(inode)
    }

    fn check(&self, layout: &Layout<'_>, at: At) -> Result<()> {
        let shape = &layout.shape;
        let bytes = &self.bytes;
        if bytes[..2] != *b"IN" {
            return Err(self.damaged("its magic is wrong"));
        }
        if shape.self_describing {
            if !at.is_replayed && !checksum::is_right(bytes, CRC_AT) {
                return Err(self.damaged("its checksum is wrong"));
            }
            if be64(bytes, 152) != self.number || array(bytes, 160) != shape.meta_uuid {
                return Err(self.damaged("it was written for another place"));
            }
        }
        let versions = if shape.self_describing { 3..=3 } else { 1..=2 };
        if !versions.contains(&bytes[4]) {
            return Err(self.damaged("its version is unknown"));
        }
        if be16(bytes, 2) == 0 {
            return Err(self.damaged("it is not in use"));
        }
        if self.len() > i64::MAX.cast_unsigned() {
            return Err(self.damaged("its length is negative"));
        }
        if self.forks_at() + 8 * usize::from(bytes[82]) >= bytes.len() {
            return Err(self.damaged("its forks do not fit"));
        }
        Ok(())
    }

    pub(super) fn damaged(&self, what: &str) -> Error {
        Error::damaged(format!("inode {}: {what}", self.number), Some(self.offset))
    }

    fn is_version_3(&self) -> bool {
        self.bytes[4] == 3
    }

    fn forks_at(&self) -> usize {
        if self.is_version_3() { CORE_LEN_3 } else { CORE_LEN }
    }

    fn flags2(&self) -> u64 {
        if self.is_version_3() { be64(&self.bytes, 120) } else { 0 }
    }

    pub(super) fn len(&self) -> u64 {
        be64(&self.bytes, 56)
    }

    pub(super) fn is_folder(&self) -> bool {
        self.file_type() == FileType::Folder
    }

    pub(super) fn is_on_realtime_device(&self) -> bool {
        be16(&self.bytes, 90) & FLAG_REALTIME != 0
    }

    pub(super) fn file_type(&self) -> FileType {
        FileType::of_mode(be16(&self.bytes, 2).into())
    }

    /// Where a fork keeps what it has; `None` where a file has no attributes.
    pub(super) fn fork(&self, which: Which) -> Result<Option<Place<'_>>> {
        let forks = &self.bytes[self.forks_at()..];
        let border = 8 * usize::from(self.bytes[82]);
        let has_wide_counts = self.flags2() & FLAG2_WIDE_COUNTS != 0;
        let (bytes, format, extents) = match which {
            Which::Data => {
                let bytes = if border == 0 { forks } else { &forks[..border] };
                let count = match has_wide_counts {
                    true => be64(&self.bytes, 24),
                    false => be32(&self.bytes, 76).into(),
                };
                (bytes, self.bytes[5], count)
            }
            Which::Attributes if border == 0 => return Ok(None),
            Which::Attributes => {
                let count = match has_wide_counts {
                    true => be32(&self.bytes, 76),
                    false => be16(&self.bytes, 80).into(),
                };
                (&forks[border..], self.bytes[83], count.into())
            }
        };
        Ok(Some(match format {
            0 if which == Which::Data => Place::Device(bytes),
            1 => Place::Local(bytes),
            2 => Place::Extents { bytes, extents },
            3 => Place::Tree { bytes, extents },
            _ => return Err(self.damaged("a fork has an unknown format")),
        }))
    }

    fn time(&self, at: usize) -> Option<Timestamp> {
        if self.flags2() & FLAG2_BIGTIME != 0 {
            let count = be64(&self.bytes, at);
            let seconds = i64::try_from(count / 1_000_000_000).ok()? - BIGTIME_START;
            return Some(Timestamp::utc(seconds, u32::try_from(count % 1_000_000_000).ok()?));
        }
        let seconds = be32(&self.bytes, at).cast_signed();
        let nanoseconds = be32(&self.bytes, at + 4);
        (nanoseconds < 1_000_000_000).then(|| Timestamp::utc(seconds.into(), nanoseconds))
    }

    /// Numbers as SVR4 packs them: 14 bits of the driver, 18 of the device.
    fn device(&self) -> Result<Option<Device>> {
        if !matches!(self.file_type(), FileType::CharDevice | FileType::BlockDevice) {
            return Ok(None);
        }
        match self.fork(Which::Data)? {
            Some(Place::Device(bytes)) if bytes.len() >= 4 => {
                let packed = be32(bytes, 0);
                Ok(Some(Device { major: packed >> 18 & 0x3fff, minor: packed & 0x3_ffff }))
            }
            _ => Err(self.damaged("a device without a number")),
        }
    }

    pub(super) fn metadata(&self, layout: &Layout<'_>) -> Result<Metadata> {
        let bytes = &self.bytes;
        let marks = be16(bytes, 90);
        let is_folder = self.is_folder();
        let flags = FileFlags::default()
            .with(FileFlags::IMMUTABLE, marks & FLAG_IMMUTABLE != 0)
            .with(FileFlags::APPEND_ONLY, marks & FLAG_APPEND != 0)
            .with(FileFlags::NO_DUMP, marks & FLAG_NO_DUMP != 0)
            .with(FileFlags::CASE_FOLDED, is_folder && layout.shape.ignores_case)
            .with(FileFlags::SHARED, self.flags2() & FLAG2_REFLINK != 0);
        Ok(Metadata {
            file_type: self.file_type(),
            len: self.len(),
            allocated: be64(bytes, 64).checked_mul(layout.block_size()),
            mode: Some(be16(bytes, 2) & 0o7777),
            owner: Some(Owner { user: be32(bytes, 8), group: be32(bytes, 12) }),
            links: if bytes[4] == 1 { be16(bytes, 6).into() } else { be32(bytes, 16) },
            modified: self.time(40),
            accessed: self.time(32),
            changed: self.time(48),
            created: if self.is_version_3() { self.time(144) } else { None },
            device: self.device()?,
            flags,
        })
    }
}
