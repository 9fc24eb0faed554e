//! Files of Btrfs by name: their extents are what the kernel says, what anybody shares stays, and
//! a volume without them is sound and has every other file.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use aiv_filesystems::{KeptReason, Matching};
use aiv_volume_io::{Extent, ExtentSet};

use crate::btrfs_live::with_log;
use crate::btrfs_tools::{MOUNT, chunks_by_dump, fill, mkfs};
use crate::ext_files::{found, look_for, paths};
use crate::ext_tools::{MIB, copy_of_used, used_bytes};
use crate::left_out::{Judges, check};
use crate::tools::{Files, Mounted, Volume, noise, run, try_run};

const BTRFS: Judges = Judges { assert_clean, files_in };

/// Metadata alone: the data that were left out do not match their checksums.
fn assert_clean(volume: &Volume) {
    let output = try_run("btrfs", &["check", "--readonly", volume.path()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

/// All files, those among them whose checksums are not right; of compressed ones that are noise
/// now, only the length can be had.
fn files_in(volume: &Volume) -> Files {
    let mounted = Mounted::new(volume, "ro,rescue=ignoredatacsums");
    let mut files = Files::new();
    let mut todo = vec![mounted.path().to_owned()];
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
                continue;
            }
            let len = usize::try_from(path.metadata().unwrap().len()).unwrap();
            let bytes = fs::read(&path).unwrap_or_else(|_| vec![0; len]);
            files.insert(path.strip_prefix(mounted.path()).unwrap().to_owned(), bytes);
        }
    }
    files
}

fn total(volume: &Volume, patterns: &[&str]) -> u64 {
    let extents = found(volume, patterns).files.into_iter().flat_map(|file| file.extents);
    extents.map(|extent| extent.len).sum()
}

fn kept(volume: &Volume, patterns: &[&str]) -> Vec<(String, KeptReason)> {
    let kept = found(volume, patterns).kept.into_iter();
    kept.map(|kept| (kept.path, kept.reason)).collect()
}

/// Where the kernel says that a file lies, by logical address.
fn by_filefrag(path: &Path) -> Vec<Extent> {
    let said = run("filefrag", &["-v", "-s", "-b4096", path.to_str().unwrap()]);
    let number = |text: &str| text.trim().parse::<u64>().unwrap();
    let lines = said.lines().filter(|line| {
        line.trim_start().starts_with(|c: char| c.is_ascii_digit()) && line.contains("..")
    });
    let extents = lines.map(|line| {
        let (first, last) = line.split(':').nth(2).unwrap().split_once("..").unwrap();
        Extent::between(number(first) * 4096, (number(last) + 1) * 4096)
    });
    extents.collect()
}

#[test]
fn files_are_where_the_kernel_says_in_each_copy() {
    for options in ["", "-d dup -m dup", "-M -n 4096"] {
        let volume = mkfs(260 * MIB, options);
        let mounted = Mounted::new(&volume, MOUNT);
        let root = mounted.path();
        let mut expected = Vec::new();
        for (n, len) in [5000, 40_000, 3_000_001, 9 << 20].into_iter().enumerate() {
            fs::write(root.join(format!("{n}.iso")), noise(n as u64, len)).unwrap();
        }
        run("sync", &["-f", root.to_str().unwrap()]);
        for n in 0..4 {
            expected.push(by_filefrag(&root.join(format!("{n}.iso"))));
        }
        drop(mounted);
        let chunks = chunks_by_dump(&volume);
        let said = found(&volume, &["*.iso"]);
        assert_eq!((said.files.len(), said.kept_count), (4, 0), "{:?}", said.kept);
        for (file, expected) in said.files.iter().zip(expected) {
            let places = expected.iter().flat_map(|extent| {
                let (start, (_, places)) = chunks.range(..=extent.start).next_back().unwrap();
                places.iter().map(move |at| Extent::new(at + extent.start - start, extent.len))
            });
            let places: ExtentSet = places.collect();
            assert_eq!(file.extents, places.runs(), "{options} {}", file.path);
        }
        check(&volume, &["[02].iso"], &BTRFS);
    }
}

#[test]
fn among_subvolumes_snapshots_and_shared_extents_the_rest_is_sound() {
    for options in ["", "-M", "-m single -O ^skinny-metadata"] {
        let volume = mkfs(160 * MIB, options);
        fill(&volume, &format!("{MOUNT},compress=zstd"), 8 * MIB);
        {
            let mounted = Mounted::new(&volume, MOUNT);
            let text = "a line that is repeated\n".repeat(40_000);
            fs::write(mounted.path().join("home/own text"), text).unwrap();
        }
        let out = check(&volume, &["*[02468]", "own text", "text"], &BTRFS);
        // Set aside and never written.
        assert_eq!(total(&volume, &["set-aside"]), 300 << 10);
        // What the snapshot has as well is not among them.
        assert!(!out.iter().any(|path| path.contains("dir")), "{out:?}");
        assert!(out.contains(&"home/own text".to_owned()), "{out:?}");
        let all = kept(&volume, &["home/dir1/file1*", "frozen/*"]);
        assert!(all.contains(&("home/dir1/file11".to_owned(), KeptReason::Common)), "{all:?}");
        assert!(all.iter().any(|(path, _)| path.starts_with("frozen/")), "{all:?}");
    }
}

#[test]
fn an_extent_goes_when_all_references_are_the_files_own() {
    let volume = mkfs(160 * MIB, "");
    let mounted = Mounted::new(&volume, MOUNT);
    let at = |name: &str| mounted.path().join(name).to_str().unwrap().to_owned();
    let sync = || drop(run("sync", &["-f", &at("")]));
    let rewrite = |name: &str, offset: u64, len: usize| {
        let file = File::options().write(true).open(at(name)).unwrap();
        file.write_all_at(&noise(9, len), offset).unwrap();
    };
    // Written over in the middle: two references to what it was, and the new extent.
    fs::write(at("a.iso"), noise(1, 1 << 20)).unwrap();
    sync();
    rewrite("a.iso", 256 << 10, 64 << 10);
    // A copy has all of it, and one part of it; the original has what it wrote later.
    fs::write(at("b.iso"), noise(2, 1 << 20)).unwrap();
    sync();
    run("cp", &["--reflink=always", &at("b.iso"), &at("b.copy")]);
    sync();
    rewrite("b.iso", 128 << 10, 32 << 10);
    fs::write(at("c.iso"), noise(3, 1 << 20)).unwrap();
    fs::hard_link(at("c.iso"), at("c.txt")).unwrap();
    fs::write(at("small.iso"), "small").unwrap();
    drop(mounted);
    assert_eq!(total(&volume, &["a.iso"]), (1 << 20) + (64 << 10));
    assert_eq!(total(&volume, &["b.iso"]), 32 << 10);
    // Of both, the extent they share stays, and what one of them wrote goes.
    assert_eq!(total(&volume, &["b.*"]), 32 << 10);
    let expected = [
        ("c.iso".to_owned(), KeptReason::OtherName),
        ("small.iso".to_owned(), KeptReason::InRecord),
    ];
    assert_eq!(kept(&volume, &["*.iso"]), expected);
    assert_eq!(kept(&volume, &["b.copy"]), [("b.copy".to_owned(), KeptReason::Common)]);
    assert_eq!(check(&volume, &["*.iso"], &BTRFS), ["a.iso", "b.iso"]);

    // A snapshot has everything, however few references that makes.
    let mounted = Mounted::new(&volume, MOUNT);
    let (from, to) = (mounted.path().to_owned(), mounted.path().join("snapshot"));
    let words = ["subvolume", "snapshot", from.to_str().unwrap(), to.to_str().unwrap()];
    run("btrfs", &words);
    drop(mounted);
    let all = found(&volume, &["/*.iso", "b.copy"]);
    assert_eq!(paths(&all), [""; 0]);
    let common = all.kept.iter().filter(|kept| kept.reason == KeptReason::Common);
    assert_eq!(common.count(), 4, "{:?}", all.kept);
}

#[test]
fn a_file_that_was_left_out_cannot_be_read_and_all_others_can() {
    let volume = mkfs(160 * MIB, "");
    {
        let mounted = Mounted::new(&volume, MOUNT);
        fs::write(mounted.path().join("a.iso"), noise(1, 500_000)).unwrap();
        fs::write(mounted.path().join("b.txt"), noise(2, 500_000)).unwrap();
    }
    let left_out: ExtentSet = found(&volume, &["*.iso"]).files[0].extents.iter().copied().collect();
    let (used, ..) = used_bytes(&volume);
    let rest = used.runs().iter().flat_map(|&run| left_out.gaps_within(run)).collect();
    let copy = copy_of_used(&volume, &rest);
    let mounted = Mounted::new(&copy, "ro");
    assert!(fs::read(mounted.path().join("a.iso")).is_err());
    assert!(fs::read(mounted.path().join("b.txt")).unwrap() == noise(2, 500_000));
}

#[test]
fn a_log_that_waits_keeps_everything() {
    let hot = with_log("", 3);
    let Matching::Nothing { reason } = look_for(&hot, &["file*"]) else { panic!() };
    assert!(reason.to_string().starts_with("the filesystem was not unmounted"), "{reason}");
}
