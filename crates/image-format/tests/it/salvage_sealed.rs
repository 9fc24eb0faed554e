//! Sealed images that are damaged, cut off or headless give back every block of which the frame is
//! whole to who has the key, and nothing to anybody who has not; nobody without it makes one up.

use std::collections::BTreeMap;
use std::sync::Arc;

use aiv_image_format::limits::SEGMENT_BYTES_MIN;
use aiv_image_format::salvage::{Evidence, Fate, Hints, KnownBy, Loss, Salvage, slot_areas};
use aiv_image_format::{
    ChainKey, Compression, Error, Features, ImageWriter, Keys, Kind, Result, Unsalvageable,
};
use aiv_testkit::{MemStorage, Random};
use aiv_volume_io::{Job, MemDisk, ReadAt, Storage};

use crate::areas::{Areas, CHECKPOINT, DATA, Frame, PAGE};
use crate::damage::for_each;
use crate::forge::Forgery;
use crate::patched::Patched;
use crate::recipe::{Recipe, noise, open_with};
use crate::salvage::{
    hints, judge, larger, once, read, recipe, scan_with, truth, without_one_percent,
};
use crate::sealed::{key, seals};
use crate::segments::split;

const BURST: usize = 64 << 10;

/// Those of an image that is sealed.
fn sealed(recipe: Recipe, slots: bool) -> Recipe {
    let mut seals = seals().into_iter().flatten();
    let seal = seals.rfind(|seal| seal.slots.is_some() == slots);
    Recipe { seal, ..recipe }
}

fn scan(file: Arc<dyn ReadAt>, hints: &Hints) -> Result<Salvage> {
    scan_with(file, &Keys::of(key()), hints)
}

/// Blocks of which a frame is stored, with the frame: only the index tells.
fn framed(recipe: &Recipe, bytes: &Arc<Vec<u8>>) -> BTreeMap<usize, Frame> {
    let image = open_with(bytes, &recipe.keys()).unwrap();
    let frames = Areas::of(bytes).frames;
    let entries = image.entries(0).map(|entry| entry.unwrap());
    let framed = entries.filter(|entry| entry.has_frame() && entry.kind != Kind::Ref);
    let find = |address: u64| frames.iter().find(|frame| frame.header.start as u64 == address);
    let place = |block: u64| usize::try_from(block).unwrap();
    framed.map(|e| (place(e.block), find(e.address).unwrap().clone())).collect()
}

#[test]
fn a_sound_sealed_image_is_salvaged_whole_by_its_index_with_its_key() {
    for slots in [false, true] {
        let recipe = sealed(recipe(Compression::Zstd(1)), slots);
        let bytes = recipe.build();
        let salvage = scan(Arc::new(Patched::new(&bytes)), &Hints::default()).unwrap();
        assert!(salvage.is_sealed() && salvage.identity().is_authentic);
        assert_eq!(salvage.key(), Some(&key()));
        let found: Vec<_> = read(&salvage).into_iter().map(|read| read.unwrap()).collect();
        assert!(found == truth(&recipe));
        let by_index = |fate| matches!(fate, Fate::Decided(Evidence::Index, _));
        assert!(salvage.walk(0).all(|stretch| by_index(stretch.fate)));
        assert_eq!(salvage.meta().source_errors, recipe.meta().source_errors);
        let roots = open_with(&bytes, &recipe.keys()).unwrap().roots().unwrap();
        assert_eq!(salvage.is_state(&roots.state), Some(true));
        assert_eq!(salvage.is_state(&roots.content), Some(false));
    }
}

#[test]
fn a_burst_of_64_kib_anywhere_in_a_sealed_image_costs_only_the_frames_it_touches() {
    for (slots, every) in [(false, 5), (true, 2)] {
        let recipe = sealed(recipe(Compression::Lz4), slots);
        let bytes = recipe.build();
        let (truth, frames) = (truth(&recipe), framed(&recipe, &bytes));
        assert!(frames.len() > 10);
        let positions = bytes.len().div_ceil(PAGE) + BURST / PAGE;
        for_each(
            0..positions / every,
            || (),
            |(), number| {
                let position = number * every + usize::from(!slots);
                let end = ((position + 1) * PAGE).min(bytes.len());
                let start = ((position + 1) * PAGE).saturating_sub(BURST).min(bytes.len());
                let burst = [vec![0; BURST], vec![0xff; BURST], noise(7, BURST)];
                let burst = &burst[position % 3][..end - start];
                let file = Arc::new(Patched::new(&bytes).with(start, burst));
                let salvage = scan(file, &Hints::default()).unwrap();
                judge(&read(&salvage), &truth, &frames, &once(start..end));
            },
        );
    }
}

#[test]
fn a_cut_anywhere_in_a_sealed_image_costs_only_what_is_behind_it() {
    let recipe = sealed(recipe(Compression::Zstd(1)), true);
    let bytes = recipe.build();
    let (truth, frames) = (truth(&recipe), framed(&recipe, &bytes));
    let tail = bytes.len() - (100 << 10);
    let mut cuts: Vec<usize> = (PAGE..tail).step_by(3 * PAGE).collect();
    cuts.extend((tail..bytes.len()).step_by(2997));
    let areas = Areas::of(&bytes);
    for_each(
        0..cuts.len(),
        || (),
        |(), number| {
            let cut = cuts[number];
            let file = Arc::new(Patched::new(&bytes).cut(cut));
            let salvage = scan(file, &Hints::default()).unwrap();
            let found = read(&salvage);
            judge(&found, &truth, &frames, &once(cut..bytes.len()));
            // What a checkpoint says is known: runs, too, of which no frame tells.
            let before = areas.frames.iter().filter(|f| f.kind == CHECKPOINT);
            let any = before.filter(|f| f.payload.end <= cut).count() > 0;
            assert!(!any || found[..20].iter().all(std::result::Result::is_ok), "cut at {cut}");
        },
    );
}

#[test]
fn one_percent_of_all_sectors_of_a_sealed_image_destroyed_costs_only_the_frames_in_them() {
    let recipe = sealed(larger(), true);
    let bytes = recipe.build();
    let (truth, frames) = (truth(&recipe), framed(&recipe, &bytes));
    for_each(
        0..8,
        || (),
        |(), seed| {
            let (file, lost) = without_one_percent(&bytes, seed as u64);
            let salvage = scan(Arc::new(file), &hints(&recipe)).unwrap();
            judge(&read(&salvage), &truth, &frames, &lost);
        },
    );
}

#[test]
fn of_a_sealed_image_without_beginning_or_end_every_frame_that_is_left_comes_back() {
    let recipe = sealed(larger(), true);
    let bytes = recipe.build();
    let (truth, frames) = (truth(&recipe), framed(&recipe, &bytes));
    let index = Areas::of(&bytes).index.start;
    // The head; head, index and tail; the first MiB with them.
    let all = [
        once(0..PAGE),
        vec![0..PAGE, index..bytes.len()],
        vec![0..1 << 20, index..bytes.len()],
        vec![0..PAGE, bytes.len() - 2 * PAGE..bytes.len() - PAGE],
    ];
    for lost in all {
        let file = lost
            .iter()
            .fold(Patched::new(&bytes), |file, lost| file.with(lost.start, &vec![0; lost.len()]));
        let salvage = scan(Arc::new(file), &hints(&recipe)).unwrap();
        assert_ne!(salvage.identity().known_by, KnownBy::Superblock);
        judge(&read(&salvage), &truth, &frames, &lost);
    }
    for gone in [4096, 20 << 10, 100 << 10] {
        let rest = bytes[gone..].to_vec();
        let salvage = scan(Arc::new(MemDisk::from_bytes(rest)), &Hints::default()).unwrap();
        assert_eq!(salvage.identity().shift, gone as u64);
        judge(&read(&salvage), &truth, &frames, &once(0..gone));
    }
}

#[test]
fn without_the_key_or_with_another_one_nothing_comes_out_and_says_which_it_is() {
    let recipe = sealed(recipe(Compression::Lz4), true);
    let bytes = recipe.build();
    let other = Keys::of(ChainKey::new([9; 32]));
    let refused = |file: Patched, keys: &Keys| {
        scan_with(Arc::new(file), keys, &hints(&recipe)).err().unwrap()
    };
    let error = refused(Patched::new(&bytes), &Keys::none());
    assert!(matches!(error, Error::Unsalvageable(Unsalvageable::Sealed)), "{error}");
    let error = refused(Patched::new(&bytes), &other);
    assert!(matches!(error, Error::WrongKey { .. }), "{error}");
    let headless = Patched::new(&bytes).with(0, &[0; PAGE]).cut(bytes.len() - (90 << 10));
    for keys in [Keys::none(), other] {
        let error = refused(headless.clone(), &keys);
        let Error::Unsalvageable(Unsalvageable::SealedFrames { count }) = error else {
            panic!("{error}");
        };
        assert!(count > 10);
    }
    // Who expects a key gets nothing that has none.
    let clear = crate::salvage::recipe(Compression::Lz4).build();
    let error = refused(Patched::new(&clear), &Keys::of(key()).required());
    assert!(matches!(error, Error::NotKeyed), "{error}");
    let headless = Patched::new(&clear).with(0, &[0; PAGE]).cut(clear.len() - (90 << 10));
    let error = refused(headless, &Keys::of(key()).required());
    assert!(matches!(error, Error::NotKeyed), "{error}");
}

/// Reads what is left, and counts the blocks; each of them is true.
fn count_true(salvage: &Salvage, truth: &[(Kind, Vec<u8>)], what: &str) -> usize {
    let found = read(salvage);
    assert_eq!(found.len(), truth.len(), "{what}: the size of the disk");
    let mut count = 0;
    for (block, (found, truth)) in found.into_iter().zip(truth).enumerate() {
        if let Ok((_, bytes)) = found {
            assert!(bytes == truth.1, "{what}: block {block} is made up");
            count += 1;
        }
    }
    count
}

#[test]
fn frames_that_were_forged_moved_or_made_in_clear_with_sound_checksums_never_pass_with_the_key() {
    let recipe = sealed(recipe(Compression::Lz4), true);
    let bytes = recipe.build();
    let (truth, areas) = (truth(&recipe), Areas::of(&bytes));
    let clear = Recipe { seal: None, ..crate::salvage::recipe(Compression::None) };
    let clear = Recipe { blocks: clear.blocks.iter().rev().copied().collect(), ..clear }.build();
    let in_clear = Areas::of(&clear).frames;
    let counts = std::sync::atomic::AtomicUsize::new(0);
    for_each(
        0..100,
        || (),
        |(), seed| {
            let mut random = Random::new(&[seed as u64]);
            let mut below = |n: usize| random.below(n);
            let mut forged = bytes.to_vec();
            for _ in 0..1 + below(4) {
                let frame = &areas.frames[below(areas.frames.len())];
                let other = &areas.frames[below(areas.frames.len())];
                match below(5) {
                    // Any field, the number and the session of the nonce, too.
                    0 => forged[frame.header.start + 4 + below(48)] ^= 1 << below(8),
                    1 => forged[frame.payload.start + below(frame.payload.len().max(1))] ^= 1,
                    // The payload of another one under this header, or the other way round.
                    2 => {
                        let len = frame.payload.len().min(other.payload.len());
                        let from = other.payload.start;
                        forged.copy_within(from..from + len, frame.payload.start);
                    }
                    3 => forged.copy_within(other.header.clone(), frame.header.start),
                    // Another image in clear says it is of this session.
                    _ => {
                        let clear_one = &in_clear[below(in_clear.len())];
                        let from = clear_one.header.start;
                        let len =
                            (clear_one.padding.end - from).min(bytes.len() - frame.header.start);
                        let at = frame.header.start;
                        forged[at..at + len].copy_from_slice(&clear[from..from + len]);
                    }
                }
            }
            // Also without what proves the rest.
            if below(2) == 0 {
                forged[areas.index.start..].fill(0);
            }
            let mended = mend(forged);
            let file = Arc::new(MemDisk::from_bytes(mended));
            let salvage = scan(file, &hints(&recipe)).unwrap();
            let count = count_true(&salvage, &truth, &format!("seed {seed}"));
            counts.fetch_add(count, std::sync::atomic::Ordering::Relaxed);
        },
    );
    let counts = counts.into_inner();
    assert!(counts > 100 * truth.len() / 2, "{counts} blocks came back");
}

/// Makes the checksums of everything fit that looks like a frame.
fn mend(mut bytes: Vec<u8>) -> Vec<u8> {
    for at in (0..bytes.len() - 64).step_by(64) {
        if bytes[at..].starts_with(b"AVF1") {
            let len = u32::from_le_bytes(bytes[at + 44..at + 48].try_into().unwrap()) as usize;
            let Some(payload) = bytes.get(at + 64..at + 64 + len) else { continue };
            let sum = crate::forge::crc(b"aiv.load", &[payload]);
            bytes[at + 48..at + 52].copy_from_slice(&sum.to_le_bytes());
            let sum = crate::forge::crc(b"aiv.fram", &[&bytes[at..at + 60]]);
            bytes[at + 60..at + 64].copy_from_slice(&sum.to_le_bytes());
        }
    }
    bytes
}

/// Another image of the chain: other blocks, the same key.
fn of_the_chain(id: u8) -> Recipe {
    let blocks = recipe(Compression::Lz4).blocks.iter().rev().copied().collect();
    sealed(Recipe { id, blocks, short_by: 5000, ..recipe(Compression::Lz4) }, true)
}

/// An image that was merged, as far as its lists tell, from the one with `id`.
fn merged_from(id: u8, of: &Recipe) -> Vec<u8> {
    let merged = of_the_chain(id);
    let storage = MemStorage::new();
    let file = storage.create("merged").unwrap();
    let mut writer =
        ImageWriter::create_with(file, merged.superblock(), merged.seal.clone()).unwrap();
    writer.name_origins(&[of.superblock().session]);
    merged.fill(writer).unwrap();
    storage.contents("merged").unwrap().to_vec()
}

#[test]
fn parts_of_other_images_of_the_chain_are_not_taken_for_parts_of_this_one() {
    let recipe = sealed(recipe(Compression::Lz4), true);
    let bytes = recipe.build();
    let (truth, areas) = (truth(&recipe), Areas::of(&bytes));
    let others = [of_the_chain(9).build().to_vec(), merged_from(9, &recipe)];
    assert_eq!(recipe.geometry(), of_the_chain(9).geometry());
    for (which, other) in others.iter().enumerate() {
        let theirs = Areas::of(other);
        let frames_of =
            |areas: &Areas| areas.frames[0].header.start..areas.frames.last().unwrap().padding.end;
        for lost in [0, 1, 2] {
            let mut file = bytes.to_vec();
            // Its own evidence goes, bit by bit.
            if lost >= 1 {
                file[areas.index.start..].fill(0);
            }
            if lost == 2 {
                let checkpoints = areas.frames.iter().filter(|frame| frame.kind == CHECKPOINT);
                checkpoints.for_each(|frame| file[frame.header.clone()].fill(0));
            }
            for part in [frames_of(&theirs), theirs.index.clone(), theirs.meta.clone()] {
                file.resize(file.len().next_multiple_of(PAGE), 0);
                file.extend_from_slice(&other[part]);
            }
            let scanned = scan(Arc::new(MemDisk::from_bytes(file.clone())), &Hints::default());
            let what = format!("image {which}, {lost}");
            let count = count_true(&scanned.unwrap(), &truth, &what);
            assert!(count >= 10, "{what}: {count}");
            // Without a head, too: most of it is of the one with most checkpoints.
            if lost == 1 && which == 1 {
                file[..PAGE].fill(0);
                let own = file[..areas.index.start].to_vec();
                let file = [&own[..], &other[frames_of(&theirs).start..][..BURST]].concat();
                let scanned = scan(Arc::new(MemDisk::from_bytes(file)), &hints(&recipe)).unwrap();
                assert!(count_true(&scanned, &truth, "headless") >= 10);
            }
        }
    }
}

#[test]
fn a_superblock_or_trailer_that_somebody_changed_is_not_believed() {
    let recipe = sealed(recipe(Compression::Lz4), true);
    let bytes = recipe.build();
    let truth = truth(&recipe);
    let short = (recipe.geometry().len() - (16 << 10)).to_le_bytes();
    // The first superblock alone: its copy is proven by the trailer.
    let areas = Areas::of(&bytes);
    let first =
        Forgery::of(&bytes).at(areas.superblock.start + 160, &short).seal_superblocks_only();
    let salvage = scan(Arc::new(Patched::new(&first)), &Hints::default()).unwrap();
    assert_eq!(salvage.identity().known_by, KnownBy::Copy);
    assert!(salvage.identity().is_authentic);
    assert_eq!(count_true(&salvage, &truth, "the copy"), truth.len());
    // Both: the sealed META says how long the disk was.
    let both = Forgery::of(&bytes).superblock(160, &short).seal_superblocks_only();
    let salvage = scan(Arc::new(Patched::new(&both)), &Hints::default()).unwrap();
    assert!(!salvage.identity().is_authentic && salvage.identity().trailer.is_none());
    assert_eq!(count_true(&salvage, &truth, "META"), truth.len());
    // Another length of the index.
    let trailer = Forgery::of(&bytes).trailer(256, &[9]).seal_trailers_only();
    let salvage = scan(Arc::new(Patched::new(&trailer)), &Hints::default()).unwrap();
    assert!(salvage.identity().trailer.is_none());
    assert_eq!(count_true(&salvage, &truth, "trailer"), truth.len());
    let pages = Forgery::of(&bytes).at(areas.index.start + 100, &[7]).seal_pages_only();
    let salvage = scan(Arc::new(Patched::new(&pages)), &Hints::default()).unwrap();
    let by_checkpoint = |fate| matches!(fate, Fate::Decided(Evidence::Checkpoint, _));
    assert!(by_checkpoint(salvage.fate(0)), "the page is forged");
    assert_eq!(count_true(&salvage, &truth, "page"), truth.len());
}

#[test]
fn a_frame_of_a_sealed_image_alone_is_proven_to_be_its_block() {
    let recipe = sealed(recipe(Compression::Lz4), true);
    let bytes = recipe.build();
    let areas = Areas::of(&bytes);
    let mut file = bytes.to_vec();
    file[areas.index.start..].fill(0);
    for frame in areas.frames.iter().filter(|frame| frame.kind == CHECKPOINT) {
        file[frame.header.clone()].fill(0);
    }
    let salvage = scan(Arc::new(MemDisk::from_bytes(file)), &Hints::default()).unwrap();
    let (truth, found) = (truth(&recipe), read(&salvage));
    let data = areas.frames.iter().filter(|frame| frame.kind == DATA).count();
    let mut count = 0;
    for (block, found) in found.iter().enumerate() {
        match found {
            Ok((_, bytes)) => {
                let fate = salvage.fate(block as u64);
                assert!(matches!(fate, Fate::Decided(Evidence::Frame, _)), "{fate:?}");
                assert!(*bytes == truth[block].1);
                count += 1;
            }
            Err(loss) => assert_eq!(*loss, Loss::Unknown),
        }
    }
    assert_eq!(count, data);
}

#[test]
fn each_segment_of_a_sealed_image_with_parity_is_salvaged_by_itself() {
    for features in [0, Features::PARITY] {
        let recipe = Recipe { features, checkpoint_every: 4, ..recipe(Compression::Lz4) };
        let recipe = sealed(recipe, true);
        let truth = truth(&recipe);
        let files = split(&recipe, SEGMENT_BYTES_MIN);
        assert!(files.len() > 3);
        let mut found = vec![false; truth.len()];
        for (no, file) in files.iter().enumerate() {
            let disk = MemDisk::from_bytes(file.to_vec());
            let salvage = scan(Arc::new(disk), &Hints::default()).unwrap();
            assert_eq!(salvage.identity().is_authentic, no + 1 == files.len(), "segment {no}");
            for (block, read) in read(&salvage).into_iter().enumerate() {
                let Ok((_, bytes)) = read else { continue };
                assert!(bytes == truth[block].1, "block {block} of segment {no} is made up");
                found[block] = true;
            }
        }
        // What a REF leads to may lie in another segment.
        let lost = (0..truth.len()).filter(|&block| !found[block] && truth[block].0 != Kind::Ref);
        assert_eq!(lost.count(), 0, "{found:?}");
    }
}

#[test]
fn of_a_segment_from_the_middle_every_frame_decrypts_and_carries_its_block_number() {
    let recipe = Recipe { checkpoint_every: 4, ..recipe(Compression::Lz4) };
    let recipe = sealed(recipe, true);
    let truth = truth(&recipe);
    let files = split(&recipe, SEGMENT_BYTES_MIN);
    let mut blocks = 0;
    for file in &files[1..files.len() - 1] {
        let disk = Arc::new(MemDisk::from_bytes(file.to_vec()));
        let salvage = scan(disk.clone(), &Hints::default()).unwrap();
        count_true(&salvage, &truth, "a segment");
        // By the headers in it alone: this segment is all that is left of the image. Which block a
        // frame holds is in what is encrypted.
        let is_data = |at: &usize| file[*at..].starts_with(b"AVF1") && file[at + 4] == DATA;
        let frames = (0..file.len()).step_by(64).filter(is_data).count();
        let of_data = read(&salvage).into_iter().zip(&truth).filter(|(_, t)| t.0 == Kind::Data);
        let read = of_data.filter(|(found, _)| found.is_ok()).count();
        assert_eq!(read, frames);
        blocks += frames;
        // It has no key slots: nothing but the key itself opens it.
        assert!(slot_areas(&*disk, true, Job::silent()).unwrap().areas.is_empty());
        let other = Keys::of(ChainKey::new([9; 32]));
        let error = scan_with(disk, &other, &Hints::default()).err();
        assert!(matches!(error, Some(Error::WrongKey { .. })), "{error:?}");
    }
    assert!(blocks > 5, "{blocks} frames in the middle");
}
