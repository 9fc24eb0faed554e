//! Where a delta restore wrote. The rest it read, from the medium, and found right: that is not
//! read a second time.

use std::sync::atomic::{AtomicU64, Ordering};

use aiv_volume_io::{Extent, ExtentSet};

/// Places at most, so that memory does not grow with the disk: 256 KiB of bits, and 16 MiB when
/// every second place was written to.
const PLACES_MAX: u64 = 1 << 21;

const BITS: u64 = u64::BITS as u64;

/// Which places of a range of bytes were written to, by any thread.
pub(crate) struct Touched {
    start: u64,
    /// Bytes of a place.
    place: u64,
    bits: Vec<AtomicU64>,
}

impl Touched {
    /// Nothing of `whole` was written to yet. Places are as large as blocks, which have
    /// `block_size` bytes, or larger.
    pub(crate) fn nothing(whole: Extent, block_size: u64) -> Self {
        let mut place = block_size.max(1);
        while whole.len / place > PLACES_MAX {
            place *= 2;
        }
        let start = whole.start / place * place;
        let places = (whole.end() - start).div_ceil(place);
        let bits = (0..places.div_ceil(BITS)).map(|_| AtomicU64::new(0)).collect();
        Self { start, place, bits }
    }

    /// Notes that bytes of `extent` are being written.
    pub(crate) fn note(&self, extent: Extent) {
        if extent.is_empty() {
            return;
        }
        let first = extent.start.saturating_sub(self.start) / self.place;
        let last = (extent.end() - 1).saturating_sub(self.start) / self.place;
        for place in first..=last {
            let word = usize::try_from(place / BITS).ok().and_then(|at| self.bits.get(at));
            if let Some(word) = word {
                word.fetch_or(1 << (place % BITS), Ordering::Relaxed);
            }
        }
    }

    /// What of `ranges` lies where something was written.
    pub(crate) fn within(&self, ranges: &[Extent]) -> Vec<Extent> {
        let mut written = ExtentSet::new();
        for (no, word) in (0..).zip(&self.bits) {
            let mut left = word.load(Ordering::Relaxed);
            while left != 0 {
                let place = no * BITS + u64::from(left.trailing_zeros());
                left &= left - 1;
                written.push(Extent::new(self.start + place * self.place, self.place));
            }
        }
        ranges.iter().flat_map(|range| written.within(*range)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: u64 = 65_536;

    #[test]
    fn what_was_written_to_and_no_more_is_read_back() {
        let touched = Touched::nothing(Extent::new(1_000_000, 100 * BLOCK), BLOCK);
        let whole =
            [Extent::new(1_000_000, 50 * BLOCK), Extent::new(1_000_000 + 60 * BLOCK, 40 * BLOCK)];
        assert_eq!(touched.within(&whole), []);
        touched.note(Extent::new(20 * BLOCK + 5, 1));
        touched.note(Extent::new(30 * BLOCK, 3 * BLOCK));
        touched.note(Extent::new(70 * BLOCK, 0));
        // Between the two ranges, and across the beginning of the second one.
        touched.note(Extent::new(1_000_000 + 55 * BLOCK, 6 * BLOCK));
        let across = Extent::between(whole[1].start, 77 * BLOCK);
        let expected = [Extent::new(20 * BLOCK, BLOCK), Extent::new(30 * BLOCK, 3 * BLOCK), across];
        assert_eq!(touched.within(&whole), expected);
        touched.note(Extent::new(1_000_000, 100 * BLOCK));
        assert_eq!(touched.within(&whole), whole);
    }

    #[test]
    fn memory_is_bounded_for_a_disk_of_any_size() {
        let len = 64 << 40;
        let touched = Touched::nothing(Extent::new(0, len), BLOCK);
        assert!(touched.bits.len() as u64 <= PLACES_MAX / BITS);
        touched.note(Extent::new(len - 1, 1));
        let [last] = touched.within(&[Extent::new(0, len)])[..] else { panic!("one place") };
        assert!(last.end() == len && last.len <= 32 << 20);
    }
}
