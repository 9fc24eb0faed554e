//! Change trackers that do not tell the truth: each is caught, and never believed again.

use std::io;

use aiv_backup_engine::{BackupOptions, NotUsed, SHARES};
use aiv_chain::View;
use aiv_testkit::MemStorage;
use aiv_testkit::disks::Content;
use aiv_volume_io::{Extent, ExtentSet, Job, ReadAt};

use crate::common::{BLOCK, all_sectors, disk, options, read_all};
use crate::hints::{BLOCK_LEN, Bitmap, hint, hinted, not_used, relying_on, try_hinted};

/// Increments until the lie was found; the state is right from then on.
fn increments_until_caught(
    source: &dyn ReadAt,
    bitmap: &Bitmap,
    storage: &MemStorage,
    options: &BackupOptions,
    lie: u64,
) -> u64 {
    for count in 1..=SHARES {
        let n = u8::try_from(count + 1).unwrap();
        let trackers = bitmap.as_trackers();
        let report = try_hinted(source, &trackers, storage, options.clone(), n).unwrap();
        match not_used(&report) {
            None => {}
            Some(found) => {
                assert_eq!(*found, NotUsed::Lied { offset: lie });
                assert_eq!((hint(&report).bytes_skipped, hint(&report).bytes_audited), (0, 0));
                return count;
            }
        }
    }
    panic!("nobody noticed within {SHARES} increments");
}

#[test]
fn a_block_that_is_left_out_is_found_when_its_turn_comes_whichever_it_is() {
    // More than a group of blocks, and a share of each.
    for block in (0..200).step_by(13) {
        let (mut bytes, storage) = (Content::Random(1).bytes(200 * BLOCK), MemStorage::new());
        let mut bitmap = Bitmap::new("b", 65536);
        hinted(&disk(&bytes), &bitmap, &storage, all_sectors(), 1);
        bytes[block * BLOCK + 99] ^= 1;
        // Others are marked, so that not all is silence.
        let other = (block + 60) % 200;
        bytes[other * BLOCK] ^= 1;
        bitmap.mark(Extent::new(other as u64 * BLOCK_LEN, 1));
        let lie = block as u64;
        let options = relying_on("b");
        let source = disk(&bytes);
        let count = increments_until_caught(&source, &bitmap, &storage, &options, lie * BLOCK_LEN);
        let turn = if lie.is_multiple_of(SHARES) { SHARES } else { lie % SHARES };
        assert_eq!(count, turn, "block {block} is compared in every thirtieth increment");
        let newest = storage.names().into_iter().max().unwrap();
        let view = View::open(&storage, &newest, Job::silent()).unwrap();
        assert!(read_all(&view) == bytes, "all of the source was read");
    }
}

#[test]
fn a_liar_is_refused_until_a_backup_was_made_without_it() {
    let (mut bytes, storage) = (Content::Random(1).bytes(64 * BLOCK), MemStorage::new());
    let bitmap = Bitmap::new("b", 65536);
    hinted(&disk(&bytes), &bitmap, &storage, all_sectors(), 1);
    bytes[BLOCK] ^= 1;
    let report = hinted(&disk(&bytes), &bitmap, &storage, relying_on("b"), 2);
    let offset = BLOCK_LEN;
    assert_eq!(not_used(&report), Some(&NotUsed::Lied { offset }));
    assert_eq!(report.bytes_read, bytes.len() as u64);
    let image = View::open(&storage, &report.image, Job::silent()).unwrap();
    assert_eq!(image.image().meta().trackers.seen[0].lied_at, Some(offset));
    assert_eq!(image.image().meta().trackers.relied_on, None);
    for n in 3..6 {
        let report = hinted(&disk(&bytes), &bitmap, &storage, relying_on("b"), n);
        assert_eq!(not_used(&report), Some(&NotUsed::Distrusted { offset }));
    }
    hinted(&disk(&bytes), &bitmap, &storage, all_sectors(), 6);
    let report = hinted(&disk(&bytes), &bitmap, &storage, relying_on("b"), 7);
    assert_eq!(not_used(&report), None);
}

#[test]
fn when_trackers_take_turns_a_lie_discredits_them_all() {
    let (mut bytes, storage) = (Content::Random(1).bytes(64 * BLOCK), MemStorage::new());
    let bitmaps = |names: [&str; 2]| -> Vec<_> {
        names.iter().flat_map(|name| Bitmap::new(name, 65536).as_trackers()).collect()
    };
    let backup = |bytes: &[u8], names, relies: Option<&str>, n| {
        let options = relies.map_or_else(all_sectors, relying_on);
        try_hinted(&disk(bytes), &bitmaps(names), &storage, options, n).unwrap()
    };
    backup(&bytes, ["a", "b"], None, 1);
    // Missed by the first, found in the turn of the second.
    bytes[2 * BLOCK] ^= 1;
    assert_eq!(not_used(&backup(&bytes, ["a", "b"], Some("a"), 2)), None);
    let offset = 2 * BLOCK_LEN;
    let report = backup(&bytes, ["b", "c"], Some("b"), 3);
    assert_eq!(not_used(&report), Some(&NotUsed::Lied { offset }));
    for (n, names) in [(4, ["c", "d"]), (5, ["d", "e"])] {
        let report = backup(&bytes, names, Some(names[0]), n);
        assert_eq!(not_used(&report), Some(&NotUsed::Distrusted { offset }));
    }
    backup(&bytes, ["e", "f"], None, 6);
    assert_eq!(not_used(&backup(&bytes, ["f", "g"], Some("f"), 7)), None);
}

#[test]
fn an_epoch_that_was_lost_without_a_trace_is_found_within_thirty_increments() {
    let (mut bytes, storage) = (Content::Random(1).bytes(256 * BLOCK), MemStorage::new());
    let mut bitmap = Bitmap::new("b", 65536);
    hinted(&disk(&bytes), &bitmap, &storage, all_sectors(), 1);
    // Written, cleared, and something else was written: nothing that was marked vanished since
    // the parent, which saw it empty.
    bytes[77 * BLOCK] ^= 1;
    bytes[200 * BLOCK] ^= 1;
    bitmap.mark(Extent::new(200 * BLOCK_LEN, 1));
    let options = relying_on("b");
    let count = increments_until_caught(&disk(&bytes), &bitmap, &storage, &options, 77 * BLOCK_LEN);
    assert_eq!(count, 77 % SHARES);
}

/// A huge disk that is zeros but for what was written.
struct Sparse {
    len: u64,
    data: Vec<(u64, Vec<u8>)>,
}

impl ReadAt for Sparse {
    fn len(&self) -> u64 {
        self.len
    }
    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        out.fill(0);
        let wanted = Extent::new(offset, out.len() as u64);
        for (at, bytes) in &self.data {
            let here = Extent::new(*at, bytes.len() as u64);
            let Some(part) = here.intersect(wanted) else { continue };
            let index = |from: u64| usize::try_from(part.start - from).unwrap();
            let count = usize::try_from(part.len).unwrap();
            out[index(offset)..][..count].copy_from_slice(&bytes[index(*at)..][..count]);
        }
        Ok(())
    }
    fn holes(&self, range: Extent) -> io::Result<Vec<Extent>> {
        let data = self.data.iter().map(|(at, bytes)| Extent::new(*at, bytes.len() as u64));
        Ok(data.collect::<ExtentSet>().gaps_within(range))
    }
}

#[test]
fn a_tracker_that_ends_at_128_gib_is_found_out() {
    const EDGE: u64 = 1 << 37;
    let data = |seed| {
        vec![
            (1 << 20, Content::Random(seed).bytes(1 << 20)),
            (EDGE - (2 << 20), Content::Random(seed + 1).bytes(4 << 20)),
        ]
    };
    let mut source = Sparse { len: EDGE + (1 << 30), data: data(1) };
    let options = BackupOptions { block_size: None, ..all_sectors() };
    let storage = MemStorage::new();
    let mut bitmap = Bitmap::new("b", 65536);
    try_hinted(&source, &bitmap.as_trackers(), &storage, options.clone(), 1).unwrap();
    source.data = data(10);
    for (at, bytes) in &source.data {
        // It counts in 37 bits.
        let whole = Extent::new(*at, bytes.len() as u64);
        bitmap.mark(whole.intersect(Extent::new(0, EDGE)).unwrap());
    }
    let options = BackupOptions { changes: Some("b".to_owned()), ..options };
    let trackers = bitmap.as_trackers();
    let report = try_hinted(&source, &trackers, &storage, options, 2).unwrap();
    // 32 blocks of 64 KiB behind the edge: one of them has its turn in every increment.
    let Some(NotUsed::Lied { offset }) = not_used(&report) else { panic!("{report:?}") };
    assert!((EDGE..EDGE + (2 << 20)).contains(offset), "{offset}");
    let view = View::open(&storage, &report.image, Job::silent()).unwrap();
    for (at, bytes) in &source.data {
        let mut out = vec![0; bytes.len()];
        view.read_exact_at(&mut out, *at).unwrap();
        assert!(out == *bytes);
    }
}

#[test]
fn a_hole_that_was_punched_and_not_marked_is_found_at_once_and_is_zeros() {
    // In the middle of a group, and of whole groups.
    for punched in [100..101, 3..10, 128..512] {
        let len = 700 * BLOCK_LEN;
        let mut source = Sparse { len, data: vec![(0, Content::Random(1).bytes(700 * BLOCK))] };
        let storage = MemStorage::new();
        let bitmap = Bitmap::new("b", 65536);
        try_hinted(&source, &bitmap.as_trackers(), &storage, all_sectors(), 1).unwrap();
        let rest = source.data[0].1.split_off(punched.end * BLOCK);
        source.data[0].1.truncate(punched.start * BLOCK);
        source.data.push((punched.end as u64 * BLOCK_LEN, rest));
        let report = hinted(&source, &bitmap, &storage, relying_on("b"), 2);
        let offset = punched.start as u64 * BLOCK_LEN;
        assert_eq!(not_used(&report), Some(&NotUsed::Lied { offset }), "{punched:?}");
        let view = View::open(&storage, &report.image, Job::silent()).unwrap();
        let mut out = vec![1; (punched.end - punched.start) * BLOCK];
        view.read_exact_at(&mut out, offset).unwrap();
        assert!(out.iter().all(|byte| *byte == 0));
        // With its word kept, a hole is no lie.
        let mut honest = bitmap.clone();
        honest.mark(Extent::new(offset, out.len() as u64));
        let storage = MemStorage::new();
        let before = Sparse { len, data: vec![(0, Content::Random(1).bytes(700 * BLOCK))] };
        try_hinted(&before, &bitmap.as_trackers(), &storage, all_sectors(), 1).unwrap();
        let report = hinted(&source, &honest, &storage, relying_on("b"), 2);
        assert_eq!(not_used(&report), None);
    }
}

#[test]
fn a_parent_whose_used_bytes_cannot_be_worked_out_again_makes_everything_be_read() {
    let storage = MemStorage::new();
    let bitmap = Bitmap::new("b", 65536);
    let ext4 = crate::tools::small_ext4();
    hinted(&disk(&ext4), &bitmap, &storage, options(), 1);
    // The parent knew free space, this backup wants all of it.
    let report = hinted(&disk(&ext4), &bitmap, &storage, relying_on("b"), 2);
    assert_eq!(not_used(&report), Some(&NotUsed::UsedUnknown));
}
