//! Fewer points of a set: those that nobody wants any more are merged into the ones that follow
//! them, so that every point that stays reads as before.

mod apply;
mod traces;

use aiv_image_format::{ImageKind, Keys, ParentLink, PointId, SetId};
use aiv_volume_io::{Job, Storage};

use crate::error::Result;
use crate::facts::Protection;
use crate::folder::{Point, Set};
use crate::keep::Keep;
use crate::merge::{bytes_max, has_parity};
use crate::view::View;
use traces::Traces;

pub use apply::{ConsolidateOptions, ConsolidationReport, MergedImage};

/// What a consolidation of one set will do. Printing it is the dry run.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConsolidationPlan {
    /// The set.
    pub set: SetId,
    /// What is merged, oldest first.
    pub runs: Vec<PlannedRun>,
    /// Points that an earlier consolidation made superfluous without coming to remove them,
    /// oldest first: their files are removed, and nothing is written for that.
    pub leftovers: Vec<PlannedPoint>,
    /// The points that stay.
    pub kept: Vec<PointId>,
    /// The keys of the set.
    pub(crate) keys: Keys,
}

/// Points that are merged into the kept one that follows them.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PlannedRun {
    /// The points that go, oldest first.
    pub drops: Vec<PlannedPoint>,
    /// The point that stays, provided by one new image from then on.
    pub result: PlannedPoint,
    /// What the new image is.
    pub kind: ImageKind,
    /// The point the new image builds on; `None` when it is full.
    pub parent: Option<ParentLink>,
    /// Bytes the new image may take, at most.
    pub bytes_max: u64,
    /// Bytes of the files that are removed.
    pub bytes_freed: u64,
    /// What a key does for the images, and for the new one.
    pub protection: Protection,
    /// Whether [`PlannedRun::bytes_max`] holds parity over all pieces.
    pub(crate) has_parity: bool,
}

/// A point, and the files that provide it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlannedPoint {
    /// The point with the root of its state.
    pub link: ParentLink,
    /// Names of its files; the first one is read.
    pub files: Vec<String>,
    /// Bytes of the first one.
    pub bytes: u64,
}

impl PlannedPoint {
    fn of(point: &Point) -> Self {
        let others = point.other_files.iter();
        let files = std::iter::once(&point.file).chain(others).cloned().collect();
        Self { link: point.link(), files, bytes: point.size_stored }
    }
}

impl ConsolidationPlan {
    /// Plans which points of `set`, which a scan of `storage` found, are merged into others so
    /// that those stay which `keep` asks for, those that several others build on, and the newest
    /// of every chain. Reads the indexes of the images that are to be merged, and writes
    /// nothing.
    ///
    /// # Errors
    /// [`crate::Error::Image`] and [`crate::Error::Io`] when an image that is to be merged
    /// cannot be read, [`crate::Error::NotRestorable`] when it is another one by now,
    /// [`crate::Error::Canceled`].
    pub fn new(storage: &dyn Storage, set: &Set, keep: &Keep, job: Job<'_>) -> Result<Self> {
        let sorted = keep.sort(set, &Traces::new(storage, set, job));
        job.check()?;
        let mut runs = Vec::new();
        for line in &sorted.lines {
            job.check()?;
            let view = View::of_point(storage, set, line.result)?;
            let count = line.drops.len() + 1;
            let bytes_max = bytes_max(&view, count);
            let oldest = line.drops.first().unwrap_or(&line.result);
            let went = line.drops.iter().copied().chain([line.result]);
            runs.push(PlannedRun {
                drops: line.drops.iter().map(|point| PlannedPoint::of(point)).collect(),
                result: PlannedPoint::of(line.result),
                kind: oldest.kind,
                parent: oldest.parent,
                bytes_max: bytes_max.map_err(|e| view.layers.explain(e))?,
                bytes_freed: went.map(|point| point.size_stored).sum(),
                protection: line.result.protection,
                has_parity: has_parity(&view, count),
            });
        }
        Ok(Self {
            keys: set.keys.clone(),
            set: set.id,
            runs,
            leftovers: sorted.leftovers.into_iter().map(PlannedPoint::of).collect(),
            kept: sorted.kept.iter().map(|point| point.id).collect(),
        })
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.leftovers.is_empty()
    }
}
