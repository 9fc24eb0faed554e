//! An image of several files as one entry of a listing, so that a catalogue notices a change of
//! any of them.

use std::collections::HashMap;

use aiv_volume_io::FileEntry;

/// The files of a folder by name.
pub(crate) struct Listing<'l>(HashMap<&'l str, &'l FileEntry>);

impl<'l> Listing<'l> {
    pub(crate) fn of(listed: &'l [FileEntry]) -> Self {
        Self(listed.iter().map(|entry| (entry.name.as_str(), entry)).collect())
    }

    /// The image that begins with `first` and has `segments` beside it: the length is that of all
    /// of them, and the stamp is another one when any of theirs is. `None` when one is gone.
    pub(crate) fn image(&self, first: &FileEntry, segments: &[String]) -> Option<FileEntry> {
        if segments.is_empty() {
            return Some(first.clone());
        }
        let mut hasher = blake3::Hasher::new();
        let mut len = 0u64;
        let mut is_stamped = true;
        let others = segments.iter().map(|name| self.0.get(name.as_str()).copied());
        for entry in std::iter::once(Some(first)).chain(others) {
            let entry = entry?;
            hasher.update(&entry.len.to_le_bytes()).update(&entry.stamp.to_le_bytes());
            len = len.saturating_add(entry.len);
            is_stamped &= entry.stamp != 0;
        }
        let mut stamp = [0; 8];
        stamp.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        let stamp = if is_stamped { u64::from_le_bytes(stamp).max(1) } else { 0 };
        Some(FileEntry { name: first.name.clone(), len, stamp })
    }
}
