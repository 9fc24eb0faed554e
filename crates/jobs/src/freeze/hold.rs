//! The side of the process that reads the source.

use std::io::{self, BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use aiv_volume_io::{Extent, ReadAt};

use super::guard::word;
use super::thaw;
use crate::error::{FreezeError, Result};
use crate::world::World;

/// Time the guard gets beyond the limit: it waits until a freeze under way was given up.
const GRACE: Duration = Duration::from_secs(30);

/// Filesystems that stay frozen until this is released or dropped, the limit passes, or this
/// process ends in whatever way.
pub(crate) struct Frozen {
    guard: Mutex<Guard>,
    mounts: Vec<PathBuf>,
    limit: Duration,
    /// They are thawed, or nobody knows.
    over: Arc<AtomicBool>,
}

struct Guard {
    child: Child,
    /// The guard thaws when this closes.
    pipe: Option<ChildStdin>,
    lines: Receiver<String>,
    /// Everything was thawed, as far as the guard said.
    is_done: bool,
    /// Nobody needs it frozen any more.
    is_released: bool,
}

impl Frozen {
    /// Freezes the filesystems at `mounts` for at most `limit`.
    pub(crate) fn freeze(mounts: Vec<PathBuf>, limit: Duration, world: &dyn World) -> Result<Self> {
        let failed = |source| FreezeError::Guard { source };
        // Not of the terminal's group: Ctrl-C is for this process, which lets the guard thaw.
        let mut child = world
            .guard(limit, &mounts)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let over = Arc::new(AtomicBool::new(false));
        let (pipe, stdout) = (child.stdin.take(), child.stdout.take());
        let lines = lines_of(stdout, Arc::clone(&over));
        let guard = Mutex::new(Guard { child, pipe, lines, is_done: false, is_released: false });
        let frozen = Self { guard, mounts, limit, over };
        let reply = frozen.guard().lines.recv_timeout(limit.saturating_add(GRACE));
        match reply.as_deref() {
            Ok(word::FROZEN) => Ok(frozen),
            Ok(other) => {
                // It thaws what was frozen already, and ends.
                frozen.guard().is_done = true;
                let what = other.strip_prefix(word::CANNOT).unwrap_or(other).trim().to_owned();
                Err(FreezeError::Cannot { what }.into())
            }
            Err(_) => Err(FreezeError::GuardEnded.into()),
        }
    }

    /// Whether they were thawed too early: nothing that was read can be used.
    pub(crate) fn is_lost(&self) -> bool {
        self.over.load(Ordering::Acquire) && !self.guard().is_released
    }

    /// Thaws, and says whether everything was frozen until now.
    pub(crate) fn thaw(&self) -> std::result::Result<(), FreezeError> {
        let mut guard = self.guard();
        drop(guard.pipe.take());
        guard.is_released = true;
        let reply = guard.lines.recv_timeout(GRACE);
        guard.is_done = reply.is_ok();
        match reply.as_deref() {
            Ok(word::THAWED) => Ok(()),
            Ok(word::LOST) => Err(FreezeError::ThawedByOthers),
            Ok(_) => Err(FreezeError::Expired { limit: self.limit }),
            Err(_) => Err(FreezeError::GuardEnded),
        }
    }

    /// The source, for as long as it is frozen: reading fails afterwards.
    pub(crate) fn watch<'a>(&self, disk: &'a dyn ReadAt) -> FrozenDisk<'a> {
        FrozenDisk { disk, over: Arc::clone(&self.over) }
    }

    fn guard(&self) -> MutexGuard<'_, Guard> {
        self.guard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let mut guard = self.guard();
        drop(guard.pipe.take());
        loop {
            match guard.lines.recv_timeout(GRACE) {
                Ok(_) => guard.is_done = true,
                Err(RecvTimeoutError::Disconnected) => break,
                // It cannot thaw, and goes on trying when this process is gone.
                Err(RecvTimeoutError::Timeout) => return,
            }
        }
        let _ = guard.child.wait();
        if !guard.is_done {
            // It was killed. Thawing what is not frozen does nothing.
            for mount in self.mounts.iter().rev() {
                let _ = thaw(mount);
            }
        }
    }
}

/// What the guard writes, line by line. Whatever follows the first line means that it is over.
fn lines_of(stdout: Option<ChildStdout>, over: Arc<AtomicBool>) -> Receiver<String> {
    let (send, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in stdout.map(BufReader::new).into_iter().flat_map(BufRead::lines) {
            let Ok(line) = line else { break };
            over.fetch_or(line != word::FROZEN, Ordering::AcqRel);
            if send.send(line).is_err() {
                return;
            }
        }
        over.store(true, Ordering::Release);
    });
    lines
}

/// A source that cannot be read any more once it is thawed.
pub(crate) struct FrozenDisk<'a> {
    disk: &'a dyn ReadAt,
    over: Arc<AtomicBool>,
}

impl FrozenDisk<'_> {
    fn check(&self) -> io::Result<()> {
        match self.over.load(Ordering::Acquire) {
            false => Ok(()),
            true => Err(io::Error::new(io::ErrorKind::TimedOut, "the source is frozen no more")),
        }
    }
}

impl ReadAt for FrozenDisk<'_> {
    fn len(&self) -> u64 {
        self.disk.len()
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        self.check()?;
        self.disk.read_exact_at(out, offset)
    }

    fn holes(&self, range: Extent) -> io::Result<Vec<Extent>> {
        self.check()?;
        self.disk.holes(range)
    }
}
