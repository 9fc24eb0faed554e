use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use aiv_volume_io::partition::{SectorSize, read_table};
use aiv_volume_io::{Extent, FileDisk, ReadAt};

use super::layout::{HEAD_LEN, encode};
use super::{Identity, Part, kept};
use crate::error::{Error, Result};
use crate::plan::RestorePlan;
use crate::zeros::in_memory;

/// Keeps what the plan is going to overwrite at the ends of the target, and wherever it has its
/// partition table, in a new file at `path`, durably.
///
/// # Errors
/// [`Error::Undo`] when the file cannot be written, or exists; [`Error::Io`] when the target
/// cannot be read.
pub(crate) fn save(
    plan: &RestorePlan,
    target: &FileDisk,
    path: &Path,
    saved_unix_ms: u64,
) -> Result<()> {
    let unwritten = |source| Error::Undo { path: path.to_path_buf(), source };
    let late = plan.ranges().late;
    let extents = kept(plan.target.len, tables(target).into_iter().chain(late));
    let mut parts = Vec::new();
    let mut place = HEAD_LEN as u64;
    let mut file = create(path).map_err(unwritten)?;
    let written = (|| {
        let blank = vec![b'\n'; HEAD_LEN];
        file.write_all(&blank).map_err(unwritten)?;
        for extent in extents {
            let mut bytes = vec![0; in_memory(extent.len)];
            let read = target.read_exact_at(&mut bytes, extent.start);
            read.map_err(Error::io("saving for the undo log", extent.start))?;
            file.write_all(&bytes).map_err(unwritten)?;
            parts.push(Part { extent, place, hash: blake3::hash(&bytes) });
            place += extent.len;
        }
        let identity = Identity::of(&plan.target, target.path());
        let head = encode(&identity, saved_unix_ms, &parts)
            .ok_or_else(|| unwritten(io::ErrorKind::FileTooLarge.into()))?;
        seal(&file, &head, path).map_err(unwritten)
    })();
    if written.is_err() {
        // It was made a moment ago, and is worth nothing.
        let _ = std::fs::remove_file(path);
    }
    written
}

/// Nothing is ever replaced, and only the owner reads what lies on a disk.
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// The text comes last, when all it speaks of is on the medium.
fn seal(file: &File, head: &[u8], path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    file.sync_all()?;
    file.write_all_at(head, 0)?;
    file.sync_all()?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// Where the target has a partition table now; as far as it can be read.
fn tables(target: &FileDisk) -> Vec<Extent> {
    let size = SectorSize::new(target.logical_sector_size()).unwrap_or(SectorSize::B512);
    let table = read_table(target, size);
    table.map_or_else(|_| Vec::new(), |t| t.areas.iter().map(|area| area.extent).collect())
}
