//! Carries a plan out: one image, proven before it is published.

use std::sync::Arc;

use aiv_chain::{Folder, ImageName, MERGE_PART, StrayKind, image_name, suffix};
use aiv_image_format::meta::{Capture, Inventory, Manifest, Meta};
use aiv_image_format::{
    Depth, Digest, Features, GroupId, Image, ImageId, ImageKind, ImageWriter, PointId,
    SPECIFICATION, SessionTag, Superblock, Totals, peek_set,
};
use aiv_volume_io::{Extent, Job, ReadAt, Storage};

use crate::error::{Error, Result};
use crate::facts::Sectors;
use crate::identity::set_id;
use crate::pace::{Pacer, RateLimit};
use crate::pipeline;
use crate::plan::{BackupPlan, PlanNote};

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
    /// Blocks by kind.
    pub totals: Totals,
    /// Ranges that matter and could not be read, ascending. Exact up to 262,144 ranges; where
    /// there are more, they are rounded out until they are as few.
    pub unreadable: Vec<Extent>,
    /// Whether every frame was read back and compared, not only the structures.
    pub verified: bool,
    /// What the plan wanted the user to know.
    pub notes: Vec<PlanNote>,
    /// Leftovers of interrupted backups of this source that were removed.
    pub leftovers_removed: Vec<String>,
}

const PART: &str = ".part";

impl BackupPlan {
    /// Reads the source and writes one image into `storage`.
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
        let set = set_id(&self.source_id);
        let _lease = storage.lease(&format!("set-{set}")).map_err(|source| {
            if source.kind() == std::io::ErrorKind::WouldBlock {
                Error::Busy { source_id: self.source_id.clone() }
            } else {
                Error::Destination { op: "taking the lease of the set".to_owned(), source }
            }
        })?;
        let leftovers_removed = remove_leftovers(storage, set)?;
        let folder = Folder::scan(storage, job).map_err(Error::Folder)?;
        refuse_unreadable(&folder)?;
        let newest = folder.set(set).and_then(|s| s.points.iter().map(|p| p.full_number).max());
        let full_number = newest.unwrap_or(0).saturating_add(1);
        let (host, name) = (&self.facts.host, &self.facts.name);
        let name = ImageName {
            host,
            name,
            time_unix_ms: ids.time_unix_ms,
            full_number,
            increment_number: None,
        };
        let image = image_name(&name, &suffix(ids.suffix));
        let part = format!("{image}{PART}");

        // Before anything that removes on error: a taken name is somebody else's file.
        let file = storage
            .create(&part)
            .map_err(|source| Error::Destination { op: format!("creating {part}"), source })?;
        let writer = ImageWriter::create(file, self.superblock(ids));
        let outcome = writer.map_err(|e| image_error(&image, e)).and_then(|writer| {
            self.write(source, storage, writer, ids, inventory, limit, full_number, &image, job)
        });
        if outcome.is_err() {
            // Best effort: the first error is the one that matters, and a leftover is harmless.
            let _ = storage.remove(&part);
        }
        let mut report = outcome?;
        let publish = |op: &str| {
            let op = format!("{op} {image}");
            move |source| Error::Destination { op, source }
        };
        if let Err(error) = storage.publish(&part, &image).map_err(publish("publishing")) {
            let _ = storage.remove(&part);
            return Err(error);
        }
        storage.sync_dir().map_err(publish("making the name durable of"))?;
        report.leftovers_removed = leftovers_removed;
        Ok(report)
    }

    /// Writes and proves the image under its temporary name.
    #[expect(clippy::too_many_arguments, reason = "the inputs of apply and two names")]
    fn write(
        &self,
        source: &dyn ReadAt,
        storage: &dyn Storage,
        mut writer: ImageWriter,
        ids: &BackupIds,
        inventory: &Inventory,
        limit: Option<RateLimit<'_>>,
        full_number: u32,
        image: &str,
        job: Job<'_>,
    ) -> Result<BackupReport> {
        let part = format!("{image}{PART}");
        let in_image = |source| image_error(image, source);
        let pacer = limit.map(Pacer::new);
        let captured = pipeline::run(source, self, &mut writer, pacer, image, job)?;
        job.check()?;
        let unreadable = captured.unreadable.into_runs();
        let meta = Meta {
            manifest: self.manifest(ids, full_number),
            disk: self.disk.clone(),
            inventory: inventory.clone(),
            source_errors: unreadable.clone(),
            specification: SPECIFICATION.to_owned(),
            ..Meta::default()
        };
        let trailer = writer.finish(meta).map_err(in_image)?.trailer;

        let file = storage
            .open(&part)
            .map_err(|source| Error::Destination { op: format!("reading back {part}"), source })?;
        let written = Image::open(Arc::clone(&file)).map_err(in_image)?;
        let depth = if self.options.verify { Depth::Data } else { Depth::Quick };
        let found = written.verify(depth, job).map_err(in_image)?;
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
            kind: ImageKind::Full,
            recovery_point: ids.point,
            state_root: trailer.state_root,
            content_root: trailer.content_root,
            bytes_source: self.geometry.len(),
            bytes_used: self.used_bytes(),
            bytes_read: captured.bytes_read,
            bytes_stored: trailer.file_len,
            totals: trailer.totals,
            unreadable,
            verified: self.options.verify,
            notes: self.notes.clone(),
            leftovers_removed: Vec::new(),
        })
    }

    fn superblock(&self, ids: &BackupIds) -> Superblock {
        Superblock {
            features: Features::default(),
            image: ids.image,
            set: set_id(&self.source_id),
            point: ids.point,
            kind: ImageKind::Full,
            parent: None,
            geometry: self.geometry,
            created_unix_ms: ids.time_unix_ms,
            session: ids.session,
            writer: concat!("aivory ", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }

    fn manifest(&self, ids: &BackupIds, full_number: u32) -> Manifest {
        Manifest {
            host: self.facts.host.clone(),
            name: self.facts.name.clone(),
            source: self.facts.label.clone(),
            source_id: self.source_id.clone(),
            full_number,
            increment_number: 0,
            group: ids.group,
            time_unix_ms: ids.time_unix_ms,
            consistency: self.consistency,
            capture: match self.options.sectors {
                Sectors::Used => Capture::Used,
                Sectors::All => Capture::Whole,
            },
            comment: self.options.comment.clone(),
        }
    }
}

fn image_error(image: &str, source: aiv_image_format::Error) -> Error {
    match source {
        aiv_image_format::Error::Canceled(canceled) => canceled.into(),
        source => Error::Image { image: image.to_owned(), source },
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
