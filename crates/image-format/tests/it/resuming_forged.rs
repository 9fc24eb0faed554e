//! Unfinished images somebody else has written: every checksum and hash fits, and what the
//! checkpoints say is not what the frames are.

use std::sync::Arc;

use aiv_image_format::{Error, Features, ImageWriter, Keys, Kind, Section, Unfinished};
use aiv_testkit::{MemStorage, Random};
use aiv_volume_io::{Job, Storage};

use crate::areas::{Areas, CHECKPOINT, DATA, Frame, LOCAL, number};
use crate::change::{Change, Increment};
use crate::increments::noisy;
use crate::memory::peak_of;
use crate::naive::keyed;
use crate::patched::Patched;
use crate::recipe::{Block, Fill, Recipe, open};
use crate::resuming::{recipe, recipes, session, unfinished};

const HEAD: usize = 64;
const ORIGIN: usize = 16;
const PIECE: usize = 64 << 10;

fn crc(salt: &[u8; 8], bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c_append(crc32c::crc32c(salt), bytes).to_le_bytes()
}

/// An image being forged, and its frames as they were.
#[derive(Clone)]
pub(crate) struct Forged {
    bytes: Vec<u8>,
    frames: Vec<Frame>,
}

impl Forged {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec(), frames: Areas::of(bytes).frames }
    }

    pub(crate) fn put(mut self, at: usize, value: &[u8]) -> Self {
        self.bytes[at..at + value.len()].copy_from_slice(value);
        self
    }

    /// Other feature bits, with their names as a writer gives them.
    fn announcing(self, bits: u64) -> Self {
        let mut rows = vec![0; 32 * 48];
        let named = (0..).zip(Features::NAMES).filter(|(bit, _)| bits >> bit & 1 == 1);
        for (row, (bit, name)) in rows.chunks_mut(48).zip(named) {
            (row[0], row[1]) = (1, bit);
            row[4..4 + name.len()].copy_from_slice(name.as_bytes());
        }
        self.put(16, &bits.to_le_bytes()).put(224, &rows).with_superblock()
    }

    /// With a superblock whose checksum fits.
    fn with_superblock(self) -> Self {
        let sum = crc(b"aiv.supr", &self.bytes[..4092]);
        self.put(4092, &sum)
    }

    fn checkpoints(&self) -> Vec<Frame> {
        self.frames.iter().filter(|frame| frame.kind == CHECKPOINT).cloned().collect()
    }

    /// Makes the checksums of frames fit, and with `pieces` the hashes of what comes before
    /// each checkpoint, too.
    pub(crate) fn mend(mut self, pieces: bool) -> Vec<u8> {
        for frame in self.frames.clone() {
            let (header, payload) = (frame.header.start, frame.payload.clone());
            if frame.kind == CHECKPOINT && pieces && payload.len() >= HEAD {
                self.mend_pieces(payload.start, payload.end);
            }
            let sum = crc(b"aiv.load", &self.bytes[payload]);
            self.bytes[header + 48..header + 52].copy_from_slice(&sum);
            let sum = crc(b"aiv.fram", &self.bytes[header..header + 60]);
            self.bytes[header + 60..header + 64].copy_from_slice(&sum);
        }
        self.bytes
    }

    fn mend_pieces(&mut self, payload: usize, end: usize) {
        let word = |at: usize| {
            let raw = self.bytes[payload + at..payload + at + 4].try_into().unwrap();
            u32::from_le_bytes(raw) as usize
        };
        let (count, origins) = (word(32), word(40));
        let list = payload + HEAD + origins.saturating_mul(ORIGIN);
        let first = number(&self.bytes, payload + 24);
        for piece in 0..count.min(100) {
            let bytes = (first.saturating_add(piece)).saturating_mul(PIECE);
            let at = list.saturating_add(piece * 32);
            if bytes.saturating_add(PIECE) > self.bytes.len() || at.saturating_add(32) > end {
                return;
            }
            let hash =
                keyed("aivory draft: stored piece      ", &[&self.bytes[bytes..bytes + PIECE]]);
            self.bytes[at..at + 32].copy_from_slice(&hash);
        }
    }
}

fn len(bytes: &[u8]) -> usize {
    let found = unfinished(bytes).unwrap();
    found.map_or(0, |found| usize::try_from(found.len()).unwrap())
}

#[test]
fn a_frame_whose_checksums_fit_again_is_found_by_the_hash_of_its_piece() {
    let forged = Forged::of(&recipe().build());
    let untouched = len(&forged.bytes);
    let checkpoints = forged.checkpoints();
    let mut tried = 0;
    for frame in forged.frames.iter().filter(|frame| frame.kind == DATA) {
        let at = frame.payload.start + 100;
        let bytes = forged.clone().put(at, &[forged.bytes[at] ^ 1]).mend(false);
        let listing = checkpoints.iter().find(|c| c.header.start / PIECE > at / PIECE);
        let Some(listing) = listing else { continue };
        let found = len(&bytes);
        assert!(found <= listing.header.start && found < untouched, "{found} with byte {at}");
        // With the hashes made to fit nothing is wrong: that is for the source to tell.
        let mended = forged.clone().put(at, &[forged.bytes[at] ^ 1]).mend(true);
        assert_eq!(len(&mended), untouched);
        tried += 1;
    }
    assert!(tried >= 4, "{tried}");
}

/// What is proven when a checkpoint is changed at an offset of its payload, and all of its
/// checksums fit, against where that checkpoint begins.
fn check(bytes: &[u8], which: usize, offset: usize, value: &[u8]) {
    let forged = Forged::of(bytes);
    let frame = forged.checkpoints()[which].clone();
    let at = frame.payload.start + offset;
    assert!(forged.bytes[at..at + value.len()] != *value, "no change at {offset}");
    let bytes = forged.put(at, value).mend(true);
    let found = len(&bytes);
    assert!(found <= frame.header.start, "checkpoint {which}, offset {offset}: {found}");
}

#[test]
fn a_checkpoint_that_lies_does_not_count_and_nothing_behind_it_does() {
    let blocks = [(Block::Data(Fill::Noise(1)), 12)];
    let recipe = Recipe { checkpoint_every: 4, small_meta: true, ..Recipe::new(&blocks) };
    let bytes = recipe.build();
    let checkpoint = Forged::of(&bytes).checkpoints()[1].payload.start;
    let entries = HEAD + ORIGIN + number(&bytes, checkpoint + 32) % (1 << 32) * 32;
    let first = number(&bytes, checkpoint + entries);
    let place = number(&bytes, checkpoint + entries + 8);
    let word = |number: usize| (number as u64).to_le_bytes();
    for (offset, value) in [
        (0, word(4096)),
        (8, word(2)),
        (16, word(7)),
        (16, word(1 << 41)),
        (24, word(3)),
        (HEAD, word(1)),
        // The first entry: another block, another run, another kind, without a leaf.
        (entries, word(first + 1)),
        (entries, word(first - 1)),
        (entries, word(first ^ 3 << 40)),
        (entries, word(first ^ 5 << 60)),
        (entries, word(first ^ 3 << 60)),
        // Another frame, one beyond the end, another size.
        (entries + 8, word(place + 1)),
        (entries + 8, word(4096 / 64)),
        (entries + 8, word(place + (1 << 40))),
        (entries + 8, word(place + (1 << 48))),
        // Another leaf than the frame says.
        (entries + 16, word(1)),
    ] {
        check(&bytes, 1, offset, &value);
    }
    check(&bytes, 1, 32, &9u32.to_le_bytes());
    check(&bytes, 1, 36, &9u32.to_le_bytes());
    check(&bytes, 1, 40, &2u32.to_le_bytes());
    check(&bytes, 1, 63, &[1]);
}

#[test]
fn an_entry_that_refers_beyond_what_is_there_is_refused() {
    let blocks = [(Block::Data(Fill::Noise(1)), 2), (Block::Ref(0), 1)];
    let recipe = Recipe { checkpoint_every: 1, small_meta: true, ..Recipe::new(&blocks) };
    let bytes = recipe.build();
    let checkpoint = Forged::of(&bytes).checkpoints()[2].payload.start;
    let end = Forged::of(&bytes).checkpoints()[2].header.start;
    let place = HEAD + ORIGIN + number(&bytes, checkpoint + 32) % (1 << 32) * 32 + 8;
    let size = number(&bytes, checkpoint + place) >> 48;
    for address in [1, 63, end / 64, end / 64 - size + 1, 1 << 47] {
        check(&bytes, 2, place, &((size << 48 | address) as u64).to_le_bytes());
    }
}

#[test]
fn frames_out_of_order_or_of_another_block_end_what_is_proven() {
    let forged = Forged::of(&recipe().build());
    let untouched = len(&forged.bytes);
    let frames: Vec<Frame> = forged.frames.clone();
    let last = forged.checkpoints().last().unwrap().header.start;
    for frame in frames.iter().filter(|frame| frame.header.start < last) {
        let at = frame.header.start;
        let changes: &[(usize, &[u8])] = match frame.kind {
            DATA => &[(8, &[9]), (24, &[99]), (32, &[77]), (32, &[0xff; 8]), (4, &[4]), (4, &[5])],
            CHECKPOINT => &[(8, &[9]), (24, &[99]), (32, &[77]), (4, &[1]), (4, &[6])],
            _ => &[(24, &[99])],
        };
        for (offset, value) in changes {
            let bytes = forged.clone().put(at + offset, value).mend(true);
            let found = unfinished(&bytes).unwrap();
            let found = found.map_or(0, |found| usize::try_from(found.len()).unwrap());
            assert!(found <= at && found < untouched, "{} at {offset}: {found}", frame.kind);
        }
    }
}

#[test]
fn kinds_the_superblock_does_not_announce_and_copies_of_no_parent_are_refused() {
    let old = noisy(20);
    let increment = Increment {
        checkpoint_every: 2,
        ..Increment::new(&[(Change::Moved(3), 2), (Change::Patch(5), 2)])
    };
    let forged = Forged::of(&increment.build(&old));
    let checkpoints = forged.checkpoints();
    let (all, second) = (len(&forged.bytes), checkpoints[1].header.start);
    let with_features = |bits| len(&forged.clone().announcing(bits).mend(true));
    assert_eq!(with_features(0b11000), all);
    assert_eq!(with_features(0b01000), 0, "no parent-blocks");
    let without_delta = with_features(0b10000);
    assert!(without_delta > 0 && without_delta <= second, "{without_delta}");
}

#[test]
fn a_superblock_that_no_writer_of_ours_would_repeat_is_not_gone_on_with() {
    let forged = Forged::of(&recipe().build());
    assert!(unfinished(&forged.bytes).unwrap().is_some());
    // Names of features mean nothing to readers: but those at the end would be others.
    for row in [0, 31] {
        let named = forged.clone().put(224 + row * 48 + 10, b"x").with_superblock();
        match unfinished(&named.bytes) {
            Err(Error::Corrupt(at)) => assert_eq!(at.section, Section::Superblock, "{at}"),
            other => panic!("row {row}: {:?}", other.map(|found| found.is_some())),
        }
    }
}

#[test]
fn who_goes_on_is_named_after_everything_that_was_there() {
    let blocks = [Fill::Words(1), Fill::Noise(1)].map(|fill| (Block::Data(fill), 4));
    for seal in recipes().into_iter().map(|recipe| recipe.seal) {
        let recipe = Recipe { seal, checkpoint_every: 1, small_meta: true, ..Recipe::new(&blocks) };
        let forged = Forged::of(&recipe.build());
        // The hash of no piece is listed in front of the first checkpoint, nor that of key slots ever.
        let ends = [0, 7].map(|checkpoint| forged.checkpoints()[checkpoint].padding.end);
        assert!(ends[0] < PIECE && ends[1] > PIECE, "{ends:?}");
        let named =
            |bytes: &[u8], end: usize| unfinished(&bytes[..end]).unwrap().unwrap().fingerprint();
        let found = unfinished(&forged.bytes).unwrap().unwrap();
        let [first, last] = ends;
        let (data, slot) = (forged.frames[0].payload.start + 100, 4096 + 9000);
        let flipped = |at: usize| forged.clone().put(at, &[forged.bytes[at] ^ 1]);
        let mut changes = vec![(flipped(168).with_superblock().bytes, first)];
        if !found.slots().is_empty() {
            changes.extend([(flipped(slot).bytes, first), (flipped(slot).bytes, last)]);
        }
        if !found.superblock().is_sealed() {
            changes.push((flipped(data).mend(false), first));
        }
        for (n, (bytes, end)) in changes.iter().enumerate() {
            assert_ne!(named(bytes, *end), named(&forged.bytes, *end), "change {n}, {end} bytes");
        }
    }
}

#[test]
fn a_difference_to_blocks_of_the_image_holds_only_on_lower_ones_that_are_stored_whole() {
    let noise = |seed| Block::Data(Fill::Noise(seed));
    let blocks = [
        (noise(1), 1),
        (noise(2), 1),
        (Block::Shifted(0), 1),
        (noise(3), 1),
        (Block::Shifted(1), 1),
        (Block::Zero, 1),
        (Block::Unused, 3),
    ];
    let recipe = Recipe { checkpoint_every: 3, small_meta: true, ..Recipe::new(&blocks) };
    let forged = Forged::of(&recipe.build());
    let locals: Vec<Frame> = forged.frames.iter().filter(|f| f.kind == LOCAL).cloned().collect();
    let ends: Vec<usize> = forged.checkpoints().iter().map(|c| c.padding.end).collect();
    let all = len(&forged.bytes);
    assert_eq!((locals.len(), all), (2, *ends.last().unwrap()));
    let with = |which: usize, offset: usize, value: &[u8]| {
        let frame: &Frame = &locals[which];
        len(&forged.clone().put(frame.payload.start + offset, value).mend(true))
    };
    // Of block 2, all bases are in its own checkpoint; of block 4 the second one is.
    for (offset, value) in [
        (0, &[0][..]),
        (0, &[3]),
        (1, &[1]),
        (8, &[2]),
        (8, &[1]),
        (14, &[1]),
        (16, &[0xaa; 3]),
        (48, &[0]),
    ] {
        assert_eq!(with(0, offset, value), 0, "{offset}");
    }
    for (offset, value) in [(0, &[0][..]), (8, &[4]), (48, &[4]), (48, &[5]), (56, &[0xaa; 3])] {
        assert_eq!(with(1, offset, value), ends[0], "{offset}");
    }
    // What an earlier checkpoint says is compared when the image is proven before it is published.
    assert_eq!(with(1, 16, &[0xaa; 3]), all);
    assert_eq!(len(&forged.announcing(0).mend(true)), 0, "no local-delta");
}

/// Changes a few bytes anywhere in what a checkpoint or a header says, and makes all fit again.
fn mutant(forged: &Forged, random: &mut Random) -> Vec<u8> {
    let mut changed = forged.clone();
    for _ in 0..=random.below(3) {
        let frame = &forged.frames[random.below(forged.frames.len())];
        let range = match random.below(3) {
            1.. if !frame.payload.is_empty() => frame.payload.clone(),
            _ => frame.header.start + 4..frame.header.start + 60,
        };
        let at = range.start + random.below(range.len().min(400));
        let value = [0, 1, 0xff, 0x80, changed.bytes[at] ^ 1][random.below(5)];
        changed = changed.put(at, &[value]);
    }
    changed.mend(true)
}

#[test]
fn no_forgery_makes_the_walk_or_the_writer_fall_over() {
    let old = noisy(20);
    let increment = Increment {
        checkpoint_every: 3,
        ..Increment::new(&[
            (Change::Moved(3), 2),
            (Change::Keep, 3),
            (Change::Patch(5), 2),
            (Change::New(1), 2),
            (Change::Shifted(0), 3),
        ])
    };
    let full = Forged::of(&recipe().build());
    let other = Forged::of(&increment.build(&old));
    let mut random = Random::new(&[5]);
    let mut gone_on = 0;
    for n in 0..1500 {
        let forged = if n % 3 == 0 { &other } else { &full };
        let bytes = Arc::new(mutant(forged, &mut random));
        let read =
            || Unfinished::read(Arc::new(Patched::new(&bytes)), &Keys::none(), Job::silent());
        let (found, peak) = peak_of(read);
        assert!(peak < 48 << 20, "{peak} bytes");
        let Ok(Some(found)) = found else { continue };
        let storage = MemStorage::new();
        storage.insert("a.part", bytes.to_vec());
        let file = storage.reopen("a.part", found.len()).unwrap();
        let mut writer = ImageWriter::resume(file, &found, session(1), None).unwrap();
        let _ = found.entries().filter(|e| e.as_ref().is_ok_and(|e| e.kind == Kind::Data)).count();
        let left = found.superblock().geometry.blocks() - writer.next_block();
        writer.push_run(aiv_image_format::RunKind::Zero, left).unwrap();
        // Whether or not META and parent fit: it ends, without a panic.
        let meta = crate::change::small_meta(&found.superblock().geometry, &[]);
        if writer.finish(meta).is_ok() {
            let image = open(&storage.contents("a.part").unwrap()).unwrap();
            image.verify(aiv_image_format::Depth::Data, Job::silent()).unwrap();
            gone_on += 1;
        }
    }
    assert!(gone_on > 100, "{gone_on}");
}
