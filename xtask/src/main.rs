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
mod work_folder;

use std::process::ExitCode;

/// What every command returns: the error is one sentence for the reader of a terminal.
type Outcome = Result<(), String>;

struct Command {
    name: &'static str,
    run: fn(&[String]) -> Outcome,
    help: &'static str,
    /// What `--help` says, where a line is not enough.
    usage: Option<&'static str>,
}

/// The one list of commands.
const COMMANDS: &[Command] = &[
    Command {
        name: "setup",
        run: setup::run,
        help: "install the Debian packages that tests and demo need, with --bench those of bench too",
        usage: None,
    },
    Command {
        name: "demo",
        run: demo::run,
        help: "image a real disk, verify it, restore it, prove equality: demo [FOLDER]",
        usage: None,
    },
    Command {
        name: "tidy",
        run: tidy::run,
        help: "check the promises no compiler keeps: floors, format tables, paths, hygiene",
        usage: None,
    },
    Command {
        name: "test",
        run: test::run,
        help: "setup, every test of the workspace, reader",
        usage: None,
    },
    Command {
        name: "images",
        run: images::run,
        help: "put the third-party images of a folder through the library: images DIR",
        usage: None,
    },
    Command {
        name: "bench",
        run: bench::run,
        help: "speed and memory beside other tools and the machine's limits: bench [OPTION]...",
        usage: Some(bench::USAGE),
    },
    Command {
        name: "prove",
        run: prove::run,
        help: "long campaigns with recorded seeds: prove CAMPAIGN [OPTION]...",
        usage: Some(prove::USAGE),
    },
    Command {
        name: "fuzz",
        run: fuzz::run,
        help: "let libFuzzer look for inputs that bring a parser down: fuzz TARGET [--seconds N]",
        usage: None,
    },
    Command {
        name: "reader",
        run: reader::run,
        help: "the second reader, written from docs/format.md alone, judges images that aiv makes",
        usage: None,
    },
    Command {
        name: "guest",
        run: guest::run,
        help: "what needs a kernel of its own, in a virtual machine: guest [SCENARIO]",
        usage: None,
    },
    Command {
        name: "count",
        run: count::run,
        help: "instructions of the hottest loops against those recorded: count [--record]",
        usage: None,
    },
    Command {
        name: "ci",
        run: ci::run,
        help: "everything a change must pass, in order, timed",
        usage: None,
    },
];

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let Some(name) = words.next() else {
        print!("{}", help());
        return ExitCode::SUCCESS;
    };
    if name == "help" || is_help(&name) {
        print!("{}", help());
        return ExitCode::SUCCESS;
    }
    let Some(command) = COMMANDS.iter().find(|command| command.name == name) else {
        eprint!("cargo xtask: there is no command '{name}'\n\n{}", help());
        return ExitCode::from(2);
    };
    let words: Vec<String> = words.collect();
    // Before any command begins: some of them take hours, or empty a folder.
    if words.iter().any(|word| is_help(word)) {
        println!("{}", command.usage());
        return ExitCode::SUCCESS;
    }
    match (command.run)(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("cargo xtask {name}: {sentence}");
            ExitCode::FAILURE
        }
    }
}

fn is_help(word: &str) -> bool {
    ["-h", "--help"].contains(&word)
}

impl Command {
    fn usage(&self) -> String {
        let line = || format!("cargo xtask {}: {}", self.name, self.help);
        self.usage.map_or_else(line, str::to_owned)
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
    fn help_is_asked_for_and_nothing_else_happens() {
        for word in ["-h", "--help"] {
            assert!(is_help(word));
        }
        assert!(!is_help("help"), "a folder of that name for the demo");
        for command in COMMANDS {
            assert!(command.usage().contains(&format!("cargo xtask {}", command.name)));
        }
    }

    #[test]
    fn the_help_names_every_command_once() {
        let text = help();
        for command in COMMANDS {
            let line = format!("\n  {:<8} {}\n", command.name, command.help);
            assert_eq!(text.matches(&line).count(), 1, "{}", command.name);
        }
    }
}
