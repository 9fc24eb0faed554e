use std::fs::File;
use std::io;
use std::sync::Arc;

use crate::read_at::check_range;
use crate::{Extent, ReadAt};

/// The same bytes, with the last of them kept in memory.
///
/// For files whose structures all lie at their end: one read brings them in, and the many
/// small reads of whoever follows them cost nothing, which on a network share is the
/// difference between one round trip and a dozen.
pub struct Tail {
    inner: Arc<dyn ReadAt>,
    /// Where each part begins, and what it holds.
    parts: Vec<(u64, Vec<u8>)>,
}

impl Tail {
    /// Reads the last `count` bytes of `inner`, or all when there are fewer, in one read.
    /// Ranges that lie wholly among them are served from memory from then on, all others by
    /// `inner`.
    ///
    /// # Errors
    /// As [`ReadAt::read_exact_at`].
    pub fn read(inner: Arc<dyn ReadAt>, count: usize) -> io::Result<Self> {
        let len = inner.len();
        Self::read_around(inner, count, Extent::new(len, 0))
    }

    /// As [`Tail::read`], without the bytes of `left_out`, which nobody is expected to ask for: what
    /// lies on both sides of it takes a read each. Ranges that touch it are read from `inner`.
    ///
    /// # Errors
    /// As [`ReadAt::read_exact_at`].
    pub fn read_around(inner: Arc<dyn ReadAt>, count: usize, left_out: Extent) -> io::Result<Self> {
        let len = inner.len();
        let start = len.saturating_sub(count as u64);
        let before = start..left_out.start.clamp(start, len);
        let behind = left_out.end().clamp(before.end, len)..len;
        let mut parts = Vec::with_capacity(2);
        for part in [before, behind] {
            // At most `count`.
            let count = usize::try_from(part.end - part.start).map_err(io::Error::other)?;
            if count > 0 {
                let mut bytes = vec![0; count];
                inner.read_exact_at(&mut bytes, part.start)?;
                parts.push((part.start, bytes));
            }
        }
        Ok(Self { inner, parts })
    }

    /// The bytes in memory that `count` bytes at `offset` are, if they lie there wholly.
    fn kept(&self, count: usize, offset: u64) -> Option<&[u8]> {
        self.parts.iter().find_map(|(start, bytes)| {
            let from = usize::try_from(offset.checked_sub(*start)?).ok()?;
            bytes.get(from..from.checked_add(count)?)
        })
    }
}

impl std::fmt::Debug for Tail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let part = |(start, bytes): &(u64, Vec<u8>)| Extent::new(*start, bytes.len() as u64);
        let kept: Vec<Extent> = self.parts.iter().map(part).collect();
        f.debug_struct("Tail").field("kept", &kept).finish_non_exhaustive()
    }
}

impl ReadAt for Tail {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        if let Some(kept) = self.kept(out.len(), offset) {
            out.copy_from_slice(kept);
            return Ok(());
        }
        check_range(out.len(), offset, self.len())?;
        if out.is_empty() {
            return Ok(());
        }
        self.inner.read_exact_at(out, offset)
    }

    fn holes(&self, range: Extent) -> io::Result<Vec<Extent>> {
        self.inner.holes(range)
    }

    fn file(&self) -> Option<&File> {
        self.inner.file()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Bytes 0, 1, 2, … that remember what was read of them.
    struct Watched {
        len: u8,
        reads: Mutex<Vec<Extent>>,
        file: Option<File>,
    }

    impl Watched {
        fn new(len: u8) -> Arc<Self> {
            Arc::new(Self { len, reads: Mutex::default(), file: None })
        }

        fn reads(&self) -> Vec<Extent> {
            std::mem::take(&mut *self.reads.lock().unwrap())
        }
    }

    impl ReadAt for Watched {
        fn len(&self) -> u64 {
            self.len.into()
        }

        fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
            check_range(out.len(), offset, self.len())?;
            self.reads.lock().unwrap().push(Extent::new(offset, out.len() as u64));
            let first = u8::try_from(offset).unwrap();
            out.iter_mut().zip(first..).for_each(|(byte, value)| *byte = value);
            Ok(())
        }

        fn holes(&self, range: Extent) -> io::Result<Vec<Extent>> {
            Ok(vec![range])
        }

        fn file(&self) -> Option<&File> {
            self.file.as_ref()
        }
    }

    #[test]
    fn every_range_reads_the_same_and_only_ranges_that_begin_before_the_tail_are_read() {
        for (len, count) in [(20, 8), (20, 0), (20, 20), (20, 21), (20, usize::MAX), (0, 5)] {
            let inner = Watched::new(len);
            let tail = Tail::read(inner.clone(), count).unwrap();
            let start = u64::from(len).saturating_sub(count as u64);
            let first = Extent::between(start, len.into());
            assert_eq!(inner.reads(), if first.is_empty() { vec![] } else { vec![first] });
            assert_eq!(tail.len(), u64::from(len));
            for from in 0..=len {
                for to in from..=len {
                    let mut out = vec![0xFF; usize::from(to - from)];
                    tail.read_exact_at(&mut out, from.into()).unwrap();
                    assert_eq!(out, (from..to).collect::<Vec<_>>());
                    let asked = Extent::between(from.into(), to.into());
                    let is_kept = u64::from(from) >= start || from == to;
                    assert_eq!(inner.reads(), if is_kept { vec![] } else { vec![asked] });
                }
            }
        }
    }

    #[test]
    fn what_nobody_asks_for_is_left_out_and_read_when_somebody_does() {
        for (start, len) in [(14, 3), (10, 4), (14, 9), (0, 3), (3, 12), (0, 20), (25, 3), (20, 0)]
        {
            let inner = Watched::new(20);
            let left_out = Extent::new(start, len);
            let tail = Tail::read_around(inner.clone(), 10, left_out).unwrap();
            let is_left_out = |at: u64| at < 10 || (start..start + len).contains(&at);
            let read: u64 = inner.reads().iter().map(|read| read.len).sum();
            assert_eq!(read, (0..20).filter(|at| !is_left_out(*at)).count() as u64, "{left_out:?}");
            for from in 0..20 {
                for to in from + 1..=20 {
                    let mut out = vec![0xFF; usize::from(to - from)];
                    tail.read_exact_at(&mut out, from.into()).unwrap();
                    assert_eq!(out, (from..to).collect::<Vec<_>>());
                    let asked = Extent::between(from.into(), to.into());
                    let is_kept = !(from..to).any(|at| is_left_out(at.into()));
                    assert_eq!(inner.reads(), if is_kept { vec![] } else { vec![asked] });
                }
            }
        }
    }

    #[test]
    fn what_reaches_past_the_end_is_refused() {
        let tail = Tail::read(Watched::new(20), 8).unwrap();
        for (count, offset) in [(1, 20), (9, 12), (21, 0), (0, 21), (1, u64::MAX), (4, u64::MAX)] {
            let error = tail.read_exact_at(&mut vec![0; count], offset).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{count} at {offset}");
        }
    }

    #[test]
    fn a_source_that_cannot_be_read_gives_no_tail() {
        struct Broken;
        impl ReadAt for Broken {
            fn len(&self) -> u64 {
                10
            }
            fn read_exact_at(&self, _: &mut [u8], _: u64) -> io::Result<()> {
                Err(io::ErrorKind::TimedOut.into())
            }
        }
        let error = Tail::read(Arc::new(Broken), 5).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn holes_and_the_file_are_those_of_the_source_through_every_pointer() {
        let range = Extent::new(3, 4);
        let tail = Tail::read(Watched::new(20), 8).unwrap();
        assert_eq!(tail.holes(range).unwrap(), [range]);
        assert!(tail.file().is_none());
        let file = Some(tempfile::tempfile().unwrap());
        let inner = Arc::new(Watched { len: 20, reads: Mutex::default(), file });
        let tail: Arc<dyn ReadAt> = Arc::new(Tail::read(inner, 8).unwrap());
        assert!(Box::new(&tail).file().is_some());
    }
}
