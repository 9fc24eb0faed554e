//! What a folder holds right now, for whoever is about to remove something: every file is looked
//! at again unless its stamp proves that it is the one seen before.

use std::collections::{HashMap, HashSet};

use aiv_image_format::{ParentLink, PointId, SetId, peek};
use aiv_volume_io::{FileEntry, Job, Storage};

use crate::ancestry::{Ancestry, Node, node, parent_node};
use crate::error::{Error, Result};
use crate::facts::Facts;
use crate::folder::{PART_EXTENSION, Stray, StrayKind, list};
use crate::look::{Found, look_into};
use crate::merge::MERGE_PART;
use crate::split::Listing;

/// Remembers what was found, from one look to the next.
#[derive(Default)]
pub(crate) struct Census {
    /// By name; only files whose storage stamps them.
    known: HashMap<String, (FileEntry, Facts)>,
}

/// A folder at one moment.
pub(crate) struct Snapshot {
    pub all: Vec<Facts>,
    /// Files that are being written, or were when somebody crashed.
    parts: Vec<String>,
    strays: Vec<Stray>,
}

impl Census {
    pub(crate) fn take(&mut self, storage: &dyn Storage, job: Job<'_>) -> Result<Snapshot> {
        let listed = list(storage)?;
        let parts = listed.iter().filter(|entry| entry.name.ends_with(PART_EXTENSION));
        let parts = parts.map(|entry| entry.name.clone()).collect();
        let mut all: Vec<Facts> = Vec::new();
        let listing = Listing::of(&listed);
        for entry in &listed {
            if let Some((seen, facts)) = self.known.get(&entry.name)
                && listing.image(entry, &facts.segments).is_some_and(|now| now == *seen)
                && seen.stamp != 0
            {
                all.push(facts.clone());
            }
        }
        let files =
            |facts: &Facts| [std::slice::from_ref(&facts.file), &facts.segments[..]].concat();
        let told: HashSet<String> = all.iter().flat_map(files).collect();
        let new: Vec<_> = listed.iter().filter(|entry| !told.contains(&entry.name)).collect();
        let images = all.iter().map(|facts| (facts.image, facts.file.clone())).collect();
        let mut strays = Vec::new();
        for (entry, found) in new.iter().zip(look_into(storage, &new, &images, job)?) {
            match found {
                Found::Image(facts) => {
                    if let Some(seen) = listing.image(entry, &facts.segments) {
                        self.known.insert(entry.name.clone(), (seen, (*facts).clone()));
                    }
                    all.push(*facts);
                }
                Found::Stray(stray) => strays.push(stray),
                Found::Nothing => {}
            }
        }
        // Where two files will do, the first by name is used.
        all.sort_by(|a, b| a.file.cmp(&b.file));
        Ok(Snapshot { all, parts, strays })
    }
}

impl Snapshot {
    /// Refuses to go on where a file cannot be looked into: it may hold a point that needs what
    /// is to be removed.
    pub(crate) fn check_doubts(&self, storage: &dyn Storage, set: SetId) -> Result<()> {
        for stray in &self.strays {
            let why = match &stray.kind {
                StrayKind::Unreadable(why) => why.clone(),
                StrayKind::Unusable(why) => {
                    let file = storage.open(&stray.file).ok();
                    match file.and_then(|file| peek(&*file)) {
                        Some(superblock) if superblock.set != set => continue,
                        Some(superblock) if superblock.parent.is_none() => continue,
                        _ => why.clone(),
                    }
                }
                _ => continue,
            };
            return Err(Error::InDoubt { file: stray.file.clone(), why });
        }
        Ok(())
    }

    /// The first backup under way, or interrupted, that builds on one of `points`.
    pub(crate) fn part_on(
        &self,
        storage: &dyn Storage,
        points: &HashSet<Node>,
    ) -> Option<(String, PointId)> {
        // What a merge builds on it proves by itself, and it says what it drops only here.
        let backups = self.parts.iter().filter(|name| !name.ends_with(MERGE_PART));
        backups.clone().find_map(|name| {
            let superblock = peek(&*storage.open(name).ok()?)?;
            let ParentLink { point, state_root } = superblock.parent?;
            let builds = points.contains(&(superblock.set, point, state_root));
            builds.then(|| (name.clone(), point))
        })
    }

    /// Proves that without `file` every state but those in `dropped` can be read as well as
    /// before.
    pub(crate) fn prove_without(
        &self,
        file: &str,
        dropped: &HashSet<Node>,
    ) -> std::result::Result<(), PointId> {
        let before = Ancestry::of(&self.all);
        let without: Vec<Facts> =
            self.all.iter().filter(|facts| facts.file != file).cloned().collect();
        let after = Ancestry::of(&without);
        let worse = before.whole().find(|&node| {
            !dropped.contains(&node)
                && (!after.has(node, false) || (before.has(node, true) && !after.has(node, true)))
        });
        match worse {
            None => Ok(()),
            Some((_, point, _)) => Err(point),
        }
    }

    /// The files that go when the states in `dropped` go: those that provide one, and those that
    /// provide a state that stays and is read from another file, but build on one that goes, which
    /// is what a merge leaves behind.
    pub(crate) fn going(&self, dropped: &HashSet<Node>) -> Vec<&Facts> {
        let ancestry = Ancestry::of(&self.all);
        let goes = |(at, facts): &(usize, &Facts)| {
            let is_replaced = ancestry.has(node(facts), false)
                && ancestry.chosen.get(&node(facts)) != Some(at)
                && parent_node(facts).is_some_and(|parent| dropped.contains(&parent));
            dropped.contains(&node(facts)) || is_replaced
        };
        self.all.iter().enumerate().filter(goes).map(|(_, facts)| facts).collect()
    }
}
