//! Superblocks of format 0.90, in the last whole 64 KiB that begin at a multiple of 64 KiB.

use aiv_volume_io::{Extent, ReadAt};

use super::{MAGIC, RAID1, Role, Superblock, folded};
use crate::bytes::{be32, le32};
use crate::{Error, Result};

const LEN: usize = 4096;
const RESERVED: u64 = 64 << 10;
/// Word in which the record of this member begins.
const THIS_DISK: usize = 992;
const CHECKSUM: usize = 38;
/// Bits of the state of a member.
const FAULTY: u32 = 1;
const ACTIVE: u32 = 2;
const IN_SYNC: u32 = 4;
/// Bit of the state of the array: nothing was being written, and all members are the same.
const CLEAN: u32 = 1;

pub(super) fn read(member: &dyn ReadAt) -> Result<Option<Superblock>> {
    let Some(at) = (member.len() & !(RESERVED - 1)).checked_sub(RESERVED) else { return Ok(None) };
    let mut record = [0; LEN];
    member.read_exact_at(&mut record, at).map_err(Error::io("read md superblock", at))?;
    let word: fn(&[u8], usize) -> u32 = match () {
        () if le32(&record, 0) == MAGIC => le32,
        () if be32(&record, 0) == MAGIC => be32,
        () => return Ok(None),
    };
    let field = |at: usize| word(&record, at * 4);
    let wrong = |what: &str| Error::damaged(format!("md superblock: {what}"), Some(at));
    if (field(1), field(2)) != (0, 90) {
        return Err(wrong("it is of an unknown version"));
    }
    let summed = (0..LEN / 4).filter(|at| *at != CHECKSUM).map(field);
    if folded(summed) != field(CHECKSUM) {
        return Err(wrong("its checksum is wrong"));
    }
    let level = i32::from_ne_bytes(field(7).to_ne_bytes());
    let state = field(THIS_DISK + 4);
    let role = match state {
        state if state & FAULTY != 0 => Role::Failed,
        state if state & (ACTIVE | IN_SYNC) == ACTIVE | IN_SYNC => Role::Data(field(THIS_DISK + 3)),
        // Linear arrays and those of one chunk after another never are out of step.
        _ if level != RAID1 && state & ACTIVE != 0 => Role::Data(field(THIS_DISK + 3)),
        _ => Role::Spare,
    };
    let is_in_sync = field(33) & CLEAN != 0;
    Ok(Some(Superblock {
        level,
        members: field(10),
        role,
        data: Extent::new(0, at),
        used: u64::from(field(8)) << 10,
        chunk: u64::from(field(65)),
        layout: field(64),
        array: None,
        events: 0,
        doubt: None,
        is_in_sync,
    }))
}
