//! Campaigns over parsers that may not end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// Seconds after which an input that has no end brings the campaign down.
const HANG_SECONDS: u64 = 60;

/// Runs `work`, which keeps the number of the input it is at in `current`, and ends the program when
/// one takes for ever: a loop cannot be stopped from outside.
pub(super) fn watched<T>(
    name: &str,
    current: &AtomicU64,
    work: impl FnOnce() -> Result<T, String>,
) -> Result<T, String> {
    std::thread::scope(|scope| {
        let (done, watched) = channel::<()>();
        scope.spawn(|| watch(name, current, watched));
        let result = work();
        drop(done);
        result
    })
}

fn watch(name: &str, current: &AtomicU64, done: Receiver<()>) {
    let mut seen = u64::MAX;
    while let Err(RecvTimeoutError::Timeout) = done.recv_timeout(Duration::from_secs(HANG_SECONDS))
    {
        let seed = current.load(Ordering::Relaxed);
        if seed == seen {
            eprintln!("{name} seed {seed}: no end after {HANG_SECONDS} s");
            std::process::abort();
        }
        seen = seed;
    }
}
