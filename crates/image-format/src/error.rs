use std::fmt;
use std::io;

use aiv_volume_io::Canceled;

use crate::ids::{Digest, ImageId};

/// Result of every fallible function of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The storage refused or failed: retry, or use another disk.
    #[error("{op} failed at byte {offset}")]
    Io {
        /// What was being done, as a verb phrase: `"read index page"`.
        op: &'static str,
        /// Byte offset in the image file.
        offset: u64,
        /// The error of the storage.
        source: io::Error,
    },
    /// The file is an Aivory image, and a part of it is damaged: verify it, use another copy or
    /// an older point.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
    /// The file is no Aivory image at all.
    #[error("not an Aivory image: {0}")]
    Foreign(Foreign),
    /// The file began as an Aivory image and does not end as one: it was never finished, its
    /// end was cut off, or something was appended to it.
    #[error(
        "the image is incomplete: its {len} bytes do not end with a trailer (cut off, continued \
         with other bytes, or a backup that never finished)"
    )]
    Incomplete {
        /// Length of the file in bytes.
        len: u64,
    },
    /// The file is a segment of a split image, or the segments at hand do not make one: find the
    /// others.
    #[error(transparent)]
    Segments(#[from] SegmentError),
    /// A newer Aivory is needed.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// The caller handed in something the format cannot express.
    #[error("not allowed in an image: {0}")]
    Misuse(&'static str),
    /// The parent's state, which an image with a parent builds on, cannot be used: one of the
    /// files that provide it is damaged or cannot be read.
    #[error("the parent state cannot be used: {file}")]
    Parent {
        /// The file, as its folder names it.
        file: String,
        /// Why not.
        source: Box<Self>,
    },
    /// The image is sealed, or has a key that more is asked for than reading, and no key was
    /// given: get it with the passphrase, the key file or the recovery code.
    #[error(
        "the image is locked: this needs its key, {}..., which was not given",
        short(commitment)
    )]
    Locked {
        /// Stands for the key that is needed.
        commitment: Digest,
    },
    /// None of the keys given is that of the image.
    #[error("none of the keys given opens the image, which needs key {}...", short(commitment))]
    WrongKey {
        /// Stands for the key that is needed.
        commitment: Digest,
    },
    /// The key is the right one, and superblock and trailer were not written with it: somebody
    /// forged one of them, or damaged it in a way no checksum shows.
    #[error(
        "the superblock, or the trailer at byte {offset}, is forged or damaged: the authentication \
         code does not fit the key of the image"
    )]
    Forged {
        /// Where the trailer is.
        offset: u64,
    },
    /// A key is required, and the image has none: it may stand in the place of one that had.
    #[error(
        "the image is neither sealed nor authenticated, although a key was given: it may have \
         been put in the place of one that was"
    )]
    NotKeyed,
    /// Nothing can be salvaged from a file, or not without help.
    #[error(transparent)]
    Unsalvageable(#[from] Unsalvageable),
    /// The caller asked to stop.
    #[error(transparent)]
    Canceled(#[from] Canceled),
}

/// As much of a commitment as people compare.
fn short(commitment: &Digest) -> String {
    commitment.0[..4].iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Error {
    /// Wraps an I/O error with what was being done and where.
    pub(crate) fn io(op: &'static str, offset: u64) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { op, offset, source }
    }
}

/// Why a file is not ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Foreign {
    /// Shorter than the smallest image.
    #[error("{len} bytes are too few for one")]
    TooShort {
        /// Length of the file in bytes.
        len: u64,
    },
    /// Neither the beginning nor the end carries our magic number. Other products use the
    /// extension `.aiv` too; their formats are closed.
    #[error("it does not begin with the magic number of one (it begins with {begins})")]
    Magic {
        /// The first eight bytes in hexadecimal.
        begins: String,
    },
}

/// Why nothing can be salvaged from a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unsalvageable {
    /// Not one sound frame, and no superblock.
    #[error("nothing of an Aivory image is left in the file")]
    Nothing,
    /// Nothing tells how large the disk was.
    #[error("nothing in the file tells the size of the disk; it had at least {at_least} bytes")]
    Length {
        /// Bytes up to the last block of which something is left.
        at_least: u64,
    },
    /// Nothing tells how large blocks are.
    #[error("nothing in the file tells the size of its blocks")]
    BlockSize,
    /// The image is sealed, and its key was not given.
    #[error(
        "the image is sealed, and salvaging it takes its key: which block a frame holds stands \
         inside of it, encrypted"
    )]
    Sealed,
    /// Nothing is left but frames of a sealed image.
    #[error(
        "the {count} frames that are left are those of a sealed image, without superblock, and no \
         key was given that opens them: which block a frame holds stands inside of it, encrypted"
    )]
    SealedFrames {
        /// Sound ones of the session that made most of the file.
        count: u64,
    },
    /// The image is sealed, and nothing is left of the ways to its key.
    #[error("no key slots are left in the file, nor in images of its chain beside it")]
    NoSlots,
    /// More than can be remembered.
    #[error("more than 67,108,864 frames are left without index and checkpoints")]
    TooMuch,
}

/// What this version cannot read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unsupported {
    /// Another major version, or another draft while the major version is zero.
    #[error(
        "the image has format version {major}.{minor}, this program reads {}.{}",
        crate::MAJOR,
        crate::MINOR
    )]
    Version {
        /// Major version found.
        major: u16,
        /// Minor version found.
        minor: u16,
    },
    /// Features a reader must know and this one does not have.
    #[error("the image needs features this program does not have: {names}")]
    Features {
        /// The unknown bits of the incompatible feature word.
        bits: u64,
        /// Their names, as the image gives them, separated by commas.
        names: String,
    },
}

/// Why segments do not make an image. Segments are numbered from 1, as people count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SegmentError {
    /// The file is one segment of an image and can only be read together with the others.
    #[error("it is segment {number} of the split image {image}, and needs the others")]
    Part {
        /// The image.
        image: ImageId,
        /// Which segment, from 1.
        number: u32,
    },
    /// The file is an image that is not split.
    #[error("it is no segment: the image is a single file")]
    NotSplit,
    /// A segment is not among the files.
    #[error("segment {number} is missing (a file like {pattern}, whatever it is called now)")]
    Missing {
        /// Which segment, from 1.
        number: u32,
        /// What its writer called it, judging by the name of another one.
        pattern: String,
    },
    /// Two files are the same segment.
    #[error("segment {number} is there twice, the second time as {file}")]
    Twice {
        /// Which segment, from 1.
        number: u32,
        /// The second file.
        file: String,
    },
    /// A file is a segment of another image.
    #[error("{file} is segment {number} of another image")]
    Stranger {
        /// Which segment, from 1.
        number: u32,
        /// The file.
        file: String,
    },
    /// A segment does not begin where the one before it ends.
    #[error(
        "segment {number} begins at byte {found} of the image, and the one before it ends at \
         {expected}"
    )]
    Misplaced {
        /// Which segment, from 1.
        number: u32,
        /// Where it says that it begins.
        found: u64,
        /// Where it should.
        expected: u64,
    },
    /// There are segments behind the last one, or the last one counts differently.
    #[error("the last segment says that there are {told} of them, and it is number {number}")]
    Count {
        /// What the trailer of the image says.
        told: u32,
        /// Number of the last segment.
        number: u32,
    },
    /// A segment does not end with a tail: it was cut off, or never finished.
    #[error("segment {number} is incomplete: its {len} bytes do not end with a tail")]
    CutOff {
        /// Which segment, from 1.
        number: u32,
        /// Length of its file.
        len: u64,
    },
}

impl SegmentError {
    /// The first segment is not there, and one that is is called `other`.
    #[must_use]
    pub fn first_missing(other: &str) -> Self {
        Self::Missing { number: 1, pattern: crate::segments::base_name(other) }
    }

    /// Segment `no`, counted from zero, by itself.
    pub(crate) fn part(image: ImageId, no: u32) -> Self {
        Self::Part { image, number: no.saturating_add(1) }
    }
}

/// The parts of an image file, as `docs/format.md` names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names are those of the format document")]
pub enum Section {
    Superblock,
    SuperblockCopy,
    KeySlots,
    Frame,
    Checkpoint,
    IndexPage,
    TreePage,
    Meta,
    StoredList,
    StoredPiece,
    ParityFrame,
    ParityArea,
    Trailer,
    TrailerGap,
    Image,
    /// Of the segment with this number, from 1. Offsets count in its file.
    SegmentSuperblock(u32),
    SegmentTrailer(u32),
    SegmentGap(u32),
    SegmentList(u32),
    SegmentPiece(u32),
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Superblock => "superblock",
            Self::SuperblockCopy => "superblock copy",
            Self::KeySlots => "key-slot area",
            Self::Frame => "frame",
            Self::Checkpoint => "checkpoint",
            Self::IndexPage => "index page",
            Self::TreePage => "tree page",
            Self::Meta => "META section",
            Self::StoredList => "stored list",
            Self::StoredPiece => "stored piece",
            Self::ParityFrame => "PARITY frame",
            Self::ParityArea => "parity area",
            Self::Trailer => "trailer",
            Self::TrailerGap => "gap between the trailers",
            Self::Image => "image",
            Self::SegmentSuperblock(number) => return write!(f, "superblock of segment {number}"),
            Self::SegmentTrailer(number) => return write!(f, "trailer of segment {number}"),
            Self::SegmentGap(number) => {
                return write!(f, "gap between the trailers of segment {number}");
            }
            Self::SegmentList(number) => return write!(f, "stored list of segment {number}"),
            Self::SegmentPiece(number) => return write!(f, "stored piece of segment {number}"),
        };
        f.write_str(name)
    }
}

/// A damaged part of an image: what, where, and how we know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the {section} at byte {offset} is damaged: {fault}")]
pub struct Corrupt {
    /// Which part.
    pub section: Section,
    /// Byte offset of the part in the file.
    pub offset: u64,
    pub(crate) fault: Fault,
}

impl Corrupt {
    /// How we know, in words, without place and section.
    #[must_use]
    pub fn what(&self) -> String {
        self.fault.to_string()
    }
}

/// The evidence of damage; private so that new checks never break callers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("its magic number is wrong")]
    Magic,
    #[error("it cannot be read ({0})")]
    Unreadable(String),
    #[error("its checksum is {found:#010x}, it should be {stored:#010x}")]
    Checksum { found: u32, stored: u32 },
    #[error("its hash differs from the one the {by} keeps")]
    Hash { by: &'static str },
    #[error("{field} is {found}, allowed is {allowed}")]
    Value { field: &'static str, found: u64, allowed: &'static str },
    #[error("reserved byte {at} is not zero")]
    Reserved { at: usize },
    #[error("it belongs to another image")]
    Stranger,
    #[error("its {field} and the {other} do not agree")]
    Differs { field: &'static str, other: &'static str },
    #[error("{0}")]
    Slots(String),
    #[error("it does not open with the key of the image: changed, or from another place")]
    Sealed,
    #[error("it is sealed although the image is not")]
    SealedHere,
    #[error("it is not sealed although the image is")]
    NotSealed,
    #[error("it reaches past the end of its area")]
    Bounds,
    #[error("its text is not UTF-8")]
    Text,
    #[error("its compressed data does not decode to {expected} bytes")]
    Decode { expected: u32 },
    #[error("it ends in the middle of an item")]
    CutOff,
    #[error("item {tag} is unknown and must not be skipped")]
    Item { tag: u16 },
    #[error("item {tag} is there twice")]
    Repeated { tag: u16 },
    #[error("a block that it is a difference to is lost")]
    Base,
    #[error("item {tag} is missing")]
    Missing { tag: u16 },
}

impl Fault {
    /// Says where the damage is.
    pub(crate) fn at(self, section: Section, offset: u64) -> Error {
        Error::Corrupt(Corrupt { section, offset, fault: self })
    }
}
