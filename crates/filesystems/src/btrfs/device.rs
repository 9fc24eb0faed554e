//! The device tree: which pieces of the device belong to which chunks.

use aiv_volume_io::Extent;

use super::chunks::Chunks;
use super::key::{Item, kind};
use super::reason::BtrfsReason;
use super::superblock::Superblock;
use super::tree::Tree;
use crate::bytes::le64;
use crate::stop::Stop;

const LEN: usize = 48;

/// A piece of the device, and the number of its chunk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    pub(super) place: Extent,
    pub(super) chunk: usize,
}

/// Takes the items of the device tree.
pub(super) struct DeviceTree<'a> {
    superblock: &'a Superblock,
    chunks: &'a Chunks,
    /// In the order of the device, none overlapping another.
    pieces: Vec<Piece>,
}

impl<'a> DeviceTree<'a> {
    pub(super) fn new(superblock: &'a Superblock, chunks: &'a Chunks) -> Self {
        Self { superblock, chunks, pieces: Vec::new() }
    }

    pub(super) fn take(&mut self, item: Item<'_>) -> Result<(), Stop> {
        let Item { key, data, leaf: block } = item;
        let fault = |what| BtrfsReason::Tree { tree: Tree::DEVICE.name, block, what };
        match key.kind {
            kind::PERSISTENT_ITEM | kind::TEMPORARY_ITEM => Ok(()),
            // Started, or suspended.
            kind::DEV_REPLACE if data.len() < 40 || [1, 4].contains(&le64(data, 32)) => {
                Err(BtrfsReason::Replacing.into())
            }
            kind::DEV_REPLACE => Ok(()),
            kind::DEV_EXTENT if data.len() != LEN => {
                Err(fault("it has a device extent that is malformed").into())
            }
            kind::DEV_EXTENT if key.object != self.superblock.device.id => {
                Err(fault("it has an extent of another device").into())
            }
            kind::DEV_EXTENT => {
                let (logical, len) = (le64(data, 16), le64(data, 24));
                let chunk = self.chunks.starting_at(logical).filter(|&n| {
                    let chunk = &self.chunks.list()[n];
                    chunk.len == len && chunk.places().any(|place| place == key.offset)
                });
                let Some(chunk) = chunk else {
                    return Err(fault("it has a device extent that is no chunk's").into());
                };
                // Chunks end on the device.
                if self.pieces.last().is_some_and(|last| last.place.end() > key.offset) {
                    return Err(fault("it has device extents that overlap").into());
                }
                self.pieces.push(Piece { place: Extent::new(key.offset, len), chunk });
                Ok(())
            }
            _ => Err(fault("it has an unknown item").into()),
        }
    }

    /// The pieces, when every chunk has all of its own.
    pub(super) fn finish(self) -> Result<Vec<Piece>, BtrfsReason> {
        // No piece was named twice, as keys differ.
        let chunks = self.chunks.list();
        let expected: usize = chunks.iter().map(|chunk| chunk.places().count()).sum();
        if self.pieces.len() != expected {
            let what = "it lacks device extents of chunks";
            return Err(BtrfsReason::Tree { tree: Tree::DEVICE.name, block: 0, what });
        }
        let found = self.pieces.iter().map(|piece| piece.place.len).sum();
        let recorded = self.superblock.device.bytes_used;
        if found != recorded {
            let what = "use of the device".to_owned();
            return Err(BtrfsReason::Count { what, recorded, found });
        }
        Ok(self.pieces)
    }
}
