//! Answers on standard output, complaints on standard error.

use std::io::{self, ErrorKind, Write};

use aiv_report::words::clean;
use aiv_report::{Exit, Failure, Outcome};

use crate::session::Session;

impl Session {
    /// Shows what a command has to say, as JSON where that was asked for.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn show(&self, outcome: &Outcome) -> Result<Exit, Failure> {
        if self.json {
            print(&format!("{}\n", outcome.to_json()))?;
        } else if !(self.quiet && outcome.is_report) {
            print(&outcome.text)?;
        }
        for warning in &outcome.warnings {
            self.say(&format!("warning: {}", clean(warning)));
        }
        Ok(outcome.exit)
    }

    /// Says what was done all the same, what was not, and what to do next.
    #[must_use]
    pub fn complain(&self, failure: &Failure) -> Exit {
        if self.json {
            // When standard output is gone, the exit status still tells.
            let _ = print(&format!("{}\n", failure.to_json()));
        } else {
            // As above.
            let _ = failure.done.as_ref().map(|done| self.show(done));
            self.say(&failure.line());
            self.say(&format!("     {}", failure.verdict.hint));
        }
        failure.verdict.exit
    }
}

/// Writes to standard output. A reader that has seen enough is no error.
///
/// # Errors
/// When standard output cannot be written.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(Failure::io("cannot write to standard output")),
    }
}
