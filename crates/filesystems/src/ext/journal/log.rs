//! The log: a ring of transactions, each ended by a commit block.

use std::collections::HashMap;

use aiv_volume_io::Job;

use super::super::blocks::JournalCopy;
use super::super::reason::JournalReason;
use super::Log;
use super::file::JournalFile;
use super::records::{RecordKind, kind_of};
use super::superblock::JournalSuperblock;
use crate::stop::Stop;

/// Revoked blocks kept in memory, about 64 MiB. A journal of 1 GiB that holds more would have
/// to consist of little else.
const REVOKES_MAX: usize = 1 << 21;

/// A transaction whose commit block was not seen yet.
#[derive(Default)]
struct Open {
    copies: Vec<(u64, JournalCopy)>,
    revokes: Vec<u64>,
    /// A block of the log that does not match its tag.
    mismatch: Option<u32>,
}

/// Follows the log from its start to the first block that is no record of the next transaction.
///
/// Records carry the number of their transaction, which grows by one with each commit: what an
/// earlier round of the ring left behind has a smaller number and ends the log. So does a
/// transaction without a commit block, of which nothing is replayed. A checksum that does not
/// match is never taken for the end.
pub(super) fn scan(
    file: &mut JournalFile<'_>,
    journal: &JournalSuperblock,
    filesystem_blocks: u64,
    job: Job<'_>,
) -> Result<Log, Stop> {
    // Transaction (counted from zero) and copy, of each block.
    let mut newer: HashMap<u64, (u32, JournalCopy)> = HashMap::new();
    let mut revoked: HashMap<u64, u32> = HashMap::new();
    let mut open = Open::default();
    let mut transaction = 0u32;
    let mut at = journal.start;
    let mut left = journal.len - journal.first;
    let mut block = vec![0; file.block_size()];
    loop {
        job.check()?;
        let damaged = |what| JournalReason::Damaged { what, block: u64::from(at) };
        if left == 0 {
            // The kernel never lets the head of the log reach its tail.
            return Err(damaged("no end of the log").into());
        }
        file.read(at, &mut block)?;
        let sequence = journal.sequence.wrapping_add(transaction);
        let Some(kind) = kind_of(&block, sequence) else { break };
        let mut blocks_of_record = 1;
        match kind {
            RecordKind::Descriptor => {
                if !journal.tail_is_right(&block) {
                    return Err(damaged("checksum of a descriptor block").into());
                }
                let tags = journal.tags_of(&block);
                blocks_of_record += u32::try_from(tags.len()).unwrap_or(u32::MAX);
                if blocks_of_record > left {
                    return Err(damaged("more blocks than the log has").into());
                }
                for (tag, n) in tags.iter().zip(1..) {
                    if tag.block >= filesystem_blocks {
                        return Err(damaged("a block outside the filesystem").into());
                    }
                    let data_at = journal.advance(at, n);
                    if journal.seed.is_some() {
                        file.read(data_at, &mut block)?;
                        if !tag.matches(journal, sequence, &block) {
                            open.mismatch = Some(data_at);
                        }
                    }
                    let offset = file.offset_of(data_at)?;
                    open.copies.push((tag.block, JournalCopy { offset, escaped: tag.escaped }));
                }
            }
            RecordKind::Revoke => {
                if !journal.tail_is_right(&block) {
                    return Err(damaged("checksum of a revoke block").into());
                }
                let blocks = journal.revoked_by(&block).ok_or_else(|| damaged("a revoke block"))?;
                open.revokes.extend(blocks);
                if open.revokes.len() + revoked.len() > REVOKES_MAX {
                    return Err(damaged("too many revoked blocks").into());
                }
            }
            RecordKind::Commit => {
                if !journal.commit_is_right(&block) {
                    return Err(damaged("checksum of a commit block").into());
                }
                let Open { copies, revokes, mismatch } = std::mem::take(&mut open);
                if let Some(block) = mismatch {
                    let what = "checksum of a logged block";
                    return Err(JournalReason::Damaged { what, block: u64::from(block) }.into());
                }
                newer.extend(copies.into_iter().map(|(block, copy)| (block, (transaction, copy))));
                revoked.extend(revokes.into_iter().map(|block| (block, transaction)));
                transaction = transaction.saturating_add(1);
            }
        }
        at = journal.advance(at, blocks_of_record);
        left -= blocks_of_record;
    }
    // A revoke voids every copy up to and including its own transaction.
    newer.retain(|block, (logged, _)| revoked.get(block).is_none_or(|revoke| *revoke < *logged));
    let newer = newer.into_iter().map(|(block, (_, copy))| (block, copy)).collect();
    Ok(Log { newer, transactions: transaction, places: file.places() })
}
