//! Floor 1 of Aivory: one image file.
//!
//! Bytes on storage to checked types and back: superblock, self-describing frames, checkpoints,
//! index pages, hash trees, META, trailers. `docs/format.md` is the normative text; this crate
//! is one implementation of it. It knows nothing about chains of images, disks or filesystems.
//!
//! A writer takes blocks in ascending order and finishes the file; a reader checks everything
//! it touches and hands out blocks whose hash matches the index.
//!
//! Hostile bytes give an [`Error`], never a panic, an endless loop, or an allocation beyond
//! [`limits`]. The crate never prints, never asks for the time, and never invents an id: the
//! same inputs give the same bytes.

mod appender;
mod block;
mod codec;
mod dump;
mod error;
mod groups;
pub mod hash;
mod ids;
mod image;
mod index;
mod layout;
pub mod limits;
pub mod meta;
mod parent;
mod parity;
mod repair;
pub mod salvage;
mod seal;
mod segments;
mod state;
mod tree_pages;
mod unfinished;
mod verify;
mod writer;

pub use aiv_keys::{ChainKey, Keys};
pub use block::{BaseBlock, BaseReader, BlockReader, Scratch};
pub use codec::{
    Compression, DELTA_DEPTH_WRITTEN, Decoder, DeltaBase, EncodedBlock, Encoder, LocalBase,
};
pub use dump::dump;
pub use error::{
    Corrupt, Error, Foreign, Result, Section, SegmentError, Unsalvageable, Unsupported,
};
pub use groups::{GroupSpan, Groups};
pub use hash::{GroupNode, Roots};
pub use ids::{
    BlockIndex, BlockSize, Digest, Geometry, GroupId, ImageId, PointId, SessionTag, SetId,
};
pub use image::{Image, peek, peek_set};
pub use index::Entries;
pub use layout::{
    DeltaHead, Features, FrameKind, ImageKind, IndexEntry, Kind, LocalHead, NamedBase, ParentLink,
    Superblock, Totals, Trailer,
};
pub use parent::ParentState;
pub use repair::{KeySlots, Repair, RepairReport, SegmentsRepair};
pub use seal::{Mode, Seal};
pub use segments::{
    SegmentFile, SegmentFiles, SegmentHead, SegmentReport, Segments, first_segment_name,
    peek_segment, segment_name, smallest_split, verify_segment,
};
pub use unfinished::Unfinished;
pub use verify::{Depth, VerifyReport};
pub use writer::{BlockPlace, ImageSummary, ImageWriter, RowItem, RunKind};

/// Major version of the format; zero until the bytes are frozen.
pub const MAJOR: u16 = 0;

/// Draft number while the major version is zero: other drafts are refused.
pub const MINOR: u16 = 3;

/// The normative text of the format this crate implements.
pub const SPECIFICATION: &str = include_str!("../../../docs/format.md");
