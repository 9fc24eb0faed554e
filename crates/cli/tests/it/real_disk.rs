//! The whole way on a real disk: GPT, a FAT system partition, ext4 with files.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;

use crate::support::{Loop, MIB, Mount, Scratch, aiv, aiv_json, noise, run};

const DISK: u64 = 48 * MIB;
/// Start and length in bytes.
const ESP: (u64, u64) = (MIB, 8 * MIB);
pub(crate) const ROOT: (u64, u64) = (9 * MIB, 36 * MIB);

/// A disk as an installer leaves it, at `disk.raw`.
pub(crate) fn make_disk(scratch: &Scratch) -> String {
    let disk = scratch.arg("disk.raw");
    File::create(&disk).unwrap().set_len(DISK).unwrap();
    let part = |number: u32, (start, len): (u64, u64)| {
        format!("--new={number}:{}:+{}", start / 512, len / 512)
    };
    run(
        "sgdisk",
        &[
            &part(1, ESP),
            "--typecode=1:ef00",
            "--change-name=1:EFI System",
            &part(2, ROOT),
            "--change-name=2:root",
            &disk,
        ],
    );
    let esp = scratch.arg("esp.fat");
    File::create(&esp).unwrap().set_len(ESP.1).unwrap();
    run("mkfs.fat", &["-n", "EFI", &esp]);
    let kernel = scratch.write("kernel", &noise(700_000, 1));
    run("mcopy", &["-i", &esp, &kernel, "::/KERNEL"]);
    let file = File::options().write(true).open(&disk).unwrap();
    file.write_all_at(&fs::read(esp).unwrap(), ESP.0).unwrap();

    let device = Loop::part(disk.as_ref(), ROOT, false);
    run("mkfs.ext4", &["-q", "-L", "rootfs", device.arg()]);
    let mount = Mount::new(device.arg(), "rw");
    let at = |name: &str| mount.path().join(name);
    fs::create_dir_all(at("etc/deep/er")).unwrap();
    fs::write(at("etc/hostname"), "box\n").unwrap();
    fs::write(at("etc/deep/er/noise"), noise(3 * MIB, 2)).unwrap();
    fs::write(at("zeros"), vec![0; MIB as usize]).unwrap();
    File::create(at("sparse")).unwrap().write_all_at(b"end", 5 * MIB).unwrap();
    symlink("etc/hostname", at("link")).unwrap();
    // What was deleted is free space with old contents: it must not end up in the image.
    fs::write(at("deleted"), noise(4 * MIB, 3)).unwrap();
    run("sync", &["-f", mount.path().to_str().unwrap()]);
    fs::remove_file(at("deleted")).unwrap();
    drop(mount);
    drop(device);
    disk
}

pub(crate) fn check_ext4(disk: &Path) {
    let device = Loop::part(disk, ROOT, true);
    run("e2fsck", &["-fn", device.arg()]);
}

/// Compares the files of both root filesystems.
pub(crate) fn check_files(left: &Path, right: &Path) {
    let devices = [Loop::part(left, ROOT, true), Loop::part(right, ROOT, true)];
    let mounts = devices.each_ref().map(|device| Mount::new(device.arg(), "ro"));
    let [left, right] = mounts.each_ref().map(Mount::path);
    run("diff", &["--recursive".as_ref(), "--no-dereference".as_ref(), left, right]);
    assert_eq!(fs::read(right.join("etc/hostname")).unwrap(), b"box\n");
    assert_eq!(fs::read_link(right.join("link")).unwrap(), Path::new("etc/hostname"));
}

/// The EFI partition is sound and has its kernel.
fn check_esp(scratch: &Scratch, disk: &Path) {
    let esp = scratch.write("esp.of.target", &bytes_of(disk, ESP));
    run("fsck.fat", &["-n", &esp]);
    let kernel = scratch.arg("kernel.of.target");
    run("mcopy", &["-i", &esp, "::/KERNEL", &kernel]);
    assert!(fs::read(kernel).unwrap() == noise(700_000, 1), "the kernel differs");
}

fn bytes_of(disk: &Path, (start, len): (u64, u64)) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(len).unwrap()];
    File::open(disk).unwrap().read_exact_at(&mut bytes, start).unwrap();
    bytes
}

#[test]
fn every_sector_of_a_disk_comes_back_bit_for_bit() {
    let scratch = Scratch::new();
    let disk = make_disk(&scratch);
    let (images, target) = (scratch.arg("images"), scratch.arg("target.raw"));
    aiv(&["backup", &disk, "--to", &images, "--sectors", "all", "--verify"]).ended(0);
    aiv(&["verify", &images]).ended(0);
    let latest = format!("{images}@latest");
    aiv(&["restore", &latest, "--to", &target]).ended(0);
    run("cmp", &[&disk, &target]);
}

#[test]
fn used_blocks_are_enough_for_a_clean_filesystem_among_old_noise() {
    let scratch = Scratch::new();
    let disk = make_disk(&scratch);
    let images = scratch.arg("images");
    let done = aiv_json(&["backup", &disk, "--to", &images]).ended(0).json();
    let image = &done["images"][0];
    let partitions = image["partitions"].as_array().unwrap();
    assert_eq!(partitions.len(), 2, "{image}");
    assert_eq!(
        (&partitions[0]["filesystem"], &partitions[0]["capture"]),
        (&"vfat".into(), &"used".into())
    );
    assert_eq!(
        (&partitions[1]["filesystem"], &partitions[1]["capture"]),
        (&"ext4".into(), &"used".into())
    );
    assert_eq!(
        (&partitions[1]["label"], &partitions[1]["name"]),
        (&"rootfs".into(), &"root".into())
    );
    // Neither the deleted file nor free space was read or stored.
    assert!(image["bytes_read"].as_u64().unwrap() < DISK / 2, "{image}");
    assert!(image["bytes_stored"].as_u64().unwrap() < 5 * MIB, "{image}");

    let target = scratch.write("target.raw", &noise(DISK, 4));
    let latest = format!("{images}@latest");
    let args = ["restore", &latest, "--to", &target, "--unused", "leave", "--yes"];
    aiv(&args).ended(0);
    check_ext4(target.as_ref());
    check_files(disk.as_ref(), target.as_ref());
    check_esp(&scratch, target.as_ref());
    run("sgdisk", &["--verify", &target]);
    assert_ne!(
        bytes_of(disk.as_ref(), ROOT),
        bytes_of(target.as_ref(), ROOT),
        "free space is left"
    );
}

#[test]
fn a_disk_is_restored_onto_a_device_and_backed_up_from_one() {
    let scratch = Scratch::new();
    let disk = make_disk(&scratch);
    let images = scratch.arg("images");
    {
        let source = Loop::new(disk.as_ref(), &["--read-only"]);
        aiv(&["backup", source.arg(), "--to", &images]).ended(0);
    }
    let backing = scratch.write("backing.raw", &noise(DISK, 5));
    {
        let target = Loop::new(backing.as_ref(), &[]);
        let latest = format!("{images}@latest");
        let args = ["restore", &latest, "--to", target.arg(), "--unused", "zero", "--yes"];
        let json = aiv_json(&args).ended(0).json();
        assert_eq!(json["verified"], true);
    }
    check_ext4(backing.as_ref());
    check_files(disk.as_ref(), backing.as_ref());
    assert_eq!(bytes_of(disk.as_ref(), ESP), bytes_of(backing.as_ref(), ESP));
}

#[test]
fn a_disk_goes_onto_a_larger_device_and_its_table_to_both_ends_of_it() {
    let scratch = Scratch::new();
    let disk = make_disk(&scratch);
    let images = scratch.arg("images");
    aiv(&["backup", &disk, "--to", &images]).ended(0);
    let backing = scratch.write("backing.raw", &noise(DISK + 16 * MIB, 5));
    let latest = format!("{images}@latest");
    {
        let target = Loop::new(backing.as_ref(), &[]);
        let to =
            |more: &[&'static str]| [&["restore", &latest, "--to", target.arg()], more].concat();
        let table = aiv_json(&to(&["--dry-run"])).ended(0).json()["table"].clone();
        assert_eq!((&table["kind"], &table["changed"]), (&"gpt".into(), &true.into()));
        assert_eq!(table["partitions"][1]["start"], ROOT.0);
        let text = aiv(&to(&["--dry-run"])).ended(0).stdout;
        assert!(text.contains("gpt in sectors of 512 bytes, made for the target"), "{text}");
        aiv(&to(&["--yes", "--table", "keep"])).ended(0);
        let verdict = run("sgdisk", &["--verify", &backing]);
        assert!(!verdict.contains("No problems found"), "{verdict}");
        aiv(&to(&["--yes", "--delta"])).ended(0);
    }
    let verdict = run("sgdisk", &["--verify", &backing]);
    assert!(verdict.contains("No problems found"), "{verdict}");
    check_ext4(backing.as_ref());
    check_files(disk.as_ref(), backing.as_ref());
    // The last partition takes the new space, and its filesystem with it.
    {
        let target = Loop::new(backing.as_ref(), &[]);
        let args = ["restore", &latest, "--to", target.arg(), "--yes", "--grow", "last"];
        let text = aiv(&args).ended(0).stdout;
        assert!(text.contains("the ext4 filesystem of partition 2 was grown"), "{text}");
    }
    let grown = Loop::part(backing.as_ref(), (ROOT.0, DISK + 15 * MIB - ROOT.0), true);
    run("e2fsck", &["-fn", grown.arg()]);
}

#[test]
fn a_disk_goes_onto_a_smaller_device_with_its_filesystem_made_smaller() {
    let scratch = Scratch::new();
    let disk = make_disk(&scratch);
    let images = scratch.arg("images");
    aiv(&["backup", &disk, "--to", &images]).ended(0);
    let latest = format!("{images}@latest");
    let backing = scratch.write("backing.raw", &noise(DISK - 8 * MIB, 5));
    let folder = scratch.arg("copies");
    fs::create_dir(&folder).unwrap();
    {
        let target = Loop::new(backing.as_ref(), &[]);
        let restore = ["restore", &latest, "--to", target.arg(), "--yes"];
        let message = aiv_json(&restore).failed(5, "target_too_small");
        assert!(message.contains("partition 2 ends at byte"), "{message}");
        let text = aiv(&[&restore[..], &["--shrink", &folder]].concat()).ended(0).stdout;
        assert!(text.contains("partition 2 was made smaller with its filesystem"), "{text}");
    }
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    let verdict = run("sgdisk", &["--verify", &backing]);
    assert!(verdict.contains("No problems found"), "{verdict}");
    let part = Loop::part(backing.as_ref(), (ROOT.0, DISK - 9 * MIB - ROOT.0), true);
    run("e2fsck", &["-fn", part.arg()]);
    let mount = Mount::new(part.arg(), "ro");
    assert_eq!(fs::read(mount.path().join("etc/deep/er/noise")).unwrap(), noise(3 * MIB, 2));
}

#[test]
fn a_disk_with_an_mbr_becomes_a_gpt_disk_beyond_two_tebibytes() {
    const TIB: u64 = 1 << 40;
    let scratch = Scratch::new();
    let disk = scratch.write("mbr.raw", &noise(16 * MIB, 3));
    let mut sfdisk = std::process::Command::new("sfdisk");
    let script = scratch.write("script", b"label: dos\n1: start=1MiB, size=14MiB, type=83\n");
    sfdisk.args(["--quiet", &disk]).stdin(fs::File::open(script).unwrap());
    assert!(sfdisk.status().unwrap().success());
    let images = scratch.arg("images");
    aiv(&["backup", &disk, "--to", &images]).ended(0);
    let (latest, target) = (format!("{images}@latest"), scratch.arg("target.raw"));
    fs::File::create(&target).unwrap().set_len(3 * TIB).unwrap();
    let to = |more: &[&'static str]| [&["restore", &latest, "--to", &target], more].concat();
    let grown = to(&["--dry-run", "--grow", "last"]);
    let (_, code, message) = aiv_json(&grown).error();
    assert_eq!(code, "table_unfit", "{message}");
    let plain = aiv(&to(&["--dry-run"])).ended(0);
    let said = format!("{}{}", plain.stdout, plain.stderr);
    assert!(said.contains("are of no use under an MBR; `--table gpt` makes it a GPT"), "{said}");
    let made = aiv_json(&to(&["--dry-run", "--grow", "last", "--table", "gpt"])).ended(3).json();
    let table = &made["table"];
    assert_eq!((&table["kind"], &table["changed"]), (&"gpt".into(), &true.into()));
    assert_eq!(table["partitions"][0]["start"], MIB);
    // A BIOS has to be told.
    let text = aiv(&to(&["--yes", "--grow", "last", "--table", "gpt"])).ended(3).stderr;
    assert!(text.contains("until its boot loader is installed again"), "{text}");
    let verdict = run("sgdisk", &["--verify", &target]);
    assert!(verdict.contains("No problems found"), "{verdict}");
    let part = (MIB, 14 * MIB);
    assert_eq!(bytes_of(disk.as_ref(), part), bytes_of(target.as_ref(), part));
}

#[test]
fn one_partition_is_restored_into_a_file_of_its_size() {
    let scratch = Scratch::new();
    let disk = make_disk(&scratch);
    let images = scratch.arg("images");
    aiv(&["backup", &disk, "--to", &images]).ended(0);
    let (latest, target) = (format!("{images}@latest"), scratch.arg("root.ext4"));
    let args = ["restore", &latest, "--to", &target, "--partition", "2"];
    let json = aiv_json(&args).ended(0).json();
    assert_eq!((&json["start"], &json["size"]), (&ROOT.0.into(), &ROOT.1.into()));
    assert_eq!(fs::metadata(&target).unwrap().len(), ROOT.1);
    run("e2fsck", &["-fn", &target]);
    // What was free stays a hole.
    let blocks = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(&target).unwrap());
    assert!(blocks * 512 < ROOT.1 / 2, "{blocks}");
}

#[test]
fn the_same_disk_gives_the_same_state_and_one_set_of_points() {
    let scratch = Scratch::new();
    let disk = make_disk(&scratch);
    let images = scratch.arg("images");
    let backup = |more: &[&str]| {
        let args = [["backup", &disk, "--to", &images].as_slice(), more].concat();
        aiv_json(&args).ended(0).json()["images"][0].clone()
    };
    let first = backup(&[]);
    // Compression and threads change how it is stored, not what it is.
    let second = backup(&["--compress", "lz4", "--threads", "1"]);
    assert_eq!(first["state_root"], second["state_root"]);
    assert_ne!(first["recovery_point"], second["recovery_point"]);
    assert!(first["source_id"].as_str().unwrap().starts_with("gpt:"), "{first}");
    let json = aiv_json(&["list", &images]).ended(0).json();
    assert_eq!(json["sets"].as_array().unwrap().len(), 1);
    assert_eq!(json["sets"][0]["points"].as_array().unwrap().len(), 2);
}
