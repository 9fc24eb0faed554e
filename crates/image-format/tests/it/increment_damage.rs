//! Damaged and forged images with a parent: nothing goes unnoticed, nothing reads as other bytes.

use std::sync::Arc;

use aiv_image_format::{Depth, Error, Image, IndexEntry, Kind, ParentState, dump};
use aiv_volume_io::Job;

use crate::areas::{Areas, DATA, DELTA, PAGE};
use crate::change::{Change, Increment};
use crate::damage::{Flipping, bits_of, for_each, is_read_once};
use crate::forge::Forgery;
use crate::increments::{BLOCK, noisy, state};
use crate::memory::peak_of;
use crate::mutants::{Dice, MEMORY_MAX, check_groups, mutate, value};
use crate::naive;
use crate::parents::{Cell, Remembered, read_block};
use crate::patched::Patched;
use crate::recipe::open;

/// A difference, a copy, a repetition, inherited blocks, runs, a short last block.
fn victim() -> Increment {
    Increment {
        checkpoint_every: 5,
        len: 12 * BLOCK - 1000,
        ..Increment::new(&[
            (Change::Patch(5000), 1),
            (Change::Moved(7), 1),
            (Change::Keep, 2),
            (Change::New(1), 1),
            (Change::Repeat(0), 1),
            (Change::Zero, 2),
            (Change::Keep, 1),
            (Change::Unused, 1),
            (Change::Unreadable, 1),
            (Change::Patch(9), 1),
        ])
    }
}

fn parent() -> Remembered {
    Remembered::new(state(&[(Change::New(3), 12)], 12 * BLOCK - 1000))
}

/// Whether the damage in an open image is noticed; whatever is read must be right.
fn is_noticed(image: &Image, parent: &dyn ParentState, truth: &[Cell], blocks: &[u64]) -> bool {
    for &block in blocks {
        let wanted = &truth[usize::try_from(block).unwrap()].1;
        let mut out = vec![0; wanted.len()];
        if read_block(image, Some(parent), block, &mut out).is_ok() {
            assert!(out == *wanted, "block {block} reads as other bytes");
        }
    }
    match image.verify_on(parent, Depth::Data, Job::silent()) {
        Ok(report) => !report.is_sound(),
        // The link of the image is another one.
        Err(Error::Misuse(_)) => true,
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn every_flipped_bit_of_an_increment_is_found() {
    let parent = parent();
    let bytes = victim().build(&parent.model);
    let truth = victim().state(&parent.model).cells;
    let areas = Areas::of(&bytes);
    let noise = areas.frame(DATA).payload.clone();
    assert_eq!(areas.frames.iter().filter(|frame| frame.kind == DELTA).count(), 2);
    let opened = || {
        let file = Arc::new(Flipping::new(&bytes));
        (Image::open(file.clone()).unwrap(), file)
    };
    for_each(0..bytes.len(), opened, |(image, file), byte| {
        // Blocks live in frames and index.
        let some: &[u64] = if byte < areas.tree.start { &[0, 1, 2, 4, 5, 11] } else { &[] };
        for bit in bits_of(&bytes, &areas, &noise, byte) {
            let noticed = if is_read_once(&areas, byte) {
                match Image::open(Arc::new(Patched::new(&bytes).flipped(byte, bit))) {
                    Ok(image) => is_noticed(&image, &parent, &truth, some),
                    Err(Error::Io { .. } | Error::Misuse(_)) => panic!("damage is neither"),
                    Err(_) => true,
                }
            } else {
                file.flip(byte, bit);
                is_noticed(image, &parent, &truth, some)
            };
            assert!(noticed, "bit {bit} of byte {byte}");
        }
    });
}

#[test]
fn every_page_of_an_increment_is_missed() {
    let parent = parent();
    let bytes = victim().build(&parent.model);
    let truth = victim().state(&parent.model).cells;
    let blocks: Vec<u64> = (0..truth.len() as u64).collect();
    for at in (0..bytes.len()).step_by(PAGE) {
        if bytes[at..at + PAGE].iter().all(|&b| b == 0) {
            continue;
        }
        let file = Patched::new(&bytes).with(at, &[0; PAGE]);
        if let Ok(image) = Image::open(Arc::new(file)) {
            assert!(is_noticed(&image, &parent, &truth, &blocks), "page at {at}");
        }
    }
}

#[test]
fn a_damaged_parent_is_not_read_as_other_bytes() {
    let good = noisy(12);
    let files = |bytes: &Arc<Vec<u8>>| crate::parents::Files::new(open(bytes)?, None);
    let full = crate::change::full_image(&good, 8);
    let frame = Areas::of(&full).frames[7].payload.start;
    let mut bad = full.to_vec();
    bad[frame + 20] ^= 1;
    assert!(files(&Arc::new(bad)).is_err(), "block 7");
}

/// Forgeries per run of the test, from a fixed seed.
const MUTANTS: u64 = 2_000;

const DELTA_HEAD: &[(usize, usize)] =
    &[(0, 8), (0, 1), (5, 1), (8, 32), (40, 1), (40, 1), (41, 7), (48, 4), (52, 1), (53, 8)];
const ENTRY: &[(usize, usize)] =
    &[(0, 1), (5, 2), (7, 1), (8, 8), (8, 1), (13, 2), (14, 2), (16, 32)];
const PARENT_FIELDS: &[(usize, usize)] = &[(16, 1), (96, 16), (112, 32), (144, 1), (160, 8)];
const COUNTS: &[(usize, usize)] = &[(496, 8), (504, 8), (272, 8), (320, 8)];

/// One forged field of those an image with a parent has, or of any image.
fn mutate_increment(dice: &mut Dice, forgery: &mut Forgery) -> String {
    let areas = forgery.areas.clone();
    let (name, at, (offset, size)) = match dice.below(8) {
        0..=2 => {
            let deltas: Vec<_> = areas.frames.iter().filter(|f| f.kind == DELTA).collect();
            ("difference", dice.pick(&deltas).payload.start, dice.pick(DELTA_HEAD))
        }
        3 | 4 => ("entry", areas.index.start + 64 + dice.below(10) * 48, dice.pick(ENTRY)),
        5 => ("superblock", areas.superblock.start, dice.pick(PARENT_FIELDS)),
        6 if dice.below(2) == 0 => ("trailer", areas.last_trailer.start, dice.pick(COUNTS)),
        _ => return mutate(dice, forgery),
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

/// Reads everything a forged image lets one read; says whether it opened and whether it is sound.
fn judge(
    bytes: &Arc<Vec<u8>>,
    parent: &Remembered,
    truth: &[(Option<IndexEntry>, Vec<u8>)],
    what: &str,
) -> (bool, bool) {
    let image = match open(bytes) {
        Ok(image) => image,
        Err(Error::Io { op, offset, source }) => panic!("{op} at {offset}: {source} ({what})"),
        Err(_) => return (false, false),
    };
    let is_linked = image.superblock().parent == Some(parent.link());
    let report = match image.verify_on(parent, Depth::Data, Job::silent()) {
        Ok(report) => Some(report),
        Err(Error::Misuse(_)) if !is_linked => None,
        Err(error) => panic!("{error:?} ({what})"),
    };
    image.verify(Depth::Data, Job::silent()).unwrap_or_else(|e| panic!("{e:?} ({what})"));
    let mut text = String::new();
    dump(&image, &mut text).unwrap_or_else(|error| panic!("{error:?} ({what})"));
    check_groups(&image, what);
    let blocks = image.geometry().blocks();
    let mut read: Vec<Option<Cell>> = Vec::new();
    for block in 0..blocks.min(20) {
        let mut out = vec![0; image.geometry().block_len(block) as usize];
        let Ok(entry) = image.entry(block) else {
            read.push(None);
            continue;
        };
        // Nobody asks the parent for what it does not have.
        let asked = entry.map_or(block, |entry| entry.parent_block);
        let from_parent = entry.is_none_or(|entry| entry.kind == Kind::Parent);
        if from_parent && parent.model.geometry.block_len(asked) as usize != out.len() {
            read.push(None);
            continue;
        }
        let result = read_with_bounds(&image, parent, block, &mut out);
        if let Err(Error::Io { op, offset, source }) = &result {
            panic!("{op} at {offset}: {source} ({what})");
        }
        let is_read = result.is_ok();
        let same = truth.get(usize::try_from(block).unwrap());
        let same = same.filter(|t| is_linked && t.0 == entry && t.1.len() == out.len());
        if let Some((_, bytes)) = same.filter(|_| is_read) {
            assert!(*bytes == out, "block {block} ({what})");
        }
        let inherited = || parent.model.cells[usize::try_from(block).unwrap()].0;
        let kind = entry.map_or_else(inherited, |entry| entry.kind);
        read.push(is_read.then_some((kind, out)));
    }
    let is_sound = report.is_some_and(|report| report.is_sound());
    if is_sound && blocks <= 20 {
        let read: Option<Vec<Cell>> = read.into_iter().collect();
        let read = read.unwrap_or_else(|| panic!("a sound image reads ({what})"));
        let roots = naive::roots(image.geometry(), &read);
        assert_eq!(roots.state, image.trailer().state_root, "{what}");
    }
    (true, is_sound)
}

/// Reads a block; a base that the parent does not have is an error.
fn read_with_bounds(
    image: &Image,
    parent: &Remembered,
    block: u64,
    out: &mut [u8],
) -> aiv_image_format::Result<u8> {
    let Some(entry) = image.entry(block)? else { return parent.read(block, out) };
    let mut base = |wanted: &aiv_image_format::BaseBlock, out: &mut [u8]| match parent
        .model
        .geometry
        .block_len(wanted.block)
        as usize
        == out.len()
    {
        true => parent.read(wanted.block, out),
        false => Err(Error::Misuse("no such block")),
    };
    image.read_entry(&mut aiv_image_format::Scratch::default(), &entry, block, 8, out, &mut base)
}

#[test]
fn a_forged_field_of_an_increment_gives_an_error_or_the_truth() {
    let parent = parent();
    let bytes = victim().build(&parent.model);
    let image = open(&bytes).unwrap();
    let truth: Vec<(Option<IndexEntry>, Vec<u8>)> = (0..)
        .zip(victim().state(&parent.model).cells)
        .map(|(block, cell)| (image.entry(block).unwrap(), cell.1))
        .collect();
    assert_eq!(Forgery::of(&bytes).seal(), bytes, "sealing an untouched image changes nothing");
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread();
    let pool = pool.build().expect("a pool of one");
    let (mut opened, mut sound) = (0, 0);
    for seed in 0..MUTANTS {
        let mut dice = Dice::new(seed);
        let mut forgery = Forgery::of(&bytes);
        let fields = 1 + dice.below(10) / 7;
        let texts: Vec<String> =
            (0..fields).map(|_| mutate_increment(&mut dice, &mut forgery)).collect();
        let what = format!("seed {seed}: {}", texts.join("; "));
        let forged = forgery.seal();
        let (got, peak) = peak_of(|| pool.install(|| judge(&forged, &parent, &truth, &what)));
        assert!(peak < MEMORY_MAX, "{peak} bytes of memory ({what})");
        opened += u64::from(got.0);
        sound += u64::from(got.1);
    }
    assert!(opened > MUTANTS / 2, "only {opened} forgeries got past the door");
    assert!(sound < MUTANTS / 4, "{sound} forgeries passed");
}
