//! Floor 0 of Aivory: the NBD protocol as messages.
//!
//! Bytes become checked types and types become bytes; nothing here reads or writes a socket, so
//! that whoever does decides about time and memory. Facts: `doc/proto.md` of NetworkBlockDevice.
//! Spoken is the fixed newstyle handshake, simple and structured replies, reading and block
//! status. A request that would change a disk cannot be expressed.
//!
//! ```
//! use aiv_nbd_protocol::{Address, Uri};
//!
//! let uri: Uri = "nbd://backup.example/disk%201".parse()?;
//! assert_eq!(uri.export, "disk 1");
//! assert_eq!(uri.address, Address::Tcp { host: "backup.example".into(), port: 10809 });
//! # Ok::<(), aiv_nbd_protocol::UriError>(())
//! ```

mod handshake;
mod transmission;
mod uri;

pub use handshake::{
    ExportFlags, ExportInfo, Greeting, Info, NAME_MAX, OPTION_REPLY_MAX, Opt, OptionReply,
    OptionReplyKind, REFUSED_TLS_REQUIRED, REFUSED_UNKNOWN, REFUSED_UNSUPPORTED, export_name_reply,
    export_name_reply_len, go, meta_context, option, refusal_name, set_meta_context,
};
pub use transmission::{
    Chunk, ChunkKind, Command, ERROR_IO, PAYLOAD_MAX, Reply, SIMPLE_REST, STATUS_DIRTY,
    STATUS_HOLE, STATUS_ZERO, STRUCTURED_REST, error_name, error_payload, reply_kind, request,
    status_payload,
};
pub use uri::{Address, PORT, Uri, UriError};

/// A message that breaks the protocol: the connection is of no more use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the server breaks the NBD protocol: {what}")]
pub struct Broken {
    /// Found value and what was expected, in words.
    pub what: String,
}

impl Broken {
    /// With this explanation.
    #[must_use]
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into() }
    }
}

/// The big-endian integers of a message that is long enough for them.
pub(crate) mod be {
    pub(crate) fn take<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
        let mut out = [0; N];
        if let Some(found) = bytes.get(at..).and_then(|rest| rest.get(..N)) {
            out.copy_from_slice(found);
        }
        out
    }

    pub(crate) fn u16(bytes: &[u8], at: usize) -> u16 {
        u16::from_be_bytes(take(bytes, at))
    }

    pub(crate) fn u32(bytes: &[u8], at: usize) -> u32 {
        u32::from_be_bytes(take(bytes, at))
    }

    pub(crate) fn u64(bytes: &[u8], at: usize) -> u64 {
        u64::from_be_bytes(take(bytes, at))
    }
}
