use aiv_volume_io::{ChangeTracker, ReadAt};

use crate::error::{Error, Result};

/// What keeps a source from changing while it is read: frozen filesystems, a snapshot.
pub trait Hold: Sync {
    /// Called once every byte has been read and before the image counts as anything: proves that
    /// nothing could change until now, and lets the source go, so that who uses it waits no
    /// longer than needed.
    ///
    /// # Errors
    /// Whatever says that the source could have changed. The image is given up then.
    fn release(&self) -> std::result::Result<(), Box<dyn std::error::Error + Send + Sync>>;

    /// Whether it keeps the source still until then. One that only looks whether somebody wrote
    /// to it lets nothing go: the source can be read again afterwards, and is looked at again.
    fn keeps(&self) -> bool {
        true
    }
}

/// A source, and what holds it still. One that nobody writes to needs no hold.
#[derive(Clone, Copy)]
pub struct HeldSource<'a> {
    /// Its bytes.
    pub disk: &'a dyn ReadAt,
    /// What keeps them from changing.
    pub hold: Option<&'a dyn Hold>,
    /// Who watches it for changes; opened no later than its bytes.
    pub trackers: &'a [Box<dyn ChangeTracker>],
}

impl HeldSource<'_> {
    /// See [`Hold::release`]. Without a hold there is nothing to prove.
    pub(crate) fn release(&self) -> Result<()> {
        self.hold.map_or(Ok(()), |hold| hold.release().map_err(Error::NotHeld))
    }
}

impl<'a> From<&'a dyn ReadAt> for HeldSource<'a> {
    fn from(disk: &'a dyn ReadAt) -> Self {
        Self { disk, hold: None, trackers: &[] }
    }
}
