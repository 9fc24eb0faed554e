//! The `aiv` command: words in, library calls, words out.

mod cmd;

use std::io::Write;
use std::process::ExitCode;

use aiv_report::{Exit, Failure, Verdict, words};
use aiv_terminal::{Session, print};
use clap::Parser;

use aiv_words::Args;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return usage(&error),
    };
    let session = Session::new(args.json, args.quiet);
    let exit = match cmd::run(args.command, &session).and_then(|outcome| session.show(&outcome)) {
        Ok(exit) => exit,
        Err(failure) => session.complain(&failure),
    };
    ExitCode::from(exit.status())
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
    } else if words::is_secret_key(&error.to_string()) {
        let shown = words::without_secret_keys(&error.to_string());
        let _ = std::io::stderr().write_all(shown.as_bytes());
    } else {
        let _ = error.print();
    }
    ExitCode::from(Exit::Usage.status())
}
