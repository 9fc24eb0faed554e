//! Disks on targets too small for their last partition, whose filesystem is made smaller.

use std::fs;
use std::path::{Path, PathBuf};

use aiv_restore_engine::{
    Around, Error, Note, Refusal, RestoreOptions, RestorePlan, SystemTools, TargetFacts, ToShrink,
    Unused,
};
use aiv_testkit::MemStorage;
use aiv_volume_io::partition::{Partition, SectorSize, TableKind, read_table};
use aiv_volume_io::{Extent, Job, MemDisk};

use crate::build::{noise, threads};
use crate::real::{Loop, MIB, Mount, RealDisk, check_table, run, view};
use crate::targets::device;

/// A disk whose last partition, from 4 MiB on, holds a filesystem with a file in it.
fn disk(name: &'static str, len: u64, mkfs: &[&str]) -> RealDisk {
    let parts = ["--new=1:1M:+2M", "--typecode=1:ef00", "--new=2:4M:0"];
    let mut disk = RealDisk::gpt(len, 512, &parts);
    disk.format(2, name, 4096, mkfs);
    disk
}

fn ext4(len: u64) -> RealDisk {
    let disk = disk("ext4", len, &["mkfs.ext4", "-q"]);
    disk.fill(2, &[("file", noise(3 * MIB))]);
    disk
}

fn shrink(
    image: &MemStorage,
    facts: &TargetFacts,
    options: &RestoreOptions,
    folder: &Path,
) -> Result<aiv_restore_engine::Shrunk, Error> {
    let view = view(image);
    let what = ToShrink::find(&view, facts, options).unwrap().expect("something to shrink");
    what.shrink(&view, facts, options, folder, &SystemTools::new(folder), Job::silent())
}

/// Restores to a device of `len` bytes.
fn restore(disk: &RealDisk, len: u64, options: RestoreOptions) -> (PathBuf, Vec<Partition>) {
    let (image, before) = (disk.image(), disk.bytes());
    let path = disk.folder().join("target.raw");
    fs::write(&path, noise(len)).unwrap();
    let target = Loop::whole(&path, 512);
    let facts = TargetFacts::gather(Path::new("/"), &target.0, Path::new("/proc")).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let shrunk = shrink(&image, &facts, &options, scratch.path()).unwrap();
    let view = view(&image);
    let plan = RestorePlan::with(&view, &facts, options, Some(&shrunk), Job::silent()).unwrap();
    let is_told = |note: &Note| matches!(note, Note::Shrunk { number: 2, .. });
    assert!(plan.notes().iter().any(is_told), "{:?}", plan.notes());
    let is_cut = |note: &Note| matches!(note, Note::TailCut { .. });
    assert!(!plan.notes().iter().any(is_cut), "nothing is left out: {:?}", plan.notes());
    let around = Around { shrunk: Some(&shrunk), ..Around::default() };
    let report = plan.apply_at(&view, &target.0, around, Job::silent()).unwrap();
    assert!(report.verified);
    drop((target, shrunk));
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0, "the copy is gone");
    assert!(disk.bytes() == before);
    let table = check_table(&path, 512);
    (path, table)
}

fn check_file(device: &Loop) {
    let mounted = Mount::new(device, "ro");
    assert!(fs::read(mounted.path().join("file")).unwrap() == noise(3 * MIB));
}

#[test]
fn ext4_is_made_smaller_for_a_smaller_disk() {
    for (delta, unused) in [(false, Unused::Leave), (true, Unused::Zero)] {
        let disk = ext4(96 * MIB);
        let options = RestoreOptions { delta, unused, ..threads(2) };
        let (path, table) = restore(&disk, 40 * MIB, options);
        assert_eq!(table[0], disk.partition(1));
        assert_eq!(table[1].extent, Extent::between(4 * MIB, 39 * MIB));
        let device = Loop::part(&path, 512, &table[1]);
        run("e2fsck", &["-fn", device.node()]);
        check_file(&device);
    }
}

#[test]
fn ntfs_is_made_smaller_for_a_smaller_disk() {
    let disk = disk("ntfs", 64 * MIB, &["mkfs.ntfs", "-Q", "-q", "-F"]);
    let part = Loop::part(&disk.path, 512, &disk.partition(2));
    let content = disk.folder().join("content");
    fs::write(&content, noise(3 * MIB)).unwrap();
    run("ntfscp", &[part.node(), content.to_str().unwrap(), "file"]);
    drop(part);
    let (path, table) = restore(&disk, 40 * MIB, threads(2));
    let device = Loop::part(&path, 512, &table[1]);
    run("ntfsresize", &["--info", "--force", device.node()]);
    run("ntfsfix", &["-n", device.node()]);
    let copied = disk.folder().join("copied");
    let script = format!("ntfscat --force {} file > {}", device.node(), copied.display());
    run("sh", &["-c", &script]);
    assert!(fs::read(copied).unwrap() == noise(3 * MIB));
}

#[test]
fn btrfs_is_made_smaller_for_a_smaller_disk() {
    // Btrfs has 256 MiB at least once it was resized.
    let disk = disk("btrfs", 400 * MIB, &["mkfs.btrfs", "-q", "-f"]);
    disk.fill(2, &[("file", noise(3 * MIB))]);
    let (path, table) = restore(&disk, 300 * MIB, threads(2));
    let device = Loop::part(&path, 512, &table[1]);
    run("btrfs", &["check", "--readonly", device.node()]);
    check_file(&device);
}

/// Why the disk cannot go onto `len` bytes.
fn refusal(disk: &RealDisk, len: u64) -> String {
    refusal_of(&disk.image(), len)
}

fn refusal_of(image: &MemStorage, len: u64) -> String {
    let scratch = tempfile::tempdir().unwrap();
    let error = shrink(image, &device(len), &threads(1), scratch.path()).unwrap_err();
    let Error::Refused(Refusal::CannotShrink { number: 2, .. }) = &error else { panic!("{error}") };
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0, "the copy is gone");
    error.to_string()
}

#[test]
fn what_cannot_be_made_smaller_is_refused_with_numbers() {
    let xfs = disk("xfs", 330 * MIB, &["mkfs.xfs", "-q", "-f"]);
    let text = refusal(&xfs, 200 * MIB);
    let wanted = "/dev/target is too small: partition 2 would have to shrink from";
    assert!(text.starts_with(wanted) && text.ends_with("XFS cannot be made smaller"), "{text}");
    let full = ext4(64 * MIB);
    full.fill(2, &[("more", noise(30 * MIB))]);
    let text = refusal(&full, 24 * MIB);
    assert!(text.contains("to 19922944 bytes with what it holds (ext4): resize2fs"), "{text}");
    let fat = disk("vfat", 64 * MIB, &["mkfs.fat"]);
    assert!(refusal(&fat, 32 * MIB).ends_with("no tool is known that makes it smaller"));
}

#[test]
fn a_filesystem_with_unreadable_places_is_not_made_smaller() {
    // Its tool would move them, and nobody could say where they are then.
    let text = refusal_of(&ext4(96 * MIB).image_losing(Some(50 * MIB)), 40 * MIB);
    assert!(text.ends_with("parts of it could not be read"), "{text}");
}

#[test]
fn only_a_single_last_partition_of_a_smaller_disk_is_looked_for() {
    let find = |image: &MemStorage, len: u64| {
        ToShrink::find(&view(image), &device(len), &threads(1)).unwrap()
    };
    let image = ext4(96 * MIB).image();
    let found = find(&image, 40 * MIB).expect("the last one");
    assert_eq!((found.number, found.filesystem.as_str()), (2, "ext4"));
    assert_eq!(found.after, Extent::between(4 * MIB, 39 * MIB));
    for len in [96 * MIB, 200 * MIB, 4 * MIB, MIB] {
        assert_eq!(find(&image, len), None, "{len}");
    }
    let two = RealDisk::gpt(32 * MIB, 512, &["--new=1:1M:+19M", "--new=2:22M:+2M"]).image();
    assert_eq!(find(&two, 16 * MIB), None, "nothing there can be made smaller");
    assert_eq!(find(&two, 24 * MIB).map(|what| what.number), Some(2));
    // Without it, the disk is refused as before.
    let plan = RestorePlan::new(&view(&image), &device(40 * MIB), threads(1), Job::silent());
    assert!(matches!(plan, Err(Error::Refused(Refusal::PartitionTooFar { number: 2, .. }))));
}

#[test]
fn one_point_is_made_smaller_for_two_targets_at_once() {
    let image = ext4(96 * MIB).image();
    let scratch = tempfile::tempdir().unwrap();
    let smaller = |len, seed| {
        let options = RestoreOptions { seed: [seed; 32], ..threads(2) };
        shrink(&image, &device(len), &options, scratch.path()).unwrap()
    };
    let both = [smaller(40 * MIB, 1), smaller(48 * MIB, 2)];
    assert_eq!(both.each_ref().map(|shrunk| shrunk.what().after.len / MIB), [35, 43]);
    drop(both);
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0, "the copies are gone");
}

#[test]
fn a_plan_with_a_smaller_partition_is_applied_with_that_one_only() {
    use crate::targets::TestTarget;
    let image = ext4(24 * MIB).image();
    let facts = device(16 * MIB);
    let scratch = tempfile::tempdir().unwrap();
    let options = RestoreOptions { unused: Unused::Zero, ..threads(1) };
    let shrunk = shrink(&image, &facts, &options, scratch.path()).unwrap();
    let view = view(&image);
    let plan = RestorePlan::with(&view, &facts, options, Some(&shrunk), Job::silent()).unwrap();
    // Without the copy the plan was made with, nothing is written.
    let target = TestTarget::holding(noise(16 * MIB));
    let error = plan.clone().apply(&view, &target, Job::silent()).unwrap_err();
    assert!(matches!(error, Error::Refused(Refusal::OtherCopy { .. })), "{error}");
    assert!(target.ops().is_empty());

    let path = scratch.path().join("target.raw");
    fs::write(&path, noise(16 * MIB)).unwrap();
    let around = Around { shrunk: Some(&shrunk), ..Around::default() };
    plan.apply_at(&view, &path, around, Job::silent()).expect("a file of that length is no less");
    let bytes = fs::read(&path).unwrap();
    let table = read_table(&MemDisk::from_bytes(bytes), SectorSize::B512).unwrap();
    assert_eq!((table.kind, table.problems.len()), (TableKind::Gpt, 0));
}

/// A disk whose large partition has others behind it, of filesystems that know where they lie.
fn with_others(table: &str) -> RealDisk {
    let parts = [
        "--new=1:1M:+2M",
        "--new=2:4M:+87M",
        "--new=3:92M:+8M",
        "--new=5:100M:+40M",
        "--new=6:140M:+12M",
        "--new=7:152M:+8M",
    ];
    let script = "label: dos\n1: start=4MiB, size=88MiB, type=83\n2: start=92MiB, size=8MiB, type=6\n\
                  3: start=100MiB, size=40MiB, type=b\n4: start=140MiB, size=12MiB, type=7\n";
    let mut disk = match table {
        "gpt" => RealDisk::gpt(164 * MIB, 512, &parts),
        _ => RealDisk::mbr(160 * MIB, 512, script),
    };
    let first = if table == "gpt" { 2 } else { 1 };
    let number = |n: u32| match table {
        "gpt" => [2, 3, 5, 6, 7][n as usize],
        _ => n + first,
    };
    disk.format(number(0), "ext4", 4096, &["mkfs.ext4", "-q"]);
    let hidden = |mib: u64| (mib * MIB / 512).to_string();
    disk.format(number(1), "vfat", 2048, &["mkfs.fat", "-F", "16", "-s", "1", "-h", &hidden(92)]);
    disk.format(number(2), "vfat", 512, &["mkfs.fat", "-F", "32", "-s", "1", "-h", &hidden(100)]);
    let start = hidden(140);
    disk.format(number(3), "ntfs", 4096, &["mkfs.ntfs", "-q", "-Q", "-F", "-p", &start]);
    disk.fill(number(0), &[("file", noise(3 * MIB))]);
    let content = disk.folder().join("content");
    fs::write(&content, noise(2 * MIB)).unwrap();
    for n in [1, 2] {
        let part = Loop::part(&disk.path, 512, &disk.partition(number(n)));
        run("mcopy", &["-i", part.node(), content.to_str().unwrap(), "::/file"]);
    }
    let part = Loop::part(&disk.path, 512, &disk.partition(number(3)));
    run("ntfscp", &[part.node(), content.to_str().unwrap(), "file"]);
    drop(part);
    if table == "gpt" {
        disk.format(7, "exfat", 4096, &["mkfs.exfat"]);
    }
    disk
}

/// What a boot sector has as the number of sectors in front of its partition.
fn hidden(path: &Path, at: u64) -> u64 {
    use std::os::unix::fs::FileExt;
    let mut field = [0; 4];
    fs::File::open(path).unwrap().read_exact_at(&mut field, at + 28).unwrap();
    u32::from_le_bytes(field).into()
}

#[test]
fn partitions_behind_the_one_that_is_made_smaller_move_and_know_it() {
    for (table, numbers) in [("gpt", &[2, 3, 5, 6, 7][..]), ("mbr", &[1, 2, 3, 4][..])] {
        let disk = with_others(table);
        let (image, len) = (disk.image(), 128 * MIB);
        let before = disk.partitions();
        let path = disk.folder().join("target.raw");
        fs::write(&path, noise(len)).unwrap();
        let target = Loop::whole(&path, 512);
        let facts = TargetFacts::gather(Path::new("/"), &target.0, Path::new("/proc")).unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let shrunk = shrink(&image, &facts, &threads(2), scratch.path()).unwrap();
        assert_eq!(shrunk.what().number, numbers[0]);
        let view = view(&image);
        let plan = RestorePlan::with(&view, &facts, threads(2), Some(&shrunk), Job::silent());
        let plan = plan.unwrap();
        let is_told = |note: &&Note| matches!(note, Note::Moved { .. });
        assert_eq!(plan.notes().iter().filter(is_told).count(), numbers.len() - 1);
        // Only the disk with a GPT has room between two of them.
        let cut = |note: &Note| match note {
            Note::GapsCut { bytes } => Some(*bytes),
            _ => None,
        };
        let gap = if table == "gpt" { Some(MIB) } else { None };
        assert_eq!(plan.notes().iter().find_map(cut), gap);
        let around = Around { shrunk: Some(&shrunk), ..Around::default() };
        assert!(plan.apply_at(&view, &target.0, around, Job::silent()).unwrap().verified);
        drop((target, shrunk));
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0, "the copies are gone");

        let after = check_table(&path, 512);
        assert_eq!(after.len(), before.len());
        let at = |all: &[Partition], number: u32| {
            all.iter().find(|p| p.number == number).unwrap().clone()
        };
        let delta = at(&before, numbers[1]).extent.start - at(&after, numbers[1]).extent.start;
        assert!(delta > 0 && delta.is_multiple_of(MIB), "{delta}");
        for &number in &numbers[1..] {
            let (was, is) = (at(&before, number), at(&after, number));
            assert_eq!(is.extent, Extent::new(was.extent.start - delta, was.extent.len));
            assert_eq!((is.kind, is.unique_id), (was.kind, was.unique_id));
        }
        let device = |number: u32| Loop::part(&path, 512, &at(&after, number));
        run("e2fsck", &["-fn", device(numbers[0]).node()]);
        check_file(&device(numbers[0]));
        for &number in &numbers[1..3] {
            let (part, start) = (device(number), at(&after, number).extent.start);
            run("fsck.fat", &["-n", part.node()]);
            assert_eq!(hidden(&path, start), start / 512);
            let copied = disk.folder().join(format!("copied{number}"));
            run("mcopy", &["-i", part.node(), "::/file", copied.to_str().unwrap()]);
            assert!(fs::read(copied).unwrap() == noise(2 * MIB));
        }
        // The second boot sector of FAT32 is in its sector 6, that of NTFS behind it.
        let fat32 = at(&after, numbers[2]).extent;
        assert_eq!(hidden(&path, fat32.start + 6 * 512), fat32.start / 512);
        let ntfs = at(&after, numbers[3]).extent;
        assert_eq!(hidden(&path, ntfs.start), ntfs.start / 512);
        assert_eq!(hidden(&path, ntfs.end() - 512), ntfs.start / 512);
        run("ntfsfix", &["-n", device(numbers[3]).node()]);
        if table == "gpt" {
            run("fsck.exfat", &["-n", device(7).node()]);
        }
    }
}

#[test]
fn a_place_that_was_not_true_stays_and_one_of_exfat_is_summed_anew() {
    use aiv_restore_engine::{Moved, mend_boot_sectors};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("volume");
    let moved = |before: u64| Moved {
        number: 1,
        before: Extent::new(before, 8 * MIB),
        after: Extent::new(3 * MIB, 8 * MIB),
    };
    let file = || fs::File::options().read(true).write(true).open(&path).unwrap();
    let made = |mkfs: &[&str]| {
        fs::File::create(&path).unwrap().set_len(8 * MIB).unwrap();
        run(mkfs[0], &[&mkfs[1..], &[path.to_str().unwrap()]].concat());
    };
    made(&["mkfs.fat", "-F", "16", "-s", "1", "-h", "77"]);
    let before = fs::read(&path).unwrap();
    assert!(!mend_boot_sectors(&file(), 0, &moved(5 * MIB)).unwrap());
    assert!(fs::read(&path).unwrap() == before);

    // mkfs knows no place of a file, which is zero.
    made(&["mkfs.exfat"]);
    assert!(mend_boot_sectors(&file(), 0, &moved(0)).unwrap());
    let bytes = fs::read(&path).unwrap();
    for region in [0, 12 * 512] {
        let field: [u8; 8] = bytes[region + 64..region + 72].try_into().unwrap();
        assert_eq!(u64::from_le_bytes(field), 3 * MIB / 512);
    }
    let verdict = run("fsck.exfat", &["-n", path.to_str().unwrap()]);
    assert!(verdict.contains("clean"), "{verdict}");
    made(&["mkfs.ext4", "-q"]);
    assert!(!mend_boot_sectors(&file(), 0, &moved(0)).unwrap());
}
