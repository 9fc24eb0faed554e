//! Folders: their blocks in the order of the folder, or their place within the inode.

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::ops::ControlFlow;

use aiv_volume_io::Job;

use super::super::directory::{self, Entries};
use super::super::inode::MAP_LEN;
use super::super::map::Piece;
use super::{Node, Reader};
use crate::files::fold;
use crate::reader::EXTENTS_MAX;
use crate::{Entry, Error, FileId, Result};

/// Names of a folder that are remembered, to tell each once: about 20 MiB. Only a damaged folder
/// has a name twice.
const REMEMBERED_MAX: usize = 1 << 20;
/// Bytes in front of the names in an inode: the number of the folder that this one is in.
const PARENT_LEN: usize = 4;

/// One folder being told.
struct Telling<'a> {
    visit: &'a mut dyn FnMut(Entry) -> ControlFlow<()>,
    seen: HashSet<u64>,
    /// The first thing that could not be read.
    fault: Option<Error>,
    has_kinds: bool,
    is_encrypted: bool,
}

impl Reader {
    /// Tells `visit` the names in a folder, as [`entries`](crate::Filesystem::entries).
    pub(super) fn tell_entries(
        &self,
        folder: &Node,
        job: Job<'_>,
        visit: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<()> {
        job.check()?;
        let mut telling = Telling {
            visit,
            seen: HashSet::new(),
            fault: None,
            has_kinds: self.superblock.has_entry_kinds,
            is_encrypted: folder.inode.is_encrypted(),
        };
        let told = match folder.inode.is_inline() {
            true => self.tell_inline(folder, &mut telling),
            false => self.tell_blocks(folder, job, &mut telling)?,
        };
        match (told, telling.fault) {
            (ControlFlow::Continue(()), Some(fault)) => Err(fault),
            _ => Ok(()),
        }
    }

    fn tell_inline(&self, folder: &Node, telling: &mut Telling<'_>) -> ControlFlow<()> {
        telling.block(&folder.inode.map[PARENT_LEN..MAP_LEN], None, folder, folder.offset)?;
        match self.inline_rest(folder) {
            Ok(rest) => telling.block(&rest, None, folder, folder.offset),
            Err(error) => {
                telling.note(error);
                ControlFlow::Continue(())
            }
        }
    }

    fn tell_blocks(
        &self,
        folder: &Node,
        job: Job<'_>,
        telling: &mut Telling<'_>,
    ) -> Result<ControlFlow<()>> {
        let blocks = self.blocks();
        let end = folder.inode.len.div_ceil(self.block_size());
        let mut pieces = Vec::new();
        let mut next = 0;
        let read = self.maps(&blocks).pieces(&folder.inode, end, &mut |piece| {
            if let Piece::Data { logical, physical, count } = piece {
                let count = count.min(end.saturating_sub(logical));
                if logical != next || pieces.len() == EXTENTS_MAX {
                    telling.note(folder.damaged("a folder has a hole"));
                }
                next = logical + count;
                if pieces.len() < EXTENTS_MAX {
                    pieces.push((physical, count));
                }
            }
            Ok(())
        });
        match read {
            Err(fault) => telling.note(folder.fault(fault)),
            Ok(()) if next < end => telling.note(folder.damaged("a folder has a hole")),
            Ok(()) => {}
        }
        let mut block = vec![0; blocks.block_size()];
        for physical in pieces.iter().flat_map(|&(first, count)| first..first + count) {
            job.check()?;
            if let Err(error) = blocks.read("read folder", physical, &mut block) {
                telling.note(error);
                continue;
            }
            let offset = blocks.offset_of(physical);
            if telling.block(&block, folder.inode.seed, folder, offset).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The file of a name in a folder, as [`lookup`](crate::Filesystem::lookup).
    pub(super) fn look_up(
        &self,
        folder: &Node,
        name: &[u8],
        job: Job<'_>,
    ) -> Result<Option<FileId>> {
        let folded = match folder.inode.is_case_folded() {
            true => folded(name),
            false => None,
        };
        let (mut exact, mut alike) = (None, None);
        let read = self.tell_entries(folder, job, &mut |entry| {
            if entry.name == name {
                exact = Some(entry.id);
                return ControlFlow::Break(());
            }
            if alike.is_none() && folded.is_some() && self::folded(&entry.name) == folded {
                alike = Some(entry.id);
            }
            ControlFlow::Continue(())
        });
        match (exact.or(alike), read) {
            (None, Err(error)) | (_, Err(error @ Error::Canceled(_))) => Err(error),
            (found, _) => Ok(found),
        }
    }
}

impl Telling<'_> {
    fn note(&mut self, error: Error) {
        self.fault.get_or_insert(error);
    }

    /// Tells the names of one block.
    fn block(
        &mut self,
        block: &[u8],
        seed: Option<u32>,
        folder: &Node,
        offset: u64,
    ) -> ControlFlow<()> {
        let damaged = |what: &str| {
            let what = format!("folder of inode {}: {what}", folder.inode.number);
            Error::damaged(what, Some(offset))
        };
        let mut entries = match Entries::new(block, self.has_kinds, seed) {
            Ok(entries) => entries,
            Err(what) => {
                self.note(damaged(what));
                return ControlFlow::Continue(());
            }
        };
        if self.is_encrypted {
            entries = entries.encrypted();
        }
        for entry in entries {
            match entry {
                Ok(entry) if self.is_new(entry.name) => self.tell(&entry)?,
                Ok(_) => self.note(damaged("a name is there twice")),
                Err(what) => self.note(damaged(what)),
            }
        }
        ControlFlow::Continue(())
    }

    fn is_new(&mut self, name: &[u8]) -> bool {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let hash = hasher.finish();
        match self.seen.len() < REMEMBERED_MAX {
            true => self.seen.insert(hash),
            false => !self.seen.contains(&hash),
        }
    }

    fn tell(&mut self, entry: &directory::Entry<'_>) -> ControlFlow<()> {
        let name = match self.is_encrypted {
            true => letters(entry.name),
            false => entry.name.to_vec(),
        };
        let id = FileId { space: 0, number: u64::from(entry.inode) };
        (self.visit)(Entry { name, id, file_type: entry.kind })
    }
}

/// A name in one case, where it is text.
fn folded(name: &[u8]) -> Option<String> {
    Some(std::str::from_utf8(name).ok()?.chars().map(fold).collect())
}

/// Any bytes as letters, digits, `-` and `_`: base64 for URLs without padding.
fn letters(bytes: &[u8]) -> Vec<u8> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = Vec::new();
    for three in bytes.chunks(3) {
        let bits = three.iter().fold(0, |bits, &byte| bits << 8 | usize::from(byte));
        let bits = bits << (8 * (3 - three.len()));
        let letters = [18, 12, 6, 0].map(|shift| LETTERS[bits >> shift & 63]);
        text.extend_from_slice(&letters[..=three.len()]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::letters;

    #[test]
    fn bytes_become_letters_as_in_rfc_4648() {
        for (bytes, text) in
            [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(letters(bytes.as_bytes()), text.as_bytes());
        }
        assert_eq!(letters(&[0xff, 0xfe, 0x2f, 0]), b"__4vAA");
    }
}
