//! A volume of a pool, as bytes.

use std::io;
use std::sync::Arc;

use aiv_volume_io::{Extent, ReadAt};

use super::Pool;
use crate::{Error, Result};

/// Holes of one answer: a hint may leave some out.
const HOLES_MAX: usize = 1 << 16;
/// Bits of a mapping that tell when it was made.
const TIME_BITS: u32 = 24;

/// The bytes of a volume of a pool.
pub(crate) struct ThinVolume {
    pool: Arc<Pool>,
    root: u64,
    len: u64,
}

/// A run of bytes of a volume.
struct Run {
    /// Where it is in the data of the pool; `None` when it was never written.
    place: Option<u64>,
    len: u64,
}

impl ThinVolume {
    /// Volume `device` of a pool, of so many bytes.
    pub(crate) fn open(pool: Arc<Pool>, device: u64, len: u64) -> Result<Self> {
        let root = pool.root_of(device)?;
        let root = root.ok_or_else(|| Error::damaged("its pool does not know it", None))?;
        // What is wrong at the top of its tree is told at once.
        pool.node(root)?;
        Ok(Self { pool, root, len })
    }

    /// What is at `at`, which is less than the length.
    fn run(&self, at: u64) -> Result<Run> {
        let size = self.pool.superblock.block_len;
        let (number, within) = (at / size, at % size);
        let found = self.pool.find(self.root, number)?;
        let end = found.until.max(number.saturating_add(1)).saturating_mul(size).min(self.len);
        let len = end.saturating_sub(at);
        let Some(value) = found.value else { return Ok(Run { place: None, len }) };
        let start = (value >> TIME_BITS).checked_mul(size);
        let is_inside =
            |start: &u64| start.checked_add(size).is_some_and(|end| end <= self.pool.data.len());
        let start = start.filter(is_inside);
        let start =
            start.ok_or_else(|| Error::damaged("a block lies outside of its pool", None))?;
        Ok(Run { place: Some(start + within), len })
    }
}

fn failed(error: Error) -> io::Error {
    match error {
        Error::Io { source, .. } => source,
        error => io::Error::new(io::ErrorKind::InvalidData, error),
    }
}

impl ReadAt for ThinVolume {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (mut rest, mut at) = (out, offset);
        while !rest.is_empty() {
            let run = self.run(at).map_err(failed)?;
            let count = usize::try_from(run.len).unwrap_or(usize::MAX).min(rest.len());
            let (now, later) = rest.split_at_mut(count);
            match run.place {
                Some(place) => self.pool.data.read_exact_at(now, place)?,
                None => now.fill(0),
            }
            at += count as u64;
            rest = later;
        }
        Ok(())
    }

    fn holes(&self, range: Extent) -> io::Result<Vec<Extent>> {
        let mut holes: Vec<Extent> = Vec::new();
        let end = range.end().min(self.len);
        let mut at = range.start;
        while at < end && holes.len() < HOLES_MAX {
            let run = self.run(at).map_err(failed)?;
            let next = at.saturating_add(run.len).min(end);
            if run.place.is_none() {
                match holes.last_mut().filter(|last| last.end() == at) {
                    Some(last) => last.len += next - at,
                    None => holes.push(Extent::between(at, next)),
                }
            }
            at = next;
        }
        Ok(holes)
    }
}
