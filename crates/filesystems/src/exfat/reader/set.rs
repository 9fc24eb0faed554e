//! The records of one file, taken together.

use super::super::entry_set::add;
use super::upcase::UpCase;
use crate::bytes::{le16, le32, le64};
use crate::clusters::dos_time;
use crate::{FileFlags, FileType, Metadata, Timestamp};

pub(super) const FILE: u8 = 0x85;
const STREAM: u8 = 0xc0;
const FILE_NAME: u8 = 0xc1;
/// Further records of a set.
const SECONDARY_MIN: u8 = 2;
const SECONDARY_MAX: u8 = 18;
/// Units of UTF-16 in one record.
const UNITS: usize = 15;

pub(super) type Record = [u8; 32];

/// How many records follow that of a file; `None` for a number no set has.
pub(super) fn further_records(primary: &Record) -> Option<usize> {
    (SECONDARY_MIN..=SECONDARY_MAX).contains(&primary[1]).then(|| primary[1].into())
}

/// A file or folder whose records match their checksum.
#[derive(Debug)]
pub(super) struct Set {
    primary: Record,
    pub(super) units: Vec<u16>,
    pub(super) first: u32,
    pub(super) len: u64,
    /// Bytes that were ever written.
    pub(super) valid: u64,
    /// Its clusters are neighbours, and not in the table.
    pub(super) in_one_piece: bool,
}

impl Set {
    /// Reads all records of a set, the primary one first.
    pub(super) fn read(records: &[Record], upcase: &UpCase) -> Result<Self, &'static str> {
        const NO_FAT_CHAIN: u8 = 0x2;
        let [primary, stream, names @ ..] = records else {
            return Err("a file has too few records");
        };
        let sum = add(add(0, &primary[..2]), &primary[4..]);
        let sum = records[1..].iter().fold(sum, |sum, record| add(sum, record));
        if primary[0] != FILE || sum != le16(primary, 2) {
            return Err("the records of a file do not match their checksum");
        }
        let name_len = usize::from(stream[3]);
        let count = name_len.div_ceil(UNITS);
        let named = names.get(..count).filter(|names| names.iter().all(|r| r[0] == FILE_NAME));
        let Some(names) = named.filter(|_| stream[0] == STREAM && name_len > 0) else {
            return Err("the records of a file are in a wrong order");
        };
        let pairs = names.iter().flat_map(|record| record[2..].as_chunks::<2>().0);
        let units: Vec<u16> = pairs.map(|pair| u16::from_le_bytes(*pair)).take(name_len).collect();
        if upcase.hash(&units).is_some_and(|hash| hash != le16(stream, 4)) {
            return Err("a name does not match its hash");
        }
        let len = le64(stream, 24);
        Ok(Self {
            primary: *primary,
            units,
            first: le32(stream, 20),
            len,
            valid: le64(stream, 8).min(len),
            in_one_piece: stream[1] & NO_FAT_CHAIN != 0,
        })
    }

    pub(super) fn file_type(&self) -> FileType {
        const DIRECTORY: u16 = 0x10;
        match le16(&self.primary, 4) & DIRECTORY != 0 {
            true => FileType::Folder,
            false => FileType::File,
        }
    }

    pub(super) fn metadata(&self) -> Metadata {
        let is = |bit: u16| le16(&self.primary, 4) & bit != 0;
        let time = |at: usize, hundredths: u8, offset: usize| {
            let local = dos_time(le16(&self.primary, at + 2), le16(&self.primary, at), hundredths);
            local.map(|local| in_zone(local, self.primary[offset]))
        };
        Metadata {
            len: self.len,
            created: time(8, self.primary[20], 22),
            modified: time(12, self.primary[21], 23),
            accessed: time(16, 0, 24),
            flags: FileFlags::default()
                .with(FileFlags::READ_ONLY, is(0x01))
                .with(FileFlags::HIDDEN, is(0x02))
                .with(FileFlags::SYSTEM, is(0x04))
                .with(FileFlags::ARCHIVE, is(0x20)),
            ..Metadata::of(self.file_type())
        }
    }
}

/// A local time, in UTC where its offset from it is noted: quarters of an hour, of seven bits with
/// a sign, below a bit that says that they are valid.
fn in_zone(local: Timestamp, offset: u8) -> Timestamp {
    const VALID: u8 = 0x80;
    if offset & VALID == 0 {
        return local;
    }
    let quarters = i64::from(offset & 0x7f) - if offset & 0x40 != 0 { 128 } else { 0 };
    Timestamp::utc(local.seconds - quarters * 900, local.nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_from_utc_are_quarters_of_an_hour_with_a_sign() {
        let local = Timestamp { seconds: 1_000_000, nanoseconds: 5, is_local: true };
        assert_eq!(in_zone(local, 0x7f), local);
        assert_eq!(in_zone(local, 0x80), Timestamp::utc(1_000_000, 5));
        assert_eq!(in_zone(local, 0x84), Timestamp::utc(996_400, 5));
        assert_eq!(in_zone(local, 0xff), Timestamp::utc(1_000_900, 5));
        assert_eq!(in_zone(local, 0xc0), Timestamp::utc(1_000_000 + 64 * 900, 5));
    }
}
