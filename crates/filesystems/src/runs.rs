use aiv_volume_io::{Extent, ExtentSet};

/// Runs a map may have before it is made coarser: 64 MiB of memory. A heavily fragmented
/// volume of several tebibytes stays below it.
pub(crate) const RUNS_MAX: usize = 1 << 22;

/// Collects the runs of a map front to back, within a bound of memory.
///
/// When there are too many runs, gaps below a growing length are filled: a map that covers
/// more than it must is still a right map.
pub(crate) struct RunCollector {
    set: ExtentSet,
    runs_max: usize,
    gap_min: u64,
}

impl RunCollector {
    pub(crate) fn new(runs_max: usize) -> Self {
        Self { set: ExtentSet::new(), runs_max, gap_min: 1 }
    }

    /// Adds a run that begins at or after the start of the last one.
    pub(crate) fn push(&mut self, run: Extent) {
        let joined = match self.set.runs().last() {
            Some(last) if run.start.saturating_sub(last.end()) < self.gap_min => {
                Extent::between(last.end(), run.end())
            }
            _ => run,
        };
        self.set.push(joined);
        while self.set.runs().len() > self.runs_max {
            self.gap_min = self.gap_min.saturating_mul(2);
            self.set = self.coarsened();
        }
    }

    pub(crate) fn finish(self) -> ExtentSet {
        self.set
    }

    fn coarsened(&self) -> ExtentSet {
        let mut coarse = ExtentSet::new();
        let mut pending: Option<Extent> = None;
        for &run in self.set.runs() {
            pending = Some(match pending {
                Some(last) if run.start - last.end() < self.gap_min => {
                    Extent::between(last.start, run.end())
                }
                Some(last) => {
                    coarse.push(last);
                    run
                }
                None => run,
            });
        }
        coarse.push(pending.unwrap_or(Extent::new(0, 0)));
        coarse
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_runs_are_kept_exactly() {
        let mut runs = RunCollector::new(8);
        for start in [0, 10, 20] {
            runs.push(Extent::new(start, 5));
        }
        let expected: ExtentSet = [0, 10, 20].map(|s| Extent::new(s, 5)).into_iter().collect();
        assert_eq!(runs.finish(), expected);
    }

    #[test]
    fn too_many_runs_become_fewer_that_cover_more() {
        let all: Vec<_> = (0..1000).map(|i| Extent::new(i * i * 2, 1)).collect();
        let mut runs = RunCollector::new(16);
        all.iter().for_each(|&run| runs.push(run));
        let set = runs.finish();
        assert!(set.runs().len() <= 16, "{}", set.runs().len());
        for run in all {
            assert_eq!(set.within(run).next(), Some(run));
        }
    }
}
