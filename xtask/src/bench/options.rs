//! The words after `cargo xtask bench`.

use std::path::PathBuf;

use super::study::Study;
use super::tool::Job;
use crate::process;

pub(crate) const USAGE: &str = "\
usage: cargo xtask bench [OPTION]...
  --dir DIR      work folder, kept between runs (default: aiv-bench in /dev/shm, else in the
                 folder for temporary files)
  --size-gib N   size of the disk, 1 to 64 (default 8); smaller ones hold a part of the files
  --runs N       rounds to take medians of (default 3)
  --only JOB     one job: full-zstd, restore-lz4, verify-none, quick-zstd, ..., increments,
                 fifth, scattered, depth, chain, merge, volumes, protection, random, rewind, files,
                 memory, or, not without being asked for, scale (half an hour) and points (ten
                 minutes)
  --cold         of full images, their restores and verifications: nothing is in memory before
                 each, and it counts until all is on the disk
  --no-peers     Aivory and the limits alone
  --aiv PATH     measure this program instead of building one
  --json FILE    where the figures go (default target/bench.json)";

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) dir: Option<PathBuf>,
    pub(super) size_gib: u64,
    pub(super) runs: u64,
    pub(super) only: Only,
    pub(super) with_peers: bool,
    pub(super) is_cold: bool,
    pub(super) aiv: Option<PathBuf>,
    pub(super) json: PathBuf,
}

/// What is to be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Only {
    Everything,
    Job(Job),
    Study(Study),
    /// The huge sparse source.
    Memory,
}

impl Only {
    pub(super) fn wants(self, job: Job) -> bool {
        self == Self::Everything || self == Self::Job(job)
    }

    pub(super) fn wants_study(self, study: Study) -> bool {
        // Sources of a terabyte take their time: they are measured when asked for.
        self == Self::Study(study)
            || self == Self::Everything && !matches!(study, Study::Scale | Study::Points)
    }

    /// Whether full images of the disk are made for their own sake.
    pub(super) fn wants_jobs(self) -> bool {
        matches!(self, Self::Everything | Self::Job(_))
    }

    pub(super) fn wants_memory(self) -> bool {
        matches!(self, Self::Everything | Self::Memory)
    }
}

impl Options {
    pub(super) fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self {
            dir: None,
            size_gib: 8,
            runs: 3,
            only: Only::Everything,
            with_peers: true,
            is_cold: false,
            aiv: None,
            json: process::repository().join("target/bench.json"),
        };
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            if word == "--no-peers" {
                options.with_peers = false;
                continue;
            }
            if word == "--cold" {
                options.is_cold = true;
                continue;
            }
            let known = ["--dir", "--size-gib", "--runs", "--only", "--aiv", "--json"];
            if !known.contains(&word.as_str()) {
                return Err(format!("does not know '{word}'\n{USAGE}"));
            }
            let value = words.next().ok_or_else(|| format!("{word} needs a value\n{USAGE}"))?;
            match word.as_str() {
                "--dir" => options.dir = Some(path(value)?),
                "--size-gib" => options.size_gib = number(word, value, 1..=64)?,
                "--runs" => options.runs = number(word, value, 1..=99)?,
                "--only" => options.only = only(value)?,
                "--aiv" => options.aiv = Some(path(value)?),
                _ => options.json = path(value)?,
            }
        }
        Ok(options)
    }
}

/// Measured programs run in folders of their own: paths must not depend on where one stands.
fn path(value: &str) -> Result<PathBuf, String> {
    std::path::absolute(value).map_err(|e| format!("{value}: {e}"))
}

fn number(word: &str, value: &str, range: std::ops::RangeInclusive<u64>) -> Result<u64, String> {
    match value.parse() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(format!("{word} takes {} to {}, not '{value}'", range.start(), range.end())),
    }
}

fn only(value: &str) -> Result<Only, String> {
    if value == "memory" {
        return Ok(Only::Memory);
    }
    let study = Study::ALL.into_iter().find(|study| study.to_string() == value);
    let job = Job::all().find(|job| job.to_string() == value);
    study.map(Only::Study).or(job.map(Only::Job)).ok_or_else(|| {
        let studies = Study::ALL.iter().map(Study::to_string);
        let names: Vec<String> = studies.chain(Job::all().map(|job| job.to_string())).collect();
        format!("there is no job '{value}'; there are memory, {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::super::tool::{Codec, Step};
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Options::parse(&words)
    }

    #[test]
    fn every_option_is_understood() {
        let line = "--dir /a --size-gib 2 --runs 5 --only restore-lz4 --no-peers --cold --aiv /b --json /c";
        let expected = Options {
            dir: Some("/a".into()),
            size_gib: 2,
            runs: 5,
            only: Only::Job(Job { step: Step::Restore, codec: Codec::Lz4 }),
            with_peers: false,
            is_cold: true,
            aiv: Some("/b".into()),
            json: "/c".into(),
        };
        assert_eq!(parse(line), Ok(expected));
    }

    #[test]
    fn wrong_words_are_named() {
        let failure = |line| parse(line).unwrap_err();
        assert!(failure("--fast").starts_with("does not know '--fast'\nusage: "));
        assert!(failure("--dir").starts_with("--dir needs a value\n"));
        assert_eq!(failure("--runs 0"), "--runs takes 1 to 99, not '0'");
        assert!(
            failure("--only full")
                .starts_with("there is no job 'full'; there are memory, increments, ")
        );
    }

    #[test]
    fn one_job_alone_leaves_the_others_out() {
        let only = parse("--only full-zstd").unwrap().only;
        let wanted: Vec<String> =
            Job::all().filter(|job| only.wants(*job)).map(|job| job.to_string()).collect();
        assert_eq!(wanted, ["full-zstd"]);
        assert!(!only.wants_memory());
        let study = parse("--only chain").unwrap().only;
        assert!(study.wants_study(Study::Chain) && !study.wants_study(Study::Depth));
        assert!(!study.wants_jobs() && !study.wants_memory());
        assert!(parse("").unwrap().only.wants_memory());
    }
}
