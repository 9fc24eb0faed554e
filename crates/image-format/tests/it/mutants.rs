//! Thousands of forged images: whatever a field says, reading ends with an error or the truth.

use std::ops::Range;
use std::sync::Arc;

use aiv_image_format::{Depth, Error, Image, IndexEntry, Kind, dump, hash};
use aiv_volume_io::Job;

use crate::areas::{Areas, CHECKPOINT, LOCAL, PAGE};
use crate::forge::Forgery;
use crate::memory::peak_of;
use crate::naive;
use crate::recipe::{Block, Fill, Recipe, open};

/// Forgeries per run of the test, from a fixed seed.
const MUTANTS: u64 = 3_000;
/// Blocks read from each; a forged geometry may promise 2^40.
const BLOCKS_MAX: u64 = 300;
const ENTRIES_MAX: usize = 5_000;
/// Bytes of memory any of them may cost, those of this test included.
pub(crate) const MEMORY_MAX: i64 = 64 << 20;

/// An index of two levels, three tree pages' worth of groups, frames of every sort.
pub(crate) fn base() -> Recipe {
    let mut blocks = vec![
        (Block::Data(Fill::Noise(1)), 1),
        (Block::Data(Fill::Words(1)), 2),
        (Block::Ref(1), 1),
        (Block::PartlyUnreadable(Fill::Words(2)), 1),
        (Block::Unreadable, 3),
        (Block::Shifted(0), 1),
        (Block::Shifted(1), 1),
    ];
    blocks.extend((0..100).flat_map(|_| [(Block::Zero, 1), (Block::Unused, 1)]));
    blocks.push((Block::Data(Fill::Words(3)), 1));
    Recipe { checkpoint_every: 80, short_by: 700, small_meta: true, ..Recipe::new(&blocks) }
}

/// A stream of numbers from a seed, the same on every machine.
pub(crate) struct Dice(blake3::OutputReader);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof())
    }

    fn number(&mut self) -> u64 {
        let mut raw = [0; 8];
        self.0.fill(&mut raw);
        u64::from_le_bytes(raw)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.number() % bound as u64).unwrap()
    }

    pub(crate) fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }
}

/// Offset and size of the fields of each record.
const SUPERBLOCK: &[(usize, usize)] = &[
    (8, 2),
    (10, 2),
    (12, 1),
    (16, 8),
    (24, 8),
    (32, 8),
    (40, 8),
    (48, 16),
    (64, 16),
    (80, 16),
    (96, 16),
    (112, 32),
    (144, 1),
    (145, 1),
    (146, 1),
    (147, 1),
    (148, 4),
    (152, 4),
    (156, 4),
    (160, 8),
    (168, 8),
    (176, 12),
    (192, 32),
    (224, 48),
    (2000, 1),
];
const TRAILER: &[(usize, usize)] = &[
    (8, 2),
    (10, 2),
    (12, 1),
    (16, 16),
    (32, 16),
    (48, 16),
    (64, 16),
    (80, 32),
    (112, 32),
    (144, 32),
    (240, 8),
    (248, 8),
    (256, 8),
    (264, 8),
    (272, 8),
    (312, 8),
    (320, 8),
    (360, 8),
    (368, 8),
    (408, 8),
    (416, 8),
    (424, 8),
    (432, 8),
    (440, 8),
    (448, 8),
    (456, 8),
    (464, 8),
    (472, 8),
    (480, 8),
    (488, 8),
    (616, 8),
    (1000, 1),
];
const FRAME: &[(usize, usize)] = &[
    (0, 4),
    (4, 1),
    (5, 1),
    (6, 2),
    (8, 12),
    (20, 4),
    (24, 8),
    (32, 8),
    (40, 4),
    (44, 4),
    (52, 8),
];
const LOCAL_HEAD: &[(usize, usize)] =
    &[(0, 1), (1, 7), (8, 8), (8, 1), (16, 32), (48, 8), (48, 1), (56, 32), (88, 4), (92, 2)];
const PAGE_HEADER: &[(usize, usize)] =
    &[(0, 4), (4, 1), (5, 1), (6, 2), (8, 8), (16, 8), (24, 16), (40, 1)];
const INDEX_ENTRY: &[(usize, usize)] = &[(0, 8), (5, 2), (7, 1), (8, 8), (8, 6), (14, 2), (16, 32)];
const TREE_NODE: &[(usize, usize)] = &[(0, 8), (8, 8), (16, 32), (48, 32)];
const CHECKPOINT_HEAD: &[(usize, usize)] =
    &[(0, 8), (8, 8), (16, 8), (24, 8), (32, 4), (36, 4), (40, 4), (44, 4), (64, 12), (80, 32)];

/// One forged field, in words.
pub(crate) fn mutate(dice: &mut Dice, forgery: &mut Forgery) -> String {
    let areas = forgery.areas.clone();
    let (name, at, (offset, size)) = match dice.below(10) {
        0 => ("superblock", areas.superblock.start, dice.pick(SUPERBLOCK)),
        1 | 2 => ("trailer", areas.last_trailer.start, dice.pick(TRAILER)),
        3 => ("frame", dice.pick(&areas.frames).header.start, dice.pick(FRAME)),
        4 => ("META frame", dice.pick(&areas.sections).header.start, dice.pick(FRAME)),
        5 => ("page", page(dice, &areas), dice.pick(PAGE_HEADER)),
        6 => {
            let entry = 64 + dice.below(84) * 48;
            ("index entry", page_of(dice, &areas.index) + entry, dice.pick(INDEX_ENTRY))
        }
        7 if dice.below(2) == 0 => {
            let node = 64 + dice.below(3) * 80;
            ("tree node", page_of(dice, &areas.tree) + node, dice.pick(TREE_NODE))
        }
        7 => ("checkpoint", areas.frame(CHECKPOINT).payload.start, dice.pick(CHECKPOINT_HEAD)),
        8 if areas.frames.iter().any(|frame| frame.kind == LOCAL) => {
            let locals: Vec<_> = areas.frames.iter().filter(|f| f.kind == LOCAL).collect();
            ("LOCAL head", dice.pick(&locals).payload.start, dice.pick(LOCAL_HEAD))
        }
        _ => {
            let frame = dice.pick(&[areas.frames.clone(), areas.sections.clone()].concat());
            ("payload", frame.payload.start + dice.below(frame.payload.len()), (0, 1))
        }
    };
    let old = forgery.bytes[at + offset..at + offset + size].to_vec();
    let new = value(dice, &old, forgery.bytes.len() as u64);
    let text = format!("{name} at {at}, field {offset}: {old:02x?} to {new:02x?}");
    *forgery = match name {
        "superblock" => forgery.clone().superblock(offset, &new),
        "trailer" => forgery.clone().trailer(offset, &new),
        _ => forgery.clone().at(at + offset, &new),
    };
    text
}

fn page(dice: &mut Dice, areas: &Areas) -> usize {
    let area = dice.pick(&[areas.index.clone(), areas.tree.clone()]);
    page_of(dice, &area)
}

fn page_of(dice: &mut Dice, area: &Range<usize>) -> usize {
    area.start + dice.below(area.len() / PAGE) * PAGE
}

/// Another value for a field: near the old one, at a border, or any.
pub(crate) fn value(dice: &mut Dice, old: &[u8], file_len: u64) -> Vec<u8> {
    if old.len() > 8 {
        let mut new = old.to_vec();
        match dice.below(3) {
            0 => new.fill(0),
            1 => new.fill(0xff),
            _ => new[dice.below(old.len())] ^= 1 << dice.below(8),
        }
        return new;
    }
    let mut raw = [0; 8];
    raw[..old.len()].copy_from_slice(old);
    let number = u64::from_le_bytes(raw);
    let new = match dice.below(12) {
        0 => 0,
        1 => u64::MAX,
        2 => u64::MAX - dice.number() % 10_000,
        3 => number.wrapping_add(1),
        4 => number.wrapping_sub(1),
        5 => number.wrapping_mul(2),
        6 => 1 << dice.below(64),
        7 => (1u64 << dice.below(64)).wrapping_sub(1),
        8 => file_len.wrapping_add(dice.number() % 9000).wrapping_sub(4500),
        9 => number.wrapping_add(PAGE as u64),
        10 => number ^ 1 << dice.below(old.len() * 8),
        _ => dice.number() >> dice.below(64),
    };
    new.to_le_bytes()[..old.len()].to_vec()
}

/// Reads everything a forged image lets one read, and checks what it gives for the truth.
fn judge(bytes: &Arc<Vec<u8>>, truth: &[(IndexEntry, Vec<u8>)], what: &str) -> bool {
    let image = match open(bytes) {
        Ok(image) => image,
        Err(Error::Io { op, offset, source }) => panic!("{op} at {offset}: {source} ({what})"),
        Err(_) => return false,
    };
    let report = match image.verify(Depth::Data, Job::silent()) {
        Ok(report) => report,
        Err(error) => panic!("{error:?} ({what})"),
    };
    let mut text = String::new();
    dump(&image, &mut text).unwrap_or_else(|error| panic!("{error:?} ({what})"));
    let mut end = 0;
    for entry in image.entries(0).take(ENTRIES_MAX).map_while(Result::ok) {
        assert!(entry.block >= end && entry.end() <= image.geometry().blocks(), "{what}");
        end = entry.end();
    }
    check_groups(&image, what);
    let read = read_some(&image, truth, what);
    if report.is_sound() && image.geometry().blocks() <= BLOCKS_MAX {
        let read: Option<Vec<(Kind, Vec<u8>)>> = read.into_iter().collect();
        let roots = naive::roots(image.geometry(), &read.expect("a sound image reads"));
        assert_eq!(roots.state, image.trailer().state_root, "{what}");
    }
    true
}

/// The groups an image names ascend, and exist; walking them ends.
pub(crate) fn check_groups(image: &Image, what: &str) {
    let groups = image.geometry().blocks().div_ceil(hash::FAN_OUT as u64);
    let mut end = 0;
    for span in image.groups().take(ENTRIES_MAX).map_while(Result::ok) {
        assert!(span.first >= end && span.count > 0, "{what}");
        end = span.first + span.count;
        assert!(end <= groups, "{what}");
    }
}

fn read_some(
    image: &Image,
    truth: &[(IndexEntry, Vec<u8>)],
    what: &str,
) -> Vec<Option<(Kind, Vec<u8>)>> {
    let mut reader = image.block_reader();
    let blocks = image.geometry().blocks();
    let mut read = |block: u64| {
        let mut out = vec![0; image.geometry().block_len(block) as usize];
        let kind = match reader.read(block, &mut out) {
            Ok(kind) => kind,
            Err(Error::Io { op, offset, source }) => panic!("{op} at {offset}: {source} ({what})"),
            Err(_) => return None,
        };
        let entry = image.entry(block).ok().flatten().expect("it was just read");
        if entry.has_frame() {
            assert_eq!(hash::leaf(&out), entry.leaf, "block {block} ({what})");
        }
        let same = truth.iter().find(|(e, bytes)| *e == entry && bytes.len() == out.len());
        if let Some((_, bytes)) = same.filter(|_| entry.run == 1) {
            assert!(*bytes == out, "block {block} ({what})");
        }
        Some((kind, out))
    };
    if blocks > BLOCKS_MAX {
        return [0, 1, blocks / 2, blocks - 1].into_iter().map(read).collect();
    }
    (0..blocks).map(&mut read).collect()
}

#[test]
fn a_forged_field_gives_an_error_or_the_truth() {
    let bytes = base().build();
    let image = open(&bytes).unwrap();
    let truth: Vec<(IndexEntry, Vec<u8>)> = (0..)
        .zip(base().expected())
        .map(|(block, expected)| (image.entry(block).unwrap().unwrap(), expected.bytes))
        .collect();
    assert_eq!(Forgery::of(&bytes).seal(), bytes, "sealing an untouched image changes nothing");
    // Everything in this thread, where its memory is counted.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread();
    let pool = pool.build().expect("a pool of one");
    let mut opened = 0;
    for seed in 0..MUTANTS {
        let mut dice = Dice::new(seed);
        let mut forgery = Forgery::of(&bytes);
        let fields = 1 + dice.below(10) / 7;
        let texts: Vec<String> = (0..fields).map(|_| mutate(&mut dice, &mut forgery)).collect();
        let what = format!("seed {seed}: {}", texts.join("; "));
        let forged = forgery.seal();
        let (got_in, peak) = peak_of(|| pool.install(|| judge(&forged, &truth, &what)));
        assert!(peak < MEMORY_MAX, "{peak} bytes of memory ({what})");
        opened += u64::from(got_in);
    }
    assert!(opened > MUTANTS / 4, "only {opened} forgeries got past the door");
}
