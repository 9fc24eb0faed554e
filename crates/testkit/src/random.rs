/// A stream of numbers from a seed (SplitMix64, Steele, Lea and Flood 2014): small, fast, and
/// the same on every machine for ever, so that a seed in a bug report keeps its meaning.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The stream of a seed. Several words, in order, make one seed.
    #[must_use]
    pub fn new(seed: &[u64]) -> Self {
        let mut random = Self(0);
        for word in seed {
            random.0 = random.next() ^ word;
        }
        random
    }

    /// The next number.
    #[expect(clippy::should_implement_trait, reason = "a stream without an end")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    ///
    /// # Panics
    /// When `bound` is zero.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = bound as u64;
        // The bias of the remainder is 2^-40 for the small bounds of tests.
        usize::try_from(self.next() % bound).expect("below a usize")
    }

    /// Fills `out` with bytes of the stream.
    pub fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}
