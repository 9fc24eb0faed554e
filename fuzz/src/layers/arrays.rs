//! Linux software RAIDs: members that hold all of their array, and arrays of several members.

use std::sync::Arc;

use aiv_filesystems::{raid_arrays, raid_contents, stale_mirrors};
use aiv_volume_io::ReadAt;

use super::{DISK, read_ends};
use crate::SparseDisk;

/// Where the superblock of a member is: format 1.2, and 0.90.
const PLACE: u64 = 4096;
const OLD_PLACE: u64 = DISK as u64 - (64 << 10);
/// Bytes of a superblock with its roles.
const RECORD: usize = 4096;
/// Bytes of one in a seed.
const SHORT: usize = 512;
/// Members that are put together.
const MEMBERS_MAX: usize = 6;
const MAGIC: u32 = 0xa92b_4efc;
/// Fields: number of the member, sum, roles it has room for, and the roles.
const NUMBER: usize = 160;
const SUM: usize = 216;
const ROOM: usize = 220;
const ROLES: usize = 256;

/// Format 0.90, in 32-bit words: those of a superblock that lie in front of the records of all members, and
/// in that of its own. A seed has these two parts only; whatever else is in it is not looked at.
const OLD_FRONT: usize = 128;
const OLD_OWN: usize = 992;
const OLD_SHORT: usize = (OLD_FRONT + 32) * 4;
const OLD_SUM: usize = 38;
/// The byte of a seed at which the place of the member begins.
const OLD_PLACE_OF_OWN: usize = (OLD_FRONT + 3) * 4;

/// Puts a member together.
type Disk = fn(&[u8]) -> SparseDisk;

/// The sum of words, what is carried out of it added once more.
fn folded(words: impl Iterator<Item = u64>) -> u32 {
    let sum: u64 = words.sum();
    u32::try_from(((sum & 0xffff_ffff) + (sum >> 32)) & 0xffff_ffff).expect("masked")
}

/// A member with this superblock of format 0.90, its sum mended, in its own byte order.
fn old_disk(superblock: &[u8]) -> SparseDisk {
    let mut record = superblock[..superblock.len().min(OLD_SHORT)].to_vec();
    record.resize(OLD_SHORT, 0);
    let own = record.split_off(OLD_FRONT * 4);
    record.resize(OLD_OWN * 4, 0);
    record.extend(own);
    let is_big_endian = record[0] == MAGIC.to_be_bytes()[0];
    let word = |bytes: &[u8]| {
        let bytes: [u8; 4] = bytes.try_into().expect("four");
        if is_big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    };
    record[OLD_SUM * 4..][..4].fill(0);
    let sum = folded(record.chunks(4).map(|bytes| u64::from(word(bytes))));
    let sum = if is_big_endian { sum.to_be_bytes() } else { sum.to_le_bytes() };
    record[OLD_SUM * 4..][..4].copy_from_slice(&sum);
    let mut disk = SparseDisk::zeros(DISK as u64);
    disk.patch(OLD_PLACE, record);
    disk
}

/// A member with this superblock of format 1.2, its sum mended.
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
    let sum = folded(words);
    record[SUM..SUM + 4].copy_from_slice(&sum.to_le_bytes());
    let mut disk = SparseDisk::zeros(DISK as u64);
    disk.patch(PLACE, record);
    disk
}

/// A superblock of a member.
pub(super) fn member(superblock: &[u8]) -> bool {
    alone(&disk(superblock))
}

/// The same of format 0.90.
pub(super) fn old_member(superblock: &[u8]) -> bool {
    alone(&old_disk(superblock))
}

fn alone(disk: &SparseDisk) -> bool {
    match raid_contents(disk) {
        Ok(contents) => {
            assert!(contents.extent.end() <= disk.len() && !contents.extent.is_empty());
            true
        }
        Err(error) => !error.to_string().contains("there is no superblock"),
    }
}

/// One superblock that all members have, but for their number.
pub(super) fn alike(superblock: &[u8]) -> bool {
    numbered(superblock, SHORT.max(superblock.len().min(RECORD)), NUMBER, disk)
}

/// The same of format 0.90.
pub(super) fn old_alike(superblock: &[u8]) -> bool {
    numbered(superblock, OLD_SHORT, OLD_PLACE_OF_OWN, old_disk)
}

fn numbered(superblock: &[u8], len: usize, at: usize, disk: Disk) -> bool {
    let mut record = superblock.to_vec();
    record.resize(len, 0);
    // The low byte of a word in the byte order of the superblock.
    let low = if record[0] == MAGIC.to_be_bytes()[0] { at + 3 } else { at };
    let members = (0..MEMBERS_MAX).map(|number| {
        record[low] = u8::try_from(number).expect("some");
        disk(&record)
    });
    together(members.collect())
}

/// A superblock for each member.
pub(super) fn each(superblocks: &[u8]) -> bool {
    together(superblocks.chunks(SHORT).take(MEMBERS_MAX).map(disk).collect())
}

/// The same of format 0.90.
pub(super) fn old_each(superblocks: &[u8]) -> bool {
    together(superblocks.chunks(OLD_SHORT).take(MEMBERS_MAX).map(old_disk).collect())
}

fn together(disks: Vec<SparseDisk>) -> bool {
    let members: Vec<Arc<dyn ReadAt>> =
        disks.into_iter().map(|disk| Arc::new(disk) as Arc<dyn ReadAt>).collect();
    let stale = stale_mirrors(&members);
    assert!(stale.iter().all(|position| *position < members.len()));
    let arrays = raid_arrays(&members);
    for array in &arrays {
        assert!(!array.members.is_empty());
        let Ok(bytes) = &array.bytes else { continue };
        assert!(bytes.len() > 0 && bytes.len() <= (DISK * members.len()) as u64);
        assert!(read_ends(&**bytes), "it lies on the members");
        let mut out = [0; 512];
        bytes.read_exact_at(&mut out, (bytes.len() / 2) & !511).expect("it lies on the members");
    }
    !arrays.is_empty() || !stale.is_empty()
}

/// A member of an array of so many.
fn superblock(level: i32, layout: u32, members: u16, number: u16) -> Vec<u8> {
    let mut superblock = vec![0; SHORT];
    let mut set = |at: usize, bytes: &[u8]| superblock[at..at + bytes.len()].copy_from_slice(bytes);
    for (at, word) in [
        (0, MAGIC),
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

/// The same with a superblock of format 0.90.
fn old_superblock(level: i32, layout: u32, members: u16, number: u16, big: bool) -> Vec<u8> {
    let mut superblock = vec![0; OLD_SHORT];
    let events = if big { 40 } else { 39 };
    let used = if level > 0 { 1024 } else { 0 };
    for (word, value) in [
        (0, MAGIC),
        (2, 90),
        (5, 7),
        (7, level.cast_unsigned()),
        (8, used),
        (10, members.into()),
        (33, 1),
        (events, 30),
        (64, layout),
        (65, 65_536),
        (OLD_FRONT, number.into()),
        (OLD_FRONT + 3, number.into()),
        (OLD_FRONT + 4, 6),
    ] {
        let bytes = if big { value.to_be_bytes() } else { value.to_le_bytes() };
        superblock[word * 4..][..4].copy_from_slice(&bytes);
    }
    superblock
}

/// A member of a mirror; arrays of every level, as one superblock and as one of each member.
type Seeds = [Vec<Vec<u8>>; 3];

const SHAPES: [(i32, u32, u16); 7] =
    [(-1, 0, 2), (0, 0, 3), (4, 0, 3), (5, 2, 3), (6, 2, 5), (10, 0x102, 4), (10, 0x10201, 3)];

pub(super) fn seeds() -> Seeds {
    let alike = SHAPES.map(|(level, layout, members)| superblock(level, layout, members, 0));
    let each = SHAPES.map(|(level, layout, members)| {
        let of = |number| superblock(level, layout, members, number);
        (0..members).flat_map(of).collect()
    });
    [vec![superblock(1, 0, 2, 0)], alike.to_vec(), each.to_vec()]
}

/// The same of format 0.90, in both byte orders; and a mirror that went on without a member.
pub(super) fn old_seeds() -> Seeds {
    let one = |big| old_superblock(1, 0, 2, 0, big);
    let alike = |big| SHAPES.map(|(level, layout, all)| old_superblock(level, layout, all, 0, big));
    let each = |big| {
        SHAPES.map(|(level, layout, all)| {
            (0..all).flat_map(|number| old_superblock(level, layout, all, number, big)).collect()
        })
    };
    let mut left_out = old_superblock(1, 0, 2, 1, false);
    left_out[39 * 4] = 20;
    let mirror = [one(false), left_out].concat();
    let both = |of: &dyn Fn(bool) -> [Vec<u8>; 7]| [of(false), of(true)].concat();
    let each = [both(&each), vec![mirror]].concat();
    [vec![one(false), one(true)], both(&alike), each]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(seeds: Seeds, len: usize, disk: Disk, alike: fn(&[u8]) -> bool) {
        let [mirrors, one, all] = seeds;
        assert!(mirrors.iter().all(|mirror| raid_contents(&disk(mirror)).is_ok()));
        for (superblock, superblocks) in one.iter().zip(&all) {
            assert!(alike(superblock));
            let members: Vec<Arc<dyn ReadAt>> =
                superblocks.chunks(len).map(|one| Arc::new(disk(one)) as _).collect();
            let [array] = raid_arrays(&members).try_into().unwrap();
            assert_eq!(array.members.len(), members.len());
            let len = array.bytes.unwrap().len();
            assert!(len > 1 << 20, "{len}");
        }
    }

    #[test]
    fn every_seed_is_an_array_that_is_read() {
        assert!(seeds()[2].iter().all(|superblocks| each(superblocks)));
        assert!(old_seeds()[2].iter().all(|superblocks| old_each(superblocks)));
        assert!(member(&seeds()[0][0]) && old_member(&old_seeds()[0][0]));
        check(seeds(), SHORT, disk, alike);
        check(old_seeds(), OLD_SHORT, old_disk, old_alike);
    }
}
