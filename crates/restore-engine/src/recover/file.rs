//! One file into a folder.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use aiv_browse::{Attribute, FileData, Metadata, Timestamp};
use aiv_volume_io::{Extent, ExtentSet, ReadAt, Step};
use rustix::fs::{
    AtFlags, FileType as MadeType, Mode, OFlags, Stat, openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;

use super::before::{SameName, taken};
use super::copy::{STRIDE, copy, ranges};
use super::folder::{Existing, Sink};
use super::items::Item;
use super::metadata::apply;
use super::naming::give_name;
use super::report::NotKept;
use super::verify::Written;
use crate::error::{Error, Result};

/// What became of one file.
pub(super) enum Made {
    New,
    Skipped,
    No,
}

/// Bytes of a name that most filesystems take.
const NAME_MAX: usize = 255;

/// The name of a file of which bytes are lost: as much of its own as there is room for.
pub(super) fn damaged_name(name: &[u8]) -> Vec<u8> {
    const SAID: &[u8] = b".damaged";
    let room = NAME_MAX - SAID.len();
    let kept = match std::str::from_utf8(name) {
        Ok(text) => text.floor_char_boundary(room),
        Err(_) => room.min(name.len()),
    };
    [&name[..kept], SAID].concat()
}

/// A file that is there has the length and time of the one that would be written, and is another.
#[derive(Debug, thiserror::Error)]
#[error("it is there with the same size and time, and other bytes: remove it, or replace it")]
struct OtherBytes;

/// A stream whose name is none.
#[derive(Debug, thiserror::Error)]
#[error("its name cannot be one of a file")]
pub(super) struct NoName;

impl Sink<'_> {
    pub(super) fn file(&mut self, at: usize) -> Result<()> {
        let plan = self.plan;
        let item = &plan.items[at];
        let filesystem = plan.filesystem(item);
        let (metadata, data) = match (filesystem.metadata(item.id), filesystem.open(item.id)) {
            (Ok(metadata), Ok(data)) => (metadata, data),
            (Err(error), _) | (_, Err(error)) => {
                self.renamed.insert(at, None);
                self.report.not_written(&item.path, &error);
                return Ok(());
            }
        };
        if let Err(error) = self.check_name(at, item) {
            return self.not_made(Some(at), &item.path, "naming", error).map(|_| ());
        }
        match self.write_file(Some(at), item, &item.path, &metadata, &*data)? {
            Made::New => self.streams(item),
            Made::Skipped | Made::No => Ok(()),
        }
    }

    /// Writes one file under a name of its own, and gives it its name. A stream has no position
    /// among the items.
    pub(super) fn write_file(
        &mut self,
        at: Option<usize>,
        item: &Item,
        path: &[u8],
        metadata: &Metadata,
        data: &dyn FileData,
    ) -> Result<Made> {
        let (parent, name) = match self.beneath.parent(path) {
            Ok(found) => found,
            Err(error) => {
                return self.not_made(at, path, "opening the folder of", error);
            }
        };
        if self.options.existing == Existing::Skip
            && let Ok(found) = statat(&*parent, name, AtFlags::SYMLINK_NOFOLLOW)
        {
            if !is_same(&found, metadata, data.len()) {
                return self.not_made(at, path, "writing", Errno::EXIST.into());
            }
            // After a power failure a file may have its name, length and time, and not its bytes.
            return match self.has_bytes(&*parent, name, data)? {
                Ok(true) => {
                    self.report.skipped += 1;
                    Ok(Made::Skipped)
                }
                Ok(false) => self.not_made(at, path, "comparing", io::Error::other(OtherBytes)),
                Err(error) => self.not_made(at, path, "comparing", error),
            };
        }
        let part = self.part();
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = openat(&*parent, part.as_str(), flags, Mode::RUSR | Mode::WUSR);
        let written = match made {
            Ok(file) => self.fill(at, &file.into(), item, metadata, data),
            Err(error) => return self.not_made(at, path, "creating", error.into()),
        };
        let remove = || unlinkat(&*parent, part.as_str(), AtFlags::empty());
        let lost = match written {
            Ok(lost) => lost,
            Err(error) => {
                // The error that ended it says more.
                let _ = remove();
                return match error {
                    Error::Output { op, source, .. } => self.not_made(at, path, op, source),
                    error => Err(error),
                };
            }
        };
        let is_whole = lost.is_empty();
        let last = if is_whole { name.to_vec() } else { damaged_name(name) };
        let named = match is_whole || !self.is_of_another(&path[..path.len() - name.len()], &last) {
            true => self.name(&*parent, &part, &last),
            false => Err(io::Error::other(SameName)),
        };
        if let Err(error) = named {
            let _ = remove();
            let found = statat(&*parent, &*last, AtFlags::SYMLINK_NOFOLLOW);
            let is_there = !is_whole
                && self.options.existing == Existing::Skip
                && found.is_ok_and(|found| is_same(&found, metadata, data.len()));
            if !is_there {
                return self.not_made(at, path, "naming", error);
            }
            // It came damaged before, and does again.
            self.report.skipped += 1;
            let is = [&path[..path.len() - name.len()], &last].concat();
            self.report.damaged(&is, lost);
            at.map(|at| self.renamed.insert(at, Some(is)));
            return Ok(Made::Skipped);
        }
        if !is_whole {
            let is = [&path[..path.len() - name.len()], &last].concat();
            self.report.damaged(&is, lost);
            at.map(|at| self.renamed.insert(at, Some(is)));
        }
        match at {
            Some(_) => self.report.files += 1,
            None => self.report.streams += 1,
        }
        Ok(Made::New)
    }

    /// A name for something that is not complete.
    pub(super) fn part(&mut self) -> String {
        self.parts += 1;
        format!(".aiv-{:016x}-{}.part", self.options.seed, self.parts)
    }

    /// Gives what is complete its name, in place of what has it where that was asked for.
    pub(super) fn name(&self, folder: impl AsFd, part: &str, name: &[u8]) -> io::Result<()> {
        let folder = folder.as_fd();
        match self.options.existing {
            Existing::Replace => {
                renameat(folder, part, folder, name)?;
                // Of two names of one file, a rename leaves both.
                match unlinkat(folder, part, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => Ok(()),
                    Err(error) => Err(error.into()),
                }
            }
            existing => {
                give_name(folder, part.as_bytes(), name).map_err(|error| taken(existing, error))
            }
        }
    }

    fn not_made(
        &mut self,
        at: Option<usize>,
        path: &[u8],
        op: &'static str,
        error: io::Error,
    ) -> Result<Made> {
        at.map(|at| self.renamed.insert(at, None));
        self.unless_lost(path, op, error).map(|()| Made::No)
    }

    /// Writes bytes and metadata into an open file, and tells what is lost.
    fn fill(
        &mut self,
        at: Option<usize>,
        file: &File,
        item: &Item,
        metadata: &Metadata,
        data: &dyn FileData,
    ) -> Result<Vec<Extent>> {
        let output = |op| move |source| Error::Output { op, path: PathBuf::new(), source };
        // Trouble of the image: as `EIO`, it would be taken for one of the target.
        let unread = |source: io::Error| output("reading")(io::Error::other(source));
        let ranges = ranges(data).map_err(unread)?;
        let mut hasher = blake3::Hasher::new();
        let verified = at.filter(|_| self.options.verify);
        let mut buffer = std::mem::take(&mut self.buffer);
        let lost = copy(data, &ranges, &mut buffer, self.job, &mut |offset, bytes| {
            if verified.is_some() {
                hasher.update(&offset.to_le_bytes());
                hasher.update(bytes);
            }
            self.report.bytes += bytes.len() as u64;
            file.write_all_at(bytes, offset).map_err(output("writing"))
        });
        self.buffer = buffer;
        let lost = lost?;
        if ranges.last().is_none_or(|last| last.end() < data.len()) {
            file.set_len(data.len()).map_err(output("writing"))?;
        }
        let attributes = match at {
            Some(_) => self.attributes(item),
            None => Vec::new(),
        };
        apply(file, metadata, &attributes, self.options.owners, &mut self.report);
        if let Some(at) = verified.filter(|_| lost.is_empty()) {
            self.written.push((at, hasher.finalize()));
        }
        Ok(lost)
    }

    /// Whether a file that is there has the bytes of `data`. The inner error is one of the file.
    fn has_bytes(
        &mut self,
        folder: impl AsFd,
        name: &[u8],
        data: &dyn FileData,
    ) -> Result<io::Result<bool>> {
        let found = match Written::open(folder, name) {
            Ok(found) => found,
            Err(error) => return Ok(Err(error)),
        };
        // Where both have holes, nothing is read.
        let parts = ranges(data).and_then(|parts| {
            let theirs = found.ranges()?;
            Ok(parts.into_iter().chain(theirs).collect::<ExtentSet>())
        });
        let parts = match parts {
            Ok(parts) => parts,
            Err(error) => return Ok(Err(error)),
        };
        let (mut theirs, mut ours) = (Vec::new(), Vec::new());
        for range in parts.runs() {
            let mut at = range.start;
            while at < range.end() {
                self.job.check()?;
                let len = (STRIDE - at % STRIDE).min(range.end() - at);
                ours.resize(crate::zeros::in_memory(len), 0);
                theirs.resize(ours.len(), 0);
                let read = data.read_exact_at(&mut ours, at);
                match read.and_then(|()| found.read_exact_at(&mut theirs, at)) {
                    Ok(()) if ours == theirs => {}
                    Ok(()) => return Ok(Ok(false)),
                    Err(error) => return Ok(Err(io::Error::other(error))),
                }
                self.job.progress.advance(Step::RecoverFiles, len);
                at += len;
            }
        }
        Ok(Ok(true))
    }

    /// The attributes of an item, as far as they can be read.
    pub(super) fn attributes(&mut self, item: &Item) -> Vec<Attribute> {
        self.plan.filesystem(item).attributes(item.id).unwrap_or_else(|_| {
            self.report.not_kept(NotKept::Attribute("(cannot be read)".to_owned()));
            Vec::new()
        })
    }

    /// Each named stream becomes a file whose name says so, as drivers of NTFS show it.
    pub(super) fn streams(&mut self, item: &Item) -> Result<()> {
        let filesystem = self.plan.filesystem(item);
        let streams = match filesystem.streams(item.id) {
            Ok(streams) => streams,
            Err(error) => {
                self.report.not_written(&[&*item.path, b":"].concat(), &error);
                return Ok(());
            }
        };
        for stream in streams {
            let path = [&*item.path, b":", &*stream.name].concat();
            let opened = filesystem.open_stream(item.id, &stream.name);
            match (opened, filesystem.metadata(item.id)) {
                _ if stream.name.contains(&b'/') || stream.name.contains(&0) => {
                    self.report.not_written(&path, &NoName);
                }
                (Ok(data), Ok(metadata)) => {
                    self.write_file(None, item, &path, &metadata, &*data)?;
                }
                (Err(error), _) | (_, Err(error)) => self.report.not_written(&path, &error),
            }
        }
        Ok(())
    }
}

fn is_same(found: &Stat, metadata: &Metadata, len: u64) -> bool {
    let is_file = MadeType::from_raw_mode(found.st_mode) == MadeType::RegularFile;
    is_file
        && u64::try_from(found.st_size).ok() == Some(len)
        && metadata.modified.is_none_or(|time| is_time(found, time))
}

/// Whether a file has a time, as far as its filesystem keeps it: steps are of 100 nanoseconds
/// (NTFS) to two seconds (FAT).
fn is_time(found: &Stat, time: Timestamp) -> bool {
    let all = |seconds: i64, nanoseconds: i128| i128::from(seconds) * 1_000_000_000 + nanoseconds;
    let wanted = all(time.seconds, time.nanoseconds.into());
    let is = all(found.st_mtime, found.st_mtime_nsec.into());
    let is_coarse = is % 100 == 0;
    is == wanted || is_coarse && (is - wanted).abs() < 2_000_000_000
}
