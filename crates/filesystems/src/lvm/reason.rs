use crate::FilesystemKind;

/// Why a physical volume of LVM2 is kept whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LvmReason {
    /// None of the first four sectors is a label in its place.
    #[error("there is no label in the first four sectors")]
    NoLabel,
    /// More than one of the first four sectors is a label.
    #[error("there are two labels in the first four sectors")]
    TwoLabels,
    /// A checksum that does not match its record.
    #[error("checksum of the {section} at byte {offset} is wrong")]
    Checksum {
        /// The record.
        section: &'static str,
        /// Byte offset in the volume.
        offset: u64,
    },
    /// A field of the header out of its range.
    #[error("header field {field} is {found}, allowed is {allowed}")]
    Header {
        /// What it is about.
        field: &'static str,
        /// Value on the volume.
        found: u64,
        /// Allowed values, in words.
        allowed: &'static str,
    },
    /// A filesystem's signature lies among the records of LVM.
    #[error("the volume carries a signature of {0} as well")]
    OtherSignature(FilesystemKind),
    /// No copy of the metadata on this volume is kept up to date.
    #[error("its metadata is kept on other disks only")]
    NoMetadata,
    /// A copy of the metadata that cannot be read.
    #[error("metadata area at byte {offset}: {what}")]
    Area {
        /// Byte offset in the volume.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// A change of the volume group was begun and not finished.
    #[error("a change of the volume group was not finished (metadata area at byte {offset})")]
    PendingChange {
        /// Byte offset of the metadata area in the volume.
        offset: u64,
    },
    /// Two copies of the metadata on this volume say different things.
    #[error("the copies of its metadata differ")]
    CopiesDiffer,
    /// The metadata is not written in the language of LVM2.
    #[error("metadata makes no sense at its byte {at}: {what}")]
    Text {
        /// Byte of the text.
        at: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// The metadata says something unknown, or contradicts itself or the volume.
    #[error("{place}: {what}")]
    Metadata {
        /// Which volume group, physical or logical volume, by its name.
        place: String,
        /// What is wrong.
        what: String,
    },
    /// The volume group reaches past the end of the volume.
    #[error("its records reach to byte {claimed}, the volume has {volume} bytes")]
    LargerThanVolume {
        /// First byte after what is claimed.
        claimed: u64,
        /// Bytes of the volume.
        volume: u64,
    },
    /// It lies in a logical volume of a physical volume in a logical volume.
    #[error("physical volumes are nested too deeply")]
    TooDeep,
}

/// Why all of a logical volume is kept without a look at what it holds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LogicalVolumeReason {
    /// Some or all of its data is on other disks.
    #[error("parts of it are on other disks")]
    OtherDisks,
    /// It is of a type whose data cannot be read from one disk in one piece.
    #[error("it is of the type {0:?}")]
    Type(String),
    /// It is cut into stripes.
    #[error("it is cut into {0} stripes")]
    Striped(u64),
    /// Another logical volume is made of it, or depends on its old contents (a snapshot).
    #[error("the logical volume {0:?} depends on it")]
    UsedBy(String),
    /// LVM hides it: it is a part of something else.
    #[error("it is an internal volume of LVM")]
    Hidden,
    /// It has a property that is not known here.
    #[error("it has the unknown property {0:?}")]
    Unknown(String),
}
