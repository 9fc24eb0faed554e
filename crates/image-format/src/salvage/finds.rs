//! What a scan has found, in little memory: 32 bytes a frame that no checkpoint has told about.

use std::collections::HashMap;

use crate::error::{Error, Result, Unsalvageable};
use crate::ids::{BlockIndex, BlockSize, ImageId, SessionTag};
use crate::layout::{FrameKind, IndexEntry, Superblock, Trailer};
use crate::limits::{BLOCK_SIZE_MAX, BLOCK_SIZE_MIN};
use crate::salvage::open::{Opened, Under};

/// Frames that are remembered, 2 GiB of them: those of terabytes of an image of which neither
/// index nor checkpoints are left.
const FRAMES_MAX: usize = 1 << 26;

/// Sessions that are told apart: more than three times as many as an image may have, and fewer
/// than 16 bits can count. What others left in a file is not looked at.
const SESSIONS_MAX: usize = 60_000;

/// Superblocks and trailers that are remembered. One image has two of each; others lie in the
/// remains of images that were inside a disk.
const HEADS_MAX: usize = 64;

/// Checkpoints that are remembered: one in 64 MiB makes more than any image holds.
const CHECKPOINTS_MAX: usize = 1 << 20;

/// Index pages that are remembered: those of 2 * 10^9 entries, 1.5 GiB of them.
const PAGES_MAX: usize = 1 << 25;

/// META frames that are remembered: far more than one image has of the types that are known.
const META_MAX: usize = 1024;

/// A sound frame with a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BlockFrame {
    pub block: BlockIndex,
    /// Offset in the file.
    pub at: u64,
    pub leaf_prefix: [u8; 8],
    pub plain_len: u32,
    pub session: u16,
    pub kind: FrameKind,
    pub is_damaged: bool,
}

/// A sound level-0 page of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LeafPage {
    pub at: u64,
    pub page_no: u64,
    /// First block, and first block behind the last entry.
    pub first: BlockIndex,
    pub end: BlockIndex,
    pub image: ImageId,
    /// Of a sealed page the blocks are zero until it was opened.
    pub is_sealed: bool,
}

/// A sound checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CheckpointFrame {
    pub at: u64,
    pub number: u64,
    pub next_block: BlockIndex,
    /// First block of its entries, and first block behind them; both `next_block` without any.
    pub first: BlockIndex,
    pub end: BlockIndex,
    pub session: u16,
    /// The session that stands first in its list: the one that began its image.
    pub begun_by: u16,
    pub payload_crc: u32,
    /// Whether that one began the image in question.
    pub names_first: bool,
}

/// A sound frame of a META section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MetaFrame {
    pub at: u64,
    pub section: u64,
    pub session: u16,
}

/// Frames of one session under one key: nothing makes sealed frames and others in one session, so
/// those of one tag that are protected otherwise are somebody else's.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub tag: SessionTag,
    /// What protects its frames.
    pub under: Under,
    /// Frames with blocks, and the bytes they take; of sealed ones that nothing opened, which do
    /// not say whether they hold a block, all.
    pub frames: u64,
    pub bytes: u64,
    /// Whether checkpoints were made in it: then it wrote this very image, and its frames are
    /// where they were made.
    pub wrote: bool,
    /// Frames by the length of their block, 2^14 to 2^22.
    lengths: [u64; 9],
    /// A session of the same image, as a checkpoint said; itself when it is the first.
    with: u16,
}

/// Everything a scan has found.
#[derive(Default)]
pub(super) struct Finds {
    pub frames: Vec<BlockFrame>,
    pub pages: Vec<LeafPage>,
    pub checkpoints: Vec<CheckpointFrame>,
    pub meta: Vec<MetaFrame>,
    pub superblocks: Vec<(u64, Superblock)>,
    /// Each with the bytes that are missing in front of it.
    pub trailers: Vec<(u64, Trailer)>,
    pub sessions: Vec<Session>,
    numbers: HashMap<(SessionTag, Under), u16>,
    /// The session that began the image and what protects it, where a superblock told before the
    /// scan.
    pub first_session: Option<(SessionTag, Under)>,
    /// Frames of all kinds.
    pub frames_seen: u64,
    /// Where all that is sound lies.
    pub places: blake3::Hasher,
    /// Frames before this one were compared with the last checkpoint.
    compared: usize,
}

impl Finds {
    /// Nothing yet, of an image that `first_session` began.
    pub(super) fn new(first_session: Option<(SessionTag, Under)>) -> Self {
        let mut finds = Self { first_session, ..Self::default() };
        // Before those that may be too many.
        first_session.and_then(|(first, under)| finds.session(first, under));
        finds
    }

    /// What protects the frames of the image, where that is known before the scan.
    pub(super) fn expected(&self) -> Option<Under> {
        self.first_session.map(|(_, under)| under)
    }

    /// The number of a session; `None` when there are too many.
    pub(super) fn session(&mut self, tag: SessionTag, under: Under) -> Option<u16> {
        if let Some(&number) = self.numbers.get(&(tag, under)) {
            return Some(number);
        }
        let number = u16::try_from(self.sessions.len()).ok()?;
        if self.sessions.len() >= SESSIONS_MAX {
            return None;
        }
        self.numbers.insert((tag, under), number);
        self.sessions.push(Session {
            tag,
            under,
            frames: 0,
            bytes: 0,
            wrote: false,
            lengths: [0; 9],
            with: number,
        });
        Some(number)
    }

    /// The number of a session that was met.
    pub(super) fn number_of(&self, tag: SessionTag, under: Under) -> Option<u16> {
        self.numbers.get(&(tag, under)).copied()
    }

    /// Takes a frame with a block at `at`.
    pub(super) fn block(&mut self, frame: &Opened<'_>, under: Under, at: u64) -> Result<()> {
        let Some(session) = self.session(frame.session, under) else { return Ok(()) };
        if self.frames.len() >= FRAMES_MAX {
            return Err(Error::Unsalvageable(Unsalvageable::TooMuch));
        }
        let about = &mut self.sessions[usize::from(session)];
        about.frames += 1;
        about.bytes += frame.size;
        if frame.plain_len.is_power_of_two()
            && (BLOCK_SIZE_MIN..=BLOCK_SIZE_MAX).contains(&frame.plain_len)
        {
            about.lengths[(frame.plain_len / BLOCK_SIZE_MIN).trailing_zeros() as usize] += 1;
        }
        self.frames.push(BlockFrame {
            block: frame.subject,
            at,
            leaf_prefix: frame.leaf_prefix,
            plain_len: frame.plain_len,
            session,
            kind: frame.kind,
            is_damaged: frame.is_damaged,
        });
        Ok(())
    }

    /// Counts a sound frame at `at`.
    pub(super) fn see(&mut self, at: u64) {
        self.frames_seen += 1;
        self.places.update(&at.to_le_bytes());
    }

    /// Takes note of a sealed frame of `size` bytes at `at` that nothing opened.
    pub(super) fn sealed(&mut self, tag: SessionTag, size: u64, at: u64) {
        if self.expected().is_some_and(|expected| expected != Under::Unknown) {
            return;
        }
        self.see(at);
        let Some(session) = self.session(tag, Under::Unknown) else { return };
        let about = &mut self.sessions[usize::from(session)];
        about.frames += 1;
        about.bytes += size;
    }

    /// Takes a checkpoint with its origins and entries. Frames that its entries name need not be
    /// remembered.
    pub(super) fn checkpoint(
        &mut self,
        mut found: CheckpointFrame,
        origins: impl Iterator<Item = SessionTag>,
        entries: &[IndexEntry],
    ) {
        if self.checkpoints.len() >= CHECKPOINTS_MAX {
            return;
        }
        let mut with = self.first_of(found.session);
        let under = self.sessions[usize::from(found.session)].under;
        for (number, origin) in origins.enumerate() {
            // Further back others list it, too: images that were merged from this one.
            found.names_first |= number == 0 && Some((origin, under)) == self.first_session;
            // Without a superblock, sessions that one checkpoint lists belong together.
            if let Some(other) = self.session(origin, under) {
                if number == 0 {
                    found.begun_by = other;
                }
                let other = self.first_of(other);
                let (low, high) = (with.min(other), with.max(other));
                self.sessions[usize::from(high)].with = low;
                with = low;
            }
        }
        // An image on the disk may have the sessions of those this one was merged from.
        let wrote = found.names_first || self.first_session.is_none();
        self.sessions[usize::from(found.session)].wrote |= wrote;
        self.checkpoints.push(found);
        if self.first_session.is_some() && found.names_first {
            let is_named = |frame: &BlockFrame| {
                let after = entries.partition_point(|e| e.block <= frame.block);
                after > 0 && entries[after - 1].address == frame.at
            };
            let since = self.frames.split_off(self.compared);
            self.frames.extend(since.into_iter().filter(|frame| !is_named(frame)));
            self.compared = self.frames.len();
        }
    }

    /// Settles that `first` began the image: which checkpoints are of it, and which sessions wrote
    /// it. Says whether there is such a checkpoint.
    pub(super) fn begun_by(&mut self, first: u16) -> bool {
        self.sessions.iter_mut().for_each(|session| session.wrote = false);
        for checkpoint in &mut self.checkpoints {
            checkpoint.names_first = checkpoint.begun_by == first;
            self.sessions[usize::from(checkpoint.session)].wrote |= checkpoint.names_first;
        }
        self.checkpoints.iter().any(|checkpoint| checkpoint.names_first)
    }

    /// The first session that belongs together with this one.
    pub(super) fn first_of(&mut self, mut session: u16) -> u16 {
        // Ends: each step leads to a smaller number, and makes the next walk half as long.
        loop {
            let next = self.sessions[usize::from(session)].with;
            if next >= session {
                return session;
            }
            let after = self.sessions[usize::from(next)].with;
            self.sessions[usize::from(session)].with = after;
            session = after;
        }
    }

    pub(super) fn page(&mut self, page: LeafPage) {
        self.places.update(&page.at.to_le_bytes());
        if self.pages.len() < PAGES_MAX {
            self.pages.push(page);
        }
    }

    pub(super) fn meta(&mut self, frame: &Opened<'_>, under: Under, at: u64) {
        if self.meta.len() < META_MAX
            && let Some(session) = self.session(frame.session, under)
        {
            self.meta.push(MetaFrame { at, section: frame.subject, session });
        }
    }

    pub(super) fn superblock(&mut self, at: u64, superblock: Superblock) {
        if self.superblocks.len() < HEADS_MAX {
            self.superblocks.push((at, superblock));
        }
    }

    /// Takes a trailer, in front of which `shift` bytes are missing.
    pub(super) fn trailer(&mut self, shift: u64, trailer: Trailer) {
        // The last ones: those of the image itself lie at its end.
        if self.trailers.len() == HEADS_MAX {
            self.trailers.remove(0);
        }
        self.trailers.push((shift, trailer));
    }

    /// The length most blocks of the given sessions have.
    pub(super) fn block_size(&self, is_ours: impl Fn(u16) -> bool) -> Option<BlockSize> {
        let mut lengths = [0; 9];
        for (_, session) in (0..).zip(&self.sessions).filter(|(number, _)| is_ours(*number)) {
            lengths.iter_mut().zip(session.lengths).for_each(|(sum, count)| *sum += count);
        }
        let most = lengths.iter().copied().max().filter(|&most| most > 0)?;
        let log2 = lengths.iter().position(|&count| count == most)?;
        BlockSize::new(BLOCK_SIZE_MIN << log2)
    }
}
