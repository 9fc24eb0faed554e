//! What is known about a file.

use super::superblock::Superblock;
use super::tables::{Cursor, Place, Tables};
use crate::bytes::{le16, le32, le64};
use crate::{
    Device, Error, FileFlags, FileType, LINK_BYTES_MAX, Metadata, Owner, Result, Timestamp,
};

const HEAD: usize = 16;
/// Nothing: no fragment, no attributes.
pub(super) const NONE: u32 = u32::MAX;
/// Kinds of inodes that say more are numbered behind those that say less.
const EXTENDED: u16 = 7;

pub(super) struct Inode {
    pub(super) file_type: FileType,
    mode: u16,
    user: u16,
    group: u16,
    modified: u32,
    links: u32,
    /// Number of its attributes, or [`NONE`].
    pub(super) attributes: u32,
    pub(super) body: Body,
}

pub(super) enum Body {
    Folder {
        /// The block of its names, behind the beginning of their table.
        block: u32,
        offset: u16,
        /// Three more than the names have bytes.
        len: u32,
    },
    File(FileBody),
    Link(Vec<u8>),
    Device(u32),
    Other,
}

pub(super) struct FileBody {
    pub(super) len: u64,
    /// First byte of its blocks on the volume.
    pub(super) start: u64,
    /// The block in which its end is, among the ends of other files, or [`NONE`].
    pub(super) fragment: u32,
    /// Where in that.
    pub(super) offset: u32,
    /// Where the lengths of its blocks begin.
    pub(super) blocks: Place,
}

impl Inode {
    pub(super) fn read(tables: &Tables, superblock: &Superblock, number: u64) -> Result<Self> {
        let place = Place::of(number, superblock.inode_table)?;
        let mut at = tables.from(place);
        let head: [u8; HEAD] = at.array()?;
        let kind = le16(&head, 0);
        let damaged = |what: &str| Error::damaged(format!("an inode {what}"), Some(place.block));
        let is_extended = kind > EXTENDED;
        let mut inode = Self {
            file_type: FileType::Unknown,
            mode: le16(&head, 2) & 0o7777,
            user: le16(&head, 4),
            group: le16(&head, 6),
            modified: le32(&head, 8),
            links: 1,
            attributes: NONE,
            body: Body::Other,
        };
        inode.file_type = match if is_extended { kind - EXTENDED } else { kind } {
            1 => {
                inode.folder(&mut at, is_extended)?;
                FileType::Folder
            }
            2 => {
                inode.file(&mut at, is_extended)?;
                FileType::File
            }
            3 => {
                let words: [u8; 8] = at.array()?;
                let len = usize::try_from(le32(&words, 4)).unwrap_or(usize::MAX);
                if len > LINK_BYTES_MAX {
                    return Err(damaged("has a link that is too long"));
                }
                inode.links = le32(&words, 0);
                inode.body = Body::Link(at.bytes(len)?);
                inode.more(&mut at, is_extended)?;
                FileType::Link
            }
            kind @ (4 | 5) => {
                let words: [u8; 8] = at.array()?;
                inode.links = le32(&words, 0);
                inode.body = Body::Device(le32(&words, 4));
                inode.more(&mut at, is_extended)?;
                if kind == 4 { FileType::BlockDevice } else { FileType::CharDevice }
            }
            kind @ (6 | 7) => {
                inode.links = le32(&at.array::<4>()?, 0);
                inode.more(&mut at, is_extended)?;
                if kind == 6 { FileType::Pipe } else { FileType::Socket }
            }
            _ => return Err(damaged("is of no kind that is known")),
        };
        Ok(inode)
    }

    /// The number of the attributes, at the end of what says more.
    fn more(&mut self, at: &mut Cursor<'_>, is_extended: bool) -> Result<()> {
        if is_extended {
            self.attributes = le32(&at.array::<4>()?, 0);
        }
        Ok(())
    }

    fn folder(&mut self, at: &mut Cursor<'_>, is_extended: bool) -> Result<()> {
        self.body = if is_extended {
            let raw: [u8; 24] = at.array()?;
            self.links = le32(&raw, 0);
            self.attributes = le32(&raw, 20);
            Body::Folder { block: le32(&raw, 8), offset: le16(&raw, 18), len: le32(&raw, 4) }
        } else {
            let raw: [u8; 16] = at.array()?;
            self.links = le32(&raw, 4);
            let len = u32::from(le16(&raw, 8));
            Body::Folder { block: le32(&raw, 0), offset: le16(&raw, 10), len }
        };
        Ok(())
    }

    fn file(&mut self, at: &mut Cursor<'_>, is_extended: bool) -> Result<()> {
        let file = if is_extended {
            let raw: [u8; 40] = at.array()?;
            self.links = le32(&raw, 24);
            self.attributes = le32(&raw, 36);
            FileBody {
                len: le64(&raw, 8),
                start: le64(&raw, 0),
                fragment: le32(&raw, 28),
                offset: le32(&raw, 32),
                blocks: at.place(),
            }
        } else {
            let raw: [u8; 16] = at.array()?;
            FileBody {
                len: le32(&raw, 12).into(),
                start: le32(&raw, 0).into(),
                fragment: le32(&raw, 4),
                offset: le32(&raw, 8),
                blocks: at.place(),
            }
        };
        self.body = Body::File(file);
        Ok(())
    }

    pub(super) fn metadata(&self, tables: &Tables, superblock: &Superblock) -> Result<Metadata> {
        let id = |number: u16| {
            if number >= superblock.ids {
                return Err(Error::damaged("a file belongs to nobody", None));
            }
            let place = tables.listed(superblock.id_table, number.into(), 4)?;
            Ok(le32(&tables.from(place).array::<4>()?, 0))
        };
        let device = match self.body {
            Body::Device(number) => Some(Device {
                major: number >> 8 & 0xfff,
                minor: number & 0xff | number >> 12 & 0xf_ff00,
            }),
            _ => None,
        };
        Ok(Metadata {
            len: match &self.body {
                Body::File(file) => file.len,
                Body::Link(target) => target.len() as u64,
                Body::Folder { len, .. } => u64::from(*len),
                _ => 0,
            },
            mode: Some(self.mode),
            owner: Some(Owner { user: id(self.user)?, group: id(self.group)? }),
            links: self.links,
            modified: Some(Timestamp::utc(self.modified.into(), 0)),
            device,
            flags: FileFlags::default(),
            ..Metadata::of(self.file_type)
        })
    }
}
