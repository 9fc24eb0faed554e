//! What an inode says about its file.

use super::super::inode::{GOOD_OLD_LEN, Kind};
use super::super::superblock::Superblock;
use super::Node;
use crate::bytes::{le16, le32};
use crate::{Device, FileType, Metadata, Owner, Timestamp};

/// Bytes of an inode behind the first 128 that have fields.
pub(super) fn extra_len(raw: &[u8]) -> usize {
    match raw.len() > GOOD_OLD_LEN {
        true => usize::from(le16(raw, 0x80)),
        false => 0,
    }
}

pub(super) fn of(node: &Node, superblock: &Superblock) -> Metadata {
    let (inode, raw) = (&node.inode, node.raw.as_slice());
    let mode = le16(raw, 0x0);
    let file_type = FileType::of_mode(mode.into());
    let number =
        |low: usize, high: usize| u32::from(le16(raw, high)) << 16 | u32::from(le16(raw, low));
    let is_device = matches!(file_type, FileType::CharDevice | FileType::BlockDevice);
    Metadata {
        // Of nothing else it means anything.
        len: match inode.kind {
            Kind::Other => 0,
            _ => inode.len,
        },
        allocated: Some(inode.allocated(superblock)),
        mode: Some(mode & 0o7777),
        owner: Some(Owner { user: number(0x2, 0x78), group: number(0x18, 0x7a) }),
        links: u32::from(inode.links),
        modified: Some(time(raw, 0x10, 0x88)),
        accessed: Some(time(raw, 0x8, 0x8c)),
        changed: Some(time(raw, 0xc, 0x84)),
        created: has(raw, 0x90).then(|| time(raw, 0x90, 0x94)),
        device: is_device.then(|| device(&inode.map)),
        flags: inode.marks(),
        ..Metadata::of(file_type)
    }
}

/// Whether an inode has the four bytes at `at`.
fn has(raw: &[u8], at: usize) -> bool {
    at + 4 <= GOOD_OLD_LEN + extra_len(raw) && at + 4 <= raw.len()
}

/// A time of seconds at `at`, and further bits at `extra`: two that count rounds of 2^32 seconds,
/// and nanoseconds.
fn time(raw: &[u8], at: usize, extra: usize) -> Timestamp {
    let seconds = i64::from(i32::from_le_bytes(crate::bytes::array(raw, at)));
    if !has(raw, extra) {
        return Timestamp::utc(seconds, 0);
    }
    let extra = le32(raw, extra);
    let nanoseconds = extra >> 2;
    let nanoseconds = if nanoseconds < 1_000_000_000 { nanoseconds } else { 0 };
    Timestamp::utc(seconds + (i64::from(extra & 3) << 32), nanoseconds)
}

/// The device number in the place of a block map: of 16 bits, or behind a zero of 32.
fn device(map: &[u8]) -> Device {
    let (old, new) = (le32(map, 0), le32(map, 4));
    match old {
        0 => Device { major: new >> 8 & 0xfff, minor: new & 0xff | new >> 12 & 0xf_ff00 },
        _ => Device { major: old >> 8 & 0xff, minor: old & 0xff },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_34_bits_and_begin_in_1901() {
        let mut raw = [0; 256];
        raw[0x80] = 32;
        let mut check = |low: i32, extra: u32, expected: (i64, u32)| {
            raw[0x10..0x14].copy_from_slice(&low.to_le_bytes());
            raw[0x88..0x8c].copy_from_slice(&extra.to_le_bytes());
            assert_eq!(time(&raw, 0x10, 0x88), Timestamp::utc(expected.0, expected.1));
        };
        check(-1, 999_999_999 << 2, (-1, 999_999_999));
        check(i32::MIN, 0, (-0x8000_0000, 0));
        check(i32::MIN, 1, (0x8000_0000, 0));
        check(i32::MAX, 3 | 5 << 2, (0x3_7fff_ffff, 5));
        // More than a second.
        check(7, !3, (7, 0));
        raw[0x80] = 8;
        assert_eq!(time(&raw, 0x10, 0x88), Timestamp::utc(7, 0));
    }

    #[test]
    fn devices_have_two_encodings() {
        let mut map = [0; 60];
        map[..4].copy_from_slice(&0x0801_u32.to_le_bytes());
        assert_eq!(device(&map), Device { major: 8, minor: 1 });
        map[..4].fill(0);
        map[4..8].copy_from_slice(&0xabc1_2334_u32.to_le_bytes());
        assert_eq!(device(&map), Device { major: 0x123, minor: 0xabc34 });
    }
}
