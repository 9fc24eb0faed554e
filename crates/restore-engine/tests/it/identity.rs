//! Disks that say they are the same one.

use std::path::Path;

use aiv_restore_engine::{
    Attached, DiskId, Error, Identity, Note, Refusal, RestoreOptions, RestorePlan, TableMode,
    TargetFacts,
};
use aiv_testkit::MemStorage;
use aiv_volume_io::Job;
use aiv_volume_io::partition::{SectorSize, read_table};

use crate::build::threads;
use crate::real::{Loop, MIB, RealDisk, SERIAL, check_table, partitions, restore, run, view};
use crate::targets::device;

fn options(identity: &str) -> RestoreOptions {
    RestoreOptions { identity: identity.parse().unwrap(), seed: [7; 32], ..threads(1) }
}

fn notes(image: &MemStorage, facts: &TargetFacts, identity: &str) -> Vec<Note> {
    let plan = RestorePlan::new(&view(image), facts, options(identity), Job::silent());
    plan.unwrap().notes().to_vec()
}

fn gpt() -> RealDisk {
    RealDisk::gpt(8 * MIB, 512, &["--new=1:1M:+2M", "--new=2:4M:+2M"])
}

fn disk_guid(disk: &RealDisk) -> String {
    let printed = run("sgdisk", &["--print", disk.path.to_str().unwrap()]);
    let line = printed.lines().find_map(|line| line.strip_prefix("Disk identifier (GUID): "));
    line.unwrap().to_lowercase()
}

#[test]
fn another_disk_with_the_same_identity_is_told_and_none_with_a_new_one() {
    let disk = gpt();
    let (image, guid) = (disk.image(), disk_guid(&disk));
    let id = DiskId::Gpt(guid.parse().unwrap());
    let attached = vec![
        Attached { node: "/dev/sdx".to_owned(), id },
        Attached { node: "/dev/sdy".to_owned(), id: DiskId::Mbr(7) },
    ];
    let same = Note::SameIdentity { other: "/dev/sdx".to_owned(), id: guid };
    for len in [8 * MIB, 12 * MIB] {
        let facts = TargetFacts { attached: attached.clone(), ..device(len) };
        assert!(notes(&image, &facts, "keep").contains(&same));
        let renewed = notes(&image, &facts, "new");
        assert!(!renewed.contains(&same) && !notes(&image, &device(len), "keep").contains(&same));
    }
}

#[test]
fn an_identity_that_must_be_unique_is_refused_when_another_disk_has_it() {
    let disk = gpt();
    let (image, guid) = (disk.image(), disk_guid(&disk));
    let other = Attached { node: "/dev/sdx".to_owned(), id: DiskId::Gpt(guid.parse().unwrap()) };
    let plan = |facts: &TargetFacts| {
        RestorePlan::new(&view(&image), facts, options("unique"), Job::silent())
    };
    for len in [8 * MIB, 12 * MIB] {
        let facts = TargetFacts { attached: vec![other.clone()], ..device(len) };
        match plan(&facts) {
            Err(Error::Refused(Refusal::SameIdentity { other, id, .. })) => {
                assert_eq!((other.as_str(), &id), ("/dev/sdx", &guid));
            }
            other => panic!("not refused: {other:?}"),
        }
        plan(&device(len)).expect("nobody else has it");
    }
}

#[test]
fn a_table_that_is_kept_with_its_damage_has_an_identity_as_well() {
    let disk = gpt();
    // The primary copy of the table; its backup still says who the disk is.
    disk.poke(512 + 60, b"x");
    let image = disk.image();
    let id = read_table(&view(&image), SectorSize::B512).unwrap().disk_id.unwrap();
    let other = Attached { node: "/dev/sdx".to_owned(), id };
    let same = Note::SameIdentity { other: "/dev/sdx".to_owned(), id: id.to_string() };
    for len in [8 * MIB, 12 * MIB] {
        let facts = TargetFacts { attached: vec![other.clone()], ..device(len) };
        assert!(notes(&image, &facts, "keep").contains(&same));
        match RestorePlan::new(&view(&image), &facts, options("unique"), Job::silent()) {
            Err(Error::Refused(Refusal::SameIdentity { .. })) => {}
            other => panic!("not refused: {other:?}"),
        }
        notes(&image, &device(len), "unique");
    }
}

#[test]
fn a_restore_over_the_disk_that_was_imaged_is_told() {
    let image = gpt().image();
    for (serial, is_source) in [(Some(SERIAL), true), (Some("S4EV-2"), false), (None, false)] {
        let facts = TargetFacts { serial: serial.map(str::to_owned), ..device(8 * MIB) };
        let notes = notes(&image, &facts, "keep");
        assert_eq!(notes.contains(&Note::SourceDisk), is_source, "{serial:?}");
    }
}

#[test]
fn attached_disks_are_found_and_the_target_is_not_its_own_double() {
    let (disk, other) = (gpt(), gpt());
    let id = DiskId::Gpt(disk_guid(&disk).parse().unwrap());
    let (source, target) = (Loop::whole(&disk.path, 512), Loop::whole(&other.path, 512));
    let facts = |at: &Loop| TargetFacts::gather(Path::new("/"), &at.0, Path::new("/proc")).unwrap();
    let double = Attached { node: source.node().to_owned(), id };
    assert!(facts(&target).attached.contains(&double));
    assert!(!facts(&source).attached.contains(&double), "over the disk itself");
}

#[test]
fn a_new_disk_guid_leaves_partition_guids_and_new_all_does_not() {
    let disk = gpt();
    let (image, before) = (disk.image(), disk_guid(&disk));
    for (word, all) in [("new", false), ("new-all", true)] {
        let target = RealDisk::blank(8 * MIB, 512);
        let (plan, _) = restore(&image, &target.path, options(word));
        let after = disk_guid(&target);
        assert_ne!(after, before);
        let note = Note::NewIdentity { before: before.clone(), after, partitions: all };
        assert!(plan.notes().contains(&note), "{:?}", plan.notes());
        for (old, new) in disk.partitions().iter().zip(check_table(&target.path, 512)) {
            assert_eq!(old.unique_id != new.unique_id, all);
            assert_eq!((old.extent, old.kind, &old.name), (new.extent, new.kind, &new.name));
        }
    }
}

#[test]
fn an_mbr_gets_a_new_signature() {
    let script = "label: dos\nlabel-id: 0x8cad3deb\n1: start=1MiB, size=4MiB, type=83\n";
    let disk = RealDisk::mbr(8 * MIB, 512, script);
    let target = RealDisk::blank(8 * MIB, 512);
    restore(&disk.image(), &target.path, options("new"));
    let dump = run("sfdisk", &["--dump", target.path.to_str().unwrap()]);
    assert!(dump.contains("label-id: 0x") && !dump.contains("0x8cad3deb"), "{dump}");
    assert_eq!(partitions(&target.path, 512), disk.partitions());
}

#[test]
fn a_new_identity_where_there_is_none_to_change_is_refused() {
    let image = gpt().image();
    let refuse = |options: RestoreOptions| match RestorePlan::new(
        &view(&image),
        &device(8 * MIB),
        options,
        Job::silent(),
    ) {
        Err(Error::Refused(Refusal::NoNewIdentity(_))) => {}
        other => panic!("not refused: {other:?}"),
    };
    refuse(RestoreOptions { partition: Some(1), ..options("new") });
    refuse(RestoreOptions { table: TableMode::Keep, ..options("new-all") });
    let bare = RealDisk::blank(4 * MIB, 512).image();
    match RestorePlan::new(&view(&bare), &device(4 * MIB), options("new"), Job::silent()) {
        Err(Error::Refused(Refusal::Table { .. })) => {
            assert_eq!(Identity::default(), Identity::Keep);
        }
        other => panic!("not refused: {other:?}"),
    }
}
