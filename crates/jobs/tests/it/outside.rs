//! The outside world, as tests give it to jobs.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aiv_backup_engine::{BackupOptions, Clock};
use aiv_jobs::{BackupJob, Hooks, OpenOptions, World};

/// This machine, with a clock of its own and numbers that are random enough: never twice.
pub(crate) struct Outside {
    started: Instant,
    given: AtomicU64,
}

impl Outside {
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), given: AtomicU64::new(0) }
    }
}

impl Clock for Outside {
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

impl World for Outside {
    fn root(&self) -> &Path {
        Path::new("/")
    }

    fn clock(&self) -> &dyn Clock {
        self
    }

    fn now_unix_ms(&self) -> u64 {
        1_700_000_000_000
    }

    fn fill_random(&self, bytes: &mut [u8]) -> io::Result<()> {
        for chunk in bytes.chunks_mut(8) {
            let next = self.given.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
            chunk.copy_from_slice(&next.to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }

    /// Nothing is frozen here: that takes a program, and is tested with the real one.
    fn guard(&self, _: Duration, _: &[PathBuf]) -> Command {
        Command::new("false")
    }
}

pub(crate) fn plain_job() -> BackupJob {
    BackupJob {
        name: None,
        source_id: None,
        open: OpenOptions::default(),
        marks: Vec::new(),
        options: BackupOptions::default(),
        rate_limit: None,
        still: None,
        hooks: Hooks::default(),
        seal: None,
    }
}
