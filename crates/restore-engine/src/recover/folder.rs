//! Files into a folder.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use aiv_browse::{FileType, Filesystem, Metadata};
use aiv_volume_io::{Job, Step};
use rustix::fs::{
    AtFlags, Dev, FileType as MadeType, Mode, fstatvfs, linkat, makedev, mkdirat, mknodat,
    readlinkat, statat, symlinkat, syncfs, unlinkat,
};
use rustix::io::Errno;

use super::before::{Before, SameFolder};
use super::beneath::Beneath;
use super::file::damaged_name;
use super::items::{Item, RecoverPlan};
use super::metadata::{apply, apply_at, mode_of, set_mode_at};
use super::report::{NotKept, RecoverReport};
use crate::error::{Error, Refusal, Result};

/// What is done where a name is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Existing {
    /// Nothing is begun when one of the names asked for is taken.
    #[default]
    Refuse,
    /// A file of the same length, time and bytes is taken for the one that would be written: an
    /// interrupted job is gone on with. Folders are filled up; all else stays and is reported.
    Skip,
    /// Files take the place of others. Folders are filled up.
    Replace,
}

/// How files are put into a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecoverOptions {
    /// What is done where a name is taken.
    pub existing: Existing,
    /// Give files to those who owned them. Only root can.
    pub owners: bool,
    /// Read everything back from the medium and compare.
    pub verify: bool,
    /// For names of files that are not complete. Other numbers for each job in a folder.
    pub seed: u64,
}

/// Files on their way into a folder.
pub(super) struct Sink<'a> {
    pub(super) plan: &'a RecoverPlan,
    pub(super) beneath: Beneath,
    pub(super) dir: &'a Path,
    pub(super) options: RecoverOptions,
    pub(super) job: Job<'a>,
    pub(super) report: RecoverReport,
    pub(super) before: Before,
    /// Names files got instead of the ones of their items; none when there is no file or folder.
    pub(super) renamed: HashMap<usize, Option<Vec<u8>>>,
    /// Files written, with the hash of what was, in the order of writing.
    pub(super) written: Vec<(usize, blake3::Hash)>,
    pub(super) buffer: Vec<u8>,
    pub(super) parts: u64,
}

impl RecoverPlan {
    /// Puts everything into the folder `dir`, which is created when only its last part is
    /// missing.
    ///
    /// # Errors
    /// [`Error::Refused`] before the first write when a name is taken or there is no room,
    /// [`Error::Output`] when the folder cannot be written, [`Error::Canceled`]; files that are
    /// complete stay, others are removed. What concerns one file only is in the report.
    pub fn to_folder(
        &self,
        dir: &Path,
        options: RecoverOptions,
        job: Job<'_>,
    ) -> Result<RecoverReport> {
        let failed = |op: &'static str| {
            move |source: io::Error| Error::Output { op, path: dir.to_owned(), source }
        };
        let is_made = match std::fs::create_dir(dir) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(failed("creating")(error)),
        };
        let beneath = Beneath::open(dir).map_err(failed("opening"))?;
        let mut sink = Sink {
            plan: self,
            beneath,
            dir,
            options,
            job,
            report: self.troubles.clone(),
            before: Before::default(),
            renamed: HashMap::new(),
            written: Vec::new(),
            buffer: Vec::new(),
            parts: 0,
        };
        if let Err(refused) = sink.check() {
            if is_made {
                // Nothing is in it.
                let _ = std::fs::remove_dir(dir);
            }
            return Err(refused);
        }
        sink.look_before()?;
        job.progress.begin(Step::RecoverFiles, self.bytes());
        sink.folders()?;
        for at in self.in_image_order() {
            job.check()?;
            sink.file(at)?;
        }
        sink.others()?;
        sink.finish_folders()?;
        for folder in sink.beneath.filesystems() {
            syncfs(folder).map_err(|e| failed("syncing")(e.into()))?;
        }
        job.progress.end(Step::RecoverFiles);
        if options.verify {
            sink.verify()?;
        }
        Ok(sink.report)
    }
}

impl Sink<'_> {
    /// Refuses before the first write.
    fn check(&mut self) -> Result<()> {
        if self.options.existing != Existing::Refuse {
            return Ok(());
        }
        let root = self.beneath.root();
        for item in self.plan.items.iter().filter(|item| !item.path.contains(&b'/')) {
            if statat(&*root, &*item.path, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
                return Err(Refusal::Exists { path: self.place(&item.path) }.into());
            }
        }
        let room = fstatvfs(&*root).map_err(|e| self.failed("looking at", b"")(e.into()))?;
        let free = room.f_bavail.saturating_mul(room.f_frsize);
        if self.plan.bytes() > free {
            let (needed, dir) = (self.plan.bytes(), self.dir.to_owned());
            return Err(Refusal::NoRoom { dir, needed, free }.into());
        }
        Ok(())
    }

    fn place(&self, path: &[u8]) -> PathBuf {
        use std::os::unix::ffi::OsStrExt;
        self.dir.join(std::ffi::OsStr::from_bytes(path))
    }

    pub(super) fn failed(
        &self,
        op: &'static str,
        path: &[u8],
    ) -> impl FnOnce(io::Error) -> Error + use<> {
        let path = self.place(path);
        move |source| Error::Output { op, path, source }
    }

    /// Takes note of a file that could not be written. A full or broken medium ends the job.
    pub(super) fn unless_lost(
        &mut self,
        path: &[u8],
        op: &'static str,
        error: io::Error,
    ) -> Result<()> {
        let ends = [Errno::NOSPC, Errno::DQUOT, Errno::IO, Errno::ROFS, Errno::MFILE, Errno::NFILE];
        let error = self.failed(op, path)(error);
        if let Error::Output { source, .. } = &error
            && ends.iter().any(|one| source.raw_os_error() == Some(one.raw_os_error()))
        {
            return Err(error);
        }
        self.report.not_written(path, &error);
        Ok(())
    }

    fn folders(&mut self) -> Result<()> {
        let plan = self.plan;
        let is_folder = |(_, item): &(usize, &Item)| item.file_type == FileType::Folder;
        for (at, item) in plan.items.iter().enumerate().filter(is_folder) {
            self.job.check()?;
            if let Err(error) = self.make_folder(at, &item.path) {
                self.renamed.insert(at, None);
                self.unless_lost(&item.path, "creating folder", error)?;
            } else {
                self.report.folders += 1;
            }
        }
        Ok(())
    }

    fn make_folder(&mut self, at: usize, path: &[u8]) -> io::Result<()> {
        let (parent, name) = self.beneath.parent(path)?;
        match mkdirat(&*parent, name, Mode::RWXU) {
            // Only into folders that were there when the job began to be allowed.
            Err(Errno::EXIST) if self.before.may_replace(at) => {
                self.beneath.folder(path).map(|_| ())
            }
            Err(Errno::EXIST) => Err(io::Error::other(SameFolder)),
            made => Ok(made?),
        }
    }

    /// Links, devices, and further names of files.
    fn others(&mut self) -> Result<()> {
        let plan = self.plan;
        for (at, item) in plan.items.iter().enumerate() {
            self.job.check()?;
            let made = match (item.file_type, item.same_as()) {
                (FileType::Folder, _) | (FileType::File, None) => continue,
                _ if let Err(error) = self.check_name(at, item) => Err(error),
                (FileType::File, Some(first)) => self.hard_link(item, first)?,
                _ => self.special(item),
            };
            if let Err(error) = made {
                self.unless_lost(&item.path, "making", error)?;
            }
        }
        Ok(())
    }

    fn hard_link(&mut self, item: &Item, first: usize) -> Result<io::Result<()>> {
        let target = match self.renamed.get(&first) {
            Some(None) => return Ok(Err(io::Error::other("the file itself was not written"))),
            Some(Some(renamed)) => renamed.clone(),
            None => self.plan.items[first].path.to_vec(),
        };
        let mut path = item.path.to_vec();
        if self.renamed.contains_key(&first) {
            let name =
                path.split_off(path.iter().rposition(|&byte| byte == b'/').map_or(0, |at| at + 1));
            path.extend_from_slice(&damaged_name(&name));
        }
        let linked = self.link(&target, &path);
        match linked {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if self.options.existing == Existing::Skip && self.is_linked(&target, &path) {
                    self.report.skipped += 1;
                    return Ok(Ok(()));
                }
                Ok(Err(error))
            }
            Err(_) => {
                // A filesystem without links, or one with as many as it takes.
                self.report.not_kept(NotKept::HardLink);
                let filesystem = self.plan.filesystem(item);
                let (metadata, data) =
                    match (filesystem.metadata(item.id), filesystem.open(item.id)) {
                        (Ok(metadata), Ok(data)) => (metadata, data),
                        (Err(error), _) | (_, Err(error)) => {
                            return Ok(Err(io::Error::other(error)));
                        }
                    };
                // What became of the first name holds for the names that follow.
                let was = self.renamed.remove(&first);
                self.write_file(Some(first), item, &item.path, &metadata, &*data)?;
                self.renamed.remove(&first);
                was.and_then(|was| self.renamed.insert(first, was));
                Ok(Ok(()))
            }
            Ok(()) => {
                self.report.hard_links += 1;
                Ok(Ok(()))
            }
        }
    }

    /// Whether two paths are names of the same file.
    fn is_linked(&mut self, target: &[u8], path: &[u8]) -> bool {
        let mut found = |path: &[u8]| {
            let (parent, name) = self.beneath.parent(path)?;
            Ok(statat(&*parent, name, AtFlags::SYMLINK_NOFOLLOW)?)
        };
        let (a, b): (io::Result<_>, io::Result<_>) = (found(target), found(path));
        a.ok().zip(b.ok()).is_some_and(|(a, b)| (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
    }

    fn link(&mut self, target: &[u8], path: &[u8]) -> io::Result<()> {
        let (from, name) = self.beneath.parent(target)?;
        let (to, new) = self.beneath.parent(path)?;
        if self.options.existing != Existing::Replace {
            return Ok(linkat(&*from, name, &*to, new, AtFlags::empty())?);
        }
        let part = self.part();
        linkat(&*from, name, &*to, part.as_str(), AtFlags::empty())?;
        self.name(&*to, &part, new).inspect_err(|_| remove(&*to, &part))
    }

    fn special(&mut self, item: &Item) -> io::Result<()> {
        let filesystem = self.plan.filesystem(item);
        let metadata = filesystem.metadata(item.id).map_err(io::Error::other)?;
        let (parent, name) = self.beneath.parent(&item.path)?;
        let is_skipped = self.options.existing == Existing::Skip
            && is_there(&parent, name, filesystem, item, &metadata);
        if is_skipped {
            self.report.skipped += 1;
            return Ok(());
        }
        let part = self.part();
        if item.file_type == FileType::Link {
            let target = filesystem.link_target(item.id).map_err(io::Error::other)?;
            symlinkat(&*target, &*parent, part.as_str())?;
        } else {
            let (kind, device) = made_type(item.file_type, &metadata)
                .ok_or_else(|| io::Error::other("nothing of its kind can be made here"))?;
            let made = mknodat(&*parent, part.as_str(), kind, Mode::RUSR | Mode::WUSR, device);
            if made.is_err() && item.file_type == FileType::Socket {
                self.report.not_kept(NotKept::Socket);
                return Ok(());
            }
            made?;
        }
        let attributes = self.attributes(item);
        let owners = self.options.owners;
        apply_at(&*parent, part.as_bytes(), &metadata, &attributes, owners, &mut self.report);
        if item.file_type != FileType::Link {
            let mode = Mode::from_raw_mode(mode_of(&metadata, owners).into());
            if set_mode_at(&*parent, part.as_bytes(), mode).is_err() {
                self.report.not_kept(NotKept::Mode);
            }
        }
        self.name(&*parent, &part, name).inspect_err(|_| remove(&*parent, &part))?;
        match item.file_type {
            FileType::Link => self.report.links += 1,
            _ => self.report.others += 1,
        }
        Ok(())
    }

    /// Folders get their metadata when nothing in them changes any more.
    fn finish_folders(&mut self) -> Result<()> {
        let plan = self.plan;
        let is_folder = |(_, item): &(usize, &Item)| item.file_type == FileType::Folder;
        for (at, item) in plan.items.iter().enumerate().rev().filter(is_folder) {
            self.job.check()?;
            if self.renamed.contains_key(&at) {
                continue;
            }
            let filesystem = plan.filesystem(item);
            let folder = match self.beneath.folder(&item.path) {
                Ok(folder) => folder,
                Err(error) => {
                    self.unless_lost(&item.path, "opening folder", error)?;
                    continue;
                }
            };
            self.streams(item)?;
            match filesystem.metadata(item.id) {
                Ok(metadata) => {
                    let attributes = self.attributes(item);
                    let owners = self.options.owners;
                    apply(&*folder, &metadata, &attributes, owners, &mut self.report);
                }
                Err(error) => self.report.not_written(&item.path, &error),
            }
        }
        Ok(())
    }
}

/// Removes what did not get its name. Best effort: what led here says more.
fn remove(folder: impl AsFd, part: &str) {
    let _ = unlinkat(folder, part, AtFlags::empty());
}

/// Whether a link, device, pipe or socket is there already.
fn is_there(
    folder: impl AsFd,
    name: &[u8],
    filesystem: &dyn Filesystem,
    item: &Item,
    metadata: &Metadata,
) -> bool {
    let folder = folder.as_fd();
    if item.file_type == FileType::Link {
        let found = readlinkat(folder, name, Vec::new());
        let target = filesystem.link_target(item.id);
        return found.ok().zip(target.ok()).is_some_and(|(a, b)| a.to_bytes() == b);
    }
    let Ok(found) = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) else { return false };
    let is = (MadeType::from_raw_mode(found.st_mode), found.st_rdev);
    made_type(item.file_type, metadata) == Some(is)
}

fn made_type(file_type: FileType, metadata: &Metadata) -> Option<(MadeType, Dev)> {
    let device = metadata.device.map_or(0, |device| makedev(device.major, device.minor));
    Some(match file_type {
        FileType::CharDevice => (MadeType::CharacterDevice, device),
        FileType::BlockDevice => (MadeType::BlockDevice, device),
        FileType::Pipe => (MadeType::Fifo, 0),
        FileType::Socket => (MadeType::Socket, 0),
        _ => return None,
    })
}
