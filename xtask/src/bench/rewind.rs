//! An earlier state of the disk put back over a later one.

use serde_json::{Value, json};

use super::limits::{self, Limits};
use super::measure::{self, Cost};
use super::stats::median;
use super::study::Findings;
use super::tool::{Scope, fill};
use super::used::UsedDisk;
use super::{Bench, disk, text as path_text};

/// How, what the command is told for it, and the most it may take, in times of reading and
/// hashing what is in use.
const ROWS: [(&str, &str, Option<f64>); 2] =
    [("--delta", "--delta", Some(1.3)), ("all of it", "", None)];

struct Row {
    name: &'static str,
    options: &'static str,
    target: Option<f64>,
    costs: Vec<Cost>,
}

pub(super) fn measure(bench: &Bench<'_>) -> Result<Findings, String> {
    let place = bench.place;
    disk::ensure(place, bench.options.size_gib)?;
    disk::ensure_second(place, bench.options.size_gib)?;
    let first = UsedDisk::open(&place.disk(), disk::root_extent(&place.disk())?)?;
    let second = UsedDisk::open(&place.second(), disk::root_extent(&place.second())?)?;
    place.reset_run()?;
    let (images, target) = (place.run("images"), place.run("target.raw"));
    let mut places = bench.places();
    places.extend([("{images}", path_text(&images)), ("{target}", path_text(&target))]);
    let run = |line: &str| measure::run(&fill(line, &places), &place.folder, &bench.variables());
    let failed = |e: std::io::Error| format!("{}: {e}", target.display());
    std::fs::create_dir_all(&images).map_err(failed)?;
    run("{aiv} backup {disk} --to {images} --json --quiet")?;
    let mut rows =
        ROWS.map(|(name, options, target)| Row { name, options, target, costs: Vec::new() });
    let mut measured = Vec::new();
    for round in 1..=bench.options.runs {
        measured.push(limits::measure(&second)?);
        for row in &mut rows {
            eprintln!("bench: rewind: round {round}: {}", row.name);
            // Holes stay holes, as on the disk the first state is taken from.
            run("cp --sparse=always second.raw {target}")?;
            let options = row.options;
            let line = format!(
                "{{aiv}} restore {{images}}@latest --to {{target}} {options} --yes --json --quiet"
            );
            row.costs.push(run(&line)?.0);
            first.check(&target, Scope::UsedOfDisk)?;
            std::fs::remove_file(&target).map_err(failed)?;
        }
    }
    place.reset_run()?;
    let (_, both) = Limits::median_of(&measured).of_increment();
    let limit = Cost { wall_s: both.wall_s, cpu_s: both.cpu_s, peak_rss: 0 };
    Ok(Findings { text: text(&rows, limit), json: to_json(&rows, limit), problems: Vec::new() })
}

impl Row {
    fn median(&self, of: impl Fn(&Cost) -> f64) -> f64 {
        median(&self.costs.iter().map(of).collect::<Vec<_>>()).unwrap_or(f64::NAN)
    }
}

fn text(rows: &[Row], limit: Cost) -> String {
    let mut text = format!(
        "rewind: the first state over the second, read back\n  \
         {:<24}  wall s  CPU s  x limit  target\n  {:<24}  {:>6.2}  {:>5.2}\n",
        "", "limit: read and BLAKE3", limit.wall_s, limit.cpu_s
    );
    for row in rows {
        let wall_s = row.median(|cost| cost.wall_s);
        let target = row.target.map_or(String::new(), |target| format!("{target:.1}"));
        text += &format!(
            "  {:<24}  {wall_s:>6.2}  {:>5.2}  {:>7.2}  {target:>6}\n",
            row.name,
            row.median(|cost| cost.cpu_s),
            wall_s / limit.wall_s,
        );
    }
    text
}

fn to_json(rows: &[Row], limit: Cost) -> Value {
    let row = |row: &Row| {
        json!({
            "name": row.name,
            "wall_s": row.median(|cost| cost.wall_s),
            "cpu_s": row.median(|cost| cost.cpu_s),
            "rounds": row.costs.iter().map(|cost| cost.to_json()).collect::<Vec<_>>(),
        })
    };
    json!({ "limit": limit.to_json(), "rows": rows.iter().map(row).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_times_of_the_limit() {
        let cost = |wall_s| Cost { wall_s, cpu_s: 2.0 * wall_s, peak_rss: 0 };
        let (name, options, target) = ROWS[0];
        let row = Row { name, options, target, costs: [3.0, 1.0, 2.0].map(cost).to_vec() };
        let text = text(&[row], cost(0.5));
        let line = text.lines().find(|line| line.contains("--delta")).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words, ["--delta", "2.00", "4.00", "4.00", "1.3"]);
    }
}
