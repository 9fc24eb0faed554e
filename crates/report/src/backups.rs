//! What became of the sources of one backup.

use std::path::{Path, PathBuf};

use aiv_jobs::{BackupDone, Backups};
use serde_json::{Value, json};

use crate::{Failure, Outcome, Remarks, json, text};

/// Results of a backup of `sources`, in order; those behind the last result were not begun.
/// The failure is the worst there was, and tells what was done all the same; all others are in
/// the second value, for people. For scripts they are in the object.
pub fn backups(sources: &[PathBuf], found: &Backups) -> (Result<Outcome, Failure>, Vec<Failure>) {
    let Backups { folder, group, results } = found;
    let json = json!({"folder": json::path(folder), "group": group.to_string()});
    let mut all = Outcome::report(json, String::new());
    let (mut images, mut failures) = (Vec::new(), Vec::new());
    for (source, result) in sources.iter().zip(results) {
        match result {
            Ok(done) => {
                let one = backup(folder, source, done);
                images.push(one.json);
                all.text += &one.text;
                all.warnings.extend(one.warnings);
                all.exit = all.exit.max(one.exit);
            }
            Err(error) => {
                let failure = named(Failure::of(error), source);
                let error = failure.to_json()["error"].take();
                images.push(json!({"source": json::path(source), "error": error}));
                failures.push(failure);
            }
        }
    }
    all.json["images"] = Value::from(images);
    failures.sort_by_key(|failure| failure.verdict.exit);
    match failures.pop() {
        None => (Ok(all), failures),
        Some(worst) => (Err(worst.after(all)), failures),
    }
}

/// Puts the source in front of a message that does not name it.
fn named(failure: Failure, source: &Path) -> Failure {
    let name = source.display().to_string();
    if failure.message.contains(&name) { failure } else { failure.about(name) }
}

fn backup(folder: &Path, source: &Path, done: &BackupDone) -> Outcome {
    let BackupDone { plan, report, elapsed, .. } = done;
    let mut json = json::backup(folder, plan, report, *elapsed);
    json["source"] = json::path(source);
    let text = text::backup(source, folder, plan, report, *elapsed);
    Outcome::report(json, text).with(Remarks::on_backup(report))
}
