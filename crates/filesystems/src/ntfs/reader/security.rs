//! `$Secure`: security descriptors, each once, by the number files know them by.
//!
//! Facts: Linux-NTFS project, "NTFS documentation", `$Secure`. The index `$SII` says where in
//! the stream `$SDS` a descriptor is; there it stands behind a header of 20 bytes with a hash, and
//! once more 256 KiB further on.

use std::ops::ControlFlow;
use std::sync::{Arc, PoisonError};

use super::Ntfs;
use super::contents::Contents;
use super::facts::{SECURITY_MAX, utf16};
use super::file::damaged;
use super::index::{Index, data_of};
use crate::bytes::{le32, le64};
use crate::ntfs::reason::NtfsReason;
use crate::ntfs::record::DATA;
use crate::{Error, FileId, Result};

const SECURE: u64 = 9;
const HEADER: usize = 20;
const COPY_AT: u64 = 256 << 10;
/// Descriptors that are remembered: a volume has dozens of them.
pub(super) const REMEMBERED_MAX: usize = 256;

fn wrong(what: &'static str) -> Error {
    damaged(&NtfsReason::SystemFile { record: SECURE, what })
}

impl Ntfs {
    /// The security descriptor of this number.
    pub(super) fn descriptor(&self, number: u32) -> Result<Vec<u8>> {
        {
            let known = self.descriptors.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(descriptor) = known.get(&number) {
                return Ok(descriptor.to_vec());
            }
        }
        let descriptor = self.read_descriptor(number)?;
        let mut known = self.descriptors.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() < REMEMBERED_MAX {
            known.insert(number, Arc::from(descriptor.as_slice()));
        }
        Ok(descriptor)
    }

    fn read_descriptor(&self, number: u32) -> Result<Vec<u8>> {
        let file = self.file(FileId { space: 0, number: SECURE })?;
        let index = Index::open(self, &file, &utf16("$SII"))?;
        let index = index.ok_or_else(|| wrong("has no index of security descriptors"))?;
        let mut place = None;
        let order = |entry: &super::index::IndexEntry<'_>| {
            number.cmp(&entry.key.get(..4).map_or(0, |key| le32(key, 0)))
        };
        index.descend(&order, &mut |entry| {
            let data = data_of(entry).and_then(|data| data.get(..HEADER));
            place = data.map(|data| (le64(data, 8), u64::from(le32(data, 16))));
            ControlFlow::Break(())
        })?;
        let (at, len) = place.ok_or_else(|| wrong("has no security descriptor of a file"))?;
        if !(HEADER as u64..=SECURITY_MAX).contains(&len) {
            return Err(wrong("has a security descriptor of an impossible size"));
        }
        let contents =
            Contents::of(&self.geometry, SECURE, &self.pieces(&file, DATA, &utf16("$SDS"))?)?;
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        for at in [Some(at), at.checked_add(COPY_AT)].into_iter().flatten() {
            let read = contents.read(&self.volume, "read security descriptor", at, &mut bytes);
            if read.is_ok() && is_whole(&bytes, number) {
                return Ok(bytes.split_off(HEADER));
            }
        }
        Err(wrong("has a damaged security descriptor"))
    }
}

/// Whether these are the header and the descriptor of this number.
fn is_whole(bytes: &[u8], number: u32) -> bool {
    let Some((header, descriptor)) = bytes.split_at_checked(HEADER) else { return false };
    let (words, rest) = descriptor.as_chunks();
    let hash = words
        .iter()
        .fold(0_u32, |hash, word| hash.rotate_left(3).wrapping_add(u32::from_le_bytes(*word)));
    // What is no whole word is not counted; there is none in what Windows writes.
    let _ = rest;
    le32(header, 0) == hash && le32(header, 4) == number && le32(header, 16) as usize == bytes.len()
}
