//! What keys and parity cost a full image, against the same image without them.

use serde_json::{Value, json};

use super::place::stored_bytes;
use super::stats::median;
use super::study::Findings;
use super::{Bench, disk, measure, text as path_text};

const CODECS: [&str; 2] = ["zstd:1", "lz4"];

/// A way to protect an image, and what the command is told for it. A passphrase costs its
/// Argon2id, a tenth of a second or two, once for each image.
const WAYS: [(&str, &str); 5] = [
    ("plain", ""),
    ("authenticated", "--authenticate --password-file {secret}"),
    ("sealed", "--seal --password-file {secret}"),
    ("parity", "--parity"),
    ("verified", "--verify"),
];

/// Most that a way may take, in times of the plain image, by codec; what is not listed has no
/// target.
const TARGETS: [(&str, &str, f64); 3] =
    [("zstd:1", "sealed", 1.15), ("lz4", "sealed", 1.25), ("zstd:1", "parity", 1.05)];

/// One way with one codec.
struct Row {
    codec: &'static str,
    way: &'static str,
    options: &'static str,
    wall_s: Vec<f64>,
    cpu_s: Vec<f64>,
    stored: u64,
}

pub(super) fn measure(bench: &Bench<'_>) -> Result<Findings, String> {
    disk::ensure(bench.place, bench.options.size_gib)?;
    let ways = |codec| WAYS.map(|(way, options)| Row::new(codec, way, options));
    let mut rows: Vec<Row> = CODECS.into_iter().flat_map(ways).collect();
    for round in 1..=bench.options.runs {
        for row in &mut rows {
            eprintln!("bench: protection: round {round}: {} {}", row.codec, row.way);
            row.run(bench)?;
        }
    }
    bench.place.reset_run()?;
    Ok(Findings { text: text(&rows), json: to_json(&rows), problems: Vec::new() })
}

impl Row {
    const fn new(codec: &'static str, way: &'static str, options: &'static str) -> Self {
        Self { codec, way, options, wall_s: Vec::new(), cpu_s: Vec::new(), stored: 0 }
    }

    /// One image into a folder of its own, which is verified with its key.
    fn run(&mut self, bench: &Bench<'_>) -> Result<(), String> {
        bench.place.reset_run()?;
        let folder = bench.place.run("protection");
        let failed = |e: std::io::Error| format!("{}: {e}", folder.display());
        std::fs::create_dir_all(&folder).map_err(failed)?;
        let secret = bench.place.secret();
        let images = folder.join("images");
        let fill = |line: &str| -> Vec<String> {
            line.split_whitespace()
                .map(|word| match word {
                    "{aiv}" => path_text(bench.aiv),
                    "{disk}" => path_text(&bench.place.disk()),
                    "{images}" => path_text(&images),
                    "{secret}" => path_text(&secret),
                    word => word.to_owned(),
                })
                .collect()
        };
        let (codec, options) = (self.codec, self.options);
        let backup =
            format!("{{aiv}} backup {{disk}} --to {{images}} --compress {codec} --quiet {options}");
        let (cost, _) = measure::run(&fill(&backup), &folder, &[])?;
        self.wall_s.push(cost.wall_s);
        self.cpu_s.push(cost.cpu_s);
        self.stored = stored_bytes(&images).map_err(failed)?;
        let unlock = if options.contains("{secret}") { "--password-file {secret}" } else { "" };
        let verify = format!("{{aiv}} verify {{images}} --quiet {unlock}");
        measure::run(&fill(&verify), &folder, &[]).map(drop)
    }

    /// Times and bytes of the plain image.
    fn against(&self, rows: &[Self]) -> (f64, f64) {
        let plain = rows.iter().find(|row| (row.codec, row.way) == (self.codec, "plain"));
        let plain = plain.unwrap_or(self);
        let wall = |row: &Self| median(&row.wall_s).unwrap_or(f64::NAN);
        (wall(self) / wall(plain), self.stored as f64 / plain.stored.max(1) as f64)
    }

    fn target(&self) -> Option<f64> {
        let mut targets = TARGETS.into_iter();
        targets.find(|(codec, way, _)| (*codec, *way) == (self.codec, self.way)).map(|t| t.2)
    }
}

fn text(rows: &[Row]) -> String {
    let mut text = "protection: full images with keys or parity, against plain ones\n  \
                    codec   way            wall s  CPU s  x plain  target  x bytes\n"
        .to_owned();
    for row in rows {
        let (times, bytes) = row.against(rows);
        let target = row.target().map_or(String::new(), |target| format!("{target:.2}"));
        text += &format!(
            "  {:<6}  {:<13}  {:>6.2}  {:>5.2}  {times:>7.3}  {target:>6}  {bytes:>7.4}\n",
            row.codec,
            row.way,
            median(&row.wall_s).unwrap_or_default(),
            median(&row.cpu_s).unwrap_or_default(),
        );
    }
    text
}

fn to_json(rows: &[Row]) -> Value {
    let row = |row: &Row| {
        let (times, bytes) = row.against(rows);
        json!({
            "codec": row.codec,
            "way": row.way,
            "wall_s": row.wall_s,
            "cpu_s": row.cpu_s,
            "stored_bytes": row.stored,
            "times_plain": times,
            "bytes_plain": bytes,
            "target": row.target(),
        })
    };
    Value::Array(rows.iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_are_compared_with_the_plain_image_of_their_codec() {
        let row = |codec, way, wall: f64, stored| Row {
            wall_s: vec![wall, wall * 3.0, wall],
            stored,
            ..Row::new(codec, way, "")
        };
        let rows = [
            row("zstd:1", "plain", 2.0, 100),
            row("zstd:1", "sealed", 2.2, 110),
            row("lz4", "plain", 1.0, 200),
            row("lz4", "parity", 1.5, 206),
        ];
        let against: Vec<(f64, f64)> = rows.iter().map(|row| row.against(&rows)).collect();
        let expected = [(1.0, 1.0), (1.1, 1.1), (1.0, 1.0), (1.5, 1.03)];
        for ((a, b), (c, d)) in against.iter().zip(&expected) {
            assert!((a - c).abs() < 1e-9 && (b - d).abs() < 1e-9);
        }
        assert_eq!((rows[1].target(), rows[3].target()), (Some(1.15), None));
        assert!(text(&rows).contains("1.100    1.15   1.1000"), "{}", text(&rows));
    }
}
