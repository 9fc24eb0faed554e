//! What was not proven, or not used, and why.

use aiv_chain::{Checked, Depth, Keys, Stray, StrayKind};
use aiv_image_format::Mode;

use super::{Remarks, stray_line};
use crate::words::short;

impl Remarks {
    /// Remarks on files that may hold points and could not be used: what was `done` to the others
    /// ("copied") was not to them.
    #[must_use]
    pub fn on_unused(strays: &[Stray], done: &str) -> Self {
        let line = |stray: &Stray| format!("not {done}: {}", stray_line(stray));
        Self { notes: Vec::new(), warnings: strays.iter().map(line).collect() }
    }

    /// Remarks on what a verification with `keys` could not prove, and on files that it could not
    /// look at.
    #[must_use]
    pub fn on_unverified(images: &[Checked], strays: &[Stray], depth: Depth, keys: &Keys) -> Self {
        let mut remarks = Self::default();
        let mut sealed = 0_u64;
        for image in images {
            let locked = image.outcome.as_ref().is_ok_and(|report| report.locked);
            if !keys.is_empty()
                && let Some(warning) = unlike_keys(image, keys)
            {
                remarks.warnings.push(warning);
            } else if image.is_sound() && locked {
                sealed += 1;
            } else if image.is_sound() && !image.is_proven() {
                remarks.warnings.push(format!(
                    "{}: what it stores is sound; the rest needs an image that is missing or \
                     damaged",
                    image.file
                ));
            }
            if let [first, rest @ ..] = image.points_affected.as_slice() {
                let more = match rest.len() {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                let file = &image.file;
                remarks.warnings.push(format!("{file}: affects point {first}{more}"));
            }
        }
        if sealed > 0 {
            let are = if sealed == 1 { "1 image is" } else { &format!("{sealed} images are") };
            let looked = match depth {
                Depth::Quick => "what is in clear was looked at, and no stored block",
                _ => "every stored byte was compared, which finds accidents",
            };
            remarks.notes.push(format!(
                "{are} sealed, and no key was given: {looked}; blocks, links to parents and forgery \
                 were not checked"
            ));
        }
        for file in strays {
            match file.kind {
                StrayKind::Unfinished => remarks.notes.push(stray_line(file)),
                _ => remarks.warnings.push(format!("not verified: {}", stray_line(file))),
            }
        }
        remarks
    }
}

/// What is wrong with an image for somebody who gave `keys`; `None` when it has one of them.
fn unlike_keys(image: &Checked, keys: &Keys) -> Option<String> {
    let file = &image.file;
    let protection = image.protection?;
    let Some(key) = protection.key() else {
        return Some(format!(
            "{file}: has no key; where all images should have one, somebody else may have put it there"
        ));
    };
    let unchecked = match protection.mode() {
        Some(Mode::Sealed) => "blocks, links to parents and forgery",
        _ => "forgery",
    };
    let key = match keys.find(&key.0) {
        Some(_) => return None,
        None => short(key),
    };
    Some(format!("{file}: has another key ({key}) than was given; not checked: {unchecked}"))
}
