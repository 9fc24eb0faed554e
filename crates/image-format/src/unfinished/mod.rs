//! An image that was never finished: what of it is proven, and what going on needs to know.
//!
//! Whatever is found here may have been written by anybody. So nothing is taken from the file
//! that is not counted again on the way: the frames are walked from the first to the last, their
//! bytes hashed in pieces, and a checkpoint counts only if it says of all that came before it
//! what the walk has found. The first thing that is wrong ends the walk; the checkpoint before it
//! is the last one that counts. What no walk can know, whether the blocks are those of the
//! source, is for the caller to find out.
//!
//! An image that is split is walked through as the stream it is: each segment in front of the one
//! where the walk ends was complete, and is held to its own list of hashes on the way.

#[cfg(test)]
pub(crate) mod nonces;
#[cfg(test)]
mod stripes;
mod walk;

use std::sync::Arc;

use aiv_keys::Keys;
use aiv_volume_io::{Job, ReadAt};

use crate::block::{Buffer, frame_header};
use crate::error::{Error, Fault, Result, Section};
use crate::hash;
use crate::ids::{BlockIndex, Digest, SessionTag};
use crate::image::{find_key, read_page};
use crate::layout::{
    Checkpoint, FRAME_HEADER_SIZE, Features, FrameHeader, IndexEntry, Superblock, Totals,
};
use crate::limits::{PAGE_SIZE, PIECE_SIZE};
use crate::parity::stripes::{STRIPE_LEN, StripeSums};
use crate::seal::Access;
use crate::segments::{Begun, Written};
use walk::Walk;

/// An unfinished image up to its last whole checkpoint.
pub struct Unfinished {
    /// The bytes of the image, in however many files.
    file: Arc<dyn ReadAt>,
    /// The same, where it is split.
    begun: Option<Arc<Begun>>,
    superblock: Superblock,
    /// What opens frames.
    access: Access,
    /// The key slots behind the superblock.
    slots: Vec<u8>,
    proven: Proven,
    /// Sessions of frames behind the last whole checkpoint, which will be cut off.
    lost_sessions: Vec<SessionTag>,
    /// The parity of the pieces so far that have no PARITY frame yet, where the image is to have it.
    stripes: Option<StripeSums>,
}

/// What the walk knew right behind a checkpoint.
#[derive(Clone, Default)]
pub(crate) struct Proven {
    /// End of the last checkpoint: where the file is cut.
    pub len: u64,
    pub checkpoints: Vec<u64>,
    pub next_block: BlockIndex,
    pub origins: Vec<SessionTag>,
    pub pieces_listed: u64,
    /// Pieces completed since, by the checkpoint itself.
    pub late_pieces: Vec<Digest>,
    /// The beginning of the piece after those.
    pub open_piece: Vec<u8>,
    pub totals: Totals,
    /// PARITY frames.
    pub stripes: u64,
    /// A hash over the last checkpoint and everything before it.
    pub fingerprint: Digest,
}

impl Unfinished {
    /// Reads `file` once, from its beginning to its last whole checkpoint, in memory that does
    /// not grow with it; `None` when it has no such checkpoint. A finished image is as good as
    /// any other: it is unfinished once its end is cut off. Whichever of `keys` is its own opens a
    /// sealed one: a frame that it does not open is as good as damaged.
    ///
    /// # Errors
    /// [`Error::Foreign`], [`Error::Unsupported`] and [`Error::Corrupt`] when it has no sound
    /// superblock, or one that a writer of ours would not repeat; [`Error::Segments`] when it is
    /// another segment than the first; [`Error::Locked`] and [`Error::WrongKey`] when it has a key
    /// that is not there, [`Error::NotKeyed`] when keys are required and it has none;
    /// [`Error::Io`], [`Error::Canceled`].
    pub fn read(file: Arc<dyn ReadAt>, keys: &Keys, job: Job<'_>) -> Result<Option<Self>> {
        Self::read_segments(&[file], keys, job)
    }

    /// As [`Unfinished::read`], of an image that may be split: `files` are its segments in order, as
    /// many as there are. Those behind the first that is not complete, or not of the image, do not
    /// count.
    ///
    /// # Errors
    /// As [`Unfinished::read`]; [`Error::Misuse`] without a file.
    pub fn read_segments(
        files: &[Arc<dyn ReadAt>],
        keys: &Keys,
        job: Job<'_>,
    ) -> Result<Option<Self>> {
        let first = files.first().ok_or(Error::Misuse("an image of no files"))?;
        let page = read_page(&**first, 0)?;
        let superblock = Superblock::from_bytes(&page, Section::Superblock, 0)?;
        let is_split = superblock.features.incompat & Features::SPLIT != 0;
        let begun = is_split.then(|| Begun::of(page, files)).transpose()?.map(Arc::new);
        // Whoever goes on writes it once more, at the end of the image, and proves both.
        if superblock.to_bytes() != page {
            let fault = Fault::Differs { field: "feature names", other: "feature bits" };
            return Err(fault.at(Section::Superblock, 0));
        }
        let file: Arc<dyn ReadAt> = match &begun {
            Some(begun) => begun.clone(),
            None => Arc::clone(first),
        };
        let access = access(&superblock, keys)?;
        let mut head = vec![0; in_memory(superblock.frames_start())];
        if file.len() < head.len() as u64 {
            return Ok(None);
        }
        file.read_exact_at(&mut head, 0).map_err(Error::io("read unfinished image", 0))?;
        let slots = head[PAGE_SIZE..].to_vec();
        let mut walk = Walk::new(&*file, begun.as_deref(), &superblock, &access, head);
        let mut proven = None;
        loop {
            job.check()?;
            match walk.frame() {
                Ok(None) => break,
                Ok(Some(whole)) => proven = whole.or(proven),
                // This is where the writer was stopped, or where something was lost.
                Err(Error::Corrupt(_)) => break,
                Err(error) => return Err(error),
            }
        }
        let Some(mut proven) = proven else { return Ok(None) };
        let (mut sessions, checkpoints) = walk.into_found();
        sessions.retain(|tag| !proven.origins.contains(tag));
        proven.checkpoints = checkpoints;
        let lost_sessions = sessions;
        let stripes = open_stripes(&*file, &superblock, &proven)?;
        Ok(Some(Self { file, begun, superblock, access, slots, proven, lost_sessions, stripes }))
    }

    /// What was known before the first block.
    #[must_use]
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// Bytes of the image that are kept: all to the end of the last whole checkpoint.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "it has a superblock at least")]
    pub fn len(&self) -> u64 {
        self.proven.len
    }

    /// Bytes of each of its files that are kept, in order: all of those in front of the one that is
    /// cut. Files behind them go, once the cut is durable.
    #[must_use]
    pub fn kept(&self) -> Vec<u64> {
        self.begun.as_ref().map_or_else(|| vec![self.len()], |begun| begun.kept(self.len()))
    }

    /// The first block that nothing has been decided about.
    #[must_use]
    pub fn next_block(&self) -> BlockIndex {
        self.proven.next_block
    }

    /// Blocks decided so far, by kind.
    #[must_use]
    pub fn totals(&self) -> &Totals {
        &self.proven.totals
    }

    /// Whether a session has written frames of this file, also such that will be cut off: its
    /// tag must not be used again.
    #[must_use]
    pub fn has_session(&self, tag: SessionTag) -> bool {
        self.proven.origins.contains(&tag) || self.lost_sessions.contains(&tag)
    }

    /// The key slots behind the superblock; empty without any. Nothing is said about what they are
    /// worth.
    #[must_use]
    pub fn slots(&self) -> &[u8] {
        &self.slots
    }

    /// What a session of a sealed image that goes on here is named after, beside what is random:
    /// another one wherever anything before it differs.
    #[must_use]
    pub fn fingerprint(&self) -> Digest {
        self.proven.fingerprint
    }

    /// What has been decided so far, in the order of the blocks, read from the checkpoints once
    /// more.
    pub fn entries(&self) -> impl Iterator<Item = Result<IndexEntry>> + '_ {
        let lists = self.proven.checkpoints.iter().map(|&address| self.list(address));
        lists.flat_map(|list| match list {
            Ok(entries) => entries.into_iter().map(Ok).collect::<Vec<_>>(),
            Err(error) => vec![Err(error)],
        })
    }

    fn list(&self, address: u64) -> Result<Vec<IndexEntry>> {
        self.checkpoint(address)?.entries()
    }

    /// A checkpoint that holds, read once more.
    fn checkpoint(&self, address: u64) -> Result<Checkpoint> {
        let read = |out: &mut [u8], at: u64| {
            self.file.read_exact_at(out, at).map_err(Error::io("read checkpoint", at))
        };
        let mut header = [0; FRAME_HEADER_SIZE];
        read(&mut header, address)?;
        let header = FrameHeader::from_bytes(&header, address)?;
        if address.saturating_add(header.frame_size()) > self.proven.len {
            return Err(Fault::Bounds.at(Section::Checkpoint, address));
        }
        let mut frame = vec![0; FRAME_HEADER_SIZE + header.stored_len as usize];
        read(&mut frame, address)?;
        let mut plain = Buffer::default();
        let (header, content) = open_content(&self.access, &frame, &mut plain, address)?;
        Checkpoint::of_frame(&header, content.to_vec(), address)
    }

    pub(crate) fn is_split(&self) -> bool {
        self.begun.is_some()
    }

    pub(crate) fn stripes(&self) -> Option<&StripeSums> {
        self.stripes.as_ref()
    }

    /// What is kept of the stream of a split image; `None` when it is not split.
    pub(crate) fn written(&self) -> Result<Option<Written>> {
        let Some(begun) = &self.begun else { return Ok(None) };
        let (starts, len) = (begun.starts(self.len()), self.len());
        let first = starts.last().copied().unwrap_or(0) / PIECE_SIZE as u64;
        let (pieces, open_piece) = (self.pieces(first)?, self.proven.open_piece.clone());
        Ok(Some(Written { first_page: *begun.first_page(), starts, len, pieces, open_piece }))
    }

    /// The hashes of the complete pieces from number `first` on, which the checkpoints list.
    fn pieces(&self, first: u64) -> Result<Vec<Digest>> {
        let mut lists = vec![self.proven.late_pieces.clone()];
        let mut from = self.proven.pieces_listed;
        for &address in self.proven.checkpoints.iter().rev() {
            if from <= first {
                break;
            }
            let checkpoint = self.checkpoint(address)?;
            from = checkpoint.head.first_piece;
            let before = in_memory(first.saturating_sub(from));
            lists.push(checkpoint.pieces().skip(before).collect());
        }
        lists.reverse();
        Ok(lists.concat())
    }

    pub(crate) fn proven(&self) -> &Proven {
        &self.proven
    }
}

/// The parity of what was proven and has no PARITY frame yet: the pieces are read once more. They
/// are few, since that frame is never far from its stripe.
fn open_stripes(
    file: &dyn ReadAt,
    superblock: &Superblock,
    proven: &Proven,
) -> Result<Option<StripeSums>> {
    if !superblock.features.has_data_parity() {
        return Ok(None);
    }
    let mut sums = StripeSums::new();
    let mut piece = vec![0; PIECE_SIZE];
    let first = proven.stripes * (STRIPE_LEN / PIECE_SIZE as u64);
    for number in first..proven.len / PIECE_SIZE as u64 {
        let at = number * PIECE_SIZE as u64;
        file.read_exact_at(&mut piece, at).map_err(Error::io("read unfinished image", at))?;
        sums.add(&[&hash::as_proven(number, &piece, superblock.slot_area_len())]);
    }
    Ok(Some(sums))
}

/// What opens the frames of an image that is not finished: no page yet.
fn access(superblock: &Superblock, keys: &Keys) -> Result<Access> {
    let key = find_key(superblock, keys)?;
    match (superblock.is_keyed(), key) {
        (true, None) => Err(Error::Locked { commitment: superblock.key_commitment }),
        (_, Some(key)) if superblock.is_sealed() => {
            Ok(Access::open(&key, superblock.image, superblock.session))
        }
        _ => Ok(Access::Clear),
    }
}

/// Header and content of the frame in `frame`, which lies at `address`: opened where the image is
/// sealed, and refused where it is not as the image is.
fn open_content<'f>(
    access: &Access,
    frame: &'f [u8],
    plain: &'f mut Buffer,
    address: u64,
) -> Result<(FrameHeader, &'f [u8])> {
    let header = frame_header(frame, address)?;
    access.check_mode(&header).map_err(|fault| fault.at(Section::Frame, address))?;
    if header.seal.is_some() {
        return access.open_frame(header, frame, plain, address);
    }
    let end = FRAME_HEADER_SIZE + header.stored_len as usize;
    let payload = frame.get(FRAME_HEADER_SIZE..end);
    let payload = payload.ok_or_else(|| Fault::Bounds.at(Section::Frame, address))?;
    header.check_payload(payload, address)?;
    Ok((header, payload))
}

fn in_memory(count: u64) -> usize {
    usize::try_from(count).expect("counts inside a buffer fit the address space")
}
