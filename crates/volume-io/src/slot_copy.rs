use std::io;

/// One copy of a key-slot area (`docs/format.md` section 15) and its place in a file: the only
/// thing that is ever written over in a finished image. No other bytes can be made one.
#[derive(Debug, Clone, Copy)]
pub struct SlotCopy<'a> {
    offset: u64,
    bytes: &'a [u8],
}

impl<'a> SlotCopy<'a> {
    /// Bytes of a copy.
    pub const SIZE: usize = 32 * 1024;
    /// What each begins with.
    pub const MAGIC: [u8; 8] = *b"AIVKEYS1";
    /// A copy lies on a multiple of this, behind the superblock of as many bytes.
    pub const ALIGNMENT: u64 = 4096;

    /// A copy at this byte of a file.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] when that is no place of one, or the bytes are none.
    pub fn new(offset: u64, bytes: &'a [u8]) -> io::Result<Self> {
        let is_place = offset > 0 && offset.is_multiple_of(Self::ALIGNMENT);
        if is_place && bytes.len() == Self::SIZE && bytes.starts_with(&Self::MAGIC) {
            Ok(Self { offset, bytes })
        } else {
            let message = format!("{} bytes at byte {offset} are no key slots", bytes.len());
            Err(io::Error::new(io::ErrorKind::InvalidInput, message))
        }
    }

    /// Where it goes, in bytes from the start of the file.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Its bytes, [`SlotCopy::SIZE`] of them.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Refuses a file of `len` bytes that would grow.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`].
    pub fn check_inside(&self, len: u64) -> io::Result<()> {
        match self.offset.checked_add(self.bytes.len() as u64) {
            Some(end) if end <= len => Ok(()),
            _ => {
                let message = format!("key slots at byte {} would make it grow", self.offset);
                Err(io::Error::new(io::ErrorKind::InvalidInput, message))
            }
        }
    }
}

/// A finished file whose key slots are changed.
pub trait SlotFile: Send + Sync {
    /// Writes one copy in its place. All of it is written, or there is an error and the place
    /// may hold anything.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] when the file would grow; else whatever the medium
    /// reports: the file must then be given up, with the other copy as it is.
    fn write(&mut self, copy: SlotCopy<'_>) -> io::Result<()>;

    /// Makes what was written durable. A failed sync must never be repeated.
    ///
    /// # Errors
    /// Whatever the medium reports; the file must then be given up.
    fn sync(&mut self) -> io::Result<()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_key_slots_can_be_written_over() {
        let mut bytes = vec![0; SlotCopy::SIZE];
        assert!(SlotCopy::new(4096, &bytes).is_err());
        bytes[..8].copy_from_slice(&SlotCopy::MAGIC);
        let copy = SlotCopy::new(4096, &bytes).unwrap();
        assert!(SlotCopy::new(0, &bytes).is_err(), "the superblock is there");
        assert!(SlotCopy::new(4097, &bytes).is_err());
        assert!(SlotCopy::new(4096, &bytes[1..]).is_err());
        copy.check_inside(4096 + 32 * 1024).unwrap();
        assert!(copy.check_inside(4095 + 32 * 1024).is_err());
        let end = u64::MAX - 4095;
        assert!(SlotCopy::new(end, &bytes).unwrap().check_inside(u64::MAX).is_err());
    }
}
