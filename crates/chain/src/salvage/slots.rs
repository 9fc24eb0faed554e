//! Ways to the key of damaged images: their own key slots, else those of other images of the chain.

use std::collections::BTreeMap;
use std::sync::Arc;

use aiv_image_format::salvage::slot_areas;
use aiv_image_format::{Digest, Error as ImageError, Unsalvageable};
use aiv_keys::{ChainKey, KeyArea};
use aiv_volume_io::{Job, ReadAt, Storage};

use crate::error::{Error, Result};
use crate::slots::{KeyedChain, KeyedFile, keyed_chains};

/// The chains that damaged `files`, each with its name for messages, may belong to, with every
/// way to their keys that is left in them and in the images of `folders`. Empty where none has a
/// key. What a file says is not proven before a key is there: see [`KeyedChain::newest`].
///
/// # Errors
/// [`Error::Image`] with [`Unsalvageable::NoSlots`] when a file says that it has a key, or nothing
/// tells, and no slots are left anywhere; those of [`keyed_chains`].
pub fn salvage_chains(
    files: &[(String, Arc<dyn ReadAt>)],
    folders: &[&dyn Storage],
    job: Job<'_>,
) -> Result<Vec<KeyedChain>> {
    let mut chains: BTreeMap<[u8; 32], Vec<KeyedFile>> = BTreeMap::new();
    let mut wanted: Vec<Option<Digest>> = Vec::new();
    for (file, bytes) in files {
        let found = slot_areas(&**bytes, true, job).map_err(|error| Error::in_file(file, error))?;
        if found.commitment.is_some_and(|key| key.is_zero()) {
            continue;
        }
        wanted.push(found.commitment);
        for area in found.areas {
            let key = *area.commitment();
            chains.entry(key).or_default().push(KeyedFile::damaged(file, vec![area]));
        }
    }
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let is_wanted = |key| wanted.iter().any(|wanted| wanted.is_none_or(|wanted| wanted == key));
    for folder in folders {
        let found = keyed_chains(*folder, job)?;
        // Damaged ones, unfinished ones, and segments of which another one is missing.
        for (name, _) in found.unsure {
            job.check()?;
            let Ok(file) = folder.open(&name) else { continue };
            let Ok(left) = slot_areas(&*file, false, job) else { continue };
            for area in left.areas.into_iter().filter(|it| is_wanted(Digest(*it.commitment()))) {
                let key = *area.commitment();
                chains.entry(key).or_default().push(KeyedFile::damaged(&name, vec![area]));
            }
        }
        for KeyedChain { commitment, files } in found.chains {
            let files = files.into_iter().filter(|file| !file.areas.is_empty());
            if is_wanted(commitment) {
                chains.entry(commitment.0).or_default().extend(files);
            }
        }
    }
    chains.retain(|_, files| !files.is_empty());
    if chains.is_empty() {
        let (file, _) = &files[0];
        let source = ImageError::Unsalvageable(Unsalvageable::NoSlots);
        return Err(Error::Image { file: file.clone(), source });
    }
    let chain = |(commitment, files)| KeyedChain { commitment: Digest(commitment), files };
    Ok(chains.into_iter().map(chain).collect())
}

/// The newest slots that somebody with `key` made, in damaged files and the images of `folders`.
pub(super) fn newest(
    files: &[(String, Arc<dyn ReadAt>)],
    folders: &[&dyn Storage],
    key: &ChainKey,
    job: Job<'_>,
) -> Result<Option<KeyArea>> {
    let chains = match salvage_chains(files, folders, job) {
        Err(Error::Image { source: ImageError::Unsalvageable(Unsalvageable::NoSlots), .. }) => {
            return Ok(None);
        }
        chains => chains?,
    };
    let ours = chains.into_iter().find(|chain| chain.commitment.0 == key.commitment());
    Ok(ours.and_then(|chain| chain.newest(key)))
}
