//! `cargo xtask bench`: Aivory, other people's tools, and the limits of the machine with the
//! same disk in the same run.
//!
//! Tools take turns, so that a slow minute of the machine hits all of them, and medians of the
//! rounds are compared. What a tool restores is compared with the disk each time.

pub(crate) mod build;
mod disk;
mod files;
mod increments;
mod limits;
mod looped;
mod machine;
mod measure;
mod memory;
mod options;
mod parallel;
mod peers;
mod place;
mod protection;
mod random;
mod report;
mod rewind;
mod round;
mod scale;
mod stats;
mod study;
mod table;
mod tool;
mod used;
mod volumes;

use std::path::Path;
use std::time::Instant;

use serde_json::{Map, Value, json};

use crate::Outcome;
use limits::Limits;
use looped::Looped;
use machine::Machine;
use options::Options;
pub(crate) use options::USAGE;
use place::Place;
use round::{Record, Stage};
use study::{Findings, Study};
use tool::{AIVORY, Side, Tool};
use used::UsedDisk;

const CAVEATS: &str = "\
figures are medians of the rounds; RSS is that of the largest process, the worst of all rounds.
A disk in memory (tmpfs) shows the cost of CPU and memory; real disks add their own.
partclone reads through a loop device whose kernel threads no account shows.";

pub(crate) fn run(arguments: &[String]) -> Outcome {
    if let [first, rest @ ..] = arguments
        && first == measure::MEASURE
    {
        return measure::measure(rest);
    }
    if let [first, rest @ ..] = arguments
        && first == scale::SIMULATE
    {
        return scale::simulate(rest);
    }
    let options = Options::parse(arguments)?;
    if cfg!(debug_assertions) {
        return build::run_optimised(arguments);
    }
    let place = Place::prepare(&options)?;
    let machine = Machine::of(&place.folder);
    println!("bench: {machine}");
    let aiv = match &options.aiv {
        Some(aiv) => aiv.clone(),
        None => build::aiv()?,
    };
    let bench = Bench { options: &options, place: &place, machine: &machine, aiv: &aiv };
    bench.measure_all()
}

/// What everything measured shares.
#[derive(Clone, Copy)]
struct Bench<'a> {
    options: &'a Options,
    place: &'a Place,
    machine: &'a Machine,
    aiv: &'a Path,
}

impl Bench<'_> {
    fn measure_all(&self) -> Outcome {
        let only = self.options.only;
        let mut result = Map::new();
        result.insert("machine".into(), self.machine.to_json());
        result.insert("rounds".into(), self.options.runs.into());
        let mut problems = Vec::new();
        let mut limits = Vec::new();
        if only.wants_jobs() {
            disk::ensure(self.place, self.options.size_gib)?;
        }
        if only.wants_jobs() {
            let found = self.measure_jobs(&mut limits, &mut result)?;
            problems.extend(found);
        }
        for study in Study::ALL.into_iter().filter(|study| only.wants_study(*study)) {
            let findings = match study {
                Study::Increments => increments::measure(self, &limits),
                Study::Fifth => increments::measure_fifth(self, &limits),
                Study::Scattered => increments::measure_scattered(self),
                Study::Depth => increments::measure_depth(self),
                Study::Chain => increments::measure_chain(self),
                Study::Points => increments::measure_points(self),
                Study::Merge => increments::measure_merge(self),
                Study::Volumes => volumes::measure(self),
                Study::Protection => protection::measure(self),
                Study::Random => random::measure(self),
                Study::Rewind => rewind::measure(self),
                Study::Files => files::measure(self),
                Study::Scale => scale::measure(self),
            };
            let Findings { text, json, problems: found } =
                findings.map_err(|failure| format!("{study}: {failure}"))?;
            println!("\n{text}");
            result.insert(study.to_string(), json);
            problems.extend(found);
        }
        if only.wants_memory() {
            // The huge source needs no disk beside it.
            let figures = memory::measure(self.place, self.aiv)?;
            print!("\n{}", figures.text());
            problems.extend(figures.check().err());
            result.insert("memory".into(), figures.to_json());
        }
        println!("\n{}\n{CAVEATS}", self.machine);
        save(self.options, &Value::Object(result))?;
        if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
    }

    /// Full images of the disk: what they cost, and what it costs to use them. Returns what
    /// went wrong.
    fn measure_jobs(
        &self,
        limits: &mut Vec<Limits>,
        result: &mut Map<String, Value>,
    ) -> Result<Vec<String>, String> {
        let (options, place) = (self.options, self.place);
        if options.is_cold && self.machine.filesystem == "tmpfs" {
            return Err("--cold needs a work folder on a disk: name one with --dir".to_owned());
        }
        let disk = UsedDisk::open(&place.disk(), disk::root_extent(&place.disk())?)?;
        println!("bench: {} MiB of the disk are in use", disk.used.total_len() >> 20);
        let wanted = |tool: &&Tool| {
            Record::is_wanted(tool, options.only) && (options.with_peers || tool.side != Side::Peer)
        };
        let tools = AIVORY.iter().chain(peers::PEERS).filter(wanted);
        let mut records: Vec<Record> = tools.map(|tool| Record::new(*tool)).collect();
        let needs_volume =
            |record: &Record| record.tool.full.contains("{root}") && record.is_installed();
        let root = match records.iter().any(needs_volume) {
            true => Some(Looped::read_only(&place.disk(), disk.root)?),
            false => None,
        };
        let device = root.as_ref().map(|root| text(root.device())).unwrap_or_default();
        let mut places = self.places();
        places.push(("{root}", device));
        let variables = self.variables();
        let (only, is_cold) = (options.only, options.is_cold);
        let stage = Stage { place, disk: &disk, only, is_cold, places, variables };
        records.iter_mut().for_each(|record| stage.ask_version(record));
        for round in 1..=options.runs {
            let begun = Instant::now();
            limits.push(limits::measure(&disk)?);
            for record in &mut records {
                eprintln!("bench: round {round} of {}: {}", options.runs, record.tool.name);
                stage.run(record);
            }
            println!("bench: round {round} took {:.0} s", begun.elapsed().as_secs_f64());
        }
        let figures = report::Figures { records: &records, limits, only: options.only };
        print!("\n{}\n{}", figures.tables(), figures.limits_text());
        let facts = json!({ "size_bytes": disk.len, "used_bytes": disk.used.total_len() });
        result.insert("disk".into(), facts);
        result.insert("measured".into(), figures.to_json());
        Ok(figures.our_problems())
    }

    /// Values of the places in command lines that do not depend on the tool.
    fn places(&self) -> Vec<(&'static str, String)> {
        vec![
            ("{aiv}", text(self.aiv)),
            ("{disk}", text(&self.place.disk())),
            ("{threads}", self.machine.threads.to_string()),
            ("{secret}", text(&self.place.secret())),
        ]
    }

    /// Set for every program.
    fn variables(&self) -> Vec<(&'static str, String)> {
        let home = text(&self.place.run("home"));
        vec![
            ("BORG_BASE_DIR", home.clone()),
            ("BORG_PASSPHRASE", "benchmark".into()),
            ("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "yes".into()),
            ("RESTIC_CACHE_DIR", home.clone()),
            ("RESTIC_PASSWORD", "benchmark".into()),
            ("RUSTIC_CACHE_DIR", home),
            ("RUSTIC_PASSWORD", "benchmark".into()),
            // partclone asks the terminal database even when it stays quiet.
            ("TERM", "linux".into()),
        ]
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn save(options: &Options, result: &Value) -> Outcome {
    let path = &options.json;
    let failed = |e: std::io::Error| format!("{}: {e}", path.display());
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    std::fs::write(path, format!("{result:#}\n")).map_err(failed)?;
    println!("bench: figures are in {}", path.display());
    Ok(())
}
