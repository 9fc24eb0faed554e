//! Key slots in repairs: no parity covers them, and only the key tells whose they are.

use std::sync::Arc;

use aiv_image_format::{Depth, KeySlots, Keys, RepairReport};
use aiv_volume_io::Job;

use crate::areas::{Areas, PAGE};
use crate::recipe::open_with;
use crate::repairs::{assert_repaired, disk, repair_of, repair_with, with_burst};
use crate::sealed::{area, key, sealed};

/// Slots that somebody without the key made newer: sound by all that can be told without it.
fn forged(generation: u64) -> Vec<u8> {
    let mut bytes = area(1).to_bytes();
    bytes[8..16].copy_from_slice(&generation.to_le_bytes());
    let mut hasher = blake3::Hasher::new_keyed(b"aivory draft: key-slot area     ");
    hasher.update(&bytes[..992]).update(&bytes[1024..]);
    bytes[992..1024].copy_from_slice(hasher.finalize().as_bytes());
    let parsed = aiv_keys::KeyArea::parse(&bytes).unwrap();
    assert_eq!(parsed.generation(), generation);
    assert!(parsed.prove(&key()).is_err());
    bytes
}

/// The image with these slots in the two places.
fn with_slots(image: &[u8], [first, second]: [&[u8]; 2]) -> Vec<u8> {
    let areas = Areas::of(image);
    let mut bytes = image.to_vec();
    for (at, slots) in [(areas.slots.start, first), (areas.gap.start, second)] {
        bytes[at..at + slots.len()].copy_from_slice(slots);
    }
    bytes
}

/// Noise in both places, different in each.
fn without_slots(image: &[u8]) -> Vec<u8> {
    let areas = Areas::of(image);
    let len = areas.slots.len();
    with_burst(&with_burst(image, areas.slots.start, len), areas.gap.start, len)
}

/// What a repair makes of `damaged`.
#[track_caller]
fn check(
    damaged: &[u8],
    copies: &[&[u8]],
    keys: &Keys,
    state: KeySlots,
    expected: Option<&[u8]>,
) -> RepairReport {
    let copies = copies.iter().map(|copy| disk(copy)).collect();
    let (report, repaired): (_, Option<Arc<Vec<u8>>>) =
        repair_with(disk(damaged), copies, keys).unwrap();
    assert_eq!(report.key_slots, state);
    match (repaired, expected) {
        (Some(repaired), Some(expected)) => assert!(*repaired == expected, "other bytes"),
        (None, None) => {}
        (repaired, _) => panic!("made: {}, {report:?}", repaired.is_some()),
    }
    report
}

#[test]
fn an_image_with_a_key_is_repaired_without_it_and_keeps_its_key_slots() {
    let good = crate::sealed::sealed().build();
    let areas = Areas::of(&good);
    let slots = areas.slots.len();
    assert_eq!(slots, 32 << 10);
    // A page of index, either trailer, either superblock, and either copy of the slots.
    let places = [
        (areas.index.start, PAGE),
        (areas.first_trailer.start, PAGE),
        (areas.last_trailer.start, PAGE),
        (0, PAGE),
        (areas.superblock_copy.start, PAGE),
        (areas.slots.start, slots),
        (areas.slots.start + 100, 5),
        (areas.gap.start, slots),
        (areas.gap.start + slots, 100),
        (areas.list.start, 32),
    ];
    assert_repaired(&good, &good, "nothing is wrong");
    for (at, len) in places {
        let damaged = with_burst(&good, at, len);
        let report = assert_repaired(&good, &damaged, &format!("{len} bytes at {at}"));
        let is_slots = [areas.slots.start, areas.slots.start + 100, areas.gap.start].contains(&at);
        let told = if is_slots { KeySlots::Copied } else { KeySlots::Sound };
        assert_eq!(report.key_slots, told, "{len} bytes at {at}");
        assert!(!(is_slots && report.tail), "{len} bytes at {at}: {report:?}");
    }
}

#[test]
fn slots_that_are_lost_in_both_places_are_told_and_nothing_is_made_up() {
    let good = sealed().build();
    let damaged = without_slots(&good);
    let report = check(&damaged, &[], &Keys::none(), KeySlots::Lost, None);
    assert!(!report.is_sound() && !report.is_complete() && report.pieces_lost == 0);
    // Not even with the key, which still opens the image.
    check(&damaged, &[], &sealed().keys(), KeySlots::Lost, None);
    let image = open_with(&Arc::new(damaged.clone()), &sealed().keys()).unwrap();
    assert!(!image.verify(Depth::Quick, Job::silent()).unwrap().is_sound());
    // Slots of another chain are none.
    let other = aiv_keys::ChainKey::new([7; 32]);
    let file = aiv_keys::KeyFile::new(&[1; 64]).unwrap();
    let way = aiv_keys::Way::KeyFile(&file);
    let random = [9; aiv_keys::NewSlot::RANDOM];
    let new = aiv_keys::NewSlot { way, label: "", created_unix_ms: 0, random: &random };
    let foreign = aiv_keys::KeyArea::new(&other, &new).unwrap().to_bytes();
    let damaged = with_slots(&good, [&foreign, &foreign]);
    check(&damaged, &[], &Keys::none(), KeySlots::Lost, None);
}

#[test]
fn slots_that_are_lost_in_both_places_come_from_another_copy_of_the_image() {
    let good = sealed().build();
    let (older, newer) = (area(1).to_bytes(), area(2).to_bytes());
    let damaged = without_slots(&good);
    let (none, keys) = (Keys::none(), sealed().keys());
    check(&damaged, &[&good], &none, KeySlots::FromCopy, Some(&good));
    check(&damaged, &[&damaged, &good], &keys, KeySlots::FromCopy, Some(&good));
    // Of a copy that is damaged in one place, the other.
    let half = with_burst(&with_slots(&good, [&older, &newer]), PAGE, 100);
    let both = with_slots(&good, [&newer, &newer]);
    check(&damaged, &[&half], &none, KeySlots::FromCopy, Some(&both));
    // Two that differ: the key knows which one counts, and nobody else.
    let forged = with_slots(&good, [&older, &forged(9)]);
    check(&damaged, &[&forged], &none, KeySlots::FromCopy, Some(&forged));
    check(&damaged, &[&forged], &keys, KeySlots::FromCopy, Some(&good));
}

#[test]
fn sound_slots_are_never_overwritten_by_newer_ones_that_nobody_proved() {
    let good = sealed().build();
    let (own, forged) = (area(1).to_bytes(), forged(1000));
    for places in [[&own[..], &forged], [&forged, &own]] {
        let found = with_slots(&good, places);
        let report = check(&found, &[], &Keys::none(), KeySlots::Differ, Some(&found));
        assert!(report.is_sound());
        // Damage elsewhere is repaired, and both stay.
        let damaged = with_burst(&found, Areas::of(&good).index.start, PAGE);
        check(&damaged, &[], &Keys::none(), KeySlots::Differ, Some(&found));
        // With the key the forged one goes.
        check(&found, &[], &sealed().keys(), KeySlots::Copied, Some(&good));
    }
    // Two forged ones open nothing: as good as lost, where the key tells.
    let found = with_slots(&good, [&forged, &forged]);
    check(&found, &[], &sealed().keys(), KeySlots::Lost, None);
    check(&found, &[&good], &sealed().keys(), KeySlots::FromCopy, Some(&good));
}

#[test]
fn a_change_of_key_slots_that_was_cut_off_is_completed_by_a_repair_with_the_key() {
    let good = sealed().build();
    let (older, newer) = (area(1).to_bytes(), area(2).to_bytes());
    let cut_off = with_slots(&good, [&older, &newer]);
    let whole = with_slots(&good, [&newer, &newer]);
    check(&cut_off, &[], &sealed().keys(), KeySlots::Copied, Some(&whole));
    check(&cut_off, &[], &Keys::none(), KeySlots::Differ, Some(&cut_off));
    let image = open_with(&Arc::new(whole), &sealed().keys()).unwrap();
    assert!(image.verify(Depth::Data, Job::silent()).unwrap().is_sound());
}

#[test]
fn the_first_piece_of_another_copy_does_not_bring_its_key_slots_along() {
    let good = sealed().build();
    let newer = area(2).to_bytes();
    let ours = with_slots(&good, [&newer, &newer]);
    // Behind superblock and slots, where the first frames are.
    let at = Areas::of(&good).slots.end + 64;
    let damaged = with_burst(&ours, at, 500);
    let (report, _) = repair_of(disk(&damaged), Vec::new()).unwrap();
    assert_eq!(report.pieces_lost, 1);
    let forged = with_slots(&good, [&forged(1000), &forged(1000)]);
    for copy in [&good[..], &without_slots(&good), &forged] {
        let report = check(&damaged, &[copy], &Keys::none(), KeySlots::Sound, Some(&ours));
        assert_eq!((report.pieces_from_copies, report.pieces_lost), (1, 0));
    }
    // Nor where the slots of this file are damaged in one place.
    let damaged = with_burst(&damaged, PAGE, 500);
    check(&damaged, &[&good], &Keys::none(), KeySlots::Copied, Some(&ours));
}
