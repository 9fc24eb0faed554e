//! Numbers, fixed bytes and texts one behind the other, and back within bounds.

/// Bytes being put together.
#[derive(Default)]
pub(super) struct Out(pub Vec<u8>);

impl Out {
    pub(super) fn fixed(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn byte(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.fixed(&value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.fixed(&value.to_le_bytes());
    }

    /// Texts come from META and file names, whose limits are far below 4 GiB.
    pub(super) fn text(&mut self, text: &str) {
        self.u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
        self.fixed(text.as_bytes());
    }
}

/// Bytes being taken apart; `None` is the answer to everything that does not fit.
pub(super) struct In<'b>(pub &'b [u8]);

impl<'b> In<'b> {
    fn slice(&mut self, len: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn fixed<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.slice(N)?.try_into().ok()
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        self.fixed::<1>().map(|[byte]| byte)
    }

    pub(super) fn flag(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.fixed().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.fixed().map(u64::from_le_bytes)
    }

    pub(super) fn text(&mut self) -> Option<String> {
        let len = usize::try_from(self.u32()?).ok()?;
        String::from_utf8(self.slice(len)?.to_vec()).ok()
    }

    /// A count of things that take at least `size` bytes each, which must be there: nothing is
    /// allocated for more.
    pub(super) fn count(&mut self, size: usize) -> Option<usize> {
        let count = usize::try_from(self.u32()?).ok()?;
        (count.checked_mul(size)? <= self.0.len()).then_some(count)
    }
}
