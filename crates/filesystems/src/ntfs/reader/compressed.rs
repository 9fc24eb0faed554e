//! Files that NTFS compressed in units of clusters.
//!
//! A unit whose clusters are all there is stored as it is; one without any is zeros; what is
//! between is compressed, and the clusters of it that are missing are what was saved.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use aiv_volume_io::{Extent, ReadAt};

use super::contents::Contents;
use super::lznt1;
use crate::reader::Volume;
use crate::{FileData, Result};

/// Bytes of a unit: sixteen clusters of the largest size there is compression for.
const UNIT_MAX: u64 = 1 << 20;

/// A compressed file. Remembers the unit that was decompressed last.
pub(super) struct Compressed<'a> {
    volume: &'a Volume,
    contents: Contents,
    /// Bytes.
    unit: u64,
    last: Mutex<Option<(u64, Arc<[u8]>)>>,
}

enum Unit {
    Zeros,
    /// As it is; on the volume in these pieces.
    Plain(Vec<Extent>),
    Packed(Vec<Extent>),
}

impl<'a> Compressed<'a> {
    /// The file, or the size of its units when there are none of such.
    pub(super) fn new(volume: &'a Volume, contents: Contents) -> Option<Self> {
        let unit = contents.cluster_size.checked_shl(contents.unit.into())?;
        let is_possible = (1..32).contains(&contents.unit) && unit <= UNIT_MAX;
        is_possible.then(|| Self { volume, contents, unit, last: Mutex::default() })
    }

    /// What unit `number` is.
    fn unit(&self, number: u64) -> Unit {
        let size = self.contents.cluster_size;
        let clusters = self.unit / size;
        let (first, end) = (number * clusters, (number + 1) * clusters);
        let mut there = 0;
        let mut pieces: Vec<Extent> = Vec::new();
        for run in self.contents.runs_from(first) {
            if run.vcn >= end {
                break;
            }
            let Some(lcn) = run.lcn else { continue };
            let from = run.vcn.max(first);
            let len = (run.vcn + run.len).min(end) - from;
            there += len;
            pieces.push(Extent::new((lcn + (from - run.vcn)) * size, len * size));
        }
        match there {
            0 => Unit::Zeros,
            all if all == clusters => Unit::Plain(pieces),
            _ => Unit::Packed(pieces),
        }
    }

    fn read_pieces(&self, pieces: &[Extent], out: &mut [u8]) -> io::Result<()> {
        let mut left = out;
        for piece in pieces {
            let len = usize::try_from(piece.len).map_err(io::Error::other)?.min(left.len());
            let (now, rest) = left.split_at_mut(len);
            self.volume.data().read_exact_at(now, piece.start)?;
            left = rest;
        }
        Ok(())
    }

    fn unpacked(&self, number: u64, pieces: &[Extent]) -> io::Result<Arc<[u8]>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, unit)) = last.as_ref().filter(|(at, _)| *at == number) {
            return Ok(unit.clone());
        }
        let stored: u64 = pieces.iter().map(|piece| piece.len).sum();
        let mut packed = vec![0; usize::try_from(stored).map_err(io::Error::other)?];
        self.read_pieces(pieces, &mut packed)?;
        let mut unit = vec![0; usize::try_from(self.unit).map_err(io::Error::other)?];
        lznt1::decompress(&packed, &mut unit).ok_or_else(|| {
            let message = format!(
                "compressed data of file record {} is damaged, from byte {} of the file on",
                self.contents.record,
                number * self.unit
            );
            io::Error::new(io::ErrorKind::InvalidData, message)
        })?;
        let unit: Arc<[u8]> = unit.into();
        *last = Some((number, unit.clone()));
        Ok(unit)
    }

    /// Bytes `within..` of a unit.
    fn read_unit(&self, number: u64, within: usize, out: &mut [u8]) -> io::Result<()> {
        match self.unit(number) {
            Unit::Zeros => out.fill(0),
            Unit::Plain(pieces) => {
                let mut skip = within as u64;
                let mut rest = Vec::with_capacity(pieces.len());
                for piece in pieces {
                    let cut = skip.min(piece.len);
                    skip -= cut;
                    if cut < piece.len {
                        rest.push(Extent::between(piece.start + cut, piece.end()));
                    }
                }
                self.read_pieces(&rest, out)?;
            }
            Unit::Packed(pieces) => {
                let unit = self.unpacked(number, &pieces)?;
                let bytes = unit.get(within..within + out.len());
                out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
            }
        }
        Ok(())
    }
}

impl ReadAt for Compressed<'_> {
    fn len(&self) -> u64 {
        self.contents.size
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(out.len() as u64).filter(|&end| end <= self.len());
        if end.is_none() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let valid = self.contents.initialised.saturating_sub(offset);
        let valid = usize::try_from(valid).unwrap_or(usize::MAX).min(out.len());
        let (out, behind) = out.split_at_mut(valid);
        behind.fill(0);
        let mut done = 0;
        while done < out.len() {
            let at = offset + done as u64;
            let within = usize::try_from(at % self.unit).map_err(io::Error::other)?;
            let room = usize::try_from(self.unit).map_err(io::Error::other)? - within;
            let now = room.min(out.len() - done);
            self.read_unit(at / self.unit, within, &mut out[done..done + now])?;
            done += now;
        }
        Ok(())
    }

    fn holes(&self, range: Extent) -> io::Result<Vec<Extent>> {
        let end = range.end().min(self.len());
        let mut holes: Vec<Extent> = Vec::new();
        let mut add = |from: u64, to: u64| {
            let (from, to) = (from.max(range.start), to.min(end));
            match holes.last_mut() {
                _ if from >= to => {}
                Some(last) if last.end() >= from => *last = Extent::between(last.start, to),
                _ => holes.push(Extent::between(from, to)),
            }
        };
        let size = self.contents.cluster_size;
        // A hole of whole units; others are what compression saved.
        for run in self.contents.runs_from(range.start / self.unit * (self.unit / size)) {
            let (start, end_of_run) = (run.vcn * size, (run.vcn + run.len) * size);
            if start >= end {
                break;
            }
            if run.lcn.is_none() {
                let first = start.next_multiple_of(self.unit);
                add(first, end_of_run / self.unit * self.unit);
            }
        }
        if self.contents.initialised < end {
            add(self.contents.initialised, end);
        }
        Ok(holes)
    }
}

impl FileData for Compressed<'_> {
    fn extents(&self) -> Result<Vec<Extent>> {
        // No more than runs, which were counted.
        let mut extents: Vec<Extent> = Vec::new();
        let size = self.contents.cluster_size;
        for run in self.contents.runs_from(0) {
            let Some(lcn) = run.lcn else { continue };
            let next = Extent::new(lcn * size, run.len * size);
            match extents.last_mut() {
                Some(last) if last.end() == next.start => last.len += next.len,
                _ => extents.push(next),
            }
        }
        Ok(extents)
    }
}
