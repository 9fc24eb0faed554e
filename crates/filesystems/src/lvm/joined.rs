//! The bytes of a logical volume, wherever they lie.

use std::io;
use std::sync::Arc;

use aiv_volume_io::{Extent, ReadAt};

use crate::Span;

/// Steps to find out where the pieces of a volume lie.
const SPANS_MAX: usize = 1 << 17;

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
    pub(super) on: On,
    pub(super) start: u64,
}

/// What a leg lies on.
#[derive(Clone)]
pub(super) enum On {
    /// A physical volume, by its position among those that are at hand.
    Disk(usize, Arc<dyn ReadAt>),
    Volume(Arc<Joined>),
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

    /// Where the bytes lie on physical volumes, in their order; `None` when they lie in stripes
    /// within stripes, or in very many pieces.
    pub(super) fn spans(&self) -> Option<Vec<Span>> {
        let mut left = SPANS_MAX;
        self.spans_within(&mut left)
    }

    /// The same, while there are steps `left`.
    fn spans_within(&self, left: &mut usize) -> Option<Vec<Span>> {
        let mut spans = Vec::new();
        for part in &self.parts {
            let every = part.legs.len() as u64;
            let each = part.len.checked_div(every)?;
            for (number, leg) in (0_u64..).zip(&part.legs) {
                *left = left.checked_sub(1)?;
                match &leg.on {
                    On::Disk(member, _) => {
                        let stripe = if every == 1 { part.len } else { part.stripe };
                        spans.push(Span {
                            volume: Extent::new(part.start, part.len),
                            member: *member,
                            extent: Extent::new(leg.start, each),
                            stripe,
                            number,
                            every,
                        });
                    }
                    On::Volume(volume) if every == 1 => {
                        let taken = Extent::new(leg.start, part.len);
                        for span in volume.spans_within(left)? {
                            *left = left.checked_sub(1)?;
                            spans.extend(span.moved(taken, part.start)?);
                        }
                    }
                    On::Volume(_) => return None,
                }
            }
        }
        Some(spans)
    }
}

impl Span {
    /// What of it is in `taken` of its volume, as a part of a volume in which that begins at
    /// `start`: nothing, or `None` when it is in stripes that are cut.
    fn moved(self, taken: Extent, start: u64) -> Option<Option<Self>> {
        let Some(within) = self.volume.intersect(taken) else { return Some(None) };
        if within != self.volume && self.every != 1 {
            return None;
        }
        let from = self.extent.start + (within.start - self.volume.start);
        let volume = Extent::new(start + (within.start - taken.start), within.len);
        let extent = match self.every {
            1 => Extent::new(from, within.len),
            _ => self.extent,
        };
        let stripe = if self.every == 1 { within.len } else { self.stripe };
        Some(Some(Self { volume, extent, stripe, ..self }))
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
            let place = leg.start.saturating_add(place);
            match &leg.on {
                On::Disk(_, bytes) => bytes.read_exact_at(now, place)?,
                On::Volume(volume) => volume.read_exact_at(now, place)?,
            }
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

    /// A disk of which the bytes tell where they are.
    fn disk(number: u8) -> On {
        let bytes = (number * 60..number * 60 + 60).collect();
        On::Disk(usize::from(number), Arc::new(MemDisk::from_bytes(bytes)))
    }

    fn leg(number: u8, start: u64) -> Leg {
        Leg { on: disk(number), start }
    }

    #[test]
    fn nothing_can_be_read_behind_the_end() {
        let part = |len| Part { len, stripe: 1, legs: vec![leg(0, 0)], start: 0 };
        let volume = Joined::new(vec![part(5), part(7)]).unwrap();
        assert_eq!(volume.len(), 12);
        assert!(volume.read_exact_at(&mut [0; 2], 11).is_err());
        assert!(volume.read_exact_at(&mut [0; 2], u64::MAX).is_err());
        assert!(volume.read_exact_at(&mut [], 12).is_ok());
        assert!(Joined::new(vec![part(u64::MAX), part(1)]).is_none());
    }

    /// What the spans say is where the bytes come from.
    fn check_spans(volume: &Joined, bytes: &[u8]) {
        let mut told = vec![0; bytes.len()];
        for span in volume.spans().unwrap() {
            let member = u8::try_from(span.member).unwrap();
            for at in span.extent.start..span.extent.end() {
                let inside = span.in_volume([Extent::new(at, 1)].into_iter());
                let [one] = inside.as_slice() else { panic!("{inside:?}") };
                assert_eq!(one.len, 1);
                told[usize::try_from(one.start).unwrap()] = member * 60 + u8::try_from(at).unwrap();
            }
            let all = span.in_volume([span.extent].into_iter());
            assert_eq!(all.iter().map(|run| run.len).sum::<u64>(), span.extent.len);
        }
        assert_eq!(told, bytes);
    }

    proptest! {
        /// Against a list of every byte, made by going round the legs stripe by stripe.
        #[test]
        fn bytes_are_those_of_the_stripes(
            shapes in prop::collection::vec((1u8..=3, 1u8..=4, 1u8..=5, 0u8..=3), 1..4),
            window in (0usize..200, 0usize..200),
        ) {
            let mut parts = Vec::new();
            let mut all = Vec::new();
            for (legs, stripe, rows, start) in shapes {
                for row in 0..rows {
                    for leg in 0..legs {
                        let from = start + row * stripe;
                        all.extend((from..from + stripe).map(|at| leg * 60 + at));
                    }
                }
                let len = u64::from(legs) * u64::from(stripe) * u64::from(rows);
                let legs = (0..legs).map(|number| leg(number, u64::from(start))).collect();
                parts.push(Part { len, stripe: u64::from(stripe), legs, start: 0 });
            }
            let volume = Arc::new(Joined::new(parts).unwrap());
            prop_assert_eq!(volume.len(), all.len() as u64);
            check_spans(&volume, &all);
            let end = (window.0 + window.1).min(all.len());
            let start = window.0.min(end);
            let mut bytes = vec![0; end - start];
            volume.read_exact_at(&mut bytes, start as u64).unwrap();
            prop_assert_eq!(&bytes[..], &all[start..end]);
            // The same through a volume that is made of it.
            let on = On::Volume(Arc::clone(&volume));
            let whole = Leg { on: on.clone(), start: 0 };
            let part = Part { len: volume.len(), stripe: 1, legs: vec![whole], start: 0 };
            check_spans(&Joined::new(vec![part]).unwrap(), &all);
            if end > start {
                let len = (end - start) as u64;
                let legs = vec![Leg { on, start: start as u64 }];
                let cut = Joined::new(vec![Part { len, stripe: len, legs, start: 0 }]).unwrap();
                cut.read_exact_at(&mut bytes, 0).unwrap();
                prop_assert_eq!(&bytes[..], &all[start..end]);
                if cut.spans().is_some() {
                    check_spans(&cut, &bytes);
                }
            }
        }
    }
}
