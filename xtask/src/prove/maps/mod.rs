//! Used-block maps of volumes that somebody changed: no panic, no endless reading, little memory,
//! and no map without the records it was read from.

mod files;
mod judge;
mod lvm;
pub(super) mod volumes;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aiv_testkit::Random;
use aiv_testkit::mutants::{Changes, changes};
use aiv_volume_io::{MemDisk, ReadAt, WriteAt};

use super::hang;
use crate::{Outcome, process};
use judge::{Target, Verdict};

/// Mutants of each family in the full tier.
pub(super) const MUTANTS: u64 = 1_000_000;

/// What a map is read from: one parser each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Ext,
    Xfs,
    Btrfs,
    Ntfs,
    Fat,
    ExFat,
    Swap,
    F2fs,
    Lvm,
}

impl Family {
    const ALL: [Self; 9] = [
        Self::Ext,
        Self::Xfs,
        Self::Btrfs,
        Self::Ntfs,
        Self::Fat,
        Self::ExFat,
        Self::Swap,
        Self::F2fs,
        Self::Lvm,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Ext => "ext",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::Ntfs => "ntfs",
            Self::Fat => "fat",
            Self::ExFat => "exfat",
            Self::Swap => "swap",
            Self::F2fs => "f2fs",
            Self::Lvm => "lvm",
        }
    }
}

/// Runs the campaign of the family called `name`, or of all.
pub(super) fn campaign(name: Option<&str>, first: u64, count: u64) -> Outcome {
    let chosen: Vec<Family> =
        Family::ALL.into_iter().filter(|f| name.is_none_or(|name| f.name() == name)).collect();
    if chosen.is_empty() {
        return Err(format!("no family {}: {}", name.unwrap_or(""), names()));
    }
    for family in chosen {
        let tried = run(family, first, count, true)?;
        let end = first.saturating_add(count);
        println!("maps: {}: seeds {first}..{end}, {tried}, 0 failed", family.name());
    }
    Ok(())
}

/// The names of all families.
pub(super) fn names() -> String {
    Family::ALL.map(Family::name).join(", ")
}

/// What came of a number of mutants.
#[derive(Default)]
pub(super) struct Tried {
    mutants: u64,
    volumes: usize,
    maps: u64,
    smaller: u64,
    with_files: u64,
    reasons: BTreeSet<String>,
    read_max: u64,
    time_max: Duration,
    memory_max: u64,
}

impl std::fmt::Display for Tried {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { mutants, volumes, maps, smaller, with_files, reasons, .. } = self;
        let Self { read_max, time_max, memory_max, .. } = self;
        let whole = mutants - maps;
        write!(
            f,
            "{mutants} mutants of {volumes} volumes: {maps} maps ({smaller} leave out more than \
             the original's, {with_files} have files to leave out), {whole} whole for {} kinds of \
             reason; at most {} KiB read, {} KiB of \
             memory, {} ms",
            reasons.len(),
            read_max >> 10,
            memory_max >> 10,
            time_max.as_millis(),
        )
    }
}

impl Tried {
    fn take(&mut self, verdict: Verdict) {
        self.mutants += 1;
        self.maps += u64::from(verdict.reason.is_none());
        self.smaller += u64::from(verdict.smaller);
        self.with_files += u64::from(verdict.files > 0);
        self.reasons.extend(verdict.reason);
        self.read_max = self.read_max.max(verdict.read);
        self.time_max = self.time_max.max(verdict.time);
        self.memory_max = self.memory_max.max(verdict.memory);
    }
}

/// Judges `count` mutants from the seed `first` on. Memory is measured only when this process
/// does nothing else.
fn run(family: Family, first: u64, count: u64, alone: bool) -> Result<Tried, String> {
    let targets = volumes::of(family)?;
    let started = Instant::now();
    let mut tried = Tried { volumes: targets.len(), ..Tried::default() };
    let current = AtomicU64::new(first);
    hang::watched(&format!("maps: {}", family.name()), &current, || {
        for seed in first..first.saturating_add(count) {
            current.store(seed, Ordering::Relaxed);
            tried.take(one(family, &targets, seed, alone)?);
            let begun = seed - first + 1;
            if alone && begun.is_multiple_of(100_000) {
                let seconds = started.elapsed().as_secs();
                println!("maps: {}: {begun} of {count}, {seconds} s", family.name());
            }
        }
        Ok(())
    })?;
    Ok(tried)
}

/// The mutant of a seed: nine in ten have right checksums.
fn one(family: Family, targets: &[Target], seed: u64, alone: bool) -> Result<Verdict, String> {
    let mut random = Random::new(&[seed, 0x6d61_7073]);
    let target = &targets[random.below(targets.len())];
    // Where files are read from, every other time.
    let in_files = !target.files.is_empty() && random.below(2) == 0;
    let records = if in_files { &target.files } else { &target.records };
    let mut changes = changes(&mut random, &target.disk, records);
    if random.below(10) > 0 {
        target.sums.mend(&target.disk, &target.records, &mut changes);
    }
    judge::check(target, &changes, alone).map_err(|why| {
        let kept = keep(family, seed, target, &changes);
        format!("{} seed {seed}, {}: {why}; {kept}", family.name(), target.name)
    })
}

/// Writes a mutant that failed to a file: the next volume that the tools make has other times
/// and identities in it.
fn keep(family: Family, seed: u64, target: &Target, changes: &Changes) -> String {
    let write = || {
        let folder: PathBuf = process::repository().join("target/prove");
        std::fs::create_dir_all(&folder)?;
        let mut bytes = vec![0; usize::try_from(target.disk.len()).unwrap_or(0)];
        target.disk.read_exact_at(&mut bytes, 0)?;
        let disk = MemDisk::from_bytes(bytes);
        for (&at, &value) in changes {
            disk.write_all_at(&[value], at)?;
        }
        let mut bytes = vec![0; usize::try_from(disk.len()).unwrap_or(0)];
        disk.read_exact_at(&mut bytes, 0)?;
        let path = folder.join(format!("{}-{seed}.img", family.name()));
        std::fs::write(&path, bytes)?;
        Ok::<_, std::io::Error>(path)
    };
    match write() {
        Ok(path) => format!("the volume is {}", path.display()),
        Err(error) => format!("the volume could not be kept: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aiv_volume_io::Extent;

    /// Some of the mutants of a family, which reach maps as well as many kinds of reason.
    fn check(family: Family, kinds: usize) {
        let tried = run(family, 1, 1000, false).unwrap();
        assert!(tried.maps > 50, "{tried}");
        assert!(tried.mutants - tried.maps > 100, "{tried}");
        assert!(tried.reasons.len() >= kinds, "{:#?}", tried.reasons);
        let has_files = !matches!(family, Family::Swap | Family::F2fs | Family::Lvm);
        assert!(!has_files || tried.with_files > 50, "{tried}");
    }

    #[test]
    fn mutants_of_ext() {
        check(Family::Ext, 20);
    }

    #[test]
    fn mutants_of_xfs() {
        check(Family::Xfs, 20);
    }

    #[test]
    fn mutants_of_btrfs() {
        check(Family::Btrfs, 20);
    }

    #[test]
    fn mutants_of_ntfs() {
        check(Family::Ntfs, 20);
    }

    #[test]
    fn mutants_of_fat_and_exfat() {
        check(Family::Fat, 10);
        check(Family::ExFat, 15);
    }

    #[test]
    fn mutants_of_f2fs() {
        check(Family::F2fs, 15);
    }

    #[test]
    fn mutants_of_swap_and_lvm() {
        check(Family::Swap, 5);
        check(Family::Lvm, 20);
    }

    #[test]
    fn a_map_without_its_records_is_found() {
        let target = &volumes::of(Family::Swap).unwrap()[0];
        let used = [Extent::new(100, 4000)].into_iter().collect();
        let reads = [Extent::new(0, 4096)];
        let why = judge::missing(target, &used, &reads).unwrap();
        assert!(why.contains("0..512"), "{why}");
    }

    #[test]
    fn checksums_that_are_right_stay_as_they_are() {
        for family in Family::ALL {
            for target in volumes::of(family).unwrap() {
                // The first byte of each record "changes" into itself.
                let same = target.records.iter().map(|record| {
                    let mut byte = [0];
                    target.disk.read_exact_at(&mut byte, record.start).unwrap();
                    (record.start, byte[0])
                });
                let mut changes: Changes = same.collect();
                target.sums.mend(&target.disk, &target.records, &mut changes);
                for (&at, &value) in &changes {
                    let mut byte = [0];
                    target.disk.read_exact_at(&mut byte, at).unwrap();
                    assert_eq!(byte[0], value, "{} byte {at}", target.name);
                }
            }
        }
    }
}
