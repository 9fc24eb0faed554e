//! Finds the point an increment builds on, and the points that are lost.

use aiv_chain::{Depth, Folder, Point, PointState, Set, StrayKind, View};
use aiv_image_format::{BlockSize, Error as ImageError, ImageKind, PointId, SetId, peek};
use aiv_volume_io::{Job, Storage, causes};

use crate::error::Result;
use crate::facts::Basis;
use crate::plan::BackupPlan;
use crate::seal;

/// A recovery point that can no longer be restored in full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostPoint {
    /// Its id, where that much is known.
    pub id: Option<PointId>,
    /// The file that provides, or provided, it.
    pub file: String,
    /// Why it is lost.
    pub why: String,
}

/// Newest image checked byte by byte before an increment builds on it, unless it is larger: a
/// full image is proven by `aiv verify`, at a time of its owner's choosing.
const CHECKED_BYTES_MAX: u64 = 256 << 20;

/// Index pages looked at of a larger one: those of 128 MiB, some 200 GiB of used blocks. What is
/// damaged beyond shows when a comparison meets it.
const CHECKED_PAGES_MAX: u64 = 32_768;

/// Points tried as a basis: when so many are damaged, a full image is what the set needs.
const CANDIDATES_MAX: usize = 64;

/// What a new image may build on, best first, and what it will be called.
pub(crate) struct Bases<'f> {
    pub set: Option<&'f Set>,
    candidates: Vec<&'f Point>,
    /// Points that are lost: newer than the candidate that is tried next, or without a file that
    /// can be opened.
    pub lost: Vec<LostPoint>,
    pub full_number: u32,
    pub increment_number: u32,
}

impl<'f> Bases<'f> {
    /// Looks through what `folder` holds of the source.
    pub(crate) fn find(
        folder: &'f Folder,
        storage: &dyn Storage,
        set_id: SetId,
        plan: &BackupPlan,
    ) -> Self {
        let set = folder.set(set_id);
        let points = set.map_or(&[][..], |set| &set.points);
        let wanted = |point: &&Point| match plan.options.basis {
            Basis::Nothing => false,
            Basis::Newest => true,
            Basis::NewestFull => point.kind == ImageKind::Full,
        };
        let sector_size = plan.geometry.sector_size();
        let fits = |point: &&Point| {
            let block_size = |size: BlockSize| size == point.block_size;
            point.sector_size == sector_size
                && plan.options.block_size.is_none_or(block_size)
                && seal::may_build_on(plan.options.seal.as_ref(), point.protection)
        };
        let mut candidates = Vec::new();
        let mut lost = unusable_files(folder, storage, set_id);
        for gone in folder.vanished.iter().filter(|gone| gone.set == set_id) {
            let (id, file) = (Some(gone.point), gone.file.clone());
            // What is left of it, a split image without one of its files, was named above.
            if lost.iter().all(|point| point.id != id) {
                lost.push(LostPoint { id, file, why: "its file is gone".to_owned() });
            }
        }
        for point in points.iter().rev().filter(wanted) {
            match &point.state {
                // Damage that a verification found and nobody mended: an older point is better.
                PointState::Restorable if point.damaged_by.is_some() => {
                    if let (true, Some(file)) = (candidates.is_empty(), &point.damaged_by) {
                        lost.push(lost_point(point, format!("{file} was found damaged")));
                    }
                }
                PointState::Restorable if fits(&point) => candidates.push(point),
                PointState::Restorable => {}
                // Of a key that was not given: nothing is wrong with it.
                PointState::Locked { .. } => {}
                // Newer than every candidate: this is what continuing costs.
                state if candidates.is_empty() => lost.push(lost_point(point, state.to_string())),
                _ => {}
            }
        }
        candidates.truncate(CANDIDATES_MAX);
        // The numbers of a set only grow, whatever a point builds on: they order it.
        let full_number = points.iter().map(|p| p.full_number).max().unwrap_or(0);
        let of_full = points.iter().filter(|p| p.full_number == full_number);
        let increment_number = of_full.map(|p| p.increment_number).max().unwrap_or(0);
        Self { set, candidates, lost, full_number, increment_number }
    }

    /// The next candidate, opened with its whole chain. Those that turn out to be damaged are
    /// added to the lost ones.
    pub(crate) fn next(&mut self, storage: &dyn Storage, job: Job<'_>) -> Result<Option<View>> {
        let Some(set) = self.set else { return Ok(None) };
        while !self.candidates.is_empty() {
            let point = self.candidates.remove(0);
            match open(storage, set, point, job) {
                Ok(view) => return Ok(Some(view)),
                Err(aiv_chain::Error::Canceled(canceled)) => return Err(canceled.into()),
                Err(error) => self.lose(point, &error),
            }
        }
        Ok(None)
    }

    /// The point `tried` turned out to be damaged while it was used. What else is read through
    /// the same file is not tried: a disk would be read once for each.
    pub(crate) fn gave_up(&mut self, tried: PointId, error: &ImageError) {
        let Some(set) = self.set else { return };
        let damaged = match error {
            ImageError::Parent { file, .. } => Some(file.as_str()),
            _ => None,
        };
        let needs_it = |point: &&Point| {
            let chain = set.chain(point).unwrap_or_default();
            chain.iter().any(|image| Some(image.file.as_str()) == damaged)
        };
        let (lost, left) = std::mem::take(&mut self.candidates).into_iter().partition(needs_it);
        self.candidates = left;
        let lost: Vec<&Point> = lost;
        for point in set.point(tried).into_iter().chain(lost) {
            self.lose(point, error);
        }
    }

    fn lose(&mut self, point: &Point, error: &dyn std::error::Error) {
        self.lost.push(lost_point(point, causes(error)));
    }
}

/// Opens a point and checks its newest image as far as that is cheap.
fn open(storage: &dyn Storage, set: &Set, point: &Point, job: Job<'_>) -> aiv_chain::Result<View> {
    let view = View::of_point(storage, set, point)?;
    let trailer = view.image().trailer();
    let depth = if trailer.file_len <= CHECKED_BYTES_MAX {
        Depth::Stored
    } else if trailer.index_pages <= CHECKED_PAGES_MAX {
        Depth::Quick
    } else {
        return Ok(view);
    };
    let silent = Job { progress: Job::silent().progress, ..job };
    let found = match view.parent() {
        None => view.image().verify(depth, silent),
        Some(parent) => view.image().verify_on(&parent, depth, silent),
    };
    let wrap = |source| aiv_chain::Error::Image { file: point.file.clone(), source };
    match found.map_err(wrap)?.damage.into_iter().next() {
        None => Ok(view),
        Some(damage) => Err(wrap(damage.into())),
    }
}

/// Files of the set that cannot be opened at all: their point is lost, and which one it was
/// shows their superblock, if anything.
fn unusable_files(folder: &Folder, storage: &dyn Storage, set: SetId) -> Vec<LostPoint> {
    let mut lost = Vec::new();
    for stray in &folder.strays {
        let StrayKind::Unusable(why) = &stray.kind else { continue };
        let Ok(file) = storage.open(&stray.file) else { continue };
        let Some(superblock) = peek(&*file).filter(|s| s.set == set) else { continue };
        let provided = folder.set(set).and_then(|set| set.point(superblock.point));
        if provided.is_none_or(|point| !point.is_restorable()) {
            let (id, file) = (Some(superblock.point), stray.file.clone());
            lost.push(LostPoint { id, file, why: why.clone() });
        }
    }
    lost
}

fn lost_point(point: &Point, why: String) -> LostPoint {
    LostPoint { id: Some(point.id), file: point.file.clone(), why }
}
