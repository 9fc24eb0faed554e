//! The bytes of a logical volume, wherever they lie.

use std::io;
use std::sync::Arc;

use aiv_volume_io::{Extent, ReadAt};

/// Parts that follow each other.
pub(super) struct Joined {
    parts: Vec<Part>,
    len: u64,
}

/// A part in one piece, or in stripes that go round several legs.
pub(super) struct Part {
    /// Bytes.
    pub(super) len: u64,
    /// Bytes of a stripe, not zero.
    pub(super) stripe: u64,
    /// Each has `len` bytes divided by their number, in whole stripes; at least one.
    pub(super) legs: Vec<Leg>,
    /// First byte in the volume; set by [`Joined::new`].
    pub(super) start: u64,
}

/// A run of bytes on a disk, or in another logical volume.
#[derive(Clone)]
pub(super) struct Leg {
    pub(super) bytes: Arc<dyn ReadAt>,
    pub(super) start: u64,
}

impl Joined {
    /// `None` when there are more bytes than a number can count.
    pub(super) fn new(mut parts: Vec<Part>) -> Option<Self> {
        let mut len = 0_u64;
        for part in &mut parts {
            part.start = len;
            len = len.checked_add(part.len)?;
        }
        Some(Self { parts, len })
    }
}

impl Part {
    /// The leg a byte of this part is on, where, and how many bytes follow it there.
    fn place(&self, inside: u64) -> (Option<&Leg>, u64, u64) {
        let legs = self.legs.len() as u64;
        if legs == 1 {
            return (self.legs.first(), inside, self.len - inside);
        }
        let (stripe, within) = (inside / self.stripe, inside % self.stripe);
        let leg = usize::try_from(stripe % legs.max(1)).ok().and_then(|at| self.legs.get(at));
        (leg, stripe / legs.max(1) * self.stripe + within, self.stripe - within)
    }
}

impl ReadAt for Joined {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let range = Extent::new(offset, out.len() as u64);
        if offset.checked_add(range.len).is_none_or(|end| end > self.len) {
            let text = format!("bytes {range:?} reach past the end at {}", self.len);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        let mut rest = out;
        let mut at = offset;
        while !rest.is_empty() {
            let next = self.parts.partition_point(|part| part.start + part.len <= at);
            let nowhere = || io::Error::new(io::ErrorKind::UnexpectedEof, "no such extent");
            let part = self.parts.get(next).ok_or_else(nowhere)?;
            let (leg, place, follow) = part.place(at - part.start);
            let leg = leg.ok_or_else(nowhere)?;
            let count = usize::try_from(follow).unwrap_or(usize::MAX).min(rest.len());
            let (now, later) = rest.split_at_mut(count);
            leg.bytes.read_exact_at(now, leg.start.saturating_add(place))?;
            at += count as u64;
            rest = later;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aiv_volume_io::MemDisk;
    use proptest::prelude::*;

    fn disk(from: u8) -> Arc<dyn ReadAt> {
        Arc::new(MemDisk::from_bytes((from..from + 60).collect()))
    }

    #[test]
    fn nothing_can_be_read_behind_the_end() {
        let part =
            |len| Part { len, stripe: 1, legs: vec![Leg { bytes: disk(0), start: 0 }], start: 0 };
        let volume = Joined::new(vec![part(5), part(7)]).unwrap();
        assert_eq!(volume.len(), 12);
        assert!(volume.read_exact_at(&mut [0; 2], 11).is_err());
        assert!(volume.read_exact_at(&mut [0; 2], u64::MAX).is_err());
        assert!(volume.read_exact_at(&mut [], 12).is_ok());
        assert!(Joined::new(vec![part(u64::MAX), part(1)]).is_none());
    }

    proptest! {
        /// Against a list of every byte, made by going round the legs stripe by stripe.
        #[test]
        fn bytes_are_those_of_the_stripes(
            shapes in prop::collection::vec((1usize..=3, 1u64..=4, 1u64..=5, 0u64..=3), 1..4),
            window in (0usize..200, 0usize..200),
        ) {
            let mut parts = Vec::new();
            let mut all = Vec::new();
            for (legs, stripe, rows, start) in shapes {
                let len = legs as u64 * stripe * rows;
                for row in 0..rows {
                    for leg in 0..legs {
                        let from = start + row * stripe;
                        all.extend((from..from + stripe).map(|at| leg as u8 * 60 + at as u8));
                    }
                }
                let legs = (0..legs).map(|leg| Leg { bytes: disk(leg as u8 * 60), start });
                parts.push(Part { len, stripe, legs: legs.collect(), start: 0 });
            }
            let volume = Joined::new(parts).unwrap();
            prop_assert_eq!(volume.len(), all.len() as u64);
            let end = (window.0 + window.1).min(all.len());
            let start = window.0.min(end);
            let mut bytes = vec![0; end - start];
            volume.read_exact_at(&mut bytes, start as u64).unwrap();
            prop_assert_eq!(&bytes[..], &all[start..end]);
        }
    }
}
