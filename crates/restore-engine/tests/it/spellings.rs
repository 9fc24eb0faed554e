//! Targets that take two names of a job for one: what was written first stays, and the other one
//! is told.

use std::fs::{self, File};
use std::path::Path as OsPath;
use std::sync::Arc;

use aiv_browse::{Disk, FileType, Path};
use aiv_restore_engine::recover::{Existing, RecoverOptions, RecoverPlan, RecoverReport};
use aiv_testkit::files::{Node, Tree};
use aiv_volume_io::{Job, MemDisk};

use crate::real::{Loop, run};

/// A driver in user space, until dropped; the device of it goes afterwards, where it needs one.
struct Loose(tempfile::TempDir, #[expect(dead_code, reason = "it is dropped")] Option<Loop>);

impl Loose {
    fn exfat(file: &OsPath) -> Self {
        File::create(file).unwrap().set_len(64 << 20).unwrap();
        run("mkfs.exfat", &[file.to_str().unwrap()]);
        let device = Loop::whole(file, 512);
        let at = tempfile::tempdir().unwrap();
        run("mount.exfat-fuse", &[device.node(), at.path().to_str().unwrap()]);
        Self(at, Some(device))
    }

    fn ntfs(file: &OsPath) -> Self {
        File::create(file).unwrap().set_len(64 << 20).unwrap();
        run("mkfs.ntfs", &["-q", "-F", file.to_str().unwrap()]);
        let at = tempfile::tempdir().unwrap();
        let words = ["-o", "ignore_case", file.to_str().unwrap(), at.path().to_str().unwrap()];
        run("lowntfs-3g", &words);
        Self(at, None)
    }
}

impl Drop for Loose {
    fn drop(&mut self) {
        run("umount", &[self.0.path().to_str().unwrap()]);
    }
}

/// Two files of one name but its case, and two folders, both with one such file.
fn tree() -> Tree {
    let mut tree = Tree::new();
    tree.add(1, b"README", Node::file(b"upper"));
    tree.add(1, b"readme", Node::file(b"lower"));
    for (name, inner, own) in [(&b"Dir"[..], b"x", b"y"), (b"dir", b"X", b"z")] {
        let folder = tree.add(1, name, Node::of(FileType::Folder));
        tree.add(folder, inner, Node::file(name));
        tree.add(folder, own, Node::file(name));
    }
    tree
}

fn recover(dir: &OsPath, existing: Existing) -> RecoverReport {
    let bytes = Arc::new(MemDisk::from_bytes(vec![0; 4096]));
    let disk = Disk::of_filesystem(Arc::new(tree()), bytes);
    let paths = [Path::parse(b"/p0").unwrap()];
    let plan = RecoverPlan::new(&disk, &paths, None, Job::silent()).unwrap();
    let options = RecoverOptions { existing, seed: 7, ..RecoverOptions::default() };
    plan.to_folder(dir, options, Job::silent()).unwrap()
}

fn told(report: &RecoverReport) -> Vec<&str> {
    for one in &report.not_done {
        assert!(one.why.contains("takes its name for another one of this job"), "{one:?}");
    }
    report.not_done.iter().map(|one| one.path.as_str()).collect()
}

#[test]
fn of_two_names_that_the_target_takes_for_one_the_first_stays_and_the_other_is_told() {
    let scratch = tempfile::tempdir().unwrap();
    let targets =
        [Loose::exfat(&scratch.path().join("exfat")), Loose::ntfs(&scratch.path().join("ntfs"))];
    for target in &targets {
        let at = |name: &str| target.0.path().join("new/p0").join(name);
        let every = [Existing::Replace, Existing::Skip, Existing::Replace];
        for (n, existing) in every.into_iter().enumerate() {
            let report = recover(&target.0.path().join("new"), existing);
            let mut told = told(&report);
            // Times come back in coarser steps, and files are known all the same.
            assert_eq!(report.skipped, if existing == Existing::Skip { 4 } else { 0 });
            told.sort_unstable();
            assert_eq!(told, ["p0/dir", "p0/dir/X", "p0/readme"], "{n} {report:?}");
            for (name, bytes) in
                [("readme", "upper"), ("dir/x", "Dir"), ("dir/y", "Dir"), ("dir/z", "dir")]
            {
                assert_eq!(fs::read(at(name)).unwrap(), bytes.as_bytes(), "{n} {name}");
            }
        }
        let other = target.0.path().join("other");
        assert_eq!(told(&recover(&other, Existing::Refuse)).len(), 3);
        assert_eq!(fs::read(other.join("p0/README")).unwrap(), b"upper");
    }
}

#[test]
fn where_case_tells_names_apart_nothing_is_left_out() {
    let scratch = tempfile::tempdir().unwrap();
    for existing in [Existing::Refuse, Existing::Skip, Existing::Replace, Existing::Replace] {
        let report = recover(scratch.path(), existing);
        assert!(report.is_complete(), "{report:?}");
        for (name, bytes) in [("readme", "lower"), ("README", "upper"), ("dir/X", "dir")] {
            assert_eq!(fs::read(scratch.path().join("p0").join(name)).unwrap(), bytes.as_bytes());
        }
    }
}
