//! The `aiv` command: words in, library calls, words out.

mod args;
mod cmd;

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use aiv_report::words::clean;
use aiv_report::{Exit, Failure, Outcome, Verdict};
use aiv_terminal::Session;
use clap::Parser;

use crate::args::Args;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return usage(&error),
    };
    let session = Session::new(args.json, args.quiet);
    let exit = match cmd::run(args.command, &session).and_then(|outcome| show(&outcome, &session)) {
        Ok(exit) => exit,
        Err(failure) => complain(&failure, &session),
    };
    ExitCode::from(exit.status())
}

fn show(outcome: &Outcome, session: &Session) -> Result<Exit, Failure> {
    if session.json {
        print(&format!("{}\n", outcome.to_json()))?;
    } else if !(session.quiet && outcome.is_report) {
        print(&outcome.text)?;
    }
    for warning in &outcome.warnings {
        session.say(&format!("warning: {}", clean(warning)));
    }
    Ok(outcome.exit)
}

fn complain(failure: &Failure, session: &Session) -> Exit {
    if session.json {
        // When standard output is gone, the exit status still tells.
        let _ = print(&format!("{}\n", failure.to_json()));
    } else {
        session.say(&format!("aiv: {}", clean(&failure.message)));
        session.say(&format!("     {}", failure.verdict.hint));
    }
    failure.verdict.exit
}

/// Help and version are answers; anything else is a wrong command line.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    if std::env::args_os().any(|word| word == "--json") {
        let verdict =
            Verdict { code: "usage", exit: Exit::Usage, hint: "`aiv COMMAND --help` explains" };
        let message = error.to_string().trim_start_matches("error: ").trim_end().to_owned();
        let _ = print(&format!("{}\n", Failure::new(verdict, message).to_json()));
    } else {
        let _ = error.print();
    }
    ExitCode::from(Exit::Usage.status())
}

/// Writes to standard output. A reader that has seen enough is no error.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(Failure::io("cannot write to standard output")),
    }
}
