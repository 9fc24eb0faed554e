//! Full images of volumes of each filesystem, against what copies used blocks beside us.

mod make;

use std::path::{Path, PathBuf};

use aiv_volume_io::Extent;
use serde_json::{Value, json};

use super::looped::Looped;
use super::measure::{self, Cost};
use super::place::stored_bytes;
use super::stats::median;
use super::study::Findings;
use super::tool::{Scope, fill};
use super::used::UsedDisk;
use super::{Bench, text as path_text};
use crate::Outcome;
use make::{KINDS, Kind};

/// A volume takes so much of each GiB of the disk, and at least `MIB_MIN`.
const MIB_PER_GIB: u64 = 128;
const MIB_MIN: u64 = 512;

const BACK_UP: &str = "{aiv} backup {volume} --to {stored} --full --json --quiet";
const RESTORE: &str = "{aiv} restore {stored}@latest --to {restored} --json --quiet";
/// Without checksums it stores least. What it stores is not put back here: the jobs do that.
const CLONE: &str = "{clone} -c -q -a 0 -L {log} -s {device} -o - | zstd -q -f -1 -T{threads} -o {stored}/clone.zst";
struct Row {
    kind: Kind,
    used: u64,
    ours: u64,
    theirs: u64,
    our_cost: Vec<Cost>,
    their_cost: Vec<Cost>,
}

pub(super) fn measure(bench: &Bench<'_>) -> Result<Findings, String> {
    let len = (bench.options.size_gib * MIB_PER_GIB).max(MIB_MIN) << 20;
    let mut rows = Vec::new();
    for kind in KINDS {
        eprintln!("bench: volumes: {}", kind.name);
        let row = Volume::new(bench, kind, len)?.measure();
        rows.push(row.map_err(|failure| format!("{}: {failure}", kind.name))?);
    }
    let json = rows.iter().map(Row::to_json).collect();
    Ok(Findings { text: text(&rows, len), json, problems: Vec::new() })
}

/// A volume under measurement.
struct Volume<'b> {
    bench: &'b Bench<'b>,
    kind: Kind,
    folder: PathBuf,
    source: UsedDisk,
}

impl<'b> Volume<'b> {
    fn new(bench: &'b Bench<'b>, kind: Kind, len: u64) -> Result<Self, String> {
        let folder = bench.place.run("volume");
        std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let path = folder.join("volume.raw");
        make::make(&kind, &path, len, &folder)?;
        let source = UsedDisk::of_volume(&path)?;
        Ok(Self { bench, kind, folder, source })
    }

    fn run(&self, line: &str, device: &Path, stored: &Path) -> Result<Cost, String> {
        let mut places = self.bench.places();
        places.extend([
            ("{volume}", path_text(&self.folder.join("volume.raw"))),
            ("{restored}", path_text(&self.folder.join("restored.raw"))),
            ("{log}", path_text(&self.folder.join("log"))),
            ("{device}", path_text(device)),
            ("{stored}", path_text(stored)),
            ("{clone}", self.kind.clone.to_owned()),
        ]);
        let words = fill(line, &places);
        measure::run(&words, &self.folder, &self.bench.variables()).map(|(cost, _)| cost)
    }

    fn measure(self) -> Result<Row, String> {
        let mut row = Row {
            kind: self.kind,
            used: self.source.used.total_len(),
            ours: 0,
            theirs: 0,
            our_cost: Vec::new(),
            their_cost: Vec::new(),
        };
        let whole = Extent::new(0, self.source.len);
        let looped = Looped::read_only(&self.folder.join("volume.raw"), whole)?;
        for round in 1..=self.bench.options.runs {
            let stored = |name| self.folder.join(format!("{name}{round}"));
            let (ours, theirs) = (stored("ours"), stored("theirs"));
            for folder in [&ours, &theirs] {
                let failed = |e: std::io::Error| format!("{}: {e}", folder.display());
                std::fs::create_dir(folder).map_err(failed)?;
            }
            row.our_cost.push(self.run(BACK_UP, looped.device(), &ours)?);
            row.their_cost.push(self.run(CLONE, looped.device(), &theirs)?);
            for (folder, bytes) in [(&ours, &mut row.ours), (&theirs, &mut row.theirs)] {
                let failed = |e: std::io::Error| format!("{}: {e}", folder.display());
                *bytes = stored_bytes(folder).map_err(failed)?;
            }
            if round == 1 {
                self.check(looped.device(), &ours)?;
            }
            for folder in [&ours, &theirs] {
                let failed = |e: std::io::Error| format!("{}: {e}", folder.display());
                std::fs::remove_dir_all(folder).map_err(failed)?;
            }
        }
        drop(looped);
        std::fs::remove_dir_all(&self.folder)
            .map_err(|e| format!("{}: {e}", self.folder.display()))?;
        Ok(row)
    }

    /// Our image gives back every used byte.
    fn check(&self, device: &Path, stored: &Path) -> Outcome {
        let restored = self.folder.join("restored.raw");
        self.run(RESTORE, device, stored)?;
        self.source.check(&restored, Scope::UsedOfRoot)?;
        std::fs::remove_file(&restored).map_err(|e| format!("{}: {e}", restored.display()))
    }
}

impl Row {
    fn ratio(&self) -> f64 {
        self.ours as f64 / self.theirs as f64
    }

    fn to_json(&self) -> Value {
        let costs = |costs: &[Cost]| costs.iter().map(|cost| cost.to_json()).collect::<Vec<_>>();
        json!({
            "filesystem": self.kind.name,
            "used_bytes": self.used,
            "aiv": {"stored_bytes": self.ours, "runs": costs(&self.our_cost)},
            "partclone": {"stored_bytes": self.theirs, "runs": costs(&self.their_cost)},
            "ratio": self.ratio(),
        })
    }
}

fn text(rows: &[Row], len: u64) -> String {
    let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
    let wall = |costs: &[Cost]| {
        median(&costs.iter().map(|c| c.wall_s).collect::<Vec<_>>()).unwrap_or_default()
    };
    let mut text = format!(
        "volumes of {:.0} MiB, aiv zstd:1 against partclone -a 0 | zstd -1\n  \
         volume  used MiB  aiv MiB  partclone MiB  ratio  aiv s  partclone s\n",
        mib(len)
    );
    for row in rows {
        text += &format!(
            "  {:<6}  {:>8.1}  {:>7.1}  {:>13.1}  {:>5.2}  {:>5.2}  {:>11.2}\n",
            row.kind.name,
            mib(row.used),
            mib(row.ours),
            mib(row.theirs),
            row.ratio(),
            wall(&row.our_cost),
            wall(&row.their_cost),
        );
    }
    text
}
