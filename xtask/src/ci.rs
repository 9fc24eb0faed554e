//! `cargo xtask ci`: everything a change must pass. Continuous integration calls this and
//! nothing else, so what it refuses can be seen on any machine.

use std::time::{Duration, Instant};

use crate::{Outcome, count, process, reader, setup, test, tidy};

struct Step {
    name: &'static str,
    run: fn() -> Outcome,
}

/// Cheap checks first: the reader of a red run waits as little as possible.
const STEPS: &[Step] = &[
    Step { name: "setup", run: || setup::run(&[]) },
    Step { name: "fmt", run: || cargo(&["fmt", "--all", "--check"]) },
    Step { name: "tidy", run: || tidy::run(&[]) },
    Step { name: "clippy", run: clippy },
    Step { name: "test", run: test::run_tests },
    Step { name: "reader", run: reader::judge },
    Step { name: "count", run: || count::run(&[]) },
    Step { name: "doc", run: doc },
];

pub(crate) fn run(arguments: &[String]) -> Outcome {
    crate::no_arguments(arguments)?;
    let mut times = Vec::new();
    let outcome = run_steps(STEPS, &mut times);
    println!("\nci: time taken");
    for (name, time) in &times {
        println!("ci: {name:<8} {:>7.1} s", time.as_secs_f64());
    }
    let total: Duration = times.iter().map(|(_, time)| *time).sum();
    println!("ci: {:<8} {:>7.1} s", "total", total.as_secs_f64());
    outcome
}

/// Runs the steps in order up to the first that fails.
fn run_steps(steps: &[Step], times: &mut Vec<(&'static str, Duration)>) -> Outcome {
    for (index, step) in steps.iter().enumerate() {
        println!("\nci: step {} of {}: {}", index + 1, steps.len(), step.name);
        let begun = Instant::now();
        let outcome = (step.run)();
        times.push((step.name, begun.elapsed()));
        outcome.map_err(|failure| format!("step {} failed: {failure}", step.name))?;
    }
    Ok(())
}

fn cargo(arguments: &[&str]) -> Outcome {
    process::run(process::cargo().args(arguments))
}

fn clippy() -> Outcome {
    cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])
}

fn doc() -> Outcome {
    let mut doc = process::cargo();
    process::run(doc.args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-Dwarnings"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_ends_the_run_and_is_named() {
        let steps = [
            Step { name: "good", run: || Ok(()) },
            Step { name: "bad", run: || Err("one thing is wrong".into()) },
            Step { name: "never", run: || panic!("must not be reached") },
        ];
        let mut times = Vec::new();
        let failure = run_steps(&steps, &mut times).unwrap_err();
        assert_eq!(failure, "step bad failed: one thing is wrong");
        let names: Vec<_> = times.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["good", "bad"]);
    }
}
