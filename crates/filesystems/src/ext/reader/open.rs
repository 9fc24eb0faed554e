//! Opening: the superblock or a copy of it, and the journal.

use std::collections::HashMap;
use std::sync::Arc;

use aiv_volume_io::{Job, ReadAt};

use super::super::blocks::{Blocks, JournalCopy};
use super::super::groups::{Group, Proof};
use super::super::journal;
use super::super::reason::{ExtReason, JournalReason};
use super::super::superblock::{
    STATE_CLEAN, STATE_ERRORS, SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE, Superblock,
};
use super::super::used::{mounted_elsewhere, superblock_in};
use super::Reader;
use crate::bytes::{le16, le32};
use crate::reader::Volume;
use crate::stop::Stop;
use crate::{Error, Filesystem, FilesystemKind, ReaderNote, Result};

/// Group descriptors with wrong checksums of which it is asked what is believed in their place.
const LOOKED_AT_MAX: usize = 64;

type Newer = HashMap<u64, JournalCopy>;
type Bytes = [u8; SUPERBLOCK_SIZE];

/// Opens an ext filesystem to read its files.
pub(crate) fn open(
    volume: Volume,
    kind: FilesystemKind,
    job: Job<'_>,
) -> Result<Box<dyn Filesystem>> {
    let (mut superblock, is_copy) = superblock_of(&volume, job)?;
    let mut notes = Vec::new();
    if is_copy {
        notes.push(ReaderNote::CopyUsed { what: "the superblock".to_owned() });
        // Copies are always written as those of a filesystem in use.
        superblock.state = STATE_CLEAN;
    }
    let newer = match is_copy && superblock.has_journal || superblock.needs_recovery {
        // Copies of the superblock do not say whether a journal waits.
        true => journal(&volume, &mut superblock, is_copy, &mut notes, job)?,
        false => HashMap::new(),
    };
    let missing = superblock.geometry.len().saturating_sub(volume.len());
    if missing > 0 {
        notes.push(ReaderNote::CutOff { missing });
        superblock.geometry.blocks = volume.len() / u64::from(superblock.geometry.block_size);
    }
    tell_state(&volume, &superblock, &mut notes)?;
    let mut newer_blocks: Vec<u64> = newer.keys().copied().collect();
    newer_blocks.sort_unstable();
    let newer = Arc::new(newer);
    let mut reader = Reader { kind, volume, superblock, notes, newer, newer_blocks };
    let of_groups = {
        let blocks = reader.blocks();
        let proof_of = |group| Group::inode_table_of(group, &blocks, &reader.superblock);
        let (count, wrong) = Group::wrong_sums(&blocks, &reader.superblock, LOOKED_AT_MAX, job)?;
        let has_copy = matches!(proof_of(0), Ok((_, Proof::Copy)));
        let is_believed = |group: &u32| matches!(proof_of(*group), Ok((_, Proof::Nothing)));
        let believed = wrong.iter().any(is_believed);
        let what = "the first group descriptor".to_owned();
        let copy = has_copy.then_some(ReaderNote::CopyUsed { what });
        copy.into_iter().chain(believed.then_some(ReaderNote::SumsWrong { count }))
    };
    reader.notes.extend(of_groups);
    Ok(Box::new(reader))
}

/// What the state in the superblock says to the user.
fn tell_state(volume: &Volume, superblock: &Superblock, notes: &mut Vec<ReaderNote>) -> Result<()> {
    let blocks = Blocks::on_disk(volume, superblock.geometry.block_size);
    let elsewhere = match mounted_elsewhere(&blocks, superblock) {
        Ok(elsewhere) => elsewhere,
        // Somebody may be there: nobody can say that there is not.
        Err(Stop::Whole(_) | Stop::Failed(Error::Io { .. })) => true,
        Err(Stop::Failed(error)) => return Err(error),
    };
    if superblock.state & STATE_ERRORS != 0 {
        notes.push(ReaderNote::HasErrors);
    }
    let was_told = notes
        .iter()
        .any(|note| matches!(note, ReaderNote::Replayed | ReaderNote::NotReplayed { .. }));
    if !was_told && (elsewhere || superblock.state & STATE_CLEAN == 0) {
        notes.push(ReaderNote::NotUnmounted);
    }
    Ok(())
}

/// The superblock, or (and then `true`) a copy of it.
fn superblock_of(volume: &Volume, job: Job<'_>) -> Result<(Superblock, bool)> {
    let at = SUPERBLOCK_OFFSET as u64;
    let (first, error) = match bytes_at(volume, at) {
        Ok(bytes) => match Superblock::parse_to_read(&bytes) {
            Ok(superblock) => return Ok((superblock, false)),
            Err(ExtReason::UnknownFeatures { bits, class }) => {
                let what = format!("the filesystem has unknown {class} feature bits {bits:#x}");
                return Err(Error::Unsupported { what });
            }
            Err(reason) => (Some(bytes), Error::damaged(reason.to_string(), Some(at))),
        },
        Err(error) => (None, Error::io("read superblock", at)(error)),
    };
    match copy_of(volume, first.as_ref(), job)? {
        Some(copy) => Ok((copy, true)),
        None => Err(error),
    }
}

fn bytes_at(volume: &Volume, offset: u64) -> std::io::Result<Bytes> {
    let mut bytes = [0; SUPERBLOCK_SIZE];
    volume.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

/// A copy of the superblock, from one of the places where `mke2fs` puts some, or where the damaged
/// `first` says they are.
fn copy_of(volume: &Volume, first: Option<&Bytes>, job: Job<'_>) -> Result<Option<Superblock>> {
    let said = first.map(|sb| (le32(sb, 0x18), u64::from(le32(sb, 0x20))));
    // Groups have as many blocks as a block has bits.
    let usual = (0..=6).map(|log| (log, 8 * (1024 << log)));
    for (log, per_group) in said.filter(|(log, _)| *log <= 6).into_iter().chain(usual) {
        let block_size = 1024u64 << log;
        for group in [1, 3, 5, 7, 9, 25, 27] {
            job.check()?;
            let block = per_group * u64::from(group) + u64::from(log == 0);
            let offset = block.saturating_mul(block_size);
            if offset.saturating_add(block_size) > volume.len() {
                break;
            }
            let Ok(bytes) = bytes_at(volume, offset) else { continue };
            let Ok(copy) = Superblock::parse_to_read(&bytes) else { continue };
            // A copy that somebody else left here has its place elsewhere.
            let place = copy.geometry.group_start(group);
            let number = u32::from(le16(&bytes, 0x5a));
            let is_here = place.saturating_mul(copy.geometry.block_size.into()) == offset;
            if is_here && group < copy.geometry.groups && [0, group].contains(&number) {
                return Ok(Some(copy));
            }
        }
    }
    Ok(None)
}

/// What waits in the journal, and the superblock as that will make it.
fn journal(
    volume: &Volume,
    superblock: &mut Superblock,
    is_copy: bool,
    notes: &mut Vec<ReaderNote>,
    job: Job<'_>,
) -> Result<Newer> {
    let why = match read_journal(volume, superblock, job) {
        Ok((newer, after)) => {
            if superblock.needs_recovery || !newer.is_empty() {
                notes.push(ReaderNote::Replayed);
            }
            if let Some(after) = after.filter(|_| !is_copy) {
                superblock.state = after.state;
            }
            return Ok(newer);
        }
        Err(Stop::Whole(reason)) => reason.to_string(),
        Err(Stop::Failed(error @ Error::Io { .. })) => error.to_string(),
        Err(Stop::Failed(error)) => return Err(error),
    };
    notes.push(ReaderNote::NotReplayed { why });
    Ok(HashMap::new())
}

fn read_journal(
    volume: &Volume,
    before: &Superblock,
    job: Job<'_>,
) -> std::result::Result<(Newer, Option<Superblock>), Stop> {
    let on_disk = Blocks::on_disk(volume, before.geometry.block_size);
    let log = journal::read(&on_disk, before, job)?;
    if !log.newer.contains_key(&before.geometry.superblock_block()) {
        return Ok((log.newer, None));
    }
    let newer = Arc::new(log.newer);
    let bytes = superblock_in(&on_disk.replayed(newer.clone()), &before.geometry)?;
    let after = Superblock::parse_to_read(&bytes).ok();
    if let Some(after) = &after
        && (after.geometry != before.geometry || after.checksums != before.checksums)
    {
        return Err(JournalReason::GeometryChanged.into());
    }
    Ok((Arc::unwrap_or_clone(newer), after))
}
