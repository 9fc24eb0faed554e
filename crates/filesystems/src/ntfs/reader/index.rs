//! Indexes: sorted entries in a root within a record, and in blocks of clusters below it.
//!
//! Facts: Linux-NTFS project, "NTFS documentation", `$INDEX_ROOT`, `$INDEX_ALLOCATION`.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use aiv_volume_io::Job;

use super::Ntfs;
use super::contents::Contents;
use super::file::{File, damaged};
use crate::bytes::{le16, le32, le64};
use crate::ntfs::reason::NtfsReason;
use crate::ntfs::record::fix_up;
use crate::{Error, Result};

const ROOT: u32 = 0x90;
const ALLOCATION: u32 = 0xa0;
const BITMAP: u32 = 0xb0;

/// Bytes of a block: Windows makes 4 KiB, or a cluster.
const BLOCK_MAX: usize = 64 << 10;
/// Bytes of a bitmap: half a tebibyte of names.
const BITMAP_MAX: u64 = 16 << 20;
/// Blocks from the root to the bottom; each but the last has two below it at least.
const DEPTH_MAX: usize = 40;

/// An entry: eight bytes whose meaning depends on the index, and its key.
pub(super) struct IndexEntry<'a> {
    /// Of a folder, the file.
    pub(super) head: u64,
    pub(super) key: &'a [u8],
    /// All of it, the data of an index that is no folder's among it.
    pub(super) bytes: &'a [u8],
}

/// The entries of a node, checked one by one.
struct Node<'a> {
    left: &'a [u8],
    record: u64,
    done: bool,
}

/// What a step through a node found.
enum Step<'a> {
    /// A key, and the block of those in front of it.
    Key(IndexEntry<'a>, Option<u64>),
    /// The end, and the block of those behind the last key.
    End(Option<u64>),
}

impl<'a> Node<'a> {
    /// The node whose header is at `at`.
    fn new(bytes: &'a [u8], at: usize, record: u64) -> Result<Self> {
        let whole = || -> Option<&'a [u8]> {
            let node = bytes.get(at..)?;
            let header = node.get(..16)?;
            let (first, len) = (le32(header, 0) as usize, le32(header, 4) as usize);
            node.get(first..len).filter(|_| first >= 16 && first.is_multiple_of(8))
        };
        let left = whole().ok_or_else(|| wrong(record, "has an index with an impossible node"))?;
        Ok(Self { left, record, done: false })
    }
}

impl<'a> Iterator for Node<'a> {
    type Item = Result<Step<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        const HAS_BELOW: u16 = 1;
        const IS_END: u16 = 2;
        if self.done {
            return None;
        }
        let step = || -> Option<(Step<'a>, &'a [u8])> {
            let header = self.left.get(..16)?;
            let (len, key_len) = (usize::from(le16(header, 8)), usize::from(le16(header, 10)));
            let flags = le16(header, 12);
            let below_len = if flags & HAS_BELOW != 0 { 8 } else { 0 };
            if len < 16 + below_len || !len.is_multiple_of(8) {
                return None;
            }
            let (bytes, rest) = self.left.split_at_checked(len)?;
            let below = (below_len != 0).then(|| le64(bytes, len - 8));
            if flags & IS_END != 0 {
                return Some((Step::End(below), rest));
            }
            let key = bytes.get(16..len - below_len)?.get(..key_len)?;
            let entry = IndexEntry { head: le64(bytes, 0), key, bytes };
            Some((Step::Key(entry, below), rest))
        };
        match step() {
            Some((step, rest)) => {
                self.done = matches!(step, Step::End(_));
                self.left = rest;
                Some(Ok(step))
            }
            None => {
                self.done = true;
                Some(Err(wrong(self.record, "has an index with an impossible entry")))
            }
        }
    }
}

fn wrong(record: u64, what: &'static str) -> Error {
    damaged(&NtfsReason::Record { record, what })
}

/// An index of a file.
pub(super) struct Index<'a> {
    ntfs: &'a Ntfs,
    record: u64,
    root: Vec<u8>,
    block_size: usize,
    /// How many bytes a number of a block counts.
    step: u64,
    blocks: Option<Contents>,
    bitmap: Option<Vec<u8>>,
    /// What of it cannot be read.
    fault: Option<Error>,
}

impl<'a> Index<'a> {
    /// The index of this name; `None` when the file has none.
    pub(super) fn open(ntfs: &'a Ntfs, file: &File, name: &[u8]) -> Result<Option<Self>> {
        let record = file.number;
        let Some(root) = ntfs.value(file, ROOT, name, BLOCK_MAX as u64)? else { return Ok(None) };
        let block_size = root.get(..32).map_or(0, |root| le32(root, 8) as usize);
        if !block_size.is_power_of_two() || !(512..=BLOCK_MAX).contains(&block_size) {
            return Err(wrong(record, "has an index with an impossible root"));
        }
        let cluster_size = u64::from(ntfs.geometry.cluster_size);
        let step = if cluster_size <= block_size as u64 { cluster_size } else { 512 };
        let mut index =
            Self { ntfs, record, root, block_size, step, blocks: None, bitmap: None, fault: None };
        if let Err(error) = index.find_blocks(file, name) {
            index.fault = Some(error);
        }
        Ok(Some(index))
    }

    fn find_blocks(&mut self, file: &File, name: &[u8]) -> Result<()> {
        let pieces = self.ntfs.pieces(file, ALLOCATION, name)?;
        if pieces.is_empty() {
            return Ok(());
        }
        let blocks = Contents::of(&self.ntfs.geometry, file.number, &pieces)?;
        blocks.check_once(&self.ntfs.geometry)?;
        self.blocks = Some(blocks);
        self.bitmap = self.ntfs.value(file, BITMAP, name, BITMAP_MAX)?;
        if self.bitmap.is_none() {
            return Err(wrong(self.record, "has an index without a bitmap"));
        }
        Ok(())
    }

    /// The block at byte `at`, unprotected; its node is 24 bytes behind its start.
    fn block(&self, at: u64) -> Result<Vec<u8>> {
        let damage = |what| wrong(self.record, what);
        let blocks = self.blocks.as_ref().ok_or_else(|| match &self.fault {
            Some(fault) => Error::damaged(fault.to_string(), None),
            None => damage("has an index whose blocks are missing"),
        })?;
        let mut block = vec![0; self.block_size];
        blocks.read(&self.ntfs.volume, "read index block", at, &mut block)?;
        if !block.starts_with(b"INDX") {
            return Err(damage("has an index block without a signature"));
        }
        fix_up(&mut block).map_err(|_| damage("has an index block that was not written whole"))?;
        if le64(&block, 16) != at / self.step {
            return Err(damage("has an index block that belongs elsewhere"));
        }
        Ok(block)
    }

    /// Tells every key, those of the root first. What cannot be read comes last, as an error.
    pub(super) fn each(
        &self,
        job: Job<'_>,
        visit: &mut dyn FnMut(&IndexEntry<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut fault = self.fault.as_ref().map(|fault| Error::damaged(fault.to_string(), None));
        let mut tell = |bytes: &[u8], at: usize| -> Result<ControlFlow<()>> {
            for step in Node::new(bytes, at, self.record)? {
                if let Step::Key(entry, _) = step?
                    && visit(&entry).is_break()
                {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Ok(ControlFlow::Continue(()))
        };
        match tell(&self.root, 16) {
            Ok(ControlFlow::Break(())) => return Ok(()),
            Ok(ControlFlow::Continue(())) => {}
            Err(error) => fault = fault.or(Some(error)),
        }
        let size = self.blocks.as_ref().map_or(0, |blocks| blocks.size.min(blocks.initialised));
        let mut number = 0;
        while (number + 1) * self.block_size as u64 <= size {
            let at = number * self.block_size as u64;
            // Of a size nothing backs, what is free or a hole is stepped over at once.
            let Some(next) = self.next_used(number, at) else { break };
            if next != number {
                number = next;
                continue;
            }
            number += 1;
            job.check()?;
            let read = self.block(at).and_then(|block| tell(&block, 24));
            match read {
                Ok(ControlFlow::Break(())) => return Ok(()),
                Ok(ControlFlow::Continue(())) => {}
                // Without its bitmap any block may be one that was never used.
                Err(_) if self.bitmap.is_none() => {}
                Err(error) => fault = fault.or(Some(error)),
            }
        }
        fault.map_or(Ok(()), Err)
    }

    /// The first block from `number`, which is at byte `at`, that may be used.
    fn next_used(&self, number: u64, at: u64) -> Option<u64> {
        if let Some(bitmap) = &self.bitmap {
            let byte = *bitmap.get(usize::try_from(number / 8).ok()?)?;
            let left = byte >> (number % 8);
            return Some(match left {
                0 => (number / 8 + 1) * 8,
                _ => number + u64::from(left.trailing_zeros()),
            });
        }
        let blocks = self.blocks.as_ref()?;
        let run = blocks.runs_from(at / blocks.cluster_size).first()?;
        match run.lcn {
            Some(_) => Some(number),
            None => {
                let end = (run.vcn + run.len) * blocks.cluster_size;
                Some((end / self.block_size as u64).max(number + 1))
            }
        }
    }

    /// Goes down to where a key would be. `order` says where what is looked for lies, as seen
    /// from a key; `visit` is told each equal key on the way, until it breaks off: the last of
    /// them is the first in the index.
    pub(super) fn descend(
        &self,
        order: &dyn Fn(&IndexEntry<'_>) -> Ordering,
        visit: &mut dyn FnMut(&IndexEntry<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut bytes;
        let mut node = Node::new(&self.root, 16, self.record)?;
        for _ in 0..DEPTH_MAX {
            let mut below = None;
            for step in &mut node {
                match step? {
                    Step::Key(entry, block) => match order(&entry) {
                        Ordering::Greater => continue,
                        is => {
                            if is == Ordering::Equal && visit(&entry).is_break() {
                                return Ok(());
                            }
                            below = block;
                            break;
                        }
                    },
                    Step::End(block) => below = block,
                }
            }
            let Some(below) = below else { return Ok(()) };
            let at = below.checked_mul(self.step);
            let at = at.ok_or_else(|| wrong(self.record, "has an index that leads nowhere"))?;
            bytes = self.block(at)?;
            node = Node::new(&bytes, 24, self.record)?;
        }
        Err(wrong(self.record, "has an index without an end"))
    }
}

/// The data behind the key, of an index that is no folder's.
pub(super) fn data_of<'a>(entry: &IndexEntry<'a>) -> Option<&'a [u8]> {
    let (at, len) = (usize::from(le16(entry.bytes, 0)), usize::from(le16(entry.bytes, 2)));
    entry.bytes.get(at..at + len)
}
