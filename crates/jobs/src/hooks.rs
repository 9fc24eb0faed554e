//! Commands of the user, around the moment in which a source is held still.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use aiv_backup_engine::Clock;
use aiv_volume_io::{Canceled, Job};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::error::{Error, Result};
use aiv_volume_io::programs::program;

/// Time between two looks at a command that runs.
const PAUSE: Duration = Duration::from_millis(20);

/// How much is kept of what a command says: its end.
const SAID_MAX: usize = 2000;

/// Commands around the moment in which the source is held still. Each is a text for `/bin/sh -c`,
/// as in a crontab: nothing is put into it. What it may want to know is in its environment:
/// `AIV_SOURCE`, the path of the source, and `AIV_HOOK`, `pre-freeze` or `post-thaw`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hooks {
    /// Runs before anything is frozen. When it fails, there is no backup.
    pub pre_freeze: Option<String>,
    /// Runs as soon as everything is thawed, whatever happened since [`pre_freeze`] began.
    ///
    /// [`pre_freeze`]: Self::pre_freeze
    pub post_thaw: Option<String>,
    /// How long each may take. It is killed then, with all that it started in its process group.
    pub limit: Duration,
}

/// Which command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// [`Hooks::pre_freeze`].
    PreFreeze,
    /// [`Hooks::post_thaw`].
    PostThaw,
}

impl Hook {
    /// `pre-freeze` or `post-thaw`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PreFreeze => "pre-freeze",
            Self::PostThaw => "post-thaw",
        }
    }
}

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookReport {
    /// Which one.
    pub hook: Hook,
    /// The command.
    pub command: String,
    /// How long it took.
    pub elapsed: Duration,
    /// How it failed, if it did: its exit status or signal, or the limit, and the end of what it
    /// said.
    pub failure: Option<String>,
}

/// The time between the two commands. The second one runs exactly once: when it is over, or when
/// this is dropped.
pub(crate) struct Around<'a> {
    hooks: &'a Hooks,
    source: &'a Path,
    clock: &'a dyn Clock,
    is_over: AtomicBool,
    reports: Mutex<Vec<HookReport>>,
}

impl<'a> Around<'a> {
    /// Runs the first command for `source`.
    pub(crate) fn begin(
        hooks: &'a Hooks,
        source: &'a Path,
        clock: &'a dyn Clock,
        job: Job<'_>,
    ) -> Result<Self> {
        let reports = Mutex::default();
        let around = Self { hooks, source, clock, is_over: AtomicBool::new(false), reports };
        around.run(Hook::PreFreeze, job);
        let failure = around.reports().first().and_then(|report| report.failure.clone());
        let begun = match failure {
            _ if job.check().is_err() => Err(aiv_backup_engine::Error::Canceled(Canceled).into()),
            Some(failure) => Err(Error::Hook { hook: Hook::PreFreeze, failure }),
            None => Ok(()),
        };
        if begun.is_ok() {
            return Ok(around);
        }
        Err(around.end(begun).expect_err("it failed"))
    }

    /// Runs the second command, unless it ran already.
    pub(crate) fn over(&self) {
        if !self.is_over.swap(true, Ordering::AcqRel) {
            self.run(Hook::PostThaw, Job::silent());
        }
    }

    /// What was done in between, and what the commands did. A failure does not hide that the
    /// second command failed as well.
    pub(crate) fn end<T>(self, result: Result<T>) -> Result<(T, Vec<HookReport>)> {
        self.over();
        let reports = std::mem::take(&mut *self.reports());
        let post = reports.iter().find(|report| report.hook == Hook::PostThaw);
        match (result, post.and_then(|report| report.failure.clone())) {
            (Ok(done), _) => Ok((done, reports)),
            (Err(error), None) => Err(error),
            (Err(error), Some(failure)) => {
                Err(Error::HookToo { hook: Hook::PostThaw, failure, source: Box::new(error) })
            }
        }
    }

    fn run(&self, hook: Hook, job: Job<'_>) {
        let command = match hook {
            Hook::PreFreeze => &self.hooks.pre_freeze,
            Hook::PostThaw => &self.hooks.post_thaw,
        };
        let Some(command) = command else { return };
        let started = self.clock.now();
        let failure = self.shell(command, hook, job).err();
        let elapsed = self.clock.now().saturating_sub(started);
        self.reports().push(HookReport { hook, command: command.clone(), elapsed, failure });
    }

    fn reports(&self) -> MutexGuard<'_, Vec<HookReport>> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shell(&self, text: &str, hook: Hook, job: Job<'_>) -> std::result::Result<(), String> {
        let Self { source, clock, .. } = *self;
        let limit = self.hooks.limit;
        let started = clock.now();
        let mut child = program("sh")
            .env_remove("LC_ALL")
            .arg("-c")
            .arg(text)
            .env("AIV_HOOK", hook.name())
            .env("AIV_SOURCE", source)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("it cannot be started: {error}"))?;
        let said = Arc::new(Mutex::new(Vec::new()));
        let pipes: [Option<Box<dyn Read + Send>>; 2] = [
            child.stdout.take().map(|pipe| Box::new(pipe) as _),
            child.stderr.take().map(|pipe| Box::new(pipe) as _),
        ];
        // Not joined: what it leaves running in the background may keep the pipes open for ever.
        for pipe in pipes.into_iter().flatten() {
            let said = Arc::clone(&said);
            thread::spawn(move || keep_the_end(pipe, &said));
        }
        let how = loop {
            match child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => break status.to_string(),
                Ok(None) if clock.now().saturating_sub(started) < limit && job.check().is_ok() => {
                    clock.sleep(PAUSE);
                }
                Ok(None) if job.check().is_err() => {
                    kill(&mut child);
                    break "it was killed, because the backup was canceled".to_owned();
                }
                Ok(None) => {
                    kill(&mut child);
                    break format!("it did not end within {} s and was killed", limit.as_secs());
                }
                Err(error) => {
                    kill(&mut child);
                    break error.to_string();
                }
            }
        };
        // Its last words may still be on their way.
        clock.sleep(PAUSE);
        let said = said.lock().unwrap_or_else(PoisonError::into_inner);
        let said = String::from_utf8_lossy(&said).trim().to_owned();
        Err(if said.is_empty() { how } else { format!("{how}: {said}") })
    }
}

impl Drop for Around<'_> {
    fn drop(&mut self) {
        self.over();
    }
}

/// Kills a command and what it started.
fn kill(child: &mut Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// Reads to the end, so that the writer is never stopped, and keeps the last bytes.
fn keep_the_end(mut pipe: Box<dyn Read + Send>, said: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = pipe.read(&mut buffer) {
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        said.extend_from_slice(&buffer[..count]);
        let too_many = said.len().saturating_sub(SAID_MAX);
        said.drain(..too_many);
    }
}
