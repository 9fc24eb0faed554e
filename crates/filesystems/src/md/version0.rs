//! Superblocks of format 0.90, in the last whole 64 KiB that begin at a multiple of 64 KiB.

use aiv_volume_io::{Extent, ReadAt};

use super::{LINEAR, MAGIC, RAID0, Role, Superblock, folded};
use crate::bytes::{be32, le32};
use crate::{Error, Result};

const LEN: usize = 4096;
const RESERVED: u64 = 64 << 10;
/// Word in which the record of this member begins.
const THIS_DISK: usize = 992;
const CHECKSUM: usize = 38;
/// Words of the identity of the array.
const IDENTITY: [usize; 4] = [5, 13, 14, 15];
/// Words of the number of changes: the lower half comes first where words are little-endian.
const EVENTS: [usize; 2] = [39, 40];
/// Records of members that there is room for.
const MEMBERS_MAX: u32 = 27;
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
    let (word, events): (fn(&[u8], usize) -> u32, _) = match () {
        () if le32(&record, 0) == MAGIC => (le32, EVENTS),
        () if be32(&record, 0) == MAGIC => (be32, [EVENTS[1], EVENTS[0]]),
        () => return Ok(None),
    };
    let field = |at: usize| word(&record, at * 4);
    let wrong = |what: &str| Error::damaged(format!("md superblock: {what}"), Some(at));
    match (field(1), field(2)) {
        (0, 90) => {}
        (0, 91) => return Err(wrong("the shape of its RAID was being changed")),
        _ => return Err(wrong("it is of an unknown version")),
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
        // Where there is no other copy of anything, nothing ever is out of step.
        _ if matches!(level, LINEAR | RAID0) && state & ACTIVE != 0 => {
            Role::Data(field(THIS_DISK + 3))
        }
        _ => Role::Spare,
    };
    let members = field(10);
    if members > MEMBERS_MAX {
        return Err(wrong("it has more members than fit"));
    }
    let mut array = [0; 16];
    for (bytes, at) in array.chunks_exact_mut(4).zip(IDENTITY) {
        bytes.copy_from_slice(&field(at).to_be_bytes());
    }
    let [low, high] = events.map(|at| u64::from(field(at)));
    let is_in_sync = field(33) & CLEAN != 0;
    Ok(Some(Superblock {
        level,
        members,
        role,
        data: Extent::new(0, at),
        used: u64::from(field(8)) << 10,
        chunk: u64::from(field(65)),
        layout: field(64),
        format: 0,
        array,
        events: high << 32 | low,
        doubt: None,
        is_in_sync,
    }))
}
