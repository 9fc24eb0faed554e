//! The journal of ext3 and ext4 (JBD2): what a replay would write where.
//!
//! Facts: kernel documentation "ext4 data structures and algorithms", journal (jbd2).

mod file;
mod log;
mod records;
mod superblock;

use std::collections::HashMap;

use aiv_volume_io::{Extent, Job};

use super::blocks::{Blocks, JournalCopy};
use super::reason::JournalReason;
use super::superblock::Superblock;
use crate::stop::Stop;
use file::JournalFile;
use superblock::JournalSuperblock;

/// What a replay of the journal would do.
pub(super) struct Log {
    /// Blocks of the filesystem and the newest committed copy of each.
    pub(super) newer: HashMap<u64, JournalCopy>,
    /// Committed transactions.
    pub(super) transactions: u32,
    /// Bytes of the volume that the journal takes.
    pub(super) places: Vec<Extent>,
}

/// Reads the committed part of the journal that waits to be replayed.
pub(super) fn read(
    blocks: &Blocks<'_>,
    filesystem: &Superblock,
    job: Job<'_>,
) -> Result<Log, Stop> {
    if filesystem.geometry.journal_inode == 0 {
        return Err(JournalReason::External.into());
    }
    let mut file = JournalFile::open(blocks, filesystem, job)?;
    let mut first = vec![0; blocks.block_size()];
    file.read(0, &mut first)?;
    let superblock = JournalSuperblock::parse(&first, file.len())?;
    // Nothing was committed since the journal was last written out.
    if superblock.start == 0 {
        return Ok(Log { newer: HashMap::new(), transactions: 0, places: file.places() });
    }
    log::scan(&mut file, &superblock, filesystem.geometry.blocks, job)
}
