//! What the outside world gives to a command: time, randomness, a terminal, Ctrl-C.

use std::io::{self, IsTerminal};
use std::num::NonZeroUsize;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aiv_backup_engine::Clock;
use aiv_jobs::World;
use aiv_report::{Exit, Failure, Verdict, words};
use aiv_volume_io::{Cancel, Job};

use crate::progress::Show;
use crate::tty;

/// The stop button that Ctrl-C presses.
static CANCEL: Cancel = Cancel::new();

/// Whether the user is being asked something.
static ASKING: AtomicBool = AtomicBool::new(false);

/// One run of a command.
pub struct Session {
    /// One JSON object on standard output instead of text.
    pub json: bool,
    /// Neither progress nor reports of what was done.
    pub quiet: bool,
    /// Time since the start.
    pub clock: SystemClock,
    show: Show,
    /// Whether standard output ends within a list of a JSON object.
    pub(crate) is_in_list: AtomicBool,
}

impl Session {
    /// Begins a run, and lets the process open as many files as it may: a long chain is as many.
    #[must_use]
    pub fn new(json: bool, quiet: bool) -> Self {
        raise_file_limit();
        let clock = SystemClock::start();
        let show = Show::new(quiet, clock);
        Self { json, quiet, clock, show, is_in_list: AtomicBool::new(false) }
    }

    /// A job that shows its progress and stops at Ctrl-C; the second one ends the program.
    pub fn job(&self) -> Job<'_> {
        // Refused after the first time, when the handler is in place already.
        let _ = ctrlc::try_set_handler(|| {
            if ASKING.load(Ordering::Relaxed) || CANCEL.check().is_err() {
                tty::unhush();
                std::process::exit(Exit::Canceled.status().into());
            }
            CANCEL.cancel();
        });
        Job::new(&self.show, &CANCEL)
    }

    /// A line from standard input; Ctrl-C ends the program.
    ///
    /// # Errors
    /// Whatever reading standard input says.
    pub fn read_line(&self) -> io::Result<String> {
        let mut line = String::new();
        self.asking(|| io::stdin().read_line(&mut line))?;
        Ok(line)
    }

    /// Waits for the user, and lets Ctrl-C end the program meanwhile.
    pub(crate) fn asking<T>(&self, ask: impl FnOnce() -> T) -> T {
        let _ = self.job();
        ASKING.store(true, Ordering::Relaxed);
        self.show.clear();
        let answer = ask();
        ASKING.store(false, Ordering::Relaxed);
        answer
    }

    /// Has the user type something only this target has before it is overwritten, unless that
    /// is `settled`.
    ///
    /// # Errors
    /// A refusal when nobody can be asked, or when the answer is another one.
    pub fn confirm(
        &self,
        settled: bool,
        path: &Path,
        len: u64,
        serial: Option<&str>,
    ) -> Result<(), Failure> {
        if settled {
            return Ok(());
        }
        let refused = |message: &str| {
            let hint = "add --yes to overwrite it";
            let verdict = Verdict { code: "not_confirmed", exit: Exit::Refused, hint };
            Failure::new(verdict, format!("{} exists, {message}", path.display()))
        };
        if self.json || !io::stdin().is_terminal() {
            return Err(refused("and nobody could be asked whether to overwrite it"));
        }
        let size = ("size in bytes", len.to_string());
        let (what, token) = serial.map_or(size, |serial| ("serial number", serial.to_owned()));
        self.say(&format!("{} with {} will be overwritten.", path.display(), words::size(len)));
        self.say(&format!("To go on, type its {what}: {token}"));
        let answer = self.read_line().map_err(Failure::io("cannot read the answer"))?;
        if answer.trim() == token { Ok(()) } else { Err(refused("and the answer was another one")) }
    }

    /// Writes a line to standard error, where no progress bar is left.
    pub fn say(&self, line: &str) {
        self.show.clear();
        self.show.say(line);
    }
}

impl World for Session {
    fn root(&self) -> &Path {
        Path::new("/")
    }

    fn clock(&self) -> &dyn Clock {
        &self.clock
    }

    fn now_unix_ms(&self) -> u64 {
        now_unix_ms()
    }

    fn fill_random(&self, bytes: &mut [u8]) -> io::Result<()> {
        getrandom::fill(bytes).map_err(|e| io::Error::other(e.to_string()))
    }

    fn guard(&self, limit: Duration, mounts: &[PathBuf]) -> Command {
        // This program, even when another one has its name by now.
        let mut command = Command::new("/proc/self/exe");
        command.arg0("aiv").arg(GUARD).arg(limit.as_secs().to_string()).args(mounts);
        command
    }
}

/// The command of a frontend that calls [`guard_frozen`]: `freeze-guard SECONDS MOUNT...`.
pub const GUARD: &str = "freeze-guard";

/// Freezes filesystems, and thaws them when standard input ends or `limit` has passed. Signals
/// that ask a program to end do not keep it from that.
pub fn guard_frozen(limit: Duration, mounts: &[PathBuf]) {
    let _ = ctrlc::try_set_handler(|| {});
    let clock = SystemClock::start();
    aiv_jobs::freeze_guard(limit, mounts, &clock, io::stdin(), &mut io::stdout());
}

/// Whether whoever runs this may give files to others.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// One thread per processor.
#[must_use]
pub fn threads() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// Milliseconds since 1970 UTC.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "frontends read the clock, here and nowhere else")]
pub fn now_unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Bytes that never come again.
///
/// # Errors
/// When the system has none.
pub fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|e| Failure::io("no random numbers")(io::Error::other(e.to_string())))?;
    Ok(bytes)
}

/// Bytes for one more use out of a `seed` that [`random`] gave, which is another one afterwards.
pub(crate) fn stretch(seed: &mut [u8; 32], out: &mut [u8]) {
    let mut stream = blake3::Hasher::new_keyed(seed).finalize_xof();
    stream.fill(seed);
    stream.fill(out);
}

/// Time since the start of the program.
#[derive(Clone, Copy)]
pub struct SystemClock(Instant);

impl SystemClock {
    #[expect(clippy::disallowed_methods, reason = "frontends read the clock, here alone")]
    fn start() -> Self {
        Self(Instant::now())
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// A process may open 1,024 files unless it asks for more; failing to get them costs nothing
/// until a chain needs them.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}
