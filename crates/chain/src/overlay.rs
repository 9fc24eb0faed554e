//! Several ascending lists of spans, laid over each other: at each place the first list that
//! has a span there counts.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// What holds for the places `start .. end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span<T> {
    pub start: u64,
    pub end: u64,
    pub what: T,
}

/// A stretch of the result: a part of a span of list `layer`, or a place no list covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Laid<T> {
    Span {
        layer: usize,
        start: u64,
        end: u64,
        what: T,
    },
    /// No list covers this place; the result ends here.
    Nothing(u64),
}

/// The stretches of `[at, end)` in order. Each span of each list is looked at once, whatever
/// lies over it, so the time follows the number of spans and not that of lists times places.
/// Ends after the first error, or the first place nothing covers.
pub(crate) struct Overlay<I, T> {
    lists: Vec<I>,
    /// The next span of each list that is not active, if any, ordered by where it starts.
    waiting: BinaryHeap<Reverse<(u64, usize)>>,
    pending: Vec<Option<Span<T>>>,
    /// Spans that began, by list.
    active: BTreeMap<usize, Span<T>>,
    at: u64,
    end: u64,
    began: bool,
}

impl<I, T, E> Overlay<I, T>
where
    I: Iterator<Item = Result<Span<T>, E>>,
    T: Copy,
{
    /// `lists[0]` lies on top. Each must be ascending and free of overlap; spans before `at` are
    /// passed over.
    pub(crate) fn new(lists: Vec<I>, at: u64, end: u64) -> Self {
        let pending = lists.iter().map(|_| None).collect();
        Self {
            lists,
            waiting: BinaryHeap::new(),
            pending,
            active: BTreeMap::new(),
            at,
            end,
            began: false,
        }
    }

    /// Takes the next span of a list that is not over yet.
    fn fetch(&mut self, list: usize) -> Result<(), E> {
        loop {
            let Some(span) = self.lists[list].next().transpose()? else { return Ok(()) };
            if span.end > self.at {
                self.pending[list] = Some(span);
                self.waiting.push(Reverse((span.start, list)));
                return Ok(());
            }
        }
    }

    /// Moves the waiting span that starts first into the active ones, when it starts before
    /// `limit`; returns its list and start.
    fn activate(&mut self, limit: u64) -> Option<(usize, u64)> {
        let &Reverse((start, list)) = self.waiting.peek()?;
        if start >= limit {
            return None;
        }
        self.waiting.pop();
        let span = self.pending[list].take()?;
        self.active.insert(list, span);
        Some((list, start))
    }

    fn advance(&mut self) -> Result<Option<Laid<T>>, E> {
        if !self.began {
            self.began = true;
            for list in 0..self.lists.len() {
                self.fetch(list)?;
            }
        }
        if self.at >= self.end {
            return Ok(None);
        }
        let (layer, span) = loop {
            while self.activate(self.at.saturating_add(1)).is_some() {}
            match self.active.first_key_value() {
                Some((&list, span)) if span.end <= self.at => {
                    self.active.remove(&list);
                    self.fetch(list)?;
                }
                Some((&list, span)) => break (list, *span),
                None => {
                    let place = self.at;
                    self.at = self.end;
                    return Ok(Some(Laid::Nothing(place)));
                }
            }
        };
        let mut limit = span.end.min(self.end);
        while let Some((list, start)) = self.activate(limit) {
            if list < layer {
                limit = start;
                break;
            }
        }
        let start = self.at;
        self.at = limit;
        Ok(Some(Laid::Span { layer, start, end: limit, what: span.what }))
    }
}

impl<I, T, E> Iterator for Overlay<I, T>
where
    I: Iterator<Item = Result<Span<T>, E>>,
    T: Copy,
{
    type Item = Result<Laid<T>, E>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.advance().transpose();
        if matches!(item, Some(Err(_))) {
            self.at = self.end;
        }
        item
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Lists = Vec<Vec<Span<u32>>>;

    fn lists() -> impl Strategy<Value = Lists> {
        let list = prop::collection::vec((0u64..12, 1u64..20, any::<u32>()), 0..12);
        prop::collection::vec(list, 1..6).prop_map(|lists| {
            let ascending = |list: Vec<(u64, u64, u32)>| {
                let mut at = 0;
                let mut spans = Vec::new();
                for (gap, len, what) in list {
                    spans.push(Span { start: at + gap, end: at + gap + len, what });
                    at += gap + len;
                }
                spans
            };
            lists.into_iter().map(ascending).collect()
        })
    }

    proptest! {
        #[test]
        fn at_each_place_the_topmost_span_counts(lists in lists(), at in 0u64..60, len in 0u64..80) {
            let end = at + len;
            let iters = lists.iter().map(|l| l.iter().copied().map(Ok::<_, ()>)).collect();
            let mut place = at;
            for laid in Overlay::new(iters, at, end) {
                let on_top = |place: u64| lists.iter().enumerate().find_map(|(layer, list)| {
                    list.iter().find(|s| s.start <= place && place < s.end).map(|s| (layer, s.what))
                });
                match laid.expect("no list fails") {
                    Laid::Nothing(hole) => {
                        prop_assert_eq!(hole, place);
                        prop_assert_eq!(on_top(hole), None);
                        place = end;
                    }
                    Laid::Span { layer, start, end: to, what } => {
                        prop_assert_eq!(start, place);
                        prop_assert!(to > start && to <= end);
                        for p in start..to {
                            prop_assert_eq!(on_top(p), Some((layer, what)), "place {}", p);
                        }
                        place = to;
                    }
                }
            }
            prop_assert_eq!(place, end);
        }
    }

    #[test]
    fn an_error_ends_it() {
        let list = [
            Ok(Span { start: 0, end: 2, what: 1 }),
            Err("broken"),
            Ok(Span { start: 2, end: 9, what: 2 }),
        ];
        let mut overlay = Overlay::new(vec![list.into_iter()], 0, 9);
        assert!(matches!(overlay.next(), Some(Ok(Laid::Span { end: 2, .. }))));
        assert_eq!(overlay.next(), Some(Err("broken")));
        assert_eq!(overlay.next(), None);
    }
}
