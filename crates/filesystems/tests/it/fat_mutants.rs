//! FAT and exFAT volumes of an attacker: no panic, no endless loop.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::sync::Arc;

use aiv_testkit::Random;
use aiv_testkit::mutants::{Changes, Sums, changes};
use aiv_volume_io::{Extent, Job, MemDisk, ReadAt};

use crate::exfat_tools::{Fused, mkfs_exfat};
use crate::ext_tools::MIB;
use crate::fat_reader::reader;
use crate::fat_tools::mkfs_fat;
use crate::reader_tools::{exhaust, names, opened, tree_in};
use crate::tools::{Volume, noise, run};

/// Some bytes of a volume changed.
pub(crate) struct Mutant {
    pub(crate) bytes: Arc<Vec<u8>>,
    pub(crate) changes: Changes,
}

impl ReadAt for Mutant {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let bytes = start.checked_add(out.len()).and_then(|end| self.bytes.get(start..end));
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        for (&at, &value) in self.changes.range(offset..offset + out.len() as u64) {
            out[usize::try_from(at - offset).unwrap()] = value;
        }
        Ok(())
    }
}

/// Thousands of volumes with changes wherever something is; sets of exFAT at `sets` have their
/// checksums mended in every other.
fn attack(volume: &Volume, sums: Sums, sets: &[u64], cases: std::ops::Range<u64>) {
    let bytes = Arc::new(fs::read(&volume.path).unwrap());
    let disk = MemDisk::from_bytes(bytes.to_vec());
    let sound = exhaust(Arc::new(Mutant { bytes: bytes.clone(), changes: Changes::new() }));
    assert!(sound > 40, "{sound} files");
    let blocks = bytes.chunks(512).zip((0..).step_by(512));
    // Of the blocks that are filled, what files contain has no zeros.
    let blocks = blocks
        .filter(|(block, _)| block.contains(&0) && block.iter().any(|byte| *byte != block[0]));
    let records: Vec<Extent> =
        blocks.map(|(block, at)| Extent::new(at, block.len() as u64)).collect();
    let mut counts = BTreeMap::new();
    for seed in cases {
        let mut random = Random::new(&[seed]);
        let mut changed = changes(&mut random, &disk, &records);
        let mut mutant = Mutant { bytes: bytes.clone(), changes: Changes::new() };
        if seed % 2 == 0 {
            mutant.changes = changed;
            for &at in sets {
                let mut set = vec![0; 32 * 19];
                mutant.read_exact_at(&mut set, at).unwrap();
                set.truncate(32 * (usize::from(set[1].min(18)) + 1));
                let each = set.iter().enumerate().filter(|(at, _)| !matches!(at, 2 | 3));
                let sum =
                    each.fold(0u16, |sum, (_, &b)| sum.rotate_right(1).wrapping_add(b.into()));
                mutant.changes.extend((at + 2..).zip(sum.to_le_bytes()));
            }
            changed = mutant.changes;
        }
        sums.mend(&disk, &records, &mut changed);
        mutant.changes = changed;
        *counts.entry(exhaust(Arc::new(mutant))).or_insert(0) += 1;
    }
    assert!(counts.len() > 5 && counts.keys().any(|&count| count > 40), "{counts:?}");
}

fn small_fat(len: u64, options: &str) -> Volume {
    let volume = mkfs_fat(len, options);
    let files = tempfile::tempdir().unwrap();
    fill_small(&files.path().join("from"));
    let from = files.path().join("from");
    run("mcopy", &["-s", "-i", volume.path(), from.to_str().unwrap(), "::/"]);
    volume
}

fn fill_small(root: &std::path::Path) {
    fs::create_dir_all(root.join("a/b/c")).unwrap();
    for n in 0..48 {
        let folder = root.join(["", "a", "a/b", "a/b/c"][n % 4]);
        let name = if n % 3 == 0 { format!("F{n}") } else { format!("file with a long name {n}") };
        fs::write(folder.join(name), noise(n as u64, [1, 600, 3000][n % 3])).unwrap();
    }
}

fn small_exfat() -> (Volume, Vec<u64>) {
    let volume = mkfs_exfat(6 * MIB, "-c 4096");
    fill_small(Fused::new(&volume, "rw").path());
    let filesystem = reader(&volume);
    let mut sets = Vec::new();
    let mut todo = vec![filesystem.root()];
    while let Some(folder) = todo.pop() {
        for id in names(&*filesystem, folder).into_values() {
            sets.push(id.number);
            todo.extend(filesystem.lookup(id, b"-", Job::silent()).is_ok().then_some(id));
        }
    }
    assert_eq!(sets.len(), 51);
    (volume, sets)
}

fn campaign(fat: std::ops::Range<u64>, exfat: std::ops::Range<u64>) {
    attack(&small_fat(MIB, "-F 12 -s 1"), Sums::None, &[], fat.clone());
    attack(&small_fat(3 * MIB, "-F 16 -s 1"), Sums::None, &[], fat.clone());
    attack(&small_fat(34 * MIB, "-F 32 -s 1"), Sums::None, &[], fat);
    let (volume, sets) = small_exfat();
    attack(&volume, Sums::ExFat, &sets, exfat);
}

#[test]
fn changed_volumes_neither_panic_nor_last() {
    campaign(0..250, 0..250);
}

#[test]
fn a_sound_volume_reads_as_its_mutant_without_changes() {
    let volume = small_fat(MIB, "-F 12 -s 1");
    let bytes = Arc::new(fs::read(&volume.path).unwrap());
    let same = Mutant { bytes, changes: Changes::new() };
    assert_eq!(tree_in(&*opened(Arc::new(same)).unwrap()).len(), 1 + 1 + 3 + 48);
}
