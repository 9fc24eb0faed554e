//! What interrupted backups left behind: which of it a backup goes on with, and what goes.

use std::sync::Arc;

use aiv_chain::{Folder, MERGE_PART, remove_interrupted};
use aiv_image_format::{
    Digest, Error as ImageError, Geometry, ImageWriter, Keys, Kind, ParentLink, Seal, SessionTag,
    SetId, Superblock, Unfinished, peek,
};
use aiv_volume_io::{Job, Lease, PART_EXTENSION, Storage, causes};

use crate::error::{Error, Result};
use crate::plan::BackupPlan;
use crate::seal::{self, SealOptions};

/// Half of a source token: what was planned, or what the source was.
pub(crate) const HALF: usize = 16;

const KEY_PLAN: &[u8; 32] = b"aivory backup: token of a plan  ";

/// What a backup went on with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resumed {
    /// Name of the unfinished file.
    pub file: String,
    /// Bytes of it that were kept.
    pub bytes: u64,
    /// Blocks of the source that it had decided.
    pub blocks: u64,
    /// Of those, blocks that were read from the source again and compared; none where the caller
    /// vouches that the source has not changed since.
    pub blocks_compared: u64,
}

/// The name of an image while it is written. It names the set: whose it is has to be known also
/// when a power cut left nothing in it.
pub(crate) fn part_name(image: &str, set: SetId) -> String {
    format!("{image}.{set}{PART_EXTENSION}")
}

/// Unfinished files of one set, in no order. The lease of the set proves that nobody is writing
/// them.
pub(crate) struct Leftovers(Vec<Leftover>);

struct Leftover {
    name: String,
    len: u64,
    /// `None` when it has not got as far as that.
    superblock: Option<Superblock>,
}

impl Leftovers {
    /// Looks through the folder. Files whose superblock names the set, and those without a
    /// superblock whose name does.
    pub(crate) fn find(storage: &dyn Storage, set: SetId) -> Result<Self> {
        let of_set = part_name("", set);
        let mut found = Vec::new();
        for entry in storage.list().map_err(failed("listing the folder"))? {
            if !is_part(&entry.name) {
                continue;
            }
            let Ok(file) = storage.open(&entry.name) else { continue };
            let superblock = peek(&*file);
            let is_ours = match &superblock {
                Some(superblock) => superblock.set == set,
                None => entry.name.ends_with(&of_set),
            };
            if is_ours {
                found.push(Leftover { name: entry.name, len: entry.len, superblock });
            }
        }
        Ok(Self(found))
    }

    /// Takes out the longest file that began as `wanted` is going to and is no published image,
    /// also not under another name. One that is split or has parity is never gone on with.
    pub(crate) fn take(&mut self, wanted: &Wanted<'_>, folder: &Folder) -> Option<Candidate> {
        let fits = |leftover: &Leftover| {
            let it = leftover.superblock.as_ref()?;
            let is_free = it.features.names_against_going_on().is_none();
            let seal = wanted.fits(it).filter(|_| is_free && !is_published(it, folder))?;
            Some((leftover.len, seal))
        };
        let fitting = self.0.iter().enumerate().filter_map(|(at, it)| Some((at, fits(it)?)));
        let (at, (_, seal)) = fitting.max_by_key(|(_, (len, _))| *len)?;
        let Leftover { name, superblock, .. } = self.0.swap_remove(at);
        let token = superblock?.source_token;
        // What has a key is believed in nothing that was not compared.
        let is_same = seal.is_none() && token == wanted.superblock.source_token;
        let is_vouched = is_same && token.0[HALF..] != [0; HALF];
        Some(Candidate { name, is_vouched, seal })
    }

    /// Removes all of them but `spared`, with the segments that belong to them, and returns the
    /// names, sorted.
    pub(crate) fn remove(
        self,
        storage: &dyn Storage,
        set: SetId,
        spared: Option<&str>,
    ) -> Result<Vec<String>> {
        let goes = |name: &str| is_part(name) && Some(name) != spared;
        let mut names = remove_interrupted(storage, set, &goes).map_err(failed(REMOVING))?;
        // No superblock says whose these are, but their names do.
        let nameless = self.0.into_iter().filter(|leftover| leftover.superblock.is_none());
        for Leftover { name, .. } in nameless {
            if !names.contains(&name) {
                storage.remove(&name).map_err(failed(REMOVING))?;
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }
}

const REMOVING: &str = "removing a leftover";

/// Whether a backup writes under such a name. Those of merges are protected by another lease.
fn is_part(name: &str) -> bool {
    name.ends_with(PART_EXTENSION) && !name.ends_with(MERGE_PART)
}

fn failed(op: &str) -> impl Fn(std::io::Error) -> Error {
    let op = op.to_owned();
    move |source| Error::Destination { op: op.clone(), source }
}

/// What a backup is going to begin, as far as it decides which unfinished image is as good.
pub(crate) struct Wanted<'w> {
    /// The superblock, with its token where there is no key.
    pub superblock: Superblock,
    /// The token, without a key.
    pub plan: Digest,
    /// How it is sealed, where it is.
    pub seal: Option<(&'w SealOptions, &'w Seal)>,
}

impl Wanted<'_> {
    /// Whether `begun` is as good; with the seal it was begun with.
    fn fits(&self, begun: &Superblock) -> Option<Option<Seal>> {
        let Some((options, seal)) = self.seal else {
            return is_same_plan(begun, &self.superblock).then_some(None);
        };
        let seal = options.seal_of(begun, seal)?;
        let mut wanted = self.superblock.clone();
        seal.mark(&mut wanted).ok()?;
        let is_same = is_same_image(begun, &wanted) && begun.writer == wanted.writer;
        let token = seal::token(&seal, begun, self.plan);
        (is_same && token == begun.source_token).then_some(Some(seal))
    }
}

/// Whether an image was begun for the same source, by the same program, with the same plan, and
/// on the same parent.
fn is_same_plan(begun: &Superblock, wanted: &Superblock) -> bool {
    let plan = |superblock: &Superblock| superblock.source_token.0[..HALF].to_vec();
    plan(begun) != [0; HALF]
        && plan(begun) == plan(wanted)
        && is_same_image(begun, wanted)
        && begun.writer == wanted.writer
}

/// Whether two superblocks are of images of one source, on one parent, with one sort of contents.
fn is_same_image(begun: &Superblock, wanted: &Superblock) -> bool {
    let identity = |superblock: &Superblock| {
        let Superblock { set, kind, parent, geometry, features, .. } = *superblock;
        (set, kind, parent, geometry, features)
    };
    identity(begun) == identity(wanted)
}

/// A rename by link and unlink that was interrupted leaves one file with two names: cutting it
/// would cut the published image.
fn is_published(begun: &Superblock, folder: &Folder) -> bool {
    let sets = folder.sets.iter().chain(&folder.nameless);
    let points = sets.flat_map(|set| set.points.iter().chain(&set.nameless));
    let mut points = points.map(|point| (point.image, point.id));
    let mut strays = folder.strays.iter().filter(|stray| !stray.file.ends_with(PART_EXTENSION));
    points.any(|(image, point)| image == begun.image || point == begun.point)
        || strays.any(|stray| stray.image == Some(begun.image))
}

/// An unfinished image that fits.
pub(crate) struct Candidate {
    pub name: String,
    /// The source is the one it was then, as its caller has it.
    pub is_vouched: bool,
    /// How it is sealed, where it is.
    pub seal: Option<Seal>,
}

impl Candidate {
    /// What opens it.
    pub(crate) fn keys(&self) -> Keys {
        self.seal.as_ref().map_or_else(Keys::none, |seal| Keys::of(seal.key.clone()).required())
    }

    /// Reads it. The inner error says why it is of no use.
    pub(crate) fn read(
        &self,
        storage: &dyn Storage,
        job: Job<'_>,
    ) -> Result<std::result::Result<Unfinished, String>> {
        let file = match storage.open(&self.name) {
            Ok(file) => file,
            Err(error) => return Ok(Err(format!("it cannot be opened: {error}"))),
        };
        let slots = self.seal.as_ref().and_then(|seal| seal.slots.as_deref()).unwrap_or_default();
        match Unfinished::read(Arc::clone(&file), &self.keys(), job) {
            // Whoever was locked out meanwhile must not get in by the image that is new.
            Ok(Some(unfinished)) if unfinished.slots() != slots => {
                Ok(Err("its key slots are others than a new image would have".to_owned()))
            }
            Ok(Some(unfinished)) => Ok(Ok(unfinished)),
            Ok(None) => Ok(Err("it has no whole checkpoint".to_owned())),
            Err(ImageError::Canceled(canceled)) => Err(canceled.into()),
            Err(error) => Ok(Err(causes(&error))),
        }
    }

    /// Cuts it and goes on with it. The inner error says why that is not possible; the file must
    /// then be removed.
    pub(crate) fn reopen<'a>(
        &self,
        storage: &'a dyn Storage,
        unfinished: &Unfinished,
        session: SessionTag,
    ) -> std::result::Result<ImageWriter<'a>, String> {
        let file = storage
            .reopen(&self.name, unfinished.len())
            .map_err(|error| format!("it cannot be gone on with: {error}"))?;
        ImageWriter::resume(file, unfinished, session, self.seal.clone())
            .map_err(|error| causes(&error))
    }

    /// Removes it, if it still is ours to remove.
    pub(crate) fn remove(&self, storage: &dyn Storage, lease: &dyn Lease) -> Result<()> {
        lease.check().and_then(|()| storage.remove(&self.name)).map_err(failed(REMOVING))
    }
}

/// Whether some block could not be read then. Which of its bytes those were is not in the file:
/// only reading it again tells.
pub(crate) fn has_unreadable(unfinished: &Unfinished) -> bool {
    let mut entries = unfinished.entries();
    entries.any(|entry| !entry.is_ok_and(|entry| entry.kind != Kind::Unreadable))
}

impl BackupPlan {
    /// Whether what this plan begins may be gone on with, and may go on with something: an image
    /// in one file, without parity over its pieces; with a key if somebody here has it.
    pub(crate) fn may_be_gone_on_with(&self, seal: Option<&Seal>) -> bool {
        let options = &self.options;
        let has_key = match (&options.seal, seal) {
            (Some(options), Some(seal)) => !options.is_for_others(&seal.key),
            (options, _) => options.is_none(),
        };
        options.split.is_none() && !options.parity && has_key
    }

    /// What this plan recognises its own unfinished images by: sixteen bytes of a hash of
    /// everything that decides what a block becomes, and sixteen that name the state of the
    /// source, zero when nobody vouches for it.
    pub(crate) fn source_token(&self, geometry: &Geometry, parent: Option<ParentLink>) -> Digest {
        let mut hasher = blake3::Hasher::new_keyed(KEY_PLAN);
        let mut add = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        let options = &self.options;
        add(self.source_id.as_bytes());
        add(&geometry.len().to_le_bytes());
        add(&geometry.block_size().get().to_le_bytes());
        add(&geometry.sector_size().to_le_bytes());
        let how = (options.sectors, options.compression, options.deltas, options.delta_depth);
        let repeats = (options.repeats, options.repeat_distance);
        add(format!("{how:?} {repeats:?}").as_bytes());
        // Whoever does not believe in holes has nothing taken for one.
        add(&[u8::from(options.read_holes)]);
        if let Some(ParentLink { point, state_root }) = parent {
            add(&point.0);
            add(&state_root.0);
        }
        for (name, set) in [("used", &self.used), ("excluded", &self.excluded)] {
            add(name.as_bytes());
            for run in set.runs() {
                add(&[run.start.to_le_bytes(), run.len.to_le_bytes()].concat());
            }
        }
        let mut token = *hasher.finalize().as_bytes();
        token[HALF..].copy_from_slice(&self.facts.stamp.map_or([0; HALF], |stamp| stamp.0));
        Digest(token)
    }
}
