//! Volumes of an attacker: a sound volume with some bytes changed where a reader looks.
//!
//! A [`Mutated`] volume shows changes without copying the volume, and remembers what was read:
//! the reads of a first, unchanged pass are the *records* that further passes change.
//! [`changes`] makes them from a seed; [`Sums`] makes checksums right again, so that the checks
//! behind them are reached.

mod begun;
mod changes;
mod image;
mod sums;

use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;

use aiv_volume_io::{Extent, ReadAt};

pub use begun::mend_begun;
pub use changes::{changes, mutate};
pub use image::mend_image;
pub use sums::Sums;

/// Bytes that are other than on the volume, by their offset.
pub type Changes = BTreeMap<u64, u8>;

/// A volume with some bytes changed, which records what is read.
pub struct Mutated<'a> {
    volume: &'a dyn ReadAt,
    changes: &'a Changes,
    seen: Mutex<Seen>,
    budget: u64,
}

#[derive(Default)]
struct Seen {
    reads: Vec<Extent>,
    bytes: u64,
}

impl<'a> Mutated<'a> {
    /// A volume that can be read without end.
    #[must_use]
    pub fn new(volume: &'a dyn ReadAt, changes: &'a Changes) -> Self {
        Self::with_budget(volume, changes, u64::MAX)
    }

    /// A volume that fails after `budget` bytes, and so ends what would not end.
    #[must_use]
    pub fn with_budget(volume: &'a dyn ReadAt, changes: &'a Changes, budget: u64) -> Self {
        Self { volume, changes, seen: Mutex::default(), budget }
    }

    /// The reads since the last call, in their order.
    ///
    /// # Panics
    /// When a thread panicked while it read.
    #[must_use]
    pub fn take_reads(&self) -> Vec<Extent> {
        std::mem::take(&mut self.seen.lock().expect("no reader panics").reads)
    }
}

impl ReadAt for Mutated<'_> {
    fn len(&self) -> u64 {
        self.volume.len()
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let range = Extent::new(offset, out.len() as u64);
        {
            let mut seen = self.seen.lock().map_err(|_| io::Error::other("a reader panicked"))?;
            seen.bytes = seen.bytes.saturating_add(range.len);
            if seen.bytes > self.budget {
                return Err(io::Error::other(format!("more than {} bytes read", self.budget)));
            }
            seen.reads.push(range);
        }
        self.volume.read_exact_at(out, offset)?;
        for (&at, &value) in self.changes.range(offset..range.end()) {
            if let Some(byte) = usize::try_from(at - offset).ok().and_then(|at| out.get_mut(at)) {
                *byte = value;
            }
        }
        Ok(())
    }
}

/// Bytes of all reads, those read twice counted twice.
#[must_use]
pub fn total_len(reads: &[Extent]) -> u64 {
    reads.iter().map(|read| read.len).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use aiv_volume_io::MemDisk;

    #[test]
    fn changes_are_seen_and_reads_remembered_until_the_budget_is_spent() {
        let volume = MemDisk::from_bytes((0..20).collect());
        let changes = Changes::from([(3, 0xaa), (5, 0xbb), (19, 0xcc)]);
        let mutated = Mutated::with_budget(&volume, &changes, 7);
        let mut bytes = [0; 4];
        mutated.read_exact_at(&mut bytes, 2).unwrap();
        assert_eq!(bytes, [2, 0xaa, 4, 0xbb]);
        mutated.read_exact_at(&mut bytes[..3], 17).unwrap();
        assert_eq!(bytes[..3], [17, 18, 0xcc]);
        assert!(mutated.read_exact_at(&mut bytes[..1], 0).is_err());
        let reads = mutated.take_reads();
        assert_eq!(reads, [Extent::new(2, 4), Extent::new(17, 3)]);
        assert_eq!(total_len(&reads), 7);
        assert!(mutated.take_reads().is_empty());
    }
}
