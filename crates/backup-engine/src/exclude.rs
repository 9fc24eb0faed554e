//! Which bytes of the volumes the user left out.

use aiv_filesystems::{
    InnerVolume, Matching, MatchingFiles, NothingReason, Pattern, Recognised, UsedMap, find_files,
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
        if self.patterns.is_empty() || !recognised.kind.has_files() {
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
                notes.push(nothing(at, filesystem, &reason, why));
                return Ok(());
            }
            Err(error) => unreadable_records(error)?,
        };
        notes.push(PlanNote::NothingExcluded { volume: at, filesystem, why });
        Ok(())
    }

    fn take(&mut self, found: MatchingFiles, volume: u64, notes: &mut Vec<PlanNote>) {
        let MatchingFiles { files, kept, kept_count, inner } = found;
        notes.extend(inner.into_iter().map(|InnerVolume { name, filesystem, reason }| {
            let filesystem = format!("{filesystem} (LVM, {name})");
            nothing(volume, filesystem, &reason, reason.to_string())
        }));
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

/// What a program cannot do yet is worth a note, what it could have done a warning.
fn nothing(volume: u64, filesystem: String, reason: &NothingReason, why: String) -> PlanNote {
    match reason {
        NothingReason::KeptInFull | NothingReason::NoFiles { .. } => {
            PlanNote::FilesNotRead { volume, filesystem, why }
        }
        _ => PlanNote::NothingExcluded { volume, filesystem, why },
    }
}
