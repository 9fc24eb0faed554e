//! What is left of a volume without some of its files, judged by whoever checks it.

use std::path::Path;

use aiv_volume_io::ExtentSet;

use crate::ext_files::found;
use crate::ext_tools::{copy_of_used, used_bytes};
use crate::tools::{Files, Volume};

/// How a kind of filesystem is judged.
pub(crate) struct Judges {
    pub(crate) assert_clean: fn(&Volume),
    pub(crate) files_in: fn(&Volume) -> Files,
}

/// Leaves the files that match out of a copy whose unused space is noise: it is sound and has all
/// other files as they were, and those left out with their lengths alone. Returns their paths.
pub(crate) fn check(volume: &Volume, patterns: &[&str], judges: &Judges) -> Vec<String> {
    (judges.assert_clean)(volume);
    let found = found(volume, patterns);
    let left_out: ExtentSet = found.files.iter().flat_map(|file| file.extents.clone()).collect();
    let sum: u64 = found.files.iter().flat_map(|file| &file.extents).map(|e| e.len).sum();
    assert_eq!(sum, left_out.total_len(), "a block of two files");
    let (used, ..) = used_bytes(volume);
    let rest: ExtentSet = used.runs().iter().flat_map(|&run| left_out.gaps_within(run)).collect();
    assert_eq!(rest.total_len() + left_out.total_len(), used.total_len(), "only what is used");
    let copy = copy_of_used(volume, &rest);
    (judges.assert_clean)(&copy);
    let mut was = (judges.files_in)(volume);
    let mut is = (judges.files_in)(&copy);
    assert_eq!(is.len(), was.len());
    for file in &found.files {
        let path = Path::new(&file.path);
        let (is, was) = (is.remove(path).unwrap(), was.remove(path).unwrap());
        assert_eq!((is.len(), was.len() as u64), (was.len(), file.len), "{}", file.path);
        assert!(is != was, "{} is left out", file.path);
    }
    assert!(!was.is_empty() && is == was, "other files differ");
    found.files.into_iter().map(|file| file.path).collect()
}
