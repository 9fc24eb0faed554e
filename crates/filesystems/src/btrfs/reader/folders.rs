//! Folders: names in the order of their age, and by their hash.

use std::collections::HashSet;
use std::ops::ControlFlow;

use aiv_volume_io::Job;
use twox_hash::XxHash64;

use super::super::key::{Key, kind};
use super::super::tree::Tree;
use super::names::{self, EMPTY_FOLDER, Record};
use super::search::Trees;
use super::{Btrfs, FIRST, LAST};
use crate::bytes::le64;
use crate::{Entry, Error, FileId, FileType, Filesystem, Metadata, Result};

/// Where the number of the first folder is in a root item.
const FIRST_FOLDER_AT: usize = 168;

/// The first folder of a subvolume.
pub(super) fn root(trees: &Trees<'_>, subvolume: u64) -> Result<FileId> {
    let from = Key::new(subvolume, kind::ROOT_ITEM, 0);
    let to = Key { offset: u64::MAX, ..from };
    let roots = (Tree::ROOT, trees.superblock.root);
    let mut number = None;
    trees.scan(roots, from, to, Job::silent(), &mut |item| {
        number = item
            .data
            .get(FIRST_FOLDER_AT..)
            .filter(|rest| rest.len() >= 8)
            .map(|rest| le64(rest, 0));
        ControlFlow::Continue(())
    })?;
    let number = number.filter(|number| (FIRST..=LAST).contains(number));
    let missing = || Error::damaged(format!("there is no subvolume {subvolume}"), None);
    Ok(FileId { space: subvolume, number: number.ok_or_else(missing)? })
}

/// What is known of the folder in the place of a subvolume, in a snapshot.
pub(super) fn empty() -> Metadata {
    let mut metadata = Metadata::of(FileType::Folder);
    metadata.mode = Some(0o755);
    metadata
}

impl Btrfs<'_> {
    /// A record as what the kernel makes of it.
    fn entry(&self, folder: FileId, record: &Record<'_>) -> Option<Entry> {
        let Some(child) = record.subvolume() else { return record.entry(folder.space) };
        if !names::is_name(record.name) || !(FIRST..=LAST).contains(&child) {
            return None;
        }
        let roots = (Tree::ROOT, self.trees.superblock.root);
        let reference = self.trees.get(roots, Key::new(folder.space, kind::ROOT_REF, child));
        let is_absent = reference.is_ok_and(|item| {
            !item.is_some_and(|item| names::is_reference(&item, folder.number, record.name))
        });
        let id = if is_absent {
            FileId { space: folder.space, number: EMPTY_FOLDER }
        } else {
            // What is wrong with it is told to whoever asks for it.
            root(&self.trees, child).unwrap_or(FileId { space: child, number: FIRST })
        };
        let file_type = Some(FileType::Folder);
        Some(Entry { name: record.name.to_vec(), id, file_type })
    }

    /// Where the tree of a folder begins; nothing for one that has no names.
    fn check_folder(&self, folder: FileId) -> Result<Option<(Tree, super::Root)>> {
        if folder.number == EMPTY_FOLDER {
            return self.subvolume(folder.space).map(|_| None);
        }
        let inode = self.inode(folder)?;
        if inode.metadata.file_type != FileType::Folder {
            return Err(Error::WrongType { wanted: "folder" });
        }
        Ok(Some((Tree::FILES, inode.root)))
    }

    pub(super) fn entries_of(
        &self,
        folder: FileId,
        job: Job<'_>,
        visit: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<()> {
        let Some(tree) = self.check_folder(folder)? else { return Ok(()) };
        let from = Key::new(folder.number, kind::DIR_INDEX, 0);
        let to = Key { offset: u64::MAX, ..from };
        // Names by their hash, which takes little room.
        let mut told = HashSet::new();
        let mut is_sound = true;
        let mut is_broken_off = false;
        let read = self.trees.scan(tree, from, to, job, &mut |item| {
            for record in names::records(item.data) {
                let entry = record.ok().and_then(|record| self.entry(folder, &record));
                let is_new = |entry: &Entry| told.insert(XxHash64::oneshot(0, &entry.name));
                let Some(entry) = entry.filter(is_new) else {
                    is_sound = false;
                    continue;
                };
                if visit(entry).is_break() {
                    is_broken_off = true;
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        });
        if is_broken_off {
            return Ok(());
        }
        read?;
        let what = || format!("folder {} has a name that is malformed, or twice", folder.number);
        if is_sound { Ok(()) } else { Err(Error::damaged(what(), None)) }
    }

    pub(super) fn look_up(
        &self,
        folder: FileId,
        name: &[u8],
        job: Job<'_>,
    ) -> Result<Option<FileId>> {
        let Some(tree) = self.check_folder(folder)? else { return Ok(None) };
        let key = Key::new(folder.number, kind::DIR_ITEM, names::hash(name));
        let item = match self.trees.get(tree, key) {
            Ok(item) => item.unwrap_or_default(),
            // The same names, elsewhere.
            Err(_) => return self.look_through(folder, name, job),
        };
        for record in names::records(&item) {
            let Ok(record) = record else { return self.look_through(folder, name, job) };
            if record.name == name {
                return Ok(self.entry(folder, &record).map(|entry| entry.id));
            }
        }
        Ok(None)
    }

    fn look_through(&self, folder: FileId, name: &[u8], job: Job<'_>) -> Result<Option<FileId>> {
        let mut found = None;
        let read = self.entries(folder, job, &mut |entry| {
            if entry.name == name {
                found = Some(entry.id);
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
        found.map_or_else(|| read.map(|()| None), |id| Ok(Some(id)))
    }
}
