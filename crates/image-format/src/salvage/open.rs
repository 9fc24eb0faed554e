//! Opens the payload of a frame: the one place that needs a key.

use aiv_keys::Keys;

use crate::block::{Buffer, frame_header};
use crate::error::{Fault, Result, Section};
use crate::ids::{ImageId, SessionTag};
use crate::layout::{FRAME_HEADER_SIZE, FrameHeader, FrameKind, TAG_SIZE};
use crate::limits::STORED_LEN_MAX;
use crate::seal::Access;

/// Bytes of sealed frames that may be opened in vain at the beginning of a file, and looked into
/// all the same.
const CREDIT: u64 = 2 * STORED_LEN_MAX as u64;

/// What protects a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Under {
    /// Nothing: it is not sealed.
    Nothing,
    /// The key of this number: it is sealed, and was opened.
    Key(usize),
    /// A key that nobody gave, or none at all: whoever forges a frame can only make that.
    Unknown,
}

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

/// Opens the frame that `bytes`, which lie at `at`, begin with: header and payload are checked,
/// and that it is sealed exactly where the image is.
///
/// # Errors
/// [`Error::Corrupt`](crate::Error::Corrupt) when either is damaged, forged or cut off.
pub(super) fn open_frame<'f>(
    access: &Access,
    plain: &'f mut Buffer,
    bytes: &'f [u8],
    at: u64,
) -> Result<Opened<'f>> {
    let header = frame_header(bytes, at)?;
    access.check_mode(&header).map_err(|fault| fault.at(Section::Frame, at))?;
    if header.seal.is_some() {
        let (header, content) = access.open_frame(header, bytes, plain, at)?;
        return Ok(Opened::of(&header, content));
    }
    let end = FRAME_HEADER_SIZE + header.stored_len as usize;
    let content = bytes.get(FRAME_HEADER_SIZE..end).ok_or(Fault::Bounds.at(Section::Frame, at))?;
    header.check_payload(content, at)?;
    Ok(Opened::of(&header, content))
}

impl<'f> Opened<'f> {
    /// What a frame says and holds whose header and payload were checked.
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

/// Tries keys on the sealed frames of a file, front to back.
pub(super) struct Openers {
    keys: Vec<Access>,
    /// The one that opened the last frame.
    last: usize,
    plain: Buffer,
    /// Bytes that were opened in vain.
    in_vain: u64,
}

impl Openers {
    /// With all of `keys`, in their order. The frames of a session need neither the image nor the
    /// session that closed it.
    pub(super) fn new(keys: &Keys) -> Self {
        let of_frames = |key| Access::open(key, ImageId::default(), SessionTag::default());
        let keys = keys.iter().map(of_frames).collect();
        Self { keys, last: 0, plain: Buffer::default(), in_vain: 0 }
    }

    /// Opens the sealed frame that `header` and `frame` begin with, whose payload is sound.
    pub(super) fn open(
        &mut self,
        header: FrameHeader,
        frame: &[u8],
        at: u64,
    ) -> Option<(Under, Opened<'_>)> {
        let count = self.keys.len();
        let mut order = (0..count).map(|n| (self.last + n) % count);
        let found = order.find(|&number| {
            let opened = self.keys[number].open_frame(header, frame, &mut self.plain, at);
            self.in_vain += if opened.is_ok() { 0 } else { u64::from(header.stored_len) };
            opened.is_ok()
        })?;
        self.last = found;
        let inside = &*self.plain.of_len((header.stored_len as usize).checked_sub(TAG_SIZE)?);
        let (header, content) = header.opened(inside).ok()?;
        Some((Under::Key(found), Opened::of(&header, &inside[content])))
    }

    /// Whether a frame at `at` that nothing opened is looked into: its length may have been made
    /// up, and hide sound ones. So often that the work is more than the file is long, it is not.
    pub(super) fn looks_into(&self, at: u64) -> bool {
        !self.keys.is_empty() && self.in_vain <= at.saturating_add(CREDIT)
    }
}

#[cfg(test)]
mod tests {
    use aiv_keys::ChainKey;
    use aiv_volume_io::{Job, MemDisk};

    use super::super::finds::Finds;
    use super::super::scan;
    use super::*;

    /// A file with a sealed frame at every 64 bytes, each of which reaches to its end: checksums
    /// are right, and no key has made any.
    fn nested(len: usize) -> Vec<u8> {
        let mut bytes = vec![0x5a; len];
        for at in (0..len / 64 - 1).rev().map(|n| n * 64) {
            let stored = len - at - FRAME_HEADER_SIZE;
            let header = FrameHeader {
                kind: FrameKind::Data,
                codec: 0,
                is_damaged: false,
                depth: 0,
                session: SessionTag([7; 12]),
                seq: at as u64,
                subject: 0,
                plain_len: 0,
                stored_len: u32::try_from(stored).unwrap(),
                payload_crc: 0,
                leaf_prefix: [0; 8],
                seal: Some(1),
            };
            bytes[at..at + FRAME_HEADER_SIZE].copy_from_slice(&header.to_bytes());
            FrameHeader::put_crcs(&mut bytes[at..], stored);
        }
        bytes
    }

    #[test]
    fn forged_frames_within_each_other_cost_no_more_than_the_file_is_long() {
        let len = 512 << 10;
        let file = MemDisk::from_bytes(nested(len));
        let mut openers = Openers::new(&Keys::of(ChainKey::new([1; 32])));
        let mut finds = Finds::new(None);
        scan::scan(&file, &mut openers, &mut finds, Job::silent()).unwrap();
        let all: u64 = (0..len as u64).step_by(64).sum();
        let most = CREDIT + 3 * len as u64;
        assert!(openers.in_vain < most && all > 10 * most, "{} of {all}", openers.in_vain);
        assert!(openers.in_vain > CREDIT, "many were looked into");
        assert!(finds.frames.is_empty() && !openers.looks_into(0));
    }
}
