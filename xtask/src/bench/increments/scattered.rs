//! Single pages written all over a file, as databases do: the worst case for large blocks.

use std::os::unix::fs::FileExt;
use std::path::Path;

use aiv_testkit::Random;
use aiv_volume_io::{Extent, ExtentSet};
use serde_json::json;

use super::super::Bench;
use super::super::disk;
use super::super::study::Findings;
use super::super::tool::{Scope, Side};
use super::super::used::UsedDisk;
use super::round::Stage;
use super::series::Turn;
use super::{report, run_all};
use crate::Outcome;

/// Bytes of the file per GiB of the disk of the other jobs.
const FILE_MIB_PER_GIB: u64 = 64;
const PAGE: usize = 4096;
/// One page of so many is written: of blocks of 64 KiB, every fourth changes, by one page.
const PAGES_APART: u64 = 64;
const TURNS: [Turn; 3] = [Turn::Full, Turn::Changed, Turn::Restore];

/// The pages that were written, together and each compressed by itself.
#[derive(Default)]
struct Written {
    pages: u64,
    packed: u64,
}

pub(in super::super) fn measure(bench: &Bench<'_>) -> Result<Findings, String> {
    let folder = bench.place.folder.join("scattered");
    std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let outcome = measure_in(bench, &folder);
    std::fs::remove_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    outcome
}

fn measure_in(bench: &Bench<'_>, folder: &Path) -> Result<Findings, String> {
    let (first, second) = (folder.join("first.raw"), folder.join("second.raw"));
    let len = (bench.options.size_gib * FILE_MIB_PER_GIB) << 20;
    disk::make_files(&first, len)?;
    std::fs::copy(&first, &second).map_err(|e| format!("{}: {e}", second.display()))?;
    let written = write_pages(&second, len)?;
    let file = std::fs::File::open(&second).map_err(|e| format!("{}: {e}", second.display()))?;
    let whole = UsedDisk { file, len, used: ExtentSet::new(), root: Extent::new(0, len) };
    let check = |restored: &Path, _: Side| -> Outcome { whole.check(restored, Scope::Disk) };
    let stage = Stage {
        place: bench.place,
        first,
        second,
        check: &check,
        turns: &TURNS,
        places: bench.places(),
        variables: bench.variables(),
    };
    let records = run_all(bench, &stage, "scattered");
    let title = format!(
        "increment, {} scattered pages of 4 KiB in {} MiB ({:.2} MiB at zstd:1, page by page)",
        written.pages,
        len >> 20,
        written.packed as f64 / 1_048_576.0
    );
    let mut text = report::table(&title, Turn::Changed, &records, None);
    text.push_str("  stored per page:");
    for record in &records {
        if let Some(grown) = record.grown.get(&Turn::Changed) {
            let per_page = grown / written.pages.max(1);
            text += &format!(" {} {per_page} B;", record.series.name);
        }
    }
    text += &format!(" a page by itself {} B\n", written.packed / written.pages.max(1));
    let json = json!({
        "file_bytes": len,
        "pages": written.pages,
        "pages_packed_bytes": written.packed,
        "turns": report::to_json(&records, &TURNS),
    });
    Ok(Findings { text, json, problems: report::our_problems(&records) })
}

/// Writes new records into one page of each stretch.
fn write_pages(path: &Path, len: u64) -> Result<Written, String> {
    let failed = |e: std::io::Error| format!("{}: {e}", path.display());
    let file = std::fs::File::options().write(true).open(path).map_err(failed)?;
    let mut random = Random::new(&[3]);
    let mut written = Written::default();
    let stretch = PAGES_APART * PAGE as u64;
    for start in (0..len / stretch).map(|n| n * stretch) {
        let page = disk::records(PAGE, &mut random);
        let within = random.below(usize::try_from(PAGES_APART).map_err(|e| e.to_string())?);
        file.write_all_at(&page, start + (within * PAGE) as u64).map_err(failed)?;
        written.pages += 1;
        written.packed += zstd::bulk::compress(&page, 1).map_err(failed)?.len() as u64;
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_page_of_each_stretch_is_written() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), vec![0; 1 << 20]).unwrap();
        let written = write_pages(file.path(), 1 << 20).unwrap();
        let bytes = std::fs::read(file.path()).unwrap();
        let dirty = bytes.chunks(PAGE).filter(|page| page.iter().any(|&b| b != 0)).count();
        assert_eq!((written.pages, dirty), (4, 4));
        assert!(written.packed < 4 * 2500 && written.packed > 4 * 1000);
    }
}
