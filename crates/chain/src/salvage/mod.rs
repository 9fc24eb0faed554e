//! What is left of images: files of one chain, damaged or not, laid over each other, and put into
//! a new image or a raw file with a list of what is lost.

mod disk;
mod image;
mod laid;
mod open;
mod raw;
mod report;
mod run;

use std::sync::{Arc, Mutex};

use aiv_image_format::salvage::Salvage;
use aiv_image_format::{Geometry, ParentLink, meta};

pub use image::{SalvageIds, SalvagedImage};
pub use raw::Fill;
pub use report::{LostRun, SalvageReport};

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
    /// The block read last.
    recent: Mutex<Option<(u64, Arc<Vec<u8>>)>>,
}

struct Layer {
    salvage: Salvage,
    file: String,
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
