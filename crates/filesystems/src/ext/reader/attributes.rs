//! Extended attributes: in the inode, in a block of their own, and in inodes of their own.

use aiv_volume_io::ReadAt;

use super::super::checksum::crc32c;
use super::super::inode::{GOOD_OLD_LEN, Kind};
use super::{Node, Reader, acl, metadata};
use crate::bytes::{le16, le32};
use crate::{ATTRIBUTES_BYTES_MAX, Attribute, Error, Result};

const MAGIC: u32 = 0xea02_0000;
/// Header of a block, and where entries begin in it.
const BLOCK_HEAD: usize = 32;
/// Bytes of an entry before its name.
const ENTRY_HEAD: usize = 16;

const ACCESS: u8 = 2;
const DEFAULT: u8 = 3;
const SYSTEM: u8 = 7;
/// Of class [`SYSTEM`], the rest of a file that lies in its inode.
const INLINE: &[u8] = b"data";

/// What stands before the name of an attribute of a class; nothing for those that Linux shows to
/// nobody.
fn class(index: u8) -> Option<&'static str> {
    Some(match index {
        1 => "user.",
        ACCESS => "system.posix_acl_access",
        DEFAULT => "system.posix_acl_default",
        4 => "trusted.",
        6 => "security.",
        SYSTEM => "system.",
        10 => "gnu.",
        _ => return None,
    })
}

/// One attribute as it is stored.
struct Stored<'b> {
    index: u8,
    name: &'b [u8],
    value: Value<'b>,
}

enum Value<'b> {
    Here(&'b [u8]),
    /// In the contents of another inode.
    Inode {
        number: u32,
        len: u32,
    },
}

impl Reader {
    /// All attributes that Linux shows.
    pub(super) fn attributes_of(&self, node: &Node) -> Result<Vec<Attribute>> {
        let mut found = Vec::new();
        let mut bytes = 0;
        let block = self.attribute_block(node)?;
        let places = [in_inode(node), block.as_deref().map(|block| (block, BLOCK_HEAD))];
        for (place, first) in places.into_iter().flatten() {
            for stored in entries(place, first) {
                let stored = stored.map_err(|what| node.damaged(what))?;
                let Some(class) = class(stored.index) else { continue };
                if (stored.index, stored.name) == (SYSTEM, INLINE) {
                    continue;
                }
                let len = stored.name.len() as u64 + stored.value.len();
                bytes += usize::try_from(len).unwrap_or(usize::MAX).min(ATTRIBUTES_BYTES_MAX);
                if bytes > ATTRIBUTES_BYTES_MAX {
                    return Err(node.damaged("it has too many attributes"));
                }
                let mut value = self.value_of(node, &stored)?;
                if matches!(stored.index, ACCESS | DEFAULT) {
                    let list = acl::given(&value);
                    value = list.ok_or_else(|| node.damaged("an access control list"))?;
                }
                let name = [class.as_bytes(), stored.name].concat();
                found.push(Attribute { name, value });
            }
        }
        Ok(found)
    }

    /// What of a file or folder within its inode follows the first bytes; nothing when these are
    /// all.
    pub(super) fn inline_rest(&self, node: &Node) -> Result<Vec<u8>> {
        let (place, first) = in_inode(node).unwrap_or((&[], 0));
        for stored in entries(place, first) {
            let stored = stored.map_err(|what| node.damaged(what))?;
            if (stored.index, stored.name) == (SYSTEM, INLINE) {
                return match stored.value {
                    Value::Here(value) => Ok(value.to_vec()),
                    Value::Inode { .. } => Err(node.damaged("its data lies elsewhere")),
                };
            }
        }
        Err(node.damaged("its data is missing"))
    }

    fn attribute_block(&self, node: &Node) -> Result<Option<Vec<u8>>> {
        const CHECKSUM_AT: usize = 0x10;
        let block = node.inode.attributes;
        let geometry = &self.superblock.geometry;
        if block == 0 {
            return Ok(None);
        }
        if !(u64::from(geometry.first_data_block).max(1)..geometry.blocks).contains(&block) {
            return Err(node.damaged("its attributes lie outside the filesystem"));
        }
        let blocks = self.blocks();
        let mut bytes = vec![0; blocks.block_size()];
        blocks.read("read attributes", block, &mut bytes)?;
        let damaged = |what| Error::damaged(what, Some(blocks.offset_of(block)));
        // One block: more were never implemented.
        if le32(&bytes, 0) != MAGIC || le32(&bytes, 8) != 1 {
            return Err(damaged("a block of attributes is none"));
        }
        if let Some(seed) = self.superblock.checksums.seed() {
            let sum = crc32c(crc32c(seed, &block.to_le_bytes()), &bytes[..CHECKSUM_AT]);
            let sum = crc32c(crc32c(sum, &[0; 4]), &bytes[CHECKSUM_AT + 4..]);
            if sum != le32(&bytes, CHECKSUM_AT) {
                return Err(damaged("checksum of a block of attributes"));
            }
        }
        Ok(Some(bytes))
    }

    fn value_of(&self, owner: &Node, stored: &Stored<'_>) -> Result<Vec<u8>> {
        let (number, len) = match stored.value {
            Value::Here(value) => return Ok(value.to_vec()),
            Value::Inode { number, len } => (number, len),
        };
        let node = self.any_node(number)?;
        let is_value = node.inode.is_attribute() && node.inode.kind == Kind::File;
        if !is_value || node.inode.len != u64::from(len) {
            return Err(node.damaged("it is not the attribute of another one"));
        }
        let mut value = vec![0; len as usize];
        let data = self.contents(&node)?;
        data.read_exact_at(&mut value, 0).map_err(Error::io("read attribute", node.offset))?;
        // In place of the time it was read there is its sum. Lustre, whose idea these inodes were,
        // has the owner in place of the time it was written instead.
        let sum = crc32c(self.superblock.seed, &value);
        let is_of_lustre = le32(&node.raw, 0x10) == owner.inode.number
            && le32(&node.raw, 0x64) == le32(&owner.raw, 0x64);
        match sum == le32(&node.raw, 0x8) || is_of_lustre {
            true => Ok(value),
            false => Err(node.damaged("checksum of an attribute")),
        }
    }
}

impl Value<'_> {
    fn len(&self) -> u64 {
        match self {
            Self::Here(value) => value.len() as u64,
            Self::Inode { len, .. } => u64::from(*len),
        }
    }
}

/// The attributes within an inode: the bytes that offsets count in, and the first entry there.
fn in_inode(node: &Node) -> Option<(&[u8], usize)> {
    let start = GOOD_OLD_LEN + metadata::extra_len(&node.raw);
    let rest = node.raw.get(start..).filter(|rest| rest.len() >= 8)?;
    (node.raw.len() > GOOD_OLD_LEN && le32(rest, 0) == MAGIC).then_some((&rest[4..], 0))
}

/// The entries of `place` from `first` on, up to four zero bytes. An error is the last.
fn entries(
    place: &[u8],
    first: usize,
) -> impl Iterator<Item = std::result::Result<Stored<'_>, &'static str>> {
    let values_from = list_end(place, first);
    let mut at = Some(first);
    std::iter::from_fn(move || {
        let here = at.take()?;
        match entry(place, here, values_from) {
            Ok(None) => None,
            Ok(Some((stored, next))) => {
                at = Some(next);
                Some(Ok(stored))
            }
            Err(what) => Some(Err(what)),
        }
    })
}

/// Where the list that begins at `first` ends, which is where values may begin.
fn list_end(place: &[u8], first: usize) -> usize {
    let mut at = first;
    while let Some(head) = place.get(at..).and_then(<[u8]>::first_chunk::<4>)
        && *head != [0; 4]
    {
        at += entry_len(head[0].into());
    }
    at + 4
}

/// Bytes of an entry whose name has `name_len`.
fn entry_len(name_len: usize) -> usize {
    (ENTRY_HEAD + name_len).next_multiple_of(4)
}

/// The entry at `at` and where the next one is, or nothing at the end of the list.
fn entry(
    place: &[u8],
    at: usize,
    values_from: usize,
) -> std::result::Result<Option<(Stored<'_>, usize)>, &'static str> {
    const CUT_OFF: &str = "an attribute does not fit its place";
    let rest = place.get(at..).filter(|rest| rest.len() >= 4).ok_or(CUT_OFF)?;
    if le32(rest, 0) == 0 {
        return Ok(None);
    }
    let name_len = usize::from(rest[0]);
    let head = rest.get(..ENTRY_HEAD + name_len).ok_or(CUT_OFF)?;
    let (index, number, len) = (head[1], le32(head, 4), le32(head, 8));
    let name = &head[ENTRY_HEAD..];
    if name.contains(&0) {
        return Err("the name of an attribute");
    }
    let value = match number {
        0 => {
            let from = usize::from(le16(head, 2));
            let value = from.checked_add(len as usize).and_then(|to| place.get(from..to));
            // An empty value may be anywhere.
            Value::Here(match len {
                0 => &[],
                _ if from < values_from => return Err("the value of an attribute is among names"),
                _ => value.ok_or(CUT_OFF)?,
            })
        }
        number => Value::Inode { number, len },
    };
    Ok(Some((Stored { index, name, value }, at + entry_len(name_len))))
}
