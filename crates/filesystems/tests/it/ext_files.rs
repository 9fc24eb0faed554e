//! Files of ext volumes by name: their blocks are what the kernel says they are, and a volume
//! without them is sound and has every other file.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use aiv_filesystems::{
    FileExtents, KeptReason, Matching, MatchingFiles, NothingReason, Pattern, find_files,
    recognise, used_map,
};
use aiv_volume_io::{Extent, ExtentSet, Job};

use crate::ext_tools::{MIB, assert_clean, churn, copy_of_used, files_in, mke2fs, used_bytes};
use crate::tools::{Mounted, Volume, files_below, noise, run};

pub(crate) fn look_for(volume: &Volume, patterns: &[&str]) -> Matching {
    let source = volume.open();
    let recognised = recognise(&source).unwrap();
    let map = used_map(&source, &recognised, Job::silent()).unwrap();
    let patterns: Vec<Pattern> = patterns.iter().map(|text| text.parse().unwrap()).collect();
    find_files(&source, &recognised, &map, &patterns, Job::silent()).unwrap()
}

pub(crate) fn found(volume: &Volume, patterns: &[&str]) -> MatchingFiles {
    match look_for(volume, patterns) {
        Matching::Files(found) => found,
        Matching::Nothing { reason } => panic!("nothing: {reason}"),
    }
}

pub(crate) fn paths(found: &MatchingFiles) -> Vec<&str> {
    found.files.iter().map(|file| file.path.as_str()).collect()
}

/// Where the kernel says that files lie, in their order.
fn by_filefrag(paths: &[PathBuf]) -> Vec<Vec<Extent>> {
    let mut arguments = vec!["-v", "-s", "-b1024"];
    arguments.extend(paths.iter().map(|path| path.to_str().unwrap()));
    let text = run("filefrag", &arguments);
    let number = |text: &str| text.trim().parse::<u64>().unwrap();
    let extent = |line: &str| {
        let (first, last) = line.split(':').nth(2).unwrap().split_once("..").unwrap();
        Extent::between(number(first) * 1024, (number(last) + 1) * 1024)
    };
    let is_extent = |line: &&str| line.trim_start().starts_with(|c: char| c.is_ascii_digit());
    let files = text.split("File size of ").skip(1);
    let sets = files.map(|file| file.lines().skip(1).filter(is_extent).map(extent).collect());
    sets.map(|set: ExtentSet| set.runs().to_vec()).collect()
}

/// Extents of all regular files below `root` that have any, by path.
fn all_by_filefrag(root: &Path) -> BTreeMap<String, Vec<Extent>> {
    let is_file = |path: &PathBuf| root.join(path).symlink_metadata().unwrap().is_file();
    let paths: Vec<PathBuf> = files_below(root).into_keys().filter(is_file).collect();
    let absolute: Vec<PathBuf> = paths.iter().map(|path| root.join(path)).collect();
    let extents = by_filefrag(&absolute);
    assert_eq!(extents.len(), paths.len());
    let names = paths.iter().map(|path| path.to_str().unwrap().to_owned());
    names.zip(extents).filter(|(_, extents)| !extents.is_empty()).collect()
}

/// Files beside those of [`churn`] whose block maps are of every shape.
fn shapes(root: &Path) {
    // An extent tree of two levels, or indirect blocks of two.
    let holes = File::create(root.join("holes")).unwrap();
    for n in 0..500 {
        holes.write_all_at(&noise(n, 1024), n * 8192).unwrap();
    }
    let huge = root.join("many");
    fs::create_dir(&huge).unwrap();
    for n in 0..600 {
        let name = format!("a rather long name to fill the folder with, number {n}");
        fs::write(huge.join(name), [7]).unwrap();
    }
    let deep = root.join("deep/er/and/deeper");
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("disk.iso"), noise(3, 300_000)).unwrap();
    fs::write(root.join("deep/keep.txt"), noise(4, 30_000)).unwrap();
    fs::write(root.join("deep/empty"), []).unwrap();
    std::os::unix::fs::symlink("keep.txt", root.join("deep/link")).unwrap();
    let long = format!("{}keep.txt", "./".repeat(100));
    std::os::unix::fs::symlink(long, root.join("deep/long link")).unwrap();
    run("mknod", &[root.join("deep/null").to_str().unwrap(), "c", "1", "3"]);
}

/// All files are found where the kernel has them; without some of them the volume is sound and
/// has all others.
fn check(mib: u64, options: &str) {
    let volume = mke2fs(mib * MIB, options);
    let mounted = Mounted::new(&volume, "rw");
    let root = mounted.path();
    churn(root, 6 * MIB);
    shapes(root);
    run("sync", &["-f", root.to_str().unwrap()]);
    let expected = all_by_filefrag(root);
    let mut contents = files_below(root);
    contents.remove(Path::new("deep/null"));
    drop(mounted);

    let tree = run("debugfs", &["-R", "ex /holes", volume.path()]);
    let is_deep = options.contains("ext4 -b 1024") && !options.contains("^extent");
    assert_eq!(tree.contains(" 2/ 2 "), is_deep, "{options}: {tree}");
    let all = found(&volume, &["*"]);
    assert_eq!((all.kept_count, all.kept.len()), (0, 0), "{:?}", all.kept);
    assert!(expected.len() > 600);
    let extents = all.files.iter().map(|file| (file.path.clone(), file.extents.clone()));
    assert_eq!(extents.collect::<BTreeMap<_, _>>(), expected, "{options}");
    for FileExtents { path, len, .. } in &all.files {
        assert_eq!(*len, contents[Path::new(path)].len() as u64, "{path}");
    }

    // Half of the files, and all that lies below a folder.
    let some = found(&volume, &["*[02468]", "*.iso", "/many/"]);
    assert!(some.files.len() < all.files.len());
    let left_out: ExtentSet = some.files.iter().flat_map(|file| file.extents.clone()).collect();
    let (used, ..) = used_bytes(&volume);
    let rest: ExtentSet = used.runs().iter().flat_map(|&run| left_out.gaps_within(run)).collect();
    assert_eq!(rest.total_len() + left_out.total_len(), used.total_len(), "only what is used");
    let copy = copy_of_used(&volume, &rest);
    assert_clean(&copy);
    let mut others = files_in(&copy);
    assert_eq!(others.len(), contents.len());
    for file in &some.files {
        let (is, was) =
            (others.remove(Path::new(&file.path)), contents.remove(Path::new(&file.path)));
        assert_eq!(is.unwrap().len(), was.unwrap().len(), "{}", file.path);
    }
    assert!(others == contents, "other files differ: {options}");
}

#[test]
fn a_file_goes_on_where_a_group_begins_without_copies_of_the_superblock() {
    // Groups of 8 MiB; 2, 4 and 6 have none.
    let volume = mke2fs(64 * MIB, "-t ext4 -b 1024");
    let mounted = Mounted::new(&volume, "rw");
    fs::write(mounted.path().join("large.iso"), noise(1, 24 << 20)).unwrap();
    drop(mounted);
    let found = found(&volume, &["*.iso"]);
    assert_eq!((paths(&found), found.kept_count), (vec!["large.iso"], 0), "{:?}", found.kept);
    let extents: ExtentSet = found.files[0].extents.iter().copied().collect();
    assert_eq!(extents.total_len(), 24 * MIB);
    let starts = [2, 4, 6].map(|group| 1024 * (1 + group * 8192));
    let goes_on = |&start: &u64| extents.within(Extent::new(start - 1, 2)).any(|e| e.len == 2);
    assert!(starts.iter().any(goes_on), "{extents:?}");
}

#[test]
fn files_of_ext4_are_where_the_kernel_has_them() {
    check(32, "-t ext4 -b 4096 -g 2048");
    check(32, "-t ext4 -b 1024");
}

#[test]
fn so_are_those_of_ext4_of_a_few_years_ago() {
    check(32, "-t ext4 -b 1024 -O ^64bit,^metadata_csum,uninit_bg");
    check(32, "-t ext4 -b 2048 -O 64bit,^metadata_csum,^uninit_bg,^filetype");
}

#[test]
fn so_are_those_with_indirect_blocks() {
    check(32, "-t ext2 -b 1024");
    check(32, "-t ext3 -b 1024 -O ^dir_index");
    check(32, "-t ext4 -b 1024 -O ^extent,^64bit,^metadata_csum");
}

#[test]
fn so_are_those_in_clusters_of_blocks() {
    check(48, "-t ext4 -b 1024 -O bigalloc,meta_bg,^resize_inode -C 4096");
}

/// A small filesystem that `fill` has filled.
fn filled(options: &str, fill: impl FnOnce(&Path)) -> Volume {
    let volume = mke2fs(16 * MIB, options);
    let mounted = Mounted::new(&volume, "rw");
    fill(mounted.path());
    drop(mounted);
    volume
}

fn debugfs(volume: &Volume, command: &str) {
    run("debugfs", &["-w", "-R", command, volume.path()]);
}

/// What is kept of the files that match, with reasons.
fn kept(found: &MatchingFiles) -> Vec<(&str, KeptReason)> {
    assert_eq!(found.kept_count, found.kept.len() as u64);
    found.kept.iter().map(|kept| (kept.path.as_str(), kept.reason)).collect()
}

#[test]
fn a_file_of_which_one_name_does_not_match_is_kept() {
    let volume = filled("-t ext4", |root| {
        fs::write(root.join("a.iso"), noise(1, 50_000)).unwrap();
        fs::hard_link(root.join("a.iso"), root.join("a.txt")).unwrap();
        fs::write(root.join("b.iso"), noise(2, 50_000)).unwrap();
        fs::create_dir(root.join("sub")).unwrap();
        fs::hard_link(root.join("b.iso"), root.join("sub/c.iso")).unwrap();
    });
    let isos = found(&volume, &["*.iso"]);
    assert_eq!(kept(&isos), [("a.iso", KeptReason::OtherName)]);
    // One file with two names is left out once.
    assert_eq!(isos.files.len(), 1);
    assert!(["b.iso", "sub/c.iso"].contains(&paths(&isos)[0]));
    assert_eq!(found(&volume, &["a.*", "*.iso"]).files.len(), 2);
    // Were the count of names wrong, the name itself still tells.
    debugfs(&volume, "set_inode_field /a.iso links_count 1");
    let isos = found(&volume, &["*.iso"]);
    assert_eq!(kept(&isos), [("a.iso", KeptReason::OtherName)]);
}

#[test]
fn preallocated_blocks_go_with_their_file_and_holes_are_none() {
    let volume = filled("-t ext4 -b 1024", |root| {
        let path = root.join("prealloc");
        fs::write(&path, noise(1, 3000)).unwrap();
        run("fallocate", &["-n", "-l", "2M", path.to_str().unwrap()]);
        File::create(root.join("hole")).unwrap().set_len(1 << 40).unwrap();
    });
    let all = found(&volume, &["*"]);
    assert_eq!(paths(&all), ["prealloc"]);
    let bytes: u64 = all.files[0].extents.iter().map(|extent| extent.len).sum();
    assert_eq!((all.files[0].len, bytes), (3000, 2 * MIB));
}

/// Without its first page it could not be used after a restore, and what the target held there
/// before could pass for a sleeping system.
#[test]
fn the_first_page_of_a_swap_file_is_always_kept() {
    for (options, page) in
        [("-t ext4 -b 4096", 4096), ("-t ext2 -b 1024", 4096), ("-t ext4 -b 1024", 4096)]
    {
        let volume = filled(options, |root| {
            for name in ["swapfile", "other"] {
                fs::write(root.join(name), noise(1, 512 << 10)).unwrap();
            }
            run("mkswap", &["-q", root.join("swapfile").to_str().unwrap()]);
        });
        let files = found(&volume, &["swapfile", "other"]).files;
        let lens: Vec<u64> = files.iter().map(|f| f.extents.iter().map(|e| e.len).sum()).collect();
        assert_eq!(lens, [512 << 10, (512 << 10) - page], "{options}");
        let block = run("debugfs", &["-R", "bmap /swapfile 0", volume.path()]);
        let size = if options.contains("4096") { 4096 } else { 1024 };
        let first = block.trim().parse::<u64>().unwrap() * size;
        let header = Extent::new(first, page);
        assert!(files[1].extents.iter().all(|extent| extent.intersect(header).is_none()));
    }
}

#[test]
fn data_within_inodes_is_kept_and_so_is_what_folders_within_inodes_hold() {
    let volume = filled("-t ext4 -O inline_data -I 256", |root| {
        fs::write(root.join("tiny"), [1; 30]).unwrap();
        fs::write(root.join("large"), noise(1, 30_000)).unwrap();
        fs::create_dir(root.join("folder")).unwrap();
        fs::write(root.join("folder/file"), noise(1, 30_000)).unwrap();
    });
    let all = found(&volume, &["*"]);
    assert_eq!(paths(&all), ["large"]);
    let folder = KeptReason::Folder("its names lie within its inode");
    assert_eq!(kept(&all), [("folder", folder), ("tiny", KeptReason::InRecord)]);
}

#[test]
fn encrypted_sealed_and_compressed_files_are_kept() {
    let volume = filled("-t ext4 -O encrypt,verity", |root| {
        for name in ["encrypted", "sealed", "compressed", "plain"] {
            fs::write(root.join(name), noise(1, 30_000)).unwrap();
        }
        fs::create_dir(root.join("secret")).unwrap();
        fs::write(root.join("secret/file"), noise(1, 30_000)).unwrap();
    });
    // Extents, and the flag.
    debugfs(&volume, "set_inode_field /encrypted flags 0x80800");
    debugfs(&volume, "set_inode_field /sealed flags 0x180000");
    debugfs(&volume, "set_inode_field /compressed flags 0x80004");
    debugfs(&volume, "set_inode_field /secret flags 0x80800");
    let all = found(&volume, &["*"]);
    assert_eq!(paths(&all), ["plain"]);
    let mut reasons = kept(&all);
    reasons.sort_by_key(|(path, _)| *path);
    assert_eq!(
        reasons,
        [
            ("compressed", KeptReason::Compressed),
            ("encrypted", KeptReason::Encrypted),
            ("sealed", KeptReason::Sealed),
            ("secret", KeptReason::Folder("its names are encrypted")),
        ]
    );
}

/// Two files of ext2, the first block of `b` as told.
fn with_first_block(block: impl FnOnce(&Volume) -> u64) -> Volume {
    let volume = filled("-t ext2 -b 1024", |root| {
        fs::write(root.join("a"), noise(1, 5000)).unwrap();
        fs::write(root.join("b"), noise(2, 5000)).unwrap();
        fs::create_dir(root.join("folder")).unwrap();
        let large = File::create(root.join("large")).unwrap();
        large.write_all_at(&noise(3, 30_000), 0).unwrap();
    });
    let block = block(&volume);
    debugfs(&volume, &format!("set_inode_field /b block[0] {block}"));
    volume
}

/// A block of a file, as debugfs has it.
fn block_of(volume: &Volume, path: &str, n: usize) -> u64 {
    let blocks = run("debugfs", &["-R", &format!("blocks {path}"), volume.path()]);
    blocks.split_whitespace().nth(n).unwrap().parse().unwrap()
}

#[test]
fn a_file_that_shares_a_block_with_anything_is_kept() {
    let table = |volume: &Volume| {
        let dump = run("dumpe2fs", &[volume.path()]);
        let line = dump.lines().find(|line| line.contains("Inode table at ")).unwrap();
        let number = line.split("Inode table at ").nth(1).unwrap().split('-').next().unwrap();
        number.parse::<u64>().unwrap()
    };
    type Place<'a> = &'a dyn Fn(&Volume) -> u64;
    let cases: [(&str, Place<'_>); 7] = [
        ("a file that does not match", &|volume| block_of(volume, "/a", 0)),
        ("a folder", &|volume| block_of(volume, "/folder", 0)),
        ("an indirect block", &|volume| block_of(volume, "/large", 12)),
        ("the inode table", &|volume| table(volume) + 7),
        ("a superblock", &|_| 1),
        ("a backup of the superblock", &|_| 8193),
        ("a bitmap", &|volume| table(volume) - 1),
    ];
    for (what, block) in cases {
        let volume = with_first_block(block);
        let one = found(&volume, &["b"]);
        assert_eq!((paths(&one), kept(&one)), (vec![], vec![("b", KeptReason::Shared)]), "{what}");
    }
    // Both match, and both are kept.
    let volume = with_first_block(|volume| block_of(volume, "/a", 1));
    let both = found(&volume, &["a", "b", "large"]);
    assert_eq!(paths(&both), ["large"]);
    assert_eq!(kept(&both), [("a", KeptReason::Shared), ("b", KeptReason::Shared)]);
}

#[test]
fn a_block_called_free_is_no_proof_of_anything() {
    let volume = with_first_block(|_| 16_000);
    let one = found(&volume, &["b", "a"]);
    let reason = KeptReason::NotUnderstood("it claims blocks called free");
    assert_eq!((paths(&one), kept(&one)), (vec!["a"], vec![("b", reason)]));
}

#[test]
fn where_any_map_is_damaged_nothing_is_left_out() {
    let volume = with_first_block(|_| 1 << 30);
    let Matching::Nothing { reason: NothingReason::Damaged { what } } = look_for(&volume, &["a"])
    else {
        panic!("a file of a damaged filesystem is left out");
    };
    assert!(what.ends_with(": a block outside the filesystem"), "{what}");

    // The inode of another file, by its checksum.
    let volume = filled("-t ext4", |root| {
        fs::write(root.join("a"), noise(1, 5000)).unwrap();
        fs::write(root.join("b"), noise(2, 5000)).unwrap();
    });
    assert_eq!(paths(&found(&volume, &["a"])), ["a"]);
    let place = run("debugfs", &["-R", "imap /b", volume.path()]);
    let number = |word: &str| {
        let rest = place.split(word).nth(1).unwrap().trim_start();
        rest.split([',', ' ', '\n']).next().unwrap().to_owned()
    };
    let block: u64 = number("located at block").parse().unwrap();
    let offset = u64::from_str_radix(number("offset").trim_start_matches("0x"), 16).unwrap();
    volume.patch(block * 1024 + offset + 8, &[0xff; 4]);
    let nothing = look_for(&volume, &["a"]);
    let Matching::Nothing { reason: NothingReason::Damaged { what } } = nothing else {
        panic!("{nothing:?}");
    };
    assert!(what.ends_with(": its checksum is wrong"), "{what}");
}

#[test]
fn a_folder_in_circles_is_walked_once() {
    let volume = filled("-t ext2", |root| {
        fs::create_dir_all(root.join("x/y")).unwrap();
        fs::write(root.join("x/y/file"), noise(1, 5000)).unwrap();
    });
    debugfs(&volume, "link /x /x/y/again");
    let all = found(&volume, &["file"]);
    assert_eq!(paths(&all), ["x/y/file"]);
    assert_eq!(kept(&all), [("x/y/again", KeptReason::Folder("it has more than one name"))]);
}

#[test]
fn names_of_the_filesystems_own_files_match_nothing() {
    let volume = filled("-t ext4", |root| fs::write(root.join("a"), noise(1, 5000)).unwrap());
    debugfs(&volume, "link <8> /journal.iso");
    let all = found(&volume, &["*.iso"]);
    assert_eq!(kept(&all), [("journal.iso", KeptReason::SystemFile)]);
    assert_eq!(paths(&all), [""; 0]);
}

#[test]
fn a_filesystem_in_use_has_no_files_to_leave_out() {
    let volume = mke2fs(16 * MIB, "-t ext4");
    let mounted = Mounted::new(&volume, "rw");
    fs::write(mounted.path().join("a"), noise(1, 50_000)).unwrap();
    File::open(mounted.path().join("a")).unwrap().sync_all().unwrap();
    let copy = volume.duplicate();
    let frozen = run("fsfreeze", &["-f", mounted.path().to_str().unwrap()]);
    let quiet = volume.duplicate();
    run("fsfreeze", &["-u", mounted.path().to_str().unwrap()]);
    drop((mounted, frozen));
    let reason = NothingReason::NotUnmounted;
    assert_eq!(look_for(&copy, &["a"]), Matching::Nothing { reason });
    // Frozen, its records are what they say.
    assert_eq!(paths(&found(&quiet, &["a"])), ["a"]);
}

#[test]
fn files_of_other_filesystems_are_kept_with_a_reason() {
    let volume = Volume::made_by(64 * MIB, "mkfs.f2fs", "-q -f");
    let Matching::Nothing { reason } = look_for(&volume, &["*"]) else { panic!("files of F2FS") };
    assert_eq!(reason.to_string(), "files of f2fs cannot be excluded yet");
    let volume = Volume::new(MIB);
    let reason = NothingReason::KeptInFull;
    assert_eq!(look_for(&volume, &["*"]), Matching::Nothing { reason });
}

#[test]
fn work_ends_when_it_is_stopped() {
    let volume = filled("-t ext4", |root| fs::write(root.join("a"), noise(1, 5000)).unwrap());
    let source = volume.open();
    let recognised = recognise(&source).unwrap();
    let map = used_map(&source, &recognised, Job::silent()).unwrap();
    let cancel = aiv_volume_io::Cancel::new();
    cancel.cancel();
    let job = Job { cancel: &cancel, ..Job::silent() };
    let patterns = ["a".parse().unwrap()];
    let stopped = find_files(&source, &recognised, &map, &patterns, job);
    assert!(matches!(stopped, Err(aiv_filesystems::Error::Canceled(_))), "{stopped:?}");
}
