//! Files on XFS volumes of an attacker, thousands of them: no panic, no endless work.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aiv_filesystems::ReaderNote;
use aiv_testkit::Random;
use aiv_testkit::mutants::{Changes, changes};
use aiv_volume_io::{Extent, MemDisk, ReadAt};

use crate::ext_tools::MIB;
use crate::reader_tools::exhaust;
use crate::tools::{Mounted, noise, run};
use crate::xfs_forge::{Forged, sum_of};
use crate::xfs_reader_hostile::{sound, volume};
use crate::xfs_reader_v4::Content;
use crate::xfs_tools::MOUNT;

/// A volume with some bytes changed, which counts what is read.
struct Changed {
    volume: Arc<MemDisk>,
    changes: Changes,
    read: Arc<AtomicU64>,
}

impl ReadAt for Changed {
    fn len(&self) -> u64 {
        self.volume.len()
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        self.read.fetch_add(out.len() as u64, Ordering::Relaxed);
        self.volume.read_exact_at(out, offset)?;
        for (&at, &byte) in self.changes.range(offset..offset + out.len() as u64) {
            out[usize::try_from(at - offset).unwrap()] = byte;
        }
        Ok(())
    }
}

/// Thousands of volumes with changes in records, whose checksums are right.
fn attack(forged: &Forged, seeds: std::ops::Range<u64>) {
    let records = forged.records();
    assert!(records.len() > 100, "{}", records.len());
    let sums: BTreeMap<u64, (u64, Option<usize>)> =
        records.iter().map(|(record, sum)| (record.start, (record.len, *sum))).collect();
    let records: Vec<Extent> = records.into_iter().map(|(record, _)| record).collect();
    let volume = Arc::new(MemDisk::from_bytes(forged.bytes.clone()));
    let reads = |changes: Changes| {
        let read = Arc::new(AtomicU64::new(0));
        let changed = Changed { volume: volume.clone(), changes, read: read.clone() };
        let files = exhaust(Arc::new(changed));
        (files, read.load(Ordering::Relaxed))
    };
    let (all, read) = reads(Changes::new());
    assert!(all > 40, "{all} files");
    let (mut found, mut cases) = (0, 0);
    for seed in seeds {
        let mut random = Random::new(&[seed]);
        let mut changed = changes(&mut random, &*volume, &records);
        let touched: Vec<u64> = changed.keys().copied().collect();
        for at in touched {
            let (&start, &(len, sum)) = sums.range(..=at).next_back().unwrap();
            let Some(sum) = sum.filter(|_| at < start + len) else { continue };
            let range = usize::try_from(start).unwrap()..usize::try_from(start + len).unwrap();
            let mut record = forged.bytes[range].to_vec();
            for (&at, &byte) in changed.range(start..start + len) {
                record[usize::try_from(at - start).unwrap()] = byte;
            }
            changed.extend((start + sum as u64..).zip(sum_of(&mut record, sum)));
        }
        let (files, bytes) = reads(changed);
        found += usize::from(files > 40);
        cases += 1;
        assert!(bytes < 4 * read + 64 * MIB, "seed {seed}: {bytes} bytes read");
    }
    assert!(found > cases / 2 && found < cases, "{found} of {cases} with files");
}

#[test]
fn changed_volumes_neither_panic_nor_last() {
    attack(&sound(), 0..150);
}

/// Not unmounted: changes are in the log as well.
fn crashed() -> Forged {
    let volume = volume("-b size=1024 -d agcount=2");
    let mounted = Mounted::new(&volume, MOUNT);
    for n in 0..60 {
        let path = mounted.path().join(format!("new {n}"));
        match n % 3 {
            0 => fs::create_dir(&path).unwrap(),
            1 => symlink("s".repeat(400), &path).unwrap(),
            _ => fs::write(&path, noise(n, 3000)).unwrap(),
        }
    }
    fs::remove_dir_all(mounted.path().join("large")).unwrap();
    run("sync", &["-f", mounted.path().to_str().unwrap()]);
    let crashed = Forged::new(&volume.duplicate());
    assert_eq!(crashed.open().unwrap().notes(), [ReaderNote::Replayed]);
    crashed
}

#[test]
fn changed_logs_neither_panic_nor_last() {
    attack(&crashed(), 0..80);
}

#[test]
fn changed_volumes_of_version_4_neither_panic_nor_last() {
    let content = Content::new();
    attack(&Forged::new(&content.made("-m crc=0 -b size=1024 -d agcount=2")), 0..30);
}
