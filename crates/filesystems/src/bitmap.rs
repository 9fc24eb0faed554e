use std::ops::Range;

/// Which clusters are used: bit `n` of byte `n / 8`, lowest first; set means used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bitmap {
    bytes: Vec<u8>,
    /// Bits that stand for clusters of the filesystem.
    len: u32,
}

impl Bitmap {
    /// All clear: `len` clusters.
    pub(crate) fn empty(len: u32) -> Self {
        Self { bytes: vec![0; (len as usize).div_ceil(8)], len }
    }

    /// The first `len` bits of `bytes`, which has at least as many.
    pub(crate) fn new(bytes: &[u8], len: u32) -> Self {
        Self::of_bytes(bytes[..(len as usize).div_ceil(8)].to_vec(), len)
    }

    /// The first `len` bits of `bytes`, which has no byte more than that takes.
    pub(crate) fn of_bytes(bytes: Vec<u8>, len: u32) -> Self {
        let mut bitmap = Self { bytes, len };
        if !len.is_multiple_of(8)
            && let Some(last) = bitmap.bytes.last_mut()
        {
            *last &= (1 << (len % 8)) - 1;
        }
        bitmap
    }

    pub(crate) fn count_clear(&self) -> u32 {
        self.len - self.bytes.iter().map(|byte| byte.count_ones()).sum::<u32>()
    }

    /// Whether there is such a bit.
    pub(crate) fn has(&self, bit: u32) -> bool {
        bit < self.len
    }

    pub(crate) fn is_set(&self, bit: u32) -> bool {
        self.bytes[(bit / 8) as usize] & 1 << (bit % 8) != 0
    }

    /// Sets the bits of `range`, which lies inside the bitmap.
    pub(crate) fn set(&mut self, range: Range<u32>) {
        let mut bit = range.start;
        while bit < range.end {
            if bit.is_multiple_of(8) && range.end - bit >= 8 {
                self.bytes[(bit / 8) as usize] = 0xff;
                bit += 8;
            } else {
                self.bytes[(bit / 8) as usize] |= 1 << (bit % 8);
                bit += 1;
            }
        }
    }

    /// Sets every bit that is set in `other`, which has the same length.
    pub(crate) fn union(&mut self, other: &Self) {
        self.bytes.iter_mut().zip(&other.bytes).for_each(|(a, b)| *a |= b);
    }

    /// The first bit that is set here and clear in `other`, which has the same length.
    pub(crate) fn first_not_in(&self, other: &Self) -> Option<u32> {
        let mut bytes = self.bytes.iter().zip(&other.bytes).map(|(a, b)| a & !b);
        let at = bytes.position(|byte| byte != 0)?;
        let bit = (self.bytes[at] & !other.bytes[at]).trailing_zeros();
        Some(u32::try_from(at).ok()?.saturating_mul(8).saturating_add(bit))
    }

    /// Runs of set bits, ascending, none touching the next.
    pub(crate) fn runs(&self) -> impl Iterator<Item = Range<u32>> + '_ {
        let mut at = 0;
        std::iter::from_fn(move || {
            let start = self.next(at, true);
            let end = self.next(start, false);
            at = end;
            (start < end).then_some(start..end)
        })
    }

    /// The first bit from `from` on that is set (or clear), `len` when there is none.
    fn next(&self, from: u32, set: bool) -> u32 {
        let skip = if set { 0x00 } else { 0xff };
        let mut bit = from;
        while bit < self.len {
            if bit.is_multiple_of(8) && self.bytes[(bit / 8) as usize] == skip {
                bit += 8;
            } else if self.is_set(bit) == set {
                return bit;
            } else {
                bit += 1;
            }
        }
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn runs_name_exactly_the_set_bits(
            bytes in prop::collection::vec(prop_oneof![Just(0), Just(0xff), any::<u8>()], 1..40),
            short in 0u32..8,
        ) {
            let len = u32::try_from(bytes.len()).unwrap() * 8 - short;
            let bitmap = Bitmap::new(&bytes, len);
            let mut again = Bitmap::empty(len);
            let mut last_end = None;
            for run in bitmap.runs() {
                prop_assert!(last_end.is_none_or(|end| end < run.start));
                last_end = Some(run.end);
                again.set(run);
            }
            prop_assert_eq!(&again, &bitmap);
            let set = (0..len).filter(|&bit| bytes[bit as usize / 8] >> (bit % 8) & 1 == 1);
            prop_assert_eq!(set.count(), (len - bitmap.count_clear()) as usize);
        }
    }
}
