//! Disks with an MBR on targets that an MBR cannot describe.

use std::fs::{self, File};

use aiv_restore_engine::{
    Error, Grow, Note, Refusal, RestoreOptions, RestorePlan, TableMode, Unfit,
};
use aiv_volume_io::{Extent, Job};

use crate::build::{noise, threads};
use crate::real::{Loop, MIB, Mount, RealDisk, check_table, restore, run, view};
use crate::targets::device;

const SCRIPT: &str = "label: dos\n1: start=1MiB, size=8MiB, type=83, bootable\n\
    2: start=9MiB, size=7MiB, type=5\n5: start=10MiB, size=6MiB, type=83\n";

fn to_gpt(grow: &str) -> RestoreOptions {
    let grow: Grow = grow.parse().unwrap();
    RestoreOptions { table: TableMode::Gpt, grow, seed: [3; 32], ..threads(2) }
}

#[test]
fn an_mbr_disk_becomes_a_gpt_disk_of_three_tebibytes_with_its_files() {
    let mut disk = RealDisk::mbr(16 * MIB, 512, SCRIPT);
    for number in [1, 5] {
        disk.format(number, "ext4", 1024, &["mkfs.ext4", "-q", "-b", "1024"]);
        disk.fill(number, &[("file", noise(300_000))]);
    }
    let target = disk.folder().join("target.raw");
    File::create(&target).unwrap().set_len(3 << 40).unwrap();
    let (plan, _) = restore(&disk.image(), &target, to_gpt("last"));
    assert_eq!(plan.notes()[..2], [Note::TableFitted, Note::MadeGpt]);
    let after = check_table(&target, 512);
    assert_eq!(after.iter().map(|p| p.number).collect::<Vec<_>>(), [1, 5]);
    assert_eq!(after[0].extent, Extent::new(MIB, 8 * MIB));
    assert_eq!(after[1].extent, Extent::between(10 * MIB, (3 << 40) - MIB));
    assert!(after[0].unique_id != after[1].unique_id && after[0].unique_id.is_some());
    for partition in &after {
        let device = Loop::part(&target, 512, partition);
        run("e2fsck", &["-fn", device.node()]);
        let mounted = Mount::new(&device, "ro");
        assert_eq!(fs::read(mounted.path().join("file")).unwrap(), noise(300_000));
    }
}

#[test]
fn a_target_like_the_source_becomes_a_gpt_disk_only_when_there_is_room_for_its_end() {
    let full = RealDisk::mbr(16 * MIB, 512, SCRIPT).image();
    let plan =
        |image, len| RestorePlan::new(&view(image), &device(len), to_gpt("none"), Job::silent());
    match plan(&full, 16 * MIB) {
        Err(Error::Refused(Refusal::Table { unfit: Unfit::PastEnd { number: 5, .. }, .. })) => {}
        other => panic!("{other:?}"),
    }
    plan(&full, 17 * MIB).unwrap();
    let script = "label: dos\n1: start=1MiB, size=8MiB, type=83\n";
    let disk = RealDisk::mbr(16 * MIB, 512, script);
    let target = RealDisk::blank(16 * MIB, 512);
    restore(&disk.image(), &target.path, to_gpt("none"));
    assert_eq!(check_table(&target.path, 512)[0].extent, Extent::new(MIB, 8 * MIB));
    // A GPT stays one, and a disk without a table gets none.
    let gpt = RealDisk::gpt(8 * MIB, 512, &["--new=1:1M:+2M"]).image();
    assert!(!plan(&gpt, 8 * MIB).unwrap().notes().contains(&Note::MadeGpt));
    let bare = RealDisk::blank(4 * MIB, 512).image();
    match plan(&bare, 4 * MIB) {
        Err(Error::Refused(Refusal::Table { unfit: Unfit::NoTable, .. })) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_an_mbr_cannot_use_of_a_target_is_told() {
    let image = RealDisk::mbr(16 * MIB, 512, SCRIPT).image();
    let notes = |len: u64, table| {
        let options = RestoreOptions { table, ..threads(1) };
        let plan = RestorePlan::new(&view(&image), &device(len), options, Job::silent());
        plan.unwrap().notes().to_vec()
    };
    let note = Note::BehindMbr { rest: Extent::between(2 << 40, 3 << 40) };
    for table in [TableMode::Fit, TableMode::Keep] {
        assert!(notes(3 << 40, table).contains(&note));
        assert!(!notes(2 << 40, table).iter().any(|n| matches!(n, Note::BehindMbr { .. })));
    }
    assert!(!notes(3 << 40, TableMode::Gpt).contains(&note));
}
