//! Checksums of volumes with files made right again, so that mutants reach what is behind them; written
//! once more, because a judge that shares code with the accused would agree with it.

use aiv_volume_io::ReadAt;

use crate::SparseDisk;

/// Bytes that may be a record: what stretches begin with, and steps of a sector from there.
const SECTOR: u64 = 512;
/// Where the superblock of Btrfs is, and the identity in it and in every node.
const BTRFS: u64 = 64 << 10;
const BTRFS_ID: std::ops::Range<usize> = 32..48;

/// Makes the checksums of XFS, Btrfs or exFAT right, and tells how many records have one.
pub(crate) fn mend(disk: &mut SparseDisk) -> usize {
    let mut head = [0; 128];
    if disk.read_exact_at(&mut head, 0).is_err() {
        return 0;
    }
    let mut superblock = [0; 256];
    let is_btrfs =
        disk.read_exact_at(&mut superblock, BTRFS).is_ok() && superblock[64..72] == *b"_BHRfS_M";
    match () {
        () if head.starts_with(b"XFSB") && head[101] & 0xf == 5 => xfs(disk, &head),
        () if &head[3..11] == b"EXFAT   " => exfat(disk, &head),
        () if is_btrfs => btrfs(disk, &superblock),
        () => 0,
    }
}

/// CRC-32C of a record of `len` bytes at `at`, whose own four bytes are zeros meanwhile.
fn crc(disk: &mut SparseDisk, at: u64, len: usize, own: usize) {
    let mut record = vec![0; len];
    if disk.read_exact_at(&mut record, at).is_ok() {
        record[own..own + 4].fill(0);
        disk.patch(at + own as u64, crc32c::crc32c(&record).to_le_bytes().to_vec());
    }
}

fn xfs(disk: &mut SparseDisk, head: &[u8]) -> usize {
    let be = |at: usize| usize::from(u16::from_be_bytes([head[at], head[at + 1]]));
    let (block, sector, inode) = (be(6), be(102), be(104));
    if [block, sector, inode].iter().any(|len| !(256..=65_536).contains(len)) {
        return 0;
    }
    let found = disk.places(SECTOR, |bytes| {
        let (own, len) = match bytes.get(..16)? {
            [b'X', b'F', b'S', b'B', ..] => (224, sector),
            [b'X', b'A', b'G', b'F', ..] => (216, sector),
            [b'X', b'A', b'G', b'I', ..] => (312, sector),
            [b'X', b'A', b'F', b'L', ..] => (32, sector),
            [b'I', b'N', _, _, 3, ..] => (100, inode),
            [b'A', b'B', b'3', b'B' | b'C', ..]
            | [b'I' | b'F' | b'R', b'A' | b'I' | b'M' | b'E', b'B', b'3', ..]
            | [b'R', b'3', b'F', b'C', ..] => (52, block),
            [b'B', b'M', b'A', b'3', ..] => (64, block),
            [b'X', b'D', b'B' | b'D' | b'F', b'3', ..] => (4, block),
            [b'X', b'S', b'L', b'M', ..] | [b'X', b'A', b'R', b'M', ..] => (12, block),
            // Nodes and leaves of folders and attributes.
            [_, _, _, _, _, _, _, _, 0x3d, 0xf1 | 0xff, ..]
            | [_, _, _, _, _, _, _, _, 0x3e, 0xbe, ..]
            | [_, _, _, _, _, _, _, _, 0x3b, 0xee, ..] => (12, block),
            _ => return None,
        };
        (own + 4 <= len).then_some((own, len))
    });
    for (at, (own, len)) in &found {
        crc(disk, *at, *len, *own);
    }
    found.len()
}

fn btrfs(disk: &mut SparseDisk, superblock: &[u8; 256]) -> usize {
    let word =
        |at: usize| superblock[at..at + 4].iter().rev().fold(0, |n, b| n << 8 | usize::from(*b));
    let node = word(0x94);
    if superblock[0xc4..0xc6] != [0, 0] || !(4096..=65_536).contains(&node) {
        return 0;
    }
    let mut found =
        disk.places(4096, |bytes| (bytes.get(BTRFS_ID)? == &superblock[BTRFS_ID]).then_some(node));
    found.retain(|(at, _)| *at != BTRFS);
    found.push((BTRFS, 4096));
    for (at, len) in &found {
        let mut summed = vec![0; len - 32];
        if disk.read_exact_at(&mut summed, at + 32).is_ok() {
            disk.patch(*at, crc32c::crc32c(&summed).to_le_bytes().to_vec());
        }
    }
    found.len()
}

fn exfat(disk: &mut SparseDisk, head: &[u8]) -> usize {
    let shift = u32::from(head[108]);
    if !(9..=12).contains(&shift) {
        return 0;
    }
    let sector = 1_usize << shift;
    let mut region = vec![0; 11 * sector];
    if disk.read_exact_at(&mut region, 0).is_err() {
        return 0;
    }
    let mut sum = 0_u32;
    for (at, byte) in region.iter().enumerate() {
        // Flags and the percentage in use change with every mount.
        if ![106, 107, 112].contains(&at) {
            sum = sum.rotate_right(1).wrapping_add(u32::from(*byte));
        }
    }
    disk.patch(11 * sector as u64, sum.to_le_bytes().repeat(sector / 4));
    // Sets of entries: a file, and what follows it.
    let mut found = disk.places(32, |bytes| match bytes.get(..33)? {
        [0x85, more @ 2..=18, .., 0xc0] => Some(32 * (usize::from(*more) + 1)),
        _ => None,
    });
    // One that goes on in another cluster is left as it is: where that lies, only a table tells.
    let cluster = 1_u64 << (shift + u32::from(head[109].min(16)));
    let heap = head[88..92].iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)) << shift;
    found.retain(|(at, len)| {
        let inside = at.checked_sub(heap).map(|from| from % cluster);
        inside.is_some_and(|inside| inside + *len as u64 <= cluster)
    });
    for (at, len) in &found {
        let mut set = vec![0; *len];
        if disk.read_exact_at(&mut set, *at).is_ok() {
            let mut sum = 0_u16;
            for (at, byte) in set.iter().enumerate() {
                if at != 2 && at != 3 {
                    sum = sum.rotate_right(1).wrapping_add(u16::from(*byte));
                }
            }
            disk.patch(at + 2, sum.to_le_bytes().to_vec());
        }
    }
    1 + found.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trees::FAMILIES;

    #[test]
    fn what_is_right_stays_as_it_is_and_what_was_changed_is_read_again() {
        for (name, least) in [("xfs", 20), ("btrfs", 8), ("exfat", 10)] {
            let family = FAMILIES.iter().find(|family| family.name == name).unwrap();
            // Of the second version, or the one with files.
            let seed = (family.seeds)().pop().unwrap();
            let mut mended = SparseDisk::from_bytes(&seed);
            let count = mend(&mut mended);
            assert!(count >= least, "{name}: {count}");
            let disk = SparseDisk::from_bytes(&seed);
            assert_eq!(mended.differs_from(&disk), None, "{name}");
        }
    }
}
