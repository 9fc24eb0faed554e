//! Superblocks of format 1: 1.0 near the end, 1.1 at the front, 1.2 at 4 KiB.

use aiv_volume_io::{Extent, ReadAt};

use super::{MAGIC, Role, SECTOR, Superblock, folded};
use crate::bytes::{array, le16, le32, le64};
use crate::{Error, Result};

const HEADER: usize = 256;
/// Superblock and places in it fill 4 KiB.
const ROLES_MAX: usize = 1920;

const BAD_BLOCKS: u32 = 8;
/// Features that leave the data of a member what it is: a bitmap, and the layout of a RAID0.
const HARMLESS: u32 = 1 | 4096;
const DOUBTS: [(u32, &str); 4] = [
    (2, "it was being filled from other members"),
    (4 | 32, "the shape of its RAID was being changed"),
    (BAD_BLOCKS, "it has blocks that only other members can give out"),
    (16, "it was being filled to replace another member"),
];

/// Finds the superblock where the kernel looks for it.
pub(super) fn read(member: &dyn ReadAt) -> Result<Option<Superblock>> {
    let len = member.len();
    let at_end = (len & !511).checked_sub(8 << 10).map(|at| at & !4095);
    for at in [Some(0), Some(4096), at_end].into_iter().flatten() {
        let mut header = [0; HEADER];
        if at + HEADER as u64 > len {
            continue;
        }
        member.read_exact_at(&mut header, at).map_err(Error::io("read md superblock", at))?;
        if le32(&header, 0) == MAGIC && le32(&header, 4) == 1 {
            return checked(member, at, &header).map(Some);
        }
    }
    Ok(None)
}

fn checked(member: &dyn ReadAt, at: u64, header: &[u8; HEADER]) -> Result<Superblock> {
    let wrong = |what: &str| Error::damaged(format!("md superblock: {what}"), Some(at));
    let count = usize::try_from(le32(header, 220)).unwrap_or(usize::MAX);
    if count > ROLES_MAX || at + (HEADER + 2 * count) as u64 > member.len() {
        return Err(wrong("it has more members than fit"));
    }
    if le64(header, 144) != at / SECTOR {
        return Err(wrong("it names another place"));
    }
    let mut record = vec![0; HEADER + 2 * count];
    member.read_exact_at(&mut record, at).map_err(Error::io("read md superblock", at))?;
    let sum = le32(&record, 216);
    record[216..220].fill(0);
    if checksum(&record) != sum {
        return Err(wrong("its checksum is wrong"));
    }
    let number = usize::try_from(le32(&record, 160)).unwrap_or(usize::MAX);
    let role = match record[HEADER..].chunks_exact(2).nth(number).map(|role| le16(role, 0)) {
        None | Some(0xffff) => Role::Spare,
        Some(0xfffe) => Role::Failed,
        Some(0xfffd) => Role::Journal,
        Some(role) => Role::Data(u32::from(role)),
    };
    let bytes = |field: usize| {
        let bytes = le64(&record, field).checked_mul(SECTOR);
        bytes.ok_or_else(|| wrong("a length is too large"))
    };
    let (start, len) = (bytes(128)?, bytes(136)?);
    if start.checked_add(len).is_none() {
        return Err(wrong("a length is too large"));
    }
    let features = le32(&record, 8);
    let doubt = DOUBTS.iter().find(|doubt| features & doubt.0 != 0).map(|doubt| doubt.1.to_owned());
    let known = DOUBTS.iter().fold(HARMLESS, |known, doubt| known | doubt.0);
    let unknown = features & !known;
    let doubt = doubt.or_else(|| {
        (unknown != 0).then(|| format!("its RAID has features that are not known ({unknown:#x})"))
    });
    Ok(Superblock {
        level: i32::from_le_bytes(array(&record, 72)),
        members: le32(&record, 92),
        role,
        data: Extent::new(start, len),
        used: bytes(80)?,
        chunk: u64::from(le32(&record, 88)).saturating_mul(SECTOR),
        layout: le32(&record, 76),
        format: 1,
        array: array(&record, 16),
        events: le64(&record, 200),
        doubt,
        is_in_sync: le64(&record, 208) == u64::MAX,
    })
}

fn checksum(record: &[u8]) -> u32 {
    let words = record.chunks(4).map(|word| match word {
        [a, b, c, d] => u32::from_le_bytes([*a, *b, *c, *d]),
        [a, b] => u32::from(u16::from_le_bytes([*a, *b])),
        _ => 0,
    });
    folded(words)
}
