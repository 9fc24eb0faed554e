//! Unfinished images that somebody else has written: whatever they say, the image that is
//! published is one of the source.

use std::ops::Range;

use aiv_backup_engine::{SourceFacts, SourceStamp};
use aiv_testkit::{MemStorage, Random};
use aiv_volume_io::{Job, MemDisk};

use crate::common::{apply, disk, facts};
use crate::resumed::{assert_right, content, resuming};

const BLOCKS: usize = 22;
const PIECE: usize = 64 << 10;
const PART: &str = "forged.part";

const DATA: u8 = 1;
const CHECKPOINT: u8 = 3;

/// A file, and where header and payload of its frames are.
#[derive(Clone)]
struct Forged {
    bytes: Vec<u8>,
    frames: Vec<(Range<usize>, Range<usize>)>,
}

fn word(bytes: &[u8], at: usize) -> usize {
    usize::try_from(u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())).unwrap()
}

impl Forged {
    /// Frames from the start to where there are no more.
    fn of(bytes: &[u8]) -> Self {
        let mut frames = Vec::new();
        let mut at = 4096;
        while bytes.get(at..at + 4) == Some(b"AVF1") {
            let end = at + 64 + word(bytes, at + 44);
            frames.push((at..at + 64, at + 64..end));
            at = end.next_multiple_of(64);
        }
        Self { bytes: bytes[..at].to_vec(), frames }
    }

    fn kind(&self, frame: usize) -> u8 {
        self.bytes[self.frames[frame].0.start + 4]
    }

    fn of_kind(&self, kind: u8) -> Vec<usize> {
        (0..self.frames.len()).filter(|&frame| self.kind(frame) == kind).collect()
    }

    /// Makes every checksum, and every hash in the checkpoints, fit.
    fn mend(mut self) -> Vec<u8> {
        let crc = |salt: &[u8; 8], bytes: &[u8]| {
            crc32c::crc32c_append(crc32c::crc32c(salt), bytes).to_le_bytes()
        };
        for (header, payload) in self.frames.clone() {
            let at = header.start;
            if self.bytes[at + 4] == CHECKPOINT && payload.len() >= 64 {
                self.mend_pieces(&payload);
            }
            let sum = crc(b"aiv.load", &self.bytes[payload]);
            self.bytes[at + 48..at + 52].copy_from_slice(&sum);
            let sum = crc(b"aiv.fram", &self.bytes[at..at + 60]);
            self.bytes[at + 60..at + 64].copy_from_slice(&sum);
        }
        self.bytes
    }

    fn mend_pieces(&mut self, payload: &Range<usize>) {
        let head = payload.start;
        let first = word(&self.bytes, head + 24);
        let list = head + 64 + word(&self.bytes, head + 40).min(1000) * 16;
        for piece in 0..word(&self.bytes, head + 32).min(100) {
            let (from, at) = (first.min(1000) * PIECE + piece * PIECE, list + piece * 32);
            if from + PIECE <= self.bytes.len() && at + 32 <= payload.end {
                let hash = blake3::keyed_hash(
                    b"aivory draft: stored piece      ",
                    &self.bytes[from..from + PIECE],
                );
                self.bytes[at..at + 32].copy_from_slice(hash.as_bytes());
            }
        }
    }
}

/// The frames of a backup of `source`, which its maker vouches for if `stamp` is given.
fn frames(source: &MemDisk, stamp: Option<&[u8]>) -> Forged {
    let storage = MemStorage::new();
    let report = apply(&plan(source, stamp), source, &storage, 1).unwrap();
    Forged::of(&storage.contents(&report.image).unwrap())
}

fn plan(source: &MemDisk, stamp: Option<&[u8]>) -> aiv_backup_engine::BackupPlan {
    let stamp = stamp.map(|stamp| SourceStamp::new(&[stamp]));
    let facts = SourceFacts { stamp, ..facts("disk") };
    aiv_backup_engine::BackupPlan::new(source, facts, resuming(), Job::silent()).unwrap()
}

/// Whether a backup that finds `part` went on with it; its image is right in any case.
fn goes_on(source: &MemDisk, bytes: &[u8], part: Vec<u8>, stamp: Option<&[u8]>) -> bool {
    let storage = MemStorage::new();
    storage.insert(PART, part);
    let report = apply(&plan(source, stamp), source, &storage, 2).unwrap();
    assert_right(&storage, &report, bytes);
    // Conditions, too, which the bytes do not show.
    let whole = apply(&plan(source, None), source, &MemStorage::new(), 3).unwrap();
    assert_eq!(report.state_root, whole.state_root);
    report.resumed.is_some()
}

#[test]
fn no_forgery_gives_an_image_of_anything_but_the_source() {
    let bytes = content(BLOCKS);
    let source = disk(&bytes);
    let forged = frames(&source, None);
    assert!(goes_on(&source, &bytes, forged.bytes.clone(), None), "as it was written");
    let mut random = Random::new(&[17]);
    let (mut on, mut anew) = (0, 0);
    for _ in 0..300 {
        let mut mutant = forged.clone();
        for _ in 0..=random.below(3) {
            let (header, payload) = &mutant.frames[random.below(mutant.frames.len())];
            let range = match random.below(3) {
                1.. if !payload.is_empty() => payload.clone(),
                _ => header.start + 4..header.start + 60,
            };
            let at = range.start + random.below(range.len().min(500));
            mutant.bytes[at] = [0, 1, 0xff, 0x30, mutant.bytes[at] ^ 1][random.below(5)];
        }
        match goes_on(&source, &bytes, mutant.mend(), None) {
            true => on += 1,
            false => anew += 1,
        }
    }
    assert!(on >= 50 && anew >= 50, "{on} {anew}");
}

/// Puts other bytes into the `n`-th frame that holds a block. With `leaf` frame and entry say so.
fn with_other_bytes(forged: &Forged, n: usize, leaf: bool) -> Vec<u8> {
    let mut forged = forged.clone();
    let (header, payload) = forged.frames[forged.of_kind(DATA)[n]].clone();
    assert_eq!(forged.bytes[header.start + 5], 0, "noise is stored as it is");
    forged.bytes[payload.start + 5000] ^= 1;
    if leaf {
        let key = b"aivory draft: leaf of one block ";
        let leaf = blake3::keyed_hash(key, &forged.bytes[payload]);
        let prefix = header.start + 52;
        let before = forged.bytes[prefix..prefix + 8].to_vec();
        forged.bytes[prefix..prefix + 8].copy_from_slice(&leaf.as_bytes()[..8]);
        // Every entry with the old leaf, in whichever checkpoint.
        for frame in forged.of_kind(CHECKPOINT) {
            let payload = forged.frames[frame].1.clone();
            for at in payload.start..payload.end - 31 {
                if forged.bytes[at..at + 8] == before[..] {
                    forged.bytes[at..at + 32].copy_from_slice(leaf.as_bytes());
                }
            }
        }
    }
    forged.mend()
}

#[test]
fn a_block_with_other_bytes_than_its_entry_says_is_found_before_anything_is_published() {
    let bytes = content(BLOCKS);
    let source = disk(&bytes);
    for stamp in [None, Some(&b"vouched for"[..])] {
        let forged = frames(&source, stamp);
        for n in [0, 3, 9] {
            let part = with_other_bytes(&forged, n, false);
            assert!(!goes_on(&source, &bytes, part, stamp), "frame {n}");
        }
        assert!(goes_on(&source, &bytes, forged.bytes, stamp));
    }
}

#[test]
fn an_unfinished_image_that_is_right_in_itself_and_not_of_the_source_is_found_by_comparing() {
    let bytes = content(BLOCKS);
    let source = disk(&bytes);
    let forged = frames(&source, None);
    for n in [0, 3, 9] {
        assert!(!goes_on(&source, &bytes, with_other_bytes(&forged, n, true), None), "frame {n}");
    }
    // One of another state of the source.
    let mut other = bytes.clone();
    other[70_000] ^= 1;
    let other = frames(&disk(&other), None);
    assert!(!goes_on(&source, &bytes, other.bytes, None));
}

#[test]
fn zeros_that_are_said_to_be_free_or_left_out_are_a_difference() {
    let bytes = content(BLOCKS);
    let source = disk(&bytes);
    let forged = frames(&source, None);
    let mut changed = 0;
    for frame in forged.of_kind(CHECKPOINT) {
        let payload = forged.frames[frame].1.clone();
        let pieces = word(&forged.bytes, payload.start + 32);
        let entries =
            payload.start + 64 + word(&forged.bytes, payload.start + 40) * 16 + pieces * 32;
        // The kind is in the upper half of the eighth byte: ZERO is 3.
        for at in (entries + 7..payload.end).step_by(48).filter(|&at| forged.bytes[at] >> 4 == 3) {
            for kind in [4, 5, 6] {
                let mut forged = forged.clone();
                forged.bytes[at] = forged.bytes[at] & 0xf | kind << 4;
                assert!(!goes_on(&source, &bytes, forged.mend(), None), "kind {kind}");
                changed += 1;
            }
        }
    }
    assert!(changed >= 6, "{changed}");
}
