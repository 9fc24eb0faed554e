//! Key slots of a damaged file: where they belong, else wherever they are.

use std::thread;

use aiv_keys::{KeyArea, Keys};
use aiv_volume_io::{Job, ReadAt, Step};

use super::feed::Feed;
use super::whose;
use crate::error::Result;
use crate::ids::Digest;
use crate::limits::{PAGE_SIZE, TRAILER_GAP, TRAILER_GAP_WITH_PARITY};

/// What an area begins with.
const MAGIC: [u8; 8] = *b"AIVKEYS1";

/// Different areas that are remembered: an image has one, or two after a change was cut off.
/// Others are remains of images that lay on a disk.
const AREAS_MAX: usize = 8;

/// Looks at an area that may be none: each costs a hash of 32 KiB.
const LOOKS_MAX: usize = 1 << 14;

/// What is left of the ways to the key of a damaged image.
#[derive(Debug, Clone, Default)]
pub struct FoundSlots {
    /// What stands for the key, where a superblock tells; zero for an image without one.
    pub commitment: Option<Digest>,
    /// Sound areas, each once, that may be its own.
    pub areas: Vec<KeyArea>,
}

/// Finds the sound key-slot areas of the image in `file`. When none is where one belongs, all of
/// the file is read, if it is to be looked for `anywhere`. Who has the key proves which of them
/// somebody with it has made.
///
/// # Errors
/// [`crate::Error::Unsupported`] when a sound superblock asks for another program;
/// [`crate::Error::Canceled`].
pub fn slot_areas(file: &dyn ReadAt, anywhere: bool, job: Job<'_>) -> Result<FoundSlots> {
    let known = whose::superblock(file, &Keys::none())?;
    let commitment = known.map(|known| known.superblock.key_commitment);
    let mut found = FoundSlots { commitment, areas: Vec::new() };
    if commitment.is_some_and(|commitment| commitment.is_zero()) {
        return Ok(found);
    }
    let (page, len) = (PAGE_SIZE as u64, file.len());
    // The second copy begins the gap, behind which lie a superblock and a trailer.
    let second = |gap: u64| len.checked_sub(gap + 2 * page);
    for at in [Some(page), second(TRAILER_GAP), second(TRAILER_GAP_WITH_PARITY)] {
        let mut bytes = vec![0; KeyArea::SIZE];
        if at.is_some_and(|at| file.read_exact_at(&mut bytes, at).is_ok()) {
            found.take(&bytes);
        }
    }
    if found.areas.is_empty() && anywhere {
        search(file, &mut found, job)?;
    }
    Ok(found)
}

impl FoundSlots {
    /// Takes the area in `bytes`, if it is a sound one that may be that of the image.
    fn take(&mut self, bytes: &[u8]) {
        let Ok(area) = KeyArea::parse(bytes) else { return };
        let is_other = self.commitment.is_some_and(|key| key.0 != *area.commitment());
        if !is_other && self.areas.len() < AREAS_MAX && !self.areas.contains(&area) {
            self.areas.push(area);
        }
    }
}

/// Looks for areas at every multiple of 64.
fn search(file: &dyn ReadAt, found: &mut FoundSlots, job: Job<'_>) -> Result<()> {
    const STRIDE: u64 = 4 << 20;
    let (len, area) = (file.len(), KeyArea::SIZE);
    job.progress.begin(Step::SalvageImage, len);
    thread::scope(|scope| {
        let mut feed = Feed::new(scope, file, job.cancel);
        let (mut at, mut told, mut looks) = (0, 0, 0);
        while at < len && looks < LOOKS_MAX && found.areas.len() < AREAS_MAX {
            if at - told >= STRIDE {
                job.check()?;
                job.progress.advance(Step::SalvageImage, at - told);
                told = at;
            }
            let here = feed.at(at, 64);
            let nothing = here.chunks(64).position(|chunk| chunk.starts_with(&MAGIC));
            match nothing {
                None => at += here.len().next_multiple_of(64).max(64) as u64,
                Some(0) => {
                    looks += 1;
                    if let Some(bytes) = feed.at(at, area).get(..area) {
                        found.take(bytes);
                    }
                    at += 64;
                }
                Some(chunks) => at += chunks as u64 * 64,
            }
        }
        job.check()?;
        job.progress.advance(Step::SalvageImage, len - told);
        Ok::<_, crate::Error>(())
    })?;
    job.progress.end(Step::SalvageImage);
    Ok(())
}
