//! The disk that every loop here works on, and images of it in memory.

use std::num::NonZeroUsize;

use aiv_backup_engine::{
    BackupIds, BackupOptions, BackupPlan, BlockSize, Compression, Sectors, SourceFacts,
};
use aiv_chain::View;
use aiv_image_format::GroupId;
use aiv_image_format::meta::Inventory;
use aiv_testkit::{MemStorage, Random};
use aiv_volume_io::{Job, MemDisk};

/// Blocks of the disk.
pub(crate) const BLOCKS: usize = 128;
/// Bytes of a block: the default.
pub(crate) const BLOCK: usize = 64 << 10;

/// Four kinds of blocks in turn: text of few words, records of a program, noise, and one that
/// repeats an earlier block. What `change` is not zero for gets another page in every eighth block.
pub(crate) fn disk(change: u64) -> MemDisk {
    let mut bytes = Vec::with_capacity(BLOCKS * BLOCK);
    for number in 0..BLOCKS {
        let mut random = Random::new(&[number as u64]);
        let start = bytes.len();
        match number % 4 {
            0 => text(&mut random, &mut bytes),
            1 => records(&mut random, &mut bytes),
            2 => {
                bytes.resize(start + BLOCK, 0);
                random.fill(&mut bytes[start..]);
            }
            _ => bytes.extend_from_within(start - 3 * BLOCK..start - 2 * BLOCK),
        }
        bytes.resize(start + BLOCK, 0);
        if change > 0 && number % 8 == 1 {
            let page = start + 4096 * (number % 16);
            Random::new(&[change, number as u64]).fill(&mut bytes[page..page + 4096]);
        }
    }
    MemDisk::from_bytes(bytes)
}

/// One block of words.
fn text(random: &mut Random, out: &mut Vec<u8>) {
    const WORDS: [&str; 8] = ["disk", "volume", "extent", "the", "of", "sector", "chain", "and"];
    let end = out.len() + BLOCK;
    while out.len() < end {
        out.extend_from_slice(WORDS[random.below(WORDS.len())].as_bytes());
        out.push(if random.below(12) == 0 { b'\n' } else { b' ' });
    }
    out.truncate(end);
}

/// One block of records: numbers that go up, and some noise.
fn records(random: &mut Random, out: &mut Vec<u8>) {
    for number in 0..(BLOCK / 32) as u64 {
        out.extend_from_slice(&(0x40_0000 + number * 24).to_le_bytes());
        out.extend_from_slice(&random.next().to_le_bytes()[..4]);
        out.extend_from_slice(&[0, 0, 0, 1, 0x48, 0x89, 0xE5, 0xC3]);
        out.extend_from_slice(&(number % 7).to_le_bytes()[..4]);
        out.extend_from_slice(&[0; 8]);
    }
}

/// The `n`-th backup of `disk`, on one thread; what it is called.
pub(crate) fn backup(
    disk: &MemDisk,
    storage: &MemStorage,
    compression: Compression,
    n: u8,
) -> String {
    let options = BackupOptions {
        compression,
        block_size: BlockSize::new(u32::try_from(BLOCK).expect("64 KiB")),
        sectors: Sectors::All,
        threads: NonZeroUsize::MIN,
        ..BackupOptions::default()
    };
    let facts = SourceFacts { name: "disk".to_owned(), ..SourceFacts::default() };
    let ids = BackupIds::new(&[n; BackupIds::RANDOM_LEN], GroupId([n; 16]), 1_790_000_000_000);
    let plan = BackupPlan::new(disk, facts, options, Job::silent()).expect("a plan");
    let report = plan
        .apply(disk, storage, &ids, &Inventory::default(), None, Job::silent())
        .expect("a backup into memory");
    report.image
}

/// A full image and an increment of the disk, and the newest state.
pub(crate) fn chain(compression: Compression) -> (MemStorage, View) {
    let storage = MemStorage::new();
    backup(&disk(0), &storage, compression, 1);
    let newest = backup(&disk(1), &storage, compression, 2);
    let view = View::open(&storage, &newest, Job::silent()).expect("an image just made");
    (storage, view)
}
