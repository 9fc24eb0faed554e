//! Redundancy of an image: erasure codes over its metadata, always, and over its pieces, where
//! the superblock says so.

pub(crate) mod pages;
pub(crate) mod stripes;
