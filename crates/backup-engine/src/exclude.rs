//! Which bytes of the volumes the user left out.

use aiv_filesystems::{
    FilesystemKind, Matching, MatchingFiles, NothingReason, Pattern, Recognised, UsedMap,
    find_files,
};
use aiv_image_format::meta::{Excluded, ExcludedFile};
use aiv_volume_io::{Extent, ExtentSet, Job, ReadAt};

use crate::error::Result;
use crate::plan::{PlanNote, unreadable_records};

/// Collects the files to leave out, volume by volume.
pub(crate) struct Exclusion<'p> {
    patterns: &'p [Pattern],
    /// Nobody writes to the source: its records are true until it has been read.
    stands_still: bool,
    files: Vec<ExcludedFile>,
}

impl<'p> Exclusion<'p> {
    pub(crate) fn new(patterns: &'p [Pattern], stands_still: bool) -> Self {
        Self { patterns, stands_still, files: Vec::new() }
    }

    /// Looks for the files of the volume at `extent`, whose map was just read.
    pub(crate) fn look_into(
        &mut self,
        volume: &dyn ReadAt,
        extent: Extent,
        recognised: &Recognised,
        map: &UsedMap,
        notes: &mut Vec<PlanNote>,
        job: Job<'_>,
    ) -> Result<()> {
        let has_files = !matches!(
            recognised.kind,
            FilesystemKind::Swap | FilesystemKind::SwapSuspended | FilesystemKind::ExtJournal
        );
        if self.patterns.is_empty() || !has_files {
            return Ok(());
        }
        let (at, filesystem) = (extent.start, recognised.kind.name().to_owned());
        if !self.stands_still {
            let why = "the source may change while it is read".to_owned();
            notes.push(PlanNote::NothingExcluded { volume: at, filesystem, why });
            return Ok(());
        }
        let why = match find_files(volume, recognised, map, self.patterns, job) {
            Ok(Matching::Files(found)) => {
                self.take(found, at, notes);
                return Ok(());
            }
            Ok(Matching::Nothing { reason }) => {
                let why = match map {
                    UsedMap::Whole { reason } => format!("it is kept in full: {reason}"),
                    UsedMap::Used { .. } => reason.to_string(),
                };
                if matches!(reason, NothingReason::KeptInFull | NothingReason::NoFiles { .. }) {
                    notes.push(PlanNote::FilesNotRead { volume: at, filesystem, why });
                    return Ok(());
                }
                why
            }
            Err(error) => unreadable_records(error)?,
        };
        notes.push(PlanNote::NothingExcluded { volume: at, filesystem, why });
        Ok(())
    }

    fn take(&mut self, found: MatchingFiles, volume: u64, notes: &mut Vec<PlanNote>) {
        let MatchingFiles { files, kept, kept_count } = found;
        if kept_count > 0 {
            notes.push(PlanNote::NotExcluded { volume, files: kept, count: kept_count });
        }
        self.files.extend(files.into_iter().map(|file| {
            ExcludedFile {
                volume,
                path: file.path,
                len: file.len,
                extents: file
                    .extents
                    .iter()
                    .map(|e| Extent::new(volume.saturating_add(e.start), e.len))
                    .collect(),
            }
        }));
    }

    /// What is left of `used`, what was taken from it, and the list for the image.
    pub(crate) fn finish(self, used: ExtentSet) -> (ExtentSet, ExtentSet, Excluded) {
        if self.patterns.is_empty() {
            return (used, ExtentSet::new(), Excluded::default());
        }
        let all = self.files.iter().flat_map(|file| &file.extents).copied();
        // Only what is used can be taken from it.
        let inside = all.flat_map(|extent| used.within(extent).collect::<Vec<_>>());
        let excluded: ExtentSet = inside.collect();
        let rest = used.runs().iter().flat_map(|&run| excluded.gaps_within(run)).collect();
        let patterns = self.patterns.iter().map(ToString::to_string).collect();
        (rest, excluded, Excluded::of_files(patterns, self.files))
    }
}
