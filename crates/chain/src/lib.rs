//! Floor 3 of Aivory: images in time.
//!
//! A folder of image files is read as *sets* of recovery points: [`Folder::scan`] looks into
//! every file, so names never matter, and finds out which points can be read through which
//! files. A point is used through a [`View`], which is again bytes at offsets: whatever works on
//! a disk works on a recovery point.

mod ancestry;
mod begun;
mod catalogue;
mod census;
mod compare;
mod consolidate;
mod error;
mod facts;
mod family;
mod folder;
mod keep;
mod layers;
mod locate;
mod look;
mod merge;
mod names;
mod open;
mod overlay;
mod reader;
mod removal;
mod repair;
pub mod salvage;
mod scan;
mod select;
mod slots;
mod split;
#[cfg(test)]
mod testing;
mod transfer;
mod verify;
mod verify_folder;
mod view;

pub use ancestry::CHAIN_MAX;
pub use begun::unfinished_chains;
pub use catalogue::{Catalogue, Vanished, Verified};
pub use compare::changed_bytes;
pub use consolidate::{
    ConsolidateOptions, ConsolidationPlan, ConsolidationReport, MergedImage, PlannedPoint,
    PlannedRun,
};
pub use error::{Error, Result};
pub use facts::Protection;
pub use folder::{Folder, Point, PointState, Set, Stray, StrayKind};
pub use keep::Keep;
pub use locate::{
    locate, locate_image, locate_image_keyed, locate_point, locate_point_keyed, locate_view,
    locate_view_keyed, locate_with_keys, open_image, open_image_keyed, open_view, open_view_keyed,
    storage_of,
};
pub use merge::{MERGE_PART, MergeIds, MergeOptions, NewIds};
pub use names::{ImageName, image_name, suffix};
pub use reader::ViewReader;
pub use removal::{LeftFile, LeftReason};
pub use repair::{Repaired, repair};
pub use scan::Trust;
pub use select::{Selector, find_set};
pub use slots::{
    KeyedChain, KeyedChains, KeyedFile, SlotReport, change_slots, keyed_chains, locate_chains,
    make_slots, newest_slots,
};
pub use split::{
    BegunParts, PartFiles, discard_parts, open_parts, publish_parts, publish_parts_as,
    remove_interrupted,
};
pub use transfer::{
    ArchiveReport, CopiedFile, CopyReport, MoveReport, archive, archive_as, copy_point, copy_set,
    move_point, move_set,
};
pub use verify::{Checked, verify_file, verify_file_keyed};
pub use verify_folder::{
    Verification, VerifyOptions, verify_folder, verify_folder_keyed, verify_one_keyed,
    verify_point_keyed,
};
pub use view::{Stretch, View};

pub use aiv_image_format::{
    ChainKey, Depth, Digest, Geometry, Image, ImageKind, KeySlots, Keys, Kind, ParentLink,
    ParentState, PointId, RepairReport, SetId, VerifyReport, meta,
};
