//! `cargo xtask fuzz`: coverage-guided fuzzing of one parser, begun with its seeds.

use std::path::Path;
use std::process::{Command, Stdio};

use aiv_fuzz::TARGETS;

use crate::{Outcome, process};

/// Seconds a run takes unless told otherwise.
const SECONDS: u64 = 300;

pub(crate) fn run(arguments: &[String]) -> Outcome {
    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    let usage = format!(
        "usage: cargo xtask fuzz TARGET [--seconds N]\n\ntargets: {}\nRuns libFuzzer (`cargo install \
         --locked cargo-fuzz`, and a C++ compiler) for {SECONDS} seconds.",
        names.join(", ")
    );
    let (name, seconds) = match arguments {
        [name] => (name, SECONDS),
        [name, option, number] if option == "--seconds" => {
            (name, number.parse().map_err(|_| format!("no number: {number}\n\n{usage}"))?)
        }
        _ => return Err(usage),
    };
    let target = aiv_fuzz::target(name).ok_or_else(|| format!("no target {name}\n\n{usage}"))?;
    let corpus = process::repository().join("fuzz/corpus").join(name);
    seed(&corpus, &(target.seeds)()).map_err(|e| format!("{}: {e}", corpus.display()))?;
    let mut command = Command::new("cargo");
    // Safe code needs no address sanitizer, and is seven times as fast without.
    command.args(["fuzz", "run", "--sanitizer", "none", "--features", "libfuzzer", name, "--"]);
    command.arg(format!("-max_total_time={seconds}")).args(["-timeout=10", "-rss_limit_mb=2048"]);
    // What the fuzzer needs of the compiler is not stable yet.
    command.env("RUSTC_BOOTSTRAP", "1").current_dir(process::repository()).stdin(Stdio::null());
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("the fuzzer ended with {status}; inputs are in fuzz/artifacts")),
        Err(error) => Err(format!("cannot start cargo fuzz: {error}\n\n{usage}")),
    }
}

fn seed(corpus: &Path, seeds: &[Vec<u8>]) -> std::io::Result<()> {
    std::fs::create_dir_all(corpus)?;
    for (number, seed) in seeds.iter().enumerate() {
        std::fs::write(corpus.join(format!("seed-{number}")), seed)?;
    }
    Ok(())
}
