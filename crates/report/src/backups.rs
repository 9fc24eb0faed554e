//! What became of the sources of one backup.

use std::path::{Path, PathBuf};

use aiv_jobs::{BackupDone, Backups, HookReport, SeenAs, StillReport};
use serde_json::{Value, json};

use crate::words::clean;
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
    let BackupDone { seen_as, plan, report, elapsed, still } = done;
    let mut json = json::backup(folder, plan, report, *elapsed);
    json["source"] = json::path(source);
    let text = text::backup(source, folder, plan, report, *elapsed);
    let mut outcome = Outcome::report(json, text);
    add_seen_as(&mut outcome, seen_as);
    if let Some(still) = still {
        add_still(&mut outcome, still);
    }
    outcome.with(Remarks::on_backup(report))
}

/// How the bytes of the source were found.
fn add_seen_as(outcome: &mut Outcome, seen: &SeenAs) {
    outcome.json["source_format"] = Value::from(seen.format);
    outcome.json["source_files"] = seen.files.iter().map(|file| json::path(file)).collect();
    match seen.files.as_slice() {
        [] | [_] if seen.format == "raw" || seen.format.is_empty() => {}
        [] | [_] => outcome.text += &format!("read as {}\n", seen.format),
        files => outcome.text += &format!("read as {} from {} files\n", seen.format, files.len()),
    }
    if let Some(notes) = outcome.json["notes"].as_array_mut() {
        notes.extend(seen.notes.iter().cloned().map(Value::from));
    }
    outcome.add(Remarks { notes: seen.notes.clone(), warnings: Vec::new() });
}

/// How the source was kept from changing, and what the commands around that did.
fn add_still(outcome: &mut Outcome, still: &StillReport) {
    let ms = u64::try_from(still.elapsed.as_millis()).unwrap_or(u64::MAX);
    let time = format!("{}.{} s", ms / 1000, ms % 1000 / 100);
    outcome.json["hooks"] = still.hooks.iter().map(hook).collect();
    let mounts: Vec<String> = still.frozen.iter().map(|path| path.display().to_string()).collect();
    if let Some(name) = &still.snapshot {
        outcome.text += &format!("of snapshot {}, made in {time}", clean(name));
        if !mounts.is_empty() {
            outcome.text += &format!(", frozen meanwhile: {}", clean(&mounts.join(", ")));
            outcome.json["frozen"] = Value::from(mounts);
        }
        outcome.text += "\n";
        outcome.json["snapshot"] = Value::from(name.as_str());
        outcome.json["snapshot_ms"] = Value::from(ms);
    } else {
        outcome.text += &format!("frozen for {time}: {}\n", clean(&mounts.join(", ")));
        outcome.json["frozen"] = Value::from(mounts);
        outcome.json["frozen_ms"] = Value::from(ms);
    }
    let failed = |hook: &HookReport| {
        let failure = hook.failure.as_ref()?;
        Some(format!("the {} command failed: {failure}", hook.hook.name()))
    };
    let mut remarks = Remarks::default();
    remarks.warnings.extend(still.hooks.iter().filter_map(failed));
    remarks.warnings.extend(still.left_behind.iter().map(|why| {
        format!("the snapshot could not be removed, the next backup tries again: {why}")
    }));
    remarks.warnings.extend(still.leftovers_kept.iter().map(|(name, why)| {
        format!("snapshot {name} may be left of another backup, and was not removed: {why}")
    }));
    let removed =
        |name: &String| format!("removed snapshot {name}, which an interrupted backup left");
    remarks.notes.extend(still.leftovers_removed.iter().map(removed));
    for (field, sentences) in [("notes", &remarks.notes), ("warnings", &remarks.warnings)] {
        if let Some(all) = outcome.json[field].as_array_mut() {
            all.extend(sentences.iter().map(|sentence| Value::from(sentence.as_str())));
        }
    }
    outcome.add(remarks);
}

fn hook(report: &HookReport) -> Value {
    json!({
        "hook": report.hook.name(),
        "command": report.command,
        "elapsed_ms": u64::try_from(report.elapsed.as_millis()).unwrap_or(u64::MAX),
        "failure": report.failure,
    })
}
