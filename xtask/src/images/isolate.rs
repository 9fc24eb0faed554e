//! Each image is checked by a process of its own: whatever the library does to itself there
//! (panic, endless loop, stack overflow, all of memory), the campaign goes on and says so.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::manifest::{self, ImageFact};
use super::{Verdict, check};
use crate::Outcome;

/// The argument that asks for the check of one image.
pub(super) const CHECK_ONE: &str = "--check-one";
/// Examining, two backups and two restores of a disk of a GiB in a debug build on a busy machine.
const TIME_MAX: Duration = Duration::from_secs(180);
/// Address space in bytes. The library promises to stay far below for any content.
const MEMORY_MAX: u64 = 2 << 30;

const PROBLEM: &str = "problem: ";
const REMARK: &str = "remark: ";
const FILES: &str = "files: ";
/// Ends a complete answer: without it the process died on the way.
const DONE: &str = "done";

/// Checks an image in a process of its own.
pub(super) fn check_apart(folder: &Path, fact: &ImageFact, raw: &Path, work: &Path) -> Verdict {
    // The name of this program stays valid when cargo replaces its file meanwhile.
    let mut command = Command::new("/proc/self/exe");
    command.args(["images", CHECK_ONE]).arg(folder).arg(&fact.id).arg(raw);
    match run_limited(&mut command, work, TIME_MAX) {
        Ok(Ended { status: Some(status), out, err }) => read_answer(&out, &err, status),
        Ok(Ended { status: None, .. }) => {
            Verdict::problem(format!("not done after {} s", TIME_MAX.as_secs()))
        }
        Err(e) => Verdict::problem(format!("cannot check in a process of its own: {e}")),
    }
}

/// The other side of [`check_apart`].
pub(super) fn check_one(folder: &Path, id: &str, raw: &Path) -> Outcome {
    let maximum = getrlimit(Resource::As).maximum;
    let limit = Rlimit { current: Some(MEMORY_MAX), maximum };
    setrlimit(Resource::As, limit).map_err(|e| format!("cannot limit memory: {e}"))?;
    let facts = manifest::load(folder)?;
    let fact = facts.iter().find(|fact| fact.id == id).ok_or("no such image")?;
    super::containers::fetch_parent(folder, &facts, fact, raw)?;
    print!("{}", answer(&check::check_image(fact, raw)));
    Ok(())
}

fn answer(verdict: &Verdict) -> String {
    let one_line = |text: &str| text.replace('\n', " ");
    let mut text = String::new();
    for problem in &verdict.problems {
        text.push_str(&format!("{PROBLEM}{}\n", one_line(problem)));
    }
    for remark in &verdict.remarks {
        text.push_str(&format!("{REMARK}{}\n", one_line(remark)));
    }
    text.push_str(&format!("{FILES}{}\n{DONE}\n", verdict.files));
    text
}

fn read_answer(out: &str, err: &str, status: ExitStatus) -> Verdict {
    let mut verdict = Verdict::default();
    for line in out.lines() {
        if let Some(problem) = line.strip_prefix(PROBLEM) {
            verdict.problems.push(problem.to_owned());
        } else if let Some(remark) = line.strip_prefix(REMARK) {
            verdict.remarks.push(remark.to_owned());
        } else if let Some(files) = line.strip_prefix(FILES) {
            verdict.files = files.parse().unwrap_or(0);
        }
    }
    if !status.success() || out.lines().next_back() != Some(DONE) {
        let how = match status.signal() {
            Some(signal) => format!("killed by signal {signal}"),
            None => status.to_string(),
        };
        let last_words: Vec<&str> = err.lines().filter(|line| !line.is_empty()).collect();
        verdict.problems.push(format!("died ({how}): {}", last_words.join(" ")));
    }
    verdict
}

/// How a process ended.
struct Ended {
    /// `None` when it was killed because its time was up.
    status: Option<ExitStatus>,
    out: String,
    err: String,
}

/// Runs a command for at most `time_max`. Its output goes to files: a process that fills a
/// pipe nobody reads would seem to hang.
fn run_limited(command: &mut Command, work: &Path, time_max: Duration) -> std::io::Result<Ended> {
    let (out, err) = (work.join("out"), work.join("err"));
    let mut child = command
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(File::create(&out)?)
        .stderr(File::create(&err)?)
        .spawn()?;
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if begun.elapsed() > time_max {
            child.kill()?;
            child.wait()?;
            break None;
        }
        thread::sleep(Duration::from_millis(2));
    };
    let text = |path| std::fs::read(path).map(|b| String::from_utf8_lossy(&b).into_owned());
    Ok(Ended { status, out: text(out)?, err: text(err)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_shell(script: &str, time_max: Duration) -> Ended {
        let work = tempfile::tempdir().unwrap();
        run_limited(Command::new("sh").args(["-c", script]), work.path(), time_max).unwrap()
    }

    fn verdict_of(script: &str) -> Verdict {
        let Ended { status, out, err } = run_shell(script, TIME_MAX);
        read_answer(&out, &err, status.unwrap())
    }

    #[test]
    fn a_verdict_survives_the_way_between_processes() {
        let verdict = Verdict {
            problems: vec!["two\nlines".into(), "other".into()],
            remarks: vec!["remark".into()],
            files: 7,
        };
        let read = read_answer(&answer(&verdict), "", ExitStatus::default());
        assert_eq!(read.problems, ["two lines", "other"]);
        assert_eq!((read.remarks, read.files), (verdict.remarks, 7));
    }

    #[test]
    fn a_panic_an_abort_and_an_early_end_are_problems() {
        let panic = verdict_of("echo 'remark: r'; echo panicked here >&2; exit 101");
        assert_eq!(panic.problems, ["died (exit status: 101): panicked here"]);
        assert_eq!(panic.remarks, ["r"]);
        assert_eq!(verdict_of("kill -ABRT $$").problems, ["died (killed by signal 6): "]);
        assert_eq!(verdict_of("true").problems, ["died (exit status: 0): "]);
        assert_eq!(verdict_of("echo done"), Verdict::default());
    }

    #[test]
    fn a_process_that_does_not_end_is_killed() {
        let begun = Instant::now();
        assert!(run_shell("exec sleep 60", Duration::from_millis(50)).status.is_none());
        assert!(begun.elapsed() < Duration::from_secs(30));
    }
}
