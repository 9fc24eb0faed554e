//! ext volumes, and what e2fsprogs says about them.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use aiv_filesystems::{MapNote, UsedMap, WholeReason, recognise, used_map};
use aiv_volume_io::{Extent, ExtentSet, Job, ReadAt};

use crate::tools::{Files, Volume, files_below, noise, run, try_run};

pub(crate) const MIB: u64 = 1 << 20;

pub(crate) fn mke2fs(len: u64, options: &str) -> Volume {
    Volume::made_by(len, "mke2fs", &format!("-q -F {options}"))
}

/// A filesystem of `filesystem_len` bytes in a larger volume.
pub(crate) fn mke2fs_in(len: u64, filesystem_len: u64, options: &str) -> Volume {
    let volume = mke2fs(filesystem_len, options);
    volume.set_len(len);
    volume
}

/// Fills a mounted filesystem with files of many sizes and deletes some: fragments, holes,
/// directories, and freed blocks that still hold data.
pub(crate) fn churn(root: &Path, bytes: u64) {
    let unit = usize::try_from(bytes / 100).unwrap();
    for round in 0..40u64 {
        let dir = root.join(format!("dir{}", round % 5));
        fs::create_dir_all(&dir).unwrap();
        let len = match round % 4 {
            0 => 17,
            1 => unit,
            2 => unit * 2 + 311,
            _ => unit / 3,
        };
        fs::write(dir.join(format!("file{round}")), noise(round, len)).unwrap();
    }
    let sparse = File::create(root.join("sparse")).unwrap();
    for hole in 0..8 {
        sparse.write_all_at(&noise(hole, 5000), hole * 3 * 65_536).unwrap();
    }
    for round in (0..40).step_by(3) {
        fs::remove_file(root.join(format!("dir{}/file{round}", round % 5))).unwrap();
    }
}

/// The map of a volume that must have one.
pub(crate) fn used_bytes(volume: &Volume) -> (ExtentSet, u32, Vec<MapNote>) {
    match map(volume) {
        UsedMap::Used { used, cluster_size, notes } => (used, cluster_size, notes),
        UsedMap::Whole { reason } => panic!("no map: {reason}"),
    }
}

/// The reason why a volume has no map.
pub(crate) fn whole_reason(volume: &Volume) -> WholeReason {
    match map(volume) {
        UsedMap::Used { .. } => panic!("there is a map"),
        UsedMap::Whole { reason } => reason,
    }
}

pub(crate) fn map(volume: &Volume) -> UsedMap {
    let source = volume.open();
    let recognised = recognise(&source).unwrap();
    used_map(&source, &recognised, Job::silent()).unwrap()
}

/// The bytes of a volume that `dumpe2fs` calls free.
pub(crate) fn free_by_dumpe2fs(volume: &Volume, cluster_size: u32) -> ExtentSet {
    let dump = run("dumpe2fs", &[volume.path()]);
    let number = |text: &str| text.parse::<u64>().unwrap();
    let field = |name: &str| {
        let line = dump.lines().find(|line| line.starts_with(name)).unwrap();
        number(line.rsplit(' ').next().unwrap())
    };
    let (block_size, blocks) = (field("Block size:"), field("Block count:"));
    let cluster_blocks = u64::from(cluster_size) / block_size;
    dump.lines()
        .filter_map(|line| line.strip_prefix("  Free blocks: "))
        .flat_map(|line| line.split(", "))
        .filter(|range| !range.is_empty())
        .map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let end = (number(last) + cluster_blocks).min(blocks);
            Extent::between(number(first) * block_size, end * block_size)
        })
        .collect()
}

/// Everything of the volume that is not in `set`.
pub(crate) fn complement(set: &ExtentSet, len: u64) -> ExtentSet {
    set.gaps_within(Extent::new(0, len)).into_iter().collect()
}

/// Noise at either end of a gap: all of it but for gaps of huge sparse volumes.
const NOISE_MAX: u64 = 64 * MIB;

/// A volume of noise with only the used bytes of `original` in it.
pub(crate) fn copy_of_used(original: &Volume, used: &ExtentSet) -> Volume {
    let source = original.open();
    let copy = Volume::new(source.len());
    let target = File::options().write(true).open(&copy.path).unwrap();
    let filler = noise(99, 1 << 20);
    for gap in used.gaps_within(Extent::new(0, source.len())) {
        let mut at = gap.start;
        while at < gap.end() {
            let len = usize::try_from((gap.end() - at).min(1 << 20)).unwrap();
            target.write_all_at(&filler[..len], at).unwrap();
            at += len as u64;
            if at == gap.start + NOISE_MAX {
                at = at.max(gap.end().saturating_sub(NOISE_MAX));
            }
        }
    }
    for run in used.runs() {
        let mut bytes = vec![0; usize::try_from(run.len).unwrap()];
        source.read_exact_at(&mut bytes, run.start).unwrap();
        // Zeros stay holes: the copy is new.
        for (n, piece) in bytes.chunks(4096).enumerate() {
            if piece.iter().any(|&byte| byte != 0) {
                target.write_all_at(piece, run.start + n as u64 * 4096).unwrap();
            }
        }
    }
    copy
}

/// Every file of an ext volume, read without mounting it.
pub(crate) fn files_in(volume: &Volume) -> Files {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().to_str().unwrap();
    let output = try_run("debugfs", &["-R", &format!("rdump / {out}"), volume.path()]);
    assert!(output.status.success(), "{output:?}");
    files_below(dir.path())
}

/// `e2fsck` finds nothing to complain about, and changes nothing.
pub(crate) fn assert_clean(volume: &Volume) {
    let output = try_run("e2fsck", &["-fn", volume.path()]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
}
