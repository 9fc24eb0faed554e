//! Programs of the system: found where a system keeps them, and never ended halfway.
//!
//! Nothing in this crate runs one by itself.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Where a system keeps the programs of its administrator. A search path that a service or a
/// timer was started with often lacks some of them, and must not decide what runs as root.
const FOLDERS: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// The program `name` of the system, to be run with messages in English and nothing to read.
/// Ctrl-C does not reach it: nothing of what is done here should end halfway.
#[must_use]
pub fn program(name: &str) -> Command {
    let places = FOLDERS.map(|folder| Path::new(folder).join(name));
    let found = places.into_iter().find(|place| place.is_file());
    let mut command = Command::new(found.unwrap_or_else(|| name.into()));
    command.env("LC_ALL", "C").stdin(Stdio::null()).process_group(0);
    command
}

/// What a finished program said on standard error, in one line, or how it ended.
#[must_use]
pub fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.is_empty() { output.status.to_string() } else { line }
}

/// Runs a program to its end. It must succeed.
///
/// # Errors
/// That it cannot be started, or what it said when it failed.
pub fn run(name: &str, args: &[&str]) -> io::Result<String> {
    let failed = |error: io::Error| io::Error::new(error.kind(), format!("{name}: {error}"));
    let output = program(name).args(args).output().map_err(failed)?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(io::Error::other(format!("{name}: {}", said(&output))))
    }
}
