//! Extended attributes: in the inode, in a leaf, or in leaves under a B+tree, their values among
//! them or in blocks of their own.
//!
//! The pointers of other folders to a file (`parent`) are kept in the same place and left out.
//! Facts: `xfs_da_format.h`, `struct xfs_attr_sf_hdr`, `xfs_attr_leafblock`, `xfs_attr3_rmt_hdr`.

use super::acl;
use super::fork::{Fork, Place};
use super::index::{LEVELS_MAX, NODE, entries_of};
use super::inode::{Inode, Which};
use super::layout::{Layout, Proof};
use crate::bytes::{be16, be32};
use crate::reader::{ATTRIBUTES_BYTES_MAX, Attribute};
use crate::{Error, Result};

const LEAF: [u16; 2] = [0xfbee, 0x3bee];
/// `XFS_XATTR_SIZE_MAX`.
const VALUE_MAX: usize = 64 << 10;
/// What an attribute takes beside its bytes.
const ATTRIBUTE_BYTES: usize = 64;
const REMOTE_HEADER: usize = 56;

const FLAG_LOCAL: u8 = 1 << 0;
const FLAG_ROOT: u8 = 1 << 1;
const FLAG_SECURE: u8 = 1 << 2;
const FLAG_PARENT: u8 = 1 << 3;
const FLAG_INCOMPLETE: u8 = 1 << 7;
const FLAGS_KNOWN: u8 = FLAG_LOCAL | FLAG_ROOT | FLAG_SECURE | FLAG_PARENT | FLAG_INCOMPLETE;

/// The attributes of a file, by the names Linux gives them.
pub(super) fn read(layout: &Layout<'_>, inode: &Inode) -> Result<Vec<Attribute>> {
    let mut found = Found { inode, attributes: Vec::new(), bytes: 0 };
    match inode.fork(Which::Attributes)? {
        None | Some(Place::Extents { extents: 0, .. }) => {}
        Some(Place::Local(bytes)) => {
            found.take_short(bytes).unwrap_or_else(|| Err(found.damaged("do not fit")))?;
        }
        Some(place) => {
            let fork = Fork::read_records(layout, place, inode.number)?;
            found.take_leaves(layout, &fork)?;
        }
    }
    Ok(found.attributes)
}

struct Found<'a> {
    inode: &'a Inode,
    attributes: Vec<Attribute>,
    bytes: usize,
}

impl Found<'_> {
    fn damaged(&self, what: &str) -> Error {
        self.inode.damaged(&format!("its attributes {what}"))
    }

    /// Adds an attribute as it is stored.
    fn add(&mut self, flags: u8, name: &[u8], value: Vec<u8>) -> Result<()> {
        let prefix = match flags & (FLAG_ROOT | FLAG_SECURE) {
            0 => "user.",
            FLAG_ROOT => "trusted.",
            FLAG_SECURE => "security.",
            _ => return Err(self.damaged("are of two classes")),
        };
        if name.is_empty() || name.contains(&0) {
            return Err(self.damaged("have a name that is none"));
        }
        self.bytes += prefix.len() + name.len() + value.len() + ATTRIBUTE_BYTES;
        if self.bytes > ATTRIBUTES_BYTES_MAX {
            return Err(self.damaged("are more than can be read"));
        }
        let attribute = match acl::name_of(flags & FLAG_ROOT != 0, name) {
            Some(acl_name) => {
                let value = acl::value_of(&value);
                let value = value.ok_or_else(|| self.damaged("have an ACL that is none"))?;
                Attribute { name: acl_name.as_bytes().to_vec(), value }
            }
            None => Attribute { name: [prefix.as_bytes(), name].concat(), value },
        };
        self.attributes.push(attribute);
        Ok(())
    }

    /// Attributes in the inode: length of all, number; then lengths of name and value, flags, both.
    fn take_short(&mut self, fork: &[u8]) -> Option<Result<()>> {
        let len = usize::from(be16(fork.get(..4)?, 0));
        let count = *fork.get(2)?;
        let mut rest = fork.get(4..len)?;
        for _ in 0..count {
            let (&[name_len, value_len, flags], behind) = rest.split_first_chunk()?;
            let (name, behind) = behind.split_at_checked(name_len.into())?;
            let (value, behind) = behind.split_at_checked(value_len.into())?;
            rest = behind;
            if is_shown(flags)
                && let Err(error) = self.add(flags, name, value.to_vec())
            {
                return Some(Err(error));
            }
        }
        Some(Ok(()))
    }

    /// Attributes in blocks: the first one is a leaf, or the root of a tree over leaves, which
    /// are chained in its order.
    fn take_leaves(&mut self, layout: &Layout<'_>, fork: &Fork) -> Result<()> {
        let mut next = 0;
        for _ in 0..=LEVELS_MAX {
            let block = self.block(layout, fork, next)?;
            let Some((count, start)) = entries_of(layout, &block, &[NODE]) else { break };
            let first = block.get(start..start + 8).filter(|_| count > 0);
            next = be32(first.ok_or_else(|| self.damaged("have an empty node"))?, 4).into();
        }
        for _ in 0..fork.runs.iter().map(|run| u64::from(run.blocks)).sum() {
            let block = self.block(layout, fork, next)?;
            self.take_leaf(layout, fork, &block)?;
            next = be32(&block, 0).into();
            if next == 0 {
                return Ok(());
            }
        }
        Err(self.damaged("go in circles"))
    }

    fn block(&self, layout: &Layout<'_>, fork: &Fork, logical: u64) -> Result<Vec<u8>> {
        let mut block = vec![0; layout.shape.geometry.block_size as usize];
        let offset = fork.read_at(layout, logical, &mut block)?;
        let name = "a block of attributes";
        layout.check(&block, Proof::INDEX, offset, self.inode.number, name)?;
        Ok(block)
    }

    fn take_leaf(&mut self, layout: &Layout<'_>, fork: &Fork, block: &[u8]) -> Result<()> {
        let entries = entries_of(layout, block, &[LEAF]);
        let (count, _) = entries.ok_or_else(|| self.damaged("have a block of another kind"))?;
        let start = if layout.shape.self_describing { 80 } else { 32 };
        for n in 0..count {
            let entry = block.get(start + n * 8..start + n * 8 + 8);
            let entry = entry.ok_or_else(|| self.damaged("are more than fit into a block"))?;
            let (at, flags) = (usize::from(be16(entry, 4)), entry[6]);
            if flags & !FLAGS_KNOWN != 0 {
                return Err(self.damaged("have unknown flags"));
            }
            if !is_shown(flags) {
                continue;
            }
            let behind = || self.damaged("lie outside their block");
            let place = block.get(at..).ok_or_else(behind)?;
            if flags & FLAG_LOCAL != 0 {
                let (name, value) = local(place).ok_or_else(behind)?;
                self.add(flags, name, value.to_vec())?;
            } else {
                let (name, first, len) = remote(place).ok_or_else(behind)?;
                let value = self.remote_value(layout, fork, first, len)?;
                self.add(flags, name, value)?;
            }
        }
        Ok(())
    }

    /// A value in blocks of its own, each with a header in version 5.
    fn remote_value(
        &self,
        layout: &Layout<'_>,
        fork: &Fork,
        first: u32,
        len: usize,
    ) -> Result<Vec<u8>> {
        if len > VALUE_MAX {
            return Err(self.damaged("have a value that is too long"));
        }
        let header = if layout.shape.self_describing { REMOTE_HEADER } else { 0 };
        let mut block = vec![0; layout.shape.geometry.block_size as usize];
        let mut value = Vec::with_capacity(len);
        let mut logical = u64::from(first);
        while value.len() < len {
            let offset = fork.read_at(layout, logical, &mut block)?;
            let count = (len - value.len()).min(block.len() - header);
            if header > 0 {
                let name = "a value of an attribute";
                layout.check(&block, Proof::REMOTE, offset, self.inode.number, name)?;
                let is_next = block[..4] == *b"XARM"
                    && be32(&block, 4) as usize == value.len()
                    && be32(&block, 8) as usize == count;
                if !is_next {
                    return Err(self.damaged("have a value of other pieces"));
                }
            }
            value.extend_from_slice(&block[header..header + count]);
            logical += 1;
        }
        Ok(value)
    }
}

/// Whether it is an attribute to anybody else, and was written completely.
fn is_shown(flags: u8) -> bool {
    flags & (FLAG_PARENT | FLAG_INCOMPLETE) == 0
}

/// Name and value that lie together.
fn local(place: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[high, low, name_len], rest) = place.split_first_chunk()?;
    let (name, rest) = rest.split_at_checked(name_len.into())?;
    Some((name, rest.get(..usize::from(u16::from_be_bytes([high, low])))?))
}

/// Name of an attribute whose value lies elsewhere, the first block of that, and its length.
fn remote(place: &[u8]) -> Option<(&[u8], u32, usize)> {
    let (head, rest) = place.split_at_checked(9)?;
    let name = rest.get(..usize::from(head[8]))?;
    Some((name, be32(head, 0), usize::try_from(be32(head, 4)).ok()?))
}
