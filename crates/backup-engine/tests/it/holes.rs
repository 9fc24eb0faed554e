//! Sparse sources: what a file says is a hole is never read.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use aiv_backup_engine::BackupOptions;
use aiv_chain::Kind;
use aiv_testkit::disks::{Content, CountingDisk};
use aiv_volume_io::{Extent, FileDisk, ReadAt};

use crate::common::{BLOCK, backup, options};

const BLOCK_LEN: u64 = BLOCK as u64;

#[test]
fn holes_of_a_sparse_file_become_zero_blocks_without_being_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sparse");
    let file = File::create_new(&path).unwrap();
    let len = 400 * BLOCK_LEN;
    file.set_len(len).unwrap();
    // Data at the start of block 10, across blocks 99 to 101, and at the very end.
    let data = [(10 * BLOCK_LEN, 4096), (100 * BLOCK_LEN - 4096, BLOCK + 8192), (len - 4096, 4096)];
    for (at, count) in data {
        file.write_all_at(&Content::Random(at).bytes(count), at).unwrap();
    }
    file.sync_all().unwrap();

    let source = CountingDisk::new(FileDisk::open_source(&path).unwrap());
    let plan = crate::common::plan(&source, options());
    let looked = source.reads().len();
    let storage = aiv_testkit::MemStorage::new();
    let report = crate::common::apply(&plan, &source, &storage, 1).unwrap();
    assert_eq!(report.totals.blocks_zero, 400 - 5);
    assert_eq!(report.totals.blocks_data, 5);
    for read in &source.reads()[looked..] {
        let touches = |&(at, count): &(u64, usize)| {
            let whole = Extent::between(at / BLOCK_LEN * BLOCK_LEN, at + count as u64 + BLOCK_LEN);
            whole.intersect(*read).is_some()
        };
        assert!(data.iter().any(touches), "{read:?} was read");
    }
    assert_eq!(report.bytes_read, 5 * BLOCK_LEN);
    let view =
        aiv_chain::View::open(&storage, &report.image, aiv_volume_io::Job::silent()).unwrap();
    let expected = std::fs::read(&path).unwrap();
    assert!(crate::common::read_all(&view) == expected);
}

/// Checks a backup of an enormous source with 4 KiB of data at each of `data`. Reading what is
/// no data would take days.
fn check_enormous(source: &dyn ReadAt, data: &[u64]) {
    let options = BackupOptions { block_size: None, ..options() };
    let made = backup(source, options);
    let geometry = *made.view.geometry();
    assert_eq!(geometry.len(), source.len());
    let expected = if source.len() > 32 << 40 { 256u32 << 10 } else { 64 << 10 };
    assert_eq!(geometry.block_size().get(), expected);
    let blocks = made.report.totals.blocks_data;
    assert_eq!(blocks + made.report.totals.blocks_zero, geometry.blocks());
    assert_eq!(blocks, data.len() as u64);
    assert!(made.report.bytes_read <= blocks * u64::from(expected));
    assert!(made.report.bytes_stored < 4 << 20, "{}", made.report.bytes_stored);
    let (mut is, mut should) = (vec![0; 8192], vec![0; 8192]);
    for &at in data {
        let at = at.saturating_sub(2048);
        let count = usize::try_from((source.len() - at).min(8192)).unwrap();
        made.view.read_exact_at(&mut is[..count], at).unwrap();
        source.read_exact_at(&mut should[..count], at).unwrap();
        assert!(is[..count] == should[..count], "at {at}");
    }
    let middle = made.view.stretches(geometry.blocks() / 2).next().unwrap().unwrap();
    assert_eq!(middle.kind(), Kind::Zero);
}

/// 100 TiB of which almost everything is a hole.
struct Enormous;

impl Enormous {
    const LEN: u64 = 100 << 40;
    const DATA: [u64; 3] = [1 << 20, 60 << 40, Self::LEN - 4096];

    fn data() -> impl Iterator<Item = Extent> {
        Self::DATA.into_iter().map(|at| Extent::new(at, 4096))
    }
}

impl ReadAt for Enormous {
    fn len(&self) -> u64 {
        Self::LEN
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        out.fill(0);
        let range = Extent::new(offset, out.len() as u64);
        for (data, value) in Self::data().zip(1..) {
            let Some(part) = data.intersect(range) else { continue };
            let at = usize::try_from(part.start - offset).unwrap();
            out[at..at + usize::try_from(part.len).unwrap()].fill(value);
        }
        Ok(())
    }

    fn holes(&self, range: Extent) -> io::Result<Vec<Extent>> {
        Ok(Self::data().collect::<aiv_volume_io::ExtentSet>().gaps_within(range))
    }
}

#[test]
fn a_sparse_source_of_100_tib_takes_seconds_and_picks_larger_blocks() {
    check_enormous(&Enormous, &Enormous::DATA);
}

#[test]
fn a_sparse_file_of_the_largest_size_the_filesystem_takes_takes_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("enormous");
    let file = File::create_new(&path).unwrap();
    // ext4 stops at 16 TiB less one block, others take 100 TiB.
    let len =
        [100 << 40, (16 << 40) - 4096, 2 << 40].into_iter().find(|&l| file.set_len(l).is_ok());
    let len = len.expect("a filesystem with sparse files");
    let data = [5 << 30, len / 2 / 4096 * 4096 + (1 << 30), len - 4096];
    for at in data {
        file.write_all_at(&Content::Random(at).bytes(4096), at).unwrap();
    }
    file.sync_all().unwrap();
    check_enormous(&FileDisk::open_source(&path).unwrap(), &data);
}
