//! Consolidation, archive, copy and move: their JSON, their text, and what to remark on them.

use std::path::Path;

use aiv_chain::{
    ArchiveReport, ConsolidationPlan, ConsolidationReport, CopyReport, LeftFile, LeftReason,
    MoveReport, PlannedPoint, Set,
};
use serde_json::{Value, json};

use crate::Remarks;
use crate::json::path;
use crate::words::{clean, in_files, short, size};

/// What `aiv consolidate` begins with, before any set was looked at.
#[must_use]
pub fn consolidation_json(folder: &Path, dry_run: bool) -> Value {
    let mut json = json!({"folder": path(folder), "dry_run": dry_run});
    ["kept", "removed", "created", "left", "plan"].iter().for_each(|list| json[list] = json!([]));
    json
}

/// Adds what is going to be done to a set.
pub fn add_plan(json: &mut Value, set: &Set, plan: &ConsolidationPlan) {
    let planned = |point: &PlannedPoint| json!({"recovery_point": point.link.point.to_string(), "files": point.files});
    append(json, "kept", plan.kept.iter().map(|point| json!(point.to_string())));
    append(
        json,
        "plan",
        plan.runs.iter().map(|run| {
            json!({
                "set": set.id.to_string(),
                "merge": run.drops.iter().map(planned).collect::<Value>(),
                "into": planned(&run.result),
                "kind": run.kind.name(),
                "bytes_max": run.bytes_max,
                "bytes_freed": run.bytes_freed,
            })
        }),
    );
    let leftovers = plan.leftovers.iter();
    append(json, "plan", leftovers.map(|point| json!({"remove": planned(point)})));
}

/// Adds what was done to a set.
pub fn add_consolidation(json: &mut Value, folder: &Path, report: &ConsolidationReport) {
    append(
        json,
        "created",
        report.merged.iter().map(|image| {
            json!({
                "image": path(&folder.join(&image.file)),
                "kind": image.kind.name(),
                "recovery_point": image.point.to_string(),
                "state_root": image.state_root.to_string(),
                "bytes_stored": image.bytes,
                "segments": image.segments,
                "dropped": image.dropped.iter().map(ToString::to_string).collect::<Value>(),
            })
        }),
    );
    append(json, "removed", report.removed.iter().map(|file| json!(file)));
    append(json, "left", report.left.iter().map(left_json));
}

fn left_json(left: &LeftFile) -> Value {
    json!({"file": left.file, "why": why_left(left)})
}

fn append(json: &mut Value, field: &str, items: impl Iterator<Item = Value>) {
    if let Some(list) = json[field].as_array_mut() {
        list.extend(items);
    }
}

/// What is going to be done to a set.
#[must_use]
pub fn plan_text(set: &Set, plan: &ConsolidationPlan) -> String {
    let title = clean(&format!("{} on {}", set.name, set.host));
    if plan.is_empty() {
        return format!("{title}: nothing to merge, {} points stay\n", plan.kept.len());
    }
    let mut text = format!("{title}: {} points stay\n", plan.kept.len());
    for run in &plan.runs {
        let points: Vec<String> = run.drops.iter().map(|p| short(p.link.point)).collect();
        text += &format!(
            "  {} vanish into {}, which becomes one {} image of at most {}, in place of {}\n",
            points.join(", "),
            short(run.result.link.point),
            run.kind.name(),
            size(run.bytes_max),
            size(run.bytes_freed),
        );
    }
    for point in &plan.leftovers {
        let point = short(point.link.point);
        text += &format!("  {point} was merged before; its files go\n");
    }
    text
}

/// What was done to a set.
#[must_use]
pub fn consolidation_text(report: &ConsolidationReport) -> String {
    let mut text = String::new();
    for image in &report.merged {
        let (file, files) = (clean(&image.file), in_files(image.segments));
        text += &format!("  wrote {file}, {}{files}, proven\n", size(image.bytes));
    }
    text + &removed_text(&report.removed)
}

fn removed_text(files: &[String]) -> String {
    files.iter().map(|file| format!("  removed {}\n", clean(file))).collect()
}

/// What archiving a point did.
#[must_use]
pub fn archive_json(image: &Path, to: &Path, report: &ArchiveReport) -> Value {
    json!({
        "image": path(image),
        "archive": path(to),
        "recovery_point": report.point.to_string(),
        "state_root": report.state_root.to_string(),
        "bytes_stored": report.bytes,
        "segments": report.segments,
    })
}

/// What archiving a point did.
#[must_use]
pub fn archive_text(image: &Path, to: &Path, report: &ArchiveReport) -> String {
    let (image, to) = (image.display().to_string(), to.display().to_string());
    let (point, bytes) = (short(report.point), size(report.bytes));
    let what = match report.segments {
        1 => format!("one file of {bytes}"),
        count => format!("{count} files of {bytes} together"),
    };
    format!("{} -> {}\npoint {point} in {what}, proven\n", clean(&image), clean(&to))
}

/// What `aiv copy` and `aiv move` begin with.
#[must_use]
pub fn transfer_json(to: &Path) -> Value {
    json!({"folder": path(to), "copied": [], "present": [], "left_out": [], "removed": [], "left": []})
}

/// Adds what copying a point or a set did.
pub fn add_copy(json: &mut Value, to: &Path, report: &CopyReport) {
    append(
        json,
        "copied",
        report.copied.iter().map(|file| {
            json!({
                "recovery_point": file.point.to_string(),
                "from": file.from,
                "image": path(&to.join(&file.file)),
                "bytes": file.bytes,
            })
        }),
    );
    append(json, "present", report.were_there.iter().map(|point| json!(point.to_string())));
    append(json, "left_out", report.left_out.iter().map(|point| json!(point.to_string())));
}

/// Adds what moving a point or a set did.
pub fn add_move(json: &mut Value, to: &Path, report: &MoveReport) {
    add_copy(json, to, &report.copy);
    append(json, "removed", report.removed.iter().map(|file| json!(file)));
    append(json, "left", report.left.iter().map(left_json));
}

/// What copying a point or a set did.
#[must_use]
pub fn copy_text(set: &Set, report: &CopyReport) -> String {
    let bytes: u64 = report.copied.iter().map(|file| file.bytes).sum();
    let (name, count) = (clean(&set.name), report.copied.len());
    let mut text = format!("{name}: {count} images copied, {}, read back and proven", size(bytes));
    if !report.were_there.is_empty() {
        text += &format!("; {} points were there already", report.were_there.len());
    }
    text + "\n"
}

/// What moving a point or a set did.
#[must_use]
pub fn move_text(set: &Set, report: &MoveReport) -> String {
    copy_text(set, &report.copy) + &removed_text(&report.removed)
}

fn why_left(left: &LeftFile) -> String {
    match &left.why {
        LeftReason::Backup => "a backup of the set runs, or was interrupted".to_owned(),
        LeftReason::Needed(point) => format!("point {point} needs it"),
        LeftReason::InDoubt(why) => why.clone(),
        other => format!("{other:?}"),
    }
}

impl Remarks {
    /// Remarks on a consolidation: files that had to stay.
    #[must_use]
    pub fn on_consolidation(report: &ConsolidationReport) -> Self {
        let mut remarks = Self::on_left(&report.left);
        for file in &report.stale_removed {
            remarks.notes.push(format!("removed {file}, which an interrupted merge left"));
        }
        remarks
    }

    /// Remarks on a copy: points that cannot be restored are not copied.
    #[must_use]
    pub fn on_copy(report: &CopyReport) -> Self {
        let left_out = |point| format!("point {point} cannot be restored and was left out");
        Self { notes: Vec::new(), warnings: report.left_out.iter().map(left_out).collect() }
    }

    /// Remarks on a move.
    #[must_use]
    pub fn on_move(report: &MoveReport) -> Self {
        let mut remarks = Self::on_copy(&report.copy);
        remarks.warnings.extend(Self::on_left(&report.left).warnings);
        remarks
    }

    fn on_left(left: &[LeftFile]) -> Self {
        let line = |left: &LeftFile| {
            format!("{} stays for now: {}; run the command again", left.file, why_left(left))
        };
        Self { notes: Vec::new(), warnings: left.iter().map(line).collect() }
    }
}
