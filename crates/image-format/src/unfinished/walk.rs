//! From frame to frame through a file that may end, or go wrong, anywhere.

use aiv_volume_io::ReadAt;

use super::{Proven, in_memory, open_content};
use crate::block::Buffer;
use crate::error::{Error, Fault, Result, Section};
use crate::hash;
use crate::ids::{BlockIndex, Digest, SessionTag};
use crate::layout::{
    Checkpoint, FRAME_HEADER_SIZE, FrameHeader, FrameKind, IndexEntry, Kind, LocalHead, Superblock,
    covering, first_nonzero,
};
use crate::limits::{
    CHECKPOINT_ENTRIES_MAX, CHECKPOINT_PIECES_MAX, FRAME_ALIGN, ORIGINS_MAX, PARITY_REACH,
    PIECE_SIZE,
};
use crate::parity::stripes::{STRIPE_LEN, StripeSums};
use crate::seal::Access;
use crate::segments::Begun;

/// Checkpoints of one file that are gone through: 64 TiB at one every 64 MiB. What lies behind
/// them is written again.
const CHECKPOINTS_MAX: usize = 1 << 20;

/// A frame that holds a block, as its header describes it.
struct BlockFrame {
    address: u64,
    size: u64,
    block: BlockIndex,
    kind: Kind,
    leaf_prefix: [u8; 8],
    /// What a difference to blocks of the image itself names.
    bases: Option<LocalHead>,
}

pub(super) struct Walk<'a> {
    file: &'a dyn ReadAt,
    /// Its segments, where it is split.
    begun: Option<&'a Begun>,
    superblock: &'a Superblock,
    access: &'a Access,
    plain: Buffer,
    /// Where the next frame begins; everything before it has been hashed.
    at: u64,
    /// The beginning of the piece that `at` lies in.
    open_piece: Vec<u8>,
    /// Pieces completed and not listed by a checkpoint yet.
    pieces: Vec<Digest>,
    /// Pieces completed.
    piece_count: u64,
    /// Block frames that no checkpoint has an entry for yet.
    blocks: Vec<BlockFrame>,
    /// Sessions met so far; the last one is writing, and this is the number of its next frame.
    sessions: Vec<SessionTag>,
    next_seq: u64,
    /// Parity of the stripes whose PARITY frame was not met yet, in an image that has them.
    stripes: Option<StripeSums>,
    /// Addresses of the checkpoints that hold.
    checkpoints: Vec<u64>,
    /// As of the last checkpoint, but for the totals, which are of all frames so far.
    so_far: Proven,
}

impl<'a> Walk<'a> {
    /// Begins behind `head`: the superblock, and its key slots.
    pub(super) fn new(
        file: &'a dyn ReadAt,
        begun: Option<&'a Begun>,
        superblock: &'a Superblock,
        access: &'a Access,
        head: Vec<u8>,
    ) -> Self {
        // The key slots are in the hash of no piece.
        let fingerprint = Digest(*blake3::hash(&head).as_bytes());
        Self {
            file,
            begun,
            superblock,
            access,
            plain: Buffer::default(),
            at: head.len() as u64,
            open_piece: head,
            pieces: Vec::new(),
            piece_count: 0,
            blocks: Vec::new(),
            sessions: vec![superblock.session],
            next_seq: 0,
            stripes: superblock.features.has_data_parity().then(StripeSums::new),
            checkpoints: Vec::new(),
            so_far: Proven { fingerprint, ..Proven::default() },
        }
    }

    /// Every session met, and the checkpoints that hold.
    pub(super) fn into_found(self) -> (Vec<SessionTag>, Vec<u64>) {
        (self.sessions, self.checkpoints)
    }

    /// Goes over the next frame; `None` at the end of the file. When it is a checkpoint that
    /// holds, returns what is proven with it.
    pub(super) fn frame(&mut self) -> Result<Option<Option<Proven>>> {
        let address = self.at;
        if self.file.len() - address < FRAME_HEADER_SIZE as u64 {
            return Ok(None);
        }
        let end = self.begun.map_or(self.file.len(), |begun| begun.border(address));
        let mut header = [0; FRAME_HEADER_SIZE];
        self.read(&mut header, address)?;
        let bytes = header;
        let header = FrameHeader::from_bytes(&bytes, address)?;
        let at = |fault: Fault| fault.at(Section::Frame, address);
        if header.frame_size() > end - address {
            return Err(at(Fault::CutOff));
        }
        self.meet_session(&header).map_err(at)?;
        self.check_stripes(&header, address).map_err(at)?;
        // Bounded by what a header may say.
        let mut frame = vec![0; in_memory(header.frame_size())];
        self.read(&mut frame, address)?;
        // No piece proves the last frames before a checkpoint.
        let end = FRAME_HEADER_SIZE + header.stored_len as usize;
        if first_nonzero(&frame[end..]).is_some() {
            return Err(at(Fault::Reserved { at: end }));
        }
        let mut plain = std::mem::take(&mut self.plain);
        let opened = open_content(self.access, &frame, &mut plain, address);
        let taken = opened.and_then(|(header, content)| self.take(&header, content, address));
        self.plain = plain;
        let is_checkpoint = taken?;
        self.pass(&frame)?;
        if !is_checkpoint {
            return Ok(Some(None));
        }
        self.checkpoints.push(address);
        Ok(Some(Some(self.proven(&frame))))
    }

    /// Takes a frame; says whether it is a checkpoint, which holds then.
    fn take(&mut self, header: &FrameHeader, content: &[u8], address: u64) -> Result<bool> {
        let at = |fault: Fault| fault.at(Section::Frame, address);
        self.so_far.totals.frames += 1;
        match header.kind {
            FrameKind::Data | FrameKind::Delta | FrameKind::Local => {
                let frame = self.block_frame(header, content, address).map_err(at)?;
                self.blocks.push(frame);
                self.so_far.totals.payload_bytes += u64::from(header.stored_len);
                Ok(false)
            }
            FrameKind::Pad => Ok(false),
            FrameKind::Checkpoint => {
                let checkpoint = Checkpoint::of_frame(header, content.to_vec(), address)?;
                self.check(&checkpoint, address)?;
                Ok(true)
            }
            FrameKind::Parity => {
                let parity = self.stripes.as_mut().and_then(StripeSums::take);
                if parity.is_none_or(|parity| parity != content) {
                    return Err(at(Fault::Differs { field: "content", other: "pieces before it" }));
                }
                self.so_far.stripes += 1;
                Ok(false)
            }
            FrameKind::Meta => Err(at(Fault::Bounds)),
        }
    }

    /// The PARITY frame of a stripe comes where the next frame would, once the stripe is complete:
    /// only PAD frames may move it.
    fn check_stripes(&self, header: &FrameHeader, address: u64) -> std::result::Result<(), Fault> {
        let stripe = self.so_far.stripes;
        let behind = address.checked_sub((stripe + 1) * STRIPE_LEN);
        let is_due = self.stripes.is_some() && behind.is_some();
        let fits = match header.kind {
            FrameKind::Parity => is_due && header.subject == stripe && header.codec == 0,
            FrameKind::Pad => true,
            _ => !is_due,
        };
        if !fits || (is_due && behind >= Some(PARITY_REACH)) {
            return Err(Fault::Differs { field: "parity", other: "stripe before it" });
        }
        Ok(())
    }

    fn read(&self, out: &mut [u8], at: u64) -> Result<()> {
        self.file.read_exact_at(out, at).map_err(Error::io("read unfinished image", at))
    }

    /// Frames of a session are numbered without gaps, and a session that another one followed
    /// does not come again.
    fn meet_session(&mut self, header: &FrameHeader) -> std::result::Result<(), Fault> {
        if self.sessions.last() != Some(&header.session) {
            // One more has to fit: that of whoever goes on.
            if self.sessions.len() >= ORIGINS_MAX - 1 || self.sessions.contains(&header.session) {
                return Err(Fault::Differs { field: "session", other: "frame before it" });
            }
            self.sessions.push(header.session);
            self.next_seq = 0;
        }
        if header.seq != self.next_seq {
            return Err(Fault::Differs { field: "number", other: "frame before it" });
        }
        self.next_seq += 1;
        Ok(())
    }

    /// What the header of a block's frame says, and the bases of a LOCAL one.
    fn block_frame(
        &self,
        header: &FrameHeader,
        content: &[u8],
        address: u64,
    ) -> std::result::Result<BlockFrame, Fault> {
        let geometry = &self.superblock.geometry;
        if self.blocks.len() == CHECKPOINT_ENTRIES_MAX {
            return Err(Fault::Bounds);
        }
        let (block, len) = (header.subject, header.plain_len);
        if block >= geometry.blocks() || len != geometry.block_len(block) {
            return Err(Fault::Differs { field: "length", other: "block it holds" });
        }
        let kind = match header.kind {
            FrameKind::Delta => Kind::Delta,
            FrameKind::Local => Kind::Local,
            _ if header.is_damaged => Kind::Unreadable,
            _ => Kind::Data,
        };
        let bases = match header.kind {
            FrameKind::Local => Some(LocalHead::split(content, block)?.0),
            _ => None,
        };
        let (size, leaf_prefix) = (header.frame_size(), header.leaf_prefix);
        Ok(BlockFrame { address, size, block, kind, leaf_prefix, bases })
    }

    /// Holds a checkpoint to everything that came before it.
    fn check(&mut self, checkpoint: &Checkpoint, address: u64) -> Result<()> {
        let head = &checkpoint.head;
        let at = |fault: Fault| fault.at(Section::Checkpoint, address);
        let differs = |field, other| Err(at(Fault::Differs { field, other }));
        let before = self.checkpoints.last().copied().unwrap_or(0);
        if self.checkpoints.len() == CHECKPOINTS_MAX {
            return Err(at(Fault::Bounds));
        }
        if head.number != self.checkpoints.len() as u64 || head.previous_address != before {
            return differs("number", "checkpoint before it");
        }
        let listed = u64::from(head.piece_count);
        if head.first_piece != self.so_far.pieces_listed
            || head.first_piece + listed != address / PIECE_SIZE as u64
            || !checkpoint.pieces().eq(self.pieces.iter().copied())
        {
            return differs("pieces", "bytes before it");
        }
        if !checkpoint.origins().eq(self.sessions.iter().copied()) {
            return differs("sessions", "frames before it");
        }
        self.check_entries(checkpoint, address).map_err(at)?;
        self.so_far.pieces_listed += listed;
        self.pieces.clear();
        self.blocks.clear();
        self.so_far.next_block = head.next_block;
        Ok(())
    }

    /// The entries decide the blocks from where the last checkpoint ended, and name the frames
    /// since then, one by one.
    fn check_entries(
        &mut self,
        checkpoint: &Checkpoint,
        address: u64,
    ) -> std::result::Result<(), Fault> {
        let inherits = self.superblock.parent.is_some();
        let end = checkpoint.head.next_block;
        let mut next = self.so_far.next_block;
        let mut frames = self.blocks.iter();
        let entries = checkpoint.entries().map_err(|_| Fault::Bounds)?;
        for entry in &entries {
            if entry.block < next || (!inherits && entry.block != next) || entry.end() > end {
                return Err(Fault::Differs { field: "entries", other: "blocks before them" });
            }
            next = entry.end();
            if entry.kind.needs() & !self.superblock.features.incompat != 0 {
                return Err(Fault::Differs { field: "entries", other: "feature bits" });
            }
            if entry.kind == Kind::Ref {
                let end = entry.address.saturating_add(entry.frame_size.max(2 * FRAME_ALIGN));
                if entry.address < self.superblock.frames_start() || end > address {
                    return Err(Fault::Bounds);
                }
            }
            let is_framed = entry.has_frame() && entry.kind != Kind::Ref;
            if is_framed && !frames.next().is_some_and(|frame| frame.is_of(entry)) {
                return Err(Fault::Differs { field: "entries", other: "frames before it" });
            }
        }
        let is_whole = if inherits { next <= end } else { next == end };
        if !is_whole || end > self.superblock.geometry.blocks() || frames.next().is_some() {
            return Err(Fault::Differs { field: "entries", other: "frames before it" });
        }
        // Bases of earlier checkpoints are compared when the image is proven.
        let known = self.so_far.next_block;
        let named = self.blocks.iter().filter_map(|frame| frame.bases.as_ref());
        for base in named.flat_map(LocalHead::bases).filter(|base| base.block >= known) {
            let found = covering(&entries, base.block);
            if !found.is_some_and(|found| found.is_whole() && found.leaf == base.leaf) {
                return Err(Fault::Differs { field: "bases", other: "entries" });
            }
        }
        for entry in &entries {
            // Entries do not overlap, so no count grows beyond that of the blocks.
            *self.so_far.totals.of(entry.kind) += entry.run;
        }
        Ok(())
    }

    /// Hashes a frame and goes on behind it.
    fn pass(&mut self, frame: &[u8]) -> Result<()> {
        let mut bytes = frame;
        while !bytes.is_empty() {
            let room = PIECE_SIZE - self.open_piece.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.open_piece.extend_from_slice(now);
            bytes = later;
            if self.open_piece.len() == PIECE_SIZE {
                self.end_piece()?;
            }
        }
        if self.pieces.len() > CHECKPOINT_PIECES_MAX as usize {
            return Err(Fault::Bounds.at(Section::Frame, self.at));
        }
        self.at += frame.len() as u64;
        Ok(())
    }

    fn end_piece(&mut self) -> Result<()> {
        let (number, slots) = (self.piece_count, self.superblock.slot_area_len());
        let digest = hash::piece(number, &self.open_piece, slots);
        if let Some(begun) = self.begun {
            begun.check_piece(number, digest)?;
        }
        if let Some(stripes) = &mut self.stripes {
            stripes.add(&[&hash::as_proven(number, &self.open_piece, slots)]);
        }
        self.pieces.push(digest);
        self.piece_count += 1;
        self.open_piece.clear();
        Ok(())
    }

    /// What is known right behind the checkpoint in `frame`, but for the checkpoints themselves.
    fn proven(&mut self, frame: &[u8]) -> Proven {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.so_far.fingerprint.0);
        hasher.update(&self.at.to_le_bytes());
        hasher.update(frame);
        // Of these pieces the checkpoint does not tell.
        self.pieces.iter().for_each(|piece| {
            hasher.update(&piece.0);
        });
        hasher.update(&self.open_piece);
        self.so_far.fingerprint = Digest(*hasher.finalize().as_bytes());
        Proven {
            len: self.at,
            origins: self.sessions.clone(),
            late_pieces: self.pieces.clone(),
            open_piece: self.open_piece.clone(),
            ..self.so_far.clone()
        }
    }
}

impl BlockFrame {
    /// Whether `entry` is the one that says of this frame what it is.
    fn is_of(&self, entry: &IndexEntry) -> bool {
        let size_is_known = entry.frame_size == 0 || entry.frame_size == self.size;
        entry.block == self.block
            && entry.kind == self.kind
            && entry.address == self.address
            && size_is_known
            && entry.leaf.0.starts_with(&self.leaf_prefix)
    }
}
