//! One file of a chain: where each byte of the disk lies, and how it is read from there.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use aiv_volume_io::{Extent, ReadAt};

use crate::qcow2::Bitmap;

/// Holes named by one call at most: 1 MiB of memory. The rest is read as the zeros it is.
const HOLES_MAX: usize = 1 << 16;
/// Unpacked units kept: a reader who goes forward in strides smaller than a unit unpacks each
/// once. At most 4 x 2 MiB.
const UNITS_KEPT: usize = 4;

/// Where a run of bytes of the disk lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The file says nothing about it: ask the parent. Past its end there are zeros.
    Parent,
    /// Zeros, whatever the parent holds.
    Zero,
    /// As it is, at `offset` of one of the layer's data files.
    Data {
        /// Index for [`Layer::data`].
        file: usize,
        /// Where in it.
        offset: u64,
    },
    /// In a compressed unit that begins at byte `unit` of the disk.
    Packed {
        /// Key for [`Layer::unpack`].
        unit: u64,
    },
}

/// The knowledge of one image file.
pub(crate) trait Layer: Send + Sync {
    /// Bytes of the disk.
    fn len(&self) -> u64;

    /// Where the byte `at` of the disk lies, and how many bytes from there lie the same way:
    /// at least one. `at` is less than [`Layer::len`].
    fn find(&self, at: u64) -> io::Result<(u64, Place)>;

    /// A file that holds data. A run that begins inside it and reaches past its end reads as
    /// zeros there.
    fn data(&self, index: usize) -> Option<&dyn ReadAt>;

    /// Those who marked what was written to this file.
    fn bitmaps(&self) -> &[Bitmap] {
        &[]
    }

    /// The bytes of the compressed unit that begins at byte `unit` of the disk.
    fn unpack(&self, unit: u64) -> io::Result<Vec<u8>> {
        let _ = unit;
        Err(io::ErrorKind::InvalidInput.into())
    }
}

type Unit = (u64, Arc<[u8]>);

/// A layer and what it lies on.
pub(crate) struct Stacked {
    layer: Box<dyn Layer>,
    parent: Arc<dyn ReadAt>,
    units: Mutex<Vec<Unit>>,
}

impl Stacked {
    pub(crate) fn new(layer: Box<dyn Layer>, parent: Arc<dyn ReadAt>) -> Self {
        Self { layer, parent, units: Mutex::default() }
    }

    /// The run at `at`, cut at `end`, with following runs that continue it in the same file.
    fn run(&self, at: u64, end: u64) -> io::Result<(u64, Place)> {
        let (len, place) = self.layer.find(at)?;
        let mut next = at.saturating_add(len.max(1)).min(end);
        while next < end {
            let (len, found) = self.layer.find(next)?;
            let continues = match (place, found) {
                (Place::Data { file, offset }, Place::Data { file: other, offset: found }) => {
                    file == other && offset.checked_add(next - at) == Some(found)
                }
                (Place::Packed { .. }, _) => false,
                (place, found) => place == found,
            };
            if !continues {
                break;
            }
            next = next.saturating_add(len.max(1)).min(end);
        }
        Ok((next - at, place))
    }

    fn read_place(&self, out: &mut [u8], at: u64, place: Place) -> io::Result<()> {
        match place {
            Place::Zero => out.fill(0),
            Place::Parent => read_or_zeros(&self.parent, out, at)?,
            Place::Data { file, offset } => {
                let file = self.layer.data(file).ok_or(io::ErrorKind::InvalidInput)?;
                read_or_zeros(file, out, offset)?;
            }
            Place::Packed { unit } => {
                let bytes = self.unit(unit)?;
                let from = usize::try_from(at - unit).map_err(io::Error::other)?;
                let found = bytes.get(from..).and_then(|rest| rest.get(..out.len()));
                out.copy_from_slice(found.ok_or(io::ErrorKind::InvalidData)?);
            }
        }
        Ok(())
    }

    fn unit(&self, unit: u64) -> io::Result<Arc<[u8]>> {
        let kept = |units: &[Unit]| units.iter().find(|(at, _)| *at == unit).map(|u| u.1.clone());
        if let Some(found) = kept(&self.units.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(found);
        }
        // Without the lock: others may unpack theirs at the same time.
        let bytes: Arc<[u8]> = self.layer.unpack(unit)?.into();
        let mut units = self.units.lock().unwrap_or_else(PoisonError::into_inner);
        if units.len() >= UNITS_KEPT {
            units.remove(0);
        }
        units.push((unit, bytes.clone()));
        Ok(bytes)
    }
}

/// Reads from `offset`; what lies past the end is zeros.
fn read_or_zeros(file: &dyn ReadAt, out: &mut [u8], offset: u64) -> io::Result<()> {
    let there = usize::try_from(file.len().saturating_sub(offset)).unwrap_or(usize::MAX);
    let (inside, outside) = out.split_at_mut(there.min(out.len()));
    outside.fill(0);
    if inside.is_empty() { Ok(()) } else { file.read_exact_at(inside, offset) }
}

impl ReadAt for Stacked {
    fn len(&self) -> u64 {
        self.layer.len()
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(out.len() as u64).filter(|end| *end <= self.len());
        let end = end.ok_or_else(|| {
            let what = format!("{} bytes at offset {offset} reach past the end", out.len());
            io::Error::new(io::ErrorKind::UnexpectedEof, what)
        })?;
        let (mut at, mut rest) = (offset, out);
        while !rest.is_empty() {
            let (len, place) = self.run(at, end)?;
            let count = usize::try_from(len).unwrap_or(usize::MAX).min(rest.len());
            let (now, later) = rest.split_at_mut(count);
            self.read_place(now, at, place)?;
            (at, rest) = (at + count as u64, later);
        }
        Ok(())
    }

    /// What the tables say is zeros: not hints, but what a read gives.
    fn holes(&self, range: Extent) -> io::Result<Vec<Extent>> {
        let mut holes: Vec<Extent> = Vec::new();
        let Some(range) = range.intersect(Extent::new(0, self.len())) else { return Ok(holes) };
        let push = |holes: &mut Vec<Extent>, hole: Extent| match holes.last_mut() {
            Some(last) if last.end() == hole.start => last.len += hole.len,
            _ if hole.is_empty() => {}
            _ => holes.push(hole),
        };
        let mut at = range.start;
        while at < range.end() && holes.len() < HOLES_MAX {
            let (len, place) = self.run(at, range.end())?;
            let run = Extent::new(at, len);
            match place {
                Place::Zero => push(&mut holes, run),
                Place::Parent => {
                    let inside = Extent::between(at, run.end().min(self.parent.len()));
                    if !inside.is_empty() {
                        for hole in self.parent.holes(inside)? {
                            push(&mut holes, hole);
                        }
                    }
                    push(&mut holes, Extent::between(at.max(self.parent.len()), run.end()));
                }
                Place::Data { .. } | Place::Packed { .. } => {}
            }
            at = run.end();
        }
        Ok(holes)
    }
}
