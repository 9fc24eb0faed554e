//! Extended attributes: lists of names and values, which files share.

use super::superblock::{NONE, Superblock};
use super::tables::{Place, Tables};
use crate::bytes::{le16, le32, le64};
use crate::reader::ATTRIBUTES_BYTES_MAX;
use crate::{Attribute, Error, Result};

/// The value lies elsewhere, for several to share it.
const ELSEWHERE: u16 = 0x100;
/// Bytes of an entry of the list of lists.
const ENTRY: usize = 16;

/// The attributes of list `number`.
pub(super) fn read(
    tables: &Tables,
    superblock: &Superblock,
    number: u32,
) -> Result<Vec<Attribute>> {
    let damaged = |what: &str| Error::damaged(format!("attributes {what}"), None);
    let list = superblock.attribute_table;
    if list == NONE {
        return Err(damaged("are named, and there are none"));
    }
    let head: [u8; 16] = tables.plain(list)?;
    let table = le64(&head, 0);
    if number >= le32(&head, 8) {
        return Err(damaged("have a number that is none"));
    }
    let list = list.checked_add(16).ok_or_else(|| damaged("lie nowhere"))?;
    let place = tables.listed(list, number.into(), ENTRY)?;
    let entry: [u8; ENTRY] = tables.from(place).array()?;
    let mut at = tables.from(Place::of(le64(&entry, 0), table)?);
    let mut found = Vec::new();
    let mut left = ATTRIBUTES_BYTES_MAX;
    for _ in 0..le32(&entry, 8) {
        let head: [u8; 4] = at.array()?;
        let (kind, len) = (le16(&head, 0), usize::from(le16(&head, 2)));
        let name = at.bytes(len)?;
        let class = match kind & 0xff {
            0 => &b"user."[..],
            1 => b"trusted.",
            2 => b"security.",
            _ => return Err(damaged("are of a class that is not known")),
        };
        let mut len = le32(&at.array::<4>()?, 0);
        let mut elsewhere = None;
        if kind & ELSEWHERE != 0 {
            let place = Place::of(le64(&at.array::<8>()?, 0), table)?;
            let mut there = tables.from(place);
            len = le32(&there.array::<4>()?, 0);
            elsewhere = Some(there);
        }
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let taken = len.saturating_add(name.len()).saturating_add(class.len());
        left = left.checked_sub(taken).ok_or_else(|| damaged("are too many"))?;
        let value = elsewhere.as_mut().unwrap_or(&mut at).bytes(len)?;
        found.push(Attribute { name: [class, &name].concat(), value });
    }
    Ok(found)
}
