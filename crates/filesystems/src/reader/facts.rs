use std::ops::BitOr;

/// A file or folder of one filesystem, whatever its names: those who have the same are hard links.
///
/// Means something only to the reader that gave it out, and stays the same when the same volume is
/// opened again. Any two numbers may be asked for: they are checked like everything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId {
    /// The tree or folder the number counts in, where there are several; else zero.
    pub space: u64,
    /// Number of its record, or the place of its entry.
    pub number: u64,
}

/// What a name leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum FileType {
    /// Bytes.
    File,
    /// Names.
    Folder,
    /// A symbolic link, or a junction of NTFS.
    Link,
    /// A device of characters.
    CharDevice,
    /// A device of blocks.
    BlockDevice,
    /// A named pipe.
    Pipe,
    /// A socket.
    Socket,
    /// Something only a driver of Windows can follow.
    Reparse {
        /// What it is, as Windows numbers it.
        tag: u32,
    },
    /// None of these.
    Unknown,
}

impl FileType {
    /// What the upper bits of a mode of POSIX say.
    pub(crate) const fn of_mode(mode: u32) -> Self {
        match mode & 0o170_000 {
            0o010_000 => Self::Pipe,
            0o020_000 => Self::CharDevice,
            0o040_000 => Self::Folder,
            0o060_000 => Self::BlockDevice,
            0o100_000 => Self::File,
            0o120_000 => Self::Link,
            0o140_000 => Self::Socket,
            _ => Self::Unknown,
        }
    }

    /// What the number beside a name says, where filesystems of Linux keep one; all of them count
    /// alike.
    pub(crate) const fn of_entry(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::File,
            2 => Self::Folder,
            3 => Self::CharDevice,
            4 => Self::BlockDevice,
            5 => Self::Pipe,
            6 => Self::Socket,
            7 => Self::Link,
            _ => return None,
        })
    }
}

/// A point in time as a filesystem keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Seconds since 1970-01-01 00:00, negative before.
    pub seconds: i64,
    /// Nanoseconds after that, below 10^9.
    pub nanoseconds: u32,
    /// Whether it counts in the time zone of whoever wrote it, which is not known, and not in UTC.
    pub is_local: bool,
}

impl Timestamp {
    /// A time in UTC.
    #[must_use]
    pub const fn utc(seconds: i64, nanoseconds: u32) -> Self {
        Self { seconds, nanoseconds, is_local: false }
    }
}

/// Who owns a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Number of the user.
    pub user: u32,
    /// Number of the group.
    pub group: u32,
}

/// The numbers of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Device {
    /// The driver's.
    pub major: u32,
    /// The device's.
    pub minor: u32,
}

/// Marks a file carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct FileFlags(u32);

impl FileFlags {
    /// Windows: not to be written.
    pub const READ_ONLY: Self = Self(1 << 0);
    /// Windows: not to be listed.
    pub const HIDDEN: Self = Self(1 << 1);
    /// Windows: part of the system.
    pub const SYSTEM: Self = Self(1 << 2);
    /// Windows: changed since it was last archived.
    pub const ARCHIVE: Self = Self(1 << 3);
    /// Stored compressed.
    pub const COMPRESSED: Self = Self(1 << 4);
    /// Stored encrypted.
    pub const ENCRYPTED: Self = Self(1 << 5);
    /// Linux: not to be changed by anybody.
    pub const IMMUTABLE: Self = Self(1 << 6);
    /// Linux: only to be appended to.
    pub const APPEND_ONLY: Self = Self(1 << 7);
    /// Linux: not to be backed up by `dump`.
    pub const NO_DUMP: Self = Self(1 << 8);
    /// Upper and lower case of the names in it are the same.
    pub const CASE_FOLDED: Self = Self(1 << 9);
    /// Its contents are proven by fs-verity.
    pub const VERITY: Self = Self(1 << 10);
    /// Its data shares storage with other files.
    pub const SHARED: Self = Self(1 << 11);

    /// Whether all marks of `other` are set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// With the marks of `other` when `is_set`.
    #[must_use]
    pub(crate) const fn with(self, other: Self, is_set: bool) -> Self {
        if is_set { Self(self.0 | other.0) } else { self }
    }
}

impl BitOr for FileFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What is known about a file. A filesystem that does not keep something has none of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// What it is.
    pub file_type: FileType,
    /// Bytes of a file, or of what a link says. Of anything else whatever its record says.
    pub len: u64,
    /// Bytes it takes on the volume, as its record says.
    pub allocated: Option<u64>,
    /// Permissions of POSIX, `0o7777` at most.
    pub mode: Option<u16>,
    /// Who owns it.
    pub owner: Option<Owner>,
    /// Names it has, as its record says; 1 where only one is possible.
    pub links: u32,
    /// When its bytes or names were last changed.
    pub modified: Option<Timestamp>,
    /// When they were last read.
    pub accessed: Option<Timestamp>,
    /// When its record was last changed.
    pub changed: Option<Timestamp>,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// Of a device, which.
    pub device: Option<Device>,
    /// What it is marked as.
    pub flags: FileFlags,
}

impl Metadata {
    /// Of something of which nothing else is known.
    pub(crate) fn of(file_type: FileType) -> Self {
        Self {
            file_type,
            len: 0,
            allocated: None,
            mode: None,
            owner: None,
            links: 1,
            modified: None,
            accessed: None,
            changed: None,
            created: None,
            device: None,
            flags: FileFlags::default(),
        }
    }
}

/// A name in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// At least one byte, at most [`NAME_BYTES_MAX`](super::NAME_BYTES_MAX), neither `.` nor `..`,
    /// without `/` and zero bytes. UTF-8 where the filesystem keeps UTF-16, half characters in
    /// the same manner (WTF-8); else the bytes of the volume, whatever they mean.
    pub name: Vec<u8>,
    /// What it leads to.
    pub id: FileId,
    /// What that is, where the name says so already. The record may say something else: the name
    /// of a junction says folder.
    pub file_type: Option<FileType>,
}

/// An extended attribute.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attribute {
    /// With its class: `user.comment`.
    pub name: Vec<u8>,
    /// Its bytes.
    pub value: Vec<u8>,
}

/// A named stream of a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stream {
    /// Like the name of a file.
    pub name: Vec<u8>,
    /// Bytes.
    pub len: u64,
}

/// What the user should know about the state files are read in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReaderNote {
    /// The filesystem was not unmounted, and is read as it will be after its log is replayed.
    #[error("it was not unmounted; files are shown as they are after its log is replayed")]
    Replayed,
    /// The filesystem was not unmounted, and is read without what waits in its log.
    #[error("it was not unmounted; what waits in its log is not shown ({why})")]
    NotReplayed {
        /// Why it is not read through its log.
        why: String,
    },
    /// The filesystem was not unmounted and has no log.
    #[error("it was not unmounted; files that were being written may be incomplete")]
    NotUnmounted,
    /// The filesystem says itself that errors were found in it.
    #[error("errors were found in it; check the filesystem")]
    HasErrors,
    /// The volume ends before the filesystem does.
    #[error("{missing} bytes of it are missing at the end; files that lie there cannot be read")]
    CutOff {
        /// Bytes.
        missing: u64,
    },
    /// Descriptors do not match their checksums, nor do copies of some, and are believed where inodes
    /// or copies of them tell that they may be.
    #[error(
        "{count} group descriptors do not match their checksums and are believed all the same, as \
         far as the rest agrees; check the filesystem"
    )]
    SumsWrong {
        /// How many.
        count: usize,
    },
    /// The first copy of a record everything hangs on is damaged; another was used.
    #[error("{what} is damaged; a copy of it was used")]
    CopyUsed {
        /// Which record.
        what: String,
    },
}
