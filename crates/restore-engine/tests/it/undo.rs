//! Undo logs: what they keep, where they go back, and what they refuse.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use aiv_restore_engine::{
    Around, Error, Failed, Left, Refusal, RestorePlan, RestoreReport, TargetFacts, UndoLog,
};
use aiv_testkit::MemStorage;
use aiv_volume_io::{Extent, FileKind, Job};

use crate::build::{noise, threads};
use crate::real::{Loop, MIB, RealDisk, check_table, run, view};

fn gather(target: &Path) -> TargetFacts {
    TargetFacts::gather(Path::new("/"), target, Path::new("/proc")).unwrap()
}

fn restore(image: &MemStorage, target: &Path, undo: &Path) -> Result<RestoreReport, Failed> {
    let view = view(image);
    let plan = RestorePlan::new(&view, &gather(target), threads(1), Job::silent()).unwrap();
    let around = Around { undo: Some((undo, 1_795_769_574_123)), ..Around::default() };
    plan.apply_at(&view, target, around, Job::silent())
}

fn image() -> MemStorage {
    RealDisk::gpt(6 * MIB, 512, &["--new=1:1M:+2M"]).image()
}

/// A disk in use, with logical partitions whose records lie in its middle, and an undo log.
fn overwritten() -> (RealDisk, Vec<u8>, PathBuf) {
    let script = "label: dos\nlabel-id: 0x8cad3deb\n1: start=1MiB, size=1MiB, type=83\n\
        2: start=3MiB, size=8MiB, type=f\n5: start=4MiB, size=2MiB, type=83\n\
        6: start=7MiB, size=2MiB, type=83\n";
    let old = RealDisk::mbr(12 * MIB, 512, script);
    old.poke(12 * MIB - 5000, &noise(5000));
    let before = old.bytes();
    let undo = old.folder().join("undo");
    restore(&image(), &old.path, &undo).unwrap();
    (old, before, undo)
}

fn put_back(undo: &Path, target: &Path) -> Result<u64, Error> {
    let undo = UndoLog::open(undo)?.expect("an undo log");
    undo.check_target(&gather(target), target)?;
    undo.put_back_at(target)
}

#[test]
fn the_table_and_both_ends_come_back() {
    let (old, before, undo) = overwritten();
    let after = old.bytes();
    assert_eq!(check_table(&old.path, 512).len(), 1, "the new disk");
    let log = UndoLog::open(&undo).unwrap().expect("an undo log");
    assert_eq!(log.saved_unix_ms(), 1_795_769_574_123);
    let kept = log.extents();
    assert_eq!((kept[0], *kept.last().unwrap()), (Extent::new(0, MIB), Extent::new(11 * MIB, MIB)));
    put_back(&undo, &old.path).unwrap();
    assert_eq!(check_table(&old.path, 512).len(), 4, "the old disk with its logical partitions");
    let now = old.bytes();
    for (at, byte) in now.iter().enumerate() {
        let is_kept = kept.iter().any(|extent| extent.contains(Extent::new(at as u64, 1)));
        let wanted = if is_kept { before[at] } else { after[at] };
        assert!(*byte == wanted, "byte {at}");
    }
    let mode = fs::metadata(&undo).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "only the owner reads what lay on a disk");
}

#[test]
fn dd_puts_a_part_back_from_the_places_the_log_names() {
    let (old, before, undo) = overwritten();
    let log = fs::read(&undo).unwrap();
    let text = String::from_utf8(log[..4096].to_vec()).unwrap();
    let parts: Vec<&str> = text.lines().filter(|line| line.starts_with("part ")).collect();
    for part in &parts {
        let words: Vec<&str> = part.split(' ').collect();
        let [_, start, len, place, _] = words[..] else { panic!("{part}") };
        let args = [
            format!("if={}", undo.display()),
            format!("of={}", old.path.display()),
            format!("skip={place}"),
            format!("seek={start}"),
            format!("count={len}"),
            "iflag=skip_bytes,count_bytes".to_owned(),
            "oflag=seek_bytes".to_owned(),
            "conv=notrunc".to_owned(),
        ];
        run("dd", &args.each_ref().map(String::as_str));
    }
    assert!(parts.len() >= 4 && old.bytes()[..1 << 20] == before[..1 << 20]);
    assert_eq!(check_table(&old.path, 512).len(), 4);
}

#[test]
fn a_log_goes_back_only_to_where_it_was_saved_from() {
    let (old, _, undo) = overwritten();
    let log = UndoLog::open(&undo).unwrap().unwrap();
    let refused = |facts: &TargetFacts, path: &Path| {
        let error = log.check_target(facts, path).unwrap_err();
        assert!(matches!(error, Error::Refused(Refusal::OtherTarget { .. })), "{error}");
        error.to_string()
    };
    let other = old.folder().join("other.raw");
    fs::copy(&old.path, &other).unwrap();
    let text = refused(&gather(&other), &other);
    assert!(text.contains(&format!("saved from: {}", old.path.display())), "{text}");
    let same = gather(&old.path);
    refused(&TargetFacts { len: 12 * MIB + 512, ..same.clone() }, &old.path);
    refused(&TargetFacts { serial: Some("X".to_owned()), ..same.clone() }, &old.path);
    refused(&TargetFacts { wwn: Some("X".to_owned()), ..same.clone() }, &old.path);
    refused(&TargetFacts { logical_sector_size: 4096, ..same.clone() }, &old.path);
    refused(&TargetFacts { offset: 512, ..same.clone() }, &old.path);
    refused(&TargetFacts { exists: false, ..same.clone() }, &old.path);
    log.check_target(&same, &old.path).expect("the same");
    let in_use = TargetFacts { read_only: true, ..same };
    let error = log.check_target(&in_use, &old.path).unwrap_err();
    assert!(matches!(error, Error::Refused(Refusal::ReadOnly { .. })), "{error}");
}

#[test]
fn a_device_with_a_serial_number_is_the_same_under_another_name() {
    let disk = RealDisk::gpt(6 * MIB, 512, &["--new=1:1M:+2M"]);
    let (view, undo) = (view(&disk.image()), disk.folder().join("undo"));
    let named =
        |serial: &str, path: &Path| TargetFacts { serial: Some(serial.to_owned()), ..gather(path) };
    let facts = named("S1", &disk.path);
    let plan = RestorePlan::new(&view, &facts, threads(1), Job::silent()).unwrap();
    let around = Around { undo: Some((&undo, 7)), ..Around::default() };
    plan.apply_at(&view, &disk.path, around, Job::silent()).unwrap();
    let log = UndoLog::open(&undo).unwrap().unwrap();
    let renamed = disk.folder().join("sdz");
    fs::rename(&disk.path, &renamed).unwrap();
    log.check_target(&named("S1", &renamed), &renamed).expect("the same disk");
    assert!(log.check_target(&named("S2", &renamed), &renamed).is_err());
}

#[test]
fn a_damaged_log_is_refused_before_the_first_write() {
    let (old, _, undo) = overwritten();
    let after = old.bytes();
    let len = fs::metadata(&undo).unwrap().len();
    let file = fs::File::options().write(true).open(&undo).unwrap();
    for at in [len - 1, 256 << 10, 30] {
        let mut byte = [0];
        fs::File::open(&undo).unwrap().read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
        let error = put_back(&undo, &old.path).unwrap_err();
        assert!(matches!(error, Error::UndoDamaged { .. }), "byte {at}: {error}");
        file.write_all_at(&byte, at).unwrap();
    }
    file.set_len(len - 1).unwrap();
    assert!(matches!(put_back(&undo, &old.path), Err(Error::UndoDamaged { .. })));
    assert!(old.bytes() == after);
}

#[test]
fn without_its_undo_log_a_restore_does_not_begin() {
    let image = image();
    let old = RealDisk::gpt(8 * MIB, 512, &["--new=1:1M:+4M"]);
    let before = old.bytes();
    let taken = old.folder().join("taken");
    fs::write(&taken, "somebody's").unwrap();
    for undo in [&taken, &old.folder().join("missing/undo"), old.folder()] {
        let failed = restore(&image, &old.path, undo).unwrap_err();
        assert!(matches!(failed.error, Error::Undo { .. }), "{failed}");
        assert_eq!(failed.left, Left::Untouched);
    }
    assert!(old.bytes() == before);
    assert_eq!(fs::read(&taken).unwrap(), b"somebody's");
}

#[test]
fn a_new_file_needs_no_undo_log_and_other_files_are_none() {
    let disk = RealDisk::gpt(6 * MIB, 512, &["--new=1:1M:+2M"]);
    let (undo, target) = (disk.folder().join("undo"), disk.folder().join("new.raw"));
    restore(&disk.image(), &target, &undo).unwrap();
    assert!(!undo.exists());
    for other in [&target, &undo, disk.folder()] {
        assert!(UndoLog::open(other).unwrap().is_none());
    }
    let empty = disk.folder().join("empty");
    fs::write(&empty, "").unwrap();
    assert!(UndoLog::open(&empty).unwrap().is_none());
}

#[test]
fn a_device_is_undone_like_a_file() {
    let old = RealDisk::gpt(8 * MIB, 512, &["--new=3:1M:+4M"]);
    let before = old.bytes();
    let undo = old.folder().join("undo");
    let device = Loop::whole(&old.path, 512);
    assert_eq!(gather(&device.0).kind, FileKind::BlockDevice);
    restore(&image(), &device.0, &undo).unwrap();
    put_back(&undo, &device.0).unwrap();
    drop(device);
    assert_eq!(check_table(&old.path, 512)[0].number, 3);
    assert!(old.bytes()[7 << 20..] == before[7 << 20..]);
}
