//! Files out of an image, against `cp -a` from the kernel's mount of the disk.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::place::forget_caches;
use super::stats::median;
use super::study::Findings;
use super::{Bench, measure, text as path_text};
use crate::process;

/// Files of a few pages each, and files of many.
const SMALL: usize = 10_000;
const LARGE: usize = 4;
const LARGE_LEN: usize = 64 << 20;
const DISK_LEN: &str = "1G";

/// What is taken out, and how many times as long as `cp -a` that may take.
const ROWS: [(&str, Option<f64>); 2] = [("small", Some(1.2)), ("large", None)];

struct Row {
    what: &'static str,
    target: Option<f64>,
    /// Wall and CPU seconds of ours, and of `cp`.
    ours: (Vec<f64>, Vec<f64>),
    theirs: (Vec<f64>, Vec<f64>),
    peak_rss: u64,
}

pub(super) fn measure(bench: &Bench<'_>) -> Result<Findings, String> {
    bench.place.reset_run()?;
    let folder = bench.place.run("files");
    let failed = |e: std::io::Error| format!("{}: {e}", folder.display());
    fs::create_dir_all(&folder).map_err(failed)?;
    let (disk, mount, images) = (folder.join("disk"), folder.join("mount"), folder.join("images"));
    fs::create_dir_all(&mount).map_err(failed)?;
    let shell = |script: &str| -> Result<(), String> {
        let mut command = process::command("sh");
        command.args(["-e", "-c", script, "sh"]).args([&disk, &mount]).current_dir(&folder);
        process::run(&mut command)
    };
    shell(&format!(
        "truncate -s {DISK_LEN} \"$1\"; mkfs.ext4 -q -F \"$1\"; mount -o loop \"$1\" \"$2\""
    ))?;
    let filled = fill(&mount);
    let unmounted = shell("umount \"$2\"");
    filled.map_err(failed)?;
    unmounted?;
    let words = |line: &str| -> Vec<String> {
        line.split_whitespace()
            .map(|word| match word {
                "{aiv}" => path_text(bench.aiv),
                "{disk}" => path_text(&disk),
                "{images}" => path_text(&images),
                word => word.to_owned(),
            })
            .collect()
    };
    measure::run(&words("{aiv} backup {disk} --to {images} --quiet"), &folder, &[])?;
    shell("mount -o loop,ro \"$1\" \"$2\"")?;
    let mut rows = ROWS.map(|(what, target)| Row {
        what,
        target,
        ours: (Vec::new(), Vec::new()),
        theirs: (Vec::new(), Vec::new()),
        peak_rss: 0,
    });
    let measured = rounds(bench, &folder, &images, &mount, &mut rows);
    let unmounted = shell("umount \"$2\"");
    measured?;
    unmounted?;
    bench.place.reset_run()?;
    Ok(Findings { text: text(&rows), json: to_json(&rows), problems: Vec::new() })
}

/// Noise in files, in a hundred folders and beside them.
fn fill(root: &Path) -> std::io::Result<()> {
    let mut state = 1_u64;
    let mut noise = |len: usize| -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.extend(state.to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    };
    for n in 0..SMALL {
        let folder = root.join(format!("small/{}", n % 100));
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(format!("file{n}")), noise(500 + n % 97 * 130))?;
    }
    fs::create_dir_all(root.join("large"))?;
    (0..LARGE).try_for_each(|n| fs::write(root.join(format!("large/{n}")), noise(LARGE_LEN)))
}

/// Both take turns, each into a new folder, with nothing of either in memory; what came out is
/// compared.
fn rounds(
    bench: &Bench<'_>,
    folder: &Path,
    images: &Path,
    mount: &Path,
    rows: &mut [Row],
) -> Result<(), String> {
    let image = format!("{}@latest", path_text(images));
    for round in 1..=bench.options.runs {
        for row in rows.iter_mut() {
            eprintln!("bench: files: round {round}: {}", row.what);
            let (ours, theirs) = (folder.join("ours"), folder.join("theirs"));
            for out in [&ours, &theirs] {
                let _ = fs::remove_dir_all(out);
                fs::create_dir(out).map_err(|e| format!("{}: {e}", out.display()))?;
            }
            let source = mount.join(row.what);
            forget_caches()?;
            let path = format!("/p0/{}", row.what);
            let extract =
                [path_text(bench.aiv).as_str(), "extract", &image, &path, "--quiet", "--to"]
                    .map(str::to_owned);
            let extract = [&extract[..], &[path_text(&ours)]].concat();
            let (cost, _) = measure::run(&extract, folder, &[])?;
            row.ours.0.push(cost.wall_s);
            row.ours.1.push(cost.cpu_s);
            row.peak_rss = row.peak_rss.max(cost.peak_rss);
            forget_caches()?;
            // Ours are on the medium when it ends: so are theirs.
            let script = "cp -a \"$1\" \"$2\" && sync -f \"$2\"";
            let copy = ["sh", "-c", script, "sh", &path_text(&source), &path_text(&theirs)];
            let (cost, _) = measure::run(&copy.map(str::to_owned), folder, &[])?;
            row.theirs.0.push(cost.wall_s);
            row.theirs.1.push(cost.cpu_s);
            let mut diff = process::command("diff");
            process::run(diff.arg("-r").args([&ours, &theirs]))?;
        }
    }
    Ok(())
}

impl Row {
    fn times(&self) -> f64 {
        let wall = |all: &[f64]| median(all).unwrap_or(f64::NAN);
        wall(&self.ours.0) / wall(&self.theirs.0)
    }
}

fn text(rows: &[Row]) -> String {
    let mut text = format!(
        "files: out of an image, against `cp -a` and sync from the kernel's mount; {SMALL} small \
         ones, {LARGE} of {} MiB\n  files   ours s  CPU s  cp -a s  CPU s  x cp -a  target  peak MiB\n",
        LARGE_LEN >> 20
    );
    for row in rows {
        let of = |all: &[f64]| median(all).unwrap_or_default();
        let target = row.target.map_or(String::new(), |target| format!("{target:.2}"));
        text += &format!(
            "  {:<6}  {:>6.2}  {:>5.2}  {:>7.2}  {:>5.2}  {:>7.3}  {target:>6}  {:>8}\n",
            row.what,
            of(&row.ours.0),
            of(&row.ours.1),
            of(&row.theirs.0),
            of(&row.theirs.1),
            row.times(),
            row.peak_rss >> 20,
        );
    }
    text
}

fn to_json(rows: &[Row]) -> Value {
    let row = |row: &Row| {
        json!({
            "files": row.what,
            "wall_s": row.ours.0,
            "cpu_s": row.ours.1,
            "cp_wall_s": row.theirs.0,
            "cp_cpu_s": row.theirs.1,
            "times_cp": row.times(),
            "target": row.target,
            "peak_rss_bytes": row.peak_rss,
        })
    };
    rows.iter().map(row).collect()
}
