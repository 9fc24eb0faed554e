//! The section of excluded files.

use aiv_volume_io::Extent;

use super::tlv::{Items, Writer};
use crate::error::Fault;
use crate::limits::{EXCLUDED_BYTES, EXCLUDED_FILES_MAX};

type Checked<T> = std::result::Result<T, Fault>;

/// What the user left out of a point.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Excluded {
    /// Patterns the user gave.
    pub patterns: Vec<String>,
    /// Files that were left out.
    pub file_count: u64,
    /// Bytes of the disk that were left out with them.
    pub bytes: u64,
    /// The files, by volume and path; the first ones, where all would be too many.
    pub files: Vec<ExcludedFile>,
}

/// A file that was left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExcludedFile {
    /// First byte of its volume on the disk.
    pub volume: u64,
    /// Path inside the volume, `/` between folders, none in front.
    pub path: String,
    /// Length of the file in bytes.
    pub len: u64,
    /// Where its data was: bytes of the disk, ascending, disjoint, not empty.
    pub extents: Vec<Extent>,
}

mod tag {
    pub(super) const PATTERN: u16 = 1;
    pub(super) const FILE_COUNT: u16 = 2;
    pub(super) const BYTES: u16 = 3;
    pub(super) const FILE: u16 = 4;
    pub(super) const ALL: &[u16] = &[PATTERN, FILE_COUNT, BYTES, FILE];

    pub(super) const VOLUME: u16 = 1;
    pub(super) const PATH: u16 = 2;
    pub(super) const LEN: u16 = 3;
    pub(super) const EXTENT: u16 = 4;
    pub(super) const ALL_OF_FILE: &[u16] = &[VOLUME, PATH, LEN, EXTENT];
}

impl Excluded {
    /// Lists as many of `files` as an image has room for, each with all its extents, and counts
    /// all of them.
    #[must_use]
    pub fn of_files(mut patterns: Vec<String>, mut files: Vec<ExcludedFile>) -> Self {
        let lens = files.iter().flat_map(|file| &file.extents).map(|extent| extent.len);
        let (file_count, bytes) = (files.len() as u64, lens.sum());
        let mut room = EXCLUDED_BYTES;
        let mut fits = |len: usize| {
            let left = room.checked_sub(len);
            room = left.unwrap_or(0);
            left.is_some()
        };
        let count = patterns.iter().take_while(|text| fits(8 + text.len())).count();
        patterns.truncate(count);
        let count = files.iter().take(EXCLUDED_FILES_MAX);
        let count = count.take_while(|f| fits(48 + f.path.len() + 24 * f.extents.len())).count();
        files.truncate(count);
        Self { patterns, file_count, bytes, files }
    }

    /// Whether every file that was left out is listed.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.files.len() as u64 == self.file_count
    }

    /// The section, empty when nothing was asked for.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::default();
        if *self == Self::default() {
            return out.finish();
        }
        for pattern in &self.patterns {
            out.optional(tag::PATTERN, pattern.as_bytes());
        }
        out.number(tag::FILE_COUNT, self.file_count).number(tag::BYTES, self.bytes);
        for file in &self.files {
            out.group(tag::FILE, |out| {
                out.number(tag::VOLUME, file.volume);
                out.text(tag::PATH, &file.path).number(tag::LEN, file.len);
                for extent in &file.extents {
                    let mut raw = [0; 16];
                    raw[..8].copy_from_slice(&extent.start.to_le_bytes());
                    raw[8..].copy_from_slice(&extent.len.to_le_bytes());
                    out.bytes(tag::EXTENT, &raw);
                }
            });
        }
        out.finish()
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Checked<Self> {
        let items = Items::parse(bytes, tag::ALL)?;
        for (field, list) in [("pattern count", tag::PATTERN), ("file count", tag::FILE)] {
            items.at_most(field, list, EXCLUDED_FILES_MAX, "at most 65536")?;
        }
        let text = |value: &[u8]| std::str::from_utf8(value).map(str::to_owned);
        let patterns = items.all(tag::PATTERN).map(|value| text(value).map_err(|_| Fault::Text));
        let patterns = patterns.collect::<Checked<_>>()?;
        let files = items.groups(tag::FILE, tag::ALL_OF_FILE).map(|file| read_file(&file?));
        let files: Vec<ExcludedFile> = files.collect::<Checked<_>>()?;
        let file_count = items.number(tag::FILE_COUNT)?;
        if file_count < files.len() as u64 {
            let allowed = "at least the files listed";
            return Err(Fault::Value { field: "file count", found: file_count, allowed });
        }
        Ok(Self { patterns, file_count, bytes: items.number(tag::BYTES)?, files })
    }
}

fn read_file(items: &Items<'_>) -> Checked<ExcludedFile> {
    let mut file = ExcludedFile {
        volume: items.number(tag::VOLUME)?,
        path: items.text(tag::PATH)?,
        len: items.number(tag::LEN)?,
        extents: Vec::new(),
    };
    for value in items.all(tag::EXTENT) {
        let extent = super::read_extent(value)?;
        let is_behind = file.extents.last().is_none_or(|last| last.end() <= extent.start);
        if !is_behind || extent.is_empty() {
            let allowed = "ascending, not empty";
            return Err(Fault::Value { field: "range start", found: extent.start, allowed });
        }
        file.extents.push(extent);
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(n: u64, extents: u64) -> ExcludedFile {
        let extents = (0..extents).map(|e| Extent::new(e * 8192, 4096)).collect();
        ExcludedFile { volume: 1 << 20, path: format!("folder/{n}.iso"), len: 5000, extents }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let excluded = Excluded::of_files(vec!["*.iso".to_owned()], vec![file(1, 3), file(2, 0)]);
        assert!(excluded.is_complete());
        assert_eq!((excluded.file_count, excluded.bytes), (2, 3 * 4096));
        assert_eq!(Excluded::from_bytes(&excluded.to_bytes()), Ok(excluded));
        assert_eq!(Excluded::default().to_bytes(), [0; 0]);
        // Patterns that match nothing are worth knowing.
        let nothing = Excluded::of_files(vec!["*.iso".to_owned()], Vec::new());
        assert_eq!(Excluded::from_bytes(&nothing.to_bytes()), Ok(nothing));
    }

    #[test]
    fn a_list_that_is_too_long_says_so() {
        for files in [
            (0..EXCLUDED_FILES_MAX as u64 + 1).map(|n| file(n, 1)).collect::<Vec<_>>(),
            vec![file(1, 1), file(2, EXCLUDED_BYTES as u64 / 20), file(3, 1)],
        ] {
            let (count, bytes) = (files.len() as u64, files.iter().map(|f| f.extents.len()).sum());
            let bytes: usize = bytes;
            let excluded = Excluded::of_files(Vec::new(), files.clone());
            assert!(!excluded.is_complete());
            assert_eq!((excluded.file_count, excluded.bytes), (count, bytes as u64 * 4096));
            assert_eq!(excluded.files, files[..excluded.files.len()]);
            let raw = excluded.to_bytes();
            assert!(raw.len() <= EXCLUDED_BYTES + 64, "{} bytes", raw.len());
            assert_eq!(Excluded::from_bytes(&raw), Ok(excluded));
        }
    }

    #[test]
    fn lists_that_contradict_themselves_are_refused() {
        let mut overlapping = file(1, 2);
        overlapping.extents[1].start = 4095;
        let mut empty = file(1, 1);
        empty.extents[0].len = 0;
        for bad in [overlapping, empty] {
            let raw = Excluded::of_files(Vec::new(), vec![bad]).to_bytes();
            assert!(matches!(Excluded::from_bytes(&raw), Err(Fault::Value { .. })));
        }
        let fewer = Excluded { file_count: 1, files: vec![file(1, 1); 2], ..Excluded::default() };
        assert!(matches!(Excluded::from_bytes(&fewer.to_bytes()), Err(Fault::Value { .. })));
    }
}
