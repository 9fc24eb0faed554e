//! Files of FAT and exFAT by name: their clusters are what mtools says, and a volume without them
//! is sound and has every other file.

use std::collections::BTreeMap;
use std::fs;

use aiv_filesystems::{KeptReason, Matching};
use aiv_volume_io::{Extent, ExtentSet, ReadAt};

use crate::exfat_tools::{Fused, assert_clean_exfat, exfat_files, fill_exfat, mkfs_exfat};
use crate::ext_files::{found, look_for, paths};
use crate::ext_tools::MIB;
use crate::fat_tools::{fat_files, fill_fat, free_by_fsck_fat, mkfs_fat};
use crate::left_out::{Judges, check};
use crate::tools::{Volume, noise, run};

const FAT: Judges = Judges { assert_clean: assert_clean_fat, files_in: fat_files };
const EXFAT: Judges = Judges { assert_clean: assert_clean_exfat, files_in: exfat_files };

fn assert_clean_fat(volume: &Volume) {
    assert!(free_by_fsck_fat(volume) > 0);
}

/// A FAT volume with many files, and where its clusters begin.
struct Fat {
    volume: Volume,
    cluster_size: u64,
    data_at: u64,
}

impl Fat {
    fn new(len: u64, options: &str) -> Self {
        let volume = mkfs_fat(len, options);
        fill_fat(&volume, len / 2);
        let mut boot = [0; 64];
        volume.open().read_exact_at(&mut boot, 0).unwrap();
        let word = |at: usize| u64::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
        let sector = word(11);
        let table = match word(22) {
            0 => u64::from(u32::from_le_bytes(boot[36..40].try_into().unwrap())),
            sectors => sectors,
        };
        let data = word(14) + u64::from(boot[16]) * table + (word(17) * 32).div_ceil(sector);
        let cluster_size = u64::from(boot[13]) * sector;
        Self { volume, cluster_size, data_at: data * sector }
    }

    fn copy_in(&self, name: &str, bytes: &[u8]) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, bytes).unwrap();
        let to = format!("::/{name}");
        run("mcopy", &["-o", "-i", self.volume.path(), path.to_str().unwrap(), &to]);
    }

    fn cluster(&self, number: u64) -> Extent {
        Extent::new(self.data_at + (number - 2) * self.cluster_size, self.cluster_size)
    }

    /// Clusters of a file by mtools.
    fn clusters(&self, path: &str) -> Vec<u64> {
        let said = run("mshowfat", &["-i", self.volume.path(), &format!("::/{path}")]);
        let chains = said.split(['<', '>']).skip(1).step_by(2);
        let numbers = chains.flat_map(|chain| {
            let (first, last) = chain.split_once('-').unwrap_or((chain, chain));
            first.parse::<u64>().unwrap()..=last.parse().unwrap()
        });
        numbers.collect()
    }

    fn extents(&self, path: &str) -> Vec<Extent> {
        let set: ExtentSet = self.clusters(path).iter().map(|&n| self.cluster(n)).collect();
        set.runs().to_vec()
    }

    /// The offset of the record of a file of the root folder with a short name.
    fn record(&self, short: &[u8; 11]) -> u64 {
        let bytes = fs::read(&self.volume.path).unwrap();
        let at = bytes.chunks(32).position(|record| record.starts_with(short)).unwrap();
        at as u64 * 32
    }

    /// Lets a file begin with another cluster.
    fn lead(&self, short: &[u8; 11], cluster: u64) {
        let record = self.record(short);
        self.volume.patch(record + 26, &u16::try_from(cluster).unwrap().to_le_bytes());
    }

    /// Writes an entry of 16 bits into both tables.
    fn link(&self, from: u64, to: u64) {
        let mut boot = [0; 24];
        self.volume.open().read_exact_at(&mut boot, 0).unwrap();
        let word = |at: usize| u64::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
        for table in 0..u64::from(boot[16]) {
            let at = (word(14) + table * word(22)) * word(11) + from * 2;
            self.volume.patch(at, &u16::try_from(to).unwrap().to_le_bytes());
        }
    }
}

#[test]
fn files_of_fat_are_where_mtools_says_and_missed_by_nothing_else() {
    for (len, options) in [
        (MIB, "-F 12 -s 1"),
        (3 * MIB, "-F 12 -s 8"),
        (8 * MIB, "-F 16 -s 1"),
        (12 * MIB, "-F 16 -s 4 -f 1"),
        (40 * MIB, "-F 32 -s 1"),
        (300 * MIB, "-F 32 -s 8"),
    ] {
        let fat = Fat::new(len, options);
        fat.copy_in("A long name.ISO", &noise(1, 70_001));
        fat.copy_in("EMPTY.ISO", &[]);
        let all = found(&fat.volume, &["*"]);
        assert_eq!(all.kept, [], "{options}");
        let files = fat_files(&fat.volume);
        let filled = files.iter().filter(|(_, bytes)| !bytes.is_empty());
        let expected = filled.map(|(path, _)| path.to_str().unwrap().to_owned());
        let expected: BTreeMap<_, _> =
            expected.map(|path| (path.clone(), fat.extents(&path))).collect();
        let extents = all.files.iter().map(|file| (file.path.clone(), file.extents.clone()));
        assert_eq!(extents.collect::<BTreeMap<_, _>>(), expected, "{options}");
        // Case does not matter.
        let out = check(&fat.volume, &["*.iso", "FROM 0/*1"], &FAT);
        assert!(out.len() > 5 && out[0] == "A long name.ISO", "{out:?}");
    }
}

#[test]
fn of_fat_a_cluster_that_anything_else_leads_to_is_kept() {
    let shared = [("A.ISO".to_owned(), KeptReason::Shared)];
    let made = || {
        let fat = Fat::new(12 * MIB, "-F 16 -s 4");
        fat.copy_in("A.ISO", &noise(1, 20_000));
        fat.copy_in("B.TXT", &noise(2, 20_000));
        fat.copy_in("C.ISO", &noise(3, 20_000));
        fat
    };
    let kept = |fat: &Fat| -> Vec<_> {
        let found = found(&fat.volume, &["/*.iso"]);
        assert_eq!(paths(&found), ["C.ISO"]);
        found.kept.into_iter().map(|kept| (kept.path, kept.reason)).collect()
    };
    // Another file begins where it begins, or within it.
    for n in [0, 2] {
        let fat = made();
        fat.lead(b"B       TXT", fat.clusters("A.ISO")[n]);
        assert_eq!(kept(&fat), shared, "{n}");
    }
    // Another file goes on within it, and clusters of no file do.
    for is_lost in [false, true] {
        let fat = made();
        let clusters = fat.clusters("B.TXT");
        if is_lost {
            run("mdel", &["-i", fat.volume.path(), "::/B.TXT"]);
            fat.link(clusters[0], fat.clusters("A.ISO")[0]);
        } else {
            fat.link(clusters[3], fat.clusters("A.ISO")[4]);
        }
        assert_eq!(kept(&fat), shared, "{is_lost}");
    }
    // It ends early.
    let fat = made();
    fat.link(fat.clusters("A.ISO")[1], 0xffff);
    let why = KeptReason::NotUnderstood("its clusters end before it does");
    assert_eq!(kept(&fat), [("A.ISO".to_owned(), why)]);
}

#[test]
fn of_fat_nothing_is_left_out_where_a_folder_hides_names_or_the_volume_is_in_use() {
    let fat = Fat::new(12 * MIB, "-F 16 -s 4");
    fat.copy_in("A.ISO", &noise(1, 20_000));
    let twice = fat.record(b"A       ISO");
    let mut record = [0; 32];
    fat.volume.open().read_exact_at(&mut record, twice).unwrap();
    let volume = fat.volume.duplicate();
    volume.patch(twice + 32, &record);
    let Matching::Nothing { reason } = look_for(&volume, &["*.iso"]) else { panic!() };
    let what = "the filesystem is damaged or not understood (a folder cannot be read to its end)";
    assert_eq!(reason.to_string(), format!("{what}; check it"));
    // The mark of a driver that writes.
    fat.link(1, 0x7fff);
    let Matching::Nothing { reason } = look_for(&fat.volume, &["*.iso"]) else { panic!() };
    assert!(reason.to_string().starts_with("the filesystem was not unmounted"), "{reason}");
}

/// Swap space in a file, with bytes behind its header that need not be kept.
fn swap() -> Vec<u8> {
    let mut bytes = noise(7, 80 << 10);
    bytes[4086..4096].copy_from_slice(b"SWAPSPACE2");
    bytes
}

#[test]
fn the_first_page_of_swap_space_and_of_a_sleeping_windows_is_kept() {
    let fat = Fat::new(40 * MIB, "-F 32 -s 1");
    fat.copy_in("swap.img", &swap());
    fat.copy_in("hiberfil.sys", &noise(8, 80 << 10));
    let found = found(&fat.volume, &["/swap.img", "/HIBERFIL.SYS"]);
    assert_eq!(paths(&found), ["hiberfil.sys", "swap.img"]);
    for file in &found.files {
        let header: ExtentSet =
            fat.clusters(&file.path)[..8].iter().map(|&n| fat.cluster(n)).collect();
        let all: ExtentSet = fat.extents(&file.path).into_iter().collect();
        let rest: Vec<Extent> =
            all.runs().iter().flat_map(|&run| header.gaps_within(run)).collect();
        assert_eq!(file.extents, rest, "{}", file.path);
    }
}

#[test]
fn files_of_exfat_are_missed_by_nothing_else() {
    for (len, options) in [(10 * MIB, "-c 512"), (40 * MIB, "-c 4096"), (100 * MIB, "-c 128K")] {
        let volume = mkfs_exfat(len, options);
        fill_exfat(&volume, 4 * MIB);
        {
            let mounted = Fused::new(&volume, "rw");
            fs::write(mounted.path().join("Größe.ISO"), noise(1, 700_001)).unwrap();
            fs::write(mounted.path().join("empty.iso"), []).unwrap();
            fs::write(mounted.path().join("swap"), swap()).unwrap();
        }
        let all = found(&volume, &["*"]);
        assert_eq!(all.kept, [], "{options}");
        let filled = exfat_files(&volume).values().filter(|bytes| !bytes.is_empty()).count();
        assert_eq!(all.files.len(), filled - usize::from(options == "-c 128K"), "{options}");
        let out = check(&volume, &["GRÖSSE.*", "größe.iso", "dir1/*"], &EXFAT);
        assert!(out.len() > 2 && out.contains(&"Größe.ISO".to_owned()), "{out:?}");
        if options == "-c 512" {
            let out = found(&volume, &["swap"]);
            let bytes: u64 = out.files[0].extents.iter().map(|extent| extent.len).sum();
            assert_eq!(bytes, (80 << 10) - 4096);
        }
    }
}
