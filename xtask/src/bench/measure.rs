//! Time and memory of other programs.
//!
//! A pipeline is started by a small process of its own, so that "all children" in the kernel's
//! accounts means exactly the programs measured, and so that no memory of ours is counted as
//! theirs: a process begins its life with the peak of the one it was forked from.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use serde_json::{Value, json};

use crate::{Outcome, process};

/// The argument that asks for the measuring process.
pub(super) const MEASURE: &str = "--measure";
/// Stands between the programs of a pipeline.
const PIPE: &str = "|";
/// As much of a failing program's last words as an error repeats.
const LAST_WORDS_MAX: usize = 400;

/// What a pipeline cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Cost {
    pub(super) wall_s: f64,
    /// User and system time of all programs of the pipeline and their children.
    pub(super) cpu_s: f64,
    /// Of the largest single process. Values below some 4 MiB are our own start-up.
    pub(super) peak_rss: u64,
}

/// Runs a pipeline in `folder` with these variables; returns its cost and what it printed.
pub(super) fn run(
    words: &[String],
    folder: &Path,
    variables: &[(&str, String)],
) -> Result<(Cost, String), String> {
    let account = tempfile::NamedTempFile::new().map_err(|e| format!("no temporary file: {e}"))?;
    // The name of this program stays valid when cargo replaces its file meanwhile.
    let mut helper = process::command("/proc/self/exe");
    helper.args(["bench", MEASURE]).arg(account.path()).args(words);
    helper.envs(variables.iter().map(|(name, value)| (name, value)));
    helper.current_dir(folder).stdin(Stdio::null());
    let output = helper.output().map_err(|e| format!("cannot measure: {e}"))?;
    if !output.status.success() {
        return Err(last_words(&output.stderr));
    }
    let text = std::fs::read_to_string(account.path()).map_err(|e| format!("no account: {e}"))?;
    let cost = Cost::parse(&text).ok_or_else(|| format!("an account without figures: {text}"))?;
    Ok((cost, String::from_utf8_lossy(&output.stdout).into_owned()))
}

fn last_words(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    // The measuring process names itself before its own words.
    let text = text.replace("cargo xtask bench: ", "");
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let text = lines.join(" ");
    let skipped = text.chars().count().saturating_sub(LAST_WORDS_MAX);
    text.chars().skip(skipped).collect()
}

/// The other side of [`run`]: the account file, then the words of the pipeline.
pub(super) fn measure(arguments: &[String]) -> Outcome {
    let [account, words @ ..] = arguments else {
        return Err("the measuring process needs an account file".into());
    };
    let begun = Instant::now();
    let ends = run_pipeline(words)?;
    let wall_s = begun.elapsed().as_secs_f64();
    for (line, status) in ends {
        process::expect_success(&line, status)?;
    }
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).map_err(|e| format!("no account: {e}"))?;
    let kib = u64::try_from(usage.max_rss()).unwrap_or_default();
    let cpu_s = seconds(usage.user_time()) + seconds(usage.system_time());
    let cost = Cost { wall_s, cpu_s, peak_rss: kib << 10 };
    std::fs::write(account, cost.to_json().to_string()).map_err(|e| format!("{account}: {e}"))
}

/// User and system time of this process so far, all threads.
pub(super) fn own_cpu_s() -> f64 {
    getrusage(UsageWho::RUSAGE_SELF)
        .map_or(0.0, |usage| seconds(usage.user_time()) + seconds(usage.system_time()))
}

fn seconds(time: TimeVal) -> f64 {
    time.tv_sec() as f64 + time.tv_usec() as f64 * 1e-6
}

/// Starts the programs one behind the other and waits for all of them.
fn run_pipeline(words: &[String]) -> Result<Vec<(String, std::process::ExitStatus)>, String> {
    let mut running: Vec<(String, Child)> = Vec::new();
    let commands: Vec<&[String]> = words.split(|word| word == PIPE).collect();
    for (index, words) in commands.iter().enumerate() {
        let (program, arguments) = words.split_first().ok_or("an empty command")?;
        let mut command = Command::new(program);
        command.args(arguments);
        if let Some(out) = running.last_mut().and_then(|(_, before)| before.stdout.take()) {
            command.stdin(out);
        }
        if index + 1 < commands.len() {
            command.stdout(Stdio::piped());
        }
        let line = process::describe(&command);
        let child = command.spawn().map_err(|e| format!("cannot start `{line}`: {e}"))?;
        running.push((line, child));
    }
    let wait = |(line, mut child): (String, Child)| match child.wait() {
        Ok(status) => Ok((line, status)),
        Err(e) => Err(format!("cannot wait for `{line}`: {e}")),
    };
    running.into_iter().map(wait).collect()
}

impl Cost {
    pub(super) fn to_json(self) -> Value {
        json!({ "wall_s": self.wall_s, "cpu_s": self.cpu_s, "peak_rss_bytes": self.peak_rss })
    }

    fn parse(text: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(text).ok()?;
        Some(Self {
            wall_s: value["wall_s"].as_f64()?,
            cpu_s: value["cpu_s"].as_f64()?,
            peak_rss: value["peak_rss_bytes"].as_u64()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn an_account_survives_the_way_between_processes() {
        let cost = Cost { wall_s: 1.5, cpu_s: 2.25, peak_rss: 3 << 20 };
        assert_eq!(Cost::parse(&cost.to_json().to_string()), Some(cost));
        assert_eq!(Cost::parse("{}"), None);
    }

    #[test]
    fn a_pipeline_hands_its_bytes_on_and_every_end_is_known() {
        let ends = run_pipeline(&words("echo x | grep -q x | false")).unwrap();
        let success: Vec<bool> = ends.iter().map(|(_, status)| status.success()).collect();
        assert_eq!(success, [true, true, false]);
        assert!(run_pipeline(&words("echo x | no-such-program-here")).is_err());
    }

    #[test]
    fn time_of_children_reaches_the_account() {
        let account = tempfile::NamedTempFile::new().unwrap();
        let mut line = vec![account.path().to_str().unwrap().to_owned()];
        line.extend(words("head -c 300000000 /dev/zero | wc -c"));
        measure(&line).unwrap();
        let cost = Cost::parse(&std::fs::read_to_string(account.path()).unwrap()).unwrap();
        assert!(cost.wall_s > 0.0 && cost.cpu_s > 0.0 && cost.peak_rss > 0, "{cost:?}");
    }

    #[test]
    fn a_failing_program_is_quoted_by_its_end() {
        assert_eq!(last_words(b"first\n\n  cargo xtask bench: last \n"), "first last");
        assert_eq!(last_words("ä".repeat(500).as_bytes()).chars().count(), LAST_WORDS_MAX);
    }
}
