//! Cuts a disk into spans of blocks that are free, left out, known zeros, or to be read.

use std::io;

use aiv_image_format::Geometry;
use aiv_volume_io::{Extent, ExtentSet, ReadAt};

/// What happens to consecutive blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SpanKind {
    /// No byte of them matters.
    Unused,
    /// No byte of them matters but what the user left out.
    Excluded,
    /// Some byte matters, and the source knows all that do to be zeros.
    Zero,
    /// They have to be read.
    Read,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub first: u64,
    pub count: u64,
    pub kind: SpanKind,
}

impl Span {
    /// The part of it from `first` on, if there is any.
    pub(crate) fn from(self, first: u64) -> Option<Self> {
        let end = self.first + self.count;
        let first = self.first.max(first);
        (first < end).then_some(Self { first, count: end - first, ..self })
    }
}

/// Bytes looked at together: bounds the memory for holes and fragments of one step.
const WINDOW: u64 = 16 << 30;

/// The spans of a whole disk in order. Time and memory follow the number of extents and holes,
/// not the size of the disk.
pub(crate) struct Spans<'a> {
    source: &'a dyn ReadAt,
    used: &'a ExtentSet,
    excluded: &'a ExtentSet,
    geometry: Geometry,
    /// Whether the source is asked for its holes.
    asks: bool,
    next_window: u64,
    ready: std::vec::IntoIter<Span>,
}

impl<'a> Spans<'a> {
    /// Spans of a disk of which `used` matters; `excluded` does not, and is none of it. Without
    /// `asks`, nothing is known to be zeros.
    pub(crate) fn new(
        source: &'a dyn ReadAt,
        used: &'a ExtentSet,
        excluded: &'a ExtentSet,
        geometry: Geometry,
        asks: bool,
    ) -> Self {
        let ready = Vec::new().into_iter();
        Self { source, used, excluded, geometry, asks, next_window: 0, ready }
    }

    pub(crate) fn next(&mut self) -> io::Result<Option<Span>> {
        loop {
            if let Some(span) = self.ready.next() {
                return Ok(Some(span));
            }
            if self.next_window >= self.geometry.len() {
                return Ok(None);
            }
            let end = self.next_window.saturating_add(WINDOW).min(self.geometry.len());
            let window = Extent::between(self.next_window, end);
            self.ready = self.cut(window)?.into_iter();
            self.next_window = end;
        }
    }

    fn cut(&self, window: Extent) -> io::Result<Vec<Span>> {
        let size = u64::from(self.geometry.block_size().get());
        let (first, end) = (window.start / size, window.end().div_ceil(size));
        let nothing_used = self.used.within(window).next().is_none();
        if nothing_used && self.excluded.within(window).next().is_none() {
            return Ok(vec![Span { first, count: end - first, kind: SpanKind::Unused }]);
        }
        let asks = self.asks && !nothing_used;
        let holes = if asks { self.source.holes(window)? } else { Vec::new() };
        let holes: ExtentSet = holes.into_iter().collect();
        let to_read = self.used.within(window).flat_map(|u| holes.gaps_within(u));
        let to_read = block_ranges(to_read, size);
        let matter = block_ranges(self.used.within(window), size);

        let mut spans = Vec::new();
        let left_out: ExtentSet = block_ranges(self.excluded.within(window), size)
            .into_iter()
            .map(|(from, to)| Extent::between(from, to))
            .collect();
        let mut push = |from: u64, to: u64, kind| {
            if from < to {
                spans.push(Span { first: from, count: to - from, kind });
            }
        };
        // Blocks without a byte that matters.
        let free = |from: u64, to: u64, push: &mut dyn FnMut(u64, u64, SpanKind)| {
            let mut at = from;
            for run in left_out.within(Extent::between(from, to)) {
                push(at, run.start, SpanKind::Unused);
                push(run.start, run.end(), SpanKind::Excluded);
                at = run.end();
            }
            push(at, to, SpanKind::Unused);
        };
        let mut at = first;
        let mut reads = to_read.into_iter().peekable();
        for (from, to) in matter {
            free(at, from, &mut push);
            at = from;
            // Every range to read lies inside one that matters.
            while let Some(&(read_from, read_to)) = reads.peek() {
                if read_from >= to {
                    break;
                }
                push(at, read_from, SpanKind::Zero);
                push(read_from, read_to, SpanKind::Read);
                at = read_to;
                reads.next();
            }
            push(at, to, SpanKind::Zero);
            at = to;
        }
        free(at, end, &mut push);
        Ok(spans)
    }
}

/// The blocks the extents touch, as ascending, disjoint, non-adjacent ranges.
fn block_ranges(extents: impl Iterator<Item = Extent>, size: u64) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for extent in extents.filter(|e| !e.is_empty()) {
        let (from, to) = (extent.start / size, extent.end().div_ceil(size));
        match ranges.last_mut() {
            Some(last) if last.1 >= from => last.1 = last.1.max(to),
            _ => ranges.push((from, to)),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use aiv_image_format::BlockSize;
    use proptest::prelude::*;

    struct Holey(Vec<Extent>, u64);

    impl ReadAt for Holey {
        fn len(&self) -> u64 {
            self.1
        }
        fn read_exact_at(&self, _: &mut [u8], _: u64) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }
        fn holes(&self, range: Extent) -> io::Result<Vec<Extent>> {
            Ok(self.0.iter().filter_map(|h| h.intersect(range)).collect())
        }
    }

    fn extents(max: u64) -> impl Strategy<Value = ExtentSet> {
        prop::collection::vec((0..max, 1..200_000u64), 0..12).prop_map(move |list| {
            list.into_iter().map(|(s, l)| Extent::between(s, (s + l).min(max))).collect()
        })
    }

    proptest! {
        #[test]
        fn every_block_is_in_one_span_of_the_right_kind(
            used in extents(2_000_000), left_out in extents(2_000_000),
            holes in extents(2_000_000), asks in any::<bool>(),
        ) {
            let size = BlockSize::new(16384).expect("a block size");
            let geometry = Geometry::new(2_000_000, size, 512).expect("small");
            let source = Holey(holes.runs().to_vec(), 2_000_000);
            let gaps = left_out.runs().iter().flat_map(|&run| used.gaps_within(run));
            let excluded: ExtentSet = gaps.collect();
            let mut spans = Spans::new(&source, &used, &excluded, geometry, asks);
            let mut next = 0;
            while let Some(span) = spans.next()? {
                prop_assert_eq!(span.first, next);
                next += span.count;
                for block in span.first..next {
                    let bytes = Extent::new(block * 16384, geometry.block_len(block).into());
                    let matters = used.within(bytes).next().is_some();
                    let unknown = used.within(bytes).any(|u| !asks || !holes.gaps_within(u).is_empty());
                    let left_out = excluded.within(bytes).next().is_some();
                    let kind = match (matters, unknown) {
                        (false, _) if left_out => SpanKind::Excluded,
                        (false, _) => SpanKind::Unused,
                        (true, false) => SpanKind::Zero,
                        (true, true) => SpanKind::Read,
                    };
                    prop_assert_eq!(span.kind, kind, "block {}", block);
                }
            }
            prop_assert_eq!(next, geometry.blocks());
        }
    }
}
