//! Images with keys: which key an image gets, and what it may build on.

use aiv_chain::{Folder, Protection, View};
use aiv_image_format::{ChainKey, Digest, ImageId, Keys, Mode, Seal, SessionTag, SetId};
use aiv_keys::KeyArea;

use crate::error::{Error, Refusal, Result};
use crate::facts::Basis;

/// How images are sealed or authenticated.
#[derive(Debug, Clone)]
pub struct SealOptions {
    /// What the key does for a new chain; a chain that exists goes on as it is.
    pub mode: Mode,
    /// Keys of chains that exist, as far as they were opened.
    pub keys: Keys,
    /// What stands for keys that no new image gets.
    pub retired: Vec<Digest>,
    /// The key of a new chain, and its slots.
    pub fresh: (ChainKey, KeyArea),
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
        self.keys.find(&key.0).is_some() && !self.retired.contains(&key)
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

/// Refuses to go on beside the newest point of the set in a way its owner cannot want: without a
/// key where there was one, or with another one because the right one was not given.
pub(crate) fn check_newest(
    folder: &Folder,
    set: SetId,
    options: Option<&SealOptions>,
    basis: Basis,
) -> Result<()> {
    // The numbers of locked images are in what is sealed: only times tell what was written last,
    // and a clock that was wrong refuses at worst.
    let points = folder.set(set).map_or(&[][..], |set| &set.points);
    let newest = points.iter().max_by_key(|point| point.time_unix_ms);
    let Some(key) = newest.and_then(|point| point.protection.key()) else { return Ok(()) };
    match options {
        None => Err(Refusal::WithoutKey.into()),
        Some(options) if options.retired.contains(&key) || basis == Basis::Nothing => Ok(()),
        Some(options) if options.keys.find(&key.0).is_none() => Err(Refusal::OtherKey.into()),
        Some(_) => Ok(()),
    }
}

/// What the new image is written with.
pub(crate) fn seal(options: &SealOptions, parent: Option<&View>) -> Result<Seal> {
    let fresh = |(key, area): &(ChainKey, KeyArea)| (key.clone(), area.clone(), options.mode);
    let (key, area, mode) = match parent {
        None => fresh(&options.fresh),
        Some(view) => of_parent(options, view)?,
    };
    Ok(Seal {
        mode,
        padding: options.padding,
        slots: Some(area.to_bytes().into_boxed_slice()),
        ..Seal::new(key, options.hedge.nonce_salt)
    })
}

/// An image has the key of its parent, and the same ways in.
fn of_parent(options: &SealOptions, view: &View) -> Result<(ChainKey, KeyArea, Mode)> {
    let superblock = view.image().superblock();
    let key = options.keys.find(&superblock.key_commitment.0).ok_or(Refusal::OtherKey)?;
    let mode = if superblock.is_sealed() { Mode::Sealed } else { Mode::Authenticated };
    let copies = view.image().slot_copies().map_err(Error::Parent)?;
    let areas = copies.and_then(|[a, b]| KeyArea::sound([&a, &b]).ok()).unwrap_or_default();
    let area = areas.into_iter().find(|area| area.prove(key).is_ok());
    // Without slots nobody could open the new image without its parent.
    Ok((key.clone(), area.ok_or(Refusal::NoSlots)?, mode))
}

/// The session of an image.
pub(crate) fn session(hedge: &Hedge, image: ImageId, parent: Option<Digest>) -> SessionTag {
    SessionTag::hedged(&hedge.random, hedge.time_ns, &hedge.place, image, parent)
}
