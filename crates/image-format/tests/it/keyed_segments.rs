//! Split images with a key: each segment is proven without it, the key slots lie in the first and
//! the last one, and what somebody without the key makes of them is found with it.

use std::sync::Arc;

use aiv_image_format::limits::SEGMENT_BYTES_MIN;
use aiv_image_format::{
    Compression, Depth, Error, Features, ImageWriter, Keys, Mode, Seal, Section, SegmentError,
    verify_segment,
};
use aiv_testkit::MemStorage;
use aiv_volume_io::{Job, ReadAt};

use crate::damage::for_each;
use crate::patched::Patched;
use crate::recipe::{Block, Fill, Recipe, read_all};
use crate::sealed::{area, key, seals, slots};
use crate::segments::{Files, InMemory, check, named, open_keyed, parts, split, three};

const PAGE: usize = 4096;
const SLOTS: usize = 32 << 10;

pub(crate) fn keyed_three(mode: Mode) -> Recipe {
    let seal = Seal { mode, slots: Some(slots()), ..Seal::new(key(), 0x0102_0304) };
    Recipe { seal: Some(seal), ..three() }
}

/// Where the tail of the last segment begins.
fn last_tail(file: &[u8]) -> usize {
    let gap = if file[16] & 1 << 6 == 0 { 64 << 10 } else { 256 << 10 };
    file.len() - 3 * PAGE - gap
}

/// The files with other key slots: those behind the first superblock, those in the last gap.
fn with_slots(files: &Files, first: &[u8], second: &[u8]) -> Files {
    let mut files = files.clone();
    let last = files.len() - 1;
    let place = last_tail(&files[last]) + PAGE;
    for (at, place, slots) in [(0, PAGE, first), (last, place, second)] {
        let mut bytes = files[at].to_vec();
        bytes[place..place + SLOTS].copy_from_slice(slots);
        files[at] = Arc::new(bytes);
    }
    files
}

fn alone(file: Patched) -> Option<Vec<Section>> {
    let file: Arc<dyn ReadAt> = Arc::new(file);
    let found = verify_segment(&file, Job::silent()).ok()?;
    Some(found.report.damage.iter().map(|damage| damage.section).collect())
}

#[test]
fn every_sort_of_key_goes_with_segments_and_with_parity_in_them() {
    for seal in seals() {
        for features in [0, Features::PARITY] {
            let recipe = Recipe { seal: seal.clone(), features, ..three() };
            assert!(check(&recipe, SEGMENT_BYTES_MIN).len() >= 3);
            assert_eq!(check(&recipe, 100 << 20).len(), 1);
        }
    }
}

#[test]
fn sealed_frames_and_the_roots_count_where_a_segment_ends() {
    // Noise, padded: frames of one size, so that some would just fit if they were not sealed.
    let seal = Seal { padding: true, ..Seal::new(key(), 1) };
    for blocks in (3..24u64).step_by(4) {
        let blocks: Vec<_> = (0..blocks).map(|n| (Block::Data(Fill::Noise(n)), 1)).collect();
        let plain =
            Recipe { small_meta: true, compression: Compression::None, ..Recipe::new(&blocks) };
        let recipe = Recipe { seal: Some(seal.clone()), ..plain };
        for file in check(&recipe, SEGMENT_BYTES_MIN) {
            assert!(file.len() as u64 <= SEGMENT_BYTES_MIN, "{}", file.len());
        }
    }
}

#[test]
fn threads_that_seal_cut_where_one_alone_does() {
    let recipe = Recipe { block_size: 64 << 10, ..keyed_three(Mode::Sealed) };
    let alone = split(&recipe, 300 << 10);
    assert!(alone.len() >= 3);
    for threads in [1, 3] {
        let storage = MemStorage::new();
        let files = Box::new(InMemory(storage.clone()));
        let (superblock, seal) = (recipe.superblock(), recipe.seal.clone());
        let mut writer =
            ImageWriter::create_split_with(files, superblock, 300 << 10, seal).unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        writer.seal_in(Arc::new(pool));
        recipe.fill(writer).unwrap();
        for (no, file) in (0..).zip(&alone) {
            let name = aiv_image_format::segment_name("image", no);
            assert!(storage.contents(&name).unwrap() == *file, "{threads} threads, {name}");
        }
    }
}

#[test]
fn a_missing_segment_of_an_image_with_a_key_is_named() {
    let files = split(&keyed_three(Mode::Sealed), SEGMENT_BYTES_MIN);
    for gone in 0..files.len() {
        for keys in [Keys::none(), Keys::of(key())] {
            let mut some = parts(&files);
            some.remove(gone);
            let error = aiv_image_format::Image::open_segments_with(some, &keys).err().unwrap();
            let Error::Segments(SegmentError::Missing { number, .. }) = error else {
                panic!("{error:?}")
            };
            assert_eq!(number as usize, gone + 1);
        }
    }
}

#[test]
fn a_flipped_bit_in_any_segment_is_found_alone_and_by_the_whole_with_and_without_the_key() {
    for (mode, features) in
        [(Mode::Sealed, 0), (Mode::Authenticated, 0), (Mode::Sealed, Features::PARITY)]
    {
        let recipe = Recipe { features, ..keyed_three(mode) };
        let files = split(&recipe, SEGMENT_BYTES_MIN);
        let truth = read_all(&open_keyed(&files, &recipe.keys()).unwrap()).unwrap();
        for at in 0..files.len() {
            let len = files[at].len();
            let tail = if at + 1 == files.len() {
                last_tail(&files[at])
            } else {
                len - 3 * PAGE - (64 << 10)
            };
            let records = [0..PAGE, tail..tail + PAGE, len - 2 * PAGE..len];
            let is_tried = |byte: &usize| {
                let is_record = records.iter().any(|record| record.contains(byte));
                byte.is_multiple_of(if is_record { 401 } else { 9001 })
            };
            let tried: Vec<usize> = (0..len).filter(is_tried).collect();
            for_each(
                0..tried.len(),
                || (),
                |(), n| {
                    let (byte, bit) = (tried[n], u32::try_from(tried[n] % 8).unwrap());
                    let flipped = || Patched::new(&files[at]).flipped(byte, bit);
                    let what = format!("{mode:?}, segment {at}, bit {bit} of byte {byte}");
                    assert!(
                        alone(flipped()).is_none_or(|found| !found.is_empty()),
                        "{what}, alone"
                    );
                    let keys = if n.is_multiple_of(2) { Keys::none() } else { Keys::of(key()) };
                    let mut some = parts(&files);
                    some[at] = named(at, flipped());
                    if let Ok(image) = aiv_image_format::Image::open_segments_with(some, &keys) {
                        let found = image.verify(Depth::Data, Job::silent()).unwrap();
                        assert!(!found.is_sound(), "{what}");
                        if !image.is_locked() && n.is_multiple_of(5) {
                            let mut reader = image.block_reader();
                            for (block, (kind, bytes)) in (0..).zip(&truth) {
                                let mut out = vec![0; bytes.len()];
                                let read = reader.read(block, &mut out);
                                assert!(
                                    read.is_err() || (read.unwrap(), &out) == (*kind, bytes),
                                    "{what}"
                                );
                            }
                        }
                    }
                },
            );
        }
    }
}

#[test]
fn key_slots_lie_in_the_first_and_the_last_segment_and_may_be_rewritten() {
    for features in [0, Features::PARITY] {
        let recipe = Recipe { features, ..keyed_three(Mode::Sealed) };
        let files = split(&recipe, SEGMENT_BYTES_MIN);
        let last = files.len() - 1;
        let image = open_keyed(&files, &Keys::none()).unwrap();
        let [first, second] = image.slot_places();
        let names: Vec<String> = parts(&files).into_iter().map(|part| part.name).collect();
        let segments = image.segments().unwrap();
        assert_eq!(segments.place_of(first), Some((names[0].as_str(), PAGE as u64)));
        let in_last = last_tail(&files[last]) + PAGE;
        assert_eq!(segments.place_of(second), Some((names[last].as_str(), in_last as u64)));
        assert_eq!(segments.place_of(image.trailer().file_len), None);
        let newer = area(2).to_bytes();
        for changed in [
            with_slots(&files, &slots(), &newer),
            with_slots(&files, &newer, &newer),
            with_slots(&files, &newer, &slots()),
        ] {
            for keys in [Keys::none(), recipe.keys()] {
                let image = open_keyed(&changed, &keys).unwrap();
                assert!(image.verify(Depth::Data, Job::silent()).unwrap().is_sound());
            }
            for file in &changed {
                assert_eq!(alone(Patched::new(file)), Some(Vec::new()));
            }
            let seal = open_keyed(&changed, &recipe.keys()).unwrap().seal(7).unwrap().unwrap();
            assert!(seal.slots.unwrap()[..] == newer[..], "the newer ones go on");
        }
        // One that is damaged is told by the segment it lies in, and by the whole.
        for (at, place) in [(0, PAGE), (last, in_last)] {
            let mut damaged = files.clone();
            let mut bytes = damaged[at].to_vec();
            bytes[place + 2000] ^= 1;
            damaged[at] = Arc::new(bytes);
            for (number, file) in damaged.iter().enumerate() {
                let expected = if number == at { vec![Section::KeySlots] } else { Vec::new() };
                assert_eq!(alone(Patched::new(file)), Some(expected));
            }
            let image = open_keyed(&damaged, &recipe.keys()).unwrap();
            let found = image.verify(Depth::Data, Job::silent()).unwrap();
            assert_eq!((found.damage_count, found.damage[0].section), (1, Section::KeySlots));
        }
    }
}

#[test]
fn key_slots_of_another_chain_are_found_in_a_segment_alone() {
    let files = split(&keyed_three(Mode::Sealed), SEGMENT_BYTES_MIN);
    let other = aiv_image_format::ChainKey::new([3; 32]);
    let file = aiv_keys::KeyFile::new(&[1; 32]).unwrap();
    let (way, random) = (aiv_keys::Way::KeyFile(&file), [1; aiv_keys::NewSlot::RANDOM]);
    let new = aiv_keys::NewSlot { way, label: "", created_unix_ms: 0, random: &random };
    let foreign = aiv_keys::KeyArea::new(&other, &new).unwrap().to_bytes();
    let changed = with_slots(&files, &foreign, &foreign);
    assert_eq!(alone(Patched::new(&changed[0])), Some(vec![Section::KeySlots]));
    assert_eq!(alone(Patched::new(changed.last().unwrap())), Some(vec![Section::KeySlots]));
}

#[test]
fn a_lost_superblock_does_not_hide_which_pieces_of_a_segment_are_sound() {
    let files = split(&keyed_three(Mode::Sealed), SEGMENT_BYTES_MIN);
    let newer = area(2).to_bytes();
    let files = with_slots(&files, &newer, &newer);
    for (at, file) in files.iter().enumerate() {
        let found = alone(Patched::new(file).with(0, &[0; PAGE])).unwrap();
        let number = u32::try_from(at + 1).unwrap();
        let mut expected = vec![Section::SegmentSuperblock(number)];
        // That of the image is a part of its first piece.
        expected.extend((at == 0).then_some(Section::SegmentPiece(1)));
        assert_eq!(found, expected, "segment {at}");
    }
}

/// Mends the checksum of the superblock at `place` after a row of feature names was added, which
/// no reader looks at.
fn with_row(file: &Arc<Vec<u8>>, places: &[usize]) -> Arc<Vec<u8>> {
    let mut bytes = file.to_vec();
    for &place in places {
        let page = &mut bytes[place..place + PAGE];
        page[224 + 31 * 48..][..5].copy_from_slice(&[3, 60, 0, 0, b'x']);
        let crc = crc32c::crc32c_append(crc32c::crc32c(b"aiv.supr"), &page[..4092]);
        page[4092..].copy_from_slice(&crc.to_le_bytes());
    }
    Arc::new(bytes)
}

#[test]
fn superblocks_that_differ_in_bytes_of_no_meaning_are_found() {
    for recipe in [three(), keyed_three(Mode::Authenticated)] {
        let files = split(&recipe, SEGMENT_BYTES_MIN);
        for at in 1..files.len() {
            let len = files[at].len();
            for places in [&[0][..], &[len - 2 * PAGE], &[0, len - 2 * PAGE]] {
                let mut changed = files.clone();
                changed[at] = with_row(&files[at], places);
                let opened = open_keyed(&changed, &recipe.keys());
                let is_found = opened.is_err()
                    || !opened.unwrap().verify(Depth::Quick, Job::silent()).unwrap().is_sound();
                assert!(is_found, "segment {at}, {places:?}");
                let found = alone(Patched::new(&changed[at])).unwrap();
                // Both alike are what another writer may have written, as far as it alone can tell.
                let is_alike = places.len() == 2;
                assert_eq!(found.is_empty(), is_alike, "segment {at}, {places:?}: {found:?}");
            }
        }
    }
}

#[test]
fn a_forged_trailer_of_a_split_image_is_refused_with_the_key() {
    for mode in [Mode::Sealed, Mode::Authenticated] {
        let files = split(&keyed_three(mode), SEGMENT_BYTES_MIN);
        let last = files.len() - 1;
        let mut bytes = files[last].to_vec();
        for at in [last_tail(&bytes), bytes.len() - PAGE] {
            let page = &mut bytes[at..at + PAGE];
            page[488] ^= 1;
            let hash = crate::naive::keyed("aivory draft: trailer           ", &[&page[..4060]]);
            page[4060..4092].copy_from_slice(&hash);
            let crc = crc32c::crc32c_append(crc32c::crc32c(b"aiv.trlr"), &page[..4092]);
            page[4092..].copy_from_slice(&crc.to_le_bytes());
        }
        let mut forged = files.clone();
        forged[last] = Arc::new(bytes);
        let error = open_keyed(&forged, &Keys::of(key())).err().unwrap();
        assert!(matches!(error, Error::Forged { .. }), "{error}");
        assert!(open_keyed(&forged, &Keys::none()).is_ok(), "only the key tells");
    }
}
