//! Damage and lies in what wraps the slices of a split image.

use std::sync::Arc;

use aiv_image_format::limits::SEGMENT_BYTES_MIN;
use aiv_image_format::{
    Depth, Error, Image, Section, SegmentError, Segments, peek_segment, verify_segment,
};
use aiv_volume_io::{Job, ReadAt};
use proptest::prelude::*;

use crate::damage::for_each;
use crate::patched::Patched;
use crate::recipe::read_all;
use crate::segments::{Files, named, open, parts, split, three};

const TAIL: usize = 3 * 4096 + (64 << 10);

/// The image with one file changed.
fn with(files: &Files, at: usize, file: Patched) -> aiv_image_format::Result<Image> {
    let mut some = parts(files);
    some[at] = named(at, file);
    Image::open_segments(some)
}

/// Whether damage was noticed by opening or verifying the whole.
fn is_noticed(image: aiv_image_format::Result<Image>) -> bool {
    match image {
        Ok(image) => {
            let found = image.verify(Depth::Data, Job::silent()).unwrap();
            !found.is_sound()
        }
        Err(Error::Io { .. } | Error::Misuse(_)) => panic!("damage is neither of these"),
        Err(_) => true,
    }
}

/// Whether one segment by itself shows it.
fn is_noticed_alone(file: Patched) -> bool {
    let file: Arc<dyn ReadAt> = Arc::new(file);
    match verify_segment(&file, Job::silent()) {
        Ok(alone) => !alone.report.is_sound(),
        Err(Error::Io { .. } | Error::Misuse(_)) => panic!("damage is neither of these"),
        Err(_) => true,
    }
}

#[test]
fn a_flipped_bit_in_any_segment_is_found_by_the_segment_alone_and_by_the_whole() {
    let files = split(&three(), SEGMENT_BYTES_MIN);
    let truth = read_all(&open(&files).unwrap()).unwrap();
    for at in 0..files.len() {
        let len = files[at].len();
        let records = [0..4096, len - TAIL..len - TAIL + 4096, len - 8192..len];
        let list = len - TAIL - 4096..len - TAIL;
        // Of what means something one bit of many bytes, of the rest of fewer.
        let is_tried = |byte: usize| {
            if list.contains(&byte) {
                return byte.is_multiple_of(7);
            }
            let is_record = records.iter().any(|record| record.contains(&byte));
            byte.is_multiple_of(if is_record { 11 } else { 211 })
        };
        let tried: Vec<usize> = (0..len).filter(|&byte| is_tried(byte)).collect();
        for_each(
            0..tried.len(),
            || (),
            |(), n| {
                let byte = tried[n];
                let bit = u32::try_from(byte % 8).unwrap();
                let flipped = || Patched::new(&files[at]).flipped(byte, bit);
                assert!(is_noticed_alone(flipped()), "segment {at}, byte {byte}, bit {bit}, alone");
                let image = with(&files, at, flipped());
                if let Ok(image) = &image
                    && n.is_multiple_of(16)
                {
                    let mut reader = image.block_reader();
                    for (block, (kind, bytes)) in (0..).zip(&truth) {
                        let mut out = vec![0; bytes.len()];
                        if let Ok(found) = reader.read(block, &mut out) {
                            assert!(
                                out == *bytes && found == *kind,
                                "block {block} is another one"
                            );
                        }
                    }
                }
                assert!(is_noticed(image), "segment {at}, byte {byte}, bit {bit}");
            },
        );
    }
}

#[test]
fn one_lost_copy_of_a_record_costs_nothing_but_is_told() {
    let files = split(&three(), SEGMENT_BYTES_MIN);
    let truth = read_all(&open(&files).unwrap()).unwrap();
    for at in 0..files.len() {
        let len = files[at].len();
        for place in [0, len - TAIL, len - 8192, len - 4096] {
            let lost = || Patched::new(&files[at]).with(place, &[0; 4096]);
            let image = with(&files, at, lost()).unwrap();
            assert_eq!(read_all(&image).unwrap(), truth, "segment {at} without {place}");
            let found = image.verify(Depth::Data, Job::silent()).unwrap();
            assert!(!found.is_sound(), "segment {at} without {place}");
            assert!(is_noticed_alone(lost()));
            let head = peek_segment(&lost()).unwrap();
            assert_eq!(head.no as usize, at, "it still says which one it is");
        }
        if at + 1 < files.len() {
            let both = Patched::new(&files[at]).with(len - TAIL, &[0; 4096]);
            let error = with(&files, at, both.with(len - 4096, &[0; 4096])).err().unwrap();
            let number = u32::try_from(at + 1).unwrap();
            let cut = SegmentError::CutOff { number, len: len as u64 };
            assert!(matches!(&error, Error::Segments(found) if *found == cut), "{error:?}");
        }
    }
}

/// Mends the checksums of the record at `place` after `change`, as somebody who lies would.
fn forged(file: &Arc<Vec<u8>>, place: usize, salt: &[u8], change: &dyn Fn(&mut [u8])) -> Vec<u8> {
    let mut bytes = file.to_vec();
    let page = &mut bytes[place..place + 4096];
    change(page);
    if salt == b"aiv.segt" {
        let key = b"aivory draft: segment trailer   ";
        let hash = *blake3::keyed_hash(key, &page[..4060]).as_bytes();
        page[4060..4092].copy_from_slice(&hash);
    }
    if salt == b"aiv.trlr" {
        let key = b"aivory draft: trailer           ";
        let hash = *blake3::keyed_hash(key, &page[..4060]).as_bytes();
        page[4060..4092].copy_from_slice(&hash);
    }
    let crc = crc32c::crc32c_append(crc32c::crc32c(salt), &page[..4092]);
    page[4092..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Forges superblock and both trailers of a segment alike.
fn lying(file: &Arc<Vec<u8>>, head: &dyn Fn(&mut [u8]), tail: &dyn Fn(&mut [u8])) -> Arc<Vec<u8>> {
    let len = file.len();
    let mut bytes = Arc::new(forged(file, 0, b"aiv.supr", head));
    bytes = Arc::new(forged(&bytes, len - 8192, b"aiv.supr", head));
    bytes = Arc::new(forged(&bytes, len - TAIL, b"aiv.segt", tail));
    Arc::new(forged(&bytes, len - 4096, b"aiv.segt", tail))
}

fn put(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

#[test]
fn segments_that_overlap_or_leave_a_gap_are_refused() {
    let files = split(&three(), SEGMENT_BYTES_MIN);
    let right = u64::from_le_bytes(files[1][1824..1832].try_into().unwrap());
    for start in [right * 2, right * 3, 1 << 40] {
        let mut lies = files.clone();
        lies[1] = lying(&files[1], &|b| put(b, 1824, start), &|b| {
            put(b, 72, start);
            put(b, 88, start >> 16);
        });
        let error = open(&lies).err().unwrap();
        let wanted = SegmentError::Misplaced { number: 2, found: start, expected: right };
        assert!(matches!(&error, Error::Segments(found) if *found == wanted), "{error:?}");
    }
}

#[test]
fn two_segments_that_change_places_are_refused() {
    let files = split(&three(), SEGMENT_BYTES_MIN);
    let place = |no: u32, start: u64| {
        move |b: &mut [u8]| {
            b[148..152].copy_from_slice(&no.to_le_bytes());
            put(b, 1824, start);
        }
    };
    // The numbers are exchanged, and nothing else: the places betray it.
    let mut lies = files.clone();
    let start = |at: usize| u64::from_le_bytes(files[at][1824..1832].try_into().unwrap());
    lies[1] = lying(&files[1], &place(2, start(1)), &|b| b[64] = 2);
    let error = open(&lies).err().unwrap();
    assert!(matches!(error, Error::Segments(_)), "{error:?}");
    // The places, too: then the hashes do.
    if files.len() > 3 {
        lies[1] = lying(&files[1], &place(2, start(2)), &|b| {
            b[64] = 2;
            put(b, 72, start(2));
            put(b, 88, start(2) >> 16);
        });
        lies[2] = lying(&files[2], &place(1, start(1)), &|b| {
            b[64] = 1;
            put(b, 72, start(1));
            put(b, 88, start(1) >> 16);
        });
        assert!(is_noticed(open(&lies)));
    }
}

#[test]
fn a_wrong_count_in_the_trailer_is_refused() {
    let files = split(&three(), SEGMENT_BYTES_MIN);
    let last = files.len() - 1;
    let len = files[last].len();
    for count in [0, 1, 2, 77, 1001, u32::MAX] {
        if count as usize == files.len() {
            continue;
        }
        let change = |b: &mut [u8]| b[608..612].copy_from_slice(&count.to_le_bytes());
        let once = Arc::new(forged(&files[last], len - TAIL, b"aiv.trlr", &change));
        let mut lies = files.clone();
        lies[last] = Arc::new(forged(&once, len - 4096, b"aiv.trlr", &change));
        assert!(open(&lies).is_err(), "{count}");
    }
}

#[test]
fn a_count_in_an_image_that_is_not_split_is_refused() {
    let whole = three().build();
    let len = whole.len();
    let change = |b: &mut [u8]| b[608] = 1;
    let once = Arc::new(forged(&whole, len - TAIL, b"aiv.trlr", &change));
    let message = crate::recipe::refusal(forged(&once, len - 4096, b"aiv.trlr", &change));
    assert!(message.contains("segment count"), "{message}");
}

#[test]
fn a_superblock_that_differs_from_the_others_is_refused() {
    let files = split(&three(), SEGMENT_BYTES_MIN);
    for at in 1..files.len() {
        let mut lies = files.clone();
        let change = |b: &mut [u8]| b[192] ^= 1;
        lies[at] = Arc::new(forged(&files[at], 0, b"aiv.supr", &change));
        let error = open(&lies).err().unwrap();
        let Error::Corrupt(corrupt) = error else { panic!("{error:?}") };
        assert_eq!(corrupt.section, Section::SegmentSuperblock(u32::try_from(at + 1).unwrap()));
    }
}

#[test]
fn a_segment_without_its_feature_is_refused() {
    let files = split(&three(), SEGMENT_BYTES_MIN);
    let without = |b: &mut [u8]| {
        b[16] &= !4;
        b[224..1760].fill(0);
    };
    for at in 0..files.len() {
        let mut lies = files.clone();
        lies[at] = Arc::new(forged(&files[at], 0, b"aiv.supr", &without));
        assert!(is_noticed_alone(Patched::new(&lies[at])), "segment {at}");
        assert!(is_noticed(open(&lies)), "segment {at}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    /// Whatever the records say, opening ends, with an error or an image whose blocks are right.
    #[test]
    fn forged_numbers_lead_to_an_error_and_to_nothing_worse(
        at in 0usize..3, field in 0usize..7, value in any::<u64>(), shift in 0u32..64,
    ) {
        let files = split(&three(), SEGMENT_BYTES_MIN);
        let at = at.min(files.len() - 2);
        let value = value >> shift;
        let place = [64, 72, 80, 88, 96, 104, 8][field];
        let mut lies = files.clone();
        lies[at] = lying(&files[at], &|b| if field < 2 { put(b, [148, 1824][field], value) },
            &|b| put(b, place, value));
        prop_assert!(is_noticed(open(&lies)) || lies == files);
        let alone: Arc<dyn ReadAt> = Arc::new(Patched::new(&lies[at]));
        let _ = verify_segment(&alone, Job::silent());
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_no_segments(bytes in prop::collection::vec(any::<u8>(), 0..9000)) {
        let bytes = Arc::new(bytes);
        prop_assert!(Segments::join(parts(std::slice::from_ref(&bytes))).is_err());
        prop_assert!(peek_segment(&Patched::new(&bytes)).is_none());
    }
}
