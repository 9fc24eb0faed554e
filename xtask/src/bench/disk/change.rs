//! What happens to a disk between two backups: files come and go, are replaced, grow, and
//! databases write single pages. Some three percent of the bytes in use, or a fifth of them.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use aiv_testkit::Random;

use super::super::place::Later;
use super::{sync, write_noise};
use crate::Outcome;

/// Shares of the bytes of all files, in thousandths, where some three percent change.
const DELETED: u64 = 6;
const REPLACED: u64 = 8;
const COPIED: u64 = 6;
const NEW_NOISE: u64 = 6;
/// Larger files do not come and go every day.
const FILE_MAX: u64 = 16 << 20;
/// Files that are written to in place, the largest ones, and pages of each per GiB of disk.
const PAGED_FILES: usize = 6;
const PAGES_PER_GIB: usize = 40;
const PAGE: usize = 8 << 10;
/// Of a page, so much is new: records are added behind those that were there.
const RECORDS: usize = 5 << 10;
const LOG_LINES_PER_GIB: usize = 15_000;

/// As many times of everything, and a fifth changes.
const TIMES_FIFTH: u64 = 7;

/// A regular file and its length.
type Entry = (PathBuf, u64);

/// Changes the files below `root`; the same tree changes the same way.
pub(super) fn change(root: &Path, size_gib: u64, state: Later) -> Outcome {
    let times = if state == Later::Fifth { TIMES_FIFTH } else { 1 };
    let mut random = Random::new(&[2]);
    let mut files = Vec::new();
    walk(root, &mut files)?;
    files.sort();
    let total: u64 = files.iter().map(|(_, len)| len).sum();
    let mut largest = files.clone();
    largest.sort_by_key(|(path, len)| (std::cmp::Reverse(*len), path.clone()));
    largest.truncate(PAGED_FILES);
    files.retain(|(_, len)| (1..=FILE_MAX).contains(len));
    shuffle(&mut files, &mut random);
    let mut some = |share: u64| draw(&mut files, total * times * share / 1000);
    let (deleted, replaced, copied) = (some(DELETED), some(REPLACED), some(COPIED));
    for (path, _) in &deleted {
        std::fs::remove_file(path).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    for (path, _) in &replaced {
        replace(path, &mut random)?;
    }
    let gib = usize::try_from(size_gib * times).map_err(|e| e.to_string())?;
    for (path, len) in &largest {
        update_pages(path, *len, PAGES_PER_GIB * gib, &mut random)?;
    }
    append_to_log(root, LOG_LINES_PER_GIB * gib, &mut random)?;
    let added = root.join("home/user/added");
    std::fs::create_dir_all(&added).map_err(|e| format!("{}: {e}", added.display()))?;
    for (number, (path, _)) in copied.iter().enumerate() {
        copy_shifted(path, &added.join(format!("copy{number}")), number)?;
    }
    write_noise(&added.join("photo.zip"), 98, total * times * NEW_NOISE / 1000)?;
    sync(root)
}

fn walk(root: &Path, files: &mut Vec<Entry>) -> Outcome {
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let failed = |e: std::io::Error| format!("{}: {e}", folder.display());
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let facts = entry.metadata().map_err(failed)?;
            if facts.is_dir() {
                folders.push(entry.path());
            } else if facts.is_file() {
                files.push((entry.path(), facts.len()));
            }
        }
    }
    Ok(())
}

fn shuffle(files: &mut [Entry], random: &mut Random) {
    for at in (1..files.len()).rev() {
        files.swap(at, random.below(at + 1));
    }
}

/// Takes files away until together they have this many bytes.
fn draw(files: &mut Vec<Entry>, bytes: u64) -> Vec<Entry> {
    let mut drawn = Vec::new();
    let mut left = bytes;
    while left > 0
        && let Some((path, len)) = files.pop()
    {
        left = left.saturating_sub(len);
        drawn.push((path, len));
    }
    drawn
}

/// A new version of a file, next to the old one as long as both exist: packages are updated
/// this way. One byte of every 4 KiB differs.
fn replace(path: &Path, random: &mut Random) -> Outcome {
    let failed = |e: std::io::Error| format!("{}: {e}", path.display());
    let mut bytes = std::fs::read(path).map_err(failed)?;
    for piece in bytes.chunks_mut(4096) {
        let at = random.below(piece.len());
        piece[at] = piece[at].wrapping_add(1);
    }
    let new = path.with_extension("aiv-new");
    std::fs::write(&new, bytes).map_err(failed)?;
    std::fs::rename(&new, path).map_err(failed)
}

fn update_pages(path: &Path, len: u64, pages: usize, random: &mut Random) -> Outcome {
    let failed = |e: std::io::Error| format!("{}: {e}", path.display());
    let file = OpenOptions::new().write(true).open(path).map_err(failed)?;
    let all = usize::try_from(len).map_err(|e| e.to_string())? / PAGE;
    if all == 0 {
        return Ok(());
    }
    for _ in 0..pages {
        let at = (random.below(all) * PAGE) as u64;
        file.write_all_at(&records(RECORDS, random), at).map_err(failed)?;
    }
    Ok(())
}

/// Rows of a table as databases store them: numbers, short words, and some text.
pub(in super::super) fn records(len: usize, random: &mut Random) -> Vec<u8> {
    const STATES: [&str; 4] = ["open", "paid", "shipped", "returned"];
    let mut bytes = Vec::with_capacity(len + 64);
    while bytes.len() < len {
        bytes.extend_from_slice(&random.next().to_le_bytes());
        let (customer, state) = (random.below(90_000), STATES[random.below(STATES.len())]);
        bytes.extend_from_slice(format!("order of customer {customer:06}: {state};").as_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn append_to_log(root: &Path, lines: usize, random: &mut Random) -> Outcome {
    let folder = root.join("var/log");
    let path = folder.join("service.log");
    let failed = |e: std::io::Error| format!("{}: {e}", path.display());
    std::fs::create_dir_all(&folder).map_err(failed)?;
    let mut text = String::new();
    for line in 0..lines {
        let (second, request, us) = (line / 50, random.next() >> 32, random.below(9000));
        text += &format!(
            "2026-03-01T{:02}:{:02}:{:02}Z service: request {request:08x} answered in {us} us\n",
            second / 3600 % 24,
            second / 60 % 60,
            second % 60
        );
    }
    let mut log = OpenOptions::new().create(true).append(true).open(&path).map_err(failed)?;
    log.write_all(text.as_bytes()).map_err(failed)
}

/// A copy whose bytes lie at other offsets: no fixed block of it equals one of the original.
fn copy_shifted(from: &Path, to: &Path, number: usize) -> Outcome {
    let failed = |e: std::io::Error| format!("{}: {e}", to.display());
    let mut out = File::create(to).map_err(failed)?;
    out.write_all(format!("copy {number}: ").as_bytes()).map_err(failed)?;
    let mut from = File::open(from).map_err(|e| format!("{}: {e}", from.display()))?;
    std::io::copy(&mut from, &mut out).map_err(failed)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for number in 0..200 {
            let text = format!("file {number} ").repeat(2000);
            std::fs::write(root.path().join(format!("f{number}")), text).unwrap();
        }
        root
    }

    fn contents(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = Vec::new();
        walk(root, &mut files).unwrap();
        files.sort();
        let relative = |path: &Path| path.strip_prefix(root).unwrap().to_owned();
        files.iter().map(|(path, _)| (relative(path), std::fs::read(path).unwrap())).collect()
    }

    #[test]
    fn the_same_tree_changes_the_same_way_and_mostly_stays() {
        let (a, b) = (tree(), tree());
        let before = contents(a.path());
        change(a.path(), 1, Later::Second).unwrap();
        change(b.path(), 1, Later::Second).unwrap();
        let after = contents(a.path());
        assert!(after == contents(b.path()));
        let kept = before.iter().filter(|file| after.contains(file)).count();
        assert!(kept > 180 && kept < 200, "{kept}");
        assert!(after.iter().any(|(path, _)| path.ends_with("var/log/service.log")));
        assert!(after.iter().any(|(path, _)| path.ends_with("added/copy0")));
    }

    #[test]
    fn a_fifth_is_more_than_a_few_percent() {
        let (a, b) = (tree(), tree());
        let before = contents(a.path());
        change(a.path(), 1, Later::Second).unwrap();
        change(b.path(), 1, Later::Fifth).unwrap();
        let kept = |root: &Path| {
            let after = contents(root);
            before.iter().filter(|file| after.contains(file)).count()
        };
        assert!(kept(b.path()) + 15 < kept(a.path()) && kept(b.path()) > 140);
    }

    #[test]
    fn records_have_the_length_asked_for_and_compress_like_records() {
        let bytes = records(4096, &mut Random::new(&[1]));
        let packed = zstd::bulk::compress(&bytes, 1).unwrap().len();
        assert_eq!(bytes.len(), 4096);
        assert!(packed > 1000 && packed < 2500, "{packed}");
    }
}
