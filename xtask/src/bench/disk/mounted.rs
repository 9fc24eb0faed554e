//! A volume of the disk as a folder, for as long as a value lives.

use std::path::{Path, PathBuf};

use aiv_volume_io::Extent;

use crate::{Outcome, process};

/// Unmounts when dropped.
pub(in super::super) struct Mounted {
    folder: PathBuf,
    is_mounted: bool,
}

impl Mounted {
    /// Mounts the volume at `extent` of `disk` on the new folder `folder`.
    pub(super) fn at(disk: &Path, extent: Extent, folder: &Path) -> Result<Self, String> {
        Self::with("loop", disk, extent, folder)
    }

    /// The same, and nothing can be written to it.
    pub(in super::super) fn read_only(
        disk: &Path,
        extent: Extent,
        folder: &Path,
    ) -> Result<Self, String> {
        Self::with("ro,loop", disk, extent, folder)
    }

    fn with(options: &str, disk: &Path, extent: Extent, folder: &Path) -> Result<Self, String> {
        std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let window = format!("{options},offset={},sizelimit={}", extent.start, extent.len);
        process::run(process::command("mount").args(["-o", &window]).args([disk, folder]))
            .map_err(|failure| format!("{failure}; mounting needs root and loop devices"))?;
        Ok(Self { folder: folder.to_owned(), is_mounted: true })
    }

    pub(in super::super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Unmounts, and says so when that fails.
    pub(in super::super) fn unmount(mut self) -> Outcome {
        self.end()
    }

    fn end(&mut self) -> Outcome {
        if !std::mem::take(&mut self.is_mounted) {
            return Ok(());
        }
        process::run(process::command("umount").arg(&self.folder))?;
        std::fs::remove_dir(&self.folder).map_err(|e| format!("{}: {e}", self.folder.display()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(failure) = self.end() {
            eprintln!("bench: {failure}");
        }
    }
}
