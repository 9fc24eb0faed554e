//! Points that move from one folder to another: copied, and removed only when the destination is
//! proven to have them.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use aiv_image_format::{Depth, Digest, Keys};
use aiv_keys::KeyArea;
use aiv_volume_io::{Job, Storage};

use super::copy::{CopyReport, Copying};
use crate::ancestry::{Ancestry, Node, node, parent_node};
use crate::census::Census;
use crate::error::{Error, Result};
use crate::facts::Facts;
use crate::folder::{Folder, Point, Set, list};
use crate::merge::{MERGE_PART, NewIds, remove_stale, take_lease};
use crate::open::{Head, open};
use crate::removal::{LeftFile, LeftReason, Removal, Removed};
use crate::scan::Trust;
use crate::slots::{KeyedChain, keyed_chains};
use crate::view::View;

/// What a move did.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MoveReport {
    /// What was copied.
    pub copy: CopyReport,
    /// Files that were removed from the source, in this order.
    pub removed: Vec<String>,
    /// Files that are still in the source, although the destination has what they provide.
    pub left: Vec<LeftFile>,
    /// Whether some were left because a backup of the set runs, or was interrupted.
    pub waiting_for_backup: bool,
}

/// Copies `point` of `set`, which a scan of `from` found, into `to` as [`super::copy_point`] does,
/// and removes its files from `from`. What it builds on stays there, too. A backup that runs is
/// waited for until `patience` ends.
///
/// # Errors
/// Before anything is written: [`Error::Needed`] when another point of `from` builds on it,
/// [`Error::SameFolder`], [`Error::InDoubt`]. Before anything is removed: [`Error::LockedThere`],
/// [`Error::SlotsBehind`]. Else as [`super::copy_point`]; every point can be restored from one of
/// the folders at least.
pub fn move_point(
    from: &dyn Storage,
    set: &Set,
    point: &Point,
    to: &dyn Storage,
    patience: Duration,
    new_ids: &mut NewIds<'_>,
    job: Job<'_>,
) -> Result<MoveReport> {
    Moving { from, set, to, patience, job }.run(&[point], new_ids)
}

/// Moves every point of `set`, which a scan of `from` found, into `to`. No key is needed for that:
/// of what is locked every stored byte is proven, and what is there already has to be the same
/// file.
///
/// # Errors
/// As [`move_point`].
pub fn move_set(
    from: &dyn Storage,
    set: &Set,
    to: &dyn Storage,
    patience: Duration,
    new_ids: &mut NewIds<'_>,
    job: Job<'_>,
) -> Result<MoveReport> {
    let (points, left_out): (Vec<&Point>, Vec<&Point>) =
        set.points.iter().partition(|point| point.is_whole());
    let mut report = Moving { from, set, to, patience, job }.run(&points, new_ids)?;
    report.copy.left_out = left_out.iter().map(|point| point.id).collect();
    Ok(report)
}

struct Moving<'a> {
    from: &'a dyn Storage,
    set: &'a Set,
    to: &'a dyn Storage,
    patience: Duration,
    job: Job<'a>,
}

impl Moving<'_> {
    fn run(mut self, wanted: &[&Point], new_ids: &mut NewIds<'_>) -> Result<MoveReport> {
        self.refuse_same_folder(new_ids)?;
        let source = take_lease(self.from, self.set.id)?;
        let destination = take_lease(self.to, self.set.id)?;
        // Also what is left of a removal from the source that was interrupted.
        remove_stale(self.from, self.set.id)?;
        let moved: HashSet<Node> = wanted.iter().map(|point| self.node(point)).collect();
        let now = Census::default().take(self.from, self.job)?;
        now.check_doubts(self.from, self.set.id)?;
        refuse_needed(&now.all, &moved)?;
        // Only files that are there now: what appears later is somebody else's.
        let going = now.all.iter().filter(|facts| moved.contains(&node(facts)));
        let going: BTreeSet<String> = going.map(|facts| facts.file.clone()).collect();

        let (from, set, to, lease, job) = (self.from, self.set, self.to, &*destination, self.job);
        let copy = Copying { from, set, to, lease, job }.run(wanted, new_ids)?;
        self.prove_present(wanted, &copy)?;
        self.prove_slots(wanted)?;

        let census = RefCell::new(Census::default());
        let removal = Removal {
            storage: self.from,
            set: self.set.id,
            lease: &*source,
            dropped: &moved,
            only: Some(&going),
            also: &|facts| {
                destination.check().map_err(Error::io("checking the lease before a removal"))?;
                let there = census.borrow_mut().take(self.to, self.job)?;
                if Ancestry::of(&there.all).has(node(facts), true) {
                    return Ok(());
                }
                let what = format!("the destination has no point {} any more", facts.point);
                Err(Error::Changed { what })
            },
            job: self.job,
        };
        let mut patience = std::mem::take(&mut self.patience);
        let Removed { removed, left } = removal.run(&mut patience)?;
        let waiting_for_backup = left.iter().any(|left| left.why == LeftReason::Backup);
        Ok(MoveReport { copy, removed, left, waiting_for_backup })
    }

    fn node(&self, point: &Point) -> Node {
        (self.set.id, point.id, point.state_root)
    }

    /// Proves what was there already of what the points are read from and was not copied now: the
    /// only file that is sure to be good is about to go.
    fn prove_present(&self, wanted: &[&Point], copy: &CopyReport) -> Result<()> {
        if wanted.is_empty() {
            return Ok(());
        }
        let copied: HashSet<&str> = copy.copied.iter().map(|copied| copied.file.as_str()).collect();
        let keys = &self.set.keys;
        let (folder, _) = Folder::scan_keyed(self.to, keys, Trust::Catalogue, self.job)?;
        let gone = || Error::Changed { what: format!("set {} is gone", self.set.id) };
        let set = folder.set(self.set.id).ok_or_else(gone)?;
        let mut seen: HashSet<String> = HashSet::new();
        // The newest first: the chain of each holds many of the others.
        for wanted in wanted.iter().rev() {
            let point = set.points.iter().find(|point| point.link() == wanted.link());
            let point = point.ok_or_else(gone)?;
            if seen.contains(&point.file) {
                continue;
            }
            if point.locked {
                // All of its chain has the same key.
                for point in set.chain(point)? {
                    if seen.insert(point.file.clone()) && !copied.contains(point.file.as_str()) {
                        self.prove_locked(point)?;
                    }
                }
                continue;
            }
            let mut next = Some(View::of_point(self.to, set, point)?);
            while let Some(view) = next.filter(|view| seen.insert(view.file().to_owned())) {
                if !copied.contains(view.file()) {
                    view.prove_newest(Depth::Stored, self.job)?;
                }
                next = view.parent();
            }
        }
        Ok(())
    }

    /// Proves that a file of the destination, which is locked, holds the bytes of one that is to
    /// go. Its trailer names the hash of all of them, and nothing else about it can be proven.
    fn prove_locked(&self, there: &Point) -> Result<()> {
        let open = |storage, file| open(storage, file, Head::Read, &Keys::none());
        let image = open(self.to, &there.file)?;
        let in_file = |error| Error::in_file(&there.file, error);
        let report = image.verify(Depth::Stored, self.job).map_err(in_file)?;
        if let Some(damage) = report.damage.into_iter().next() {
            return Err(in_file(damage.into()));
        }
        if let Some(here) = self.set.provider(there.link()) {
            let here = open(self.from, &here.file)?;
            if (here.trailer(), here.superblock()) == (image.trailer(), image.superblock()) {
                return Ok(());
            }
        }
        Err(Error::LockedThere { point: there.id, file: there.file.clone() })
    }

    /// Proves that whoever can open what is to go can open it in the destination: files that were
    /// there may have the key slots of long ago.
    fn prove_slots(&self, wanted: &[&Point]) -> Result<()> {
        let keys: BTreeSet<[u8; 32]> =
            wanted.iter().filter_map(|point| Some(point.protection.key()?.0)).collect();
        if keys.is_empty() {
            return Ok(());
        }
        let here = keyed_chains(self.from, self.job)?.chains;
        let there = keyed_chains(self.to, self.job)?.chains;
        for commitment in keys {
            let of = |chains: &[KeyedChain]| {
                let chain = chains.iter().find(|chain| chain.commitment.0 == commitment);
                chain.map_or_else(Vec::new, KeyedChain::areas)
            };
            let is_ours = |area: &KeyArea| {
                let key = self.set.keys.find(&commitment);
                key.is_none_or(|key| area.prove(key).is_ok())
            };
            let newest = of(&here).into_iter().find(is_ours);
            if newest.is_some_and(|newest| !of(&there).contains(&newest)) {
                return Err(Error::SlotsBehind { key: Digest(commitment) });
            }
        }
        Ok(())
    }

    /// A file that one folder gets must not be seen in the other: neither are they the same, nor
    /// does one lie in the other.
    fn refuse_same_folder(&self, new_ids: &mut NewIds<'_>) -> Result<()> {
        let probe = format!("probe-{}-{}{MERGE_PART}", self.set.id, new_ids().suffix());
        for (here, there) in [(self.to, self.from), (self.from, self.to)] {
            drop(here.create(&probe).map_err(Error::io(format!("creating {probe}")))?);
            let seen = list(there);
            here.remove(&probe).map_err(Error::io(format!("removing {probe}")))?;
            let is_probe = |name: &str| name.rsplit('/').next() == Some(&probe);
            if seen?.iter().any(|entry| is_probe(&entry.name)) {
                return Err(Error::SameFolder);
            }
        }
        Ok(())
    }
}

/// Refuses to take away what others build on that stay, whatever is wrong with them.
fn refuse_needed(all: &[Facts], moved: &HashSet<Node>) -> Result<()> {
    let stays = all.iter().filter(|facts| !moved.contains(&node(facts)));
    for facts in stays {
        if let Some(parent) = parent_node(facts).filter(|parent| moved.contains(parent)) {
            return Err(Error::Needed { point: parent.1, by: facts.point });
        }
    }
    Ok(())
}
