//! Image files copied byte for byte, each proven before it is published, and none before what it
//! builds on.

use std::collections::HashSet;
use std::io;

use aiv_image_format::{
    Depth, Error as ImageError, Image, Keys, PointId, SegmentFiles, segment_name,
};
use aiv_volume_io::{AppendFile, Job, Lease, ReadAt, Step, Storage};

use super::{census_of_durable, check_room};
use crate::ancestry::{Ancestry, Node};
use crate::error::{Error, Result};
use crate::folder::{Folder, Point, PointState, Set, list};
use crate::merge::{MERGE_PART, NewIds, prove, remove_stale, take_lease};
use crate::names::{ImageName, image_name};
use crate::open::{Head, open};
use crate::split::{PartFiles, discard_parts, publish_parts_as};

/// Bytes read and written at once.
const CHUNK: u64 = 4 << 20;

/// Names tried for a file before it is given up: each has four random characters.
const NAMES_TRIED: usize = 16;

/// What copying did.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct CopyReport {
    /// Files that were written, in this order.
    pub copied: Vec<CopiedFile>,
    /// Points that were there already; those they build on were not looked at.
    pub were_there: Vec<PointId>,
    /// Points that were not copied because they cannot be restored.
    pub left_out: Vec<PointId>,
}

/// An image file that was copied.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CopiedFile {
    /// The point it provides.
    pub point: PointId,
    /// Name in the folder it came from.
    pub from: String,
    /// Name in the folder it is in now.
    pub file: String,
    /// Bytes of the file, or of all its segments.
    pub bytes: u64,
}

/// Copies `point` of `set`, which a scan of `from` found, into `to`, after the points it builds
/// on. A file whose state `to` provides already is not copied, and neither is what it builds on.
///
/// # Errors
/// [`Error::Busy`], [`Error::NoSpace`], [`Error::NotRestorable`], [`Error::Image`] when a file
/// cannot be read or is damaged, [`Error::ReadBack`] when the copy of a sound one does not read
/// back, [`Error::Io`], [`Error::Canceled`]. After an error the copies finished so far stay.
pub fn copy_point(
    from: &dyn Storage,
    set: &Set,
    point: &Point,
    to: &dyn Storage,
    new_ids: &mut NewIds<'_>,
    job: Job<'_>,
) -> Result<CopyReport> {
    let lease = take_lease(to, set.id)?;
    Copying { from, set, to, lease: &*lease, job }.run(&[point], new_ids)
}

/// Copies every point of `set`, which a scan of `from` found, into `to`, each after the points it
/// builds on. Points that cannot be restored are left out.
///
/// # Errors
/// As [`copy_point`].
pub fn copy_set(
    from: &dyn Storage,
    set: &Set,
    to: &dyn Storage,
    new_ids: &mut NewIds<'_>,
    job: Job<'_>,
) -> Result<CopyReport> {
    let lease = take_lease(to, set.id)?;
    let (wanted, left_out): (Vec<&Point>, Vec<&Point>) =
        set.points.iter().partition(|point| point.is_whole());
    let mut report = Copying { from, set, to, lease: &*lease, job }.run(&wanted, new_ids)?;
    report.left_out = left_out.iter().map(|point| point.id).collect();
    Ok(report)
}

/// A copy under way; the lease is that of the destination.
pub(super) struct Copying<'a> {
    pub from: &'a dyn Storage,
    pub set: &'a Set,
    pub to: &'a dyn Storage,
    pub lease: &'a dyn Lease,
    pub job: Job<'a>,
}

impl Copying<'_> {
    pub(super) fn run(&self, wanted: &[&Point], new_ids: &mut NewIds<'_>) -> Result<CopyReport> {
        remove_stale(self.to, self.set.id)?;
        let mut report = CopyReport::default();
        let files = self.needed(wanted, &mut report)?;
        check_room(self.to, files.iter().map(|point| point.size_stored).sum())?;
        self.job.progress.begin(Step::CopyImage, files.iter().map(|p| p.size_stored).sum());
        for point in files {
            self.job.check()?;
            report.copied.push(self.copy(point, new_ids)?);
        }
        self.job.progress.end(Step::CopyImage);
        Ok(report)
    }

    /// The points whose files have to be copied, each after the one it builds on.
    fn needed<'s>(
        &'s self,
        wanted: &[&'s Point],
        report: &mut CopyReport,
    ) -> Result<Vec<&'s Point>> {
        let there = census_of_durable(self.to, self.job)?;
        let there = Ancestry::of(&there.all);
        let node = |point: &Point| -> Node { (self.set.id, point.id, point.state_root) };
        // What a verification found to be damaged is worth another copy.
        let folder = Folder::scan(self.to, self.job)?;
        let known = folder.set(self.set.id).map_or(&[][..], |set| &set.points);
        let damaged = known.iter().filter(|point| point.damaged_by.is_some()).map(node);
        let damaged: HashSet<Node> = damaged.collect();
        let has = |point: &Point| there.has(node(point), true) && !damaged.contains(&node(point));
        let mut planned: HashSet<Node> = HashSet::new();
        let mut files = Vec::new();
        for &point in wanted {
            if has(point) {
                report.were_there.push(point.id);
                continue;
            }
            let chain = self.set.chain(point)?;
            let missing = chain.into_iter().take_while(|point| !has(point));
            let missing: Vec<&Point> = missing.collect();
            for point in missing.into_iter().rev() {
                if planned.insert(node(point)) {
                    files.push(point);
                }
            }
        }
        Ok(files)
    }

    fn copy(&self, point: &Point, new_ids: &mut NewIds<'_>) -> Result<CopiedFile> {
        let from = &point.file;
        let image = open(self.from, from, Head::Read, &Keys::none())?;
        let count = image.trailer().segment_count.max(1);
        if (image.superblock().point, image.trailer().state_root) != (point.id, point.state_root) {
            // Somebody put another file in its place.
            let state = PointState::MissingParent { point: point.id };
            return Err(Error::NotRestorable { point: point.id, state });
        }
        let (name, created) = self.create(point, count, new_ids)?;
        let outcome = self.fill(&image, point, &name, created).and_then(|bytes| {
            self.lease.check().map_err(Error::io("checking the lease before publishing"))?;
            Ok((self.publish(point, &name, count, new_ids)?, bytes))
        });
        if outcome.is_err() {
            discard_parts(self.to, &name, MERGE_PART);
        }
        let (file, bytes) = outcome?;
        let durable = format!("making the name durable of {file}");
        self.to.sync_dir().map_err(Error::io(durable))?;
        Ok(CopiedFile { point: point.id, from: from.clone(), file, bytes })
    }

    /// Creates the first of `count` temporary files that do not exist yet; returns its name without
    /// that ending. A power cut may have left a later one that does not tell whose it is.
    fn create(
        &self,
        point: &Point,
        count: u32,
        new_ids: &mut NewIds<'_>,
    ) -> Result<(String, Box<dyn AppendFile>)> {
        let taken: HashSet<String> = list(self.to)?.into_iter().map(|entry| entry.name).collect();
        let is_taken = |name: &str| {
            (1..count).any(|no| taken.contains(&format!("{}{MERGE_PART}", segment_name(name, no))))
        };
        let mut name = point.file.clone();
        let mut tried = 0;
        loop {
            let part = format!("{name}{MERGE_PART}");
            let created = match is_taken(&name) {
                true => Err(io::ErrorKind::AlreadyExists.into()),
                false => self.to.create(&part),
            };
            match created {
                Ok(created) => return Ok((name, created)),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists && tried < NAMES_TRIED => {
                    name = self.other_name(point, new_ids);
                    tried += 1;
                }
                Err(source) => return Err(Error::io(format!("creating {part}"))(source)),
            }
        }
    }

    /// Copies the bytes, makes them durable, and proves that they are those of `image`. Returns
    /// how many they are.
    fn fill(
        &self,
        image: &Image,
        point: &Point,
        name: &str,
        first: Box<dyn AppendFile>,
    ) -> Result<u64> {
        let from = &point.file;
        let mut files = PartFiles::new(self.to, name, MERGE_PART, first);
        if image.segments().is_none() {
            let part = format!("{name}{MERGE_PART}");
            let created = files.create(0).map_err(Error::io(format!("creating {part}")))?;
            self.copy_bytes(image.file(), from, created, &part)?;
        } else {
            for (no, from) in (0..).zip(std::iter::once(from).chain(&point.segments)) {
                let source = self.from.open(from);
                let source = source.map_err(Error::io(format!("opening {from}")))?;
                let part = format!("{}{MERGE_PART}", segment_name(name, no));
                let created = files.create(no).map_err(Error::io(format!("creating {part}")))?;
                self.copy_bytes(&*source, from, created, &part)?;
            }
        }
        let part = format!("{name}{MERGE_PART}");
        // The stored bytes are what is copied: no key is needed for them.
        let keys = Keys::none();
        let proven = prove(self.to, &part, name, image.trailer(), None, &keys, self.job);
        if let Err(Error::ReadBack { .. }) = proven {
            // A true copy of a damaged file is no fault of the folder it was written to.
            let in_source = |error| Error::in_file(from, error);
            let report = image.verify(Depth::Stored, self.job).map_err(in_source)?;
            if let Some(damage) = report.damage.into_iter().next() {
                return Err(in_source(ImageError::Corrupt(damage)));
            }
        }
        proven
    }

    /// Copies one file and makes it durable.
    fn copy_bytes(
        &self,
        source: &dyn ReadAt,
        from: &str,
        mut created: Box<dyn AppendFile>,
        part: &str,
    ) -> Result<()> {
        let len = source.len();
        let mut buffer = Vec::new();
        let mut at = 0;
        while at < len {
            self.job.check()?;
            let now = (len - at).min(CHUNK);
            // Bounded by the chunk.
            buffer.resize(usize::try_from(now).unwrap_or(0), 0);
            source.read_exact_at(&mut buffer, at).map_err(Error::io(format!("reading {from}")))?;
            let written = created.append_from(source, at, &buffer);
            written.map_err(Error::io(format!("writing {part}")))?;
            at += now;
            self.job.progress.advance(Step::CopyImage, now);
        }
        created.sync().map_err(Error::io(format!("making {part} durable")))
    }

    /// Publishes the files under the names they have in the other folder, or with other random
    /// characters when those are taken. `part` is the name they were written for.
    fn publish(
        &self,
        point: &Point,
        part: &str,
        count: u32,
        new_ids: &mut NewIds<'_>,
    ) -> Result<String> {
        let taken: HashSet<String> = list(self.to)?.into_iter().map(|entry| entry.name).collect();
        let mut name = point.file.clone();
        for _ in 0..NAMES_TRIED {
            if !(0..count).any(|no| taken.contains(&segment_name(&name, no))) {
                match publish_parts_as(self.to, part, MERGE_PART, count, &name) {
                    Ok(()) => return Ok(name),
                    Err(e) if e.kind() == io::ErrorKind::AlreadyExists && count == 1 => {}
                    Err(source) => return Err(Error::io(format!("publishing {name}"))(source)),
                }
            }
            name = self.other_name(point, new_ids);
        }
        Err(Error::io(format!("publishing {name}"))(io::ErrorKind::AlreadyExists.into()))
    }

    /// Another name for the file of a point, in the same folder.
    fn other_name(&self, point: &Point, new_ids: &mut NewIds<'_>) -> String {
        let suffix = new_ids().suffix();
        let folder = point.file.rsplit_once('/').map_or("", |(folder, _)| folder);
        let (host, name) = match open(self.from, &point.file, Head::Read, &self.set.keys) {
            Ok(image) => {
                let manifest = &image.meta().manifest;
                (manifest.host.clone(), manifest.name.clone())
            }
            Err(_) => (self.set.host.clone(), self.set.name.clone()),
        };
        let name = ImageName {
            host: &host,
            name: &name,
            time_unix_ms: point.time_unix_ms,
            full_number: point.full_number,
            increment_number: point.parent.map(|_| point.increment_number),
        };
        let name = image_name(&name, &suffix);
        if folder.is_empty() { name } else { format!("{folder}/{name}") }
    }
}
