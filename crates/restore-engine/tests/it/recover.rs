//! Files into folders and archives, from a filesystem that holds what no driver would make.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path as OsPath;
use std::sync::Arc;

use aiv_browse::{Attribute, Disk, FileType, Filter, Path};
use aiv_restore_engine::recover::{Existing, NotKept, RecoverOptions, RecoverPlan, RecoverReport};
use aiv_restore_engine::{Error, Refusal};
use aiv_testkit::files::{Node, Tree};
use aiv_volume_io::{Extent, Job, MemDisk};

fn disk(tree: Tree) -> Disk {
    Disk::of_filesystem(Arc::new(tree), Arc::new(MemDisk::from_bytes(vec![0; 4096])))
}

pub(crate) fn plan(tree: Tree) -> RecoverPlan {
    let paths = [Path::parse(b"/p0").unwrap()];
    RecoverPlan::new(&disk(tree), &paths, None, Job::silent()).unwrap()
}

fn to_folder(tree: Tree, dir: &OsPath, existing: Existing) -> Result<RecoverReport, Error> {
    let options = RecoverOptions { existing, owners: true, verify: true, seed: 7 };
    plan(tree).to_folder(dir, options, Job::silent())
}

/// Every path below a folder, as the kernel has it.
fn paths(dir: &OsPath) -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            found.push(path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned());
            if path.is_dir() && !path.is_symlink() {
                todo.push(path);
            }
        }
    }
    found.sort();
    found
}

#[test]
fn nothing_leaves_the_folder_whatever_names_and_links_say() {
    let scratch = tempfile::tempdir().unwrap();
    let outside = scratch.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let mut tree = Tree::new();
    // A link, and a folder of the same name with files: written through the link, they would
    // land outside.
    tree.add(1, b"trap", Node::link(outside.to_str().unwrap().as_bytes()));
    let folder = tree.add(1, b"trap", Node::of(FileType::Folder));
    tree.add(folder, b"escaped", Node::file(b"x"));
    let inner = tree.add(1, b"inner", Node::of(FileType::Folder));
    for name in [&b".."[..], b"../../outside/x", b"/tmp/x", b"a\0b", b"."] {
        tree.add(inner, name, Node::file(b"x"));
        tree.add(1, name, Node::of(FileType::Folder));
    }
    let dir = scratch.path().join("dir");
    for existing in [Existing::Refuse, Existing::Skip, Existing::Replace] {
        let report = to_folder(tree.clone(), &dir, existing).unwrap();
        assert!(report.not_done_count > 0, "two files of one name are one too many");
        assert_eq!(paths(&outside), Vec::<String>::new());
        assert_eq!(paths(&dir), ["p0", "p0/inner", "p0/trap", "p0/trap/escaped"]);
        assert!(!dir.join("p0/trap").is_symlink());
    }
}

#[test]
fn links_in_the_target_are_not_followed() {
    let scratch = tempfile::tempdir().unwrap();
    let (dir, outside) = (scratch.path().join("dir"), scratch.path().join("outside"));
    fs::create_dir_all(dir.join("p0")).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("mine"), "mine").unwrap();
    symlink(&outside, dir.join("p0/folder")).unwrap();
    symlink(outside.join("mine"), dir.join("p0/file")).unwrap();
    let mut tree = Tree::new();
    let folder = tree.add(1, b"folder", Node::of(FileType::Folder));
    tree.add(folder, b"mine", Node::file(b"theirs"));
    tree.add(1, b"file", Node::file(b"theirs"));
    for existing in [Existing::Skip, Existing::Replace] {
        to_folder(tree.clone(), &dir, existing).unwrap();
        assert_eq!(fs::read(outside.join("mine")).unwrap(), b"mine");
        assert_eq!(paths(&outside), ["mine"]);
    }
    assert_eq!(fs::read(dir.join("p0/file")).unwrap(), b"theirs", "replaced, not written through");
}

fn damaged() -> Tree {
    let mut tree = Tree::new();
    let bad = vec![Extent::new(5000, 1)];
    let file = tree.add(1, b"file", Node { bad, ..Node::file(&[7; 10_000]) });
    tree.node(file).metadata.links = 2;
    tree.name(1, b"other", file);
    tree.add(1, b"good", Node::file(b"good"));
    tree
}

#[test]
fn a_file_with_lost_bytes_says_so_by_its_name_and_costs_no_other() {
    let scratch = tempfile::tempdir().unwrap();
    let report = to_folder(damaged(), scratch.path(), Existing::Refuse).unwrap();
    assert_eq!(paths(scratch.path()), ["p0", "p0/file.damaged", "p0/good", "p0/other.damaged"]);
    let bytes = fs::read(scratch.path().join("p0/file.damaged")).unwrap();
    let lost = 4096..8192;
    assert!((0..10_000).all(|at| bytes[at] == if lost.contains(&at) { 0 } else { 7 }));
    assert_eq!((report.damaged_count, report.damaged[0].bytes), (1, 4096));
    assert_eq!(report.damaged[0].ranges, [Extent::new(4096, 4096)]);
    assert!(!report.is_complete() && report.verified);

    let mut archive = Vec::new();
    let report = plan(damaged()).to_tar(&mut archive, Job::silent()).unwrap();
    assert_eq!(report.damaged_count, 1);
    let text = String::from_utf8_lossy(&archive).into_owned();
    assert!(text.contains("bytes 4096 to 8192 are lost"));
    let report = plan(damaged()).to_zip(&mut Vec::new(), Job::silent()).unwrap();
    assert_eq!((report.damaged_count, report.not_kept[&NotKept::HardLink]), (2, 1));
}

#[test]
fn streams_become_files_beside_theirs_and_what_is_not_kept_is_counted() {
    let scratch = tempfile::tempdir().unwrap();
    let mut tree = Tree::new();
    let streams = vec![(b"Zone".to_vec(), b"3".to_vec()), (b"a/b".to_vec(), b"x".to_vec())];
    let attributes = vec![Attribute { name: b"system.ntfs_acl".to_vec(), value: vec![1] }];
    tree.add(1, b"file", Node { streams, attributes, ..Node::file(b"x") });
    let report = to_folder(tree, scratch.path(), Existing::Refuse).unwrap();
    assert_eq!(paths(scratch.path()), ["p0", "p0/file", "p0/file:Zone"]);
    let lost = NotKept::Attribute("system.ntfs_acl".to_owned());
    assert_eq!((report.streams, report.not_kept[&lost]), (1, 1));
    assert_eq!(report.not_done[0].why, "its name cannot be one of a file");
}

#[test]
fn two_paths_of_one_name_a_taken_name_and_a_full_target_are_refused_before_the_first_write() {
    let scratch = tempfile::tempdir().unwrap();
    let mut tree = Tree::new();
    let a = tree.add(1, b"a", Node::of(FileType::Folder));
    tree.add(a, b"x", Node::file(b"x"));
    tree.add(1, b"x", Node::file(b"x"));
    let paths_of = ["/p0/x", "/p0/a/x"].map(|path| Path::parse(path.as_bytes()).unwrap());
    let twice = RecoverPlan::new(&disk(tree.clone()), &paths_of, None, Job::silent());
    assert!(matches!(twice, Err(Error::Refused(Refusal::SameName { .. }))));
    fs::create_dir(scratch.path().join("p0")).unwrap();
    let taken = to_folder(tree, scratch.path(), Existing::Refuse);
    assert!(matches!(taken, Err(Error::Refused(Refusal::Exists { .. }))));
    assert_eq!(paths(scratch.path()), ["p0"]);
}

#[test]
fn set_id_bits_and_capabilities_go_when_owners_do() {
    let scratch = tempfile::tempdir().unwrap();
    let mut tree = Tree::new();
    let mut node = Node::file(b"x");
    node.metadata.mode = Some(0o6755);
    // cap_setuid, permitted and effective.
    let mut value = vec![1, 0, 0, 2, 0x80];
    value.resize(20, 0);
    node.attributes = vec![Attribute { name: b"security.capability".to_vec(), value }];
    tree.add(1, b"su", node);
    let options = RecoverOptions { seed: 1, ..RecoverOptions::default() };
    let report = plan(tree).to_folder(scratch.path(), options, Job::silent()).unwrap();
    let mode = fs::metadata(scratch.path().join("p0/su")).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o755);
    assert!(report.not_kept.contains_key(&NotKept::Mode));
    assert!(report.not_kept.contains_key(&NotKept::Owner));
    let capability = NotKept::Attribute("security.capability".to_owned());
    assert!(report.not_kept.contains_key(&capability), "{:?}", report.not_kept);
}

#[test]
fn an_archive_holds_long_names_negative_times_and_large_numbers() {
    let scratch = tempfile::tempdir().unwrap();
    let mut tree = Tree::new();
    let mut folder = 1;
    for n in 0..8 {
        folder = tree.add(folder, format!("{n:060}").as_bytes(), Node::of(FileType::Folder));
    }
    let mut node = Node::file(b"deep");
    node.metadata.modified = Some(aiv_browse::Timestamp::utc(-2, 500_000_000));
    node.metadata.owner = Some(aiv_filesystems::Owner { user: 3_000_000_000, group: 5 });
    tree.add(folder, b"file\xff", node);
    let mut archive = Vec::new();
    plan(tree).to_tar(&mut archive, Job::silent()).unwrap();
    let file = scratch.path().join("a.tar");
    fs::write(&file, archive).unwrap();
    let unpacked = std::process::Command::new("tar")
        .args(["-x", "-p", "--numeric-owner", "-f"])
        .arg(&file)
        .current_dir(scratch.path())
        .output()
        .unwrap();
    assert!(unpacked.status.success(), "{unpacked:?}");
    let mut at = scratch.path().join("p0");
    for n in 0..8 {
        at.push(format!("{n:060}"));
    }
    let entry = fs::read_dir(&at).unwrap().next().unwrap().unwrap();
    let found = entry.metadata().unwrap();
    assert_eq!(std::os::unix::ffi::OsStrExt::as_bytes(&*entry.file_name()), b"file\xff");
    assert_eq!((found.mtime(), found.mtime_nsec()), (-2, 500_000_000));
    assert_eq!((found.uid(), found.gid()), (3_000_000_000, 5));
}

fn skipped(tree: &Tree, dir: &OsPath) -> RecoverReport {
    to_folder(tree.clone(), dir, Existing::Skip).unwrap()
}

#[test]
fn a_file_of_the_same_length_and_time_is_skipped_only_with_the_same_bytes() {
    let scratch = tempfile::tempdir().unwrap();
    let mut tree = Tree::new();
    tree.add(1, b"file", Node::file(&[7; 3_000_000]));
    to_folder(tree.clone(), scratch.path(), Existing::Refuse).unwrap();
    let report = skipped(&tree, scratch.path());
    assert!(report.is_complete() && report.skipped == 1 && report.files == 0);
    // As a power failure leaves it: the name, the length, the time, and no bytes.
    let path = scratch.path().join("p0/file");
    let file = fs::File::options().write(true).open(&path).unwrap();
    let time = file.metadata().unwrap().modified().unwrap();
    file.set_len(0).unwrap();
    file.set_len(3_000_000).unwrap();
    file.set_modified(time).unwrap();
    let report = skipped(&tree, scratch.path());
    assert_eq!((report.skipped, report.not_done_count), (0, 1));
    assert!(report.not_done[0].why.contains("other bytes"), "{:?}", report.not_done);
    assert_eq!(fs::read(&path).unwrap(), vec![0; 3_000_000], "nobody asked to replace it");
}

#[test]
fn a_damaged_file_that_is_there_is_still_called_damaged() {
    let scratch = tempfile::tempdir().unwrap();
    let first = to_folder(damaged(), scratch.path(), Existing::Refuse).unwrap();
    let again = skipped(&damaged(), scratch.path());
    assert_eq!((&again.damaged, again.not_done_count), (&first.damaged, 0));
    assert_eq!((again.files, again.skipped), (0, 3));
}

#[test]
fn a_damaged_file_with_the_longest_name_comes_under_a_shorter_one() {
    let scratch = tempfile::tempdir().unwrap();
    let mut tree = Tree::new();
    let bad = vec![Extent::new(0, 1)];
    tree.add(1, "\u{f6}".repeat(127).as_bytes(), Node { bad, ..Node::file(&[7; 10_000]) });
    let report = to_folder(tree, scratch.path(), Existing::Refuse).unwrap();
    let name = format!("p0/{}.damaged", "\u{f6}".repeat(123));
    assert_eq!(paths(scratch.path()), ["p0", &name]);
    assert_eq!((report.damaged_count, report.not_done_count), (1, 0));
}

#[test]
fn reading_back_leaves_the_times_of_access() {
    let scratch = tempfile::tempdir().unwrap();
    let mut tree = Tree::new();
    let mut node = Node::file(b"x");
    node.metadata.accessed = Some(aiv_browse::Timestamp::utc(1_600_000_000, 77));
    tree.add(1, b"file", node);
    let report = to_folder(tree.clone(), scratch.path(), Existing::Refuse).unwrap();
    assert!(report.verified);
    skipped(&tree, scratch.path());
    let found = fs::metadata(scratch.path().join("p0/file")).unwrap();
    assert_eq!((found.atime(), found.atime_nsec()), (1_600_000_000, 77));
}

#[test]
fn a_refused_job_leaves_no_folder_behind() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("new");
    let mut tree = Tree::new();
    // More than any medium here: bytes that are in the map of the file only.
    let mut node = Node::file(b"");
    node.len = Some(1 << 60);
    tree.add(1, b"file", node);
    let refused = to_folder(tree, &dir, Existing::Refuse);
    assert!(matches!(refused, Err(Error::Refused(Refusal::NoRoom { .. }))));
    assert!(!dir.exists());
}

/// Stops a job after some time.
fn stopped_soon(work: impl FnOnce(Job<'_>) -> Result<RecoverReport, Error>) {
    struct Nobody;
    impl aiv_volume_io::Progress for Nobody {}
    let cancel = aiv_volume_io::Cancel::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(100));
            cancel.cancel();
        });
        assert!(matches!(work(Job::new(&Nobody, &cancel)), Err(Error::Canceled(_))));
    });
}

#[test]
fn a_hole_without_end_can_be_stopped_in_a_zip_archive_and_takes_nothing_of_a_tar_archive() {
    let mut tree = Tree::new();
    let len = 1_u64 << 60;
    let holes = vec![Extent::new(4, len - 4)];
    tree.add(1, b"file", Node { len: Some(len), holes, ..Node::file(b"x\0\0\0") });
    stopped_soon(|job| plan(tree.clone()).to_zip(&mut std::io::sink(), job));
    let mut archive = Vec::new();
    let report = plan(tree).to_tar(&mut archive, Job::silent()).unwrap();
    assert!(report.is_complete() && archive.len() < 10_000);
}

#[test]
fn names_that_are_no_text_do_not_end_a_zip_archive_and_what_it_cannot_hold_is_told() {
    let mut tree = Tree::new();
    for name in [&b"a\xff"[..], b"a\xfe", b"a%FF", b"..\\..\\evil"] {
        tree.add(1, name, Node::file(b"x"));
    }
    let mut archive = Vec::new();
    let report = plan(tree).to_zip(&mut archive, Job::silent()).unwrap();
    assert_eq!((report.files, report.not_done_count), (3, 1), "{report:?}");
    assert!(report.not_done[0].why.contains("of that name"));
    assert_eq!(report.not_kept[&NotKept::Name], 2);
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("a.zip");
    fs::write(&file, archive).unwrap();
    let listed = std::process::Command::new("unzip").arg("-Z1").arg(&file).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let mut listed: Vec<&str> = listed.lines().collect();
    listed.sort_unstable();
    assert_eq!(listed, ["p0/", "p0/..%5C..%5Cevil", "p0/a%FE", "p0/a%FF"]);
}

#[test]
fn an_archive_names_no_file_that_is_not_in_it_and_no_stream_that_leads_elsewhere() {
    let scratch = tempfile::tempdir().unwrap();
    let mut tree = Tree::new();
    let streams = vec![(b"x/../../../evil".to_vec(), b"x".to_vec())];
    let attributes = vec![Attribute { name: b"user.a=b".to_vec(), value: vec![1] }];
    tree.add(1, b"file", Node { streams, attributes, ..Node::file(b"x") });
    let len = 1 << 30;
    let holes = vec![Extent::new(1, len - 1)];
    tree.add(1, b"sparse\xff", Node { len: Some(len), holes, ..Node::file(b"y") });
    let mut archive = Vec::new();
    let report = plan(tree).to_tar(&mut archive, Job::silent()).unwrap();
    assert_eq!(report.not_done[0].why, "its name cannot be one of a file");
    assert_eq!(report.not_kept[&NotKept::Attribute("user.a=b".to_owned())], 1);
    let file = scratch.path().join("a.tar");
    fs::write(&file, archive).unwrap();
    let unpack = ["-x", "-f", file.to_str().unwrap(), "-C", scratch.path().to_str().unwrap()];
    assert!(std::process::Command::new("tar").args(unpack).status().unwrap().success());
    let mut names: Vec<_> = fs::read_dir(scratch.path().join("p0"))
        .unwrap()
        .map(|entry| std::os::unix::ffi::OsStringExt::into_vec(entry.unwrap().file_name()))
        .collect();
    names.sort();
    assert_eq!(names, [&b"file"[..], b"sparse\xff"]);
}

/// A file of two names whose bytes nobody finds, and others around it.
fn broken_among_others() -> Tree {
    let mut tree = Tree::new();
    let mut node = Node { is_broken: true, ..Node::file(b"lost") };
    node.metadata.links = 2;
    let broken = tree.add(1, b"a", node);
    tree.add(1, b"b", Node::file(b"of somebody else"));
    tree.add(1, b"c", Node::file(b"of nobody"));
    tree.name(1, b"d", broken);
    tree
}

#[test]
fn a_name_of_a_file_that_cannot_be_read_never_becomes_one_of_another_file() {
    let scratch = tempfile::tempdir().unwrap();
    let report = to_folder(broken_among_others(), scratch.path(), Existing::Refuse).unwrap();
    assert_eq!(paths(scratch.path()), ["p0", "p0/b", "p0/c"]);
    assert_eq!((report.hard_links, report.not_done_count), (0, 2), "{:?}", report.not_done);
    let mut archive = Vec::new();
    let report = plan(broken_among_others()).to_tar(&mut archive, Job::silent()).unwrap();
    assert_eq!((report.files, report.hard_links, report.not_done_count), (2, 0, 2));
}

#[test]
fn a_folder_that_is_named_takes_everything_below_it_along() {
    let mut tree = Tree::new();
    let home = tree.add(1, b"home", Node::of(FileType::Folder));
    for user in [b"anna", b"bert"] {
        let user = tree.add(home, user, Node::of(FileType::Folder));
        let keys = tree.add(user, b".ssh", Node::of(FileType::Folder));
        let deep = tree.add(keys, b"deep", Node::of(FileType::Folder));
        tree.add(deep, b"id", Node::file(b"key"));
        tree.add(deep, b"large", Node::file(&[1; 5000]));
        tree.add(user, b"notes", Node::file(b"x"));
    }
    let scratch = tempfile::tempdir().unwrap();
    let patterns = vec!["/home/*/.ssh".parse().unwrap()];
    let filter = Filter { patterns, len: Some(0..=100), ..Filter::default() };
    let of = [Path::parse(b"/p0").unwrap()];
    let plan = RecoverPlan::new(&disk(tree), &of, Some(&filter), Job::silent()).unwrap();
    plan.to_folder(scratch.path(), RecoverOptions::default(), Job::silent()).unwrap();
    let found = paths(scratch.path());
    let files: Vec<&str> = found.iter().map(String::as_str).filter(|p| p.ends_with("id")).collect();
    assert_eq!(files, ["p0/home/anna/.ssh/deep/id", "p0/home/bert/.ssh/deep/id"]);
    assert!(!found.iter().any(|path| path.ends_with("notes") || path.ends_with("large")));
}

#[test]
fn what_cannot_take_the_place_of_something_leaves_it_there_and_nothing_beside_it() {
    let scratch = tempfile::tempdir().unwrap();
    let mut tree = Tree::new();
    let mut node = Node::file(b"bytes");
    node.metadata.links = 2;
    let file = tree.add(1, b"file", node);
    tree.name(1, b"other", file);
    tree.add(1, b"link", Node::link(b"file"));
    tree.add(1, b"pipe", Node::of(FileType::Pipe));
    for _ in 0..2 {
        // Twice: the second time each takes the place of itself.
        let report = to_folder(tree.clone(), scratch.path(), Existing::Replace).unwrap();
        assert!(report.is_complete(), "{:?}", report.not_done);
        let expected = ["p0", "p0/file", "p0/link", "p0/other", "p0/pipe"];
        assert_eq!(paths(scratch.path()), expected);
        let ino = |name: &str| fs::metadata(scratch.path().join(name)).unwrap().ino();
        assert_eq!(ino("p0/file"), ino("p0/other"));
    }
    // A folder cannot be replaced by any of them.
    for name in ["other", "link", "pipe"] {
        fs::remove_file(scratch.path().join("p0").join(name)).unwrap();
        fs::create_dir(scratch.path().join("p0").join(name)).unwrap();
        fs::write(scratch.path().join("p0").join(name).join("mine"), "mine").unwrap();
    }
    let report = to_folder(tree, scratch.path(), Existing::Replace).unwrap();
    assert_eq!(report.not_done_count, 3, "{:?}", report.not_done);
    let mine = paths(scratch.path()).into_iter().filter(|path| path.ends_with("mine")).count();
    assert_eq!((mine, paths(scratch.path()).len()), (3, 8));
}

#[test]
fn what_cannot_be_made_does_not_cost_the_file_it_would_have_replaced() {
    let scratch = tempfile::tempdir().unwrap();
    fs::create_dir(scratch.path().join("p0")).unwrap();
    fs::write(scratch.path().join("p0/cloud"), "mine").unwrap();
    let mut tree = Tree::new();
    tree.add(1, b"cloud", Node::of(FileType::Reparse { tag: 7 }));
    let report = to_folder(tree, scratch.path(), Existing::Replace).unwrap();
    assert_eq!(report.not_done_count, 1);
    assert_eq!(fs::read(scratch.path().join("p0/cloud")).unwrap(), b"mine");
}

#[test]
fn a_socket_is_made_in_a_folder_and_left_out_of_archives_without_failing_them() {
    let scratch = tempfile::tempdir().unwrap();
    let mut tree = Tree::new();
    tree.add(1, b"socket", Node::of(FileType::Socket));
    tree.add(1, b"file", Node::file(b"x"));
    let report = to_folder(tree.clone(), scratch.path(), Existing::Refuse).unwrap();
    assert!(report.is_complete() && report.not_kept.is_empty() && report.others == 1);
    let found = fs::metadata(scratch.path().join("p0/socket")).unwrap();
    assert!(std::os::unix::fs::FileTypeExt::is_socket(&found.file_type()));
    let tar = plan(tree.clone()).to_tar(&mut Vec::new(), Job::silent()).unwrap();
    let zip = plan(tree).to_zip(&mut Vec::new(), Job::silent()).unwrap();
    for report in [tar, zip] {
        assert!(report.is_complete(), "{report:?}");
        assert_eq!((report.files, report.others, report.not_kept[&NotKept::Socket]), (1, 0, 1));
    }
}

#[test]
fn a_damaged_file_never_takes_the_name_of_one_that_is_called_so() {
    let mut tree = damaged();
    tree.add(1, b"file.damaged", Node::file(b"mine"));
    for existing in [Existing::Refuse, Existing::Replace] {
        let scratch = tempfile::tempdir().unwrap();
        for _ in 0..=usize::from(existing == Existing::Replace) {
            let report = to_folder(tree.clone(), scratch.path(), existing).unwrap();
            // Neither it nor its other name comes back, and that is told.
            assert_eq!((report.damaged_count, report.not_done_count), (0, 2), "{report:?}");
            let mine = fs::read(scratch.path().join("p0/file.damaged")).unwrap();
            assert_eq!(mine, b"mine");
            assert_eq!(paths(scratch.path()), ["p0", "p0/file.damaged", "p0/good"]);
        }
    }
}
