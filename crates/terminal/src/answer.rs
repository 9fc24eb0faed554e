//! Answers on standard output, complaints on standard error.

use std::fmt;
use std::io::{self, BufWriter, ErrorKind, StdoutLock, Write};
use std::sync::atomic::Ordering;

use aiv_report::words::clean;
use aiv_report::{Exit, Failure, Outcome, Verdict};
use rustix::io::Errno;

use crate::session::Session;

impl Session {
    /// Shows what a command has to say, as JSON where that was asked for.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn show(&self, outcome: &Outcome) -> Result<Exit, Failure> {
        if self.json {
            self.print_object(&outcome.to_json())?;
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
            let _ = self.print_object(&failure.to_json());
        } else {
            // As above.
            let _ = failure.done.as_ref().map(|done| self.show(done));
            self.say(&failure.line());
            self.say(&format!("     {}", failure.verdict.hint));
        }
        failure.verdict.exit
    }

    /// Shows a list of any length while `tell` finds its items: as the list `name` of the one JSON
    /// object, of which the answer has the rest, or as text below `head`. Whatever happens on the
    /// way, it is one object. A reader that has seen enough is no error, and ends it.
    ///
    /// # Errors
    /// Those of `tell`, and when standard output cannot be written.
    pub fn show_list(
        &self,
        name: &str,
        head: &str,
        tell: impl FnOnce(&mut List<'_>) -> Result<Outcome, Failure>,
    ) -> Result<Outcome, Failure> {
        let begin = if self.json { format!("{{\"{name}\":[") } else { head.to_owned() };
        let out = Stream { out: BufWriter::new(io::stdout().lock()), failed: None };
        let mut list = List { out, session: self, begin: Some(begin) };
        let told = tell(&mut list).and_then(|outcome| {
            // A list of nothing is one.
            if self.json {
                list.begin().map_err(Failure::io("cannot write to standard output"))?;
            }
            Ok(outcome)
        });
        ended(list.out, told)?.unwrap_or_else(|| Ok(Outcome::nothing()))
    }

    /// One JSON object, or the rest of it behind a list.
    fn print_object(&self, json: &impl fmt::Display) -> Result<(), Failure> {
        let text = json.to_string();
        match self.is_in_list.swap(false, Ordering::Relaxed) {
            true => print(&format!("],{}\n", text.get(1..).unwrap_or_default())),
            false => print(&format!("{text}\n")),
        }
    }
}

/// A list on standard output.
pub struct List<'s> {
    out: Stream<BufWriter<StdoutLock<'s>>>,
    session: &'s Session,
    /// What stands in front of the first item, before it comes.
    begin: Option<String>,
}

impl List<'_> {
    /// Adds an item: JSON, or lines of text.
    ///
    /// # Errors
    /// When standard output cannot be written, or nobody reads it.
    pub fn push(&mut self, item: &str) -> io::Result<()> {
        let is_first = self.begin()?;
        if !is_first && self.session.json {
            self.out.write_all(b",")?;
        }
        self.more(item)
    }

    /// Goes on with the item that was added last.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn more(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())
    }

    /// Writes what is in front of all items, unless that is there.
    fn begin(&mut self) -> io::Result<bool> {
        let Some(begin) = self.begin.take() else { return Ok(false) };
        self.session.is_in_list.store(self.session.json, Ordering::Relaxed);
        self.out.write_all(begin.as_bytes())?;
        Ok(true)
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

/// Writes to standard output what is shown once: a reader that went, or was never there, is an error.
///
/// # Errors
/// When standard output cannot be written; nothing counts as shown then.
pub(crate) fn print_for_good(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    if goes_nowhere(&out) {
        let hint = "show it on a terminal or to a printer, or name a new file for it with --out";
        let verdict = Verdict { code: "no_secret", exit: Exit::Usage, hint };
        return Err(Failure::new(verdict, "nothing was changed: standard output leads nowhere"));
    }
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    // A file may be found to have no room as late as this.
    let synced = written.and_then(|()| match rustix::fs::fsync(&out) {
        // Terminals and pipes have nothing to sync.
        Err(Errno::INVAL | Errno::ROFS | Errno::OPNOTSUPP) => Ok(()),
        synced => Ok(synced?),
    });
    synced.map_err(Failure::io("nothing was changed: cannot write to standard output"))
}

/// A closed standard output is the same: one that leads nowhere is in its place.
fn goes_nowhere(out: &StdoutLock<'_>) -> bool {
    let null = rustix::fs::stat("/dev/null").map(|null| (null.st_dev, null.st_ino));
    rustix::fs::fstat(out).map(|out| (out.st_dev, out.st_ino)) == null
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
    ended(stream, told).map(|told| told.unwrap_or(Ok(())))
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
    ended(stream, told).map(|told| told.unwrap_or(Ok(())))
}

/// What was told, or nothing when nobody reads it any more.
fn ended<W: Write, T, E>(
    mut stream: Stream<W>,
    told: Result<T, E>,
) -> Result<Option<Result<T, E>>, Failure> {
    match stream.failed.take().map_or_else(|| stream.out.flush(), Err) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(None),
        written => {
            written.map_err(Failure::io("cannot write to standard output"))?;
            Ok(Some(told))
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
