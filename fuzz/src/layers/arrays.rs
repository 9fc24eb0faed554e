//! Linux software RAIDs: members that hold all of their array, and arrays of several members.

use std::sync::Arc;

use aiv_filesystems::{raid_arrays, raid_contents};
use aiv_volume_io::ReadAt;

use super::{DISK, read_ends};
use crate::SparseDisk;

/// Where the superblock of a member is: format 1.2.
const PLACE: u64 = 4096;
/// Bytes of a superblock with its roles.
const RECORD: usize = 4096;
/// Bytes of one in a seed.
const SHORT: usize = 512;
/// Members that are put together.
const MEMBERS_MAX: usize = 6;
/// Fields: number of the member, sum, roles it has room for, and the roles.
const NUMBER: usize = 160;
const SUM: usize = 216;
const ROOM: usize = 220;
const ROLES: usize = 256;

/// A member with this superblock, its sum mended.
fn disk(superblock: &[u8]) -> SparseDisk {
    let mut record = superblock[..superblock.len().min(RECORD)].to_vec();
    record.resize(RECORD, 0);
    // As many roles as the record has room for are summed.
    let roles = usize::from(u16::from_le_bytes([record[ROOM], record[ROOM + 1]]));
    let end = (ROLES + 2 * roles).min(RECORD);
    record[SUM..SUM + 4].fill(0);
    let words = record[..end].chunks(4).map(|word| {
        let word = word.iter().rev().fold(0_u32, |number, &byte| number << 8 | u32::from(byte));
        u64::from(word)
    });
    let sum: u64 = words.sum();
    let sum = u32::try_from(((sum & 0xffff_ffff) + (sum >> 32)) & 0xffff_ffff).expect("masked");
    record[SUM..SUM + 4].copy_from_slice(&sum.to_le_bytes());
    let mut disk = SparseDisk::zeros(DISK as u64);
    disk.patch(PLACE, record);
    disk
}

/// A superblock of a member.
pub(super) fn member(superblock: &[u8]) -> bool {
    let disk = disk(superblock);
    match raid_contents(&disk) {
        Ok(contents) => {
            assert!(contents.extent.end() <= disk.len() && !contents.extent.is_empty());
            true
        }
        Err(error) => !error.to_string().contains("there is no superblock"),
    }
}

/// One superblock that all members have, but for their number.
pub(super) fn alike(superblock: &[u8]) -> bool {
    let mut record = superblock[..superblock.len().min(RECORD)].to_vec();
    record.resize(SHORT.max(record.len()), 0);
    let members = (0..MEMBERS_MAX).map(|number| {
        record[NUMBER] = u8::try_from(number).expect("some");
        disk(&record)
    });
    together(members.collect())
}

/// A superblock for each member.
pub(super) fn each(superblocks: &[u8]) -> bool {
    together(superblocks.chunks(SHORT).take(MEMBERS_MAX).map(disk).collect())
}

fn together(disks: Vec<SparseDisk>) -> bool {
    let members: Vec<Arc<dyn ReadAt>> =
        disks.into_iter().map(|disk| Arc::new(disk) as Arc<dyn ReadAt>).collect();
    let arrays = raid_arrays(&members);
    for array in &arrays {
        assert!(!array.members.is_empty());
        let Ok(bytes) = &array.bytes else { continue };
        assert!(bytes.len() > 0 && bytes.len() <= (DISK * members.len()) as u64);
        assert!(read_ends(&**bytes), "it lies on the members");
        let mut out = [0; 512];
        bytes.read_exact_at(&mut out, (bytes.len() / 2) & !511).expect("it lies on the members");
    }
    !arrays.is_empty()
}

/// A member of an array of so many.
fn superblock(level: i32, layout: u32, members: u16, number: u16) -> Vec<u8> {
    let mut superblock = vec![0; SHORT];
    let mut set = |at: usize, bytes: &[u8]| superblock[at..at + bytes.len()].copy_from_slice(bytes);
    for (at, word) in [
        (0, 0xa92b_4efc_u32),
        (4, 1),
        (72, level.cast_unsigned()),
        (76, layout),
        (88, 128),
        (92, members.into()),
        (NUMBER, number.into()),
        (ROOM, 128),
    ] {
        set(at, &word.to_le_bytes());
    }
    let data = 2048_u64;
    let used = if level > 0 { data } else { 0 };
    for (at, word) in [(80, used), (128, 2048), (136, data), (144, 8), (200, 30), (208, u64::MAX)] {
        set(at, &word.to_le_bytes());
    }
    for slot in 0..128_u16 {
        let role = if slot < members { slot } else { 0xffff };
        set(ROLES + 2 * usize::from(slot), &role.to_le_bytes());
    }
    superblock
}

/// A member of a mirror; arrays of every level, as one superblock and as one of each member.
pub(super) fn seeds() -> [Vec<Vec<u8>>; 3] {
    let shapes =
        [(-1, 0, 2), (0, 0, 3), (4, 0, 3), (5, 2, 3), (6, 2, 5), (10, 0x102, 4), (10, 0x10201, 3)];
    let alike = shapes.map(|(level, layout, members)| superblock(level, layout, members, 0));
    let each = shapes.map(|(level, layout, members)| {
        let of = |number| superblock(level, layout, members, number);
        (0..members).flat_map(of).collect()
    });
    [vec![superblock(1, 0, 2, 0)], alike.to_vec(), each.to_vec()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_is_an_array_that_is_read() {
        let [mirror, one, all] = seeds();
        assert!(raid_contents(&disk(&mirror[0])).is_ok());
        for (superblock, superblocks) in one.iter().zip(&all) {
            assert!(alike(superblock) && each(superblocks));
            let members: Vec<Arc<dyn ReadAt>> =
                superblocks.chunks(SHORT).map(|one| Arc::new(disk(one)) as _).collect();
            let [array] = raid_arrays(&members).try_into().unwrap();
            assert_eq!(array.members.len(), members.len());
            let len = array.bytes.unwrap().len();
            assert!(len > 1 << 20, "{len}");
        }
    }
}
