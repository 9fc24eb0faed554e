//! The process that freezes, waits, and thaws whatever happens.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio, id};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use aiv_backup_engine::Clock;

use super::{Thawed, thaw};
use aiv_volume_io::programs::{program, said};

/// Time between two attempts at the same thing.
const PAUSE: Duration = Duration::from_millis(20);

/// What the guard writes: one word in a line, and after some of them a blank and more.
pub(super) mod word {
    pub(crate) const FROZEN: &str = "frozen";
    pub(crate) const CANNOT: &str = "cannot";
    pub(crate) const THAWED: &str = "thawed";
    pub(crate) const EXPIRED: &str = "expired";
    pub(crate) const LOST: &str = "lost";
}

/// Freezes the filesystems at `mounts`, says so in `output`, waits until `input` ends, says
/// anything, or `limit` has passed since the call, and thaws them all. Frontends run this in a
/// process of its own, see [`crate::World::guard`]; it returns when everything is thawed. What
/// goes wrong is said in `output`, and does not keep it from thawing.
pub fn freeze_guard(
    limit: Duration,
    mounts: &[PathBuf],
    clock: &dyn Clock,
    input: impl Read + Send + 'static,
    output: &mut dyn Write,
) {
    let deadline = clock.now().saturating_add(limit);
    let opened: io::Result<Vec<Folder>> = mounts.iter().map(|mount| Folder::open(mount)).collect();
    let folders = match opened {
        Ok(folders) => folders,
        Err(error) => return say(output, &format!("{} {error}", word::CANNOT)),
    };
    let told = told(input);
    let mut frozen = Vec::new();
    let mut problem = None;
    for folder in &folders {
        let result = freeze(folder, deadline, clock, &told);
        // One that refused is not frozen, or was frozen by somebody else.
        if !matches!(result, Err(Unfrozen::Refused(_))) {
            frozen.push(folder);
        }
        if let Err(Unfrozen::Refused(why) | Unfrozen::GivenUp(why)) = result {
            problem = Some(format!("{} {}: {why}", word::CANNOT, folder.mount.display()));
            break;
        }
    }
    // When nobody listens any more, `told` says so too.
    let is_whole = problem.is_none();
    say(output, problem.as_deref().unwrap_or(word::FROZEN));
    let mut end = word::THAWED;
    if is_whole {
        let left = deadline.saturating_sub(clock.now());
        if told.recv_timeout(left) == Err(RecvTimeoutError::Timeout) {
            end = word::EXPIRED;
            say(output, word::EXPIRED);
        }
    }
    for folder in frozen.iter().rev() {
        if folder.thaw_until_thawed(clock) == Thawed::Before && is_whole {
            end = word::LOST;
        }
    }
    if is_whole && end != word::EXPIRED {
        say(output, end);
    }
}

/// Tells when the other side has something to say, or is gone.
fn told(input: impl Read + Send + 'static) -> Receiver<()> {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        let _ = BufReader::new(input).read_line(&mut String::new());
        let _ = send.send(());
    });
    receive
}

fn say(output: &mut dyn Write, line: &str) {
    // Nobody listens any more: then the task is to thaw, and no error may keep it from that.
    let _ = writeln!(output, "{line}").and_then(|()| output.flush());
}

/// A mount point, kept open: it stays reachable, and cannot be unmounted.
struct Folder<'a> {
    mount: &'a Path,
    file: File,
}

impl<'a> Folder<'a> {
    fn open(mount: &'a Path) -> io::Result<Self> {
        let failed = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", mount.display()));
        Ok(Self { mount, file: File::open(mount).map_err(failed)? })
    }

    /// A path to the open folder, for programs started by this process.
    fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", id(), self.file.as_raw_fd()).into()
    }

    /// Never gives up: there is nothing worse than a filesystem that stays frozen.
    fn thaw_until_thawed(&self, clock: &dyn Clock) -> Thawed {
        loop {
            match thaw(&self.path()) {
                Ok(thawed) => return thawed,
                Err(_) => clock.sleep(PAUSE),
            }
        }
    }
}

/// Why a filesystem is not frozen, in words.
enum Unfrozen {
    /// The kernel refused.
    Refused(String),
    /// It took too long. It may have come about all the same.
    GivenUp(String),
}

/// Freezes one filesystem, which waits for all writes under way.
fn freeze(
    folder: &Folder<'_>,
    deadline: Duration,
    clock: &dyn Clock,
    told: &Receiver<()>,
) -> Result<(), Unfrozen> {
    let mut command = program("fsfreeze");
    command.arg("--freeze").arg(folder.path()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| Unfrozen::Refused(format!("fsfreeze: {e}")))?;
    loop {
        if let Some(status) = child.try_wait().map_err(|e| Unfrozen::GivenUp(e.to_string()))? {
            let mut stderr = Vec::new();
            if let Some(pipe) = child.stderr.take() {
                let _ = pipe.take(4096).read_to_end(&mut stderr);
            }
            let output = Output { status, stdout: Vec::new(), stderr };
            return match output.status.success() {
                true => Ok(()),
                false => Err(Unfrozen::Refused(said(&output))),
            };
        }
        let is_late = clock.now() >= deadline;
        if is_late || told.try_recv() != Err(mpsc::TryRecvError::Empty) {
            let _ = child.kill();
            // Until it is gone, the freeze may still come about.
            let _ = child.wait();
            let why = if is_late { "writes under way did not end in time" } else { "given up" };
            return Err(Unfrozen::GivenUp(why.to_owned()));
        }
        clock.sleep(PAUSE);
    }
}
