use std::path::Path;

use aiv_volume_io::{Error as DiskError, FileDisk, ReadAt, WriteAt};

use super::layout::{HEAD_LEN, MAGIC, decode};
use super::{Part, UndoLog};
use crate::error::{Error, Result};
use crate::zeros::in_memory;

impl UndoLog {
    /// Opens the undo log at `path`; `None` when it is something else, such as an image.
    ///
    /// # Errors
    /// [`Error::UndoDamaged`]; [`Error::Target`] when the file cannot be read.
    pub fn open(path: &Path) -> Result<Option<Self>> {
        // What is not there, or no file, is somebody else's to explain.
        if !path.is_file() {
            return Ok(None);
        }
        let file = FileDisk::open_source(path).map_err(Error::Target)?;
        let len = file.len().min(HEAD_LEN as u64);
        let mut head = vec![0; in_memory(len)];
        let failed = |source| Error::Target(DiskError::path("read", path)(source));
        file.read_exact_at(&mut head, 0).map_err(failed)?;
        if !head.starts_with(MAGIC.as_bytes()) {
            return Ok(None);
        }
        let damaged = || Error::UndoDamaged { path: path.to_path_buf() };
        let (identity, saved_unix_ms, parts) = decode(&head, file.len()).ok_or_else(damaged)?;
        Ok(Some(Self { path: path.to_path_buf(), identity, saved_unix_ms, parts }))
    }

    /// Puts everything back onto the target at `path`, which [`UndoLog::check_target`] accepted;
    /// the bytes that were written. All of the log is proven before the first write. What is
    /// at the beginning of the target, its partition table, is written last.
    ///
    /// # Errors
    /// [`Error::UndoDamaged`] before the first write; [`Error::Target`], [`Error::Io`],
    /// [`Error::Mismatch`].
    pub fn put_back_at(&self, path: &Path) -> Result<u64> {
        let file = FileDisk::open_source(&self.path).map_err(Error::Target)?;
        for part in &self.parts {
            self.read(&file, part)?;
        }
        let target = FileDisk::open_target(path, true).map_err(Error::Target)?;
        let (first, rest): (Vec<&Part>, Vec<&Part>) =
            self.parts.iter().partition(|part| part.extent.start == 0);
        for parts in [rest, first] {
            for part in &parts {
                let failed = Error::io("writing", part.extent.start);
                target.write_all_at(&self.read(&file, part)?, part.extent.start).map_err(failed)?;
            }
            target.sync().map_err(Error::io("syncing", 0))?;
            for part in &parts {
                target.drop_cache(part.extent);
                let mut found = vec![0; in_memory(part.extent.len)];
                let read = target.read_exact_at(&mut found, part.extent.start);
                read.map_err(Error::io("reading back", part.extent.start))?;
                if blake3::hash(&found) != part.hash {
                    return Err(Error::Mismatch { extent: part.extent });
                }
            }
        }
        Ok(self.parts.iter().map(|part| part.extent.len).sum())
    }

    fn read(&self, file: &FileDisk, part: &Part) -> Result<Vec<u8>> {
        let mut bytes = vec![0; in_memory(part.extent.len)];
        let damaged = || Error::UndoDamaged { path: self.path.clone() };
        file.read_exact_at(&mut bytes, part.place).map_err(|_| damaged())?;
        if blake3::hash(&bytes) == part.hash { Ok(bytes) } else { Err(damaged()) }
    }
}
