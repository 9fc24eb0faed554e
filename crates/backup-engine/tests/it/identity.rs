//! Who a source is, what its images are called, and when a source is left alone.

use aiv_backup_engine::{
    BackupOptions, BackupPlan, Basis, Error, PlanNote, Refusal, SourceFacts, set_id,
};
use aiv_chain::{Folder, View};
use aiv_image_format::meta::Consistency;
use aiv_testkit::MemStorage;
use aiv_testkit::disks::{Content, DiskLayout, Part, Table};
use aiv_volume_io::{Job, ReadAt};

use crate::common::{apply, backup, disk, facts, numbered_blocks, options, try_backup};
use crate::tools::small_ext4;

fn source_id(source: &dyn ReadAt, facts: SourceFacts) -> String {
    BackupPlan::new(source, facts, options(), Job::silent()).unwrap().source_id
}

#[test]
fn a_disk_is_known_by_the_strongest_identity_it_has() {
    let part = Part::new(20_000, Content::Zeros);
    let gpt = DiskLayout::new(Table::Gpt).part(part.clone()).build();
    let mbr = DiskLayout::new(Table::Mbr).part(part.clone()).build();
    let blank = disk(&numbered_blocks(2));
    let volume = disk(&small_ext4());
    let unknown = facts("sda");
    let wwn = SourceFacts { wwn: "0x5000".to_owned(), ..unknown.clone() };
    let serial = SourceFacts { serial: "S-1".to_owned(), ..wwn.clone() };

    let guid = source_id(&gpt.to_disk(), serial.clone());
    let text = guid.strip_prefix("gpt:").expect("a GPT disk is known by its GUID");
    let bytes = text.replace('-', "");
    let last: String = gpt.disk_guid[8..].iter().map(|b| format!("{b:02x}")).collect();
    assert!(bytes.to_lowercase().ends_with(&last), "{text}");

    let expected = format!("mbr:{:08x}-{}", mbr.mbr_signature, mbr.len());
    assert_eq!(source_id(&mbr.to_disk(), serial.clone()), expected);
    let uuid = source_id(&volume, serial.clone());
    let parts = uuid.strip_prefix("fs:").map(|u| u.split('-').count());
    assert_eq!(parts, Some(5), "{uuid}");
    assert_eq!(source_id(&blank, serial.clone()), "serial:S-1");
    assert_eq!(source_id(&blank, wwn), "wwn:0x5000");
    assert_eq!(source_id(&blank, unknown), "path:host:/dev/sda");
    let chosen = SourceFacts { source_id: Some("mine".to_owned()), ..serial };
    assert_eq!(source_id(&gpt.to_disk(), chosen), "user:mine");
}

#[test]
fn an_mbr_without_a_signature_is_no_identity() {
    let mut made = DiskLayout::new(Table::Mbr).part(Part::new(20_000, Content::Zeros)).build();
    made.bytes[440..444].fill(0);
    assert_eq!(source_id(&made.to_disk(), facts("sda")), "path:host:/dev/sda");
}

#[test]
fn a_renamed_disk_continues_its_set_and_counts_on() {
    let made_up = DiskLayout::new(Table::Gpt).part(Part::new(20_000, Content::Text(1))).build();
    let storage = MemStorage::new();
    let source = made_up.to_disk();
    for (n, name) in (1..).zip(["sda", "sdb", "renamed disk"]) {
        let plan = BackupPlan::new(&source, facts(name), options(), Job::silent()).unwrap();
        apply(&plan, &source, &storage, n).unwrap();
    }
    let names = storage.names();
    let expected = [
        "host@renamed_disk_20260921T141620Z_b00001_i00002-dddd.aii",
        "host@sda_20260921T141420Z_b00001-bbbb.aiv",
        "host@sdb_20260921T141520Z_b00001_i00001-cccc.aii",
    ];
    assert_eq!(names, expected);
    let folder = Folder::scan(&storage, Job::silent()).unwrap();
    let [set] = folder.sets.as_slice() else { panic!("one set: {folder:?}") };
    assert_eq!((set.name.as_str(), set.points.len()), ("renamed disk", 3));
    let numbers = set.points.iter().map(|p| (p.full_number, p.increment_number));
    assert_eq!(numbers.collect::<Vec<_>>(), [(1, 0), (1, 1), (1, 2)]);
    assert_eq!(set.id, set_id(&set.source_id));
}

#[test]
fn two_disks_in_one_folder_are_two_sets_even_under_one_name() {
    let disks = [1, 2].map(|seed| {
        let part = Part::new(20_000, Content::Text(seed));
        DiskLayout::new(Table::Gpt).part(part).seed(seed).build()
    });
    let storage = MemStorage::new();
    for (n, made_up) in [(1, 0), (2, 1), (3, 0), (4, 1)] {
        let full = BackupOptions { basis: Basis::Nothing, ..options() };
        let report = try_backup(&disks[made_up].to_disk(), &storage, full, n).unwrap();
        let number = if n <= 2 { "_b00001-" } else { "_b00002-" };
        assert!(report.image.contains(number), "{}", report.image);
    }
    let folder = Folder::scan(&storage, Job::silent()).unwrap();
    assert_eq!(folder.sets.iter().map(|s| s.points.len()).collect::<Vec<_>>(), [2, 2]);
    for set in &folder.sets {
        let view = View::open(&storage, &set.points[1].file, Job::silent()).unwrap();
        let bytes = crate::common::read_all(&view);
        assert!(disks.iter().any(|d| d.bytes == bytes && set.source_id.starts_with("gpt:")));
    }
}

#[test]
fn an_image_is_numbered_by_headers_and_not_by_names() {
    let storage = MemStorage::new();
    let source = disk(&numbered_blocks(2));
    let first = try_backup(&source, &storage, options(), 1).unwrap();
    let bytes = storage.contents(&first.image).unwrap();
    let renamed: MemStorage = [("old/anything".to_owned(), bytes)].into_iter().collect();
    let second = try_backup(&source, &renamed, options(), 2).unwrap();
    assert!(second.image.contains("_b00001_i00001-"), "{}", second.image);
    let full = BackupOptions { basis: Basis::Nothing, ..options() };
    let third = try_backup(&source, &renamed, full, 3).unwrap();
    assert!(third.image.contains("_b00002-"), "{}", third.image);
}

#[test]
fn a_name_that_is_taken_is_never_replaced() {
    // Two disks of one name at the same time with the same random suffix.
    let storage = MemStorage::new();
    let first = disk(&numbered_blocks(2));
    let report = try_backup(&first, &storage, options(), 1).unwrap();
    let before = storage.contents(&report.image).unwrap();
    let other = SourceFacts { source_id: Some("other".to_owned()), ..facts("disk") };
    let plan = BackupPlan::new(&first, other, options(), Job::silent()).unwrap();
    let error = apply(&plan, &first, &storage, 1).unwrap_err();
    let Error::Destination { source, .. } = &error else { panic!("{error:?}") };
    assert_eq!(source.kind(), std::io::ErrorKind::AlreadyExists);
    assert_eq!(storage.names(), std::slice::from_ref(&report.image));
    assert_eq!(storage.contents(&report.image).unwrap(), before);
}

#[test]
fn the_temporary_file_of_another_backup_is_not_removed_when_its_name_is_taken() {
    let storage = MemStorage::new();
    let source = disk(&numbered_blocks(2));
    let report = try_backup(&source, &MemStorage::new(), options(), 1).unwrap();
    let set = set_id(&crate::common::plan(&source, options()).source_id);
    let part = format!("{}.{set}.part", report.image);
    // Begun for another source: whoever writes it holds another lease.
    let other = SourceFacts { source_id: Some("other".to_owned()), ..facts("other") };
    let made = crate::common::backup_as(other, &source, options());
    let bytes = made.storage.contents(&made.report.image).unwrap();
    storage.insert(&part, bytes[..8192].to_vec());
    let error = try_backup(&source, &storage, options(), 1).unwrap_err();
    assert!(matches!(error, Error::Destination { .. }), "{error:?}");
    assert_eq!(storage.names(), [part]);
}

#[test]
fn a_source_in_use_is_refused_unless_asked_for_and_then_marked() {
    let source = disk(&numbered_blocks(2));
    let uses = vec!["mounted read-write at /".to_owned(), "swap".to_owned()];
    let facts = SourceFacts { writers: uses, ..facts("sda") };
    let refused = BackupPlan::new(&source, facts.clone(), options(), Job::silent()).unwrap_err();
    let Error::Refused(Refusal::InUse { uses }) = &refused else { panic!("{refused:?}") };
    assert_eq!(uses, "mounted read-write at /, swap");
    assert!(refused.to_string().contains("mounted read-write at /"));

    let live = BackupOptions { live: true, ..options() };
    let plan = BackupPlan::new(&source, facts, live, Job::silent()).unwrap();
    assert_eq!(plan.consistency, Consistency::Inconsistent);
    let storage = MemStorage::new();
    let report = apply(&plan, &source, &storage, 1).unwrap();
    assert_eq!(report.notes, [PlanNote::Live(uses.clone())]);
    let view = View::open(&storage, &report.image, Job::silent()).unwrap();
    assert_eq!(view.image().meta().manifest.consistency, Consistency::Inconsistent);
    let quiet = backup(&source, BackupOptions { live: true, ..options() });
    assert_eq!(quiet.view.image().meta().manifest.consistency, Consistency::Offline);
}

#[test]
fn the_image_says_what_it_is_of() {
    let part = Part::new(20_000, Content::Text(1));
    let made_up = DiskLayout::new(Table::Gpt).sector_size(4096).part(part).build();
    let facts = SourceFacts {
        model: "Model".to_owned(),
        serial: "S-1".to_owned(),
        logical_sector: 4096,
        physical_sector: 4096,
        ..facts("sda")
    };
    let options = BackupOptions { comment: "before the update".to_owned(), ..options() };
    let source = made_up.to_disk();
    let plan = BackupPlan::new(&source, facts, options, Job::silent()).unwrap();
    let storage = MemStorage::new();
    let report = apply(&plan, &source, &storage, 3).unwrap();
    let view = View::open(&storage, &report.image, Job::silent()).unwrap();
    let (meta, superblock) = (view.image().meta(), view.image().superblock());
    assert_eq!(meta.manifest.source, "/dev/sda");
    assert_eq!(meta.manifest.comment, "before the update");
    assert_eq!(meta.manifest.time_unix_ms, superblock.created_unix_ms);
    assert_eq!((meta.disk.model.as_str(), meta.disk.serial.as_str()), ("Model", "S-1"));
    assert_eq!((meta.disk.logical_sector, view.geometry().sector_size()), (4096, 4096));
    assert!(meta.specification.contains("Aivory image format"));
    assert_eq!(superblock.set, set_id(&plan.source_id));
    assert_eq!(superblock.point, report.recovery_point);
}

#[test]
fn another_disk_under_an_old_name_begins_a_set_and_says_so() {
    let storage = MemStorage::new();
    let made = [1, 2].map(|seed| {
        let part = Part::new(20_000, Content::Text(seed));
        DiskLayout::new(Table::Gpt).part(part).seed(seed).build()
    });
    let first = try_backup(&made[0].to_disk(), &storage, options(), 1).unwrap();
    assert_eq!(first.notes, []);
    let second = try_backup(&made[1].to_disk(), &storage, options(), 2).unwrap();
    let [PlanNote::NewIdentity { before }] = second.notes.as_slice() else {
        panic!("{:?}", second.notes)
    };
    assert!(before.starts_with("gpt:"), "{before}");
    let third = try_backup(&made[1].to_disk(), &storage, options(), 3).unwrap();
    assert_eq!((third.parent, third.notes), (Some(second.recovery_point), vec![]));
}
