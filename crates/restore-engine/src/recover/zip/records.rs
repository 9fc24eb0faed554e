//! The records of a zip archive as bytes, after APPNOTE.TXT of PKWARE (4.3, 4.4, 4.5) and the list
//! of further fields of Info-ZIP.

use aiv_browse::Timestamp;
use jiff::tz::TimeZone;

/// What stands in a field that is too small; the number is in the further fields then.
const SMALL_MAX: u32 = u32::MAX;
/// The same of numbers of entries.
const COUNT_MAX: u16 = u16::MAX;
/// Version of the description that says how to read folders and deflated files, and larger fields.
const PLAIN: u16 = 20;
const LARGE: u16 = 45;
/// Whose attributes an entry has: those of Unix.
const UNIX: u16 = 3 << 8;
/// The sizes follow the bytes.
const STREAMED: u16 = 1 << 3;
/// The name is UTF-8.
const TEXT: u16 = 1 << 11;
/// That a folder is one, for those who know no modes.
const FOLDER: u32 = 0x10;
/// Kind of a file, above its permissions.
const KIND: u32 = 0o170_000;
const KIND_FOLDER: u32 = 0o040_000;
/// Further fields: larger numbers, and the time in UTC.
const LARGER: u16 = 1;
const TIME: u16 = 0x5455;

/// What is known of an entry before its bytes are.
pub(super) struct Record<'a> {
    /// At most 65,535 bytes.
    pub(super) name: &'a [u8],
    /// Kind and permissions.
    pub(super) mode: u32,
    pub(super) modified: Option<Timestamp>,
    /// Whether its bytes are compressed, and what came of them follows them.
    pub(super) is_streamed: bool,
    /// Whether its sizes need the larger fields.
    pub(super) is_large: bool,
}

/// What came of the bytes of an entry.
#[derive(Clone, Copy, Default)]
pub(super) struct Sums {
    pub(super) crc: u32,
    /// Bytes in the archive.
    pub(super) packed: u64,
    pub(super) len: u64,
}

impl Record<'_> {
    /// What stands in front of the bytes: `sums` are those of an entry that is not streamed.
    pub(super) fn local(&self, sums: Sums) -> Vec<u8> {
        let mut extra = Vec::new();
        if self.is_large {
            field(&mut extra, LARGER, &[0; 16]);
        }
        self.time(&mut extra);
        let sizes = [sums.packed, sums.len].map(|size| if self.is_large { u64::MAX } else { size });
        let mut out = b"PK\x03\x04".to_vec();
        self.common(&mut out, self.version(), Sums { packed: sizes[0], len: sizes[1], ..sums });
        put16(&mut out, len16(self.name));
        put16(&mut out, len16(&extra));
        out.extend_from_slice(self.name);
        out.append(&mut extra);
        out
    }

    /// What follows the bytes of an entry that is streamed.
    pub(super) fn descriptor(&self, sums: Sums) -> Vec<u8> {
        let mut out = b"PK\x07\x08".to_vec();
        put32(&mut out, sums.crc);
        for size in [sums.packed, sums.len] {
            match self.is_large {
                true => put64(&mut out, size),
                false => put32(&mut out, small(size)),
            }
        }
        out
    }

    /// What the directory says of an entry that begins at `offset`.
    pub(super) fn central(&self, sums: Sums, offset: u64) -> Vec<u8> {
        let is_large = !fits(sums.packed) || !fits(sums.len);
        let mut larger = Vec::new();
        if is_large {
            put64(&mut larger, sums.len);
            put64(&mut larger, sums.packed);
        }
        if !fits(offset) {
            put64(&mut larger, offset);
        }
        let version = if larger.is_empty() { self.version() } else { LARGE };
        let mut extra = Vec::new();
        if !larger.is_empty() {
            field(&mut extra, LARGER, &larger);
        }
        self.time(&mut extra);
        let [packed, len] = [sums.packed, sums.len].map(|n| if is_large { u64::MAX } else { n });
        let mut out = b"PK\x01\x02".to_vec();
        put16(&mut out, UNIX | version);
        self.common(&mut out, version, Sums { packed, len, ..sums });
        put16(&mut out, len16(self.name));
        put16(&mut out, len16(&extra));
        // No comment, on the first disk, not marked as text.
        [0; 3].into_iter().for_each(|none| put16(&mut out, none));
        let folder = if self.mode & KIND == KIND_FOLDER { FOLDER } else { 0 };
        put32(&mut out, self.mode << 16 | folder);
        put32(&mut out, small(offset));
        out.extend_from_slice(self.name);
        out.append(&mut extra);
        out
    }

    fn version(&self) -> u16 {
        if self.is_large { LARGE } else { PLAIN }
    }

    /// What both records of an entry say in the same order.
    fn common(&self, out: &mut Vec<u8>, version: u16, sums: Sums) {
        let text = if self.name.is_ascii() { 0 } else { TEXT };
        let (streamed, method) = if self.is_streamed { (STREAMED, 8) } else { (0, 0) };
        // Times begin with 1980.
        let [time, date] = self.modified.and_then(dos).unwrap_or([0, 1 << 5 | 1]);
        for number in [version, text | streamed, method, time, date] {
            put16(out, number);
        }
        put32(out, sums.crc);
        put32(out, small(sums.packed));
        put32(out, small(sums.len));
    }

    fn time(&self, extra: &mut Vec<u8>) {
        let seconds = self.modified.and_then(|time| u32::try_from(time.seconds).ok());
        // Some take the field for a number with a sign, and some do not.
        if let Some(seconds) = seconds.filter(|seconds| *seconds <= i32::MAX.unsigned_abs()) {
            let [a, b, c, d] = seconds.to_le_bytes();
            // One time, that of the last change.
            field(extra, TIME, &[1, a, b, c, d]);
        }
    }
}

/// The end of an archive whose directory has `entries` of `len` bytes from `start` on.
pub(super) fn end(entries: u64, len: u64, start: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let count = u16::try_from(entries).unwrap_or(COUNT_MAX);
    if count == COUNT_MAX || !fits(len) || !fits(start) {
        out.extend_from_slice(b"PK\x06\x06");
        // Of what follows in this record.
        put64(&mut out, 44);
        put16(&mut out, UNIX | LARGE);
        put16(&mut out, LARGE);
        [0; 2].into_iter().for_each(|disk| put32(&mut out, disk));
        [entries, entries, len, start].into_iter().for_each(|number| put64(&mut out, number));
        // Where that record is.
        out.extend_from_slice(b"PK\x06\x07");
        put32(&mut out, 0);
        put64(&mut out, start + len);
        put32(&mut out, 1);
    }
    out.extend_from_slice(b"PK\x05\x06");
    [0, 0, count, count].into_iter().for_each(|number| put16(&mut out, number));
    put32(&mut out, small(len));
    put32(&mut out, small(start));
    put16(&mut out, 0);
    out
}

/// Time and date in UTC, in steps of two seconds, from 1980 to 2107.
fn dos(time: Timestamp) -> Option<[u16; 2]> {
    let at = jiff::Timestamp::from_second(time.seconds).ok()?.to_zoned(TimeZone::UTC);
    let year = u16::try_from(at.year()).ok()?.checked_sub(1980).filter(|&year| year < 128)?;
    let [month, day, hour, minute, second] =
        [at.month(), at.day(), at.hour(), at.minute(), at.second()]
            .map(|number| u16::from(number.unsigned_abs()));
    Some([hour << 11 | minute << 5 | (second / 2), year << 9 | month << 5 | day])
}

fn field(extra: &mut Vec<u8>, kind: u16, bytes: &[u8]) {
    put16(extra, kind);
    put16(extra, len16(bytes));
    extra.extend_from_slice(bytes);
}

/// Whether a number is no sign that another field has it.
fn fits(number: u64) -> bool {
    number < SMALL_MAX.into()
}

fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(SMALL_MAX)
}

fn len16(bytes: &[u8]) -> u16 {
    u16::try_from(bytes.len()).expect("names are limited, and further fields are short")
}

fn put16(out: &mut Vec<u8>, number: u16) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn put32(out: &mut Vec<u8>, number: u32) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn put64(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}
