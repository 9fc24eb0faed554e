//! What vouches that a source of plain files is the same as it was.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use aiv_backup_engine::SourceStamp;

/// Milliseconds a file has to be at rest. The clocks of filesystems tick every few milliseconds,
/// on FAT every two seconds: of two changes between ticks only the first one shows in the times.
/// A file that was just put in the place of another is not at rest either.
const REST_MS: i64 = 3_000;

/// The stamp of `files`, which make up a source, as of now, which is after they were opened;
/// `None` when one of them is no plain file, or changed a moment ago. Times that lie in the
/// future say nothing about rest.
pub(crate) fn stamp_of(files: &[PathBuf], now_unix_ms: u64) -> Option<SourceStamp> {
    let now = i64::try_from(now_unix_ms).ok()?;
    let mut words = Vec::new();
    for file in files {
        let found = fs::metadata(file).ok().filter(fs::Metadata::is_file)?;
        let changed = found.ctime().max(found.mtime()).saturating_mul(1000);
        if changed.saturating_add(REST_MS) > now {
            return None;
        }
        let times = [found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()];
        let sizes = [found.dev(), found.ino(), found.size()];
        let words_of = sizes.map(u64::to_le_bytes).into_iter();
        words.extend(words_of.chain(times.map(i64::to_le_bytes)));
    }
    let words: Vec<&[u8]> = words.iter().map(<[u8; 8]>::as_slice).collect();
    (!words.is_empty()).then(|| SourceStamp::new(&words))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use super::*;

    fn now() -> u64 {
        #[expect(clippy::disallowed_methods, reason = "tests may ask for the time")]
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(now.as_millis()).unwrap_or(0)
    }

    #[test]
    fn a_file_at_rest_keeps_its_stamp_until_anything_about_it_changes() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let file = dir.path().join("a.raw");
        fs::write(&file, "content").expect("written");
        let files = [file.clone()];
        assert_eq!(stamp_of(&files, now()), None, "changed a moment ago");
        let later = now() + 10_000;
        let stamp = stamp_of(&files, later);
        assert!(stamp.is_some() && stamp == stamp_of(&files, later + 99_999));
        // Changed, and its time set back: the time of that shows.
        std::thread::sleep(Duration::from_millis(20));
        let before = fs::metadata(&file).expect("there").modified().expect("a time");
        fs::write(&file, "CONTENT").expect("written");
        let open = fs::File::options().append(true).open(&file).expect("there");
        open.set_modified(before).expect("set back");
        assert_ne!(stamp_of(&files, later), stamp);
        // Another file of the same name, length and time.
        let other = dir.path().join("other");
        fs::copy(&file, &other).expect("copied");
        assert_ne!(stamp_of(&[other], later), stamp_of(&files, later));
    }

    #[test]
    fn nobody_vouches_for_what_is_no_plain_file_and_a_link_is_what_it_names() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (file, link) = (dir.path().join("a"), dir.path().join("b"));
        fs::write(&file, "content").expect("written");
        symlink(&file, &link).expect("linked");
        let later = now() + 10_000;
        assert_eq!(stamp_of(&[link], later), stamp_of(std::slice::from_ref(&file), later));
        assert_eq!(stamp_of(&[], later), None);
        assert_eq!(stamp_of(&["/dev/null".into()], later), None);
        assert_eq!(stamp_of(&[file.clone(), "/dev/null".into()], later), None);
        assert_eq!(stamp_of(&[file, dir.path().join("missing")], later), None);
    }
}
