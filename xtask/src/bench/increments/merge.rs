//! Merging images into one: against copying as many bytes, and against storing them anew.

use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};

use aiv_testkit::Random;
use aiv_volume_io::{DirStorage, Extent, ExtentSet};
use serde_json::{Value, json};

use super::super::Bench;
use super::super::disk;
use super::super::machine::Machine;
use super::super::measure::{self, Cost};
use super::super::place::stored_bytes;
use super::super::stats::median;
use super::super::study::Findings;
use super::super::tool::{Scope, fill};
use super::super::used::UsedDisk;
use super::maker::scan;

const INCREMENTS: u64 = 10;
const FILE_MIB_PER_GIB: u64 = 128;
/// Written anew before each increment: one piece of so many.
const PIECES_APART: u64 = 32;
const PIECE: usize = 1 << 20;

const BACK_UP: &str = "{aiv} backup disk.raw --to {images} --json --quiet";
const MERGE: &str = "{aiv} consolidate {images} {kept} --json --quiet";
const RESTORE: &str = "{aiv} restore {images}@latest --to {restored} --json --quiet";

/// Images that become one, and what they must still restore to.
struct Case<'b> {
    name: &'static str,
    bench: &'b Bench<'b>,
    /// Holds `disk.raw` and the images.
    folder: PathBuf,
    /// The line that stores the same state anew, as one image in place of those merged.
    anew: &'static str,
    /// What of the images stays besides the newest point.
    kept: String,
    source: UsedDisk,
    scope: Scope,
}

#[derive(Default)]
struct Row {
    name: &'static str,
    /// Of the images that are merged, and of the one they become.
    before: u64,
    after: u64,
    merge: Vec<Cost>,
    copy: Vec<Cost>,
    anew: Vec<Cost>,
}

pub(in super::super) fn measure(bench: &Bench<'_>) -> Result<Findings, String> {
    // Copying in memory copies nothing to a medium, so the images lie where temporary files do.
    let folder = tempfile::Builder::new()
        .prefix("aiv-bench-merge")
        .tempdir()
        .map_err(|e| format!("no temporary folder: {e}"))?;
    let filesystem = Machine::of(folder.path()).filesystem;
    let rows = [
        full_and_increment(bench, folder.path().join("full"))?.measure()?,
        ten_increments(bench, folder.path().join("ten"))?.measure()?,
    ];
    let json = json!({
        "filesystem": filesystem,
        "rows": rows.iter().map(Row::to_json).collect::<Vec<_>>(),
    });
    Ok(Findings { text: text(&rows, &filesystem), json, problems: Vec::new() })
}

/// The disk and its second state: the full image takes the increment in.
fn full_and_increment<'b>(bench: &'b Bench<'b>, folder: PathBuf) -> Result<Case<'b>, String> {
    let place = bench.place;
    disk::ensure(place, bench.options.size_gib)?;
    disk::ensure_second(place, bench.options.size_gib)?;
    let source = UsedDisk::open(&place.second(), disk::root_extent(&place.second())?)?;
    let case = Case {
        name: "full + 1 increment",
        bench,
        folder,
        anew: "{aiv} backup disk.raw --to {anew} --full --json --quiet",
        kept: String::new(),
        source,
        scope: Scope::UsedOfDisk,
    };
    case.prepare()?;
    for state in [place.disk(), place.second()] {
        case.show(&state)?;
        case.run(BACK_UP, &[])?;
    }
    Ok(case)
}

/// A file that changes in long stretches: increments become one, their full image stays.
fn ten_increments<'b>(bench: &'b Bench<'b>, folder: PathBuf) -> Result<Case<'b>, String> {
    let len = (bench.options.size_gib * FILE_MIB_PER_GIB) << 20;
    let path = folder.join("source.raw");
    let failed = |e: std::io::Error| format!("{}: {e}", path.display());
    std::fs::create_dir_all(&folder).map_err(failed)?;
    disk::make_files(&path, len)?;
    let file = std::fs::File::options().read(true).write(true).open(&path).map_err(failed)?;
    let changing = file.try_clone().map_err(failed)?;
    let source = UsedDisk { file, len, used: ExtentSet::new(), root: Extent::new(0, len) };
    let mut case = Case {
        name: "10 increments",
        bench,
        folder,
        anew: "{aiv} backup disk.raw --to {anew} --differential --json --quiet",
        kept: String::new(),
        source,
        scope: Scope::Disk,
    };
    case.prepare()?;
    case.show(&path)?;
    case.run(BACK_UP, &[])?;
    case.kept = format!("--keep-point {}", case.only_point()?);
    let mut random = Random::new(&[9]);
    let stretch = PIECES_APART * PIECE as u64;
    for _ in 0..INCREMENTS {
        for start in (0..len / stretch).map(|n| n * stretch) {
            let within = random.next() % PIECES_APART * PIECE as u64;
            let bytes = disk::records(PIECE, &mut random);
            changing.write_all_at(&bytes, start + within).map_err(failed)?;
        }
        case.run(BACK_UP, &[])?;
    }
    Ok(case)
}

impl Case<'_> {
    fn images(&self) -> PathBuf {
        self.folder.join("images")
    }

    fn prepare(&self) -> Result<(), String> {
        let images = self.images();
        std::fs::create_dir_all(&images).map_err(|e| format!("{}: {e}", images.display()))
    }

    /// Makes `disk.raw` this state: a disk keeps its name.
    fn show(&self, state: &Path) -> Result<(), String> {
        let link = self.folder.join("disk.raw");
        let _ = std::fs::remove_file(&link);
        symlink(state, &link).map_err(|e| format!("{}: {e}", link.display()))
    }

    fn only_point(&self) -> Result<String, String> {
        let storage = DirStorage::open(self.images()).map_err(|e| e.to_string())?;
        let folder = scan(&storage)?;
        let point = folder.sets.first().and_then(|set| set.points.first());
        Ok(point.ok_or("the folder holds no images")?.id.to_string())
    }

    fn run(&self, line: &str, places: &[(&'static str, String)]) -> Result<Cost, String> {
        let mut all = places.to_vec();
        all.extend(self.bench.places());
        all.push(("{images}", self.images().to_string_lossy().into_owned()));
        let words = fill(line, &all);
        measure::run(&words, &self.folder, &self.bench.variables()).map(|(cost, _)| cost)
    }

    fn measure(&self) -> Result<Row, String> {
        let mut row = Row { name: self.name, ..Row::default() };
        for round in 1..=self.bench.options.runs {
            eprintln!("bench: merge: {}: round {round}", self.name);
            self.round(&mut row, round == 1)?;
        }
        std::fs::remove_dir_all(&self.folder)
            .map_err(|e| format!("{}: {e}", self.folder.display()))?;
        Ok(row)
    }

    fn round(&self, row: &mut Row, is_first: bool) -> Result<(), String> {
        let failed = |e: std::io::Error| format!("{}: {e}", self.folder.display());
        let (merged, anew) = (self.folder.join("merged"), self.folder.join("anew"));
        let keeps_full = !self.kept.is_empty();
        link_images(&self.images(), &merged, |_| true)?;
        link_images(&self.images(), &anew, |name| keeps_full && name.ends_with(".aiv"))?;
        let full = stored_bytes(&anew).map_err(failed)?;
        row.before = stored_bytes(&merged).map_err(failed)? - full;
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let images = ("{images}", text(&merged));
        rustix::fs::sync();
        let merge = MERGE.replace("{kept}", &self.kept);
        row.merge.push(self.run(&merge, std::slice::from_ref(&images))?);
        row.after = stored_bytes(&merged).map_err(failed)? - full;
        let newest = newest_file(&merged)?;
        let copy = self.folder.join("copy");
        rustix::fs::sync();
        let line = r#"cp --reflink=never "$1" "$2" && sync "$2""#;
        let words = ["sh", "-c", line, "sh", &text(&newest), &text(&copy)].map(str::to_owned);
        row.copy.push(measure::run(&words, &self.folder, &self.bench.variables())?.0);
        rustix::fs::sync();
        row.anew.push(self.run(self.anew, &[("{anew}", text(&anew))])?);
        if is_first {
            let restored = self.bench.place.run("merged.raw");
            std::fs::create_dir_all(self.bench.place.run("")).map_err(failed)?;
            self.run(RESTORE, &[images, ("{restored}", text(&restored))])?;
            self.source.check(&restored, self.scope)?;
            std::fs::remove_file(&restored).map_err(failed)?;
        }
        std::fs::remove_file(&copy).map_err(failed)?;
        [merged, anew].iter().try_for_each(std::fs::remove_dir_all).map_err(failed)
    }
}

/// Images never change, so that another name is as good as a copy.
fn link_images(from: &Path, to: &Path, is_wanted: impl Fn(&str) -> bool) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("{}: {e}", to.display());
    std::fs::create_dir_all(to).map_err(failed)?;
    for entry in std::fs::read_dir(from).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_image(&name) && is_wanted(&name) {
            std::fs::hard_link(entry.path(), to.join(&name)).map_err(failed)?;
        }
    }
    Ok(())
}

fn is_image(name: &str) -> bool {
    name.ends_with(".aiv") || name.ends_with(".aii")
}

/// The image that was written last.
fn newest_file(folder: &Path) -> Result<PathBuf, String> {
    let failed = |e: std::io::Error| format!("{}: {e}", folder.display());
    let mut newest = None;
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let time = entry.metadata().and_then(|m| m.modified()).map_err(failed)?;
        let is_image = is_image(&entry.file_name().to_string_lossy());
        if is_image && newest.as_ref().is_none_or(|(last, _)| time > *last) {
            newest = Some((time, entry.path()));
        }
    }
    newest.map(|(_, path)| path).ok_or_else(|| format!("{}: no image", folder.display()))
}

impl Row {
    fn of(costs: &[Cost], part: fn(&Cost) -> f64) -> f64 {
        median(&costs.iter().map(part).collect::<Vec<_>>()).unwrap_or_default()
    }

    /// CPU time as a share of storing the same anew, and speed as a multiple of copying.
    fn ratios(&self) -> (f64, f64) {
        let cpu = |costs| Self::of(costs, |c| c.cpu_s);
        let wall = |costs| Self::of(costs, |c| c.wall_s);
        (cpu(&self.merge) / cpu(&self.anew), wall(&self.copy) / wall(&self.merge))
    }

    fn to_json(&self) -> Value {
        let costs = |costs: &[Cost]| costs.iter().map(|cost| cost.to_json()).collect::<Vec<_>>();
        let (cpu_of_anew, speed_of_copy) = self.ratios();
        json!({
            "name": self.name,
            "stored_bytes_before": self.before,
            "stored_bytes_after": self.after,
            "merge": costs(&self.merge),
            "copy": costs(&self.copy),
            "anew": costs(&self.anew),
            "cpu_of_anew": cpu_of_anew,
            "speed_of_copy": speed_of_copy,
        })
    }
}

fn text(rows: &[Row], filesystem: &str) -> String {
    let mut text = format!(
        "merge, images on {filesystem}; a copy is cp and sync of the merged image\n  \
         images              MiB before   after  merge s   CPU s  RSS MiB  copy s  anew CPU s  \
         CPU of anew  speed of cp\n"
    );
    for row in rows {
        let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
        let (cpu, speed) = row.ratios();
        let rss = row.merge.iter().map(|cost| cost.peak_rss).max().unwrap_or_default();
        text += &format!(
            "  {:<18}  {:>10.1}  {:>6.1}  {:>7.2}  {:>6.2}  {:>7}  {:>6.2}  {:>10.2}  {:>9.0} %  \
             {:>9.2} x\n",
            row.name,
            mib(row.before),
            mib(row.after),
            Row::of(&row.merge, |c| c.wall_s),
            Row::of(&row.merge, |c| c.cpu_s),
            rss >> 20,
            Row::of(&row.copy, |c| c.wall_s),
            Row::of(&row.anew, |c| c.cpu_s),
            cpu * 100.0,
            speed,
        );
    }
    text
}
