//! From a first cluster to runs of clusters.

use std::collections::BTreeMap;

use crate::reader::EXTENTS_MAX;
use crate::{Error, Result};

/// Clusters with consecutive numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    /// Number of the first one.
    pub(crate) first: u32,
    /// How many, at least one.
    pub(crate) count: u32,
}

/// What a table says about a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The cluster after it.
    To(u32),
    /// It is the last one.
    End,
    /// Nothing that may be said of a cluster of a file.
    Broken,
}

/// The clusters of a file or folder, each once.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) runs: Vec<Run>,
    /// Why the chain is not followed further, where that is not its end.
    pub(crate) fault: Option<String>,
}

/// Follows a chain from a cluster of the volume on, for at most `max` clusters.
///
/// # Errors
/// Those of `next`, and [`Error::Damaged`] when it is in too many pieces.
pub(crate) fn follow(
    first: u32,
    max: u32,
    mut next: impl FnMut(u32) -> Result<Step>,
) -> Result<Chain> {
    let mut runs: Vec<Run> = Vec::new();
    let mut fault = None;
    let mut cluster = first;
    for left in (0..max).rev() {
        let last = runs.last_mut();
        if let Some(last) = last.filter(|last| last.first.checked_add(last.count) == Some(cluster))
        {
            last.count += 1;
        } else if runs.len() < EXTENTS_MAX {
            runs.push(Run { first: cluster, count: 1 });
        } else {
            return Err(Error::damaged("a cluster chain is in more pieces than any has", None));
        }
        if left == 0 {
            break;
        }
        cluster = match next(cluster)? {
            Step::To(next) => next,
            Step::End => break,
            Step::Broken => {
                fault = Some(format!("a cluster chain leads nowhere behind cluster {cluster}"));
                break;
            }
        };
    }
    if let Some(cluster) = cut_at_repetition(&mut runs) {
        fault = Some(format!("a cluster chain comes back to its cluster {cluster}"));
    }
    Ok(Chain { runs, fault })
}

/// Ends a chain where it comes back to itself, and tells where.
fn cut_at_repetition(runs: &mut Vec<Run>) -> Option<u32> {
    // Ends by starts.
    let mut seen: BTreeMap<u32, u32> = BTreeMap::new();
    for n in 0..runs.len() {
        let Run { first, count } = runs[n];
        let end = first.saturating_add(count);
        if seen.range(..=first).next_back().is_some_and(|(_, &end)| end > first) {
            runs.truncate(n);
            return Some(first);
        }
        if let Some((&start, _)) = seen.range(first..end).next() {
            runs[n].count = start - first;
            runs.truncate(n + 1);
            return Some(start);
        }
        seen.insert(first, end);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Follows `table`, in which 0 is the end and 99 nothing.
    fn check(table: &[u32], first: u32, max: u32) -> (Vec<(u32, u32)>, bool) {
        let chain = follow(first, max, |cluster| {
            Ok(match table[cluster as usize] {
                0 => Step::End,
                99 => Step::Broken,
                next => Step::To(next),
            })
        });
        let chain = chain.unwrap();
        (chain.runs.iter().map(|run| (run.first, run.count)).collect(), chain.fault.is_some())
    }

    #[test]
    fn neighbours_are_one_run_and_the_end_is_the_end() {
        let table = [0, 0, 3, 4, 8, 0, 5, 0, 9, 6];
        assert_eq!(check(&table, 2, 100), (vec![(2, 3), (8, 2), (6, 1), (5, 1)], false));
        assert_eq!(check(&table, 2, 4), (vec![(2, 3), (8, 1)], false));
        assert_eq!(check(&table, 7, 100), (vec![(7, 1)], false));
        assert_eq!(check(&table, 7, 0), (vec![], false));
    }

    #[test]
    fn a_chain_that_leads_nowhere_or_back_is_cut_before_a_cluster_repeats() {
        assert_eq!(check(&[0, 0, 3, 4, 99], 2, 100), (vec![(2, 3)], true));
        assert_eq!(check(&[0, 0, 2], 2, 100), (vec![(2, 1)], true));
        assert_eq!(check(&[0, 0, 3, 4, 5, 3], 2, 100), (vec![(2, 4)], true));
        // Back into the middle of a run, and from below into the start of one.
        assert_eq!(
            check(&[0, 0, 7, 4, 5, 2, 4, 8, 6], 3, 100),
            (vec![(3, 3), (2, 1), (7, 2), (6, 1)], true)
        );
        assert_eq!(check(&[0, 0, 3, 4, 5, 0, 7, 2], 6, 100), (vec![(6, 2), (2, 4)], false));
        assert_eq!(check(&[0, 0, 3, 4, 2], 4, 100), (vec![(4, 1), (2, 2)], true));
    }

    #[test]
    fn a_loop_of_many_turns_is_still_cut() {
        assert_eq!(check(&[0, 0, 4, 2, 3], 4, 1 << 16), (vec![(4, 1), (3, 1), (2, 1)], true));
        let endless = follow(2, u32::MAX, |_| Ok(Step::To(2)));
        assert!(matches!(endless, Err(Error::Damaged { .. })));
    }
}
