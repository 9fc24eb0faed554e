//! How single blocks are stored.

use aiv_backup_engine::{BackupOptions, BlockSize, Compression, Error, Refusal};
use aiv_chain::Kind;
use aiv_testkit::MemStorage;
use aiv_testkit::disks::Content;
use aiv_volume_io::{Job, MemDisk};

use crate::common::{BLOCK, Made, all_sectors, backup, disk, facts, numbered_blocks, options};

#[test]
fn equal_blocks_are_stored_once_and_zeros_never() {
    let mut bytes = numbered_blocks(6);
    bytes.copy_within(0..BLOCK, 3 * BLOCK);
    bytes[4 * BLOCK..5 * BLOCK].fill(0);
    bytes.copy_within(0..BLOCK, 5 * BLOCK);
    let made = backup(&disk(&bytes), options());
    use Kind::{Data, Ref, Zero};
    assert_eq!(made.kinds(), [Data, Data, Data, Ref, Zero, Ref]);
    let totals = made.report.totals;
    assert_eq!((totals.blocks_data, totals.blocks_ref, totals.blocks_zero), (3, 2, 1));
    assert_eq!(made.bytes(), bytes);
}

#[test]
fn deleted_data_in_free_space_is_nowhere_in_the_image() {
    use std::collections::HashSet;
    const HEAD: usize = 32;
    let volume = crate::tools::small_ext4();
    let made =
        backup(&disk(&volume), BackupOptions { compression: Compression::None, ..options() });
    let heads = |bytes: &[u8]| -> HashSet<[u8; HEAD]> {
        bytes.chunks_exact(1024).map(|c| *c.first_chunk().unwrap()).collect()
    };
    let kept = heads(&made.bytes());
    let free: HashSet<_> = heads(&volume).difference(&kept).copied().collect();
    assert!(free.len() > 500, "free space is noisy");
    let image = made.storage.contents(&made.report.image).unwrap();
    let leaked = image.windows(HEAD).filter(|w| free.contains(*w)).count();
    assert_eq!(leaked, 0);
}

#[test]
fn what_does_not_compress_is_stored_as_it_is() {
    let bytes = Content::Random(5).bytes(4 * BLOCK);
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd(1)] {
        let made = backup(&disk(&bytes), BackupOptions { compression, ..options() });
        assert_eq!(made.report.totals.payload_bytes, bytes.len() as u64, "{compression:?}");
        assert_eq!(made.bytes(), bytes);
    }
}

#[test]
fn what_compresses_takes_less_space() {
    let bytes = Content::Text(5).bytes(8 * BLOCK);
    let stored = |compression| {
        let made = backup(&disk(&bytes), BackupOptions { compression, ..options() });
        assert_eq!(made.bytes(), bytes);
        made.report.totals.payload_bytes
    };
    let none = stored(Compression::None);
    assert_eq!(none, bytes.len() as u64);
    assert!(stored(Compression::Lz4) < none * 3 / 4);
    assert!(stored(Compression::Zstd(1)) < stored(Compression::Lz4));
}

fn of_length(len: usize) -> Made {
    let bytes = Content::Mixed(3).bytes(len);
    let made = backup(&disk(&bytes), all_sectors());
    assert_eq!(made.bytes(), bytes);
    made
}

#[test]
fn the_last_block_may_be_short() {
    for len in [2 * BLOCK + 512, 2 * BLOCK + 1, 3 * BLOCK - 1] {
        assert_eq!(of_length(len).kinds().len(), 3);
    }
}

#[test]
fn a_short_block_of_zeros_and_a_short_copy_of_a_whole_block_keep_their_length() {
    let mut bytes = numbered_blocks(2);
    bytes.extend_from_within(..512);
    assert_eq!(backup(&disk(&bytes), options()).bytes(), bytes);
    bytes.truncate(2 * BLOCK);
    bytes.resize(2 * BLOCK + 512, 0);
    let made = backup(&disk(&bytes), options());
    assert_eq!(made.kinds(), [Kind::Data, Kind::Data, Kind::Zero]);
    assert_eq!(made.bytes(), bytes);
}

#[test]
fn a_disk_may_be_smaller_than_a_block_down_to_one_sector_and_one_byte() {
    for len in [BLOCK, 4096, 512, 100, 1] {
        assert_eq!(of_length(len).kinds(), [Kind::Data], "{len} bytes");
    }
}

#[test]
fn a_disk_of_zeros_is_one_run() {
    let made = backup(&disk(&vec![0; 200 * BLOCK + 512]), options());
    assert_eq!(made.report.totals.blocks_zero, 201);
    assert_eq!(made.view.stretches(0).count(), 1);
    assert_eq!(made.report.totals.payload_bytes, 0);
}

#[test]
fn an_empty_source_is_refused() {
    let plan = aiv_backup_engine::BackupPlan::new(
        &MemDisk::default(),
        facts("empty"),
        options(),
        Job::silent(),
    );
    assert!(matches!(plan, Err(Error::Refused(Refusal::Empty))), "{plan:?}");
}

#[test]
fn a_batch_is_one_block_when_blocks_are_larger_than_a_stride() {
    let bytes = Content::Mixed(3).bytes((9 << 20) + 512);
    let block_size = BlockSize::new(4 << 20);
    let made = backup(&disk(&bytes), BackupOptions { block_size, ..all_sectors() });
    assert_eq!(made.kinds().len(), 3);
    assert!(made.bytes() == bytes);
}

#[test]
fn verify_reads_every_frame_back_and_says_so() {
    let storage = MemStorage::new();
    let source = disk(&numbered_blocks(3));
    let verify = BackupOptions { verify: true, ..options() };
    let report = crate::common::try_backup(&source, &storage, verify, 1).unwrap();
    assert!(report.verified);
    let report = crate::common::try_backup(&source, &storage, options(), 2).unwrap();
    assert!(!report.verified);
}
