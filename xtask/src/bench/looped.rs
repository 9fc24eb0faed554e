//! A part of a file as a block device, for tools that know nothing else.

use std::fs::File;
use std::path::{Path, PathBuf};

use aiv_volume_io::Extent;

use crate::process;

/// Detaches when dropped.
pub(super) struct Looped {
    device: PathBuf,
}

impl Looped {
    pub(super) fn read_only(file: &Path, extent: Extent) -> Result<Self, String> {
        let (offset, len) = (extent.start.to_string(), extent.len.to_string());
        Self::attach(&["--read-only", "--offset", &offset, "--sizelimit", &len], file)
    }

    /// A new file that is empty and `len` bytes long.
    pub(super) fn blank(file: &Path, len: u64) -> Result<Self, String> {
        let made = File::create_new(file).and_then(|file| file.set_len(len));
        made.map_err(|e| format!("{}: {e}", file.display()))?;
        Self::attach(&[], file)
    }

    fn attach(options: &[&str], file: &Path) -> Result<Self, String> {
        let mut command = process::command("losetup");
        command.args(["--find", "--show"]).args(options).arg(file);
        let output = command.output().map_err(|e| format!("cannot start losetup: {e}"))?;
        process::expect_success(&process::describe(&command), output.status)?;
        let device = String::from_utf8_lossy(&output.stdout).trim().into();
        Ok(Self { device })
    }

    pub(super) fn device(&self) -> &Path {
        &self.device
    }
}

impl Drop for Looped {
    fn drop(&mut self) {
        if let Err(failure) = process::run(process::command("losetup").arg("-d").arg(&self.device))
        {
            eprintln!("bench: {failure}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_of_a_file_is_a_device_until_it_is_dropped() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let bytes: Vec<u8> = (0..=250).cycle().take(1 << 20).collect();
        std::fs::write(file.path(), &bytes).unwrap();
        let looped = Looped::read_only(file.path(), Extent::new(4096, 8192)).unwrap();
        assert_eq!(std::fs::read(looped.device()).unwrap(), bytes[4096..12288]);
    }

    #[test]
    fn what_is_written_to_a_blank_device_is_in_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("blank");
        let looped = Looped::blank(&path, 1 << 20).unwrap();
        std::fs::write(looped.device(), [7; 512]).unwrap();
        drop(looped);
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(
            (bytes.len(), &bytes[..513]),
            (1 << 20, &[[7; 512].as_slice(), &[0]].concat()[..])
        );
        assert!(Looped::blank(&path, 1 << 20).is_err(), "a file that is there is somebody's");
    }
}
