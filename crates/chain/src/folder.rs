//! What a folder holds: sets of points, and files that are no usable image.

use std::collections::{BTreeMap, HashMap};

use aiv_image_format::{
    BlockSize, Corrupt, Digest, ImageId, ImageKind, Keys, ParentLink, PointId, SetId, peek_set,
};
use aiv_volume_io::{FileEntry, Storage, causes};

use crate::ancestry::{Ancestry, CHAIN_MAX, Node, node};
use crate::catalogue::{Vanished, Verified};
use crate::error::{Error, Result};
use crate::facts::{About, Facts, Protection};

/// A folder of images, as found at one time.
#[derive(Debug, Clone, Default)]
pub struct Folder {
    /// The sets, by name and id.
    pub sets: Vec<Set>,
    /// Files that are no usable image, by name.
    pub strays: Vec<Stray>,
    /// Sets of which no image has readable META: nothing tells whose they are.
    pub nameless: Vec<Set>,
    /// Points that were here when the catalogue of the folder was written and that no file
    /// provides any more, oldest first, until [`Catalogue::forget`](crate::Catalogue::forget).
    pub vanished: Vec<Vanished>,
    /// The keys it was scanned with.
    pub keys: Keys,
}

/// All points of one source.
#[derive(Debug, Clone)]
pub struct Set {
    /// Identity, derived from the source's.
    pub id: SetId,
    /// What people call the source; from the newest point.
    pub name: String,
    /// Host of the newest point.
    pub host: String,
    /// The source's identity as text.
    pub source_id: String,
    /// The points, oldest first, as far as their images were opened: nothing tells the place of
    /// those that are locked.
    pub points: Vec<Point>,
    /// Images whose META is damaged: other points can still build on them, and they can be
    /// restored by the name of their file.
    pub nameless: Vec<Point>,
    /// Whether some of it was taken from a catalogue and not from the files.
    pub(crate) remembered: bool,
    /// The keys of the scan: its images are opened with them.
    pub(crate) keys: Keys,
}

/// One recovery point, and the file that provides it.
#[derive(Debug, Clone)]
pub struct Point {
    /// Identity of the point.
    pub id: PointId,
    /// Name of the file in the folder that it is read from.
    pub file: String,
    /// Names of the files with the other segments, in order, when the image is split.
    pub segments: Vec<String>,
    /// Names of other files that provide the same state: of an interrupted merge, or copies.
    pub other_files: Vec<String>,
    /// The image in that file.
    pub image: ImageId,
    /// Full, incremental or differential.
    pub kind: ImageKind,
    /// The point it builds on, with the root its state must have.
    pub parent: Option<ParentLink>,
    /// When the source was read, milliseconds since 1970 UTC; informational.
    pub time_unix_ms: u64,
    /// Number of the full image in its set.
    pub full_number: u32,
    /// Number of the increment after it.
    pub increment_number: u32,
    /// Bytes of the disk.
    pub size: u64,
    /// Bytes per block, the same for the whole chain.
    pub block_size: BlockSize,
    /// Bytes per sector of the source, the same for the whole chain.
    pub sector_size: u32,
    /// Bytes of the file, or of all its segments.
    pub size_stored: u64,
    /// Name of the state; of a sealed image what stands for it.
    pub state_root: Digest,
    /// Hash of the bytes; of a sealed image what stands for it.
    pub content_root: Digest,
    /// What a key does for the image.
    pub protection: Protection,
    /// Free text of the user.
    pub comment: String,
    /// Whether it can be restored, as far as its structures tell.
    pub state: PointState,
    /// Whether its image is sealed and was not opened: its numbers and its time are unknown,
    /// whatever else keeps it from being restored.
    pub locked: bool,
    /// What the last verification of its file found, when the file is unchanged since.
    pub verified: Option<Verified>,
    /// The newest file of its chain in which a verification found damage. The point can still
    /// be read as far as the damage allows; what builds on it would share the damage.
    pub damaged_by: Option<String>,
    /// Bytes of the file from the index on.
    pub(crate) tail: u64,
}

/// Whether a point can be restored, as far as opening its files tells.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PointState {
    /// Every image it needs opens.
    Restorable,
    /// Every image it needs is there, and it is sealed, and no key was given: see
    /// [`Folder::scan_keyed`].
    Locked {
        /// Stands for the key that is needed.
        key: Digest,
    },
    /// It opens by a second copy of a damaged part; verify it soon.
    Damaged(Vec<Corrupt>),
    /// No file provides a point that it builds on, directly or not.
    MissingParent {
        /// The point that is missing.
        point: PointId,
    },
    /// The files that provide a point it builds on hold another state, or another block or
    /// sector size.
    ParentDiffers {
        /// The point that is provided by the wrong image.
        point: PointId,
    },
    /// Its images name each other as parents, or hold one point twice, so none of them can be
    /// read.
    Circular,
    /// It needs more images than [`CHAIN_MAX`](crate::CHAIN_MAX).
    TooLong,
}

impl Point {
    /// Whether every image it needs opens.
    #[must_use]
    pub fn is_restorable(&self) -> bool {
        matches!(self.state, PointState::Restorable | PointState::Damaged(_))
    }

    /// Whether every image it needs is there, to be copied and compared with its stored list:
    /// one that is locked needs its key to be read besides.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.is_restorable() || matches!(self.state, PointState::Locked { .. })
    }

    /// The state, as an image that builds on it names it.
    #[must_use]
    pub fn link(&self) -> ParentLink {
        ParentLink { point: self.id, state_root: self.state_root }
    }
}

impl Set {
    /// The point with this identity; of several states under one id the first.
    #[must_use]
    pub fn point(&self, id: PointId) -> Option<&Point> {
        self.points.iter().find(|point| point.id == id)
    }

    /// Who provides the state `link` names, whether or not it can be told whose it is.
    pub(crate) fn provider(&self, link: ParentLink) -> Option<&Point> {
        self.points.iter().chain(&self.nameless).find(|p| p.link() == link)
    }

    /// Files of the chain from `point` to its full image, newest first.
    ///
    /// # Errors
    /// [`Error::NotRestorable`] when the chain is not whole.
    pub fn chain<'s>(&'s self, point: &'s Point) -> Result<Vec<&'s Point>> {
        self.links().chain(point)
    }

    /// For many chains of one set.
    pub(crate) fn links(&self) -> Links<'_> {
        let mut providers = HashMap::new();
        for point in self.points.iter().chain(&self.nameless) {
            providers.entry((point.id, point.state_root)).or_insert(point);
        }
        Links { providers }
    }
}

/// Who provides which state of a set.
pub(crate) struct Links<'s> {
    providers: HashMap<(PointId, Digest), &'s Point>,
}

impl<'s> Links<'s> {
    /// As [`Set::chain`].
    pub(crate) fn chain(&self, point: &'s Point) -> Result<Vec<&'s Point>> {
        if !point.is_whole() {
            let (id, state) = (point.id, point.state.clone());
            return Err(Error::NotRestorable { point: id, state });
        }
        let mut chain = vec![point];
        let mut at = point;
        while let Some(link) = at.parent {
            let next = self.providers.get(&(link.point, link.state_root));
            let next = next.filter(|_| chain.len() < CHAIN_MAX);
            at = next.ok_or(Error::NotRestorable {
                point: point.id,
                state: PointState::MissingParent { point: link.point },
            })?;
            chain.push(at);
        }
        Ok(chain)
    }
}

/// A file that is no usable image.
#[derive(Debug, Clone)]
pub struct Stray {
    /// Name of the file in the folder.
    pub file: String,
    /// Bytes of the file.
    pub size: u64,
    /// The image in it, where that much is known.
    pub image: Option<ImageId>,
    /// What it is.
    pub kind: StrayKind,
}

/// What a file that is no usable image is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StrayKind {
    /// A backup that is running or was interrupted; safe to remove when none is running.
    Unfinished,
    /// Named like an image, but not one of ours.
    Foreign(String),
    /// One of ours that cannot be opened: damaged, cut off, without one of its segments, or from a
    /// newer program.
    Unusable(String),
    /// The storage cannot read it, now at least: it may hold a point.
    Unreadable(String),
    /// A second file that provides a point which another file provides already.
    Duplicate(String),
}

/// Extension of files being written; never looked at as images.
pub(crate) const PART_EXTENSION: &str = ".part";

impl Folder {
    /// Builds sets and chains out of what the files say; `remembered` when not all of it comes
    /// from the files themselves.
    pub(crate) fn assemble(all: &[Facts], remembered: bool, mut strays: Vec<Stray>) -> Self {
        let ancestry = Ancestry::of(all);
        let mut drafts: BTreeMap<SetId, Draft> = BTreeMap::new();
        let mut others: HashMap<Node, Vec<String>> = HashMap::new();
        let stray = |facts: &Facts, kind| Stray {
            file: facts.file.clone(),
            size: facts.size_stored,
            image: Some(facts.image),
            kind,
        };
        let is_chosen = |at: usize, facts: &Facts| ancestry.chosen.get(&node(facts)) == Some(&at);
        for (at, facts) in all.iter().enumerate().filter(|(at, facts)| !is_chosen(*at, facts)) {
            let chosen = ancestry.chosen.get(&node(facts)).map_or(at, |&chosen| chosen);
            others.entry(node(facts)).or_default().push(facts.file.clone());
            strays.push(stray(facts, StrayKind::Duplicate(all[chosen].file.clone())));
        }
        for (_, facts) in all.iter().enumerate().filter(|(at, facts)| is_chosen(*at, facts)) {
            let damaged_by = ancestry.damaged_by(facts).map(|at| all[at].file.clone());
            let other_files = others.remove(&node(facts)).unwrap_or_default();
            let state = ancestry.state(facts);
            let point = Point { other_files, damaged_by, ..point_of(facts, state) };
            let draft = drafts.entry(facts.set).or_insert_with(|| Draft::new(facts.set));
            if let Some(about) = &facts.about {
                draft.push(point, about);
            } else {
                // Nothing says which point of which source it is.
                let damage = facts.damage.iter().map(ToString::to_string);
                let why = damage.collect::<Vec<_>>().join("; ");
                strays.push(stray(facts, StrayKind::Unusable(why)));
                draft.set.nameless.push(point);
            }
        }
        let sets = drafts.into_values().map(|draft| Set { remembered, ..draft.finish() });
        let (mut sets, nameless): (Vec<Set>, Vec<Set>) =
            sets.partition(|set| !set.points.is_empty());
        sets.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        strays.sort_by(|a, b| a.file.cmp(&b.file));
        Self { sets, strays, nameless, vanished: Vec::new(), keys: Keys::none() }
    }

    /// The same, to be opened with `keys`.
    pub(crate) fn with_keys(mut self, keys: &Keys) -> Self {
        for set in self.sets.iter_mut().chain(&mut self.nameless) {
            set.keys.clone_from(keys);
        }
        self.keys.clone_from(keys);
        self
    }

    /// Whether some of it was taken from a catalogue and not from the files.
    pub(crate) fn is_remembered(&self) -> bool {
        self.sets.iter().chain(&self.nameless).any(|set| set.remembered)
    }

    /// The set with this identity, also one of which no point can be told.
    pub(crate) fn any_set(&self, id: SetId) -> Option<&Set> {
        self.sets.iter().chain(&self.nameless).find(|s| s.id == id)
    }

    /// Refuses a folder with points of which no new image can be made without a key that was not
    /// given: sealed ones, and those that are only authenticated.
    ///
    /// # Errors
    /// [`Error::NotRestorable`] with the first of them.
    pub fn check_unlocked(&self) -> Result<()> {
        let sets = self.sets.iter().chain(&self.nameless);
        let mut points = sets.flat_map(|set| set.points.iter().chain(&set.nameless));
        points.try_for_each(|point| check_key(point.id, point.protection, &self.keys))
    }

    /// Files that may hold points of `set`, or of any, and cannot be used or even read: of which
    /// set such a file is tell its first bytes in `storage`, if anything does.
    #[must_use]
    pub fn unused(&self, storage: &dyn Storage, set: Option<SetId>) -> Vec<Stray> {
        let may_be_of = |file: &str, set: SetId| {
            let opened = storage.open(file).ok();
            opened.and_then(|file| peek_set(&file)).is_none_or(|of| of == set)
        };
        let is_unused = |stray: &&Stray| {
            matches!(stray.kind, StrayKind::Unusable(_) | StrayKind::Unreadable(_))
                && set.is_none_or(|set| may_be_of(&stray.file, set))
        };
        self.strays.iter().filter(is_unused).cloned().collect()
    }

    /// The set with this identity.
    #[must_use]
    pub fn set(&self, id: SetId) -> Option<&Set> {
        self.sets.iter().find(|s| s.id == id)
    }
}

/// Refuses a point whose key is not among those that were given.
pub(crate) fn check_key(point: PointId, protection: Protection, keys: &Keys) -> Result<()> {
    match protection.key() {
        Some(key) if keys.find(&key.0).is_none() => {
            Err(Error::NotRestorable { point, state: PointState::Locked { key } })
        }
        _ => Ok(()),
    }
}

/// What is wrong with a file, without its name.
pub(crate) fn why(error: &Error) -> String {
    std::error::Error::source(error).map(causes).unwrap_or_default()
}

/// Sorts the points of a set from the oldest to the newest. Whoever wrote `numbered` points had
/// opened all of them. Chains of several keys, or of none, may not have known of each other, and
/// give the same numbers again: only their clocks put them in order.
fn age(point: &Point, numbered: bool) -> impl Ord + use<> {
    let (first, time) = if numbered { (0, point.time_unix_ms) } else { (point.time_unix_ms, 0) };
    (first, point.full_number, point.increment_number, time, point.id)
}

/// A set being put together.
struct Draft<'f> {
    set: Set,
    /// Its points, with what they say about the source.
    points: Vec<(Point, &'f About)>,
}

impl<'f> Draft<'f> {
    fn new(id: SetId) -> Self {
        let set = Set {
            id,
            name: String::new(),
            host: String::new(),
            source_id: String::new(),
            points: Vec::new(),
            nameless: Vec::new(),
            remembered: false,
            keys: Keys::none(),
        };
        Self { set, points: Vec::new() }
    }

    fn push(&mut self, point: Point, about: &'f About) {
        self.points.push((point, about));
    }

    fn finish(mut self) -> Set {
        let opened = || self.points.iter().map(|(point, _)| point).filter(|point| !point.locked);
        let first = opened().next().map(|point| point.protection);
        let numbered = opened().all(|point| Some(point.protection) == first);
        self.points.sort_by_key(|(point, _)| age(point, numbered));
        // A locked point does not say whose it is.
        let newest = self.points.iter().rev().find(|(point, _)| !point.locked);
        if let Some((_, about)) = newest {
            self.set.name.clone_from(&about.name);
            self.set.host.clone_from(&about.host);
            self.set.source_id.clone_from(&about.source_id);
        }
        self.set.points = self.points.into_iter().map(|(point, _)| point).collect();
        self.set
    }
}

fn point_of(facts: &Facts, state: PointState) -> Point {
    let about = facts.about.clone().unwrap_or_default();
    Point {
        id: facts.point,
        file: facts.file.clone(),
        segments: facts.segments.clone(),
        other_files: Vec::new(),
        image: facts.image,
        kind: facts.kind,
        parent: facts.parent,
        time_unix_ms: about.time_unix_ms,
        full_number: about.full_number,
        increment_number: about.increment_number,
        size: facts.size,
        block_size: facts.block_size,
        sector_size: facts.sector_size,
        size_stored: facts.size_stored,
        state_root: facts.state_root,
        content_root: facts.content_root,
        comment: about.comment,
        protection: facts.protection,
        state,
        locked: facts.locked,
        verified: facts.verified,
        damaged_by: None,
        tail: facts.tail,
    }
}

pub(crate) fn is_named_like_an_image(name: &str) -> bool {
    let extension = name.rsplit('.').next().unwrap_or_default();
    extension.eq_ignore_ascii_case("aiv") || extension.eq_ignore_ascii_case("aii")
}

/// Whether it is called as later segments of split images are: only such files are looked at
/// twice when they do not begin as an image does.
pub(crate) fn is_named_like_a_part(name: &str) -> bool {
    name.rsplit_once(".p").is_some_and(|(image, number)| {
        is_named_like_an_image(image) && number.bytes().all(|b| b.is_ascii_digit())
    })
}

/// All files of a folder, by name.
pub(crate) fn list(storage: &dyn Storage) -> Result<Vec<FileEntry>> {
    storage.list().map_err(Error::io("listing the folder"))
}
