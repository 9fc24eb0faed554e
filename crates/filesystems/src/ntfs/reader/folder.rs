//! Folders: their names, and the file of one name.

use std::collections::HashSet;
use std::ops::ControlFlow;

use aiv_volume_io::Job;
use blake2::{Blake2s256, Digest};

use super::Ntfs;
use super::file::{File, damaged};
use super::index::{Index, IndexEntry};
use super::names::{FolderName, units_of};
use crate::bytes::array;
use crate::ntfs::reason::NtfsReason;
use crate::{Entry, Error, FileId, Result};

/// The index of a folder by names.
const BY_NAME: &[u8] = b"$\0I\x003\x000\0";
/// Names that are remembered so that none is told twice: of 16 bytes each.
const REMEMBERED_MAX: usize = 1 << 20;

impl Ntfs {
    fn index_of(&self, folder: &File) -> Result<Index<'_>> {
        if !folder.is_folder {
            return Err(Error::WrongType { wanted: "folder" });
        }
        let what = "is a folder without an index";
        let missing = NtfsReason::Record { record: folder.number, what };
        Index::open(self, folder, BY_NAME)?.ok_or_else(|| damaged(&missing))
    }

    /// Tells the names in a folder but for short forms and the filesystem's own files.
    pub(super) fn names_in(
        &self,
        folder: &File,
        job: Job<'_>,
        visit: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<()> {
        let index = self.index_of(folder)?;
        let wrong = |what| damaged(&NtfsReason::Record { record: folder.number, what });
        let mut told: HashSet<[u8; 16]> = HashSet::new();
        let mut fault = None;
        let mut is_stopped = false;
        let read = index.each(job, &mut |entry: &IndexEntry<'_>| {
            let Some(name) = FolderName::of(entry) else {
                fault.get_or_insert_with(|| wrong("has an index with an impossible name"));
                return ControlFlow::Continue(());
            };
            if name.is_short || name.is_of_system() {
                return ControlFlow::Continue(());
            }
            if !name.is_name() {
                fault.get_or_insert_with(|| wrong("has a name that can be none"));
                return ControlFlow::Continue(());
            }
            let entry = name.entry();
            if told.len() < REMEMBERED_MAX && !told.insert(digest(&entry.name)) {
                fault.get_or_insert_with(|| wrong("has a name twice"));
                return ControlFlow::Continue(());
            }
            let answer = visit(entry);
            is_stopped = answer.is_break();
            answer
        });
        if is_stopped {
            return Ok(());
        }
        read?;
        fault.map_or(Ok(()), Err)
    }

    /// The file of a name: of exactly this one, else of one that differs in case alone where the
    /// folder does not tell them apart.
    pub(super) fn named_in(
        &self,
        folder: &File,
        name: &[u8],
        job: Job<'_>,
    ) -> Result<Option<FileId>> {
        let index = self.index_of(folder)?;
        // The root has an entry for itself.
        let units = units_of(name).filter(|_| name != b".");
        let Some(units) = units else { return Ok(None) };
        let is_folded = !self.is_case_sensitive(folder);
        match self.by_tree(&index, &units, is_folded) {
            Ok(found) => Ok(found),
            // Whatever of it can be read is looked through.
            Err(_) => self.by_scan(&index, &units, is_folded, job),
        }
    }

    fn by_tree(&self, index: &Index<'_>, units: &[u16], is_folded: bool) -> Result<Option<FileId>> {
        let case = self.case();
        let mut found = None;
        for is_exact in [true, false] {
            if !is_exact && !is_folded {
                break;
            }
            let order = |entry: &IndexEntry<'_>| {
                // A key that is no name has no place: the scan will say so.
                let key = FolderName::of(entry).map(|key| key.units).unwrap_or_default();
                let order = case.compare(units, &key);
                if is_exact { order.then_with(|| units.cmp(&key)) } else { order }
            };
            index.descend(&order, &mut |entry| {
                found = FolderName::of(entry).map(|name| name.id());
                if is_exact { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
            if found.is_some() {
                break;
            }
        }
        Ok(found)
    }

    fn by_scan(
        &self,
        index: &Index<'_>,
        units: &[u16],
        is_folded: bool,
        job: Job<'_>,
    ) -> Result<Option<FileId>> {
        let case = self.case();
        let (mut exact, mut folded) = (None, None);
        let read = index.each(job, &mut |entry| {
            let Some(name) = FolderName::of(entry) else { return ControlFlow::Continue(()) };
            if name.units == units {
                exact = Some(name.id());
                return ControlFlow::Break(());
            }
            if is_folded && case.compare(units, &name.units).is_eq() {
                folded.get_or_insert(name.id());
            }
            ControlFlow::Continue(())
        });
        match exact.or(folded) {
            Some(found) => Ok(Some(found)),
            None => read.map(|()| None),
        }
    }
}

/// Names are told apart by 16 bytes of their hash.
fn digest(name: &[u8]) -> [u8; 16] {
    let hash: [u8; 32] = Blake2s256::digest(name).into();
    array(&hash, 0)
}
