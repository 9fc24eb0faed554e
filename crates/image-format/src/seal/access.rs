//! What a program can do with the sealed parts of an image.

use std::sync::Arc;

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{AeadInOut, Aes256Gcm, Key, KeyInit, Nonce, Tag};
use aiv_keys::{ChainKey, Purpose, Secret};

use super::SealJob;
use crate::block::Buffer;
use crate::error::{Error, Fault, Result, Section};
use crate::ids::{Digest, ImageId, SessionTag};
use crate::layout::{
    FRAME_CLEAR, FRAME_HEADER_SIZE, FrameHeader, PAGE_BODY, PAGE_CLEAR, PAGE_TAG, PageHeader,
    PageKind, TAG_SIZE,
};
use crate::limits::PAGE_SIZE;

/// Frames of one session that share a key, as a power of two.
const FRAMES_PER_KEY_LOG2: u32 = 20;

/// What stands between the stored bytes and their meaning.
#[derive(Clone)]
pub(crate) enum Access {
    /// Nothing: the image is not sealed.
    Clear,
    /// A key, which is there.
    Open(Arc<SealKey>),
    /// A key, which is not there; it has this commitment.
    Locked(Digest),
}

/// The keys of one sealed image.
pub(crate) struct SealKey {
    chain: ChainKey,
    pages: Aes256Gcm,
}

fn cipher(secret: &Secret) -> Aes256Gcm {
    Aes256Gcm::new(&Key::<Aes256Gcm>::from(*secret.expose()))
}

/// The nonce of a number and a salt.
fn nonce(number: u64, salt: u32) -> Nonce<aes_gcm::aead::consts::U12> {
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&number.to_le_bytes());
    nonce[8..].copy_from_slice(&salt.to_le_bytes());
    nonce.into()
}

fn tag_of(bytes: &[u8]) -> Tag {
    let mut tag = [0; TAG_SIZE];
    tag.copy_from_slice(bytes);
    tag.into()
}

impl SealKey {
    fn new(chain: &ChainKey, image: ImageId, closing: SessionTag) -> Self {
        let pages = cipher(&chain.derive(Purpose::IndexPages, &[&image.0, &closing.0]));
        Self { chain: chain.clone(), pages }
    }

    fn frames(&self, session: SessionTag, seq: u64) -> Aes256Gcm {
        let number = (seq >> FRAMES_PER_KEY_LOG2).to_le_bytes();
        cipher(&self.chain.derive(Purpose::SessionFrames, &[&session.0, &number]))
    }

    /// Encrypts the frame in `frame`: a header, and a payload that is all but its tag. Makes tag
    /// and checksums right.
    pub(crate) fn seal_frame(&self, frame: &mut [u8], job: &SealJob) -> Result<()> {
        let refused = |_| Error::Misuse("a frame the cipher refuses");
        let (clear, payload) = frame.split_at_mut(FRAME_HEADER_SIZE);
        let (body, tag) = payload[..job.stored_len].split_at_mut(job.stored_len - TAG_SIZE);
        let made = self
            .frames(job.session, job.seq)
            .encrypt_inout_detached(&nonce(job.seq, job.salt), &clear[FRAME_CLEAR], body.into())
            .map_err(refused)?;
        tag.copy_from_slice(&made);
        FrameHeader::put_crcs(frame, job.stored_len);
        Ok(())
    }
}

impl Access {
    /// For an image whose last session is `closing`.
    pub(crate) fn open(chain: &ChainKey, image: ImageId, closing: SessionTag) -> Self {
        Self::Open(Arc::new(SealKey::new(chain, image, closing)))
    }

    /// Refuses a locked image.
    pub(crate) fn unlocked(&self) -> Result<()> {
        match self {
            Self::Locked(commitment) => Err(Error::Locked { commitment: *commitment }),
            Self::Clear | Self::Open(_) => Ok(()),
        }
    }

    /// What stands in clear fields instead of `root`.
    pub(crate) fn clear_root(&self, root: &Digest) -> Digest {
        match self {
            Self::Open(key) => Digest(*key.chain.derive(Purpose::ClearRoot, &[&root.0]).expose()),
            Self::Clear | Self::Locked(_) => *root,
        }
    }

    /// Refuses a frame that is sealed in an image that is not, or the other way round: only what
    /// holds nothing is never sealed.
    pub(crate) fn check_mode(&self, header: &FrameHeader) -> std::result::Result<(), Fault> {
        let sealed = !matches!(self, Self::Clear) && header.kind.is_sealable();
        match (header.seal.is_some(), sealed) {
            (true, false) => Err(Fault::SealedHere),
            (false, true) => Err(Fault::NotSealed),
            _ => Ok(()),
        }
    }

    /// Opens a sealed frame that begins with `header`: the header with what the frame says
    /// inside, and its content, in `out`.
    pub(crate) fn open_frame<'b>(
        &self,
        header: FrameHeader,
        frame: &[u8],
        out: &'b mut Buffer,
        address: u64,
    ) -> Result<(FrameHeader, &'b [u8])> {
        let at = |fault: Fault| fault.at(Section::Frame, address);
        self.unlocked()?;
        let (Self::Open(key), Some(salt)) = (self, header.seal) else {
            return Err(at(Fault::SealedHere));
        };
        let end = FRAME_HEADER_SIZE + header.stored_len as usize;
        let payload = frame.get(FRAME_HEADER_SIZE..end).ok_or_else(|| at(Fault::Bounds))?;
        header.check_payload(payload, address)?;
        let (body, tag) = payload.split_at(payload.len() - TAG_SIZE);
        let plain = out.of_len(body.len());
        let buffer = InOutBuf::new(body, plain).map_err(|_| at(Fault::Bounds))?;
        key.frames(header.session, header.seq)
            .decrypt_inout_detached(
                &nonce(header.seq, salt),
                &frame[FRAME_CLEAR],
                buffer,
                &tag_of(tag),
            )
            .map_err(|_| at(Fault::Sealed))?;
        let plain = &out.of_len(body.len())[..];
        let (header, content) = header.opened(plain).map_err(at)?;
        Ok((header, &plain[content]))
    }

    /// Checks a page as [`PageHeader::from_page`] does, and opens its entries in place when it
    /// is sealed.
    pub(crate) fn open_page(
        &self,
        page: &mut [u8; PAGE_SIZE],
        kind: PageKind,
        image: ImageId,
        page_no: u64,
        offset: u64,
    ) -> Result<PageHeader> {
        let key = match self {
            Self::Clear => return PageHeader::from_page(page, kind, image, page_no, offset),
            Self::Locked(_) => return Err(self.unlocked().err().unwrap_or(Error::NotKeyed)),
            Self::Open(key) => key,
        };
        let open = |page: &mut [u8; PAGE_SIZE]| {
            let header = PageHeader::of_sealed(page, kind, image, page_no)?;
            let (head, body) = page.split_at_mut(PAGE_BODY.start);
            let nonce = nonce(page_no, kind.code().into());
            key.pages
                .decrypt_inout_detached(
                    &nonce,
                    &head[PAGE_CLEAR],
                    body.into(),
                    &tag_of(&head[PAGE_TAG]),
                )
                .map_err(|_| Fault::Sealed)?;
            header.opened(page)
        };
        open(page).map_err(|fault| fault.at(kind.section(), offset))
    }

    /// Builds the page that holds `entries`, sealed in sealed images.
    pub(crate) fn build_page(&self, header: PageHeader, entries: &[u8]) -> Result<[u8; PAGE_SIZE]> {
        self.unlocked()?;
        let Self::Open(key) = self else { return Ok(header.build(entries)) };
        let mut page = PageHeader { first: 0, ..header }.lay_out(entries);
        let (head, body) = page.split_at_mut(PAGE_BODY.start);
        let nonce = nonce(header.page_no, header.kind.code().into());
        let tag = key
            .pages
            .encrypt_inout_detached(&nonce, &head[PAGE_CLEAR], body.into())
            .map_err(|_| Error::Misuse("a page the cipher refuses"))?;
        head[PAGE_TAG].copy_from_slice(&tag);
        header.kind.put_crc(&mut page);
        Ok(page)
    }
}
