//! What is left as a new image: an ordinary full one, in which what is lost is unreadable.

use aiv_image_format::meta::{Manifest, Meta, Trackers};
use aiv_image_format::{
    BlockIndex, Compression, Digest, Error as ImageError, Features, ImageKind, ImageSummary,
    ImageWriter, Keys, Kind, Mode, PointId, RunKind, SPECIFICATION, Seal, SessionTag, SetId,
    Superblock, Unsalvageable,
};
use aiv_keys::KeyArea;
use aiv_volume_io::{AppendFile, Extent, Job, Storage};

use super::Salvaged;
use super::report::SalvageReport;
use super::run::{Block, Sink};
use crate::error::{Error, Result};
use crate::facts::Protection;
use crate::merge::{MERGE_PART, MergeIds, prove, take_lease};
use crate::names::{ImageName, image_name};
use crate::slots::{KeyedFile, keyed_chains, newest_slots};

/// As in section 6 of the format: an image of which only META is left belongs to the set of its
/// source.
const KEY_SET: &[u8; 32] = b"aivory draft: set of a source   ";

/// Ranges of source errors that are listed one by one; more are rounded out.
const ERRORS_MAX: usize = 1 << 18;

/// What the new image is called.
#[derive(Debug, Clone, Copy)]
pub struct SalvageIds {
    /// Image, session and characters of its name.
    pub file: MergeIds,
    /// Its recovery point.
    pub point: PointId,
}

/// An image that was made of what is left.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SalvagedImage {
    /// Name in the folder.
    pub file: String,
    /// The set it belongs to: that of the damaged image, where that is known.
    pub set: SetId,
    /// The point it provides, a new one.
    pub point: PointId,
    /// Name of its state.
    pub state_root: Digest,
    /// Bytes of the file.
    pub bytes: u64,
    /// What a key does for it: what it did for the damaged one, unless that was not wanted.
    pub protection: Protection,
}

/// How the new image is written.
#[derive(Debug, Clone, Copy)]
pub struct SalvageOptions {
    /// How blocks are stored.
    pub compression: Compression,
    /// Without a key, also where the damaged image has one: whoever gets the file reads the disk.
    pub plain: bool,
}

impl Salvaged {
    /// Writes what is left as one full image into `storage`, proves it and publishes it. It
    /// provides a new point of the same set: it is not what the damaged one was. With the key of
    /// the damaged image it is sealed or authenticated as that was, with the same key and the
    /// newest key slots that are left of the chain, unless it is to be [plain](SalvageOptions).
    ///
    /// # Errors
    /// [`Error::PlainBesideKeyed`] when it is to be plain where images of the set have keys;
    /// [`Error::Image`] with [`Unsalvageable::NoSlots`] when nothing would open it;
    /// [`Error::Busy`], [`Error::Io`], [`Error::ReadBack`], [`Error::Image`],
    /// [`Error::Canceled`]. After an error there is no new image.
    pub fn write_image(
        &self,
        storage: &dyn Storage,
        options: &SalvageOptions,
        ids: &SalvageIds,
        job: Job<'_>,
    ) -> Result<SalvageReport> {
        let set = self.set();
        // What interrupted merges left in the folder stays: it may be what is being salvaged.
        let lease = take_lease(storage, set)?;
        // From here on nobody changes key slots.
        let seal = self.seal(storage, set, options, ids, job)?;
        let keys = seal.as_ref().map_or_else(Keys::none, |s| Keys::of(s.key.clone()).required());
        let file = self.name(ids);
        let part = format!("{file}{MERGE_PART}");
        let created = storage.create(&part).map_err(Error::io(format!("creating {part}")))?;
        let new = New { part: &part, options, set, ids, seal };
        let outcome = self.fill(created, new, job).and_then(|done| {
            prove(storage, &part, &file, &done.1.trailer, None, &keys, job)?;
            lease.check().map_err(Error::io("checking the lease before publishing"))?;
            storage.publish(&part, &file).map_err(Error::io(format!("publishing {file}")))?;
            Ok(done)
        });
        if outcome.is_err() {
            // Best effort: the first error is the one that matters, and a leftover is harmless.
            let _ = storage.remove(&part);
        }
        let (mut report, written, protection) = outcome?;
        storage.sync_dir().map_err(Error::io(format!("making the name durable of {file}")))?;
        let (state_root, bytes) = (written.roots.state, written.trailer.file_len);
        report.is_proven = match report.lost.is_empty() {
            true => self.newest().is_state(&state_root),
            false => None,
        };
        let point = ids.point;
        report.image = Some(SalvagedImage { file, set, point, state_root, bytes, protection });
        Ok(report)
    }

    /// How the new image is sealed or authenticated.
    fn seal(
        &self,
        storage: &dyn Storage,
        set: SetId,
        options: &SalvageOptions,
        ids: &SalvageIds,
        job: Job<'_>,
    ) -> Result<Option<Seal>> {
        let Some(key) = self.newest().key().filter(|_| !options.plain) else {
            let chains = keyed_chains(storage, job)?.chains;
            let files = chains.into_iter().flat_map(|chain| chain.files);
            return match files.into_iter().find(|file| file.set == set) {
                Some(KeyedFile { file, .. }) => Err(Error::PlainBesideKeyed { file }),
                None => Ok(None),
            };
        };
        let [a, b, c, d, ..] = ids.file.parts().1.0;
        let mut seal = Seal::new(key.clone(), u32::from_le_bytes([a, b, c, d]));
        if !self.newest().is_sealed() {
            seal.mode = Mode::Authenticated;
        }
        // Those of the folder may be newer than any that were beside the damaged files.
        let there = newest_slots(&[storage], key, job)?;
        let slots = there.into_iter().chain(self.slots.clone()).max_by_key(KeyArea::generation);
        seal.slots = slots.map(|area| area.to_bytes().into_boxed_slice());
        let had = self.newest().identity().superblock.as_ref().map(Superblock::slot_area_len);
        // Where nothing tells whether it had any, it had.
        if seal.slots.is_none() && had.is_none_or(|len| len > 0) {
            // Nobody could open it, and no slots could be made for it later.
            let source = ImageError::Unsalvageable(Unsalvageable::NoSlots);
            return Err(Error::in_file(&self.layers[0].file, source));
        }
        Ok(Some(seal))
    }

    fn fill(
        &self,
        created: Box<dyn AppendFile>,
        new: New<'_>,
        job: Job<'_>,
    ) -> Result<(SalvageReport, ImageSummary, Protection)> {
        let New { part, options, set, ids, seal } = new;
        let in_part = |error| Error::in_file(part, error);
        let (image, session, time) = ids.file.parts();
        // A session of a sealed image has to be new, even where random numbers come again: another
        // one for all that decides what its frames hold.
        let session = match &seal {
            None => session,
            Some(_) => {
                let mut random = [0; 32];
                random[..12].copy_from_slice(&session.0);
                random[16..].copy_from_slice(&ids.point.0);
                let mut place = format!("salvage {options:?}");
                for (_, salvage) in self.files() {
                    place += &format!(" {}", salvage.fingerprint());
                }
                let below = self.below.as_ref().map(|view| view.image().trailer().state_root);
                SessionTag::hedged(&random, time.into(), &place, image, below)
            }
        };
        let superblock = Superblock {
            features: Features::default(),
            image,
            set,
            point: ids.point,
            kind: ImageKind::Full,
            parent: None,
            geometry: *self.geometry(),
            created_unix_ms: time,
            session,
            writer: concat!("aivory ", env!("CARGO_PKG_VERSION")).to_owned(),
            key_commitment: aiv_image_format::Digest::default(),
            source_token: Digest::default(),
        };
        let writer = ImageWriter::create_with(created, superblock, seal).map_err(in_part)?;
        let protection = Protection::of(writer.superblock());
        let (old_errors, compression) = (&self.meta().source_errors, options.compression);
        let mut sink =
            ToImage { writer, compression, part, salvaged: self, errors: Vec::new(), old_errors };
        let report = self.run(&mut sink, job)?;
        let ToImage { writer, errors, .. } = sink;
        let meta = self.new_meta(&report, errors);
        Ok((report, writer.finish(meta).map_err(in_part)?, protection))
    }

    fn set(&self) -> SetId {
        self.newest().identity().set().unwrap_or_else(|| {
            let hash = blake3::keyed_hash(KEY_SET, self.manifest().source_id.as_bytes());
            let mut set = SetId::default();
            set.0.copy_from_slice(&hash.as_bytes()[..16]);
            set
        })
    }

    /// What the image said about its point, or that nothing says it.
    fn manifest(&self) -> Manifest {
        if self.newest().has_manifest() {
            return self.meta().manifest.clone();
        }
        let session = self.newest().identity().session;
        Manifest {
            name: "salvaged".to_owned(),
            source_id: format!("user:salvaged-{session}"),
            ..Manifest::default()
        }
    }

    fn new_meta(&self, report: &SalvageReport, errors: Vec<Extent>) -> Meta {
        let manifest = self.manifest();
        let identity = self.newest().identity();
        let from = match identity.image {
            Some(image) => format!("image {image}"),
            None => format!("frames of session {}", identity.session),
        };
        let mut comment = format!(
            "salvaged from {from}: {} of {} bytes lost",
            report.bytes_lost(),
            self.geometry().len()
        );
        if !report.unproven.is_empty() {
            let count: u64 = report.unproven.iter().map(|(_, count)| count).sum();
            comment += &format!(", {count} blocks not proven");
        }
        if !manifest.comment.is_empty() {
            comment += &format!("; {}", manifest.comment);
        }
        Meta {
            manifest: Manifest { comment, increment_number: 0, ..manifest },
            source_errors: rounded(errors, u64::from(self.geometry().block_size().get())),
            specification: SPECIFICATION.to_owned(),
            // What watched the source saw another point than this one.
            trackers: Trackers::default(),
            ..self.meta().clone()
        }
    }

    fn name(&self, ids: &SalvageIds) -> String {
        let manifest = self.manifest();
        let name = ImageName {
            host: &manifest.host,
            name: &manifest.name,
            time_unix_ms: manifest.time_unix_ms,
            full_number: manifest.full_number,
            increment_number: None,
        };
        image_name(&name, &ids.file.suffix())
    }
}

/// A new image to be.
struct New<'a> {
    /// Its name until it is published.
    part: &'a str,
    options: &'a SalvageOptions,
    set: SetId,
    ids: &'a SalvageIds,
    seal: Option<Seal>,
}

/// The ranges, or if they are too many, larger ones that cover them.
fn rounded(mut errors: Vec<Extent>, block: u64) -> Vec<Extent> {
    let mut unit = block;
    while errors.len() > ERRORS_MAX {
        unit = unit.saturating_mul(2);
        let len = errors.last().map_or(0, |last| last.end());
        let mut fewer: Vec<Extent> = Vec::new();
        for error in &errors {
            let start = error.start / unit * unit;
            let end = error.end().checked_next_multiple_of(unit).unwrap_or(len).min(len);
            match fewer.last_mut() {
                Some(last) if last.end() >= start => {
                    *last = Extent::between(last.start, end.max(last.end()));
                }
                _ => fewer.push(Extent::between(start, end)),
            }
        }
        errors = fewer;
    }
    errors
}

struct ToImage<'a> {
    writer: ImageWriter<'a>,
    compression: Compression,
    /// Name of the file, for messages.
    part: &'a str,
    salvaged: &'a Salvaged,
    /// What cannot be read in the new image, ascending.
    errors: Vec<Extent>,
    /// What could not be read at the source, where META still says so.
    old_errors: &'a [Extent],
}

impl ToImage<'_> {
    fn extent(&self, first: BlockIndex, count: u64) -> Extent {
        let geometry = self.salvaged.geometry();
        let end = geometry.offset_of(first + count).min(geometry.len());
        Extent::between(geometry.offset_of(first), end)
    }

    /// Takes note of bytes that could not be read at the source.
    fn note_source_errors(&mut self, blocks: Extent) {
        let from = self.old_errors.partition_point(|e| e.end() <= blocks.start);
        let old = self.old_errors[from..].iter().take_while(|e| e.start < blocks.end());
        let parts: Vec<Extent> = old.filter_map(|e| e.intersect(blocks)).collect();
        match parts.is_empty() {
            true => self.note(blocks),
            false => parts.into_iter().for_each(|part| self.note(part)),
        }
    }

    fn note(&mut self, extent: Extent) {
        match self.errors.last_mut() {
            Some(last) if last.end() == extent.start => last.len += extent.len,
            _ => self.errors.push(extent),
        }
    }

    fn push_run(&mut self, kind: RunKind, count: u64) -> Result<()> {
        self.writer.push_run(kind, count).map_err(|e| Error::in_file(self.part, e))
    }
}

impl Sink for ToImage<'_> {
    fn compression(&self) -> Option<Compression> {
        Some(self.compression)
    }

    fn run(&mut self, kind: Kind, first: BlockIndex, count: u64) -> Result<()> {
        let kind = match kind {
            Kind::Unused => RunKind::Unused,
            Kind::Excluded => RunKind::Excluded,
            Kind::Unreadable => {
                // Each block has to be touched by an error, whatever META lists.
                for block in first..first + count {
                    self.note_source_errors(self.extent(block, 1));
                }
                RunKind::Unreadable
            }
            _ => RunKind::Zero,
        };
        self.push_run(kind, count)
    }

    fn block(&mut self, block: BlockIndex, kind: Kind, read: &Block) -> Result<()> {
        let Some(encoded) = &read.encoded else { return Ok(()) };
        let pushed = if kind == Kind::Unreadable {
            self.note_source_errors(self.extent(block, 1));
            self.writer.push_damaged_block(encoded)
        } else {
            self.writer.push_block(encoded)
        };
        pushed.map(drop).map_err(|e| Error::in_file(self.part, e))
    }

    fn lost(&mut self, first: BlockIndex, count: u64) -> Result<()> {
        self.note(self.extent(first, count));
        self.push_run(RunKind::Unreadable, count)
    }
}
