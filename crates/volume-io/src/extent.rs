use std::fmt;

/// A half-open range of bytes: `start .. start + len`.
///
/// `start + len` never exceeds [`u64::MAX`]; [`Extent::new`] clips the length to keep that.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Extent {
    /// First byte.
    pub start: u64,
    /// Number of bytes; zero means empty.
    pub len: u64,
}

impl Extent {
    /// The range of `len` bytes from `start`, clipped at [`u64::MAX`].
    #[must_use]
    pub const fn new(start: u64, len: u64) -> Self {
        let room = u64::MAX - start;
        Self { start, len: if len < room { len } else { room } }
    }

    /// The range `start .. end`, empty when `end <= start`.
    #[must_use]
    pub const fn between(start: u64, end: u64) -> Self {
        Self { start, len: end.saturating_sub(start) }
    }

    /// First byte after the range.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.start.saturating_add(self.len)
    }

    /// Whether the range holds no byte.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }

    /// Whether `inner` lies wholly inside this range.
    #[must_use]
    pub const fn contains(self, inner: Self) -> bool {
        self.start <= inner.start && inner.end() <= self.end()
    }

    /// The bytes both ranges share, `None` when they share none.
    #[must_use]
    pub fn intersect(self, other: Self) -> Option<Self> {
        let both = Self::between(self.start.max(other.start), self.end().min(other.end()));
        (!both.is_empty()).then_some(both)
    }
}

impl fmt::Debug for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end())
    }
}

/// A set of bytes as sorted, disjoint, non-adjacent extents.
///
/// Memory is 16 bytes per run. Built front to back ([`ExtentSet::push`]) or in any order
/// (collect from an iterator).
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ExtentSet {
    runs: Vec<Extent>,
}

impl ExtentSet {
    /// The empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self { runs: Vec::new() }
    }

    /// Appends a run that begins at or after the start of the last one; touching or
    /// overlapping runs are joined.
    ///
    /// # Panics
    /// When `run` starts before the last run: that is a mistake in the calling code, bytes
    /// from a disk must be ordered (or collected) first.
    pub fn push(&mut self, run: Extent) {
        if run.is_empty() {
            return;
        }
        match self.runs.last_mut() {
            Some(last) if run.start <= last.end() => {
                assert!(run.start >= last.start, "runs must be pushed in ascending order");
                *last = Extent::between(last.start, last.end().max(run.end()));
            }
            _ => self.runs.push(run),
        }
    }

    /// The runs in ascending order.
    #[must_use]
    pub fn runs(&self) -> &[Extent] {
        &self.runs
    }

    /// Sum of the lengths in bytes.
    #[must_use]
    pub fn total_len(&self) -> u64 {
        self.runs.iter().map(|r| r.len).sum()
    }

    /// Whether the set holds no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The parts of the set that lie inside `window`, ascending. Costs one binary search.
    pub fn within(&self, window: Extent) -> impl Iterator<Item = Extent> + '_ {
        let first = self.runs.partition_point(|r| r.end() <= window.start);
        self.runs[first..]
            .iter()
            .take_while(move |r| r.start < window.end())
            .filter_map(move |r| r.intersect(window))
    }

    /// The parts of `window` that are not in the set, ascending.
    #[must_use]
    pub fn gaps_within(&self, window: Extent) -> Vec<Extent> {
        let mut gaps = Vec::new();
        let mut at = window.start;
        for run in self.within(window) {
            if at < run.start {
                gaps.push(Extent::between(at, run.start));
            }
            at = run.end();
        }
        if at < window.end() {
            gaps.push(Extent::between(at, window.end()));
        }
        gaps
    }

    /// The same set moved up by `offset` bytes.
    #[must_use]
    pub fn shifted(&self, offset: u64) -> Self {
        let moved = |r: &Extent| Extent::new(r.start.saturating_add(offset), r.len);
        Self { runs: self.runs.iter().map(moved).collect() }
    }
}

impl FromIterator<Extent> for ExtentSet {
    fn from_iter<I: IntoIterator<Item = Extent>>(iter: I) -> Self {
        let mut runs: Vec<Extent> = iter.into_iter().collect();
        runs.sort_unstable();
        let mut set = Self::new();
        runs.into_iter().for_each(|r| set.push(r));
        set
    }
}

impl fmt::Debug for ExtentSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.runs).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_set_and_its_gaps_partition_any_window(
            runs in prop::collection::vec((0u64..500, 0u64..40), 0..30),
            window in (0u64..400, 1u64..200),
        ) {
            let set: ExtentSet = runs.iter().map(|&(s, l)| Extent::new(s, l)).collect();
            let window = Extent::new(window.0, window.1);
            let inside: u64 = set.within(window).map(|r| r.len).sum();
            let outside: u64 = set.gaps_within(window).iter().map(|r| r.len).sum();
            prop_assert_eq!(inside + outside, window.len);
            for byte in window.start..window.end() {
                let member = runs.iter().any(|&(s, l)| (s..s + l).contains(&byte));
                let found = set.within(Extent::new(byte, 1)).next().is_some();
                prop_assert_eq!(member, found);
            }
        }
    }

    #[test]
    fn an_extent_never_reaches_past_the_largest_offset() {
        assert_eq!(Extent::new(u64::MAX - 1, 10).end(), u64::MAX);
        assert_eq!(Extent::between(9, 3), Extent::new(9, 0));
    }
}
