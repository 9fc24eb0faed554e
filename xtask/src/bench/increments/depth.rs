//! Differences to differences: blocks that change in every image, stored under several limits.

use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use aiv_backup_engine::{BackupOptions, BlockSize, Sectors};
use aiv_testkit::Random;
use aiv_volume_io::ReadAt;
use serde_json::{Value, json};

use super::super::Bench;
use super::super::disk;
use super::super::stats::{median, percentile};
use super::super::study::Findings;
use super::maker::{Maker, compare};

/// Limits compared; with 0 no differences are stored.
const DEPTHS: [u8; 5] = [0, 1, 2, 4, 8];
const GENERATIONS: u64 = 8;
const FILE_MIB_PER_GIB: u64 = 16;
const BLOCK_LEN: usize = 64 << 10;
const BLOCK: u64 = BLOCK_LEN as u64;
/// One block of so many changes in every generation, by one page.
const HOT_APART: u64 = 8;
const PAGE: usize = 4096;
/// Reads of hot blocks after each generation.
const READS: usize = 200;

/// What one limit came to.
struct Row {
    depth: u8,
    stored: u64,
    read_us: Vec<f64>,
    undone: u64,
    back_up_s: f64,
}

pub(in super::super) fn measure(bench: &Bench<'_>) -> Result<Findings, String> {
    bench.place.reset_run()?;
    let folder = bench.place.run("depth");
    std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let len = (bench.options.size_gib * FILE_MIB_PER_GIB) << 20;
    let first = folder.join("first.raw");
    disk::make_files(&first, len)?;
    let mut rows = Vec::new();
    for depth in DEPTHS {
        eprintln!("bench: depth {depth}");
        let source = folder.join("source.raw");
        std::fs::copy(&first, &source).map_err(|e| format!("{}: {e}", source.display()))?;
        let images = folder.join(format!("images{depth}"));
        rows.push(one(depth, &source, &images, len, bench.machine.threads)?);
    }
    bench.place.reset_run()?;
    let hot = len / BLOCK / HOT_APART;
    Ok(Findings { text: text(&rows, hot), json: to_json(&rows, hot), problems: Vec::new() })
}

fn one(depth: u8, source: &Path, images: &Path, len: u64, threads: usize) -> Result<Row, String> {
    let failed = |e: std::io::Error| format!("{}: {e}", source.display());
    let options = BackupOptions {
        sectors: Sectors::All,
        deltas: depth > 0,
        delta_depth: depth,
        block_size: u32::try_from(BLOCK).ok().and_then(BlockSize::new),
        threads: NonZeroUsize::new(threads).unwrap_or(NonZeroUsize::MIN),
        ..BackupOptions::default()
    };
    let mut maker = Maker::new(images)?;
    maker.back_up(source, options.clone())?;
    let file = std::fs::File::options().write(true).open(source).map_err(failed)?;
    // The same changes under every limit.
    let mut random = Random::new(&[4]);
    let mut row = Row { depth, stored: 0, read_us: Vec::new(), undone: 0, back_up_s: 0.0 };
    let hot = (0..len / BLOCK).step_by(usize::try_from(HOT_APART).map_err(|e| e.to_string())?);
    for _ in 0..GENERATIONS {
        for block in hot.clone() {
            let page = disk::records(PAGE, &mut random);
            let within = random.below(BLOCK_LEN / PAGE) * PAGE;
            file.write_all_at(&page, block * BLOCK + within as u64).map_err(failed)?;
        }
        let begun = Instant::now();
        row.stored += maker.back_up(source, options.clone())?.bytes_stored;
        row.back_up_s += begun.elapsed().as_secs_f64();
        let view = maker.view()?;
        compare(&view, source)?;
        read(&view, &mut random.clone(), len, &mut row)?;
    }
    Ok(row)
}

/// Reads single pages of hot blocks.
fn read(
    view: &aiv_chain::View,
    random: &mut Random,
    len: u64,
    row: &mut Row,
) -> Result<(), String> {
    let hot = usize::try_from(len / BLOCK / HOT_APART).map_err(|e| e.to_string())?;
    let (mut page, mut block_bytes) = (vec![0; PAGE], vec![0; BLOCK_LEN]);
    let mut reader = view.reader();
    for _ in 0..READS {
        let block = random.below(hot) as u64 * HOT_APART;
        let begun = Instant::now();
        view.read_exact_at(&mut page, block * BLOCK).map_err(|e| e.to_string())?;
        row.read_us.push(begun.elapsed().as_secs_f64() * 1e6);
        let stretch = view.stretches(block).next().ok_or("a block without an entry")?;
        let stretch = stretch.map_err(|e| e.to_string())?;
        let undone = reader.read_in(&stretch, block, &mut block_bytes);
        row.undone += u64::from(undone.map_err(|e| e.to_string())?);
    }
    Ok(())
}

fn text(rows: &[Row], hot: u64) -> String {
    let mut text = format!(
        "depth: {hot} blocks of 64 KiB, one page of each written before each of {GENERATIONS} increments\n  \
         depth  stored MiB  per page B  undone  4 KiB read us  p99 us  increments s\n"
    );
    for row in rows {
        text += &format!(
            "  {:>5}  {:>10.2}  {:>10}  {:>6.2}  {:>13.0}  {:>6.0}  {:>12.2}\n",
            row.depth,
            row.stored as f64 / 1_048_576.0,
            row.stored / (hot * GENERATIONS).max(1),
            row.mean_undone(),
            median(&row.read_us).unwrap_or_default(),
            percentile(&row.read_us, 99).unwrap_or_default(),
            row.back_up_s,
        );
    }
    text
}

fn to_json(rows: &[Row], hot: u64) -> Value {
    let row = |row: &Row| {
        json!({
            "depth": row.depth,
            "stored_bytes": row.stored,
            "mean_undone": row.mean_undone(),
            "read_median_us": median(&row.read_us),
            "read_p99_us": percentile(&row.read_us, 99),
            "back_up_s": row.back_up_s,
        })
    };
    let rows: Vec<Value> = rows.iter().map(row).collect();
    json!({ "hot_blocks": hot, "generations": GENERATIONS, "rows": rows })
}

impl Row {
    fn mean_undone(&self) -> f64 {
        self.undone as f64 / (self.read_us.len() as f64).max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deeper_differences_are_smaller_and_every_state_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let len = 64 * BLOCK;
        let of = |depth: u8| {
            let source = folder.path().join(format!("{depth}.raw"));
            let mut bytes = vec![0; 64 * BLOCK_LEN];
            Random::new(&[9]).fill(&mut bytes);
            std::fs::write(&source, bytes).unwrap();
            one(depth, &source, &folder.path().join(format!("i{depth}")), len, 1).unwrap()
        };
        let (none, two) = (of(0), of(2));
        assert!(two.stored * 2 < none.stored, "{} {}", two.stored, none.stored);
        assert!(none.mean_undone() == 0.0 && two.mean_undone() > 0.5);
    }
}
