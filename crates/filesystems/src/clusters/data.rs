//! The bytes of a file in clusters.

use std::io;

use aiv_volume_io::{Extent, ReadAt};

use crate::reader::{FileData, Mapped, Piece, Pieces, VolumeOf};
use crate::{Error, Result};

/// A file whose chain may end before the file does: what it does not reach cannot be read.
pub(crate) struct Chained<'a> {
    mapped: Mapped<'a>,
    /// Bytes that were written, and whose place is not known.
    lost: Extent,
    why: String,
}

impl<'a> Chained<'a> {
    /// The file of `len` bytes, of which the first `valid` were written and lie in `extents`;
    /// `why` says what is wrong where they do not.
    ///
    /// # Errors
    /// [`Error::Damaged`] when it is in too many pieces.
    pub(crate) fn new(
        volume: &'a VolumeOf<'a>,
        extents: impl IntoIterator<Item = Extent>,
        len: u64,
        valid: u64,
        why: Option<String>,
    ) -> Result<Self> {
        let mut pieces = Pieces::new(volume);
        let mut logical = 0;
        for extent in extents {
            let inside = Extent::between(extent.start, extent.end().min(volume.len()));
            if !inside.is_empty() {
                pieces.push(Piece { logical, physical: inside.start, len: inside.len })?;
            }
            logical += inside.len;
            if inside.len < extent.len {
                break;
            }
        }
        let why = why.unwrap_or_else(|| "its clusters end before it does".to_owned());
        let lost = Extent::between(logical, valid.min(len));
        Ok(Self { mapped: pieces.finish(len, valid), lost, why })
    }
}

impl ReadAt for Chained<'_> {
    fn len(&self) -> u64 {
        self.mapped.len()
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        if self.lost.intersect(Extent::new(offset, out.len() as u64)).is_some() {
            let what =
                format!("the file is damaged from byte {} on: {}", self.lost.start, self.why);
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        self.mapped.read_exact_at(out, offset)
    }

    fn holes(&self, range: Extent) -> io::Result<Vec<Extent>> {
        let holes = self.mapped.holes(range)?;
        let parts = holes.into_iter().flat_map(|hole| {
            let before = Extent::between(hole.start, hole.end().min(self.lost.start));
            let behind = Extent::between(hole.start.max(self.lost.end()), hole.end());
            if self.lost.is_empty() { [hole, Extent::new(0, 0)] } else { [before, behind] }
        });
        Ok(parts.filter(|part| !part.is_empty()).collect())
    }
}

impl FileData for Chained<'_> {
    fn extents(&self) -> Result<Vec<Extent>> {
        match self.lost.is_empty() {
            true => self.mapped.extents(),
            false => Err(Error::damaged(self.why.clone(), None)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use aiv_volume_io::MemDisk;

    use super::*;
    use crate::reader::Volume;

    #[test]
    fn what_the_chain_does_not_reach_fails_and_what_was_never_written_is_zeros() {
        let volume = Volume::new(Arc::new(MemDisk::from_bytes(vec![5; 1000])));
        let extents = [Extent::new(100, 50), Extent::new(10, 50)];
        let file = Chained::new(&volume, extents, 300, 200, None).unwrap();
        let mut out = [0; 100];
        file.read_exact_at(&mut out, 0).unwrap();
        assert_eq!(out, [5; 100]);
        for (at, len) in [(99, 2), (100, 1), (199, 1), (150, 150), (0, 300)] {
            let error = file.read_exact_at(&mut vec![0; len], at).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{at}");
        }
        file.read_exact_at(&mut out, 200).unwrap();
        assert_eq!(out, [0; 100]);
        assert_eq!(file.holes(Extent::new(0, 300)).unwrap(), [Extent::new(200, 100)]);
        assert!(matches!(file.extents(), Err(Error::Damaged { .. })));

        let file = Chained::new(&volume, extents, 300, 90, None).unwrap();
        let mut out = [1; 300];
        file.read_exact_at(&mut out, 0).unwrap();
        assert!(out[..90] == [5; 90] && out[90..] == [0; 210]);
        assert_eq!(file.extents().unwrap(), [Extent::new(100, 50), Extent::new(10, 40)]);
    }

    #[test]
    fn clusters_behind_the_end_of_the_volume_are_lost() {
        let volume = Volume::new(Arc::new(MemDisk::from_bytes(vec![5; 1000])));
        let extents = [Extent::new(0, 50), Extent::new(980, 50), Extent::new(100, 50)];
        let file = Chained::new(&volume, extents, 150, 150, None).unwrap();
        file.read_exact_at(&mut [0; 70], 0).unwrap();
        assert!(file.read_exact_at(&mut [0; 1], 70).is_err());
        assert!(file.read_exact_at(&mut [0; 10], 120).is_err());
    }
}
