//! What is different between two points: JSON, text, remarks.

use std::io;
use std::path::Path;

use aiv_browse::{Change, Difference, What};
use aiv_jobs::{Compared, VolumeCompared};
use serde_json::{Value, json};

use crate::files::{Reader, damaged, type_name};
use crate::json::extents;
use crate::words::{clean, size};
use crate::{Outcome, Remarks};

/// Troubles of a volume that are told.
const LINES_MAX: usize = 20;

/// What is different but the files, which are those of [`volume_compared`].
#[must_use]
pub fn compared(compared: &Compared) -> Outcome {
    let not = |(name, why): &(String, String)| json!({"volume": name, "why": why});
    let json = json!({
        "bytes_changed": compared.changed.as_ref().map(|changed| changed.total_len()),
        "changed": compared.changed.as_ref().map(|changed| extents(changed.runs())),
        "not_compared": compared.not_compared.iter().map(not).collect::<Value>(),
    });
    let mut remarks = Remarks::default();
    for (name, why) in &compared.not_compared {
        remarks.warnings.push(format!("{name} was not compared: {why}"));
    }
    for volume in &compared.volumes {
        remarks.notes.extend(volume.notes.iter().map(|note| format!("{}: {note}", volume.name)));
        for (path, why) in volume.files.troubles.iter().take(LINES_MAX) {
            remarks.warnings.push(format!("{path}: {why}"));
        }
        let more = volume.files.trouble_count.saturating_sub(LINES_MAX as u64);
        if more > 0 {
            remarks.warnings.push(format!("{}: {more} more could not be compared", volume.name));
        }
    }
    let lost = compared.volumes.iter().map(|volume| volume.files.damaged).sum();
    damaged(Outcome::answer(json, String::new()).with(remarks), lost)
}

/// What there is to say of a point without a key among those that were compared with one.
#[must_use]
pub fn without_key(image: &Path) -> Remarks {
    let why = "is neither sealed nor authenticated: the key proves nothing about it";
    Remarks { notes: Vec::new(), warnings: vec![format!("{} {why}", image.display())] }
}

/// What is above the volumes for people.
#[must_use]
pub fn compared_head(compared: &Compared) -> String {
    let changed = compared.changed.as_ref();
    changed.map_or_else(String::new, |changed| {
        format!("{} in blocks that changed\n", size(changed.total_len()))
    })
}

/// Tells `tell` of all that is different on a volume, piece by piece, because of many files it is
/// long: an item of `volumes`, or text. Of the files in which changed blocks lie, the `top` ones are
/// listed.
///
/// # Errors
/// Those of `tell`.
pub fn volume_compared(
    volume: &VolumeCompared,
    top: usize,
    reader: Reader,
    tell: &mut dyn FnMut(&str) -> io::Result<()>,
) -> io::Result<()> {
    if reader == Reader::Person {
        return volume_text(volume, top, tell);
    }
    tell("{\"files\":[")?;
    for (at, one) in volume.files.differences().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        tell(&format!("{comma}{}", difference_json(&one)))?;
    }
    let rest = volume_json(volume, top).to_string();
    tell(&format!("],{}", rest.get(1..).unwrap_or_default()))
}

/// A word for what is different about a file.
#[must_use]
pub const fn what_name(what: What) -> &'static str {
    match what {
        What::Content => "content",
        What::Len => "size",
        What::Modified => "mtime",
        What::Mode => "mode",
        What::Owner => "owner",
        What::Flags => "flags",
        What::Attributes => "attributes",
        What::Streams => "streams",
        _ => "other",
    }
}

fn text_of(path: &aiv_browse::Path) -> String {
    String::from_utf8_lossy(&path.to_bytes()).into_owned()
}

fn difference_json(difference: &Difference) -> Value {
    let (change, what) = match &difference.change {
        Change::Added => ("added", Value::Null),
        Change::Removed => ("removed", Value::Null),
        Change::Renamed { .. } => ("renamed", Value::Null),
        Change::Changed { what } => ("changed", what.iter().map(|&what| what_name(what)).collect()),
    };
    let from = match &difference.change {
        Change::Renamed { from } => Value::from(text_of(from)),
        _ => Value::Null,
    };
    json!({
        "path": text_of(&difference.path),
        "change": change,
        "what": what,
        "from": from,
        "type": type_name(difference.file_type),
        "size": difference.len,
        "bytes_changed": difference.changed_bytes,
    })
}

/// All of a volume but its files.
fn volume_json(volume: &VolumeCompared, top: usize) -> Value {
    let files = &volume.files;
    let largest = largest(volume, top);
    let largest = largest
        .iter()
        .map(|one| json!({"path": text_of(&one.path), "bytes_changed": one.changed_bytes}));
    json!({
        "volume": volume.name,
        "notes": volume.notes,
        "same": files.same,
        "different": files.count(),
        "bytes_changed": volume.changed,
        "bytes_elsewhere": volume.changed.map(|_| files.elsewhere),
        "largest": largest.collect::<Value>(),
    })
}

/// The files in which most changed blocks lie, the first of those with as many.
fn largest(volume: &VolumeCompared, top: usize) -> Vec<Difference> {
    let touched = |one: &Difference| one.changed_bytes > 0;
    let mut all: Vec<Difference> = Vec::new();
    for one in volume.files.differences().filter(touched) {
        let at = all.partition_point(|other| other.changed_bytes >= one.changed_bytes);
        if at < top {
            all.truncate(top - 1);
            all.insert(at, one);
        }
    }
    all
}

fn volume_text(
    volume: &VolumeCompared,
    top: usize,
    tell: &mut dyn FnMut(&str) -> io::Result<()>,
) -> io::Result<()> {
    let files = &volume.files;
    let mut listed = 0_u64;
    for one in files.differences() {
        let (sign, more) = match &one.change {
            Change::Added => ('+', String::new()),
            Change::Removed => ('-', String::new()),
            Change::Renamed { from } => ('>', format!(" (was {from})")),
            Change::Changed { what } => {
                let what: Vec<_> = what.iter().map(|&what| what_name(what)).collect();
                ('~', format!(" ({})", what.join(", ")))
            }
        };
        tell(&format!("{sign} {}{more}\n", one.path))?;
        listed += 1;
    }
    let unlisted = files.count().saturating_sub(listed);
    if unlisted > 0 {
        tell(&format!("... and {unlisted} more\n"))?;
    }
    let name = clean(&volume.name);
    tell(&format!("{name}: {} different, {} the same\n", files.count(), files.same))?;
    if let Some(changed) = volume.changed.filter(|&changed| changed > 0) {
        tell(&format!(
            "{}: {} in blocks that changed, {} of it records of the filesystem and free space\n",
            volume.name,
            size(changed),
            size(files.elsewhere)
        ))?;
        for one in largest(volume, top) {
            tell(&format!("  {:>12}  {}\n", size(one.changed_bytes), one.path))?;
        }
    }
    Ok(())
}
