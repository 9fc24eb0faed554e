//! The catalogue of a folder saves time, and nothing it says changes what is read.

use std::sync::Arc;

use aiv_chain::{Catalogue, Error, Folder, PointState, View, locate, open_view};
use aiv_testkit::{CrashStorage, Fault, FaultPlan, FaultStorage, MemStorage, Op};
use aiv_volume_io::{CATALOGUE_NAME, DirStorage, Job, ReadAt, Storage};
use proptest::prelude::*;

use crate::chain_maker::{Step, point};
use crate::chains::{bytes_of, chain_of, open, states};
use crate::common::damage;
use crate::doubles::Stampless;
use crate::forge::{lie, sign};

const PART: &str = ".aiv-catalogue.part";

fn scan(storage: &dyn Storage) -> (Folder, Catalogue) {
    Folder::scan_with(storage, Job::silent()).unwrap()
}

/// What a scan says that does not depend on where it knows it from.
fn findings(folder: &Folder) -> String {
    let points = folder.sets.iter().flat_map(|set| set.points.iter().chain(&set.nameless));
    let points: Vec<_> = points.map(|p| format!("{p:?}")).collect();
    format!("{points:#?} {:?}", folder.strays)
}

fn afresh(storage: &dyn Storage) -> Folder {
    Folder::scan_afresh(storage, Job::silent()).unwrap().0
}

/// A chain of four with a catalogue, and the bytes of its points.
fn catalogued() -> (MemStorage, Vec<Vec<u8>>) {
    let all = states(4);
    let storage = chain_of(&all);
    scan(&storage).1.write(&storage).unwrap();
    (storage, all)
}

/// The files that a scan opens.
fn opened(storage: &MemStorage) -> Vec<String> {
    let watched = FaultStorage::new(storage.fork());
    scan(&watched);
    let opens = watched.trace().into_iter().filter(|o| o.op == Op::Open);
    let images = opens.map(|o| o.name).filter(|name| name != CATALOGUE_NAME);
    images.collect()
}

/// Whatever the catalogue says, each file and each point reads as it should or not at all, and
/// each file that can be read is.
fn check_views(storage: &dyn Storage, all: &[Vec<u8>]) {
    let (folder, _) = scan(storage);
    for set in &folder.sets {
        for found in &set.points {
            if let Ok(view) = View::of_point(storage, set, found) {
                assert_eq!(view.point(), found.id, "{}", found.file);
                let number = (1..).zip(all).find(|(n, _)| point(*n) == found.id);
                assert!(bytes_of(&view) == *number.unwrap().1, "{}", found.file);
            }
        }
    }
    for (number, bytes) in (1..).zip(all) {
        let view = open(storage, &format!("{number:02}"));
        assert_eq!(view.point(), point(number));
        assert!(bytes_of(&view) == *bytes, "{number}");
    }
}

#[test]
fn a_scan_opens_only_what_is_new_or_changed() {
    let (storage, all) = catalogued();
    assert_eq!(opened(&storage), [""; 0]);
    let view = open(&storage, "04");
    Step::new(5, all[0].clone()).write(&storage, "05", Some(&view));
    assert_eq!(opened(&storage), ["05"]);
    // The same bytes in another file: who knows.
    storage.insert("02", storage.contents("02").unwrap());
    storage.publish("03", "a/03").unwrap();
    assert_eq!(opened(&storage), ["02", "05", "a/03"]);
    scan(&storage).1.write(&storage).unwrap();
    assert_eq!(opened(&storage), [""; 0]);
    assert_eq!(findings(&scan(&storage).0), findings(&afresh(&storage)));
}

#[test]
fn images_that_open_with_damage_are_opened_every_time() {
    let (storage, _) = catalogued();
    damage(&storage, "02", 100);
    let at = open(&storage, "03").image().trailer().meta_offset;
    damage(&storage, "03", usize::try_from(at).unwrap() + 70);
    scan(&storage).1.write(&storage).unwrap();
    assert_eq!(opened(&storage), ["02", "03"]);
    let folder = scan(&storage).0;
    assert_eq!(findings(&folder), findings(&afresh(&storage)));
    assert!(matches!(folder.sets[0].points[1].state, PointState::Damaged(_)));
    assert!(folder.vanished.is_empty());
}

#[test]
fn a_view_by_the_catalogue_opens_the_files_of_its_chain_and_does_not_list_the_folder() {
    let (storage, all) = catalogued();
    for number in 10..20 {
        Step::new(number, all[0].clone()).write(&storage, &format!("{number}"), None);
    }
    scan(&storage).1.write(&storage).unwrap();
    let watched = FaultStorage::new(storage.fork());
    assert!(bytes_of(&open(&watched, "04")) == all[3]);
    let ops = |op| watched.trace().into_iter().filter(move |o| o.op == op).map(|o| o.name);
    assert_eq!(ops(Op::Open).collect::<Vec<_>>(), ["04", CATALOGUE_NAME, "03", "02", "01"]);
    assert_eq!(ops(Op::List).count(), 0);
}

#[test]
fn without_stamps_every_file_is_opened_and_vanished_points_are_noticed() {
    let (storage, _) = catalogued();
    let stampless = Stampless(storage.clone(), |_| {});
    scan(&stampless).1.write(&stampless).unwrap();
    storage.insert("02", vec![7; storage.contents("02").unwrap().len()]);
    let folder = scan(&stampless).0;
    assert_eq!(folder.sets[0].points.len(), 3);
    assert_eq!(folder.vanished.len(), 1);
}

#[test]
fn a_catalogue_that_says_what_is_there_already_is_not_written_again() {
    let (storage, _) = catalogued();
    let watched = FaultStorage::new(storage);
    scan(&watched).1.write(&watched).unwrap();
    assert!(watched.trace().iter().all(|o| matches!(o.op, Op::Open | Op::Read | Op::List)));
}

#[test]
fn points_that_vanish_are_told_until_they_are_forgotten() {
    let (storage, all) = catalogued();
    storage.publish("03", "moved").unwrap();
    storage.remove("02").unwrap();
    for _ in 0..3 {
        let (folder, catalogue) = scan(&storage);
        let [lost] = folder.vanished.as_slice() else { panic!("{:?}", folder.vanished) };
        assert_eq!((lost.point, lost.file.as_str()), (point(2), "02"));
        assert_eq!((lost.set_name.as_str(), lost.time_unix_ms), ("set1", 2000));
        assert_eq!(catalogue.vanished(), folder.vanished);
        catalogue.write(&storage).unwrap();
    }
    let mut catalogue = scan(&storage).1;
    catalogue.forget(point(2));
    catalogue.write(&storage).unwrap();
    assert!(scan(&storage).0.vanished.is_empty());
    // Removed on purpose: forgotten before.
    let mut catalogue = scan(&storage).1;
    catalogue.forget(point(4));
    catalogue.write(&storage).unwrap();
    assert!(scan(&storage).0.vanished.is_empty());
    storage.remove("04").unwrap();
    assert!(scan(&storage).0.vanished.is_empty());
    // One that comes back is not lost.
    storage.remove("moved").unwrap();
    assert_eq!(scan(&storage).0.vanished.len(), 1);
    scan(&storage).1.write(&storage).unwrap();
    Step::new(3, all[2].clone()).write(&storage, "again", None);
    assert!(scan(&storage).0.vanished.is_empty());
}

#[test]
fn a_point_that_vanishes_with_several_files_is_told_once_and_by_what_the_best_of_them_said() {
    let (storage, _) = catalogued();
    storage.insert("02 copy", storage.contents("02").unwrap());
    let at = open(&storage, "02").image().trailer().meta_offset;
    damage(&storage, "02", usize::try_from(at).unwrap() + 70);
    scan(&storage).1.write(&storage).unwrap();
    storage.remove("02").unwrap();
    storage.remove("02 copy").unwrap();
    let vanished = scan(&storage).0.vanished;
    let [lost] = vanished.as_slice() else { panic!("{vanished:?}") };
    assert_eq!((lost.point, lost.set_name.as_str(), lost.time_unix_ms), (point(2), "set1", 2000));
}

#[test]
fn points_that_somebody_removes_on_purpose_during_a_scan_have_not_vanished() {
    let (storage, _) = catalogued();
    let busy = Stampless(storage.clone(), |storage| {
        let mut catalogue = scan(storage).1;
        catalogue.forget(point(4));
        catalogue.write(storage).unwrap();
        storage.remove("04").unwrap();
    });
    assert!(scan(&busy).0.vanished.is_empty());
}

#[test]
fn a_point_in_a_file_that_cannot_be_read_now_has_not_vanished() {
    let (storage, _) = catalogued();
    storage.insert("02", storage.contents("02").unwrap());
    // The catalogue is opened and read, the folder listed, then the one file.
    let failing = FaultStorage::failing(storage.clone(), FaultPlan::once(3, Fault::Eio));
    let (folder, catalogue) = scan(&failing);
    assert_eq!((folder.strays.len(), folder.strays[0].file.as_str()), (1, "02"));
    assert!(folder.vanished.is_empty());
    catalogue.write(&storage).unwrap();
    assert!(scan(&storage).0.vanished.is_empty());
    storage.remove("02").unwrap();
    assert_eq!(scan(&storage).0.vanished.len(), 1, "it is still known");
}

#[test]
fn a_catalogue_that_exchanges_points_costs_time_only() {
    let (two, three) = (point(2).0, point(3).0);
    let (storage, all) = catalogued();
    lie(&storage, &[(&two, &three), (&three, &two)]);
    check_views(&storage, &all);
}

#[test]
fn a_catalogue_that_invents_and_hides_points_costs_time_only() {
    for number in 1..=4 {
        let (storage, all) = catalogued();
        lie(&storage, &[(&point(number).0, &[0x77; 16])]);
        check_views(&storage, &all);
        let (storage, all) = catalogued();
        lie(&storage, &[(&point(number).0, &point(5 - number).0)]);
        check_views(&storage, &all);
    }
}

#[test]
fn a_catalogue_that_names_wrong_parents_or_files_costs_time_only() {
    let (storage, all) = catalogued();
    let root = |file: &str| open(&storage, file).image().trailer().state_root.0;
    let roots: Vec<_> = ["01", "02", "03", "04"].map(root).to_vec();
    for (from, to) in [(0, 1), (1, 0), (1, 2), (2, 1), (0, 3), (3, 2)] {
        let lied = storage.fork();
        lie(&lied, &[(&roots[from], &roots[to])]);
        check_views(&lied, &all);
        // Only where it is named as a parent.
        let lied = storage.fork();
        let link = |number: usize| {
            [&point(u16::try_from(number + 1).unwrap()).0[..], &roots[number]].concat()
        };
        lie(&lied, &[(&link(from), &link(to))]);
        check_views(&lied, &all);
    }
    let lied = storage.fork();
    lie(&lied, &[(b"\x02\0\0\x0001", b"\x02\0\0\x0000"), (b"\x02\0\0\x0003", b"\x02\0\0\x0002")]);
    check_views(&lied, &all);
}

#[test]
fn a_point_that_only_the_catalogue_calls_broken_is_read() {
    let (storage, all) = catalogued();
    // Behind the kind of the image: not where the third point is described itself.
    let root = open(&storage, "03").image().trailer().state_root.0;
    let link = |of: &[u8; 16]| [&[2], of.as_slice(), &root].concat();
    lie(&storage, &[(&link(&point(3).0), &link(&[9; 16]))]);
    let folder = scan(&storage).0;
    let last = folder.sets[0].point(point(4)).unwrap();
    assert!(matches!(last.state, PointState::MissingParent { .. }));
    assert!(bytes_of(&View::of_point(&storage, &folder.sets[0], last).unwrap()) == all[3]);
}

#[test]
fn a_catalogue_of_another_folder_is_of_no_use_and_does_no_harm() {
    let (storage, all) = catalogued();
    let other = MemStorage::new();
    for number in 20..24 {
        let file = format!("{:02}", number - 19);
        Step::new(number, all[0].clone()).write(&other, &file, None);
    }
    scan(&other).1.write(&other).unwrap();
    storage.insert(CATALOGUE_NAME, other.contents(CATALOGUE_NAME).unwrap());
    assert_eq!(opened(&storage).len(), 4);
    let folder = scan(&storage).0;
    assert_eq!(findings(&folder), findings(&afresh(&storage)));
    assert_eq!(folder.vanished.len(), 4, "they were in the folder of the catalogue");
    check_views(&storage, &all);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn whatever_a_catalogue_holds_every_file_reads_as_it_should(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        moved in any::<(prop::sample::Index, prop::sample::Index)>(),
        how in 0..4,
    ) {
        let (storage, all) = catalogued();
        let mut bytes = storage.contents(CATALOGUE_NAME).unwrap().to_vec();
        for (at, value) in &changes {
            let at = at.index(bytes.len());
            bytes[at] = *value;
        }
        let (from, to) = (moved.0.index(bytes.len()), moved.1.index(bytes.len()));
        match how {
            0 => bytes.truncate(from),
            1 => {
                let count = 16.min(bytes.len() - from.max(to));
                bytes.copy_within(from..from + count, to);
            }
            2 => { let part = bytes[from..].to_vec(); bytes.splice(to.., part); }
            _ => {}
        }
        sign(&mut bytes);
        storage.insert(CATALOGUE_NAME, bytes);
        check_views(&storage, &all);
    }
}

#[test]
fn a_point_named_by_a_user_is_the_point_he_gets_whatever_the_catalogue_says() {
    let (storage, all) = catalogued();
    let dir = tempfile::tempdir().unwrap();
    for number in 1..=4 {
        let name = format!("{number:02}");
        std::fs::write(dir.path().join(&name), &**storage.contents(&name).unwrap()).unwrap();
    }
    let real = DirStorage::open(dir.path()).unwrap();
    scan(&real).1.write(&real).unwrap();
    let path = dir.path().join(CATALOGUE_NAME);
    let truth = std::fs::read(&path).unwrap();
    for (from, to) in [(2, 3), (3, 2), (4, 1), (1, 4), (4, 9), (2, 9)] {
        let copy = MemStorage::new();
        copy.insert(CATALOGUE_NAME, truth.clone());
        lie(&copy, &[(&point(from).0, &point(to).0), (&point(to).0, &point(from).0)]);
        std::fs::write(&path, &**copy.contents(CATALOGUE_NAME).unwrap()).unwrap();
        for number in 1..=4 {
            let words = format!("{}@{}", dir.path().display(), point(number));
            let file = locate(words.as_ref(), Job::silent()).unwrap();
            let view = open_view(&file, Job::silent()).unwrap();
            assert_eq!(view.point(), point(number));
            assert!(bytes_of(&view) == all[usize::from(number) - 1]);
        }
        let none = format!("{}@{}", dir.path().display(), point(9));
        let found = locate(none.as_ref(), Job::silent());
        assert!(matches!(found, Err(Error::NoSuchPoint { .. })), "{found:?}");
    }
}

#[test]
fn files_that_changed_since_a_scan_are_noticed() {
    let (storage, all) = catalogued();
    let (folder, _) = scan(&storage);
    let set = &folder.sets[0];
    // Merged by somebody else: the state is there, in other files.
    let (second, last) = (open(&storage, "02"), open(&storage, "04"));
    Step::new(4, all[3].clone()).write(&storage, "merged", Some(&second));
    drop(last);
    storage.remove("03").unwrap();
    storage.remove("04").unwrap();
    let view = View::of_point(&storage, set, &set.points[3]).unwrap();
    assert!(bytes_of(&view) == all[3]);
    assert_eq!(view.file(), "merged");
    let gone = View::of_point(&storage, set, &set.points[2]).err().unwrap();
    assert!(matches!(gone, Error::NotRestorable { point: id, .. } if id == point(3)));
    // Another image under the old name.
    storage.insert("01", storage.contents("02").unwrap());
    let gone = View::of_point(&storage, set, &set.points[0]).err().unwrap();
    assert!(matches!(gone, Error::NotRestorable { .. }), "{gone:?}");
}

/// Sound images by name, for comparing what scans find.
fn points(folder: &Folder) -> Vec<(String, aiv_chain::PointId)> {
    let points = folder.sets.iter().flat_map(|set| &set.points);
    points.map(|p| (p.file.clone(), p.id)).collect()
}

#[test]
fn a_crash_while_it_is_written_leaves_the_old_one_the_new_one_or_none() {
    let (durable, all) = catalogued();
    let old = durable.contents(CATALOGUE_NAME).unwrap();
    let view = open(&durable, "04");
    Step::new(5, all[0].clone()).write(&durable, "05", Some(&view));
    // Twice: the second one meets what the crash of a first one left.
    let storage = CrashStorage::starting_from(&durable);
    scan(&storage).1.write(&storage).unwrap();
    let new = durable_copy(&storage);
    let truth = points(&afresh(&durable));
    let (mut states, mut without) = (0, 0);
    for state in storage.crash_states(7, 60) {
        states += 1;
        let found = scan(&state.storage).0;
        assert_eq!(points(&found), truth, "{state}");
        assert!(found.vanished.is_empty(), "{state}");
        let bytes = state.storage.contents(CATALOGUE_NAME);
        without += usize::from(bytes.is_none());
        assert!(bytes.is_none_or(|b| b == old || b == new), "{state}");
        let again = CrashStorage::starting_from(&state.storage);
        scan(&again).1.write(&again).unwrap();
        assert!(durable_copy(&again) == new, "{state}");
    }
    assert!(states > 50 && without > 5, "{states} {without}");
}

fn durable_copy(storage: &CrashStorage) -> Arc<Vec<u8>> {
    let file = storage.open(CATALOGUE_NAME).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    Arc::new(bytes)
}

#[test]
fn a_folder_that_cannot_be_written_or_read_fully_is_scanned_all_the_same() {
    let (storage, all) = catalogued();
    let view = open(&storage, "04");
    Step::new(5, all[0].clone()).write(&storage, "05", Some(&view));
    let truth = points(&afresh(&storage));
    for fault in Fault::ALL {
        for nth in 0.. {
            let failing = FaultStorage::failing(storage.fork(), FaultPlan::once(nth, fault));
            let (_, catalogue) = scan(&storage);
            let written = catalogue.write(&failing);
            if !failing.fired() {
                written.unwrap();
                break;
            }
            assert!(written.is_ok() || !fault.is_harmless(), "{fault:?} {nth}");
            let left = failing.inner();
            assert_eq!(written.is_ok(), opened(left).is_empty(), "{fault:?} {nth}");
            assert!(left.contents(PART).is_none(), "{fault:?} {nth}");
            let (found, catalogue) = scan(left);
            assert_eq!(points(&found), truth, "{fault:?} {nth}");
            catalogue.write(left).unwrap();
            assert!(opened(left).is_empty() && left.contents(PART).is_none());
        }
    }
    for nth in 0..2 {
        // Of the catalogue itself.
        let failing = FaultStorage::failing(storage.fork(), FaultPlan::once(nth, Fault::Eio));
        assert_eq!(points(&scan(&failing).0), truth);
    }
}

#[test]
fn several_writers_at_once_leave_a_folder_that_scans_right() {
    let (storage, all) = catalogued();
    let view = open(&storage, "04");
    Step::new(5, all[0].clone()).write(&storage, "05", Some(&view));
    let truth = points(&afresh(&storage));
    let dir = tempfile::tempdir().unwrap();
    for name in storage.names() {
        std::fs::write(dir.path().join(&name), &**storage.contents(&name).unwrap()).unwrap();
    }
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let (dir, truth) = (dir.path(), &truth);
            scope.spawn(move || {
                let storage = DirStorage::open(dir).unwrap();
                for round in 0..40u64 {
                    let (found, mut catalogue) = scan(&storage);
                    assert_eq!(points(&found), *truth);
                    assert!(found.vanished.is_empty());
                    // So that each has something of its own to write.
                    catalogue.forget(point(u16::try_from(1 + (round + thread) % 5).unwrap()));
                    let _ = catalogue.write(&storage);
                }
            });
        }
    });
    let real = DirStorage::open(dir.path()).unwrap();
    let (found, catalogue) = scan(&real);
    assert_eq!(points(&found), truth);
    catalogue.write(&real).unwrap();
    assert!(bytes_of(&open(&real, "05")) == all[0]);
}

#[test]
fn what_is_too_large_or_no_file_is_no_catalogue() {
    let (storage, _) = catalogued();
    let dir = tempfile::tempdir().unwrap();
    for number in 1..=4 {
        let name = format!("{number:02}");
        std::fs::write(dir.path().join(&name), &**storage.contents(&name).unwrap()).unwrap();
    }
    let real = DirStorage::open(dir.path()).unwrap();
    let truth = points(&scan(&real).0);
    let path = dir.path().join(CATALOGUE_NAME);
    let huge = std::fs::File::create(&path).unwrap();
    huge.set_len(1 << 40).unwrap();
    assert_eq!(points(&scan(&real).0), truth);
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert_eq!(points(&scan(&real).0), truth);
    assert!(scan(&real).1.write(&real).is_err());
    std::fs::remove_dir(&path).unwrap();
    std::os::unix::fs::symlink("01", &path).unwrap();
    assert_eq!(points(&scan(&real).0), truth);
}
