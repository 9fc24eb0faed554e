//! Images with parity over their pieces go on with the parity of the stripe that was open, and a
//! PARITY frame is believed only if it is what its stripe gives.

use std::sync::Arc;

use aiv_image_format::{Features, Image};
use aiv_volume_io::Job;

use crate::areas::{Areas, PAD, PARITY};
use crate::forge::crc;
use crate::patched::Patched;
use crate::recipe::{Block, Fill, Recipe, open};
use crate::repairs::assert_repaired;
use crate::resuming::{assert_same_image, go_on, session, unfinished};
use crate::resuming_forged::Forged;

const STRIPE: usize = 8 << 20;

/// Two stripes and a half, in large blocks that cannot be compressed.
fn recipe() -> Recipe {
    let blocks =
        [(Block::Data(Fill::Noise(1)), 20), (Block::Zero, 3), (Block::Data(Fill::Noise(2)), 19)];
    let small = Recipe { block_size: 512 << 10, small_meta: true, ..Recipe::new(&blocks) };
    Recipe { checkpoint_every: 2, features: Features::PARITY, ..small }
}

fn check(complete: &Image, bytes: &Arc<Vec<u8>>) {
    let image = open(bytes).unwrap();
    // At depth data: the parity of every stripe is computed anew and compared.
    assert_same_image(complete, None, &image);
    assert_eq!(Areas::of(bytes).frames.iter().filter(|frame| frame.kind == PARITY).count(), 3);
}

#[test]
fn an_image_with_parity_goes_on_from_anywhere_in_a_stripe() {
    let bytes = recipe().build();
    let complete = open(&bytes).unwrap();
    check(&complete, &bytes);
    let areas = Areas::of(&bytes);
    let parity: Vec<_> = areas.frames.iter().filter(|frame| frame.kind == PARITY).collect();
    // Around the PARITY frames, where their stripes end, and in between.
    let mut cuts = vec![STRIPE / 2, STRIPE, STRIPE + (64 << 10), 2 * STRIPE, 5 * STRIPE / 2];
    for frame in &parity {
        cuts.extend([frame.header.start, frame.header.start + 70_000, frame.padding.end]);
        cuts.extend([frame.padding.end + (640 << 10), frame.padding.end + (1 << 20)]);
    }
    let mut before = 0;
    cuts.sort_unstable();
    cuts.retain(|&cut| cut <= bytes.len());
    for cut in cuts {
        let found = unfinished(&bytes[..cut]).unwrap().unwrap();
        assert!(found.len() >= before, "cut at {cut}");
        before = found.len();
        check(&complete, &go_on(&bytes[..cut], &complete, None, session(1), None));
    }
    assert!(before > parity[1].padding.end as u64, "behind two PARITY frames");
}

#[test]
fn an_image_with_parity_that_is_interrupted_again_and_again_can_be_repaired_in_every_stripe() {
    let bytes = recipe().build();
    let complete = open(&bytes).unwrap();
    let mut part = bytes[..STRIPE / 4].to_vec();
    for n in 1..=6 {
        let next = unfinished(&part).unwrap().unwrap().next_block() + 6;
        part = go_on(&part, &complete, None, session(n), Some(next)).to_vec();
        // It was killed, too: what was not listed is lost.
        part.truncate(part.len() - 1);
    }
    let whole = go_on(&part, &complete, None, session(7), None);
    check(&complete, &whole);
    // Three of its pieces, in every stripe.
    let mut damaged = whole.to_vec();
    for stripe in 0..2 {
        for piece in [3, 60, 127] {
            let at = stripe * STRIPE + piece * (64 << 10);
            damaged[at..at + (64 << 10)].fill(0xa5);
        }
    }
    assert_repaired(&whole, &damaged, "three pieces of each stripe");
}

#[test]
fn parity_that_is_not_that_of_its_stripe_ends_what_is_proven() {
    let bytes = recipe().build();
    let all = unfinished(&bytes).unwrap().unwrap().len();
    let areas = Areas::of(&bytes);
    let parity: Vec<_> = areas.frames.iter().filter(|frame| frame.kind == PARITY).collect();
    let len = |bytes: &[u8]| unfinished(bytes).unwrap().map_or(0, |found| found.len());
    for (stripe, frame) in parity.iter().take(2).enumerate() {
        let at = frame.header.start;
        assert!(at as u64 >= ((stripe + 1) * STRIPE) as u64 && (at as u64) < all);
        // With every checksum right, and every hash in the checkpoints.
        let with = |offset: usize, value: &[u8]| {
            let changed = Forged::of(&bytes).put(at + offset, value).mend(true);
            len(&changed)
        };
        // Another byte of parity.
        let other = [bytes[at + 64 + 100_000] ^ 1];
        assert!(with(64 + 100_000, &other) <= at as u64, "stripe {stripe}");
        // Of another stripe, of another codec.
        let other = (stripe as u64 + 1).to_le_bytes();
        assert!(with(32, &other) <= at as u64 && with(5, &[1]) <= at as u64, "stripe {stripe}");
        // As padding: then it is missing, and a frame is in its place.
        let behind = with(4, &[PAD]);
        assert!(behind <= frame.padding.end as u64, "stripe {stripe}: {behind}");
    }
    // As it is, mending changes nothing.
    assert!(Forged::of(&bytes).mend(true) == *bytes);
    // Where no parity is announced none is expected, nor before its stripe is complete.
    let plain = Recipe { features: 0, ..recipe() }.build();
    for bytes in [&plain, &bytes] {
        let frame = Areas::of(bytes).frames[3].header.start;
        let forged = Forged::of(bytes).put(frame + 4, &[PARITY]).mend(true);
        assert!(len(&forged) <= frame as u64);
    }
}

#[test]
fn a_file_of_nothing_but_padding_costs_little() {
    let blocks = [(Block::Data(Fill::Noise(1)), 1)];
    let recipe = Recipe { features: Features::PARITY, small_meta: true, ..Recipe::new(&blocks) };
    let bytes = recipe.build();
    let mut file = bytes[..4096].to_vec();
    let pad = 1 << 20;
    for seq in 0..120u64 {
        let at = file.len();
        file.resize(at + pad, 0);
        file[at..at + 4].copy_from_slice(b"AVF1");
        file[at + 4] = PAD;
        file[at + 8..at + 20].copy_from_slice(&recipe.superblock().session.0);
        file[at + 24..at + 32].copy_from_slice(&seq.to_le_bytes());
        let len = u32::try_from(pad - 64).unwrap().to_le_bytes();
        file[at + 40..at + 44].copy_from_slice(&len);
        file[at + 44..at + 48].copy_from_slice(&len);
        let sum = crc(b"aiv.load", &[&file[at + 64..at + pad]]).to_le_bytes();
        file[at + 48..at + 52].copy_from_slice(&sum);
        let sum = crc(b"aiv.fram", &[&file[at..at + 60]]).to_le_bytes();
        file[at + 60..at + 64].copy_from_slice(&sum);
    }
    let file = Counting::of(file);
    let keys = aiv_image_format::Keys::none();
    let found = aiv_image_format::Unfinished::read(file.clone(), &keys, Job::silent()).unwrap();
    assert!(found.is_none());
    let read = file.furthest.load(std::sync::atomic::Ordering::Relaxed);
    assert!((40 << 20..44 << 20).contains(&read), "read to {read}: no parity where it has to be");
}

/// A file that knows how far it was read.
struct Counting {
    file: Patched,
    furthest: std::sync::atomic::AtomicU64,
}

impl Counting {
    fn of(bytes: Vec<u8>) -> Arc<Self> {
        Arc::new(Self { file: Patched::new(&Arc::new(bytes)), furthest: 0.into() })
    }
}

impl aiv_volume_io::ReadAt for Counting {
    fn len(&self) -> u64 {
        self.file.len()
    }
    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> std::io::Result<()> {
        let end = offset + out.len() as u64;
        self.furthest.fetch_max(end, std::sync::atomic::Ordering::Relaxed);
        self.file.read_exact_at(out, offset)
    }
}
