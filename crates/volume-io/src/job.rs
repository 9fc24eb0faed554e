use std::sync::atomic::{AtomicBool, Ordering};

use crate::Extent;

/// What every long call is handed: where to report, and whether to stop.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// Receives steps, amounts and notices.
    pub progress: &'a dyn Progress,
    /// The caller's stop button.
    pub cancel: &'a Cancel,
}

impl<'a> Job<'a> {
    /// A job that reports to `progress` and stops when `cancel` says so.
    #[must_use]
    pub fn new(progress: &'a dyn Progress, cancel: &'a Cancel) -> Self {
        Self { progress, cancel }
    }

    /// A job nobody watches and nobody stops.
    #[must_use]
    pub fn silent() -> Job<'static> {
        static NEVER: Cancel = Cancel::new();
        Job { progress: &Silent, cancel: &NEVER }
    }

    /// Returns early when the caller asked to stop.
    ///
    /// # Errors
    /// [`Canceled`].
    pub fn check(&self) -> Result<(), Canceled> {
        self.cancel.check()
    }
}

/// Receives the progress of a job. Every method does nothing unless overridden; all may be
/// called from several threads.
pub trait Progress: Send + Sync {
    /// A step begins; `total` is its size in bytes, known before it starts.
    fn begin(&self, _step: Step, _total: u64) {}
    /// `bytes` more of the step are done.
    fn advance(&self, _step: Step, _bytes: u64) {}
    /// The step is complete.
    fn end(&self, _step: Step) {}
    /// Something the user should know, while the job goes on.
    fn notice(&self, _notice: &Notice) {}
}

struct Silent;
impl Progress for Silent {}

/// The steps a job can be in. Frontends choose the words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Step {
    /// Reading the source of a backup; bytes of used data.
    ReadSource,
    /// Reading the source of a backup again, to compare it with what an interrupted one has
    /// stored; bytes of used data.
    CompareSource,
    /// Building index, trees and trailers at the end of an image; bytes of image.
    SealImage,
    /// Copying stored blocks, or images as a whole, into another file; bytes of image.
    CopyImage,
    /// Reading an image back to prove it; bytes of image.
    VerifyImage,
    /// Looking through a damaged file for what is left; bytes of the file.
    SalvageImage,
    /// Writing a restore target; bytes of the disk covered.
    WriteTarget,
    /// Reading a restore target, or recovered files, back to prove them; bytes covered.
    VerifyTarget,
    /// Reading files out of a recovery point and writing them elsewhere; bytes of files.
    RecoverFiles,
}

/// Things that happen during a job and do not end it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// These bytes of the source could not be read, even sector by sector.
    Unreadable {
        /// Byte range in the source.
        extent: Extent,
    },
}

/// A stop button that can be pressed from any thread or signal handler.
#[derive(Debug, Default)]
pub struct Cancel {
    pressed: AtomicBool,
}

impl Cancel {
    /// A button that is not pressed.
    #[must_use]
    pub const fn new() -> Self {
        Self { pressed: AtomicBool::new(false) }
    }

    /// Asks every job that holds this button to stop within a block or two.
    pub fn cancel(&self) {
        self.pressed.store(true, Ordering::Relaxed);
    }

    /// Returns early when the button was pressed.
    ///
    /// # Errors
    /// [`Canceled`].
    pub fn check(&self) -> Result<(), Canceled> {
        if self.pressed.load(Ordering::Relaxed) { Err(Canceled) } else { Ok(()) }
    }
}

/// The caller asked to stop; nothing half-done was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("canceled")]
pub struct Canceled;
