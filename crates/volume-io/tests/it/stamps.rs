use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use aiv_volume_io::{DirStorage, Storage};

use crate::dir_storage::put;

fn stamp(folder: &Path) -> u64 {
    let listed = DirStorage::open(folder).unwrap().list().unwrap();
    assert_eq!(listed.len(), 1);
    listed[0].stamp
}

/// Longer than the clock of a local filesystem takes to tick.
fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}

/// A folder with one file that has been there for a while.
fn one_file() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    put(&DirStorage::open(folder.path()).unwrap(), "a", b"12");
    pause();
    folder
}

#[test]
fn a_file_that_nobody_touched_keeps_its_stamp_and_reading_does_not_touch() {
    let folder = one_file();
    let before = stamp(folder.path());
    assert_eq!(fs::read(folder.path().join("a")).unwrap(), b"12");
    assert_eq!(stamp(folder.path()), before);
    assert_ne!(before, 0);
}

#[test]
fn bytes_changed_in_place_show_in_the_stamp_although_the_times_were_set_back() {
    let folder = one_file();
    let (path, before) = (folder.path().join("a"), stamp(folder.path()));
    let was = fs::metadata(&path).unwrap();
    let mut file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all(b"21").unwrap();
    let times = FileTimes::new().set_modified(was.modified().unwrap());
    file.set_times(times.set_accessed(was.accessed().unwrap())).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), was.modified().unwrap());
    assert_ne!(stamp(folder.path()), before);
}

#[test]
fn another_file_renamed_over_the_first_shows_at_once() {
    let folder = tempfile::tempdir().unwrap();
    put(&DirStorage::open(folder.path()).unwrap(), "a", b"12");
    // No pause: two inodes tell the files apart even where two times cannot.
    fs::write(folder.path().join("b"), b"21").unwrap();
    let listed = DirStorage::open(folder.path()).unwrap().list().unwrap();
    fs::rename(folder.path().join("b"), folder.path().join("a")).unwrap();
    assert_ne!(stamp(folder.path()), listed[0].stamp);
}

#[test]
fn a_copy_that_keeps_all_times_is_another_file() {
    let folder = one_file();
    let (path, before) = (folder.path().join("a"), stamp(folder.path()));
    let was = fs::metadata(&path).unwrap();
    fs::copy(&path, folder.path().join("copy")).unwrap();
    fs::remove_file(&path).unwrap();
    fs::rename(folder.path().join("copy"), &path).unwrap();
    let times = FileTimes::new().set_modified(was.modified().unwrap());
    File::options().write(true).open(&path).unwrap().set_times(times).unwrap();
    assert_ne!(stamp(folder.path()), before);
}
