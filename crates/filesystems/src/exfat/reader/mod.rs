//! Files of exFAT.
//!
//! A file is known by the place of its first record, and by whether the folder it is in is chained
//! in the table or in one piece: where its records go on in another cluster, that says in which.
//! The root folder has no record and is number 0, where the boot sector lies.
//!
//! The records of a file have a checksum, and its name a hash; what does not match is not listed.
//! Files have no checksum, and bytes that were never written (behind the length that is called
//! valid) are zeros. The allocation bitmap is not read. Where the boot region is damaged its backup
//! is used.
//!
//! Not read: transaction-safe exFAT with two tables, and what vendors add to a file.
//!
//! Facts: as in [`exfat`](super).

mod folder;
mod set;
mod upcase;

use std::ops::ControlFlow;

use aiv_volume_io::{Job, ReadAt};

use super::boot::Geometry;
use crate::bytes::{le32, le64};
use crate::clusters::{Chain, Chained, Told};
use crate::reader::{VolumeOf, wtf8};
use crate::{
    Attribute, Entry, Error, FileData, FileId, FileType, Filesystem, FilesystemKind, Metadata,
    ReaderNote, Result,
};
use folder::FOLDER_BYTES_MAX;
use set::Set;
use upcase::{UPCASE_BYTES_MAX, UpCase};

/// The files of an exFAT volume.
pub(crate) struct ExFat<'v> {
    volume: VolumeOf<'v>,
    geometry: Geometry,
    upcase: UpCase,
    notes: Vec<ReaderNote>,
}

const ROOT: FileId = FileId { space: 0, number: 0 };

impl<'v> ExFat<'v> {
    pub(crate) fn open(volume: VolumeOf<'v>, job: Job<'_>) -> Result<Self> {
        let (geometry, is_copy) = Geometry::for_files(&volume)?;
        let mut notes = Vec::new();
        if is_copy {
            notes.push(ReaderNote::CopyUsed { what: "the boot region".to_owned() });
        }
        if geometry.marked_dirty {
            notes.push(ReaderNote::NotUnmounted);
        }
        let mut filesystem = Self { volume, geometry, upcase: UpCase::of_ascii(), notes };
        if let Some(upcase) = filesystem.find_upcase(job)? {
            filesystem.upcase = upcase;
        }
        Ok(filesystem)
    }

    /// Length of a file, and all of its clusters, those never written among them.
    pub(in crate::exfat) fn whole(&self, file: FileId) -> Result<(u64, Chain)> {
        let set = self.set(file)?;
        let chain = self.chain(set.first, set.len, set.in_one_piece)?;
        Ok((set.len, chain))
    }

    /// The table the root folder names, if it can be believed.
    fn find_upcase(&self, job: Job<'_>) -> Result<Option<UpCase>> {
        const UPCASE_TABLE: u8 = 0x82;
        let root = self.chain(self.geometry.root_cluster, FOLDER_BYTES_MAX, false)?;
        let mut found = None;
        let read = self.visit(&root, job, &mut |_, record| match record {
            Some(record) if record[0] == UPCASE_TABLE => {
                found = Some((le32(record, 4), le32(record, 20), le64(record, 24)));
                ControlFlow::Break(())
            }
            Some(record) if record[0] == 0 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        });
        if let Err(error @ Error::Canceled(_)) = read {
            return Err(error);
        }
        let Some((checksum, first, len)) = found.filter(|&(.., len)| len <= UPCASE_BYTES_MAX)
        else {
            return Ok(None);
        };
        // Not every program that makes volumes chains it.
        let tables = [false, true].into_iter().filter_map(|in_one_piece| {
            let chain = self.chain(first, len, in_one_piece).ok()?;
            let data = Chained::new(&self.volume, self.extents(&chain), len, len, None).ok()?;
            let mut bytes = vec![0; usize::try_from(len).ok()?];
            data.read_exact_at(&mut bytes, 0).ok()?;
            UpCase::read(&bytes, checksum)
        });
        Ok({ tables }.next())
    }
}

impl Filesystem for ExFat<'_> {
    fn kind(&self) -> FilesystemKind {
        FilesystemKind::ExFat
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
            false => Ok(self.set(file)?.metadata()),
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
        let read = self.scan(folder, job, &mut |id, set: Set| {
            let name = wtf8(set.units.iter().copied());
            if !told.is_new(&name) {
                nameless.get_or_insert(id.number);
                return ControlFlow::Continue(());
            }
            let flow = visit(Entry { name, id, file_type: Some(set.file_type()) });
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
        let wanted: Option<Vec<u16>> = str::from_utf8(name)
            .ok()
            .map(|name| name.encode_utf16().map(|unit| self.upcase.upper(unit)).collect());
        let mut found = None;
        let read = self.scan(folder, job, &mut |id, set: Set| {
            let upper = set.units.iter().map(|&unit| self.upcase.upper(unit));
            let is_near = wanted.as_ref().is_some_and(|wanted| upper.eq(wanted.iter().copied()));
            if !is_near && wanted.is_some() {
                return ControlFlow::Continue(());
            }
            let is_same = wtf8(set.units.iter().copied()) == name;
            if is_same || (is_near && found.is_none()) {
                found = Some(id);
            }
            if is_same { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        found.map_or_else(|| read.map(|()| None), |id| Ok(Some(id)))
    }

    fn open(&self, file: FileId) -> Result<Box<dyn FileData + '_>> {
        let set = if file == ROOT { None } else { Some(self.set(file)?) };
        let Some(set) = set.filter(|set| set.file_type() == FileType::File) else {
            return Err(Error::WrongType { wanted: "file" });
        };
        let chain: Chain = self.chain(set.first, set.valid, set.in_one_piece)?;
        let extents = self.extents(&chain);
        let data = Chained::new(&self.volume, extents, set.len, set.valid, chain.fault.clone())?;
        Ok(Box::new(data))
    }

    fn link_target(&self, link: FileId) -> Result<Vec<u8>> {
        self.metadata(link)?;
        Err(Error::WrongType { wanted: "symbolic link" })
    }

    fn attributes(&self, file: FileId) -> Result<Vec<Attribute>> {
        self.metadata(file).map(|_| Vec::new())
    }
}
