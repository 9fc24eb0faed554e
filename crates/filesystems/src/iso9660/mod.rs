//! Files of ISO 9660: CDs, DVDs and images of installers.
//!
//! A file is known by the place of its first record in a folder; the root folder is number 0. Of
//! the trees of folders a volume may have, that with the fields of Rock Ridge is read, else
//! Joliet's, else the plain one, whose names lose their versions. Times are UTC.
//!
//! Not read: what an earlier or later session of a disc holds, files that lie interleaved with
//! others or are compressed (zisofs), and extended attribute records.
//!
//! Facts: ECMA-119, the Joliet specification, IEEE P1281 (SUSP) and P1282 (RRIP), and
//! `fs/isofs/rock.c` of Linux for numbers of devices.

mod descriptor;
mod record;
mod rock_ridge;
mod time;

use std::ops::ControlFlow;

use aiv_volume_io::{Extent, Job, ReadAt};

use crate::clusters::{Chained, Told};
use crate::reader::{Volume, wtf8};
use crate::{
    Attribute, Entry, Error, FileData, FileFlags, FileId, FileType, Filesystem, FilesystemKind,
    Metadata, ReaderNote, Result,
};
use descriptor::{SECTOR, Tree, Trees};
use record::Record;
use rock_ridge::Posix;

/// More bytes than the records of millions of files take.
const FOLDER_BYTES_MAX: u64 = 1 << 30;
/// Sections of a file, each of 4 GiB.
const SECTIONS_MAX: usize = 1 << 12;
const ROOT: FileId = FileId { space: 0, number: 0 };

/// How names are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    Plain,
    Joliet,
    /// Of each part that is the system's, so many bytes at the front are somebody else's.
    RockRidge {
        skipped: usize,
    },
}

/// The files of a volume of ISO 9660.
pub(crate) struct Iso9660 {
    volume: Volume,
    tree: Tree,
    names: Names,
}

/// Something in a folder.
struct Found {
    record: Record,
    posix: Posix,
    /// Where all of it lies.
    sections: Vec<Extent>,
}

impl Iso9660 {
    pub(crate) fn open(volume: Volume) -> Result<Self> {
        let Trees { primary, joliet } = Trees::read(&volume)?;
        let (tree, names) = match (primary, joliet) {
            (Some(tree), joliet) => {
                let names = rock_ridge(&volume, &tree).unwrap_or(Names::Plain);
                match joliet.filter(|_| names == Names::Plain) {
                    Some(joliet) => (joliet, Names::Joliet),
                    None => (tree, names),
                }
            }
            (None, Some(joliet)) => (joliet, Names::Joliet),
            (None, None) => {
                return Err(Error::damaged("no descriptor names a root folder", None));
            }
        };
        Ok(Self { volume, tree, names })
    }

    /// The record at a place, and where the next one may begin.
    fn record(&self, at: u64) -> Result<Option<(Record, u64)>> {
        record(&self.volume, self.tree.block_size, at)
    }

    fn posix(&self, record: &Record) -> Result<Posix> {
        match self.names {
            Names::RockRidge { skipped } => {
                let system = record.system.get(skipped..).unwrap_or_default();
                Posix::read(&self.volume, system, self.tree.block_size)
            }
            _ => Ok(Posix::default()),
        }
    }

    /// A file, or a folder where it really lies.
    fn found(&self, file: FileId) -> Result<Found> {
        let damaged = |what: &str| Error::damaged(what, Some(file.number));
        if file == ROOT {
            return self.folder_at(self.tree.root.extent);
        }
        let is_place =
            file.space == 0 && file.number >= 16 * SECTOR && file.number.is_multiple_of(2);
        let first = if is_place { self.record(file.number)? } else { None };
        let (record, mut next) = first.ok_or_else(|| damaged("a file has no record there"))?;
        if record.is_dot() || record.name.is_empty() {
            return Err(damaged("what is there is no record of a file"));
        }
        let posix = self.posix(&record)?;
        if let Some(block) = posix.moved_to {
            return self.folder_at(self.block(block));
        }
        let mut sections = vec![record.extent];
        let mut goes_on = record.goes_on;
        while goes_on {
            let section = match self.record(next)? {
                None if !next.is_multiple_of(SECTOR) => {
                    next = next.next_multiple_of(SECTOR);
                    self.record(next)?
                }
                section => section,
            };
            let section = section.filter(|(section, _)| section.name == record.name);
            let Some((section, behind)) = section.filter(|_| sections.len() < SECTIONS_MAX) else {
                return Err(damaged("the sections of a file break off"));
            };
            sections.push(section.extent);
            (goes_on, next) = (section.goes_on, behind);
        }
        Ok(Found { record, posix, sections })
    }

    fn block(&self, number: u32) -> Extent {
        Extent::new(u64::from(number) * u64::from(self.tree.block_size), SECTOR)
    }

    /// The folder whose records begin at a place, by its own first one.
    fn folder_at(&self, place: Extent) -> Result<Found> {
        let first = self.record(place.start)?.filter(|(first, _)| {
            first.is_dot() && first.is_folder && first.extent.start == place.start
        });
        let Some((record, _)) = first else {
            return Err(Error::damaged("a folder does not begin with itself", Some(place.start)));
        };
        let posix = self.posix(&record)?;
        Ok(Found { sections: vec![record.extent], record, posix })
    }

    /// Tells `visit` the records in a folder, the first of each file, with their places.
    fn scan(
        &self,
        folder: FileId,
        job: Job<'_>,
        visit: &mut dyn FnMut(u64, Record) -> ControlFlow<()>,
    ) -> Result<()> {
        let found = self.found(folder)?;
        if !found.record.is_folder {
            return Err(Error::WrongType { wanted: "folder" });
        }
        let all = found.record.extent;
        let inside = all.end().min(self.volume.len()).min(all.start + FOLDER_BYTES_MAX);
        let mut error = (inside < all.end())
            .then(|| Error::damaged("a folder does not end where the volume does", None));
        let mut goes_on = false;
        for sector in (all.start..inside).step_by(2048) {
            job.check()?;
            let end = (sector + SECTOR).min(inside);
            let mut at = sector;
            while at < end {
                match self.record(at) {
                    Ok(Some((record, next))) if next <= end => {
                        let is_first = !goes_on;
                        goes_on = record.goes_on;
                        let is_file = !record.is_dot() && !record.is_associated;
                        if is_first && is_file && visit(at, record).is_break() {
                            return Ok(());
                        }
                        at = next;
                        continue;
                    }
                    // Zeros up to the end of the sector.
                    Ok(None) => {}
                    Ok(Some(_)) => {
                        error.get_or_insert(Error::damaged("a record breaks off", Some(at)));
                    }
                    Err(wrong) => {
                        error.get_or_insert(wrong);
                    }
                }
                break;
            }
        }
        error.map_or(Ok(()), Err)
    }

    fn name(&self, record: &Record, posix: &Posix) -> Vec<u8> {
        match self.names {
            Names::Joliet => wtf8(record.joliet_name()),
            Names::Plain | Names::RockRidge { .. } => {
                posix.name.clone().unwrap_or_else(|| record.plain_name())
            }
        }
    }
}

fn record(volume: &Volume, block_size: u32, at: u64) -> Result<Option<(Record, u64)>> {
    let mut bytes = [0; 256];
    let room = (SECTOR - at % SECTOR).min(volume.len().saturating_sub(at)).min(256);
    let bytes = &mut bytes[..usize::try_from(room).unwrap_or(0)];
    volume.read_exact_at(bytes, at).map_err(Error::io("read folder", at))?;
    let Some(&len) = bytes.first().filter(|&&len| len > 0) else { return Ok(None) };
    let record = bytes.get(..usize::from(len)).and_then(|bytes| Record::parse(bytes, block_size));
    let record = record.ok_or_else(|| Error::damaged("a record breaks off", Some(at)))?;
    Ok(Some((record, at + u64::from(len))))
}

/// Whether the first record of the root folder says that records have the fields of Rock Ridge.
fn rock_ridge(volume: &Volume, tree: &Tree) -> Option<Names> {
    let (first, _) = record(volume, tree.block_size, tree.root.extent.start).ok()??;
    let skipped = rock_ridge::skipped(&first.system)?;
    // The field that says so lies at the very front, whatever it says.
    let posix = Posix::read(volume, &first.system, tree.block_size).ok()?;
    posix.mode.map(|_| Names::RockRidge { skipped })
}

impl Found {
    fn file_type(&self) -> FileType {
        if self.record.is_folder {
            return FileType::Folder;
        }
        // A record that is no folder is none, whatever its mode says.
        match self.posix.mode.map(FileType::of_mode) {
            None => FileType::File,
            Some(FileType::Folder) => FileType::Unknown,
            Some(file_type) => file_type,
        }
    }

    fn len(&self) -> u64 {
        self.sections.iter().map(|section| section.len).sum()
    }

    fn metadata(&self) -> Metadata {
        let file_type = self.file_type();
        let posix = &self.posix;
        let is_device = matches!(file_type, FileType::CharDevice | FileType::BlockDevice);
        let len = match &posix.link_target {
            Some(target) if file_type == FileType::Link => target.len() as u64,
            _ => self.len(),
        };
        Metadata {
            len,
            mode: posix.mode.and_then(|mode| u16::try_from(mode & 0o7777).ok()),
            owner: posix.owner,
            links: posix.links.unwrap_or(1),
            modified: posix.modified.or(self.record.modified),
            accessed: posix.accessed,
            changed: posix.changed,
            created: posix.created,
            device: posix.device.filter(|_| is_device),
            flags: FileFlags::default().with(FileFlags::HIDDEN, self.record.is_hidden),
            ..Metadata::of(file_type)
        }
    }
}

impl Filesystem for Iso9660 {
    fn kind(&self) -> FilesystemKind {
        FilesystemKind::Iso9660
    }

    fn notes(&self) -> &[ReaderNote] {
        &[]
    }

    fn root(&self) -> FileId {
        ROOT
    }

    fn metadata(&self, file: FileId) -> Result<Metadata> {
        Ok(self.found(file)?.metadata())
    }

    fn entries(
        &self,
        folder: FileId,
        job: Job<'_>,
        visit: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut told = Told::default();
        let mut error = None;
        let mut is_over = false;
        let read = self.scan(folder, job, &mut |at, record| {
            let posix = match self.posix(&record) {
                Ok(posix) => posix,
                Err(wrong) => {
                    error.get_or_insert(wrong);
                    return ControlFlow::Continue(());
                }
            };
            if posix.is_moved_here {
                return ControlFlow::Continue(());
            }
            let name = self.name(&record, &posix);
            if !told.is_new(&name) {
                let what = "a name is impossible or there twice";
                error.get_or_insert_with(|| Error::damaged(what, Some(at)));
                return ControlFlow::Continue(());
            }
            let is_elsewhere = posix.moved_to.is_some();
            let found = Found { record, posix, sections: Vec::new() };
            let file_type = if is_elsewhere { FileType::Folder } else { found.file_type() };
            let id = FileId { space: 0, number: at };
            let flow = visit(Entry { name, id, file_type: Some(file_type) });
            is_over = flow.is_break();
            flow
        });
        if is_over {
            return Ok(());
        }
        read?;
        error.map_or(Ok(()), Err)
    }

    fn lookup(&self, folder: FileId, name: &[u8], job: Job<'_>) -> Result<Option<FileId>> {
        let mut found = None;
        let mut error = None;
        let read = self.scan(folder, job, &mut |at, record| {
            match self.posix(&record) {
                Ok(posix) if self.name(&record, &posix) == name => {
                    found = (!posix.is_moved_here).then_some(FileId { space: 0, number: at });
                }
                Ok(_) => {}
                Err(wrong) => {
                    error.get_or_insert(wrong);
                }
            }
            if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        match found {
            Some(id) => Ok(Some(id)),
            None => read.and_then(|()| error.map_or(Ok(None), Err)),
        }
    }

    fn open(&self, file: FileId) -> Result<Box<dyn FileData + '_>> {
        let found = self.found(file)?;
        if found.file_type() != FileType::File {
            return Err(Error::WrongType { wanted: "file" });
        }
        if found.record.is_interleaved || found.posix.is_transformed {
            let what = "files that are compressed within the volume, or interleaved with others, \
                        are not known here";
            return Err(Error::Unsupported { what: what.to_owned() });
        }
        let len = found.len();
        let why = Some("it lies behind the end of the volume".to_owned());
        Ok(Box::new(Chained::new(&self.volume, found.sections, len, len, why)?))
    }

    fn link_target(&self, link: FileId) -> Result<Vec<u8>> {
        let found = self.found(link)?;
        if found.file_type() != FileType::Link {
            return Err(Error::WrongType { wanted: "symbolic link" });
        }
        let target = found.posix.link_target;
        target.ok_or_else(|| Error::damaged("a link says nothing", Some(link.number)))
    }

    fn attributes(&self, file: FileId) -> Result<Vec<Attribute>> {
        self.found(file).map(|_| Vec::new())
    }
}
