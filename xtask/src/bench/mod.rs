//! `cargo xtask bench`: Aivory, other people's tools, and the limits of the machine with the
//! same disk in the same run.
//!
//! Tools take turns, so that a slow minute of the machine hits all of them, and medians of the
//! rounds are compared. What a tool restores is compared with the disk each time.

mod build;
mod disk;
mod limits;
mod looped;
mod machine;
mod measure;
mod memory;
mod options;
mod parallel;
mod peers;
mod place;
mod report;
mod round;
mod stats;
mod table;
mod tool;
mod used;

use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

use crate::Outcome;
use looped::Looped;
use machine::Machine;
use options::{Only, Options};
use place::Place;
use round::{Record, Stage};
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
    let options = Options::parse(arguments)?;
    let place = Place::prepare(&options)?;
    let machine = Machine::of(&place.folder);
    println!("bench: {machine}");
    let aiv = match &options.aiv {
        Some(aiv) => aiv.clone(),
        None => build::aiv()?,
    };
    if options.only == Only::Memory {
        // The huge source needs no disk beside it.
        return measure_memory(&options, &place, &machine, &aiv);
    }
    disk::ensure(&place, options.size_gib)?;
    let disk = UsedDisk::open(&place.disk(), disk::root_extent(&place.disk())?)?;
    println!("bench: {} MiB of the disk are in use", disk.used.total_len() >> 20);
    measure_all(&options, &place, &machine, &aiv, &disk)
}

fn measure_memory(options: &Options, place: &Place, machine: &Machine, aiv: &Path) -> Outcome {
    let figures = memory::measure(place, aiv)?;
    print!("\n{}", figures.text());
    let memory = figures.to_json();
    save(options, &json!({ "machine": machine.to_json(), "memory": memory }))?;
    figures.check()
}

fn measure_all(
    options: &Options,
    place: &Place,
    machine: &Machine,
    aiv: &Path,
    disk: &UsedDisk,
) -> Outcome {
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
    let stage = stage(options, place, machine, aiv, disk, root.as_ref());
    records.iter_mut().for_each(|record| stage.ask_version(record));

    let mut limits = Vec::new();
    for round in 1..=options.runs {
        let begun = Instant::now();
        limits.push(limits::measure(disk)?);
        for record in &mut records {
            eprintln!("bench: round {round} of {}: {}", options.runs, record.tool.name);
            stage.run(record);
        }
        println!("bench: round {round} took {:.0} s", begun.elapsed().as_secs_f64());
    }
    let figures = report::Figures { records: &records, limits: &limits, only: options.only };
    print!("\n{}\n{}", figures.tables(), figures.limits_text());
    let mut problems = figures.our_problems();
    let mut memory = Value::Null;
    if options.only.wants_memory() {
        let figures = memory::measure(place, aiv)?;
        print!("\n{}", figures.text());
        problems.extend(figures.check().err());
        memory = figures.to_json();
    }
    println!("\n{machine}\n{CAVEATS}");
    let result = json!({
        "machine": machine.to_json(),
        "disk": {
            "size_bytes": disk.len,
            "used_bytes": disk.used.total_len(),
        },
        "rounds": options.runs,
        "measured": figures.to_json(),
        "memory": memory,
    });
    save(options, &result)?;
    if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
}

fn stage<'a>(
    options: &Options,
    place: &'a Place,
    machine: &Machine,
    aiv: &Path,
    disk: &'a UsedDisk,
    root: Option<&Looped>,
) -> Stage<'a> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let home = text(&place.run("home"));
    Stage {
        place,
        disk,
        only: options.only,
        places: vec![
            ("{aiv}", text(aiv)),
            ("{disk}", text(&place.disk())),
            ("{root}", root.map(|root| text(root.device())).unwrap_or_default()),
            ("{threads}", machine.threads.to_string()),
        ],
        variables: vec![
            ("BORG_BASE_DIR", home.clone()),
            ("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "yes".into()),
            ("RESTIC_CACHE_DIR", home),
            ("RESTIC_PASSWORD", "benchmark".into()),
            // partclone asks the terminal database even when it stays quiet.
            ("TERM", "linux".into()),
        ],
    }
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
