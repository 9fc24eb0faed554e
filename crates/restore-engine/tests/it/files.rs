//! Real files.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use aiv_chain::View;
use aiv_chain::meta::{DiskInfo, Meta};
use aiv_image_format::{BlockSize, Geometry, ImageWriter, RunKind};
use aiv_restore_engine::{Error, Refusal, RestoreOptions, RestorePlan, TargetFacts, Unused};
use aiv_testkit::MemStorage;
use aiv_volume_io::{FileDisk, Job, Storage};

use crate::build::{Built, Disk, FILE, noise, superblock, threads};

fn gather(target: &Path, image: &Path) -> TargetFacts {
    TargetFacts::gather(Path::new("/"), target, image).expect("examined")
}

fn refusal(built: &Built, facts: &TargetFacts) -> Refusal {
    match RestorePlan::new(&built.view(), facts, threads(1), Job::silent()) {
        Err(Error::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

/// A folder with the image in it.
fn folder(built: &Built) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(FILE), &*built.storage.contents(FILE).unwrap()).unwrap();
    folder
}

#[test]
fn a_new_file_is_sparse_where_the_disk_is_zero_or_free() {
    let built = Disk::sample().build();
    let folder = folder(&built);
    let path = folder.path().join("new.raw");
    let facts = gather(&path, folder.path());
    assert!(!facts.exists);
    let view = built.view();
    let plan = RestorePlan::new(&view, &facts, threads(2), Job::silent()).unwrap();
    let target = FileDisk::create_target(&path, plan.target_len_needed()).unwrap();
    plan.apply(&view, &target, Job::silent()).unwrap();
    assert!(std::fs::read(&path).unwrap() == built.bytes);
    // 7 of 35 blocks are zero or free.
    let allocated = std::fs::metadata(&path).unwrap().blocks() * 512;
    assert!(allocated <= built.len() - 7 * (64 << 10) + (64 << 10), "{allocated} bytes");
}

#[test]
fn an_existing_file_is_extended_and_its_old_bytes_are_gone() {
    let built = Disk::sample().build();
    let folder = folder(&built);
    for (old, delta) in [(100_000, false), (2_000_000, true), (3_000_000, false)] {
        let path = folder.path().join("old.raw");
        std::fs::write(&path, noise(old)).unwrap();
        let facts = gather(&path, folder.path());
        assert_eq!((facts.exists, facts.len), (true, old));
        let view = built.view();
        let options = RestoreOptions { delta, unused: Unused::Zero, ..threads(2) };
        let plan = RestorePlan::new(&view, &facts, options, Job::silent()).unwrap();
        let target = FileDisk::open_target(&path, true).unwrap();
        if plan.extends_target() {
            target.set_len(plan.target_len_needed()).unwrap();
        }
        plan.apply(&view, &target, Job::silent()).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert!(bytes[..built.bytes.len()] == built.bytes, "{old}");
        assert_eq!(bytes.len() as u64, old.max(built.len()), "nothing is cut off");
    }
}

#[test]
fn the_image_itself_and_other_images_are_no_targets() {
    let built = Disk::sample().build();
    let folder = folder(&built);
    let image = folder.path().join(FILE);
    let link = folder.path().join("link.raw");
    std::os::unix::fs::symlink(&image, &link).unwrap();
    for target in [&image, &link] {
        let refused = refusal(&built, &gather(target, &image));
        assert!(matches!(refused, Refusal::HoldsImage { .. }), "{refused}");
    }
    let other = folder.path().join("other.raw");
    let mut bytes = built.storage.contents(FILE).unwrap().to_vec();
    bytes.truncate(100_000);
    std::fs::write(&other, bytes).unwrap();
    let refused = refusal(&built, &gather(&other, &image));
    assert!(matches!(refused, Refusal::IsImage { .. }), "{refused}");
}

#[test]
fn a_folder_is_no_target() {
    let built = Disk::sample().build();
    let folder = folder(&built);
    let error = TargetFacts::gather(Path::new("/"), folder.path(), folder.path());
    assert!(matches!(error, Err(Error::Target(_))));
}

#[test]
fn a_sparse_disk_of_four_tebibytes_takes_seconds() {
    const LEN: u64 = 4 << 40;
    let size = BlockSize::new(64 << 10).unwrap();
    let geometry = Geometry::new(LEN, size, 512).unwrap();
    let storage = MemStorage::new();
    let mut writer =
        ImageWriter::create(storage.create(FILE).unwrap(), superblock(geometry, 1)).unwrap();
    writer.push_run(RunKind::Zero, geometry.blocks() / 2).unwrap();
    writer.push_run(RunKind::Unused, geometry.blocks() / 2).unwrap();
    let disk = DiskInfo::bare(LEN, 512);
    writer.finish(Meta { disk, ..Meta::default() }).unwrap();
    let view = View::open(&storage, FILE, Job::silent()).unwrap();

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vast.raw");
    let facts = gather(&path, folder.path());
    let options = RestoreOptions { unused: Unused::Zero, ..threads(2) };
    let plan = RestorePlan::new(&view, &facts, options, Job::silent()).unwrap();
    let target = Arc::new(FileDisk::create_target(&path, LEN).unwrap());
    let report = plan.apply(&view, &*target, Job::silent()).unwrap();
    assert_eq!((report.bytes_written, report.bytes_verified), (0, LEN));
    assert_eq!(std::fs::metadata(&path).unwrap().blocks(), 0);
}
