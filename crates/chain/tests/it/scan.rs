//! What a scan finds, whatever the files are called.

use std::io;

use aiv_chain::{Error, Folder, PointState, StrayKind, View};
use aiv_testkit::{Fault, FaultPlan, FaultStorage, MemStorage};
use aiv_volume_io::{Cancel, FileEntry, Job, Progress, Storage};

use crate::common::{Spec, damage, two_sets};
use crate::wrappers::pass_on;

fn scan(storage: &MemStorage) -> Folder {
    Folder::scan(storage, Job::silent()).unwrap()
}

/// Name and points of each set.
fn sets(folder: &Folder) -> Vec<(String, Vec<u8>)> {
    let points = |set: &aiv_chain::Set| set.points.iter().map(|p| p.id.0[0]).collect();
    folder.sets.iter().map(|set| (set.name.clone(), points(set))).collect()
}

fn strays(folder: &Folder) -> Vec<(&str, &StrayKind)> {
    folder.strays.iter().map(|s| (s.file.as_str(), &s.kind)).collect()
}

#[test]
fn an_empty_folder_holds_nothing() {
    let folder = scan(&MemStorage::new());
    assert!(folder.sets.is_empty() && folder.strays.is_empty());
}

#[test]
fn points_are_grouped_by_set_and_sorted_by_age() {
    let folder = scan(&two_sets());
    assert_eq!(
        sets(&folder),
        [("set1".to_owned(), vec![1, 2, 3]), ("set2".to_owned(), vec![0x11])]
    );
    assert!(folder.strays.is_empty());
    let point = &folder.sets[0].points[1];
    assert_eq!((point.full_number, point.time_unix_ms), (2, 2000));
    assert_eq!(point.size, Spec::new(1, 2).bytes.len() as u64);
    assert_eq!(point.state, PointState::Restorable);
    assert!(point.is_restorable());
}

#[test]
fn images_are_found_by_their_header_whatever_they_are_called() {
    let storage = two_sets();
    for (from, to) in [
        ("1-1.aiv", "z/deep/down/under.iso"),
        ("1-2.aiv", "without extension"),
        ("1-3.aiv", "a.AII"),
        ("2-17.aiv", "aaa.txt"),
    ] {
        storage.publish(from, to).unwrap();
    }
    let renamed = scan(&storage);
    assert_eq!(sets(&renamed), sets(&scan(&two_sets())));
    assert!(renamed.strays.is_empty());
    assert_eq!(renamed.sets[0].points[0].file, "z/deep/down/under.iso");
    let view = View::open(&storage, &renamed.sets[0].points[0].file, Job::silent()).unwrap();
    assert_eq!(view.point(), renamed.sets[0].points[0].id);
}

#[test]
fn name_and_host_of_a_set_are_those_of_its_newest_point_in_any_order_of_files() {
    for files in [["a", "b", "c"], ["c", "b", "a"], ["b", "c", "a"]] {
        let storage = MemStorage::new();
        for (point, file) in (1..).zip(files) {
            let spec = Spec { name: format!("name{point}"), ..Spec::new(1, point) };
            spec.write(&storage, file);
        }
        assert_eq!(sets(&scan(&storage)), [("name3".to_owned(), vec![1, 2, 3])]);
    }
}

#[test]
fn a_point_in_two_files_counts_once_and_the_second_is_named() {
    let storage = two_sets();
    storage.insert("copy/of 1-2.aiv", storage.contents("1-2.aiv").unwrap());
    let folder = scan(&storage);
    assert_eq!(sets(&folder)[0].1, [1, 2, 3]);
    let duplicate = StrayKind::Duplicate("1-2.aiv".to_owned());
    assert_eq!(strays(&folder), [("copy/of 1-2.aiv", &duplicate)]);
}

#[test]
fn foreign_files_are_listed_only_when_they_are_named_like_images() {
    let storage = two_sets();
    for name in ["notes.txt", "vendor.aiv", "empty.aiv", "UPPER.AIV", "disk.qcow2"] {
        let bytes = if name == "empty.aiv" { Vec::new() } else { vec![7; 10_000] };
        storage.insert(name, bytes);
    }
    let folder = scan(&storage);
    assert_eq!(folder.sets.len(), 2);
    let found = strays(&folder);
    let names: Vec<_> = found.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["UPPER.AIV", "empty.aiv", "vendor.aiv"]);
    assert!(found.iter().all(|(_, kind)| matches!(kind, StrayKind::Foreign(_))), "{found:?}");
}

#[test]
fn unfinished_and_cut_off_and_damaged_files_are_told_apart() {
    let storage = two_sets();
    let whole = storage.contents("1-3.aiv").unwrap();
    storage.remove("1-3.aiv").unwrap();
    storage.insert("whole.aiv.part", whole.to_vec());
    storage.insert("cut.aiv", whole[..whole.len() - 1].to_vec());
    let mut both_trailers = whole.to_vec();
    let end = both_trailers.len();
    both_trailers[end - 100] ^= 1;
    both_trailers[end - (64 << 10) - 3 * 4096 + 100] ^= 1;
    storage.insert("both trailers.aiv", both_trailers);
    let folder = scan(&storage);
    assert_eq!(sets(&folder)[0].1, [1, 2], "none of them is a point");
    let found = strays(&folder);
    let [
        (_, StrayKind::Unusable(both)),
        (_, StrayKind::Unusable(cut)),
        (part, StrayKind::Unfinished),
    ] = found.as_slice()
    else {
        panic!("{found:?}")
    };
    assert!(both.contains("trailer") && cut.contains("incomplete"), "{both}, {cut}");
    assert_eq!(*part, "whole.aiv.part");
    assert_eq!(folder.strays[1].size, whole.len() as u64 - 1);
}

#[test]
fn an_image_with_one_damaged_copy_is_restorable_and_marked() {
    let storage = two_sets();
    damage(&storage, "1-1.aiv", 100);
    let len = storage.contents("1-2.aiv").unwrap().len();
    damage(&storage, "1-2.aiv", len - 100);
    let folder = scan(&storage);
    for point in &folder.sets[0].points[..2] {
        let PointState::Damaged(damage) = &point.state else { panic!("{point:?}") };
        assert_eq!(damage.len(), 1);
        assert!(point.is_restorable());
    }
    assert_eq!(folder.sets[0].points[2].state, PointState::Restorable);
}

#[test]
fn one_bad_image_does_not_hide_the_others() {
    let whole = two_sets();
    let len = whole.contents("1-2.aiv").unwrap().len();
    for at in (0..len).step_by(997) {
        let storage = whole.fork();
        damage(&storage, "1-2.aiv", at);
        let folder = scan(&storage);
        let points = &sets(&folder)[0].1;
        assert!(points.contains(&1) && points.contains(&3), "bit of byte {at}: {points:?}");
        assert_eq!(points.contains(&2), folder.strays.is_empty(), "found or named, byte {at}");
    }
}

#[test]
fn a_scan_can_be_stopped() {
    struct Quiet;
    impl Progress for Quiet {}
    let cancel = Cancel::new();
    cancel.cancel();
    let scanned = Folder::scan(&two_sets(), Job::new(&Quiet, &cancel));
    assert!(matches!(scanned, Err(Error::Canceled(_))));
}

#[test]
fn a_file_that_vanishes_during_the_scan_is_not_missed() {
    /// Lists a file that is gone.
    struct Late(MemStorage);
    impl Storage for Late {
        fn list(&self) -> io::Result<Vec<FileEntry>> {
            let mut entries = self.0.list()?;
            entries.push(FileEntry { name: "gone.aiv".to_owned(), len: 100_000, stamp: 0 });
            Ok(entries)
        }
        pass_on!(0: create, open, publish, remove, sync_dir, lease);
    }
    let folder = Folder::scan(&Late(two_sets()), Job::silent()).unwrap();
    assert_eq!((folder.sets.len(), folder.strays.len()), (2, 0));
}

#[test]
fn of_two_files_with_one_point_the_sound_one_provides_it() {
    let storage = MemStorage::new();
    let spec = Spec::new(1, 2);
    spec.write(&storage, "a-damaged.aiv");
    spec.write(&storage, "b-sound.aiv");
    // The superblock at the start; its copy makes up for it.
    damage(&storage, "a-damaged.aiv", 100);
    let folder = scan(&storage);
    assert_eq!(folder.sets[0].points[0].file, "b-sound.aiv");
    assert_eq!(folder.sets[0].points[0].state, PointState::Restorable);
    let duplicate = StrayKind::Duplicate("b-sound.aiv".to_owned());
    assert_eq!(strays(&folder), [("a-damaged.aiv", &duplicate)]);
}

#[test]
fn a_file_that_cannot_be_read_is_a_stray_and_hides_no_other() {
    let storage = MemStorage::new();
    Spec::new(1, 1).write(&storage, "1.aiv");
    Spec::new(1, 2).write(&storage, "2.aiv");
    let mut readable_in_all = 0;
    for nth in 0.. {
        let failing = FaultStorage::failing(storage.fork(), FaultPlan::once(nth, Fault::Eio));
        let found = Folder::scan(&failing, Job::silent());
        if !failing.fired() {
            break;
        }
        // Only the listing itself is fatal.
        let Ok(folder) = found else { continue };
        let points: usize = folder.sets.iter().map(|set| set.points.len()).sum();
        assert_eq!(points + folder.strays.len(), 2, "fault {nth}");
        assert!(points >= 1, "fault {nth}");
        readable_in_all += points;
    }
    assert!(readable_in_all > 0);
}
