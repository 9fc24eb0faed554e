//! What interrupted backups left behind: which of it a backup goes on with, and what goes.

use std::sync::Arc;

use aiv_chain::{BegunParts, Folder, MERGE_PART, remove_interrupted};
use aiv_image_format::{
    Digest, Error as ImageError, Geometry, ImageWriter, Keys, Kind, ParentLink, Seal, SessionTag,
    SetId, Superblock, Unfinished, peek, peek_segment,
};
use aiv_volume_io::{Job, Lease, PART_EXTENSION, ReadAt, Storage, causes};

use crate::error::{Error, Result};
use crate::parts::Parts;
use crate::plan::BackupPlan;
use crate::seal::{self, SealOptions};

/// Half of a source token: what was planned, or what the source was.
pub(crate) const HALF: usize = 16;

const KEY_PLAN: &[u8; 32] = b"aivory backup: token of a plan  ";

/// What a backup went on with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resumed {
    /// Name of the unfinished file, or of its first segment.
    pub file: String,
    /// Bytes of the image that were kept.
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
    /// Which segment of a split image it is, from 0.
    no: u32,
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
                let no = peek_segment(&*file).map_or(0, |head| head.no);
                found.push(Leftover { name: entry.name, len: entry.len, no, superblock });
            }
        }
        Ok(Self(found))
    }

    /// Chooses the longest image that began as `wanted` is going to and is no published one, also
    /// not under another name.
    pub(crate) fn choose(
        &self,
        storage: &dyn Storage,
        wanted: &Wanted<'_>,
        folder: &Folder,
    ) -> Option<Candidate> {
        let fits = |leftover: &Leftover| {
            let it = leftover.superblock.as_ref().filter(|_| leftover.no == 0)?;
            let seal = wanted.fits(it).filter(|_| !is_published(it, folder))?;
            let files = Files::of(storage, &leftover.name, it, wanted.split)?;
            let token = it.source_token;
            // What has a key is believed in nothing that was not compared.
            let is_same = seal.is_none() && token == wanted.superblock.source_token;
            let is_vouched = is_same && token.0[HALF..] != [0; HALF];
            let name = leftover.name.clone();
            Some((self.bytes_of(it), Candidate { name, files, is_vouched, seal }))
        };
        let fitting = self.0.iter().filter_map(fits);
        fitting.max_by_key(|(bytes, _)| *bytes).map(|(_, candidate)| candidate)
    }

    /// Bytes of all the files of an image.
    fn bytes_of(&self, begun: &Superblock) -> u64 {
        let is_of = |it: &&Leftover| it.superblock.as_ref().is_some_and(|s| s.image == begun.image);
        self.0.iter().filter(is_of).fold(0, |sum, it| sum.saturating_add(it.len))
    }

    /// Removes all of them but those of `spared`, with the segments that belong to them, and returns
    /// the names, sorted.
    pub(crate) fn remove(
        self,
        storage: &dyn Storage,
        set: SetId,
        spared: Option<&Candidate>,
    ) -> Result<Vec<String>> {
        let spared = spared.map(Candidate::names).unwrap_or_default();
        let goes = |name: &str| is_part(name) && !spared.iter().any(|spared| spared == name);
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
    /// Bytes of a file at most, where it is split.
    pub split: Option<u64>,
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

/// The files of an unfinished image.
enum Files {
    One(String),
    /// Segments, and the bytes of one at most.
    Split(BegunParts, u64),
}

impl Files {
    /// Those of the image that begins in the file `name`; `None` when it cannot be gone on with.
    fn of(
        storage: &dyn Storage,
        name: &str,
        begun: &Superblock,
        split: Option<u64>,
    ) -> Option<Self> {
        let Some(limit) = split else { return Some(Self::One(name.to_owned())) };
        let parts = BegunParts::find(storage, name, PART_EXTENSION, begun.image);
        parts.ok().flatten().map(|parts| Self::Split(parts, limit))
    }

    /// Opens them. The inner error is the name of a file that is in their way.
    fn open(
        &self,
        storage: &dyn Storage,
    ) -> std::io::Result<std::result::Result<Vec<Arc<dyn ReadAt>>, String>> {
        match self {
            Self::One(name) => Ok(Ok(vec![storage.open(name)?])),
            Self::Split(parts, _) => match parts.stranger() {
                Some(name) => Ok(Err(name.to_owned())),
                None => parts.open(storage).map(Ok),
            },
        }
    }
}

/// An unfinished image that fits.
pub(crate) struct Candidate {
    /// The name of its first file.
    pub name: String,
    files: Files,
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

    /// The names of all its files.
    pub(crate) fn names(&self) -> Vec<String> {
        match &self.files {
            Files::One(name) => vec![name.clone()],
            Files::Split(parts, _) => parts.names().map(str::to_owned).collect(),
        }
    }

    /// Where it is until it is published.
    pub(crate) fn parts(&self) -> Parts {
        match &self.files {
            Files::One(name) => Parts::One(name.clone()),
            Files::Split(parts, _) => Parts::Split(parts.file().to_owned()),
        }
    }

    /// Reads it. The inner error says why it is of no use.
    pub(crate) fn read(
        &self,
        storage: &dyn Storage,
        job: Job<'_>,
    ) -> Result<std::result::Result<Unfinished, String>> {
        let files = match self.files.open(storage) {
            Ok(Ok(files)) => files,
            Ok(Err(other)) => return Ok(Err(format!("{other} is a segment of another image"))),
            Err(error) => return Ok(Err(format!("it cannot be opened: {error}"))),
        };
        let slots = self.seal.as_ref().and_then(|seal| seal.slots.as_deref()).unwrap_or_default();
        match Unfinished::read_segments(&files, &self.keys(), job) {
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
        let cannot = |error: std::io::Error| format!("it cannot be gone on with: {error}");
        let seal = self.seal.clone();
        let writer = match &self.files {
            Files::One(name) => {
                let file = storage.reopen(name, unfinished.len()).map_err(cannot)?;
                ImageWriter::resume(file, unfinished, session, seal)
            }
            Files::Split(parts, limit) => {
                let (files, last) = parts.reopen(storage, &unfinished.kept()).map_err(cannot)?;
                let files = Box::new(files);
                ImageWriter::resume_split(files, last, unfinished, session, seal, *limit)
            }
        };
        writer.map_err(|error| causes(&error))
    }

    /// Removes it, if it still is ours to remove.
    pub(crate) fn remove(&self, storage: &dyn Storage, lease: &dyn Lease) -> Result<()> {
        let remove = || match &self.files {
            Files::One(name) => storage.remove(name),
            Files::Split(parts, _) => parts.remove(storage),
        };
        lease.check().and_then(|()| remove()).map_err(failed(REMOVING))
    }
}

/// Whether some block could not be read then. Which of its bytes those were is not in the file:
/// only reading it again tells.
pub(crate) fn has_unreadable(unfinished: &Unfinished) -> bool {
    let mut entries = unfinished.entries();
    entries.any(|entry| !entry.is_ok_and(|entry| entry.kind != Kind::Unreadable))
}

impl BackupPlan {
    /// Whether what this plan begins may be gone on with, and may go on with something: with a key
    /// if somebody here has it.
    pub(crate) fn may_be_gone_on_with(&self, seal: Option<&Seal>) -> bool {
        let options = &self.options;
        match (&options.seal, seal) {
            (Some(options), Some(seal)) => !options.is_for_others(&seal.key),
            (options, _) => options.is_none(),
        }
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
        // Segments that are complete already would be larger than was asked for, or smaller.
        if let Some(limit) = options.split {
            add(&limit.to_le_bytes());
        }
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
