//! Single pages from anywhere: through an image, and through what other tools make of the disk.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use aiv_testkit::Random;
use aiv_volume_io::{DirStorage, Extent, ReadAt};
use serde_json::{Value, json};

use super::disk::{self, Mounted};
use super::increments::{newest, scan};
use super::limits::in_block;
use super::stats::{median, percentile};
use super::study::Findings;
use super::tool::fill;
use super::used::UsedDisk;
use super::{Bench, measure, text as path_text};
use crate::process;

const PAGE: usize = 4096;
const BLOCK: usize = 64 << 10;
const READS: usize = 4000;

/// Who is asked, and the line that stores the disk for it.
const ROWS: [(&str, &str); 4] = [
    ("aiv zstd:1", "{aiv} backup {disk} --to {stored} --full --compress zstd:1 --json --quiet"),
    ("aiv lz4", "{aiv} backup {disk} --to {stored} --full --compress lz4 --json --quiet"),
    (
        "qemu-img zstd",
        "qemu-img convert -c -W -f raw -O qcow2 -o compression_type=zstd {disk} {stored}/d.qcow2",
    ),
    (
        "squashfs zstd:1",
        "mksquashfs {disk} {stored}/d.sqfs -comp zstd -Xcompression-level 1 \
         -processors {threads} -noappend -quiet -no-progress",
    ),
];
const LIMIT: &str = "limit: fetch and decompress a block";
const PASSES: &str = "passes: fetch, decompress, hash it";

struct Row {
    name: &'static str,
    /// One for each read; of a tool that only tells of all together, one for each round.
    read_us: Vec<f64>,
    /// Seconds of all reads, by round.
    total_s: Vec<f64>,
}

pub(super) fn measure(bench: &Bench<'_>) -> Result<Findings, String> {
    let place = bench.place;
    disk::ensure(place, bench.options.size_gib)?;
    let source = UsedDisk::open(&place.disk(), disk::root_extent(&place.disk())?)?;
    let pages = pages(&source, READS);
    let names = [LIMIT, PASSES].into_iter().chain(ROWS.map(|(name, _)| name));
    let mut rows: Vec<Row> =
        names.map(|name| Row { name, read_us: Vec::new(), total_s: Vec::new() }).collect();
    for round in 1..=bench.options.runs {
        for row in &mut rows {
            eprintln!("bench: random: round {round}: {}", row.name);
            place.reset_run()?;
            let stored = place.run("stored");
            std::fs::create_dir_all(&stored).map_err(|e| format!("{}: {e}", stored.display()))?;
            if let Some((_, line)) = ROWS.iter().find(|(name, _)| *name == row.name) {
                let mut places = bench.places();
                places.push(("{stored}", path_text(&stored)));
                measure::run(&fill(line, &places), &place.folder, &bench.variables())?;
            }
            let asked = match row.name {
                LIMIT => ask_memory(&source, &pages, &stored, false),
                PASSES => ask_memory(&source, &pages, &stored, true),
                "qemu-img zstd" => ask_qemu(&pages, &stored.join("d.qcow2")),
                "squashfs zstd:1" => ask_squashfs(&source, &pages, &stored, &place.run("mounted")),
                _ => ask_image(&source, &pages, &stored),
            };
            let (read_us, total_s) = asked.map_err(|e| format!("{}: {e}", row.name))?;
            row.read_us.extend(read_us);
            row.total_s.push(total_s);
        }
    }
    place.reset_run()?;
    Ok(Findings { text: text(&rows), json: to_json(&rows), problems: Vec::new() })
}

/// Offsets of pages in use, each as likely as any other.
fn pages(source: &UsedDisk, count: usize) -> Vec<u64> {
    let page = PAGE as u64;
    let whole = |run: Extent| (run.start.next_multiple_of(page), run.end() / page * page);
    let runs: Vec<(u64, u64)> = source.used.within(source.root).map(whole).collect();
    let runs: Vec<(u64, u64)> = runs.into_iter().filter(|(start, end)| start < end).collect();
    let total: u64 = runs.iter().map(|(start, end)| (end - start) / page).sum();
    let mut random = Random::new(&[6]);
    let pick = |mut at: u64| {
        for (start, end) in &runs {
            let has = (end - start) / page;
            if at < has {
                return start + at * page;
            }
            at -= has;
        }
        0
    };
    (0..count).map(|_| pick(random.next() % total.max(1))).collect()
}

type Asked = Result<(Vec<f64>, f64), String>;

/// Reads each page with `read`, and compares it with the disk afterwards.
fn ask(
    source: &UsedDisk,
    pages: &[u64],
    mut read: impl FnMut(&mut [u8], u64) -> Result<(), String>,
) -> Asked {
    let mut read_us = Vec::with_capacity(pages.len());
    let (mut page, mut expected) = ([0; PAGE], [0; PAGE]);
    let mut total_s = 0.0;
    for &at in pages {
        let begun = Instant::now();
        read(&mut page, at)?;
        let spent = begun.elapsed().as_secs_f64();
        total_s += spent;
        read_us.push(spent * 1e6);
        source.file.read_exact_at(&mut expected, at).map_err(|e| e.to_string())?;
        if page != expected {
            return Err(format!("the page at byte {at} is another one"));
        }
    }
    Ok((read_us, total_s))
}

fn ask_image(source: &UsedDisk, pages: &[u64], stored: &Path) -> Asked {
    let storage = DirStorage::open(stored).map_err(|e| e.to_string())?;
    let view = newest(&storage, &scan(&storage)?)?;
    ask(source, pages, |page, at| view.read_exact_at(page, at).map_err(|e| e.to_string()))
}

/// The mount is new: nothing of the disk is in memory but what reads bring there.
fn ask_squashfs(source: &UsedDisk, pages: &[u64], stored: &Path, mount: &Path) -> Asked {
    let archive = stored.join("d.sqfs");
    let len = std::fs::metadata(&archive).map_err(|e| e.to_string())?.len();
    let mounted = Mounted::read_only(&archive, Extent::new(0, len), mount)?;
    let path = mounted.folder().join("disk.raw");
    let file = File::open(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let asked =
        ask(source, pages, |page, at| file.read_exact_at(page, at).map_err(|e| e.to_string()));
    drop(file);
    mounted.unmount()?;
    asked
}

/// It reads in one process, and says nothing of single reads. What starting it takes is left out.
fn ask_qemu(pages: &[u64], image: &Path) -> Asked {
    let run = |pages: &[u64]| -> Result<f64, String> {
        let mut command = process::command("qemu-io");
        command.args(["-r", "-f", "qcow2"]).arg(image);
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        let begun = Instant::now();
        let mut child = command.spawn().map_err(|e| format!("cannot start qemu-io: {e}"))?;
        let words: String = pages.iter().map(|at| format!("read -q {at} {PAGE}\n")).collect();
        let mut stdin = child.stdin.take().ok_or("qemu-io does not listen")?;
        stdin.write_all(words.as_bytes()).map_err(|e| format!("qemu-io: {e}"))?;
        drop(stdin);
        let status = child.wait().map_err(|e| format!("qemu-io: {e}"))?;
        process::expect_success("qemu-io", status)?;
        Ok(begun.elapsed().as_secs_f64())
    };
    let total_s = run(pages)? - run(&[])?;
    Ok((vec![total_s * 1e6 / pages.len().max(1) as f64], total_s))
}

/// Blocks as images have them, each by itself in a file, and nothing around them; with `hashes` each
/// block is hashed, as what an image is believed for has to be.
fn ask_memory(source: &UsedDisk, pages: &[u64], stored: &Path, hashes: bool) -> Asked {
    let path = stored.join("blocks");
    let failed = |e: std::io::Error| format!("{}: {e}", path.display());
    let mut file = File::create_new(&path).map_err(failed)?;
    let mut places = Vec::with_capacity(pages.len());
    let (mut plain, mut end) = (vec![0; BLOCK], 0);
    for at in pages {
        let start = at / BLOCK as u64 * BLOCK as u64;
        let len = in_block((source.len - start).min(BLOCK as u64));
        source.file.read_exact_at(&mut plain[..len], start).map_err(failed)?;
        let packed = zstd::bulk::compress(&plain[..len], 1).map_err(failed)?;
        file.write_all(&packed).map_err(failed)?;
        places.push((start, end, packed.len()));
        end += packed.len() as u64;
    }
    let file = File::open(&path).map_err(failed)?;
    let mut decompressor = zstd::bulk::Decompressor::new().map_err(failed)?;
    let mut packed = vec![0; zstd::zstd_safe::compress_bound(BLOCK)];
    let mut places = places.into_iter();
    ask(source, pages, |page, at| {
        let (start, from, len) = places.next().ok_or("no place")?;
        file.read_exact_at(&mut packed[..len], from).map_err(|e| e.to_string())?;
        decompressor
            .decompress_to_buffer(&packed[..len], &mut plain[..])
            .map_err(|e| e.to_string())?;
        if hashes && blake3::hash(&plain) == [0; 32] {
            return Err("a hash that nothing has".to_owned());
        }
        let within = in_block(at - start);
        page.copy_from_slice(&plain[within..within + PAGE]);
        Ok(())
    })
}

impl Row {
    /// Reads in a second, by the median of all rounds.
    fn rate(&self) -> f64 {
        median(&self.total_s).map_or(0.0, |total_s| READS as f64 / total_s)
    }
}

fn text(rows: &[Row]) -> String {
    let mut text = format!(
        "random: {READS} pages of 4 KiB in use, one after the other, what is stored in memory\n  \
         {:<36}  median us  p99 us  reads/s  x limit\n",
        ""
    );
    let limit = rows.first().map_or(0.0, Row::rate);
    for row in rows {
        let told = |value: Option<f64>| value.map_or("-".to_owned(), |us| format!("{us:.0}"));
        let is_each = row.read_us.len() >= READS;
        text += &format!(
            "  {:<36}  {:>9}  {:>6}  {:>7.0}  {:>7.2}\n",
            row.name,
            told(median(&row.read_us)),
            told(percentile(&row.read_us, 99).filter(|_| is_each)),
            row.rate(),
            limit / row.rate(),
        );
    }
    text + "  qemu-img tells of all reads together: the mean of each round; squashfs reads 128 KiB at once\n"
}

fn to_json(rows: &[Row]) -> Value {
    let row = |row: &Row| {
        json!({
            "name": row.name,
            "read_median_us": median(&row.read_us),
            "read_p99_us": percentile(&row.read_us, 99),
            "reads_per_s": row.rate(),
        })
    };
    json!({ "reads": READS, "rows": rows.iter().map(row).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(bytes: &[u8], folder: &Path) -> UsedDisk {
        let path = folder.join("disk");
        std::fs::write(&path, bytes).unwrap();
        let len = bytes.len() as u64;
        let used = [Extent::new(100, 300_000), Extent::new(500_000, 12_000)].into_iter().collect();
        let file = File::open(path).unwrap();
        UsedDisk { file, len, used, root: Extent::new(0, len) }
    }

    #[test]
    fn every_page_in_use_is_asked_for_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let source = disk(&[0; 600_000], folder.path());
        let mut found = pages(&source, 5000);
        found.sort_unstable();
        found.dedup();
        let expected: Vec<u64> =
            (1..73).map(|n| n * 4096).chain((123..125).map(|n| n * 4096)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_wrong_page_is_no_figure() {
        let folder = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..=250).cycle().take(600_000).collect();
        let source = disk(&bytes, folder.path());
        let pages = pages(&source, 50);
        let (read_us, total_s) = ask_memory(&source, &pages, folder.path(), true).unwrap();
        assert!(read_us.len() == 50 && total_s > 0.0);
        let wrong = ask(&source, &pages, |page, _| {
            page.fill(1);
            Ok(())
        });
        assert!(wrong.unwrap_err().ends_with("is another one"));
    }
}
