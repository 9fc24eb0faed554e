//! The log: sectors of tables that may not have reached their place yet.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use aiv_volume_io::{Extent, ExtentSet, ReadAt};

use super::header::{Header, checksum};
use super::{MIB, corrupt};
use crate::bytes::{le32, le64, take};
use crate::{Error, Result};

/// Logs are 1 MiB by rule.
const LOG_MAX: u64 = 32 << 20;
const SECTOR: u64 = 4 << 10;
const ENTRY_HEAD: u64 = 64;
const DESCRIPTOR: u64 = 32;
/// Checksums are computed over this many times the length of the log at most: entries that
/// overlap are no entries.
const WORK_MAX: u64 = 4;

pub(super) enum Replay {
    /// Nothing was in the log.
    Empty(Arc<dyn ReadAt>),
    /// The file as it is after what was in the log.
    Done(Arc<dyn ReadAt>),
}

pub(super) fn replay(file: Arc<dyn ReadAt>, header: &Header) -> Result<Replay> {
    if header.log_id == [0; 16] {
        return Ok(Replay::Empty(file));
    }
    let (at, len) = (header.log_at, header.log_len);
    let is_aligned = at.is_multiple_of(MIB) && len.is_multiple_of(MIB);
    let end = at.checked_add(len);
    if !is_aligned || !(MIB..=LOG_MAX).contains(&len) || end.is_none_or(|end| end > file.len()) {
        let what = format!("{len} bytes at {at}, allowed are 1 to 32 MiB inside the file");
        return Err(corrupt("log", at, what));
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or_default()];
    file.read_exact_at(&mut bytes, at).map_err(Error::io("read the log", at))?;
    let log = Log { bytes, at, id: header.log_id };
    let entries = log.active(file.len())?;
    let mut replayed = Replayed {
        len: file.len(),
        inner: file,
        sectors: BTreeMap::new(),
        zeros: ExtentSet::new(),
    };
    let mut zeros: Vec<Extent> = Vec::new();
    for entry in &entries {
        log.apply(entry, &mut replayed, &mut zeros)?;
    }
    replayed.zeros = zeros.into_iter().collect();
    Ok(Replay::Done(Arc::new(replayed)))
}

struct Log {
    bytes: Vec<u8>,
    /// Where it lies in the file, for messages.
    at: u64,
    id: [u8; 16],
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Offset in the log, a multiple of 4 KiB.
    at: u64,
    len: u64,
    /// Where the oldest entry was that was still needed when this one was written.
    tail: u64,
    sequence: u64,
    descriptors: u64,
    /// Bytes of the file that were safe, and that there have to be in the end.
    flushed: u64,
    last: u64,
}

impl Log {
    fn wrong(&self, at: u64, what: String) -> Error {
        corrupt("log", self.at + at, what)
    }

    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// `N` bytes from `at`, around the end of the log.
    fn sector(&self, at: u64) -> &[u8] {
        let from = usize::try_from(at % self.len()).unwrap_or_default();
        self.bytes.get(from..).and_then(|rest| rest.get(..4096)).unwrap_or_default()
    }

    /// The entry that begins at `at`, if there is a sound one. `work` counts bytes.
    fn entry(&self, at: u64, work: &mut u64) -> Option<Entry> {
        let head = self.sector(at);
        if take::<4>(head, 0) != *b"loge" || take::<16>(head, 32) != self.id {
            return None;
        }
        let len = u64::from(le32(head, 8));
        let entry = Entry {
            at,
            len,
            tail: le32(head, 12).into(),
            sequence: le64(head, 16),
            descriptors: le32(head, 24).into(),
            flushed: le64(head, 48),
            last: le64(head, 56),
        };
        let in_front = (ENTRY_HEAD + entry.descriptors * DESCRIPTOR).next_multiple_of(SECTOR);
        let fits = len.is_multiple_of(SECTOR) && in_front <= len && len <= self.len();
        let tail_fits = entry.tail.is_multiple_of(SECTOR) && entry.tail < self.len();
        if !fits || !tail_fits || entry.sequence == 0 {
            return None;
        }
        *work += len;
        if *work > WORK_MAX * self.len() {
            return None;
        }
        let mut whole = Vec::with_capacity(usize::try_from(len).ok()?);
        (0..len / SECTOR).for_each(|index| whole.extend(self.sector(at + index * SECTOR)));
        (checksum(&whole) == le32(head, 4)).then_some(entry)
    }

    /// The newest sequence of entries that is whole, oldest first: it ends with the entry of the
    /// highest number, and begins where that one says.
    fn active(&self, file_len: u64) -> Result<Vec<Entry>> {
        let mut work = 0;
        let starts = (0..self.len() / SECTOR).map(|index| index * SECTOR);
        let entries: BTreeMap<u64, Entry> =
            starts.filter_map(|at| self.entry(at, &mut work).map(|entry| (at, entry))).collect();
        if work > WORK_MAX * self.len() {
            return Err(self.wrong(0, "its entries overlap".into()));
        }
        let mut newest: Vec<&Entry> = entries.values().collect();
        newest.sort_by_key(|entry| std::cmp::Reverse(entry.sequence));
        for head in newest {
            if let Some(sequence) = self.sequence(&entries, head) {
                if head.flushed > file_len {
                    let what = format!("the file had {} bytes and has {file_len}", head.flushed);
                    return Err(self.wrong(head.at, what));
                }
                return Ok(sequence);
            }
        }
        Err(self.wrong(0, "it should be replayed, and has no sound entry".into()))
    }

    /// The entries from the tail of `head` up to it, without a gap.
    fn sequence(&self, entries: &BTreeMap<u64, Entry>, head: &Entry) -> Option<Vec<Entry>> {
        let mut found = vec![*entries.get(&head.tail)?];
        while let Some(last) = found.last().filter(|last| last.at != head.at) {
            let next = entries.get(&((last.at + last.len) % self.len()))?;
            if next.sequence != last.sequence.checked_add(1)? || found.len() >= entries.len() {
                return None;
            }
            found.push(*next);
        }
        Some(found)
    }

    fn apply(&self, entry: &Entry, into: &mut Replayed, zeros: &mut Vec<Extent>) -> Result<()> {
        let in_front = (ENTRY_HEAD + entry.descriptors * DESCRIPTOR).next_multiple_of(SECTOR);
        let mut data_at = entry.at + in_front;
        for index in 0..entry.descriptors {
            // A descriptor never crosses a sector.
            let from = ENTRY_HEAD + index * DESCRIPTOR;
            let sector = self.sector(entry.at + from / SECTOR * SECTOR);
            let inside = usize::try_from(from % SECTOR).unwrap_or_default();
            let descriptor: [u8; 32] = take(sector, inside);
            let place = le64(&descriptor, 16);
            let wrong = |what: String| Err(self.wrong(entry.at + from, what));
            if le64(&descriptor, 24) != entry.sequence || !place.is_multiple_of(SECTOR) {
                return wrong(format!("descriptor {index} is not of entry {}", entry.sequence));
            }
            match &descriptor[..4] {
                b"zero" => {
                    let len = le64(&descriptor, 8);
                    let end = place.checked_add(len).filter(|_| len.is_multiple_of(SECTOR));
                    let Some(end) = end.filter(|end| *end <= into.len.max(entry.last)) else {
                        return wrong(format!("{len} zeros at {place}"));
                    };
                    let hidden: Vec<u64> = into.sectors.range(place..end).map(|s| *s.0).collect();
                    hidden.iter().for_each(|at| drop(into.sectors.remove(at)));
                    zeros.push(Extent::between(place, end));
                }
                b"desc" => {
                    let data = self.sector(data_at);
                    let number = (u64::from(le32(data, 4)) << 32) | u64::from(le32(data, 4092));
                    let is_inside = data_at + SECTOR <= entry.at + entry.len;
                    if !is_inside || data[..4] != *b"data" || number != entry.sequence {
                        return wrong(format!("the data of descriptor {index} is missing"));
                    }
                    let mut bytes = [0; 4096];
                    bytes.copy_from_slice(data);
                    bytes[..8].copy_from_slice(&descriptor[8..16]);
                    bytes[4092..].copy_from_slice(&descriptor[4..8]);
                    if place.checked_add(SECTOR).is_none_or(|end| end > into.len.max(entry.last)) {
                        return wrong(format!("a sector at {place}, past the end"));
                    }
                    into.sectors.insert(place, Box::new(bytes));
                    data_at += SECTOR;
                }
                _ => return wrong(format!("descriptor {index} is of no known kind")),
            }
        }
        into.len = into.len.max(entry.last);
        Ok(())
    }
}

/// A file with what its log says laid over it.
struct Replayed {
    inner: Arc<dyn ReadAt>,
    len: u64,
    /// By their place: newer than the zeros.
    sectors: BTreeMap<u64, Box<[u8; 4096]>>,
    zeros: ExtentSet,
}

impl ReadAt for Replayed {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(out.len() as u64).filter(|end| *end <= self.len);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        let range = Extent::between(offset, end);
        // What the file does not have yet is zeros.
        let there = self.inner.len().saturating_sub(offset);
        let there = usize::try_from(there).unwrap_or(usize::MAX).min(out.len());
        out[there..].fill(0);
        if there > 0 {
            self.inner.read_exact_at(&mut out[..there], offset)?;
        }
        let index = |at: u64| usize::try_from(at - offset).unwrap_or(usize::MAX);
        for zero in self.zeros.within(range) {
            out[index(zero.start)..index(zero.end())].fill(0);
        }
        for (at, bytes) in self.sectors.range(offset.saturating_sub(SECTOR - 1)..end) {
            let Some(both) = Extent::new(*at, SECTOR).intersect(range) else { continue };
            let from = usize::try_from(both.start - at).unwrap_or_default();
            let count = usize::try_from(both.len).unwrap_or_default();
            let (start, stop) = (index(both.start), index(both.end()));
            out[start..stop].copy_from_slice(&bytes[from..from + count]);
        }
        Ok(())
    }
}
