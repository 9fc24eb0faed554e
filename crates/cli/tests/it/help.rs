//! Help, completions and manual pages tell of what exists, and of nothing else.

use std::collections::BTreeSet;

use crate::support::{Scratch, aiv, aiv_json, names_in, run};

const COMMANDS: [&str; 21] = [
    "devices",
    "backup",
    "list",
    "info",
    "verify",
    "restore",
    "salvage",
    "ls",
    "cat",
    "find",
    "diff",
    "extract",
    "consolidate",
    "archive",
    "copy",
    "move",
    "key",
    "dump",
    "format-spec",
    "completions",
    "man",
];

/// What `aiv key` can do.
const KEY_COMMANDS: [&str; 8] =
    ["list", "add", "change", "remove", "recovery-code", "paper-key", "rotate", "new-recipient"];

fn help(command: &str) -> String {
    aiv(&[command, "--help"]).ended(0).stdout
}

/// Words of a help text that look like long options.
fn options(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    words.filter(|word| word.starts_with("--") && word.len() > 2).map(str::to_owned).collect()
}

#[test]
fn the_help_lists_the_commands_of_the_contract() {
    let text = aiv(&["--help"]).ended(0).stdout;
    let list = text.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let listed: Vec<&str> = list.lines().filter_map(|l| l.split_whitespace().next()).collect();
    assert_eq!(listed, COMMANDS);
    let says = list.lines().filter_map(|line| line.trim().split_once(' '));
    let says: BTreeSet<&str> = says.map(|(_, words)| words.trim()).collect();
    assert_eq!(says.len(), COMMANDS.len(), "each says what it does, and no two the same: {list}");
}

#[test]
fn copy_and_move_are_told_apart() {
    let (copy, moved) = (help("copy"), help("move"));
    assert!(!copy.contains("aiv move") && !moved.contains("aiv copy"), "{copy}{moved}");
    assert!(copy.contains("nothing is removed") && moved.contains("Refuses"), "{copy}{moved}");
}

#[test]
fn every_command_has_examples_that_work_as_written() {
    let mut texts = vec![aiv(&["--help"]).ended(0).stdout];
    texts.extend(COMMANDS.map(help));
    texts.extend(KEY_COMMANDS.map(|verb| aiv(&["key", verb, "--help"]).ended(0).stdout));
    for text in &texts {
        let examples: Vec<&str> =
            text.lines().map(str::trim).filter(|line| line.starts_with("aiv ")).collect();
        assert!((2..=5).contains(&examples.len()), "{text}");
        for example in examples {
            let command = example.split_whitespace().nth(1).unwrap();
            assert!(COMMANDS.contains(&command), "{example}");
            let of = match example.split_whitespace().nth(2) {
                Some(verb) if command == "key" => aiv(&["key", verb, "--help"]).ended(0).stdout,
                _ => help(command),
            };
            let known = options(of.split("Examples:").next().unwrap());
            for option in options(example) {
                assert!(known.contains(&option), "{option} in {example:?}");
            }
        }
    }
}

#[test]
fn nothing_that_does_not_work_yet_is_promised() {
    for command in COMMANDS {
        let text = help(command);
        for later in ["--encrypt", "--cloud"] {
            assert!(!text.contains(later), "{later} in the help of {command}");
        }
    }
}

#[test]
fn the_help_lists_the_exit_codes_of_the_contract() {
    let text = aiv(&["--help"]).ended(0).stdout;
    let codes = text.split("Exit codes:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let codes: Vec<&str> = codes.lines().filter_map(|l| l.split_whitespace().next()).collect();
    assert_eq!(codes, ["0", "1", "2", "3", "4", "5", "6", "130"]);
}

#[test]
fn a_wrong_command_line_is_2_in_words_and_in_json() {
    for args in [
        vec!["frobnicate"],
        vec!["backup", "/dev/null"],
        vec!["backup", "a", "--to", "b", "--compress", "gzip"],
        vec!["backup", "a", "--to", "b", "--rate-limit", "fast"],
        vec!["backup", "a", "--to", "b", "--block-size", "5000"],
        vec!["backup", "a", "--to", "b", "--incremental", "--full"],
        vec!["backup", "a", "b", "--to", "c", "--name", "n"],
        vec!["backup", "a", "--to", "b", "--changes", "monday"],
        vec!["backup", "a", "--to", "b", "--changes", "bitmap:b", "--no-hints"],
        vec!["restore", "a"],
        vec!["restore", "a", "--to", "b", "--unused", "burn"],
        vec!["verify", "a", "--depth", "bottom"],
        vec!["extract", "a", "/p1"],
        vec!["extract", "a", "/p1", "--to", "b", "--tar", "c"],
        vec!["extract", "a", "/p1", "--tar", "c", "--verify"],
        vec!["find", "a", "--newer", "yesterday"],
    ] {
        let run = aiv(&args).ended(2);
        assert!(!run.stderr.is_empty() && run.stdout.is_empty(), "{args:?}");
        aiv_json(&args).failed(2, "usage");
    }
    assert_eq!(aiv::<&str>(&[]).status, 2);
}

#[test]
fn the_version_is_printed() {
    let text = aiv(&["--version"]).ended(0).stdout;
    assert_eq!(text, format!("aiv {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn completions_know_every_command() {
    let scratch = Scratch::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = aiv(&["completions", shell]).ended(0).stdout;
        for command in COMMANDS {
            assert!(script.contains(command), "{command} for {shell}");
        }
        let own = ["freeze-guard", "freeze_guard", "freeze__guard"];
        assert!(!own.iter().any(|word| script.contains(word)), "what nobody calls, for {shell}");
    }
    let script = scratch.write("aiv.bash", aiv(&["completions", "bash"]).stdout.as_bytes());
    run("bash", &["-n", &script]);
    let complete = format!(
        "source {script}; COMP_WORDS=(aiv ver); COMP_CWORD=1; _aiv aiv ver aiv; echo ${{COMPREPLY[@]}}"
    );
    assert_eq!(run("bash", &["-c", &complete]), "verify");
    let json = aiv_json(&["completions", "bash"]).ended(0).json();
    assert_eq!(json["shell"], "bash");
    assert!(json["script"].as_str().unwrap().contains("complete"));
}

#[test]
fn manual_pages_exist_for_every_command() {
    let scratch = Scratch::new();
    let folder = scratch.path("man1");
    std::fs::create_dir(&folder).unwrap();
    let json = aiv_json(&["man".as_ref(), "--to".as_ref(), folder.as_os_str()]).ended(0).json();
    assert_eq!(json["folder"], folder.to_str().unwrap());
    let mut pages: Vec<String> = COMMANDS.iter().map(|c| format!("aiv-{c}.1")).collect();
    pages.extend(KEY_COMMANDS.iter().map(|verb| format!("aiv-key-{verb}.1")));
    pages.push("aiv.1".to_owned());
    pages.sort();
    assert_eq!(names_in(&folder), pages);
    let page = aiv(&["man"]).ended(0).stdout;
    assert!(page.contains(".TH aiv 1") && page.contains("Exit codes"), "{page}");
    let orphan = scratch.arg("not/there");
    aiv_json(&["man", "--to", &orphan]).failed(1, "not_found");
}
