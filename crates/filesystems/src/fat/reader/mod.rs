//! Files of FAT12, FAT16 and FAT32.
//!
//! A file is known by the place of its record, 32 bytes in a folder; the root folder has none and
//! is number 0, where the boot sector lies. What a name means is said by the records before that
//! of the file, if they carry its checksum and are complete; else it has the short name.
//!
//! The tables are copies of each other. The first is believed, and the second where the first
//! cannot be read or says something impossible. A chain that ends before its file leaves the rest
//! of it unreadable; clusters behind the end of a file are never looked at.
//!
//! Not read: extended attributes of OS/2, which no system has written to FAT for decades, and
//! code pages other than 437 in short names.
//!
//! Facts: as in [`fat`](super), and `fs/fat/dir.c` of Linux for the rules of long names.

mod folder;
mod names;
mod record;
mod tables;

use std::ops::ControlFlow;

use aiv_volume_io::{Extent, Job, ReadAt};

use super::boot::{BOOT_SECTOR_SIZE, Geometry, Purpose};
use super::reason::FatReason;
use crate::clusters::{Chain, Chained, Told};
use crate::reader::VolumeOf;
use crate::{
    Attribute, Entry, Error, FileData, FileId, FileType, Filesystem, FilesystemKind, Metadata,
    ReaderNote, Result,
};
use folder::Found;
use names::folded;
use record::{Record, Role, role};
use tables::Tables;

/// More bytes of a folder than any driver makes: they end at 2 MiB.
const FOLDER_BYTES_MAX: u32 = 64 << 20;

/// The files of a FAT volume.
pub(crate) struct Fat<'v> {
    volume: VolumeOf<'v>,
    kind: FilesystemKind,
    geometry: Geometry,
    tables: Tables,
    notes: Vec<ReaderNote>,
}

const ROOT: FileId = FileId { space: 0, number: 0 };

impl<'v> Fat<'v> {
    pub(crate) fn open(volume: VolumeOf<'v>, kind: FilesystemKind) -> Result<Self> {
        let mut boot = [0; BOOT_SECTOR_SIZE];
        if volume.len() < BOOT_SECTOR_SIZE as u64 {
            return Err(Error::damaged("there is no boot sector", Some(0)));
        }
        volume.read_exact_at(&mut boot, 0).map_err(Error::io("read boot sector", 0))?;
        let geometry = Geometry::parse(&boot, Purpose::Files).map_err(|reason| match reason {
            FatReason::TwoWidths { .. } => Error::Unsupported { what: reason.to_string() },
            _ => Error::damaged(reason.to_string(), Some(0)),
        })?;
        let mut notes = Vec::new();
        let tables = Tables::open(&volume, &geometry, &mut notes)?;
        if geometry.marked_dirty || tables.marked_dirty {
            notes.push(ReaderNote::NotUnmounted);
        }
        Ok(Self { volume, kind, geometry, tables, notes })
    }

    /// The record of a file or folder other than the root.
    fn record(&self, file: FileId) -> Result<Record> {
        let at = file.number;
        let in_root = self.geometry.root_cluster.is_none()
            && (self.geometry.root_at..self.geometry.data_at).contains(&at);
        let end = self.geometry.offset_of(self.geometry.clusters.saturating_add(2));
        let in_cluster = (self.geometry.data_at..end).contains(&at);
        let mut record = [0; 32];
        let is_record = file.space == 0 && at.is_multiple_of(32) && (in_root || in_cluster);
        if !is_record || at > self.volume.len().saturating_sub(record.len() as u64) {
            return Err(Error::damaged("a file has no record there", Some(at)));
        }
        self.volume.read_exact_at(&mut record, at).map_err(Error::io("read folder", at))?;
        match role(&record) {
            Role::File | Role::Folder => Ok(record),
            _ => Err(Error::damaged("what is there is no record of a file", Some(at))),
        }
    }

    fn chain(&self, first: u32, bytes_max: u32) -> Result<Chain> {
        let max = bytes_max.div_ceil(self.geometry.cluster_size);
        self.tables.chain(&self.volume, &self.geometry, first, max)
    }

    /// The record of a file or folder other than the root leads to this cluster.
    pub(in crate::fat) fn first_cluster(&self, file: FileId) -> Result<u32> {
        Ok(record::first_cluster(&self.record(file)?, &self.geometry))
    }

    /// Length of a file, and all of its clusters, those behind its end among them.
    pub(in crate::fat) fn whole(&self, file: FileId) -> Result<(u32, Chain)> {
        let record = self.record(file)?;
        let first = record::first_cluster(&record, &self.geometry);
        let chain = match first {
            0 => Chain { runs: Vec::new(), fault: None },
            _ => self.chain(first, u32::MAX)?,
        };
        Ok((record::len(&record), chain))
    }

    /// Where a chain lies on the volume.
    pub(in crate::fat) fn extents<'c>(
        &self,
        chain: &'c Chain,
    ) -> impl Iterator<Item = Extent> + use<'c, '_> {
        let cluster_size = u64::from(self.geometry.cluster_size);
        chain.runs.iter().map(move |run| {
            Extent::new(self.geometry.offset_of(run.first), u64::from(run.count) * cluster_size)
        })
    }
}

impl Filesystem for Fat<'_> {
    fn kind(&self) -> FilesystemKind {
        self.kind
    }

    fn notes(&self) -> &[ReaderNote] {
        &self.notes
    }

    fn root(&self) -> FileId {
        ROOT
    }

    fn metadata(&self, file: FileId) -> Result<Metadata> {
        match file == ROOT {
            true => Ok(Metadata::of(FileType::Folder)),
            false => Ok(record::metadata(&self.record(file)?)),
        }
    }

    fn entries(
        &self,
        folder: FileId,
        job: Job<'_>,
        visit: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut told = Told::default();
        let mut nameless = None;
        let mut is_over = false;
        let read = self.scan(folder, job, &mut |found: Found| {
            let names = found.long.into_iter().chain([found.short]);
            let Some(name) = names.into_iter().find(|name| told.is_new(name)) else {
                nameless.get_or_insert(found.id.number);
                return ControlFlow::Continue(());
            };
            let flow = visit(Entry { name, id: found.id, file_type: Some(found.file_type) });
            is_over = flow.is_break();
            flow
        });
        if is_over {
            return Ok(());
        }
        read?;
        match nameless {
            Some(at) => Err(Error::damaged("a name is impossible or there twice", Some(at))),
            None => Ok(()),
        }
    }

    fn lookup(&self, folder: FileId, name: &[u8], job: Job<'_>) -> Result<Option<FileId>> {
        // A long name before a short one, and the same letters before those of another case:
        // in a damaged folder there may be all of them.
        let mut best: Option<(usize, FileId)> = None;
        let read = self.scan(folder, job, &mut |found: Found| {
            let names = [found.long.as_ref(), Some(&found.short)];
            let exact = names.iter().position(|one| one.is_some_and(|one| one == name));
            let is_near = |one: &Vec<u8>| folded(one).eq(folded(name));
            let near = || names.iter().position(|one| one.is_some_and(is_near));
            let Some(rank) = exact.or_else(|| near().map(|rank| rank + 2)) else {
                return ControlFlow::Continue(());
            };
            if best.is_none_or(|(found, _)| rank < found) {
                best = Some((rank, found.id));
            }
            if rank == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        match best {
            Some((_, id)) => Ok(Some(id)),
            None => read.map(|()| None),
        }
    }

    fn open(&self, file: FileId) -> Result<Box<dyn FileData + '_>> {
        let record = if file == ROOT { None } else { Some(self.record(file)?) };
        let Some(record) = record.filter(|record| role(record) == Role::File) else {
            return Err(Error::WrongType { wanted: "file" });
        };
        let len = record::len(&record);
        let first = record::first_cluster(&record, &self.geometry);
        let chain = match len {
            0 => Chain { runs: Vec::new(), fault: None },
            _ => self.chain(first, len)?,
        };
        let (extents, len) = (self.extents(&chain), u64::from(len));
        Ok(Box::new(Chained::new(&self.volume, extents, len, len, chain.fault.clone())?))
    }

    fn link_target(&self, link: FileId) -> Result<Vec<u8>> {
        self.metadata(link)?;
        Err(Error::WrongType { wanted: "symbolic link" })
    }

    fn attributes(&self, file: FileId) -> Result<Vec<Attribute>> {
        self.metadata(file).map(|_| Vec::new())
    }
}
