use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The folder of a storage, which errors name: whoever has several knows which one failed.
#[derive(Debug, Clone)]
pub(super) struct Place(Arc<Path>);

impl Place {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(path.into())
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Does something in the folder. An error stays of its kind.
    pub(super) fn run<T>(&self, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        act().map_err(|error| {
            io::Error::new(error.kind(), format!("in {}: {error}", self.0.display()))
        })
    }
}
