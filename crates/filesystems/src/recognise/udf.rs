use super::head::Head;
use super::{Recognised, text};
use crate::bytes::{le16, le32};
use crate::{FilesystemKind, Result};

/// Descriptors of a sequence that are looked at; there are some six.
const DESCRIPTORS_MAX: u32 = 64;
/// Records that tell what is on a medium, from byte 32,768 on.
const RECORDS_MAX: u64 = 64;

/// UDF (ECMA-167): the records at the beginning say that it is one, and an anchor in block 256 leads
/// to what it is called.
pub(super) fn udf(head: &Head<'_>) -> Result<Option<Recognised>> {
    if !is_told(head)? {
        return Ok(None);
    }
    let mut found = Recognised::new(FilesystemKind::Udf);
    for block in [2048, 512, 1024, 4096] {
        let Some(anchor) = descriptor(head, block, 256)?.filter(|anchor| le16(anchor, 0) == 2)
        else {
            continue;
        };
        found.block_size = Some(block);
        for at in 0..(le32(&anchor, 16) / block).min(DESCRIPTORS_MAX) {
            let Some(at) = le32(&anchor, 20).checked_add(at) else { break };
            let Some(bytes) = descriptor(head, block, at)? else { break };
            match le16(&bytes, 0) {
                PRIMARY => found.uuid = identity(&dstring(&bytes[72..200])),
                LOGICAL => found.label = dstring(&bytes[84..212]).trim_end().to_owned(),
                TERMINATING => break,
                _ => {}
            }
        }
        break;
    }
    Ok(Some(found))
}

const PRIMARY: u16 = 1;
const LOGICAL: u16 = 6;
const TERMINATING: u16 = 8;

/// Whether a record of UDF is among those of 2,048 bytes, or as many as a larger sector has.
fn is_told(head: &Head<'_>) -> Result<bool> {
    for record in 0..RECORDS_MAX {
        let Some(bytes) = head.far(0x8000 + record * 2048, 6)? else { return Ok(false) };
        match &bytes[1..6] {
            b"NSR02" | b"NSR03" => return Ok(true),
            b"BEA01" | b"CD001" | b"BOOT2" | b"CDW02" => {}
            // Of a record that fills a larger sector, the rest.
            [0, 0, 0, 0, 0] if record % 2 == 1 => {}
            _ => return Ok(false),
        }
    }
    Ok(false)
}

/// A descriptor that says itself where it is.
fn descriptor(head: &Head<'_>, block: u32, at: u32) -> Result<Option<Vec<u8>>> {
    let bytes = head.far(u64::from(at) * u64::from(block), 512)?;
    Ok(bytes.filter(|bytes| le32(bytes, 12) == at))
}

/// Text in bytes or pairs of them, as the first byte says; the last one is how many are in use.
fn dstring(field: &[u8]) -> String {
    let used = usize::from(field[field.len() - 1]).min(field.len() - 1);
    match (field[0], field.get(1..used)) {
        (8, Some(bytes)) => bytes.iter().map(|&byte| char::from(byte)).collect(),
        (16, Some(pairs)) => text::label_utf16be(pairs),
        _ => String::new(),
    }
}

/// As `blkid` makes an identity of what a set of volumes is called: 16 digits, which the first 16 are
/// where they all are, or else the first 8 and four bytes, or eight bytes.
fn identity(set: &str) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let bytes = set.as_bytes();
    if bytes.len() < 8 {
        return String::new();
    }
    let mut padded = [0; 16];
    let count = bytes.len().min(16);
    padded[..count].copy_from_slice(&bytes[..count]);
    let digits = padded.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).to_ascii_lowercase();
    match digits {
        ..8 => hex(&padded[..8]),
        8..16 => text(&padded[..8]) + &hex(&padded[8..12]),
        _ => text(&padded),
    }
}
