//! Damaged, cut-off and headless files give back every block of which the frame is whole, and
//! nothing that was not in the image.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use aiv_image_format::limits::SEGMENT_BYTES_MIN;
use aiv_image_format::salvage::{Evidence, Fate, Hints, KnownBy, Loss, Salvage};
use aiv_image_format::{BaseBlock, BlockSize, Compression, Error, Features, Keys, Kind, Result};
use aiv_testkit::Random;
use aiv_volume_io::{Extent, Job, MemDisk, ReadAt};

use crate::areas::{Areas, DATA, Frame, PAGE};
use crate::damage::for_each;
use crate::patched::Patched;
use crate::recipe::{Block, Fill, Recipe, noise};
use crate::segments::split;

const BURST: usize = 64 << 10;

/// Every kind of block, many frames, three checkpoints, an index of two levels.
pub(crate) fn recipe(compression: Compression) -> Recipe {
    let mut blocks = vec![
        (Block::Data(Fill::Noise(1)), 1),
        (Block::Zero, 3),
        (Block::PartlyUnreadable(Fill::Words(3)), 1),
        (Block::Unreadable, 2),
        (Block::Excluded, 2),
    ];
    for seed in 10..15 {
        blocks.push((Block::Data(Fill::Words(seed)), 1));
        blocks.push((Block::Data(Fill::Noise(seed)), 1));
        blocks.extend([(Block::Unused, 5), (Block::Ref(3), 1)]);
    }
    blocks.extend((0..50).flat_map(|_| [(Block::Zero, 1), (Block::Unused, 1)]));
    blocks.extend((30..34).map(|seed| (Block::Data(Fill::Noise(seed)), 1)));
    let sizes = Recipe { compression, checkpoint_every: 40, small_meta: true, ..Recipe::new(&[]) };
    Recipe { blocks, short_by: 5000, ..sizes }
}

/// What was salvaged: kind and bytes of each block, or why it is lost.
pub(crate) type Salvaged = Vec<std::result::Result<(Kind, Vec<u8>), Loss>>;

/// A state there is none of.
pub(crate) fn no_base(_: &BaseBlock, _: &mut [u8]) -> Result<u8> {
    Err(Error::Misuse("no parent"))
}

pub(crate) fn read(salvage: &Salvage) -> Salvaged {
    let mut reader = salvage.reader();
    let mut all = Vec::new();
    for stretch in salvage.walk(0) {
        assert_eq!(stretch.first, all.len() as u64, "no gap");
        assert!(stretch.run > 0);
        for block in stretch.first..stretch.end() {
            let mut out = vec![0xaa; salvage.geometry().block_len(block) as usize];
            let read = reader.read(block, &stretch.fate, &mut out, &mut no_base).unwrap();
            all.push(read.map(|kind| (kind, out)));
        }
    }
    assert_eq!(all.len() as u64, salvage.geometry().blocks());
    all
}

pub(crate) fn scan(file: Arc<dyn ReadAt>, hints: &Hints) -> Result<Salvage> {
    scan_with(file, &Keys::none(), hints)
}

pub(crate) fn scan_with(file: Arc<dyn ReadAt>, keys: &Keys, hints: &Hints) -> Result<Salvage> {
    Salvage::scan(file, keys, hints, Job::silent())
}

/// Hints that are enough for a file without any head.
pub(crate) fn hints(recipe: &Recipe) -> Hints {
    Hints { len: Some(recipe.geometry().len()), block_size: BlockSize::new(recipe.block_size) }
}

/// Blocks of which a frame is stored, with the frame.
pub(crate) fn framed(bytes: &[u8]) -> BTreeMap<usize, Frame> {
    let frames = Areas::of(bytes).frames.into_iter().filter(|frame| frame.kind == DATA);
    frames.map(|f| (crate::areas::number(bytes, f.header.start + 32), f)).collect()
}

fn whole(frame: &Frame) -> Range<usize> {
    frame.header.start..frame.padding.end
}

/// Checks that what was salvaged is true, and that every block is there whose frame none of
/// `lost` touches.
pub(crate) fn judge(
    found: &Salvaged,
    truth: &[(Kind, Vec<u8>)],
    frames: &BTreeMap<usize, Frame>,
    lost: &[Range<usize>],
) {
    for (block, (found, truth)) in found.iter().zip(truth).enumerate() {
        if let Ok((kind, bytes)) = found {
            assert!(*bytes == truth.1, "block {block} is made up");
            let by_frame = *kind == Kind::Data && truth.0 == Kind::Ref;
            assert!(*kind == truth.0 || by_frame, "block {block} is {kind:?}");
        } else if let Some(frame) = frames.get(&block) {
            let payload_end = frame.payload.end;
            let touched =
                |lost: &Range<usize>| lost.start < payload_end && frame.header.start < lost.end;
            assert!(lost.iter().any(touched), "block {block} at {:?} is lost", whole(frame));
        }
    }
}

pub(crate) fn once(lost: Range<usize>) -> Vec<Range<usize>> {
    vec![lost]
}

pub(crate) fn truth(recipe: &Recipe) -> Vec<(Kind, Vec<u8>)> {
    recipe.expected().into_iter().map(|e| (e.kind, e.bytes)).collect()
}

const CODECS: [Compression; 3] = [Compression::None, Compression::Lz4, Compression::Zstd(1)];

#[test]
fn each_segment_of_a_split_image_is_salvaged_by_itself() {
    for features in [0, Features::PARITY] {
        let recipe = Recipe { features, checkpoint_every: 4, ..recipe(Compression::Lz4) };
        let truth = truth(&recipe);
        let files = split(&recipe, SEGMENT_BYTES_MIN);
        assert!(files.len() > 3);
        let (mut found, mut own) = (vec![false; truth.len()], 0);
        for (no, file) in files.iter().enumerate() {
            let disk = MemDisk::from_bytes(file.to_vec());
            let salvage = scan(Arc::new(disk), &Hints::default()).unwrap();
            assert_eq!(salvage.identity().known_by, KnownBy::Superblock);
            assert_eq!(salvage.identity().shift > 0, no > 0);
            for stretch in salvage.walk(0) {
                let Fate::Decided(Evidence::Index | Evidence::Checkpoint, entry) = stretch.fate
                else {
                    continue;
                };
                // Where the index of the image says, not somewhere else.
                let at = usize::try_from(entry.address).unwrap();
                let is_there = file.get(at..).is_some_and(|bytes| bytes.starts_with(b"AVF1"));
                own += usize::from(no > 0 && is_there);
            }
            for (block, read) in read(&salvage).into_iter().enumerate() {
                let Ok((_, bytes)) = read else { continue };
                assert!(bytes == truth[block].1, "block {block} of segment {no} is made up");
                found[block] = true;
            }
        }
        assert!(own > 5, "{own} frames are where later segments say");
        // What a REF leads to may lie in another segment.
        let lost = (0..truth.len()).filter(|&block| !found[block] && truth[block].0 != Kind::Ref);
        assert_eq!(lost.count(), 0, "{found:?}");
    }
}

#[test]
fn a_sound_image_is_salvaged_whole_by_its_index() {
    for codec in CODECS {
        let recipe = recipe(codec);
        let bytes = recipe.build();
        let salvage = scan(Arc::new(Patched::new(&bytes)), &Hints::default()).unwrap();
        let found: Vec<_> = read(&salvage).into_iter().map(|read| read.unwrap()).collect();
        assert!(found == truth(&recipe));
        let by_index = |fate| matches!(fate, Fate::Decided(Evidence::Index, _));
        assert!(salvage.walk(0).all(|stretch| by_index(stretch.fate)));
        assert_eq!(salvage.meta().source_errors, recipe.meta().source_errors);
    }
}

#[test]
fn a_burst_of_64_kib_anywhere_costs_only_the_frames_it_touches() {
    for codec in CODECS {
        let recipe = recipe(codec);
        let bytes = recipe.build();
        let (truth, frames) = (truth(&recipe), framed(&bytes));
        let positions = bytes.len().div_ceil(PAGE) + BURST / PAGE;
        for_each(
            0..positions,
            || (),
            |(), position| {
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
fn two_bursts_cost_no_more_than_each_alone() {
    let recipe = recipe(Compression::Lz4);
    let bytes = recipe.build();
    let (truth, frames) = (truth(&recipe), framed(&bytes));
    for_each(
        0..150,
        || (),
        |(), seed| {
            let mut random = Random::new(&[seed as u64]);
            let lost = [(); 2].map(|()| {
                let start = random.below(bytes.len());
                start..(start + BURST).min(bytes.len())
            });
            let file = lost.iter().fold(Patched::new(&bytes), |file, lost| {
                file.with(lost.start, &vec![0; lost.len()])
            });
            let salvage = scan(Arc::new(file), &hints(&recipe)).unwrap();
            judge(&read(&salvage), &truth, &frames, &lost);
        },
    );
}

#[test]
fn a_cut_anywhere_costs_only_what_is_behind_it() {
    let recipe = recipe(Compression::Zstd(1));
    let bytes = recipe.build();
    let (truth, frames) = (truth(&recipe), framed(&bytes));
    let tail = bytes.len() - (100 << 10);
    let mut cuts: Vec<usize> = (PAGE..tail).step_by(PAGE).collect();
    cuts.extend((tail..bytes.len()).step_by(97));
    // Every byte around the end of a frame, a checkpoint's, too.
    let areas = Areas::of(&bytes);
    let last = areas.frames.iter().rev().take(3).map(|frame| frame.padding.end);
    cuts.extend(last.flat_map(|end| end - 130..end + 70));
    for_each(
        0..cuts.len(),
        || (),
        |(), number| {
            let cut = cuts[number];
            let file = Arc::new(Patched::new(&bytes).cut(cut));
            let salvage = scan(file, &Hints::default()).unwrap();
            let found = read(&salvage);
            judge(&found, &truth, &frames, &once(cut..bytes.len()));
            // Everything up to the last whole checkpoint is known.
            let mut checkpoints =
                areas.frames.iter().filter(|f| f.kind == crate::areas::CHECKPOINT);
            let before = checkpoints.rfind(|f| f.payload.end <= cut);
            let known = before.map_or(0, |f| crate::areas::number(&bytes, f.payload.start + 16));
            assert!(found[..known].iter().all(std::result::Result::is_ok), "cut at {cut}");
        },
    );
}

/// Enough frames that a percent of the sectors meets some of every sort.
pub(crate) fn larger() -> Recipe {
    let mut blocks: Vec<(Block, u64)> = Vec::new();
    for seed in 0..150 {
        blocks.extend([(Block::Data(Fill::Words(seed)), 2), (Block::Zero, 1)]);
        blocks.extend([(Block::Data(Fill::Noise(seed)), 1), (Block::Unused, 2)]);
    }
    Recipe { checkpoint_every: 60, small_meta: true, ..Recipe::new(&blocks) }
}

/// A file of which one percent of all sectors became noise, and which.
pub(crate) fn without_one_percent(bytes: &Arc<Vec<u8>>, seed: u64) -> (Patched, Vec<Range<usize>>) {
    let mut random = Random::new(&[seed]);
    let lost: Vec<Range<usize>> = (0..bytes.len().div_ceil(PAGE))
        .filter(|_| random.below(100) == 0)
        .map(|sector| sector * PAGE..((sector + 1) * PAGE).min(bytes.len()))
        .collect();
    let file = lost
        .iter()
        .fold(Patched::new(bytes), |file, lost| file.with(lost.start, &noise(seed, lost.len())));
    (file, lost)
}

#[test]
fn one_percent_of_all_sectors_destroyed_costs_only_the_frames_in_them() {
    let recipe = larger();
    let bytes = recipe.build();
    let (truth, frames) = (truth(&recipe), framed(&bytes));
    for_each(
        0..60,
        || (),
        |(), seed| {
            let (file, lost) = without_one_percent(&bytes, seed as u64);
            let salvage = scan(Arc::new(file), &hints(&recipe)).unwrap();
            judge(&read(&salvage), &truth, &frames, &lost);
        },
    );
}

#[test]
fn index_trailer_and_the_first_mib_gone_leave_every_other_frame() {
    let recipe = larger();
    let bytes = recipe.build();
    let (truth, frames) = (truth(&recipe), framed(&bytes));
    let index = Areas::of(&bytes).index.start;
    let lost = [0..1 << 20, index..bytes.len()];
    assert!(index > 2 << 20, "something is left");
    let file = lost
        .iter()
        .fold(Patched::new(&bytes), |file, lost| file.with(lost.start, &vec![0; lost.len()]));
    let nothing_known = scan(Arc::new(file.clone()), &Hints::default());
    let message = nothing_known.err().unwrap().to_string();
    assert!(message.contains("the size of the disk"), "{message}");
    let only_len = Hints { block_size: None, ..hints(&recipe) };
    let salvage = scan(Arc::new(file), &only_len).unwrap();
    assert_eq!(salvage.geometry(), &recipe.geometry(), "block size by the frames");
    judge(&read(&salvage), &truth, &frames, &lost);
}

#[test]
fn sectors_that_cannot_be_read_are_read_around_and_named() {
    struct Bad(Patched, Extent);
    impl ReadAt for Bad {
        fn len(&self) -> u64 {
            self.0.len()
        }
        fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
            match Extent::new(offset, out.len() as u64).intersect(self.1) {
                Some(_) => Err(io::Error::from_raw_os_error(5)),
                None => self.0.read_exact_at(out, offset),
            }
        }
    }
    let recipe = larger();
    let bytes = recipe.build();
    let bad = Extent::new(1_000_448, 1024);
    let salvage = scan(Arc::new(Bad(Patched::new(&bytes), bad)), &Hints::default()).unwrap();
    assert_eq!(salvage.unreadable(), [bad]);
    let lost = 1_000_448..1_001_472;
    judge(&read(&salvage), &truth(&recipe), &framed(&bytes), &once(lost));
    assert!(read(&salvage).contains(&Err(Loss::Frame)));
}

#[test]
fn a_file_that_lost_its_beginning_is_read_by_what_its_end_says() {
    let recipe = recipe(Compression::Lz4);
    let bytes = recipe.build();
    let (truth, frames) = (truth(&recipe), framed(&bytes));
    for gone in [4096, 20 << 10, 100 << 10] {
        let rest = bytes[gone..].to_vec();
        let salvage = scan(Arc::new(MemDisk::from_bytes(rest.clone())), &Hints::default()).unwrap();
        assert_eq!(salvage.identity().shift, gone as u64);
        judge(&read(&salvage), &truth, &frames, &once(0..gone));
        // And without an end, by the leaves in the checkpoints.
        let rest = rest[..Areas::of(&bytes).index.start - gone].to_vec();
        let salvage = scan(Arc::new(MemDisk::from_bytes(rest)), &hints(&recipe)).unwrap();
        judge(&read(&salvage), &truth, &frames, &once(0..gone));
    }
}
