//! A recovery point as bytes at offsets.

use std::io;
use std::sync::Arc;

use aiv_chain::{Error, Kind, View};
use aiv_image_format::{Image, RunKind, hash};
use aiv_testkit::MemStorage;
use aiv_testkit::disks::Content;
use aiv_volume_io::{Job, ReadAt, Storage};
use proptest::prelude::*;

use crate::common::{BLOCK, Spec, damage};

/// A view of a full image of `bytes`.
fn view_of(bytes: &[u8]) -> View {
    let storage = MemStorage::new();
    Spec { bytes: bytes.to_vec(), ..Spec::new(1, 1) }.write(&storage, "image");
    View::open(&storage, "image", Job::silent()).unwrap()
}

/// Blocks of every kind: text, noise, zeros, a copy, a short end.
fn mixed() -> Vec<u8> {
    let mut bytes = Content::Mixed(1).bytes(8 * BLOCK);
    bytes.extend(Content::Random(2).bytes(2 * BLOCK));
    bytes.extend_from_within(..BLOCK);
    bytes.extend(Content::Text(3).bytes(700));
    bytes
}

#[test]
fn reads_at_any_offset_and_of_any_length_give_the_bytes() {
    let bytes = mixed();
    let view = view_of(&bytes);
    let len = bytes.len();
    proptest!(|(at in 0..=len, count in prop_oneof![0..50usize, 0..3 * BLOCK, Just(len)])| {
        let count = count.min(len - at);
        let mut out = vec![0xEE; count];
        view.read_exact_at(&mut out, at as u64)?;
        prop_assert!(out == bytes[at..at + count], "{} bytes at {}", count, at);
    });
}

#[test]
fn a_read_past_the_end_is_refused_and_overflow_is_no_way_around() {
    let view = view_of(&mixed());
    for (count, at) in [(1, view.len()), (2, view.len() - 1), (1, u64::MAX), (9, u64::MAX - 3)] {
        let error = view.read_exact_at(&mut vec![0; count], at).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
    view.read_exact_at(&mut [], view.len()).unwrap();
}

#[test]
fn many_threads_read_one_view() {
    let bytes = mixed();
    let view = view_of(&bytes);
    std::thread::scope(|scope| {
        for thread in 0..4usize {
            let (view, bytes) = (&view, &bytes);
            scope.spawn(move || {
                for round in 0..200 {
                    let at = (thread * 7919 + round * 3571) % (bytes.len() - 100);
                    let mut out = [0; 100];
                    view.read_exact_at(&mut out, at as u64).unwrap();
                    assert!(out == bytes[at..at + 100]);
                }
            });
        }
    });
}

#[test]
fn blocks_without_bytes_read_as_their_kind_has_it() {
    let storage = MemStorage::new();
    let kinds = [
        Some(RunKind::Zero),
        Some(RunKind::Unused),
        Some(RunKind::Excluded),
        Some(RunKind::Unreadable),
        None,
    ];
    let spec = Spec { bytes: Content::Random(1).bytes(4 * BLOCK + 512), ..Spec::new(1, 1) };
    spec.write_as(&storage, "image", kinds);
    let view = View::open(&storage, "image", Job::silent()).unwrap();
    let mut bytes = vec![1; spec.bytes.len()];
    view.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes[..3 * BLOCK].iter().all(|&b| b == 0));
    assert!(bytes[3 * BLOCK..4 * BLOCK].chunks(16).all(|c| c == hash::FILL_PATTERN));
    assert_eq!(bytes[4 * BLOCK..], spec.bytes[4 * BLOCK..]);
    // A read that begins inside the pattern continues it.
    let mut part = [0; 7];
    view.read_exact_at(&mut part, 3 * BLOCK as u64 + 5).unwrap();
    assert_eq!(part, hash::FILL_PATTERN[5..12]);
}

#[test]
fn stretches_cover_every_block_once_from_any_block_on() {
    let bytes = [vec![0; 5 * BLOCK], mixed(), vec![0; 3 * BLOCK]].concat();
    let view = view_of(&bytes);
    let blocks = view.geometry().blocks();
    for first in 0..blocks {
        let mut next = None;
        for stretch in view.stretches(first) {
            let stretch = stretch.unwrap();
            assert!(stretch.run() > 0);
            match next {
                None => {
                    let covered = stretch.block()..stretch.block() + stretch.run();
                    assert!(covered.contains(&first));
                }
                Some(next) => assert_eq!(stretch.block(), next),
            }
            next = Some(stretch.block() + stretch.run());
        }
        assert_eq!(next, Some(blocks));
    }
    assert_eq!(view.stretches(blocks).count(), 0);
}

#[test]
fn a_stretch_gives_the_block_the_reader_looks_up() {
    let bytes = mixed();
    let view = view_of(&bytes);
    let mut reader = view.reader();
    for stretch in view.stretches(0) {
        let stretch = stretch.unwrap();
        assert_eq!(stretch.leaf().is_some(), matches!(stretch.kind(), Kind::Data | Kind::Ref));
        for block in stretch.block()..stretch.block() + stretch.run() {
            let len = view.geometry().block_len(block) as usize;
            let (mut by_stretch, mut by_number) = (vec![1; len], vec![2; len]);
            reader.read_in(&stretch, block, &mut by_stretch).unwrap();
            assert_eq!(reader.read(block, &mut by_number).unwrap(), stretch.kind());
            assert!(by_stretch == by_number);
            if let Some(leaf) = stretch.leaf() {
                assert_eq!(hash::leaf(&by_number), leaf);
            }
        }
    }
}

#[test]
fn a_damaged_frame_gives_an_error_that_names_file_and_place_and_never_bytes() {
    let storage = MemStorage::new();
    let spec = Spec { bytes: Content::Random(1).bytes(3 * BLOCK), ..Spec::new(1, 1) };
    spec.write(&storage, "sub/image.aiv");
    let address = {
        let view = View::open(&storage, "sub/image.aiv", Job::silent()).unwrap();
        view.stretches(1).next().unwrap().unwrap().address()
    };
    damage(&storage, "sub/image.aiv", usize::try_from(address).unwrap() + 5000);
    let view = View::open(&storage, "sub/image.aiv", Job::silent()).unwrap();
    let mut out = vec![0xEE; 100];
    for block in [0, 2] {
        let at = block * BLOCK;
        view.read_exact_at(&mut out, at as u64).unwrap();
        assert!(out == spec.bytes[at..at + 100], "the others are as before");
    }
    out.fill(0xEE);
    let error = view.read_exact_at(&mut out, BLOCK as u64).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    let inner = error.get_ref().unwrap();
    assert_eq!(inner.to_string(), "sub/image.aiv");
    let cause = inner.source().unwrap().to_string();
    assert!(cause.contains(&format!("frame at byte {address}")), "{cause}");
    assert!(out.iter().all(|&b| b == 0xEE), "no byte of a damaged block is handed out");

    let mut block = vec![0; BLOCK];
    let error = view.reader().read(1, &mut block).unwrap_err();
    assert!(matches!(&error, Error::Image { file, .. } if file == "sub/image.aiv"), "{error:?}");
}

#[test]
fn no_single_bit_of_the_file_changes_a_byte_of_the_view_unnoticed() {
    let storage = MemStorage::new();
    let spec = Spec { bytes: Content::Mixed(4).bytes(2 * BLOCK + 512), ..Spec::new(1, 1) };
    spec.write(&storage, "image");
    let len = storage.contents("image").unwrap().len();
    let (mut refused, mut same) = (0, 0);
    for at in (0..len).step_by(61) {
        let storage = storage.fork();
        damage(&storage, "image", at);
        let Ok(view) = View::open(&storage, "image", Job::silent()) else {
            refused += 1;
            continue;
        };
        let mut bytes = vec![0; spec.bytes.len()];
        match view.read_exact_at(&mut bytes, 0) {
            Ok(()) => assert!(bytes == spec.bytes, "byte {at}"),
            Err(_) => refused += 1,
        }
        same += 1;
    }
    assert!(refused > 50 && same > 50, "{refused} {same}");
}

#[test]
fn a_file_that_is_no_image_says_so_and_which() {
    let storage = MemStorage::new();
    storage.insert("notes.txt", b"hello".to_vec());
    let error = View::open(&storage, "notes.txt", Job::silent()).err().unwrap();
    assert_eq!(error.to_string(), "notes.txt");
    assert!(matches!(View::open(&storage, "nothing", Job::silent()).err(), Some(Error::Io { .. })));
}

#[test]
fn an_image_opened_elsewhere_can_be_viewed() {
    let storage = MemStorage::new();
    let spec = Spec::new(1, 5);
    spec.write(&storage, "image");
    let image = Arc::new(Image::open(storage.open("image").unwrap()).unwrap());
    let view = View::of_full(Arc::clone(&image), "other words".to_owned());
    assert_eq!((view.point(), view.len()), (spec.point, spec.bytes.len() as u64));
    assert_eq!(view.image().trailer(), image.trailer());
}
