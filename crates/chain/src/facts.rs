//! What one image file says about itself, as far as finding and chaining points needs it.

use aiv_image_format::{
    BlockSize, Corrupt, Digest, Image, ImageId, ImageKind, Mode, ParentLink, PointId, Segments,
    SetId, Superblock,
};

use crate::catalogue::Verified;

/// What a chain key does for an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protection {
    /// Nothing: it has none.
    #[default]
    None,
    /// It authenticates; this stands for it.
    Authenticated(Digest),
    /// It encrypts and authenticates; this stands for it.
    Sealed(Digest),
}

impl Protection {
    /// That of the image with this superblock.
    #[must_use]
    pub fn of(superblock: &Superblock) -> Self {
        match (superblock.is_keyed(), superblock.is_sealed()) {
            (false, _) => Self::None,
            (true, false) => Self::Authenticated(superblock.key_commitment),
            (true, true) => Self::Sealed(superblock.key_commitment),
        }
    }

    /// What the key is for; `None` without one.
    #[must_use]
    pub const fn mode(&self) -> Option<Mode> {
        match self {
            Self::None => None,
            Self::Authenticated(_) => Some(Mode::Authenticated),
            Self::Sealed(_) => Some(Mode::Sealed),
        }
    }

    /// What stands for the chain key; `None` without one.
    #[must_use]
    pub const fn key(&self) -> Option<Digest> {
        match self {
            Self::None => None,
            Self::Authenticated(key) | Self::Sealed(key) => Some(*key),
        }
    }
}

/// One image file. Everything comes from its superblock, trailer and META, or from a catalogue
/// that remembers them: who reads blocks compares with the file again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    pub file: String,
    /// The files with the other segments, in order, when the image is split.
    pub segments: Vec<String>,
    pub image: ImageId,
    pub set: SetId,
    pub point: PointId,
    pub state_root: Digest,
    pub content_root: Digest,
    pub kind: ImageKind,
    pub parent: Option<ParentLink>,
    /// What a key does for it. Not in a catalogue, which is not asked about images with a key.
    pub protection: Protection,
    /// Whether it is sealed and there was no key for it.
    pub locked: bool,
    /// Bytes of the disk.
    pub size: u64,
    pub block_size: BlockSize,
    pub sector_size: u32,
    /// Bytes of the file, or of all its segments.
    pub size_stored: u64,
    /// Those of them from the index on.
    pub tail: u64,
    /// What META says; `None` when it is damaged: then nothing tells whose point it is, and
    /// other images can still build on it.
    pub about: Option<About>,
    /// Damage that a second copy makes up for, or that is in META.
    pub damage: Vec<Corrupt>,
    /// What the last verification found, when the file is still the one that was verified.
    pub verified: Option<Verified>,
}

/// What META says about a point.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct About {
    pub host: String,
    pub name: String,
    pub source_id: String,
    pub full_number: u32,
    pub increment_number: u32,
    pub time_unix_ms: u64,
    pub comment: String,
}

impl Facts {
    pub(crate) fn of(image: &Image, file: String) -> Self {
        let (superblock, trailer) = (image.superblock(), image.trailer());
        let manifest = &image.meta().manifest;
        let locked = image.is_locked();
        // When it began is all that a locked image tells.
        let begun = About { time_unix_ms: superblock.created_unix_ms, ..About::default() };
        let about = image.has_meta().then(|| About {
            host: manifest.host.clone(),
            name: manifest.name.clone(),
            source_id: manifest.source_id.clone(),
            full_number: manifest.full_number,
            increment_number: manifest.increment_number,
            time_unix_ms: manifest.time_unix_ms,
            comment: manifest.comment.clone(),
        });
        Self {
            file,
            segments: Vec::new(),
            image: superblock.image,
            set: superblock.set,
            point: superblock.point,
            state_root: trailer.state_root,
            content_root: trailer.content_root,
            kind: superblock.kind,
            parent: superblock.parent,
            protection: Protection::of(superblock),
            locked,
            size: superblock.geometry.len(),
            block_size: superblock.geometry.block_size(),
            sector_size: superblock.geometry.sector_size(),
            size_stored: image.segments().map_or(trailer.file_len, Segments::bytes),
            tail: trailer.file_len - trailer.index_offset,
            about: if locked { Some(begun) } else { about },
            damage: image.damage().to_vec(),
            verified: None,
        }
    }

    /// Whether nothing bad is known about the file.
    pub(crate) fn is_sound(&self) -> bool {
        self.damage.is_empty() && !self.is_known_damaged()
    }

    /// Whether a verification found damage in the file.
    pub(crate) fn is_known_damaged(&self) -> bool {
        self.verified.is_some_and(|verified| !verified.sound)
    }
}
