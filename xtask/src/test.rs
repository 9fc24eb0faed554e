//! `cargo xtask test`: every test of the workspace, and how many there were; then the second
//! reader.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::{Outcome, process, reader, setup};

pub(crate) fn run(arguments: &[String]) -> Outcome {
    crate::no_arguments(arguments)?;
    setup::run(&[])?;
    run_tests()?;
    reader::judge()
}

/// The tests alone, on a machine that is set up.
pub(crate) fn run_tests() -> Outcome {
    let has_nextest = process::cargo()
        .args(["nextest", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    let mut summaries = Vec::new();
    if has_nextest {
        let mut nextest = process::cargo();
        nextest.args(["nextest", "run", "--workspace", "--no-fail-fast"]);
        summaries.extend(echo(&mut nextest, Stream::Stderr, is_summary)?);
        let mut doc = process::cargo();
        doc.args(["test", "--workspace", "--doc"]);
        summaries.push(format!("doc tests: {}", run_and_count(&mut doc)?));
    } else {
        println!("test: cargo-nextest is not installed, using cargo test");
        let mut all = process::cargo();
        // Without a target option this runs unit, integration and documentation tests.
        all.args(["test", "--workspace", "--no-fail-fast"]);
        summaries.push(format!("all tests: {}", run_and_count(&mut all)?));
    }
    for summary in summaries {
        println!("test: {}", summary.trim());
    }
    Ok(())
}

/// How many tests there were, and which of them failed before they passed.
fn is_summary(line: &str) -> bool {
    line.contains(" Summary ") || line.trim_start().starts_with("FLAKY ")
}

fn run_and_count(command: &mut Command) -> Result<Counts, String> {
    let results = echo(command, Stream::Stdout, |line| line.starts_with("test result: "))?;
    Ok(results.iter().map(|line| Counts::of(line)).fold(Counts::default(), Counts::plus))
}

enum Stream {
    Stdout,
    Stderr,
}

/// Runs a command, passes every line of one stream on as it comes, and returns those that
/// `keep` picks.
fn echo(
    command: &mut Command,
    stream: Stream,
    keep: impl Fn(&str) -> bool,
) -> Result<Vec<String>, String> {
    let line = process::describe(command);
    match stream {
        Stream::Stdout => command.stdout(Stdio::piped()),
        Stream::Stderr => command.stderr(Stdio::piped()),
    };
    let mut child = command.spawn().map_err(|e| format!("cannot start `{line}`: {e}"))?;
    let mut kept = Vec::new();
    let mut pass_on = |text: String| {
        match stream {
            Stream::Stdout => println!("{text}"),
            Stream::Stderr => eprintln!("{text}"),
        }
        if keep(&text) {
            kept.push(text);
        }
    };
    if let Some(pipe) = child.stdout.take() {
        each_line(pipe, &mut pass_on);
    }
    if let Some(pipe) = child.stderr.take() {
        each_line(pipe, &mut pass_on);
    }
    let status = child.wait().map_err(|e| format!("cannot wait for `{line}`: {e}"))?;
    process::expect_success(&line, status)?;
    Ok(kept)
}

/// A test may print any bytes: what is not text is shown as replacement characters.
fn each_line(pipe: impl std::io::Read, then: &mut impl FnMut(String)) {
    let mut reader = BufReader::new(pipe);
    let mut bytes = Vec::new();
    while reader.read_until(b'\n', &mut bytes).is_ok_and(|count| count > 0) {
        then(String::from_utf8_lossy(bytes.trim_ascii_end()).into_owned());
        bytes.clear();
    }
}

/// The sums of several `test result:` lines.
#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
struct Counts {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Counts {
    /// Reads `test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; ...`.
    fn of(line: &str) -> Self {
        let words: Vec<&str> = line.split([' ', ';']).collect();
        let before = |name: &str| {
            let at = words.iter().position(|&word| word == name)?;
            words.get(at.checked_sub(1)?)?.parse().ok()
        };
        let count = |name| before(name).unwrap_or(0);
        Self { passed: count("passed"), failed: count("failed"), ignored: count("ignored") }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            ignored: self.ignored + other.ignored,
        }
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed, {} ignored", self.passed, self.failed, self.ignored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_failed_at_first_is_named_in_the_summary() {
        assert!(is_summary("     Summary [   0.099s] 2 tests run: 2 passed (1 flaky), 0 skipped"));
        assert!(is_summary("   FLAKY 2/2 [   0.010s] (2/2) aiv-chain::it crashes::one"));
        assert!(!is_summary("  TRY 2 PASS [   0.010s] (2/2) aiv-chain::it crashes::one"));
    }

    #[test]
    fn result_lines_add_up() {
        let lines = [
            "test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out",
            "test result: FAILED. 7 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out",
        ];
        let sum = lines.map(Counts::of).into_iter().fold(Counts::default(), Counts::plus);
        assert_eq!(sum.to_string(), "12 passed, 2 failed, 1 ignored");
    }

    #[test]
    fn lines_are_picked_from_the_stream_that_carries_them() {
        let mut command = process::command("sh");
        command.args(["-c", "echo other; echo ' Summary 3 tests' >&2"]).stdout(Stdio::null());
        let kept = echo(&mut command, Stream::Stderr, |line| line.contains("Summary")).unwrap();
        assert_eq!(kept, [" Summary 3 tests"]);
    }

    #[test]
    fn a_failing_run_is_a_failure() {
        let mut command = process::command("false");
        let failure = echo(&mut command, Stream::Stdout, |_| true).unwrap_err();
        assert_eq!(failure, "`false` failed (exit status: 1)");
    }
}
