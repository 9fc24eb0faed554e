//! A Debian that was restored to a larger disk starts, with BIOS and with UEFI, up to a shell.
//!
//! Everything a disk needs to start is what a restore may break without any filesystem noticing:
//! the code in the first sector, a boot partition without a filesystem, sector numbers in boot
//! code, identities that the loader, the kernel's command line and `fstab` look for. So the
//! judge is a machine's firmware and the system on the disk itself. At the end the same judge
//! has to find a disk without its boot partitions wanting.

mod debian;
mod firmware;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{aiv, failed};
use crate::{Outcome, process, setup};
use debian::{BIOS_BOOT, ESP, HOST, Part, ROOT};
use firmware::{Conversation, Failure, Firmware};

pub(super) const NAME: &str = "boot";

/// Twice the length of the disk that is backed up.
const TARGET_LEN: u64 = 2 << 30;
/// A start takes a minute where nothing else runs.
const LIMIT: Duration = Duration::from_secs(400);
/// Above the prompt, since the increment.
const ISSUE: &str = "changed between full and increment";
const TELL: &str = include_str!("tell.sh");
const CHANGED_LEN: usize = 8 << 20;

pub(super) fn prove(folder: &Path) -> Outcome {
    if !setup::is_root() {
        return Err("the scenario mounts a filesystem, which needs root: run it with sudo".into());
    }
    let pristine = debian::provide(folder)?;
    let proof = Proof { folder: folder.join(NAME), aiv: aiv()? };
    if proof.folder.exists() {
        fs::remove_dir_all(&proof.folder).map_err(failed("emptying", &proof.folder))?;
    }
    fs::create_dir_all(&proof.folder).map_err(failed("creating", &proof.folder))?;

    proof.copy(&pristine, "disk.raw")?;
    proof.aiv(&["backup", "disk.raw", "--to", "backups", "--name", "debian"])?;
    proof.change()?;
    proof.aiv(&["backup", "disk.raw", "--to", "backups", "--name", "debian", "--incremental"])?;
    proof.check_images()?;
    proof.aiv(&["verify", "backups"])?;

    let target = proof.path("restored.raw");
    let file = File::create(&target).map_err(failed("creating", &target))?;
    file.set_len(TARGET_LEN).map_err(failed("growing", &target))?;
    proof.aiv(&["restore", "backups@latest", "--to", "restored.raw", "--grow", "last", "--yes"])?;
    proof.check_disk()?;

    let bios = proof.starts(Firmware::Bios)?;
    let uefi = proof.starts(Firmware::Uefi)?;
    proof.does_not_start(Firmware::Bios, BIOS_BOOT, bios)?;
    proof.does_not_start(Firmware::Uefi, ESP, uefi)
}

struct Proof {
    folder: PathBuf,
    aiv: PathBuf,
}

impl Proof {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn aiv(&self, arguments: &[&str]) -> Outcome {
        println!("    $ aiv {}", arguments.join(" "));
        let begun = Instant::now();
        let mut aiv = process::command(&self.aiv.to_string_lossy());
        process::run(aiv.args(arguments).arg("--quiet").current_dir(&self.folder))?;
        println!("    {:.1} s", begun.elapsed().as_secs_f64());
        Ok(())
    }

    fn copy(&self, from: &Path, to: &str) -> Outcome {
        let mut copy = process::command("cp");
        process::run(copy.arg("--sparse=always").arg(from).arg(self.path(to)))
    }

    /// As a system in use would: a text, a script, a large file; and one file goes.
    fn change(&self) -> Outcome {
        let root = Mounted::new(&self.path("disk.raw"), ROOT, self.path("mnt"))?;
        let write = |place: &str, bytes: &[u8]| {
            let path = root.0.join(place);
            fs::write(&path, bytes).map_err(failed("writing", &path))
        };
        write("etc/issue", format!("{ISSUE}\n").as_bytes())?;
        write("root/tell", TELL.as_bytes())?;
        let pattern = |at: usize| (at.wrapping_mul(0x9e37_79b9) >> 13).to_le_bytes()[0];
        write("root/changed", &(0..CHANGED_LEN).map(pattern).collect::<Vec<u8>>())?;
        let removed = root.0.join("root/removed");
        fs::remove_file(&removed).map_err(failed("removing", &removed))?;
        let mut sum = process::command("sh");
        process::run(
            sum.args(["-c", "sha256sum changed > changed.sha256"]).current_dir(root.0.join("root")),
        )?;
        root.unmount()
    }

    /// One full image and one increment: the restore has to need both.
    fn check_images(&self) -> Outcome {
        let folder = self.path("backups");
        let entries = fs::read_dir(&folder).map_err(failed("reading", &folder))?;
        let names: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        let count = |kind: &str| {
            names.iter().filter(|name| name.extension().is_some_and(|it| it == kind)).count()
        };
        if (count("aiv"), count("aii")) == (1, 1) {
            Ok(())
        } else {
            Err(format!("not one full image and one increment in {}", folder.display()))
        }
    }

    fn check_disk(&self) -> Outcome {
        let mut sgdisk = process::command("sgdisk");
        let output = sgdisk.arg("--verify").arg(self.path("restored.raw")).output();
        let output = output.map_err(|e| format!("sgdisk: {e}"))?;
        let said = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() || !said.contains("No problems found") {
            return Err(format!("sgdisk does not like the restored table: {}", said.trim()));
        }
        let root = format!("{}?offset={}", self.path("restored.raw").display(), ROOT.start);
        process::run(process::command("e2fsck").args(["-fn", &root]))
    }

    /// How long it took to the prompt.
    fn starts(&self, firmware: Firmware) -> Result<Duration, String> {
        let name = firmware.name();
        println!("    {name}: switched on");
        let begun = Instant::now();
        let mut machine = self.switch_on(firmware, "restored.raw", LIMIT)?;
        let fail = |why: Failure| format!("{name}: no login prompt: {}", String::from(why));
        let banner = machine.wait_for(&format!("{HOST} login: ")).map_err(fail)?;
        let took = begun.elapsed();
        println!("    {name}: login prompt after {:.1} s", took.as_secs_f64());
        if !banner.contains(ISSUE) {
            return Err(format!("{name}: the text above the prompt is not that of the increment"));
        }
        machine.say("root")?;
        machine.wait_for("~# ")?;
        machine.say("sh tell")?;
        let told = machine.wait_for("tell: end")?;
        for line in told.lines().filter(|line| line.starts_with("tell: ")) {
            println!("    {name}: {line}");
        }
        check_told(firmware, &told).map_err(|missing| format!("{name}: not said: {missing}"))?;
        machine.say("poweroff")?;
        machine.wait_for_end().map_err(|why| format!("{name}: not off: {}", String::from(why)))?;
        Ok(took)
    }

    /// The same disk without one of its boot partitions must not, in more time than it took.
    fn does_not_start(&self, firmware: Firmware, without: Part, took: Duration) -> Outcome {
        let name = firmware.name();
        self.copy(&self.path("restored.raw"), "broken.raw")?;
        let path = self.path("broken.raw");
        let file = File::options().write(true).open(&path).map_err(failed("opening", &path))?;
        let mib = vec![0; 1 << 20];
        for at in (without.start..without.start + without.len).step_by(mib.len()) {
            file.write_all_at(&mib, at).map_err(failed("writing", &path))?;
        }
        let limit = took * 3 / 2;
        let mut machine = self.switch_on(firmware, "broken.raw", limit)?;
        let last = match machine.wait_for("login: ") {
            Ok(_) => return Err(format!("{name}: it starts without its boot partition")),
            Err(Failure::TooLate { last } | Failure::Stopped { last }) => last,
            Err(Failure::Endless) => "too much".into(),
        };
        drop(machine);
        fs::remove_file(&path).map_err(failed("removing", &path))?;
        let limit = limit.as_secs();
        println!("    {name}: no prompt in {limit} s without the boot partition, but: {last}");
        Ok(())
    }

    fn switch_on(
        &self,
        firmware: Firmware,
        disk: &str,
        limit: Duration,
    ) -> Result<Conversation, String> {
        Conversation::begin(firmware, &self.path(disk), &self.folder, limit)
    }
}

/// The first thing that the system on the disk should have said and did not.
fn check_told(firmware: Firmware, told: &str) -> Result<(), String> {
    const FILESYSTEM: &str = "tell: filesystem of ";
    let said = |line: &str| told.lines().any(|told| told.trim() == line);
    let expected = [
        &format!("tell: firmware {}", firmware.name()),
        "tell: changed file is whole",
        "tell: removed file is gone",
        "tell: EFI system partition is mounted",
        "tell: root filesystem can be written",
        "tell: system is running",
    ];
    if let Some(line) = expected.into_iter().find(|line| !said(line)) {
        return Err(line.to_owned());
    }
    let bytes = told.lines().find_map(|line| line.strip_prefix(FILESYSTEM)?.split(' ').next());
    let bytes: u64 = bytes.unwrap_or_default().parse().unwrap_or(0);
    // Of what the partition has now, the filesystem's own tables take less than a tenth.
    let partition = TARGET_LEN - ROOT.start;
    if bytes > partition / 10 * 9 && bytes <= partition {
        Ok(())
    } else {
        Err(format!("a filesystem of nearly {partition} bytes"))
    }
}

/// A filesystem that is unmounted when nobody needs it any more.
struct Mounted(PathBuf);

impl Mounted {
    fn new(disk: &Path, part: Part, folder: PathBuf) -> Result<Self, String> {
        fs::create_dir_all(&folder).map_err(failed("creating", &folder))?;
        let options = format!("loop,offset={},sizelimit={}", part.start, part.len);
        let mut mount = process::command("mount");
        process::run(mount.args(["-o", &options]).arg(disk).arg(&folder))?;
        Ok(Self(folder))
    }

    fn unmount(self) -> Outcome {
        let done = process::run(process::command("umount").arg(&self.0));
        if done.is_ok() {
            std::mem::forget(self);
        }
        done
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = process::run(process::command("umount").arg(&self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLD: &str = "sh tell\ntell: firmware BIOS\ntell: filesystem of 2000000000 bytes\n\
        tell: changed file is whole\ntell: removed file is gone\n\
        tell: EFI system partition is mounted\ntell: root filesystem can be written\n\
        tell: system is running\n";

    #[test]
    fn a_system_that_says_all_of_it_is_believed() {
        assert_eq!(check_told(Firmware::Bios, TOLD), Ok(()));
    }

    #[test]
    fn a_system_that_leaves_anything_out_is_not() {
        for line in TOLD.lines().skip(1) {
            let rest = TOLD.replace(line, "");
            assert!(check_told(Firmware::Bios, &rest).is_err(), "{line}");
        }
        assert!(check_told(Firmware::Uefi, TOLD).is_err());
        let small = TOLD.replace("2000000000", "1000000000");
        assert!(check_told(Firmware::Bios, &small).is_err());
    }
}
