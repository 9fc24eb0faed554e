//! `$STANDARD_INFORMATION` and `$EA`: times, marks, and what Linux added to them.

use crate::bytes::{array, le16, le32, le64};
use crate::{FileFlags, Timestamp};

/// What of `$STANDARD_INFORMATION` means something here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Information {
    pub(super) created: Timestamp,
    pub(super) modified: Timestamp,
    pub(super) changed: Timestamp,
    pub(super) accessed: Timestamp,
    /// As Windows numbers them.
    pub(super) marks: u32,
    /// Names of a folder that differ in case alone are told apart.
    pub(super) is_case_sensitive: bool,
    /// Of the descriptor in `$Secure`; 0 is none.
    pub(super) security: u32,
}

pub(super) const HIDDEN: u32 = 2;
pub(super) const SYSTEM: u32 = 4;

impl Information {
    pub(super) fn parse(value: &[u8]) -> Option<Self> {
        let head = value.get(..48)?;
        let time = |at| timestamp(i64::from_le_bytes(array(head, at)));
        Some(Self {
            created: time(0),
            modified: time(8),
            changed: time(16),
            accessed: time(24),
            marks: le32(head, 32),
            // The fields are a number of versions and a version, which Windows has no other use
            // for (seen with Windows 10).
            is_case_sensitive: le64(head, 36) == 1 << 32,
            security: value.get(52..56).map_or(0, |field| le32(field, 0)),
        })
    }

    pub(super) fn flags(&self) -> FileFlags {
        let all = [
            (1, FileFlags::READ_ONLY),
            (HIDDEN, FileFlags::HIDDEN),
            (SYSTEM, FileFlags::SYSTEM),
            (0x20, FileFlags::ARCHIVE),
            (0x800, FileFlags::COMPRESSED),
            (0x4000, FileFlags::ENCRYPTED),
        ];
        all.into_iter().fold(FileFlags::default(), |flags, (bit, mark)| {
            flags.with(mark, self.marks & bit != 0)
        })
    }
}

/// A time in units of 100 ns since 1601.
fn timestamp(ticks: i64) -> Timestamp {
    const PER_SECOND: i64 = 10_000_000;
    const SECONDS_1601_TO_1970: i64 = 11_644_473_600;
    let nanoseconds = u32::try_from(ticks.rem_euclid(PER_SECOND) * 100).unwrap_or(0);
    Timestamp::utc(ticks.div_euclid(PER_SECOND) - SECONDS_1601_TO_1970, nanoseconds)
}

/// What WSL keeps in `$EA`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Linux {
    pub(super) user: Option<u32>,
    pub(super) group: Option<u32>,
    pub(super) mode: Option<u32>,
    pub(super) device: Option<(u32, u32)>,
}

impl Linux {
    /// Out of a list of extended attributes; nothing behind the first that cannot be.
    pub(super) fn parse(list: &[u8]) -> Self {
        let mut linux = Self::default();
        let mut left = list;
        // Each step is eight bytes at least.
        while let Some(head) = left.get(..8) {
            let (next, name_len) = (le32(head, 0) as usize, usize::from(head[5]));
            let value_at = 8 + name_len + 1;
            let name = left.get(8..8 + name_len);
            let value = left.get(value_at..value_at + usize::from(le16(head, 6)));
            let (Some(name), Some(value)) = (name, value) else { break };
            let number = value.get(..4).map(|value| le32(value, 0));
            match name {
                b"$LXUID" => linux.user = number,
                b"$LXGID" => linux.group = number,
                b"$LXMOD" => linux.mode = number,
                b"$LXDEV" => {
                    linux.device = value.get(..8).map(|value| (le32(value, 0), le32(value, 4)));
                }
                _ => {}
            }
            left = match left.get(next..) {
                Some(rest) if next >= 8 => rest,
                _ => break,
            };
        }
        linux
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_right_before_1970_and_as_far_as_they_go() {
        assert_eq!(timestamp(0), Timestamp::utc(-11_644_473_600, 0));
        assert_eq!(timestamp(-1), Timestamp::utc(-11_644_473_601, 999_999_900));
        assert_eq!(timestamp(116_444_736_000_000_001), Timestamp::utc(0, 100));
        assert_eq!(timestamp(i64::MAX).seconds, i64::MAX / 10_000_000 - 11_644_473_600);
        let _ = timestamp(i64::MIN);
    }

    #[test]
    fn what_wsl_keeps_is_found_among_other_attributes() {
        let mut list = Vec::new();
        for (name, value) in
            [("OTHER", &[9; 3][..]), ("$LXUID", &[1, 2, 0, 0]), ("$LXMOD", &[7; 4])]
        {
            let len = (8 + name.len() + 1 + value.len()).next_multiple_of(4);
            let start = list.len();
            let lens = [len, name.len(), value.len()].map(|len| u8::try_from(len).unwrap());
            list.extend([lens[0], 0, 0, 0, 0, lens[1], lens[2], 0]);
            list.extend(name.as_bytes());
            list.push(0);
            list.extend(value);
            list.resize(start + len, 0);
        }
        let linux = Linux::parse(&list);
        assert_eq!((linux.user, linux.group, linux.mode), (Some(513), None, Some(0x0707_0707)));
        for (at, value) in [(0, 0), (0, 4), (5, 255), (6, 255)] {
            let mut wrong = list.clone();
            wrong[at] = value;
            assert_eq!(Linux::parse(&wrong), Linux::default(), "{at}");
        }
    }
}
