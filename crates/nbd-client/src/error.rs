use std::io;

use aiv_nbd_protocol::{Broken, Uri};

/// Result of the functions of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a disk behind a server cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nobody answers at the address.
    #[error("cannot connect to {uri}")]
    Connect {
        /// The address.
        uri: Uri,
        /// What the system said.
        source: io::Error,
    },
    /// The connection broke, or the server was silent for too long.
    #[error("the server stopped talking")]
    Io(#[source] io::Error),
    /// The server says what it must not.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// The server wants an encrypted connection.
    #[error("the server requires TLS, which is not spoken; use a tunnel, or a socket of its own")]
    Tls,
    /// The server does not give the export.
    #[error("the server refuses the export '{export}': {why}")]
    Refused {
        /// The name that was asked for.
        export: String,
        /// The reason, and what the server added to it.
        why: String,
    },
    /// The server does not know the dirty bitmap that was asked for.
    #[error("the server has no dirty bitmap '{name}'")]
    NoBitmap {
        /// Its name.
        name: String,
    },
    /// The disk ends in the middle of what the server gives at once.
    #[error("the disk has {size} bytes and is only given in multiples of {minimum}")]
    Odd {
        /// Bytes of the disk.
        size: u64,
        /// Bytes of the smallest request.
        minimum: u32,
    },
    /// After a connection broke, the server had another disk.
    #[error("the disk had {before} bytes and has {now} after the connection was made again")]
    Changed {
        /// Bytes when it was opened.
        before: u64,
        /// Bytes now.
        now: u64,
    },
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Io(source) => source,
            error @ Error::Broken(_) => io::Error::new(io::ErrorKind::InvalidData, error),
            error => io::Error::other(error),
        }
    }
}
