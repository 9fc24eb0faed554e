//! How much memory hostile files make the reader take, counted by the allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use aiv_image_format::Depth;
use aiv_volume_io::Job;

use crate::areas::DATA;
use crate::forge::{Forgery, section, with_meta_area};
use crate::recipe::{Block, Fill, Recipe, open};

const MIB: i64 = 1 << 20;

thread_local! {
    static LIVE: Cell<i64> = const { Cell::new(0) };
    static PEAK: Cell<i64> = const { Cell::new(0) };
}

/// The system's allocator, and how much of it each thread holds.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(bytes: usize, sign: i64) {
    let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
    // A thread that ends has no counters any more.
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + sign * bytes);
        PEAK.with(|peak| peak.set(peak.get().max(live.get())));
    });
}

#[expect(unsafe_code, reason = "an allocator cannot be written without; this one only counts")]
// SAFETY: every call is handed to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(layout.size(), -1);
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Old and new exist side by side while the bytes are copied.
        count(size, 1);
        count(layout.size(), -1);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// The most bytes that were allocated at once during `work`, above what there was before. What
/// other threads do is not counted: work that goes to a pool gets one of this thread alone.
pub(crate) fn peak_of<T>(work: impl FnOnce() -> T) -> (T, i64) {
    let before = LIVE.get();
    PEAK.set(before);
    let result = work();
    (result, PEAK.get() - before)
}

fn in_this_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread();
    pool.build().expect("a pool of one").install(work)
}

fn base() -> Vec<u8> {
    let blocks = [(Block::Data(Fill::Words(1)), 3), (Block::Zero, 5)];
    Recipe::new(&blocks).build().to_vec()
}

#[test]
fn the_counter_counts() {
    let (_, peak) = peak_of(|| vec![1u8; 5 << 20]);
    assert!((5 * MIB..6 * MIB).contains(&peak), "{peak}");
}

#[test]
fn lengths_beyond_the_file_are_refused_before_anything_is_allocated() {
    let base = base();
    let large = [32u64 << 20, (32 << 20) + 1, 1 << 40, u64::MAX].map(u64::to_le_bytes);
    for value in large {
        for field in [240, 248, 256, 264, 272, 312, 320, 360, 368, 408, 416, 424] {
            let forged = Forgery::of(&base).trailer(field, &value).seal();
            let (opened, peak) = peak_of(|| open(&forged).map(drop));
            assert!(opened.is_err(), "{field}");
            assert!(peak < MIB, "{peak} bytes for field {field}");
        }
    }
}

#[test]
fn a_frame_that_promises_16_mib_gets_no_memory_for_them() {
    let base = base();
    let frame = Forgery::of(&base).areas.frame(DATA).clone();
    let huge = (16u32 << 20).to_le_bytes();
    // With the index knowing its size, and with the index leaving it to the header.
    let index = Forgery::of(&base).areas.index.start;
    for size in [None, Some([0xff, 0xff])] {
        let mut forgery = Forgery::of(&base).at(frame.header.start + 44, &huge);
        if let Some(size) = size {
            forgery = forgery.at(index + 64 + 14, &size);
        }
        // The payload checksum cannot be made right: there are no such bytes.
        let forged = forgery.seal();
        let image = open(&forged).expect("frames are read later");
        let mut out = vec![0; 16 << 10];
        let (read, peak) = peak_of(|| image.block_reader().read(0, &mut out).map(drop));
        assert!(read.is_err());
        assert!(peak < MIB, "{peak} bytes");
    }
}

#[test]
fn a_verify_holds_a_window_and_not_the_image() {
    let blocks = vec![(Block::Data(Fill::Noise(1)), 1); 60];
    let image = Recipe { block_size: 1 << 20, ..Recipe::new(&blocks) }.open();
    let (sound, peak) = in_this_thread(|| {
        peak_of(|| image.verify(Depth::Data, Job::silent()).expect("memory reads").is_sound())
    });
    assert!(sound);
    assert!(peak < 16 * MIB, "{peak} bytes");
}

#[test]
fn the_largest_meta_takes_a_bounded_multiple_of_itself() {
    let item = |tag: u16, flags: u16, value: &[u8]| {
        let len = u32::try_from(value.len()).unwrap();
        [&tag.to_le_bytes()[..], &flags.to_le_bytes(), &len.to_le_bytes(), value].concat()
    };
    let compressed =
        |kind: u64, plain: &[u8]| section(2, kind, plain, &zstd::bulk::compress(plain, 1).unwrap());
    let base = base();
    let small = crate::forge::Forgery::of(&base);
    let keep = |number: usize| {
        let frame = &small.areas.sections[number];
        base[frame.header.start..frame.padding.end].to_vec()
    };
    let most = |len: usize| vec![b'x'; (16 << 20) - len];
    let fact = item(1, 0, &[item(1, 1, &[b'k'; 100]), item(2, 1, &[b'v'; 120])].concat());
    let sections = [
        keep(0),
        keep(1),
        compressed(3, &fact.repeat(65_536)),
        // Two million empty items: refused, but first they have to be counted.
        compressed(4, &item(1, 0, b"").repeat(2 << 20)),
        compressed(6, &item(1, 1, &most(100))),
    ];
    let image = with_meta_area(&base, &sections.concat());
    let (has_meta, peak) = peak_of(|| open(&image).map(|image| image.has_meta()));
    assert!(!has_meta.expect("blocks need no META"));
    assert!(peak < 160 * MIB, "{peak} bytes");
}
