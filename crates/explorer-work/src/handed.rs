//! Files of the disk that is open, handed over while something else goes on.

use std::io::Write;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aiv_browse::{File, FileType, Path};
use aiv_jobs::Opened;
use aiv_report::Failure;
use aiv_restore_engine::recover::RecoverPlan;
use aiv_volume_io::Job;

use crate::answers::{file_of, nothing};

/// Bytes of a file that are read at once.
const STRIDE: usize = 64 << 10;

/// Where the disk that is open lies, for other threads. Whoever has taken it keeps it, also when
/// another one is opened meanwhile.
#[derive(Clone, Default)]
pub struct Shelf(Arc<Mutex<Place>>);

#[derive(Default)]
struct Place {
    /// Disks that lay here.
    count: u64,
    disk: Option<Arc<Opened>>,
}

impl Shelf {
    fn place(&self) -> MutexGuard<'_, Place> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn clear(&self) {
        self.place().disk = None;
    }

    pub(crate) fn put(&self, opened: Arc<Opened>) {
        let mut place = self.place();
        place.count += 1;
        place.disk = Some(opened);
    }

    /// The number of the disk that is open; another one has another.
    #[must_use]
    pub fn number(&self) -> Option<u64> {
        let place = self.place();
        place.disk.as_ref().map(|_| place.count)
    }

    /// The disk of a number, while it is open.
    #[must_use]
    pub fn take(&self, number: u64) -> Option<Arc<Opened>> {
        let place = self.place();
        place.disk.clone().filter(|_| place.count == number)
    }
}

/// Something to hand over.
pub enum Handed {
    /// A file of so many bytes: [`write_file`].
    File(Box<File>, u64),
    /// A folder or partition, to be handed over as an archive: [`write_zip`].
    Folder,
}

impl Handed {
    /// What is at a path. Links lead nowhere.
    ///
    /// # Errors
    /// When there is nothing, or it is neither a file nor a folder.
    pub fn of(opened: &Opened, path: &Path, job: Job<'_>) -> Result<Self, Failure> {
        let file = file_of(&opened.disk, path, job)?;
        match file.metadata.file_type {
            FileType::File => {
                let len = file.filesystem.open(file.id)?.len();
                Ok(Self::File(Box::new(file), len))
            }
            FileType::Folder => Ok(Self::Folder),
            _ => Err(nothing("it is neither a file nor a folder")),
        }
    }
}

/// Writes the bytes `part` of a file, which must lie in it.
///
/// # Errors
/// When they cannot be read or written, or `job` is stopped.
pub fn write_file(
    file: &File,
    part: Range<u64>,
    out: &mut dyn Write,
    job: Job<'_>,
) -> Result<(), Failure> {
    let data = file.filesystem.open(file.id)?;
    let mut bytes = vec![0; STRIDE];
    let mut at = part.start;
    while at < part.end {
        job.check()?;
        let left = usize::try_from(part.end - at).unwrap_or(STRIDE).min(STRIDE);
        let Some(now) = bytes.get_mut(..left) else { break };
        data.read_exact_at(now, at)?;
        out.write_all(now)?;
        at += left as u64;
    }
    Ok(())
}

/// Writes a folder with all in it as a zip archive, from the first byte to the last.
///
/// # Errors
/// When the archive cannot be written, or `job` is stopped. What concerns one file only is told by
/// its name in the archive, as in any other.
pub fn write_zip(
    opened: &Opened,
    path: &Path,
    out: &mut dyn Write,
    job: Job<'_>,
) -> Result<(), Failure> {
    let paths = [path.clone()];
    RecoverPlan::new(&opened.disk, &paths, None, job)?.to_zip(out, job)?;
    Ok(())
}
