/// One bit for each cluster: bit `n % 8` of byte `n / 8`, set means used. On the volume a whole
/// number of eight bytes.
pub(super) struct Bitmap {
    bytes: Vec<u8>,
    len: u64,
}

impl Bitmap {
    /// Bytes of a bitmap of `len` clusters as NTFS stores it.
    pub(super) const fn stored_len(len: u64) -> u64 {
        len.div_ceil(64) * 8
    }

    /// All clear. The caller has bounded `len` by clusters that exist.
    pub(super) fn empty(len: u64) -> Self {
        let bytes = usize::try_from(Self::stored_len(len)).unwrap_or(usize::MAX);
        Self { bytes: vec![0; bytes], len }
    }

    /// To be filled with what is stored on the volume.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Whether every bit behind the last cluster is set.
    pub(super) fn is_padded(&self) -> bool {
        let stored = self.bytes.len() as u64 * 8;
        (self.len..stored).all(|bit| self.byte(bit / 8) & 1 << (bit % 8) != 0)
    }

    /// Sets `len` bits from `start` on and returns the first that was set before.
    pub(super) fn claim(&mut self, start: u64, len: u64) -> Option<u64> {
        let mut first = None;
        for (at, mask) in masks(start, len) {
            let byte = &mut self.bytes[at];
            if *byte & mask != 0 && first.is_none() {
                first = Some(at as u64 * 8 + u64::from((*byte & mask).trailing_zeros()));
            }
            *byte |= mask;
        }
        first
    }

    /// The first clear bit of `len` from `start` on.
    pub(super) fn first_clear(&self, start: u64, len: u64) -> Option<u64> {
        masks(start, len).find_map(|(at, mask)| {
            let clear = !self.bytes[at] & mask;
            (clear != 0).then(|| at as u64 * 8 + u64::from(clear.trailing_zeros()))
        })
    }

    /// Sets every bit that is set in `other`, and counts those that were not.
    pub(super) fn add(&mut self, other: &Self) -> u64 {
        let mut added = 0;
        for (mine, theirs) in self.bytes.iter_mut().zip(&other.bytes) {
            added += u64::from((*theirs & !*mine).count_ones());
            *mine |= *theirs;
        }
        added
    }

    /// Runs `start..end` of set bits, ascending, none touching the next.
    pub(super) fn runs(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut at = 0;
        std::iter::from_fn(move || {
            let start = self.next(at, true);
            let end = self.next(start, false);
            at = end;
            (start < end).then_some((start, end))
        })
    }

    /// The first bit from `from` on that is set (or clear), `len` when there is none.
    fn next(&self, from: u64, set: bool) -> u64 {
        let skip = if set { 0x00 } else { 0xff };
        let mut bit = from;
        while bit < self.len {
            let byte = self.byte(bit / 8);
            if bit.is_multiple_of(8) && byte == skip {
                bit += 8;
            } else if (byte & 1 << (bit % 8) != 0) == set {
                return bit;
            } else {
                bit += 1;
            }
        }
        self.len
    }

    fn byte(&self, at: u64) -> u8 {
        usize::try_from(at).ok().and_then(|at| self.bytes.get(at).copied()).unwrap_or(0)
    }
}

/// The bytes that hold `len` bits from `start` on, each with the bits meant. Bits beyond what
/// memory can hold do not exist.
fn masks(start: u64, len: u64) -> impl Iterator<Item = (usize, u8)> {
    let end = start.saturating_add(len);
    (start / 8..end.div_ceil(8)).filter_map(move |at| {
        let low = if at == start / 8 { 0xff << (start % 8) } else { 0xff };
        let high = if end - at * 8 < 8 { !(0xff << (end - at * 8)) } else { 0xff };
        let mask: u8 = low & high;
        usize::try_from(at).ok().filter(|_| mask != 0).map(|at| (at, mask))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn claimed_bits_are_the_runs_and_no_others(
            claims in prop::collection::vec((0u64..190, 0u64..40), 0..8),
            len in 190u64..260,
        ) {
            let mut bitmap = Bitmap::empty(len);
            let mut model = vec![false; 260];
            for &(start, n) in &claims {
                let n = n.min(len - start);
                let range = usize::try_from(start).unwrap()..usize::try_from(start + n).unwrap();
                let taken = model[range.clone()].iter().position(|&set| set);
                let clear = model[range.clone()].iter().position(|&set| !set);
                prop_assert_eq!(bitmap.first_clear(start, n), clear.map(|at| start + at as u64));
                prop_assert_eq!(bitmap.claim(start, n), taken.map(|at| start + at as u64));
                model[range].fill(true);
            }
            let mut found = vec![false; 260];
            let mut last = None;
            for (start, end) in bitmap.runs() {
                prop_assert!(last.is_none_or(|last| last < start));
                last = Some(end);
                found[usize::try_from(start).unwrap()..usize::try_from(end).unwrap()].fill(true);
            }
            prop_assert_eq!(&found, &model);
            let count = model.iter().filter(|&&set| set).count() as u64;
            prop_assert_eq!(Bitmap::empty(len).add(&bitmap), count);
        }
    }

    #[test]
    fn bits_behind_the_last_cluster_have_to_be_set() {
        let mut bitmap = Bitmap::empty(130);
        assert_eq!(Bitmap::stored_len(130), 24);
        assert!(!bitmap.is_padded());
        bitmap.bytes_mut()[16] = 0xfc;
        bitmap.bytes_mut()[17..].fill(0xff);
        assert!(bitmap.is_padded());
        assert_eq!(bitmap.runs().count(), 0);
    }
}
