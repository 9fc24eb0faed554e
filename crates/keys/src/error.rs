use crate::{Cost, SlotKind};

/// Result of every fallible function of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, by what the caller can do about it. No variant carries anything of a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A copy of the key-slot area is damaged: use the other one, or another image of the chain,
    /// which carries the same slots.
    #[error("the key-slot area is damaged: {0}")]
    Damaged(Damage),
    /// The slots were changed by somebody who does not have the chain key.
    #[error("the key-slot area was changed by somebody without the key of the chain")]
    Forged,
    /// What was given opens none of the slots.
    #[error("{}", wrong_key(*.kind, *.slots))]
    WrongKey {
        /// What was given.
        kind: SlotKind,
        /// Slots of that kind, all of which were tried.
        slots: usize,
    },
    /// The paper key that was given is that of another chain; or it is mistyped in two places that
    /// make up for each other.
    #[error("the paper key is not that of these images: of another chain, or mistyped")]
    OtherChain,
    /// No slots are left that could be changed: whoever has the chain key makes them anew.
    #[error("no sound key slots are left in these images")]
    NoSlots,
    /// Trying the next slot would take more work than one attempt may.
    #[error(
        "slot {slot} asks for {} MiB-passes of Argon2id, and {} of at most {} are left",
        .asked.mib_passes(), .left / 1024, crate::Work::MAX_KIB_PASSES / 1024
    )]
    TooMuchWork {
        /// Its number.
        slot: u8,
        /// What it asks for.
        asked: Cost,
        /// KiB-passes left.
        left: u64,
    },
    /// The memory that a passphrase needs to be tried is not there.
    #[error("{kib} KiB of memory are needed to try a passphrase, and there are less")]
    NoMemory {
        /// KiB.
        kib: u32,
    },
    /// The cost of a passphrase is outside what the format allows.
    #[error(
        "{memory_kib} KiB x {passes} passes x {lanes} lanes of Argon2id are not allowed: lanes 1 \
         to {}, memory from 8 KiB per lane to {} KiB, memory x passes at most {} KiB",
        Cost::LANES_MAX,
        Cost::MEMORY_KIB_MAX,
        Cost::KIB_PASSES_MAX
    )]
    Cost {
        /// KiB of memory.
        memory_kib: u32,
        /// Passes over it.
        passes: u32,
        /// Lanes.
        lanes: u32,
    },
    /// The last slot is not removed: nobody could open the images any more.
    #[error("slot {0} is the last one: without it nobody could open the images any more")]
    LastSlot(u8),
    /// All slots are taken, or the work of trying all passphrases would exceed that of one attempt.
    #[error("there is no room for another slot: {0}")]
    Full(&'static str),
    /// There is no slot of that number.
    #[error("there is no slot {0}")]
    NoSlot(u8),
    /// The caller handed in something that cannot be a key.
    #[error("{0}")]
    Unusable(&'static str),
    /// A code or key that people type or carry about is not one.
    #[error(transparent)]
    Text(#[from] TextError),
}

fn wrong_key(kind: SlotKind, slots: usize) -> String {
    // What people have of a recipient is his secret key.
    let kind = match kind {
        SlotKind::Recipient => "recipient's secret key".to_owned(),
        kind => kind.to_string(),
    };
    match slots {
        0 => format!("no slot of this chain is opened by a {kind}"),
        1 => format!("the {kind} does not open its slot: it is not the right one"),
        _ => format!("the {kind} opens none of {slots} slots: it is not the right one"),
    }
}

/// What is wrong with the bytes of a key-slot area.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct Damage(#[from] pub(crate) Fault);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("{found} bytes long, a copy has {}", crate::KeyArea::SIZE)]
    Length { found: usize },
    #[error("it does not begin with its magic number")]
    Magic,
    #[error("its bytes do not match their hash")]
    Hash,
    #[error("reserved bytes of its header are not zero")]
    ReservedHead,
    #[error("flags {0:#x}, of which this program knows bit 0")]
    Flags(u32),
    #[error("generation {0}, allowed are 1 to {max}", max = crate::KeyArea::GENERATION_MAX)]
    Generation(u64),
    #[error("{found} slots, and its header says {said}")]
    Count { said: u32, found: usize },
    #[error("it has no slot")]
    NoSlot,
    #[error("slot {slot} has type {kind}, which this program does not know")]
    Kind { slot: u8, kind: u8 },
    #[error("reserved bytes of slot {0} are not zero")]
    ReservedSlot(u8),
    #[error("slot {0} has fields set that its type does not have")]
    Fields(u8),
    #[error("the label of slot {0} is no text")]
    Label(u8),
    #[error("slot {slot}: {cost}")]
    Cost { slot: u8, cost: Box<Error> },
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Self::Damaged(Damage(fault))
    }
}

/// Why a text is no recovery code, no paper key and no recipient's key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// Too few or too many symbols.
    #[error(
        "{found} symbols: a recovery code has {}, a paper key {}",
        crate::RecoveryCode::SYMBOLS,
        crate::PaperKey::SYMBOLS
    )]
    Symbols {
        /// Symbols found, without spaces and dashes.
        found: usize,
    },
    /// A group of a code has not five symbols.
    #[error("group {group} has {found} symbols, each has 5")]
    GroupLength {
        /// Which, from 1.
        group: usize,
        /// Symbols in it.
        found: usize,
    },
    /// A group of a code has a character that no code has.
    #[error("group {group} has a character that is none of 0-9, A-Z without U")]
    Character {
        /// Which, from 1.
        group: usize,
    },
    /// A group of a code does not have the check symbol that belongs to it.
    #[error("group {group} is mistyped")]
    Mistyped {
        /// Which, from 1.
        group: usize,
    },
    /// A recipient's key is mistyped or cut off.
    #[error("the key is mistyped or cut off")]
    Key,
    /// There is no recipient's key in a text.
    #[error("there is no key that begins with {0:?}")]
    NoKey(&'static str),
    /// A public key was given where the secret one is needed.
    #[error("this is a public key, which seals and does not open")]
    Public,
    /// A secret key was given where a public one will do.
    #[error("this is a secret key, and only its public key is wanted here")]
    Secret,
}
