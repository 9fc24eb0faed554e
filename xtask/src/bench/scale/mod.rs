//! What grows with the size of a source, and what with the data on it: sources of up to 64 TiB
//! with up to 1 TiB of data, simulated, and plots of what images of them cost.

mod plot;
mod source;

use serde_json::{Value, json};

use super::Bench;
use super::measure::{self, Cost};
use super::place::stored_bytes;
use super::round::image_in;
use super::study::Findings;
use super::tool::fill;
use plot::{Line, Plot};

pub(super) use source::{SIMULATE, simulate};

const MIB: f64 = 1048576.0;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
/// The promise for a source of any size.
const RSS_MAX: u64 = 256 << 20;
/// Sizes of the source where the size is what changes, with [`DATA`] of data.
const SIZES: [u64; 4] = [TIB, 4 * TIB, 16 * TIB, 64 * TIB];
const DATA: u64 = 16 * GIB;
/// Amounts of data where they are what changes, on a source of [`SIZE`].
const AMOUNTS: [u64; 6] = [GIB, 4 * GIB, 16 * GIB, 64 * GIB, 256 * GIB, TIB];
const SIZE: u64 = 64 * TIB;

/// One source.
struct Row {
    size: u64,
    data: u64,
    full: Cost,
    /// An increment when nothing changed.
    again: Cost,
    verify: Cost,
    stored: u64,
}

pub(super) fn measure(bench: &Bench<'_>) -> Result<Findings, String> {
    let mut rows = Vec::new();
    let sources = AMOUNTS.map(|data| (SIZE, data)).into_iter();
    for (size, data) in sources.chain(SIZES.map(|size| (size, DATA))) {
        eprintln!("bench: scale: {} TiB with {} GiB of data", size / TIB, data / GIB);
        rows.push(row(bench, size, data)?);
    }
    let (by_data, by_size) = rows.split_at(AMOUNTS.len());
    let mut problems = Vec::new();
    for row in &rows {
        let rss = row.full.peak_rss.max(row.again.peak_rss).max(row.verify.peak_rss);
        if rss > RSS_MAX {
            let (size, data) = (row.size / TIB, row.data / GIB);
            problems.push(format!("scale: {size} TiB with {data} GiB took {} MiB", rss >> 20));
        }
    }
    let folder = bench.options.json.parent().unwrap_or(&bench.place.folder).to_owned();
    std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    for (name, plot) in
        [("scale-data.svg", by_data_plot(by_data)), ("scale-size.svg", by_size_plot(by_size))]
    {
        let path = folder.join(name);
        std::fs::write(&path, plot.svg()).map_err(|e| format!("{}: {e}", path.display()))?;
        println!("bench: a plot is in {}", path.display());
    }
    let json = rows.iter().map(Row::to_json).collect();
    Ok(Findings { text: text(&rows), json, problems })
}

/// Backs up and verifies one source.
fn row(bench: &Bench<'_>, size: u64, data: u64) -> Result<Row, String> {
    bench.place.reset_run()?;
    let stored = bench.place.run("scale");
    std::fs::create_dir_all(&stored).map_err(|e| format!("{}: {e}", stored.display()))?;
    let folder = stored.to_string_lossy().into_owned();
    let back_up = |number: &str| {
        let words = ["/proc/self/exe", "bench", SIMULATE, &folder, number].map(str::to_owned);
        let words = words.into_iter().chain([size.to_string(), data.to_string()]);
        let words: Vec<String> = words.collect();
        measure::run(&words, &bench.place.folder, &[]).map(|(cost, _)| cost)
    };
    let full = back_up("1")?;
    let image = image_in(&stored)?;
    let line = "{aiv} verify {image} --depth data --quiet";
    let places = [("{aiv}", super::text(bench.aiv)), ("{image}", image)];
    let (verify, _) = measure::run(&fill(line, &places), &bench.place.folder, &[])?;
    let bytes = stored_bytes(&stored).map_err(|e| e.to_string())?;
    let again = back_up("2")?;
    bench.place.reset_run()?;
    Ok(Row { size, data, full, again, verify, stored: bytes })
}

fn text(rows: &[Row]) -> String {
    let mut text = String::from(
        "scale: source TiB   data GiB   full CPU s   MiB   unchanged CPU s   MiB   verify CPU s   MiB   stored MiB\n",
    );
    for Row { size, data, full, again, verify, stored } in rows {
        text += &format!(
            "{:>17} {:>10} {:>12.2} {:>5} {:>17.2} {:>5} {:>14.2} {:>5} {:>12.1}\n",
            size / TIB,
            data / GIB,
            full.cpu_s,
            full.peak_rss >> 20,
            again.cpu_s,
            again.peak_rss >> 20,
            verify.cpu_s,
            verify.peak_rss >> 20,
            *stored as f64 / MIB,
        );
    }
    text
}

impl Row {
    fn to_json(&self) -> Value {
        json!({
            "source_bytes": self.size,
            "data_bytes": self.data,
            "full": self.full.to_json(),
            "unchanged": self.again.to_json(),
            "verify": self.verify.to_json(),
            "stored_bytes": self.stored,
        })
    }
}

fn by_data_plot(rows: &[Row]) -> Plot {
    let gib = |row: &Row| row.data as f64 / GIB as f64;
    Plot {
        title: "A source of 64 TiB, by the data on it".into(),
        across: "GiB of data".into(),
        lines: lines(rows, gib),
    }
}

fn by_size_plot(rows: &[Row]) -> Plot {
    let tib = |row: &Row| row.size as f64 / TIB as f64;
    Plot {
        title: "16 GiB of data, by the size of the source".into(),
        across: "TiB of the source".into(),
        lines: lines(rows, tib),
    }
}

fn lines(rows: &[Row], across: impl Fn(&Row) -> f64) -> Vec<Line> {
    let line = |name: &str, up: &dyn Fn(&Row) -> f64| Line {
        name: name.to_owned(),
        points: rows.iter().map(|row| (across(row), up(row))).collect(),
    };
    let mib = |cost: Cost| cost.peak_rss as f64 / MIB;
    vec![
        line("full, CPU s", &|row| row.full.cpu_s),
        line("unchanged, CPU s", &|row| row.again.cpu_s),
        line("verify, CPU s", &|row| row.verify.cpu_s),
        line("full, peak MiB", &|row| mib(row.full)),
        line("unchanged, peak MiB", &|row| mib(row.again)),
        line("verify, peak MiB", &|row| mib(row.verify)),
    ]
}
