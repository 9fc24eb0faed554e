//! Image files copied byte for byte, each proven before it is published, and none before what it
//! builds on.

use std::collections::HashSet;
use std::io;

use aiv_image_format::{Depth, Error as ImageError, Image, Keys, PointId};
use aiv_volume_io::{Job, Lease, Step, Storage};

use super::{census_of_durable, check_room};
use crate::ancestry::{Ancestry, Node};
use crate::error::{Error, Result};
use crate::folder::{Folder, Point, PointState, Set, list};
use crate::merge::{MERGE_PART, NewIds, prove, remove_stale, take_lease};
use crate::names::{ImageName, image_name};
use crate::open::{Head, open};

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
    /// Bytes of the file.
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
        let source = self.from.open(from).map_err(Error::io(format!("opening {from}")))?;
        let image = Image::open(source).map_err(|e| Error::in_file(from, e))?;
        if (image.superblock().point, image.trailer().state_root) != (point.id, point.state_root) {
            // Somebody put another file in its place.
            let state = PointState::MissingParent { point: point.id };
            return Err(Error::NotRestorable { point: point.id, state });
        }
        let (part, mut created) = self.create(point, new_ids)?;
        let outcome = self.fill(&image, from, &part, &mut *created).and_then(|()| {
            self.lease.check().map_err(Error::io("checking the lease before publishing"))?;
            self.publish(point, &part, new_ids)
        });
        drop(created);
        if outcome.is_err() {
            // Best effort: the first error is the one that matters, and a leftover is harmless.
            let _ = self.to.remove(&part);
        }
        let file = outcome?;
        let durable = format!("making the name durable of {file}");
        self.to.sync_dir().map_err(Error::io(durable))?;
        let bytes = image.trailer().file_len;
        Ok(CopiedFile { point: point.id, from: from.clone(), file, bytes })
    }

    /// Creates a temporary file that does not exist yet.
    fn create(
        &self,
        point: &Point,
        new_ids: &mut NewIds<'_>,
    ) -> Result<(String, Box<dyn aiv_volume_io::AppendFile>)> {
        let mut name = point.file.clone();
        let mut tried = 0;
        loop {
            let part = format!("{name}{MERGE_PART}");
            match self.to.create(&part) {
                Ok(created) => return Ok((part, created)),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists && tried < NAMES_TRIED => {
                    name = self.other_name(point, new_ids);
                    tried += 1;
                }
                Err(source) => return Err(Error::io(format!("creating {part}"))(source)),
            }
        }
    }

    /// Copies the bytes, makes them durable, and proves that they are those of `image`.
    fn fill(
        &self,
        image: &Image,
        from: &str,
        part: &str,
        created: &mut dyn aiv_volume_io::AppendFile,
    ) -> Result<()> {
        let source = image.file();
        let len = image.trailer().file_len;
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
        created.sync().map_err(Error::io(format!("making {part} durable")))?;
        let file = part.trim_end_matches(MERGE_PART);
        // The stored bytes are what is copied: no key is needed for them.
        let keys = Keys::none();
        let proven = prove(self.to, part, file, image.trailer(), None, &keys, self.job);
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

    /// Publishes under the name it has in the other folder, or one with other random characters
    /// when that is taken.
    fn publish(&self, point: &Point, part: &str, new_ids: &mut NewIds<'_>) -> Result<String> {
        let taken: HashSet<String> = list(self.to)?.into_iter().map(|entry| entry.name).collect();
        let mut name = point.file.clone();
        for _ in 0..NAMES_TRIED {
            if !taken.contains(&name) {
                match self.to.publish(part, &name) {
                    Ok(()) => return Ok(name),
                    Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
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
