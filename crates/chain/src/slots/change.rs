//! Changes the slots of all images of a chain.
//!
//! Each image has two copies, of which a split one has the first in its first segment and the other
//! in its last. The second one is written and synced, then the first: at every
//! moment one of them is whole. Images are changed one by one, so a crash leaves some with the
//! old slots, which the next change brings up to date.

use std::io;

use aiv_image_format::{Digest, SetId};
use aiv_keys::{ChainKey, KeyArea};
use aiv_volume_io::{Job, Lease, SlotCopy, SlotFile, Storage};

use super::{KeyedChain, KeyedFile, SlotPlace, keyed_chains};
use crate::error::{Error, Result};
use crate::look::in_parallel;

/// What the crate of keys says.
type KeyResult<T> = std::result::Result<T, aiv_keys::Error>;

/// What became of a change.
#[derive(Debug, Clone)]
pub struct SlotReport {
    /// Whether no slots were left, and these were made anew: nothing that opened the images before
    /// does, but the chain key itself.
    pub anew: bool,
    /// The slots as they are now.
    pub area: KeyArea,
    /// Files that have them, by name: written, read back and compared.
    pub changed: Vec<String>,
    /// Files that could not be written, or that nobody came to, and why: what opened them before
    /// opens them still.
    pub unchanged: Vec<(String, String)>,
    /// Whether the caller asked to stop when some had them already.
    pub canceled: bool,
}

/// Changes the slots of every image of a folder that has this key, as `change` says. It is given
/// the newest slots that somebody with the key made; images that an earlier change did not reach
/// are brought up to date.
///
/// # Errors
/// Those of [`make_slots`], and [`Error::Key`] when no image has sound slots.
pub fn change_slots(
    storage: &dyn Storage,
    key: &ChainKey,
    change: &dyn Fn(&KeyArea) -> std::result::Result<KeyArea, aiv_keys::Error>,
    job: Job<'_>,
) -> Result<SlotReport> {
    make_slots(storage, key, &|newest| change(newest?), job)
}

/// As [`change_slots`], also where no image has slots any more that somebody with the key made, of
/// which `make` is told with the reason: whoever has the key itself, from paper, makes them anew.
///
/// # Errors
/// [`Error::Key`] for what `make` refuses,
/// [`Error::Busy`] when a backup, a merge or a copy writes images of the chain,
/// [`Error::Canceled`]; nothing was changed then. What happens to single files is in the report.
pub fn make_slots(
    storage: &dyn Storage,
    key: &ChainKey,
    make: &dyn Fn(KeyResult<&KeyArea>) -> KeyResult<KeyArea>,
    job: Job<'_>,
) -> Result<SlotReport> {
    let commitment = Digest(key.commitment());
    let chain = find(storage, commitment, job)?;
    let mut sets: Vec<SetId> = chain.files.iter().map(|file| file.set).collect();
    sets.sort_unstable();
    sets.dedup();
    // Whoever writes an image gives it the slots of its parent as they were before.
    let _leases =
        sets.iter().map(|&set| keep_others_out(storage, set)).collect::<Result<Vec<_>>>()?;
    let chain = find(storage, commitment, job)?;
    if chain.files.iter().any(|file| !sets.contains(&file.set)) {
        return Err(Error::Changed { what: "an image of another set came".to_owned() });
    }
    let newest = chain.newest(key);
    let lost = match chain.areas().is_empty() {
        true => aiv_keys::Error::NoSlots,
        // There are some, and somebody without the key made them.
        false => aiv_keys::Error::Forged,
    };
    let area = make(newest.as_ref().ok_or(lost))?;
    let bytes = area.to_bytes();
    let written = in_parallel(&chain.files, &|file: &KeyedFile| {
        // Whoever stops it half-way has to know which have the new slots.
        let written = job.check().is_ok().then(|| write(storage, file, key, &bytes));
        Ok((file.file.clone(), written))
    })?;
    if written.iter().all(|(_, written)| written.is_none()) {
        job.check()?;
    }
    let (changed, unchanged) = (Vec::new(), Vec::new());
    let anew = newest.is_none();
    let mut report = SlotReport { anew, area, changed, unchanged, canceled: false };
    for (file, written) in written {
        match written {
            Some(Ok(())) => report.changed.push(file),
            Some(Err(error)) => report.unchanged.push((file, error.to_string())),
            None => {
                report.canceled = true;
                report.unchanged.push((file, "the change was stopped before it".to_owned()));
            }
        }
    }
    Ok(report)
}

fn find(storage: &dyn Storage, commitment: Digest, job: Job<'_>) -> Result<KeyedChain> {
    let found = keyed_chains(storage, job)?.chains;
    let chain = found.into_iter().find(|chain| chain.commitment == commitment);
    chain.ok_or_else(|| Error::Changed { what: "its images are gone".to_owned() })
}

fn keep_others_out(storage: &dyn Storage, set: SetId) -> Result<[Box<dyn Lease>; 2]> {
    let take = |name: String| {
        storage.lease(&name).map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => Error::Busy { set },
            _ => Error::io("taking the lease of the set")(source),
        })
    };
    Ok([take(format!("merge-{set}"))?, take(format!("set-{set}"))?])
}

/// Writes both copies of one image, the second one first, and reads them back. Of a split image
/// they lie in two files, each of which is durable before the other is touched.
fn write(storage: &dyn Storage, file: &KeyedFile, key: &ChainKey, bytes: &[u8]) -> io::Result<()> {
    let Some([first, second]) = &file.places else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it has no key slots"));
    };
    if [first, second].iter().all(|copy| *copy.bytes == *bytes) {
        return Ok(());
    }
    // Before anything is written: a segment that may only be read keeps its image as it is.
    let mut opened: Vec<(&str, Box<dyn SlotFile>)> = Vec::new();
    for copy in [first, second] {
        if opened.iter().all(|(file, _)| *file != copy.file) {
            opened.push((&copy.file, storage.open_slots(&copy.file)?));
        }
    }
    // Of the two copies the older one goes first, and one that is not sound, or that somebody without
    // the key made, before any: what is left when the power goes is never older than what was there.
    for copy in in_order(first, second, key) {
        let file = opened.iter_mut().find(|(file, _)| *file == copy.file);
        let (_, slots) = file.ok_or(io::ErrorKind::NotFound)?;
        slots.write(SlotCopy::new(copy.offset, bytes)?)?;
        slots.sync()?;
    }
    drop(opened);
    for copy in [first, second] {
        let mut back = vec![0; bytes.len()];
        storage.open(&copy.file)?.read_exact_at(&mut back, copy.offset)?;
        if back != bytes {
            return Err(io::Error::other("its key slots do not read back as they were written"));
        }
    }
    Ok(())
}

fn in_order<'c>(first: &'c SlotPlace, second: &'c SlotPlace, key: &ChainKey) -> [&'c SlotPlace; 2] {
    let generation = |copy: &SlotPlace| {
        let ours = KeyArea::parse(&copy.bytes).ok().filter(|area| area.prove(key).is_ok());
        ours.map_or(0, |area| area.generation())
    };
    if generation(first) < generation(second) { [first, second] } else { [second, first] }
}
