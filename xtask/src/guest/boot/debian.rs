//! A small Debian on a disk that starts with BIOS and with UEFI, made once and kept.
//!
//! No loop device and no partition scan are needed: each partition's content is made as a file,
//! or by a tool that writes at an offset, and GRUB's first stages are put where their own block
//! lists say.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::super::failed;
use crate::{Outcome, process, setup};

/// Counted up when the disk is made differently: one that was kept from before is not used then.
const RECIPE: u32 = 1;
const RELEASE: &str = "bookworm";
const INCLUDE: &str = "systemd-sysv,udev,kmod,initramfs-tools,linux-image-cloud-amd64";

pub(super) const HOST: &str = "aiv-boot";
const MIB: u64 = 1 << 20;
const SECTOR: u64 = 512;
const DISK_LEN: u64 = 1024 * MIB;
/// For GRUB's core image: a BIOS loads nothing but the first sector of a disk.
pub(super) const BIOS_BOOT: Part = Part { number: 1, start: MIB, len: MIB, kind: "ef02" };
pub(super) const ESP: Part = Part { number: 2, start: 2 * MIB, len: 64 * MIB, kind: "ef00" };
/// The last one, so that it can grow. A MiB is left for the backup of the partition table.
pub(super) const ROOT: Part =
    Part { number: 3, start: 66 * MIB, len: DISK_LEN - 67 * MIB, kind: "8304" };

/// As everything of the boot chain looks for them.
const ROOT_UUID: &str = "0c6f6f52-5a38-4d0e-9d0b-7a1c35f4e2a6";
const ESP_ID: &str = "A1F0B007";

/// What GRUB needs to find its menu on the root filesystem, and to start what it says.
const GRUB_MODULES: [&str; 9] = [
    "part_gpt",
    "ext2",
    "search",
    "search_fs_uuid",
    "normal",
    "linux",
    "configfile",
    "serial",
    "echo",
];

#[derive(Clone, Copy)]
pub(super) struct Part {
    number: u32,
    /// In bytes, as is the length.
    pub(super) start: u64,
    pub(super) len: u64,
    /// Type code of `sgdisk`.
    kind: &'static str,
}

/// The disk, made in `folder` unless it is there already.
pub(super) fn provide(folder: &Path) -> Result<PathBuf, String> {
    let disk = folder.join(format!("debian-{RELEASE}-{RECIPE}.raw"));
    if disk.is_file() {
        return Ok(disk);
    }
    if !setup::is_root() {
        return Err("making a Debian to boot needs root: run it with sudo".into());
    }
    let build = Build { folder: folder.join("debian.part") };
    build.empty()?;
    fs::create_dir_all(&build.folder).map_err(failed("creating", &build.folder))?;
    build.bootstrap()?;
    build.configure()?;
    let made = build.disk()?;
    // Renamed at the end: a disk of that name is a whole one.
    fs::rename(&made, &disk).map_err(failed("renaming", &made))?;
    build.empty()?;
    Ok(disk)
}

struct Build {
    folder: PathBuf,
}

impl Build {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn tool(&self, program: &str, arguments: &[&str]) -> Outcome {
        process::run(process::command(program).args(arguments).current_dir(&self.folder))
    }

    /// Never into another filesystem, should one still be mounted in it.
    fn empty(&self) -> Outcome {
        let mut remove = process::command("rm");
        process::run(remove.args(["-rf", "--one-file-system"]).arg(&self.folder))
    }

    /// Debian's own installation, with mounts that end with it whatever happens.
    fn bootstrap(&self) -> Outcome {
        println!("guest: installing Debian {RELEASE} into a folder, this takes minutes");
        let log = self.path("debootstrap.log");
        let out = File::create(&log).map_err(failed("creating", &log))?;
        let mut install = process::command("unshare");
        install.args(["--mount", "debootstrap", "--variant=minbase"]);
        install.arg(format!("--include={INCLUDE}")).args([RELEASE, "root", setup::MIRROR]);
        install.current_dir(&self.folder).stdin(Stdio::null());
        install.stdout(out.try_clone().map_err(failed("writing", &log))?).stderr(out);
        process::run(&mut install).map_err(|e| format!("{e}; {} says why", log.display()))
    }

    fn configure(&self) -> Outcome {
        let write = |place: &str, text: &str| {
            let path = self.path("root").join(place);
            fs::write(&path, text).map_err(failed("writing", &path))
        };
        let esp_uuid = format!("{}-{}", &ESP_ID[..4], &ESP_ID[4..]);
        write(
            "etc/fstab",
            &format!(
                "UUID={ROOT_UUID} / ext4 errors=remount-ro 0 1\n\
                 UUID={esp_uuid} /boot/efi vfat umask=0077 0 0\n"
            ),
        )?;
        write("etc/hostname", &format!("{HOST}\n"))?;
        write("etc/issue", "as it was installed\n")?;
        write("root/removed", "there until the increment\n")?;
        // root, without a password: nothing but a serial line leads there.
        let shadow = self.path("root/etc/shadow");
        let users = fs::read_to_string(&shadow).map_err(failed("reading", &shadow))?;
        write("etc/shadow", &users.replacen("root:*:", "root::", 1))?;
        self.tool("mkdir", &["-p", "root/boot/efi", "root/boot/grub"])?;
        self.tool(
            "find",
            &["root/var/cache/apt", "root/var/lib/apt/lists", "-type", "f", "-delete"],
        )?;
        let kernel = self.in_boot("vmlinuz-")?;
        let initrd = self.in_boot("initrd.img-")?;
        write(
            "boot/grub/grub.cfg",
            &format!(
                "serial --unit=0 --speed=115200\n\
                 terminal_input serial console\n\
                 terminal_output serial console\n\
                 set timeout=0\n\
                 menuentry Debian {{\n\
                 search --no-floppy --fs-uuid --set=root {ROOT_UUID}\n\
                 linux /boot/{kernel} root=UUID={ROOT_UUID} ro console=ttyS0,115200 panic=-1\n\
                 initrd /boot/{initrd}\n\
                 }}\n"
            ),
        )
    }

    fn in_boot(&self, beginning: &str) -> Result<String, String> {
        let boot = self.path("root/boot");
        let entries = fs::read_dir(&boot).map_err(failed("reading", &boot))?;
        let mut names = entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned());
        let found = names.find(|name| name.starts_with(beginning));
        found.ok_or_else(|| format!("debootstrap left no {beginning}* in {}", boot.display()))
    }

    fn disk(&self) -> Result<PathBuf, String> {
        let disk = self.path("disk.raw");
        let file = File::create(&disk).map_err(failed("creating", &disk))?;
        file.set_len(DISK_LEN).map_err(failed("growing", &disk))?;
        for part in [BIOS_BOOT, ESP, ROOT] {
            let Part { number, start, len, kind } = part;
            let (first, last) = (start / SECTOR, (start + len) / SECTOR - 1);
            let new = format!("--new={number}:{first}:{last}");
            let code = format!("--typecode={number}:{kind}");
            self.quiet("sgdisk", &[&new, &code, "disk.raw"])?;
        }
        let offset = format!("offset={}", ROOT.start);
        let kib = format!("{}k", ROOT.len / 1024);
        self.tool(
            "mke2fs",
            &[
                "-q", "-t", "ext4", "-F", "-U", ROOT_UUID, "-d", "root", "-E", &offset, "disk.raw",
                &kib,
            ],
        )?;
        self.grub(&disk, &file)?;
        Ok(disk)
    }

    fn quiet(&self, program: &str, arguments: &[&str]) -> Outcome {
        let mut command = process::command(program);
        let command = command.args(arguments).current_dir(&self.folder).stdout(Stdio::null());
        process::run(command)
    }

    /// Both ways into the same menu.
    fn grub(&self, disk: &Path, file: &File) -> Outcome {
        let early = self.path("early.cfg");
        let search = format!(
            "search --no-floppy --fs-uuid --set=root {ROOT_UUID}\n\
             set prefix=($root)/boot/grub\n\
             configfile /boot/grub/grub.cfg\n"
        );
        fs::write(&early, search).map_err(failed("writing", &early))?;
        let image = |platform: &str, out: &str, more: &[&str]| {
            let common = ["-O", platform, "-o", out, "-c", "early.cfg", "-p", "/boot/grub"];
            self.tool("grub-mkimage", &[&common, &GRUB_MODULES[..], more].concat())
        };

        image("x86_64-efi", "BOOTX64.EFI", &["fat"])?;
        let kib = (ESP.len / 1024).to_string();
        self.quiet("mkfs.fat", &["-C", "-F", "32", "-n", "ESP", "-i", ESP_ID, "esp.img", &kib])?;
        self.tool("mmd", &["-i", "esp.img", "::/EFI", "::/EFI/BOOT"])?;
        self.tool("mcopy", &["-i", "esp.img", "BOOTX64.EFI", "::/EFI/BOOT/BOOTX64.EFI"])?;
        self.put(file, disk, "esp.img", ESP)?;

        image("i386-pc", "core.img", &["biosdisk"])?;
        let path = self.path("core.img");
        let mut core = fs::read(&path).map_err(failed("reading", &path))?;
        let path = Path::new("/usr/lib/grub/i386-pc/boot.img");
        let mut boot = fs::read(path).map_err(failed("reading", path))?;
        point_at_core(&mut boot, &mut core, BIOS_BOOT.start / SECTOR)?;
        fs::write(self.path("core.img"), core).map_err(failed("writing", path))?;
        self.put(file, disk, "core.img", BIOS_BOOT)?;
        // What follows in this sector is the protective partition table.
        file.write_all_at(&boot[..440], 0).map_err(failed("writing", disk))
    }

    fn put(&self, file: &File, disk: &Path, content: &str, part: Part) -> Outcome {
        let path = self.path(content);
        let bytes = fs::read(&path).map_err(failed("reading", &path))?;
        if bytes.len() as u64 > part.len {
            return Err(format!("{content} is longer than partition {}", part.number));
        }
        file.write_all_at(&bytes, part.start).map_err(failed("writing", disk))
    }
}

/// Tells GRUB's first sector where the core image begins, and the core image's own first sector
/// where the rest of it is: both load by number of sector, and know no partitions.
fn point_at_core(boot: &mut [u8], core: &mut [u8], at: u64) -> Outcome {
    /// In `boot.img`: 64-bit sector of the core image, the drive, and the jump around the check
    /// of the drive's number.
    const CORE_SECTOR: usize = 0x5c;
    const DRIVE: usize = 0x64;
    const DRIVE_CHECK: usize = 0x66;
    /// At the end of the first sector of `core.img`: first sector (64 bits), count (16 bits) and
    /// segment in memory (16 bits) of the rest.
    const BLOCK_LIST: usize = 0x1f4;
    /// Behind the first sector, which is loaded to 0x8000.
    const SEGMENT: u16 = 0x820;

    let rest = core.len().saturating_sub(512).div_ceil(512);
    let rest = u16::try_from(rest).map_err(|_| "GRUB's core image is too long".to_owned())?;
    if boot.len() != 512 || rest == 0 {
        return Err("GRUB's boot images are not what they were in version 2".into());
    }
    boot[CORE_SECTOR..CORE_SECTOR + 8].copy_from_slice(&at.to_le_bytes());
    boot[DRIVE] = 0xff;
    boot[DRIVE_CHECK..DRIVE_CHECK + 2].copy_from_slice(&[0x90, 0x90]);
    core[BLOCK_LIST..BLOCK_LIST + 8].copy_from_slice(&(at + 1).to_le_bytes());
    core[BLOCK_LIST + 8..BLOCK_LIST + 10].copy_from_slice(&rest.to_le_bytes());
    core[BLOCK_LIST + 10..BLOCK_LIST + 12].copy_from_slice(&SEGMENT.to_le_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_sector_points_at_the_core_image_and_that_at_its_rest() {
        let (mut boot, mut core) = (vec![0; 512], vec![0; 3 * 512 + 1]);
        point_at_core(&mut boot, &mut core, 2048).unwrap();
        assert_eq!(boot[0x5c..0x68], [0, 8, 0, 0, 0, 0, 0, 0, 0xff, 0, 0x90, 0x90]);
        assert_eq!(core[0x1f4..0x200], [1, 8, 0, 0, 0, 0, 0, 0, 3, 0, 0x20, 8]);
        assert!(point_at_core(&mut [0; 510], &mut core, 2048).is_err());
        assert!(point_at_core(&mut boot, &mut [0; 512], 2048).is_err());
    }

    #[test]
    fn partitions_follow_each_other_and_leave_room_for_the_table() {
        assert_eq!(BIOS_BOOT.start + BIOS_BOOT.len, ESP.start);
        assert_eq!(ESP.start + ESP.len, ROOT.start);
        assert_eq!(ROOT.start + ROOT.len, DISK_LEN - MIB);
    }
}
