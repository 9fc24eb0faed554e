//! The segments of an image that was never finished, under their temporary names: which of them
//! there are, and how they are gone on with.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use aiv_image_format::{ImageId, first_segment_name, peek, peek_segment};
use aiv_volume_io::{AppendFile, ReadAt, Storage};

use super::clean::marked;
use super::files::{PartFiles, part_name};

/// What there is under the temporary names of the segments of one image.
#[derive(Debug)]
pub struct BegunParts {
    /// What the first one would be called.
    file: String,
    suffix: &'static str,
    /// Its segments by the number in their names, and files that are no image at all, which is what
    /// a power cut leaves of one.
    own: BTreeMap<u32, String>,
    /// A file of another image that is called as if it belonged to this one.
    stranger: Option<String>,
}

impl BegunParts {
    /// Looks for the segments of `image`, the first of which is called `first`, which ends with
    /// `suffix`. `None` when it is called as none is that is still being written: then the others
    /// have their final names, or had them.
    ///
    /// # Errors
    /// Whatever the storage reports.
    pub fn find(
        storage: &dyn Storage,
        first: &str,
        suffix: &'static str,
        image: ImageId,
    ) -> io::Result<Option<Self>> {
        let file = first.strip_suffix(suffix).filter(|file| first_segment_name(file).is_none());
        let Some(file) = file.filter(|_| marked(first).is_none()) else { return Ok(None) };
        let mut found =
            Self { file: file.to_owned(), suffix, own: BTreeMap::new(), stranger: None };
        for entry in storage.list()? {
            let Some(no) = found.number_of(&entry.name) else { continue };
            let file = storage.open(&entry.name)?;
            let is_own = match peek_segment(&*file) {
                Some(head) => head.image == image,
                None => no > 0 && peek(&*file).is_none(),
            };
            match is_own {
                true => drop(found.own.insert(no, entry.name)),
                false => drop(found.stranger.get_or_insert(entry.name)),
            }
        }
        Ok(Some(found))
    }

    /// The number that a name stands for, if it is one of this image.
    fn number_of(&self, name: &str) -> Option<u32> {
        let name = name.strip_suffix(self.suffix)?;
        if name == self.file {
            return Some(0);
        }
        first_segment_name(name).filter(|first| *first == self.file)?;
        let (_, number) = name.rsplit_once(".p")?;
        let no = number.parse::<u32>().ok()?.checked_sub(1).filter(|&no| no > 0)?;
        // No other way of writing the number.
        (part_name(&self.file, "", no) == name).then_some(no)
    }

    /// What the first segment would be called.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The names of all that belongs to it, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.own.values().map(String::as_str)
    }

    /// A file of another image that is called as if it belonged to this one: nobody can go on with
    /// it beside that.
    #[must_use]
    pub fn stranger(&self) -> Option<&str> {
        self.stranger.as_deref()
    }

    /// Opens the segments, in order, as far as none is missing.
    ///
    /// # Errors
    /// Whatever the storage reports.
    pub fn open(&self, storage: &dyn Storage) -> io::Result<Vec<Arc<dyn ReadAt>>> {
        let numbered = (0..).zip(&self.own);
        let in_order = numbered.take_while(|(expected, (no, _))| expected == *no);
        in_order.map(|(_, (_, name))| storage.open(name)).collect()
    }

    /// Makes durable what is `kept` of each segment, cut to so many bytes, and then removes those
    /// behind them, also durably: what comes next gets their names. Returns the last one, to be
    /// written on, and those that will follow it.
    ///
    /// # Errors
    /// Those of [`Storage::reopen`], [`Storage::remove`] and [`Storage::sync_dir`]; after any the
    /// image must be given up.
    pub fn reopen<'s>(
        &self,
        storage: &'s dyn Storage,
        kept: &[u64],
    ) -> io::Result<(PartFiles<'s>, Box<dyn AppendFile>)> {
        let mut last = None;
        for (no, len) in (0..).zip(kept) {
            let name = self.own.get(&no).ok_or(io::ErrorKind::NotFound)?;
            last = Some(storage.reopen(name, *len)?);
        }
        let last = last.ok_or(io::ErrorKind::InvalidInput)?;
        let behind = self.own.iter().rev().take_while(|(no, _)| **no as usize >= kept.len());
        let mut removed = false;
        for (_, name) in behind {
            storage.remove(name)?;
            removed = true;
        }
        if removed {
            storage.sync_dir()?;
        }
        Ok((PartFiles::behind(storage, &self.file, self.suffix), last))
    }

    /// Removes all that belongs to it, the first segment last: what is left of an interrupted
    /// removal is still told by its names.
    ///
    /// # Errors
    /// Whatever the storage reports.
    pub fn remove(&self, storage: &dyn Storage) -> io::Result<()> {
        self.own.values().rev().try_for_each(|name| match storage.remove(name) {
            // Going on has removed some before it failed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        })
    }
}
