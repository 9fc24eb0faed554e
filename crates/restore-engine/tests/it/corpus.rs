//! Trees that somebody made to harm whoever recovers them: every hostile name as every kind of file,
//! into folders and archives. Nothing is written outside of the target, no link is followed, and
//! what a name cannot be is told or left out.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path as OsPath, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aiv_browse::{Disk, FileType, Path};
use aiv_restore_engine::recover::{Existing, RecoverOptions, RecoverPlan, RecoverReport};
use aiv_testkit::files::{Node, Tree};
use aiv_volume_io::{Job, MemDisk};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::real::run;

/// Names that are none, and lead elsewhere.
const NONE: [&[u8]; 9] =
    [b"", b".", b"..", b"/", b"/etc", b"../outside/x", b"a/../../outside/x", b"a\0b", b"..\0"];

/// Names that mean something elsewhere: on Windows, in archives, on terminals.
fn names() -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = [
        &b"..\\..\\outside\\x"[..],
        b"\\",
        b"\\\\server\\share\\x",
        b"\\\\?\\C:\\x",
        b"C:",
        b"C:\\Windows\\x",
        b"c:x",
        b"CON",
        b"con.txt",
        b"NUL",
        b"PRN",
        b"AUX",
        b"COM1",
        b"LPT9",
        b"CLOCK$",
        b"x:stream",
        b"x::$DATA",
        b"$MFT",
        b"x.",
        b"x ",
        b" x",
        b"...",
        b".. ",
        b"..;",
        b"~",
        b"~root",
        b"-rf",
        b"--to-command=false",
        b"*",
        b"?",
        b"<>|\"",
        b"$(touch outside)",
        b"`touch outside`",
        b";touch outside",
        b"%2e%2e%2foutside",
        b"%00",
        b"%5C",
        b"a\nb",
        b"a\rb",
        b"\x1b[2J\x1b]0;x\x07",
        b"\x01\x7f",
        b"\xff\xfe",
        b"\xc0\xae\xc0\xae",
        b"\xed\xa0\x80",
        b".aiv-0000000000000008-1.part",
        b"x.damaged",
        b".git",
    ]
    .map(<[u8]>::to_vec)
    .into();
    names.extend(
        [
            "\u{202e}gpj.exe",
            "\u{2066}x\u{2069}",
            "\u{feff}x",
            "\u{2024}\u{2024}",
            "\u{ff0e}\u{ff0e}\u{ff0f}x",
            "\u{2215}etc",
            "e\u{301}",
            "\u{e9}",
        ]
        .map(|name| name.as_bytes().to_vec()),
    );
    names.push(vec![b'l'; 255]);
    names.push("\u{1f600}".repeat(63).into_bytes());
    names
}

/// Adds something of a name to a folder.
type Make = Box<dyn Fn(&mut Tree, u64, &[u8])>;

/// Everything that can be made of a name.
fn shapes(outside: &OsPath) -> Vec<Make> {
    let away = outside.as_os_str().as_bytes().to_vec();
    let (away_too, canary) = (away.clone(), [&away[..], b"/canary"].concat());
    let set_id = || {
        let mut node = Node::file(b"hostile");
        node.metadata.mode = Some(0o6755);
        node
    };
    vec![
        Box::new(|tree, at, name| {
            tree.add(at, name, Node::file(b"hostile"));
        }),
        Box::new(move |tree, at, name| {
            tree.add(at, name, set_id());
        }),
        Box::new(|tree, at, name| {
            let folder = tree.add(at, name, Node::of(FileType::Folder));
            tree.add(folder, name, Node::file(b"hostile"));
            tree.add(folder, b"x", Node::file(b"hostile"));
        }),
        // A link out, and a folder of the same name with files.
        Box::new(move |tree, at, name| {
            tree.add(at, name, Node::link(&away));
            let folder = tree.add(at, name, Node::of(FileType::Folder));
            tree.add(folder, b"canary", Node::file(b"hostile"));
        }),
        // A link out, and a file of the same name.
        Box::new(move |tree, at, name| {
            tree.add(at, name, Node::link(&canary));
            tree.add(at, name, Node::file(b"hostile"));
        }),
        Box::new(|tree, at, name| {
            tree.add(at, name, Node::link(name));
        }),
        Box::new(move |tree, at, name| {
            let streams = vec![(name.to_vec(), b"hostile".to_vec()), (away_too.clone(), vec![1])];
            tree.add(at, name, Node { streams, ..Node::file(b"hostile") });
        }),
        Box::new(|tree, at, name| {
            let mut node = Node::file(b"hostile");
            node.metadata.links = 3;
            let file = tree.add(at, b"first", node);
            tree.name(at, name, file);
            tree.name(1, name, file);
        }),
        Box::new(|tree, at, name| {
            tree.add(at, name, Node::of(FileType::CharDevice));
        }),
        Box::new(|tree, at, name| {
            tree.add(at, name, Node::of(FileType::Socket));
        }),
        // A folder within itself.
        Box::new(|tree, at, name| {
            let folder = tree.add(at, name, Node::of(FileType::Folder));
            tree.name(folder, name, folder);
            tree.name(folder, b"up", 1);
        }),
    ]
}

fn plan(tree: Tree) -> RecoverPlan {
    let disk = Disk::of_filesystem(Arc::new(tree), Arc::new(MemDisk::from_bytes(vec![0; 4096])));
    RecoverPlan::new(&disk, &[Path::parse(b"/p0").unwrap()], None, Job::silent()).unwrap()
}

fn to_folder(plan: &RecoverPlan, dir: &OsPath, existing: Existing) -> RecoverReport {
    let options = RecoverOptions { existing, owners: true, verify: true, seed: 7 };
    plan.to_folder(dir, options, Job::silent()).unwrap()
}

/// A folder with a place to recover into, and one beside it that nobody may touch.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::create_dir(place.outside()).unwrap();
        fs::write(place.outside().join("canary"), "mine").unwrap();
        place
    }

    fn outside(&self) -> PathBuf {
        self.0.path().join("outside")
    }

    fn inside(&self) -> PathBuf {
        self.0.path().join("in")
    }

    /// Nothing is there that was not, and nothing is changed.
    fn check(&self, what: &str) {
        let names = |folder: &OsPath| -> BTreeSet<PathBuf> {
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into()).collect()
        };
        let around = names(self.0.path());
        assert!(around.iter().all(|name| name == "outside" || name == "in"), "{what}: {around:?}");
        assert_eq!(names(&self.outside()), ["canary".into()].into(), "{what}");
        let canary = self.outside().join("canary");
        assert_eq!(fs::read(&canary).unwrap(), b"mine", "{what}");
        assert_eq!(fs::metadata(&canary).unwrap().nlink(), 1, "{what}");
    }

    fn empty(&self) {
        let _ = fs::remove_dir_all(self.inside());
    }
}

#[test]
fn no_tree_of_the_corpus_reaches_anything_outside_of_its_folder() {
    let place = Place::new();
    let every = names();
    let shapes = shapes(&place.outside());
    let mut trees = 0;
    for name in NONE.iter().copied().chain(every.iter().map(Vec::as_slice)) {
        let mut tree = Tree::new();
        for (shape, make) in shapes.iter().enumerate() {
            let at = tree.add(1, format!("s{shape}").as_bytes(), Node::of(FileType::Folder));
            make(&mut tree, at, name);
            trees += 1;
        }
        let what = name.escape_ascii().to_string();
        let plan = plan(tree);
        for existing in [Existing::Refuse, Existing::Skip, Existing::Replace] {
            to_folder(&plan, &place.inside(), existing);
            place.check(&what);
        }
        for shape in 0..shapes.len() {
            let folder = place.inside().join(format!("p0/s{shape}"));
            match NONE.contains(&name) {
                // What is no name was left out; a file has another one besides.
                true => {
                    let left = fs::read_dir(&folder).unwrap();
                    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
                    assert!(left.iter().all(|name| name == "first"), "{what} as {shape}: {left:?}");
                }
                false => {
                    let made = fs::symlink_metadata(folder.join(OsStr::from_bytes(name)));
                    assert!(made.is_ok(), "{what} as {shape}");
                }
            }
        }
        place.empty();
    }
    assert!(trees >= 700, "{trees}");
}

#[test]
fn what_other_programs_unpack_of_an_archive_of_the_corpus_stays_where_they_unpack_it() {
    let place = Place::new();
    let mut tree = Tree::new();
    for (shape, make) in shapes(&place.outside()).iter().enumerate() {
        let folder = tree.add(1, format!("s{shape}").as_bytes(), Node::of(FileType::Folder));
        for (at, name) in names().iter().map(Vec::as_slice).chain(NONE).enumerate() {
            let folder = tree.add(folder, at.to_string().as_bytes(), Node::of(FileType::Folder));
            make(&mut tree, folder, name);
        }
    }
    let plan = plan(tree);
    let (mut tar, mut zip) = (Vec::new(), Vec::new());
    let report = plan.to_tar(&mut tar, Job::silent()).unwrap();
    assert!(report.files > 300, "{report:?}");
    let report = plan.to_zip(&mut zip, Job::silent()).unwrap();
    assert!(report.files > 300, "{report:?}");
    let archives = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = archives.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (tar, zip) = (file("a.tar", &tar), file("a.zip", &zip));
    // What each says of links in the way of files is its own business; where they go is ours.
    for unpack in ["tar -x -f \"$1\" -C \"$3\"", "unzip -q -o \"$2\" -d \"$3\""] {
        fs::create_dir(place.inside()).unwrap();
        let script = format!("{unpack} >/dev/null 2>&1; true");
        let inside = place.inside();
        run("sh", &["-c", &script, "sh", &tar, &zip, inside.to_str().unwrap()]);
        place.check(unpack);
        let made = fs::read_dir(inside.join("p0")).unwrap().count();
        assert!(made >= 11, "{unpack}: {made}");
        run("rm", &["-rf", inside.to_str().unwrap()]);
    }
    // Names that mean a place on other systems are none in the archives either.
    let listed = run("unzip", &["-Z1", &zip]);
    for name in listed.lines() {
        assert!(name.starts_with("p0/") && !name.contains('\\'), "{name}");
        assert!(name.split('/').all(|part| part != ".."), "{name}");
    }
}

#[test]
fn folders_that_somebody_swaps_for_links_lead_nothing_out() {
    let place = Place::new();
    let mut tree = Tree::new();
    let folder = tree.add(1, b"folder", Node::of(FileType::Folder));
    let inner = tree.add(folder, b"inner", Node::of(FileType::Folder));
    for n in 0..50_u8 {
        tree.add(inner, &[b'f', n], Node::file(b"hostile"));
        tree.add(inner, &[b'l', n], Node::link(b"canary"));
    }
    tree.add(inner, b"canary", Node::file(b"hostile"));
    // Byte 47 is a slash, and those names are none.
    let plan = plan(tree);
    let target = place.inside().join("p0/folder/inner");
    fs::create_dir_all(&target).unwrap();
    let link = place.inside().join("link");
    symlink(place.outside(), &link).unwrap();
    let done = AtomicBool::new(false);
    let swaps = std::thread::scope(|scope| {
        let swapping = scope.spawn(|| {
            let mut swaps = 0_u64;
            while !done.load(Ordering::Relaxed) {
                let swapped =
                    renameat_with(CWD, &link, CWD, &target, RenameFlags::EXCHANGE).is_ok();
                swaps += u64::from(swapped);
            }
            swaps
        });
        for n in 0..60 {
            let existing = if n % 2 == 0 { Existing::Replace } else { Existing::Skip };
            let options = RecoverOptions { existing, owners: true, verify: true, seed: n };
            // Whatever becomes of the job itself.
            let _ = plan.to_folder(&place.inside(), options, Job::silent());
            place.check("swapped");
        }
        done.store(true, Ordering::Relaxed);
        swapping.join().unwrap()
    });
    assert!(swaps > 1000, "{swaps}");
}

#[test]
fn a_path_longer_than_the_system_takes_at_once_comes_back() {
    let place = Place::new();
    let mut tree = Tree::new();
    let mut at = 1;
    // Four bytes for each level: twice as long as what one call takes.
    for _ in 0..2000 {
        at = tree.add(at, b"ddd", Node::of(FileType::Folder));
    }
    let report = to_folder(&plan(tree), &place.inside(), Existing::Refuse);
    assert_eq!((report.folders, report.not_done_count), (2001, 0), "{:?}", report.not_done);
    let inside = place.inside();
    let depth = run("sh", &["-c", "find \"$1\" -type d | wc -l", "sh", inside.to_str().unwrap()]);
    assert_eq!(depth, "2002");
    run("rm", &["-rf", inside.to_str().unwrap()]);
    place.check("deep");
}
