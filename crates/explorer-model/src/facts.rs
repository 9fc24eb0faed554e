//! All that is known about a file, as names and values.

use aiv_browse::{FileFlags, Metadata};
use aiv_report::files::{mode, moment, type_name};
use aiv_report::words::size;

/// Marks a filesystem knows, and what they are called.
const MARKS: [(FileFlags, &str); 12] = [
    (FileFlags::READ_ONLY, "read-only"),
    (FileFlags::HIDDEN, "hidden"),
    (FileFlags::SYSTEM, "system"),
    (FileFlags::ARCHIVE, "archive"),
    (FileFlags::COMPRESSED, "compressed"),
    (FileFlags::ENCRYPTED, "encrypted"),
    (FileFlags::IMMUTABLE, "immutable"),
    (FileFlags::APPEND_ONLY, "append-only"),
    (FileFlags::NO_DUMP, "no-dump"),
    (FileFlags::CASE_FOLDED, "case-folded"),
    (FileFlags::VERITY, "verity"),
    (FileFlags::SHARED, "shared"),
];

/// What the record of a file says. What it does not say is left out.
#[must_use]
pub fn file_facts(metadata: &Metadata) -> Vec<(String, String)> {
    let bytes = |bytes: u64| format!("{} ({bytes} bytes)", size(bytes));
    let marks: Vec<&str> = MARKS
        .iter()
        .filter(|(mark, _)| metadata.flags.contains(*mark))
        .map(|(_, name)| *name)
        .collect();
    let facts = [
        ("type", type_name(metadata.file_type).to_owned()),
        ("size", bytes(metadata.len)),
        ("allocated", metadata.allocated.map(bytes).unwrap_or_default()),
        ("mode", mode(metadata)),
        ("owner", metadata.owner.map_or_else(String::new, |o| format!("{}:{}", o.user, o.group))),
        ("names", metadata.links.to_string()),
        ("modified", moment(metadata.modified)),
        ("accessed", moment(metadata.accessed)),
        ("changed", moment(metadata.changed)),
        ("created", moment(metadata.created)),
        (
            "device",
            metadata.device.map_or_else(String::new, |d| format!("{}:{}", d.major, d.minor)),
        ),
        ("marks", marks.join(", ")),
    ];
    let known = facts.into_iter().filter(|(_, value)| !value.is_empty());
    known.map(|(name, value)| (name.to_owned(), value)).collect()
}
