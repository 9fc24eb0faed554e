use std::io;

/// Result of the functions of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What ended a call early. What a volume contains ends only what reads its files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The medium failed: retry, or copy the whole volume without a map.
    #[error("{op} failed at byte {offset}")]
    Io {
        /// What was being done, as a verb phrase: `"read block bitmap"`.
        op: &'static str,
        /// Byte offset in the volume.
        offset: u64,
        /// The error of the medium.
        source: io::Error,
    },
    /// The caller asked to stop.
    #[error(transparent)]
    Canceled(#[from] aiv_volume_io::Canceled),
    /// A record of the filesystem is not what it must be: other files can still be read; check the
    /// filesystem.
    #[error("the filesystem is damaged: {what}{}", at(*.offset))]
    Damaged {
        /// The record and its fault.
        what: String,
        /// Byte offset of the record in the volume, where it is known.
        offset: Option<u64>,
    },
    /// It may be sound, and is not known here.
    #[error("{what}")]
    Unsupported {
        /// What, and that it is not: a whole sentence without its stop.
        what: String,
    },
    /// It is encrypted, and what was given opens none of its key slots.
    #[error("{}", opens_none(*slots))]
    WrongKey {
        /// How many there are, all of which were tried.
        slots: usize,
    },
    /// The file is of another type than what was asked for.
    #[error("it is no {wanted}")]
    WrongType {
        /// What was asked for.
        wanted: &'static str,
    },
}

fn opens_none(slots: usize) -> String {
    match slots {
        1 => "the passphrase or key file does not open its key slot".to_owned(),
        slots => format!("the passphrase or key file opens none of its {slots} key slots"),
    }
}

fn at(offset: Option<u64>) -> String {
    offset.map_or_else(String::new, |offset| format!(" (at byte {offset} of the volume)"))
}

impl Error {
    pub(crate) fn damaged(what: impl Into<String>, offset: Option<u64>) -> Self {
        Self::Damaged { what: what.into(), offset }
    }

    pub(crate) fn io(op: &'static str, offset: u64) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { op, offset, source }
    }
}
