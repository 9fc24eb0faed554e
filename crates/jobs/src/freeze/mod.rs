//! Filesystems held still for as long as a source is read.
//!
//! The kernel freezes a filesystem until somebody thaws it, and no end of a program thaws it. So
//! the freezing is not done by the program that reads the source but by a *guard*: a second
//! process whose only task is to thaw. It freezes, says so, and thaws as soon as it is told to,
//! the time limit passes, or the pipe to the first process closes, which also happens when that
//! one is killed. Should the guard itself be killed, the first process notices and thaws.
//!
//! The guard calls `fsfreeze` of util-linux, on folders it opened before, so that nothing that is
//! mounted, moved or renamed meanwhile can lead the thaw to another place.

mod choice;
mod guard;
mod hold;

pub(crate) use choice::{Choice, choose};
pub use guard::freeze_guard;
pub(crate) use hold::Frozen;

use std::io;
use std::path::Path;

use aiv_volume_io::programs::{program, said};

/// What one attempt to thaw met.
#[derive(Debug, PartialEq, Eq)]
enum Thawed {
    /// It was frozen and is not any more.
    Now,
    /// Somebody else had thawed it.
    Before,
}

fn thaw(folder: &Path) -> io::Result<Thawed> {
    let output = program("fsfreeze").arg("--unfreeze").arg(folder).output()?;
    let message = said(&output);
    match output.status.success() {
        true => Ok(Thawed::Now),
        // EINVAL, the kernel's answer for a filesystem that is not frozen.
        false if message.contains("Invalid argument") => Ok(Thawed::Before),
        false => Err(io::Error::other(message)),
    }
}
