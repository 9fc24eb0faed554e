use std::num::NonZeroUsize;
use std::time::Duration;

use aiv_filesystems::Pattern;
use aiv_image_format::{BlockSize, Compression, DELTA_DEPTH_WRITTEN};

use crate::seal::SealOptions;

/// Names the bytes of a source at one time. Who gives two backups the same stamp vouches that
/// every byte of the source was the same from the first to the second: a plain file with the same
/// inode, length and times, a snapshot with the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceStamp(pub(crate) [u8; 16]);

impl SourceStamp {
    /// The stamp of what `words` describe. Lengths and order of the words count.
    #[must_use]
    pub fn new(words: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(b"aivory backup: stamp of a source");
        for word in words {
            hasher.update(&(word.len() as u64).to_le_bytes());
            hasher.update(word);
        }
        let mut stamp = [0; 16];
        stamp.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        // Zero is for a source nobody vouches for.
        stamp[0] |= 1;
        Self(stamp)
    }
}

/// What the caller knows about a source besides its bytes.
#[derive(Debug, Clone, Default)]
pub struct SourceFacts {
    /// Where it was found (a path); a label that identifies nothing.
    pub label: String,
    /// What people call it; becomes the name of the set and part of the file name.
    pub name: String,
    /// Host it is attached to.
    pub host: String,
    /// Identity chosen by the user instead of the one found on the disk.
    pub source_id: Option<String>,
    /// Bytes per logical sector; zero when no device tells (a raw file).
    pub logical_sector: u32,
    /// Bytes per physical sector; zero when no device tells.
    pub physical_sector: u32,
    /// Model as the device reports it.
    pub model: String,
    /// Serial number as the device reports it.
    pub serial: String,
    /// World-wide name as the device reports it.
    pub wwn: String,
    /// Who could change its bytes while they are read, in words: mounted read-write, swap.
    pub writers: Vec<String>,
    /// What keeps those who could from doing so, in words, if anything does: frozen filesystems,
    /// a snapshot. The point is crash-consistent then.
    pub held: Option<String>,
    /// Swap in use on a held source, in words. Its content goes on changing, and means nothing
    /// after a restore.
    pub swap: Vec<String>,
    /// What vouches that the source is the same as at an earlier time, if anything does.
    pub stamp: Option<SourceStamp>,
}

/// Which sectors are captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sectors {
    /// What the filesystems call used, and everything outside filesystems.
    #[default]
    Used,
    /// Every sector: a restore is bit-identical, free space included.
    All,
}

/// What an image builds on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Basis {
    /// The newest usable point of the same source, if there is one; else the image is full.
    #[default]
    Newest,
    /// The newest usable full image of the same source, if there is one; else the image is full.
    NewestFull,
    /// Nothing: the image is full.
    Nothing,
}

/// How a backup is made.
#[derive(Debug, Clone)]
pub struct BackupOptions {
    /// Which sectors are captured.
    pub sectors: Sectors,
    /// Files whose content is left out, by their paths inside the volumes of the source.
    pub exclude: Vec<Pattern>,
    /// What the image builds on.
    pub basis: Basis,
    /// Store changed blocks as differences to the parent's where that is clearly smaller.
    pub deltas: bool,
    /// Differences a reader may have to undo for one block.
    pub delta_depth: u8,
    /// Store blocks that are nowhere else as differences to other blocks of the same image where
    /// that is clearly smaller: copies that are shifted against the blocks, or in other order.
    /// What may be such a base is read from the source again.
    pub repeats: bool,
    /// Bytes of the source that lie between a piece of work and the blocks it may be a difference
    /// to, at least; `None` for 16 pieces (16 MiB) in a full image, and 8 (64 MiB in blocks of
    /// 64 KiB) in others. With fewer, more is found, and threads wait for each other.
    pub repeat_distance: Option<u64>,
    /// How new blocks are compressed.
    pub compression: Compression,
    /// Bytes per block; `None` for what the format recommends, or what the chain has that the
    /// image builds on. An image with another block size cannot build on a chain.
    pub block_size: Option<BlockSize>,
    /// Threads that hash and compress.
    pub threads: NonZeroUsize,
    /// Decode every compressed block again and compare before it is written.
    pub self_check: bool,
    /// Store parity over the whole image, 3 % more, by which damaged places can be repaired.
    pub parity: bool,
    /// Read every frame of the finished image back and compare hashes before publishing.
    pub verify: bool,
    /// Go on although the source may change while it is read; the point is marked
    /// inconsistent.
    pub live: bool,
    /// Go on with what an interrupted backup of the same source and plan has stored already, if
    /// there is anything. What it has is compared with the source first, block by block, unless
    /// [`SourceFacts::stamp`] is the one it was begun with; and the image is verified as with
    /// `verify`. Without this, or when it does not fit, it is removed.
    pub resume: bool,
    /// Bytes stored between two checkpoints, from which an interrupted backup can go on; more
    /// than 64 MiB mean 64 MiB.
    pub checkpoint_bytes: u64,
    /// Name of the change tracker whose word is taken for what did not change, as far as it can
    /// be; `None` to read everything that matters.
    pub changes: Option<String>,
    /// Read holes of the source, too, instead of taking its word that they are zeros.
    pub read_holes: bool,
    /// How long to wait for somebody else who works on the same set in the same folder.
    pub patience: Duration,
    /// Free text kept in the image.
    pub comment: String,
    /// Bytes of a file at most: a larger image is split into several. At least
    /// [`SEGMENT_BYTES_MIN`](aiv_image_format::limits::SEGMENT_BYTES_MIN); from 64 MiB on no file
    /// is larger.
    pub split: Option<u64>,
    /// How the image is sealed or authenticated, if it is.
    pub seal: Option<SealOptions>,
}

impl Default for BackupOptions {
    fn default() -> Self {
        Self {
            sectors: Sectors::Used,
            exclude: Vec::new(),
            basis: Basis::Newest,
            deltas: true,
            delta_depth: DELTA_DEPTH_WRITTEN,
            repeats: true,
            repeat_distance: None,
            compression: Compression::Zstd(1),
            block_size: None,
            threads: NonZeroUsize::MIN,
            self_check: false,
            parity: false,
            verify: false,
            live: false,
            resume: false,
            checkpoint_bytes: u64::MAX,
            changes: None,
            read_holes: false,
            patience: Duration::ZERO,
            comment: String::new(),
            split: None,
            seal: None,
        }
    }
}
