//! The project's own tools. `cargo xtask` lists them.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a developer's tool talks to a terminal"
)]
#![allow(clippy::disallowed_methods, reason = "a frontend: it reads the environment and the clock")]

mod bench;
mod ci;
mod count;
mod demo;
mod fuzz;
mod guest;
mod images;
mod process;
mod prove;
mod reader;
mod setup;
mod test;
mod tidy;

use std::process::ExitCode;

/// What every command returns: the error is one sentence for the reader of a terminal.
type Outcome = Result<(), String>;

struct Command {
    name: &'static str,
    run: fn(&[String]) -> Outcome,
    help: &'static str,
}

/// The one list of commands.
const COMMANDS: &[Command] = &[
    Command {
        name: "setup",
        run: setup::run,
        help: "install the Debian packages that tests and demo need, with --bench those of bench too",
    },
    Command {
        name: "demo",
        run: demo::run,
        help: "image a real disk, verify it, restore it, prove equality: demo [FOLDER]",
    },
    Command {
        name: "tidy",
        run: tidy::run,
        help: "check the promises no compiler keeps: floors, format tables, paths, hygiene",
    },
    Command { name: "test", run: test::run, help: "setup, every test of the workspace, reader" },
    Command {
        name: "images",
        run: images::run,
        help: "put the third-party images of a folder through the library: images DIR",
    },
    Command {
        name: "bench",
        run: bench::run,
        help: "speed and memory beside other tools and the machine's limits: bench [OPTION]...",
    },
    Command {
        name: "prove",
        run: prove::run,
        help: "long campaigns with recorded seeds: prove CAMPAIGN [OPTION]...",
    },
    Command {
        name: "fuzz",
        run: fuzz::run,
        help: "let libFuzzer look for inputs that bring a parser down: fuzz TARGET [--seconds N]",
    },
    Command {
        name: "reader",
        run: reader::run,
        help: "the second reader, written from docs/format.md alone, judges images that aiv makes",
    },
    Command {
        name: "guest",
        run: guest::run,
        help: "what needs a kernel of its own, in a virtual machine: guest [SCENARIO]",
    },
    Command {
        name: "count",
        run: count::run,
        help: "instructions of the hottest loops against those recorded: count [--record]",
    },
    Command { name: "ci", run: ci::run, help: "everything a change must pass, in order, timed" },
];

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let Some(name) = words.next() else {
        print!("{}", help());
        return ExitCode::SUCCESS;
    };
    if ["help", "-h", "--help"].contains(&name.as_str()) {
        print!("{}", help());
        return ExitCode::SUCCESS;
    }
    let Some(command) = COMMANDS.iter().find(|command| command.name == name) else {
        eprint!("cargo xtask: there is no command '{name}'\n\n{}", help());
        return ExitCode::from(2);
    };
    match (command.run)(&words.collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("cargo xtask {name}: {sentence}");
            ExitCode::FAILURE
        }
    }
}

fn help() -> String {
    let mut text = String::from("Usage: cargo xtask COMMAND [ARGUMENT]...\n\nCommands:\n");
    for Command { name, help, .. } in COMMANDS {
        text.push_str(&format!("  {name:<8} {help}\n"));
    }
    text
}

/// Refuses arguments of a command that takes none.
fn no_arguments(arguments: &[String]) -> Outcome {
    match arguments.first() {
        None => Ok(()),
        Some(word) => Err(format!("takes no arguments, found '{word}'")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_names_every_command_once() {
        let text = help();
        for command in COMMANDS {
            let line = format!("\n  {:<8} {}\n", command.name, command.help);
            assert_eq!(text.matches(&line).count(), 1, "{}", command.name);
        }
    }
}
