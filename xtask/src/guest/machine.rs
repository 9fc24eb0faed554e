//! A virtual machine, in software emulation, and what it says over its serial line.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::failed;
use crate::{Outcome, process};

/// What the first script says at the end, followed by the exit status.
const ENDED: &str = "guest: ended ";
const MEMORY_MIB: u32 = 768;
/// How much later than its limit a machine is ended that nobody waits for.
const GRACE: Duration = Duration::from_secs(20);

pub(super) struct Machine<'a> {
    pub(super) kernel: &'a Path,
    pub(super) initramfs: PathBuf,
    pub(super) disks_mib: &'a [u64],
    pub(super) limit: Duration,
}

impl Machine<'_> {
    /// Boots it, shows what it says, and waits for its exit status. `folder` is emptied and holds
    /// its disks.
    pub(super) fn run(&self, folder: &Path) -> Outcome {
        if folder.exists() {
            fs::remove_dir_all(folder).map_err(failed("emptying", folder))?;
        }
        fs::create_dir_all(folder).map_err(failed("creating", folder))?;
        let mut command = self.command(folder)?;
        let line = process::describe(&command);
        let mut child =
            Running(command.spawn().map_err(|e| format!("cannot start `{line}`: {e}"))?);
        let deadline = Instant::now() + self.limit;
        let lines = lines_of(&mut child.0)?;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match lines.recv_timeout(left) {
                Ok(said) => {
                    println!("    {said}");
                    if let Some(status) = said.strip_prefix(ENDED) {
                        child.may_switch_off();
                        return match status.trim() {
                            "0" => Ok(()),
                            status => Err(format!("the scenario failed ({status})")),
                        };
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    return Err(format!("no end after {} s", self.limit.as_secs()));
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return Err("the machine stopped without an exit status".into());
                }
            }
        }
    }

    fn command(&self, folder: &Path) -> Result<Command, String> {
        let mut command = qemu(self.limit);
        // Never KVM: where it exists inside another virtual machine, guests may hang.
        command.args(["-accel", "tcg", "-cpu", "max", "-smp", "2"]);
        command.args(["-m", &MEMORY_MIB.to_string(), "-nodefaults", "-no-user-config"]);
        command.args(["-display", "none", "-serial", "stdio", "-no-reboot"]);
        command.arg("-kernel").arg(self.kernel).arg("-initrd").arg(&self.initramfs);
        // Where others use the processors, timers are late, and the kernel takes them for broken.
        command.args(["-append", "console=ttyS0 quiet panic=-1 no_timer_check"]);
        for (number, mib) in self.disks_mib.iter().enumerate() {
            let disk = folder.join(format!("disk{number}"));
            let file = File::create(&disk).map_err(failed("creating", &disk))?;
            file.set_len(mib << 20).map_err(failed("growing", &disk))?;
            let drive = format!("file={},if=none,id=disk{number},format=raw", disk.display());
            let device = format!("nvme,drive=disk{number},serial=GUEST{number}");
            command.args(["-drive", &drive, "-device", &device]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        Ok(command)
    }
}

/// The emulator, ended a moment after `limit` even when this program is killed and cannot.
pub(super) fn qemu(limit: Duration) -> Command {
    let mut command = process::command("timeout");
    let limit = (limit + GRACE).as_secs().to_string();
    command.args(["--kill-after", "5", &limit, "qemu-system-x86_64"]);
    command
}

/// A machine that is switched off when nobody waits for it any more.
pub(super) struct Running(pub(super) Child);

impl Running {
    /// Waits a moment for the machine to do so by itself.
    fn may_switch_off(&mut self) {
        for _ in 0..50 {
            if self.0.try_wait().is_ok_and(|status| status.is_some()) {
                return;
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Asked, and not killed: it is `timeout`, which passes that on to the machine.
        if let Some(pid) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.0.wait();
    }
}

fn lines_of(child: &mut Child) -> Result<mpsc::Receiver<String>, String> {
    let stdout = child.stdout.take().ok_or("the machine has no serial line")?;
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            let text = String::from_utf8_lossy(&line);
            let shown: String = text.chars().filter(|c| !c.is_control()).collect();
            if send.send(shown).is_err() {
                return;
            }
        }
    });
    Ok(receive)
}
