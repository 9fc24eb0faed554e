//! Images with keys: which key an image gets, and what it may build on.

use aiv_chain::{Folder, Point, Protection, Set, View, newest_slots};
use aiv_image_format::{
    ChainKey, Digest, Image, ImageId, Keys, Mode, Seal, SessionTag, SetId, Superblock, Unfinished,
};
use aiv_keys::{KeyArea, Purpose, SlotKind};
use aiv_volume_io::{Job, Storage};

use crate::error::{Error, Refusal, Result};
use crate::facts::Basis;
use crate::resume::HALF;

/// How images are sealed or authenticated.
#[derive(Debug, Clone)]
pub struct SealOptions {
    /// What keys are for; `None` goes on as the images of the source are, and seals the first one.
    pub mode: Option<Mode>,
    /// Keys of chains that exist, as far as they were opened.
    pub keys: Keys,
    /// What stands for keys that no new image gets.
    pub retired: Vec<Digest>,
    /// The key of a source that has none yet, and its slots.
    pub fresh: (ChainKey, KeyArea),
    /// Keys with their slots that interrupted backups began, and that stand for `fresh` where
    /// their image is gone on with.
    pub begun: Vec<(ChainKey, KeyArea)>,
    /// Whether sizes are rounded up, so that they tell less about contents.
    pub padding: bool,
    /// What makes the session of this image another one than any before.
    pub hedge: Hedge,
}

/// What a session is named after beside the image: numbers that do not come again even where
/// random ones do, as in a virtual machine that is set back.
#[derive(Debug, Clone, Default)]
pub struct Hedge {
    /// Random bytes.
    pub random: [u8; 32],
    /// A random number of this process.
    pub nonce_salt: u32,
    /// The time, as finely as it is known.
    pub time_ns: u128,
    /// What names this process and the start of the machine.
    pub place: String,
}

impl SealOptions {
    /// Whether an image may build on one that is protected like this.
    fn goes_on(&self, protection: Protection) -> bool {
        let Some(key) = protection.key() else { return false };
        let is_asked = self.mode.is_none_or(|mode| protection.mode() == Some(mode));
        is_asked && self.keys.find(&key.0).is_some() && !self.retired.contains(&key)
    }

    /// Whether nobody here can open an image with this key and these slots: it is made for others.
    pub(crate) fn is_for_others(&self, key: &ChainKey) -> bool {
        let (fresh, area) = &self.fresh;
        key == fresh && area.slots().all(|(_, slot)| slot.kind() == SlotKind::Recipient)
    }

    /// How an unfinished image with this superblock is gone on with, where `seal` is what a new one
    /// would get; `None` when it has another key, or one that nobody gave.
    pub(crate) fn seal_of(&self, begun: &Superblock, seal: &Seal) -> Option<Seal> {
        let key = begun.key_commitment.0;
        if seal.key.commitment() == key {
            return Some(seal.clone());
        }
        let is_first = seal.key == self.fresh.0;
        let mut all = self.begun.iter().filter(|_| is_first);
        let (key, area) = all.find(|(begun, _)| begun.commitment() == key)?;
        let slots = Some(area.to_bytes().into_boxed_slice());
        Some(Seal { key: key.clone(), slots, ..seal.clone() })
    }

    /// Whether images of a set have a key that was not given.
    pub(crate) fn leaves_key(&self, set: Option<&Set>) -> bool {
        let mut keys =
            set.into_iter().flat_map(|set| &set.points).map(|point| point.protection.key());
        keys.any(|key| key.is_some_and(|key| self.keys.find(&key.0).is_none()))
    }
}

/// The keys to open what exists with.
pub(crate) fn keys(options: Option<&SealOptions>) -> Keys {
    options.map_or_else(Keys::none, |options| options.keys.clone())
}

/// Whether an image that is made with these options may build on one that is protected like this.
pub(crate) fn may_build_on(options: Option<&SealOptions>, protection: Protection) -> bool {
    match options {
        None => protection == Protection::None,
        Some(options) => options.goes_on(protection),
    }
}

/// Refuses to go on in a way the owner of the set cannot want: without a key beside images that
/// have one, or with another one because that of the newest image was not given.
pub(crate) fn check_newest(
    folder: &Folder,
    set: SetId,
    options: Option<&SealOptions>,
    basis: Basis,
) -> Result<()> {
    let points = folder.set(set).map_or(&[][..], |set| &set.points);
    if options.is_none() && points.iter().any(|point| point.protection.key().is_some()) {
        return Err(Refusal::WithoutKey.into());
    }
    // The numbers of locked images are not known. A clock that was wrong refuses at worst.
    let newest = points.iter().max_by_key(|point| point.time_unix_ms);
    let newest = newest.map_or(Protection::None, |point| point.protection);
    let Some(key) = newest.key() else { return Ok(()) };
    match options {
        None => Ok(()),
        Some(options) if options.retired.contains(&key) || basis == Basis::Nothing => Ok(()),
        Some(options) if options.keys.find(&key.0).is_none() => Err(Refusal::OtherKey.into()),
        // Who asks for sealing must not get increments in clear.
        Some(options) if options.mode.is_some_and(|mode| newest.mode() != Some(mode)) => {
            Err(Refusal::OtherMode.into())
        }
        Some(_) => Ok(()),
    }
}

/// What the new image is written with: the key of its parent, else that of the newest image of
/// the set that has one, else a new one; and the newest slots of all images that have the key.
pub(crate) fn seal(
    options: &SealOptions,
    parent: Option<&View>,
    set: Option<&Set>,
    storage: &dyn Storage,
    job: Job<'_>,
) -> Result<Seal> {
    let (key, mut area, mode) = match parent {
        Some(view) => of_image(options, view.image())?.ok_or(Refusal::NoSlots)?,
        None => of_set(options, set, storage).unwrap_or_else(|| {
            let (key, area) = &options.fresh;
            (key.clone(), area.clone(), options.mode.unwrap_or(Mode::Sealed))
        }),
    };
    // The lease of the set keeps others from changing them from here on.
    if let Some(newest) = newest_slots(&[storage], &key, job).map_err(unlooked)? {
        area = newest;
    }
    Ok(Seal {
        mode,
        padding: options.padding,
        slots: Some(area.to_bytes().into_boxed_slice()),
        ..Seal::new(key, options.hedge.nonce_salt)
    })
}

fn unlooked(error: aiv_chain::Error) -> Error {
    match error {
        aiv_chain::Error::Canceled(canceled) => canceled.into(),
        error => Error::Folder(error),
    }
}

type WithSlots = (ChainKey, KeyArea, Mode);

/// A full image goes on with the key of those before it, so that all ways in open it, too: the
/// recovery code in a safe does not know that a chain was damaged and another one began.
fn of_set(options: &SealOptions, set: Option<&Set>, storage: &dyn Storage) -> Option<WithSlots> {
    let mut points: Vec<&Point> = set?.points.iter().collect();
    points.sort_by_key(|point| std::cmp::Reverse(point.time_unix_ms));
    points.into_iter().filter(|point| options.goes_on(point.protection)).find_map(|point| {
        let file = storage.open(&point.file).ok()?;
        let image = Image::open_with(file, &options.keys).ok()?;
        of_image(options, &image).ok()?
    })
}

/// The key, the slots and the mode of an image; `None` without sound slots: nobody could open
/// the new image by itself.
fn of_image(options: &SealOptions, image: &Image) -> Result<Option<WithSlots>> {
    let superblock = image.superblock();
    let key = options.keys.find(&superblock.key_commitment.0).ok_or(Refusal::OtherKey)?;
    let mode = if superblock.is_sealed() { Mode::Sealed } else { Mode::Authenticated };
    let copies = image.slot_copies().map_err(Error::Parent)?;
    let areas = copies.and_then(|[a, b]| KeyArea::sound([&a, &b]).ok()).unwrap_or_default();
    let area = areas.into_iter().find(|area| area.prove(key).is_ok());
    Ok(area.map(|area| (key.clone(), area, mode)))
}

/// The session that goes on with an unfinished image.
pub(crate) fn session_on(hedge: &Hedge, unfinished: &Unfinished) -> SessionTag {
    session(hedge, unfinished.superblock().image, Some(unfinished.fingerprint()))
}

/// What an image with a key is recognised by when it is gone on with: a code over what `plan` says
/// and over all of its superblock that somebody could have changed. It tells nothing to who has
/// not the key, and is another one in every image.
pub(crate) fn token(seal: &Seal, superblock: &Superblock, plan: Digest) -> Digest {
    let mut hasher = blake3::Hasher::new();
    let mut add = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    let Superblock { image, set, point, session, created_unix_ms, geometry, .. } = *superblock;
    for id in [image.0, set.0, point.0] {
        add(&id);
    }
    add(&session.0);
    add(&created_unix_ms.to_le_bytes());
    add(&geometry.len().to_le_bytes());
    add(superblock.writer.as_bytes());
    add(&[u8::from(seal.mode == Mode::Sealed), u8::from(seal.padding)]);
    // Who vouches for the source is not asked: what has a key is always compared.
    add(&plan.0[..HALF]);
    Digest(*seal.key.derive(Purpose::SourceToken, &[hasher.finalize().as_bytes()]).expose())
}

/// The session of an image.
pub(crate) fn session(hedge: &Hedge, image: ImageId, parent: Option<Digest>) -> SessionTag {
    SessionTag::hedged(&hedge.random, hedge.time_ns, &hedge.place, image, parent)
}
