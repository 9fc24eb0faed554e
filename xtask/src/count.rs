//! `cargo xtask count`: instructions of the three hottest loops, counted by valgrind and compared
//! with those that were recorded. Unlike times they are the same on a busy machine.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Stdio;

use crate::bench::build;
use crate::{Outcome, process};

/// What was counted last, and agreed with.
const RECORDED: &str = "testdata/instructions.txt";

/// The loops of `crates/testkit/examples/hot_loops.rs`.
const LOOPS: [&str; 3] = ["full", "unchanged", "read"];

/// Blocks of its disk.
const BLOCKS: u64 = 128;

/// Rounds of the two runs of a loop: their difference is free of what goes before and after.
const ROUNDS: (u64, u64) = (1, 4);

/// Parts in a hundred by which a count may be above or below the recorded one: hash tables with
/// seeds of their own, another processor's way to copy memory, another release of the compiler.
const TOLERANCE: u64 = 5;

/// Instructions for one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Count {
    /// Of everything: codecs, hashes, the system's library.
    all: u64,
    /// Of code in our crates, with what the compiler put into it.
    ours: u64,
}

pub(crate) fn run(arguments: &[String]) -> Outcome {
    let record = match arguments {
        [] => false,
        [word] if word == "--record" => true,
        _ => return Err("usage: cargo xtask count [--record]".into()),
    };
    let path = process::repository().join(RECORDED);
    let program = build::example("aiv-testkit", "hot_loops")?;
    let mut counted = Vec::new();
    for name in LOOPS {
        counted.push((name, count(&program, name)?));
    }
    if record {
        return fs::write(&path, text(&counted)).map_err(|e| format!("{RECORDED}: {e}"));
    }
    let recorded = fs::read_to_string(&path).map_err(|e| format!("{RECORDED}: {e}"))?;
    compare(&parse(&recorded)?, &counted)
}

/// Counts one loop.
fn count(program: &Path, name: &str) -> Result<Count, String> {
    let fewer = profile(program, name, ROUNDS.0)?;
    let more = profile(program, name, ROUNDS.1)?;
    let per_block =
        |fewer: u64, more: u64| more.saturating_sub(fewer) / ((ROUNDS.1 - ROUNDS.0) * BLOCKS);
    Ok(Count { all: per_block(fewer.all, more.all), ours: per_block(fewer.ours, more.ours) })
}

/// Instructions of a whole run.
fn profile(program: &Path, name: &str, rounds: u64) -> Result<Count, String> {
    let scratch = tempfile::tempdir().map_err(|e| format!("no temporary folder: {e}"))?;
    let out = scratch.path().join("callgrind.out");
    let mut valgrind = process::command("valgrind");
    valgrind.args(["--tool=callgrind", "--quiet"]);
    valgrind.arg(format!("--callgrind-out-file={}", out.display()));
    valgrind.arg(program).arg(name).arg(rounds.to_string()).stdout(Stdio::null());
    process::run(&mut valgrind)?;
    let text = fs::read_to_string(&out).map_err(|e| format!("{}: {e}", out.display()))?;
    own_costs(&text).ok_or_else(|| "valgrind wrote a profile that cannot be read".into())
}

/// Adds up a profile of callgrind: what each function itself takes, by its name.
fn own_costs(profile: &str) -> Option<Count> {
    let mut names: HashMap<&str, bool> = HashMap::new();
    let mut count = Count { all: 0, ours: 0 };
    let (mut is_ours, mut is_callee) = (false, false);
    for line in profile.lines() {
        if let Some(function) = line.strip_prefix("fn=").or_else(|| line.strip_prefix("cfn=")) {
            // A number, and the name when it comes for the first time.
            let (number, name) = function.split_once(' ').unwrap_or((function, ""));
            if !name.is_empty() {
                names.insert(number, name.contains("aiv_"));
            }
            if line.starts_with("fn=") {
                is_ours = *names.get(number)?;
            }
        } else if line.starts_with("calls=") {
            is_callee = true;
        } else if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
            let cost: u64 = line.split_once(' ')?.1.trim().parse().ok()?;
            // What follows a call is the cost of the callee, which has lines of its own.
            if !std::mem::take(&mut is_callee) {
                count.all += cost;
                count.ours += if is_ours { cost } else { 0 };
            }
        }
    }
    (count.all > 0).then_some(count)
}

fn text(counted: &[(&str, Count)]) -> String {
    let mut text = String::from(
        "# Instructions for a block of 64 KiB, on one thread, as `cargo xtask count --record` wrote them.\n\
         # loop, instructions of everything, instructions in our own code\n",
    );
    for (name, Count { all, ours }) in counted {
        let _ = writeln!(text, "{name:<10} {all:>9} {ours:>8}");
    }
    text
}

fn parse(text: &str) -> Result<HashMap<String, Count>, String> {
    let mut recorded = HashMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
        let (Some(name), Some(all), Some(ours)) = (words.first(), number(1), number(2)) else {
            return Err(format!("{RECORDED}: not a loop and two numbers: '{line}'"));
        };
        recorded.insert((*name).to_owned(), Count { all, ours });
    }
    Ok(recorded)
}

/// Prints a table; an error names what is too far from what was recorded, below it as well: a
/// record that is not true protects nothing.
fn compare(recorded: &HashMap<String, Count>, counted: &[(&str, Count)]) -> Outcome {
    println!("instructions for a block   loop          all   recorded      ours   recorded");
    let mut wrong = Vec::new();
    for (name, Count { all, ours }) in counted {
        let Some(before) = recorded.get(*name) else {
            wrong.push(format!("{name} was never recorded"));
            continue;
        };
        println!("{name:>31} {all:>12} {:>10} {ours:>9} {:>10}", before.all, before.ours);
        for (what, now, before) in [("all", *all, before.all), ("ours", *ours, before.ours)] {
            if now.abs_diff(before) * 100 > before * TOLERANCE {
                wrong.push(format!("{name}, {what}: {now}, recorded {before}"));
            }
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(format!(
        "more than {TOLERANCE} % away from what was recorded: {}. When the change is worth it, or is a gain: \
         cargo xtask count --record, and say why in the commit",
        wrong.join("; ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_added_up_without_what_callees_take() {
        let profile = "events: Ir\nsummary: 61\n\nfl=(1) codec.rs\nfn=(7) aiv_image_format::encode\n\
                       12 10\n+3 5\ncfn=(8) memcpy\ncalls=4 30\n+1 40\n* 1\n\nfn=(8)\n30 40\n\
                       fn=(9) <core::iter::Map<aiv_chain::View> as Iterator>::next\n-2 5\n";
        assert_eq!(own_costs(profile), Some(Count { all: 61, ours: 21 }));
        assert_eq!(own_costs("fn=(3)\n1 2\n"), None, "a function without a name");
        assert_eq!(own_costs(""), None);
    }

    #[test]
    fn what_is_recorded_reads_back_and_names_every_loop() {
        let recorded = parse(include_str!("../../testdata/instructions.txt")).unwrap();
        let counted = LOOPS.map(|name| (name, recorded[name]));
        assert_eq!(parse(&text(&counted)).unwrap(), recorded);
        assert!(compare(&recorded, &counted).is_ok());
    }

    #[test]
    fn a_loop_that_takes_more_or_less_than_was_recorded_is_named() {
        let recorded = parse("full 1000 100\nread 1000 100\n").unwrap();
        let count = |all, ours| Count { all, ours };
        for (wrong, named) in [
            (count(1060, 100), "full, all: 1060, recorded 1000"),
            (count(1000, 94), "full, ours: 94, recorded 100"),
        ] {
            let failure =
                compare(&recorded, &[("full", wrong), ("read", count(1050, 95))]).unwrap_err();
            assert!(failure.contains(named) && !failure.contains("read,"), "{failure}");
        }
        let failure = compare(&recorded, &[("new", count(1, 1))]).unwrap_err();
        assert!(failure.contains("new was never recorded"), "{failure}");
    }
}
