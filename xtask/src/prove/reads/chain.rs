//! The chains that are damaged: every way images are stored in, each by itself and with all others.

use std::fmt;

use aiv_backup_engine::{BackupOptions, BackupReport, Compression, Hedge, Mode, SealOptions};
use aiv_image_format::limits::SEGMENT_BYTES_MIN;
use aiv_image_format::{ChainKey, Keys, first_segment_name};
use aiv_keys::{KeyArea, KeyFile, NewSlot, Way};
use aiv_testkit::{MemStorage, Random};

use super::super::disk::{self, BLOCK};
use super::super::said;
use super::super::scenario::{Maker, random_options};

/// Points of a chain.
const POINTS: usize = 3;
/// Blocks of a piece of work of an increment: differences within an image cross their borders.
const SECTION: usize = 128;
const PAGE: usize = 4096;

/// How the images of a chain are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind {
    /// What their key is for, if they have one.
    pub(super) mode: Option<Mode>,
    pub(super) is_split: bool,
    pub(super) has_parity: bool,
    /// Whether blocks are differences to others of their image.
    pub(super) has_locals: bool,
}

impl Kind {
    /// So many seeds in a row have all kinds.
    pub(super) const COUNT: u64 = 24;

    pub(super) fn of(seed: u64) -> Self {
        let kind = seed % Self::COUNT;
        let has = |every: u64| (kind / every) % 2 == 1;
        let mode = match kind % 3 {
            0 => None,
            1 => Some(Mode::Sealed),
            _ => Some(Mode::Authenticated),
        };
        Self { mode, is_split: has(3), has_parity: has(6), has_locals: has(12) }
    }

    pub(super) fn is_sealed(self) -> bool {
        self.mode == Some(Mode::Sealed)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = match self.mode {
            None => "plain",
            Some(Mode::Sealed) => "sealed",
            Some(Mode::Authenticated) => "authenticated",
        };
        f.write_str(mode)?;
        let also = [
            (self.is_split, "split"),
            (self.has_parity, "with parity"),
            (self.has_locals, "with differences within"),
        ];
        also.iter().filter(|(has, _)| *has).try_for_each(|(_, name)| write!(f, ", {name}"))
    }
}

/// A recovery point of a chain.
pub(super) struct Made {
    pub(super) report: BackupReport,
    /// What the disk held.
    pub(super) bytes: Vec<u8>,
}

/// A chain, and what its points hold.
pub(super) struct Chain {
    pub(super) storage: MemStorage,
    pub(super) kind: Kind,
    pub(super) points: Vec<Made>,
}

/// The key of all chains that have one.
pub(super) fn key() -> ChainKey {
    ChainKey::new([0x5a; 32])
}

impl Chain {
    pub(super) fn of(seed: u64) -> Result<Self, String> {
        let kind = Kind::of(seed);
        Self::made(seed, kind, |_| ()).map_err(|why| format!("{kind}: {why}"))
    }

    /// A chain of a kind, whose backups are made as `choose` makes of their options.
    pub(super) fn made(
        seed: u64,
        kind: Kind,
        choose: impl Fn(&mut BackupOptions),
    ) -> Result<Self, String> {
        let (mut random, mut maker) = (Random::new(&[seed, 0x7265_6164]), Maker::new(seed));
        let (storage, mut points) = (MemStorage::new(), Vec::new());
        let mut disk = disk::new_disk(&mut random);
        for number in 0..POINTS {
            if kind.has_locals {
                repeat(&mut disk, &mut random);
            }
            let mut options = of_kind(kind, number, &mut random)?;
            choose(&mut options);
            let report = maker.back_up(&disk, &storage, options)?;
            points.push(Made { report, bytes: disk.clone() });
            disk::change(&mut disk, &mut random);
        }
        Ok(Self { storage, kind, points })
    }

    /// The names of all its files.
    pub(super) fn files(&self) -> Vec<String> {
        let mut names = self.storage.names();
        names.retain(|name| {
            let first = first_segment_name(name).unwrap_or(name);
            self.points.iter().any(|made| made.report.image == first)
        });
        names
    }
}

fn of_kind(kind: Kind, number: usize, random: &mut Random) -> Result<BackupOptions, String> {
    let mut options = random_options(random);
    if kind.is_split {
        options.split = Some(SEGMENT_BYTES_MIN << random.below(3));
    }
    options.parity = kind.has_parity;
    if kind.has_locals {
        options.repeat_distance = Some(0);
        if options.compression == Compression::None {
            options.compression = Compression::Zstd(1);
        }
    }
    options.seal = kind.mode.map(|mode| seal(mode, number)).transpose()?;
    Ok(options)
}

/// Keys as people have them, but for passphrases: those are meant to cost much.
fn seal(mode: Mode, number: usize) -> Result<SealOptions, String> {
    let file = KeyFile::new(&[9; 32]).map_err(|e| said(&e))?;
    let random = &[7; NewSlot::RANDOM];
    let slot = NewSlot { way: Way::KeyFile(&file), label: "", created_unix_ms: 0, random };
    let area = KeyArea::new(&key(), &slot).map_err(|e| said(&e))?;
    let keys = if number == 0 { Keys::none() } else { Keys::of(key()) };
    let (retired, begun, padding) = (Vec::new(), Vec::new(), number == 1);
    let hedge = Hedge { time_ns: number as u128, ..Hedge::default() };
    Ok(SealOptions { mode: Some(mode), keys, retired, fresh: (key(), area), begun, padding, hedge })
}

/// Makes the end of a disk a copy of its beginning, some pages further: new blocks there are no equal
/// ones of any, and lie behind a whole section.
fn repeat(disk: &mut Vec<u8>, random: &mut Random) {
    let (blocks, shift) = (12 + random.below(20), 1 + random.below(BLOCK / PAGE - 1));
    let noise_end = SECTION * BLOCK;
    let len = noise_end + blocks * BLOCK + random.below(BLOCK);
    disk.resize(len, 0);
    random.fill(&mut disk[..blocks * BLOCK]);
    disk.copy_within(..blocks * BLOCK - shift * PAGE, noise_end + shift * PAGE);
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use aiv_image_format::{Features, peek};
    use aiv_volume_io::Storage;

    use super::*;

    impl Chain {
        pub(in super::super) fn assert_is_what_it_is_called(&self) {
            let kind = self.kind;
            let locals: u64 = self.points.iter().map(|m| m.report.totals.blocks_local).sum();
            assert_eq!(locals > 0, kind.has_locals, "{kind}: {locals}");
            assert_eq!(self.files().len() > POINTS + 1, kind.is_split, "{kind}");
            for made in &self.points {
                let superblock = peek(&*self.storage.open(&made.report.image).unwrap()).unwrap();
                assert_eq!(superblock.is_sealed(), kind.is_sealed(), "{kind}");
                assert_eq!(superblock.is_keyed(), kind.mode.is_some(), "{kind}");
                let has = |bit| superblock.features.incompat & bit != 0;
                assert_eq!(has(Features::PARITY), kind.has_parity, "{kind}");
                assert_eq!(has(Features::SPLIT), kind.is_split, "{kind}");
            }
        }
    }

    #[test]
    fn so_many_seeds_in_a_row_have_every_kind() {
        let kinds: HashSet<String> =
            (1..=Kind::COUNT).map(|seed| Kind::of(seed).to_string()).collect();
        assert_eq!(kinds.len() as u64, Kind::COUNT);
    }
}
