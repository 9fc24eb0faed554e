//! What is asked of the map of one mutant.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use aiv_filesystems::{Recognised, UsedMap, recognise, used_map};
use aiv_testkit::mutants::{Changes, Mutated, Sums, total_len};
use aiv_volume_io::{Extent, ExtentSet, Job, MemDisk, ReadAt};

use super::{Family, files};
use crate::prove::memory::{peak, peak_from_here};
use crate::prove::said;

/// Longest that a mutant may take, on a busy machine.
const TIME_MAX: Duration = Duration::from_secs(20);
/// Memory that a map of a volume of some mebibytes may take.
const MEMORY_MAX: u64 = 64 << 20;
/// Stretches longer than this are changed in pieces, and not where all bytes are alike: the
/// unused part of a log would swallow most changes.
const RECORD_MAX: u64 = 64 << 10;
const PIECE: usize = 4 << 10;

/// A sound volume, and what its map is read from.
pub(super) struct Target {
    pub(super) name: String,
    pub(super) disk: MemDisk,
    pub(super) records: Vec<Extent>,
    /// What its files are read from, where there are any to leave out.
    pub(super) files: Vec<Extent>,
    pub(super) sums: Sums,
    family: Family,
    recognised: Recognised,
    used: ExtentSet,
}

/// What came of one mutant.
pub(super) struct Verdict {
    /// Why there is no map, without its numbers.
    pub(super) reason: Option<String>,
    /// Whether something is missing from the map that is in the original's.
    pub(super) smaller: bool,
    /// Files that may be left out.
    pub(super) files: u64,
    pub(super) read: u64,
    pub(super) time: Duration,
    pub(super) memory: u64,
}

impl Target {
    /// Reads the map of an unchanged volume, which must have one.
    pub(super) fn new(family: Family, name: &str, bytes: Vec<u8>) -> Result<Self, String> {
        let disk = MemDisk::from_bytes(bytes);
        let sums = match family {
            Family::Ext => Sums::Ext,
            Family::Xfs => Sums::Xfs,
            Family::Btrfs => Sums::Btrfs,
            Family::Ntfs => Sums::Ntfs,
            Family::ExFat => Sums::ExFat,
            Family::F2fs => Sums::F2fs,
            Family::Lvm => Sums::Lvm,
            Family::Fat | Family::Swap => Sums::None,
        };
        let recognised = recognise(&disk).map_err(|error| said(&error))?;
        let unchanged = Changes::new();
        let recorder = Mutated::new(&disk, &unchanged);
        let map = used_map(&recorder, &recognised, Job::silent()).map_err(|error| said(&error))?;
        let UsedMap::Used { used, .. } = &map else {
            return Err(format!("{name} has no map: {map:?}"));
        };
        let used = used.clone();
        let files = match family {
            Family::Swap | Family::F2fs | Family::Lvm => Vec::new(),
            _ => files::reads(&disk, &recognised, &map)?,
        };
        let files = self::records(&disk, files);
        let mut records = records(&disk, recorder.take_reads());
        match family {
            // The fields, in pages that are zeros elsewhere.
            Family::Swap => records.insert(0, Extent::new(1024, 64)),
            Family::F2fs => {
                // Most of the node table is empty, and would swallow most changes.
                records.retain(|record| record.len != PIECE as u64 || !is_uniform(&disk, *record));
                records.insert(0, Extent::new(1024, 108));
            }
            _ => {}
        }
        let name = name.to_owned();
        Ok(Self { name, disk, records, files, sums, family, recognised, used })
    }
}

impl Target {
    /// Whether what was read for a map is the filesystem's own.
    fn owns(&self, read: &Extent) -> bool {
        match self.family {
            // Looked at without being the filesystem's: shadow copies and an old boot sector.
            Family::Ntfs => *read != Extent::new(7680, 128) && read.len != 512,
            // What lies in a logical volume may be free there.
            Family::Lvm => read.start < 1 << 20,
            _ => true,
        }
    }
}

/// Each read once, in pieces.
fn records(disk: &MemDisk, reads: Vec<Extent>) -> Vec<Extent> {
    let mut records: Vec<Extent> = Vec::new();
    for read in reads.into_iter().filter(|read| !read.is_empty()) {
        if read.len <= RECORD_MAX {
            records.push(read);
            continue;
        }
        for at in (read.start..read.end()).step_by(PIECE) {
            let piece = Extent::between(at, read.end().min(at + PIECE as u64));
            if !is_uniform(disk, piece) {
                records.push(piece);
            }
        }
    }
    let mut seen = std::collections::HashSet::new();
    records.retain(|&record| seen.insert(record));
    records
}

/// Whether all bytes are the same.
fn is_uniform(disk: &MemDisk, extent: Extent) -> bool {
    let mut bytes = vec![0; usize::try_from(extent.len).unwrap_or(0)];
    disk.read_exact_at(&mut bytes, extent.start).is_err()
        || bytes.iter().all(|byte| Some(byte) == bytes.first())
}

/// Reads the map of a mutant, and judges it.
pub(super) fn check(target: &Target, changes: &Changes, alone: bool) -> Result<Verdict, String> {
    let budget = (4 << 20) + 4 * target.disk.len();
    let mutated = Mutated::with_budget(&target.disk, changes, budget);
    let before = if alone { peak_from_here()? } else { 0 };
    let started = Instant::now();
    let answer = catch_unwind(AssertUnwindSafe(|| {
        // Whatever it looks like now; the parser is that of the original in any case.
        recognise(&mutated)?;
        let recognising = total_len(&mutated.take_reads());
        let map = used_map(&mutated, &target.recognised, Job::silent())?;
        Ok::<_, aiv_filesystems::Error>((recognising, map))
    }));
    let time = started.elapsed();
    let memory = if alone { peak()?.saturating_sub(before) } else { 0 };
    let (recognising, map) = match answer {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(said(&error)),
        Err(_) => return Err("it panicked".to_owned()),
    };
    if time > TIME_MAX {
        return Err(format!("it took {} ms", time.as_millis()));
    }
    if memory > MEMORY_MAX {
        return Err(format!("it took {memory} bytes of memory"));
    }
    let reads = mutated.take_reads();
    let read = recognising + total_len(&reads);
    let UsedMap::Used { used, cluster_size, .. } = &map else {
        let UsedMap::Whole { reason } = &map else {
            return Err("another kind of map".to_owned());
        };
        let reason = Some(without_numbers(&reason.to_string()));
        return Ok(Verdict { reason, smaller: false, files: 0, read, time, memory });
    };
    if !cluster_size.is_power_of_two() || !(256..=1 << 30).contains(cluster_size) {
        return Err(format!("clusters of {cluster_size} bytes"));
    }
    if let Some(last) = used.runs().last().filter(|last| last.end() > target.disk.len()) {
        return Err(format!("the map reaches to {last:?}"));
    }
    if let Some(why) = missing(target, used, &reads) {
        return Err(why);
    }
    let smaller = target.used.runs().iter().any(|run| used.within(*run).next() != Some(*run));
    let files = if target.files.is_empty() {
        0
    } else {
        let records: Vec<Extent> = reads.into_iter().filter(|read| target.owns(read)).collect();
        files::check(&target.disk, changes, &target.recognised, &map, &records)?
    };
    Ok(Verdict { reason: None, smaller, files, read, time, memory })
}

/// A record that the map was read from and leaves out.
pub(super) fn missing(target: &Target, used: &ExtentSet, reads: &[Extent]) -> Option<String> {
    let record = |read: Extent| match target.family {
        // Signatures of others behind the first page.
        Family::Swap => Extent::new(read.start, read.len.min(512)),
        _ => read,
    };
    let reads = reads.iter().copied().filter(|read| !read.is_empty());
    let mut records = reads.filter(|read| target.owns(read)).map(record);
    let lost = records.find(|record| used.within(*record).next() != Some(*record))?;
    Some(format!("the map leaves out {lost:?}, from which it was read"))
}

/// A sentence with numbers and names taken out, so that sentences of one kind are equal.
fn without_numbers(text: &str) -> String {
    let mut kind = Vec::new();
    for word in text.split(' ') {
        let number = word.bytes().any(|byte| byte.is_ascii_digit() || !byte.is_ascii());
        let name = matches!(kind.last(), Some(&("property" | "part")));
        kind.push(if number || name || word.contains(['"', '/']) { "#" } else { word });
    }
    kind.join(" ")
}
