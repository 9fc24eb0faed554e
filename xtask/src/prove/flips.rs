//! Every single bit of the stored images flips once, and `verify` says so each time, with and
//! without the key.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use aiv_chain::View;
use aiv_image_format::{
    ChainKey, Depth, Error as ImageError, Image, Keys, SegmentFile, segment_name,
};
use aiv_volume_io::{Job, MemDisk, ReadAt};
use rayon::iter::{IntoParallelIterator, ParallelIterator};

use super::said;
use crate::{Outcome, process};

/// The chain key of all stored images that have one (testdata/README.md).
const KEY: &[u8; 32] = b"a chain key of thirty-two bytes.";

/// Images whose flips are tried: the name, the image it builds on, and whether it has a key.
const VICTIMS: &[Victim] = &[
    Victim::plain("none"),
    Victim::plain("lz4"),
    Victim::plain("zstd"),
    Victim::plain("many-pages"),
    Victim { parent: Some("parent.aiv"), ..Victim::plain("child") },
    Victim::plain("local"),
    Victim::plain("split"),
    Victim::plain("parity"),
    Victim::keyed("sealed"),
    Victim::keyed("authenticated"),
    Victim { parent: Some("sealed-parent.aiv"), ..Victim::keyed("sealed-child") },
    Victim::keyed("local-sealed"),
    Victim::keyed("sealed-split"),
    Victim::keyed("sealed-parity"),
    Victim::keyed("authenticated-split-parity"),
];

/// One stored image.
#[derive(Clone, Copy)]
struct Victim {
    name: &'static str,
    parent: Option<&'static str>,
    is_keyed: bool,
}

impl Victim {
    const fn plain(name: &'static str) -> Self {
        Self { name, parent: None, is_keyed: false }
    }

    const fn keyed(name: &'static str) -> Self {
        Self { is_keyed: true, ..Self::plain(name) }
    }

    /// The name of its first file.
    fn file(&self) -> String {
        format!("{}.{}", self.name, if self.parent.is_some() { "aii" } else { "aiv" })
    }
}

/// The names of all images.
pub(super) fn names() -> String {
    VICTIMS.iter().map(|victim| victim.name).collect::<Vec<_>>().join(", ")
}

/// Flips all bits of the image called `name`, or of all images; of every `step`th byte.
pub(super) fn campaign(name: Option<&str>, step: u64) -> Outcome {
    let chosen: Vec<&Victim> =
        VICTIMS.iter().filter(|victim| name.is_none_or(|name| victim.name == name)).collect();
    if chosen.is_empty() || step == 0 {
        return Err(format!("no image {}: {}", name.unwrap_or(""), names()));
    }
    for victim in chosen {
        let keys = [Some(Keys::none()), victim.is_keyed.then(|| Keys::of(ChainKey::new(*KEY)))];
        for keys in keys.into_iter().flatten() {
            let started = Instant::now();
            let tried = run(victim, &keys, step, 0..8)?;
            let seconds = started.elapsed().as_secs();
            let how = match (victim.is_keyed, keys.is_empty()) {
                (false, _) => "",
                (true, true) => " without its key",
                (true, false) => " with its key",
            };
            println!("flips: {}{how}: {tried}, 0 missed, {seconds} s", victim.name);
        }
    }
    Ok(())
}

/// How flips were noticed.
#[derive(Debug, Default, Clone, Copy)]
struct Tried {
    bytes: u64,
    /// Flips after which the image did not open.
    refused: u64,
    /// Flips that verifying the open image told of.
    told: u64,
}

impl std::fmt::Display for Tried {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { bytes, refused, told } = self;
        let flips = refused + told;
        write!(f, "{bytes} bytes, {flips} flips: {refused} not opened, {told} told by verify")
    }
}

/// The files of an image, one of which has a bit that is not as it was written.
struct Scene {
    files: Vec<(String, Arc<Vec<u8>>)>,
    parent: Option<View>,
    keys: Keys,
}

fn run(
    victim: &Victim,
    keys: &Keys,
    step: u64,
    bits: std::ops::Range<u8>,
) -> Result<Tried, String> {
    let scene = Scene::of(victim, keys)?;
    if scene.is_noticed(0, 0, 0)? != Noticed::Never {
        return Err(format!("{}: not sound as it is stored", victim.name));
    }
    let (refused, told) = (AtomicU64::new(0), AtomicU64::new(0));
    let mut tried = Tried::default();
    for (number, (file, bytes)) in scene.files.iter().enumerate() {
        let count = (bytes.len() as u64).div_ceil(step);
        tried.bytes += count;
        let check = |n: u64| {
            let at = n * step;
            for bit in bits.clone() {
                match scene.is_noticed(number, at, 1 << bit)? {
                    Noticed::Opening => refused.fetch_add(1, Ordering::Relaxed),
                    Noticed::Verifying => told.fetch_add(1, Ordering::Relaxed),
                    Noticed::Never => return Err(format!("{file}: bit {bit} of byte {at}")),
                };
            }
            Ok(())
        };
        (0..count).into_par_iter().try_for_each(check)?;
    }
    Ok(Tried { refused: refused.into_inner(), told: told.into_inner(), ..tried })
}

/// When a flip was noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Noticed {
    Opening,
    Verifying,
    Never,
}

impl Scene {
    fn of(victim: &Victim, keys: &Keys) -> Result<Self, String> {
        let first = victim.file();
        let mut files = vec![(first.clone(), stored(&first)?)];
        for number in 1.. {
            let name = segment_name(&first, number);
            if !folder().join(&name).exists() {
                break;
            }
            files.push((name.clone(), stored(&name)?));
        }
        let parent = match victim.parent {
            // Without the key nobody can read what it builds on.
            Some(name) if !victim.is_keyed || !keys.is_empty() => {
                let bytes = stored(name)?;
                let file = Arc::new(MemDisk::from_bytes(bytes.to_vec()));
                let image = Image::open_with(file, keys).map_err(|e| said(&e))?;
                Some(View::of_full(Arc::new(image), name.to_owned()))
            }
            _ => None,
        };
        Ok(Self { files, parent, keys: keys.clone() })
    }

    /// Whether anybody notices that `mask` changes the byte at `at` of a file.
    fn is_noticed(&self, number: usize, at: u64, mask: u8) -> Result<Noticed, String> {
        let flipped = |n: usize, bytes: &Arc<Vec<u8>>| -> Arc<dyn ReadAt> {
            let mask = if n == number { mask } else { 0 };
            Arc::new(Flipped { bytes: bytes.clone(), at, mask })
        };
        let opened = match &self.files[..] {
            [(_, bytes)] => Image::open_with(flipped(0, bytes), &self.keys),
            files => {
                let files = files.iter().enumerate().map(|(n, (name, bytes))| SegmentFile {
                    name: name.clone(),
                    file: flipped(n, bytes),
                });
                Image::open_segments_with(files.collect(), &self.keys)
            }
        };
        let image = match opened {
            Ok(image) => image,
            Err(ImageError::Io { .. } | ImageError::Misuse(_)) => {
                return Err(format!("byte {at}: damage is neither of these"));
            }
            Err(_) => return Ok(Noticed::Opening),
        };
        let report = match &self.parent {
            Some(parent) => image.verify_on(parent, Depth::Data, Job::silent()),
            None => image.verify(Depth::Data, Job::silent()),
        };
        match report {
            Ok(report) if report.is_sound() => Ok(Noticed::Never),
            // The link names another state.
            Ok(_) | Err(ImageError::Misuse(_)) => Ok(Noticed::Verifying),
            Err(error) => Err(format!("byte {at}: {}", said(&error))),
        }
    }
}

fn folder() -> PathBuf {
    process::repository().join("testdata/golden")
}

fn stored(name: &str) -> Result<Arc<Vec<u8>>, String> {
    let bytes = std::fs::read(folder().join(name)).map_err(|e| format!("{name}: {e}"))?;
    Ok(Arc::new(bytes))
}

/// A file one byte of which is changed by a mask.
struct Flipped {
    bytes: Arc<Vec<u8>>,
    at: u64,
    mask: u8,
}

impl ReadAt for Flipped {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> std::io::Result<()> {
        let from = usize::try_from(offset).ok();
        let stored = from.and_then(|from| self.bytes.get(from..from.checked_add(out.len())?));
        out.copy_from_slice(stored.ok_or(std::io::ErrorKind::UnexpectedEof)?);
        let place = self.at.checked_sub(offset).and_then(|at| usize::try_from(at).ok());
        if let Some(byte) = place.and_then(|at| out.get_mut(at)) {
            *byte ^= self.mask;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flips_all_over_every_stored_image_are_found_with_and_without_its_key() {
        for victim in VICTIMS {
            for keys in [Keys::none(), Keys::of(ChainKey::new(*KEY))] {
                // A prime: all places in records are met, in one image or another.
                let tried = run(victim, &keys, 4001, 3..4);
                let tried = tried.unwrap_or_else(|why| panic!("{}: {why}", victim.name));
                assert!(tried.told > 25, "{}: {tried}", victim.name);
            }
        }
    }

    #[test]
    fn every_stored_image_has_its_bits_flipped() {
        let entries = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = entries.map(|name| name.into_string().unwrap()).collect();
        names.retain(|name| name.ends_with(".aiv") || name.ends_with(".aii"));
        for name in names {
            let is_tried = VICTIMS.iter().any(|victim| victim.file() == name);
            let is_parent = VICTIMS.iter().any(|victim| victim.parent == Some(name.as_str()));
            assert!(is_tried || is_parent, "{name} is in no campaign");
        }
    }

    #[test]
    fn a_flip_that_nobody_notices_is_reported() {
        let scene = Scene::of(&VICTIMS[0], &Keys::none()).unwrap();
        assert_eq!(scene.is_noticed(0, 100, 0), Ok(Noticed::Never), "no bit is another one");
        assert_ne!(scene.is_noticed(0, 100, 1), Ok(Noticed::Never));
        // Bytes behind the end change nothing: a sweep over them would not pass.
        let len = scene.files[0].1.len() as u64;
        assert_eq!(scene.is_noticed(0, len, 1), Ok(Noticed::Never));
    }
}
