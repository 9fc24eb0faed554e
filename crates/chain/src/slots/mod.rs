//! Ways to the key of a chain: each image of the chain carries them in its key slots, and they
//! are changed in all of them.

mod change;

pub use change::{SlotReport, change_slots, make_slots};

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use aiv_image_format::{Digest, Image, ImageId, Keys, Segments, SetId, peek, peek_segment};
use aiv_keys::{ChainKey, Credential, KeyArea, Opened, Work};
use aiv_volume_io::{DirStorage, Job, Storage};

use crate::error::{Error, Result};
use crate::folder::{PART_EXTENSION, is_named_like_an_image, list, why};
use crate::locate::storage_of;
use crate::look::in_parallel;
use crate::open::{self, Head};

/// The images of a folder that have one chain key.
#[derive(Debug, Clone)]
pub struct KeyedChain {
    /// Stands for the key.
    pub commitment: Digest,
    /// The images, by name.
    pub files: Vec<KeyedFile>,
}

/// An image with a chain key.
#[derive(Debug, Clone)]
pub struct KeyedFile {
    /// Its name in the folder.
    pub file: String,
    /// The set it belongs to.
    pub set: SetId,
    /// Whether it is sealed; else it is authenticated.
    pub sealed: bool,
    /// The sound copies of its slots, the newest first. Empty when it has none, or when none is
    /// sound.
    pub areas: Vec<KeyArea>,
    /// What is wrong with its slots, if none are sound.
    pub damage: Option<aiv_keys::Error>,
    /// Both copies as they are, where they are.
    places: Option<[SlotPlace; 2]>,
}

/// A copy of the key slots in a folder. Of a split image the first segment has one, and the last
/// one has the other.
#[derive(Debug, Clone)]
struct SlotPlace {
    /// Name of the file.
    file: String,
    /// Where in it the copy begins.
    offset: u64,
    bytes: Box<[u8]>,
}

impl KeyedFile {
    /// A damaged file of which these slots are left.
    pub(crate) fn damaged(file: &str, areas: Vec<KeyArea>) -> Self {
        let (set, file) = (SetId::default(), file.to_owned());
        Self { file, set, sealed: true, areas, damage: None, places: None }
    }
}

/// What looking for keyed images in a folder gave.
#[derive(Debug, Clone, Default)]
pub struct KeyedChains {
    /// By what stands for their keys.
    pub chains: Vec<KeyedChain>,
    /// Files that may be keyed images and cannot be looked into, and why: unfinished ones, too.
    pub unsure: Vec<(String, String)>,
}

/// Finds the images with keys in a folder; of a file, those of its chain in the folder it lies in.
///
/// # Errors
/// [`Error::File`] when it cannot be opened; those of [`keyed_chains`].
pub fn locate_chains(what: &Path, job: Job<'_>) -> Result<(DirStorage, KeyedChains)> {
    let what = &folder_of(what);
    if what.is_dir() {
        let wrap = aiv_volume_io::Error::path("open", what);
        let storage = DirStorage::open(what).map_err(|source| Error::File(wrap(source)))?;
        let found = keyed_chains(&storage, job)?;
        return Ok((storage, found));
    }
    let (storage, name) = storage_of(what)?;
    // Says what is wrong with it, where anything is.
    open::open(&storage, name, Head::Read, &Keys::none())?;
    let mut found = keyed_chains(&storage, job)?;
    found.chains.retain(|chain| chain.files.iter().any(|file| file.file == name));
    Ok((storage, found))
}

/// What holds the chains of an argument: of a point in a folder, the folder.
fn folder_of(argument: &Path) -> PathBuf {
    let bytes = argument.as_os_str().as_bytes();
    match bytes.iter().rposition(|&byte| byte == b'@') {
        Some(at) if !argument.exists() => PathBuf::from(OsStr::from_bytes(&bytes[..at])),
        _ => argument.to_path_buf(),
    }
}

/// The newest slots that somebody with `key` made, over all images of its chain in these folders.
/// A change that was cut off has not reached all of them: whoever takes those of a single image
/// brings back what was removed, or loses what was added.
///
/// # Errors
/// Those of [`keyed_chains`].
pub fn newest_slots(
    folders: &[&dyn Storage],
    key: &ChainKey,
    job: Job<'_>,
) -> Result<Option<KeyArea>> {
    let mut newest: Option<KeyArea> = None;
    for folder in folders {
        for chain in keyed_chains(*folder, job)?.chains {
            let Some(area) = chain.newest(key) else { continue };
            if newest.as_ref().is_none_or(|before| before.generation() < area.generation()) {
                newest = Some(area);
            }
        }
    }
    Ok(newest)
}

enum Look {
    /// With the number of segments; 0 for one that is not split.
    Keyed(Digest, ImageId, u32, Box<KeyedFile>),
    Segment(LaterSegment),
    Unsure(String, String),
    Other,
}

/// A later segment of an image with a key.
struct LaterSegment {
    image: ImageId,
    /// From 1.
    no: u32,
    file: String,
    /// Why it is no image.
    why: String,
}

/// Finds the images of a folder that have keys.
///
/// # Errors
/// [`Error::Io`] when the folder cannot be listed; [`Error::Canceled`].
pub fn keyed_chains(storage: &dyn Storage, job: Job<'_>) -> Result<KeyedChains> {
    let names: Vec<String> = list(storage)?.into_iter().map(|entry| entry.name).collect();
    let looks = in_parallel(&names, &|name: &String| {
        job.check()?;
        Ok(look_at(storage, name))
    })?;
    let mut found = KeyedChains::default();
    let mut chains: BTreeMap<[u8; 32], Vec<KeyedFile>> = BTreeMap::new();
    // The number of segments, and the files whose second copy of the slots is known.
    let mut images: HashMap<ImageId, (u32, Vec<String>)> = HashMap::new();
    let mut segments = Vec::new();
    for look in looks {
        match look {
            Look::Keyed(commitment, image, count, file) => {
                let (_, lasts) = images.entry(image).or_insert((count, Vec::new()));
                lasts.extend(file.places.iter().map(|[_, second]| second.file.clone()));
                chains.entry(commitment.0).or_default().push(*file);
            }
            Look::Segment(segment) => segments.push(segment),
            Look::Unsure(file, why) => found.unsure.push((file, why)),
            Look::Other => {}
        }
    }
    for LaterSegment { image, no, file, why } in segments {
        match images.get(&image) {
            None => found.unsure.push((file, why)),
            // No change comes to the slots of a file that no image reads. Some have none at all.
            Some((count, lasts))
                if no.checked_add(1) == Some(*count)
                    && !lasts.is_empty()
                    && !lasts.contains(&file) =>
            {
                found.unsure.push((file, SECOND_FILE.to_owned()));
            }
            // Those of images that were found went with them.
            Some(_) => {}
        }
    }
    let chain = |(commitment, files)| KeyedChain { commitment: Digest(commitment), files };
    found.chains = chains.into_iter().map(chain).collect();
    Ok(found)
}

const SECOND_FILE: &str =
    "a second file of this segment is beside it, which is the one that is read";

fn look_at(storage: &dyn Storage, name: &str) -> Look {
    if name.ends_with(PART_EXTENSION) {
        return Look::Unsure(name.to_owned(), "it was never finished".to_owned());
    }
    match open::open(storage, name, Head::Read, &Keys::none())
        .and_then(|image| keyed_file(&image, name))
    {
        Ok(Some((commitment, image, count, file))) => {
            Look::Keyed(commitment, image, count, Box::new(file))
        }
        Ok(None) => Look::Other,
        Err(error) => match keyed_segment(storage, name) {
            Some((image, no)) => {
                Look::Segment(LaterSegment { image, no, file: name.to_owned(), why: why(&error) })
            }
            None if is_named_like_an_image(name) => Look::Unsure(name.to_owned(), why(&error)),
            None => Look::Other,
        },
    }
}

/// The image a file is a later segment of, if that has a key, and the number of the segment.
fn keyed_segment(storage: &dyn Storage, name: &str) -> Option<(ImageId, u32)> {
    let file = storage.open(name).ok()?;
    let head = peek_segment(&*file).filter(|head| head.no > 0)?;
    peek(&*file).is_none_or(|superblock| superblock.is_keyed()).then_some((head.image, head.no))
}

/// What an image says about its slots; `None` when it has no key.
fn keyed_file(image: &Image, name: &str) -> Result<Option<(Digest, ImageId, u32, KeyedFile)>> {
    let superblock = image.superblock();
    if !superblock.is_keyed() {
        return Ok(None);
    }
    let commitment = superblock.key_commitment;
    let copies = image.slot_copies().map_err(|source| Error::in_file(name, source))?;
    let mut file = KeyedFile {
        file: name.to_owned(),
        set: superblock.set,
        sealed: superblock.is_sealed(),
        areas: Vec::new(),
        damage: None,
        places: None,
    };
    if let Some([first, second]) = copies {
        match KeyArea::sound([&first, &second]) {
            // Slots of another chain in this file open nothing of it.
            Ok(areas) => {
                file.areas =
                    areas.into_iter().filter(|a| *a.commitment() == commitment.0).collect();
            }
            Err(error) => file.damage = Some(error),
        }
        let [a, b] = image.slot_places();
        file.places = Some([slot_place(image, name, a, first), slot_place(image, name, b, second)]);
    }
    let count = image.segments().map_or(0, Segments::count);
    Ok(Some((commitment, superblock.image, count, file)))
}

/// The copy at a byte of an image that is called `name`.
fn slot_place(image: &Image, name: &str, at: u64, bytes: Box<[u8]>) -> SlotPlace {
    let in_segment = image.segments().and_then(|segments| segments.place_of(at));
    let (file, offset) = in_segment.unwrap_or((name, at));
    SlotPlace { file: file.to_owned(), offset, bytes }
}

impl KeyedChain {
    /// The different slot areas of its images, the newest first. All images of a chain have the
    /// same one, unless a change did not reach some.
    #[must_use]
    pub fn areas(&self) -> Vec<KeyArea> {
        let mut areas: Vec<KeyArea> = Vec::new();
        for area in self.files.iter().flat_map(|file| &file.areas) {
            if !areas.contains(area) {
                areas.push(area.clone());
            }
        }
        areas.sort_by_key(|area| std::cmp::Reverse(area.generation()));
        areas
    }

    /// Opens the chain with what somebody has; a paper key does it without any slots.
    ///
    /// # Errors
    /// Those of [`KeyArea::open`], for the newest slots.
    pub fn open(
        &self,
        credential: &Credential,
        work: &mut Work,
    ) -> std::result::Result<Opened, aiv_keys::Error> {
        match credential {
            Credential::PaperKey(paper) => Opened::by_paper(paper, &self.commitment.0),
            credential => KeyArea::open_any(&self.areas(), credential, work),
        }
    }

    /// The newest slots that somebody with the key made.
    #[must_use]
    pub fn newest(&self, key: &ChainKey) -> Option<KeyArea> {
        self.areas().into_iter().find(|area| area.prove(key).is_ok())
    }
}
