use std::fs::File;
use std::io;
use std::sync::Arc;

use crate::Extent;

/// Bytes at offsets: the one interface every source, image file and view has.
///
/// Positional, without a cursor, usable from many threads at once. The length is fixed when
/// the object is made; bytes that vanish later (a shrinking source) are an
/// [`io::ErrorKind::UnexpectedEof`] at read time.
#[expect(clippy::len_without_is_empty, reason = "an empty disk is not a case callers branch on")]
pub trait ReadAt: Send + Sync {
    /// Length in bytes.
    fn len(&self) -> u64;

    /// Fills `out` with the bytes from `offset`. Any length and alignment is allowed.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when the range reaches past the end, else whatever the
    /// medium reports. After an error the contents of `out` are unspecified.
    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()>;

    /// Parts of `range` that are known to read as zeros without being read: the holes of a
    /// sparse file. Ascending, disjoint, inside `range`. A hint: holes may be missing from the
    /// answer, and a source that knows of none (the default) answers with none.
    ///
    /// # Errors
    /// Whatever the medium reports.
    fn holes(&self, range: Extent) -> io::Result<Vec<Extent>> {
        let _ = range;
        Ok(Vec::new())
    }

    /// The local file behind these bytes at the same offsets, for sharing storage: see
    /// [`AppendFile::append_from`](crate::AppendFile::append_from). A wrapper that changes, moves
    /// or fails the bytes of its source has none.
    fn file(&self) -> Option<&File> {
        None
    }
}

/// A target for a restore: bytes at offsets that can be written.
pub trait WriteAt: ReadAt {
    /// Writes all of `data` at `offset`.
    ///
    /// # Errors
    /// Whatever the medium reports; part of the data may have been written.
    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()>;

    /// Makes the range read as zeros, without allocating space where the medium can do that.
    ///
    /// # Errors
    /// Whatever the medium reports.
    fn zero_range(&self, range: Extent) -> io::Result<()>;

    /// Tells the medium that the contents of the range no longer matter. The bytes read back
    /// afterwards are unspecified; a medium without that ability does nothing.
    ///
    /// # Errors
    /// Whatever the medium reports.
    fn discard_range(&self, range: Extent) -> io::Result<()>;

    /// Makes all earlier writes durable. After an error nothing may be assumed about any
    /// earlier write, and the call must not be repeated in the hope of a better answer.
    ///
    /// # Errors
    /// Whatever the medium reports.
    fn sync(&self) -> io::Result<()>;

    /// Forgets what memory holds of the range, so that the next read shows what the medium
    /// holds. Means something after [`sync`](WriteAt::sync) only, and is advice: a target
    /// without a cache does nothing.
    fn drop_cache(&self, range: Extent) {
        let _ = range;
    }

    /// Whether writes to different places are done sooner when several threads make them at the
    /// same time. A filesystem lets one writer into a file at a time, and the others wait for him
    /// with a busy processor. Advice: any number of threads may write to any target.
    fn takes_writes_side_by_side(&self) -> bool {
        true
    }
}

macro_rules! forward_read_at {
    ($($pointer:ty),*) => {$(
        impl<T: ReadAt + ?Sized> ReadAt for $pointer {
            fn len(&self) -> u64 { (**self).len() }
            fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
                (**self).read_exact_at(out, offset)
            }
            fn holes(&self, range: Extent) -> io::Result<Vec<Extent>> { (**self).holes(range) }
            fn file(&self) -> Option<&File> { (**self).file() }
        }
    )*};
}
forward_read_at!(&T, Box<T>, Arc<T>);

/// A part of a larger source, with offsets of its own: a partition of a disk.
#[derive(Debug, Clone)]
pub struct Slice<R> {
    inner: R,
    extent: Extent,
}

impl<R: ReadAt> Slice<R> {
    /// The part of `inner` that `extent` names.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] when the extent reaches past the end of `inner`.
    pub fn new(inner: R, extent: Extent) -> io::Result<Self> {
        if extent.end() > inner.len() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("bytes {extent:?} reach past the end at {}", inner.len()),
            ));
        }
        Ok(Self { inner, extent })
    }
}

impl<R: ReadAt> ReadAt for Slice<R> {
    fn len(&self) -> u64 {
        self.extent.len
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        check_range(out.len(), offset, self.extent.len)?;
        self.inner.read_exact_at(out, self.extent.start + offset)
    }

    fn holes(&self, range: Extent) -> io::Result<Vec<Extent>> {
        let within = Extent::new(self.extent.start.saturating_add(range.start), range.len);
        let Some(asked) = within.intersect(self.extent) else { return Ok(Vec::new()) };
        let mut holes = self.inner.holes(asked)?;
        holes.iter_mut().for_each(|hole| hole.start -= self.extent.start);
        Ok(holes)
    }
}

/// Refuses a range of `count` bytes at `offset` that does not fit into `len` bytes.
pub(crate) fn check_range(count: usize, offset: u64, len: u64) -> io::Result<()> {
    match offset.checked_add(count as u64) {
        Some(end) if end <= len => Ok(()),
        _ => Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!("{count} bytes at offset {offset} reach past the end at {len}"),
        )),
    }
}
