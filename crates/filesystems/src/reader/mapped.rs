//! The bytes of a file that lies on the volume as they are.

use std::io;

use aiv_volume_io::{Extent, ReadAt};

use super::{EXTENTS_MAX, FileData, VolumeOf};
use crate::{Error, Result};

/// Consecutive bytes of a file that lie side by side on the volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    /// First byte in the file.
    pub(crate) logical: u64,
    /// First byte on the volume.
    pub(crate) physical: u64,
    /// Bytes, at least one.
    pub(crate) len: u64,
}

/// A file in pieces. Everything between them, and from `valid` on, reads as zeros.
pub(crate) struct Mapped<'a> {
    volume: &'a VolumeOf<'a>,
    /// Ascending and disjoint by `logical`; inside the volume.
    pieces: Vec<Piece>,
    len: u64,
    valid: u64,
}

/// Puts pieces together, in the order of the file.
pub(crate) struct Pieces<'a> {
    volume: &'a VolumeOf<'a>,
    pieces: Vec<Piece>,
}

impl<'a> Pieces<'a> {
    pub(crate) fn new(volume: &'a VolumeOf<'a>) -> Self {
        Self { volume, pieces: Vec::new() }
    }

    /// Adds the piece that follows; pieces that touch become one.
    ///
    /// # Errors
    /// [`Error::Damaged`] when it does not lie behind the ones before it or inside the volume, or
    /// there are too many.
    pub(crate) fn push(&mut self, piece: Piece) -> Result<()> {
        let damaged = |what: &str| Err(Error::damaged(what, Some(piece.physical)));
        let is_inside =
            piece.physical.checked_add(piece.len).is_some_and(|end| end <= self.volume.len());
        if piece.len == 0 || !is_inside || piece.logical.checked_add(piece.len).is_none() {
            return damaged("a piece of a file lies outside the volume");
        }
        if let Some(last) = self.pieces.last_mut() {
            if piece.logical < last.logical + last.len {
                return damaged("the pieces of a file are out of order");
            }
            let touches = last.logical + last.len == piece.logical
                && last.physical + last.len == piece.physical;
            if touches {
                last.len += piece.len;
                return Ok(());
            }
        }
        if self.pieces.len() == EXTENTS_MAX {
            return damaged("a file is in more pieces than can be read");
        }
        self.pieces.push(piece);
        Ok(())
    }

    /// The file of `len` bytes; from `valid` on it was never written.
    pub(crate) fn finish(self, len: u64, valid: u64) -> Mapped<'a> {
        Mapped { volume: self.volume, pieces: self.pieces, len, valid: valid.min(len) }
    }
}

impl Mapped<'_> {
    /// The pieces that have bytes of `range`, cut to it.
    fn within(&self, range: Extent) -> impl Iterator<Item = Piece> + '_ {
        let end = range.end().min(self.valid);
        let first = self.pieces.partition_point(|piece| piece.logical + piece.len <= range.start);
        let rest = self.pieces.get(first..).unwrap_or_default().iter();
        rest.take_while(move |piece| piece.logical.max(range.start) < end).map(move |piece| {
            let start = piece.logical.max(range.start);
            let len = (piece.logical + piece.len).min(end) - start;
            Piece { logical: start, physical: piece.physical + (start - piece.logical), len }
        })
    }
}

impl ReadAt for Mapped<'_> {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(out.len() as u64).filter(|&end| end <= self.len);
        if end.is_none() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let range = Extent::new(offset, out.len() as u64);
        let mut done = 0;
        for piece in self.within(range) {
            let at = usize::try_from(piece.logical - offset).map_err(io::Error::other)?;
            let len = usize::try_from(piece.len).map_err(io::Error::other)?;
            out[done..at].fill(0);
            self.volume.data().read_exact_at(&mut out[at..at + len], piece.physical)?;
            done = at + len;
        }
        out[done..].fill(0);
        Ok(())
    }

    fn holes(&self, range: Extent) -> io::Result<Vec<Extent>> {
        let end = range.end().min(self.len);
        let mut holes = Vec::new();
        let mut at = range.start;
        for piece in self.within(range) {
            if at < piece.logical {
                holes.push(Extent::between(at, piece.logical));
            }
            at = piece.logical + piece.len;
        }
        if at < end {
            holes.push(Extent::between(at, end));
        }
        Ok(holes)
    }
}

impl FileData for Mapped<'_> {
    fn extents(&self) -> Result<Vec<Extent>> {
        let all = self.within(Extent::new(0, self.len));
        Ok(all.map(|piece| Extent::new(piece.physical, piece.len)).collect())
    }
}

/// Bytes of a file that lie within its record.
pub(crate) struct Inline(pub(crate) Vec<u8>);

impl ReadAt for Inline {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let bytes = self.0.get(start..).and_then(|rest| rest.get(..out.len()));
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl FileData for Inline {
    fn extents(&self) -> Result<Vec<Extent>> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use aiv_volume_io::MemDisk;

    use super::super::Volume;
    use super::*;

    fn volume() -> Volume {
        let bytes: Vec<u8> = (1..=251).cycle().take(1000).collect();
        Volume::new(Arc::new(MemDisk::from_bytes(bytes)))
    }

    fn piece(logical: u64, physical: u64, len: u64) -> Piece {
        Piece { logical, physical, len }
    }

    #[test]
    fn bytes_come_from_their_pieces_and_holes_are_zeros() {
        let volume = volume();
        let mut pieces = Pieces::new(&volume);
        for one in [piece(0, 100, 10), piece(10, 110, 10), piece(50, 0, 20), piece(90, 500, 40)] {
            pieces.push(one).unwrap();
        }
        let file = pieces.finish(120, 100);
        let volume_bytes: Vec<u8> = (1..=251).cycle().take(1000).collect();
        let mut expected = [0; 120];
        expected[..20].copy_from_slice(&volume_bytes[100..120]);
        expected[50..70].copy_from_slice(&volume_bytes[..20]);
        expected[90..100].copy_from_slice(&volume_bytes[500..510]);
        for start in 0..=120 {
            for end in start..=120 {
                let mut out = vec![9; end - start];
                file.read_exact_at(&mut out, start as u64).unwrap();
                assert!(out == expected[start..end], "{start}..{end}");
            }
        }
        assert!(file.read_exact_at(&mut [0; 2], 119).is_err());
        let holes = file.holes(Extent::new(10, 200)).unwrap();
        let expected = [(20, 50), (70, 90), (100, 120)].map(|(a, b)| Extent::between(a, b));
        assert_eq!(holes, expected);
        let extents = [(100, 20), (0, 20), (500, 10)].map(|(a, b)| Extent::new(a, b));
        assert_eq!(file.extents().unwrap(), extents);
    }

    #[test]
    fn pieces_outside_the_volume_or_out_of_order_are_damage() {
        let volume = volume();
        let mut pieces = Pieces::new(&volume);
        pieces.push(piece(10, 0, 10)).unwrap();
        for wrong in [
            piece(19, 100, 1),
            piece(20, 1000, 1),
            piece(20, 991, 10),
            piece(20, u64::MAX, 2),
            piece(u64::MAX, 0, 2),
            piece(20, 0, 0),
        ] {
            assert!(matches!(pieces.push(wrong), Err(Error::Damaged { .. })), "{wrong:?}");
        }
    }
}
