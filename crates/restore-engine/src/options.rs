use std::num::NonZeroUsize;
use std::str::FromStr;

use crate::grow::Grow;
use crate::identity::Identity;

/// What to restore, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestoreOptions {
    /// Number of the one partition to restore, `None` for the whole disk.
    pub partition: Option<u32>,
    /// Read the target first and write only blocks that differ.
    pub delta: bool,
    /// What to do where the point says that the bytes do not matter.
    pub unused: Unused,
    /// What becomes of the partition table on a target unlike the source disk.
    pub table: TableMode,
    /// Which partitions grow into the free space behind them.
    pub grow: Grow,
    /// What becomes of the identity of disk and partitions.
    pub identity: Identity,
    /// Bytes that never come again, for new identities.
    pub seed: [u8; 32],
    /// Threads that decode and write.
    pub threads: NonZeroUsize,
}

impl RestoreOptions {
    /// The whole disk, written in full, free space left alone, the table made for the target.
    #[must_use]
    pub const fn new(threads: NonZeroUsize) -> Self {
        Self {
            partition: None,
            delta: false,
            unused: Unused::Leave,
            table: TableMode::Fit,
            grow: Grow::None,
            identity: Identity::Keep,
            seed: [0; 32],
            threads,
        }
    }
}

/// What becomes of target bytes that were free, or left out, when the image was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unused {
    /// They keep what they hold.
    #[default]
    Leave,
    /// They read as zeros afterwards.
    Zero,
    /// The medium is told that they no longer matter; what they read as is unspecified.
    Discard,
}

/// What becomes of the partition table when a whole disk goes onto a target of another length
/// or with other sectors. On a target like the source disk, nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TableMode {
    /// It is made for the target: the backup GPT goes to its end, and the old place is zeroed.
    /// A table with problems is kept as it is where that is possible.
    #[default]
    Fit,
    /// As [`TableMode::Fit`], and an MBR becomes a GPT, which has no limit of 2 TiB. What starts
    /// by the boot code of the MBR needs its boot loader installed again.
    Gpt,
    /// It keeps its bytes, and the target must have the sectors and the length for them.
    Keep,
}

impl FromStr for TableMode {
    type Err = &'static str;

    /// `fit`, `gpt` or `keep`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "fit" => Ok(Self::Fit),
            "gpt" => Ok(Self::Gpt),
            "keep" => Ok(Self::Keep),
            _ => Err("not one of fit, gpt, keep"),
        }
    }
}

impl FromStr for Unused {
    type Err = &'static str;

    /// `leave`, `zero` or `discard`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "leave" => Ok(Self::Leave),
            "zero" => Ok(Self::Zero),
            "discard" => Ok(Self::Discard),
            _ => Err("not one of leave, zero, discard"),
        }
    }
}
