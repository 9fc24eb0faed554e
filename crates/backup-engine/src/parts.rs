//! The files of an image while it is written: one under a name of this set, or segments.

use aiv_chain::{PartFiles, discard_parts, open_parts, publish_parts_as};
use aiv_image_format::{Error as ImageError, Image, ImageWriter, Keys, Seal, Superblock};
use aiv_volume_io::{PART_EXTENSION, Storage};

use crate::error::{Error, Result};

/// Where an image is before it has its final name.
#[derive(Debug, Clone)]
pub(crate) enum Parts {
    /// In one file of this name.
    One(String),
    /// In segments, called as those of an image with [`PART_EXTENSION`] behind it; this is what
    /// the first of them would be called then. Its final name may be another one, if it was begun
    /// by a backup that was interrupted.
    Split(String),
}

impl Parts {
    /// The name of the first file, or the only one.
    pub(crate) fn first(&self) -> String {
        match self {
            Self::One(part) => part.clone(),
            Self::Split(image) => format!("{image}{PART_EXTENSION}"),
        }
    }

    /// Begins an image, with a key where `seal` is one, in files of `split` bytes at most for
    /// [`Parts::Split`]. On any error nothing is left.
    pub(crate) fn create<'a>(
        &self,
        storage: &'a dyn Storage,
        superblock: Superblock,
        seal: Option<Seal>,
        split: Option<u64>,
        image: &str,
    ) -> Result<ImageWriter<'a>> {
        let part = self.first();
        // Before anything that removes on error: a taken name is somebody else's file.
        let file = storage
            .create(&part)
            .map_err(|source| Error::Destination { op: format!("creating {part}"), source })?;
        let writer = match split {
            None => ImageWriter::create_with(file, superblock, seal),
            Some(limit) => {
                let files = Box::new(PartFiles::new(storage, image, PART_EXTENSION, file));
                ImageWriter::create_split_with(files, superblock, limit, seal)
            }
        };
        writer.map_err(|error| {
            self.discard(storage);
            Error::of_image(image, error)
        })
    }

    /// Opens what was written, to prove it.
    pub(crate) fn open(
        &self,
        storage: &dyn Storage,
        image: &str,
        count: u32,
        keys: &Keys,
    ) -> Result<Image> {
        let part = self.first();
        let unopened = |source| Error::Destination { op: format!("reading back {part}"), source };
        let opened = match self {
            Self::One(part) => {
                Image::open_with(storage.open_past_cache(part).map_err(unopened)?, keys)
            }
            Self::Split(name) => open_parts(storage, name, PART_EXTENSION, count, keys),
        };
        opened.map_err(|error| match error {
            // It cannot be opened at all.
            ImageError::Io { source, offset: 0, .. } => unopened(source),
            error => Error::of_image(image, error),
        })
    }

    /// Gives all files their final names; the folder has to be synced afterwards.
    pub(crate) fn publish(
        &self,
        storage: &dyn Storage,
        image: &str,
        count: u32,
    ) -> std::io::Result<()> {
        match self {
            Self::One(part) => storage.publish(part, image),
            Self::Split(parts) => publish_parts_as(storage, parts, PART_EXTENSION, count, image),
        }
    }

    /// Removes all of them. Best effort: the error that led here is the one that matters, and a
    /// leftover is harmless.
    pub(crate) fn discard(&self, storage: &dyn Storage) {
        match self {
            Self::One(part) => drop(storage.remove(part)),
            Self::Split(image) => discard_parts(storage, image, PART_EXTENSION),
        }
    }
}
