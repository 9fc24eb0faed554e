//! Parent states: a plain model that can lie, and one that is read from image files.

use std::iter;

use aiv_image_format::hash::{FAN_OUT, leaf};
use aiv_image_format::{
    BaseBlock, BlockIndex, Digest, Error, Geometry, GroupNode, Image, IndexEntry, Kind, ParentLink,
    ParentState, PointId, Result, Scratch,
};

use crate::forge::Forgery;
use crate::naive;
use crate::recipe::{Block, Recipe, open};

/// A block of a state: how it is kept, as far as its condition shows it, and its bytes.
pub(crate) type Cell = (Kind, Vec<u8>);

/// What a model says that is not so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lie {
    /// The node of this group is another one.
    Node(u64),
    /// The leaf of this block is another one.
    Leaf(BlockIndex),
    /// The condition of this block is another one.
    Condition(BlockIndex),
    /// Only so many nodes.
    Nodes(usize),
    /// One node too many.
    ExtraNode,
    /// Stretches end before this block.
    StretchesEnd(BlockIndex),
    /// A stretch too few: none covers this block.
    Gap(BlockIndex),
    /// This block reads as other bytes.
    Bytes(BlockIndex),
    /// This many differences were undone for every block.
    Depth(u8),
    /// The file with the nodes, the entries, or the blocks is damaged.
    Damaged(Part),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Nodes,
    Stretches,
    Blocks,
}

/// What a damaged image is refused with.
fn damage() -> Error {
    let bytes = Recipe::new(&[(Block::Zero, 1)]).build();
    let forged = Forgery::of(&bytes).superblock(144, &[9]).seal();
    open(&forged).err().expect("no such kind")
}

/// A state as a plain list of blocks.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    pub geometry: Geometry,
    pub point: PointId,
    pub cells: Vec<Cell>,
    /// Differences to undo for each block.
    pub depths: Vec<u8>,
    pub state_root: Digest,
    pub lies: Vec<Lie>,
}

impl Model {
    pub(crate) fn new(geometry: Geometry, point: PointId, cells: Vec<Cell>) -> Self {
        assert_eq!(geometry.blocks(), cells.len() as u64);
        let state_root = naive::roots(&geometry, &cells).state;
        let depths = vec![0; cells.len()];
        Self { geometry, point, cells, depths, state_root, lies: Vec::new() }
    }

    pub(crate) fn lying(&self, lie: Lie) -> Self {
        Self { lies: vec![lie], ..self.clone() }
    }

    fn told(&self, block: usize) -> IndexEntry {
        let mut entry = entry_of(block as u64, &self.cells[block]);
        if self.lies.contains(&Lie::Leaf(block as u64)) {
            entry.leaf.0[31] ^= 1;
        }
        if self.lies.contains(&Lie::Condition(block as u64)) {
            entry = IndexEntry::run(block as u64, 1, Kind::Excluded);
        }
        entry
    }
}

/// What a state says about one block, as an index entry. Its place means nothing.
fn entry_of(block: BlockIndex, (kind, bytes): &Cell) -> IndexEntry {
    let is_fill = || {
        let mut fill = vec![0; bytes.len()];
        aiv_image_format::hash::fill_unreadable(&mut fill, 0);
        fill == *bytes
    };
    let entry = IndexEntry::run(block, 1, *kind);
    match kind {
        Kind::Zero | Kind::Unused | Kind::Excluded => entry,
        Kind::Unreadable if is_fill() => entry,
        _ => IndexEntry { leaf: leaf(bytes), address: 4096, frame_size: 128, ..entry },
    }
}

/// Nodes by the definition: leaves and conditions of 128 blocks at a time.
fn nodes_of(cells: &[Cell]) -> Vec<GroupNode> {
    cells
        .chunks(FAN_OUT)
        .map(|group| {
            let leaves: Vec<Digest> = group.iter().map(|cell| leaf(&cell.1)).collect();
            let conditions: Vec<u8> = group.iter().map(|cell| cell.0.map_state()).collect();
            GroupNode::new(&leaves, &conditions)
        })
        .collect()
}

/// Single entries of runs that touch, joined.
fn joined(entries: impl Iterator<Item = IndexEntry>) -> Vec<IndexEntry> {
    let mut all: Vec<IndexEntry> = Vec::new();
    for entry in entries {
        match all.last_mut() {
            Some(last)
                if last.kind == entry.kind
                    && !last.has_leaf()
                    && !entry.has_leaf()
                    && last.end() == entry.block =>
            {
                last.run += 1;
            }
            _ => all.push(entry),
        }
    }
    all
}

impl ParentState for Model {
    fn link(&self) -> ParentLink {
        ParentLink { point: self.point, state_root: self.state_root }
    }

    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn stretches(
        &self,
        first: BlockIndex,
    ) -> Box<dyn Iterator<Item = Result<IndexEntry>> + Send + '_> {
        if self.lies.contains(&Lie::Damaged(Part::Stretches)) {
            return Box::new(iter::once_with(|| Err(damage())));
        }
        let ends = |lie: &Lie| matches!(lie, Lie::StretchesEnd(end) if first >= *end);
        if self.lies.iter().any(ends) {
            return Box::new(iter::empty());
        }
        // Around the block that is asked for, as far as a writer can want to look.
        let from = usize::try_from(first).unwrap().saturating_sub(200);
        let to = self.cells.len().min(from + 600);
        let told = (from..to).map(|block| self.told(block));
        let gap = |entry: &IndexEntry| self.lies.contains(&Lie::Gap(entry.block));
        let all = joined(told.filter(|entry| !gap(entry)));
        Box::new(all.into_iter().filter(move |entry| entry.end() > first).map(Ok))
    }

    fn nodes(&self) -> Box<dyn Iterator<Item = Result<GroupNode>> + Send + '_> {
        let mut nodes = nodes_of(&self.cells);
        for lie in &self.lies {
            match lie {
                Lie::Node(group) => nodes[usize::try_from(*group).unwrap()].map.0[0] ^= 1,
                Lie::Nodes(count) => nodes.truncate(*count),
                Lie::ExtraNode => nodes.push(nodes[0]),
                _ => {}
            }
        }
        if self.lies.contains(&Lie::Damaged(Part::Nodes)) {
            return Box::new(iter::once(Ok(nodes[0])).chain(iter::once_with(|| Err(damage()))));
        }
        Box::new(nodes.into_iter().map(Ok))
    }

    fn read(&self, block: BlockIndex, out: &mut [u8]) -> Result<u8> {
        if self.lies.contains(&Lie::Damaged(Part::Blocks)) {
            return Err(damage());
        }
        let place = usize::try_from(block).unwrap();
        out.copy_from_slice(&self.cells[place].1);
        let mut depth = self.depths[place];
        for lie in &self.lies {
            match lie {
                Lie::Bytes(lied) if *lied == block => out[0] ^= 1,
                Lie::Depth(lied) => depth = *lied,
                _ => {}
            }
        }
        Ok(depth)
    }
}

/// A state that is read from the files of its chain: the newest image, and what is below it.
pub(crate) struct Files {
    pub image: Image,
    below: Option<Box<Files>>,
    cells: Vec<Cell>,
}

impl Files {
    /// Reads the state of `image` once, by its entries.
    pub(crate) fn new(image: Image, below: Option<Self>) -> Result<Self> {
        let mut files = Self { image, below: below.map(Box::new), cells: Vec::new() };
        let geometry = *files.image.geometry();
        for block in 0..geometry.blocks() {
            let mut out = vec![0x55; geometry.block_len(block) as usize];
            files.read(block, &mut out)?;
            let kind = files.kind(block)?;
            files.cells.push((kind, out));
        }
        Ok(files)
    }

    fn kind(&self, block: BlockIndex) -> Result<Kind> {
        match (self.image.entry(block)?, &self.below) {
            (Some(entry), _) => Ok(entry.kind),
            (None, Some(below)) => below.kind(block),
            (None, None) => Err(Error::Misuse("a block that no image decides")),
        }
    }

    /// The same state as a model.
    pub(crate) fn model(&self) -> Model {
        let superblock = self.image.superblock();
        let mut model = Model::new(superblock.geometry, superblock.point, self.cells.clone());
        for (block, depth) in (0..).zip(&mut model.depths) {
            let mut out = vec![0; superblock.geometry.block_len(block) as usize];
            *depth = self.read(block, &mut out).expect("it was read before");
        }
        model
    }
}

/// Reads a block of an image with `parent` below it.
pub(crate) fn read_block(
    image: &Image,
    parent: Option<&dyn ParentState>,
    block: BlockIndex,
    out: &mut [u8],
) -> Result<u8> {
    let below = || parent.ok_or(Error::Misuse("a block that no image decides"));
    let mut base = |wanted: &BaseBlock, out: &mut [u8]| {
        let depth = below()?.read(wanted.block, out)?;
        match leaf(out) == wanted.leaf {
            true => Ok(depth),
            false => Err(Error::Misuse("a block of the parent with another leaf")),
        }
    };
    match image.entry(block)? {
        Some(entry) => image.read_entry(&mut Scratch::default(), &entry, block, 8, out, &mut base),
        None => below()?.read(block, out),
    }
}

impl ParentState for Files {
    fn link(&self) -> ParentLink {
        let point = self.image.superblock().point;
        ParentLink { point, state_root: self.image.trailer().state_root }
    }

    fn geometry(&self) -> Geometry {
        *self.image.geometry()
    }

    fn stretches(
        &self,
        first: BlockIndex,
    ) -> Box<dyn Iterator<Item = Result<IndexEntry>> + Send + '_> {
        if self.below.is_none() {
            return Box::new(self.image.entries(first));
        }
        let cells = (0..).zip(&self.cells).skip_while(move |cell| cell.0 < first);
        Box::new(cells.map(|(block, cell)| Ok(entry_of(block, cell))))
    }

    fn nodes(&self) -> Box<dyn Iterator<Item = Result<GroupNode>> + Send + '_> {
        Box::new(nodes_of(&self.cells).into_iter().map(Ok))
    }

    fn read(&self, block: BlockIndex, out: &mut [u8]) -> Result<u8> {
        let below = self.below.as_deref().map(|below| below as &dyn ParentState);
        read_block(&self.image, below, block, out)
    }
}

/// A model that is asked often: what it says of nodes and blocks is worked out once.
pub(crate) struct Remembered {
    pub model: Model,
    entries: Vec<IndexEntry>,
    nodes: Vec<GroupNode>,
}

impl Remembered {
    pub(crate) fn new(model: Model) -> Self {
        let entries = (0..).zip(&model.cells).map(|(block, cell)| entry_of(block, cell)).collect();
        Self { nodes: nodes_of(&model.cells), entries, model }
    }
}

impl ParentState for Remembered {
    fn link(&self) -> ParentLink {
        self.model.link()
    }

    fn geometry(&self) -> Geometry {
        self.model.geometry
    }

    fn stretches(
        &self,
        first: BlockIndex,
    ) -> Box<dyn Iterator<Item = Result<IndexEntry>> + Send + '_> {
        Box::new(self.entries.iter().skip_while(move |e| e.end() <= first).map(|e| Ok(*e)))
    }

    fn nodes(&self) -> Box<dyn Iterator<Item = Result<GroupNode>> + Send + '_> {
        Box::new(self.nodes.iter().map(|node| Ok(*node)))
    }

    fn read(&self, block: BlockIndex, out: &mut [u8]) -> Result<u8> {
        self.model.read(block, out)
    }
}
