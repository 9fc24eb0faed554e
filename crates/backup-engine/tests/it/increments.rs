//! Increments and differentials against a plain model of the disk.

use aiv_backup_engine::{BackupOptions, BackupReport, Basis, Compression};
use aiv_chain::{Depth, Folder, ImageKind, Kind, View};
use aiv_testkit::MemStorage;
use aiv_volume_io::Job;
use proptest::prelude::*;

use crate::common::{BLOCK, all_sectors, disk, numbered_blocks, options, read_all, try_backup};

fn differential() -> BackupOptions {
    BackupOptions { basis: Basis::NewestFull, ..all_sectors() }
}

/// Bytes that no codec and no difference makes smaller.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

/// Every point reads as the disk did, by itself and proven in depth.
fn check(storage: &MemStorage, report: &BackupReport, bytes: &[u8]) {
    let view = View::open(storage, &report.image, Job::silent()).unwrap();
    assert!(read_all(&view) == bytes, "{} reads as the disk did", report.image);
    let found = match view.parent() {
        None => view.image().verify(Depth::Data, Job::silent()),
        Some(parent) => view.image().verify_on(&parent, Depth::Data, Job::silent()),
    };
    assert_eq!(found.unwrap().damage, []);
    let whole = crate::common::backup(&disk(bytes), all_sectors());
    assert_eq!(report.content_root, whole.report.content_root);
    assert_eq!(report.state_root, whole.report.state_root, "the state has one name");
}

/// How each block of the newest image is stored; inherited ones are left out.
fn decided(storage: &MemStorage, report: &BackupReport) -> Vec<(u64, Kind)> {
    let view = View::open(storage, &report.image, Job::silent()).unwrap();
    let entries = view.image().entries(0).map(|e| e.unwrap());
    entries.flat_map(|e| (e.block..e.end()).map(move |b| (b, e.kind))).collect()
}

#[test]
fn nothing_changed_stores_no_block() {
    let bytes = numbered_blocks(300);
    let storage = MemStorage::new();
    try_backup(&disk(&bytes), &storage, all_sectors(), 1).unwrap();
    let report = try_backup(&disk(&bytes), &storage, all_sectors(), 2).unwrap();
    assert_eq!((report.kind, report.totals.blocks_decided()), (ImageKind::Incremental, 0));
    assert!(report.bytes_stored < 120 << 10, "{}", report.bytes_stored);
    check(&storage, &report, &bytes);
}

#[test]
fn a_changed_page_is_stored_as_a_difference() {
    let mut bytes = noise(1, 300 * BLOCK);
    let storage = MemStorage::new();
    try_backup(&disk(&bytes), &storage, all_sectors(), 1).unwrap();
    bytes[200 * BLOCK + 4096..][..512].fill(7);
    let report = try_backup(&disk(&bytes), &storage, all_sectors(), 2).unwrap();
    assert_eq!(decided(&storage, &report), [(200, Kind::Delta)]);
    assert!(report.totals.payload_bytes < 256, "{} bytes", report.totals.payload_bytes);
    check(&storage, &report, &bytes);
}

#[test]
fn without_differences_the_block_is_stored_whole() {
    let mut bytes = noise(1, 300 * BLOCK);
    let storage = MemStorage::new();
    try_backup(&disk(&bytes), &storage, all_sectors(), 1).unwrap();
    bytes[200 * BLOCK] ^= 1;
    for options in [
        BackupOptions { deltas: false, ..all_sectors() },
        BackupOptions { compression: Compression::None, ..all_sectors() },
    ] {
        let storage = storage.fork();
        let report = try_backup(&disk(&bytes), &storage, options, 2).unwrap();
        assert_eq!(decided(&storage, &report), [(200, Kind::Data)]);
        check(&storage, &report, &bytes);
    }
}

#[test]
fn differences_to_differences_stay_two_deep() {
    let mut bytes = noise(1, 130 * BLOCK);
    let storage = MemStorage::new();
    try_backup(&disk(&bytes), &storage, all_sectors(), 1).unwrap();
    let mut kinds = Vec::new();
    for n in 2..9 {
        bytes[5 * BLOCK + usize::from(n)] ^= 0xff;
        let report = try_backup(&disk(&bytes), &storage, all_sectors(), n).unwrap();
        kinds.extend(decided(&storage, &report).into_iter().map(|(_, kind)| kind));
        let view = View::open(&storage, &report.image, Job::silent()).unwrap();
        let stretch = view.stretches(5).next().unwrap().unwrap();
        let depth = view.reader().read_in(&stretch, 5, &mut vec![0; BLOCK]).unwrap();
        assert!(depth <= 2, "{depth}");
        check(&storage, &report, &bytes);
    }
    use Kind::{Data, Delta};
    assert_eq!(kinds, [Delta, Delta, Data, Delta, Delta, Data, Delta]);
}

#[test]
fn a_moved_file_and_a_repeated_block_store_nothing() {
    let mut bytes = noise(1, 300 * BLOCK);
    bytes[250 * BLOCK..].fill(0);
    let storage = MemStorage::new();
    try_backup(&disk(&bytes), &storage, all_sectors(), 1).unwrap();
    let moved = bytes[10 * BLOCK..20 * BLOCK].to_vec();
    bytes[260 * BLOCK..270 * BLOCK].copy_from_slice(&moved);
    let new = noise(2, BLOCK);
    bytes[280 * BLOCK..281 * BLOCK].copy_from_slice(&new);
    bytes[285 * BLOCK..286 * BLOCK].copy_from_slice(&new);
    let report = try_backup(&disk(&bytes), &storage, all_sectors(), 2).unwrap();
    let mut expected: Vec<_> = (260..270).map(|block| (block, Kind::Parent)).collect();
    expected.extend([(280, Kind::Data), (285, Kind::Ref)]);
    assert_eq!(decided(&storage, &report), expected);
    check(&storage, &report, &bytes);
}

#[test]
fn a_copy_of_a_copy_is_followed_through_the_chain() {
    let mut bytes = noise(1, 40 * BLOCK);
    let storage = MemStorage::new();
    try_backup(&disk(&bytes), &storage, all_sectors(), 1).unwrap();
    for n in 2..8 {
        bytes.rotate_right(BLOCK);
        let report = try_backup(&disk(&bytes), &storage, all_sectors(), n).unwrap();
        assert_eq!(report.totals.blocks_parent, 40, "all blocks moved");
        check(&storage, &report, &bytes);
    }
}

#[test]
fn boot_code_and_partition_table_are_blocks_like_any_other() {
    use aiv_testkit::disks::{Content, DiskLayout, Part, Table};
    let part = |len| Part::new(len, Content::Text(1));
    let small = DiskLayout::new(Table::Gpt).part(part(200_000)).build();
    let storage = MemStorage::new();
    try_backup(&small.to_disk(), &storage, options(), 1).unwrap();
    // The same disk with new boot code, then with a second partition.
    let mut boot = small.bytes.clone();
    boot[..440].copy_from_slice(&noise(9, 440));
    let report = try_backup(&disk(&boot), &storage, options(), 2).unwrap();
    assert_eq!(decided(&storage, &report).first().map(|d| d.0), Some(0));
    check(&storage, &report, &boot);
    let two = DiskLayout::new(Table::Gpt).part(part(200_000)).part(part(100_000)).build();
    let report = try_backup(&two.to_disk(), &storage, options(), 3).unwrap();
    assert_eq!(report.kind, ImageKind::Incremental);
    let view = View::open(&storage, &report.image, Job::silent()).unwrap();
    assert!(read_all(&view) == two.bytes);
    let partitions = view.image().meta().disk.regions.iter().filter(|r| r.partition.is_some());
    assert_eq!(partitions.count(), 2, "META describes the new table");
}

#[test]
fn a_differential_builds_on_the_full_image() {
    let mut bytes = numbered_blocks(200);
    let storage = MemStorage::new();
    let full = try_backup(&disk(&bytes), &storage, all_sectors(), 1).unwrap();
    for n in 2..5 {
        bytes[usize::from(n) * BLOCK + 100] ^= 1;
        let report = try_backup(&disk(&bytes), &storage, differential(), n).unwrap();
        assert_eq!(report.kind, ImageKind::Differential);
        assert_eq!(report.parent, Some(full.recovery_point));
        assert_eq!(report.totals.blocks_decided(), u64::from(n) - 1);
        check(&storage, &report, &bytes);
    }
    // Each needs the full image only.
    let folder = Folder::scan(&storage, Job::silent()).unwrap();
    for point in &folder.sets[0].points[1..] {
        assert_eq!(folder.sets[0].chain(point).unwrap().len(), 2);
    }
}

#[test]
fn a_chain_keeps_its_block_size_and_another_one_starts_a_chain() {
    use aiv_backup_engine::BlockSize;
    let bytes = numbered_blocks(200);
    let storage = MemStorage::new();
    try_backup(&disk(&bytes), &storage, all_sectors(), 1).unwrap();
    let free = BackupOptions { block_size: None, ..all_sectors() };
    let report = try_backup(&disk(&bytes), &storage, free, 2).unwrap();
    assert_eq!((report.kind, report.totals.blocks_decided()), (ImageKind::Incremental, 0));
    let other = BackupOptions { block_size: BlockSize::new(32 << 10), ..all_sectors() };
    let report = try_backup(&disk(&bytes), &storage, other, 3).unwrap();
    assert_eq!(report.kind, ImageKind::Full);
    assert!(report.image.contains("_b00002-"), "{}", report.image);
}

/// A change of a disk.
#[derive(Debug, Clone)]
enum Change {
    Page(usize, u64),
    Block(usize, u64),
    Zero(usize, usize),
    Move(usize, usize, usize),
    Resize(usize),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => (any::<usize>(), any::<u64>()).prop_map(|(at, seed)| Change::Page(at, seed)),
        3 => (any::<usize>(), any::<u64>()).prop_map(|(at, seed)| Change::Block(at, seed)),
        1 => (any::<usize>(), 1usize..40).prop_map(|(at, count)| Change::Zero(at, count)),
        2 => (any::<usize>(), any::<usize>(), 1usize..30).prop_map(|(a, b, n)| Change::Move(a, b, n)),
        1 => (1usize..400 * BLOCK).prop_map(Change::Resize),
    ]
}

fn apply_change(bytes: &mut Vec<u8>, change: &Change) {
    let blocks = bytes.len().div_ceil(BLOCK);
    let range =
        |block: usize, count: usize, len: usize| block * BLOCK..((block + count) * BLOCK).min(len);
    let len = bytes.len();
    match *change {
        Change::Page(at, seed) => {
            let at = at % len;
            let end = (at + 500).min(len);
            bytes[at..end].copy_from_slice(&noise(seed, end - at));
        }
        Change::Block(at, seed) => {
            let range = range(at % blocks, 1, len);
            let new = noise(seed % 8, range.len());
            bytes[range].copy_from_slice(&new);
        }
        Change::Zero(at, count) => bytes[range(at % blocks, count, len)].fill(0),
        Change::Move(from, to, count) => {
            let (from, to) = (range(from % blocks, count, len), range(to % blocks, count, len));
            let count = from.len().min(to.len());
            bytes.copy_within(from.start..from.start + count, to.start);
        }
        Change::Resize(len) => {
            let old = bytes.len();
            bytes.resize(len, 0);
            if len > old {
                bytes[old..].copy_from_slice(&noise(3, len - old));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn every_point_of_a_changing_and_resizing_disk_reads_as_the_disk_did(
        rounds in prop::collection::vec(
            (prop::collection::vec(change(), 0..6), any::<bool>(), 1usize..4), 1..6),
        seed in any::<u64>(),
        codec in 0usize..3,
    ) {
        let codecs = [Compression::Zstd(1), Compression::Lz4, Compression::None];
        let mut bytes = noise(seed, 200 * BLOCK + 700);
        let storage = MemStorage::new();
        let basis = |full| if full { Basis::NewestFull } else { Basis::Newest };
        let mut points = Vec::new();
        for (n, (changes, full, threads)) in (1..).zip(rounds) {
            changes.iter().for_each(|change| apply_change(&mut bytes, change));
            let options = BackupOptions {
                basis: basis(full),
                compression: codecs[codec],
                threads: crate::common::threads(threads),
                ..all_sectors()
            };
            let report = try_backup(&disk(&bytes), &storage, options, n).unwrap();
            points.push((report, bytes.clone()));
        }
        for (report, bytes) in &points {
            check(&storage, report, bytes);
        }
    }
}

#[test]
fn an_increment_does_not_depend_on_the_number_of_threads() {
    let mut bytes = noise(1, 600 * BLOCK);
    let storage = MemStorage::new();
    try_backup(&disk(&bytes), &storage, all_sectors(), 1).unwrap();
    for at in (0..bytes.len()).step_by(7 * BLOCK + 91) {
        bytes[at] ^= 1;
    }
    bytes[300 * BLOCK..310 * BLOCK].copy_from_slice(&noise(5, BLOCK).repeat(10));
    let made = [1, 2, 5].map(|count| {
        let storage = storage.fork();
        let options = BackupOptions { threads: crate::common::threads(count), ..all_sectors() };
        let report = try_backup(&disk(&bytes), &storage, options, 2).unwrap();
        storage.contents(&report.image).unwrap()
    });
    assert!(made[0] == made[1] && made[0] == made[2], "byte for byte");
}
