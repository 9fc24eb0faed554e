//! Carries a plan out: one image, proven before it is published.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aiv_chain::{Folder, ImageName, MERGE_PART, StrayKind, image_name, suffix};
use aiv_image_format::meta::{Capture as Captured, Inventory, Manifest, Meta};
use aiv_image_format::{
    Depth, Digest, Features, Geometry, GroupId, Image, ImageId, ImageKind, ImageWriter,
    ParentState, PointId, SPECIFICATION, SessionTag, SetId, Superblock, Totals, peek_set,
};
use aiv_volume_io::{Extent, Job, Lease, ReadAt, Storage};

use crate::base::{Bases, LostPoint, causes};
use crate::error::{Error, Refusal, Result};
use crate::facts::{Basis, Sectors};
use crate::hints::HintReport;
use crate::hold::HeldSource;
use crate::identity::set_id;
use crate::pace::{Pacer, RateLimit};
use crate::parent::Parent;
use crate::pipeline::{self, Capture};
use crate::plan::{BackupPlan, PlanNote};
use crate::watched::{Asked, Watched};

/// Random ids and the time: inputs, so that the same inputs give the same image.
#[derive(Debug, Clone, Copy)]
pub struct BackupIds {
    image: ImageId,
    point: PointId,
    group: GroupId,
    session: SessionTag,
    suffix: [u8; 4],
    time_unix_ms: u64,
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
    fn of_attempt(self, attempt: u8) -> Self {
        let mut ids = self;
        ids.image.0[0] ^= attempt;
        ids.session.0[0] ^= attempt;
        ids
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
    /// Bytes of the image.
    pub bytes_stored: u64,
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

const PART: &str = ".part";

impl BackupPlan {
    /// Reads the source and writes one image into `storage`: of all of it, or of what changed
    /// since the point it builds on. When that point, or one it needs itself, turns out to be
    /// damaged, the image builds on the newest intact one instead, or is full, and the report
    /// lists the points that are lost.
    ///
    /// When this returns `Ok`, every byte was accepted by the storage and synced, and the image
    /// was opened and its structures were checked; with the `verify` option, every block was
    /// read back too. On any error the temporary file is removed as far as the storage allows,
    /// and published images are untouched.
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
        let leftovers_removed = remove_leftovers(storage, set)?;
        let folder = Folder::scan(storage, job).map_err(Error::Folder)?;
        refuse_unreadable(&folder)?;
        let mut bases = Bases::find(&folder, storage, set, self);
        let new_identity = self.new_identity(&folder, set);
        let released = AtomicBool::new(false);
        let released = &released;
        let changes = self.options.changes.as_deref();
        let watched = &Watched::look(source.trackers, changes, self.geometry.len(), job)?;
        let lease = &*lease;
        let inputs = Inputs { source, watched, released, storage, inventory, limit, lease, job };
        let mut attempt = 0;
        loop {
            let base = self.base(&mut bases, storage, job)?;
            let point = base.parent.as_ref().map(|parent| parent.view.point());
            let number = base.increment_number;
            let hint = watched.hint(self, base.parent.as_ref(), number, job)?;
            let mut made = self.make(&inputs, &ids.of_attempt(attempt), &base, hint);
            if let Err(Error::Hint(failure)) = made {
                // Whatever it was, all of the source is read now.
                attempt += 1;
                let hint = Some(Err(failure.into()));
                made = self.make(&inputs, &ids.of_attempt(attempt), &base, hint);
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

    /// Makes and publishes one image.
    fn make(
        &self,
        inputs: &Inputs<'_>,
        ids: &BackupIds,
        base: &Base,
        hint: Asked<'_>,
    ) -> Result<BackupReport> {
        let Inputs { storage, lease, .. } = *inputs;
        let name = ImageName {
            host: &self.facts.host,
            name: &self.facts.name,
            time_unix_ms: ids.time_unix_ms,
            full_number: base.full_number,
            increment_number: base.parent.is_some().then_some(base.increment_number),
        };
        let image = image_name(&name, &suffix(ids.suffix));
        let part = format!("{image}{PART}");
        // Before anything that removes on error: a taken name is somebody else's file.
        let file = storage
            .create(&part)
            .map_err(|source| Error::Destination { op: format!("creating {part}"), source })?;
        let writer = ImageWriter::create(file, self.superblock(ids, base));
        let outcome = writer
            .map_err(|e| Error::of_image(&image, e))
            .and_then(|writer| self.write(inputs, writer, ids, base, hint, &image));
        if outcome.is_err() {
            // Best effort: the first error is the one that matters, and a leftover is harmless.
            let _ = storage.remove(&part);
        }
        let report = outcome?;
        let publish = |op: &str| {
            let op = format!("{op} {image}");
            move |source| Error::Destination { op, source }
        };
        // Somebody may have taken the set over while this machine slept.
        let published = lease
            .check()
            .map_err(publish("holding the lease for"))
            .and_then(|()| storage.publish(&part, &image).map_err(publish("publishing")));
        if let Err(error) = published {
            let _ = storage.remove(&part);
            return Err(error);
        }
        storage.sync_dir().map_err(publish("making the name durable of"))?;
        Ok(report)
    }

    /// Writes and proves the image under its temporary name.
    fn write(
        &self,
        inputs: &Inputs<'_>,
        mut writer: ImageWriter,
        ids: &BackupIds,
        base: &Base,
        hint: Asked<'_>,
        image: &str,
    ) -> Result<BackupReport> {
        let Inputs { source, watched, released, storage, inventory, limit, job, .. } = *inputs;
        let part = format!("{image}{PART}");
        let in_image = |source| Error::of_image(image, source);
        let pacer = limit.map(Pacer::new);
        let manifest = self.manifest(ids, base);
        let Base { geometry, ref parent, kind, .. } = *base;
        let capture = Capture {
            source: source.disk,
            plan: self,
            geometry,
            parent: parent.as_ref(),
            hint: hint.as_ref().and_then(|hint| hint.as_ref().ok()),
            job,
        };
        let captured = pipeline::run(capture, &mut writer, pacer, image)?;
        job.check()?;
        let unreadable = captured.unreadable.into_runs();
        let tracker = self.options.changes.clone().unwrap_or_default();
        let hint = hint.map(|hint| HintReport {
            tracker,
            bytes_skipped: captured.bytes_skipped,
            bytes_audited: captured.bytes_audited,
            not_used: hint.err(),
        });
        let meta = Meta {
            manifest,
            disk: self.disk.clone(),
            inventory: inventory.clone(),
            source_errors: unreadable.clone(),
            excluded: self.excluded_files.clone(),
            trackers: watched.meta(self, hint.as_ref()),
            // Once per chain: whoever has an increment needs its full image too.
            specification: match parent {
                None => SPECIFICATION.to_owned(),
                Some(_) => String::new(),
            },
            ..Meta::default()
        };
        let state = parent.as_ref().map(|parent| &parent.view as &dyn ParentState);
        let trailer = writer.finish_on(meta, state).map_err(in_image)?.trailer;
        source.release()?;
        released.store(source.hold.is_some(), Ordering::Relaxed);

        let file = storage
            .open(&part)
            .map_err(|source| Error::Destination { op: format!("reading back {part}"), source })?;
        let written = Image::open(Arc::clone(&file)).map_err(in_image)?;
        let depth = if self.options.verify { Depth::Data } else { Depth::Quick };
        let found = match state {
            None => written.verify(depth, job),
            Some(state) => written.verify_on(state, depth, job),
        };
        let found = found.map_err(in_image)?;
        let same = *written.trailer() == trailer;
        if let Some(damage) = found.damage.first() {
            let what = damage.to_string();
            return Err(Error::ReadBack { image: image.to_owned(), what });
        }
        if !same {
            let what = "its trailer is another one".to_owned();
            return Err(Error::ReadBack { image: image.to_owned(), what });
        }
        Ok(BackupReport {
            image: image.to_owned(),
            kind,
            recovery_point: ids.point,
            parent: state.map(|state| state.link().point),
            state_root: trailer.state_root,
            content_root: trailer.content_root,
            bytes_source: self.geometry.len(),
            bytes_used: self.used_bytes(),
            bytes_read: captured.bytes_read,
            bytes_stored: trailer.file_len,
            blocks: geometry.blocks(),
            totals: trailer.totals,
            unreadable,
            verified: self.options.verify,
            notes: Vec::new(),
            lost: Vec::new(),
            parent_damage: parent.as_ref().and_then(Parent::take_damage).map(|e| causes(&e)),
            hint,
            leftovers_removed: Vec::new(),
        })
    }

    fn superblock(&self, ids: &BackupIds, base: &Base) -> Superblock {
        let parent = base.parent.as_ref().map(|parent| parent.view.link());
        // A set bit says that the image may use it: what it will, nobody knows yet.
        let incompat = parent.map_or(0, |_| Features::DELTA | Features::PARENT);
        Superblock {
            features: Features { incompat, ..Features::default() },
            image: ids.image,
            set: set_id(&self.source_id),
            point: ids.point,
            kind: base.kind,
            parent,
            geometry: base.geometry,
            created_unix_ms: ids.time_unix_ms,
            session: ids.session,
            writer: concat!("aivory ", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }

    fn manifest(&self, ids: &BackupIds, base: &Base) -> Manifest {
        Manifest {
            host: self.facts.host.clone(),
            name: self.facts.name.clone(),
            source: self.facts.label.clone(),
            source_id: self.source_id.clone(),
            full_number: base.full_number,
            increment_number: base.increment_number,
            group: ids.group,
            time_unix_ms: ids.time_unix_ms,
            consistency: self.consistency,
            capture: match self.options.sectors {
                Sectors::Used => Captured::Used,
                Sectors::All => Captured::Whole,
            },
            comment: self.options.comment.clone(),
        }
    }
}

/// What every attempt at an image needs.
#[derive(Clone, Copy)]
struct Inputs<'a> {
    source: HeldSource<'a>,
    watched: &'a Watched<'a>,
    /// Whether the hold on the source was given up.
    released: &'a AtomicBool,
    storage: &'a dyn Storage,
    inventory: &'a Inventory,
    limit: Option<RateLimit<'a>>,
    lease: &'a dyn Lease,
    job: Job<'a>,
}

/// What an image builds on, and what that makes it.
struct Base {
    /// With the block size of the chain.
    geometry: Geometry,
    parent: Option<Parent>,
    kind: ImageKind,
    full_number: u32,
    increment_number: u32,
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

/// Removes what interrupted backups of this set left behind. Only files under a temporary name
/// whose superblock names the set: the lease proves that nobody is writing them.
fn remove_leftovers(storage: &dyn Storage, set: aiv_image_format::SetId) -> Result<Vec<String>> {
    let failed = |op: &str| {
        let op = op.to_owned();
        move |source| Error::Destination { op, source }
    };
    let mut removed = Vec::new();
    for entry in storage.list().map_err(failed("listing the folder"))? {
        // Those of merges are protected by another lease.
        if !entry.name.ends_with(PART) || entry.name.ends_with(MERGE_PART) {
            continue;
        }
        let Ok(file) = storage.open(&entry.name) else { continue };
        if peek_set(&*file) == Some(set) {
            storage.remove(&entry.name).map_err(failed("removing a leftover"))?;
            removed.push(entry.name);
        }
    }
    Ok(removed)
}
