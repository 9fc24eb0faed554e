//! Verifying folders of chains: what is proven, what is skipped, and what damage means for points.

use std::sync::Arc;

use aiv_chain::{
    Checked, Depth, Error, Folder, Keys, Point, SetId, StrayKind, Verification, Verified,
    VerifyOptions, View, verify_folder, verify_one_keyed, verify_point_keyed,
};
use aiv_testkit::{FaultStorage, MemStorage, Op};
use aiv_volume_io::{CATALOGUE_NAME, Cancel, Job, Progress, Storage};

use crate::chain_maker::{Step, point};
use crate::chains::{bytes_of, chain_of, open, states};
use crate::common::{BLOCK, damage};
use crate::doubles::Counting;
use crate::forge::lie;

/// Everything, now.
const ALL: VerifyOptions =
    VerifyOptions { depth: Depth::Data, not_verified_since: None, now_unix_ms: 1000, set: None };

fn verify(storage: &dyn Storage, options: &VerifyOptions) -> Verification {
    verify_folder(storage, options, Job::silent()).unwrap()
}

/// Verifies and remembers.
fn recorded(storage: &MemStorage, options: &VerifyOptions) -> Verification {
    let found = verify(storage, options);
    found.record(storage, Job::silent()).unwrap();
    found
}

fn scan(storage: &dyn Storage) -> Folder {
    Folder::scan(storage, Job::silent()).unwrap()
}

fn of_point(folder: &Folder, number: u16) -> &Point {
    folder.sets.iter().find_map(|set| set.point(point(number))).unwrap()
}

fn checked<'v>(found: &'v Verification, file: &str) -> &'v Checked {
    found.images.iter().find(|checked| checked.file == file).unwrap()
}

/// Each image and how it fared: `proven`, `skipped`, `seen` (sound, not proven) or `damaged`.
fn outcomes(found: &Verification) -> Vec<(&str, &str)> {
    let word = |checked: &Checked| match checked {
        Checked { skipped: Some(_), .. } if checked.is_proven() => "skipped",
        _ if checked.is_proven() => "proven",
        _ if checked.is_sound() => "seen",
        _ => "damaged",
    };
    found.images.iter().map(|checked| (checked.file.as_str(), word(checked))).collect()
}

/// Flips a bit of the first frame.
fn damage_data(storage: &MemStorage, file: &str) {
    damage(storage, file, 4096 + 100);
}

#[test]
fn every_image_of_a_chain_is_proven_on_top_of_its_parent() {
    let storage = chain_of(&states(4));
    let found = verify(&storage, &ALL);
    let proven = ["01", "02", "03", "04"].map(|file| (file, "proven"));
    assert_eq!(outcomes(&found), proven);
    assert!(found.images.iter().all(|c| c.points_affected.is_empty()));
    assert!(storage.contents(CATALOGUE_NAME).is_none(), "nothing is written unasked");
}

#[test]
fn an_image_without_its_parent_is_looked_at_and_not_proven_and_not_recorded() {
    let storage = chain_of(&states(4));
    storage.remove("02").unwrap();
    let found = recorded(&storage, &ALL);
    assert_eq!(outcomes(&found), [("01", "proven"), ("03", "seen"), ("04", "seen")]);
    assert!(checked(&found, "03").outcome.as_ref().unwrap().without_parent);
    let folder = scan(&storage);
    assert_eq!(of_point(&folder, 4).verified, None);
    assert!(of_point(&folder, 1).verified.is_some());
}

#[test]
fn damage_names_every_point_that_is_read_through_it() {
    let storage = chain_of(&states(4));
    let first = open(&storage, "01");
    Step::new(5, states(9)[8].clone()).write(&storage, "05", Some(&first));
    damage_data(&storage, "02");
    let found = recorded(&storage, &ALL);
    let words: Vec<_> = outcomes(&found).into_iter().map(|(_, word)| word).collect();
    assert_eq!((words[0], words[1], words[4]), ("proven", "damaged", "proven"));
    assert_eq!(checked(&found, "02").points_affected, [2, 3, 4].map(point));
    let folder = scan(&storage);
    for (number, by) in [(1, None), (2, Some("02")), (3, Some("02")), (4, Some("02")), (5, None)] {
        let point = of_point(&folder, number);
        assert_eq!(point.damaged_by.as_deref(), by, "{number}");
        assert!(point.is_restorable(), "as far as the damage allows");
    }
    let second = of_point(&folder, 2).verified.unwrap();
    assert_eq!(second, Verified { depth: Depth::Data, time_unix_ms: 1000, sound: false });
    // Best effort: what the damage does not concern can be read.
    let view = View::of_point(&storage, &folder.sets[0], of_point(&folder, 4)).unwrap();
    let (mut block, mut reader) = (vec![0; BLOCK], view.reader());
    for number in [0, 2, 3] {
        reader.read(number, &mut block).unwrap();
        let at = usize::try_from(number).unwrap() * BLOCK;
        assert!(block == states(4)[3][at..at + BLOCK]);
    }
    reader.read(1, &mut block).unwrap_err();
    // Another file in its place is another matter.
    storage.insert("02", chain_of(&states(2)).contents("02").unwrap());
    let folder = scan(&storage);
    assert_eq!(
        (of_point(&folder, 4).damaged_by.as_deref(), of_point(&folder, 2).verified),
        (None, None)
    );
}

#[test]
fn one_image_is_verified_by_itself_and_what_came_of_it_is_recorded_for_it_alone() {
    let storage = chain_of(&states(4));
    let one = |file: &str| {
        let found = verify_one_keyed(&storage, file, &ALL, &Keys::none(), Job::silent()).unwrap();
        found.record(&storage, Job::silent()).unwrap();
        found
    };
    assert_eq!(outcomes(&one("03")), [("03", "proven")]);
    let times = |folder: &Folder| {
        [1, 2, 3, 4].map(|number| of_point(folder, number).verified.map(|v| v.sound))
    };
    assert_eq!(times(&scan(&storage)), [None, None, Some(true), None]);
    damage_data(&storage, "02");
    let found = one("02");
    assert_eq!(outcomes(&found), [("02", "damaged")]);
    assert_eq!(found.images[0].points_affected, [2, 3, 4].map(point));
    assert_eq!(times(&scan(&storage)), [None, Some(false), Some(true), None]);
    assert_eq!(outcomes(&one("nothing")), []);
}

#[test]
fn a_point_is_verified_with_every_image_it_is_read_through_and_no_other() {
    let storage = chain_of(&states(4));
    damage_data(&storage, "02");
    let point = |file: &str| {
        let found = verify_point_keyed(&storage, file, &ALL, &Keys::none(), Job::silent());
        found.expect("the folder is readable")
    };
    let found = point("03");
    assert_eq!(outcomes(&found), [("01", "proven"), ("02", "damaged"), ("03", "proven")]);
    found.record(&storage, Job::silent()).unwrap();
    let damaged_by = |number| of_point(&scan(&storage), number).damaged_by.clone();
    assert_eq!([1, 3, 4].map(damaged_by), [None, Some("02".into()), Some("02".into())]);
    assert_eq!(outcomes(&point("01")), [("01", "proven")]);
    // Of one that lacks what it builds on there is only the file.
    storage.remove("02").unwrap();
    assert_eq!(outcomes(&point("03")), [("03", "seen")]);
    assert_eq!(outcomes(&point("nothing")), []);
}

#[test]
fn damage_of_another_state_of_the_same_point_affects_nobody_who_does_not_build_on_it() {
    let storage = chain_of(&states(3));
    let other = Step::new(2, states(9)[8].clone());
    other.write(&storage, "02 another", None);
    damage_data(&storage, "02 another");
    let found = verify(&storage, &ALL);
    assert_eq!(checked(&found, "02 another").points_affected, [point(2)]);
    damage_data(&storage, "02");
    let found = verify(&storage, &ALL);
    assert_eq!(checked(&found, "02").points_affected, [2, 3].map(point));
}

#[test]
fn damage_that_a_shallower_look_does_not_see_still_counts() {
    let storage = chain_of(&states(3));
    damage_data(&storage, "02");
    recorded(&storage, &ALL);
    let quick = VerifyOptions { depth: Depth::Quick, now_unix_ms: 2000, ..ALL };
    let found = recorded(&storage, &quick);
    assert!(checked(&found, "02").is_sound(), "of its structures nothing is damaged");
    assert_eq!(checked(&found, "02").points_affected, [2, 3].map(point));
    assert_eq!(of_point(&scan(&storage), 3).damaged_by.as_deref(), Some("02"));
    // And a quick look at the others does not take their proof away.
    assert_eq!(of_point(&scan(&storage), 1).verified.unwrap().depth, Depth::Data);
}

#[test]
fn a_file_beside_a_damaged_one_is_taken_in_its_place() {
    let storage = chain_of(&states(3));
    storage.insert("02 copy", storage.contents("02").unwrap());
    damage_data(&storage, "02");
    let found = recorded(&storage, &ALL);
    assert_eq!(outcomes(&found)[1], ("02", "damaged"));
    assert_eq!(outcomes(&found)[2], ("02 copy", "proven"));
    let folder = scan(&storage);
    assert_eq!(of_point(&folder, 2).file, "02 copy");
    assert!([1, 2, 3].iter().all(|&n| of_point(&folder, n).damaged_by.is_none()));
    let found = verify(&storage, &ALL);
    assert!(checked(&found, "02").points_affected.is_empty(), "nothing is read through it now");
}

#[test]
fn a_sound_copy_that_came_after_the_verification_is_read_in_place_of_the_damaged_file() {
    let all = states(3);
    let storage = chain_of(&all);
    let sound = storage.contents("02").unwrap();
    damage_data(&storage, "02");
    recorded(&storage, &ALL);
    storage.insert("02 copy", sound);
    let view = open(&storage, "03");
    assert_eq!(view.images().map(|(_, file)| file).collect::<Vec<_>>(), ["03", "02 copy", "01"]);
    assert!(bytes_of(&view) == all[2]);
}

#[test]
fn what_was_proven_lately_as_thoroughly_and_did_not_change_is_skipped() {
    let storage = chain_of(&states(4));
    recorded(&storage, &ALL);
    let since = |not_verified_since, now_unix_ms| VerifyOptions {
        not_verified_since: Some(not_verified_since),
        now_unix_ms,
        ..ALL
    };
    let all = |word: &'static str| ["01", "02", "03", "04"].map(|file| (file, word));
    assert_eq!(outcomes(&verify(&storage, &since(1000, 5000))), all("skipped"));
    assert_eq!(outcomes(&verify(&storage, &since(1001, 5000))), all("proven"));
    assert_eq!(outcomes(&verify(&storage, &since(0, 999))), all("proven"), "of the future");
    let quick = VerifyOptions { depth: Depth::Quick, ..since(1000, 5000) };
    assert_eq!(outcomes(&verify(&storage, &quick)), all("skipped"), "deeper is enough");
    let skipped = checked(&verify(&storage, &since(1000, 5000)), "03").skipped.unwrap();
    assert_eq!(skipped, Verified { depth: Depth::Data, time_unix_ms: 1000, sound: true });
    // Nothing of them is read.
    let watched = FaultStorage::new(storage.fork());
    verify(&watched, &since(1000, 5000));
    let opened = watched.trace().into_iter().filter(|o| o.op == Op::Open).map(|o| o.name);
    assert_eq!(opened.collect::<Vec<_>>(), [CATALOGUE_NAME]);
    // One changed, one is new.
    storage.insert("02", storage.contents("02").unwrap());
    let view = open(&storage, "04");
    Step::new(5, states(1)[0].clone()).write(&storage, "05", Some(&view));
    let found = recorded(&storage, &since(1000, 5000));
    let words: Vec<_> = outcomes(&found).iter().map(|(_, word)| *word).collect();
    assert_eq!(words, ["skipped", "proven", "skipped", "skipped", "proven"]);
    let words =
        outcomes(&verify(&storage, &since(1000, 6000))).iter().all(|(_, w)| *w == "skipped");
    assert!(words);
    let found = verify(&storage, &since(2000, 6000));
    let words: Vec<_> = outcomes(&found).iter().map(|(_, word)| *word).collect();
    assert_eq!(words, ["proven", "skipped", "proven", "proven", "skipped"]);
}

#[test]
fn a_quick_look_is_not_enough_for_a_thorough_one_and_damage_is_never_skipped() {
    let storage = chain_of(&states(3));
    recorded(&storage, &VerifyOptions { depth: Depth::Quick, ..ALL });
    let lately = VerifyOptions { not_verified_since: Some(0), now_unix_ms: 2000, ..ALL };
    assert!(outcomes(&verify(&storage, &lately)).iter().all(|(_, word)| *word == "proven"));
    damage_data(&storage, "01");
    recorded(&storage, &ALL);
    let found = verify(&storage, &lately);
    assert_eq!(outcomes(&found)[0], ("01", "damaged"));
}

#[test]
fn one_set_of_several_may_be_asked_for() {
    let storage = chain_of(&states(3));
    let step = Step { set: 2, ..Step::new(8, states(1)[0].clone()) };
    step.write(&storage, "08", None);
    storage.insert("copy of 08", storage.contents("08").unwrap());
    let mut cut = storage.contents("08").unwrap().to_vec();
    cut.truncate(50_000);
    storage.insert("cut 08", cut);
    let one = VerifyOptions { set: Some(SetId([1; 16])), ..ALL };
    let proven = ["01", "02", "03"].map(|file| (file, "proven"));
    assert_eq!(outcomes(&verify(&storage, &one)), proven);
    let two = VerifyOptions { set: Some(SetId([2; 16])), ..ALL };
    let expected = [("08", "proven"), ("copy of 08", "proven"), ("cut 08", "damaged")];
    assert_eq!(outcomes(&verify(&storage, &two)), expected);
    // A damaged file that does not say whose it is may be of any set.
    let mut headless = storage.contents("01").unwrap().to_vec();
    let len = headless.len();
    headless[20] ^= 1;
    headless[len - 100] ^= 1;
    headless[len - 77_000] ^= 1;
    storage.insert("headless", headless);
    assert_eq!(outcomes(&verify(&storage, &two)).last(), Some(&("headless", "damaged")));
}

#[test]
fn a_catalogue_that_lies_about_chains_does_not_keep_anything_from_being_proven() {
    let storage = chain_of(&states(4));
    let since = VerifyOptions { not_verified_since: Some(0), now_unix_ms: 0, ..ALL };
    Folder::scan_with(&storage, Job::silent()).unwrap().1.write(&storage).unwrap();
    lie(&storage, &[(&point(2).0, &point(9).0), (&point(3).0, &point(2).0)]);
    let proven = ["01", "02", "03", "04"].map(|file| (file, "proven"));
    assert_eq!(outcomes(&verify(&storage, &since)), proven);
}

#[test]
fn results_are_recorded_for_files_that_are_still_the_same() {
    let storage = chain_of(&states(3));
    let found = verify(&storage, &ALL);
    storage.insert("02", storage.contents("02").unwrap());
    storage.remove("03").unwrap();
    found.record(&storage, Job::silent()).unwrap();
    let folder = scan(&storage);
    assert!(of_point(&folder, 1).verified.is_some());
    assert!(of_point(&folder, 2).verified.is_none());
}

#[test]
fn a_file_that_cannot_be_opened_any_more_names_the_points_that_needed_it() {
    let storage = chain_of(&states(3));
    recorded(&storage, &ALL);
    let mut cut = storage.contents("02").unwrap().to_vec();
    cut.truncate(cut.len() - 10);
    storage.insert("02", cut);
    let found = verify(&storage, &ALL);
    assert_eq!(outcomes(&found), [("01", "proven"), ("02", "damaged"), ("03", "seen")]);
    assert_eq!(checked(&found, "02").points_affected, [2, 3].map(point));
}

#[test]
fn a_damaged_parent_leaves_its_children_unproven_and_blames_itself_alone() {
    // The second image copies and changes blocks that the first one stores.
    let mut bytes = states(1).remove(0);
    let mut all = vec![bytes.clone()];
    bytes.copy_within(3 * BLOCK.., 0);
    bytes[3 * BLOCK] ^= 1;
    all.push(bytes);
    let storage = chain_of(&all);
    let last = open(&storage, "01").stretches(3).next().unwrap().unwrap().address();
    damage(&storage, "01", usize::try_from(last).unwrap() + 100);
    let found = recorded(&storage, &ALL);
    assert_eq!(outcomes(&found), [("01", "damaged"), ("02", "seen")]);
    assert_eq!(checked(&found, "01").points_affected, [1, 2].map(point));
    assert!(checked(&found, "02").points_affected.is_empty());
}

#[test]
fn many_chains_are_verified_a_few_files_at_a_time() {
    let storage = Counting(MemStorage::new(), Arc::default());
    let bytes = states(1).remove(0);
    for number in 1..=700 {
        Step::new(number, bytes[..512].to_vec()).write(&storage, &format!("{number:03}"), None);
    }
    storage.0.insert("foreign.aiv", vec![7; 9000]);
    let found = verify(&storage, &VerifyOptions { depth: Depth::Quick, ..ALL });
    assert_eq!(found.images.len(), 700);
    assert!(found.images.iter().all(Checked::is_proven));
    assert!(matches!(found.strays[0].kind, StrayKind::Foreign(_)));
    let (open, most) = *storage.1.lock().unwrap();
    assert!(open == 0 && most <= 600, "{most} of 700 files open at once");
}

#[test]
fn a_verification_can_be_stopped() {
    struct Quiet;
    impl Progress for Quiet {}
    let cancel = Cancel::new();
    cancel.cancel();
    let stopped = verify_folder(&chain_of(&states(2)), &ALL, Job::new(&Quiet, &cancel));
    assert!(matches!(stopped, Err(Error::Canceled(_))));
}
