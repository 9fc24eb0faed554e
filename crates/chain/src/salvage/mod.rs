//! What is left of images: files of one chain, damaged or not, laid over each other, and put into
//! a new image or a raw file with a list of what is lost.

mod disk;
mod image;
mod laid;
mod open;
mod raw;
mod report;
mod run;
mod slots;

use std::sync::{Arc, Mutex};

use aiv_image_format::salvage::Salvage;
use aiv_image_format::{Digest, Geometry, ParentLink, meta};
use aiv_keys::KeyArea;

pub use image::{SalvageIds, SalvageOptions, SalvagedImage};
pub use raw::Fill;
pub use report::{LostRun, SalvageReport};
pub use slots::salvage_chains;

use crate::facts::Protection;
use crate::view::View;

pub use aiv_image_format::salvage::{Evidence, Hints, Identity, KnownBy, Loss};

/// Damaged files that may be laid over each other: each is a step of recursion.
pub const SALVAGE_FILES_MAX: usize = 256;

/// What is left of a recovery point, readable at any offset.
///
/// Reading what is lost is an error of kind [`std::io::ErrorKind::InvalidData`].
pub struct Salvaged {
    /// The damaged files, newest first; at least one.
    layers: Vec<Layer>,
    /// The state under them, where a sound image has it.
    below: Option<View>,
    /// What they build on and nobody provides.
    missing: Option<ParentLink>,
    /// The newest key slots that are left of the chain.
    slots: Option<KeyArea>,
    /// The block read last.
    recent: Mutex<Option<(u64, Arc<Vec<u8>>)>>,
}

struct Layer {
    salvage: Salvage,
    file: String,
}

impl Layer {
    /// What a key does for the image; `None` when nothing is left that would say so.
    fn protection(&self) -> Option<Protection> {
        let key = self.salvage.key().map(|key| Digest(key.commitment()));
        match (&self.salvage.identity().superblock, key) {
            (Some(superblock), _) => Some(Protection::of(superblock)),
            (None, Some(key)) if self.salvage.is_sealed() => Some(Protection::Sealed(key)),
            (None, _) => None,
        }
    }

    /// Whether who forged the superblock of an image with a key could have said what it builds
    /// on.
    fn doubts_parent(&self) -> bool {
        self.salvage.key().is_some() && !self.salvage.identity().is_authentic
    }
}

impl Salvaged {
    /// The files, newest first, with what each of them is.
    pub fn files(&self) -> impl ExactSizeIterator<Item = (&str, &Salvage)> {
        self.layers.iter().map(|layer| (layer.file.as_str(), &layer.salvage))
    }

    /// The file that provides the point.
    #[must_use]
    pub fn newest(&self) -> &Salvage {
        &self.layers[0].salvage
    }

    /// Length, block size and sector size.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        self.newest().geometry()
    }

    /// What is left of what the newest file says about its point.
    #[must_use]
    pub fn meta(&self) -> &meta::Meta {
        self.newest().meta()
    }

    /// The state the files build on, when nobody provides it.
    #[must_use]
    pub fn missing_parent(&self) -> Option<ParentLink> {
        self.missing
    }
}
