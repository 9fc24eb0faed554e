//! Blocks out of files that are no images any more: damaged, cut off, without beginning or end,
//! never finished.
//!
//! [`Salvage::scan`] reads a file once from front to back, steps by what is sound in it, and
//! finds out whose it is. Then every block is decided by the best evidence there is
//! ([`Salvage::walk`]): a page of the index, which proves itself; a checkpoint; the frame alone.
//! Its bytes are decoded and compared with the leaf of that evidence ([`Salvage::reader`]). What
//! nothing tells, and what contradicts itself, is lost and said so; nothing is made up.
//!
//! The file is only read. Memory: 32 bytes for each frame of which no checkpoint tells, 64 for
//! each page of an index, and some chunks of the file.

mod checks;
mod covers;
mod feed;
mod finds;
#[cfg(test)]
mod nested;
mod open;
mod pages;
mod parts;
mod read;
mod scan;
mod slots;
mod walk;
mod whose;

use std::fmt;
use std::sync::{Arc, Mutex};

use aiv_keys::{ChainKey, Keys};
use aiv_volume_io::{Extent, Job, ReadAt};

pub use read::SalvageReader;
pub use slots::{FoundSlots, slot_areas};
pub use walk::Walk;

use crate::error::Result;
use crate::ids::{BlockIndex, BlockSize, Digest, Geometry, ImageId, PointId, SessionTag, SetId};
use crate::layout::{IndexEntry, ParentLink, Superblock, Trailer};
use crate::meta::Meta;
use crate::seal::Access;
use covers::Cover;
use finds::{BlockFrame, Finds};
use open::Openers;
use parts::Parts;
use whose::Whose;

/// What the caller knows about a file that has lost it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hints {
    /// Bytes of the disk.
    pub len: Option<u64>,
    /// Bytes per block.
    pub block_size: Option<BlockSize>,
}

/// How it is known which image a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KnownBy {
    /// The superblock at its beginning.
    Superblock,
    /// The copy at its end.
    Copy,
    /// A superblock somewhere in it, of the session that made most frames.
    Elsewhere,
    /// A trailer.
    Trailer,
    /// The session that made most frames: sizes come from META or from the caller.
    Frames,
}

impl KnownBy {
    /// The word of reports and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Superblock => "superblock",
            Self::Copy => "superblock copy",
            Self::Elsewhere => "stray superblock",
            Self::Trailer => "trailer",
            Self::Frames => "frames",
        }
    }
}

/// Which image a file holds, as far as can be told.
#[derive(Debug, Clone)]
pub struct Identity {
    /// What was known before the first block.
    pub superblock: Option<Superblock>,
    /// What was known after the last one.
    pub trailer: Option<Trailer>,
    /// The image.
    pub image: Option<ImageId>,
    /// The session that began it, or, without a superblock, that made most of it.
    pub session: SessionTag,
    /// How this is known.
    pub known_by: KnownBy,
    /// Bytes that are missing in front: what was at this offset is at the beginning now. In a
    /// later segment of a split image, those of the segments before it.
    pub shift: u64,
    /// Whether the trailer proves, with the key of the image, that superblock and trailer were
    /// written with it. Never without a key.
    pub is_authentic: bool,
}

impl Identity {
    /// The set.
    #[must_use]
    pub fn set(&self) -> Option<SetId> {
        let trailer = || self.trailer.as_ref().map(|trailer| trailer.set);
        self.superblock.as_ref().map(|superblock| superblock.set).or_else(trailer)
    }

    /// The recovery point.
    #[must_use]
    pub fn point(&self) -> Option<PointId> {
        let trailer = || self.trailer.as_ref().map(|trailer| trailer.point);
        self.superblock.as_ref().map(|superblock| superblock.point).or_else(trailer)
    }

    /// The point it builds on. `None` also when nothing is left that would say so.
    #[must_use]
    pub fn parent(&self) -> Option<ParentLink> {
        let trailer = || self.trailer.as_ref().and_then(|trailer| trailer.parent);
        match &self.superblock {
            Some(superblock) => superblock.parent,
            None => trailer(),
        }
    }
}

/// What a block is decided by, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Evidence {
    /// A page of the index.
    Index,
    /// A checkpoint.
    Checkpoint,
    /// A frame of a session that wrote this image.
    Frame,
    /// A frame of a session that came by merging: it may be what the block was once. Not proven.
    MovedFrame,
}

/// Why a block is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// Nothing is left that says what it was.
    Unknown,
    /// Its frame is damaged.
    Frame,
    /// Frames contradict each other, and nothing decides between them.
    Conflict,
    /// It needs the parent's state, which is not there, or is not what it was.
    Parent,
    /// It is stored as a difference to another block of the image, which is lost.
    Base,
}

impl Loss {
    /// The word of JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Frame => "frame",
            Self::Conflict => "conflict",
            Self::Parent => "parent",
            Self::Base => "base",
        }
    }
}

/// Says it as the end of a sentence.
impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "nothing is left that says what was there",
            Self::Frame => "what was stored of it is damaged",
            Self::Conflict => "two versions are left, and nothing decides between them",
            Self::Parent => "it needs an older image that is missing or damaged",
            Self::Base => "it is a difference to another block, which is lost",
        })
    }
}

/// What is known about a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// How it is stored. The address is that in the file at hand; of the leaf, frames alone give
    /// the first 8 bytes.
    Decided(Evidence, IndexEntry),
    /// It is as in the parent's state.
    Inherited(Evidence),
    /// It is gone.
    Lost(Loss),
}

/// Consecutive blocks of one fate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// The first of them.
    pub first: BlockIndex,
    /// How many; at least one.
    pub run: u64,
    /// What is known about them.
    pub fate: Fate,
}

impl Stretch {
    /// First block behind them.
    #[must_use]
    pub const fn end(&self) -> BlockIndex {
        self.first + self.run
    }
}

/// A file that was scanned for what is left of an image.
pub struct Salvage {
    file: Arc<dyn ReadAt>,
    identity: Identity,
    access: Access,
    /// The key of an image that has one, where it was given.
    key: Option<ChainKey>,
    geometry: Geometry,
    meta: Meta,
    has_manifest: bool,
    /// Whether blocks that its index does not mention are those of a parent.
    inherits: bool,
    pages: Vec<Cover>,
    checkpoints: Vec<Cover>,
    /// Frames of the image, by block.
    frames: Vec<BlockFrame>,
    /// Sessions whose frames are where they were made.
    wrote: Sessions,
    frames_seen: u64,
    /// What of which image is left.
    fingerprint: Digest,
    unreadable: Vec<Extent>,
    /// The pages and checkpoints read last, the newest last.
    recent: Mutex<Vec<(u64, Arc<Vec<IndexEntry>>)>>,
}

/// A set of session numbers.
struct Sessions(Vec<bool>);

impl Sessions {
    fn has(&self, session: u16) -> bool {
        self.0.get(usize::from(session)).copied().unwrap_or(false)
    }
}

impl Salvage {
    /// Reads all of `file`, and finds out what is left of the image in it. Whichever of `keys` is
    /// its own opens what is sealed: nothing counts then that was not sealed with it.
    ///
    /// # Errors
    /// [`Error::Unsalvageable`] when there is nothing of an image, or it is sealed and there is no
    /// key, or nothing tells the size of the disk and `hints` do not either;
    /// [`Error::WrongKey`] when there are keys and none is that of the image, [`Error::NotKeyed`]
    /// when they are required and it has none; [`Error::Unsupported`] when a sound superblock asks
    /// for a newer program; [`Error::Canceled`].
    ///
    /// [`Error::Unsalvageable`]: crate::Error::Unsalvageable
    /// [`Error::WrongKey`]: crate::Error::WrongKey
    /// [`Error::NotKeyed`]: crate::Error::NotKeyed
    /// [`Error::Unsupported`]: crate::Error::Unsupported
    /// [`Error::Canceled`]: crate::Error::Canceled
    pub fn scan(file: Arc<dyn ReadAt>, keys: &Keys, hints: &Hints, job: Job<'_>) -> Result<Self> {
        let known = whose::superblock(&*file, keys)?;
        let protection = known.as_ref().map(|known| whose::protection(&known.superblock, keys));
        let under = protection.transpose()?.map(|(under, _)| under);
        let first = known.as_ref().map(|known| known.superblock.session).zip(under);
        let mut finds = Finds::new(first);
        let unreadable = scan::scan(&*file, &mut Openers::new(keys), &mut finds, job)?;
        let whose = whose::identify(&*file, &mut finds, known, keys, job)?;
        Self::of(file, whose, finds, hints, unreadable, job)
    }

    /// What `finds` are worth, of which the sessions of `whose` count.
    fn of(
        file: Arc<dyn ReadAt>,
        whose: Whose,
        mut finds: Finds,
        hints: &Hints,
        unreadable: Vec<Extent>,
        job: Job<'_>,
    ) -> Result<Self> {
        let (meta, has_manifest) = read_meta(&*file, &finds, &whose, job)?;
        let geometry = whose::geometry(&whose, &meta, &finds, hints)?;
        let access = pages::open(&*file, &mut finds, &whose, job)?;
        let Whose { identity, ours, key, .. } = whose;
        let pages = covers::of_pages(&finds, &identity, &geometry);
        let checkpoints = covers::of_checkpoints(&finds, &ours, &geometry);
        let Finds { mut frames, sessions, frames_seen, mut places, .. } = finds;
        places.update(format!("{:?} {:?}", identity.image, identity.known_by).as_bytes());
        let fingerprint = Digest(*places.finalize().as_bytes());
        frames.retain(|frame| ours.has(frame.session) && frame.block < geometry.blocks());
        let wrote = Sessions(sessions.iter().map(|session| session.wrote).collect());
        frames.sort_unstable_by_key(|frame| (frame.block, frame.at));
        walk::leave_few_of_each(&mut frames, &geometry, &wrote);
        Ok(Self {
            inherits: identity.parent().is_some(),
            meta: checked(meta, &geometry),
            has_manifest,
            file,
            identity,
            access,
            key,
            geometry,
            pages,
            checkpoints,
            frames,
            wrote,
            frames_seen,
            fingerprint,
            unreadable,
            recent: Mutex::default(),
        })
    }

    /// Which image it is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The key of the image; `None` when it has none, or it was not given.
    #[must_use]
    pub fn key(&self) -> Option<&ChainKey> {
        self.key.as_ref()
    }

    /// Whether the image is sealed.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        matches!(self.access, Access::Open(_))
    }

    /// Whether the state that `root` names is the one the trailer names; `None` without one.
    #[must_use]
    pub fn is_state(&self, root: &Digest) -> Option<bool> {
        let trailer = self.identity.trailer.as_ref()?;
        Some(self.access.clear_root(root) == trailer.state_root)
    }

    fn parts(&self) -> Parts<'_> {
        Parts { file: &*self.file, access: &self.access }
    }

    /// Length, block size and sector size.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// What is left of META; a disk of which nothing is known is one region.
    #[must_use]
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Whether META still says whose disk it is.
    #[must_use]
    pub fn has_manifest(&self) -> bool {
        self.has_manifest
    }

    /// Sound frames of any kind in the file.
    #[must_use]
    pub fn frames_seen(&self) -> u64 {
        self.frames_seen
    }

    /// What of which image is left: another one where anything else of it is damaged.
    #[must_use]
    pub fn fingerprint(&self) -> Digest {
        self.fingerprint
    }

    /// Parts of the file that the medium did not give, ascending.
    #[must_use]
    pub fn unreadable(&self) -> &[Extent] {
        &self.unreadable
    }
}

/// The sections that are sound, each by itself; the last of each type, since a file is written
/// front to back. Says whether the manifest is among them.
fn read_meta(
    file: &dyn ReadAt,
    finds: &Finds,
    whose: &Whose,
    job: Job<'_>,
) -> Result<(Meta, bool)> {
    use crate::meta::SectionType;
    let Whose { ours, access, .. } = whose;
    let parts = Parts { file, access };
    let mut meta = Meta::default();
    let mut found: Vec<u64> = Vec::new();
    for frame in finds.meta.iter().rev().filter(|frame| ours.has(frame.session)) {
        job.check()?;
        if !found.contains(&frame.section) && parts.section(frame, &mut meta).is_some() {
            found.push(frame.section);
        }
    }
    Ok((meta, found.contains(&SectionType::Manifest.code())))
}

/// META without what contradicts the geometry.
fn checked(mut meta: Meta, geometry: &Geometry) -> Meta {
    use crate::meta::DiskInfo;
    let bare = || DiskInfo::bare(geometry.len(), geometry.sector_size());
    if meta.check(geometry).is_ok() {
        return meta;
    }
    meta.source_errors.retain(|extent| !extent.is_empty() && extent.end() <= geometry.len());
    if meta.check(geometry).is_err() {
        meta.disk = bare();
    }
    if meta.check(geometry).is_err() {
        meta.excluded = crate::meta::Excluded::default();
    }
    meta
}
