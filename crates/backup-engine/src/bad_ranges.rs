//! The list of what could not be read, in bounded memory.

use aiv_volume_io::Extent;

/// Ranges listed. A dying disk may have a bad sector on every track; this many fit into one
/// section of the image with room to spare, and take 4 MiB of memory.
const RANGES_MAX: usize = 1 << 18;

/// Ascending, disjoint ranges that together cover everything pushed. Exact up to
/// [`RANGES_MAX`] ranges; beyond that they are rounded out to ever larger units until they fit.
#[derive(Debug, Clone)]
pub(crate) struct BadRanges {
    runs: Vec<Extent>,
    /// Bytes ranges are rounded out to.
    unit: u64,
    /// Nothing is rounded out beyond the end of the disk.
    len: u64,
    max: usize,
}

impl BadRanges {
    pub(crate) fn new(sector: u32, len: u64) -> Self {
        Self { runs: Vec::new(), unit: u64::from(sector), len, max: RANGES_MAX }
    }

    /// Adds a range that begins at or after the end of the last one pushed.
    pub(crate) fn push(&mut self, extent: Extent) {
        append(&mut self.runs, extent);
        while self.runs.len() > self.max {
            self.unit *= 2;
            let (unit, len) = (self.unit, self.len);
            let mut wider = Vec::with_capacity(self.runs.len() / 2);
            for run in self.runs.drain(..) {
                let end = run.end().div_ceil(unit).saturating_mul(unit).min(len);
                append(&mut wider, Extent::between(run.start / unit * unit, end));
            }
            self.runs = wider;
        }
    }

    pub(crate) fn into_runs(self) -> Vec<Extent> {
        self.runs
    }
}

fn append(runs: &mut Vec<Extent>, extent: Extent) {
    match runs.last_mut() {
        Some(last) if last.end() >= extent.start => {
            *last = Extent::between(last.start, last.end().max(extent.end()));
        }
        _ => runs.push(extent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aiv_volume_io::ExtentSet;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranges_are_exact_while_they_fit_and_cover_everything_when_they_do_not(
            sectors in prop::collection::btree_set(0u64..500, 0..200), max in 1usize..40,
        ) {
            let len = 500 * 512 - 100;
            let extent = |&sector: &u64| Extent::between(sector * 512, (sector * 512 + 512).min(len));
            let exact: ExtentSet = sectors.iter().map(extent).collect();
            let mut ranges = BadRanges { max, ..BadRanges::new(512, len) };
            sectors.iter().for_each(|s| ranges.push(extent(s)));
            let runs = ranges.into_runs();
            prop_assert!(runs.len() <= max);
            prop_assert!(runs.windows(2).all(|w| w[0].end() < w[1].start));
            prop_assert!(runs.iter().all(|r| !r.is_empty() && r.end() <= len));
            let covered = |e: &Extent| runs.iter().any(|r| r.contains(*e));
            prop_assert!(exact.runs().iter().all(covered));
            if exact.runs().len() <= max && sectors.len() <= max {
                prop_assert_eq!(&runs, exact.runs());
            }
        }
    }
}
