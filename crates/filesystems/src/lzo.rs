//! LZO1X, as the kernel describes it (`lzo.rst`): literals, and copies of what is already there.

/// Fills the front of `out` from one block, and returns how much. `None` when the block is
/// damaged, or has more than there is room for.
pub(crate) fn decompress(input: &[u8], out: &mut [u8]) -> Option<usize> {
    let mut block = Block { input, at: 0, out, len: 0 };
    // Literals in front of the instruction: none, 1 to 3 as part of the last one, or more.
    let mut literals = 0;
    if let Some(&first) = input.first().filter(|&&first| first > 17) {
        block.at = 1;
        block.copy_literals(usize::from(first - 17))?;
        literals = usize::from(first - 17).min(4);
    }
    loop {
        let code = block.byte()?;
        let (distance, len, following) = match code {
            0..=15 if literals == 0 => {
                let count = block.long_len(code, 15)? + 3;
                block.copy_literals(count)?;
                literals = 4;
                continue;
            }
            0..=15 => {
                let near = (block.byte()? << 2) + (code >> 2) + 1;
                if literals < 4 { (near, 2, code & 3) } else { (near + 0x800, 3, code & 3) }
            }
            16..=31 => {
                let len = block.long_len(code & 7, 7)? + 2;
                let word = block.word()?;
                let distance = ((code & 8) << 11) + (word >> 2);
                if distance == 0 {
                    let is_end = len == 3 && block.at == input.len();
                    return is_end.then_some(block.len);
                }
                (distance + 0x4000, len, word & 3)
            }
            32..=63 => {
                let len = block.long_len(code & 31, 31)? + 2;
                let word = block.word()?;
                ((word >> 2) + 1, len, word & 3)
            }
            _ => {
                let distance = (block.byte()? << 3) + (code >> 2 & 7) + 1;
                (distance, (code >> 5) + 1, code & 3)
            }
        };
        block.copy_again(distance, len)?;
        block.copy_literals(following)?;
        literals = following;
    }
}

struct Block<'a> {
    input: &'a [u8],
    at: usize,
    out: &'a mut [u8],
    len: usize,
}

impl Block<'_> {
    fn byte(&mut self) -> Option<usize> {
        let byte = *self.input.get(self.at)?;
        self.at += 1;
        Some(byte.into())
    }

    fn word(&mut self) -> Option<usize> {
        Some(self.byte()? | self.byte()? << 8)
    }

    /// A length that goes on in the bytes that follow when its bits are all zero.
    fn long_len(&mut self, bits: usize, all: usize) -> Option<usize> {
        if bits != 0 {
            return Some(bits);
        }
        let mut len = all;
        loop {
            match self.byte()? {
                0 => len += 255,
                last => return Some(len + last),
            }
        }
    }

    fn copy_literals(&mut self, count: usize) -> Option<()> {
        let bytes = self.input.get(self.at..)?.get(..count)?;
        self.out.get_mut(self.len..)?.get_mut(..count)?.copy_from_slice(bytes);
        (self.at, self.len) = (self.at + count, self.len + count);
        Some(())
    }

    /// Copies bytes one after the other: a distance below the length repeats them.
    fn copy_again(&mut self, distance: usize, count: usize) -> Option<()> {
        let from = self.len.checked_sub(distance)?;
        if count > self.out.len() - self.len {
            return None;
        }
        for n in 0..count {
            self.out[self.len + n] = self.out[from + n];
        }
        self.len += count;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::decompress;

    const END: [u8; 3] = [0x11, 0, 0];

    fn expand(parts: &[&[u8]], room: usize) -> Option<Vec<u8>> {
        let mut out = vec![0; room];
        let len = decompress(&parts.concat(), &mut out)?;
        out.truncate(len);
        Some(out)
    }

    #[test]
    fn each_instruction_does_what_the_description_says() {
        // Three literals, then the last one again 2 + 5 times, and one literal.
        assert_eq!(
            expand(&[&[20], b"abc", &[0x25, 1, 0], b"d", &END], 99).unwrap(),
            b"abccccccccd"
        );
        // A run of 3 + 15 + 255 + 2 literals, a copy of 3 bytes from 0x801 bytes before: too far.
        let literals = vec![7; 275];
        assert_eq!(expand(&[&[0, 0, 2], &literals, &END], 275).unwrap(), literals);
        assert_eq!(expand(&[&[0, 0, 2], &literals, &[0, 0], &END], 999), None);
        // 2 bytes from 3 before, behind literals that belong to a copy.
        let near = [&[21][..], b"wxyz", &[0x41, 0], b"q", &[8, 0], &END];
        assert_eq!(expand(&near, 99).unwrap(), b"wxyzzzzqzz"[..].to_vec());
        // A length in further bytes: 2 + 31 + 255 + 1.
        let long = expand(&[&[18], b"k", &[0x20, 0, 1, 0, 0], &END], 999).unwrap();
        assert_eq!(long, vec![b'k'; 290]);
        // From 16 KiB before and more.
        let far = expand(&[&[0], &[0; 64], &[219], &noise(16_557), &[0x11, 4, 0], &END], 20_000);
        let bytes = noise(16_557);
        let bytes = far.map(|far| (far.len(), far[16_557..].to_vec() == bytes[172..175]));
        assert_eq!(bytes, Some((16_560, true)));
    }

    fn noise(len: usize) -> Vec<u8> {
        (0..len).map(|n| u8::try_from(n * n / 7 % 256).expect("a byte")).collect()
    }

    #[test]
    fn blocks_that_are_cut_off_too_long_or_go_on_are_damaged() {
        let block = [&[20][..], b"abc", &[0x25, 1, 0], b"d", &END].concat();
        for len in 0..block.len() {
            assert_eq!(expand(&[&block[..len]], 99), None, "{len}");
        }
        assert_eq!(expand(&[&block, &[0]], 99), None);
        for room in 0..11 {
            assert_eq!(expand(&[&block], room), None, "{room}");
        }
        // From in front of the first byte.
        assert_eq!(expand(&[&[20], b"abc", &[0x25, 12, 0], &END], 99), None);
        assert_eq!(expand(&[&[17], &END], 99), None);
    }
}
