//! Who watched a source, and whether its word may be taken on top of a parent.

use aiv_image_format::Digest;
use aiv_image_format::limits::{TRACKERS_MAX, WITNESSES_MAX};
use aiv_image_format::meta::{Consistency, ReliedOn, SeenTracker, Trackers};
use aiv_volume_io::{ChangeTracker, Extent, ExtentSet, Job, TrackerFacts, Watch};

use crate::error::{Error, Result};
use crate::hints::{Hint, HintReport, NotUsed, WINDOW, changed};
use crate::parent::Parent;
use crate::plan::BackupPlan;

/// Whether the tracker the caller named is believed, if he named one.
pub(crate) type Asked<'h> = Option<std::result::Result<Hint<'h>, NotUsed>>;

/// Whether what did not change is told by a tracker.
pub(crate) const fn is_believed(asked: &Asked<'_>) -> bool {
    matches!(asked, Some(Ok(_)))
}

/// All trackers of a source, and what they had marked before anything was read.
pub(crate) struct Watched<'a> {
    trackers: &'a [Box<dyn ChangeTracker>],
    seen: Vec<SeenTracker>,
}

impl<'a> Watched<'a> {
    /// Asks every tracker that records what it has marked until now. One that cannot answer was
    /// not seen.
    pub(crate) fn look(
        trackers: &'a [Box<dyn ChangeTracker>],
        wanted: Option<&str>,
        len: u64,
        job: Job<'_>,
    ) -> Result<Self> {
        let mut seen = Vec::new();
        // The one that is wanted first: it must not fall victim to the limit.
        let mut ordered: Vec<_> = trackers.iter().collect();
        ordered.sort_by_key(|tracker| Some(&*tracker.facts().name) != wanted);
        for tracker in ordered.into_iter().take(TRACKERS_MAX) {
            let facts = tracker.facts();
            let same = |s: &SeenTracker| (&*s.kind, &s.name) == (facts.kind, &facts.name);
            if facts.unsound.is_none() && !seen.iter().any(same) {
                seen.extend(marks(&**tracker, len, job)?);
            }
        }
        Ok(Self { trackers, seen })
    }

    /// What the image has to say about them.
    pub(crate) fn meta(&self, plan: &BackupPlan, report: Option<&HintReport>) -> Trackers {
        // One that has ended would say the same on top of this point, whatever was written since.
        let has_ended = |seen: &SeenTracker| {
            let is_it =
                |facts: &TrackerFacts| (&*seen.kind, &seen.name) == (facts.kind, &facts.name);
            let tracker = self.trackers.iter().find(|tracker| is_it(tracker.facts()));
            tracker.is_some_and(|tracker| tracker.watch() == Watch::Ended)
        };
        let mut seen: Vec<SeenTracker> =
            self.seen.iter().filter(|seen| !has_ended(seen)).cloned().collect();
        let mut relied_on = None;
        if let Some(report) = report {
            // The change may be older than this tracker, and have been missed by another one.
            let lied_at = match report.not_used {
                Some(NotUsed::Lied { offset } | NotUsed::Distrusted { offset }) => Some(offset),
                _ => None,
            };
            seen.iter_mut().for_each(|tracker| tracker.lied_at = lied_at);
            if report.not_used.is_none() {
                relied_on = Some(ReliedOn {
                    name: report.tracker.clone(),
                    bytes_skipped: report.bytes_skipped,
                    bytes_audited: report.bytes_audited,
                });
            }
        }
        if seen.is_empty() && relied_on.is_none() {
            return Trackers::default();
        }
        Trackers { used: digest_of(&plan.used), seen, relied_on }
    }

    /// Whether the word of the tracker the caller named is taken for changes since `parent`.
    pub(crate) fn hint(
        &self,
        plan: &BackupPlan,
        parent: Option<&Parent>,
        increment_number: u32,
        job: Job<'_>,
    ) -> Result<Asked<'a>> {
        let Some(name) = &plan.options.changes else { return Ok(None) };
        self.judge(name, plan, parent, increment_number, job).map(Some)
    }

    fn judge(
        &self,
        name: &str,
        plan: &BackupPlan,
        parent: Option<&Parent>,
        increment_number: u32,
        job: Job<'_>,
    ) -> Result<std::result::Result<Hint<'a>, NotUsed>> {
        let found = self.trackers.iter().find(|tracker| tracker.facts().name == name);
        let Some(tracker) = found else { return Ok(Err(NotUsed::Missing)) };
        let facts = tracker.facts();
        if let Some(why) = &facts.unsound {
            return Ok(Err(NotUsed::Unsound(why.clone())));
        }
        if tracker.watch() == Watch::Begins {
            return Ok(Err(NotUsed::Begins));
        }
        let now = |s: &&SeenTracker| (&*s.kind, &s.name) == (facts.kind, &facts.name);
        let Some(now) = self.seen.iter().find(now) else {
            return Ok(Err(NotUsed::Failed("they contradict themselves".to_owned())));
        };
        let Some(parent) = parent else { return Ok(Err(NotUsed::Full)) };
        if plan.consistency == Consistency::Inconsistent {
            return Ok(Err(NotUsed::InUse));
        }
        let before = &parent.view.image().meta().trackers;
        if let Err(why) = bound(before, now, facts, &**tracker) {
            return Ok(Err(why));
        }
        if parent.view.geometry().len() != plan.geometry.len() {
            return Ok(Err(NotUsed::Resized));
        }
        let Some(used) = used_then(plan, parent, before.used, job)? else {
            return Ok(Err(NotUsed::UsedUnknown));
        };
        Ok(Ok(Hint::new(&**tracker, used, increment_number)))
    }
}

/// Whether the parent saw this very tracker, and everything it had marked then is marked still.
fn bound(
    before: &Trackers,
    now: &SeenTracker,
    facts: &TrackerFacts,
    tracker: &dyn ChangeTracker,
) -> std::result::Result<(), NotUsed> {
    let same = |s: &&SeenTracker| (&s.kind, &s.name) == (&now.kind, &now.name);
    let then = before.seen.iter().find(same).ok_or(NotUsed::NotSeen)?;
    if let Some(offset) = then.lied_at {
        return Err(NotUsed::Distrusted { offset });
    }
    if then.granularity != facts.granularity {
        return Err(NotUsed::Other);
    }
    if then.beneath != now.beneath {
        return Err(NotUsed::Beneath);
    }
    if now.marked < then.marked {
        return Err(NotUsed::Cleared);
    }
    for &at in &then.witnesses {
        match tracker.changed(Extent::new(at, 1)) {
            Ok(runs) if runs.iter().any(|run| run.start <= at && at < run.end()) => {}
            Ok(_) => return Err(NotUsed::Cleared),
            Err(error) => return Err(NotUsed::Failed(error.to_string())),
        }
    }
    Ok(())
}

/// What a tracker has marked, counted, with places all over the source that have to stay marked.
/// `None` when it cannot tell.
fn marks(tracker: &dyn ChangeTracker, len: u64, job: Job<'_>) -> Result<Option<SeenTracker>> {
    let facts = tracker.facts();
    let mut marked = 0;
    let mut witnesses: Vec<u64> = Vec::new();
    // Of more runs than can be kept, every second, fourth ... is.
    let (mut every, mut count) = (1u64, 0u64);
    let mut at = 0;
    while at < len {
        job.check()?;
        let window = Extent::between(at, at.saturating_add(WINDOW).min(len));
        let Ok(runs) = changed(tracker, window) else { return Ok(None) };
        for run in runs.runs() {
            marked += run.len;
            if count.is_multiple_of(every) {
                if witnesses.len() == WITNESSES_MAX {
                    let mut nth = 0;
                    witnesses.retain(|_| {
                        nth += 1;
                        nth % 2 == 1
                    });
                    every = every.saturating_mul(2);
                }
                if count.is_multiple_of(every) {
                    witnesses.push(run.start);
                }
            }
            count += 1;
        }
        at = window.end();
    }
    Ok(Some(SeenTracker {
        kind: facts.kind.to_owned(),
        name: facts.name.clone(),
        granularity: facts.granularity,
        beneath: Digest(facts.beneath),
        marked,
        witnesses,
        lied_at: None,
    }))
}

/// Names a set of bytes.
fn digest_of(used: &ExtentSet) -> Digest {
    let mut hasher = blake3::Hasher::new();
    for run in used.runs() {
        hasher.update(&run.start.to_le_bytes()).update(&run.len.to_le_bytes());
    }
    Digest(*hasher.finalize().as_bytes())
}

/// The bytes that mattered at the parent, worked out from the parent as from a disk. `None`
/// when these are not those: it was made by another version, with other patterns.
fn used_then(
    plan: &BackupPlan,
    parent: &Parent,
    expected: Digest,
    job: Job<'_>,
) -> Result<Option<ExtentSet>> {
    let mut facts = plan.facts.clone();
    facts.writers.clear();
    let silent = Job { progress: Job::silent().progress, ..job };
    let then = match BackupPlan::new(&parent.view, facts, plan.options.clone(), silent) {
        Ok(then) => then,
        Err(Error::Canceled(canceled)) => return Err(canceled.into()),
        Err(_) => return Ok(None),
    };
    Ok((digest_of(&then.used) == expected).then_some(then.used))
}
