//! Partition tables: what a disk says about its own layout, how far to trust it, and what the
//! table would be on another disk. Nothing here writes.
//!
//! [`read_table`] understands GPT (both copies), MBR with chains of logical partitions, and the
//! mixtures found on real disks. A damaged table is described by [`TableProblem`] values and
//! never an error: the bytes of the disk are worth keeping whatever its table looks like.
//! [`regions`] then assigns every byte of the disk to exactly one owner. A [`Draft`] is a sound
//! table placed on a larger or smaller disk, or one with other sectors.
//!
//! Numbers, offsets and extents are those of the table and may lie; nothing in this module
//! checks what a partition contains. Names come from the disk unescaped.
//!
//! ```
//! use aiv_volume_io::MemDisk;
//! use aiv_volume_io::partition::{self, RegionKind, SectorSize, TableKind};
//!
//! let blank = MemDisk::from_bytes(vec![0; 1 << 20]);
//! let table = partition::read_table(&blank, SectorSize::B512)?;
//! assert_eq!(table.kind, TableKind::None);
//! let regions = partition::regions(&table, 1 << 20);
//! assert_eq!((regions.len(), regions[0].kind), (1, RegionKind::Gap));
//! # Ok::<(), aiv_volume_io::Error>(())
//! ```
//!
//! Facts come from the UEFI Specification 2.10, chapter 5 (GPT, protective MBR, legacy MBR),
//! and, for logical partitions, from what the Linux kernel accepts, so that partition 6 here
//! is partition 6 there.

mod checks;
mod crc32;
mod detect;
mod draft;
mod ebr;
mod front;
mod gpt;
mod guid;
mod mbr;
mod problem;
mod read;
mod regions;
mod sectors;
mod table;

pub use detect::detect_sector_size;
pub use draft::{Draft, Patch, Unfit};
pub use guid::{Guid, ParseGuidError};
pub use problem::{EbrFault, GptCopy, GptFault, TableProblem};
pub use read::read_table;
pub use regions::{Region, RegionKind, regions};
pub use sectors::SectorSize;
pub use table::{
    DiskId, Partition, PartitionKind, PartitionTable, TableArea, TableAreaKind, TableKind,
};

/// Partitions per disk. Image files describe at most as many, and real tables hold a few
/// dozen: the rest of a larger table is reported and its bytes kept as gaps.
pub const PARTITIONS_MAX: usize = 1_024;

/// Bytes of one GPT entry array: eight entries of 128 bytes for each partition we accept.
/// The usual array is 16 KiB; a header may claim 2^63, and each copy is held in memory.
pub const GPT_ENTRY_ARRAY_MAX: u64 = 1 << 20;

/// Copies the `N` bytes at `at` out of a record whose length the caller has checked.
fn field<const N: usize>(record: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&record[at..at + N]);
    bytes
}
