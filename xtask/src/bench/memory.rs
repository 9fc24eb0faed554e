//! Memory that a source of the largest size takes.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde_json::{Value, json};

use super::measure::{self, Cost};
use super::place::{Place, stored_bytes};
use super::round::image_in;
use super::tool::fill;
use crate::Outcome;

const TIB: u64 = 1 << 40;
const SIZE_MAX: u64 = 100 * TIB;
/// No filesystem of today refuses a sparse file of this size.
const SIZE_MIN: u64 = TIB;
/// Pieces of noise spread evenly over the source: 256 MiB of data.
const PIECES: u64 = 4096;
const PIECE_LEN: usize = 64 << 10;
/// The promise for a source of any size.
const RSS_MAX: u64 = 256 << 20;
/// A tool that reads the holes would need hours.
const TIME_MAX_S: &str = "900";

/// What backing up and verifying the source cost.
pub(super) struct Figures {
    source_bytes: u64,
    full: Result<Cost, String>,
    /// An increment when nothing changed.
    again: Result<Cost, String>,
    verify: Result<Cost, String>,
    stored_bytes: u64,
}

/// Backs the source up and verifies the image.
pub(super) fn measure(place: &Place, aiv: &Path) -> Result<Figures, String> {
    place.reset_run()?;
    let stored = place.run("stored");
    std::fs::create_dir_all(&stored).map_err(|e| format!("{}: {e}", stored.display()))?;
    let source = place.run("huge.raw");
    let source_bytes = make_source(&source)?;
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let mut places =
        vec![("{aiv}", text(aiv)), ("{huge}", text(&source)), ("{stored}", text(&stored))];
    let run = |line: &str, places: &[(&str, String)]| {
        let line = format!("timeout {TIME_MAX_S} {line} --json --quiet");
        let cost = measure::run(&fill(&line, places), &place.folder, &[]);
        cost.map(|(cost, _)| cost)
    };
    let full = run("{aiv} backup {huge} --to {stored} --full --compress zstd:1", &places);
    let no_image = |_: &String| "there is no image".to_owned();
    let verify = full.as_ref().map_err(no_image).and_then(|_| {
        places.push(("{image}", image_in(&stored)?));
        run("{aiv} verify {image} --depth data", &places)
    });
    let again = full.as_ref().map_err(no_image).and_then(|_| {
        run("{aiv} backup {huge} --to {stored} --incremental --compress zstd:1", &places)
    });
    let stored_bytes = stored_bytes(&stored).map_err(|e| e.to_string())?;
    place.reset_run()?;
    Ok(Figures { source_bytes, full, again, verify, stored_bytes })
}

/// Makes the largest sparse file the filesystem allows, at most [`SIZE_MAX`]; returns its size.
fn make_source(path: &Path) -> Result<u64, String> {
    let failed = |e: std::io::Error| format!("{}: {e}", path.display());
    let file = File::create(path).map_err(failed)?;
    let mut size = SIZE_MAX;
    while let Err(e) = file.set_len(size) {
        if size <= SIZE_MIN {
            return Err(failed(e));
        }
        // ext4 stops one block short of 16 TiB.
        size = if size > 16 * TIB { 16 * TIB - (1 << 20) } else { SIZE_MIN };
    }
    let mut noise = blake3::Hasher::new().finalize_xof();
    let mut piece = vec![0; PIECE_LEN];
    let stride = (size / PIECES).next_multiple_of(4096);
    for number in 0..PIECES {
        noise.fill(&mut piece);
        let offset = (number * stride).min(size - PIECE_LEN as u64);
        file.write_all_at(&piece, offset).map_err(failed)?;
    }
    Ok(size)
}

impl Figures {
    fn named(&self) -> [(&'static str, &Result<Cost, String>); 3] {
        [("full", &self.full), ("increment", &self.again), ("verify", &self.verify)]
    }

    pub(super) fn text(&self) -> String {
        let size = self.source_bytes as f64 / TIB as f64;
        let data = (PIECES * PIECE_LEN as u64) >> 20;
        let mut text = format!(
            "memory: a sparse source of {size:.0} TiB with {data} MiB of data (promise: {} MiB)\n",
            RSS_MAX >> 20
        );
        for (name, cost) in self.named() {
            text += &match cost {
                Ok(cost) => format!(
                    "  {name:<9}  wall {:.2} s, CPU {:.2} s, peak RSS {} MiB\n",
                    cost.wall_s,
                    cost.cpu_s,
                    cost.peak_rss >> 20
                ),
                Err(failure) => format!("  {name:<9}  {failure}\n"),
            };
        }
        text
    }

    /// Keeps the promise, or says by how much it is broken.
    pub(super) fn check(&self) -> Outcome {
        for (name, cost) in self.named() {
            let rss =
                cost.as_ref().map_err(|failure| format!("memory: {name}: {failure}"))?.peak_rss;
            if rss > RSS_MAX {
                let (rss, max) = (rss >> 20, RSS_MAX >> 20);
                return Err(format!("memory: {name} took {rss} MiB, promised are {max}"));
            }
        }
        Ok(())
    }

    pub(super) fn to_json(&self) -> Value {
        let cost = |cost: &Result<Cost, String>| match cost {
            Ok(cost) => cost.to_json(),
            Err(failure) => json!({ "problem": failure }),
        };
        json!({
            "source_bytes": self.source_bytes,
            "stored_bytes": self.stored_bytes,
            "peak_rss_bytes_promised": RSS_MAX,
            "full": cost(&self.full),
            "increment": cost(&self.again),
            "verify": cost(&self.verify),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(peak_rss: u64) -> Figures {
        let cost = Cost { wall_s: 1.0, cpu_s: 2.0, peak_rss };
        let (full, again, verify) = (Ok(cost), Ok(cost), Ok(cost));
        Figures { source_bytes: SIZE_MAX, full, again, verify, stored_bytes: 0 }
    }

    #[test]
    fn the_promise_is_kept_up_to_its_last_byte() {
        assert_eq!(figures(RSS_MAX).check(), Ok(()));
        let failure = figures(300 << 20).check().unwrap_err();
        assert_eq!(failure, "memory: full took 300 MiB, promised are 256");
    }

    #[test]
    fn a_backup_that_fails_breaks_the_promise_too() {
        let failed = Figures { verify: Err("died".into()), ..figures(0) };
        assert_eq!(failed.check().unwrap_err(), "memory: verify: died");
        assert!(failed.text().ends_with("  verify     died\n"));
    }
}
