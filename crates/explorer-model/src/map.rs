//! What the blocks of a point are, as a picture of as many cells as fit.

use aiv_chain::{Kind, Stretch};

/// What a block is to somebody who looks at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockKind {
    /// Nothing uses it, or it was left out: reads as zeros.
    Free,
    /// In use, and all zeros.
    Zero,
    /// In use, and as it was at the point before; of a full image, in use.
    Used,
    /// Stored anew in the newest image, or moved there.
    Changed,
    /// Stored in the newest image as a difference to what was there before.
    Delta,
    /// Some of it could not be read at the source.
    Unreadable,
}

/// All kinds: of several in one cell, the last one is shown.
pub const BLOCK_KINDS: [BlockKind; 6] = [
    BlockKind::Free,
    BlockKind::Zero,
    BlockKind::Used,
    BlockKind::Changed,
    BlockKind::Delta,
    BlockKind::Unreadable,
];

impl BlockKind {
    /// What the blocks of a stretch are, at a point that builds on another one or not.
    #[must_use]
    pub fn of(stretch: &Stretch, has_parent: bool) -> Self {
        let is_new = has_parent && stretch.layer() == 0;
        match stretch.kind() {
            Kind::Unused | Kind::Excluded => Self::Free,
            Kind::Zero => Self::Zero,
            Kind::Unreadable => Self::Unreadable,
            Kind::Delta if is_new => Self::Delta,
            Kind::Data | Kind::Ref | Kind::Local | Kind::Parent if is_new => Self::Changed,
            Kind::Delta | Kind::Data | Kind::Ref | Kind::Local | Kind::Parent => Self::Used,
        }
    }

    /// The character of the picture.
    #[must_use]
    pub const fn sign(self) -> char {
        match self {
            Self::Free => '.',
            Self::Zero => '0',
            Self::Used => '#',
            Self::Changed => '+',
            Self::Delta => '~',
            Self::Unreadable => '!',
        }
    }

    /// What it means.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Zero => "zero",
            Self::Used => "used",
            Self::Changed => "changed",
            Self::Delta => "delta",
            Self::Unreadable => "unreadable",
        }
    }
}

/// Runs of blocks that are told apart: more than a screen has cells.
const SECTIONS_MAX: u64 = 1 << 14;

/// The blocks of a point. It does not grow with the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockMap {
    blocks: u64,
    block_size: u64,
    /// Kinds that occur in each section, as bits.
    sections: Vec<u8>,
    /// Blocks by kind.
    counts: [u64; BLOCK_KINDS.len()],
}

impl BlockMap {
    /// A map of `blocks` blocks of `block_size` bytes, none of which was told of yet.
    #[must_use]
    pub fn new(blocks: u64, block_size: u32) -> Self {
        let sections = usize::try_from(blocks.min(SECTIONS_MAX)).unwrap_or_default();
        let counts = [0; BLOCK_KINDS.len()];
        Self { blocks, block_size: block_size.into(), sections: vec![0; sections], counts }
    }

    /// Takes note of `run` blocks from `first` on. What lies outside of the map is left out.
    pub fn add(&mut self, first: u64, run: u64, kind: BlockKind) {
        let end = first.saturating_add(run).min(self.blocks);
        if first >= end {
            return;
        }
        let at = kind as usize;
        self.counts[at] = self.counts[at].saturating_add(end - first);
        let (from, to) = (self.section_of(first), self.section_of(end - 1));
        for section in self.sections.get_mut(from..=to).unwrap_or_default() {
            *section |= 1 << at;
        }
    }

    fn section_of(&self, block: u64) -> usize {
        let sections = self.sections.len() as u128;
        let at = u128::from(block) * sections / u128::from(self.blocks.max(1));
        usize::try_from(at).unwrap_or_default()
    }

    /// Bytes of the blocks of a kind; the last block of a disk counts as a whole one.
    #[must_use]
    pub fn bytes(&self, kind: BlockKind) -> u64 {
        self.counts[kind as usize].saturating_mul(self.block_size)
    }

    /// The picture in at most `count` cells, from the first block to the last: of each cell what
    /// is most worth seeing. `None` for blocks that nobody told of.
    #[must_use]
    pub fn cells(&self, count: usize) -> Vec<Option<BlockKind>> {
        let count = count.min(self.sections.len());
        let bound = |at: usize| at * self.sections.len() / count.max(1);
        let cell = |at: usize| {
            let sections = self.sections.get(bound(at)..bound(at + 1)).unwrap_or_default();
            let kinds = sections.iter().fold(0, |all, section| all | section);
            BLOCK_KINDS.into_iter().rev().find(|&kind| kinds & (1 << (kind as usize)) != 0)
        };
        (0..count).map(cell).collect()
    }

    /// First byte of a cell, when there are `count` of them.
    #[must_use]
    pub fn offset(&self, cell: usize, count: usize) -> u64 {
        let bytes = u128::from(self.blocks) * u128::from(self.block_size);
        let at = bytes * cell as u128 / count.max(1) as u128;
        u64::try_from(at).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(map: &BlockMap, cells: usize) -> String {
        map.cells(cells).into_iter().map(|cell| cell.map_or(' ', BlockKind::sign)).collect()
    }

    #[test]
    fn a_small_disk_has_a_cell_for_each_block_and_a_large_one_a_cell_for_many() {
        let mut map = BlockMap::new(8, 65536);
        map.add(0, 4, BlockKind::Used);
        map.add(4, 1, BlockKind::Unreadable);
        map.add(5, 2, BlockKind::Free);
        assert_eq!(picture(&map, 100), "####!.. ");
        assert_eq!(picture(&map, 4), "##!.");
        assert_eq!(picture(&map, 1), "!");
        assert_eq!(map.bytes(BlockKind::Used), 4 * 65536);
        assert_eq!((map.offset(0, 4), map.offset(3, 4)), (0, 6 * 65536));
    }

    #[test]
    fn a_block_that_cannot_be_read_is_seen_on_the_largest_disk() {
        let blocks = 1 << 40;
        let mut map = BlockMap::new(blocks, 4 << 20);
        map.add(0, blocks, BlockKind::Used);
        map.add(blocks / 2, 1, BlockKind::Unreadable);
        let cells = map.cells(1000);
        let bad = cells.iter().filter(|cell| **cell == Some(BlockKind::Unreadable)).count();
        assert_eq!((cells.len(), bad), (1000, 1));
    }

    #[test]
    fn what_lies_outside_is_left_out_and_nothing_overflows() {
        let mut map = BlockMap::new(4, 65536);
        map.add(3, u64::MAX, BlockKind::Delta);
        map.add(9, 1, BlockKind::Used);
        map.add(0, 0, BlockKind::Used);
        assert_eq!(picture(&map, 9), "   ~");
        assert_eq!(BlockMap::new(0, 65536).cells(10), []);
    }
}
