//! Salvage: its JSON, its text, and what to remark on it.

use std::path::Path;

use aiv_chain::Protection;
use aiv_chain::meta::RegionInfo;
use aiv_chain::salvage::{LostRun, SalvagedImage};
use aiv_image_format::Digest;
use aiv_jobs::{LostFiles, LostPart, SalvageDone, SalvageJob, SalvageTo};
use serde_json::{Value, json};

use crate::json::{extents, path, protection};
use crate::words::{clean, size};
use crate::{Outcome, Remarks};

/// Lines about lost ranges and files; scripts get all of them.
const LINES_MAX: usize = 20;

/// What became of damaged files.
#[must_use]
pub fn salvaged(job: &SalvageJob, done: &SalvageDone) -> Outcome {
    let (json, text) = (to_json(job, done), to_text(job, done));
    let outcome = match job.to {
        SalvageTo::Nowhere => Outcome::answer(json, text),
        _ => Outcome::report(json, text),
    };
    outcome.with(remarks(done))
}

fn to_json(job: &SalvageJob, done: &SalvageDone) -> Value {
    let report = &done.report;
    let run = |run: &LostRun| {
        let bytes = report.bytes_of(run.first, run.count);
        json!({"first_block": run.first, "blocks": run.count, "start": bytes.start,
            "size": bytes.len, "why": run.loss.name()})
    };
    let unproven = report.unproven.iter().map(|&(first, count)| {
        let bytes = report.bytes_of(first, count);
        json!({"first_block": first, "blocks": count, "start": bytes.start, "size": bytes.len})
    });
    let files = done.salvaged.files().map(|(file, salvage)| {
        let identity = salvage.identity();
        json!({
            "file": file,
            "image": identity.image.map(|id| id.to_string()),
            "recovery_point": identity.point().map(|id| id.to_string()),
            "known_by": identity.known_by.name(),
            "sealed": salvage.is_sealed(),
            "authentic": salvage.key().map(|_| identity.is_authentic),
            "frames": salvage.frames_seen(),
            "unreadable": extents(salvage.unreadable()),
        })
    });
    let mut json = json!({
        "files": files.collect::<Value>(),
        "size": report.geometry.len(),
        "block_size": report.geometry.block_size().get(),
        "blocks": report.blocks(),
        "blocks_by_index": report.by_index,
        "blocks_by_checkpoint": report.by_checkpoint,
        "blocks_by_frame": report.by_frame,
        "blocks_lost": report.blocks_lost(),
        "bytes_lost": report.bytes_lost(),
        "lost": report.lost.iter().map(run).collect::<Value>(),
        "unproven": unproven.collect::<Value>(),
        "missing_parent": report.missing_parent.map(|point| point.to_string()),
        "proven": report.is_proven,
        "parts": done.parts.iter().map(part_json).collect::<Value>(),
        "target": Value::Null,
        "image": Value::Null,
    });
    match &job.to {
        SalvageTo::Nowhere => {}
        SalvageTo::Raw(target, _) => json["target"] = path(target),
        SalvageTo::Folder(folder) => {
            if let Some(image) = &report.image {
                json["image"] = path(&folder.join(&image.file));
                json["recovery_point"] = json!(image.point.to_string());
                json["state_root"] = json!(root(&image.state_root));
                json["bytes_stored"] = json!(image.bytes);
                json["protection"] = json!(protection(image.protection));
            }
        }
    }
    json
}

fn root(digest: &Digest) -> String {
    digest.to_string()
}

fn part_json(part: &LostPart) -> Value {
    let (files, more, unknown) = match &part.files {
        LostFiles::Named { files, more, skipped } => {
            let one = |(file, lost): &(String, u64)| json!({"path": file, "bytes_lost": lost});
            let files: Value = files.iter().map(one).collect();
            (files, more + skipped, Value::Null)
        }
        LostFiles::Unknown(why) => (json!([]), 0, json!(why)),
    };
    json!({
        "kind": part.region.kind.name(),
        "number": part.region.partition.as_ref().map(|entry| entry.number),
        "start": part.region.extent.start,
        "size": part.region.extent.len,
        "bytes_lost": part.lost,
        "files": files,
        "files_not_named": more,
        "files_unknown": unknown,
    })
}

fn to_text(job: &SalvageJob, done: &SalvageDone) -> String {
    let report = &done.report;
    let mut text = String::new();
    for (file, salvage) in done.salvaged.files() {
        let identity = salvage.identity();
        let image = identity.image.map_or_else(|| "an image".to_owned(), |i| format!("image {i}"));
        text += &format!(
            "{}: {image}, known by its {}; {} sound frames\n",
            clean(file),
            identity.known_by.name(),
            salvage.frames_seen()
        );
    }
    text += &format!(
        "{} of {} blocks of {}: {} by the index, {} by checkpoints, {} by frames alone\n",
        report.blocks(),
        report.geometry.blocks(),
        size(report.geometry.block_size().get().into()),
        report.by_index,
        report.by_checkpoint,
        report.by_frame
    );
    text += &lines(report.lost.iter().map(|run| {
        let bytes = report.bytes_of(run.first, run.count);
        format!("lost: bytes {} to {}: {}", bytes.start, bytes.end(), run.loss)
    }));
    text += &lines(report.unproven.iter().map(|&(first, count)| {
        let bytes = report.bytes_of(first, count);
        format!("not proven: bytes {} to {}", bytes.start, bytes.end())
    }));
    done.parts.iter().for_each(|part| text += &part_text(part));
    match (&job.to, &report.image) {
        (SalvageTo::Raw(target, _), _) => {
            text += &format!("wrote {}, read back\n", clean(&target.display().to_string()));
        }
        (SalvageTo::Folder(folder), Some(image)) => {
            let file = folder.join(&image.file);
            let (file, bytes) = (clean(&file.display().to_string()), size(image.bytes));
            let key = image.protection.mode().map(|_| protection(image.protection));
            let key = key.map_or_else(String::new, |key| format!(", {key}"));
            text += &format!("wrote {file}, {bytes}{key}, proven\n");
        }
        _ => {}
    }
    text
}

fn part_text(part: &LostPart) -> String {
    let mut text = format!("{}: {} lost\n", title(&part.region), size(part.lost));
    match &part.files {
        LostFiles::Named { files, more, skipped } => {
            let each =
                files.iter().map(|(file, lost)| format!("  {}: {}", clean(file), size(*lost)));
            text += &lines(each);
            if *more > 0 {
                text += &format!("  {more} more files\n");
            }
            if *skipped > 0 {
                text += &format!("  {skipped} files were not looked into\n");
            }
        }
        LostFiles::Unknown(why) => text += &format!("  files: {}\n", clean(why)),
    }
    text
}

fn title(region: &RegionInfo) -> String {
    let bytes = region.extent;
    match &region.partition {
        Some(entry) => format!("partition {}", entry.number),
        None => format!("{} at byte {}", region.kind.name(), bytes.start),
    }
}

/// The first lines, and how many there are besides.
fn lines(all: impl ExactSizeIterator<Item = String>) -> String {
    let more = all.len().saturating_sub(LINES_MAX);
    let mut text: String = all.take(LINES_MAX).map(|line| format!("{line}\n")).collect();
    if more > 0 {
        text += &format!("... and {more} more; --json lists all\n");
    }
    text
}

fn remarks(done: &SalvageDone) -> Remarks {
    let report = &done.report;
    let mut remarks = Remarks::default();
    if report.blocks_lost() > 0 {
        remarks.warnings.push(format!(
            "{} bytes in {} places are lost",
            report.bytes_lost(),
            report.lost.len()
        ));
    }
    if !report.unproven.is_empty() {
        let count: u64 = report.unproven.iter().map(|(_, count)| count).sum();
        remarks.warnings.push(format!(
            "{count} blocks came back that nothing proves not to be older versions: by frames that a \
             merge moved, or from a parent that only an unproven superblock names"
        ));
    }
    if let Some(point) = report.missing_parent {
        remarks.warnings.push(format!(
            "the image builds on point {point}, which was not found; name its folder with --parent"
        ));
    }
    if report.is_proven == Some(false) {
        remarks
            .warnings
            .push("everything came back, but it is not the state the image said it was".to_owned());
    }
    let had_key = done.salvaged.newest().key().is_some();
    let is_plain = |image: &SalvagedImage| image.protection == Protection::None;
    if had_key && report.image.as_ref().is_some_and(is_plain) {
        remarks.warnings.push("the new image has no key: whoever gets it reads it".to_owned());
    }
    if let Some(path) = done.salvaged.files().find(|(_, salvage)| !salvage.unreadable().is_empty())
    {
        let file = Path::new(path.0).display();
        remarks.warnings.push(format!("{file}: sectors of it cannot be read: copy it elsewhere"));
    }
    remarks
}
