//! One attempt at an image: begun or gone on with, written, proven, published.

use std::sync::atomic::{AtomicBool, Ordering};

use aiv_chain::{ImageName, Set, image_name, suffix};
use aiv_image_format::meta::{Capture as Captured, Inventory, Manifest, Meta};
use aiv_image_format::{
    Depth, Digest, Error as ImageError, Features, Geometry, ImageKind, ImageSummary, ImageWriter,
    Keys, ParentState, SPECIFICATION, Seal, Segments, Superblock, Unfinished,
};
use aiv_volume_io::{Job, Lease, Storage, causes};

use crate::apply::{BackupIds, BackupReport};
use crate::error::{Error, Result};
use crate::facts::Sectors;
use crate::hints::{Hint, HintReport};
use crate::hold::HeldSource;
use crate::identity::set_id;
use crate::pace::{Pacer, RateLimit};
use crate::parent::Parent;
use crate::parts::Parts;
use crate::pipeline::{self, Capture};
use crate::plan::BackupPlan;
use crate::repeats;
use crate::resume::{Candidate, Resumed, Wanted, has_unreadable, part_name};
use crate::seal::{self, SealOptions};
use crate::watched::{Asked, Watched, is_believed};

/// What every attempt at an image needs.
#[derive(Clone, Copy)]
pub(crate) struct Inputs<'a> {
    pub source: HeldSource<'a>,
    /// Who watched it.
    pub watched: &'a Watched<'a>,
    /// Whether the hold on the source was given up.
    pub released: &'a AtomicBool,
    pub storage: &'a dyn Storage,
    pub inventory: &'a Inventory,
    pub limit: Option<RateLimit<'a>>,
    pub lease: &'a dyn Lease,
    /// The images of the source so far.
    pub set: Option<&'a Set>,
    pub job: Job<'a>,
}

/// What an image builds on, and what that makes it.
pub(crate) struct Base {
    /// With the block size of the chain.
    pub geometry: Geometry,
    pub parent: Option<Parent>,
    pub kind: ImageKind,
    pub full_number: u32,
    pub increment_number: u32,
}

/// What an image is going to be.
#[derive(Clone, Copy)]
pub(crate) struct About<'a> {
    pub base: &'a Base,
    /// How a new one is sealed, where it is.
    pub seal: Option<&'a Seal>,
}

/// An image while it is written.
struct Begun<'a> {
    writer: ImageWriter<'a>,
    /// What opens the image, where it has a key.
    keys: Keys,
    /// Whether it is the first one with its key.
    begins_key: bool,
    /// Whether it is, and others have a key that was not given.
    leaves_key: bool,
    /// Where it is until it is published.
    parts: Parts,
    unfinished: Option<Unfinished>,
    resumed: Option<Resumed>,
    /// What reading the source has found so far.
    captured: pipeline::Captured,
    pacer: Option<Pacer<'a>>,
}

impl BackupPlan {
    /// Makes and publishes one image, out of `candidate` if that is of any use.
    pub(crate) fn make(
        &self,
        inputs: &Inputs<'_>,
        ids: &BackupIds,
        about: About<'_>,
        hint: &Asked<'_>,
        candidate: Option<Candidate>,
    ) -> Result<BackupReport> {
        let base = about.base;
        let Some(candidate) = candidate else { return self.make_anew(inputs, ids, about, hint) };
        let why = match self.go_on(inputs, ids, about, &candidate) {
            Ok(Ok(begun)) => match self.complete(inputs, ids, base, hint, begun) {
                // What was there already is not what it seemed: another image does not need it.
                Err(error) if is_damage(&error) && !inputs.released.load(Ordering::Relaxed) => {
                    causes(&error)
                }
                done => return done,
            },
            Ok(Err(why)) => {
                candidate.remove(inputs.storage, inputs.lease)?;
                why
            }
            // It fits no other parent.
            Err(error @ Error::Parent(_)) => {
                candidate.remove(inputs.storage, inputs.lease)?;
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        let mut report = self.make_anew(inputs, &ids.anew(), about, hint)?;
        report.leftovers_removed.extend(candidate.names());
        Ok(BackupReport { not_resumed: Some(why), ..report })
    }

    /// Compares an unfinished image with the source, unless the caller vouches for that, and
    /// opens it for going on. The inner error says why it is of no use.
    fn go_on<'a>(
        &self,
        inputs: &Inputs<'a>,
        ids: &BackupIds,
        about: About<'_>,
        candidate: &Candidate,
    ) -> Result<std::result::Result<Begun<'a>, String>> {
        let Inputs { storage, limit, lease, job, .. } = *inputs;
        let base = about.base;
        let unfinished = match candidate.read(storage, job)? {
            Ok(unfinished) => unfinished,
            Err(why) => return Ok(Err(why)),
        };
        let capture = self.capture(inputs, base, None, None);
        let mut pacer = limit.map(Pacer::new);
        let is_vouched = candidate.is_vouched && !has_unreadable(&unfinished);
        let compared = match is_vouched {
            true => Ok(capture.nothing_captured()),
            false => capture.compare(&unfinished, &mut pacer)?,
        };
        let captured = match compared {
            Ok(captured) => captured,
            Err(why) => return Ok(Err(why)),
        };
        // Comparing may have taken hours: whoever has the lease by now may write the file.
        let op = format!("going on with {}", candidate.name);
        lease.check().map_err(|source| Error::Destination { op, source })?;
        let hedged = |options: &SealOptions| seal::session_on(&options.hedge, &unfinished);
        let session = self.options.seal.as_ref().map_or(ids.session, hedged);
        let writer = match candidate.reopen(storage, &unfinished, session) {
            Ok(writer) => writer,
            Err(why) => return Ok(Err(why)),
        };
        let blocks = unfinished.next_block();
        let resumed = Resumed {
            file: candidate.name.clone(),
            bytes: unfinished.len(),
            blocks,
            blocks_compared: if is_vouched { 0 } else { blocks },
        };
        let (parts, unfinished) = (candidate.parts(), Some(unfinished));
        let (begins_key, leaves_key) = self.begins_key(inputs, about.seal);
        let (keys, resumed) = (candidate.keys(), Some(resumed));
        Ok(Ok(Begun {
            writer,
            keys,
            begins_key,
            leaves_key,
            parts,
            unfinished,
            resumed,
            captured,
            pacer,
        }))
    }

    fn make_anew(
        &self,
        inputs: &Inputs<'_>,
        ids: &BackupIds,
        about: About<'_>,
        hint: &Asked<'_>,
    ) -> Result<BackupReport> {
        let Inputs { storage, limit, .. } = *inputs;
        let About { base, seal } = about;
        let image = self.image_name(ids, base);
        let keys = seal.map_or_else(Keys::none, |s| Keys::of(s.key.clone()).required());
        let (begins_key, leaves_key) = self.begins_key(inputs, seal);
        let split = self.options.split;
        let parts = match split {
            None => Parts::One(part_name(&image, set_id(&self.source_id))),
            Some(_) => Parts::Split(image.clone()),
        };
        let superblock = self.superblock(ids, base, hint, seal);
        let writer = parts.create(storage, superblock, seal.cloned(), split, &image)?;
        let captured = self.capture(inputs, base, None, None).nothing_captured();
        let (unfinished, resumed) = (None, None);
        let pacer = limit.map(Pacer::new);
        let begun = Begun {
            writer,
            keys,
            begins_key,
            leaves_key,
            parts,
            unfinished,
            resumed,
            captured,
            pacer,
        };
        self.complete(inputs, ids, base, hint, begun)
    }

    /// How a new image on `base` is sealed, where it is.
    pub(crate) fn seal(&self, inputs: &Inputs<'_>, base: &Base) -> Result<Option<Seal>> {
        let Inputs { storage, set, job, .. } = *inputs;
        let view = base.parent.as_ref().map(|parent| &parent.view);
        let options = self.options.seal.as_ref();
        options.map(|options| seal::seal(options, view, set, storage, job)).transpose()
    }

    /// Whether an image is the first with its key, and whether others of the source then have a
    /// key that was not given.
    fn begins_key(&self, inputs: &Inputs<'_>, seal: Option<&Seal>) -> (bool, bool) {
        let options = self.options.seal.as_ref();
        let fresh = options.map(|options| &options.fresh.0);
        let begins = fresh.is_some() && seal.map(|seal| &seal.key) == fresh;
        (begins, begins && options.is_some_and(|options| options.leaves_key(inputs.set)))
    }

    /// Writes, proves and publishes what was begun.
    fn complete(
        &self,
        inputs: &Inputs<'_>,
        ids: &BackupIds,
        base: &Base,
        hint: &Asked<'_>,
        begun: Begun<'_>,
    ) -> Result<BackupReport> {
        let Inputs { storage, lease, .. } = *inputs;
        let image = self.image_name(ids, base);
        let parts = begun.parts.clone();
        let outcome = self.write(inputs, ids, base, hint, begun, &image);
        match &outcome {
            Err(Error::Interrupted { .. }) | Ok(_) => {}
            // Of somebody else by now, perhaps: he goes on with it, or removes it.
            Err(_) if lease.check().is_err() => {}
            Err(_) => parts.discard(storage),
        }
        let report = outcome?;
        let publish = |op: &str| {
            let op = format!("{op} {image}");
            move |source| Error::Destination { op, source }
        };
        // Somebody may have taken the set over while this machine slept.
        // Whoever holds it now may have found what we wrote, and gone on with it: it stays.
        lease.check().map_err(publish("holding the lease for"))?;
        let published = parts.publish(storage, &image, report.segments);
        if let Err(error) = published.map_err(publish("publishing")) {
            parts.discard(storage);
            return Err(error);
        }
        storage.sync_dir().map_err(publish("making the name durable of"))?;
        Ok(report)
    }

    /// Writes and proves the image under its temporary name.
    fn write(
        &self,
        inputs: &Inputs<'_>,
        ids: &BackupIds,
        base: &Base,
        hint: &Asked<'_>,
        begun: Begun<'_>,
        image: &str,
    ) -> Result<BackupReport> {
        let Inputs { source, watched, released, storage, inventory, job, .. } = *inputs;
        let Begun {
            mut writer,
            keys,
            begins_key,
            leaves_key,
            parts,
            unfinished,
            resumed,
            captured,
            pacer,
        } = begun;
        let in_image = |source| Error::of_image(image, source);
        let Base { geometry, ref parent, kind, .. } = *base;
        writer.set_checkpoint_bytes(self.options.checkpoint_bytes);
        let believed = hint.as_ref().and_then(|hint| hint.as_ref().ok());
        let capture = self.capture(inputs, base, unfinished.as_ref(), believed);
        let captured = pipeline::run(capture, &mut writer, pacer, captured, image);
        let captured = match captured.and_then(|captured| Ok(job.check().map(|()| captured)?)) {
            Ok(captured) => captured,
            // What a tracker said counts once.
            Err(error) if is_believed(hint) => return Err(error),
            Err(error) => return Err(interrupted(writer, &geometry, error)),
        };
        let unreadable = captured.unreadable.into_runs();
        let hint = hint.as_ref().map(|hint| HintReport {
            tracker: self.options.changes.clone().unwrap_or_default(),
            bytes_skipped: captured.bytes_skipped,
            bytes_audited: captured.bytes_audited,
            not_used: hint.as_ref().err().cloned(),
        });
        let meta = Meta {
            manifest: self.manifest(ids, base),
            disk: self.disk.clone(),
            inventory: inventory.clone(),
            source_errors: unreadable.clone(),
            excluded: self.excluded_files.clone(),
            trackers: watched.meta(self, hint.as_ref()),
            // Once per chain: whoever has an increment needs its full image too.
            specification: match &parent {
                None => SPECIFICATION.to_owned(),
                Some(_) => String::new(),
            },
            ..Meta::default()
        };
        let state = parent.as_ref().map(|parent| &parent.view as &dyn ParentState);
        let ImageSummary { trailer, roots } = writer.finish_on(meta, state).map_err(in_image)?;
        source.release()?;
        released.store(source.hold.is_some_and(|hold| hold.keeps()), Ordering::Relaxed);

        let segments = trailer.segment_count.max(1);
        let written = parts.open(storage, image, segments, &keys)?;
        // What others have written was never in our hands.
        let verified = self.options.verify || resumed.is_some();
        let depth = if verified { Depth::Data } else { Depth::Quick };
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
        let damage = parent.as_ref().and_then(Parent::take_damage);
        let before = parent.as_ref().map(|parent| &parent.view.image().meta().manifest);
        let before = before.filter(|manifest| manifest.host == self.facts.host);
        Ok(BackupReport {
            image: image.to_owned(),
            kind,
            recovery_point: written.superblock().point,
            parent: state.map(|state| state.link().point),
            parent_source: before.map(|manifest| manifest.source.clone()),
            state_root: roots.state,
            content_root: roots.content,
            bytes_source: self.geometry.len(),
            bytes_used: self.used_bytes(),
            bytes_read: captured.bytes_read,
            bytes_stored: written.segments().map_or(trailer.file_len, Segments::bytes),
            segments,
            blocks: geometry.blocks(),
            totals: trailer.totals,
            unreadable,
            verified,
            notes: Vec::new(),
            lost: Vec::new(),
            parent_damage: damage.map(|error| causes(&error)),
            hint,
            leftovers_removed: Vec::new(),
            resumed,
            not_resumed: None,
            begins_key,
            leaves_key,
        })
    }

    fn capture<'a>(
        &'a self,
        inputs: &Inputs<'a>,
        base: &'a Base,
        resumed: Option<&'a Unfinished>,
        hint: Option<&'a Hint<'a>>,
    ) -> Capture<'a> {
        Capture {
            source: inputs.source.disk,
            plan: self,
            geometry: base.geometry,
            parent: base.parent.as_ref(),
            resumed,
            hint,
            job: inputs.job,
        }
    }

    fn image_name(&self, ids: &BackupIds, base: &Base) -> String {
        let name = ImageName {
            host: &self.facts.host,
            name: &self.facts.name,
            time_unix_ms: ids.time_unix_ms,
            full_number: base.full_number,
            increment_number: base.parent.is_some().then_some(base.increment_number),
        };
        image_name(&name, &suffix(ids.suffix))
    }

    /// What is begun. One that is not read in full, since a tracker is believed, is recognised by
    /// nobody: it is never gone on with.
    fn superblock(
        &self,
        ids: &BackupIds,
        base: &Base,
        hint: &Asked<'_>,
        seal: Option<&Seal>,
    ) -> Superblock {
        let parent = base.parent.as_ref().map(|parent| parent.view.link());
        let root = parent.map(|link| link.state_root);
        let hedged = |seal: &SealOptions| seal::session(&seal.hedge, ids.image, root);
        let session = self.options.seal.as_ref().map_or(ids.session, hedged);
        // A set bit says that the image may use it: what it will, nobody knows yet.
        let repeats = repeats::are_stored(&self.options, base.geometry.block_size());
        let incompat = parent.map_or(0, |_| Features::DELTA | Features::PARENT)
            | if repeats { Features::LOCAL } else { 0 }
            | if self.options.parity { Features::PARITY } else { 0 }
            | if self.options.split.is_some() { Features::SPLIT } else { 0 };
        let superblock = Superblock {
            features: Features { incompat, ..Features::default() },
            image: ids.image,
            set: set_id(&self.source_id),
            point: ids.point,
            kind: base.kind,
            parent,
            geometry: base.geometry,
            created_unix_ms: ids.time_unix_ms,
            session,
            // Set by the writer, where there is a key.
            key_commitment: Digest::default(),
            writer: concat!("aivory ", env!("CARGO_PKG_VERSION")).to_owned(),
            source_token: Digest::default(),
        };
        if is_believed(hint) || !self.may_be_gone_on_with(seal) {
            return superblock;
        }
        let plan = self.source_token(&base.geometry, parent);
        let source_token = match seal {
            None => plan,
            Some(seal) => seal::token(seal, &superblock, plan),
        };
        Superblock { source_token, ..superblock }
    }

    /// What is going to be begun, for finding what was.
    pub(crate) fn wanted<'w>(
        &'w self,
        ids: &BackupIds,
        base: &Base,
        hint: &Asked<'_>,
        seal: Option<&'w Seal>,
    ) -> Wanted<'w> {
        let parent = base.parent.as_ref().map(|parent| parent.view.link());
        Wanted {
            superblock: self.superblock(ids, base, hint, seal),
            plan: self.source_token(&base.geometry, parent),
            split: self.options.split,
            seal: self.options.seal.as_ref().zip(seal),
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

/// Whether the image itself is at fault.
fn is_damage(error: &Error) -> bool {
    let of_image = |source: &ImageError| {
        matches!(
            source,
            ImageError::Corrupt(_)
                | ImageError::Segments(_)
                | ImageError::Foreign(_)
                | ImageError::Incomplete { .. }
        )
    };
    match error {
        Error::ReadBack { .. } => true,
        Error::Image { source, .. } => of_image(source),
        _ => false,
    }
}

/// What ends a backup whose source could not be read to its end. When enough was stored to be
/// worth it, it is kept: the next backup goes on from there.
fn interrupted(writer: ImageWriter<'_>, geometry: &Geometry, error: Error) -> Error {
    let is_stop = matches!(error, Error::Canceled(_) | Error::Source { .. });
    // Without a token nobody recognises it.
    let is_known = !writer.superblock().source_token.is_zero();
    if !is_stop || !is_known || writer.checkpoints() == 0 {
        return error;
    }
    let at = geometry.offset_of(writer.next_block()).min(geometry.len());
    match writer.suspend() {
        Ok(()) => Error::Interrupted { at, source: Box::new(error) },
        // What stopped the backup is what its user wants to know.
        Err(_) => error,
    }
}
