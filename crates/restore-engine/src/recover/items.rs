//! What is going to be recovered.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::sync::Arc;

use aiv_browse::{
    Disk, Error as BrowseError, File, FileId, FileType, Filesystem, Filter, Links, Path, Place,
    Step, Trouble, Walk,
};
use aiv_volume_io::{Extent, Job, causes};

use super::report::RecoverReport;
use crate::error::{Error, Refusal, Result};

/// What one job takes on: bounds its memory to about 2 GiB.
#[derive(Clone, Copy)]
struct Limits {
    /// Files and folders.
    items: usize,
    /// Bytes of all their paths. In a tree of thousands of levels, each is long.
    path_bytes: usize,
}

const LIMITS: Limits = Limits { items: 1 << 23, path_bytes: 1 << 30 };

/// Something to recover. There may be millions.
pub(super) struct Item {
    /// Position in [`RecoverPlan::filesystems`].
    pub(super) filesystem: u32,
    /// Where it goes, with slashes between its parts and none in front.
    pub(super) path: Box<[u8]>,
    pub(super) id: FileId,
    pub(super) file_type: FileType,
    /// Where the first of its bytes lies in the volume.
    pub(super) place: u64,
    /// One more than the position of the item of which this is another name.
    same_as: Option<NonZeroU32>,
}

impl Item {
    fn of_folder(filesystem: u32, path: Vec<u8>, id: FileId) -> Self {
        let path = path.into_boxed_slice();
        Self { filesystem, path, id, file_type: FileType::Folder, place: 0, same_as: None }
    }

    /// Position of the item of which this is another name.
    pub(super) fn same_as(&self) -> Option<usize> {
        self.same_as.map(|at| at.get() as usize - 1)
    }

    fn set_same_as(&mut self, at: Option<usize>) {
        // There are fewer items than that.
        let next = at.and_then(|at| u32::try_from(at).ok()?.checked_add(1));
        self.same_as = next.and_then(NonZeroU32::new);
    }
}

/// Files that are going to be recovered.
pub struct RecoverPlan {
    pub(super) filesystems: Vec<Arc<dyn Filesystem>>,
    /// Folders before what is in them.
    pub(super) items: Vec<Item>,
    /// What could not be listed.
    pub(super) troubles: RecoverReport,
    bytes: u64,
    files: u64,
    limits: Limits,
    path_bytes: usize,
}

impl std::fmt::Debug for RecoverPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecoverPlan").field("files", &self.files).finish_non_exhaustive()
    }
}

impl RecoverPlan {
    /// Walks `paths` on `disk`: each with everything below it, under its last name. The disk
    /// itself, and a volume that holds others, stand for all volumes in them whose files can be
    /// read, each under its whole name from there. Of files and folders below, those
    /// that `filter` does not mean are left out, and folders that stay empty by that.
    ///
    /// # Errors
    /// [`Error::Browse`] when a path leads nowhere, [`Error::Refused`] when two of them have the
    /// same last name or there are too many files, [`Error::Canceled`].
    pub fn new(disk: &Disk, paths: &[Path], filter: Option<&Filter>, job: Job<'_>) -> Result<Self> {
        Self::within(LIMITS, disk, paths, filter, job)
    }

    fn within(
        limits: Limits,
        disk: &Disk,
        paths: &[Path],
        filter: Option<&Filter>,
        job: Job<'_>,
    ) -> Result<Self> {
        let mut plan = Self {
            limits,
            path_bytes: 0,
            filesystems: Vec::new(),
            items: Vec::new(),
            troubles: RecoverReport::default(),
            bytes: 0,
            files: 0,
        };
        let mut names: HashSet<Vec<u8>> = HashSet::new();
        for path in paths {
            let mut of_path = HashSet::new();
            let mut between = HashSet::new();
            for (file, to) in plan.meant(disk, path, job)? {
                of_path.extend(to.first().cloned());
                plan.folders_above(&file, &to, &mut between);
                plan.note(disk, &file);
                plan.add(&file, to.join(&b'/'), filter, job)?;
            }
            if let Some(name) = of_path.intersection(&names).next() {
                let name = String::from_utf8_lossy(name).into_owned();
                return Err(Refusal::SameName { name }.into());
            }
            names.extend(of_path);
        }
        if filter.is_some() {
            plan.drop_empty_folders();
        }
        Ok(plan)
    }

    /// Bytes of files that are going to be read, holes left out.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Names of regular files, those of the same file each.
    #[must_use]
    pub fn files(&self) -> u64 {
        self.files
    }

    /// What a path stands for, and where each of it goes.
    fn meant(
        &mut self,
        disk: &Disk,
        path: &Path,
        job: Job<'_>,
    ) -> Result<Vec<(File, Vec<Vec<u8>>)>> {
        let place = disk.resolve(path, Links::Keep, job)?;
        if let Place::File(file) = place {
            let name = file.path.name().to_vec();
            return Ok(vec![(file, vec![name])]);
        }
        let mut roots = Vec::new();
        for at in disk.volumes_at(&place) {
            let volume = &disk.volumes()[at];
            match disk.resolve(&volume.path(), Links::Keep, job) {
                Ok(Place::File(file)) => {
                    // Of what is inside a volume, all from the last name that was given.
                    let above = path.parts().len().saturating_sub(1);
                    let to = file.path.parts().get(above..).unwrap_or_default().to_vec();
                    roots.push((file, to));
                }
                // It holds volumes, which come by themselves.
                Ok(_) => {}
                Err(BrowseError::Canceled(canceled)) => return Err(canceled.into()),
                // Swap space is nothing that is missing.
                Err(BrowseError::NoFiles { .. }) => {}
                Err(why) => self.troubles.not_done(&volume.path(), &why),
            }
        }
        Ok(roots)
    }

    /// What there is to know about the volume of a file, once.
    fn note(&mut self, disk: &Disk, file: &File) {
        let volume = disk.volumes().get(file.volume).map_or("", |volume| volume.name());
        for note in disk.notes_on(file) {
            let note = (volume.to_owned(), note);
            if !self.troubles.notes.contains(&note) {
                self.troubles.notes.push(note);
            }
        }
    }

    /// The folders above the root of a volume inside of others, each once: they are like the root
    /// of the first volume in them.
    fn folders_above(&mut self, root: &File, to: &[Vec<u8>], known: &mut HashSet<Vec<u8>>) {
        for parts in 1..to.len() {
            let path = to[..parts].join(&b'/');
            if known.insert(path.clone()) {
                let filesystem = self.next_filesystem();
                self.items.push(Item::of_folder(filesystem, path, root.id));
            }
        }
    }

    /// Position of the filesystem that is added next; of each path there is one.
    fn next_filesystem(&self) -> u32 {
        u32::try_from(self.filesystems.len()).unwrap_or(u32::MAX)
    }

    /// Adds a file or folder with everything below it, called `root`.
    fn add(
        &mut self,
        from: &File,
        root: Vec<u8>,
        filter: Option<&Filter>,
        job: Job<'_>,
    ) -> Result<()> {
        let filesystem = self.next_filesystem();
        self.filesystems.push(Arc::clone(&from.filesystem));
        let reader = Arc::clone(&from.filesystem);
        let mut seen: HashMap<FileId, usize> = HashMap::new();
        let Self { items, troubles, bytes, files, limits, path_bytes, .. } = self;
        let mut refused = None;
        // Parts of the path of the folder that was named, while the walk is in it.
        let mut taken: Option<usize> = None;
        let mut read = |path: &Path, id| match data_of(&*reader, id) {
            Ok(found) => Some(found),
            Err(why) => {
                read_failed(troubles, path, &why);
                None
            }
        };
        let mut unlisted = Unlisted::default();
        Walk::default().run(
            from,
            job,
            &mut |found| {
                if items.len() == limits.items {
                    refused = Some(Refusal::TooManyFiles { allowed: limits.items });
                    return Step::End;
                }
                let file_type = found.metadata.file_type;
                let is_folder = file_type == FileType::Folder;
                taken = taken.filter(|&parts| found.below.len() > parts);
                if let Some(filter) = filter {
                    let is_named = taken.is_some() || filter.names(found);
                    // As everywhere with patterns, a folder takes everything below it along.
                    if is_folder && is_named && !filter.patterns.is_empty() {
                        taken.get_or_insert(found.below.len());
                    }
                    let is_meant = is_folder || is_named && filter.fits(found);
                    if !is_meant {
                        return Step::On;
                    }
                }
                let mut path = root.clone();
                for part in found.below {
                    path.push(b'/');
                    path.extend_from_slice(part);
                }
                *path_bytes += path.len();
                if *path_bytes > limits.path_bytes {
                    refused = Some(Refusal::PathsTooLong { allowed: limits.path_bytes });
                    return Step::End;
                }
                let (path, id) = (path.into_boxed_slice(), found.id);
                let mut item = Item { filesystem, path, id, file_type, place: 0, same_as: None };
                if file_type == FileType::File {
                    item.set_same_as(seen.get(&found.id).copied());
                    if item.same_as.is_none() {
                        let Some((place, len)) = read(found.path, found.id) else {
                            return Step::On;
                        };
                        item.place = place;
                        *bytes = bytes.saturating_add(len);
                        // Only what has an item can be another name of it.
                        if found.metadata.links > 1 {
                            seen.insert(found.id, items.len());
                        }
                    }
                    *files += 1;
                }
                items.push(item);
                Step::On
            },
            &mut |trouble: &Trouble<'_>| {
                unlisted.push(trouble.path, &causes(&trouble.why));
            },
        )?;
        unlisted.tell(&mut self.troubles);
        if let Some(refused) = refused {
            return Err(refused.into());
        }
        Ok(())
    }

    /// Keeps only folders something is in.
    fn drop_empty_folders(&mut self) {
        let mut needed = HashSet::new();
        for item in self.items.iter().filter(|item| item.file_type != FileType::Folder) {
            let slashes = item.path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
            needed.extend(slashes.map(|(at, _)| item.path[..at].to_vec()));
        }
        let stays =
            |item: &Item| item.file_type != FileType::Folder || needed.contains(&*item.path);
        let mut moved = Vec::with_capacity(self.items.len());
        let mut next = 0;
        for item in &self.items {
            moved.push(next);
            next += usize::from(stays(item));
        }
        self.items.retain(stays);
        for item in &mut self.items {
            item.set_same_as(item.same_as().and_then(|at| moved.get(at).copied()));
        }
    }

    /// The items of regular files in the order in which their bytes lie in the image.
    pub(super) fn in_image_order(&self) -> Vec<usize> {
        let is_read = |item: &Item| item.file_type == FileType::File && item.same_as.is_none();
        let mut order: Vec<usize> =
            (0..self.items.len()).filter(|&at| is_read(&self.items[at])).collect();
        // Unstable, because a stable one takes half as much memory again.
        order.sort_unstable_by_key(|&at| (self.items[at].filesystem, self.items[at].place, at));
        order
    }

    /// The filesystem an item is in.
    pub(super) fn filesystem(&self, item: &Item) -> &dyn Filesystem {
        &*self.filesystems[item.filesystem as usize]
    }
}

/// What a walk could not list: all of it is counted, as much named as a report names.
#[derive(Default)]
struct Unlisted {
    named: Vec<(Path, String)>,
    count: u64,
}

impl Unlisted {
    fn push(&mut self, path: &Path, why: &str) {
        self.count += 1;
        if self.named.len() < super::report::LISTED_MAX {
            self.named.push((path.clone(), why.to_owned()));
        }
    }

    fn tell(self, report: &mut RecoverReport) {
        report.not_done_count += self.count - self.named.len() as u64;
        for (path, why) in self.named {
            report.not_done_because(&path, why);
        }
    }
}

fn read_failed(troubles: &mut RecoverReport, path: &Path, why: &Error) {
    troubles.not_done_because(path, causes(why));
}

/// Where the bytes of a file begin in its volume, and how many there are.
fn data_of(filesystem: &dyn Filesystem, id: FileId) -> Result<(u64, u64)> {
    let data = filesystem.open(id).map_err(Error::File)?;
    let first = data.extents().map_err(Error::File)?.first().map_or(0, |extent| extent.start);
    let ranges = super::copy::ranges(&*data).map_err(Error::FileBytes)?;
    Ok((first, ranges.iter().fold(0, |sum, range: &Extent| sum.saturating_add(range.len))))
}

#[cfg(test)]
mod tests {
    use aiv_testkit::files::{Node, Tree};
    use aiv_volume_io::MemDisk;

    use super::*;

    #[test]
    fn a_plan_is_refused_before_it_takes_more_memory_than_allowed() {
        let mut tree = Tree::new();
        let mut at = 1;
        for _ in 0..30 {
            at = tree.add(at, &[b'd'; 200], Node::of(FileType::Folder));
        }
        (0..1000_u32).for_each(|n| {
            tree.add(at, &n.to_le_bytes().map(|byte| byte % 200 + 48), Node::file(b""));
        });
        let disk = Disk::of_filesystem(Arc::new(tree), Arc::new(MemDisk::from_bytes(vec![0; 512])));
        let paths = [Path::parse(b"/p0").unwrap()];
        let within = |items, path_bytes| {
            let limits = Limits { items, path_bytes };
            RecoverPlan::within(limits, &disk, &paths, None, Job::silent())
        };
        assert!(within(2000, 10_000_000).is_ok());
        let refused = within(1000, 10_000_000);
        assert!(matches!(refused, Err(Error::Refused(Refusal::TooManyFiles { allowed: 1000 }))));
        let refused = within(2000, 1_000_000);
        assert!(matches!(refused, Err(Error::Refused(Refusal::PathsTooLong { .. }))));
    }
}
