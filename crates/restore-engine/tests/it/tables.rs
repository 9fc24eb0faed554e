//! Whole disks on targets unlike the source disk.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use aiv_restore_engine::{
    Error, Note, Refusal, RestoreOptions, RestorePlan, TableMode, TargetFacts, Unfit, Unused,
};
use aiv_testkit::MemStorage;
use aiv_volume_io::partition::{SectorSize, TableKind, read_table};
use aiv_volume_io::{Extent, Job, MemDisk};

use crate::build::{noise, threads};
use crate::real::{Loop, MIB, RealDisk, check_table, restore, run, view};
use crate::targets::{Op, TestTarget, device};

/// An ext4 with a file in it, and an EFI system partition in front: 24 MiB.
fn linux_disk(sector: u32) -> RealDisk {
    let parts = ["--new=1:1M:+2M", "--typecode=1:ef00", "--new=2:4M:+16M", "--change-name=2:root"];
    let mut disk = RealDisk::gpt(24 * MIB, sector, &parts);
    disk.format(2, "ext4", 4096, &["mkfs.ext4", "-q", "-b", "4096"]);
    disk.fill(2, &[("greeting", b"hello".to_vec())]);
    disk
}

fn target(disk: &RealDisk, len: u64) -> PathBuf {
    let path = disk.folder().join("target.raw");
    fs::write(&path, noise(len)).unwrap();
    path
}

fn read_part(path: &Path, extent: Extent) -> Vec<u8> {
    let bytes = fs::read(path).unwrap();
    bytes[usize::try_from(extent.start).unwrap()..usize::try_from(extent.end()).unwrap()].to_vec()
}

fn refusal(image: &MemStorage, facts: &TargetFacts) -> Refusal {
    match RestorePlan::new(&view(image), facts, threads(1), Job::silent()) {
        Err(Error::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

fn fsck(path: &Path, sector: u32) {
    let partition = check_table(path, sector).into_iter().find(|p| p.number == 2).unwrap();
    let device = Loop::part(path, sector, &partition);
    run("e2fsck", &["-fn", device.node()]);
}

#[test]
fn a_gpt_disk_on_a_larger_one_has_its_backup_table_at_the_end() {
    for (sector, delta) in [(512, false), (512, true), (4096, false)] {
        let disk = linux_disk(sector);
        let path = target(&disk, 40 * MIB + 4096);
        let device = Loop::whole(&path, sector);
        let options = RestoreOptions { delta, ..threads(2) };
        let (plan, _) = restore(&disk.image(), &device.0, options);
        drop(device);
        fsck(&path, sector);
        assert_eq!(crate::real::partitions(&path, sector), disk.partitions());
        let table = plan.table().expect("a table");
        assert_eq!((table.kind, table.is_changed, table.rows.len()), (TableKind::Gpt, true, 2));
        assert_eq!(table.rows[1].filesystem, "ext4");
        assert!(plan.notes().contains(&Note::TableFitted), "{:?}", plan.notes());
        let old = read_part(&path, Extent::between(24 * MIB - 33 * 512, 24 * MIB));
        assert!(old.iter().all(|&byte| byte == 0), "a stale copy");
    }
}

#[test]
fn the_space_behind_a_smaller_disk_keeps_what_the_target_holds_there() {
    let disk = linux_disk(512);
    let path = target(&disk, 40 * MIB);
    let (plan, report) = restore(&disk.image(), &path, threads(2));
    let rest = Extent::between(24 * MIB, 40 * MIB - 33 * 512);
    assert!(plan.notes().contains(&Note::TargetLarger { rest }), "{:?}", plan.notes());
    let noise = noise(40 * MIB);
    let range = usize::try_from(rest.start).unwrap()..usize::try_from(rest.end()).unwrap();
    assert!(fs::read(&path).unwrap()[range.clone()] == noise[range]);
    let sum = report.bytes_written + report.bytes_zeroed + report.bytes_skipped();
    assert_eq!(sum, 24 * MIB + 33 * 512, "all of the source disk, and the moved table");
    assert_eq!(report.bytes_verified, sum);
}

#[test]
fn a_second_restore_as_a_delta_writes_nothing() {
    let disk = linux_disk(512);
    let image = disk.image();
    let path = target(&disk, 40 * MIB);
    restore(&image, &path, threads(2));
    let before = fs::read(&path).unwrap();
    let (_, report) = restore(&image, &path, RestoreOptions { delta: true, ..threads(2) });
    assert_eq!((report.bytes_written, report.bytes_zeroed), (0, 0));
    assert!(fs::read(&path).unwrap() == before);
}

#[test]
fn on_request_a_table_keeps_its_bytes_on_a_larger_disk() {
    let disk = linux_disk(512);
    let path = target(&disk, 40 * MIB);
    let options = RestoreOptions { table: TableMode::Keep, ..threads(2) };
    let (plan, _) = restore(&disk.image(), &path, options);
    assert!(plan.notes().contains(&Note::BackupHeaderNotAtEnd));
    let after = fs::read(&path).unwrap();
    let (front, rest) = after.split_at(usize::try_from(24 * MIB).unwrap());
    assert!(front == disk.bytes() && rest == &noise(40 * MIB)[front.len()..]);
}

#[test]
fn a_disk_of_the_same_length_comes_back_byte_for_byte() {
    for disk in [linux_disk(512), linux_disk(4096)] {
        let path = target(&disk, 24 * MIB);
        let device = Loop::whole(&path, disk.sector);
        let (plan, _) = restore(&disk.image(), &device.0, threads(2));
        drop(device);
        assert!(fs::read(&path).unwrap() == disk.bytes());
        assert!(plan.table().is_some_and(|table| !table.is_changed));
    }
}

#[test]
fn an_unallocated_tail_is_cut_off_for_a_smaller_disk() {
    for sector in [512, 4096] {
        let disk = linux_disk(sector);
        let path = target(&disk, 21 * MIB);
        let device = Loop::whole(&path, sector);
        let (plan, _) = restore(&disk.image(), &device.0, threads(2));
        drop(device);
        let rest = Extent::between(21 * MIB, 24 * MIB);
        assert!(plan.notes().contains(&Note::TailCut { rest }), "{:?}", plan.notes());
        fsck(&path, sector);
        assert_eq!(crate::real::partitions(&path, sector), disk.partitions());
    }
    let script = "label: dos\n1: start=1MiB, size=4MiB, type=83\n";
    let disk = RealDisk::mbr(8 * MIB, 512, script);
    let path = target(&disk, 5 * MIB);
    let device = Loop::whole(&path, 512);
    restore(&disk.image(), &device.0, threads(2));
    drop(device);
    assert!(fs::read(&path).unwrap() == disk.bytes()[..usize::try_from(5 * MIB).unwrap()]);
}

#[test]
fn a_partition_without_place_is_refused_with_what_is_needed() {
    let image = linux_disk(512).image();
    let len = 20 * MIB + 16 * 1024;
    let wanted = Refusal::PartitionTooFar {
        target: "/dev/target".to_owned(),
        number: 2,
        end: 20 * MIB,
        needed: 20 * MIB + 33 * 512,
        len,
    };
    assert_eq!(refusal(&image, &device(len)), wanted);
    let text = wanted.to_string();
    let end = "20988416 are needed because partition 2 ends at byte 20971520";
    assert!(text.ends_with(end), "{text}");
    let enough = device(20 * MIB + 33 * 512);
    RestorePlan::new(&view(&image), &enough, threads(1), Job::silent()).expect("just enough");
}

#[test]
fn a_disk_without_a_table_is_not_cut() {
    let disk = RealDisk::blank(4 * MIB, 512);
    run("mkfs.ext4", &["-q", "-F", disk.path.to_str().unwrap()]);
    let refused = refusal(&disk.image(), &device(4 * MIB - 512));
    assert!(matches!(refused, Refusal::TooSmall { needed, .. } if needed == 4 * MIB), "{refused}");
}

#[test]
fn a_damaged_table_is_kept_on_a_larger_disk_and_refused_on_a_smaller_one() {
    let disk = linux_disk(512);
    disk.poke(512 + 60, b"x");
    let image = disk.image();
    let plan = RestorePlan::new(&view(&image), &device(40 * MIB), threads(1), Job::silent());
    let notes = plan.unwrap().notes().to_vec();
    assert!(notes.contains(&Note::BackupHeaderNotAtEnd));
    assert!(notes.iter().any(|n| matches!(n, Note::TableKept(Unfit::Damaged(_)))), "{notes:?}");
    assert!(matches!(refusal(&image, &device(22 * MIB)), Refusal::TooSmall { .. }));
}

#[test]
fn the_table_of_the_target_from_before_does_not_survive_at_its_end() {
    let script = "label: dos\n1: start=1MiB, size=4MiB, type=83\n";
    let disk = RealDisk::mbr(8 * MIB, 512, script);
    let old = RealDisk::gpt(16 * MIB, 512, &["--new=1:1M:+8M"]);
    let (plan, _) = restore(&disk.image(), &old.path, threads(2));
    let header = Extent::new(16 * MIB - 512, 512);
    assert!(plan.notes().contains(&Note::OldBackupCleared { extent: header }));
    assert!(read_part(&old.path, header).iter().all(|&byte| byte == 0));
    assert_eq!(check_table(&old.path, 512), disk.partitions());
    let verdict = run("sgdisk", &["--print-mbr", old.path.to_str().unwrap()]);
    assert!(!verdict.contains("backup"), "{verdict}");
}

/// Whatever stopped a restore, the target does not look like a disk once anything of the new
/// one was written between its `ends`.
fn check_interrupted(before: &[u8], done: &[u8], after: &[u8], ends: [usize; 2]) {
    let [from, to] = ends;
    let is_half = after[from..to] != before[from..to] && after[from..to] != done[from..to];
    let header = |at: usize| &after[at..at + 8] == b"EFI PART";
    let looks_like_a_disk = header(512) || header(after.len() - 512) || after[510] == 0x55;
    assert!(!(is_half && looks_like_a_disk), "half a disk with a table");
    if is_half {
        let disk = MemDisk::from_bytes(after.to_vec());
        let table = read_table(&disk, SectorSize::B512).unwrap();
        assert_eq!((table.kind, table.problems.len()), (TableKind::None, 0));
    }
}

#[test]
fn an_interrupted_restore_leaves_no_table_at_either_end_of_the_target() {
    let disk = RealDisk::gpt(4 * MIB, 512, &["--new=1:1M:+1M", "--new=2:2M:+1M"]);
    disk.poke(MIB, &noise(3 * MIB / 2));
    let image = disk.image();
    for len in [4 * MIB, 5 * MIB, 7 * MIB / 2] {
        let old = RealDisk::gpt(len, 512, &["--new=1:2M:+1M"]);
        old.poke(2 * MIB, &noise(MIB / 2));
        for delta in [false, true] {
            let before = old.bytes();
            let old_backup = Some(Extent::new(len - 512, 512));
            let facts = TargetFacts { old_backup, ..device(len) };
            let options = RestoreOptions { delta, unused: Unused::Zero, ..threads(1) };
            let view = view(&image);
            let plan = RestorePlan::new(&view, &facts, options, Job::silent()).unwrap();
            let whole = TestTarget::holding(before.clone());
            plan.clone().apply(&view, &whole, Job::silent()).unwrap();
            let (done, ops) = (whole.bytes(), whole.ops());
            let ends = [MIB, len - 33 * 512].map(|at| usize::try_from(at).unwrap());
            for from in 0..ops.len() {
                let mut target = TestTarget::holding(before.clone());
                target.fail_from = Some(from);
                plan.clone().apply(&view, &target, Job::silent()).expect_err("it fails");
                check_interrupted(&before, &done, &target.bytes(), ends);
            }
            assert!(ops.len() > 8, "{ops:?}");
        }
    }
}

#[test]
fn the_backup_table_is_cleared_with_the_head_and_written_just_before_it() {
    let disk = RealDisk::gpt(6 * MIB, 512, &["--new=1:1M:+2M"]);
    disk.poke(2 * MIB, &noise(MIB));
    let image = disk.image();
    let view = view(&image);
    let plan = RestorePlan::new(&view, &device(9 * MIB), threads(1), Job::silent()).unwrap();
    let target = TestTarget::holding(noise(9 * MIB));
    plan.apply(&view, &target, Job::silent()).unwrap();
    let ops = target.ops();
    let at_end = |op: &Op| op.extent().is_some_and(|e| e.end() > 9 * MIB - 33 * 512);
    let in_head = |op: &Op| op.extent().is_some_and(|e| e.start < MIB);
    let syncs: Vec<usize> = (0..ops.len()).filter(|at| ops[*at] == Op::Sync).collect();
    let [cleared, body, end, head] = syncs[..] else { panic!("{ops:?}") };
    let between = |from: usize, to: usize| &ops[from..to];
    assert!(between(0, cleared).iter().all(|op| matches!(op, Op::Zero(_))), "{ops:?}");
    assert!(between(0, cleared).iter().any(at_end) && between(0, cleared).iter().any(in_head));
    assert!(!between(cleared, body).iter().any(|op| at_end(op) || in_head(op)), "{ops:?}");
    assert!(between(body + 1, end).iter().all(at_end) && end > body + 1, "{ops:?}");
    assert!(between(end + 1, head).iter().all(in_head) && head + 1 == ops.len(), "{ops:?}");
}

#[test]
fn a_target_that_forgets_the_moved_table_is_found_out() {
    let image = RealDisk::gpt(6 * MIB, 512, &["--new=1:1M:+2M"]).image();
    let view = view(&image);
    let places = [9 * MIB - 512, 9 * MIB - 33 * 512, 512 + 32, 0, 6 * MIB - 512];
    for at in places {
        let plan = RestorePlan::new(&view, &device(9 * MIB), threads(2), Job::silent()).unwrap();
        let mut target = TestTarget::holding(noise(9 * MIB));
        target.forgets = Some(Extent::new(at, 1));
        let error = plan.apply(&view, &target, Job::silent()).expect_err("not written");
        assert!(matches!(error, Error::Mismatch { .. }), "byte {at}: {error}");
    }
}

#[test]
fn a_table_made_for_one_length_is_not_put_onto_another() {
    let image = RealDisk::gpt(6 * MIB, 512, &["--new=1:1M:+2M"]).image();
    let view = view(&image);
    let plan = RestorePlan::new(&view, &device(9 * MIB), threads(1), Job::silent()).unwrap();
    let target = TestTarget::holding(noise(10 * MIB));
    let error = plan.apply(&view, &target, Job::silent()).expect_err("another length");
    assert!(matches!(error, Error::Refused(Refusal::OtherLength { .. })), "{error}");
    assert!(target.ops().is_empty());
}

#[test]
fn a_larger_file_gets_the_table_for_its_own_length() {
    let disk = linux_disk(512);
    let path = disk.folder().join("new.raw");
    File::create(&path).unwrap().set_len(1 << 30).unwrap();
    restore(&disk.image(), &path, threads(2));
    fsck(&path, 512);
    assert_eq!(fs::metadata(&path).unwrap().len(), 1 << 30);
}

#[test]
fn a_dry_run_names_the_table_and_what_happens_at_the_end() {
    let image = linux_disk(512).image();
    let plan = RestorePlan::new(&view(&image), &device(40 * MIB), threads(1), Job::silent());
    let steps: Vec<String> = plan.unwrap().steps().iter().map(ToString::to_string).collect();
    let (from, to) = (40 * MIB - 33 * 512, 40 * MIB);
    assert_eq!(steps[1], format!("clear bytes {from} to {to} at the end as well"));
    // Sector 0, two copies of 33 sectors, and zeros over the old backup copy.
    let table = 512 + 3 * 33 * 512;
    assert_eq!(steps[3], format!("write {table} bytes of a partition table made for the target"));
    let end = format!("write bytes {from} to {to} after the rest, and check them");
    assert_eq!(steps[steps.len() - 2], end);
}
