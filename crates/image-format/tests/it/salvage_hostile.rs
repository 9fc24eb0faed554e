//! Whatever the bytes are: no panic, bounded memory, and nothing that is not in the file.

use std::sync::Arc;

use aiv_image_format::salvage::{Fate, Hints, Loss};
use aiv_image_format::{BlockSize, Compression};
use aiv_testkit::Random;
use aiv_volume_io::MemDisk;
use proptest::prelude::*;

use crate::areas::{Areas, DATA, PAGE};
use crate::counted::Counted;
use crate::damage::for_each;
use crate::forge::{Forgery, crc};
use crate::memory::peak_of;
use crate::mutants::{Dice, base, mutate};
use crate::patched::Patched;
use crate::recipe::{Block, Fill, Recipe, noise};
use crate::salvage::{hints, no_base, read, recipe, scan};

/// Blocks of a forged disk that are read.
const BLOCKS_MAX: usize = 2000;
const STRETCHES_MAX: usize = 5000;
/// Above the frames of the file, the largest block, and a window.
const MEMORY_MAX: i64 = 24 << 20;

/// Reads some of what a file is said to hold.
fn use_up(file: Arc<dyn aiv_volume_io::ReadAt>, hints: &Hints) -> bool {
    let Ok(salvage) = scan(file, hints) else { return false };
    let mut reader = salvage.reader();
    let (mut end, mut left) = (0, BLOCKS_MAX);
    for stretch in salvage.walk(0).take(STRETCHES_MAX) {
        assert_eq!(stretch.first, end);
        end = stretch.end();
        assert!(stretch.run > 0 && end <= salvage.geometry().blocks());
        if left > 0 {
            left -= 1;
            let mut out = vec![0; salvage.geometry().block_len(stretch.first) as usize];
            reader.read(stretch.first, &stretch.fate, &mut out, &mut no_base).unwrap().ok();
        }
    }
    let _ = salvage.fate(salvage.geometry().blocks() - 1);
    true
}

#[test]
fn a_forged_field_with_mended_checksums_neither_panics_nor_takes_memory() {
    let bytes = base().build();
    let mut scanned = 0;
    for seed in 0..1500 {
        let mut dice = Dice::new(seed);
        let mut forgery = Forgery::of(&bytes);
        let what: Vec<String> =
            (0..1 + dice.below(3)).map(|_| mutate(&mut dice, &mut forgery)).collect();
        let forged = forgery.seal();
        let headless = if dice.below(3) == 0 { 4096 } else { 0 };
        let file = Arc::new(Patched::new(&forged).with(0, &vec![0; headless]));
        let (got_in, peak) = peak_of(|| use_up(file, &hints(&base())));
        assert!(peak < MEMORY_MAX, "{peak} bytes of memory (seed {seed}: {})", what.join("; "));
        scanned += u64::from(got_in);
    }
    assert!(scanned > 700, "only {scanned} forgeries were scanned");
}

#[test]
fn pieces_of_an_image_put_together_anyhow_give_true_blocks_only() {
    for compression in [Compression::None, Compression::Zstd(1)] {
        let recipe = recipe(compression);
        let (bytes, truth) = (recipe.build(), recipe.expected());
        let found = std::sync::atomic::AtomicUsize::new(0);
        for_each(
            0..150,
            || (),
            |(), seed| {
                let mut random = Random::new(&[seed as u64]);
                let mut below = |n: usize| random.below(n);
                let mut file = Vec::new();
                for _ in 0..1 + below(12) {
                    let start = below(bytes.len() / 64) * 64;
                    let len = below(200_000).min(bytes.len() - start) / 64 * 64;
                    match below(6) {
                        0 => file.extend(noise(seed as u64, len / 8 / 64 * 64)),
                        _ => file.extend_from_slice(&bytes[start..start + len]),
                    }
                }
                let file = Arc::new(MemDisk::from_bytes(file));
                let Ok(salvage) = scan(file, &hints(&recipe)) else { return };
                for (block, read) in read(&salvage).into_iter().enumerate() {
                    let Ok((_, bytes)) = read else { continue };
                    assert!(bytes == truth[block].bytes, "seed {seed}: block {block} is made up");
                    found.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
            },
        );
        assert!(found.into_inner() > 2000, "much of it is found");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn any_bytes_are_salvaged_or_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..20_000),
        magics in prop::collection::vec((0usize..20_000, 0usize..4), 0..40),
    ) {
        let mut bytes = bytes;
        for (at, which) in magics {
            let magic: &[u8] = [&b"AVF1"[..], b"AVP1", b"AIVTRAIL", b"\x89AIV\r\n\x1a\n"][which];
            let at = at / 64 * 64;
            if at + 8 <= bytes.len() {
                bytes[at..at + magic.len()].copy_from_slice(magic);
            }
        }
        let hints = Hints { len: Some(1 << 20), block_size: BlockSize::new(16384) };
        prop_assert!(!use_up(Arc::new(MemDisk::from_bytes(bytes)), &hints));
    }
}

/// A frame as small as one can be.
fn tiny(kind: u8, session: u64, subject: u64, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 64];
    frame[..4].copy_from_slice(b"AVF1");
    frame[4] = kind;
    frame[8..16].copy_from_slice(&session.to_le_bytes());
    frame[32..40].copy_from_slice(&subject.to_le_bytes());
    let len = u32::try_from(payload.len()).unwrap().to_le_bytes();
    frame[40..44].copy_from_slice(&len);
    frame[44..48].copy_from_slice(&len);
    frame[48..52].copy_from_slice(&crc(b"aiv.load", &[payload]).to_le_bytes());
    let own = crc(b"aiv.fram", &[&frame[..60]]);
    frame[60..].copy_from_slice(&own.to_le_bytes());
    frame.extend_from_slice(payload);
    frame.resize(frame.len().next_multiple_of(64), 0);
    frame
}

#[test]
fn frames_without_end_and_sessions_without_end_cost_no_more_than_their_file() {
    // More sessions than are told apart, each with one frame.
    let frames: Vec<u8> = (0..90_000).flat_map(|n| tiny(1, n, n % 1000, b"x")).collect();
    // Checkpoints that chain sessions together, the newest first: the longest way to the first.
    let chained: Vec<u8> = (0..30_000u64)
        .rev()
        .flat_map(|n| {
            let mut payload = vec![0; 64];
            payload[8..16].copy_from_slice(&n.to_le_bytes());
            payload[40..44].copy_from_slice(&2u32.to_le_bytes());
            for origin in [n, n + 1] {
                payload.extend_from_slice(&origin.to_le_bytes());
                payload.extend_from_slice(&[0; 8]);
            }
            tiny(3, n, n, &payload)
        })
        .collect();
    let hints = Hints { len: Some(1 << 30), block_size: BlockSize::new(16384) };
    for bytes in [frames, chained] {
        let len = i64::try_from(bytes.len()).unwrap();
        let file = Arc::new(MemDisk::from_bytes(bytes));
        let (_, peak) = peak_of(|| use_up(file, &hints));
        // Vectors double, and their old half exists while they do.
        assert!(peak < 3 * len + MEMORY_MAX, "{peak} bytes for a file of {len}");
    }
}

/// A header that says it has a payload of `len` bytes.
fn forged_header(kind: u8, session: [u8; 12], len: u32) -> Vec<u8> {
    let mut header = tiny(kind, 0, 0, &[])[..60].to_vec();
    header[8..20].copy_from_slice(&session);
    header[40..48].copy_from_slice(&[len.to_le_bytes(), len.to_le_bytes()].concat());
    let own = crc(b"aiv.fram", &[&header]);
    [header, own.to_le_bytes().to_vec()].concat()
}

/// What follows is summed again for every header, unless something remembers it.
#[test]
fn a_file_full_of_forged_headers_is_read_once_and_hides_no_frame() {
    let blocks: Vec<_> = (0..40).map(|seed| (Block::Data(Fill::Noise(seed)), 1)).collect();
    let recipe = Recipe { compression: Compression::None, ..Recipe::new(&blocks) };
    let image = recipe.build();
    // Sound frames among forged headers, and at their end what all of them may reach.
    let mut bytes = image[..PAGE].to_vec();
    let header = forged_header(1, recipe.superblock().session.0, 2 << 20);
    for frame in Areas::of(&image).frames.iter().filter(|frame| frame.kind == DATA) {
        (0..2000).for_each(|_| bytes.extend_from_slice(&header));
        bytes.extend_from_slice(&image[frame.header.start..frame.padding.end]);
    }
    bytes.resize(bytes.len() + (2 << 20), 0);
    let bytes = Arc::new(bytes);
    let file = Counted::new(&bytes);
    let salvage = scan(file.clone(), &hints(&recipe)).unwrap();
    assert!(file.take() < bytes.len() as u64 + 16 * PAGE as u64);
    let found: Vec<_> = read(&salvage).into_iter().map(|read| read.unwrap().1).collect();
    assert!(found.into_iter().eq(recipe.expected().into_iter().map(|e| e.bytes)));
}

#[test]
fn frames_of_one_block_without_end_are_asked_for_at_no_cost() {
    let recipe = Recipe::new(&[(Block::Data(Fill::Words(1)), 4)]);
    let image = recipe.build();
    let session = recipe.superblock().session.0;
    let mut bytes = image[..PAGE].to_vec();
    for n in 0..100_000u64 {
        let mut frame = tiny(1, 0, 3, &n.to_le_bytes());
        frame[8..20].copy_from_slice(&session);
        let own = crc(b"aiv.fram", &[&frame[..60]]);
        frame[60..64].copy_from_slice(&own.to_le_bytes());
        bytes.extend(frame);
    }
    let salvage = scan(Arc::new(MemDisk::from_bytes(bytes)), &hints(&recipe)).unwrap();
    assert_eq!(salvage.frames_seen(), 100_000);
    // Ten thousand million looks, if each were at all of them.
    assert!((0..100_000).all(|_| salvage.fate(3) == Fate::Lost(Loss::Unknown)));
}

/// Half of the pages of an index are left, and between them the checkpoints: entries of both are
/// read once.
#[test]
fn pages_and_checkpoints_that_take_turns_are_read_once() {
    let blocks: Vec<_> = (0..4000).flat_map(|_| [(Block::Zero, 1), (Block::Unused, 1)]).collect();
    let recipe = Recipe { checkpoint_every: 8000, small_meta: true, ..Recipe::new(&blocks) };
    let mut bytes = recipe.build().to_vec();
    let areas = Areas::of(&bytes);
    assert!(areas.leaf_pages > 90);
    for page in (1..areas.leaf_pages).step_by(2) {
        bytes[areas.index.start + page * PAGE..][..PAGE].fill(0);
    }
    let bytes = Arc::new(bytes);
    let file = Counted::new(&bytes);
    let salvage = scan(file.clone(), &hints(&recipe)).unwrap();
    file.take();
    let mut by = std::collections::BTreeMap::new();
    for stretch in salvage.walk(0) {
        let Fate::Decided(evidence, _) = stretch.fate else { panic!("{stretch:?}") };
        *by.entry(evidence).or_insert(0) += stretch.run;
    }
    assert!(by.values().all(|blocks| *blocks > 3000) && by.len() == 2, "{by:?}");
    let read = file.take();
    assert!(read < 2 * bytes.len() as u64, "{read} bytes of {}", bytes.len());
    // One block at a time, too, as somebody asks who lays files over each other.
    for block in 0..8000 {
        let walked: Vec<_> = salvage.walk_to(block, block + 1).collect();
        assert_eq!((walked.len(), walked[0].run), (1, 1));
    }
    let read = file.take();
    assert!(read < 2 * bytes.len() as u64, "{read} bytes of {}", bytes.len());
}
