//! What is different between two points: JSON, text, remarks.

use aiv_browse::{Change, Difference, What};
use aiv_jobs::{Compared, VolumeCompared};
use serde_json::{Value, json};

use crate::files::type_name;
use crate::json::extents;
use crate::words::{clean, size};
use crate::{Outcome, Remarks};

/// What is different; of the files in which changed blocks lie, the `top` ones are listed.
#[must_use]
pub fn compared(compared: &Compared, top: usize) -> Outcome {
    let volumes = compared.volumes.iter().map(|volume| volume_json(volume, top));
    let not = |(name, why): &(String, String)| json!({"volume": name, "why": why});
    let json = json!({
        "volumes": volumes.collect::<Value>(),
        "bytes_changed": compared.changed.as_ref().map(|changed| changed.total_len()),
        "changed": compared.changed.as_ref().map(|changed| extents(changed.runs())),
        "not_compared": compared.not_compared.iter().map(not).collect::<Value>(),
    });
    let mut text = String::new();
    if let Some(changed) = &compared.changed {
        text += &format!("{} in blocks that changed\n", size(changed.total_len()));
    }
    compared.volumes.iter().for_each(|volume| text += &volume_text(volume, top));
    let mut remarks = Remarks::default();
    for (name, why) in &compared.not_compared {
        remarks.warnings.push(format!("{name} was not compared: {why}"));
    }
    for volume in &compared.volumes {
        for (path, why) in volume.files.troubles.iter().take(20) {
            remarks.warnings.push(format!("{path}: {why}"));
        }
        let more = volume.files.troubles.len().saturating_sub(20);
        if more > 0 {
            remarks.warnings.push(format!("{}: {more} more could not be compared", volume.name));
        }
    }
    Outcome::answer(json, text).with(remarks)
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

fn volume_json(volume: &VolumeCompared, top: usize) -> Value {
    let files = &volume.files;
    let path = |path: &aiv_browse::Path| String::from_utf8_lossy(&path.to_bytes()).into_owned();
    let one = |difference: &Difference| {
        let (change, what) = match &difference.change {
            Change::Added => ("added", Value::Null),
            Change::Removed => ("removed", Value::Null),
            Change::Renamed { .. } => ("renamed", Value::Null),
            Change::Changed { what } => {
                ("changed", what.iter().map(|&what| what_name(what)).collect())
            }
        };
        let from = match &difference.change {
            Change::Renamed { from } => Value::from(path(from)),
            _ => Value::Null,
        };
        json!({
            "path": path(&difference.path),
            "change": change,
            "what": what,
            "from": from,
            "type": type_name(difference.file_type),
            "size": difference.len,
            "bytes_changed": difference.changed_bytes,
        })
    };
    let largest = largest(volume, top);
    let largest = largest
        .iter()
        .map(|one| json!({"path": path(&one.path), "bytes_changed": one.changed_bytes}));
    json!({
        "volume": volume.name,
        "same": files.same,
        "different": files.count,
        "files": files.differences.iter().map(one).collect::<Value>(),
        "bytes_changed": volume.changed,
        "bytes_elsewhere": volume.changed.map(|_| files.elsewhere),
        "largest": largest.collect::<Value>(),
    })
}

/// The files in which most changed blocks lie.
fn largest(volume: &VolumeCompared, top: usize) -> Vec<&Difference> {
    let touched = |one: &&Difference| one.changed_bytes > 0;
    let mut all: Vec<&Difference> = volume.files.differences.iter().filter(touched).collect();
    all.sort_by_key(|one| std::cmp::Reverse(one.changed_bytes));
    all.truncate(top);
    all
}

fn volume_text(volume: &VolumeCompared, top: usize) -> String {
    let files = &volume.files;
    let mut text = String::new();
    for one in &files.differences {
        let (sign, more) = match &one.change {
            Change::Added => ('+', String::new()),
            Change::Removed => ('-', String::new()),
            Change::Renamed { from } => ('>', format!(" (was {from})")),
            Change::Changed { what } => {
                let what: Vec<_> = what.iter().map(|&what| what_name(what)).collect();
                ('~', format!(" ({})", what.join(", ")))
            }
        };
        text += &format!("{sign} {}{more}\n", one.path);
    }
    let unlisted = files.count.saturating_sub(files.differences.len() as u64);
    if unlisted > 0 {
        text += &format!("... and {unlisted} more\n");
    }
    text +=
        &format!("{}: {} different, {} the same\n", clean(&volume.name), files.count, files.same);
    if let Some(changed) = volume.changed.filter(|&changed| changed > 0) {
        text += &format!("{}: {} in blocks that changed", volume.name, size(changed));
        text += &format!(
            ", {} of it records of the filesystem and free space\n",
            size(files.elsewhere)
        );
        for one in largest(volume, top) {
            text += &format!("  {:>12}  {}\n", size(one.changed_bytes), one.path);
        }
    }
    text
}
