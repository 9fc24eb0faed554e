//! The two headers and the two region tables at the front of a VHDX.

use aiv_volume_io::ReadAt;

use super::{MIB, corrupt, unsupported};
use crate::bytes::{le16, le32, le64, take};
use crate::{Error, Result};

const HEADERS: [u64; 2] = [64 << 10, 128 << 10];
const REGION_TABLES: [u64; 2] = [192 << 10, 256 << 10];
const HEADER_LEN: usize = 4 << 10;
const REGION_TABLE_LEN: usize = 64 << 10;
const REGIONS_MAX: u32 = 2047;

/// 2DC27766-F623-4200-9D64-115E9BFD4A08
const TABLE: [u8; 16] = guid(0x2DC2_7766, 0xF623, 0x4200, 0x9D64_115E_9BFD_4A08);
/// 8B7CA206-4790-4B9A-B8FE-575F050F886E
const METADATA: [u8; 16] = guid(0x8B7C_A206, 0x4790, 0x4B9A, 0xB8FE_575F_050F_886E);

/// A GUID as it lies on disk: three little-endian numbers, then eight bytes.
pub(super) const fn guid(a: u32, b: u16, c: u16, rest: u64) -> [u8; 16] {
    let (a, b, c, d) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes(), rest.to_be_bytes());
    [a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]]
}

/// The header that counts: of two sound ones the newer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    sequence: u64,
    /// Changes with the content: what an overlay knows its parent by.
    pub(super) data_id: [u8; 16],
    /// Of the log; zeros when it is empty.
    pub(super) log_id: [u8; 16],
    pub(super) log_at: u64,
    pub(super) log_len: u64,
}

pub(super) fn read(file: &dyn ReadAt) -> Result<Header> {
    let mut signature = [0; 8];
    let is_there = file.len() >= REGION_TABLES[1] + REGION_TABLE_LEN as u64;
    if is_there {
        file.read_exact_at(&mut signature, 0).map_err(Error::io("read the header", 0))?;
    }
    if signature != *b"vhdxfile" {
        return Err(corrupt("file identifier", 0, "there is none, or the file is cut off".into()));
    }
    let [first, second] = HEADERS.map(|at| one(file, at));
    match (first, second) {
        (Ok(a), Ok(b)) if a.sequence == b.sequence && a != b => {
            let what = format!("both have number {} and differ", a.sequence);
            Err(corrupt("header", HEADERS[0], what))
        }
        (Ok(a), Ok(b)) => Ok(if b.sequence > a.sequence { b } else { a }),
        (Ok(only), Err(_)) | (Err(_), Ok(only)) => Ok(only),
        (Err(error), Err(_)) => Err(error),
    }
}

fn one(file: &dyn ReadAt, at: u64) -> Result<Header> {
    let mut bytes = [0; HEADER_LEN];
    file.read_exact_at(&mut bytes, at).map_err(Error::io("read the header", at))?;
    check(&bytes, b"head", "header", at)?;
    let (version, log_version) = (le16(&bytes, 66), le16(&bytes, 64));
    if version != 1 || log_version != 0 {
        return Err(unsupported(format!("version {version} with a log of version {log_version}")));
    }
    Ok(Header {
        sequence: le64(&bytes, 8),
        data_id: take(&bytes, 32),
        log_id: take(&bytes, 48),
        log_len: le32(&bytes, 68).into(),
        log_at: le64(&bytes, 72),
    })
}

/// Signature, and CRC-32C with the field for it as zeros.
pub(super) fn check(
    bytes: &[u8],
    signature: &[u8; 4],
    section: &'static str,
    at: u64,
) -> Result<()> {
    if take::<4>(bytes, 0) != *signature {
        return Err(corrupt(section, at, "there is none".into()));
    }
    let (found, stored) = (checksum(bytes), le32(bytes, 4));
    if found != stored {
        return Err(corrupt(
            section,
            at,
            format!("checksum {found:#010x}, expected {stored:#010x}"),
        ));
    }
    Ok(())
}

/// CRC-32C of a record whose bytes 4 to 8 are its checksum.
pub(super) fn checksum(bytes: &[u8]) -> u32 {
    let (front, rest) = bytes.split_at(bytes.len().min(4));
    let sum = crc32c::crc32c_append(crc32c::crc32c(front), &[0; 4]);
    crc32c::crc32c_append(sum, rest.get(4..).unwrap_or_default())
}

/// Offset and length of the regions that are read; both lie inside the file.
pub(super) struct Regions {
    pub(super) table: (u64, u64),
    pub(super) metadata: (u64, u64),
}

pub(super) fn regions(file: &dyn ReadAt) -> Result<Regions> {
    let [first, second] = REGION_TABLES.map(|at| region_table(file, at));
    match (first, second) {
        (Err(_), Ok(second)) => Ok(second),
        (first, _) => first,
    }
}

fn region_table(file: &dyn ReadAt, at: u64) -> Result<Regions> {
    let mut bytes = vec![0; REGION_TABLE_LEN];
    file.read_exact_at(&mut bytes, at).map_err(Error::io("read the region table", at))?;
    check(&bytes, b"regi", "region table", at)?;
    let count = le32(&bytes, 8);
    if count > REGIONS_MAX {
        return Err(corrupt("region table", at, format!("{count} regions")));
    }
    let (mut table, mut metadata) = (None, None);
    for entry in bytes[16..].chunks_exact(32).zip(0..count).map(|(entry, _)| entry) {
        let (start, len) = (le64(entry, 16), u64::from(le32(entry, 24)));
        let wanted = match take::<16>(entry, 0) {
            TABLE => &mut table,
            METADATA => &mut metadata,
            // Whoever does not know a required region must not touch the file.
            _ if le32(entry, 28) & 1 != 0 => {
                return Err(unsupported("it has a region that is required and not known".into()));
            }
            _ => continue,
        };
        if start < MIB || start.checked_add(len).is_none_or(|end| end > file.len()) {
            let what = format!("{len} bytes at {start}, the file ends at {}", file.len());
            return Err(corrupt("region table", at, what));
        }
        if wanted.replace((start, len)).is_some() {
            return Err(corrupt("region table", at, "a region is listed twice".into()));
        }
    }
    match (table, metadata) {
        (Some(table), Some(metadata)) => Ok(Regions { table, metadata }),
        _ => Err(corrupt("region table", at, "a region is missing".into())),
    }
}
