//! Zip archives as `unzip`, `bsdtar` and Python read them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use aiv_browse::{FileType, Timestamp};
use aiv_restore_engine::recover::RecoverReport;
use aiv_testkit::files::{Node, Tree};
use aiv_volume_io::Job;
use tempfile::TempDir;

use crate::build::noise;
use crate::real::run;
use crate::recover::plan;

/// Reads all of an archive, by its directory, and tells names, lengths, modes and times of DOS.
const PYTHON: &str = "\
import sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as archive:
    assert archive.testzip() is None
    for entry in archive.infolist():
        time = '-'.join(map(str, entry.date_time))
        print(entry.filename, entry.file_size, oct(entry.external_attr >> 16), time)
";

/// An archive, and the folder it is in.
fn zipped(tree: Tree) -> (TempDir, String, RecoverReport) {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("a.zip");
    let report = plan(tree).to_zip(&mut fs::File::create(&path).unwrap(), Job::silent()).unwrap();
    (scratch, path.to_str().unwrap().to_owned(), report)
}

fn at(mut node: Node, mode: u16, seconds: i64) -> Node {
    node.metadata.mode = Some(mode);
    node.metadata.modified = Some(Timestamp::utc(seconds, 5));
    node
}

fn sample() -> Tree {
    let mut tree = Tree::new();
    *tree.node(1) = at(Node::of(FileType::Folder), 0o755, 1_600_000_000);
    let folder = at(Node::of(FileType::Folder), 0o750, 1_700_000_001);
    let folder = tree.add(1, "Gr\u{fc}n \u{6587}".as_bytes(), folder);
    tree.add(folder, b"noise", at(Node::file(&noise(300_000)), 0o4711, 1_700_000_001));
    tree.add(folder, b"text", at(Node::file(&[b'a'; 200_000]), 0o600, 300_000_000));
    tree.add(folder, b"empty", at(Node::file(b""), 0o444, 1_700_000_002));
    tree.add(folder, b"link", at(Node::link("../\u{fc}".as_bytes()), 0o777, 1_700_000_003));
    tree.add(1, b"before 1970", at(Node::file(b"old"), 0o644, -1_000_000_001));
    tree.add(1, b"after 2038", at(Node::file(b"new"), 0o644, 2_300_000_001));
    tree
}

#[test]
fn names_bytes_permissions_links_and_times_are_as_others_read_them() {
    let (scratch, zip, report) = zipped(sample());
    assert!(report.is_complete() && report.files == 5, "{report:?}");
    assert!(run("unzip", &["-t", &zip]).contains("No errors detected"));
    let listed = run("python3", &["-c", PYTHON, &zip]);
    let mut listed: Vec<&str> = listed.lines().collect();
    listed.sort_unstable();
    let expected = [
        "p0/ 0 0o40755 2020-9-13-12-26-40",
        "p0/Gr\u{fc}n \u{6587}/ 0 0o40750 2023-11-14-22-13-20",
        "p0/Gr\u{fc}n \u{6587}/empty 0 0o100444 2023-11-14-22-13-22",
        "p0/Gr\u{fc}n \u{6587}/link 5 0o120777 2023-11-14-22-13-22",
        "p0/Gr\u{fc}n \u{6587}/noise 300000 0o100711 2023-11-14-22-13-20",
        "p0/Gr\u{fc}n \u{6587}/text 200000 0o100600 1980-1-1-0-0-0",
        "p0/after 2038 3 0o100644 2042-11-19-8-53-20",
        "p0/before 1970 3 0o100644 1980-1-1-0-0-0",
    ];
    assert_eq!(listed, expected);
    // Wherever it is unpacked: the time is one of UTC.
    let unzip = "TZ=Pacific/Auckland LC_ALL=C.UTF-8 unzip -q \"$1\" -d \"$2\"";
    let bsdtar = "TZ=Pacific/Auckland LC_ALL=C.UTF-8 bsdtar -x -p -f \"$1\" -C \"$2\"";
    for unpack in [unzip, bsdtar] {
        let out = scratch.path().join("out");
        fs::create_dir(&out).unwrap();
        run("sh", &["-c", unpack, "sh", &zip, out.to_str().unwrap()]);
        check(&out.join("p0"), unpack);
        fs::remove_dir_all(&out).unwrap();
    }
    // From the front, without the directory.
    let script = "cat \"$1\" | bsdtar -x -O -f - '*/noise' | cmp - \"$2\"";
    let bytes = scratch.path().join("noise");
    fs::write(&bytes, noise(300_000)).unwrap();
    run("sh", &["-c", script, "sh", &zip, bytes.to_str().unwrap()]);
}

fn check(root: &Path, unpack: &str) {
    let folder = root.join("Gr\u{fc}n \u{6587}");
    let found = |path: &Path| {
        let found = fs::symlink_metadata(path).unwrap();
        (found.mode() & 0o777, found.mtime())
    };
    assert_eq!(found(&folder), (0o750, 1_700_000_001), "{unpack}");
    assert_eq!(found(&folder.join("noise")), (0o711, 1_700_000_001), "{unpack}");
    assert_eq!(found(&folder.join("text")), (0o600, 300_000_000), "{unpack}");
    assert_eq!(found(&folder.join("empty")), (0o444, 1_700_000_002), "{unpack}");
    assert_eq!(found(&root.join("before 1970")).0, 0o644, "{unpack}");
    assert!(fs::read(folder.join("noise")).unwrap() == noise(300_000), "{unpack}");
    assert!(fs::read(folder.join("text")).unwrap() == [b'a'; 200_000], "{unpack}");
    assert_eq!(fs::read_link(folder.join("link")).unwrap(), Path::new("../\u{fc}"), "{unpack}");
}

#[test]
fn an_archive_of_more_entries_than_the_old_fields_count_is_read_by_all() {
    let mut tree = Tree::new();
    for n in 0..66_000_u32 {
        tree.add(1, n.to_string().as_bytes(), Node::file(&n.to_le_bytes()));
    }
    let (_scratch, zip, report) = zipped(tree);
    assert_eq!((report.files, report.is_complete()), (66_000, true));
    assert!(run("unzip", &["-tq", &zip]).contains("No errors detected"));
    let counted = run("zipinfo", &["-h", &zip]);
    assert!(counted.contains("number of entries: 66001"), "{counted}");
    assert_eq!(run("python3", &["-c", PYTHON, &zip]).lines().count(), 66_001);
    assert_eq!(run("bsdtar", &["-t", "-f", &zip]).lines().count(), 66_001);
}
