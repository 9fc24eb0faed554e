//! `cargo xtask images DIR`: other people's disks, sound and damaged, through our library.
//!
//! Each image of `DIR/manifest.tsv` is unpacked into a temporary folder, checked by a process
//! of its own, and removed. No image may make the library panic, hang, or eat memory; what the
//! library says about a sound image must be what independent tools said.

mod check;
mod containers;
mod files;
mod isolate;
mod manifest;
mod round_trip;
mod unpack;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::Outcome;
use manifest::{ImageFact, Trust};

/// Images in work at the same time.
const THREADS: usize = 2;
/// After this time no further image is begun; those left out are listed.
const BUDGET: Duration = Duration::from_secs(900);

/// What the check of one image found.
#[derive(Debug, Default, PartialEq, Eq)]
struct Verdict {
    /// Reasons to fail the campaign.
    problems: Vec<Problem>,
    /// Things worth counting, such as why a fact was not compared.
    remarks: Vec<String>,
    /// Files that were listed and read.
    files: u64,
}

/// Something an image proved wrong, as one line.
type Problem = String;

/// The end of one image.
enum Fate {
    Checked(Verdict),
    Skipped(String),
}

pub(crate) fn run(arguments: &[String]) -> Outcome {
    match arguments {
        [folder] => campaign(Path::new(folder)),
        // How the campaign calls itself for one image.
        [flag, folder, id, raw] if flag == isolate::CHECK_ONE => {
            isolate::check_one(Path::new(folder), id, Path::new(raw))
        }
        _ => Err("usage: cargo xtask images DIR".into()),
    }
}

fn campaign(folder: &Path) -> Outcome {
    let begun = Instant::now();
    let mut facts = manifest::load(folder)?;
    // Should the time not suffice, the images with the most facts have been checked.
    facts.sort_by_key(|fact| fact.trust != Trust::Valid);
    println!("images: {} in {}", facts.len(), folder.display());

    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::channel();
    let mut summary = Summary::default();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            let (facts, next, sender) = (&facts, &next, sender.clone());
            scope.spawn(move || {
                while let Some(fact) = facts.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let fate = match begun.elapsed() < BUDGET {
                        true => one_image(folder, fact),
                        false => Fate::Skipped(format!("no time left of {} s", BUDGET.as_secs())),
                    };
                    if sender.send((fact, fate)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for (fact, fate) in receiver {
            summary.add(fact, fate);
        }
    });
    summary.print(begun.elapsed());
    match summary.failed {
        0 => Ok(()),
        failed => Err(format!("{failed} images failed")),
    }
}

fn one_image(folder: &Path, fact: &ImageFact) -> Fate {
    let work = match tempfile::tempdir() {
        Ok(work) => work,
        Err(e) => return Fate::Checked(Verdict::problem(format!("no temporary folder: {e}"))),
    };
    match unpack::unpack(folder, fact, work.path()) {
        Ok(raw) => Fate::Checked(isolate::check_apart(folder, fact, &raw, work.path())),
        Err(unpack::Refusal::NotForUs(why)) => Fate::Skipped(why),
        Err(unpack::Refusal::Failed(why)) => Fate::Checked(Verdict::problem(why)),
    }
}

impl Verdict {
    fn problem(what: String) -> Self {
        Self { problems: vec![what], ..Self::default() }
    }
}

#[derive(Default)]
struct Summary {
    checked: usize,
    failed: usize,
    skipped: usize,
    files: u64,
    /// How often each remark was made.
    remarks: BTreeMap<String, usize>,
}

impl Summary {
    /// Counts one image and prints what a reader must know about it.
    fn add(&mut self, fact: &ImageFact, fate: Fate) {
        match fate {
            Fate::Skipped(why) => {
                self.skipped += 1;
                println!("images: skipped {}: {why}", fact.id);
            }
            Fate::Checked(verdict) => {
                self.checked += 1;
                self.files += verdict.files;
                self.failed += usize::from(!verdict.problems.is_empty());
                for problem in &verdict.problems {
                    println!("images: FAILED {} ({}): {problem}", fact.id, fact.kind);
                }
                for remark in verdict.remarks {
                    *self.remarks.entry(remark).or_default() += 1;
                }
            }
        }
    }

    fn print(&self, time: Duration) {
        for (remark, count) in &self.remarks {
            println!("images: {count:>4} {remark}");
        }
        println!(
            "images: {} checked with {} files, {} failed, {} skipped, {:.0} s",
            self.checked,
            self.files,
            self.failed,
            self.skipped,
            time.as_secs_f64()
        );
    }
}
