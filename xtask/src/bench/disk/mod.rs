//! The disk everything is measured with: a GPT, an EFI system partition, and an ext4 root with
//! this machine's own programs, incompressible files, and deleted files in its free space.

mod change;
mod mounted;
mod same;
mod tree;

use std::fs::File;
use std::io::Write;
use std::path::Path;

use aiv_volume_io::partition::{self, SectorSize};
use aiv_volume_io::{Extent, FileDisk};
use serde_json::{Value, json};

use super::place::{Later, Place};
use crate::{Outcome, process};
pub(super) use change::records;
pub(super) use mounted::Mounted;
pub(super) use same::check_files;

/// Changes whenever a disk made by an older recipe would not be comparable.
const RECIPE: u64 = 1;
const LATER_RECIPE: u64 = 1;
const MIB: u64 = 1 << 20;
const ESP_START: u64 = MIB;
const ESP_MIB: u64 = 256;
/// Left to the second copy of the table, so that the root ends where one of its blocks ends: a
/// tool that copies the filesystem alone then restores a file of the partition's length.
const END_GAP: u64 = MIB;
/// Share of the disk in percent that the copied tree may take.
const TREE_PERCENT: u64 = 37;
/// Five files that look like photos: nothing compresses them. Together, per GiB of disk.
const PHOTO_MIB_PER_GIB: u64 = 25;
const PHOTO_COUNT: u64 = 5;
/// Deleted before the disk is done: half noise, half programs. Per GiB of disk.
const STALE_KIB_PER_GIB: u64 = 300 * 1024 / 8;
const STALE: &str = ".stale";
/// Shares of a volume of the study of volumes.
const VOLUME_TREE_PERCENT: u64 = 40;
const VOLUME_PHOTO_PERCENT: u64 = 4;
const VOLUME_STALE_PERCENT: u64 = 10;
const ROOT_UUID: &str = "11111111-2222-3333-4444-555555555555";

/// What a filesystem can keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    /// Everything Linux knows.
    Any,
    /// Files and folders with names that Windows takes.
    Portable,
}

/// Makes the disk unless a complete one of this size is there.
pub(super) fn ensure(place: &Place, size_gib: u64) -> Outcome {
    let facts = json!({ "recipe": RECIPE, "size_gib": size_gib });
    if is_made(&place.disk_marker(), &facts) {
        println!("bench: using the disk in {}", place.folder.display());
        return Ok(());
    }
    println!("bench: making a disk of {size_gib} GiB in {}", place.folder.display());
    // Later states are those of the disk that goes away.
    for state in Later::ALL {
        forget(&place.later_marker(state))?;
    }
    make_marked(&place.disk_marker(), &facts, || make(place, size_gib))
}

/// Makes the disk some time later, unless it is there.
pub(super) fn ensure_second(place: &Place, size_gib: u64) -> Outcome {
    ensure_later(place, size_gib, Later::Second)
}

/// Makes a later state of the disk, unless it is there; there is room for one.
pub(super) fn ensure_later(place: &Place, size_gib: u64, state: Later) -> Outcome {
    let facts = json!({ "recipe": LATER_RECIPE, "size_gib": size_gib });
    let (disk, marker) = (place.later(state), place.later_marker(state));
    if is_made(&marker, &facts) {
        return Ok(());
    }
    println!("bench: changing the disk");
    for other in Later::ALL {
        forget(&place.later_marker(other))?;
        forget(&place.later(other))?;
    }
    make_marked(&marker, &facts, || {
        run("cp", &["--sparse=always"], &place.disk(), &[&disk.to_string_lossy()])?;
        let root = root_extent(&disk)?;
        let mount = Mounted::at(&disk, root, &place.folder.join("mnt"))?;
        change::change(mount.folder(), size_gib, state)?;
        mount.unmount()
    })
}

fn is_made(marker: &Path, facts: &Value) -> bool {
    let known = std::fs::read_to_string(marker).ok();
    known.and_then(|text| serde_json::from_str::<Value>(&text).ok()).as_ref() == Some(facts)
}

/// A marker says that what it stands for is complete, so it goes first and comes back last.
fn make_marked(marker: &Path, facts: &Value, make: impl FnOnce() -> Outcome) -> Outcome {
    forget(marker)?;
    make()?;
    std::fs::write(marker, facts.to_string()).map_err(|e| format!("{}: {e}", marker.display()))
}

fn forget(marker: &Path) -> Outcome {
    match std::fs::remove_file(marker) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("{}: {e}", marker.display()))
        }
        _ => Ok(()),
    }
}

fn make(place: &Place, size_gib: u64) -> Outcome {
    let disk = place.disk();
    let file = File::create(&disk).map_err(|e| format!("{}: {e}", disk.display()))?;
    file.set_len(size_gib << 30).map_err(|e| format!("{}: {e}", disk.display()))?;
    let esp_end = format!("+{ESP_MIB}M");
    run("sgdisk", &["-n", &format!("1:2048:{esp_end}"), "-t", "1:ef00"], &disk, &[])?;
    let root_end = format!("2:0:{}", ((size_gib << 30) - END_GAP) / 512 - 1);
    run("sgdisk", &["-n", &root_end, "-t", "2:8300"], &disk, &[])?;
    fill_esp(&disk)?;
    let root = root_extent(&disk)?;
    let root_offset = format!("offset={},lazy_itable_init=0,hash_seed={ROOT_UUID}", root.start);
    let root_kib = format!("{}k", root.len >> 10);
    run("mkfs.ext4", &["-q", "-F", "-U", ROOT_UUID, "-E", &root_offset], &disk, &[&root_kib])?;
    let mount = Mounted::at(&disk, root, &place.folder.join("mnt"))?;
    fill_root(mount.folder(), size_gib)?;
    mount.unmount()
}

fn fill_esp(disk: &Path) -> Outcome {
    let kib = (ESP_MIB * 1024).to_string();
    let sector = format!("--offset={}", ESP_START / 512);
    // Larger clusters would be too few for FAT32, and mtools would take it for FAT16.
    let fat32 = ["-F", "32", "-s", "1", "-i", "1234ABCD", &sector];
    run("mkfs.fat", &fat32, disk, &[&kib])?;
    let volume = format!("{}@@{ESP_START}", disk.display());
    let volume = Path::new(&volume);
    run("mmd", &["-i"], volume, &["::/EFI", "::/EFI/debian"])?;
    for (program, name) in [("rsync", "shimx64.efi"), ("sgdisk", "grubx64.efi")] {
        let path = process::find_program(program).ok_or_else(|| format!("{program} is missing"))?;
        let target = format!("::/EFI/debian/{name}");
        run("mcopy", &["-i"], volume, &[&path.to_string_lossy(), &target])?;
    }
    Ok(())
}

/// Puts files onto a volume of `len` bytes, about half of what it holds, and some that are to be
/// deleted.
pub(super) fn fill_volume(root: &Path, len: u64, names: Names) -> Outcome {
    let files = tree::choose(len * VOLUME_TREE_PERCENT / 100)?;
    match names {
        Names::Any => tree::copy(&files, root)?,
        Names::Portable => tree::copy_portable(&files, root)?,
    }
    write_noise(&root.join("photos.zip"), 50, len * VOLUME_PHOTO_PERCENT / 100)?;
    let stale = root.join(STALE);
    std::fs::create_dir(&stale).map_err(|e| format!("{}: {e}", stale.display()))?;
    let half = len * VOLUME_STALE_PERCENT / 200;
    write_noise(&stale.join("a"), 99, half)?;
    tree::concatenate(&files, &stale.join("b"), half)
}

/// Deletes what [`fill_volume`] wrote for that.
pub(super) fn remove_stale(root: &Path) -> Outcome {
    sync(root)?;
    let stale = root.join(STALE);
    std::fs::remove_dir_all(&stale).map_err(|e| format!("{}: {e}", stale.display()))?;
    sync(root)
}

fn fill_root(root: &Path, size_gib: u64) -> Outcome {
    let files = tree::choose((size_gib << 30) * TREE_PERCENT / 100)?;
    tree::copy(&files, root)?;
    let home = root.join("home/user");
    std::fs::create_dir_all(&home).map_err(|e| format!("{}: {e}", home.display()))?;
    for number in 1..=PHOTO_COUNT {
        let len = size_gib * PHOTO_MIB_PER_GIB * MIB / PHOTO_COUNT;
        write_noise(&home.join(format!("photos{number}.zip")), 50 + number, len)?;
    }
    let stale = root.join(STALE);
    std::fs::create_dir(&stale).map_err(|e| format!("{}: {e}", stale.display()))?;
    let half = size_gib * STALE_KIB_PER_GIB * 1024 / 2;
    write_noise(&stale.join("a"), 99, half)?;
    tree::concatenate(&files, &stale.join("b"), half)?;
    remove_stale(root)
}

/// Until then the bytes of a file that is deleted soon exist in memory only.
fn sync(folder: &Path) -> Outcome {
    run("sync", &["-f"], folder, &[])
}

/// Bytes without structure, the same for the same seed.
fn write_noise(path: &Path, seed: u64, len: u64) -> Outcome {
    let failed = |e: std::io::Error| format!("{}: {e}", path.display());
    let mut file = File::create(path).map_err(failed)?;
    let mut noise = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
    let mut buffer = vec![0; 1 << 20];
    let mut left = len;
    while left > 0 {
        let count = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        noise.fill(&mut buffer[..count]);
        file.write_all(&buffer[..count]).map_err(failed)?;
        left -= count as u64;
    }
    Ok(())
}

/// A raw file of real programs and documents, for jobs that need no filesystem.
pub(super) fn make_files(path: &Path, bytes: u64) -> Outcome {
    let files = tree::choose(bytes)?;
    tree::concatenate(&files, path, bytes)?;
    // Rounding and files that vanished leave it a little short.
    let file = File::options().write(true).open(path);
    let sized = file.and_then(|file| file.set_len(bytes));
    sized.map_err(|e| format!("{}: {e}", path.display()))
}

/// Where the root partition lies on the disk.
pub(super) fn root_extent(disk: &Path) -> Result<Extent, String> {
    let source = FileDisk::open_source(disk).map_err(|e| e.to_string())?;
    let table = partition::read_table(&source, SectorSize::B512).map_err(|e| e.to_string())?;
    let root = table.partitions.iter().find(|partition| partition.number == 2);
    root.map(|partition| partition.extent).ok_or_else(|| "the disk lost its root partition".into())
}

/// Runs `program BEFORE... PATH AFTER...` silently.
pub(super) fn run(program: &str, before: &[&str], path: &Path, after: &[&str]) -> Outcome {
    let mut command = process::command(program);
    command.args(before).arg(path).args(after);
    let line = process::describe(&command);
    let output = command.output().map_err(|e| format!("cannot start `{line}`: {e}"))?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    process::expect_success(&line, output.status).map_err(|failure| format!("{failure}: {said}"))
}

#[cfg(test)]
mod tests {
    use aiv_filesystems::{FilesystemKind, recognise};
    use aiv_volume_io::{ReadAt, Slice};

    use super::*;

    #[test]
    fn an_efi_partition_is_made_without_a_device() {
        let folder = tempfile::tempdir().unwrap();
        let disk = folder.path().join("disk.raw");
        File::create(&disk).unwrap().set_len(ESP_START + ESP_MIB * MIB).unwrap();
        fill_esp(&disk).unwrap();
        let source = FileDisk::open_source(&disk).unwrap();
        let esp = Slice::new(&source, Extent::between(ESP_START, source.len())).unwrap();
        assert_eq!(recognise(&esp).unwrap().kind, FilesystemKind::Fat32);
    }

    #[test]
    fn noise_depends_on_its_seed_alone() {
        let folder = tempfile::tempdir().unwrap();
        let noise = |name, seed| {
            let path = folder.path().join(name);
            write_noise(&path, seed, 3_000_000).unwrap();
            std::fs::read(path).unwrap()
        };
        assert!(noise("a", 1) == noise("b", 1));
        assert!(noise("c", 2) != noise("d", 1));
        assert_eq!(noise("e", 1).len(), 3_000_000);
    }
}
