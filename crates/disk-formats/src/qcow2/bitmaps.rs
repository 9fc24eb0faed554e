//! Persistent dirty bitmaps: what QEMU marked while it wrote.
//!
//! A bitmap that is damaged, in use or not recording is listed with the reason; nothing about
//! bitmaps keeps the disk from being read.

use std::io;
use std::sync::Arc;

use aiv_volume_io::{CHANGED_RUNS_MAX, ChangeTracker, Extent, TrackerFacts};

use super::header::Header;
use crate::bytes::{be16, be32, be64};
use crate::pages::Pages;
use crate::{Error, Format, Result};

/// Length of the header extension, and of an entry of the directory without names.
const EXTENSION_LEN: usize = 24;
const ENTRY_LEN: usize = 24;
/// Bitmaps looked at. The specification allows 65,535; who rotates them needs two.
const BITMAPS_MAX: u32 = 1024;
/// Longest name, by the specification.
const NAME_MAX: u16 = 1023;
/// Bits of the granularity that QEMU allows: 512 bytes to 2 GiB.
const GRANULARITY: std::ops::RangeInclusive<u8> = 9..=31;
/// The bitmaps were written by somebody who knows them, and nobody else wrote since.
const AUTOCLEAR_BITMAPS: u64 = 1;

const IN_USE: u32 = 1;
const AUTO: u32 = 1 << 1;
const EXTRA_COMPATIBLE: u32 = 1 << 2;
const KNOWN: u32 = IN_USE | AUTO | EXTRA_COMPATIBLE;
/// The one type: marks of what was written.
const DIRTY_TRACKING: u8 = 1;

/// Host offset of a cluster in a bitmap table.
const OFFSET: u64 = 0x00FF_FFFF_FFFF_FE00;
/// Without an offset: every bit of the cluster is set.
const ALL_ONES: u64 = 1;

const KIND: &str = "qcow2 bitmap";

fn corrupt(section: &'static str, offset: u64, what: String) -> Error {
    Error::Corrupt { format: Format::Qcow2, section, offset, what }
}

/// A bitmap in a file.
#[derive(Clone)]
pub(crate) struct Bitmap {
    pub(crate) facts: TrackerFacts,
    tables: Arc<Pages>,
    /// Bytes of the disk.
    len: u64,
    cluster_len: u64,
    granularity_bits: u8,
    /// Where its table begins.
    table: u64,
}

/// All bitmaps of a file whose header has the bitmaps extension `raw`.
pub(super) fn read(header: &Header, raw: &[u8], tables: &Arc<Pages>) -> Result<Vec<Bitmap>> {
    let section = "bitmaps extension";
    if raw.len() != EXTENSION_LEN {
        return Err(corrupt(section, 0, format!("it has {} bytes, not 24", raw.len())));
    }
    let (count, len, at) = (be32(raw, 0), be64(raw, 8), be64(raw, 16));
    if !(1..=BITMAPS_MAX).contains(&count) {
        let what = format!("{count} bitmaps, allowed is 1 to {BITMAPS_MAX}");
        return Err(corrupt(section, 0, what));
    }
    let end = at.checked_add(len).filter(|end| *end <= tables.file().len());
    let Some(end) = end.filter(|_| at.is_multiple_of(header.cluster_len())) else {
        return Err(corrupt(section, 0, format!("directory of {len} bytes at {at:#x}")));
    };
    let mut found: Vec<Bitmap> = Vec::new();
    let mut at = at;
    for _ in 0..count {
        let (bitmap, next) = entry(header, tables, at, end)?;
        if found.iter().any(|earlier| earlier.facts.name == bitmap.facts.name) {
            let what = format!("'{}' is there twice", bitmap.facts.name);
            return Err(corrupt("bitmap directory", at, what));
        }
        found.push(bitmap);
        at = next;
    }
    Ok(found)
}

/// The bitmap at `at` of the directory, and where the next one is.
fn entry(header: &Header, tables: &Arc<Pages>, at: u64, end: u64) -> Result<(Bitmap, u64)> {
    let section = "bitmap directory";
    let past = || corrupt(section, at, "an entry reaches past its end".to_owned());
    let failed = |source| Error::io("read the bitmap directory", at)(source);
    if at.checked_add(ENTRY_LEN as u64).is_none_or(|head| head > end) {
        return Err(past());
    }
    let fixed = tables.array::<ENTRY_LEN>(at).map_err(failed)?;
    let (table, entries, flags) = (be64(&fixed, 0), be32(&fixed, 8), be32(&fixed, 12));
    let (kind, granularity_bits) = (fixed[16], fixed[17]);
    let (name_len, extra) = (be16(&fixed, 18), be32(&fixed, 20));
    if !(1..=NAME_MAX).contains(&name_len) {
        return Err(corrupt(section, at, format!("name of {name_len} bytes")));
    }
    let name_at = at + ENTRY_LEN as u64 + u64::from(extra);
    let next = (name_at + u64::from(name_len)).next_multiple_of(8);
    if name_at + u64::from(name_len) > end {
        return Err(past());
    }
    let mut name = vec![0; name_len.into()];
    tables.read(&mut name, name_at).map_err(failed)?;
    let granularity = 1u64.checked_shl(granularity_bits.into()).unwrap_or(0);
    let mut bitmap = Bitmap {
        facts: TrackerFacts {
            kind: KIND,
            name: String::from_utf8_lossy(&name).into_owned(),
            granularity,
            beneath: [0; 32],
            unsound: None,
        },
        tables: tables.clone(),
        len: header.size,
        cluster_len: header.cluster_len(),
        granularity_bits,
        table,
    };
    let why = if header.autoclear & AUTOCLEAR_BITMAPS == 0 {
        Some("a program that does not know bitmaps wrote to the image".to_owned())
    } else if header.is_dirty || flags & IN_USE != 0 {
        Some("it was not closed properly, or the image is in use".to_owned())
    } else if flags & AUTO == 0 {
        Some("it does not record".to_owned())
    } else if flags & !KNOWN != 0 || extra != 0 && flags & EXTRA_COMPATIBLE == 0 {
        Some("it has properties that are not known".to_owned())
    } else if kind != DIRTY_TRACKING || !GRANULARITY.contains(&granularity_bits) {
        Some(format!("type {kind} with 2^{granularity_bits} bytes for a mark is not known"))
    } else {
        bitmap.misplaced(entries)
    };
    bitmap.facts.unsound = why;
    Ok((bitmap, next))
}

impl Bitmap {
    /// Bytes of the disk for which one cluster has the marks.
    fn share(&self) -> u64 {
        // At most 21, 3 and 31 bits.
        (self.cluster_len * 8) << self.granularity_bits
    }

    /// What is wrong with a table of so many entries.
    fn misplaced(&self, entries: u32) -> Option<String> {
        let needed = self.len.div_ceil(self.share());
        let end = self.table.checked_add(needed.saturating_mul(8));
        let inside = end.is_some_and(|end| end <= self.tables.file().len());
        if u64::from(entries) == needed && inside && self.table.is_multiple_of(self.cluster_len) {
            return None;
        }
        Some(format!("table of {entries} entries at {:#x}, the disk needs {needed}", self.table))
    }

    /// The marks of cluster `index`, from the mark `first` up to but without `end`.
    fn scan(&self, index: u64, first: u64, end: u64, runs: &mut Runs) -> io::Result<()> {
        let at = self.table + index * 8;
        let entry = be64(&self.tables.array::<8>(at)?, 0);
        let offset = entry & OFFSET;
        let corrupt = |what: String| Err(corrupt("bitmap table", at, what).into());
        match (offset, entry & !OFFSET) {
            (0, 0) => return Ok(()),
            (0, ALL_ONES) => {
                runs.push(first, end);
                return Ok(());
            }
            (_, 0) => {}
            _ => return corrupt(format!("entry {entry:#x} has reserved bits")),
        }
        let cluster_end = offset.checked_add(self.cluster_len);
        let inside = cluster_end.is_some_and(|end| end <= self.tables.file().len());
        if !offset.is_multiple_of(self.cluster_len) || !inside {
            return corrupt(format!("entry {entry:#x} points outside the file"));
        }
        let base = index * self.cluster_len * 8;
        let mut at = first;
        while at < end && !runs.is_full() {
            // Bytes from the one that has this mark, as many as matter.
            let byte = (at - base) / 8;
            let mut buffer = [0; 512];
            let count = (end - base).div_ceil(8) - byte;
            let count = usize::try_from(count).unwrap_or(usize::MAX).min(buffer.len());
            self.tables.read(&mut buffer[..count], offset + byte)?;
            for (bits, start) in buffer[..count].iter().zip((base + byte * 8..).step_by(8)) {
                if *bits == 0 {
                    continue;
                }
                let set = (0..8).filter(|bit| bits >> bit & 1 == 1).map(|bit| start + bit);
                for mark in set.filter(|mark| (first..end).contains(mark)) {
                    runs.push(mark, mark + 1);
                }
            }
            at = base + (byte + count as u64) * 8;
        }
        Ok(())
    }
}

/// Runs of marks, as many as may be named.
struct Runs {
    found: Vec<(u64, u64)>,
}

impl Runs {
    fn is_full(&self) -> bool {
        self.found.len() >= CHANGED_RUNS_MAX
    }

    fn push(&mut self, first: u64, end: u64) {
        let is_full = self.is_full();
        match self.found.last_mut() {
            Some(last) if last.1 == first => last.1 = end,
            _ if is_full => {}
            _ => self.found.push((first, end)),
        }
    }
}

impl ChangeTracker for Bitmap {
    fn facts(&self) -> &TrackerFacts {
        &self.facts
    }

    fn changed(&self, range: Extent) -> io::Result<Vec<Extent>> {
        if let Some(why) = &self.facts.unsound {
            return Err(io::Error::new(io::ErrorKind::InvalidData, why.clone()));
        }
        let Some(range) = range.intersect(Extent::new(0, self.len)) else {
            return Ok(Vec::new());
        };
        let granularity = self.facts.granularity;
        let (first, end) = (range.start / granularity, range.end().div_ceil(granularity));
        let per_cluster = self.cluster_len * 8;
        let mut runs = Runs { found: Vec::new() };
        let mut at = first;
        while at < end && !runs.is_full() {
            let index = at / per_cluster;
            let cluster_end = (index + 1).saturating_mul(per_cluster).min(end);
            self.scan(index, at, cluster_end, &mut runs)?;
            at = cluster_end;
        }
        if runs.is_full()
            && let Some(last) = runs.found.last_mut()
        {
            // What nobody looked at may be marked.
            last.1 = end;
        }
        let extents = runs.found.iter().filter_map(|(first, end)| {
            let start = first.saturating_mul(granularity);
            Extent::between(start, end.saturating_mul(granularity)).intersect(range)
        });
        Ok(extents.collect())
    }
}
