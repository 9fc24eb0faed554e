//! Prefix codes and the bits they are in, as XPRESS and LZX have them.
//!
//! Facts: Microsoft, [MS-XCA] 2.1 and [MS-PATCH] 2: codes are canonical, and bits come from words
//! of 16 bits, lowest byte first, the highest bit of a word first.

/// Bits a code may have.
const BITS_MAX: usize = 16;
/// Codes of so many bits are looked up at once.
const QUICK: usize = 10;

/// Bits of data, and bytes between its words. Behind the end bits are zeros.
pub(super) struct Bits<'a> {
    left: &'a [u8],
    /// The next ones, the first in the highest bit.
    buffer: u64,
    count: u32,
    /// How many of them lie behind the end.
    missing: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self { left: data, buffer: 0, count: 0, missing: 0 }
    }

    /// Loads words until there are `count` bits, 32 at most.
    pub(super) fn ensure(&mut self, count: u32) {
        while self.count < count {
            let word = match self.left {
                [low, high, rest @ ..] => {
                    self.left = rest;
                    u16::from_le_bytes([*low, *high])
                }
                _ => {
                    self.left = &[];
                    self.missing += 16;
                    0
                }
            };
            self.buffer |= u64::from(word) << (48 - self.count);
            self.count += 16;
        }
    }

    /// The next bits that were loaded, 16 at most.
    fn peek(&self, count: u32) -> usize {
        if count == 0 { 0 } else { usize::try_from(self.buffer >> (64 - count)).unwrap_or(0) }
    }

    fn skip(&mut self, count: u32) {
        self.buffer <<= count;
        self.count = self.count.saturating_sub(count);
    }

    /// The next `count` bits, 16 at most.
    pub(super) fn take(&mut self, count: u32) -> usize {
        self.ensure(count);
        let bits = self.peek(count);
        self.skip(count);
        bits
    }

    /// What is left of the words that were loaded is dropped; at least one bit is.
    pub(super) fn align(&mut self) {
        self.ensure(1);
        (self.buffer, self.count, self.missing) = (0, 0, 0);
    }

    /// `None` when bits behind the end were taken.
    pub(super) const fn check(&self) -> Option<()> {
        if self.count < self.missing { None } else { Some(()) }
    }

    /// Bytes behind the words that were loaded.
    pub(super) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.left.split_at_checked(count)?;
        self.left = rest;
        Some(bytes)
    }
}

/// A prefix code.
pub(super) struct Code {
    /// By the first bits: the symbol, and in the low four bits how many are its own.
    quick: Vec<u16>,
    /// By length: the first code, where its symbol is, and how many there are.
    first: [usize; BITS_MAX + 1],
    place: [usize; BITS_MAX + 1],
    count: [usize; BITS_MAX + 1],
    symbols: Vec<u16>,
}

impl Code {
    /// The code whose symbols have so many bits; those of 0 are not used. `None` when there are
    /// more codes than that can be told apart.
    pub(super) fn new(lengths: &[u8]) -> Option<Self> {
        let mut code = Self {
            quick: vec![0; 1 << QUICK],
            first: [0; BITS_MAX + 1],
            place: [0; BITS_MAX + 1],
            count: [0; BITS_MAX + 1],
            symbols: Vec::with_capacity(lengths.len()),
        };
        for &length in lengths.iter().filter(|&&length| length != 0) {
            *code.count.get_mut(usize::from(length))? += 1;
        }
        let (mut next, mut place) = (0, 0);
        for length in 1..=BITS_MAX {
            next = (next + code.count[length - 1]) << 1;
            code.first[length] = next;
            code.place[length] = place;
            place += code.count[length];
            if next + code.count[length] > 1 << length {
                return None;
            }
        }
        for length in 1..=BITS_MAX {
            let of_length = (0_u16..).zip(lengths).filter(|(_, is)| usize::from(**is) == length);
            for (n, (symbol, _)) in of_length.enumerate() {
                code.symbols.push(symbol);
                if length <= QUICK {
                    let start = (code.first[length] + n) << (QUICK - length);
                    let entry = symbol << 4 | u16::try_from(length).unwrap_or(0);
                    code.quick[start..start + (1 << (QUICK - length))].fill(entry);
                }
            }
        }
        Some(code)
    }

    /// The next symbol; `None` when no code begins so.
    pub(super) fn next(&self, bits: &mut Bits<'_>) -> Option<usize> {
        bits.ensure(16);
        let entry = self.quick[bits.peek(10)];
        if entry != 0 {
            bits.skip(u32::from(entry & 15));
            return Some(usize::from(entry >> 4));
        }
        for length in QUICK + 1..=BITS_MAX {
            let width = u32::try_from(length).unwrap_or(16);
            let at = bits.peek(width).checked_sub(self.first[length]);
            if let Some(at) = at.filter(|&at| at < self.count[length]) {
                bits.skip(width);
                return self.symbols.get(self.place[length] + at).map(|&symbol| symbol.into());
            }
        }
        None
    }
}

/// Copies `len` bytes from `distance` back to `done`, those it makes among them; `None` when it
/// leaves `out`.
pub(super) fn copy_back(out: &mut [u8], done: usize, distance: usize, len: usize) -> Option<()> {
    let from = done.checked_sub(distance).filter(|_| distance != 0)?;
    if len > out.len() - done {
        return None;
    }
    // What is there repeats; each step doubles it.
    let mut copied = 0;
    while copied < len {
        let now = (distance + copied).min(len - copied);
        out.copy_within(from..from + now, done + copied);
        copied += now;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_canonical_whether_short_or_long() {
        // 0, 10, 110, and one of each further length up to 16 bits, twice there.
        let lengths: Vec<u8> = (1..=16).chain([16]).collect();
        let code = Code::new(&lengths).unwrap();
        for (symbol, &length) in lengths.iter().enumerate() {
            let ones = 0xffff_u32 << (16 - symbol);
            let data = [ones.to_le_bytes()[0], ones.to_le_bytes()[1]];
            let mut bits = Bits::new(&data);
            assert_eq!(code.next(&mut bits), Some(symbol), "{length}");
            assert_eq!(bits.count, 16 - u32::from(length));
        }
    }

    #[test]
    fn too_many_codes_are_none_and_too_few_are_found_out() {
        assert!(Code::new(&[1, 1, 1]).is_none());
        assert!(Code::new(&[17]).is_none());
        assert_eq!(Code::new(&[2, 2, 2]).unwrap().next(&mut Bits::new(&[0, 0xff])), None);
        assert_eq!(Code::new(&[]).unwrap().next(&mut Bits::new(&[0, 0])), None);
    }

    #[test]
    fn copies_repeat_what_they_made() {
        for distance in 1..9 {
            for len in 0..40 {
                let mut out: Vec<u8> = (0..50).collect();
                let mut expected = out.clone();
                (0..len).for_each(|n| expected[9 + n] = expected[9 + n - distance]);
                assert_eq!(copy_back(&mut out, 9, distance, len), Some(()));
                assert_eq!(out, expected, "{distance} {len}");
            }
        }
        for (distance, len) in [(0, 1), (10, 1), (1, 42)] {
            assert_eq!(copy_back(&mut [0; 50], 9, distance, len), None);
        }
    }

    #[test]
    fn bytes_lie_behind_the_words_that_were_loaded() {
        let mut bits = Bits::new(&[0x34, 0x12, 0xcd, 0xab, 7, 8]);
        assert_eq!(bits.take(4), 1);
        assert_eq!(bits.take(16), 0x234a);
        assert_eq!(bits.bytes(1), Some(&[7][..]));
        assert_eq!(bits.take(12), 0xbcd);
        bits.align();
        assert_eq!(bits.bytes(1), None);
        assert_eq!(bits.check(), Some(()));
        assert_eq!((bits.take(16), bits.check()), (0, None));
    }
}
