//! `cargo xtask prove`: long campaigns with recorded seeds. The same programs run, shorter, as
//! tests of this crate in every `cargo xtask test`.

mod disk;
mod model;

use std::process::Stdio;
use std::time::Instant;

use crate::{Outcome, process};

/// Seeds of the full tier of the model test.
const MODEL_SEEDS: u64 = 5_000;

const HELP: &str = "\
usage: cargo xtask prove model [--seeds N] [--first SEED]

model   random programs of 200 operations against plain bytes (default: 5,000 seeds)

A failure names its seed; `--seeds 1 --first SEED` repeats it.";

pub(crate) fn run(arguments: &[String]) -> Outcome {
    if cfg!(debug_assertions) {
        return in_release(arguments);
    }
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |option: &str, default: u64| -> Result<u64, String> {
        let Some(at) = words.iter().position(|word| *word == option) else { return Ok(default) };
        let value = words.get(at + 1).and_then(|word| word.replace('_', "").parse().ok());
        value.ok_or_else(|| format!("{option} needs a number\n\n{HELP}"))
    };
    match words.first() {
        Some(&"model") => models(number("--first", 1)?, number("--seeds", MODEL_SEEDS)?),
        _ => Err(format!("nothing to prove\n\n{HELP}")),
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
