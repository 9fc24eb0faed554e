//! Words that name a recovery point.

use aiv_chain::{Error, Folder, PointId, Selector};
use aiv_testkit::MemStorage;
use aiv_volume_io::Job;

use crate::common::{Spec, two_sets};

fn folder() -> Folder {
    Folder::scan(&two_sets(), Job::silent()).unwrap()
}

fn find(folder: &Folder, words: &str) -> Result<u8, Error> {
    let (_, point) = words.parse::<Selector>()?.find(folder)?;
    Ok(point.id.0[0])
}

#[track_caller]
fn check(words: &str, point: u8) {
    let found = find(&folder(), words);
    assert!(matches!(found, Ok(id) if id == point), "{words}: {found:?}");
}

#[track_caller]
fn check_none(words: &str) {
    let found = find(&folder(), words);
    assert!(matches!(&found, Err(Error::NoSuchPoint { wanted }) if wanted == words), "{found:?}");
}

#[track_caller]
fn check_ambiguous(words: &str, expected: &[&str]) {
    let found = find(&folder(), words);
    let Err(Error::Ambiguous { wanted, candidates }) = &found else { panic!("{found:?}") };
    assert_eq!((wanted.as_str(), candidates.as_slice().len()), (words, expected.len()));
    for (candidate, expected) in candidates.iter().zip(expected) {
        assert!(candidate.starts_with(expected), "{candidate} {expected}");
    }
}

#[test]
fn latest_counts_back_from_the_newest_point_of_a_set() {
    check("set1:latest", 3);
    check("set1:latest~0", 3);
    check("set1:latest~1", 2);
    check("set1:latest~2", 1);
    check("set2:latest", 0x11);
}

#[test]
fn latest_before_the_first_point_is_none() {
    check_none("set1:latest~3");
    check_none("set2:latest~1");
    check_none("set1:latest~99999999999");
}

#[test]
fn latest_without_a_set_is_ambiguous_where_there_are_several_sets() {
    check_ambiguous("latest", &["set1:latest", "set2:latest"]);
    check_ambiguous("latest~1", &["set1:latest~1", "set2:latest~1"]);
    let storage = MemStorage::new();
    Spec::new(7, 9).write(&storage, "only");
    let folder = Folder::scan(&storage, Job::silent()).unwrap();
    assert_eq!(find(&folder, "latest").unwrap(), 9);
}

#[test]
fn an_id_or_its_unique_beginning_names_a_point_in_any_set() {
    check(&PointId([2; 16]).to_string(), 2);
    check("02", 2);
    check("0202", 2);
    check("11", 0x11);
    check("1", 0x11);
    check("set1:03", 3);
}

#[test]
fn an_id_may_be_written_in_capitals() {
    let storage = MemStorage::new();
    Spec::new(1, 0xAB).write(&storage, "a");
    let folder = Folder::scan(&storage, Job::silent()).unwrap();
    assert_eq!(find(&folder, "ABAB").unwrap(), 0xAB);
}

#[test]
fn a_beginning_of_several_ids_is_ambiguous_and_lists_them() {
    check_ambiguous("0", &["0101", "0202", "0303"]);
}

#[test]
fn a_set_may_be_named_by_the_beginning_of_its_id() {
    check("0101:latest", 3);
    check("02:latest", 0x11);
}

#[test]
fn a_name_is_never_taken_for_the_beginning_of_another_sets_id() {
    let storage = MemStorage::new();
    for (set, name) in [(0xAB, "disk"), (0x12, "a")] {
        Spec { name: name.to_owned(), ..Spec::new(set, set) }.write(&storage, name);
    }
    let folder = Folder::scan(&storage, Job::silent()).unwrap();
    assert_eq!(find(&folder, "a:latest").unwrap(), 0x12);
    assert_eq!(find(&folder, "ab:latest").unwrap(), 0xAB);
}

#[test]
fn what_names_nothing_is_said_to() {
    for words in [
        "",
        "ff",
        "set3:latest",
        "set2:01",
        "newest",
        "latest~",
        "latest~x",
        "latest-1",
        "set1:",
        ":",
        ":latest",
    ] {
        check_none(words);
    }
}

#[test]
fn a_set_name_may_hold_colons() {
    let storage = MemStorage::new();
    for set in [1, 2] {
        Spec { name: format!("vm:disk{set}"), ..Spec::new(set, set) }
            .write(&storage, &set.to_string());
    }
    let folder = Folder::scan(&storage, Job::silent()).unwrap();
    assert_eq!(find(&folder, "vm:disk2:latest").unwrap(), 2);
}

#[test]
fn two_sets_of_one_name_are_offered_in_words_that_tell_them_apart() {
    let storage = MemStorage::new();
    for set in [0xA1, 0xB2] {
        Spec { name: "disk".to_owned(), ..Spec::new(set, set) }.write(&storage, &set.to_string());
    }
    let folder = Folder::scan(&storage, Job::silent()).unwrap();
    let Err(Error::Ambiguous { candidates, .. }) = find(&folder, "disk:latest") else {
        panic!("two sets have that name")
    };
    let found: Vec<u8> = candidates.iter().map(|words| find(&folder, words).unwrap()).collect();
    assert_eq!(found, [0xA1, 0xB2]);
}
