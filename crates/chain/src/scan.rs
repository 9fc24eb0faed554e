//! Finds out what a folder holds: by its catalogue where a file is as it was, else by looking
//! into the file.

use std::collections::HashSet;

use aiv_image_format::Keys;
use aiv_volume_io::{FileEntry, Job, Storage};

use crate::catalogue::{Catalogue, Entry};
use crate::error::Result;
use crate::facts::{Facts, Protection};
use crate::folder::{Folder, Stray, StrayKind, list};
use crate::look::{Found, look_into};

/// Whether a scan may take the word of a catalogue for what is in an unchanged file. Images with
/// a key are always looked into: a catalogue must not tell what they keep secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// It may.
    Catalogue,
    /// Every file is looked into.
    Files,
}

impl Folder {
    /// Finds the images in `storage`, wherever they lie and whatever they are called, looking
    /// into several files at a time. Files that the catalogue of the folder knows, with the
    /// length and the stamp they still have, are not opened. Files that are neither images nor
    /// named like one are not listed.
    ///
    /// A catalogue can be wrong: whoever opens a point through a [`View`](crate::View) gets
    /// that point or an error nevertheless.
    ///
    /// # Errors
    /// [`crate::Error::Io`] when the folder cannot be listed, [`crate::Error::Canceled`]. A file that cannot
    /// be read is a stray.
    pub fn scan(storage: &dyn Storage, job: Job<'_>) -> Result<Self> {
        scan(storage, &Keys::none(), Trust::Catalogue, job).map(|(folder, _)| folder)
    }

    /// As [`Folder::scan`], and returns the catalogue of what was found, which knows more than
    /// the one in the folder when anything changed: see [`Catalogue::write`].
    ///
    /// # Errors
    /// As [`Folder::scan`].
    pub fn scan_with(storage: &dyn Storage, job: Job<'_>) -> Result<(Self, Catalogue)> {
        scan(storage, &Keys::none(), Trust::Catalogue, job)
    }

    /// As [`Folder::scan_with`], and looks into every file: of the old catalogue only what it
    /// says about verifications and former points is kept.
    ///
    /// # Errors
    /// As [`Folder::scan`].
    pub fn scan_afresh(storage: &dyn Storage, job: Job<'_>) -> Result<(Self, Catalogue)> {
        scan(storage, &Keys::none(), Trust::Files, job)
    }

    /// As [`Folder::scan_with`], with the keys of images that have one. What they do not open is
    /// listed as locked. The folder and its sets remember them: whoever opens, merges or verifies
    /// points of theirs does it with these keys.
    ///
    /// # Errors
    /// As [`Folder::scan`].
    pub fn scan_keyed(
        storage: &dyn Storage,
        keys: &Keys,
        trust: Trust,
        job: Job<'_>,
    ) -> Result<(Self, Catalogue)> {
        scan(storage, keys, trust, job)
    }
}

fn scan(
    storage: &dyn Storage,
    keys: &Keys,
    trust: Trust,
    job: Job<'_>,
) -> Result<(Folder, Catalogue)> {
    // Before the listing: what it knows was in the folder then, unless it is gone.
    let before = Catalogue::try_read(storage).unwrap_or_default();
    let listed = list(storage)?;
    let known = |file: &FileEntry| match trust {
        Trust::Catalogue => before.entry(file).filter(|entry| !entry.flawed),
        Trust::Files => None,
    };
    let unknown: Vec<&FileEntry> = listed.iter().filter(|file| known(file).is_none()).collect();
    let mut looked = look_into(storage, &unknown, keys, job)?.into_iter();
    let mut all = Vec::new();
    let mut strays = Vec::new();
    let mut stamps = Vec::new();
    for file in &listed {
        let facts = match known(file) {
            Some(entry) => entry.facts.clone(),
            None => match looked.next() {
                Some(Found::Image(facts)) => {
                    let verified = before.entry(file).and_then(|entry| entry.facts.verified);
                    Facts { verified, ..*facts }
                }
                Some(Found::Stray(stray)) => {
                    strays.push(stray);
                    continue;
                }
                Some(Found::Nothing) | None => continue,
            },
        };
        stamps.push(file.stamp);
        all.push(facts);
    }
    let unreadable: HashSet<String> = strays.iter().filter_map(unreadable).collect();
    let remembered = unknown.len() < listed.len();
    let mut folder = Folder::assemble(&all, remembered, strays).with_keys(keys);
    let entries = all.into_iter().zip(stamps).map(|(facts, stamp)| {
        let sealed = matches!(facts.protection, Protection::Sealed(_));
        let about = if sealed { None } else { facts.about };
        let keyed = facts.protection != Protection::None;
        let flawed = !facts.damage.is_empty() || about.is_none() || keyed;
        Entry { stamp, flawed, facts: Facts { about, ..facts } }
    });
    let mut catalogue = Catalogue::of(entries.collect(), before, &|file| unreadable.contains(file));
    // Somebody may have removed them on purpose, and said so, while we were looking.
    if !catalogue.vanished().is_empty()
        && let Some(now) = Catalogue::try_read(storage)
    {
        catalogue.keep_vanished_of(&now);
    }
    folder.vanished = catalogue.vanished().to_vec();
    Ok((folder, catalogue))
}

fn unreadable(stray: &Stray) -> Option<String> {
    matches!(stray.kind, StrayKind::Unreadable(_)).then(|| stray.file.clone())
}
