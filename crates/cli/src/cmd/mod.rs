//! One file per command: parse, call, render.

mod backup;
mod chains;
mod devices;
mod files;
mod info;
mod list;
mod restore;
mod text;
mod verify;

use std::time::Duration;

use aiv_report::{Failure, Outcome};

use aiv_terminal::{Session, guard_frozen};
use aiv_words::Command;
use serde_json::Value;

pub(crate) fn run(command: Command, session: &Session) -> Result<Outcome, Failure> {
    match command {
        Command::Devices => devices::run(session),
        Command::Backup(args) => backup::run(args, session),
        Command::List { dir, unlock } => list::run(&dir, &unlock, session),
        Command::Info { image, unlock } => info::run(&image, &unlock, session),
        Command::Key(args) => args.run(session),
        Command::Verify(args) => verify::run(&args, session),
        Command::Restore(args) => restore::run(&args, session),
        Command::Salvage(args) => chains::salvage(args, session),
        Command::Ls(args) => files::ls(&args, session),
        Command::Cat(args) => files::cat(&args, session),
        Command::Find(args) => files::find(&args, session),
        Command::Diff(args) => files::diff(&args, session),
        Command::Extract(args) => files::extract(&args, session),
        Command::Consolidate(args) => chains::consolidate(&args, session),
        Command::Archive(args) => chains::archive(&args, session),
        Command::Copy(args) => chains::transfer(&args, false, session),
        Command::Move(args) => chains::transfer(&args, true, session),
        Command::Dump { image, unlock } => text::dump(&image, &unlock, session),
        Command::FormatSpec => Ok(text::format_spec()),
        Command::Completions { shell } => Ok(text::completions(shell)),
        Command::Man { to } => text::man(to.as_deref()),
        Command::FreezeGuard { seconds, mounts } => {
            guard_frozen(Duration::from_secs(seconds), &mounts);
            Ok(Outcome::answer(Value::Null, String::new()))
        }
    }
}
