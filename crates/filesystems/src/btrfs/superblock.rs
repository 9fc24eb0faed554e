//! The superblock at 64 KiB, which is the one that gets mounted, and its copies.

use aiv_volume_io::{Extent, ReadAt};

use super::checksum::Algorithm;
use super::features::Features;
use super::reason::BtrfsReason;
use crate::Error;
use crate::bytes::{array, le16, le32, le64};
use crate::stop::Stop;

const MAGIC: [u8; 8] = *b"_BHRfS_M";
pub(super) const LEN: u64 = 4096;
/// The first, and the copies on larger devices.
pub(super) const OFFSETS: [u64; 3] = [64 << 10, 64 << 20, 256 << 30];
/// The first MiB is set aside for boot loaders; no chunk is allocated there.
pub(super) const RESERVED: u64 = 1 << 20;
/// Levels of a tree, leaves being level 0.
pub(super) const LEVELS_MAX: u8 = 8;
const SYS_CHUNKS_AT: usize = 0x32b;
const SYS_CHUNKS_LEN: usize = 2048;
/// Set on everything that was ever written.
const FLAG_WRITTEN: u64 = 1;
const FLAG_ERROR: u64 = 1 << 2;

/// Where a tree begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Root {
    pub(super) logical: u64,
    pub(super) generation: u64,
    /// Less than [`LEVELS_MAX`].
    pub(super) level: u8,
}

/// What is said about the device, here and in the chunk tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) id: u64,
    pub(super) total_bytes: u64,
    /// Bytes in chunks.
    pub(super) bytes_used: u64,
    uuid: [u8; 16],
}

impl Device {
    pub(super) const LEN: usize = 98;

    /// A device item, which `bytes` are as long as.
    pub(super) fn parse(bytes: &[u8]) -> Self {
        Self {
            id: le64(bytes, 0),
            total_bytes: le64(bytes, 8),
            bytes_used: le64(bytes, 16),
            uuid: array(bytes, 66),
        }
    }
}

/// What the superblock says, checked.
#[derive(Debug)]
pub(super) struct Superblock {
    pub(super) algorithm: Algorithm,
    pub(super) features: Features,
    /// The identity that tree blocks carry.
    pub(super) fsid: [u8; 16],
    pub(super) generation: u64,
    pub(super) root: Root,
    pub(super) chunk_root: Root,
    /// Present when something was synced since the last commit.
    pub(super) log_root: Option<Root>,
    pub(super) sector_size: u32,
    pub(super) node_size: u32,
    pub(super) bytes_used: u64,
    /// Whether a kernel found the filesystem damaged.
    pub(super) has_error: bool,
    /// The part of the volume that belongs to the filesystem.
    pub(super) device: Device,
    /// Keys and items of the chunks that hold the chunk tree.
    pub(super) sys_chunks: Vec<u8>,
    /// A copy is damaged or of an older generation.
    pub(super) copies_differ: bool,
}

impl Superblock {
    pub(super) fn read(volume: &dyn ReadAt) -> Result<Self, Stop> {
        let Some(bytes) = read_at(volume, OFFSETS[0])? else {
            return Err(BtrfsReason::NoSuperblock.into());
        };
        if array(&bytes, 0x40) != MAGIC {
            return Err(BtrfsReason::NoSuperblock.into());
        }
        let mut superblock = Self::parse(&bytes, OFFSETS[0], Some(volume.len()))?;
        superblock.compare_copies(volume, &bytes)?;
        Ok(superblock)
    }

    /// The superblock through which files are read, and whether it is a copy that stands in for
    /// the first: the newest that is sound. Files can be read of filesystems that have other
    /// devices as well, are marked as damaged, or end behind the volume.
    pub(super) fn read_for_files(volume: &dyn ReadAt) -> Result<(Self, bool), Stop> {
        let mut first_failure = None;
        let mut best: Option<Self> = None;
        for offset in OFFSETS {
            let read = read_at(volume, offset).and_then(|bytes| {
                let bytes = bytes.filter(|bytes| array(bytes, 0x40) == MAGIC);
                let bytes = bytes.ok_or(BtrfsReason::NoSuperblock)?;
                Ok(Self::parse(&bytes, offset, None)?)
            });
            match read {
                Ok(superblock) if offset == OFFSETS[0] => return Ok((superblock, false)),
                Ok(superblock) => {
                    let newest = best.as_ref().map_or(0, |best| best.generation);
                    best = if superblock.generation > newest { Some(superblock) } else { best };
                }
                Err(failure) => {
                    first_failure.get_or_insert(failure);
                }
            }
        }
        let failure = first_failure.unwrap_or_else(|| BtrfsReason::NoSuperblock.into());
        best.map(|best| (best, true)).ok_or(failure)
    }

    /// The superblocks of the filesystem in whole sectors, where data never are.
    pub(super) fn places(&self) -> impl Iterator<Item = Extent> + use<> {
        let (end, len) = (self.device.total_bytes, LEN.max(self.sector_size.into()));
        OFFSETS
            .into_iter()
            .filter(move |at| at + LEN <= end)
            .map(move |at| Extent::between(at, (at + len).min(end)))
    }

    /// Where the last whole sector of the filesystem ends.
    pub(super) fn end(&self) -> u64 {
        let total_bytes = self.device.total_bytes;
        total_bytes - total_bytes % u64::from(self.sector_size)
    }

    /// The superblock at `offset`. Only for files, unless the length of the volume is given.
    fn parse(bytes: &[u8], offset: u64, volume_len: Option<u64>) -> Result<Self, BtrfsReason> {
        let algorithm = Algorithm::of_type(le16(bytes, 0xc4))?;
        if !algorithm.is_right(bytes) {
            return Err(BtrfsReason::Checksum { section: "superblock", offset });
        }
        let features = match volume_len {
            Some(_) => Features::check(bytes)?,
            None => Features::check_for_files(bytes)?,
        };
        expect("bytenr", le64(bytes, 0x30), offset)?;
        if volume_len.is_some() {
            let bits = le64(bytes, 0x38) & !FLAG_WRITTEN;
            if bits != 0 {
                return Err(BtrfsReason::Flags { bits });
            }
            let devices = le64(bytes, 0x88);
            if devices != 1 {
                return Err(BtrfsReason::Devices { count: devices });
            }
        }
        let [sector_size, node_size, leaf_size] = [0x90, 0x94, 0x98].map(|at| le32(bytes, at));
        power_of_two("sectorsize", sector_size, 4096)?;
        power_of_two("nodesize", node_size, sector_size)?;
        expect("leafsize", leaf_size.into(), node_size.into())?;
        let device = Device::parse(&bytes[0xc9..][..Device::LEN]);
        let filesystem = device.total_bytes;
        if let Some(volume) = volume_len.filter(|&len| filesystem > len) {
            return Err(BtrfsReason::LargerThanVolume { filesystem, volume });
        }
        if filesystem <= RESERVED {
            return Err(field("dev_item.total_bytes", filesystem, "more than 1 MiB"));
        }
        let sys_chunks_len = le32(bytes, 0xa0);
        let sys_chunks = usize::try_from(sys_chunks_len)
            .ok()
            .and_then(|len| bytes[SYS_CHUNKS_AT..][..SYS_CHUNKS_LEN].get(..len))
            .ok_or_else(|| field("sys_chunk_array_size", sys_chunks_len.into(), "0 to 2048"))?
            .to_vec();
        let generation = le64(bytes, 0x48);
        // Generations count commits, and the log is of the one that has not happened.
        if generation == 0 || generation == u64::MAX {
            return Err(field("generation", generation, "neither 0 nor the last number"));
        }
        let root = |name, at, generation, level: usize| {
            let root = Root { logical: le64(bytes, at), generation, level: bytes[level] };
            if root.level >= LEVELS_MAX {
                return Err(field(name, root.level.into(), "a level below 8"));
            }
            Ok(root)
        };
        let chunk_generation = le64(bytes, 0xa4);
        if chunk_generation > generation {
            return Err(field("chunk_root_generation", chunk_generation, "that of the superblock"));
        }
        let fsid = array(bytes, if features.metadata_uuid { 0x23b } else { 0x20 });
        Ok(Self {
            algorithm,
            features,
            fsid,
            generation,
            root: root("root_level", 0x50, generation, 0xc6)?,
            chunk_root: root("chunk_root_level", 0x58, chunk_generation, 0xc7)?,
            log_root: match le64(bytes, 0x60) {
                0 => None,
                _ => Some(root("log_root_level", 0x60, generation + 1, 0xc8)?),
            },
            sector_size,
            node_size,
            bytes_used: le64(bytes, 0x78),
            has_error: le64(bytes, 0x38) & FLAG_ERROR != 0,
            device,
            sys_chunks,
            copies_differ: false,
        })
    }

    /// Copies are written at every commit, though not when the log is synced. One that is newer
    /// than the first tells of a commit the first has lost.
    fn compare_copies(&mut self, volume: &dyn ReadAt, first: &[u8]) -> Result<(), Stop> {
        for place in self.places().skip(1) {
            let offset = place.start;
            let Some(copy) = read_at(volume, offset)? else { continue };
            let sound = array(&copy, 0x40) == MAGIC
                && copy[0x20..0x30] == first[0x20..0x30]
                && le64(&copy, 0x30) == offset
                && le16(&copy, 0xc4) == le16(first, 0xc4)
                && self.algorithm.is_right(&copy);
            let generation = le64(&copy, 0x48);
            if sound && generation > self.generation {
                let (superblock, copy) = (self.generation, generation);
                return Err(BtrfsReason::NewerCopy { offset, superblock, copy }.into());
            }
            self.copies_differ |= !sound || generation < self.generation;
        }
        Ok(())
    }
}

fn read_at(volume: &dyn ReadAt, offset: u64) -> Result<Option<Vec<u8>>, Stop> {
    if volume.len() < offset + LEN {
        return Ok(None);
    }
    let mut bytes = vec![0; 4096];
    volume.read_exact_at(&mut bytes, offset).map_err(Error::io("read superblock", offset))?;
    Ok(Some(bytes))
}

fn power_of_two(name: &'static str, found: u32, min: u32) -> Result<(), BtrfsReason> {
    if found.is_power_of_two() && (min..=65_536).contains(&found) {
        return Ok(());
    }
    Err(field(name, found.into(), format!("a power of two, {min} to 65536")))
}

fn expect(name: &'static str, found: u64, expected: u64) -> Result<(), BtrfsReason> {
    if found == expected { Ok(()) } else { Err(field(name, found, expected)) }
}

fn field(field: &'static str, found: u64, allowed: impl ToString) -> BtrfsReason {
    BtrfsReason::Field { field, found, allowed: allowed.to_string() }
}
