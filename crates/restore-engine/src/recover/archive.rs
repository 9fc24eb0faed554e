//! Files into an archive: what all kinds of archives have in common.

use std::collections::HashSet;
use std::io::{self, Write};
use std::path::PathBuf;

use aiv_browse::{Attribute, FileData, FileType, Metadata};
use aiv_volume_io::{Extent, Job, Step};

use super::copy::{copy, ranges};
use super::file::NoName;
use super::items::{Item, RecoverPlan};
use super::report::{NotKept, RecoverReport};
use super::{metadata, tar::Tar, zip::Zip};
use crate::error::{Error, Result};

/// What an archive is given of a file.
pub(super) struct Entry<'a> {
    /// With slashes between its parts and none in front.
    pub(super) path: &'a [u8],
    pub(super) metadata: &'a Metadata,
    pub(super) attributes: &'a [Attribute],
}

/// The bytes of a file on their way into an archive.
pub(super) struct Body<'a> {
    pub(super) data: &'a dyn FileData,
    /// Parts that are no holes.
    pub(super) ranges: &'a [Extent],
    pub(super) buffer: &'a mut Vec<u8>,
    pub(super) job: Job<'a>,
}

impl Body<'_> {
    /// Writes the bytes of all ranges, `holes` as zeros between them where they are wanted, and
    /// tells which bytes are lost.
    pub(super) fn write(self, holes: bool, out: &mut dyn Write) -> Result<Vec<Extent>> {
        let mut at = 0;
        let job = self.job;
        let lost = copy(self.data, self.ranges, self.buffer, job, &mut |offset, bytes| {
            if holes {
                zeros(out, offset - at, job)?;
            }
            at = offset + bytes.len() as u64;
            out.write_all(bytes).map_err(output("writing"))
        })?;
        if holes {
            zeros(out, self.data.len() - at, job)?;
        }
        Ok(lost)
    }
}

/// A hole may be of any length, and whoever waits for it must be able to stop.
fn zeros(out: &mut dyn Write, count: u64, job: Job<'_>) -> Result<()> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    let mut left = count;
    while left > 0 {
        job.check()?;
        let len = left.min(ZEROS.len() as u64);
        let some = &ZEROS[..crate::zeros::in_memory(len)];
        out.write_all(some).map_err(output("writing"))?;
        left -= len;
    }
    Ok(())
}

/// An error of the archive itself.
pub(super) fn output(op: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Output { op, path: PathBuf::from("the archive"), source }
}

/// One kind of archive.
pub(super) trait Archive {
    fn folder(&mut self, entry: &Entry<'_>) -> Result<()>;
    fn file(&mut self, entry: &Entry<'_>, body: Body<'_>) -> Result<Vec<Extent>>;
    fn link(&mut self, entry: &Entry<'_>, target: &[u8]) -> Result<()>;
    /// Another name of a file that is in the archive already.
    fn hard_link(&mut self, entry: &Entry<'_>, first: &[u8]) -> Result<Kept>;
    /// A device, pipe or socket.
    fn special(&mut self, entry: &Entry<'_>) -> Result<Kept>;
    fn finish(self: Box<Self>) -> Result<()>;
    /// Why nothing can have this name in the archive, as the rest of a sentence.
    fn refuses(&self, _path: &[u8]) -> Option<&'static str> {
        None
    }
    /// Whether folders stand before what is in them.
    fn folders_first(&self) -> bool {
        false
    }
    /// Whether owners are kept.
    fn has_owners(&self) -> bool;
    /// Whether an attribute is, by its name.
    fn has_attribute(&self, name: &[u8]) -> bool;
    /// Whether names are bytes, and not text.
    fn has_any_name(&self) -> bool;
}

/// Whether an archive can hold something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    Yes,
    No,
}

impl RecoverPlan {
    /// Writes everything into a tar archive (POSIX.1-2001, with the extensions of GNU tar for
    /// attributes and sparse files).
    ///
    /// # Errors
    /// [`Error::Output`] when it cannot be written, [`Error::Canceled`]; what was written is no
    /// archive then. What concerns one file only is in the report.
    pub fn to_tar(&self, out: &mut dyn Write, job: Job<'_>) -> Result<RecoverReport> {
        self.to_archive(Box::new(Tar::new(out)), job)
    }

    /// Writes everything into a zip archive. Owners, attributes, devices and hard links are not
    /// kept.
    ///
    /// # Errors
    /// As [`to_tar`](Self::to_tar).
    pub fn to_zip(&self, out: &mut dyn Write, job: Job<'_>) -> Result<RecoverReport> {
        self.to_archive(Box::new(Zip::new(out)), job)
    }

    fn to_archive(&self, archive: Box<dyn Archive + '_>, job: Job<'_>) -> Result<RecoverReport> {
        let folders_first = archive.folders_first();
        let mut packing = Packing {
            plan: self,
            archive,
            job,
            report: self.troubles.clone(),
            buffer: Vec::new(),
            missing: HashSet::new(),
        };
        job.progress.begin(Step::RecoverFiles, self.bytes());
        let mut each = |order: &mut dyn Iterator<Item = usize>| {
            for at in order {
                job.check()?;
                packing.item(at)?;
            }
            Ok::<_, Error>(())
        };
        let all = 0..self.items.len();
        let is_folder = |item: &Item| item.file_type == FileType::Folder;
        if folders_first {
            each(&mut all.clone().filter(|&at| is_folder(&self.items[at])))?;
        }
        each(&mut self.in_image_order().into_iter())?;
        // Whoever unpacks gives folders their times when they come, and what comes into one later
        // changes those again. Links in turn must follow their folder: GNU tar makes those that
        // lead up or to the root at the very end, and remembers folders only for what follows.
        let is_read = |item: &Item| item.file_type == FileType::File && item.same_as().is_none();
        let is_late = |item: &Item| matches!(item.file_type, FileType::Folder | FileType::Link);
        let is_done = |item: &Item| is_read(item) || folders_first && is_folder(item);
        for late in [false, true] {
            let now = |item: &Item| !is_done(item) && is_late(item) == late;
            each(&mut all.clone().filter(|&at| now(&self.items[at])))?;
        }
        packing.archive.finish()?;
        job.progress.end(Step::RecoverFiles);
        Ok(packing.report)
    }
}

struct Packing<'a> {
    plan: &'a RecoverPlan,
    archive: Box<dyn Archive + 'a>,
    job: Job<'a>,
    report: RecoverReport,
    buffer: Vec<u8>,
    /// Positions of files that are not in the archive: none can be another name of them.
    missing: HashSet<usize>,
}

impl Packing<'_> {
    fn item(&mut self, at: usize) -> Result<()> {
        let item = &self.plan.items[at];
        if item.file_type == FileType::Socket {
            // No archive holds one, and nobody misses it.
            self.report.not_kept(NotKept::Socket);
            return Ok(());
        }
        let filesystem = self.plan.filesystem(item);
        let known = match filesystem.metadata(item.id) {
            Ok(known) => known,
            Err(error) => {
                self.missing.insert(at);
                self.report.not_written(&item.path, &error);
                return Ok(());
            }
        };
        let attributes = filesystem.attributes(item.id).unwrap_or_else(|_| {
            self.report.not_kept(NotKept::Attribute("(cannot be read)".to_owned()));
            Vec::new()
        });
        metadata::count_unkept(&known, &mut self.report);
        if !self.archive.has_owners() && known.owner.is_some() {
            self.report.not_kept(NotKept::Owner);
        }
        for attribute in &attributes {
            if !self.archive.has_attribute(&attribute.name) {
                let name = super::report::shown(&attribute.name);
                self.report.not_kept(NotKept::Attribute(name));
            }
        }
        if std::str::from_utf8(&item.path).is_err() && !self.archive.has_any_name() {
            self.report.not_kept(NotKept::Name);
        }
        let entry = Entry { path: &item.path, metadata: &known, attributes: &attributes };
        if self.is_refused(&entry) {
            self.missing.insert(at);
            return Ok(());
        }
        match (item.file_type, item.same_as()) {
            (FileType::Folder, _) => {
                self.archive.folder(&entry)?;
                self.report.folders += 1;
                self.streams(item, &known)
            }
            (FileType::File, Some(first)) if self.missing.contains(&first) => {
                let why = io::Error::other("the file itself was not written");
                self.report.not_written(&item.path, &why);
                Ok(())
            }
            (FileType::File, Some(first)) => {
                match self.archive.hard_link(&entry, &self.plan.items[first].path)? {
                    Kept::Yes => {
                        self.report.hard_links += 1;
                        Ok(())
                    }
                    Kept::No => {
                        self.report.not_kept(NotKept::HardLink);
                        self.bytes(item, &entry).map(|_| ())
                    }
                }
            }
            (FileType::File, None) => {
                if self.bytes(item, &entry)? {
                    return self.streams(item, &known);
                }
                self.missing.insert(at);
                Ok(())
            }
            (FileType::Link, _) => match filesystem.link_target(item.id) {
                Ok(target) => {
                    if std::str::from_utf8(&target).is_err() && !self.archive.has_any_name() {
                        self.report.not_kept(NotKept::Name);
                    }
                    self.archive.link(&entry, &target)?;
                    self.report.links += 1;
                    Ok(())
                }
                Err(error) => {
                    self.report.not_written(&item.path, &error);
                    Ok(())
                }
            },
            _ => {
                match self.archive.special(&entry)? {
                    Kept::Yes => self.report.others += 1,
                    Kept::No => self.report.not_written(&item.path, &NoKind),
                }
                Ok(())
            }
        }
    }

    /// Writes a file, and tells whether it is in the archive.
    fn bytes(&mut self, item: &Item, entry: &Entry<'_>) -> Result<bool> {
        let data = match self.plan.filesystem(item).open(item.id) {
            Ok(data) => data,
            Err(error) => {
                self.report.not_written(&item.path, &error);
                return Ok(false);
            }
        };
        let is_in = self.body(entry, &*data)?;
        self.report.files += u64::from(is_in);
        Ok(is_in)
    }

    fn is_refused(&mut self, entry: &Entry<'_>) -> bool {
        let why = self.archive.refuses(entry.path);
        if let Some(why) = why {
            self.report.not_written(entry.path, &io::Error::other(why));
        }
        why.is_some()
    }

    fn body(&mut self, entry: &Entry<'_>, data: &dyn FileData) -> Result<bool> {
        if self.is_refused(entry) {
            return Ok(false);
        }
        let ranges = match ranges(data) {
            Ok(ranges) => ranges,
            Err(error) => {
                self.report.not_written(entry.path, &error);
                return Ok(false);
            }
        };
        self.report.bytes += ranges.iter().map(|range| range.len).sum::<u64>();
        let body = Body { data, ranges: &ranges, buffer: &mut self.buffer, job: self.job };
        let lost = self.archive.file(entry, body)?;
        if !lost.is_empty() {
            self.say_damaged(entry, &lost)?;
            self.report.damaged(entry.path, lost);
        }
        Ok(true)
    }

    /// The name of a damaged file was written before its damage was known: a file beside it tells.
    fn say_damaged(&mut self, entry: &Entry<'_>, lost: &[Extent]) -> Result<()> {
        let path = [entry.path, b".damaged"].concat();
        let lines =
            lost.iter().map(|range| format!("bytes {} to {} are lost\n", range.start, range.end()));
        let text = Text(lines.collect::<String>().into_bytes());
        let whole = [Extent::new(0, text.0.len() as u64)];
        let beside = Entry { path: &path, metadata: entry.metadata, attributes: &[] };
        // Its name is taken: the report tells all the same.
        if self.archive.refuses(&path).is_some() {
            return Ok(());
        }
        let body = Body { data: &text, ranges: &whole, buffer: &mut self.buffer, job: self.job };
        self.archive.file(&beside, body).map(|_| ())
    }

    fn streams(&mut self, item: &Item, known: &Metadata) -> Result<()> {
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
            match filesystem.open_stream(item.id, &stream.name) {
                _ if stream.name.contains(&b'/') || stream.name.contains(&0) => {
                    self.report.not_written(&path, &NoName);
                }
                Ok(data) => {
                    let entry = Entry { path: &path, metadata: known, attributes: &[] };
                    self.report.streams += u64::from(self.body(&entry, &*data)?);
                }
                Err(error) => self.report.not_written(&path, &error),
            }
        }
        Ok(())
    }
}

/// Something that no archive of this kind holds.
#[derive(Debug, thiserror::Error)]
#[error("an archive of this kind cannot hold it")]
struct NoKind;

struct Text(Vec<u8>);

impl aiv_volume_io::ReadAt for Text {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let at = crate::zeros::in_memory(offset);
        let bytes = self.0.get(at..).and_then(|rest| rest.get(..out.len()));
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl FileData for Text {
    fn extents(&self) -> aiv_filesystems::Result<Vec<Extent>> {
        Ok(Vec::new())
    }
}
