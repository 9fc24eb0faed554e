//! Pieces gathered into amounts of work that are worth a system call and fit into memory.

use aiv_chain::{Kind, View};
use aiv_image_format::Geometry;
use aiv_volume_io::{Extent, ExtentSet, ReadAt};

use crate::error::Result;
use crate::options::Unused;
use crate::pieces::{BlockPart, Piece, Pieces};

/// Bytes of blocks gathered for one write: beyond this, larger writes gain nothing on any
/// medium, and every thread holds two buffers of this size. A single block may be larger.
pub(crate) const WRITE_MAX: u64 = 1 << 20;

/// Bytes zeroed or discarded at once. A medium that cannot do it takes writes of zeros
/// instead, and even then the caller's stop button is looked at every second or so.
const RUN_MAX: u64 = 64 << 20;

/// Work for one thread.
#[derive(Debug)]
pub(crate) enum Batch {
    /// Neighbouring blocks whose bytes come from the image; never empty.
    Blocks(Vec<BlockPart>),
    /// Bytes of the source disk that are treated without reading the image.
    Run { extent: Extent, action: Action },
    /// Bytes of a changed partition table, counted like those of the source disk.
    Patch { extent: Extent },
    /// Bytes of a partition that was made smaller.
    Replaced { extent: Extent },
}

/// What is done to a range whose bytes are not in the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Zero,
    Discard,
    Leave,
}

impl Batch {
    /// Bytes of the source disk.
    pub(crate) fn extent(&self) -> Extent {
        match self {
            Self::Blocks(parts) => {
                let bytes = |part: Option<&BlockPart>| part.map_or(Extent::new(0, 0), |p| p.extent);
                Extent::between(bytes(parts.first()).start, bytes(parts.last()).end())
            }
            Self::Run { extent, .. } | Self::Patch { extent } | Self::Replaced { extent } => {
                *extent
            }
        }
    }
}

/// What becomes of a kind of block; `None` when its bytes are written from the image.
pub(crate) fn action(kind: Kind, unused: Unused) -> Option<Action> {
    match kind {
        Kind::Data | Kind::Ref | Kind::Delta | Kind::Local | Kind::Parent | Kind::Unreadable => {
            None
        }
        Kind::Zero => Some(Action::Zero),
        Kind::Unused | Kind::Excluded => Some(match unused {
            Unused::Leave => Action::Leave,
            Unused::Zero => Action::Zero,
            Unused::Discard => Action::Discard,
        }),
    }
}

/// Bytes of a copy whose holes are asked for at once: a bound for the memory that takes.
const COPY_WINDOW: u64 = 1 << 30;

/// The batches of a part of a smaller copy, whose first byte is byte `start` of the disk. Its
/// holes are zeros.
pub(crate) fn of_copy(
    copy: &dyn ReadAt,
    start: u64,
    range: Extent,
) -> impl Iterator<Item = Batch> + Send {
    let mut at = range.start;
    let windows = std::iter::from_fn(move || {
        let window = Extent::between(at, range.end().min(at.saturating_add(COPY_WINDOW)));
        at = window.end();
        (!window.is_empty()).then_some(window)
    });
    windows.flat_map(move |window| of_window(copy, start, window))
}

fn of_window(copy: &dyn ReadAt, start: u64, window: Extent) -> Vec<Batch> {
    let in_copy = Extent::new(window.start - start, window.len);
    // A copy that cannot tell its holes is read.
    let holes: ExtentSet = copy.holes(in_copy).unwrap_or_default().into_iter().collect();
    let mut batches = Vec::new();
    let mut add = |run: Extent, max: u64, of: fn(Extent) -> Batch| {
        let mut at = run.start;
        while at < run.end() {
            let extent = Extent::between(at, run.end().min(at + max));
            batches.push(of(Extent::new(start + extent.start, extent.len)));
            at = extent.end();
        }
    };
    for hole in holes.within(in_copy) {
        add(hole, RUN_MAX, |extent| Batch::Run { extent, action: Action::Zero });
    }
    for data in holes.gaps_within(in_copy) {
        add(data, WRITE_MAX, |extent| Batch::Replaced { extent });
    }
    batches.sort_by_key(|batch| batch.extent().start);
    batches
}

/// The batches of a range, ascending; together exactly the range. Ends after the first error.
pub(crate) struct Batches<'v> {
    pieces: Pieces<'v>,
    geometry: Geometry,
    unused: Unused,
    /// Taken from `pieces` and not used yet.
    held: Option<Result<Piece>>,
}

impl<'v> Batches<'v> {
    pub(crate) fn new(view: &'v View, range: Extent, unused: Unused) -> Self {
        let pieces = Pieces::new(view, range);
        Self { pieces, geometry: *view.geometry(), unused, held: None }
    }

    /// The next piece if `action` is what becomes of it; anything else stays.
    fn next_if(&mut self, wanted: Option<Action>) -> Option<Piece> {
        let item = self.held.take().or_else(|| self.pieces.next());
        match item {
            Some(Ok(piece)) if action(piece.stretch.kind(), self.unused) == wanted => Some(piece),
            other => {
                self.held = other;
                None
            }
        }
    }

    fn hold(&mut self, rest: Option<Piece>) {
        self.held = rest.map(Ok);
    }

    fn blocks(&mut self) -> Batch {
        let mut parts: Vec<BlockPart> = Vec::new();
        let mut bytes = 0;
        while let Some(piece) = self.next_if(None) {
            let (part, rest) = piece.split_first(&self.geometry);
            bytes += part.extent.len;
            if bytes > WRITE_MAX && !parts.is_empty() {
                self.hold(Some(piece));
                break;
            }
            parts.push(part);
            self.hold(rest);
        }
        Batch::Blocks(parts)
    }

    fn run(&mut self, action: Action, start: u64) -> Batch {
        let mut extent = Extent::new(start, 0);
        while extent.len < RUN_MAX
            && let Some(piece) = self.next_if(Some(action))
        {
            let end = piece.extent.end().min(start.saturating_add(RUN_MAX));
            let rest = Extent::between(end, piece.extent.end());
            self.hold((!rest.is_empty()).then_some(Piece { extent: rest, ..piece }));
            extent = Extent::between(start, end);
        }
        Batch::Run { extent, action }
    }
}

impl Iterator for Batches<'_> {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        let first = match self.held.take().or_else(|| self.pieces.next())? {
            Ok(piece) => piece,
            Err(error) => return Some(Err(error)),
        };
        self.hold(Some(first));
        Some(Ok(match action(first.stretch.kind(), self.unused) {
            None => self.blocks(),
            Some(action) => self.run(action, first.extent.start),
        }))
    }
}
