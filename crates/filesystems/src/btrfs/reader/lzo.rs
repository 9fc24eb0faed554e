//! LZO1X, as the kernel describes it (`lzo.rst`): literals, and copies of what is already there.

/// Fills the front of `out` from one block, and returns how much. `None` when the block is
/// damaged, or has more than there is room for.
pub(super) fn decompress(input: &[u8], out: &mut [u8]) -> Option<usize> {
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
