use std::error::Error;
use std::io;
use std::path::Path;

use aiv_restore_engine::{self as restore, Failed};
use aiv_volume_io::causes;
use serde_json::{Value, json};

use crate::Outcome;
use crate::judge::judge;
use crate::words::{clean, without_secret_keys};

/// How a command ended, from the best to the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// Done and proven.
    Done,
    /// Done, and the user should look at something.
    Warnings,
    /// Refused for safety; nothing was written.
    Refused,
    /// The command line is wrong.
    Usage,
    /// Failed; the code says why.
    Failed,
    /// Sealed, and no key was given, or not the right one; nothing was changed.
    Locked,
    /// Damage was found.
    Damage,
    /// The user asked to stop.
    Canceled,
}

impl Exit {
    /// The exit status of a process.
    #[must_use]
    pub const fn status(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Warnings => 3,
            Self::Damage => 4,
            Self::Refused => 5,
            Self::Locked => 6,
            Self::Canceled => 130,
        }
    }
}

/// What an error means to somebody who has to act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// A stable word for scripts.
    pub code: &'static str,
    /// How the command ended.
    pub exit: Exit,
    /// The next step.
    pub hint: &'static str,
}

/// Something that was not done, and all a frontend says about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// What it means.
    pub verdict: Verdict,
    /// What happened, with all causes, in one line. May contain text from a disk.
    pub message: String,
    /// What was done all the same.
    pub done: Option<Box<Outcome>>,
}

impl Failure {
    /// A failure a frontend found by itself.
    #[must_use]
    pub fn new(verdict: Verdict, message: impl Into<String>) -> Self {
        Self { verdict, message: message.into(), done: None }
    }

    /// The failure an error of any library, or of the system, is.
    #[must_use]
    pub fn of(error: &(dyn Error + 'static)) -> Self {
        Self::new(judge(error), causes(error))
    }

    /// A restore to `target` that failed, with what it left.
    #[must_use]
    pub fn of_restore(failed: &Failed, target: &Path) -> Self {
        let mut failure = Self::of(&failed.error);
        if let restore::Error::Io { .. } | restore::Error::Mismatch { .. } = &failed.error {
            failure = failure.about(target.display());
        }
        match (failed.left, &failed.error) {
            // A refusal says so itself.
            (_, restore::Error::Refused(_)) => failure,
            (left, _) => Self { message: format!("{} ({left})", failure.message), ..failure },
        }
    }

    /// Wraps an error of the system with what was being done: `"cannot open /backup"`.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |error| Self::of(&error).about(what)
    }

    /// The message as a line for people.
    #[must_use]
    pub fn line(&self) -> String {
        clean(&format!("aiv: {}", without_secret_keys(&self.message)))
    }

    /// The same about something, which is put in front of the message.
    #[must_use]
    pub fn about(self, what: impl std::fmt::Display) -> Self {
        Self { message: format!("{what}: {}", self.message), ..self }
    }

    /// The same after something was done, which is told as well.
    #[must_use]
    pub fn after(self, done: Outcome) -> Self {
        Self { done: Some(Box::new(done)), ..self }
    }

    /// What was done, and an object `error` with `code`, `message` and `hint`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let Verdict { code, hint, .. } = self.verdict;
        let mut json = self.done.as_ref().map_or_else(|| json!({}), |done| done.to_json());
        let message = without_secret_keys(&self.message);
        json["error"] = json!({"code": code, "message": message, "hint": hint});
        json
    }
}

impl<E: Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::of(&error)
    }
}
