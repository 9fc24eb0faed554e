//! The archive the kernel unpacks into its first file system: cpio, "new ASCII" format.

use std::io::{self, Write};

/// Writes one.
pub(super) struct Archive<W> {
    out: W,
    entries: u32,
}

const REGULAR: u32 = 0o100_755;
const FOLDER: u32 = 0o040_755;
const LINK: u32 = 0o120_777;

impl<W: Write> Archive<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, entries: 0 }
    }

    pub(super) fn folder(&mut self, path: &str) -> io::Result<()> {
        self.entry(path, FOLDER, &[])
    }

    /// A file that may be run.
    pub(super) fn file(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        self.entry(path, REGULAR, content)
    }

    pub(super) fn link(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.entry(path, LINK, target.as_bytes())
    }

    pub(super) fn finish(mut self) -> io::Result<()> {
        self.entries = 0;
        self.entry("TRAILER!!!", 0, &[])?;
        self.out.flush()
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.entries += 1;
        let too_long = |_| io::Error::other(format!("{path} is too long for this archive"));
        let size = u32::try_from(content.len()).map_err(too_long)?;
        let name_len = u32::try_from(path.len() + 1).map_err(too_long)?;
        // Magic, then inode, mode, owner, group, links, time, size, four device numbers, length
        // of the name, and a sum that this format leaves out.
        write!(self.out, "070701")?;
        for number in [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_len, 0] {
            write!(self.out, "{number:08x}")?;
        }
        self.out.write_all(path.as_bytes())?;
        self.out.write_all(&[0])?;
        self.pad(110 + path.len() + 1)?;
        self.out.write_all(content)?;
        self.pad(content.len())
    }

    /// Every name and every content ends at a multiple of four.
    fn pad(&mut self, len: usize) -> io::Result<()> {
        self.out.write_all(&[0; 3][..len.next_multiple_of(4) - len])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process;

    #[test]
    fn other_people_unpack_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("archive");
        let mut archive = Archive::new(std::fs::File::create(&file).unwrap());
        archive.folder("bin").unwrap();
        archive.file("bin/tool", b"12345").unwrap();
        archive.link("bin/other", "tool").unwrap();
        archive.finish().unwrap();
        let mut busybox = process::command("busybox");
        busybox.args(["cpio", "-i", "-F"]).arg(&file).current_dir(folder.path());
        process::run(&mut busybox).unwrap();
        assert_eq!(std::fs::read(folder.path().join("bin/other")).unwrap(), b"12345");
    }
}
