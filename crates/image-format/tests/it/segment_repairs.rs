//! Damaged split images are made whole again, file by file and byte for byte, or not at all.

use std::sync::Arc;

use aiv_image_format::limits::SEGMENT_BYTES_MIN;
use aiv_image_format::{
    Error, Features, KeySlots, Keys, Mode, RepairReport, SegmentError, SegmentFile, SegmentsRepair,
    segment_name,
};
use aiv_testkit::MemStorage;
use aiv_volume_io::Job;
use proptest::prelude::*;

use crate::keyed_segments::keyed_three;
use crate::patched::Patched;
use crate::recipe::{Block, Fill, Recipe, noise};
use crate::sealed::area;
use crate::segments::{Files, InMemory, parts, split, three};

const PAGE: usize = 4096;
const PIECE: usize = 64 << 10;
const TAIL: usize = 3 * PAGE + PIECE;

type Outcome = aiv_image_format::Result<(RepairReport, Option<Files>)>;

fn named(no: usize, bytes: &[u8]) -> SegmentFile {
    crate::segments::named(no, Patched::new(&Arc::new(bytes.to_vec())))
}

/// What comes of repairing these files of an image, with the help of others.
fn repair(good: &Files, files: &[SegmentFile], copies: &[SegmentFile], keys: &Keys) -> Outcome {
    let image = aiv_image_format::ImageId(good[0][48..64].try_into().unwrap());
    let mut repair = SegmentsRepair::of(image, files, copies, keys, Job::silent())?;
    let report = repair.report().clone();
    let storage = MemStorage::new();
    match repair.write(Box::new(InMemory(storage.clone())), Job::silent()) {
        Ok(()) => {
            let name = |no: usize| segment_name("image", u32::try_from(no).unwrap());
            let all = (0..).map_while(|no| storage.contents(&name(no))).collect();
            Ok((report, Some(all)))
        }
        Err(Error::Misuse(_)) if !report.is_complete() => Ok((report, None)),
        Err(error) => Err(error),
    }
}

#[track_caller]
fn assert_repaired(good: &Files, files: &[SegmentFile], what: &str) -> RepairReport {
    let (report, made) =
        repair(good, files, &[], &Keys::none()).unwrap_or_else(|error| panic!("{what}: {error}"));
    let made = made.unwrap_or_else(|| panic!("{what}: {report:?}"));
    assert!(made == *good, "{what}: the repaired files differ");
    report
}

/// The files, with some bytes of one of them replaced by noise.
fn with_burst(good: &Files, at: usize, place: usize, len: usize) -> Vec<SegmentFile> {
    let mut bytes = good[at].to_vec();
    let end = (place + len).min(bytes.len());
    bytes[place..end].copy_from_slice(&noise(place as u64, end - place));
    let mut files = parts(good);
    files[at] = named(at, &bytes);
    files
}

fn victims() -> [(&'static str, Files); 4] {
    let with = |recipe: Recipe, features| split(&Recipe { features, ..recipe }, SEGMENT_BYTES_MIN);
    [
        ("plain", with(three(), 0)),
        ("parity", with(three(), Features::PARITY)),
        ("sealed", with(keyed_three(Mode::Sealed), 0)),
        ("authenticated with parity", with(keyed_three(Mode::Authenticated), Features::PARITY)),
    ]
}

#[test]
fn sound_segments_need_no_repair_and_are_written_as_they_are() {
    for (name, good) in victims() {
        assert!(good.len() >= 3);
        assert!(assert_repaired(&good, &parts(&good), name).is_sound());
        let mut shuffled = parts(&good);
        shuffled.reverse();
        assert!(assert_repaired(&good, &shuffled, name).is_sound());
    }
}

#[test]
fn whatever_wraps_a_slice_is_made_anew() {
    for (name, good) in victims() {
        for at in 0..good.len() - 1 {
            let len = good[at].len();
            let list = len - TAIL - PAGE;
            let places = [(0, PAGE), (list, PAGE), (len - TAIL, PAGE), (len - TAIL + PAGE, PIECE)];
            for (place, count) in
                places.into_iter().chain([(len - 2 * PAGE, PAGE), (len - PAGE, 9)])
            {
                if at == 0 && place == 0 {
                    // That of the image itself: its copy is in the last segment.
                    continue;
                }
                let what = format!("{name}, segment {at}, {count} bytes at {place}");
                let report = assert_repaired(&good, &with_burst(&good, at, place, count), &what);
                assert_eq!((report.segments, report.pieces_lost), (1, 0), "{what}");
                assert!(!report.is_sound());
            }
            // All of its tail: where it ends, the next one tells.
            let what = format!("{name}, segment {at} without its tail");
            let report = assert_repaired(&good, &with_burst(&good, at, list, len), &what);
            assert_eq!(report.segments, 1, "{what}");
            let mut cut = parts(&good);
            cut[at] = named(at, &good[at][..list]);
            assert_repaired(&good, &cut, &what);
        }
    }
}

#[test]
fn a_damaged_superblock_and_metadata_are_found_again_as_in_one_file() {
    for (name, good) in victims() {
        let last = good.len() - 1;
        let report = assert_repaired(&good, &with_burst(&good, 0, 0, PAGE), name);
        assert!(report.pages >= 1, "{name}: {report:?}");
        for place in (0..good[last].len()).step_by(50_000) {
            // Where pieces have parity, anything; else what is metadata.
            let has_parity = good[0][16] & 1 << 6 != 0;
            let is_tail = place + PAGE > good[last].len() - TAIL;
            if has_parity || is_tail {
                let what = format!("{name}, last segment, a page at {place}");
                assert_repaired(&good, &with_burst(&good, last, place, PAGE), &what);
            }
        }
    }
}

#[test]
fn a_burst_anywhere_in_any_segment_is_repaired_by_parity_without_a_key() {
    for (name, good) in victims().into_iter().filter(|(name, _)| name.contains("parity")) {
        for at in 0..good.len() {
            for place in (0..good[at].len()).step_by(37_000) {
                let what = format!("{name}, segment {at}, burst at {place}");
                assert_repaired(&good, &with_burst(&good, at, place, PIECE), &what);
            }
        }
    }
}

#[test]
fn a_segment_that_is_missing_is_made_anew_where_parity_tells_all_of_it() {
    for (name, good) in victims().into_iter().filter(|(name, _)| name.contains("parity")) {
        // Each of the others holds a piece or two of one stripe; the first has key slots, too.
        for gone in 0..good.len() - 1 {
            let mut files = parts(&good);
            files.remove(gone);
            let what = format!("{name}, without segment {gone}");
            let (report, made) = repair(&good, &files, &[], &Keys::none()).unwrap();
            assert!(report.segments == 1 && report.pieces_by_parity > 0, "{what}: {report:?}");
            assert!(made.is_some_and(|made| made == good), "{what}: {report:?}");
        }
    }
}

#[test]
fn a_missing_segment_stays_lost_without_parity_and_comes_from_a_copy() {
    for (name, good) in victims() {
        let has_parity = name.contains("parity");
        for gone in 0..good.len() {
            let mut files = parts(&good);
            files.remove(gone);
            let is_last = gone + 1 == good.len();
            match repair(&good, &files, &[], &Keys::none()) {
                // By which everything is proven.
                Err(Error::Segments(SegmentError::Missing { number, .. })) => {
                    assert!(is_last && number as usize == good.len(), "{name}, {gone}: {number}");
                }
                Err(error) => panic!("{name}, {gone}: {error}"),
                Ok((report, made)) => {
                    assert_eq!(made.is_some(), has_parity, "{name}, {gone}: {report:?}");
                    assert!(has_parity || report.pieces_lost > 0, "{name}, {gone}: {report:?}");
                }
            }
            // Another copy has it, under whatever name, between others.
            let other = Recipe { id: 11, ..three() };
            let mut copies = parts(&split(&other, SEGMENT_BYTES_MIN));
            copies.push(named(7, &good[gone]));
            let (report, made) = repair(&good, &files, &copies, &Keys::none()).unwrap();
            assert!(made.is_some_and(|made| made == good), "{name}, {gone}: {report:?}");
            assert_eq!((report.segments, report.pieces_lost), (1, 0), "{name}, {gone}");
        }
    }
}

#[test]
fn two_damaged_copies_give_one_whole_image() {
    for (name, good) in victims() {
        let half = |from: usize| -> Vec<SegmentFile> {
            let change = |(at, bytes): (usize, &Arc<Vec<u8>>)| {
                let mut bytes = bytes.to_vec();
                if at % 2 == from && at + 1 < good.len() {
                    let end = bytes.len() - TAIL - PAGE;
                    bytes[PAGE + 40_000..end].fill(0x77);
                }
                named(at, &bytes)
            };
            good.iter().enumerate().map(change).collect()
        };
        let (report, made) = repair(&good, &half(0), &half(1), &Keys::none()).unwrap();
        assert!(made.is_some_and(|made| made == good), "{name}: {report:?}");
        // The same damage twice is no help.
        let (report, made) = repair(&good, &half(0), &half(0), &Keys::none()).unwrap();
        assert!(made.is_none() || name.contains("parity"), "{name}: {report:?}");
    }
}

#[test]
fn what_stays_lost_is_named_and_nothing_is_written() {
    let good = split(&three(), SEGMENT_BYTES_MIN);
    let (report, made) =
        repair(&good, &with_burst(&good, 1, PAGE + 100, 10), &[], &Keys::none()).unwrap();
    assert!(made.is_none());
    let start = u64::from_le_bytes(good[1][1824..1832].try_into().unwrap());
    assert_eq!((report.pieces_lost, report.lost[0].start), (1, start));
    assert!(!report.lost_blocks.is_empty());
    // Of a sealed one, with its key.
    let recipe = keyed_three(Mode::Sealed);
    let good = split(&recipe, SEGMENT_BYTES_MIN);
    let files = with_burst(&good, 1, PAGE + 100, 10);
    let (report, _) = repair(&good, &files, &[], &Keys::none()).unwrap();
    assert!(report.pieces_lost == 1 && report.lost_blocks.is_empty());
    let (report, _) = repair(&good, &files, &[], &recipe.keys()).unwrap();
    assert!(!report.lost_blocks.is_empty());
}

#[test]
fn key_slots_are_copied_from_the_other_segment_and_changed_ones_stay() {
    for features in [0, Features::PARITY] {
        let recipe = Recipe { features, ..keyed_three(Mode::Sealed) };
        let written = split(&recipe, SEGMENT_BYTES_MIN);
        let (last, slots) = (written.len() - 1, area(2).to_bytes());
        let gap = if features == 0 { TAIL } else { TAIL + 3 * PIECE };
        let place = written[last].len() - gap + PAGE;
        let mut good = written.clone();
        for (at, place) in [(0, PAGE), (last, place)] {
            let mut bytes = good[at].to_vec();
            bytes[place..place + slots.len()].copy_from_slice(&slots);
            good[at] = Arc::new(bytes);
        }
        assert!(assert_repaired(&good, &parts(&good), "changed").is_sound());
        for (at, place) in [(0, PAGE), (last, place)] {
            let what = format!("slots of segment {at}");
            let report = assert_repaired(&good, &with_burst(&good, at, place, 30_000), &what);
            assert_eq!((report.key_slots, report.pieces_lost), (KeySlots::Copied, 0), "{what}");
        }
        // Both: from a copy with older ones.
        let mut files = with_burst(&good, 0, PAGE, 30_000);
        files[last] = with_burst(&good, last, place, 30_000).remove(last);
        let (report, made) = repair(&good, &files, &[], &Keys::none()).unwrap();
        assert!(made.is_none() && report.key_slots == KeySlots::Lost);
        let (report, made) = repair(&good, &files, &parts(&written), &Keys::none()).unwrap();
        assert_eq!(report.key_slots, KeySlots::FromCopy);
        assert!(made.is_some_and(|made| made == written));
    }
}

#[test]
fn segments_that_lie_about_their_places_are_refused_or_made_right() {
    let good = split(&three(), SEGMENT_BYTES_MIN);
    let image = aiv_image_format::ImageId(good[0][48..64].try_into().unwrap());
    // Of another image, nothing, and no file at all.
    for files in [Vec::new(), parts(&split(&Recipe { id: 11, ..three() }, SEGMENT_BYTES_MIN))] {
        let found = SegmentsRepair::of(image, &files, &[], &Keys::none(), Job::silent());
        assert!(matches!(found.err(), Some(Error::Segments(SegmentError::Missing { .. }))));
    }
    // Two in a row are gone: nobody knows where the second of them began.
    let blocks: Vec<_> = (0..24).map(|n| (Block::Data(Fill::Noise(n)), 1)).collect();
    let many = split(&Recipe { small_meta: true, ..Recipe::new(&blocks) }, SEGMENT_BYTES_MIN);
    assert!(many.len() >= 5);
    let mut files = parts(&many);
    files.drain(1..3);
    let found = repair(&many, &files, &[], &Keys::none()).err().unwrap();
    assert!(matches!(found, Error::Segments(SegmentError::Missing { number: 3, .. })), "{found:?}");
    let (_, made) = repair(&many, &files, &parts(&many)[1..3], &Keys::none()).unwrap();
    assert!(made.is_some_and(|made| made == many));
}

/// Numbers from `seed`, one after the other.
struct Dice(Vec<u8>, usize);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        let bytes = self.0[self.1..self.1 + 8].try_into().unwrap();
        self.1 += 8;
        usize::try_from(u64::from_le_bytes(bytes) % limit as u64).unwrap()
    }
}

#[test]
fn whatever_is_damaged_what_is_written_is_what_was_or_nothing() {
    let (mut made, mut refused) = (0, 0);
    for (name, good) in victims() {
        for seed in 0..80u64 {
            let mut dice = Dice(noise(seed, 400), 0);
            let mut files: Vec<Vec<u8>> = good.iter().map(|file| file.to_vec()).collect();
            for _ in 0..=dice.below(4) {
                let at = dice.below(files.len());
                let file = &mut files[at];
                let place = dice.below(file.len().max(1));
                match dice.below(8) {
                    0 => file.truncate(place),
                    1 => file.clear(),
                    2 => {
                        let other = good[dice.below(good.len())].to_vec();
                        files[at] = other;
                    }
                    _ => {
                        let end = (place + 1 + dice.below(20_000)).min(file.len());
                        let start = place.min(end);
                        file[start..end].copy_from_slice(&noise(seed + 1000, end - start));
                    }
                }
            }
            let files: Vec<SegmentFile> =
                files.iter().enumerate().map(|(no, bytes)| named(no, bytes)).collect();
            match repair(&good, &files, &[], &Keys::none()) {
                Ok((_, Some(files))) => {
                    assert!(files == good, "{name}, seed {seed}");
                    made += 1;
                }
                Ok((_, None)) => refused += 1,
                Err(Error::Misuse(what)) => panic!("{name}, seed {seed}: {what}"),
                Err(_) => refused += 1,
            }
        }
    }
    assert!(made > 60 && refused > 60, "{made} made, {refused} refused");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    /// Whatever records say whose checksums fit, a repair ends, with an error or the image.
    #[test]
    fn forged_numbers_lead_to_an_error_or_to_the_image(
        at in 0usize..3, field in 0usize..9, value in any::<u64>(), shift in 0u32..64,
    ) {
        let good = split(&three(), SEGMENT_BYTES_MIN);
        let at = at.min(good.len() - 1);
        let mut bytes = good[at].to_vec();
        let (len, value) = (bytes.len(), (value >> shift).to_le_bytes());
        let is_last = at + 1 == good.len();
        // Superblock, or both trailers of the segment or the image.
        let (places, offset, salt) = match field {
            0 => (vec![0], 148, &b"aiv.supr"[..]),
            1 => (vec![0], 1824, &b"aiv.supr"[..]),
            _ if is_last => {
                let at = [240, 408, 416, 560, 568, 608, 360][field - 2];
                (vec![len - TAIL, len - PAGE], at, &b"aiv.trlr"[..])
            }
            _ => (vec![len - TAIL, len - PAGE], [64, 72, 80, 88, 96, 104, 112][field - 2], &b"aiv.segt"[..]),
        };
        for place in places {
            let page = &mut bytes[place..place + PAGE];
            let width = if matches!(offset, 148 | 64 | 608) { 4 } else { 8 };
            page[offset..offset + width].copy_from_slice(&value[..width]);
            if salt != b"aiv.supr" {
                let keys = [b"aivory draft: segment trailer   ", b"aivory draft: trailer           "];
                let key = keys[usize::from(is_last)];
                let hash = *blake3::keyed_hash(key, &page[..4060]).as_bytes();
                page[4060..4092].copy_from_slice(&hash);
            }
            let crc = crc32c::crc32c_append(crc32c::crc32c(salt), &page[..4092]);
            page[4092..].copy_from_slice(&crc.to_le_bytes());
        }
        let mut files = parts(&good);
        files[at] = named(at, &bytes);
        if let Ok((_, Some(made))) = repair(&good, &files, &[], &Keys::none()) {
            prop_assert!(made == good || made.len() == good.len());
        }
    }
}
