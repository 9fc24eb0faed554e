//! Results for people: tables and short accounts. Text that comes from a disk is made safe.

use std::cmp::Ordering;
use std::path::Path;
use std::time::Duration;

use aiv_backup_engine::{BackupPlan, BackupReport};
use aiv_chain::meta::{Capture, DiskInfo, Excluded, Meta, RegionInfo, Trackers};
use aiv_chain::{Checked, Digest, Image, Point, PointState, Set};
use aiv_image_format::{Error as ImageError, Segments};
use aiv_restore_engine::{NewTable, RestorePlan, RestoreReport, TableRow, UndoLog};
use aiv_volume_io::Extent;
use aiv_volume_io::device::BlockDevice;

use crate::Failure;
use crate::words::{self, clean, in_files, short, size, time, volumes};

/// Columns as wide as their widest cell, two blanks apart.
pub(crate) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let mut cells = vec![head.map(str::to_owned)];
    cells.extend(rows.iter().map(|row| row.each_ref().map(|cell| clean(cell))));
    let width = |column: usize| cells.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..N).filter_map(width).collect();
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    cells.iter().map(line).collect()
}

/// Names and values below each other; values that are not known are left out.
fn facts<'a>(facts: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let known = facts.into_iter().filter(|(_, value)| !value.trim().is_empty());
    known.map(|(name, value)| format!("{:<18} {}\n", clean(name), clean(&value))).collect()
}

/// One line per block device.
#[must_use]
pub fn devices(devices: &[(BlockDevice, Result<BackupPlan, Failure>)]) -> String {
    let row = |(device, examined): &(BlockDevice, Result<BackupPlan, Failure>)| {
        let (content, id) = match examined {
            Ok(plan) => (content(&plan.disk), plan.source_id.clone()),
            Err(failure) => (String::new(), failure.message.clone()),
        };
        let mounts = device.mounts.iter().map(|mount| mount.path.display().to_string());
        let used: Vec<_> = mounts.chain(device.swap.then(|| "swap".to_owned())).collect();
        let known = |value: &Option<String>| value.clone().unwrap_or_default();
        let (model, serial) = (known(&device.model), known(&device.serial));
        let path = device.path.display().to_string();
        [path, size(device.size), content, used.join(" "), model, serial, id]
    };
    let rows: Vec<_> = devices.iter().map(row).collect();
    table(["DEVICE", "SIZE", "CONTENT", "MOUNTED", "MODEL", "SERIAL", "ID"], &rows)
}

/// What a disk holds, in a few words: `gpt, 3 partitions`, or `ext4 data`.
fn content(disk: &DiskInfo) -> String {
    let count = volumes(disk).count();
    match volumes(disk).next().and_then(|region| region.volume.as_ref()) {
        Some(v) if disk.table == "none" => format!("{} {}", v.filesystem, v.label),
        _ if count == 1 => format!("{}, 1 partition", disk.table),
        _ => format!("{}, {count} partitions", disk.table),
    }
}

/// One line per partition: what it holds, and how it was captured.
#[must_use]
pub fn partitions(disk: &DiskInfo) -> String {
    let row = |region: &RegionInfo| {
        let p = region.partition.clone().unwrap_or_default();
        let number = if p.number == 0 { "-".to_owned() } else { p.number.to_string() };
        let total = size(region.extent.len);
        let Some(v) = &region.volume else {
            return [number, String::new(), p.name, total, String::new(), String::new()];
        };
        let label = if v.label.is_empty() { p.name } else { v.label.clone() };
        let captured = match v.capture {
            Capture::Used => "used blocks".to_owned(),
            _ if v.reason.is_empty() => "whole".to_owned(),
            _ => format!("whole: {}", v.reason),
        };
        [number, v.filesystem.clone(), label, total, size(v.used_bytes), captured]
    };
    let rows: Vec<_> = volumes(disk).map(row).collect();
    table(["#", "FILESYSTEM", "LABEL", "SIZE", "USED", "CAPTURED"], &rows)
}

/// Everything worth a line about the image at `path`.
#[must_use]
pub fn image(path: &Path, image: &Image) -> String {
    let (head, tail, geometry) = (image.superblock(), image.trailer(), image.geometry());
    let file = facts([
        ("image", path.display().to_string()),
        ("point", format!("{} ({})", head.point, head.kind.name())),
        ("builds on", head.parent.map(|p| p.point.to_string()).unwrap_or_default()),
        ("changed", changed(image)),
        ("size", format!("{} ({} bytes)", size(geometry.len()), geometry.len())),
        (
            "stored",
            size(image.segments().map_or(tail.file_len, Segments::bytes))
                + &in_files(tail.segment_count),
        ),
        ("sector size", format!("{} bytes", geometry.sector_size())),
        ("block size", size(geometry.block_size().get().into())),
        ("protection", protection(image)),
        ("state root", root(image.roots().map(|roots| roots.state))),
        ("content root", root(image.roots().map(|roots| roots.content))),
        ("written by", head.writer.clone()),
    ]);
    if image.has_meta() { file + &description(image.meta()) } else { file }
}

/// What a key does for an image, and what stands for the key.
fn protection(image: &Image) -> String {
    let superblock = image.superblock();
    let key = short(superblock.key_commitment);
    match (superblock.is_keyed(), superblock.is_sealed()) {
        (false, _) => String::new(),
        (true, true) if image.is_locked() => format!("sealed, key {key}, which was not given"),
        (true, true) => format!("sealed, key {key}"),
        (true, false) => format!("authenticated, key {key}"),
    }
}

fn root(root: Option<Digest>) -> String {
    root.map_or_else(|| "sealed".to_owned(), |root| root.to_string())
}

/// What an image with a parent decides: `12 of 3200 blocks, 5 as differences, 2 moved`.
fn changed(image: &Image) -> String {
    if image.superblock().parent.is_none() {
        return String::new();
    }
    let n = image.trailer().totals;
    format!(
        "{} of {} blocks, {} as differences, {} moved",
        n.blocks_decided(),
        image.geometry().blocks(),
        n.blocks_as_differences(),
        n.blocks_parent
    )
}

/// Who watched the source, and what rests on whose word.
fn bitmaps(trackers: &Trackers) -> String {
    let names: Vec<&str> = trackers.seen.iter().map(|seen| seen.name.as_str()).collect();
    let mut text = names.join(", ");
    if let Some(relied) = &trackers.relied_on {
        let (skipped, compared) = (size(relied.bytes_skipped), size(relied.bytes_audited));
        let name = &relied.name;
        text += &format!("; {skipped} not read as {name} does not mark them, {compared} compared");
    }
    if let Some(at) = trackers.seen.iter().find_map(|seen| seen.lied_at) {
        text += &format!("; not to be trusted, a change at byte {at} was not marked");
    }
    text.trim_start_matches("; ").to_owned()
}

fn description(meta: &Meta) -> String {
    let (manifest, disk) = (&meta.manifest, &meta.disk);
    let mut text = facts([
        ("time", time(manifest.time_unix_ms)),
        ("comment", manifest.comment.clone()),
        ("set", format!("{} on {} ({})", manifest.name, manifest.host, manifest.source_id)),
        ("source", format!("{} ({})", manifest.source, manifest.consistency.name())),
        ("disk", format!("{} {} {}", disk.model, disk.serial, disk.wwn)),
        ("bitmaps", bitmaps(&meta.trackers)),
        ("table", format!("{} {}", disk.table, disk.table_id)),
        ("table problems", disk.table_problems.join("; ")),
    ]);
    text += &format!("\n{}\n", partitions(disk));
    text += &facts(meta.inventory.facts.iter().map(|(key, value)| (key.as_str(), value.clone())));
    for lost in &meta.source_errors {
        text += &format!("{} bytes at byte {} could not be read\n", lost.len, lost.start);
    }
    text + &excluded(&meta.excluded, LISTED_MAX)
}

/// Excluded files for people; of more than this `aiv info --json` has the list.
const LISTED_MAX: usize = 20;

/// What was left out, and the first files of it; empty when nothing was asked for.
fn excluded(excluded: &Excluded, listed_max: usize) -> String {
    if *excluded == Excluded::default() {
        return String::new();
    }
    let (count, bytes) = (excluded.file_count, size(excluded.bytes));
    let mut text =
        format!("excluded: {count} files, {bytes}, by {}\n", clean(&excluded.patterns.join(" ")));
    let listed = excluded.files.iter().take(listed_max);
    listed.for_each(|file| text += &format!("  {} ({})\n", clean(&file.path), size(file.len)));
    let more = count.saturating_sub(excluded.files.len().min(listed_max) as u64);
    if listed_max > 0 && more > 0 {
        text += &format!("  and {more} more\n");
    }
    text
}

/// A table of points for each set.
#[must_use]
pub fn sets(sets: &[Set]) -> String {
    sets.iter().map(set).collect::<Vec<_>>().join("\n")
}

fn set(set: &Set) -> String {
    let row = |p: &Point| {
        let kind = match (&p.state, p.is_restorable()) {
            (PointState::Locked { .. }, _) => format!("{}, sealed", p.kind.name()),
            (_, true) => p.kind.name().to_owned(),
            _ => format!("{}, LOST", p.kind.name()),
        };
        let is_locked = matches!(p.state, PointState::Locked { .. });
        let time = if is_locked { "-".to_owned() } else { time(p.time_unix_ms) };
        let (file, comment) = (p.file.clone(), p.comment.clone());
        [short(p.id), kind, time, size(p.size), size(p.size_stored), file, comment]
    };
    let rows: Vec<_> = set.points.iter().map(row).collect();
    let head = ["POINT", "KIND", "TIME", "SIZE", "STORED", "IMAGE", "COMMENT"];
    let title = match set.source_id.as_str() {
        // Whose they are stands in their META, which is sealed.
        "" => format!("set {}, sealed", set.id),
        source_id => clean(&format!("{} on {} ({source_id})", set.name, set.host)),
    };
    format!("{title}\n{}", table(head, &rows))
}

/// A line for each image, and one for each damage below it.
#[must_use]
pub fn verification(images: &[Checked]) -> String {
    images.iter().map(checked).collect()
}

fn checked(image: &Checked) -> String {
    let file = clean(&image.file);
    match &image.outcome {
        Ok(_) if let Some(verified) = image.skipped => {
            format!("{file}: proven {}, unchanged\n", time(verified.time_unix_ms))
        }
        Ok(report) if report.is_sound() && report.locked => {
            let bytes = match report.bytes_checked {
                0 => return format!("{file}: sealed; sound as far as it is in clear\n"),
                bytes => size(bytes),
            };
            format!("{file}: sealed; sound as stored, {bytes} checked; the content needs the key\n")
        }
        Ok(report) if report.is_sound() => {
            let (blocks, bytes) = (report.blocks_checked, size(report.bytes_checked));
            if let Some(number) = image.segment {
                return format!(
                    "{file}: segment {number} by itself: sound, {bytes} checked; its blocks only \
                     together with the others\n"
                );
            }
            format!("{file}: sound, {blocks} blocks and {bytes} checked\n")
        }
        Ok(report) => {
            let lines = report.damage.iter().map(|damage| format!("  {damage}\n"));
            let lines: String = lines.collect();
            format!("{file}: DAMAGED in {} places\n{lines}", report.damage_count)
        }
        Err(ImageError::Corrupt(damage)) => {
            format!("{file}: DAMAGED, cannot be opened\n  {damage}\n")
        }
        Err(other) => format!("{file}: DAMAGED, cannot be opened\n  {other}\n"),
    }
}

/// What there is to say about a folder that holds none.
#[must_use]
pub fn no_images(folder: &Path) -> String {
    format!("no images in {}\n", clean(&folder.display().to_string()))
}

/// What a backup of `source` into `folder` did.
#[must_use]
pub fn backup(
    source: &Path,
    folder: &Path,
    plan: &BackupPlan,
    report: &BackupReport,
    elapsed: Duration,
) -> String {
    let image = folder.join(&report.image);
    let ms = elapsed.as_millis().max(1);
    let rate = u64::try_from(u128::from(report.bytes_source) * 1000 / ms).unwrap_or(u64::MAX);
    let tenths = u128::from(report.bytes_source) * 10 / u128::from(report.bytes_stored.max(1));
    let n = &report.totals;
    let changed = match report.parent {
        None => String::new(),
        Some(parent) => format!(
            "since point {}: {} of {} blocks changed, {} stored as differences, {} moved\n",
            short(parent),
            n.blocks_decided(),
            report.blocks,
            n.blocks_as_differences(),
            n.blocks_parent,
        ),
    };
    let hint = report.hint.as_ref().filter(|hint| hint.not_used.is_none());
    let hint = hint.map_or_else(String::new, |hint| {
        format!(
            "{} not read, as bitmap {} does not mark them; {} that it does not mark compared\n",
            size(hint.bytes_skipped),
            clean(&hint.tracker),
            size(hint.bytes_audited),
        )
    });
    format!(
        "{} -> {}\n{} image, point {}, {}\n{changed}{hint}{}{}{} disk, {} read, {} stored{} (1:{}.{}), \
         {}.{} s, {}/s\n",
        clean(&source.display().to_string()),
        clean(&image.display().to_string()),
        report.kind.name(),
        short(report.recovery_point),
        plan.consistency.name(),
        partitions(&plan.disk),
        excluded(&plan.excluded_files, 0),
        size(report.bytes_source),
        size(report.bytes_read),
        size(report.bytes_stored),
        in_files(report.segments),
        tenths / 10,
        tenths % 10,
        ms / 1000,
        ms % 1000 / 100,
        size(rate),
    )
}

/// What a restore is going to do.
#[must_use]
pub fn restore_plan(plan: &RestorePlan) -> String {
    let steps: String = plan.steps().iter().map(|step| format!("  {step}\n")).collect();
    plan.table().map_or(steps.clone(), |table| steps + "\n" + &new_table(table))
}

/// What an undo log puts back, or did.
#[must_use]
pub fn undo(undo: &UndoLog) -> String {
    let ranges = undo.extents();
    let range = |e: &Extent| format!("  bytes {} to {}\n", e.start, e.end());
    let ranges: String = ranges.iter().map(range).collect();
    format!("as they were on {}:\n{ranges}", time(undo.saved_unix_ms()))
}

/// One line per partition of the table a target gets.
fn new_table(new: &NewTable) -> String {
    let row = |row: &TableRow| {
        let change = match row.after.len.cmp(&row.before.len) {
            Ordering::Equal => String::new(),
            Ordering::Less => format!("shrinks from {}", size(row.before.len)),
            Ordering::Greater => format!("grows from {}", size(row.before.len)),
        };
        let (number, start) = (row.number.to_string(), row.after.start.to_string());
        let len = format!("{} ({})", row.after.len, size(row.after.len));
        [number, start, len, row.filesystem.clone(), row.name.clone(), change]
    };
    let rows: Vec<_> = new.rows.iter().map(row).collect();
    let kind = words::table_kind(new.kind);
    let how = if new.is_changed { "made for the target" } else { "as it was" };
    let head = format!("{kind} in sectors of {} bytes, {how}:\n", new.sector_size);
    head + &table(["#", "START", "SIZE", "FILESYSTEM", "NAME", "CHANGE"], &rows)
}

/// What a restore did.
#[must_use]
pub fn restore(report: &RestoreReport) -> String {
    format!(
        "{} written, {} zeroed, {} discarded, {} skipped; read back and compared\n",
        size(report.bytes_written),
        size(report.bytes_zeroed),
        size(report.bytes_discarded),
        size(report.bytes_skipped()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_end_with_text() {
        let row = |a: &str, b: &str, c: &str| [a.to_owned(), b.to_owned(), c.to_owned()];
        let rows = [row("1", "größer", "x"), row("10", "", ""), row("3", "evil\x1b[0m", "")];
        let expected = "#   NAME      Z\n1   größer    x\n10\n3   evil\u{fffd}[0m\n";
        assert_eq!(table(["#", "NAME", "Z"], &rows), expected);
    }

    #[test]
    fn excluded_files_are_counted_and_the_first_are_named() {
        let file = |n: u64| aiv_chain::meta::ExcludedFile {
            path: format!("f\u{1b}{n}"),
            len: 2048,
            extents: vec![Extent::new(n * 4096, 4096)],
            ..Default::default()
        };
        let all = Excluded::of_files(vec!["f*".to_owned()], (0..3).map(file).collect());
        assert_eq!(excluded(&Excluded::default(), 5), "");
        let head = "excluded: 3 files, 12.00 KiB, by f*\n";
        assert_eq!(excluded(&all, 0), head);
        let text = excluded(&all, 2);
        assert!(text.starts_with(head) && text.ends_with("  and 1 more\n"), "{text}");
        assert_eq!((text.lines().count(), text.contains('\u{1b}')), (4, false), "{text}");
    }

    #[test]
    fn facts_that_are_not_known_are_left_out() {
        let known = facts([("name", "sda".to_owned()), ("serial", " ".to_owned())]);
        assert_eq!(known, "name               sda\n");
    }
}
