//! Keys of images that were begun and never finished: a first backup that was interrupted has its
//! key nowhere else.

use aiv_image_format::limits::PAGE_SIZE;
use aiv_image_format::{first_segment_name, peek};
use aiv_keys::KeyArea;
use aiv_volume_io::{Job, Storage};

use crate::error::Result;
use crate::folder::{PART_EXTENSION, list};
use crate::merge::MERGE_PART;
use crate::slots::{KeyedChain, KeyedFile};

/// Unfinished images that are looked at: a crash leaves one of each source.
const FILES_MAX: usize = 64;

/// The unfinished images of a folder that have a key and whose key slots are sound, each by itself.
///
/// # Errors
/// [`crate::Error::Io`] when the folder cannot be listed; [`crate::Error::Canceled`].
pub fn unfinished_chains(storage: &dyn Storage, job: Job<'_>) -> Result<Vec<KeyedChain>> {
    let names = list(storage)?.into_iter().map(|entry| entry.name);
    // Of a split image the first segment has the slots.
    let is_begun = |name: &String| {
        let file = name.strip_suffix(PART_EXTENSION).filter(|_| !name.ends_with(MERGE_PART));
        file.is_some_and(|file| first_segment_name(file).is_none())
    };
    let mut found = Vec::new();
    for name in names.filter(is_begun).take(FILES_MAX) {
        job.check()?;
        let Ok(file) = storage.open(&name) else { continue };
        let Some(superblock) = peek(&*file).filter(|it| it.slot_area_len() > 0) else { continue };
        let mut bytes = vec![0; KeyArea::SIZE];
        if file.read_exact_at(&mut bytes, PAGE_SIZE as u64).is_err() {
            continue;
        }
        let (commitment, area) = (superblock.key_commitment, KeyArea::parse(&bytes));
        if let Some(area) = area.ok().filter(|area| *area.commitment() == commitment.0) {
            let files = vec![KeyedFile::damaged(&name, vec![area])];
            found.push(KeyedChain { commitment, files });
        }
    }
    Ok(found)
}
