use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use aiv_volume_io::{DirStorage, Lease, Storage};

use crate::dir_storage::kind;
use crate::machine::{Mounted, run};

/// A folder, the storage on it, and where its lease `set` is kept.
fn folder() -> (tempfile::TempDir, DirStorage, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let (storage, file) =
        (DirStorage::open(folder.path()).unwrap(), folder.path().join(".aiv-lease-set"));
    (folder, storage, file)
}

#[track_caller]
fn is_lost(lease: &dyn Lease, why: &str) {
    let error = lease.check().expect_err(why);
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
    assert!(error.to_string().contains(why), "{error}");
}

#[test]
fn a_lease_that_nobody_touched_is_still_ours() {
    let (_folder, storage, file) = folder();
    let lease = storage.lease("set").unwrap();
    lease.check().unwrap();
    lease.check().unwrap();
    assert_eq!(fs::read_to_string(file).unwrap(), "1");
    // A check that closes its own look at the file must not give the lock back with it.
    assert_eq!(kind(storage.lease("set")), io::ErrorKind::WouldBlock);
}

#[test]
fn tokens_grow_from_holder_to_holder_and_process_to_process() {
    let (folder, storage, file) = folder();
    let tokens: Vec<u64> = (0..11)
        .map(|_| DirStorage::open(folder.path()).unwrap().lease("set").unwrap().token())
        .collect();
    assert_eq!(tokens, (1..=11).collect::<Vec<_>>());
    fs::write(file, "999").unwrap();
    assert_eq!(storage.lease("set").unwrap().token(), 1000);
}

#[test]
fn a_file_that_holds_no_token_starts_the_count_and_keeps_nothing_of_it() {
    let (_folder, storage, file) = folder();
    let digits = "1".repeat(100);
    let full = u64::MAX.to_string();
    for garbage in
        [&b""[..], b"x", b"-5", b"\xff\xfe", &[0; 4096], digits.as_bytes(), full.as_bytes()]
    {
        fs::write(&file, garbage).unwrap();
        let lease = storage.lease("set").unwrap();
        assert_eq!(lease.token(), 1, "{garbage:?}");
        lease.check().unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"1");
    }
    fs::write(&file, "7\n").unwrap();
    assert_eq!(storage.lease("set").unwrap().token(), 8, "as an editor would leave it");
}

#[test]
fn a_lease_whose_file_is_gone_is_lost() {
    let (_folder, storage, file) = folder();
    let lease = storage.lease("set").unwrap();
    fs::remove_file(&file).unwrap();
    is_lost(&*lease, "its file is gone");
}

#[test]
fn a_lease_that_somebody_took_over_on_the_same_file_is_lost() {
    let (_folder, storage, file) = folder();
    let lease = storage.lease("set").unwrap();
    let mut takeover = OpenOptions::new().write(true).open(&file).unwrap();
    // As after a broken connection: the other's lock was granted, ours is an illusion.
    io::Write::write_all(&mut takeover, b"2").unwrap();
    is_lost(&*lease, "taken over with token 2, ours is 1");
    fs::write(&file, b"").unwrap();
    is_lost(&*lease, "no longer holds a token");
}

#[test]
fn a_lease_whose_file_was_replaced_is_lost_even_if_the_token_is_the_same() {
    let (folder, storage, file) = folder();
    let lease = storage.lease("set").unwrap();
    fs::write(folder.path().join("other"), b"1").unwrap();
    fs::rename(folder.path().join("other"), &file).unwrap();
    is_lost(&*lease, "replaced");

    fs::remove_file(&file).unwrap();
    let second = storage.lease("set").unwrap();
    assert_eq!(second.token(), 1);
    is_lost(&*lease, "replaced");
    second.check().unwrap();
}

#[test]
fn whatever_else_is_put_in_place_of_the_file_is_not_followed_and_not_waited_for() {
    let (folder, storage, file) = folder();
    let lease = storage.lease("set").unwrap();
    let kept = folder.path().join("kept");
    fs::rename(&file, &kept).unwrap();
    symlink(&kept, &file).unwrap();
    is_lost(&*lease, "replaced");
    fs::remove_file(&file).unwrap();
    run("mkfifo", &[&file]);
    is_lost(&*lease, "replaced");
    fs::remove_file(&file).unwrap();
    std::os::unix::net::UnixListener::bind(&file).unwrap();
    is_lost(&*lease, "replaced");
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    is_lost(&*lease, "replaced");
    fs::remove_dir(&file).unwrap();
    fs::rename(&kept, &file).unwrap();
    lease.check().unwrap();
}

#[test]
fn there_is_no_lease_where_its_token_cannot_be_kept() {
    let folder = tempfile::tempdir().unwrap();
    let _tmpfs = Mounted::tmpfs("64k", folder.path());
    let storage = DirStorage::open(folder.path()).unwrap();
    fs::write(folder.path().join("filler"), vec![1; 64 << 10]).unwrap();
    assert_eq!(kind(storage.lease("set")), io::ErrorKind::StorageFull);
    fs::remove_file(folder.path().join("filler")).unwrap();
    // The failed attempt gave its lock back.
    assert_eq!(storage.lease("set").unwrap().token(), 1);
}

#[test]
fn on_a_full_filesystem_a_lease_that_was_taken_before_is_taken_again() {
    let folder = tempfile::tempdir().unwrap();
    let _tmpfs = Mounted::tmpfs("64k", folder.path());
    let storage = DirStorage::open(folder.path()).unwrap();
    drop(storage.lease("set").unwrap());
    fs::write(folder.path().join("filler"), vec![1; 64 << 10]).unwrap_err();
    let lease = storage.lease("set").unwrap();
    assert_eq!(lease.token(), 2);
    lease.check().unwrap();
}
