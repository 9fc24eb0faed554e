//! Feature bits of the superblock: what they are called, which of them this version reads, and
//! which go together.

use crate::error::Fault;
use crate::ids::Digest;
use crate::limits::{PAGE_SIZE, SLOT_AREA_LEN};

/// Bytes of a row of the superblock's table of names.
pub(super) const FEATURE_NAME_SIZE: usize = 48;

/// Feature words of the superblock. A set bit says "this image may use it".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Features {
    /// A reader that does not know one of these bits must refuse the image.
    pub incompat: u64,
    /// A program that does not know one of these bits may read, and must not consolidate or
    /// otherwise rewrite the image.
    pub ro_compat: u64,
    /// Unknown bits may be ignored and must be preserved on copy.
    pub compat: u64,
    /// Only for overlay files; a writer that does not know a bit clears it.
    pub autoclear: u64,
}

impl Features {
    /// Blocks, index, hashes and META are encrypted and authenticated.
    pub const SEALED: u64 = 1 << 0;
    /// The trailer is authenticated by a key; contents are clear.
    pub const AUTHENTICATED: u64 = 1 << 1;
    /// The image is stored as several segment files.
    pub const SPLIT: u64 = 1 << 2;
    /// Some blocks are stored as a difference to a block of the parent's state.
    pub const DELTA: u64 = 1 << 3;
    /// Some blocks are copies of another block of the parent's state.
    pub const PARENT: u64 = 1 << 4;
    /// Some blocks live in a dedup store.
    pub const STORE: u64 = 1 << 5;
    /// Parity frames are present.
    pub const PARITY: u64 = 1 << 6;
    /// A key-slot area follows the superblock.
    pub const KEY_SLOTS: u64 = 1 << 7;
    /// The file is an unfinished increment that a mount writes to.
    pub const OVERLAY: u64 = 1 << 8;
    /// Some blocks are stored as a difference to other blocks of the same image.
    pub const LOCAL: u64 = 1 << 9;

    /// Name of each defined incompatible feature, in the order of their bits.
    pub const NAMES: [&'static str; 10] = [
        "sealed",
        "authenticated",
        "split",
        "delta",
        "parent-blocks",
        "dedup-store",
        "parity",
        "key-slots",
        "overlay",
        "local-delta",
    ];

    /// The incompatible features this version reads.
    pub(super) const KNOWN: u64 = Self::DELTA
        | Self::PARENT
        | Self::LOCAL
        | Self::SEALED
        | Self::AUTHENTICATED
        | Self::KEY_SLOTS
        | Self::SPLIT
        | Self::PARITY;

    /// The features that need a chain key.
    pub(crate) const KEYED: u64 = Self::SEALED | Self::AUTHENTICATED;

    /// Whether pieces have parity, too.
    #[must_use]
    pub const fn has_data_parity(&self) -> bool {
        self.incompat & Self::PARITY != 0
    }

    /// Bytes of the key-slot area behind the superblock.
    pub(crate) const fn slot_area_len(&self) -> u64 {
        if self.incompat & Self::KEY_SLOTS == 0 { 0 } else { SLOT_AREA_LEN }
    }

    /// Where the frames begin.
    pub(crate) const fn frames_start(&self) -> u64 {
        PAGE_SIZE as u64 + self.slot_area_len()
    }

    /// The name of incompatible bit `bit`: ours, else what the image calls it.
    pub(super) fn name(bit: usize, table: &[u8]) -> String {
        if let Some(name) = Self::NAMES.get(bit) {
            return (*name).to_owned();
        }
        table
            .chunks_exact(FEATURE_NAME_SIZE)
            .filter(|row| row[0] == 1 && usize::from(row[1]) == bit)
            .find_map(|row| printable(&row[4..]))
            // The name goes into an error message: no control sequences for terminals.
            .filter(|name| !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic()))
            .unwrap_or_else(|| format!("bit {bit}"))
    }
}

/// Which of the features that need a key go together, and what they bring along.
pub(super) fn check_keyed(
    incompat: u64,
    slot_area_len: u32,
    key_commitment: &Digest,
) -> std::result::Result<(), Fault> {
    let value = |field, found: u64, allowed| Fault::Value { field, found, allowed };
    let keyed = incompat & Features::KEYED;
    let has_slots = incompat & Features::KEY_SLOTS != 0;
    if keyed == Features::KEYED {
        return Err(value("incompat", incompat, "sealed or authenticated, not both"));
    }
    if has_slots && keyed == 0 {
        return Err(value("incompat", incompat, "key-slots with sealed or authenticated"));
    }
    let slots = if has_slots { SLOT_AREA_LEN } else { 0 };
    if u64::from(slot_area_len) != slots {
        let allowed = "32768 with key-slots, else 0";
        return Err(value("slot_area_len", slot_area_len.into(), allowed));
    }
    if key_commitment.is_zero() != (keyed == 0) {
        return Err(Fault::Differs { field: "key commitment", other: "feature bits" });
    }
    Ok(())
}

/// The zero-padded text in `bytes`, `None` when it is not UTF-8, or when zeros or control
/// characters, which would reach a terminal, are inside it.
pub(super) fn printable(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    if bytes[end..].iter().any(|&b| b != 0) {
        return None;
    }
    let text = std::str::from_utf8(&bytes[..end]).ok()?;
    (!text.chars().any(char::is_control)).then(|| text.to_owned())
}
