//! Reads a disk for an increment, group by group: 128 blocks that did not change cost one
//! comparison, and no look at the parent's index.

use aiv_image_format::hash::{ConstantLeaves, FAN_OUT};
use aiv_image_format::{BlockIndex, Digest, GroupNode, Kind, RunKind};

use crate::error::{Error, Result};
use crate::hints::{Hinted, Trust};
use crate::pace::Pacer;
use crate::parent::Parent;
use crate::pipeline::{Capture, Captured, HungUp, Item, Reader, Work, blocks_extent, next_span};
use crate::spans::{Span, SpanKind};
use crate::workshop::Batch;

const GROUP: u64 = FAN_OUT as u64;

/// Bytes of one section at most: a group of 128 blocks of 128 KiB. Groups of larger blocks are
/// compared block by block.
const SECTION_BYTES_MAX: u64 = 16 << 20;

/// Blocks of a section. Like those of a group a power of two, so that sections never cross the
/// border of a group.
pub(crate) fn blocks_per_section(block_size: u64) -> u64 {
    GROUP.min(SECTION_BYTES_MAX / block_size).max(1)
}

/// A whole group of blocks, or as much of one as is kept in memory at a time.
pub(crate) struct Section {
    pub first: BlockIndex,
    pub end: BlockIndex,
    pub parts: Vec<Part>,
    /// The nodes of the group in the parent's state, when the section is one that both have.
    pub node: Option<GroupNode>,
    /// Blocks that are as the parent has them unless a tracker lied; ascending.
    pub audited: Vec<BlockIndex>,
}

/// Some blocks of a section.
pub(crate) enum Part {
    /// Blocks known without reading.
    Run {
        kind: RunKind,
        first: BlockIndex,
        count: u64,
    },
    Read(Batch),
    /// Blocks not read: the parent has them with these leaves.
    Skipped(Vec<Digest>),
}

/// A failed read of the source or the parent, or a writer that gave up.
enum Stop {
    Failed(Error),
    HungUp,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<HungUp> for Stop {
    fn from(_: HungUp) -> Self {
        Self::HungUp
    }
}

impl Reader<'_> {
    /// Reads span after span and compares with `parent`. Ends early, without an error of its
    /// own, when the writer gave up.
    pub(crate) fn read_changes(
        &self,
        parent: &Parent,
        pacer: &mut Option<Pacer<'_>>,
        mut captured: Captured,
    ) -> Result<Captured> {
        match self.read_sections(parent, pacer, &mut captured) {
            Ok(()) | Err(Stop::HungUp) => Ok(captured),
            Err(Stop::Failed(error)) => Err(error),
        }
    }

    fn read_sections(
        &self,
        parent: &Parent,
        pacer: &mut Option<Pacer<'_>>,
        captured: &mut Captured,
    ) -> std::result::Result<(), Stop> {
        let Capture { geometry, plan, job, hint, .. } = self.capture;
        let per_section = self.capture.blocks_per_work();
        let blocks = geometry.blocks();
        let mut old = OldGroups::new(parent, &ConstantLeaves::new(geometry));
        let first = self.capture.first();
        let mut spans = self.capture.spans();
        let mut hinted = hint.map(|hint| Hinted::new(hint, plan, parent));
        let mut span = next_span(&mut spans)?;
        while span.is_some_and(|span| span.from(first).is_none()) {
            span = next_span(&mut spans)?;
        }
        let mut at: BlockIndex = first;
        while let Some(current) = span {
            debug_assert!(at == first || at.is_multiple_of(per_section), "section after section");
            job.check().map_err(Error::from)?;
            hinted.as_ref().map_or(Ok(()), Hinted::check)?;
            let span_end = current.first + current.count;
            let section_end = (at / per_section + 1).saturating_mul(per_section).min(blocks);
            let kind = run_kind(current.kind);
            if let Some(kind) = kind.filter(|_| span_end >= section_end) {
                // Nothing to read in whole sections: as many as there are.
                let end =
                    if span_end == blocks { blocks } else { span_end / per_section * per_section };
                self.compare_run(parent, &mut old, hinted.as_mut(), kind, at, end)?;
                self.advance(blocks_extent(&geometry, at, end - at));
                at = end;
            } else {
                let mut section = Section::new(at, section_end);
                let mut next = Some(current);
                while let Some(Span { first, count, kind }) = next
                    && first < section_end
                {
                    let (from, to) = (first.max(at), (first + count).min(section_end));
                    let extent = blocks_extent(&geometry, from, to - from);
                    match (run_kind(kind), &mut hinted) {
                        (None, None) => {
                            let batch =
                                self.capture.read_batch(self.workshop, from, extent, captured)?;
                            section.parts.push(Part::Read(batch));
                        }
                        (None, Some(hinted)) => {
                            self.read_hinted(hinted, from, to, &mut section, captured)?;
                        }
                        (Some(kind), hinted) => {
                            if let (RunKind::Zero, Some(hinted)) = (kind, hinted) {
                                section.audited.extend(trusted_blocks(hinted, from, to)?);
                            }
                            section.parts.push(Part::Run { kind, first: from, count: to - from });
                        }
                    }
                    if first + count > section_end {
                        break;
                    }
                    next = next_span(&mut spans)?;
                }
                span = next;
                self.pace(pacer, section.bytes())?;
                let is_group = at.is_multiple_of(GROUP)
                    && (section_end - at == GROUP || section_end == blocks);
                if is_group && section_end <= parent.shared() {
                    section.node = Some(old.node(at / GROUP)?);
                }
                match section.is_skipped() {
                    true => self.send(Item::Inherited(section_end - at))?,
                    false => self.give(at, Work::Section(section))?,
                }
                self.advance(blocks_extent(&geometry, at, section_end - at));
                at = section_end;
                continue;
            }
            if at >= span_end {
                span = next_span(&mut spans)?;
            }
        }
        Ok(())
    }

    /// Reads of the blocks `from .. to` those that may have changed, and the share that is
    /// compared in any case.
    fn read_hinted(
        &self,
        hinted: &mut Hinted<'_>,
        from: BlockIndex,
        to: BlockIndex,
        section: &mut Section,
        captured: &mut Captured,
    ) -> Result<()> {
        let geometry = self.capture.geometry;
        // Where the blocks begin that are read next.
        let mut unread = from;
        let read_until = |unread: &mut BlockIndex, end, section: &mut Section, captured: &mut _| {
            if *unread < end {
                let extent = blocks_extent(&geometry, *unread, end - *unread);
                section.parts.push(Part::Read(self.capture.read_batch(
                    self.workshop,
                    *unread,
                    extent,
                    captured,
                )?));
            }
            Ok::<_, Error>(())
        };
        for row in hinted.trusted(from, to)? {
            let Trust::Yes(leaves) = row.trust else { continue };
            for (block, leaf) in (row.first..).zip(leaves) {
                let len = blocks_extent(&geometry, block, 1).len;
                if hinted.is_audited(block) {
                    section.audited.push(block);
                    captured.bytes_audited += len;
                    continue;
                }
                captured.bytes_skipped += len;
                read_until(&mut unread, block, section, captured)?;
                unread = block + 1;
                match section.parts.last_mut() {
                    Some(Part::Skipped(leaves)) => leaves.push(leaf),
                    _ => section.parts.push(Part::Skipped(vec![leaf])),
                }
            }
        }
        read_until(&mut unread, to, section, captured)
    }

    /// Blocks `from .. to` need no reading: finds out which of them the parent has alike.
    fn compare_run(
        &self,
        parent: &Parent,
        old: &mut OldGroups<'_>,
        mut hinted: Option<&mut Hinted<'_>>,
        kind: RunKind,
        from: BlockIndex,
        to: BlockIndex,
    ) -> std::result::Result<(), Stop> {
        let mut at = from;
        // Groups that are as they were, not yet told: an empty disk has millions.
        let mut inherited = 0;
        while at < to {
            let group_end = ((at / GROUP + 1) * GROUP).min(to);
            let whole = at.is_multiple_of(GROUP) && group_end - at == GROUP;
            if whole && group_end <= parent.shared() && old.is_all(at / GROUP, kind)? {
                inherited += GROUP;
                at = group_end;
                continue;
            }
            self.tell_inherited(&mut inherited)?;
            for stretch in parent.stretches(at, group_end).map_err(broken)? {
                let end = stretch.block().saturating_add(stretch.run()).min(group_end);
                let end = end.min(parent.shared());
                let same = stretch.kind() == kind_of(kind) && stretch.leaf().is_none();
                let count = end.saturating_sub(at);
                if let (false, RunKind::Zero, Some(hinted)) = (same, kind, &mut hinted)
                    && let Some(&block) = trusted_blocks(hinted, at, end)?.first()
                {
                    hinted.lied(block);
                }
                self.send(if same { Item::Inherited(count) } else { Item::Run(kind, count) })?;
                at = at.max(end);
            }
            // What the parent does not have, or not with this length.
            if at < group_end {
                self.send(Item::Run(kind, group_end - at))?;
                at = group_end;
            }
        }
        Ok(self.tell_inherited(&mut inherited)?)
    }

    fn tell_inherited(&self, count: &mut u64) -> std::result::Result<(), HungUp> {
        match std::mem::take(count) {
            0 => Ok(()),
            count => self.send(Item::Inherited(count)),
        }
    }
}

impl Section {
    fn new(first: BlockIndex, end: BlockIndex) -> Self {
        Self { first, end, parts: Vec::new(), node: None, audited: Vec::new() }
    }

    /// Whether nothing of it was read, and nothing of it is known but that it did not change.
    fn is_skipped(&self) -> bool {
        self.parts.iter().all(|part| matches!(part, Part::Skipped(_)))
    }

    /// Bytes that were read.
    fn bytes(&self) -> u64 {
        let read = |part: &Part| match part {
            Part::Read(batch) => batch.bytes.len() as u64,
            Part::Run { .. } | Part::Skipped(_) => 0,
        };
        self.parts.iter().map(read).sum()
    }
}

/// Those of the blocks `from .. to` that a tracker says are as the parent has them.
fn trusted_blocks(
    hinted: &mut Hinted<'_>,
    from: BlockIndex,
    to: BlockIndex,
) -> Result<Vec<BlockIndex>> {
    let rows = hinted.trusted(from, to)?;
    let trusted = rows.into_iter().filter(|row| matches!(row.trust, Trust::Yes(_)));
    Ok(trusted.flat_map(|row| row.first..row.first + row.count).collect())
}

/// The nodes of the parent's groups, asked for in ascending order.
struct OldGroups<'p> {
    nodes: Box<
        dyn Iterator<Item = std::result::Result<GroupNode, aiv_image_format::Error>> + Send + 'p,
    >,
    next: u64,
    /// The node asked for last.
    last: Option<GroupNode>,
    zero: GroupNode,
    unused: GroupNode,
    excluded: GroupNode,
}

impl<'p> OldGroups<'p> {
    fn new(parent: &'p Parent, constants: &ConstantLeaves) -> Self {
        let all = |kind: Kind| {
            let leaves = [constants.of(0, kind); FAN_OUT];
            GroupNode::new(&leaves, &[kind.map_state(); FAN_OUT])
        };
        Self {
            nodes: aiv_chain::ParentState::nodes(&parent.view),
            next: 0,
            last: None,
            zero: all(Kind::Zero),
            unused: all(Kind::Unused),
            excluded: all(Kind::Excluded),
        }
    }

    fn node(&mut self, group: u64) -> Result<GroupNode> {
        while self.next <= group {
            let node = self.nodes.next().transpose().map_err(broken)?;
            self.last = Some(node.ok_or_else(|| {
                broken(aiv_image_format::Error::Misuse("a parent without all its groups"))
            })?);
            self.next += 1;
        }
        self.last.ok_or_else(|| broken(aiv_image_format::Error::Misuse("a group asked for twice")))
    }

    /// Whether a whole group of the parent is of this kind and nothing else.
    fn is_all(&mut self, group: u64, kind: RunKind) -> Result<bool> {
        let node = self.node(group)?;
        Ok(match kind {
            RunKind::Zero => node == self.zero,
            RunKind::Unused => node == self.unused,
            RunKind::Excluded => node == self.excluded,
            RunKind::Unreadable => false,
        })
    }
}

/// The parent cannot be used: another one has to be found.
pub(crate) fn broken(source: aiv_image_format::Error) -> Error {
    match source {
        aiv_image_format::Error::Canceled(canceled) => canceled.into(),
        source => Error::Parent(source),
    }
}

pub(crate) fn run_kind(kind: SpanKind) -> Option<RunKind> {
    match kind {
        SpanKind::Unused => Some(RunKind::Unused),
        SpanKind::Excluded => Some(RunKind::Excluded),
        SpanKind::Zero => Some(RunKind::Zero),
        SpanKind::Read => None,
    }
}

pub(crate) fn kind_of(kind: RunKind) -> Kind {
    match kind {
        RunKind::Zero => Kind::Zero,
        RunKind::Unused => Kind::Unused,
        RunKind::Excluded => Kind::Excluded,
        RunKind::Unreadable => Kind::Unreadable,
    }
}
