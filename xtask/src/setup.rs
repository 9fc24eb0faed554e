//! `cargo xtask setup`: the programs that tests and the README's demo call.

use std::path::Path;
use std::process::Command;

use crate::{Outcome, process};

/// Something that must be on the machine, and the Debian 12 package that brings it.
#[derive(Clone, Copy)]
struct Need {
    /// A program on the search path, or an absolute path to a file.
    program: &'static str,
    package: &'static str,
    used_for: &'static str,
}

const fn need(program: &'static str, package: &'static str, used_for: &'static str) -> Need {
    Need { program, package, used_for }
}

const NEEDS: &[Need] = &[
    need("gcc", "gcc", "zstd's C sources"),
    need("/usr/include/stdio.h", "libc6-dev", "zstd's C sources"),
    need("mkfs.ext4", "e2fsprogs", "ext2, ext3 and ext4 volumes"),
    need("e2fsck", "e2fsprogs", "the second opinion on restored ext volumes"),
    need("dumpe2fs", "e2fsprogs", "the second opinion on ext block maps"),
    need("debugfs", "e2fsprogs", "ext volumes of a chosen shape"),
    need("resize2fs", "e2fsprogs", "ext volumes of a chosen shape"),
    need("tune2fs", "e2fsprogs", "ext volumes of a chosen shape"),
    need("losetup", "mount", "disks and partitions as devices"),
    need("mount", "mount", "the kernel's opinion on restored volumes"),
    need("blkid", "util-linux", "the second opinion on kind, UUID and label"),
    need("fsfreeze", "util-linux", "freezing the filesystems of a source"),
    need("mkswap", "util-linux", "swap volumes"),
    need("partx", "util-linux", "a third opinion on partition tables"),
    need("swaplabel", "util-linux", "the second opinion on swap headers"),
    need("sfdisk", "fdisk", "MBR and GPT tables"),
    need("sgdisk", "gdisk", "GPT tables, and the second opinion on them"),
    need("mkfs.fat", "dosfstools", "FAT volumes"),
    need("fsck.fat", "dosfstools", "the second opinion on FAT maps"),
    need("mcopy", "mtools", "files on FAT volumes without a mount"),
    need("mkfs.ntfs", "ntfs-3g", "NTFS volumes"),
    need("ntfsresize", "ntfs-3g", "NTFS volumes that grow with their partition"),
    need("lowntfs-3g", "ntfs-3g", "a target that does not tell upper from lower case"),
    need("ntfscat", "ntfs-3g", "files on NTFS volumes without a mount"),
    need("ntfsclone", "ntfs-3g", "the second opinion on NTFS maps"),
    need("wimlib-imagex", "wimtools", "files as Windows compresses them"),
    need("partclone.ntfs", "partclone", "the third opinion on NTFS maps"),
    need("setfacl", "acl", "files with access control lists"),
    need("mkfs.xfs", "xfsprogs", "XFS volumes"),
    need("xfs_db", "xfsprogs", "the second opinion on XFS maps"),
    need("xfs_growfs", "xfsprogs", "XFS volumes that grow with their partition"),
    need("btrfs", "btrfs-progs", "the second opinion on Btrfs maps, and volumes that grow"),
    need("mkfs.btrfs", "btrfs-progs", "Btrfs volumes"),
    need("setfattr", "attr", "files with extended attributes"),
    need("xfs_io", "xfsprogs", "files that share extents"),
    need("partclone.btrfs", "partclone", "the third opinion on Btrfs maps"),
    need("mkfs.exfat", "exfatprogs", "exFAT volumes, and the second opinion on their maps"),
    need("mount.exfat-fuse", "exfat-fuse", "files on exFAT volumes, whatever the kernel knows"),
    need("mksquashfs", "squashfs-tools", "SquashFS volumes"),
    need("unsquashfs", "squashfs-tools", "the second opinion on files of SquashFS"),
    need("genisoimage", "genisoimage", "volumes of ISO 9660"),
    need("xorriso", "xorriso", "volumes of ISO 9660 of another writer"),
    need("bsdtar", "libarchive-tools", "the second opinion on files of ISO 9660"),
    need("mkfs.f2fs", "f2fs-tools", "F2FS volumes, and the second opinion on their maps"),
    need("make-bcache", "bcache-tools", "disks behind a cache"),
    need("lvs", "lvm2", "logical volumes as sources"),
    need("pvck", "lvm2", "LVM2 volume groups, and the second opinion on their metadata"),
    need("mdadm", "mdadm", "the second opinion on superblocks of RAIDs"),
    need("grub-fstest", "grub-common", "the second opinion on RAIDs of several members"),
    need("thin_restore", "thin-provisioning-tools", "pools of thin logical volumes"),
    need("cryptsetup", "cryptsetup-bin", "LUKS volumes"),
    need("strace", "strace", "proof that sources are only read"),
    need("script", "bsdutils", "a terminal for the question before a restore"),
    need("setsid", "util-linux", "a terminal of its own for the explorer"),
    need("/usr/bin/chromium", "chromium", "the explorer in a browser"),
    need("chromedriver", "chromium-driver", "keys and clicks in a browser"),
    // Debian 12 itself and its backports both carry this one; whichever apt prefers will do.
    need("qemu-img", "qemu-utils", "the second opinion on raw and qcow2 disks"),
    need("busybox", "busybox-static", "unpacking what guests boot from, and their programs"),
    need("qemu-io", "qemu-utils", "virtual disks of a chosen content"),
    need(
        "/usr/lib/python3/dist-packages/pyvhdi.cpython-311-x86_64-linux-gnu.so",
        "python3-libvhdi",
        "the second opinion on VHD and VHDX and their parents",
    ),
    need("qemu-nbd", "qemu-utils", "disks behind an NBD server"),
    need("qemu-storage-daemon", "qemu-utils", "machines whose backups are pulled"),
    need("nbdinfo", "libnbd-bin", "the second opinion on what an NBD server says"),
    need("/usr/bin/python3", "python3", "the second reader of the image format"),
    need(
        "/usr/lib/python3.11/ensurepip/__init__.py",
        "python3-venv",
        "the second reader's packages",
    ),
    need("nbdkit", "nbdkit", "NBD servers with every manner of reply"),
    need("valgrind", "valgrind", "counting instructions"),
    need("xz", "xz-utils", "stored test images"),
    need("zstd", "zstd", "stored test images"),
    need("bzip2", "bzip2", "stored test images"),
    need("unzip", "unzip", "stored test images"),
    need("xxd", "xxd", "stored test images"),
    need("rsync", "rsync", "comparing restored trees"),
    need("openssl", "openssl", "checksums of test images, key files of the demo"),
];

/// Asks for the tools that `cargo xtask bench` measures beside ours.
const BENCH: &str = "--bench";

const BENCH_NEEDS: &[Need] = &[
    need("lz4", "lz4", "comparison"),
    need("borg", "borgbackup", "comparison"),
    need("restic", "restic", "comparison"),
    need("fsarchiver", "fsarchiver", "comparison"),
];

/// Debian has no package of it: built from its release, some minutes, below `target`.
const RUSTIC: &str = "rustic-rs@0.11.4";

/// Asks for what `cargo xtask guest` puts into its virtual machines, and runs them with.
const GUEST: &str = "--guest";

const SOURCE: &str = "/etc/apt/sources.list.d/aivory-backports.list";
pub(crate) const MIRROR: &str = "http://deb.debian.org/debian";
pub(crate) const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

const GUEST_NEEDS: &[Need] = &[
    need("qemu-system-x86_64", "qemu-system-x86", "virtual machines"),
    need("dmsetup", "dmsetup", "what the device mapper says"),
    need("make", "make", "modules of ZFS"),
    need("gcc-12", "gcc-12", "modules of ZFS"),
    need("/usr/lib/x86_64-linux-gnu/libelf.so.1", "libelf1", "modules of ZFS"),
    need("debootstrap", "debootstrap", "a Debian that boots"),
    need("/usr/lib/grub/i386-pc/boot.img", "grub-pc-bin", "disks that boot with BIOS"),
    need("/usr/lib/grub/x86_64-efi/moddep.lst", "grub-efi-amd64-bin", "disks that boot with UEFI"),
    need("grub-mkimage", "grub-common", "disks that boot"),
    need("/usr/share/OVMF/OVMF_CODE_4M.fd", "ovmf", "machines with UEFI"),
];

pub(crate) fn run(arguments: &[String]) -> Outcome {
    match arguments {
        [flag] if flag == BENCH => {
            provide(NEEDS)?;
            provide(BENCH_NEEDS)?;
            provide_rustic()
        }
        [flag] if flag == GUEST => {
            provide(NEEDS)?;
            provide(GUEST_NEEDS)
        }
        _ => {
            crate::no_arguments(arguments)?;
            provide(NEEDS)
        }
    }
}

fn provide(needs: &[Need]) -> Outcome {
    let missing = missing(needs, is_present);
    if missing.is_empty() {
        println!("setup: all {} programs and files are present", needs.len());
        return Ok(());
    }
    for Need { program, package, used_for } in &missing {
        println!("setup: {program} is missing (package {package}; for {used_for})");
    }
    let packages = packages(&missing);
    install(&packages)?;
    match self::missing(&missing, is_present).first() {
        None => {
            println!("setup: installed {}", packages.join(" "));
            Ok(())
        }
        Some(Need { program, package, .. }) => {
            Err(format!("package {package} is installed, yet {program} is still missing"))
        }
    }
}

fn provide_rustic() -> Outcome {
    if is_present("rustic") {
        return Ok(());
    }
    println!("setup: building {RUSTIC}, some minutes (for comparison)");
    let mut install = process::cargo();
    install.args(["install", RUSTIC, "--locked", "--no-default-features", "--root"]);
    process::run(install.arg(process::peers()))
}

fn missing(needs: &[Need], is_present: impl Fn(&str) -> bool) -> Vec<Need> {
    needs.iter().copied().filter(|need| !is_present(need.program)).collect()
}

fn is_present(program: &str) -> bool {
    if program.starts_with('/') {
        Path::new(program).exists()
    } else {
        process::find_program(program).is_some()
    }
}

/// Each package once, in the order of the table.
fn packages(needs: &[Need]) -> Vec<&'static str> {
    let mut packages = Vec::new();
    for need in needs {
        if !packages.contains(&need.package) {
            packages.push(need.package);
        }
    }
    packages
}

fn install(packages: &[&str]) -> Outcome {
    let by_hand = format!("install these packages by hand: {}", packages.join(" "));
    if process::find_program("apt-get").is_none() {
        return Err(format!("this machine has no apt-get; {by_hand}"));
    }
    if !is_root() && process::find_program("sudo").is_none() {
        return Err(format!("not root, and there is no sudo; {by_hand}"));
    }
    // A foreign package source that does not answer must not stop us: what matters is whether
    // the packages install.
    let update = || {
        if let Err(failure) = process::run(apt_get().arg("update")) {
            eprintln!("setup: warning: {failure}; trying to install all the same");
        }
    };
    update();
    let (qemu, others): (Vec<&str>, Vec<&str>) =
        packages.iter().partition(|package| package.starts_with("qemu-"));
    let by_hand = |failure| format!("{failure}; {by_hand}");
    if !others.is_empty() {
        process::run(install_from(None).args(others)).map_err(by_hand)?;
    }
    if qemu.is_empty() {
        return Ok(());
    }
    let release = backports_of(&installed_version("qemu-utils"), &os_release()?);
    if let Some(release) = &release {
        add_source(release).map_err(by_hand)?;
        update();
    }
    process::run(install_from(release.as_deref()).args(qemu)).map_err(by_hand)
}

/// Nothing else on the machine may suffer: an install that needs a removal is refused.
fn install_from(release: Option<&str>) -> Command {
    let mut install = apt_get();
    install.args(["install", "--yes", "--no-install-recommends", "--no-remove"]);
    if let Some(release) = release {
        install.args(["--target-release", release]);
    }
    install
}

/// Where the packages of QEMU have to come from, when those of this Debian would have to take
/// the place of newer ones: all of them are of one version.
fn backports_of(installed: &str, os_release: &str) -> Option<String> {
    let codename = codename_in(os_release)?;
    installed.contains("~bpo").then(|| format!("{codename}-backports"))
}

fn codename_in(os_release: &str) -> Option<&str> {
    let name = os_release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    Some(name.trim_matches('"'))
}

/// Of the release that runs here.
pub(crate) fn codename() -> Result<String, String> {
    let release = os_release()?;
    let name = codename_in(&release).ok_or("this system does not say which release it is")?;
    Ok(name.to_owned())
}

/// Nothing, when the package is not installed.
fn installed_version(package: &str) -> String {
    let query = process::command("dpkg-query").args(["-W", "-f", "${Version}", package]).output();
    query.map(|said| String::from_utf8_lossy(&said.stdout).into_owned()).unwrap_or_default()
}

fn os_release() -> Result<String, String> {
    let path = "/etc/os-release";
    std::fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))
}

/// Makes apt know the backports of this Debian, which the machine had once.
fn add_source(release: &str) -> Outcome {
    let line = format!("deb [signed-by={KEYRING}] {MIRROR} {release} main");
    println!("setup: adding {SOURCE}: {line}");
    let mut write = privileged();
    process::run(write.args(["sh", "-c", r#"echo "$1" > "$2""#, "sh", &line, SOURCE]))
}

/// Runs what follows as root.
fn privileged() -> Command {
    let mut command = process::command(if is_root() { "env" } else { "sudo" });
    if !is_root() {
        command.arg("env");
    }
    command
}

fn apt_get() -> Command {
    let mut command = privileged();
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "--quiet"]);
    command.args(["-o", "Acquire::Retries=3", "-o", "DPkg::Lock::Timeout=120"]);
    command
}

/// Whether this process may install packages itself. `/proc/self` belongs to the effective
/// user of the process.
pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_asked_for_and_each_package_once() {
        let gone = ["mkfs.ext4", "e2fsck", "sgdisk"];
        let missing = missing(NEEDS, |program| !gone.contains(&program));
        assert_eq!(packages(&missing), ["e2fsprogs", "gdisk"]);
    }

    #[test]
    fn qemu_comes_from_where_its_other_packages_came_from() {
        let os = "NAME=\"Debian GNU/Linux\"\nVERSION_CODENAME=bookworm\n";
        let backports = backports_of("1:10.0.2+ds-2+deb13u1~bpo12+1", os);
        assert_eq!(backports.as_deref(), Some("bookworm-backports"));
        assert_eq!(backports_of("1:7.2+dfsg-7+deb12u18+b3", os), None);
        assert_eq!(backports_of("", os), None);
    }

    #[test]
    fn a_file_need_is_looked_up_by_its_path() {
        assert!(is_present("/proc/self/stat"));
        assert!(!is_present("/proc/self/no-such-file"));
    }

    #[test]
    fn no_program_is_listed_twice() {
        let needs = [NEEDS, BENCH_NEEDS].concat();
        for (index, need) in needs.iter().enumerate() {
            let twin = needs[index + 1..].iter().find(|other| other.program == need.program);
            assert!(twin.is_none(), "{}", need.program);
        }
    }
}
