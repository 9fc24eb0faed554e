//! A folder with ten thousand points: what listing it and opening one of them costs.

use std::path::Path;
use std::time::Instant;

use aiv_backup_engine::{BackupOptions, Sectors};
use aiv_chain::{Folder, View};
use aiv_testkit::Random;
use aiv_volume_io::{DirStorage, MemDisk, ReadAt};
use serde_json::{Value, json};

use super::super::Bench;
use super::super::machine::Machine;
use super::super::measure::{self, Cost};
use super::super::place::{forget_caches, stored_bytes};
use super::super::stats::median;
use super::super::study::Findings;
use super::super::tool::fill;
use super::maker::{Maker, catalogue, scan};

const SETS: usize = 20;
const IMAGES: usize = 500;
const DISK: usize = 1 << 20;
const PAGE: usize = 4096;
const OPENS: usize = 5;
const LIST: &str = "{aiv} list {images} --json --quiet";

/// The folder with or without its catalogue.
struct Row {
    name: &'static str,
    /// `aiv list`, of a folder the kernel has in memory.
    list: Vec<Cost>,
    /// From the path to the first page of a point in the middle, milliseconds.
    warm_ms: Vec<f64>,
    /// The same after the kernel forgot all files; empty where it cannot be asked to.
    cold_ms: Vec<f64>,
}

pub(in super::super) fn measure(bench: &Bench<'_>) -> Result<Findings, String> {
    let folder = tempfile::Builder::new()
        .prefix("aiv-bench-points")
        .tempdir()
        .map_err(|e| format!("no temporary folder: {e}"))?;
    let images = folder.path().join("images");
    std::fs::create_dir(&images).map_err(|e| format!("{}: {e}", images.display()))?;
    for set in 0..SETS {
        make(set, &folder.path().join("one set"), &images)?;
        eprintln!("bench: points: {} of {}", (set + 1) * IMAGES, SETS * IMAGES);
    }
    let mut rows = vec![row("files alone", bench, &images)?];
    catalogue(&images)?;
    rows.push(row("catalogue", bench, &images)?);
    let filesystem = Machine::of(&images).filesystem;
    let stored = stored_bytes(&images).map_err(|e| format!("{}: {e}", images.display()))?;
    let json = json!({
        "points": SETS * IMAGES,
        "sets": SETS,
        "filesystem": filesystem,
        "stored_bytes": stored,
        "rows": rows.iter().map(Row::to_json).collect::<Vec<_>>(),
    });
    Ok(Findings { text: text(&rows, stored, &filesystem), json, problems: Vec::new() })
}

/// One disk and its chain, which is made in a folder of its own: every backup looks through the
/// folder it writes to.
fn make(set: usize, apart: &Path, images: &Path) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("{}: {e}", apart.display());
    let mut maker = Maker::of(apart, &format!("disk{set:02}"), (set * IMAGES) as u64)?;
    let mut random = Random::new(&[8, set as u64]);
    let mut disk = vec![0; DISK];
    random.fill(&mut disk);
    for _ in 0..IMAGES {
        let at = random.below(DISK / PAGE) * PAGE;
        random.fill(&mut disk[at..at + PAGE]);
        let options = BackupOptions { sectors: Sectors::All, ..BackupOptions::default() };
        maker.back_up_disk(&MemDisk::from_bytes(disk.clone()), options)?;
    }
    for entry in std::fs::read_dir(apart).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let is_image = path.extension().is_some_and(|kind| kind == "aiv" || kind == "aii");
        if let Some(name) = path.file_name().filter(|_| is_image) {
            std::fs::rename(&path, images.join(name)).map_err(failed)?;
        }
    }
    std::fs::remove_dir_all(apart).map_err(failed)
}

fn row(name: &'static str, bench: &Bench<'_>, images: &Path) -> Result<Row, String> {
    let mut row = Row { name, list: Vec::new(), warm_ms: Vec::new(), cold_ms: Vec::new() };
    while row.cold_ms.len() < OPENS && forget_caches().is_ok() {
        row.cold_ms.push(open(images)?);
    }
    open(images)?;
    let mut places = bench.places();
    places.push(("{images}", images.to_string_lossy().into_owned()));
    for _ in 0..OPENS {
        row.warm_ms.push(open(images)?);
        let words = fill(LIST, &places);
        let (cost, told) = measure::run(&words, &bench.place.folder, &bench.variables())?;
        let listed = told.matches("\"recovery_point\"").count();
        if listed != SETS * IMAGES {
            return Err(format!("aiv list told of {listed} points"));
        }
        row.list.push(cost);
    }
    Ok(row)
}

/// Milliseconds from the path of the folder to the first page of a point in the middle of a set
/// in the middle.
fn open(images: &Path) -> Result<f64, String> {
    let begun = Instant::now();
    let storage = DirStorage::open(images).map_err(|e| format!("{}: {e}", images.display()))?;
    let found: Folder = scan(&storage)?;
    let points: usize = found.sets.iter().map(|set| set.points.len()).sum();
    if points != SETS * IMAGES {
        return Err(format!("the folder has {points} points"));
    }
    let set = &found.sets[SETS / 2];
    let view = View::of_point(&storage, set, &set.points[IMAGES / 2]).map_err(|e| e.to_string())?;
    view.read_exact_at(&mut [0; PAGE], 0).map_err(|e| e.to_string())?;
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}

impl Row {
    fn to_json(&self) -> Value {
        json!({
            "name": self.name,
            "warm_ms": median(&self.warm_ms),
            "cold_ms": median(&self.cold_ms),
            "list": self.list.iter().map(|cost| cost.to_json()).collect::<Vec<_>>(),
        })
    }
}

fn text(rows: &[Row], stored: u64, filesystem: &str) -> String {
    let mut text = format!(
        "points: {SETS} chains of {IMAGES} images in one folder on {filesystem}, {} MiB\n  \
         folder       point in the middle: warm ms  cold ms  list s  CPU s  RSS MiB\n",
        stored >> 20,
    );
    for row in rows {
        let of = |part: fn(&Cost) -> f64| {
            median(&row.list.iter().map(part).collect::<Vec<_>>()).unwrap_or_default()
        };
        text += &format!(
            "  {:<12} {:>28.0}  {:>7.0}  {:>6.2}  {:>5.2}  {:>7}\n",
            row.name,
            median(&row.warm_ms).unwrap_or_default(),
            median(&row.cold_ms).unwrap_or_default(),
            of(|cost| cost.wall_s),
            of(|cost| cost.cpu_s),
            row.list.iter().map(|cost| cost.peak_rss >> 20).max().unwrap_or_default(),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use aiv_volume_io::Job;

    use super::*;

    #[test]
    fn chains_of_several_disks_come_together_in_one_folder() {
        let folder = tempfile::tempdir().unwrap();
        let images = folder.path().join("images");
        std::fs::create_dir(&images).unwrap();
        let storage = DirStorage::open(&images).unwrap();
        for set in 0..2 {
            let apart = folder.path().join("apart");
            let mut maker = Maker::of(&apart, &format!("disk{set:02}"), set * 10).unwrap();
            for byte in 1..4 {
                let disk = MemDisk::from_bytes(vec![byte; 100_000]);
                maker.back_up_disk(&disk, BackupOptions::default()).unwrap();
            }
            for entry in std::fs::read_dir(&apart).unwrap() {
                let path = entry.unwrap().path();
                std::fs::rename(&path, images.join(path.file_name().unwrap())).unwrap();
            }
            std::fs::remove_dir_all(&apart).unwrap();
        }
        let found = Folder::scan(&storage, Job::silent()).unwrap();
        let points: Vec<usize> = found.sets.iter().map(|set| set.points.len()).collect();
        assert_eq!(points, [3, 3]);
    }
}
