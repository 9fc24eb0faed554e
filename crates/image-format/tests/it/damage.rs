//! Any damage is found, and no damage makes a block read as something it is not.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use aiv_image_format::{Depth, Error, Image, Keys, Kind, Section};
use aiv_testkit::disks::CountingDisk;
use aiv_volume_io::{Job, ReadAt};

use crate::areas::{Areas, GAP, PAGE};
use crate::patched::Patched;
use crate::recipe::{Block, Fill, Recipe, noise, open, read_all};

/// Every kind of block, one frame of raw bytes, several of compressed ones, two checkpoints.
fn victim() -> Recipe {
    Recipe {
        short_by: 5000,
        checkpoint_every: 4,
        small_meta: true,
        ..Recipe::new(&[
            (Block::Data(Fill::Noise(1)), 1),
            (Block::Zero, 3),
            (Block::Data(Fill::Words(2)), 1),
            (Block::Unused, 130),
            (Block::Ref(1), 1),
            (Block::Excluded, 2),
            (Block::PartlyUnreadable(Fill::Words(3)), 1),
            (Block::Unreadable, 1),
            (Block::Data(Fill::Words(4)), 1),
        ])
    }
}

pub(crate) type Truth = Vec<(Kind, Vec<u8>)>;

/// How far a damage got before it was noticed.
#[derive(Debug, PartialEq, Eq)]
enum Noticed {
    Opening,
    Verifying,
    Never,
}

/// Opens a damaged image, reads blocks of it, and verifies it.
fn examine(file: Patched, keys: &Keys, truth: &Truth, blocks: &[u64]) -> Noticed {
    match Image::open_with(Arc::new(file), keys) {
        Ok(image) => examine_open(&image, truth, blocks),
        Err(Error::Io { .. } | Error::Misuse(_)) => panic!("damage is neither of these"),
        Err(_) => Noticed::Opening,
    }
}

fn examine_open(image: &Image, truth: &Truth, blocks: &[u64]) -> Noticed {
    let mut reader = image.block_reader();
    for &block in blocks {
        let (kind, bytes) = &truth[usize::try_from(block).unwrap()];
        let mut out = vec![0; bytes.len()];
        if let Ok(found) = reader.read(block, &mut out) {
            assert!(out == *bytes && found == *kind, "block {block} reads as other bytes");
        }
    }
    if !image.damage().is_empty() {
        return Noticed::Verifying;
    }
    let sound = |depth| image.verify(depth, Job::silent()).expect("memory reads").is_sound();
    // What the quick pass finds, the full pass finds: it begins with it.
    let structure = blocks.len() == 1 && !sound(Depth::Quick);
    if structure || !sound(Depth::Data) { Noticed::Verifying } else { Noticed::Never }
}

/// Runs `check` for every number of the range on all processors; each worker brings a state.
pub(crate) fn for_each<S: Sync>(
    range: Range<usize>,
    state: impl Fn() -> S + Sync,
    check: impl Fn(&S, usize) + Sync,
) {
    let next = AtomicU64::new(range.start as u64);
    let workers = std::thread::available_parallelism().map_or(2, usize::from).min(8);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                // Each verify in the thread that asks for it: waking others costs more.
                let pool = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread();
                let pool = pool.build().expect("a pool of one");
                let state = state();
                loop {
                    let from = usize::try_from(next.fetch_add(64, Ordering::Relaxed)).unwrap();
                    if from >= range.end {
                        break;
                    }
                    let some = from..range.end.min(from + 64);
                    pool.install(|| some.for_each(|number| check(&state, number)));
                }
            });
        }
    });
}

/// A file one bit of which can be inverted while it is open.
pub(crate) struct Flipping {
    base: Patched,
    byte: AtomicU64,
    mask: AtomicU8,
}

impl Flipping {
    pub(crate) fn new(bytes: &Arc<Vec<u8>>) -> Self {
        Self { base: Patched::new(bytes), byte: AtomicU64::new(0), mask: AtomicU8::new(0) }
    }

    pub(crate) fn flip(&self, byte: usize, bit: u32) {
        self.byte.store(byte as u64, Ordering::Relaxed);
        self.mask.store(1 << bit, Ordering::Relaxed);
    }
}

impl ReadAt for Flipping {
    fn len(&self) -> u64 {
        self.base.len()
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.base.read_exact_at(out, offset)?;
        let place = self.byte.load(Ordering::Relaxed).checked_sub(offset);
        let place = place.and_then(|at| usize::try_from(at).ok());
        if let Some(byte) = place.and_then(|at| out.get_mut(at)) {
            *byte ^= self.mask.load(Ordering::Relaxed);
        }
        Ok(())
    }
}

/// What opening reads, and the index, which an open image remembers.
pub(crate) fn is_read_once(areas: &Areas, byte: usize) -> bool {
    [&areas.superblock, &areas.first_trailer, &areas.last_trailer, &areas.meta, &areas.index]
        .into_iter()
        .any(|area| area.contains(&byte))
}

#[test]
fn opening_reads_the_records_at_the_ends_and_meta_and_nothing_else() {
    let bytes = victim().build();
    let areas = Areas::of(&bytes);
    let file = Arc::new(CountingDisk::new(Patched::new(&bytes)));
    Image::open(file.clone()).unwrap();
    for read in file.reads() {
        let place = |at| usize::try_from(at).unwrap();
        let (first, last) = (place(read.start), place(read.end()) - 1);
        assert!(is_read_once(&areas, first) && is_read_once(&areas, last), "{read:?}");
        assert!(last - first < PAGE);
    }
}

fn sweep(bytes: &Arc<Vec<u8>>, blocks: &[u64], bits: impl Fn(usize) -> Range<u32> + Sync) {
    let truth = read_all(&open(bytes).unwrap()).unwrap();
    sweep_with(bytes, &Keys::none(), &truth, blocks, bits);
}

/// Flips the bits of `bytes` that `bits` names for each byte, one at a time, and reads `blocks`
/// of what is left, which must be as in `truth`.
pub(crate) fn sweep_with(
    bytes: &Arc<Vec<u8>>,
    keys: &Keys,
    truth: &Truth,
    blocks: &[u64],
    bits: impl Fn(usize) -> Range<u32> + Sync,
) {
    let areas = Areas::of(bytes);
    let opened = || {
        let file = Arc::new(Flipping::new(bytes));
        (Image::open_with(file.clone(), keys).unwrap(), file)
    };
    for_each(0..bytes.len(), opened, |(image, file), byte| {
        // Blocks live in frames and index; elsewhere one of them is enough.
        let one: Vec<u64> = blocks.iter().copied().cycle().skip(byte % 64).take(1).collect();
        let blocks = if byte < areas.tree.start { blocks } else { &one };
        for bit in bits(byte) {
            let noticed = if is_read_once(&areas, byte) {
                examine(Patched::new(bytes).flipped(byte, bit), keys, truth, blocks)
            } else {
                file.flip(byte, bit);
                examine_open(image, truth, blocks)
            };
            assert_ne!(noticed, Noticed::Never, "bit {bit} of byte {byte}");
        }
    });
}

#[test]
fn every_single_bit_of_a_small_image_is_found_when_it_flips() {
    let recipe = Recipe {
        small_meta: true,
        ..Recipe::new(&[(Block::Data(Fill::Words(1)), 1), (Block::Unused, 2), (Block::Zero, 1)])
    };
    sweep(&recipe.build(), &[0], |_| 0..8);
}

#[test]
fn every_flipped_bit_is_found_and_none_changes_what_is_read() {
    let bytes = victim().build();
    let areas = Areas::of(&bytes);
    // Every bit of what means something. Of noise and of stretches of zeros one bit of each
    // byte, another one from byte to byte (between the trailers, where all bytes have one
    // reader, of each eighth byte).
    sweep(&bytes, &[0, 1, 4, 5, 134, 135, 137, 138, 139], |byte| {
        bits_of(&bytes, &areas, &areas.frames[0].payload, byte)
    });
}

/// The bits of a byte that are worth a try, where `noise` is bytes without meaning.
pub(crate) fn bits_of(
    bytes: &[u8],
    areas: &Areas,
    noise: &Range<usize>,
    byte: usize,
) -> Range<u32> {
    let line = byte / 64 * 64;
    let is_alike = noise.contains(&byte) || bytes[line..line + 64].iter().all(|&b| b == 0);
    let one = u32::try_from((byte / 8 % 8) ^ (byte % 8)).unwrap();
    match (is_alike, areas.gap.contains(&byte) && !byte.is_multiple_of(8)) {
        (_, true) => 0..0,
        (true, false) => one..one + 1,
        (false, false) => 0..8,
    }
}

#[test]
fn a_page_of_zeros_is_found_anywhere() {
    let bytes = victim().build();
    let truth = read_all(&open(&bytes).unwrap()).unwrap();
    let blocks: Vec<u64> = (0..truth.len() as u64).collect();
    for at in (0..bytes.len()).step_by(PAGE) {
        if bytes[at..at + PAGE].iter().any(|&b| b != 0) {
            let file = Patched::new(&bytes).with(at, &[0; PAGE]);
            assert_ne!(
                examine(file, &Keys::none(), &truth, &blocks),
                Noticed::Never,
                "page at {at}"
            );
        }
    }
}

#[test]
fn two_pages_that_changed_places_are_found() {
    let bytes = victim().build();
    let truth = read_all(&open(&bytes).unwrap()).unwrap();
    let pages = bytes.len() / PAGE;
    for_each(
        0..pages * pages,
        || (),
        |(), pair| {
            let (a, b) = (pair / pages * PAGE, pair % pages * PAGE);
            let (page_a, page_b) = (&bytes[a..a + PAGE], &bytes[b..b + PAGE]);
            if a < b && page_a != page_b {
                let file = Patched::new(&bytes).with(a, page_b).with(b, page_a);
                assert_ne!(
                    examine(file, &Keys::none(), &truth, &[0, 4, 140]),
                    Noticed::Never,
                    "{a} and {b}"
                );
            }
        },
    );
}

#[test]
fn a_burst_of_64_kib_is_found_anywhere_and_never_keeps_an_image_from_opening() {
    let recipe =
        Recipe::new(&[(Block::Data(Fill::Noise(1)), 8), (Block::Data(Fill::Words(2)), 30)]);
    let bytes = recipe.build();
    let truth = read_all(&open(&bytes).unwrap()).unwrap();
    let areas = Areas::of(&bytes);
    let blocks: Vec<u64> = (0..truth.len() as u64).collect();
    let touches = |burst: &Range<usize>, area: &Range<usize>| {
        burst.start < area.end && area.start < burst.end
    };
    for at in (0..bytes.len() - PAGE).step_by(PAGE / 2) {
        let burst = at..(at + GAP).min(bytes.len());
        let file = Patched::new(&bytes).with(at, &noise(at as u64, burst.len()));
        let opened = Image::open(Arc::new(file.clone()));
        assert_ne!(
            examine(file, &Keys::none(), &truth, &blocks),
            Noticed::Never,
            "burst {burst:?}"
        );
        let image = opened.expect("each record at the ends has a copy, and META is not needed");
        assert_eq!(image.has_meta(), !touches(&burst, &areas.meta), "burst {burst:?}");
        let said: Vec<Section> = image.damage().iter().map(|c| c.section).collect();
        assert_eq!(said.contains(&Section::Superblock), touches(&burst, &areas.superblock));
        let trailers =
            touches(&burst, &areas.first_trailer) || touches(&burst, &areas.last_trailer);
        assert_eq!(said.contains(&Section::Trailer), trailers, "burst {burst:?}");
    }
}

#[test]
fn a_damaged_frame_costs_its_block_and_no_other() {
    let recipe = victim();
    let bytes = recipe.build();
    let frame = &Areas::of(&bytes).frames[1];
    let image = Image::open(Arc::new(Patched::new(&bytes).flipped(frame.payload.start, 0)));
    let image = image.expect("frames are read later");
    let mut reader = image.block_reader();
    for (block, expected) in (0..).zip(recipe.expected()) {
        let mut out = vec![0; expected.bytes.len()];
        let result = reader.read(block, &mut out);
        let hit = block == 4 || expected.bytes == recipe.expected()[4].bytes;
        assert_eq!(result.is_err(), hit, "block {block}");
        assert!(hit || out == expected.bytes);
    }
    let report = image.verify(Depth::Data, Job::silent()).unwrap();
    let at: Vec<(Section, u64)> = report.damage.iter().map(|c| (c.section, c.offset)).collect();
    let frame_at = frame.header.start as u64;
    assert_eq!(at.iter().filter(|d| **d == (Section::Frame, frame_at)).count(), 2, "block and ref");
    assert!(at.contains(&(Section::StoredPiece, frame_at / (64 << 10) * (64 << 10))));
    assert_eq!(report.damage_count, 3);
}

#[test]
fn a_report_on_a_ruin_counts_everything_and_lists_a_thousand() {
    let recipe = Recipe::new(&[(Block::Data(Fill::Words(1)), 1500)]);
    let bytes = recipe.build();
    let areas = Areas::of(&bytes);
    let mut ruin = bytes.to_vec();
    areas.frames.iter().for_each(|f| ruin[f.payload.start] ^= 1);
    let image = open(&Arc::new(ruin)).expect("frames are read later");
    let report = image.verify(Depth::Data, Job::silent()).unwrap();
    assert!(report.damage_count > 1500, "{}", report.damage_count);
    assert_eq!(report.damage.len(), aiv_image_format::VerifyReport::DAMAGE_LISTED_MAX);
    assert!(report.damage.is_sorted_by_key(|c| c.offset));
}

#[test]
fn a_verify_stops_when_asked() {
    let image = victim().open();
    let cancel = aiv_volume_io::Cancel::new();
    cancel.cancel();
    struct Silent;
    impl aiv_volume_io::Progress for Silent {}
    let result = image.verify(Depth::Data, Job::new(&Silent, &cancel));
    assert!(matches!(result, Err(Error::Canceled(_))));
}

#[test]
fn a_file_that_shrinks_while_it_is_verified_is_an_error_and_no_damage() {
    struct Shrunk(Patched, u64);
    impl ReadAt for Shrunk {
        fn len(&self) -> u64 {
            self.1
        }
        fn read_exact_at(&self, out: &mut [u8], offset: u64) -> std::io::Result<()> {
            let opening = offset == 0 && out.len() == PAGE || offset > PAGE as u64 * 2;
            if opening {
                self.0.read_exact_at(out, offset)
            } else {
                Err(std::io::ErrorKind::UnexpectedEof.into())
            }
        }
    }
    let bytes = victim().build();
    let file = Shrunk(Patched::new(&bytes), bytes.len() as u64);
    let image = Image::open(Arc::new(file)).expect("what opening needs is there");
    assert!(matches!(image.verify(Depth::Data, Job::silent()), Err(Error::Io { .. })));
}
