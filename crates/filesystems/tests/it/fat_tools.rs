//! FAT volumes, and what dosfstools and mtools say about them.

use std::fs;

use aiv_volume_io::{Extent, ReadAt};

use crate::ext_tools::{complement, copy_of_used, used_bytes};
use crate::tools::{Files, Volume, files_below, noise, run, try_run};

pub(crate) fn mkfs_fat(len: u64, options: &str) -> Volume {
    Volume::made_by(len, "mkfs.fat", options)
}

/// Fills a volume through mtools: many sizes, deletes, and files that go into the holes.
pub(crate) fn fill_fat(volume: &Volume, bytes: u64) {
    let unit = usize::try_from(bytes / 60).unwrap();
    let copy_in = |rounds: std::ops::Range<u64>| {
        let files = tempfile::tempdir().unwrap();
        for round in rounds.clone() {
            let len = match round % 4 {
                0 => 17,
                1 => unit,
                2 => unit * 2 + 311,
                _ => unit / 3,
            };
            let dir = files.path().join(format!("a folder {}", round % 3));
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join(format!("file number {round}")), noise(round, len)).unwrap();
        }
        let name = format!("from {}", rounds.start);
        let from = files.path().join(&name);
        fs::create_dir(&from).unwrap();
        for n in 0..3 {
            let dir = format!("a folder {n}");
            fs::rename(files.path().join(&dir), from.join(&dir)).unwrap();
        }
        run("mcopy", &["-s", "-i", volume.path(), from.to_str().unwrap(), "::/"]);
    };
    copy_in(0..30);
    for round in (0..30).step_by(3) {
        let path = format!("::/from 0/a folder 0/file number {round}");
        run("mdel", &["-i", volume.path(), &path]);
    }
    copy_in(30..48);
}

/// Every file of a FAT volume, read without mounting it.
pub(crate) fn fat_files(volume: &Volume) -> Files {
    let out = tempfile::tempdir().unwrap();
    let to = out.path().to_str().unwrap();
    let output = try_run("mcopy", &["-s", "-n", "-Q", "-i", volume.path(), "::/*", to]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() || error.contains("not found"), "{error}");
    files_below(out.path())
}

/// `fsck.fat` finds nothing to complain about and changes nothing; how many clusters it calls
/// free.
pub(crate) fn free_by_fsck_fat(volume: &Volume) -> u64 {
    let text = run("fsck.fat", &["-n", "-v", volume.path()]);
    let counts = text.trim().rsplit(' ').nth(1).unwrap();
    let (used, all) = counts.split_once('/').unwrap_or_else(|| panic!("{text}"));
    all.parse::<u64>().unwrap() - used.parse::<u64>().unwrap()
}

/// The map leaves out as many clusters as fsck calls free, and a volume of noise with only the
/// used bytes in it is sound, with all files.
pub(crate) fn check_fat(volume: &Volume, cluster_size: u32) {
    let source = volume.open();
    let (used, found_cluster_size, notes) = used_bytes(volume);
    assert_eq!(found_cluster_size, cluster_size);
    assert_eq!(notes, []);
    let free = complement(&used, source.len());
    assert!(!free.is_empty(), "a full volume proves nothing");
    assert_eq!(free.total_len(), free_by_fsck_fat(volume) * u64::from(cluster_size));
    let copy = copy_of_used(volume, &used);
    assert_eq!(free_by_fsck_fat(&copy), free_by_fsck_fat(volume));
    assert!(fat_files(&copy) == fat_files(volume), "contents differ");
}

pub(crate) fn bytes_at(volume: &Volume, extent: Extent) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(extent.len).unwrap()];
    volume.open().read_exact_at(&mut bytes, extent.start).unwrap();
    bytes
}
