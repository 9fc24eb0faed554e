use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use aiv_backup_engine::Clock;

/// What the outside world gives to a job.
pub trait World: Sync {
    /// Where `/sys` and `/proc` are found: `/` in production.
    fn root(&self) -> &Path;

    /// Time since an arbitrary moment.
    fn clock(&self) -> &dyn Clock;

    /// Milliseconds since 1970 UTC.
    fn now_unix_ms(&self) -> u64;

    /// Fills `bytes` with random ones that never come again.
    ///
    /// # Errors
    /// When the system has none.
    fn fill_random(&self, bytes: &mut [u8]) -> io::Result<()>;

    /// The command for a process that does nothing but call [`crate::freeze_guard`] with this
    /// limit and these mounts, its standard input and its standard output. No signal meant for
    /// the caller's process may end it.
    fn guard(&self, limit: Duration, mounts: &[PathBuf]) -> Command;
}
