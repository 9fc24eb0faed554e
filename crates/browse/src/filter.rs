//! Which files of many are meant.

use std::ops::RangeInclusive;

use aiv_filesystems::{FileType, Pattern, fold};

use crate::walk::Found;

/// Files that are looked for. Everything must hold.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// One of these; none for all. Paths count from the root of the volume.
    pub patterns: Vec<Pattern>,
    /// The patterns were made for names without upper and lower case.
    pub ignore_case: bool,
    /// Bytes of a regular file.
    pub len: Option<RangeInclusive<u64>>,
    /// When it was last modified, in seconds since 1970 UTC.
    pub modified: Option<RangeInclusive<i64>>,
    /// What it is.
    pub file_type: Option<FileType>,
}

impl Filter {
    /// Whether a file is meant by itself.
    #[must_use]
    pub fn matches(&self, found: &Found<'_>) -> bool {
        self.fits(found) && self.names(found)
    }

    /// Whether everything but its name is as wanted.
    #[must_use]
    pub fn fits(&self, found: &Found<'_>) -> bool {
        let metadata = found.metadata;
        if self.file_type.is_some_and(|wanted| wanted != metadata.file_type) {
            return false;
        }
        let is_file = metadata.file_type == FileType::File;
        if self.len.as_ref().is_some_and(|len| !is_file || !len.contains(&metadata.len)) {
            return false;
        }
        let seconds = metadata.modified.map(|time| time.seconds);
        let is_within = |range: &RangeInclusive<i64>| seconds.is_some_and(|at| range.contains(&at));
        self.modified.as_ref().is_none_or(is_within)
    }

    /// Whether one of the patterns names it; whatever it is when there is none.
    #[must_use]
    pub fn names(&self, found: &Found<'_>) -> bool {
        if self.patterns.is_empty() {
            return true;
        }
        // The first part is the volume.
        let parts = found.path.parts().get(1..).unwrap_or_default();
        let name = |part: &Vec<u8>| {
            let name = String::from_utf8_lossy(part);
            if self.ignore_case { name.chars().map(fold).collect() } else { name.into_owned() }
        };
        let names: Vec<String> = parts.iter().map(name).collect();
        let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
        let is_folder = found.metadata.file_type == FileType::Folder;
        self.patterns.iter().any(|pattern| pattern.matches(&names, is_folder))
    }
}
