//! Damaged images are made whole again, byte for byte, or not at all.

use std::io;
use std::sync::Arc;

use aiv_image_format::{Depth, Error, Features, ImageWriter, Keys, Repair, RepairReport};
use aiv_testkit::MemStorage;
use aiv_volume_io::{Job, MemDisk, ReadAt, Storage};

use crate::areas::{Areas, CHECKPOINT, PAGE, PARITY, has_data_parity, number};
use crate::forge::Forgery;
use crate::naive_parity;
use crate::recipe::{Block, Fill, Recipe, noise, open};

const PIECE: usize = 64 << 10;
const STRIPE: usize = 128 * PIECE;

/// Some blocks of each kind: one stripe, not full.
fn small(features: u64) -> Arc<Vec<u8>> {
    let mut blocks = vec![
        (Block::Data(Fill::Noise(1)), 20),
        (Block::Zero, 3),
        (Block::Unused, 700),
        (Block::Data(Fill::Words(2)), 40),
        (Block::Ref(3), 1),
        (Block::Unreadable, 1),
    ];
    // Enough entries for two stripes of metadata.
    blocks.extend([(Block::Zero, 1), (Block::Unused, 1)].repeat(700));
    Recipe { features, ..Recipe::new(&blocks) }.build()
}

/// Noise of so many MiB in blocks of 256 KiB.
fn large(mib: u64) -> Arc<Vec<u8>> {
    let blocks: Vec<_> = (0..mib * 4).map(|seed| (Block::Data(Fill::Noise(seed)), 1)).collect();
    let features = Features::PARITY;
    Recipe { block_size: 256 << 10, features, ..Recipe::new(&blocks) }.build()
}

pub(crate) fn disk(bytes: &[u8]) -> Arc<dyn ReadAt> {
    Arc::new(MemDisk::from_bytes(bytes.to_vec()))
}

/// What comes of repairing `file` with the help of `copies`: a report, and the new file if there
/// can be one.
pub(crate) fn repair_of(
    file: Arc<dyn ReadAt>,
    copies: Vec<Arc<dyn ReadAt>>,
) -> aiv_image_format::Result<(RepairReport, Option<Arc<Vec<u8>>>)> {
    repair_with(file, copies, &Keys::none())
}

/// The same with keys.
pub(crate) fn repair_with(
    file: Arc<dyn ReadAt>,
    copies: Vec<Arc<dyn ReadAt>>,
    keys: &Keys,
) -> aiv_image_format::Result<(RepairReport, Option<Arc<Vec<u8>>>)> {
    let mut repair = Repair::of(file, copies, keys, Job::silent())?;
    let report = repair.report().clone();
    let storage = MemStorage::new();
    let mut out = storage.create("repaired").unwrap();
    match repair.write(&mut *out, Job::silent()) {
        Ok(()) => Ok((report, Some(storage.contents("repaired").unwrap()))),
        Err(Error::Misuse(_)) if !report.is_complete() => Ok((report, None)),
        Err(error) => Err(error),
    }
}

#[track_caller]
pub(crate) fn assert_repaired(good: &[u8], damaged: &[u8], what: &str) -> RepairReport {
    let repaired = repair_of(disk(damaged), Vec::new());
    let (report, repaired) = repaired.unwrap_or_else(|error| panic!("{what}: {error}"));
    let repaired = repaired.unwrap_or_else(|| panic!("{what}: {report:?}"));
    assert!(*repaired == good, "{what}: the repaired file differs");
    assert_eq!(report.is_sound(), damaged == good, "{what}: {report:?}");
    report
}

/// `good` with a burst of noise.
pub(crate) fn with_burst(good: &[u8], at: usize, len: usize) -> Vec<u8> {
    let mut damaged = good.to_vec();
    let end = (at + len).min(good.len());
    damaged[at..end].copy_from_slice(&noise(at as u64, end - at));
    damaged
}

#[test]
fn an_image_with_parity_is_sound_and_a_sound_image_needs_no_repair() {
    for good in [small(Features::PARITY), small(0), large(20)] {
        let image = open(&good).unwrap();
        assert_eq!(image.verify(Depth::Data, Job::silent()).unwrap().damage, []);
        assert!(assert_repaired(&good, &good, "sound").is_sound());
    }
}

#[test]
fn parity_areas_and_frames_are_what_the_document_says() {
    for good in [small(Features::PARITY), small(0), large(20)] {
        let areas = Areas::of(&good);
        let protected = [&good[..PAGE], &good[areas.index.start..areas.parity.start]].concat();
        let with_data_parity = has_data_parity(&good);
        let area = naive_parity::area(&protected, &good[48..64], with_data_parity);
        assert!(good[areas.parity.clone()] == area);
        let frames: Vec<_> = areas.frames.iter().filter(|frame| frame.kind == PARITY).collect();
        if !with_data_parity {
            assert!(frames.is_empty());
            continue;
        }
        let end = areas.index.start - 266_240;
        assert_eq!(frames.len(), end.div_ceil(STRIPE));
        assert_eq!(frames.last().unwrap().header.start, end);
        for (stripe, frame) in frames.iter().enumerate() {
            assert_eq!(number(&good, frame.header.start + 32), stripe);
            let from = stripe * STRIPE;
            let pieces: Vec<&[u8]> = good[from..(from + STRIPE).min(end)].chunks(PIECE).collect();
            let parity = naive_parity::parity(&pieces, PIECE);
            let payload = &good[frame.payload.clone()];
            assert!(payload[..4 * PIECE] == parity, "stripe {stripe}");
            assert!(payload[4 * PIECE..].iter().all(|&byte| byte == 0));
            // It comes with the first frame behind its stripe.
            let behind = frame.header.start.saturating_sub(from + STRIPE);
            assert!(behind <= (256 << 10) + 64 + (64 << 10), "{behind}");
        }
    }
}

#[test]
fn a_burst_of_192_kib_anywhere_is_repaired_where_pieces_have_parity() {
    let good = small(Features::PARITY);
    for at in (0..good.len()).step_by(13_000) {
        let damaged = with_burst(&good, at, 192 << 10);
        assert_repaired(&good, &damaged, &format!("burst at {at}"));
    }
}

#[test]
fn a_burst_of_192_kib_is_repaired_at_the_borders_of_stripes() {
    let good = large(20);
    let frames_end = Areas::of(&good).index.start;
    let borders = [0, STRIPE, STRIPE + (256 << 10), 2 * STRIPE, frames_end - 266_240, frames_end];
    for border in borders.into_iter().chain([good.len() - (330 << 10)]) {
        for before in [64, 65_536, 100_000, 196_600] {
            let at = border.saturating_sub(before);
            let damaged = with_burst(&good, at, 192 << 10);
            assert_repaired(&good, &damaged, &format!("burst at {at}"));
        }
    }
}

#[test]
fn every_stripe_is_repaired_although_the_parity_of_each_lies_in_a_damaged_piece_of_the_next() {
    let good = large(34);
    let mut damaged = good.to_vec();
    for stripe in 0..4 {
        let at = (stripe + 1) * STRIPE;
        // Two pieces before the border, two behind it, with the header of the frame.
        for piece in [at - 2 * PIECE, at - PIECE, at, at + 4 * PIECE] {
            damaged[piece + 5] ^= 0x40;
        }
        let frames = Areas::of(&good);
        let frame = frames.frames.iter().filter(|frame| frame.kind == PARITY).nth(stripe);
        damaged[frame.unwrap().header.start] ^= 1;
    }
    let report = assert_repaired(&good, &damaged, "a chain of stripes");
    assert!(report.pieces_by_parity >= 16, "{report:?}");
}

#[test]
fn four_pieces_of_each_stripe_are_found_again_and_five_are_not() {
    let good = large(20);
    for seed in 0..6u64 {
        let order = noise(seed, 128 * 3);
        let mut damaged = good.to_vec();
        let mut hit = Vec::new();
        for stripe in 0..2 {
            let mut pieces: Vec<usize> = (0..128).collect();
            pieces.sort_by_key(|piece| order[stripe * 128 + piece]);
            hit.extend(pieces.into_iter().map(|piece| stripe * 128 + piece).take(4));
        }
        hit.iter().for_each(|piece| damaged[piece * PIECE + 77] ^= 1);
        let report = assert_repaired(&good, &damaged, &format!("seed {seed}"));
        assert_eq!(report.pieces_by_parity, 8);
        // A fifth one in the first stripe.
        let fifth = (1..128).find(|piece| !hit.contains(piece)).unwrap();
        damaged[fifth * PIECE] ^= 1;
        let (report, repaired) = repair_of(disk(&damaged), Vec::new()).unwrap();
        assert!(repaired.is_none());
        assert_eq!(report.pieces_lost, 5, "{report:?}");
        let listed: u64 = report.lost.iter().map(|extent| extent.len).sum();
        assert_eq!(listed, 5 * PIECE as u64);
        assert!(report.lost.iter().any(|extent| extent.start <= (fifth * PIECE) as u64));
        assert!(!report.lost_blocks.is_empty());
    }
}

#[test]
fn a_copy_gives_what_parity_does_not() {
    for good in [small(0), small(Features::PARITY), large(20)] {
        let end = Areas::of(&good).index.start;
        // One lacks the first half of its frames, the other the second.
        let (mut first, mut second) = (good.to_vec(), good.to_vec());
        let middle = end / 2 / PIECE * PIECE;
        first[PAGE..middle].fill(7);
        second[middle..end].fill(9);
        let (report, repaired) = repair_of(disk(&first), vec![disk(&second)]).unwrap();
        assert!(*repaired.expect("together they have all") == *good);
        assert!(report.pieces_from_copies > 0);
        let (report, repaired) = repair_of(disk(&first), vec![disk(&first)]).unwrap();
        assert!(repaired.is_none() && report.pieces_lost > 0, "{report:?}");
    }
}

#[test]
fn without_parity_over_the_pieces_a_lost_frame_stays_lost_and_its_blocks_are_named() {
    let good = small(0);
    let areas = Areas::of(&good);
    let frame = &areas.frames[2];
    let mut damaged = good.to_vec();
    damaged[frame.payload.start + 100] ^= 1;
    let (report, repaired) = repair_of(disk(&damaged), Vec::new()).unwrap();
    assert!(repaired.is_none());
    assert_eq!(report.pieces_lost, 1);
    let piece = frame.payload.start / PIECE * PIECE;
    assert_eq!((report.lost[0].start, report.lost[0].len), (piece as u64, PIECE as u64));
    assert!(report.lost_blocks.iter().any(|&(first, count)| (first..first + count).contains(&2)));
}

#[test]
fn any_four_pages_of_a_stripe_of_metadata_can_vanish() {
    let good = small(0);
    let areas = Areas::of(&good);
    let pages: Vec<usize> =
        [0].into_iter().chain((areas.index.start..areas.parity.start).step_by(PAGE)).collect();
    let [(count, stripes)] = naive_parity::groups(pages.len(), false)[..] else { panic!("small") };
    assert!(count > 8, "{count}");
    let directory = PAGE;
    let row: Vec<usize> = pages
        .iter()
        .copied()
        .chain((0..4 * stripes).map(|page| areas.parity.start + directory + page * PAGE))
        .collect();
    for seed in 0..60u64 {
        let order = noise(seed, row.len());
        let mut damaged = good.to_vec();
        for stripe in 0..stripes {
            let mut shards: Vec<usize> = (stripe..row.len()).step_by(stripes).collect();
            shards.sort_by_key(|&shard| order[shard]);
            for &shard in shards.iter().take(4) {
                damaged[row[shard]..row[shard] + PAGE].fill(0xee);
            }
        }
        // One copy of the directory, and one trailer, are gone as well.
        let copies = [areas.parity.start, areas.parity.end - PAGE];
        damaged[copies[(seed % 2) as usize]..][..PAGE].fill(0);
        let trailers = [areas.first_trailer.start, areas.last_trailer.start];
        damaged[trailers[(seed / 2 % 2) as usize]..][..PAGE].fill(0);
        assert_repaired(&good, &damaged, &format!("seed {seed}"));
    }
}

#[test]
fn a_fifth_lost_page_of_metadata_is_told_and_nothing_is_written() {
    let good = small(0);
    let areas = Areas::of(&good);
    let pages = 1 + (areas.parity.start - areas.index.start) / PAGE;
    let [(_, stripes)] = naive_parity::groups(pages, false)[..] else { panic!("small") };
    let mut damaged = good.to_vec();
    (0..5).for_each(|page| damaged[areas.index.start + page * stripes * PAGE] ^= 1);
    let (report, repaired) = repair_of(disk(&damaged), Vec::new()).unwrap();
    assert!(repaired.is_none());
    assert!(report.pieces_lost > 0);
    // The list by which pieces are proven: without it nothing can be told.
    let mut damaged = good.to_vec();
    damaged[areas.list.start..areas.list.start + 32].fill(1);
    damaged[areas.parity.clone()].fill(1);
    let error = repair_of(disk(&damaged), Vec::new()).unwrap_err().to_string();
    assert!(error.contains("stored list"), "{error}");
}

#[test]
fn a_flip_in_the_parity_itself_is_found_and_repaired() {
    for good in [small(0), small(Features::PARITY)] {
        let areas = Areas::of(&good);
        let frames = areas.frames.iter().filter(|frame| frame.kind == PARITY);
        let in_frames =
            frames.flat_map(|f| [f.header.start + 9, f.payload.start + 70_000, f.payload.end - 1]);
        let in_area = areas.parity.clone().step_by(1111);
        for at in in_frames.chain(in_area).chain([areas.parity.end - 1]) {
            let mut damaged = good.to_vec();
            damaged[at] ^= 0x10;
            let damaged = Arc::new(damaged);
            let image = open(&damaged).unwrap();
            let report = image.verify(Depth::Data, Job::silent()).unwrap();
            assert!(!report.is_sound(), "byte {at}");
            assert_repaired(&good, &damaged, &format!("byte {at}"));
        }
    }
}

#[test]
fn parity_that_is_wrong_in_itself_is_damage_although_every_hash_fits() {
    let good = large(20);
    let areas = Areas::of(&good);
    let frames: Vec<_> = areas.frames.iter().filter(|frame| frame.kind == PARITY).collect();
    // The parity of another stripe; parity of what the stripe held before; none at all.
    let (first, second) = (frames[0].payload.clone(), frames[1].payload.clone());
    let stale = good[second][..first.len()].to_vec();
    let mut flipped = good[first.clone()].to_vec();
    flipped[5] ^= 1;
    for payload in [stale, flipped, vec![0; first.len()]] {
        let forged = Forgery::of(&good).at(first.start, &payload).seal();
        let report = open(&forged).unwrap().verify(Depth::Data, Job::silent()).unwrap();
        assert!(report.damage.iter().any(|d| d.to_string().contains("PARITY frame")), "{report:?}");
    }
    let renumbered = Forgery::of(&good).at(frames[0].header.start + 32, &[7]).seal();
    let report = open(&renumbered).unwrap().verify(Depth::Data, Job::silent()).unwrap();
    assert!(report.damage.iter().any(|d| d.to_string().contains("PARITY frame")), "{report:?}");
}

#[test]
fn a_parity_area_of_other_pages_is_damage_although_its_hash_fits() {
    let good = small(0);
    let areas = Areas::of(&good);
    let mut forged = good.to_vec();
    forged[areas.parity.start + PAGE + 9] ^= 1;
    let hash =
        crate::naive::keyed("aivory draft: whole section     ", &[&forged[areas.parity.clone()]]);
    let forged = Forgery::of(&forged).trailer(576, &hash).seal_trailers_only();
    let report = open(&forged).unwrap().verify(Depth::Quick, Job::silent()).unwrap();
    let damage = report.damage.first().expect("found").to_string();
    assert!(damage.contains("parity area") && damage.contains("pages it is made of"), "{damage}");
}

/// A medium with sectors that cannot be read.
struct BadSectors(Arc<Vec<u8>>, std::ops::Range<u64>);

impl ReadAt for BadSectors {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        if offset < self.1.end && offset + out.len() as u64 > self.1.start {
            return Err(io::Error::other("unreadable sector"));
        }
        let at = usize::try_from(offset).unwrap();
        out.copy_from_slice(&self.0[at..at + out.len()]);
        Ok(())
    }
}

#[test]
fn unreadable_sectors_are_damage_that_is_repaired() {
    let good = small(Features::PARITY);
    let areas = Areas::of(&good);
    let checkpoint = areas.frame(CHECKPOINT).header.start;
    let places = [
        0,
        checkpoint,
        areas.index.start,
        areas.list.start,
        areas.parity.start,
        areas.last_trailer.start,
    ];
    for at in places {
        let bad = at as u64 / 4096 * 4096..at as u64 / 4096 * 4096 + 512;
        let file: Arc<dyn ReadAt> = Arc::new(BadSectors(good.clone(), bad));
        let (report, repaired) = repair_of(file, Vec::new()).unwrap();
        assert!(*repaired.unwrap_or_else(|| panic!("{at}: {report:?}")) == *good, "{at}");
        assert!(!report.is_sound(), "{at}");
    }
}

#[test]
fn rows_of_frames_copied_across_the_borders_of_stripes_are_protected_like_others() {
    // Frames of 64 KiB and a header: no row ends where a stripe does.
    let blocks: Vec<_> = (0..330).map(|seed| (Block::Data(Fill::Noise(seed)), 1)).collect();
    let plain = Recipe { block_size: 64 << 10, ..Recipe::new(&blocks) };
    let source = plain.open();
    let entries: Vec<_> = source.entries(0).map(Result::unwrap).collect();
    let protected = Recipe { features: Features::PARITY, id: 5, ..plain };
    let storage = MemStorage::new();
    let created = storage.create("copied").unwrap();
    let mut writer = ImageWriter::create(created, protected.superblock()).unwrap();
    for row in entries.chunks(100) {
        let (first, last) = (row[0].address, row[row.len() - 1]);
        let mut bytes = vec![0; usize::try_from(last.address + last.frame_size - first).unwrap()];
        source.file().read_exact_at(&mut bytes, first).unwrap();
        writer.copy_frames(row, &bytes).unwrap();
    }
    writer.finish(protected.meta()).unwrap();
    let good = storage.contents("copied").unwrap();
    let image = open(&good).unwrap();
    assert_eq!(image.verify(Depth::Data, Job::silent()).unwrap().damage, []);
    let frames = Areas::of(&good).frames;
    let frames: Vec<_> = frames.iter().filter(|frame| frame.kind == PARITY).collect();
    assert_eq!(frames.len(), 3);
    assert!(frames[0].header.start > STRIPE + (1 << 20), "behind the row it would have cut");
    for at in [STRIPE - 100_000, frames[0].header.start - 3000, frames[1].payload.start] {
        assert_repaired(&good, &with_burst(&good, at, 192 << 10), &format!("burst at {at}"));
    }
}

#[test]
fn a_row_that_is_longer_than_parity_may_be_away_is_refused() {
    let blocks: Vec<_> = (0..17).map(|seed| (Block::Data(Fill::Noise(seed)), 1)).collect();
    let plain = Recipe { block_size: 1 << 20, ..Recipe::new(&blocks) };
    let source = plain.open();
    let entries: Vec<_> = source.entries(0).map(Result::unwrap).collect();
    let mut bytes = vec![0; 17 * ((1 << 20) + 64)];
    source.file().read_exact_at(&mut bytes, entries[0].address).unwrap();
    let protected = Recipe { features: Features::PARITY, id: 5, ..plain };
    let created = MemStorage::new().create("copied").unwrap();
    let mut writer = ImageWriter::create(created, protected.superblock()).unwrap();
    let error = writer.copy_frames(&entries, &bytes).unwrap_err();
    assert!(matches!(error, Error::Misuse(_)), "{error}");
    assert!(writer.copy_frames(&entries[..15], &bytes).is_ok());
}
