//! Later images of a disk: what they store, and what they cost.

mod chain;
mod depth;
mod maker;
mod merge;
mod points;
mod report;
mod round;
mod scattered;
mod series;

use std::path::Path;
use std::time::Instant;

use serde_json::json;

use super::disk;
use super::limits::Limits;
use super::place::Later;
use super::study::Findings;
use super::tool::{Scope, Side};
use super::used::UsedDisk;
use super::{Bench, limits};
use round::{Record, Stage};
use series::{SERIES, Turn};

pub(super) use chain::measure as measure_chain;
pub(super) use depth::measure as measure_depth;
pub(super) use maker::{Maker, newest, scan};
pub(super) use merge::measure as measure_merge;
pub(super) use points::measure as measure_points;
pub(super) use scattered::measure as measure_scattered;

const TURNS: &[Turn] =
    &[Turn::Full, Turn::Unchanged, Turn::Changed, Turn::Restore, Turn::Differential];

/// Increments of the disk and of its second state. `known` are the limits, where they were
/// measured already.
pub(super) fn measure(bench: &Bench<'_>, known: &[Limits]) -> Result<Findings, String> {
    measure_of(bench, known, Later::Second, TURNS)
}

/// An increment of the disk when a fifth of it has changed, which is restored.
pub(super) fn measure_fifth(bench: &Bench<'_>, known: &[Limits]) -> Result<Findings, String> {
    measure_of(bench, known, Later::Fifth, &[Turn::Full, Turn::Changed, Turn::Restore])
}

fn measure_of(
    bench: &Bench<'_>,
    known: &[Limits],
    state: Later,
    turns: &[Turn],
) -> Result<Findings, String> {
    let place = bench.place;
    disk::ensure(place, bench.options.size_gib)?;
    disk::ensure_later(place, bench.options.size_gib, state)?;
    let later = place.later(state);
    let first = UsedDisk::open(&place.disk(), disk::root_extent(&place.disk())?)?;
    let second = UsedDisk::open(&later, disk::root_extent(&later)?)?;
    let check = |restored: &Path, side: Side| {
        let ours = side == Side::Aivory;
        second.check(restored, if ours { Scope::UsedOfDisk } else { Scope::Disk })
    };
    let stage = Stage {
        place,
        first: place.disk(),
        second: later,
        check: &check,
        turns,
        places: bench.places(),
        variables: bench.variables(),
    };
    let measured = match known {
        // More than once: a virtual machine may have lost memory that nobody used for long.
        [] => (0..bench.options.runs).map(|_| limits::measure(&first)).collect::<Result<_, _>>()?,
        known => known.to_vec(),
    };
    let records = run_all(bench, &stage, "increments");
    let (limit, both) = Limits::median_of(&measured).of_increment();
    let what = if state == Later::Fifth { ", a fifth of the disk changed" } else { "" };
    let mut text = String::new();
    for &turn in turns {
        let limit = Some((limit, "limit: read or BLAKE3, the slower"));
        let limit = limit.filter(|_| !matches!(turn, Turn::Full | Turn::Restore));
        text += &report::table(&format!("{turn}{what}"), turn, &records, limit);
        text.push('\n');
    }
    text += &format!(
        "read and BLAKE3 one after the other on all threads: {:.2} s (CPU {:.2} s)\n",
        both.wall_s, both.cpu_s
    );
    let json = json!({
        "read_and_blake3": { "wall_s": both.wall_s, "cpu_s": both.cpu_s },
        "limit": { "wall_s": limit.wall_s, "cpu_s": limit.cpu_s },
        "turns": report::to_json(&records, turns),
    });
    Ok(Findings { text, json, problems: report::our_problems(&records) })
}

/// All programs in turns, as many rounds as are asked for.
fn run_all(bench: &Bench<'_>, stage: &Stage<'_>, title: &str) -> Vec<Record> {
    let wanted = SERIES.iter().filter(|s| bench.options.with_peers || s.side != Side::Peer);
    let mut records: Vec<Record> = wanted.map(|series| Record::new(*series)).collect();
    records.iter_mut().for_each(|record| stage.ask_version(record));
    for round in 1..=bench.options.runs {
        let begun = Instant::now();
        for record in &mut records {
            let (runs, name) = (bench.options.runs, record.series.name);
            eprintln!("bench: {title}: round {round} of {runs}: {name}");
            stage.run(record);
        }
        println!("bench: {title}: round {round} took {:.0} s", begun.elapsed().as_secs_f64());
    }
    records
}
