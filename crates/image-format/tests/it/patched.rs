//! A file whose bytes differ from a base in a few places, without a copy of the base.

use std::io;
use std::sync::Arc;

use aiv_volume_io::ReadAt;

/// A view of `base` with patches, shorter or longer.
#[derive(Clone)]
pub(crate) struct Patched {
    base: Arc<Vec<u8>>,
    patches: Vec<(u64, Vec<u8>)>,
    len: u64,
}

impl Patched {
    pub(crate) fn new(base: &Arc<Vec<u8>>) -> Self {
        Self { base: base.clone(), patches: Vec::new(), len: base.len() as u64 }
    }

    /// With `bytes` at `offset`.
    pub(crate) fn with(mut self, offset: usize, bytes: &[u8]) -> Self {
        self.patches.push((offset as u64, bytes.to_vec()));
        self
    }

    /// With one bit inverted.
    pub(crate) fn flipped(self, byte: usize, bit: u32) -> Self {
        let old = self.base[byte];
        self.with(byte, &[old ^ (1 << bit)])
    }

    /// Ending after `len` bytes.
    pub(crate) fn cut(mut self, len: usize) -> Self {
        self.len = self.len.min(len as u64);
        self
    }
}

impl ReadAt for Patched {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(out.len() as u64).ok_or(io::ErrorKind::UnexpectedEof)?;
        if end > self.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let start = usize::try_from(offset).expect("inside a vector");
        out.copy_from_slice(&self.base[start..start + out.len()]);
        for (at, bytes) in &self.patches {
            let (from, to) = (offset.max(*at), end.min(at + bytes.len() as u64));
            if from < to {
                let place = |n: u64| usize::try_from(n).expect("inside a vector");
                out[place(from - offset)..place(to - offset)]
                    .copy_from_slice(&bytes[place(from - at)..place(to - at)]);
            }
        }
        Ok(())
    }
}
