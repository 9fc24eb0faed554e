//! From the figures of all rounds to tables and JSON.

use serde_json::{Value, json};

use super::limits::Limits;
use super::measure::Cost;
use super::options::Only;
use super::parallel::Spent;
use super::round::Record;
use super::stats::median;
use super::table::{self, Row};
use super::tool::{Job, Scope, Side, Step};

/// A table has no room for all the words of a failing program; the JSON has.
const PROBLEM_CHARS_MAX: usize = 90;

/// Everything measured with the disk.
pub(super) struct Figures<'a> {
    pub(super) records: &'a [Record],
    /// One of each round.
    pub(super) limits: &'a [Limits],
    pub(super) only: Only,
}

impl Figures<'_> {
    /// One table for each job.
    pub(super) fn tables(&self) -> String {
        let jobs = Job::all().filter(|job| self.only.wants(*job));
        let tables: Vec<String> =
            jobs.map(|job| table::render(&job.to_string(), &self.rows(job))).collect();
        tables.join("\n")
    }

    /// The limit, the passes, Aivory, then the others from fast to slow; those without a figure last.
    fn rows(&self, job: Job) -> Vec<Row> {
        let limits = Limits::median_of(self.limits);
        let limit = limits.of(job, self.copy());
        let of_job = |record: &&Record| {
            record.tool.codec == job.codec && record.tool.line(job.step).is_some()
        };
        let records: Vec<&Record> = self.records.iter().filter(of_job).collect();
        let ours = records.iter().find(|record| record.tool.side == Side::Aivory);
        let our_wall = ours.and_then(|record| wall(record, job.step));
        let row = |record: &&Record| {
            let figures = |figure: fn(&Cost) -> f64| median_of(record, job.step, figure);
            let wall_s = figures(|cost| cost.wall_s);
            Row {
                name: record.tool.name.into(),
                wall_s,
                ratio: wall_s.zip(our_wall).map(|(wall, ours)| wall / ours),
                x_limit: wall_s.zip(limit).map(|(wall, (limit, _))| wall / limit.wall_s),
                cpu_s: figures(|cost| cost.cpu_s),
                peak_rss: peak_rss(record, job.step),
                stored_bytes: record.stored_bytes,
                remark: remark(record),
            }
        };
        let mut rows: Vec<(bool, Row)> =
            records.iter().map(|record| (record.tool.side != Side::Aivory, row(record))).collect();
        let key = |row: &Row| row.wall_s.unwrap_or(f64::INFINITY);
        rows.sort_by(|(a_other, a), (b_other, b)| {
            a_other.cmp(b_other).then(key(a).total_cmp(&key(b)))
        });
        let limit_row = |(spent, name): (Spent, &str)| Row {
            name: name.into(),
            wall_s: Some(spent.wall_s),
            cpu_s: Some(spent.cpu_s),
            ratio: our_wall.map(|ours| spent.wall_s / ours),
            x_limit: limit.map(|(limit, _)| spent.wall_s / limit.wall_s),
            ..Row::default()
        };
        let limit_rows = limit.into_iter().chain(limits.of_passes(job)).map(limit_row);
        limit_rows.chain(rows.into_iter().map(|(_, row)| row)).collect()
    }

    fn copy(&self) -> Option<Spent> {
        let copy = self.records.iter().find(|record| record.tool.side == Side::Limit)?;
        let cpu_s = median_of(copy, Step::Full, |cost| cost.cpu_s)?;
        Some(Spent { wall_s: wall(copy, Step::Full)?, cpu_s })
    }

    /// The limits by themselves.
    pub(super) fn limits_text(&self) -> String {
        let medians = Limits::median_of(self.limits).named();
        let times: Vec<String> = medians
            .iter()
            .map(|(name, spent)| format!("{name} {:.2} ({:.2})", spent.wall_s, spent.cpu_s))
            .collect();
        format!("limits in memory, wall s (CPU s) of all threads: {}\n", times.join(", "))
    }

    /// What went wrong with Aivory; a peer that fails is a row, not a failure.
    pub(super) fn our_problems(&self) -> Vec<String> {
        let ours: Vec<&Record> =
            self.records.iter().filter(|record| record.tool.side == Side::Aivory).collect();
        let mut problems: Vec<String> = ours
            .iter()
            .filter_map(|record| {
                Some(format!("{}: {}", record.tool.name, record.problem.as_ref()?))
            })
            .collect();
        let mut roots: Vec<&String> =
            ours.iter().filter_map(|record| record.content_root.as_ref()).collect();
        roots.dedup();
        if roots.len() > 1 {
            problems.push("the content root depends on the codec".into());
        }
        problems
    }

    pub(super) fn to_json(&self) -> Value {
        let jobs = Job::all().filter(|job| self.only.wants(*job)).map(|job| {
            let limits = Limits::median_of(self.limits);
            let entry = |(spent, name): (Spent, &str)| {
                json!({ "name": name, "wall_s": spent.wall_s, "cpu_s": spent.cpu_s })
            };
            let limit = limits.of(job, self.copy()).map(entry);
            let passes = limits.of_passes(job).map(entry);
            let rows: Vec<Value> = self
                .records
                .iter()
                .filter(|record| {
                    record.tool.codec == job.codec && record.tool.line(job.step).is_some()
                })
                .map(|record| row_json(record, job.step))
                .collect();
            json!({
                "job": job.to_string(),
                "limit": limit,
                "passes": passes,
                "tools": rows,
            })
        });
        json!({
            "jobs": jobs.collect::<Vec<_>>(),
            "limits": self.limits.iter().map(|limits| limits.to_json()).collect::<Vec<_>>(),
        })
    }
}

fn row_json(record: &Record, step: Step) -> Value {
    let runs = record.costs.get(&step).map_or(&[] as &[Cost], Vec::as_slice);
    json!({
        "tool": record.tool.name,
        "version": record.version,
        "note": record.tool.note,
        "command": record.tool.line(step),
        "wall_s": wall(record, step),
        "cpu_s": median_of(record, step, |cost| cost.cpu_s),
        "peak_rss_bytes": peak_rss(record, step),
        "stored_bytes": record.stored_bytes,
        "restored_bytes_checked": record.is_checked,
        "content_root": record.content_root,
        "problem": record.problem,
        "runs": runs.iter().map(|cost| cost.to_json()).collect::<Vec<_>>(),
    })
}

fn median_of(record: &Record, step: Step, figure: impl Fn(&Cost) -> f64) -> Option<f64> {
    let values: Vec<f64> = record.costs.get(&step)?.iter().map(figure).collect();
    median(&values)
}

fn wall(record: &Record, step: Step) -> Option<f64> {
    median_of(record, step, |cost| cost.wall_s)
}

/// The worst of all rounds: a promise about memory holds always or not at all.
fn peak_rss(record: &Record, step: Step) -> Option<u64> {
    record.costs.get(&step)?.iter().map(|cost| cost.peak_rss).max()
}

/// What was checked and what must be known; of a tool that failed, why.
fn remark(record: &Record) -> String {
    if let Some(problem) = &record.problem {
        return problem.chars().take(PROBLEM_CHARS_MAX).collect();
    }
    let check = match (record.is_checked, record.tool.scope) {
        (false, _) => "",
        (true, Scope::Disk) => "bit-identical",
        (true, Scope::FilesOfRoot) => "files equal",
        (true, _) => "used bytes equal",
    };
    let parts = [check, record.tool.note].into_iter().filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::super::peers::PEERS;
    use super::super::tool::{AIVORY, Codec, Tool};
    use super::*;

    fn record(tool: Tool, walls: &[f64]) -> Record {
        let mut record = Record::new(tool);
        record.problem = None;
        let cost = |wall_s: &f64| Cost { wall_s: *wall_s, cpu_s: wall_s * 2.0, peak_rss: 1 << 20 };
        record.costs.insert(Step::Full, walls.iter().map(cost).collect());
        record
    }

    fn peer(name: &str) -> Tool {
        *PEERS.iter().find(|peer| peer.name == name).unwrap()
    }

    #[test]
    fn a_table_compares_medians_and_puts_aivory_first() {
        let mut gone = record(peer("restic"), &[]);
        gone.costs.clear();
        gone.problem = Some("not installed".into());
        let records = [
            gone,
            record(peer("zstd -3"), &[9.0, 90.0, 8.0]),
            record(peer("zstd -1"), &[6.0]),
            record(AIVORY[0], &[3.0]),
            record(AIVORY[1], &[1.0]),
        ];
        let figures = Figures { records: &records, limits: &[], only: Only::Everything };
        let rows = figures.rows(Job { step: Step::Full, codec: Codec::Zstd });
        let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names[2..], ["aiv zstd:1", "zstd -1", "zstd -3", "restic"]);
        let ratios: Vec<Option<f64>> = rows[2..].iter().map(|row| row.ratio).collect();
        assert_eq!(ratios, [Some(1.0), Some(2.0), Some(3.0), None]);
        assert_eq!((rows[4].cpu_s, rows[4].peak_rss), (Some(18.0), Some(1 << 20)));
        assert_eq!(rows[5].remark, "not installed");
    }

    #[test]
    fn a_failing_peer_is_a_row_and_our_own_failure_is_a_failure() {
        let mut broken = record(peer("zstd -1"), &[]);
        broken.problem = Some("full-zstd: no space".into());
        let (mut one, mut two) = (record(AIVORY[0], &[1.0]), record(AIVORY[1], &[1.0]));
        (one.content_root, two.content_root) = (Some("a".into()), Some("a".into()));
        let problems = |records: &[Record]| {
            Figures { records, limits: &[], only: Only::Everything }.our_problems()
        };
        let mut records = [broken, one, two];
        assert_eq!(problems(&records), [""; 0]);
        records[2].content_root = Some("b".into());
        assert_eq!(problems(&records), ["the content root depends on the codec"]);
        records[1].problem = Some("full-zstd: died".into());
        assert_eq!(problems(&records)[0], "aiv zstd:1: full-zstd: died");
    }

    #[test]
    fn every_row_reaches_the_json_with_all_its_runs() {
        let records = [record(AIVORY[0], &[3.0, 1.0, 2.0])];
        let only = Only::Job(Job { step: Step::Full, codec: Codec::Zstd });
        let json = Figures { records: &records, limits: &[], only }.to_json();
        let row = &json["jobs"][0]["tools"][0];
        assert_eq!((row["wall_s"].as_f64(), row["runs"].as_array().unwrap().len()), (Some(2.0), 3));
    }
}
