//! Carries a plan out: one image, proven before it is published.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aiv_chain::{Folder, StrayKind, Trust};
use aiv_image_format::meta::Inventory;
use aiv_image_format::{
    Digest, Geometry, GroupId, ImageId, ImageKind, PointId, SessionTag, SetId, Totals,
};
use aiv_volume_io::{Extent, Job, Lease, ReadAt, Storage};

use crate::attempt::{About, Base, Inputs};
use crate::base::{Bases, LostPoint};
use crate::error::{Error, Refusal, Result};
use crate::facts::Basis;
use crate::hints::HintReport;
use crate::hold::HeldSource;
use crate::identity::set_id;
use crate::pace::RateLimit;
use crate::parent::Parent;
use crate::plan::{BackupPlan, PlanNote};
use crate::resume::{Leftovers, Resumed};
use crate::seal;
use crate::watched::{Watched, is_believed};

/// Random ids and the time: inputs, so that the same inputs give the same image.
#[derive(Debug, Clone, Copy)]
pub struct BackupIds {
    pub(crate) image: ImageId,
    pub(crate) point: PointId,
    pub(crate) group: GroupId,
    pub(crate) session: SessionTag,
    pub(crate) suffix: [u8; 4],
    pub(crate) time_unix_ms: u64,
}

impl BackupIds {
    /// Random bytes one backup needs.
    pub const RANDOM_LEN: usize = 48;

    /// Ids from `random` bytes, which must never be used twice. `group` ties the images of
    /// several disks backed up together. `time_unix_ms` is now, in milliseconds since 1970 UTC.
    #[must_use]
    pub fn new(random: &[u8; Self::RANDOM_LEN], group: GroupId, time_unix_ms: u64) -> Self {
        fn part<const N: usize>(random: &[u8], at: usize) -> [u8; N] {
            let mut out = [0; N];
            out.copy_from_slice(&random[at..at + N]);
            out
        }
        Self {
            image: ImageId(part(random, 0)),
            point: PointId(part(random, 16)),
            session: SessionTag(part(random, 32)),
            suffix: part(random, 44),
            group,
            time_unix_ms,
        }
    }

    /// Ids for another try at the same image: sessions are never used twice.
    pub(crate) fn of_attempt(self, attempt: u8) -> Self {
        let mut ids = self;
        ids.image.0[0] ^= attempt;
        ids.session.0[0] ^= attempt;
        ids
    }

    /// Ids for an image in place of one that was gone on with and turned out to be of no use.
    /// There are fewer than 128 attempts.
    pub(crate) fn anew(self) -> Self {
        self.of_attempt(0x80)
    }
}

/// What a backup did.
#[derive(Debug, Clone)]
pub struct BackupReport {
    /// Name of the image in the folder.
    pub image: String,
    /// Full, incremental or differential.
    pub kind: ImageKind,
    /// The new recovery point.
    pub recovery_point: PointId,
    /// The point it builds on; `None` for a full image.
    pub parent: Option<PointId>,
    /// Where the source of that point was found, when it was on the same host.
    pub parent_source: Option<String>,
    /// Name of the state.
    pub state_root: Digest,
    /// Hash of the bytes.
    pub content_root: Digest,
    /// Bytes of the source.
    pub bytes_source: u64,
    /// Bytes that matter by the filesystems' account.
    pub bytes_used: u64,
    /// Bytes read from the source.
    pub bytes_read: u64,
    /// Bytes of the image, in all its segments.
    pub bytes_stored: u64,
    /// Files the image is split into; 1 when it is not.
    pub segments: u32,
    /// Blocks of the source.
    pub blocks: u64,
    /// Blocks the image decides, by kind; all others are as in the point it builds on.
    pub totals: Totals,
    /// Ranges that matter and could not be read, ascending. Exact up to 262,144 ranges; where
    /// there are more, they are rounded out until they are as few.
    pub unreadable: Vec<Extent>,
    /// Whether every frame was read back and compared, not only the structures.
    pub verified: bool,
    /// What the plan wanted the user to know.
    pub notes: Vec<PlanNote>,
    /// Points of this source that can no longer be relied on: those newer than the one the image
    /// builds on, and all whose file is gone or cannot be opened.
    pub lost: Vec<LostPoint>,
    /// Damage met in the chain the image builds on: blocks that are the same as then cannot be
    /// restored where it is. Verify the folder.
    pub parent_damage: Option<String>,
    /// What became of the word of a change tracker, if the caller named one.
    pub hint: Option<HintReport>,
    /// Leftovers of interrupted backups of this source that were removed.
    pub leftovers_removed: Vec<String>,
    /// Whether the image is the first with its key.
    pub begins_key: bool,
    /// Whether it is, and the source has images with a key that was not given: what opens those
    /// does not open this one.
    pub leaves_key: bool,
    /// The interrupted backup that this one went on with, if it did.
    pub resumed: Option<Resumed>,
    /// Why an interrupted backup with the same plan was not gone on with but begun anew, if
    /// there was one: a clause.
    pub not_resumed: Option<String>,
}

impl BackupReport {
    /// Writes the new image into the catalogue of the folder, so that the next scan need not
    /// open it, and takes the points out that were reported as lost with their files. Callers
    /// may ignore that it fails: the catalogue can be made again at any time.
    ///
    /// # Errors
    /// Those of [`Folder::scan_with`] and [`aiv_chain::Catalogue::write`].
    pub fn remember(&self, storage: &dyn Storage, job: Job<'_>) -> aiv_chain::Result<()> {
        let (folder, mut catalogue) = Folder::scan_with(storage, job)?;
        let gone = folder.vanished.iter().map(|gone| gone.point);
        for point in gone.filter(|point| self.lost.iter().any(|lost| lost.id == Some(*point))) {
            catalogue.forget(point);
        }
        catalogue.write(storage)
    }
}

impl BackupPlan {
    /// Reads the source and writes one image into `storage`: of all of it, or of what changed
    /// since the point it builds on. When that point, or one it needs itself, turns out to be
    /// damaged, the image builds on the newest intact one instead, or is full, and the report
    /// lists the points that are lost.
    ///
    /// When this returns `Ok`, every byte was accepted by the storage and synced, and the image
    /// was opened and its structures were checked; with the `verify` option, and when the image
    /// was gone on with, every block was read back too. On any error the temporary file is removed
    /// as far as the storage allows, unless the error is [`Error::Interrupted`], and published
    /// images are untouched.
    ///
    /// # Errors
    /// See [`Error`]. An error of the last step, the sync of the folder, leaves a complete
    /// image that may not survive a power cut.
    pub fn apply(
        &self,
        source: &dyn ReadAt,
        storage: &dyn Storage,
        ids: &BackupIds,
        inventory: &Inventory,
        limit: Option<RateLimit<'_>>,
        job: Job<'_>,
    ) -> Result<BackupReport> {
        self.apply_held(source.into(), storage, ids, inventory, limit, job)
    }

    /// As [`apply`](Self::apply), of a source that something keeps from changing. It is let go as
    /// soon as every byte was read and the image was sealed; damage of the chain that is only
    /// found after that, while the image is read back, ends the backup, because the source cannot
    /// be read again.
    ///
    /// # Errors
    /// Those of [`apply`](Self::apply), [`Error::NotHeld`], and [`Error::Parent`].
    pub fn apply_held(
        &self,
        source: HeldSource<'_>,
        storage: &dyn Storage,
        ids: &BackupIds,
        inventory: &Inventory,
        limit: Option<RateLimit<'_>>,
        job: Job<'_>,
    ) -> Result<BackupReport> {
        let set = set_id(&self.source_id);
        let lease = self.lease(storage, set, job)?;
        let leftovers = Leftovers::find(storage, set)?;
        let options = self.options.seal.as_ref();
        let (folder, _) = Folder::scan_keyed(storage, &seal::keys(options), Trust::Catalogue, job)
            .map_err(Error::Folder)?;
        refuse_unreadable(&folder)?;
        seal::check_newest(&folder, set, options, self.options.basis)?;
        let mut bases = Bases::find(&folder, storage, set, self);
        let new_identity = self.new_identity(&folder, set);
        let released = AtomicBool::new(false);
        let released = &released;
        let changes = self.options.changes.as_deref();
        let watched = &Watched::look(source.trackers, changes, self.geometry.len(), job)?;
        let lease = &*lease;
        let set = bases.set;
        let inputs =
            Inputs { source, watched, released, storage, inventory, limit, lease, set, job };
        let mut leftovers = Some(leftovers);
        let mut removed = Vec::new();
        let mut attempt = 0;
        loop {
            let base = self.base(&mut bases, storage, job)?;
            let point = base.parent.as_ref().map(|parent| parent.view.point());
            let number = base.increment_number;
            let hint = watched.hint(self, base.parent.as_ref(), number, job)?;
            let seal = self.seal(&inputs, &base)?;
            let mut candidate = None;
            if let Some(leftovers) = leftovers.take() {
                // Where a tracker is believed there is little to read.
                let goes_on = self.options.resume && self.may_be_gone_on_with(seal.as_ref());
                if goes_on && !is_believed(&hint) {
                    let wanted = self.wanted(ids, &base, &hint, seal.as_ref());
                    candidate = leftovers.choose(storage, &wanted, &folder);
                }
                let set = set_id(&self.source_id);
                removed = leftovers.remove(storage, set, candidate.as_ref())?;
            }
            let about = About { base: &base, seal: seal.as_ref() };
            let mut made = self.make(&inputs, &ids.of_attempt(attempt), about, &hint, candidate);
            if let Err(Error::Hint(failure)) = made {
                // Whatever it was, all of the source is read now.
                attempt += 1;
                let hint = Some(Err(failure.into()));
                made = self.make(&inputs, &ids.of_attempt(attempt), about, &hint, None);
            }
            let report = match (made, point) {
                // Damage of the chain: an older point may do, and a full image always does.
                (Err(Error::Parent(error)), Some(point)) if !released.load(Ordering::Relaxed) => {
                    bases.gave_up(point, &error);
                    // Bounded by the number of candidates, and the attempt without any is last.
                    attempt += 1;
                    continue;
                }
                (made, _) => made?,
            };
            let notes = self.notes.iter().cloned().chain(new_identity).collect();
            let leftovers_removed = removed.into_iter().chain(report.leftovers_removed).collect();
            return Ok(BackupReport { leftovers_removed, lost: bases.lost, notes, ..report });
        }
    }

    /// Takes the lease of the set. A consolidation holds it for moments, a backup for its whole
    /// time: waiting a little tells them apart.
    fn lease(&self, storage: &dyn Storage, set: SetId, job: Job<'_>) -> Result<Box<dyn Lease>> {
        const PAUSE: Duration = Duration::from_millis(100);
        let mut waited = Duration::ZERO;
        loop {
            match storage.lease(&format!("set-{set}")) {
                Ok(lease) => return Ok(lease),
                Err(source) if source.kind() != std::io::ErrorKind::WouldBlock => {
                    let op = "taking the lease of the set".to_owned();
                    return Err(Error::Destination { op, source });
                }
                Err(_) if waited >= self.options.patience => {
                    return Err(Error::Busy { source_id: self.source_id.clone() });
                }
                Err(_) => {
                    job.check()?;
                    std::thread::sleep(PAUSE);
                    waited += PAUSE;
                }
            }
        }
    }

    /// Whether the first image of a set has the name of another one.
    fn new_identity(&self, folder: &Folder, set: SetId) -> Option<PlanNote> {
        let same_name = |other: &&aiv_chain::Set| {
            (&other.name, &other.host) == (&self.facts.name, &self.facts.host)
        };
        let other = folder.sets.iter().find(same_name).filter(|_| folder.set(set).is_none())?;
        Some(PlanNote::NewIdentity { before: other.source_id.clone() })
    }

    /// What the image builds on, and its numbers.
    fn base(&self, bases: &mut Bases<'_>, storage: &dyn Storage, job: Job<'_>) -> Result<Base> {
        let Some(view) = bases.next(storage, job)? else {
            return Ok(Base {
                geometry: self.geometry,
                parent: None,
                kind: ImageKind::Full,
                full_number: bases.full_number.saturating_add(1),
                increment_number: 0,
            });
        };
        let (block_size, len) = (view.geometry().block_size(), self.geometry.len());
        let geometry = Geometry::new(len, block_size, self.geometry.sector_size());
        let geometry = geometry.ok_or(Refusal::BlockSize { len, block_size: block_size.get() })?;
        let kind = match self.options.basis {
            Basis::NewestFull => ImageKind::Differential,
            _ => ImageKind::Incremental,
        };
        Ok(Base {
            geometry,
            parent: Some(Parent::new(view, &geometry, self.options.deltas)),
            kind,
            full_number: bases.full_number,
            increment_number: bases.increment_number.saturating_add(1),
        })
    }
}

/// A file that cannot be read now may hold the newest point of the set: a backup that did not
/// know of it could take its number, and pass for older than it is.
fn refuse_unreadable(folder: &Folder) -> Result<()> {
    let unreadable = folder.strays.iter().find_map(|stray| match &stray.kind {
        StrayKind::Unreadable(why) => Some((&stray.file, why)),
        _ => None,
    });
    match unreadable {
        None => Ok(()),
        Some((file, why)) => Err(Error::Destination {
            op: format!("reading {file} in the destination folder"),
            source: std::io::Error::other(why.clone()),
        }),
    }
}
