//! From the figures of all rounds to tables and JSON.

use serde_json::{Value, json};

use super::super::measure::Cost;
use super::super::parallel::Spent;
use super::super::stats::median;
use super::super::table::{self, Row};
use super::super::tool::Side;
use super::round::Record;
use super::series::Turn;

/// A table has no room for all the words of a failing program; the JSON has.
const PROBLEM_CHARS_MAX: usize = 90;

/// One table: Aivory first, then the others from fast to slow.
pub(super) fn table(
    title: &str,
    turn: Turn,
    records: &[Record],
    limit: Option<(Spent, &'static str)>,
) -> String {
    let able = || records.iter().filter(|record| record.series.line(turn).is_some());
    let ours = able().find(|record| record.series.side == Side::Aivory);
    let our_wall = ours.and_then(|record| figure(record, turn, |cost| cost.wall_s));
    let row = |record: &Record| {
        let wall_s = figure(record, turn, |cost| cost.wall_s);
        let check = if record.is_checked { "restored and compared; " } else { "" };
        Row {
            name: record.series.name.into(),
            wall_s,
            ratio: wall_s.zip(our_wall).map(|(wall, ours)| wall / ours),
            x_limit: wall_s.zip(limit).map(|(wall, (limit, _))| wall / limit.wall_s),
            cpu_s: figure(record, turn, |cost| cost.cpu_s),
            peak_rss: peak_rss(record, turn),
            stored_bytes: record.grown.get(&turn).copied(),
            remark: match &record.problem {
                Some(problem) => problem.chars().take(PROBLEM_CHARS_MAX).collect(),
                None => format!("{check}{}", record.series.note),
            },
        }
    };
    let mut rows: Vec<(bool, Row)> =
        able().map(|record| (record.series.side != Side::Aivory, row(record))).collect();
    let key = |row: &Row| row.wall_s.unwrap_or(f64::INFINITY);
    // Ours stay in the order of the list: the default first.
    rows.sort_by(|(a_peer, a), (b_peer, b)| match (a_peer, b_peer) {
        (true, true) => key(a).total_cmp(&key(b)),
        _ => a_peer.cmp(b_peer),
    });
    let limit_row = limit.map(|(spent, name)| Row {
        name: name.into(),
        wall_s: Some(spent.wall_s),
        cpu_s: Some(spent.cpu_s),
        ratio: our_wall.map(|ours| spent.wall_s / ours),
        x_limit: Some(1.0),
        ..Row::default()
    });
    let rows: Vec<Row> =
        limit_row.into_iter().chain(rows.into_iter().map(|(_, row)| row)).collect();
    table::render(title, &rows)
}

pub(super) fn to_json(records: &[Record], turns: &[Turn]) -> Value {
    let of_turn = |turn: &Turn| {
        let rows: Vec<Value> = records.iter().map(|record| row_json(record, *turn)).collect();
        json!({ "turn": turn.to_string(), "tools": rows })
    };
    Value::Array(turns.iter().map(of_turn).collect())
}

fn row_json(record: &Record, turn: Turn) -> Value {
    let runs = record.costs.get(&turn).map_or(&[] as &[Cost], Vec::as_slice);
    json!({
        "tool": record.series.name,
        "version": record.version,
        "command": record.series.line(turn),
        "wall_s": figure(record, turn, |cost| cost.wall_s),
        "cpu_s": figure(record, turn, |cost| cost.cpu_s),
        "peak_rss_bytes": peak_rss(record, turn),
        "grown_bytes": record.grown.get(&turn),
        "restored_bytes_checked": record.is_checked,
        "problem": record.problem,
        "runs": runs.iter().map(|cost| cost.to_json()).collect::<Vec<_>>(),
    })
}

fn figure(record: &Record, turn: Turn, figure: impl Fn(&Cost) -> f64) -> Option<f64> {
    median(&record.costs.get(&turn)?.iter().map(figure).collect::<Vec<_>>())
}

/// The worst of all rounds.
fn peak_rss(record: &Record, turn: Turn) -> Option<u64> {
    record.costs.get(&turn)?.iter().map(|cost| cost.peak_rss).max()
}

/// What went wrong with Aivory; a peer that fails is a row, not a failure.
pub(super) fn our_problems(records: &[Record]) -> Vec<String> {
    let ours = records.iter().filter(|record| record.series.side == Side::Aivory);
    let told =
        |record: &Record| Some(format!("{}: {}", record.series.name, record.problem.as_ref()?));
    ours.filter_map(told).collect()
}

#[cfg(test)]
mod tests {
    use super::super::series::SERIES;
    use super::*;

    fn record(name: &str, wall_s: f64) -> Record {
        let series = SERIES.iter().find(|series| series.name == name).unwrap();
        let mut record = Record::new(*series);
        record.problem = None;
        record
            .costs
            .insert(Turn::Changed, vec![Cost { wall_s, cpu_s: 2.0 * wall_s, peak_rss: 50 << 20 }]);
        record.grown.insert(Turn::Changed, 40 << 20);
        record
    }

    #[test]
    fn a_table_has_aivory_first_and_the_default_before_its_variants() {
        let records = [
            record("aiv zstd:1", 2.0),
            record("aiv zstd:1, no deltas", 1.0),
            record("restic", 8.0),
            record("borg lz4", 4.0),
        ];
        let limit = Spent { wall_s: 1.0, cpu_s: 1.0 };
        let text = table("t", Turn::Changed, &records, Some((limit, "limit")));
        let names: Vec<&str> =
            text.lines().skip(2).map(|line| line.split("  ").nth(1).unwrap()).collect();
        assert_eq!(names, ["limit", "aiv zstd:1", "aiv zstd:1, no deltas", "borg lz4", "restic"]);
        assert!(text.contains("40.00"), "{text}");
    }

    #[test]
    fn only_our_failures_are_failures() {
        let (mut ours, mut peer) = (record("aiv lz4", 1.0), record("restic", 1.0));
        (ours.problem, peer.problem) = (Some("died".into()), Some("died too".into()));
        assert_eq!(our_problems(&[ours, peer]), ["aiv lz4: died"]);
    }
}
