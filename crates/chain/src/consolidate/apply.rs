//! Carries a plan out. Nothing is removed before what takes its place is written, proven,
//! published and durable.

use std::collections::HashSet;
use std::time::Duration;

use aiv_image_format::{Compression, Depth, Digest, ImageKind, Keys, ParentLink, PointId, SetId};
use aiv_volume_io::{Job, Lease, Storage};

use super::{ConsolidationPlan, PlannedPoint, PlannedRun};
use crate::ancestry::{Node, node};
use crate::census::Census;
use crate::error::{Error, Result};
use crate::facts::Facts;
use crate::folder::{Folder, Set, check_key};
use crate::merge::{
    Merge, MergeOptions, NewIds, bytes_with_parity, remove_stale, split_of, take_lease,
};
use crate::removal::{LeftFile, LeftReason, Removal, Removed};
use crate::scan::Trust;
use crate::view::View;

/// How to consolidate.
#[derive(Debug, Clone, Copy)]
pub struct ConsolidateOptions {
    /// For the few blocks that have to be stored anew.
    pub compression: Compression,
    /// Bytes of a file at most, from 64 MiB: larger images are split. `None` splits where what is
    /// merged was split.
    pub split: Option<u64>,
    /// Parity over the whole of each new image, also where none of those it is made of had it.
    pub parity: bool,
    /// Time to wait for a running backup to end before the old files are left alone.
    pub patience: Duration,
}

/// What a consolidation did.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ConsolidationReport {
    /// Images that were written, oldest first.
    pub merged: Vec<MergedImage>,
    /// Files that were removed, in this order.
    pub removed: Vec<String>,
    /// Files that were to be removed and are still there. Nothing is wrong with that; the next
    /// consolidation removes them.
    pub left: Vec<LeftFile>,
    /// Whether some were left because a backup of the set runs, or was interrupted.
    pub waiting_for_backup: bool,
    /// Files of merges that a crash interrupted.
    pub stale_removed: Vec<String>,
}

/// An image that takes the place of several.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MergedImage {
    /// Name of the file in the folder.
    pub file: String,
    /// The point it provides.
    pub point: PointId,
    /// Full, incremental or differential.
    pub kind: ImageKind,
    /// Name of the state.
    pub state_root: Digest,
    /// Bytes of the file, or of all its segments.
    pub bytes: u64,
    /// Files the image is split into; 1 when it is not.
    pub segments: u32,
    /// The points it took in and no longer provides, oldest first.
    pub dropped: Vec<PointId>,
}

/// The lease that keeps others from merging and copying images of a set in a folder.
struct Folding<'a> {
    set: SetId,
    keys: &'a Keys,
    storage: &'a dyn Storage,
    lease: Box<dyn Lease>,
    patience: Duration,
    report: ConsolidationReport,
    job: Job<'a>,
}

impl ConsolidationPlan {
    /// Writes the merged images and removes what they took in.
    ///
    /// When this returns `Ok`, every point of [`ConsolidationPlan::kept`] is provided by files
    /// that are durable and were proven. Files that could not be removed safely, also because a
    /// backup runs, are named in the report and do no harm. On an error every point that could
    /// be restored before still can be, and another consolidation goes on from there.
    ///
    /// # Errors
    /// Before anything is written: [`Error::NotRestorable`] when the key of images that have one
    /// was not given, also for images that are only authenticated. [`Error::Busy`] when somebody
    /// else merges or copies images of the set, [`Error::NoSpace`], [`Error::Changed`] when the
    /// folder is no longer what was planned for, [`Error::InDoubt`] when it holds a file that
    /// nobody can look into, [`Error::Image`] and [`Error::NotRestorable`] when an image is
    /// damaged, [`Error::ReadBack`], [`Error::Io`], [`Error::Canceled`].
    pub fn apply(
        &self,
        storage: &dyn Storage,
        options: &ConsolidateOptions,
        new_ids: &mut NewIds<'_>,
        job: Job<'_>,
    ) -> Result<ConsolidationReport> {
        let ConsolidateOptions { compression, parity, split, patience } = *options;
        let merging = MergeOptions { compression, parity, split };
        for run in &self.runs {
            check_key(run.result.link.point, run.protection, &self.keys)?;
        }
        let lease = take_lease(storage, self.set)?;
        let report = ConsolidationReport {
            stale_removed: remove_stale(storage, self.set)?,
            ..ConsolidationReport::default()
        };
        // Better known before anything is written than when nothing can be removed for it.
        Census::default().take(storage, job)?.check_doubts(storage, self.set)?;
        let (set, keys) = (self.set, &self.keys);
        let mut folding = Folding { set, keys, storage, lease, patience, report, job };
        folding.finish(&self.leftovers)?;
        for run in &self.runs {
            folding.merge(run, merging, new_ids)?;
        }
        let report = &mut folding.report;
        report.waiting_for_backup = report.left.iter().any(|left| left.why == LeftReason::Backup);
        Ok(folding.report)
    }
}

impl Folding<'_> {
    /// Removes what earlier consolidations left.
    fn finish(&mut self, leftovers: &[PlannedPoint]) -> Result<()> {
        if leftovers.is_empty() {
            return Ok(());
        }
        let dropped: HashSet<Node> = leftovers.iter().map(|p| self.node(p.link)).collect();
        self.prove_what_stays(&dropped, None)?;
        self.remove(&dropped)
    }

    /// Where two files provide a point that stays and one of them is about to go, proves the
    /// other: it was right when it was published, which may be long ago. Not that of `written`,
    /// which was written just now.
    fn prove_what_stays(&self, dropped: &HashSet<Node>, written: Option<ParentLink>) -> Result<()> {
        let now = Census::default().take(self.storage, self.job)?;
        let going = now.going(dropped);
        let links = going.iter().map(|facts| node(facts)).filter(|node| !dropped.contains(node));
        let links = links.map(|(_, point, state_root)| ParentLink { point, state_root });
        let mut links: Vec<ParentLink> = links.filter(|&link| Some(link) != written).collect();
        links.sort_by_key(|link| (link.point, link.state_root.0));
        links.dedup();
        if links.is_empty() {
            return Ok(());
        }
        // A copy that is known to be damaged is not what the point is read from.
        let (_, catalogue) = Folder::scan_with(self.storage, self.job)?;
        let files: HashSet<&str> = going.iter().map(|facts| facts.file.as_str()).collect();
        let stays = now.all.iter().filter(|facts| !files.contains(facts.file.as_str()));
        let verified =
            |facts: &Facts| Facts { verified: catalogue.verified(&facts.file), ..facts.clone() };
        let stays: Vec<Facts> = stays.map(verified).collect();
        let folder = Folder::assemble(&stays, false, Vec::new()).with_keys(self.keys);
        for link in links {
            let what = || format!("point {} builds on one that goes", link.point);
            let found = folder.any_set(self.set).and_then(|set| Some((set, set.provider(link)?)));
            // The census looks without keys: what it calls locked is opened with them.
            let found = found.filter(|(_, point)| point.is_whole());
            let (set, point) = found.ok_or_else(|| Error::Changed { what: what() })?;
            let view = View::of_point_whole(self.storage, set, point)?;
            view.prove_newest(Depth::Stored, self.job)?;
        }
        Ok(())
    }

    fn merge(
        &mut self,
        run: &PlannedRun,
        options: MergeOptions,
        new_ids: &mut NewIds<'_>,
    ) -> Result<()> {
        // Again for each run: the one before changed it.
        let (folder, _) = Folder::scan_keyed(self.storage, self.keys, Trust::Catalogue, self.job)?;
        let set = self.set(&folder)?;
        let changed = |what: &str| {
            let what = format!("point {} {what}", run.result.link.point);
            Error::Changed { what }
        };
        let point = set.points.iter().find(|point| point.link() == run.result.link);
        let point = point.ok_or_else(|| changed("is gone"))?;
        let chain = set.chain(point)?;
        let count = run.drops.len() + 1;
        let drops = run.drops.iter().rev().map(|drop| drop.link);
        let in_between = chain.iter().skip(1).take(run.drops.len()).map(|point| point.link());
        let oldest = chain.get(count - 1);
        if !drops.eq(in_between) || oldest.is_none_or(|oldest| oldest.parent != run.parent) {
            return Err(changed("builds on other points"));
        }
        let free = self.storage.free_bytes().map_err(Error::io("asking for free space"))?;
        let needed = match options.parity && !run.has_parity {
            true => bytes_with_parity(run.bytes_max),
            false => run.bytes_max,
        };
        if let Some(free) = free.filter(|&free| free < needed) {
            return Err(Error::no_space(self.storage, needed, free));
        }
        let view = View::of_point(self.storage, set, point)?;
        let split = split_of(options.split, &view, count, needed)?;
        let options = MergeOptions { split, ..options };
        let job = self.job;
        let merge =
            Merge { view: &view, from: None, count, options, ids: new_ids(), name: None, job };
        let merged = merge.write(self.storage, &|| {
            self.lease.check().map_err(Error::io("checking the lease before publishing"))
        })?;
        self.report.merged.push(MergedImage {
            file: merged.file,
            point: run.result.link.point,
            kind: run.kind,
            state_root: merged.trailer.state_root,
            bytes: merged.bytes,
            segments: merged.segments,
            dropped: run.drops.iter().map(|drop| drop.link.point).collect(),
        });
        let dropped: HashSet<Node> = run.drops.iter().map(|p| self.node(p.link)).collect();
        self.prove_what_stays(&dropped, Some(run.result.link))?;
        self.remove(&dropped)
    }

    fn remove(&mut self, dropped: &HashSet<Node>) -> Result<()> {
        let removal = Removal {
            storage: self.storage,
            set: self.set,
            lease: &*self.lease,
            dropped,
            only: None,
            also: &|_| Ok(()),
            job: self.job,
        };
        let Removed { removed, left } = removal.run(&mut self.patience)?;
        self.report.removed.extend(removed);
        self.report.left.extend(left);
        Ok(())
    }

    fn set<'f>(&self, folder: &'f Folder) -> Result<&'f Set> {
        let gone = || Error::Changed { what: format!("set {} is gone", self.set) };
        folder.set(self.set).ok_or_else(gone)
    }

    fn node(&self, link: ParentLink) -> Node {
        (self.set, link.point, link.state_root)
    }
}
