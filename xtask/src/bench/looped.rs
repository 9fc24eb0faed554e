//! A part of a file as a block device, for tools that know nothing else.

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
        let mut command = process::command("losetup");
        command.args(["--find", "--show", "--read-only"]);
        command.args(["--offset", &offset, "--sizelimit", &len]).arg(file);
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
}
