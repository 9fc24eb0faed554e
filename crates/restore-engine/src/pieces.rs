//! The stretches of a view, cut to the bytes that are restored and checked to leave no gap.

use aiv_chain::{Stretch, View};
use aiv_image_format::{BlockIndex, Geometry};
use aiv_volume_io::Extent;

use crate::error::{Error, Result};

/// A stretch, or the part of it that is restored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece {
    pub(crate) stretch: Stretch,
    /// Bytes of the source disk, never empty.
    pub(crate) extent: Extent,
}

/// One block, or the part of it that is restored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockPart {
    pub(crate) stretch: Stretch,
    pub(crate) block: BlockIndex,
    /// Bytes of the source disk, never empty.
    pub(crate) extent: Extent,
}

impl Piece {
    /// Cuts off the first block; `None` in place of a rest without bytes.
    pub(crate) fn split_first(self, geometry: &Geometry) -> (BlockPart, Option<Self>) {
        let block = self.extent.start / u64::from(geometry.block_size().get());
        let end = geometry.offset_of(block + 1).min(self.extent.end());
        let extent = Extent::between(self.extent.start, end);
        let rest = Extent::between(end, self.extent.end());
        let rest = (!rest.is_empty()).then_some(Self { extent: rest, ..self });
        (BlockPart { stretch: self.stretch, block, extent }, rest)
    }
}

/// The pieces of a range, ascending; together exactly the range. Ends after the first error.
pub(crate) struct Pieces<'v> {
    stretches: Box<dyn Iterator<Item = aiv_chain::Result<Stretch>> + Send + 'v>,
    geometry: Geometry,
    /// What no piece was returned for yet.
    rest: Extent,
}

impl<'v> Pieces<'v> {
    pub(crate) fn new(view: &'v View, range: Extent) -> Self {
        let geometry = *view.geometry();
        let first = range.start / u64::from(geometry.block_size().get());
        Self { stretches: Box::new(view.stretches(first)), geometry, rest: range }
    }

    fn advance(&mut self) -> Result<Piece> {
        let at = self.rest.start;
        let block = at / u64::from(self.geometry.block_size().get());
        let stretch = self.stretches.next().ok_or(Error::Undecided { block })??;
        let start = self.geometry.offset_of(stretch.block());
        let after = stretch.block().saturating_add(stretch.run());
        let end = self.geometry.offset_of(after).min(self.rest.end());
        if start > at || end <= at {
            return Err(Error::Undecided { block });
        }
        self.rest = Extent::between(end, self.rest.end());
        Ok(Piece { stretch, extent: Extent::between(at, end) })
    }
}

impl Iterator for Pieces<'_> {
    type Item = Result<Piece>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let piece = self.advance();
        if piece.is_err() {
            self.rest = Extent::new(self.rest.end(), 0);
        }
        Some(piece)
    }
}

#[cfg(test)]
mod tests {
    use aiv_chain::meta::{DiskInfo, Meta};
    use aiv_image_format::{
        BlockSize, Digest, Features, ImageId, ImageKind, ImageWriter, RunKind, SessionTag, SetId,
        Superblock,
    };
    use aiv_testkit::MemStorage;
    use aiv_volume_io::Storage;

    use super::*;

    const BLOCK: u64 = 16 << 10;

    /// Four blocks: zero, unused, unused, zero.
    fn view() -> View {
        let size = BlockSize::new(16 << 10).unwrap();
        let superblock = Superblock {
            features: Features::default(),
            image: ImageId([1; 16]),
            set: SetId([2; 16]),
            point: aiv_chain::PointId([3; 16]),
            kind: ImageKind::Full,
            parent: None,
            geometry: Geometry::new(4 * BLOCK, size, 512).unwrap(),
            created_unix_ms: 0,
            session: SessionTag([4; 12]),
            writer: String::new(),
            key_commitment: aiv_image_format::Digest::default(),
            source_token: Digest::default(),
        };
        let storage = MemStorage::new();
        let mut writer = ImageWriter::create(storage.create("a").unwrap(), superblock).unwrap();
        for (kind, count) in [(RunKind::Zero, 1), (RunKind::Unused, 2), (RunKind::Zero, 1)] {
            writer.push_run(kind, count).unwrap();
        }
        let disk = DiskInfo::bare(4 * BLOCK, 512);
        writer.finish(Meta { disk, ..Meta::default() }).unwrap();
        View::open(&storage, "a", aiv_volume_io::Job::silent()).unwrap()
    }

    fn undecided(mut pieces: Pieces<'_>, block: BlockIndex) {
        let error = pieces.find_map(Result::err).expect("a gap");
        assert!(matches!(error, Error::Undecided { block: found } if found == block), "{error}");
        assert!(pieces.next().is_none(), "it ends after an error");
    }

    #[test]
    fn a_range_is_cut_at_both_ends() {
        let view = view();
        let pieces = Pieces::new(&view, Extent::new(10, 3 * BLOCK));
        let extents: Vec<Extent> = pieces.map(|piece| piece.unwrap().extent).collect();
        let last = Extent::new(3 * BLOCK, 10);
        assert_eq!(extents, [Extent::between(10, BLOCK), Extent::new(BLOCK, 2 * BLOCK), last]);
    }

    #[test]
    fn an_index_that_leaves_blocks_out_is_an_error_and_not_zeros() {
        let view = view();
        let all = Extent::new(0, 4 * BLOCK);
        let mut pieces = Pieces::new(&view, all);
        pieces.stretches = Box::new(view.stretches(0).skip(1));
        undecided(pieces, 0);
        let mut pieces = Pieces::new(&view, all);
        pieces.stretches = Box::new(view.stretches(0).step_by(2));
        undecided(pieces, 1);
        let mut pieces = Pieces::new(&view, all);
        pieces.stretches = Box::new(view.stretches(0).take(2));
        undecided(pieces, 3);
    }
}
