//! Files by name on a volume of an attacker: no panic, no endless work, and never a byte of
//! another file or of what the map of the volume was read from.

use std::fs;
use std::path::Path;

use aiv_filesystems::{Matching, Pattern, UsedMap, find_files, recognise, used_map};
use aiv_testkit::Random;
use aiv_testkit::mutants::{Changes, Mutated, Sums, changes, total_len};
use aiv_volume_io::{Extent, ExtentSet, Job, MemDisk, ReadAt};

use crate::btrfs_tools;
use crate::exfat_tools::{fill_exfat, mkfs_exfat};
use crate::ext_tools::{MIB, mke2fs};
use crate::fat_tools::{fill_fat, mkfs_fat};
use crate::lvm_tools::Lvm;
use crate::ntfs_tools::{mkntfs, mount};
use crate::tools::{Mounted, Volume, noise};
use crate::xfs_tools;

fn fill(root: &Path) {
    fs::create_dir_all(root.join("a/b/c")).unwrap();
    for n in 0..40 {
        let folder = root.join(["", "a", "a/b", "a/b/c"][n % 4]);
        fs::write(folder.join(format!("file {n}")), noise(n as u64, 700 * (n % 7))).unwrap();
    }
    fs::write(root.join("a/large"), noise(50, 400_000)).unwrap();
    fs::hard_link(root.join("a/large"), root.join("a/b/large")).unwrap();
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    for n in 0..60 {
        std::os::unix::fs::FileExt::write_all_at(&sparse, &noise(n, 512), n * 8192).unwrap();
    }
}

/// What one pass says, after it was checked: how many files may be left out.
fn check(volume: &dyn ReadAt, changes: &Changes, sums: Sums, what: &str) -> usize {
    let mutated = Mutated::with_budget(volume, changes, 40 * volume.len() + 16 * MIB);
    let recognised = recognise(&mutated).unwrap();
    let _ = mutated.take_reads();
    let map = used_map(&mutated, &recognised, Job::silent()).unwrap();
    let records: ExtentSet = mutated
        .take_reads()
        .into_iter()
        // Of NTFS, places no file owns: shadow copies, and an old boot sector in the middle.
        .filter(|read| *read != Extent::new(7680, 128) && read.len != 512)
        // Of LVM, the places where logical volumes may have a signature.
        .filter(|read| sums != Sums::Lvm || read.end() <= MIB)
        .collect();
    let patterns: Vec<Pattern> = ["*[02468]", "large", "/a/b/"].map(|p| p.parse().unwrap()).into();
    let found = find_files(&mutated, &recognised, &map, &patterns, Job::silent()).unwrap();
    assert!(total_len(&mutated.take_reads()) < 20 * volume.len() + 8 * MIB, "{what}");
    let Matching::Files(found) = found else { return 0 };
    let UsedMap::Used { used, .. } = map else { panic!("files without a map: {what}") };
    let mut all: Vec<Extent> = Vec::new();
    for file in &found.files {
        assert!(file.extents.windows(2).all(|pair| pair[0].end() < pair[1].start), "{what}");
        all.extend(&file.extents);
    }
    let set: ExtentSet = all.iter().copied().collect();
    assert_eq!(set.total_len(), all.iter().map(|e| e.len).sum::<u64>(), "a block twice: {what}");
    for &extent in &all {
        assert!(!extent.is_empty());
        assert_eq!(used.within(extent).next(), Some(extent), "not used: {what}");
        assert_eq!(records.within(extent).next(), None, "a record of the filesystem: {what}");
    }
    assert!(found.kept_count >= found.kept.len() as u64);
    found.files.len()
}

/// Thousands of volumes with changes in what a map and the files are read from.
fn attack(volume: &Volume, sums: Sums, cases: u64) {
    let volume = MemDisk::from_bytes(fs::read(&volume.path).unwrap());
    let unchanged = Changes::new();
    let sound = check(&volume, &unchanged, sums, "unchanged");
    assert!(sound > 15, "{sound} files");
    let recorder = Mutated::new(&volume, &unchanged);
    let recognised = recognise(&recorder).unwrap();
    let _ = recorder.take_reads();
    let map = used_map(&recorder, &recognised, Job::silent()).unwrap();
    let patterns = ["*".parse().unwrap()];
    find_files(&recorder, &recognised, &map, &patterns, Job::silent()).unwrap();
    // Blocks, each once, and those of zeros left out.
    let reads: ExtentSet = recorder.take_reads().into_iter().collect();
    let blocks = reads.runs().iter().flat_map(|run| (run.start..run.end()).step_by(512));
    let is_filled = |block: &Extent| {
        let mut bytes = vec![0; usize::try_from(block.len).unwrap()];
        volume.read_exact_at(&mut bytes, block.start).unwrap();
        bytes.iter().any(|&byte| byte != 0) && bytes.iter().any(|&byte| byte != 0xff)
    };
    let blocks = blocks.map(|at| Extent::between(at, (at + 512).min(volume.len())));
    let records: Vec<Extent> = blocks.filter(is_filled).collect();
    let mut answered = 0;
    for seed in 0..cases {
        let mut random = Random::new(&[seed]);
        let mut changed = changes(&mut random, &volume, &records);
        sums.mend(&volume, &records, &mut changed);
        let what = format!("seed {seed}: {changed:?}");
        answered += u64::from(check(&volume, &changed, sums, &what) > 0);
    }
    assert!(answered > cases / 20, "{answered} of {cases} with files");
    assert!(answered < cases, "every change was believed");
}

fn ext(options: &str) -> Volume {
    let volume = mke2fs(4 * MIB, options);
    fill(Mounted::new(&volume, "rw").path());
    volume
}

#[test]
fn changed_ext2_gives_nothing_away() {
    attack(&ext("-t ext2 -b 1024"), Sums::None, 2500);
}

#[test]
fn changed_ext4_gives_nothing_away() {
    attack(&ext("-t ext4 -b 1024 -O ^metadata_csum,^uninit_bg,^has_journal"), Sums::None, 2500);
    let clusters = "-t ext4 -b 1024 -O ^metadata_csum,bigalloc,^has_journal -C 2048";
    attack(&ext(clusters), Sums::None, 1000);
}

#[test]
fn changed_ext4_whose_checksums_were_mended_gives_nothing_away() {
    attack(&ext("-t ext4 -b 1024 -O ^has_journal"), Sums::Ext, 1000);
}

#[test]
fn changed_ntfs_gives_nothing_away() {
    for options in ["-c 512", "-c 4096"] {
        let volume = mkntfs(4 * MIB, options);
        fill(mount(&volume, "noatime").path());
        attack(&volume, Sums::Ntfs, 1500);
    }
}

#[test]
fn changed_fat_gives_nothing_away() {
    let kinds = [(1, "-F 12 -s 1", 800), (3, "-F 16 -s 1", 800), (35, "-F 32 -s 1", 150)];
    for (mib, options, cases) in kinds {
        let volume = mkfs_fat(mib * MIB, options);
        fill_fat(&volume, 600_000);
        attack(&volume, Sums::None, cases);
    }
}

#[test]
fn changed_exfat_gives_nothing_away() {
    for options in ["-c 512", "-c 4096"] {
        let volume = mkfs_exfat(6 * MIB, options);
        fill_exfat(&volume, MIB);
        attack(&volume, Sums::ExFat, 1000);
    }
}

#[test]
fn changed_xfs_gives_nothing_away() {
    let volume = xfs_tools::mkfs(32 * MIB, "-m rmapbt=1 -b size=1024 -d agcount=2");
    fill(Mounted::new(&volume, xfs_tools::MOUNT).path());
    attack(&volume, Sums::Xfs, 700);
}

#[test]
fn changed_btrfs_gives_nothing_away() {
    for options in ["-M -n 4096", "-m single -n 4096 -O ^skinny-metadata"] {
        let volume = btrfs_tools::mkfs(48 * MIB, options);
        fill(Mounted::new(&volume, btrfs_tools::MOUNT).path());
        attack(&volume, Sums::Btrfs, 500);
    }
}

#[test]
fn changed_lvm_gives_nothing_away() {
    let lvm = Lvm::new(&[8 * MIB], "");
    for (name, extents) in [("root", 3), ("swap", 1)] {
        lvm.create(name, extents, "");
    }
    lvm.call("lvextend -l +1 vg/root");
    lvm.fill("root", &ext("-t ext2 -b 1024"));
    attack(&lvm.disks[0], Sums::Lvm, 1500);
}
