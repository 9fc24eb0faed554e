//! Floor 3 of Aivory: images in time.
//!
//! A folder of image files is read as *sets* of recovery points: [`Folder::scan`] looks into
//! every file, so names never matter. A point is used through a [`View`], which is again bytes
//! at offsets: whatever works on a disk works on a recovery point.
//!
//! This version knows full images; an image with a parent is refused by its feature bits one
//! floor below.

mod error;
mod folder;
mod locate;
mod select;
#[cfg(test)]
mod testing;
mod verify;
mod view;

pub use error::{Error, Result};
pub use folder::{Folder, Point, PointState, Set, Stray, StrayKind};
pub use locate::{locate, open_image};
pub use select::Selector;
pub use verify::{Checked, verify_file, verify_folder};
pub use view::{Stretch, View, ViewReader};

pub use aiv_image_format::{
    Depth, Digest, Geometry, Image, ImageKind, Kind, PointId, SetId, VerifyReport, meta,
};
