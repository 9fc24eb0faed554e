use std::num::NonZeroUsize;

/// What to restore, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestoreOptions {
    /// Number of the one partition to restore, `None` for the whole disk.
    pub partition: Option<u32>,
    /// Read the target first and write only blocks that differ.
    pub delta: bool,
    /// What to do where the point says that the bytes do not matter.
    pub unused: Unused,
    /// Threads that decode and write.
    pub threads: NonZeroUsize,
}

impl RestoreOptions {
    /// The whole disk, written in full, free space left alone.
    #[must_use]
    pub const fn new(threads: NonZeroUsize) -> Self {
        Self { partition: None, delta: false, unused: Unused::Leave, threads }
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
