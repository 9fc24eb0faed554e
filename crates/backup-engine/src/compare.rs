//! Compares a section of the disk with the parent's state, and encodes what changed.

use aiv_chain::{Stretch, ViewReader};
use aiv_image_format::hash;
use aiv_image_format::{BlockIndex, DeltaBase, Digest, EncodedBlock, Encoder, GroupNode, RunKind};

use crate::hints::Hint;
use crate::parent::Parent;
use crate::pipeline::{Capture, Outcome, blocks_extent};
use crate::repeats::Repeats;
use crate::section::{Part, Section, kind_of};
use crate::workshop::{Batch, Block, Workshop, is_fill, is_zero, mask};

type ImageResult<T> = std::result::Result<T, aiv_image_format::Error>;

/// One block as it is on the disk now.
struct Now<'s> {
    leaf: Digest,
    content: Content<'s>,
}

#[derive(Clone, Copy)]
enum Content<'s> {
    /// Known by its kind.
    Run(RunKind),
    Bytes(&'s [u8]),
    /// Bytes with fill pattern in unreadable places.
    Damaged(&'s [u8]),
    /// Not read: as the parent has it.
    Skipped,
}

impl Content<'_> {
    /// What the map tree records.
    fn condition(&self) -> u8 {
        match self {
            Self::Run(kind) => kind_of(*kind).map_state(),
            Self::Bytes(_) | Self::Skipped => 0,
            Self::Damaged(_) => kind_of(RunKind::Unreadable).map_state(),
        }
    }

    /// Every image lists all unreadable places of its state, so these are never inherited.
    fn is_unreadable(&self) -> bool {
        self.condition() == kind_of(RunKind::Unreadable).map_state()
    }
}

impl Section {
    /// What becomes of each block.
    pub(crate) fn judge(
        mut self,
        workshop: &Workshop,
        parent: &Parent,
        capture: Capture<'_>,
    ) -> Outcome {
        for part in &mut self.parts {
            if let Part::Read(batch) = part {
                mask(batch, workshop.geometry);
            }
        }
        let now: Vec<Now<'_>> =
            self.parts.iter().flat_map(|part| blocks_of(part, workshop)).collect();
        debug_assert_eq!(now.len() as u64, self.end - self.first);
        let judged = if self.is_unchanged(&now) {
            Ok(vec![Block::Inherited(self.end - self.first)])
        } else {
            let mut comparison = Comparison::new(workshop, parent, capture, self.first);
            let judged = comparison.judge(self.first, self.end, &now);
            self.find_lies(capture.hint, &judged, workshop);
            workshop.give_back(comparison.encoder);
            judged
        };
        drop(now);
        for part in self.parts {
            if let Part::Read(Batch { bytes, .. }) = part {
                workshop.give_back_buffer(bytes);
            }
        }
        judged
    }

    /// What the tracker did not mark has to be inherited.
    fn find_lies(&self, hint: Option<&Hint<'_>>, judged: &Outcome, workshop: &Workshop) {
        let (Some(hint), Ok(judged)) = (hint, judged) else { return };
        let mut audited = self.audited.iter().copied().peekable();
        let mut at = self.first;
        for block in judged {
            let (count, inherited) = match block {
                Block::Inherited(count) => (*count, true),
                _ => (1, false),
            };
            while let Some(block) = audited.next_if(|block| *block < at + count) {
                if !inherited {
                    hint.lied(workshop.geometry.offset_of(block));
                }
            }
            at += count;
        }
    }

    /// Whether the whole group is as the parent has it, by its nodes alone.
    fn is_unchanged(&self, now: &[Now<'_>]) -> bool {
        let Some(node) = self.node else { return false };
        if now.iter().any(|block| block.content.is_unreadable()) {
            return false;
        }
        let leaves: Vec<Digest> = now.iter().map(|block| block.leaf).collect();
        let conditions: Vec<u8> = now.iter().map(|block| block.content.condition()).collect();
        GroupNode::new(&leaves, &conditions) == node
    }
}

fn blocks_of<'s>(part: &'s Part, workshop: &'s Workshop) -> Box<dyn Iterator<Item = Now<'s>> + 's> {
    let constants = &workshop.constants;
    match part {
        Part::Run { kind, first, count } => Box::new((*first..first + count).map(move |block| {
            Now { leaf: constants.of(block, kind_of(*kind)), content: Content::Run(*kind) }
        })),
        Part::Skipped(leaves) => {
            Box::new(leaves.iter().map(|leaf| Now { leaf: *leaf, content: Content::Skipped }))
        }
        Part::Read(batch) => {
            let size = workshop.geometry.block_size().bytes();
            let numbered = (batch.first..).zip(batch.bytes.chunks(size));
            Box::new(numbered.map(move |(block, bytes)| {
                let here = blocks_extent(&workshop.geometry, block, 1);
                let content = if batch.unreadable.iter().any(|u| u.intersect(here).is_some()) {
                    match is_fill(bytes) {
                        true => Content::Run(RunKind::Unreadable),
                        false => Content::Damaged(bytes),
                    }
                } else if is_zero(bytes) {
                    Content::Run(RunKind::Zero)
                } else {
                    Content::Bytes(bytes)
                };
                let leaf = match content {
                    Content::Run(kind) => constants.of(block, kind_of(kind)),
                    _ => hash::leaf(bytes),
                };
                Now { leaf, content }
            }))
        }
    }
}

/// Compares block by block; keeps the working memory for one section.
struct Comparison<'w> {
    workshop: &'w Workshop,
    parent: &'w Parent,
    capture: Capture<'w>,
    encoder: Encoder,
    repeats: Option<Repeats<'w>>,
    reader: ViewReader<'w>,
    base: Vec<u8>,
    /// Where the block after this one would be if a row of blocks was moved.
    guess: Option<BlockIndex>,
}

impl<'w> Comparison<'w> {
    fn new(
        workshop: &'w Workshop,
        parent: &'w Parent,
        capture: Capture<'w>,
        first: BlockIndex,
    ) -> Self {
        let (encoder, reader) = (workshop.encoder(), parent.view.reader());
        let repeats = workshop.repeats(capture, first);
        let (base, guess) = (Vec::new(), None);
        Self { workshop, parent, capture, encoder, repeats, reader, base, guess }
    }

    fn judge(&mut self, first: BlockIndex, end: BlockIndex, now: &[Now<'_>]) -> Outcome {
        let old = self.parent.stretches(first, end)?;
        let constants = &self.workshop.constants;
        let mut judged = Vec::new();
        let mut at = 0;
        for (block, now) in (first..).zip(now) {
            while old.get(at).is_some_and(|s| s.block() + s.run() <= block) {
                at += 1;
            }
            let old = old.get(at).filter(|_| block < self.parent.shared());
            let same = old.is_some_and(|old| {
                let leaf = old.leaf().unwrap_or_else(|| constants.of(block, old.kind()));
                leaf == now.leaf && old.kind().map_state() == now.content.condition()
            });
            if same && !now.content.is_unreadable() {
                match judged.last_mut() {
                    Some(Block::Inherited(count)) => *count += 1,
                    _ => judged.push(Block::Inherited(1)),
                }
                continue;
            }
            judged.push(match now.content {
                Content::Run(RunKind::Unreadable) => Block::Lost,
                Content::Run(RunKind::Unused) => Block::Unused,
                Content::Run(RunKind::Excluded) => Block::Excluded,
                Content::Run(RunKind::Zero) => Block::Zero,
                Content::Damaged(bytes) => Block::Damaged(self.encoder.encode(bytes, now.leaf)?),
                Content::Bytes(bytes) => self.changed(block, bytes, now.leaf, old)?,
                Content::Skipped => {
                    return Err(aiv_image_format::Error::Misuse("a block nobody looked at"));
                }
            });
        }
        Ok(judged)
    }

    /// A block with new bytes: moved, seen before, a difference, or whole.
    fn changed(
        &mut self,
        block: BlockIndex,
        bytes: &[u8],
        leaf: Digest,
        old: Option<&Stretch>,
    ) -> ImageResult<Block> {
        let len = self.workshop.geometry.block_len(block);
        let guess = self.guess.take();
        if let Some(from) = self.parent.find_moved(&leaf, len, guess, self.capture.job)? {
            self.guess = Some(from + 1);
            return Ok(Block::Moved(from, leaf));
        }
        let is_settled = |stored| self.repeats.as_ref().is_none_or(|r| r.is_settled(stored));
        // Others may not see it yet: then all go on as they do. The writer sees it in any case.
        if self.workshop.seen.stored(&leaf).is_some_and(is_settled) {
            return Ok(Block::Seen(leaf));
        }
        if let Some(old) = old.filter(|old| self.parent.deltas && old.leaf().is_some())
            && let Some(encoded) = self.difference(block, bytes, leaf, old)?
            && encoded.is_delta()
        {
            return Ok(Block::New(encoded, Vec::new()));
        }
        self.workshop.encode(bytes, leaf, &mut self.encoder, &mut self.repeats)
    }

    /// The block as a difference to what the parent has in its place, or whole if that is not
    /// much larger. `None` when the parent's block cannot be read: it is then stored whole,
    /// which mends the chain for it.
    fn difference(
        &mut self,
        block: BlockIndex,
        bytes: &[u8],
        leaf: Digest,
        old: &Stretch,
    ) -> ImageResult<Option<EncodedBlock>> {
        self.base.resize(bytes.len(), 0);
        let depth = match self.reader.read_in(old, block, &mut self.base) {
            Ok(depth) => depth,
            Err(aiv_chain::Error::Canceled(canceled)) => return Err(canceled.into()),
            Err(error) => {
                self.parent.note_damage(error);
                return Ok(None);
            }
        };
        let Some(base_leaf) = old.leaf() else { return Ok(None) };
        let base = DeltaBase { block, leaf: base_leaf, depth, bytes: &self.base };
        self.encoder.encode_against(bytes, leaf, &base).map(Some)
    }
}
