//! A virtual machine that starts as a real one does: firmware, boot loader, kernel, all from its
//! disk; and a conversation with it over its serial line.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::super::failed;
use super::super::machine::{self, Running};
use crate::{Outcome, process};

/// More than any start of a system says; a machine that says more is in a loop.
const SAID_MAX: usize = 4 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Firmware {
    /// SeaBIOS, which comes with QEMU.
    Bios,
    /// OVMF, with new variables: no boot entry but what it finds on the disk.
    Uefi,
}

impl Firmware {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bios => "BIOS",
            Self::Uefi => "UEFI",
        }
    }

    /// Writes to `disk` go to a file of the machine's own that ends with it.
    fn command(self, disk: &Path, folder: &Path, limit: Duration) -> Result<Command, String> {
        let mut command = machine::qemu(limit);
        command.args(["-accel", "tcg,thread=multi", "-smp", "2", "-m", "768", "-nic", "none"]);
        command.args(["-display", "none", "-serial", "stdio", "-no-reboot"]);
        let drive = format!("file={},format=raw,if=virtio,snapshot=on", disk.display());
        command.args(["-drive", &drive]);
        if self == Self::Uefi {
            let variables = folder.join("uefi-variables.fd");
            fs::copy("/usr/share/OVMF/OVMF_VARS_4M.fd", &variables)
                .map_err(failed("writing", &variables))?;
            let flash = "if=pflash,format=raw";
            let code = format!("{flash},readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd");
            let variables = format!("{flash},file={}", variables.display());
            command.args(["-machine", "q35", "-drive", &code, "-drive", &variables]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Ok(command)
    }
}

/// What goes over the serial line, both ways.
pub(super) struct Conversation {
    /// Ends the machine when it is dropped.
    _child: Running,
    keyboard: ChildStdin,
    chunks: mpsc::Receiver<Vec<u8>>,
    /// Said and not waited for yet.
    unread: Text,
    deadline: Instant,
}

impl Conversation {
    /// Switches a machine on, for `limit` at most.
    pub(super) fn begin(
        firmware: Firmware,
        disk: &Path,
        folder: &Path,
        limit: Duration,
    ) -> Result<Self, String> {
        let mut command = firmware.command(disk, folder, limit)?;
        let line = process::describe(&command);
        let child = command.spawn().map_err(|e| format!("cannot start `{line}`: {e}"))?;
        let mut child = Running(child);
        let keyboard = child.0.stdin.take().ok_or("the machine has no keyboard")?;
        let mut stdout = child.0.stdout.take().ok_or("the machine has no serial line")?;
        let (send, chunks) = mpsc::channel();
        thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(len @ 1..) = stdout.read(&mut chunk) {
                if send.send(chunk[..len].to_vec()).is_err() {
                    return;
                }
            }
        });
        let unread = Text::default();
        Ok(Self { _child: child, keyboard, chunks, unread, deadline: Instant::now() + limit })
    }

    /// What was said before `marker`, once that was said. A prompt ends without a line feed, so
    /// nothing waits for one.
    pub(super) fn wait_for(&mut self, marker: &str) -> Result<String, Failure> {
        let mut said = 0;
        loop {
            if let Some(before) = self.unread.take_until(marker) {
                return Ok(before);
            }
            let left = self.deadline.saturating_duration_since(Instant::now());
            match self.chunks.recv_timeout(left) {
                Ok(chunk) => {
                    said += chunk.len();
                    self.unread.push(&chunk);
                    if said > SAID_MAX {
                        return Err(Failure::Endless);
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    return Err(Failure::TooLate { last: self.unread.last_line() });
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return Err(Failure::Stopped { last: self.unread.last_line() });
                }
            }
        }
    }

    /// Until the machine is off.
    pub(super) fn wait_for_end(&mut self) -> Result<(), Failure> {
        // Never said: no control character becomes text.
        match self.wait_for("\0") {
            Ok(_) | Err(Failure::Stopped { .. }) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// Types a line.
    pub(super) fn say(&mut self, line: &str) -> Outcome {
        let typed = self.keyboard.write_all(format!("{line}\n").as_bytes());
        typed.and_then(|()| self.keyboard.flush()).map_err(|e| format!("typing '{line}': {e}"))
    }
}

/// Why something that was waited for was not said.
#[derive(Debug)]
pub(super) enum Failure {
    TooLate { last: String },
    Stopped { last: String },
    Endless,
}

impl From<Failure> for String {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::TooLate { last } => format!("nothing more in time; the last it said: {last}"),
            Failure::Stopped { last } => format!("the machine stopped; the last it said: {last}"),
            Failure::Endless => format!("the machine said more than {SAID_MAX} bytes"),
        }
    }
}

/// Printable text, one character for one byte, without what moves a terminal's cursor.
#[derive(Default)]
struct Text {
    text: String,
    /// In a sequence that began with an escape character.
    is_escaped: bool,
}

impl Text {
    fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match (self.is_escaped, byte) {
                (_, 0x1b) => self.is_escaped = true,
                // `ESC [ 1 ; 31 m`: ends with a letter.
                (true, letter) => self.is_escaped = !letter.is_ascii_alphabetic(),
                (false, b'\n' | b' '..=b'~') => self.text.push(char::from(*byte)),
                (false, _) => {}
            }
        }
    }

    /// Removes the text up to the first `marker` and that, and returns what was before it.
    fn take_until(&mut self, marker: &str) -> Option<String> {
        let at = self.text.find(marker)?;
        let before = self.text[..at].to_owned();
        self.text.drain(..at + marker.len());
        Some(before)
    }

    fn last_line(&self) -> String {
        let line = self.text.lines().rev().find(|line| !line.trim().is_empty());
        line.unwrap_or("nothing").trim().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_is_found_in_pieces_and_without_a_line_feed() {
        let mut text = Text::default();
        text.push(b"Debian\r\n\x1b[1;31maiv-boot lo");
        assert_eq!(text.take_until("login: "), None);
        text.push(b"gin: ");
        assert_eq!(text.take_until("login: ").as_deref(), Some("Debian\naiv-boot "));
        assert_eq!(text.last_line(), "nothing");
        text.push(b"one\ntwo \xff\n\n");
        assert_eq!(text.last_line(), "two");
    }
}
