//! Opens the payload of a frame: the one place that would need a key.

use crate::block::frame_header;
use crate::error::{Fault, Result, Section};
use crate::ids::SessionTag;
use crate::layout::{FRAME_HEADER_SIZE, FrameHeader, FrameKind};

/// What a sound frame says and holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opened<'f> {
    pub kind: FrameKind,
    pub session: SessionTag,
    pub codec: u8,
    pub is_damaged: bool,
    pub subject: u64,
    pub plain_len: u32,
    pub leaf_prefix: [u8; 8],
    pub payload_crc: u32,
    /// The payload, as the codec made it.
    pub content: &'f [u8],
    /// Bytes of the frame with header and padding.
    pub size: u64,
}

/// Opens the frame that `bytes`, which lie at `at`, begin with: header and payload are checked.
///
/// # Errors
/// [`Error::Corrupt`](crate::Error::Corrupt) when either is damaged or cut off.
pub(super) fn open_frame(bytes: &[u8], at: u64) -> Result<Opened<'_>> {
    let header = frame_header(bytes, at)?;
    // What it is about is inside, and nobody gave a key.
    if header.seal.is_some() {
        return Err(Fault::Sealed.at(Section::Frame, at));
    }
    let end = FRAME_HEADER_SIZE + header.stored_len as usize;
    let content = bytes.get(FRAME_HEADER_SIZE..end).ok_or(Fault::Bounds.at(Section::Frame, at))?;
    header.check_payload(content, at)?;
    Ok(Opened::of(&header, content))
}

impl<'f> Opened<'f> {
    /// What a frame says and holds whose header and payload were checked, and that is not sealed.
    pub(super) fn of(header: &FrameHeader, content: &'f [u8]) -> Self {
        Self {
            kind: header.kind,
            session: header.session,
            codec: header.codec,
            is_damaged: header.is_damaged,
            subject: header.subject,
            plain_len: header.plain_len,
            leaf_prefix: header.leaf_prefix,
            payload_crc: header.payload_crc,
            content,
            size: header.frame_size(),
        }
    }
}
