//! What is asked of the files of a mutant that may be left out.

use std::panic::{AssertUnwindSafe, catch_unwind};

use aiv_filesystems::{Matching, Pattern, Recognised, UsedMap, find_files};
use aiv_testkit::mutants::{Changes, Mutated, total_len};
use aiv_volume_io::{Extent, ExtentSet, Job, MemDisk};

use crate::prove::said;

/// Every second file by its name, a folder, and a long file.
fn patterns() -> Result<Vec<Pattern>, String> {
    let parse = |text: &str| text.parse().map_err(|error| format!("{text}: {error}"));
    ["*[02468]", "/small/", "long"].into_iter().map(parse).collect()
}

/// What is read of an unchanged volume to find its files.
pub(super) fn reads(
    disk: &MemDisk,
    recognised: &Recognised,
    map: &UsedMap,
) -> Result<Vec<Extent>, String> {
    let unchanged = Changes::new();
    let recorder = Mutated::new(disk, &unchanged);
    find_files(&recorder, recognised, map, &patterns()?, Job::silent()).map_err(|e| said(&e))?;
    Ok(recorder.take_reads())
}

/// Looks for files in a mutant whose map was read from `records`, and judges what is found: how
/// many files may be left out.
pub(super) fn check(
    disk: &MemDisk,
    changes: &Changes,
    recognised: &Recognised,
    map: &UsedMap,
    records: &[Extent],
) -> Result<u64, String> {
    let patterns = patterns()?;
    let len = aiv_volume_io::ReadAt::len(disk);
    let mutated = Mutated::with_budget(disk, changes, 20 * len + (8 << 20));
    let find = || find_files(&mutated, recognised, map, &patterns, Job::silent());
    let found = match catch_unwind(AssertUnwindSafe(find)) {
        Ok(found) => found.map_err(|error| format!("files: {}", said(&error)))?,
        Err(_) => return Err("it panicked over its files".to_owned()),
    };
    let Matching::Files(found) = found else { return Ok(0) };
    let UsedMap::Used { used, .. } = map else {
        return Err("files of a volume without a map".to_owned());
    };
    let records: ExtentSet = records.iter().copied().collect();
    let all: Vec<Extent> = found.files.iter().flat_map(|file| &file.extents).copied().collect();
    let set: ExtentSet = all.iter().copied().collect();
    if set.total_len() != total_len(&all) {
        return Err("two files have one block".to_owned());
    }
    for extent in all {
        if extent.is_empty() || used.within(extent).next() != Some(extent) {
            return Err(format!("{extent:?} of a file is not used"));
        }
        if let Some(record) = records.within(extent).next() {
            return Err(format!("{extent:?} of a file has {record:?} of the filesystem"));
        }
    }
    Ok(found.files.len() as u64)
}
