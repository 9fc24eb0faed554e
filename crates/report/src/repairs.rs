//! Repairs of damaged images: their JSON, their text, and what to remark on them.

use std::path::Path;

use aiv_chain::{Checked, KeySlots, Repaired};
use aiv_image_format::Error as ImageError;
use aiv_volume_io::Extent;
use serde_json::{Value, json};

use crate::Remarks;
use crate::json::path;
use crate::words::clean;

/// Runs of blocks that a line of text names at most.
const RUNS_SHOWN: usize = 8;

/// What came of each damaged image, repaired into the folder `to`.
#[must_use]
pub fn repairs_json(to: &Path, repaired: &[Repaired]) -> Value {
    let extent = |extent: &Extent| json!({"start": extent.start, "length": extent.len});
    let run = |&(first, count): &(u64, u64)| json!({"first": first, "count": count});
    let one = |image: &Repaired| {
        let report = &image.report;
        json!({
            "file": image.from,
            "repaired": image.file.as_ref().map(|file| path(&to.join(file))),
            "complete": is_looked_into(image) && report.is_complete(),
            "name_taken": image.is_taken,
            "in_segments": !image.segments.is_empty(),
            "segments": report.segments,
            "beyond_repair": image.beyond,
            "pieces_by_parity": report.pieces_by_parity,
            "pieces_from_copies": report.pieces_from_copies,
            "pages": report.pages,
            "tail": report.tail,
            "key_slots": key_slots(report.key_slots),
            "pieces_lost": report.pieces_lost,
            "lost": report.lost.iter().map(extent).collect::<Value>(),
            "lost_blocks": report.lost_blocks.iter().map(run).collect::<Value>(),
        })
    };
    repaired.iter().map(one).collect()
}

/// Whether anything was found out about the file.
fn is_looked_into(image: &Repaired) -> bool {
    image.beyond.is_none() && !image.is_taken
}

/// A stable word.
const fn key_slots(state: KeySlots) -> &'static str {
    match state {
        KeySlots::Sound => "sound",
        KeySlots::Differ => "differ",
        KeySlots::Copied => "copied",
        KeySlots::FromCopy => "from_copy",
        KeySlots::Lost => "lost",
    }
}

/// The same for people.
#[must_use]
pub fn repairs_text(to: &Path, repaired: &[Repaired]) -> String {
    repaired.iter().map(|image| repair_text(to, image)).collect()
}

fn repair_text(to: &Path, image: &Repaired) -> String {
    let (from, report) = (clean(&image.from), &image.report);
    if let Some(file) = &image.file {
        let made = clean(&to.join(file).display().to_string());
        let mut what = Vec::new();
        let mut say = |count: u64, words: &str| {
            if count > 0 {
                what.push(format!("{count} {words}"));
            }
        };
        say(report.pieces_by_parity, "pieces by parity");
        say(report.pieces_from_copies, "pieces from a copy");
        say(report.pages, "pages of metadata");
        say(report.segments, "segments around their bytes, or as a whole");
        if report.tail {
            what.push("the end of the file".to_owned());
        }
        match report.key_slots {
            KeySlots::Copied => what.push("key slots by their other copy".to_owned()),
            KeySlots::FromCopy => what.push("key slots from a copy".to_owned()),
            KeySlots::Sound | KeySlots::Differ | KeySlots::Lost => {}
        }
        return format!("{from}: repaired and proven as {made} ({})\n", what.join(", "));
    }
    if image.is_taken {
        let name = image.from.rsplit('/').next().unwrap_or_default();
        let there = clean(&to.join(name).display().to_string());
        return format!("{from}: NOT REPAIRED, {there} exists; nothing was written\n");
    }
    if let Some(why) = &image.beyond {
        return format!(
            "{from}: NOT REPAIRED, too little of it can be believed; nothing was written\n  {why}\n"
        );
    }
    if report.is_complete() {
        return format!("{from}: every byte is what was written; nothing to repair\n");
    }
    let mut text = String::new();
    if report.key_slots == KeySlots::Lost {
        text += &format!(
            "{from}: NOT REPAIRED, both copies of its key slots are lost; nothing was written for it\n  \
             no passphrase, key file, recovery code or recipient opens it any more by itself: a paper \
             key does, with which `aiv key add` makes them anew\n"
        );
        if report.pieces_lost == 0 {
            return text;
        }
    }
    let blocks: Vec<String> = report
        .lost_blocks
        .iter()
        .take(RUNS_SHOWN)
        .map(|&(first, count)| match count {
            1 => first.to_string(),
            count => format!("{first} to {}", first + count - 1),
        })
        .collect();
    let more = if report.lost_blocks.len() > RUNS_SHOWN { " and more" } else { "" };
    let lost = match report.pieces_lost {
        1 => "1 piece of 64 KiB stays lost".to_owned(),
        lost => format!("{lost} pieces of 64 KiB stay lost"),
    };
    text += &format!("{from}: NOT REPAIRED, {lost}; nothing was written for it\n");
    for extent in report.lost.iter().take(RUNS_SHOWN) {
        text += &format!("  bytes {} to {}\n", extent.start, extent.end());
    }
    if !blocks.is_empty() {
        text += &format!("  with blocks {}{more}\n", blocks.join(", "));
    }
    text
}

impl Remarks {
    /// What can be done about images of which some are damaged.
    #[must_use]
    pub fn on_damaged(images: &[Checked]) -> Self {
        let mut remarks = Self::default();
        if images.iter().any(|image| !image.is_sound()) {
            remarks.notes.push(
                "--repair --to DIR writes damaged images as they were, where their parity or copies \
                 of them (--from DIR) tell all of it; `aiv salvage` gets out what is left of one, \
                 and needs the key of a sealed one; the next backup of the source builds on what is \
                 sound"
                    .to_owned(),
            );
        }
        let in_parts = |image: &Checked| {
            image.segment.is_some() || matches!(&image.outcome, Err(ImageError::Segments(_)))
        };
        if images.iter().filter(|image| !image.is_sound()).any(in_parts) {
            remarks.notes.push(
                "a good copy of a damaged or missing segment can also be put in its place"
                    .to_owned(),
            );
        }
        remarks
    }

    /// Remarks on repairs: that the damaged file is still there, and what is left where there is
    /// no repaired one.
    #[must_use]
    pub fn on_repairs(repaired: &[Repaired]) -> Self {
        let mut remarks = Self::default();
        for image in repaired {
            let from = &image.from;
            let (report, is_made) = (&image.report, image.file.is_some());
            if is_made && !image.segments.is_empty() {
                remarks.warnings.push(format!(
                    "{from} is still damaged: put the repaired segments in the place of all of its own"
                ));
            } else if is_made {
                remarks
                    .warnings
                    .push(format!("{from} is still damaged: put the repaired file in its place"));
            } else if image.is_taken {
                remarks.warnings.push(format!(
                    "{from}: no file is replaced: move the one away that has its name, or name \
                     another folder with --to"
                ));
            }
            if !is_made && report.key_slots == KeySlots::Lost {
                remarks.warnings.push(format!(
                    "{from}: nobody can open it any more, unless another copy of the file (--from \
                     DIR) has its key slots, or its folder another image with the same key, or \
                     somebody has its paper key"
                ));
            }
            if report.key_slots == KeySlots::Differ {
                remarks.warnings.push(format!(
                    "{from}: the copies of its key slots differ, and stay as they are: only with \
                     its key (--key-file, --password-file) is it told which of them counts"
                ));
            }
            if is_made && report.key_slots == KeySlots::FromCopy {
                remarks.warnings.push(format!(
                    "{from}: its key slots are those of another copy, which may be older: what was \
                     removed since may open it; `aiv key` brings those of all images up to date"
                ));
            }
            if image.beyond.is_some() || report.pieces_lost > 0 {
                let rest = match image.is_sealed {
                    true => {
                        "all other blocks can still be salvaged from it with its key: `aiv salvage`"
                    }
                    false => "all other blocks can still be salvaged from it: `aiv salvage`",
                };
                remarks.warnings.push(format!(
                    "{from}: another copy of the file (--from DIR) may have what is lost; {rest}"
                ));
            }
        }
        remarks
    }
}
