//! Hundreds of increments behind one another: what opening the newest point costs, and what
//! reading through all of them does.

use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use aiv_backup_engine::{BackupOptions, Basis, BlockSize, Sectors};
use aiv_chain::View;
use aiv_testkit::Random;
use aiv_volume_io::{DirStorage, ReadAt};
use serde_json::{Value, json};

use super::super::Bench;
use super::super::disk;
use super::super::machine::Machine;
use super::super::measure::{self, Cost};
use super::super::place::{forget_caches, stored_bytes};
use super::super::stats::{median, percentile};
use super::super::study::Findings;
use super::super::tool::{Scope, fill};
use super::super::used::UsedDisk;
use super::maker::{Maker, catalogue, newest, scan};

const IMAGES: usize = 500;
const FILE_MIB_PER_GIB: u64 = 32;
const BLOCK: usize = 64 << 10;
/// Pages written before each increment, anywhere.
const PAGES: usize = 8;
const PAGE: usize = 4096;
const OPENS: usize = 7;
const READS: usize = 4000;

/// Milliseconds of one opening.
#[derive(Debug, Clone, Copy, Default)]
struct Opening {
    scan: f64,
    open: f64,
    read: f64,
}

/// One folder under test.
struct Row {
    name: &'static str,
    images: usize,
    stored: u64,
    warm: Opening,
    cold: Option<Opening>,
    read_us: Vec<f64>,
    restore: Cost,
}

pub(in super::super) fn measure(bench: &Bench<'_>) -> Result<Findings, String> {
    // Memory has no cold state, so the images lie where temporary files do.
    let folder = tempfile::Builder::new()
        .prefix("aiv-bench-chain")
        .tempdir()
        .map_err(|e| format!("no temporary folder: {e}"))?;
    bench.place.reset_run()?;
    let run = bench.place.run("chain");
    std::fs::create_dir_all(&run).map_err(|e| format!("{}: {e}", run.display()))?;
    let source = run.join("source.raw");
    let len = (bench.options.size_gib * FILE_MIB_PER_GIB) << 20;
    disk::make_files(&source, len)?;
    let (chain, full) = (folder.path().join("chain"), folder.path().join("full"));
    let made_s = make(&source, len, &chain, &full, bench.machine.threads)?;
    let mut rows = vec![row("chain", bench, &chain, &source)?];
    catalogue(&chain)?;
    rows.push(row("chain, catalogue", bench, &chain, &source)?);
    rows.push(row("full", bench, &full, &source)?);
    let filesystem = Machine::of(folder.path()).filesystem;
    bench.place.reset_run()?;
    let text = text(&rows, len, made_s, &filesystem);
    let json = json!({
        "source_bytes": len,
        "increments": IMAGES,
        "filesystem": filesystem,
        "made_s": made_s,
        "rows": rows.iter().map(Row::to_json).collect::<Vec<_>>(),
    });
    Ok(Findings { text, json, problems: Vec::new() })
}

/// A chain of increments, and a full image of the same state by itself.
fn make(source: &Path, len: u64, chain: &Path, full: &Path, threads: usize) -> Result<f64, String> {
    let failed = |e: std::io::Error| format!("{}: {e}", source.display());
    let options = BackupOptions {
        sectors: Sectors::All,
        block_size: u32::try_from(BLOCK).ok().and_then(BlockSize::new),
        threads: NonZeroUsize::new(threads).unwrap_or(NonZeroUsize::MIN),
        ..BackupOptions::default()
    };
    let mut maker = Maker::new(chain)?;
    maker.back_up(source, options.clone())?;
    let file = std::fs::File::options().write(true).open(source).map_err(failed)?;
    let pages = usize::try_from(len).map_err(|e| e.to_string())? / PAGE;
    let mut random = Random::new(&[5]);
    let begun = Instant::now();
    for number in 1..=IMAGES {
        for _ in 0..PAGES {
            let at = (random.below(pages) * PAGE) as u64;
            file.write_all_at(&disk::records(PAGE, &mut random), at).map_err(failed)?;
        }
        maker.back_up(source, options.clone())?;
        if number % 100 == 0 {
            eprintln!("bench: chain: {number} of {IMAGES} increments");
        }
    }
    let made_s = begun.elapsed().as_secs_f64();
    let whole = BackupOptions { basis: Basis::Nothing, ..options };
    Maker::new(full)?.back_up(source, whole)?;
    Ok(made_s)
}

fn row(name: &'static str, bench: &Bench<'_>, folder: &Path, source: &Path) -> Result<Row, String> {
    let opened = |is_cold: bool| -> Result<Option<Opening>, String> {
        let mut openings = Vec::new();
        for number in 0..OPENS {
            if is_cold && forget_caches().is_err() {
                return Ok(None);
            }
            openings.push(open(folder, number)?);
        }
        Ok(Some(Opening::median_of(&openings)))
    };
    let cold = opened(true)?;
    // The first opening warms what the others are measured with.
    open(folder, 0)?;
    let warm = opened(false)?.unwrap_or_default();
    let storage = DirStorage::open(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let view = newest(&storage, &scan(&storage)?)?;
    let images = view.images().len();
    let read_us = read_randomly(&view)?;
    let restore = restore(bench, folder, source)?;
    let stored = stored_bytes(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    Ok(Row { name, images, stored, warm, cold, read_us, restore })
}

/// From the path of a folder to the first bytes of its newest point.
fn open(folder: &Path, number: usize) -> Result<Opening, String> {
    let ms = |since: Instant| since.elapsed().as_secs_f64() * 1e3;
    let begun = Instant::now();
    let storage = DirStorage::open(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let found = scan(&storage)?;
    let scan = ms(begun);
    let begun = Instant::now();
    let view = newest(&storage, &found)?;
    let open = ms(begun);
    let mut page = [0; PAGE];
    let offset = Random::new(&[6, number as u64]).next() % (view.len() / PAGE as u64);
    let begun = Instant::now();
    view.read_exact_at(&mut page, offset * PAGE as u64).map_err(|e| e.to_string())?;
    Ok(Opening { scan, open, read: ms(begun) })
}

/// Microseconds of single pages anywhere; the page cache holds the images.
fn read_randomly(view: &View) -> Result<Vec<f64>, String> {
    let mut random = Random::new(&[7]);
    let mut page = [0; PAGE];
    let mut times = Vec::with_capacity(READS);
    for _ in 0..READS {
        let offset = random.next() % (view.len() / PAGE as u64) * PAGE as u64;
        let begun = Instant::now();
        view.read_exact_at(&mut page, offset).map_err(|e| e.to_string())?;
        times.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    Ok(times)
}

/// The program restores the newest point, which must be what the source is now.
fn restore(bench: &Bench<'_>, folder: &Path, source: &Path) -> Result<Cost, String> {
    let restored = bench.place.run("chain").join("restored.raw");
    let mut places = bench.places();
    places.push(("{images}", folder.to_string_lossy().into_owned()));
    places.push(("{restored}", restored.to_string_lossy().into_owned()));
    let line = "{aiv} restore {images}@latest --to {restored} --json --quiet";
    let (cost, _) = measure::run(&fill(line, &places), &bench.place.folder, &bench.variables())?;
    let file = std::fs::File::open(source).map_err(|e| format!("{}: {e}", source.display()))?;
    let len = file.metadata().map_err(|e| format!("{}: {e}", source.display()))?.len();
    let used = aiv_volume_io::ExtentSet::new();
    let whole = UsedDisk { file, len, used, root: aiv_volume_io::Extent::new(0, len) };
    whole.check(&restored, Scope::Disk)?;
    std::fs::remove_file(&restored).map_err(|e| format!("{}: {e}", restored.display()))?;
    Ok(cost)
}

impl Opening {
    fn total(self) -> f64 {
        self.scan + self.open + self.read
    }

    fn median_of(openings: &[Self]) -> Self {
        let of = |part: fn(&Self) -> f64| {
            median(&openings.iter().map(part).collect::<Vec<_>>()).unwrap_or_default()
        };
        Self { scan: of(|o| o.scan), open: of(|o| o.open), read: of(|o| o.read) }
    }

    fn to_json(self) -> Value {
        json!({ "scan_ms": self.scan, "open_ms": self.open, "first_read_ms": self.read })
    }
}

impl Row {
    fn to_json(&self) -> Value {
        json!({
            "name": self.name,
            "images": self.images,
            "stored_bytes": self.stored,
            "warm": self.warm.to_json(),
            "cold": self.cold.map(Opening::to_json),
            "read_median_us": median(&self.read_us),
            "read_p99_us": percentile(&self.read_us, 99),
            "restore": self.restore.to_json(),
        })
    }
}

fn text(rows: &[Row], len: u64, made_s: f64, filesystem: &str) -> String {
    let mut text = format!(
        "chain: {IMAGES} increments of {} MiB, {PAGES} pages of 4 KiB each, images on {filesystem}; \
         one increment takes {:.0} ms\n  \
         folder            images  MiB stored  warm ms: scan + open + read  cold ms: scan + open + read  \
         4 KiB read us   p99  restore s  RSS MiB\n",
        len >> 20,
        made_s / IMAGES as f64 * 1e3,
    );
    for row in rows {
        let opening = |opening: Opening| {
            let Opening { scan, open, read } = opening;
            format!("{scan:.1} + {open:.1} + {read:.2} = {:.1}", opening.total())
        };
        text += &format!(
            "  {:<16}  {:>6}  {:>10.1}  {:>27}  {:>27}  {:>13.0}  {:>4.0}  {:>9.2}  {:>7}\n",
            row.name,
            row.images,
            row.stored as f64 / 1_048_576.0,
            opening(row.warm),
            row.cold.map_or_else(|| "not measured".into(), opening),
            median(&row.read_us).unwrap_or_default(),
            percentile(&row.read_us, 99).unwrap_or_default(),
            row.restore.wall_s,
            row.restore.peak_rss >> 20,
        );
    }
    text
}
