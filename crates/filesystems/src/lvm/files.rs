//! Files in the logical volumes of a physical volume.

use aiv_volume_io::{Extent, ExtentSet, Job, ReadAt};

use super::label;
use super::pieces::Pieces;
use super::used::{look_inside, read_group};
use super::volume::LogicalVolume;
use crate::FilesystemKind;
use crate::files::{
    FILES_MAX, FileExtents, InnerVolume, KeptReason, Matching, MatchingFiles, NothingReason,
    Pattern, find_files_in,
};
use crate::stop::Stop;

/// Finds the files that match, on a physical volume inside `depth` others that has a map.
pub(crate) fn find(
    volume: &dyn ReadAt,
    patterns: &[Pattern],
    depth: usize,
    job: Job<'_>,
) -> std::result::Result<MatchingFiles, Stop> {
    let label = label::read(volume)?;
    let group = read_group(volume, &label)?;
    let mut answer = MatchingFiles::default();
    for (n, logical) in group.volumes.iter().enumerate() {
        job.check()?;
        let name = &logical.name;
        let mut nothing = |filesystem, reason| {
            answer.inner.push(InnerVolume { name: name.clone(), filesystem, reason });
        };
        if logical.opaque.is_some() {
            nothing(FilesystemKind::Unknown, NothingReason::KeptInFull);
            continue;
        }
        // An extent with two places in one volume could be a file at the one and a record at the
        // other.
        let lens = logical.pieces.iter().map(|piece| piece.physical.len).sum::<u64>();
        if places([logical].into_iter()).total_len() != lens {
            let what = "extents in two places of a logical volume".to_owned();
            nothing(FilesystemKind::Unknown, NothingReason::Damaged { what });
            continue;
        }
        let pieces = Pieces::new(volume, &logical.pieces);
        let (recognised, map) = look_inside(&pieces, depth, job)?;
        if !recognised.kind.has_files() {
            continue;
        }
        match find_files_in(&pieces, &recognised, &map, patterns, depth + 1, job)? {
            Matching::Nothing { reason } => nothing(recognised.kind, reason),
            Matching::Files(found) => {
                let others = group.volumes.iter().enumerate().filter(|(other, _)| *other != n);
                let others = places(others.map(|(_, other)| other));
                take(&mut answer, name, found, &pieces, &others);
            }
        }
    }
    answer.files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(answer)
}

fn places<'a>(volumes: impl Iterator<Item = &'a LogicalVolume>) -> ExtentSet {
    volumes.flat_map(|volume| &volume.pieces).map(|piece| piece.physical).collect()
}

/// Adds what was found in one logical volume, in bytes of the physical one.
fn take(
    answer: &mut MatchingFiles,
    name: &str,
    found: MatchingFiles,
    pieces: &Pieces<'_>,
    others: &ExtentSet,
) {
    for FileExtents { path, len, extents } in found.files {
        let path = format!("{name}:{path}");
        let set: ExtentSet = extents.into_iter().collect();
        let extents: ExtentSet = pieces.places_of(&set).into_iter().collect();
        let is_shared = |run: &Extent| others.within(*run).next().is_some();
        if answer.files.len() == FILES_MAX {
            answer.keep(path, KeptReason::TooMany);
        } else if extents.runs().iter().any(is_shared) {
            answer.keep(path, KeptReason::Shared);
        } else {
            answer.files.push(FileExtents { path, len, extents: extents.runs().to_vec() });
        }
    }
    let unnamed = found.kept_count - found.kept.len() as u64;
    for kept in found.kept {
        answer.keep(format!("{name}:{}", kept.path), kept.reason);
    }
    answer.kept_count += unnamed;
    let within =
        |inner: InnerVolume| InnerVolume { name: format!("{name}/{}", inner.name), ..inner };
    answer.inner.extend(found.inner.into_iter().map(within));
}
