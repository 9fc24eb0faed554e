use std::io;

use aiv_volume_io::{Extent, ReadAt};

/// Bytes of the head of a container: the length of the disk.
const HEAD: usize = 8;
/// Bytes before the content of each stretch: where it lies, and its length.
const STRETCH_HEAD: usize = 12;
/// No disk is longer.
const LEN_MAX: u64 = 1 << 40;
/// Reads of one input; what needs more does not end.
const STRETCHES_MAX: usize = 4096;

/// A disk that is zeros but for some stretches, from a short text: what a parser reads of a
/// volume of 300 MiB is some KiB.
///
/// The container is the length of the disk (u64) and stretches of offset (u64), length (u32) and
/// bytes, integers little-endian. Whatever cannot be right is made right, so that every input is
/// a disk; of stretches that overlap the last one counts.
pub struct SparseDisk {
    len: u64,
    stretches: Vec<(u64, Vec<u8>)>,
}

impl SparseDisk {
    /// Reads a container.
    #[must_use]
    pub fn from_bytes(data: &[u8]) -> Self {
        let Some((head, mut rest)) = data.split_first_chunk::<HEAD>() else {
            return Self { len: 0, stretches: Vec::new() };
        };
        let len = u64::from_le_bytes(*head).min(LEN_MAX);
        let mut stretches = Vec::new();
        while let Some((head, after)) = rest.split_first_chunk::<STRETCH_HEAD>()
            && stretches.len() < STRETCHES_MAX
        {
            let (at, count) = head.split_at(8);
            let at = at.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte));
            let count = count.iter().rev().fold(0, |number, &byte| number << 8 | usize::from(byte));
            let (bytes, after) = after.split_at(count.min(after.len()));
            stretches.push((at, bytes.to_vec()));
            rest = after;
        }
        Self { len, stretches }
    }

    /// A disk of zeros.
    pub(crate) fn zeros(len: u64) -> Self {
        Self { len: len.min(LEN_MAX), stretches: Vec::new() }
    }

    /// Puts these bytes over what is there.
    pub(crate) fn patch(&mut self, at: u64, bytes: Vec<u8>) {
        let end = at.saturating_add(bytes.len() as u64);
        let end_of = |known: &(u64, Vec<u8>)| known.0.saturating_add(known.1.len() as u64);
        let last =
            self.stretches.iter_mut().rev().find(|known| known.0 < end && end_of(known) > at);
        match last {
            Some(known) if known.0 <= at && end_of(known) >= end => {
                let from = small(at - known.0);
                known.1[from..from + bytes.len()].copy_from_slice(&bytes);
            }
            _ => self.stretches.push((at, bytes)),
        }
    }

    /// Where something lies that `is` knows by its first bytes, in steps of `step` that begin at
    /// multiples of it.
    pub(crate) fn places<T>(&self, step: u64, is: impl Fn(&[u8]) -> Option<T>) -> Vec<(u64, T)> {
        let mut found = Vec::new();
        for (start, bytes) in &self.stretches {
            let Some(mut at) = start.checked_next_multiple_of(step) else { continue };
            while let Some(rest) = bytes.get(usize::try_from(at - start).unwrap_or(usize::MAX)..)
                && !rest.is_empty()
            {
                found.extend(is(rest).map(|what| (at, what)));
                let Some(next) = at.checked_add(step) else { break };
                at = next;
            }
        }
        found
    }

    /// The container of a disk of `len` bytes with the bytes of `disk` in `kept`, and zeros
    /// elsewhere.
    ///
    /// # Errors
    /// When a stretch cannot be read.
    pub fn container(disk: &dyn ReadAt, kept: &[Extent]) -> io::Result<Vec<u8>> {
        let mut out = disk.len().to_le_bytes().to_vec();
        for extent in kept {
            let count = u32::try_from(extent.len).map_err(io::Error::other)?;
            let mut bytes = vec![0; count as usize];
            disk.read_exact_at(&mut bytes, extent.start)?;
            out.extend_from_slice(&extent.start.to_le_bytes());
            out.extend_from_slice(&count.to_le_bytes());
            out.extend_from_slice(&bytes);
        }
        Ok(out)
    }
}

impl ReadAt for SparseDisk {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(out.len() as u64).filter(|&end| end <= self.len);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        out.fill(0);
        for (at, bytes) in &self.stretches {
            let from = offset.max(*at);
            let to = end.min(at.saturating_add(bytes.len() as u64));
            if from < to {
                let [begin, stop] = [from - offset, to - offset].map(small);
                out[begin..stop].copy_from_slice(&bytes[small(from - at)..small(to - at)]);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
impl SparseDisk {
    /// The first byte that is another one there.
    pub(crate) fn differs_from(&self, other: &Self) -> Option<u64> {
        let both = self.stretches.iter().chain(&other.stretches);
        both.filter_map(|(at, bytes)| {
            let [mut ours, mut theirs] = [(); 2].map(|()| vec![0; bytes.len()]);
            self.read_exact_at(&mut ours, *at).expect("inside");
            other.read_exact_at(&mut theirs, *at).expect("inside");
            let different = ours.iter().zip(&theirs).position(|(ours, theirs)| ours != theirs);
            different.map(|inside| at + inside as u64)
        })
        .min()
    }
}

fn small(number: u64) -> usize {
    usize::try_from(number).expect("inside a buffer")
}

#[cfg(test)]
mod tests {
    use super::*;
    use aiv_volume_io::MemDisk;

    #[test]
    fn a_container_gives_the_kept_stretches_back_and_zeros_between() {
        let bytes: Vec<u8> = (0..100).collect();
        let disk = MemDisk::from_bytes(bytes.clone());
        let kept = [Extent::new(10, 5), Extent::new(50, 50)];
        let container = SparseDisk::container(&disk, &kept).unwrap();
        let sparse = SparseDisk::from_bytes(&container);
        let mut back = vec![9; 100];
        sparse.read_exact_at(&mut back, 0).unwrap();
        for at in 0..100u8 {
            let is_kept = (10..15).contains(&at) || at >= 50;
            assert_eq!(back[usize::from(at)], if is_kept { at } else { 0 });
        }
        assert!(sparse.read_exact_at(&mut [0; 2], 99).is_err());
        assert!(sparse.read_exact_at(&mut [0; 2], u64::MAX).is_err());
    }

    #[test]
    fn a_patch_lies_over_what_was_there_wherever_that_ends() {
        let mut disk = SparseDisk::zeros(100);
        let mut all = [0_u8; 100];
        for (n, (at, len)) in
            [(10, 20), (12, 3), (28, 10), (5, 40), (20, 5)].into_iter().enumerate()
        {
            let byte = u8::try_from(n).unwrap() + 1;
            disk.patch(at as u64, vec![byte; len]);
            all[at..at + len].fill(byte);
            let mut out = [9; 100];
            disk.read_exact_at(&mut out, 0).unwrap();
            assert_eq!(out, all);
        }
        assert_eq!(disk.stretches.len(), 3);
        let found = disk.places(4, |bytes| (bytes[0] == 4).then_some(()));
        assert!(found.contains(&(8, ())) && found.iter().all(|(at, ())| at % 4 == 0));
    }

    #[test]
    fn any_bytes_are_a_disk() {
        for len in 0..40 {
            let text = vec![0xff; len];
            let disk = SparseDisk::from_bytes(&text);
            let mut out = [0; 64];
            assert_eq!(disk.read_exact_at(&mut out, 0).is_ok(), disk.len() >= 64);
        }
    }
}
