//! A logical volume as bytes at offsets, and the way back to the physical volume.

use std::io;

use aiv_volume_io::{Extent, ExtentSet, ReadAt};

use super::volume::Piece;

/// The pieces of one logical volume in their order.
pub(super) struct Pieces<'a> {
    volume: &'a dyn ReadAt,
    pieces: &'a [Piece],
    len: u64,
}

impl<'a> Pieces<'a> {
    /// `pieces` begin at byte 0 of the logical volume, follow each other, and lie in `volume`.
    pub(super) fn new(volume: &'a dyn ReadAt, pieces: &'a [Piece]) -> Self {
        let len = pieces.last().map_or(0, |last| last.logical + last.physical.len);
        Self { volume, pieces, len }
    }

    /// Where bytes of the logical volume lie, as far as they are inside it.
    pub(super) fn places(&self, range: Extent) -> impl Iterator<Item = Extent> + '_ {
        let first = self.pieces.partition_point(|p| p.logical + p.physical.len <= range.start);
        self.pieces[first..].iter().map_while(move |piece| {
            let inside = Extent::new(piece.logical, piece.physical.len).intersect(range)?;
            Some(Extent::new(piece.physical.start + (inside.start - piece.logical), inside.len))
        })
    }

    /// The same bytes on the physical volume, in any order.
    pub(super) fn places_of(&self, set: &ExtentSet) -> Vec<Extent> {
        set.runs().iter().flat_map(|&run| self.places(run)).collect()
    }
}

impl ReadAt for Pieces<'_> {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let range = Extent::new(offset, out.len() as u64);
        if range.end() > self.len {
            let text = format!("bytes {range:?} reach past the end at {}", self.len);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        let mut rest = out;
        for place in self.places(range) {
            let (part, behind) = rest.split_at_mut(usize::try_from(place.len).unwrap_or(0));
            self.volume.read_exact_at(part, place.start)?;
            rest = behind;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aiv_volume_io::MemDisk;
    use proptest::prelude::*;

    fn pieces(starts_and_lens: &[(u64, u64)]) -> Vec<Piece> {
        let mut logical = 0;
        let mut pieces = Vec::new();
        for &(start, len) in starts_and_lens {
            pieces.push(Piece { logical, physical: Extent::new(start, len) });
            logical += len;
        }
        pieces
    }

    #[test]
    fn nothing_can_be_read_behind_the_end() {
        let disk = MemDisk::from_bytes(vec![0; 100]);
        let pieces = pieces(&[(90, 10), (0, 5)]);
        let volume = Pieces::new(&disk, &pieces);
        assert_eq!(volume.len(), 15);
        assert!(volume.read_exact_at(&mut [0; 2], 14).is_err());
        assert!(volume.read_exact_at(&mut [0; 2], u64::MAX).is_err());
        assert!(volume.read_exact_at(&mut [], 15).is_ok());
    }

    proptest! {
        #[test]
        fn bytes_and_places_are_those_of_the_pieces(
            order in Just((0..10usize).collect::<Vec<_>>()).prop_shuffle(),
            lens in prop::collection::vec(1u8..=8, 10),
            window in (0usize..40, 0usize..40),
        ) {
            let disk = MemDisk::from_bytes((0..80).collect());
            let list = order.iter().map(|&n| (n as u64 * 8, u64::from(lens[n])));
            let pieces = pieces(&list.clone().collect::<Vec<_>>());
            let all: Vec<u64> = list.flat_map(|(at, len)| at..at + len).collect();
            let volume = Pieces::new(&disk, &pieces);
            prop_assert_eq!(volume.len(), all.len() as u64);
            let end = (window.0 + window.1).min(all.len());
            let start = window.0.min(end);
            let expected = &all[start..end];
            let mut bytes = vec![0; expected.len()];
            volume.read_exact_at(&mut bytes, start as u64).unwrap();
            prop_assert!(bytes.iter().map(|&byte| u64::from(byte)).eq(expected.iter().copied()));
            let run = Extent::between(start as u64, end as u64);
            let places = volume.places_of(&[run].into_iter().collect());
            let found: Vec<u64> = places.iter().flat_map(|run| run.start..run.end()).collect();
            prop_assert_eq!(found.as_slice(), expected);
        }
    }
}
