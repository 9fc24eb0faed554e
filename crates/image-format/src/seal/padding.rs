//! Sizes rounded up so that they tell less: Padmé, which leaves of a length of n bits only as
//! many as the length of n itself has, and costs at most 12 %.

use crate::layout::{INNER_HEAD_SIZE, TAG_SIZE};
use crate::limits::STORED_LEN_MAX;

/// The least length of this sort at or above `len`.
const fn padme(len: usize) -> usize {
    if len < 4 {
        return len;
    }
    let exponent = len.ilog2();
    let kept = exponent.ilog2() + 1;
    let mask = (1usize << (exponent - kept)) - 1;
    (len + mask) & !mask
}

/// Bytes a sealed payload takes that holds `content` bytes, and how many of them are padding.
/// A payload is never padded beyond the limit of frames.
pub(crate) fn padded(content: usize, pads: bool) -> (usize, usize) {
    let least = INNER_HEAD_SIZE + content + TAG_SIZE;
    let rounded = if pads { padme(least) } else { least };
    let stored = rounded.min((STORED_LEN_MAX as usize).max(least));
    (stored, stored - least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_costs_at_most_twelve_percent_and_leaves_few_lengths() {
        let mut lengths = std::collections::BTreeSet::new();
        for len in 48..200_000 {
            let padded = padme(len);
            assert!(padded >= len && (padded - len) * 100 <= 12 * len, "{len} -> {padded}");
            assert_eq!(padme(padded), padded);
            lengths.insert(padded);
        }
        assert!(lengths.len() < 250, "{} lengths", lengths.len());
        assert_eq!((padme(9), padme(65_600), padme(65_537)), (10, 67_584, 67_584));
    }

    #[test]
    fn padding_never_leads_beyond_the_limit_of_a_frame() {
        let max = STORED_LEN_MAX as usize;
        for content in [max - 48, max - 49, max - 1000] {
            assert_eq!(padded(content, true), (max, max - 48 - content));
        }
        assert_eq!(padded(100, false), (148, 0));
    }
}
