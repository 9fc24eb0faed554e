//! Files of a disk, and what became of those that were recovered: JSON, text, remarks.

use std::path::Path;

use aiv_browse::{Disk, FileFlags, FileType, Metadata, Timestamp, Volume};
use aiv_jobs::{Listed, Seen};
use aiv_restore_engine::recover::RecoverReport;
use serde_json::{Value, json};

use crate::json::extents;
use crate::words::{clean, size};
use crate::{Exit, Outcome, Remarks};

/// Lines about files that came back damaged, or not at all; scripts get more.
const LINES_MAX: usize = 20;

/// A word for a type of file; scripts may compare it.
#[must_use]
pub const fn type_name(file_type: FileType) -> &'static str {
    match file_type {
        FileType::File => "file",
        FileType::Folder => "folder",
        FileType::Link => "link",
        FileType::CharDevice => "char-device",
        FileType::BlockDevice => "block-device",
        FileType::Pipe => "pipe",
        FileType::Socket => "socket",
        FileType::Reparse { .. } => "reparse-point",
        _ => "unknown",
    }
}

/// The volumes of a disk at these positions, as a folder.
#[must_use]
pub fn volumes(disk: &Disk, which: &[usize]) -> Outcome {
    let all: Vec<&Volume> = which.iter().filter_map(|&at| disk.volumes().get(at)).collect();
    let entry = |volume: &&Volume| {
        let found = volume.recognised();
        json!({
            "name": volume.name(),
            "path": format!("/{}", volume.name()),
            "type": "volume",
            "size": volume.len(),
            "start": volume.extent().map(|extent| extent.start),
            "filesystem": found.kind.name(),
            "label": found.label,
            "uuid": found.uuid,
            "within": volume.within().iter().map(|kind| kind.name()).collect::<Value>(),
            "not_opened": volume.why_closed(),
        })
    };
    let row = |volume: &&Volume| {
        let found = volume.recognised();
        let size = size(volume.len());
        [volume.name().to_owned(), size, found.kind.name().to_owned(), found.label.clone()]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    let text = crate::text::table(["VOLUME", "SIZE", "HOLDS", "LABEL"], &rows);
    let mut remarks = Remarks::default();
    for volume in &all {
        let closed = volume.why_closed().map(|why| format!("not opened: {why}"));
        for note in volume.notes().iter().cloned().chain(closed) {
            remarks.notes.push(format!("{}: {note}", volume.name()));
        }
    }
    Outcome::answer(json!({"entries": all.iter().map(entry).collect::<Value>()}), text)
        .with(remarks)
}

/// For whom an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// People: text.
    Person,
    /// Scripts: JSON.
    Script,
}

/// What is above the rows of [`listed`] for people.
#[must_use]
pub fn listed_head() -> String {
    row(["MODE", "SIZE", "MODIFIED", "NAME"])
}

/// One file of a listing: an item of `entries`, or a row.
#[must_use]
pub fn listed(file: &Listed<'_>, whole_paths: bool, reader: Reader) -> String {
    if reader == Reader::Script {
        return entry(file).to_string();
    }
    let shown = if whole_paths {
        file.path.to_string()
    } else {
        let name = aiv_browse::Path::default().join(file.path.name()).to_string();
        name.trim_start_matches('/').to_owned()
    };
    let metadata = file.metadata;
    let is_file = metadata.file_type == FileType::File;
    let len = if is_file { size(metadata.len) } else { String::new() };
    let target = file.target.as_deref().map(String::from_utf8_lossy);
    let target = target.map_or_else(String::new, |target| format!(" -> {target}"));
    row([&mode(metadata), &len, &moment(metadata.modified), &(shown + &target)])
}

/// Columns of a fixed width, because what comes later is not known yet.
fn row([mode, size, modified, name]: [&str; 4]) -> String {
    format!("{mode:<10}  {size:<11}  {modified:<19}  {}\n", clean(name))
}

/// What there is to say of a listing but its files.
#[must_use]
pub fn seen(seen: &Seen) -> Outcome {
    let mut remarks = Remarks { notes: notes(&seen.notes), ..Remarks::default() };
    for (path, why) in seen.troubles.iter().take(LINES_MAX) {
        remarks.warnings.push(format!("{path}: {why}"));
    }
    let more = seen.troubles.len().saturating_sub(LINES_MAX);
    if more > 0 {
        remarks.warnings.push(format!("{more} more files or folders could not be looked at"));
    }
    let trouble = |(path, why): &(String, String)| json!({"path": path, "why": why});
    let json = json!({
        "troubles": seen.troubles.iter().map(trouble).collect::<Value>(),
        "notes": remarks.notes,
    });
    damaged(Outcome::answer(json, String::new()).with(remarks), seen.damaged)
}

/// Files of which bytes are lost are damage, whoever meets it.
pub(crate) fn damaged(outcome: Outcome, count: u64) -> Outcome {
    let exit = if count > 0 { outcome.exit.max(Exit::Damage) } else { outcome.exit };
    Outcome { exit, ..outcome }
}

/// The checksum of a file as `sha256sum` writes and checks it, by the path that it has when it was
/// recovered; an item of `entries` for scripts. Nothing for a name that no line can hold.
#[must_use]
pub fn checksum(file: &Listed<'_>, reader: Reader) -> Option<String> {
    match reader {
        Reader::Script => Some(entry(file).to_string()),
        Reader::Person => {
            let below = file.path.parts().get(file.above..).unwrap_or_default();
            sum_line(file.sha256.as_ref()?, below)
        }
    }
}

/// What people are told beside checksums, among which notes have no place.
#[must_use]
pub fn beside_checksums(seen: &Seen) -> Vec<String> {
    notes(&seen.notes).iter().map(|note| format!("note: {}", clean(note))).collect()
}

/// What there is to say of checksums but them and what stands beside them; `left_out` names no line
/// could hold.
#[must_use]
pub fn checksums(seen: &Seen, left_out: u64) -> Outcome {
    let mut outcome = Outcome { text: String::new(), ..self::seen(seen) };
    if left_out > 0 {
        let why = "have names that no line can hold; --json has them";
        let warnings = vec![format!("{left_out} files {why}")];
        outcome.add(Remarks { notes: Vec::new(), warnings });
    }
    outcome
}

/// Names with a backslash or line feed are escaped, and the line begins with a backslash. Nothing
/// stands for what is no text, or would act on a terminal.
fn sum_line(sha: &str, path: &[Vec<u8>]) -> Option<String> {
    let path = String::from_utf8(path.join(&b'/')).ok()?;
    let plain = path.replace(['\n', '\r'], "");
    if clean(&plain) != plain {
        return None;
    }
    if path.contains(['\\', '\n', '\r']) {
        let path = path.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r");
        return Some(format!("\\{sha}  {path}\n"));
    }
    Some(format!("{sha}  {path}\n"))
}

/// One file for scripts.
fn entry(file: &Listed<'_>) -> Value {
    let metadata = file.metadata;
    let mut json = json!({
        "name": String::from_utf8_lossy(file.path.name()),
        "path": String::from_utf8_lossy(&file.path.to_bytes()),
        "type": type_name(metadata.file_type),
        "size": metadata.len,
        "mtime": metadata.modified.map(rfc3339),
        "mode": metadata.mode.map(|mode| format!("{mode:04o}")),
        "uid": metadata.owner.map(|owner| owner.user),
        "gid": metadata.owner.map(|owner| owner.group),
        "links": metadata.links,
        "ctime": metadata.changed.map(rfc3339),
        "atime": metadata.accessed.map(rfc3339),
        "created": metadata.created.map(rfc3339),
    });
    if std::str::from_utf8(file.path.name()).is_err() {
        json["name_hex"] = Value::from(hex(file.path.name()));
    }
    if let Some(target) = &file.target {
        json["target"] = Value::from(String::from_utf8_lossy(target));
    }
    if let Some(sha256) = &file.sha256 {
        json["sha256"] = Value::from(sha256.as_str());
    }
    json
}

/// Bytes in hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A time with what the filesystem keeps of seconds; one of an unknown time zone has no `Z`.
fn rfc3339(time: Timestamp) -> String {
    let at = jiff::Timestamp::new(time.seconds, 0).ok();
    let at = at.and_then(|at| {
        let nanoseconds = i32::try_from(time.nanoseconds).ok()?;
        at.checked_add(jiff::SignedDuration::new(0, nanoseconds)).ok()
    });
    let Some(at) = at else { return format!("@{}", time.seconds) };
    let text = at.to_string();
    if time.is_local { text.trim_end_matches('Z').to_owned() } else { text }
}

/// A time to the second, for a column: of an unknown one nothing.
#[must_use]
pub fn moment(time: Option<Timestamp>) -> String {
    let Some(time) = time else { return String::new() };
    let text = rfc3339(Timestamp { nanoseconds: 0, ..time });
    text.trim_end_matches('Z').replace('T', " ")
}

/// As `ls -l` shows it; of filesystems without permissions, marks of Windows.
#[must_use]
pub fn mode(metadata: &Metadata) -> String {
    let kind = match metadata.file_type {
        FileType::File => '-',
        FileType::Folder => 'd',
        FileType::Link => 'l',
        FileType::CharDevice => 'c',
        FileType::BlockDevice => 'b',
        FileType::Pipe => 'p',
        FileType::Socket => 's',
        _ => '?',
    };
    let Some(mode) = metadata.mode else {
        let marks = [
            (FileFlags::READ_ONLY, 'r'),
            (FileFlags::HIDDEN, 'h'),
            (FileFlags::SYSTEM, 's'),
            (FileFlags::ARCHIVE, 'a'),
            (FileFlags::COMPRESSED, 'c'),
            (FileFlags::ENCRYPTED, 'e'),
        ];
        let marks = marks.iter().filter(|(flag, _)| metadata.flags.contains(*flag));
        return std::iter::once(kind).chain(marks.map(|(_, mark)| *mark)).collect();
    };
    let bit = |shift: u32, letter: char| if mode >> shift & 1 == 1 { letter } else { '-' };
    let run = |shift: u32, special: u32, low: char, high: char| match (
        mode >> shift & 1 == 1,
        mode >> special & 1 == 1,
    ) {
        (true, true) => low,
        (false, true) => high,
        (true, false) => 'x',
        (false, false) => '-',
    };
    [
        kind,
        bit(8, 'r'),
        bit(7, 'w'),
        run(6, 11, 's', 'S'),
        bit(5, 'r'),
        bit(4, 'w'),
        run(3, 10, 's', 'S'),
        bit(2, 'r'),
        bit(1, 'w'),
        run(0, 9, 't', 'T'),
    ]
    .iter()
    .collect()
}

/// What became of files that were recovered into `to`.
#[must_use]
pub fn recovered(report: &RecoverReport, to: &Path) -> Outcome {
    let files = report.damaged.iter().map(|file| {
        json!({"path": file.path, "bytes_lost": file.bytes, "ranges": extents(&file.ranges)})
    });
    let not_done = report.not_done.iter().map(|file| json!({"path": file.path, "why": file.why}));
    let not_kept = report
        .not_kept
        .iter()
        .map(|(what, count)| json!({"what": what.to_string(), "files": count}));
    let json = json!({
        "to": crate::json::path(to),
        "files": report.files,
        "folders": report.folders,
        "links": report.links,
        "hard_links": report.hard_links,
        "others": report.others,
        "streams": report.streams,
        "bytes_written": report.bytes,
        "skipped": report.skipped,
        "verified": report.verified,
        "damaged_count": report.damaged_count,
        "damaged": files.collect::<Value>(),
        "not_recovered_count": report.not_done_count,
        "not_recovered": not_done.collect::<Value>(),
        "not_kept": not_kept.collect::<Value>(),
        "notes": notes(&report.notes),
    });
    damaged(Outcome::report(json, text(report, to)).with(remarks(report)), report.damaged_count)
}

fn text(report: &RecoverReport, to: &Path) -> String {
    let mut text = format!(
        "{}: {} files ({}), {} folders",
        clean(&to.display().to_string()),
        report.files,
        size(report.bytes),
        report.folders
    );
    for (count, what) in [
        (report.links, "symbolic links"),
        (report.hard_links, "hard links"),
        (report.others, "devices, pipes and sockets"),
        (report.streams, "streams"),
        (report.skipped, "were there already"),
    ] {
        if count > 0 {
            text += &format!(", {count} {what}");
        }
    }
    text += if report.verified { "; read back and compared\n" } else { "\n" };
    let damaged = report
        .damaged
        .iter()
        .map(|file| format!("damaged: {}: {} bytes are lost", clean(&file.path), file.bytes));
    let not_done = report
        .not_done
        .iter()
        .map(|file| format!("not recovered: {}: {}", file.path, clean(&file.why)));
    let mut lines: Vec<String> = damaged.chain(not_done).collect();
    let more = lines.len().saturating_sub(LINES_MAX);
    lines.truncate(LINES_MAX);
    lines.iter().for_each(|line| text += &format!("{line}\n"));
    if more > 0 {
        text += &format!("... and {more} more; --json lists them\n");
    }
    text
}

/// What there is to know about volumes, as sentences.
fn notes(notes: &[(String, String)]) -> Vec<String> {
    notes.iter().map(|(volume, note)| format!("{volume}: {note}")).collect()
}

fn remarks(report: &RecoverReport) -> Remarks {
    let mut remarks = Remarks { notes: notes(&report.notes), ..Remarks::default() };
    if report.damaged_count > 0 {
        remarks.warnings.push(format!(
            "{} files came back damaged; their names end with .damaged, or a file beside them says so",
            report.damaged_count
        ));
    }
    if report.not_done_count > 0 {
        remarks.warnings.push(format!("{} files were not recovered", report.not_done_count));
    }
    for (what, count) in &report.not_kept {
        remarks.notes.push(format!("not kept of {count} files: {what}"));
    }
    remarks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_lines_that_sha256sum_reads() {
        let line = |parts: &[&[u8]]| {
            let parts: Vec<Vec<u8>> = parts.iter().map(|part| part.to_vec()).collect();
            sum_line("ab", &parts)
        };
        assert_eq!(line(&[b"p1", b"x y"]).unwrap(), "ab  p1/x y\n");
        assert_eq!(line(&[b"x\\\n"]).unwrap(), "\\ab  x\\\\\\n\n");
        assert_eq!((line(&[b"x\xff"]), line(&[b"x\x1b[2J"])), (None, None));
    }

    #[test]
    fn times_show_what_the_filesystem_keeps_of_them() {
        let time = Timestamp::utc(1_790_000_000, 500_000_000);
        assert_eq!(rfc3339(time), "2026-09-21T14:13:20.5Z");
        assert_eq!(rfc3339(Timestamp { is_local: true, ..time }), "2026-09-21T14:13:20.5");
        assert_eq!(rfc3339(Timestamp::utc(-1, 0)), "1969-12-31T23:59:59Z");
        assert_eq!(rfc3339(Timestamp::utc(i64::MAX, 0)), format!("@{}", i64::MAX));
        assert_eq!(moment(Some(time)), "2026-09-21 14:13:20");
    }
}
