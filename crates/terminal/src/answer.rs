//! Answers on standard output, complaints on standard error.

use std::fmt;
use std::io::{self, BufWriter, ErrorKind, Write};

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

/// Writes a long text to standard output while `tell` tells it. A reader that has seen enough is
/// no error, and ends it.
///
/// # Errors
/// When standard output cannot be written; else what `tell` returns is the value.
pub fn print_stream<E>(
    tell: impl FnOnce(&mut dyn fmt::Write) -> Result<(), E>,
) -> Result<Result<(), E>, Failure> {
    let mut stream = Stream { out: BufWriter::new(io::stdout().lock()), failed: None };
    let told = tell(&mut stream);
    ended(stream, told)
}

/// Writes bytes to standard output while `tell` tells them. A reader that has seen enough is no
/// error, and ends it.
///
/// # Errors
/// When standard output cannot be written; else what `tell` returns is the value.
pub fn print_bytes<E>(
    tell: impl FnOnce(&mut dyn Write) -> Result<(), E>,
) -> Result<Result<(), E>, Failure> {
    let mut stream = Stream { out: BufWriter::new(io::stdout().lock()), failed: None };
    let told = tell(&mut stream);
    ended(stream, told)
}

fn ended<W: Write, E>(
    mut stream: Stream<W>,
    told: Result<(), E>,
) -> Result<Result<(), E>, Failure> {
    match stream.failed.take().map_or_else(|| stream.out.flush(), Err) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(Ok(())),
        written => {
            written.map_err(Failure::io("cannot write to standard output"))?;
            Ok(told)
        }
    }
}

/// Keeps the error that `fmt` cannot carry.
struct Stream<W> {
    out: W,
    failed: Option<io::Error>,
}

impl<W: Write> fmt::Write for Stream<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.out.write_all(text.as_bytes()).map_err(|error| {
            self.failed = Some(error);
            fmt::Error
        })
    }
}

impl<W: Write> Write for Stream<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes).map_err(|error| {
            let kind = error.kind();
            self.failed = Some(error);
            kind.into()
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
