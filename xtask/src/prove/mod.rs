//! `cargo xtask prove`: long campaigns with recorded seeds. The same programs run, shorter, as
//! tests of this crate in every `cargo xtask test`.

mod crash;
mod disk;
mod files;
mod flips;
mod hang;
mod maps;
mod memory;
mod model;
mod nonces;
mod oracle;
mod parsers;
mod reads;
mod scenario;

use std::process::Stdio;
use std::time::Instant;

use aiv_chain::{ParentState, View};
use aiv_image_format::DELTA_DEPTH_WRITTEN;

use crate::{Outcome, process};

/// Seeds of the full tier of the model test.
const MODEL_SEEDS: u64 = 5_000;

/// States of the full tier of the crash simulation.
const CRASH_STATES: u64 = 250_000;

/// Reads of the full tier of damaged chains.
const READS: u64 = 1_000_000;

pub(crate) const USAGE: &str = "\
usage: cargo xtask prove model [--seeds N] [--first SEED]
       cargo xtask prove crash [--states N] [--first SEED]
       cargo xtask prove maps [--family NAME] [--mutants N] [--first SEED]
       cargo xtask prove reads [--reads N] [--first SEED]
       cargo xtask prove flips [--only NAME] [--step N]
       cargo xtask prove parsers [--only NAME] [--family NAME] [--mutants N] [--first SEED]
       cargo xtask prove files [--only NAME] [--files N]
       cargo xtask prove nonces [--frames N] [--first SEED]

model   random programs of 200 operations against plain bytes (default: 5,000 seeds)
crash   the power goes at every operation of random scenarios (default: 250,000 states)
maps    changed volumes of each family are asked for their map (default: 1,000,000 each)
reads   blocks of damaged chains read right or not at all (default: 1,000,000 reads)
flips   every bit of every stored image, or of each Nth byte, flips alone, and is told of
parsers changed inputs of every parser in fuzz/ (default: 1,000,000 each, and of each
        family where one function stands for several)
files   whole trees read as their drivers read them (default: 100,000 files each; as root)
nonces  no key and nonce come twice, whatever happens to writers (default: 1,000,000,000 frames)

A failure names its seed; `--seeds 1 --first SEED` repeats it.";

/// Campaigns, and the options each takes.
const CAMPAIGNS: [(&str, &[&str]); 8] = [
    ("model", &["--seeds", "--first"]),
    ("crash", &["--states", "--first"]),
    ("maps", &["--family", "--mutants", "--first"]),
    ("reads", &["--reads", "--first"]),
    ("flips", &["--only", "--step"]),
    ("parsers", &["--only", "--family", "--mutants", "--first"]),
    ("files", &["--only", "--files"]),
    ("nonces", &["--frames", "--first"]),
];

/// Refuses words that would be ignored: a campaign takes hours, and should be the one meant.
fn check(words: &[&str]) -> Outcome {
    let [name, rest @ ..] = words else { return Err(format!("nothing to prove\n\n{USAGE}")) };
    let campaign = CAMPAIGNS.iter().find(|(campaign, _)| campaign == name);
    let Some((_, options)) = campaign else {
        return Err(format!("there is no campaign '{name}'\n\n{USAGE}"));
    };
    let unknown = rest.chunks(2).find(|pair| !options.contains(&pair[0]));
    unknown.map_or(Ok(()), |pair| Err(format!("{name} takes no '{}'\n\n{USAGE}", pair[0])))
}

pub(crate) fn run(arguments: &[String]) -> Outcome {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    check(&words)?;
    // Trees of files wait for their drivers most of the time: any build will do.
    let is_any = arguments.first().is_some_and(|word| word == "files");
    if cfg!(debug_assertions) && !is_any {
        return in_release(arguments);
    }
    let number = |option: &str, default: u64| -> Result<u64, String> {
        let Some(at) = words.iter().position(|word| *word == option) else { return Ok(default) };
        let value = words.get(at + 1).and_then(|word| word.replace('_', "").parse().ok());
        value.ok_or_else(|| format!("{option} needs a number\n\n{USAGE}"))
    };
    let name = |option: &str, names: String| -> Result<Option<&str>, String> {
        let at = words.iter().position(|word| *word == option);
        match at.map(|at| words.get(at + 1)) {
            None => Ok(None),
            Some(Some(name)) => Ok(Some(*name)),
            Some(None) => Err(format!("{option} is one of {names}")),
        }
    };
    match words.first() {
        Some(&"crash") => crashes(number("--first", 1)?, number("--states", CRASH_STATES)?),
        Some(&"maps") => {
            let family = name("--family", maps::names())?;
            maps::campaign(family, number("--first", 1)?, number("--mutants", maps::MUTANTS)?)
        }
        Some(&"reads") => corrupted_reads(number("--first", 1)?, number("--reads", READS)?),
        Some(&"flips") => {
            let only = name("--only", flips::names())?;
            flips::campaign(only, number("--step", 1)?)
        }
        Some(&"parsers") => {
            let only = name("--only", parsers::names())?;
            let family = name("--family", parsers::names())?;
            let mutants = number("--mutants", parsers::MUTANTS)?;
            parsers::campaign(only, family, number("--first", 1)?, mutants)
        }
        Some(&"files") => {
            let only = name("--only", files::names())?;
            files::campaign(only, number("--files", files::FILES)?)
        }
        Some(&"nonces") => {
            nonces::campaign(number("--first", 1)?, number("--frames", nonces::FRAMES)?)
        }
        Some(&"model") => models(number("--first", 1)?, number("--seeds", MODEL_SEEDS)?),
        _ => Err(format!("nothing to prove\n\n{USAGE}")),
    }
}

/// A campaign in a debug build would take all night.
fn in_release(arguments: &[String]) -> Outcome {
    let mut command = process::cargo();
    command.args(["run", "--quiet", "--release", "--package", "aiv-xtask", "--", "prove"]);
    command.args(arguments).stdin(Stdio::null());
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("the release build ended with {status}")),
        Err(error) => Err(format!("cannot start cargo: {error}")),
    }
}

fn models(first: u64, count: u64) -> Outcome {
    let started = Instant::now();
    let mut total = model::Counts::default();
    for seed in first..first.saturating_add(count) {
        let counts = model::run(seed).map_err(|why| format!("model seed {seed}: {why}"))?;
        total = total + counts;
        let done = seed - first + 1;
        if done.is_multiple_of(100) || done == count {
            println!("model: {done} of {count} seeds, {total}, {} s", started.elapsed().as_secs());
        }
    }
    println!("model: seeds {first}..{}, 0 failed", first + count);
    Ok(())
}

fn crashes(first: u64, wanted: u64) -> Outcome {
    let started = Instant::now();
    let mut total = crash::Tried::default();
    let mut seed = first;
    while total.states < wanted {
        let tried = crash::run(seed).map_err(|why| format!("crash seed {seed}: {why}"))?;
        total.states += tried.states;
        total.double_crashes += tried.double_crashes;
        if seed.is_multiple_of(10) {
            println!("crash: seed {seed}, {total}, {} s", started.elapsed().as_secs());
        }
        seed += 1;
    }
    println!("crash: seeds {first}..{seed}, {total}, 0 points lost");
    Ok(())
}

fn corrupted_reads(first: u64, wanted: u64) -> Outcome {
    let started = Instant::now();
    let mut total = reads::Tried::default();
    let mut seed = first;
    while total.reads < wanted {
        total.add(reads::run(seed).map_err(|why| format!("reads seed {seed}: {why}"))?);
        if seed.is_multiple_of(50) {
            println!("reads: seed {seed}, {total}, {} s", started.elapsed().as_secs());
        }
        seed += 1;
    }
    println!("reads: seeds {first}..{seed}, {total}, 0 wrong");
    Ok(())
}

/// All bytes of a point. However its images came together, a block takes at most as many
/// differences as writers allow.
fn read(view: &View) -> Result<Vec<u8>, String> {
    let geometry = *view.geometry();
    let mut bytes = Vec::new();
    for block in 0..geometry.blocks() {
        let start = bytes.len();
        bytes.resize(start + geometry.block_len(block) as usize, 0);
        let depth = view.read(block, &mut bytes[start..]).map_err(|e| said(&e))?;
        if depth > DELTA_DEPTH_WRITTEN {
            return Err(format!("block {block} takes {depth} differences"));
        }
    }
    Ok(bytes)
}

/// An error with everything behind it, in one line.
fn said(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_would_be_ignored_is_refused() {
        assert_eq!(check(&["maps", "--family", "xfs", "--mutants", "5"]), Ok(()));
        assert_eq!(check(&["model"]), Ok(()));
        for words in [
            &["maps", "--familly", "xfs"][..],
            &["maps", "xfs"],
            &["maps", "--mutants", "5", "--step", "3"],
            &["map"],
            &[],
        ] {
            assert!(check(words).unwrap_err().ends_with(USAGE), "{words:?}");
        }
    }

    #[test]
    fn every_campaign_and_option_is_in_the_help() {
        for (campaign, options) in CAMPAIGNS {
            let usage = format!("cargo xtask prove {campaign} ");
            let line = USAGE.lines().find(|line| line.contains(&usage)).unwrap();
            assert!(options.iter().all(|option| line.contains(option)), "{line}");
        }
    }
}
