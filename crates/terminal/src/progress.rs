//! Progress on standard error: a bar for people, a line now and then for log files.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aiv_backup_engine::Clock;
use aiv_report::words::{self, size};
use aiv_volume_io::{Notice, Progress, Step};
use indicatif::{ProgressBar, ProgressStyle};

use crate::session::SystemClock;

/// Time between two lines in a log file.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// A dying disk has millions of unreadable places; the report at the end counts them all.
const NOTICES_MAX: u64 = 20;

const TEMPLATE: &str = "{msg:20} {wide_bar} {percent:>3}%  {binary_bytes} of \
                        {binary_total_bytes}  {binary_bytes_per_sec}  {eta} left";

pub(crate) struct Show {
    quiet: bool,
    clock: SystemClock,
    /// The bar, and when a log file got its last line.
    current: Mutex<Option<(ProgressBar, Duration)>>,
    notices: AtomicU64,
}

impl Show {
    pub(crate) fn new(quiet: bool, clock: SystemClock) -> Self {
        Self { quiet, clock, current: Mutex::default(), notices: AtomicU64::new(0) }
    }

    fn current(&self) -> MutexGuard<'_, Option<(ProgressBar, Duration)>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes the bar.
    pub(crate) fn clear(&self) {
        if let Some((bar, _)) = self.current().take() {
            bar.finish_and_clear();
        }
    }

    /// Writes a line above the bar.
    pub(crate) fn say(&self, line: &str) {
        match &*self.current() {
            Some((bar, _)) => bar.suspend(|| write(line)),
            None => write(line),
        }
    }
}

/// When standard error is gone, nothing is left to say it to.
fn write(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

impl Progress for Show {
    fn begin(&self, step: Step, total: u64) {
        if !self.quiet {
            // Draws on standard error, and nothing where that is no terminal.
            let bar = ProgressBar::new(total).with_message(words::step(step));
            let style = ProgressStyle::with_template(TEMPLATE);
            bar.set_style(style.expect("the template is well-formed"));
            *self.current() = Some((bar, self.clock.now()));
        }
    }

    fn advance(&self, step: Step, bytes: u64) {
        let mut current = self.current();
        let Some((bar, logged)) = &mut *current else { return };
        bar.inc(bytes);
        let now = self.clock.now();
        if now.saturating_sub(*logged) >= LINE_INTERVAL && !io::stderr().is_terminal() {
            *logged = now;
            let (done, total) = (size(bar.position()), size(bar.length().unwrap_or(0)));
            write(&format!("{}: {done} of {total}", words::step(step)));
        }
    }

    fn end(&self, _: Step) {
        self.clear();
    }

    fn notice(&self, notice: &Notice) {
        let said = self.notices.fetch_add(1, Ordering::Relaxed);
        if let Notice::Unreadable { extent } = notice
            && said < NOTICES_MAX
        {
            self.say(&format!("unreadable: {} bytes at byte {}", extent.len, extent.start));
        }
    }
}
