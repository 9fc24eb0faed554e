//! What a folder holds, found by looking into every file.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use aiv_image_format::{
    Corrupt, Digest, Error as ImageError, Image, ImageKind, PointId, SetId, Trailer,
};
use aiv_volume_io::{FileEntry, Job, Storage};

use crate::error::{Error, Result};

/// A folder of images, as found at one time.
#[derive(Debug, Clone, Default)]
pub struct Folder {
    /// The sets, by name and id.
    pub sets: Vec<Set>,
    /// Files that are no usable image, by name.
    pub strays: Vec<Stray>,
}

/// All points of one source.
#[derive(Debug, Clone)]
pub struct Set {
    /// Identity, derived from the source's.
    pub id: SetId,
    /// What people call the source; from the newest point.
    pub name: String,
    /// Host of the newest point.
    pub host: String,
    /// The source's identity as text.
    pub source_id: String,
    /// The points, oldest first.
    pub points: Vec<Point>,
}

/// One recovery point, and the file that provides it.
#[derive(Debug, Clone)]
pub struct Point {
    /// Identity of the point.
    pub id: PointId,
    /// Name of the file in the folder.
    pub file: String,
    /// Full, incremental or differential.
    pub kind: ImageKind,
    /// The point it builds on.
    pub parent: Option<PointId>,
    /// When the source was read, milliseconds since 1970 UTC; informational.
    pub time_unix_ms: u64,
    /// Number of the full image in its set.
    pub full_number: u32,
    /// Number of the increment after it.
    pub increment_number: u32,
    /// Bytes of the disk.
    pub size: u64,
    /// Bytes of the file.
    pub size_stored: u64,
    /// Name of the state.
    pub state_root: Digest,
    /// Hash of the bytes.
    pub content_root: Digest,
    /// Free text of the user.
    pub comment: String,
    /// Whether it can be restored, as far as its structures tell.
    pub state: PointState,
}

/// Whether a point can be restored, as far as opening its files tells.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PointState {
    /// Every image it needs opens.
    Restorable,
    /// It opens by a second copy of a damaged part; verify it soon.
    Damaged(Vec<Corrupt>),
}

impl Point {
    /// Whether every image it needs opens.
    #[must_use]
    pub fn is_restorable(&self) -> bool {
        matches!(self.state, PointState::Restorable | PointState::Damaged(_))
    }
}

/// A file that is no usable image.
#[derive(Debug, Clone)]
pub struct Stray {
    /// Name of the file in the folder.
    pub file: String,
    /// Bytes of the file.
    pub size: u64,
    /// What it is.
    pub kind: StrayKind,
}

/// What a file that is no usable image is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StrayKind {
    /// A backup that is running or was interrupted; safe to remove when none is running.
    Unfinished,
    /// Named like an image, but not one of ours.
    Foreign(String),
    /// One of ours that cannot be opened: damaged, cut off, or from a newer program.
    Unusable(String),
    /// The storage cannot read it, now at least: it may hold a point.
    Unreadable(String),
    /// A second file that provides a point which another file provides already.
    Duplicate(String),
}

/// Extension of files being written; never looked at as images.
pub(crate) const PART_EXTENSION: &str = ".part";

impl Folder {
    /// Looks into every file of `storage`. Files that are neither images nor named like one
    /// are not listed.
    ///
    /// # Errors
    /// [`Error::Io`] when the folder cannot be listed, [`Error::Canceled`]. A file that cannot
    /// be read is a stray.
    pub fn scan(storage: &dyn Storage, job: Job<'_>) -> Result<Self> {
        let listed = list(storage)?;
        let mut sets: BTreeMap<SetId, Set> = BTreeMap::new();
        let mut strays = Vec::new();
        for entry in listed {
            job.check()?;
            let stray = |kind| Stray { file: entry.name.clone(), size: entry.len, kind };
            if entry.name.ends_with(PART_EXTENSION) {
                strays.push(stray(StrayKind::Unfinished));
                continue;
            }
            match open(storage, &entry.name) {
                // Its blocks can be restored by file name, but nothing says which point of
                // which source it is.
                Ok(image) if !image.has_meta() => {
                    let damage = image.damage().iter().map(ToString::to_string);
                    let why = damage.collect::<Vec<_>>().join("; ");
                    strays.push(stray(StrayKind::Unusable(why)));
                }
                Ok(image) => {
                    let set = sets.entry(image.superblock().set).or_insert_with(|| new_set(&image));
                    let point = point_of(&image, entry.name.clone());
                    if let Some(first) = set.points.iter_mut().find(|p| p.id == point.id) {
                        strays.push(settle_duplicate(first, point));
                        continue;
                    }
                    if set.points.iter().all(|p| age(p) <= age(&point)) {
                        let manifest = &image.meta().manifest;
                        set.name.clone_from(&manifest.name);
                        set.host.clone_from(&manifest.host);
                    }
                    set.points.push(point);
                }
                Err(Error::Image { source: ImageError::Foreign(why), .. }) => {
                    if is_named_like_an_image(&entry.name) {
                        strays.push(stray(StrayKind::Foreign(why.to_string())));
                    }
                }
                // Removed or renamed by somebody else since the folder was listed.
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                // One bad file must not keep anybody from the others.
                Err(
                    error @ (Error::Io { .. } | Error::Image { source: ImageError::Io { .. }, .. }),
                ) => {
                    strays.push(stray(StrayKind::Unreadable(why(&error))));
                }
                Err(error @ Error::Image { .. }) => {
                    strays.push(stray(StrayKind::Unusable(why(&error))));
                }
                Err(error) => return Err(error),
            }
        }
        let mut sets: Vec<Set> = sets.into_values().collect();
        for set in &mut sets {
            set.points.sort_by_key(age);
        }
        sets.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        Ok(Self { sets, strays })
    }

    /// The set with this identity.
    #[must_use]
    pub fn set(&self, id: SetId) -> Option<&Set> {
        self.sets.iter().find(|s| s.id == id)
    }
}

/// Two files provide one point: keeps the sounder one in `kept`, and of equals the first by
/// name; the other becomes a stray.
fn settle_duplicate(kept: &mut Point, mut other: Point) -> Stray {
    if kept.state != PointState::Restorable && other.state == PointState::Restorable {
        std::mem::swap(kept, &mut other);
    }
    let kind = StrayKind::Duplicate(kept.file.clone());
    Stray { file: other.file, size: other.size_stored, kind }
}

/// What is wrong with a file, without its name.
pub(crate) fn why(error: &Error) -> String {
    let mut causes: Vec<String> = Vec::new();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        causes.push(error.to_string());
        cause = error.source();
    }
    causes.join(": ")
}

/// Sorts the points of a set from the oldest to the newest.
fn age(point: &Point) -> impl Ord + use<> {
    (point.full_number, point.increment_number, point.time_unix_ms, point.id)
}

/// All files of a folder, by name.
pub(crate) fn list(storage: &dyn Storage) -> Result<Vec<FileEntry>> {
    storage.list().map_err(|source| Error::Io { op: "listing the folder".to_owned(), source })
}

/// Opens one image of a folder.
pub(crate) fn open(storage: &dyn Storage, name: &str) -> Result<Image> {
    let file =
        storage.open(name).map_err(|source| Error::Io { op: format!("opening {name}"), source })?;
    Image::open(Arc::clone(&file)).map_err(|source| Error::Image { file: name.to_owned(), source })
}

fn new_set(image: &Image) -> Set {
    let manifest = &image.meta().manifest;
    Set {
        id: image.superblock().set,
        name: manifest.name.clone(),
        host: manifest.host.clone(),
        source_id: manifest.source_id.clone(),
        points: Vec::new(),
    }
}

fn point_of(image: &Image, file: String) -> Point {
    let (superblock, manifest) = (image.superblock(), &image.meta().manifest);
    let Trailer { state_root, content_root, file_len, .. } = *image.trailer();
    let state = match image.damage() {
        [] => PointState::Restorable,
        damage => PointState::Damaged(damage.to_vec()),
    };
    Point {
        id: superblock.point,
        file,
        kind: superblock.kind,
        parent: superblock.parent.map(|p| p.point),
        time_unix_ms: manifest.time_unix_ms,
        full_number: manifest.full_number,
        increment_number: manifest.increment_number,
        size: superblock.geometry.len(),
        size_stored: file_len,
        state_root,
        content_root,
        comment: manifest.comment.clone(),
        state,
    }
}

pub(crate) fn is_named_like_an_image(name: &str) -> bool {
    let extension = name.rsplit('.').next().unwrap_or_default();
    extension.eq_ignore_ascii_case("aiv") || extension.eq_ignore_ascii_case("aii")
}
