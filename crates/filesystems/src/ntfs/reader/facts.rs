//! What is known about a file beside its bytes.

use super::Ntfs;
use super::contents::{COMPRESSED, ENCRYPTED};
use super::file::{Attr, File, Held, damaged};
use super::information::{HIDDEN, Information, Linux, SYSTEM};
use super::reparse::{DEDUP, Interix, REPARSE_MAX, Reparse, WOF};
use crate::ntfs::reason::NtfsReason;
use crate::ntfs::record::{DATA, REPARSE_POINT};
use crate::reader::wtf8;
use crate::{Attribute, Device, Error, FileFlags, FileType, Metadata, Owner, Result, Stream};

const STANDARD_INFORMATION: u32 = 0x10;
const SECURITY_DESCRIPTOR: u32 = 0x50;
const EA: u32 = 0xe0;
const LOGGED_UTILITY_STREAM: u32 = 0x100;
/// UTF-16 of `$EFS`.
const EFS: &[u8] = b"$\0E\0F\0S\0";

/// Bytes of all extended attributes of a file (Windows: 64 KiB).
const EA_MAX: u64 = 64 << 10;
/// Bytes of what says who may decrypt a file (Microsoft: 256 KiB).
const EFS_MAX: u64 = 256 << 10;
/// Bytes of a security descriptor: four lists of at most 64 KiB.
pub(super) const SECURITY_MAX: u64 = 256 << 10;
/// The stream Windows keeps what the main one is compressed to in, and does not show.
pub(super) const WOF_STREAM: &str = "WofCompressedData";

/// What a file is, and what was read to tell.
pub(super) struct Kind {
    pub(super) file_type: FileType,
    pub(super) target: Option<Vec<u8>>,
    device: Option<Device>,
    /// Stored compressed by the Windows Overlay Filter, with this reparse point.
    pub(super) wof: Option<Vec<u8>>,
    /// Its bytes are among those of others.
    pub(super) is_elsewhere: bool,
}

impl Ntfs {
    pub(super) fn information(&self, file: &File) -> Result<Option<Information>> {
        let first = self.first(file, STANDARD_INFORMATION, &[])?;
        Ok(first.and_then(|attr| match attr.value {
            Held::Resident(value) => Information::parse(&value),
            Held::Mapped(_) => None,
        }))
    }

    pub(super) fn is_case_sensitive(&self, folder: &File) -> bool {
        self.information(folder).is_ok_and(|found| found.is_some_and(|it| it.is_case_sensitive))
    }

    /// What a file is.
    pub(super) fn kind_of(&self, file: &File, marks: u32, device: Option<Device>) -> Result<Kind> {
        let plain = |file_type| Kind {
            file_type,
            target: None,
            device: None,
            wof: None,
            is_elsewhere: false,
        };
        if let Some(value) = self.value(file, REPARSE_POINT, &[], REPARSE_MAX)? {
            let what = "has a damaged reparse point";
            let wrong = NtfsReason::Record { record: file.number, what };
            let reparse = Reparse::parse(&value).ok_or_else(|| damaged(&wrong))?;
            let file_type = reparse.file_type(file.is_folder, marks);
            let target = reparse.target();
            let is_device = matches!(file_type, FileType::CharDevice | FileType::BlockDevice);
            let is_wof = reparse.tag == WOF && !file.is_folder;
            let is_elsewhere = reparse.tag == DEDUP;
            return match (file_type, &target) {
                (FileType::Link, None) => Err(damaged(&wrong)),
                _ => Ok(Kind {
                    file_type,
                    target,
                    device: device.filter(|_| is_device),
                    wof: is_wof.then_some(value),
                    is_elsewhere,
                }),
            };
        }
        if file.is_folder {
            return Ok(plain(FileType::Folder));
        }
        if marks & (SYSTEM | HIDDEN) == SYSTEM && !self.is_own(file) {
            let main = self.first(file, DATA, &[])?;
            let is_short = |attr: &Attr| attr.len() <= Interix::MAX && attr.flags & ENCRYPTED == 0;
            if main.as_ref().is_some_and(is_short) {
                let data = self.open_data(file, &[])?;
                let mut bytes = vec![0; usize::try_from(data.len()).unwrap_or(0)];
                data.read_exact_at(&mut bytes, 0).map_err(Error::io("read system file", 0))?;
                if let Some(Interix { file_type, device, target }) = Interix::parse(&bytes) {
                    let target = (file_type == FileType::Link).then_some(target);
                    return Ok(Kind { target, device, ..plain(file_type) });
                }
            }
        }
        Ok(plain(FileType::File))
    }

    /// Whether it is one of the filesystem's own.
    fn is_own(&self, file: &File) -> bool {
        file.number < 24
    }

    pub(super) fn metadata_of(&self, file: &File) -> Result<Metadata> {
        let information = self.information(file)?;
        let marks = information.map_or(0, |it| it.marks);
        let linux = self.value(file, EA, &[], EA_MAX)?;
        let linux = linux.map_or_else(Linux::default, |list| Linux::parse(&list));
        let device = linux.device.map(|(major, minor)| Device { major, minor });
        let kind = self.kind_of(file, marks, device)?;
        let mut metadata = Metadata::of(kind.file_type);
        let main = self.first(file, DATA, &[])?;
        if let Some(main) = &main {
            metadata.len = main.len();
            metadata.allocated = Some(match &main.value {
                Held::Resident(_) => 0,
                Held::Mapped(map) if map.unit != 0 => map.stored.unwrap_or(map.allocated),
                Held::Mapped(map) => map.allocated,
            });
        }
        if let Some(target) = &kind.target {
            metadata.len = target.len() as u64;
        }
        if kind.wof.is_some() {
            let packed = self.first(file, DATA, &utf16(WOF_STREAM))?;
            metadata.allocated = packed.map(|attr| match &attr.value {
                Held::Resident(_) => 0,
                Held::Mapped(map) => map.allocated,
            });
        }
        metadata.links = self.names(file);
        metadata.device = kind.device;
        // Twelve bits are.
        metadata.mode = linux.mode.and_then(|mode| u16::try_from(mode & 0o7777).ok());
        metadata.owner = linux.user.zip(linux.group).map(|(user, group)| Owner { user, group });
        if let Some(information) = information {
            metadata.modified = Some(information.modified);
            metadata.accessed = Some(information.accessed);
            metadata.changed = Some(information.changed);
            metadata.created = Some(information.created);
            metadata.flags = information.flags();
        }
        let is_flagged = |flag| main.as_ref().is_some_and(|attr| attr.flags & flag != 0);
        let is_folded = file.is_folder && information.is_none_or(|it| !it.is_case_sensitive);
        metadata.flags = metadata
            .flags
            .with(FileFlags::COMPRESSED, is_flagged(COMPRESSED) || kind.wof.is_some())
            .with(FileFlags::ENCRYPTED, is_flagged(ENCRYPTED))
            .with(FileFlags::CASE_FOLDED, is_folded);
        Ok(metadata)
    }

    pub(super) fn target_of(&self, file: &File) -> Result<Vec<u8>> {
        let marks = self.information(file)?.map_or(0, |it| it.marks);
        let target = self.kind_of(file, marks, None)?.target;
        target.ok_or(Error::WrongType { wanted: "link" })
    }

    pub(super) fn attributes_of(&self, file: &File) -> Result<Vec<Attribute>> {
        let mut attributes = Vec::new();
        let mut add = |name: &[u8], value: Option<Vec<u8>>| {
            let named = |value| Attribute { name: name.to_vec(), value };
            attributes.extend(value.map(named));
        };
        add(b"system.ntfs_acl", self.security_of(file)?);
        add(b"system.ntfs_ea", self.value(file, EA, &[], EA_MAX)?);
        add(b"system.ntfs_efsinfo", self.value(file, LOGGED_UTILITY_STREAM, EFS, EFS_MAX)?);
        add(b"system.ntfs_reparse_data", self.value(file, REPARSE_POINT, &[], REPARSE_MAX)?);
        Ok(attributes)
    }

    /// Who may do what, as Windows keeps it.
    fn security_of(&self, file: &File) -> Result<Option<Vec<u8>>> {
        if let Some(own) = self.value(file, SECURITY_DESCRIPTOR, &[], SECURITY_MAX)? {
            return Ok(Some(own));
        }
        match self.information(file)?.map_or(0, |it| it.security) {
            0 => Ok(None),
            number => self.descriptor(number).map(Some),
        }
    }

    pub(super) fn streams_of(&self, file: &File) -> Result<Vec<Stream>> {
        let marks = self.information(file)?.map_or(0, |it| it.marks);
        let is_wof = self.kind_of(file, marks, None).is_ok_and(|kind| kind.wof.is_some());
        let hidden = utf16(WOF_STREAM);
        let mut streams = Vec::new();
        self.each(file, DATA, &mut |attr| {
            let is_hidden = is_wof && attr.name == hidden;
            if !attr.name.is_empty() && !is_hidden {
                let units = attr.name.as_chunks().0.iter();
                let name = wtf8(units.map(|&unit| u16::from_le_bytes(unit)));
                streams.push(Stream { name, len: attr.len() });
            }
        })?;
        Ok(streams)
    }
}

/// The bytes of a name in records.
pub(super) fn utf16(name: &str) -> Vec<u8> {
    name.encode_utf16().flat_map(u16::to_le_bytes).collect()
}
