//! Real ext4 filesystems: what a restore of used blocks brings back is sound and complete, over
//! whatever was on the target.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use aiv_backup_engine::BackupOptions;
use aiv_chain::{Kind, View};
use aiv_image_format::meta::Capture;
use aiv_volume_io::{Extent, FileDisk, ReadAt};
use tempfile::TempDir;

use crate::common::{BLOCK, Made, all_sectors, backup, options};
use crate::tools::{self, Files, Mounted, files_below, fill_with_noise, make_files, run};

const MIB: u64 = 1 << 20;

/// Writes all but unused blocks over the noise of a new file, as a restore would.
pub(crate) fn restore_over_noise(view: &View, target: &Path) {
    let file = File::create_new(target).unwrap();
    fill_with_noise(&file, view.len());
    let geometry = view.geometry();
    for stretch in view.stretches(0) {
        let stretch = stretch.unwrap();
        if matches!(stretch.kind(), Kind::Unused | Kind::Excluded) {
            continue;
        }
        for block in stretch.block()..stretch.block() + stretch.run() {
            let mut bytes = vec![0; geometry.block_len(block) as usize];
            let at = geometry.offset_of(block);
            view.read_exact_at(&mut bytes, at).unwrap();
            file.write_all_at(&bytes, at).unwrap();
        }
    }
    file.sync_all().unwrap();
}

/// Checks with the filesystem's own tool and compares every file.
fn check_filesystem(disk: &Path, at: u64, len: u64, expected: &Files) {
    let volume = disk.with_extension("volume");
    let mut bytes = vec![0; usize::try_from(len).unwrap()];
    File::open(disk).unwrap().read_exact_at(&mut bytes, at).unwrap();
    fs::write(&volume, bytes).unwrap();
    run("e2fsck", &["-fn", volume.to_str().unwrap()]);
    let mounted = Mounted::new(disk, at, len, "ro");
    assert!(files_below(mounted.path()) == *expected, "the files differ");
}

struct Source {
    folder: TempDir,
    len: u64,
    expected: Files,
}

impl Source {
    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("source")
    }

    fn backup(&self, options: BackupOptions) -> Made {
        backup(&FileDisk::open_source(self.path()).unwrap(), options)
    }
}

fn ext4_volume(mkfs: &[&str]) -> Source {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("source");
    let len = 48 * MIB;
    fill_with_noise(&File::create_new(&path).unwrap(), len);
    run("mkfs.ext4", &[&["-q", "-E", "nodiscard"], mkfs, &[path.to_str().unwrap()]].concat());
    let mounted = Mounted::new(&path, 0, len, "rw");
    make_files(mounted.path());
    let expected = files_below(mounted.path());
    drop(mounted);
    Source { folder, len, expected }
}

fn check_volume(mkfs: &[&str]) {
    let source = ext4_volume(mkfs);
    let made = source.backup(options());
    let volume = made.view.image().meta().disk.regions[0].volume.clone().unwrap();
    assert_eq!((volume.capture, volume.reason.as_str()), (Capture::Used, ""));
    let target = source.folder.path().join("target");
    restore_over_noise(&made.view, &target);
    check_filesystem(&target, 0, source.len, &source.expected);

    // Clusters are smaller than blocks, so free clusters lie inside kept blocks: they are zeros.
    let original = fs::read(source.path()).unwrap();
    let (is, mut differing) = (made.bytes(), 0);
    for (is, was) in is.chunks(1024).zip(original.chunks(1024)).filter(|(is, was)| is != was) {
        assert!(is.iter().all(|&b| b == 0) && was.iter().any(|&b| b != 0));
        differing += 1;
    }
    let unused = made.report.totals.blocks_unused * BLOCK as u64 / 1024;
    assert!(differing > unused / 2, "free space was noisy");
    assert!(made.report.bytes_used < source.len);

    let whole = source.backup(all_sectors());
    assert!(whole.bytes() == original);
    let (used, all) = (made.report.bytes_stored, whole.report.bytes_stored);
    assert!(used * 2 < all, "{used} bytes of used blocks, {all} of all");
}

#[test]
fn a_used_block_image_of_ext4_restores_to_a_sound_filesystem_over_noise() {
    check_volume(&["-b", "4096"]);
}

#[test]
fn so_does_one_with_blocks_of_1_kib_and_without_lazy_tables() {
    check_volume(&["-b", "1024", "-E", "lazy_itable_init=0,nodiscard"]);
}

#[test]
fn so_does_one_whose_clusters_are_larger_than_its_blocks() {
    check_volume(&["-b", "4096", "-O", "bigalloc", "-C", "16384"]);
}

#[test]
fn a_gpt_disk_with_a_fat_esp_and_ext4_restores_bootable_and_sound_over_noise() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("source");
    let len = 96 * MIB;
    fill_with_noise(&File::create_new(&path).unwrap(), len);
    let disk = path.to_str().unwrap();
    run("sgdisk", &["-o", "-n", "1:1M:+34M", "-t", "1:ef00", "-n", "2:0:0", "-t", "2:8300", disk]);
    let (esp, root) = ((MIB, 34 * MIB), (35 * MIB, len - 36 * MIB));
    for (at, length, make) in [
        (esp.0, esp.1, &["mkfs.vfat", "-F", "32", "-n", "ESP"][..]),
        (root.0, root.1, &["mkfs.ext4", "-q", "-E", "nodiscard", "-L", "root"]),
    ] {
        let device = Loop::new(&path, at, length);
        run(make[0], &[&make[1..], &[device.path.as_str()]].concat());
    }
    let mounted = Mounted::new(&path, root.0, root.1, "rw");
    make_files(mounted.path());
    let expected = files_below(mounted.path());
    drop(mounted);
    let boot = folder.path().join("EFI");
    fs::create_dir(&boot).unwrap();
    make_files(&boot);
    run("mcopy", &["-s", "-i", &format!("{disk}@@{}", esp.0), boot.to_str().unwrap(), "::/"]);
    let source = Source { folder, len, expected };
    let made = source.backup(options());
    let regions = &made.view.image().meta().disk.regions;
    let volumes: Vec<_> = regions.iter().filter_map(|r| r.volume.as_ref()).collect();
    let found: Vec<_> = volumes.iter().map(|v| (v.filesystem.as_str(), v.label.as_str())).collect();
    assert_eq!(found, [("vfat", "ESP"), ("ext4", "root")]);
    assert!(volumes.iter().all(|volume| volume.capture == Capture::Used));
    let partition = regions.iter().find_map(|r| r.partition.as_ref()).unwrap();
    assert_eq!(partition.type_id, "c12a7328-f81f-11d2-ba4b-00a0c93ec93b");

    let target = source.folder.path().join("target");
    restore_over_noise(&made.view, &target);
    run("sgdisk", &["-v", target.to_str().unwrap()]);
    check_filesystem(&target, root.0, root.1, &source.expected);
    run("fsck.vfat", &["-n", &Loop::new(&target, esp.0, esp.1).path]);
    let copy = source.folder.path().join("copy");
    fs::create_dir(&copy).unwrap();
    let esp_of_target = format!("{}@@{}", target.to_str().unwrap(), esp.0);
    run("mcopy", &["-s", "-i", &esp_of_target, "::/EFI", copy.to_str().unwrap()]);
    assert!(files_below(&copy.join("EFI")) == files_below(&boot), "the files of the ESP differ");

    // What lies outside filesystems with a map is kept to the last byte.
    let mut was = vec![0; usize::try_from(esp.0).unwrap()];
    FileDisk::open_source(source.path()).unwrap().read_exact_at(&mut was, 0).unwrap();
    let mut is = was.clone();
    made.view.read_exact_at(&mut is, 0).unwrap();
    assert!(is == was);
    let (fat, ext4) = (Extent::new(esp.0, esp.1), Extent::new(root.0, root.1));
    let inside = |unused| fat.contains(unused) || ext4.contains(unused);
    let free: u64 = made
        .view
        .stretches(0)
        .map(|s| s.unwrap())
        .filter(|s| s.kind() == Kind::Unused)
        .map(|s| Extent::new(s.block() * BLOCK as u64, s.run() * BLOCK as u64))
        .inspect(|&unused| assert!(inside(unused), "{unused:?}"))
        .map(|unused| unused.len)
        .sum();
    assert!(free > (esp.1 + root.1) / 2);
}

/// A loop device over a part of a file, given back when dropped.
struct Loop {
    path: String,
}

impl Loop {
    fn new(file: &Path, at: u64, len: u64) -> Self {
        let (at, len) = (at.to_string(), len.to_string());
        let file = file.to_str().unwrap();
        let printed = run("losetup", &["-f", "--show", "-o", &at, "--sizelimit", &len, file]);
        Self { path: printed.trim().to_owned() }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        tools::run("losetup", &["-d", &self.path]);
    }
}
