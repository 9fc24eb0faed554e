//! Where the parts of an image are: a second reading of the layout in `docs/format.md`.

use std::ops::Range;

pub(crate) const PAGE: usize = 4096;
pub(crate) const GAP: usize = 64 << 10;
pub(crate) const GAP_WITH_PARITY: usize = 256 << 10;
/// First trailer, gap, superblock copy, last trailer.
pub(crate) const TAIL: usize = 3 * PAGE + GAP;

/// The parts of one image, each as a range of bytes.
#[derive(Debug, Clone)]
pub(crate) struct Areas {
    pub superblock: Range<usize>,
    /// The key slots behind the superblock; their copy is in the gap.
    pub slots: Range<usize>,
    pub frames: Vec<Frame>,
    pub index: Range<usize>,
    pub leaf_pages: usize,
    pub tree: Range<usize>,
    /// The META sections without the padding behind them.
    pub meta: Range<usize>,
    pub sections: Vec<Frame>,
    pub meta_padding: Range<usize>,
    pub list: Range<usize>,
    pub list_padding: Range<usize>,
    pub parity: Range<usize>,
    pub first_trailer: Range<usize>,
    pub gap: Range<usize>,
    pub superblock_copy: Range<usize>,
    pub last_trailer: Range<usize>,
}

/// A frame: header, payload, padding.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub kind: u8,
    pub header: Range<usize>,
    pub payload: Range<usize>,
    pub padding: Range<usize>,
}

pub(crate) const DATA: u8 = 1;
pub(crate) const DELTA: u8 = 2;
pub(crate) const CHECKPOINT: u8 = 3;
pub(crate) const PARITY: u8 = 5;
pub(crate) const PAD: u8 = 6;
pub(crate) const LOCAL: u8 = 7;

/// Whether the superblock announces parity over the pieces.
pub(crate) fn has_data_parity(bytes: &[u8]) -> bool {
    bytes[16] & 1 << 6 != 0
}

pub(crate) fn number(bytes: &[u8], at: usize) -> usize {
    let raw = bytes[at..at + 8].try_into().expect("eight bytes");
    usize::try_from(u64::from_le_bytes(raw)).expect("tests are small")
}

impl Areas {
    /// The parts of the intact image in `bytes`.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let last = bytes.len() - PAGE;
        let field = |offset| number(bytes, last + offset);
        let (frames_end, tree, meta) = (field(248), field(312), field(360));
        let (meta_end, list) = (meta + field(368), field(408));
        let list_end = list + field(416) * 32;
        let gap = if has_data_parity(bytes) { GAP_WITH_PARITY } else { GAP };
        let tail = bytes.len() - 3 * PAGE - gap;
        let parity = field(560);
        assert_eq!(parity + field(568), tail, "the tail follows the parity area");
        let slot_area = bytes[156..160].try_into().expect("four bytes");
        let slots_end = PAGE + u32::from_le_bytes(slot_area) as usize;
        Self {
            superblock: 0..PAGE,
            slots: PAGE..slots_end,
            frames: frames(bytes, slots_end..frames_end),
            index: frames_end..tree,
            leaf_pages: field(272),
            tree: tree..meta,
            meta: meta..meta_end,
            sections: frames(bytes, meta..meta_end),
            meta_padding: meta_end..list,
            list: list..list_end,
            list_padding: list_end..parity,
            parity: parity..tail,
            first_trailer: tail..tail + PAGE,
            gap: tail + PAGE..tail + PAGE + gap,
            superblock_copy: last - PAGE..last,
            last_trailer: last..bytes.len(),
        }
    }

    pub(crate) fn frame(&self, kind: u8) -> &Frame {
        self.frames.iter().find(|f| f.kind == kind).expect("the image has such a frame")
    }
}

fn frames(bytes: &[u8], area: Range<usize>) -> Vec<Frame> {
    let mut found = Vec::new();
    let mut at = area.start;
    while at < area.end {
        let stored = bytes[at + 44..at + 48].try_into().expect("four bytes");
        let payload = at + 64..at + 64 + u32::from_le_bytes(stored) as usize;
        let end = payload.end.next_multiple_of(64);
        let padding = payload.end..end;
        found.push(Frame { kind: bytes[at + 4], header: at..at + 64, payload, padding });
        at = end;
    }
    assert_eq!(at, area.end, "frames fill their area");
    found
}
