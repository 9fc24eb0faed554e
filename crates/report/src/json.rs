//! Results as JSON. Field names are a contract with scripts: added, never renamed.

use std::path::Path;
use std::time::Duration;

use aiv_backup_engine::{BackupPlan, BackupReport, HintReport, LostPoint, NotUsed};
use aiv_chain::meta::{DiskInfo, Excluded, ExcludedFile, RegionInfo, Trackers};
use aiv_chain::{Checked, Image, Point, PointState, Protection, Set, Stray};
use aiv_image_format::{Corrupt, Error as ImageError, MAJOR, MINOR, Segments, Totals};
use aiv_restore_engine::{NewTable, PlanStep, RestorePlan, RestoreReport, TableRow, UndoLog};
use aiv_volume_io::Extent;
use aiv_volume_io::device::{BlockDevice, DeviceKind};
use serde_json::{Value, json};

use crate::words::{self, time};
use crate::{Failure, Remarks};

/// A path. Bytes that are no UTF-8, which JSON cannot carry, are replaced.
#[must_use]
pub fn path(path: &Path) -> Value {
    path.to_string_lossy().into()
}

/// Byte ranges.
#[must_use]
pub fn extents(extents: &[Extent]) -> Value {
    extents.iter().map(|extent| json!({"start": extent.start, "size": extent.len})).collect()
}

fn lines<T: ToString>(items: impl IntoIterator<Item = T>) -> Value {
    items.into_iter().map(|item| item.to_string()).collect()
}

/// Block devices, each with what is on it, or why that is not known.
#[must_use]
pub fn devices(devices: &[(BlockDevice, Result<BackupPlan, Failure>)]) -> Value {
    let item = |(found, examined): &(BlockDevice, Result<BackupPlan, Failure>)| {
        let mut json = device(found);
        match examined {
            Ok(plan) => {
                json["source_id"] = json!(plan.source_id);
                json["table"] = json!(plan.disk.table);
                json["partitions"] = partitions(&plan.disk);
            }
            Err(failure) => json["error"] = failure.to_json()["error"].take(),
        }
        json
    };
    devices.iter().map(item).collect()
}

fn device(device: &BlockDevice) -> Value {
    let number = match device.kind {
        DeviceKind::Partition { number, .. } => Some(number),
        _ => None,
    };
    let mounts: Value = device.mounts.iter().map(|mount| path(&mount.path)).collect();
    json!({
        "path": path(&device.path),
        "size": device.size,
        "parent": device.parent,
        "number": number,
        "vendor": device.vendor,
        "model": device.model,
        "serial": device.serial,
        "wwn": device.wwn,
        "logical_sector": device.logical_sector,
        "physical_sector": device.physical_sector,
        "read_only": device.read_only,
        "removable": device.removable,
        "rotational": device.rotational,
        "mounts": mounts,
        "swap": device.swap,
        "holders": device.holders,
        "backing_file": device.backing_file.as_deref().map(path),
    })
}

/// The partitions of a disk, or the one volume of a disk without a table, which has number 0.
#[must_use]
pub fn partitions(disk: &DiskInfo) -> Value {
    let partition = |region: &RegionInfo| {
        let (p, v) = (region.partition.clone().unwrap_or_default(), region.volume.as_ref());
        json!({
            "number": p.number,
            "start": region.extent.start,
            "size": region.extent.len,
            "filesystem": v.map(|v| &v.filesystem),
            "label": v.map(|v| &v.label),
            "uuid": v.map(|v| &v.uuid),
            "name": p.name,
            "type": p.type_id,
            "partition_uuid": p.unique_id,
            "bootable": p.bootable,
            "capture": v.map(|v| v.capture.name()),
            "capture_reason": v.map(|v| &v.reason),
            "used": v.map(|v| v.used_bytes),
            "cluster_size": v.map(|v| v.cluster_size),
        })
    };
    words::volumes(disk).map(partition).collect()
}

/// Fields of [`image`] that come from META, and are null where that is damaged.
const FROM_META: [&str; 19] = [
    "group",
    "time",
    "host",
    "name",
    "source",
    "source_id",
    "comment",
    "consistency",
    "capture",
    "model",
    "serial",
    "wwn",
    "table",
    "table_id",
    "table_problems",
    "partitions",
    "machine",
    "source_errors",
    "excluded",
];

/// Who watched the source when it was read, and what rests on whose word.
fn bitmaps(trackers: &Trackers) -> Value {
    json!({
        "seen": trackers.seen.iter().map(|seen| seen.name.as_str()).collect::<Vec<_>>(),
        "used": trackers.relied_on.as_ref().map(|relied| &relied.name),
        "bytes_not_read": trackers.relied_on.as_ref().map_or(0, |relied| relied.bytes_skipped),
        "bytes_compared": trackers.relied_on.as_ref().map_or(0, |relied| relied.bytes_audited),
        "change_not_marked_at": trackers.seen.iter().find_map(|seen| seen.lied_at),
    })
}

/// Everything `image` says about itself.
#[must_use]
pub fn image(image: &Image) -> Value {
    let (head, tail, meta) = (image.superblock(), image.trailer(), image.meta());
    let (manifest, disk, geometry) = (&meta.manifest, &meta.disk, image.geometry());
    let n = tail.totals;
    let mut json = json!({
        "format": format!("aiv {MAJOR}.{MINOR}"),
        "writer": head.writer,
        "image_uuid": head.image.to_string(),
        "kind": head.kind.name(),
        "recovery_point": head.point.to_string(),
        "set": head.set.to_string(),
        "group": manifest.group.to_string(),
        "parent": head.parent.map(|parent| parent.point.to_string()),
        "time": time(manifest.time_unix_ms),
        "host": manifest.host,
        "name": manifest.name,
        "source": manifest.source,
        "source_id": manifest.source_id,
        "comment": manifest.comment,
        "consistency": manifest.consistency.name(),
        "capture": manifest.capture.name(),
        "size": geometry.len(),
        "size_stored": image.segments().map_or(tail.file_len, Segments::bytes),
        "segments": tail.segment_count.max(1),
        "sector_size": geometry.sector_size(),
        "block_size": geometry.block_size().get(),
        "state_root": image.roots().map(|roots| roots.state.to_string()),
        "content_root": image.roots().map(|roots| roots.content.to_string()),
        "sealed": head.is_sealed(),
        "locked": image.is_locked(),
        "key": head.is_keyed().then(|| head.key_commitment.to_string()),
        "blocks": {
            "data": n.blocks_data, "ref": n.blocks_ref, "zero": n.blocks_zero,
            "unused": n.blocks_unused, "excluded": n.blocks_excluded,
            "unreadable": n.blocks_unreadable, "delta": n.blocks_delta, "parent": n.blocks_parent,
            "local": n.blocks_local,
            "inherited": geometry.blocks().saturating_sub(n.blocks_decided()),
        },
        "bitmaps": bitmaps(&meta.trackers),
        "model": disk.model,
        "serial": disk.serial,
        "wwn": disk.wwn,
        "table": disk.table,
        "table_id": disk.table_id,
        "table_problems": disk.table_problems,
        "partitions": partitions(disk),
        "machine": meta.inventory.facts.iter().cloned().collect::<Value>(),
        "source_errors": extents(&meta.source_errors),
        "excluded": excluded(&meta.excluded),
        "damage": lines(image.damage()),
    });
    if !image.has_meta() {
        FROM_META.iter().for_each(|field| json[field] = Value::Null);
    }
    json
}

/// What was left out, null when nothing was asked for. `files` and `bytes` count everything,
/// `list` has as many files as the image lists.
fn excluded(excluded: &Excluded) -> Value {
    if *excluded == Excluded::default() {
        return Value::Null;
    }
    let file = |file: &ExcludedFile| {
        json!({
            "volume": file.volume,
            "path": file.path,
            "size": file.len,
            "extents": extents(&file.extents),
        })
    };
    json!({
        "patterns": excluded.patterns,
        "files": excluded.file_count,
        "bytes": excluded.bytes,
        "complete": excluded.is_complete(),
        "list": excluded.files.iter().map(file).collect::<Value>(),
    })
}

/// Sets and their points.
#[must_use]
pub fn sets(sets: &[Set]) -> Value {
    let set = |set: &Set| {
        json!({
            "id": set.id.to_string(),
            "name": set.name,
            "host": set.host,
            "source_id": set.source_id,
            "points": set.points.iter().map(point).collect::<Value>(),
        })
    };
    sets.iter().map(set).collect()
}

pub(crate) fn protection(protection: Protection) -> &'static str {
    match protection {
        Protection::None => "none",
        Protection::Authenticated(_) => "authenticated",
        Protection::Sealed(_) => "sealed",
    }
}

fn point(point: &Point) -> Value {
    json!({
        "recovery_point": point.id.to_string(),
        "image": point.file,
        "kind": point.kind.name(),
        // A locked image shows when it was begun, and not when the source was read.
        "time": (!point.locked).then(|| time(point.time_unix_ms)),
        "parent": point.parent.map(|link| link.point.to_string()),
        "size": point.size,
        "size_stored": point.size_stored,
        "segments": point.segments.len() + 1,
        "restorable": point.is_restorable(),
        "locked": matches!(point.state, PointState::Locked { .. }),
        "protection": protection(point.protection),
        "key": point.protection.key().map(|key| key.to_string()),
        "problem": (!point.is_restorable()).then(|| point.state.to_string()),
        "other_files": point.other_files,
        "damage": lines(words::damage(point)),
        "damaged_by": point.damaged_by,
        "verified": point.verified.map(|v| json!({
            "time": time(v.time_unix_ms),
            "depth": words::depth(v.depth),
            "ok": v.sound,
        })),
        "state_root": point.state_root.to_string(),
        "content_root": point.content_root.to_string(),
        "comment": point.comment,
    })
}

/// Files that are no usable image.
#[must_use]
pub fn strays(strays: &[Stray]) -> Value {
    let stray = |stray: &Stray| {
        let (kind, detail) = words::stray(&stray.kind);
        json!({"file": stray.file, "size": stray.size, "kind": kind, "detail": detail})
    };
    strays.iter().map(stray).collect()
}

/// What verifying images found: `ok`, every error with its place, and the images.
#[must_use]
pub fn verification(images: &[Checked]) -> Value {
    let checked = |image: &Checked| {
        let report = image.outcome.as_ref().ok();
        json!({
            "file": image.file,
            "ok": image.is_sound(),
            "damage_count": report.map_or(1, |r| r.damage_count),
            "blocks_checked": report.map_or(0, |r| r.blocks_checked),
            "bytes_checked": report.map_or(0, |r| r.bytes_checked),
            "proven": image.is_proven(),
            "segment": image.segment,
            "locked": report.is_some_and(|r| r.locked),
            "skipped": image.skipped.map(|v| time(v.time_unix_ms)),
            "points_affected": lines(&image.points_affected),
        })
    };
    json!({
        "ok": images.iter().all(Checked::is_sound),
        "errors": images.iter().flat_map(errors).collect::<Value>(),
        "images": images.iter().map(checked).collect::<Value>(),
    })
}

fn errors(image: &Checked) -> Vec<Value> {
    let damage = |corrupt: &Corrupt| error(&image.file, corrupt.offset, corrupt);
    match &image.outcome {
        Ok(report) => report.damage.iter().map(damage).collect(),
        Err(ImageError::Corrupt(corrupt)) => vec![damage(corrupt)],
        // What is missing begins where the file ends.
        Err(cut_off @ ImageError::Incomplete { len }) => vec![error(&image.file, *len, cut_off)],
        Err(other) => vec![error(&image.file, 0, other)],
    }
}

fn error(file: &str, offset: u64, what: &dyn ToString) -> Value {
    json!({"file": file, "offset": offset, "what": what.to_string()})
}

/// Blocks that a backup stored in frames.
fn blocks_new(totals: &Totals) -> u64 {
    totals.blocks_data + totals.blocks_delta + totals.blocks_local
}

/// One image of a finished backup into `folder`.
#[must_use]
pub fn backup(folder: &Path, plan: &BackupPlan, report: &BackupReport, elapsed: Duration) -> Value {
    let remarks = Remarks::on_backup(report);
    let lost = |lost: &LostPoint| {
        let point = lost.id.map(|id| id.to_string());
        json!({"recovery_point": point, "image": lost.file, "why": lost.why})
    };
    let lost: Value = report.lost.iter().map(lost).collect();
    let resumed = report.resumed.as_ref().map(|resumed| {
        json!({
            "file": resumed.file,
            "bytes": resumed.bytes,
            "blocks": resumed.blocks,
            "blocks_compared": resumed.blocks_compared,
        })
    });
    json!({
        "image": path(&folder.join(&report.image)),
        "kind": report.kind.name(),
        "recovery_point": report.recovery_point.to_string(),
        "source_id": plan.source_id,
        "state_root": report.state_root.to_string(),
        "content_root": report.content_root.to_string(),
        "consistency": plan.consistency.name(),
        "verified": report.verified,
        "bytes_source": report.bytes_source,
        "bytes_used": report.bytes_used,
        "bytes_read": report.bytes_read,
        "bytes_stored": report.bytes_stored,
        "segments": report.segments,
        "parent": report.parent.map(|parent| parent.to_string()),
        "blocks": report.blocks,
        "blocks_changed": report.totals.blocks_decided(),
        "blocks_new": blocks_new(&report.totals),
        "blocks_delta": report.totals.blocks_delta,
        "blocks_local": report.totals.blocks_local,
        "blocks_moved": report.totals.blocks_parent,
        "lost": lost,
        "resumed": resumed,
        "not_resumed": report.not_resumed,
        "elapsed_ms": u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        "partitions": partitions(&plan.disk),
        "changes": report.hint.as_ref().map(hint),
        "unreadable": extents(&report.unreadable),
        "excluded": excluded(&plan.excluded_files),
        "notes": remarks.notes,
        "warnings": remarks.warnings,
    })
}

/// What the word of a change tracker was worth.
fn hint(hint: &HintReport) -> Value {
    let lied_at = match hint.not_used {
        Some(NotUsed::Lied { offset } | NotUsed::Distrusted { offset }) => Some(offset),
        _ => None,
    };
    json!({
        "bitmap": hint.tracker,
        "used": hint.not_used.is_none(),
        "why_not": hint.not_used.as_ref().map(ToString::to_string),
        "bytes_not_read": hint.bytes_skipped,
        "bytes_compared": hint.bytes_audited,
        "change_not_marked_at": lied_at,
    })
}

/// What a restore is going to do.
#[must_use]
pub fn restore_plan(plan: &RestorePlan) -> Value {
    let remarks = Remarks::on_restore(plan.notes(), plan.unreadable());
    json!({
        "dry_run": true,
        "steps": plan.steps().iter().map(PlanStep::to_string).collect::<Value>(),
        "start": plan.region().start,
        "size": plan.region().len,
        "table": plan.table().map(new_table),
        "notes": remarks.notes,
        "warnings": remarks.warnings,
    })
}

/// What an undo log has, and how many bytes of it were put back.
#[must_use]
pub fn undo(undo: &UndoLog, written: Option<u64>) -> Value {
    json!({
        "dry_run": written.is_none(),
        "saved_unix_ms": undo.saved_unix_ms(),
        "ranges": extents(&undo.extents()),
        "bytes_written": written.unwrap_or(0),
    })
}

/// The partition table a target gets. Sizes are in bytes.
fn new_table(table: &NewTable) -> Value {
    let row = |row: &TableRow| {
        json!({
            "number": row.number,
            "type": row.type_id,
            "name": row.name,
            "filesystem": row.filesystem,
            "start": row.after.start,
            "size": row.after.len,
            "size_before": row.before.len,
        })
    };
    json!({
        "kind": words::table_kind(table.kind),
        "sector_size": table.sector_size,
        "changed": table.is_changed,
        "partitions": table.rows.iter().map(row).collect::<Value>(),
    })
}

/// What a restore did.
#[must_use]
pub fn restore(report: &RestoreReport) -> Value {
    let remarks = Remarks::on_restore(&report.notes, &report.unreadable);
    json!({
        "dry_run": false,
        "verified": report.verified,
        "bytes_written": report.bytes_written,
        "bytes_skipped": report.bytes_skipped(),
        "bytes_zeroed": report.bytes_zeroed,
        "bytes_discarded": report.bytes_discarded,
        "bytes_verified": report.bytes_verified,
        "start": report.region.start,
        "size": report.region.len,
        "unreadable": extents(&report.unreadable),
        "notes": remarks.notes,
        "warnings": remarks.warnings,
    })
}
