//! Goes on with an image where its last whole checkpoint ends.

use aiv_volume_io::AppendFile;

use super::ImageWriter;
use crate::appender::Appender;
use crate::error::{Error, Result, Section};
use crate::ids::{Digest, SessionTag};
use crate::layout::{Features, Superblock};
use crate::limits::PAGE_SIZE;
use crate::seal::{Access, Seal};
use crate::segments::{SegmentFiles, SegmentedFile};
use crate::unfinished::Unfinished;

impl<'f> ImageWriter<'f> {
    /// Goes on with an unfinished image in `file`, which is the one that `unfinished` was read
    /// from, cut to [`Unfinished::len`]: the next block is [`Unfinished::next_block`]. Frames
    /// from here on are of the session `session`, which must never have been used. An image with a
    /// key takes the same `seal` as before: key, mode and slots.
    ///
    /// Blocks of the image so far can be referred to by the places their entries name.
    ///
    /// # Errors
    /// [`Error::Misuse`] when the session has written frames of this image already, `seal` is
    /// another one, `file` is another one or was not cut there, or the image is split;
    /// [`Error::Io`]. Nothing was written then.
    pub fn resume(
        file: Box<dyn AppendFile + 'f>,
        unfinished: &Unfinished,
        session: SessionTag,
        seal: Option<Seal>,
    ) -> Result<Self> {
        if unfinished.is_split() {
            return Err(Error::Misuse("going on with a split image as with one that is not"));
        }
        Self::resume_in(file, unfinished, session, seal)
    }

    /// As [`ImageWriter::resume`], with an image that is split into files of `limit` bytes at most:
    /// `current` is the last of those that [`Unfinished::kept`] keeps, cut to what that says, and
    /// behind it are none.
    ///
    /// # Errors
    /// As [`ImageWriter::resume`], where the image is split; [`Error::Misuse`] for a limit that is
    /// too small.
    pub fn resume_split(
        files: Box<dyn SegmentFiles + 'f>,
        current: Box<dyn AppendFile>,
        unfinished: &Unfinished,
        session: SessionTag,
        seal: Option<Seal>,
        limit: u64,
    ) -> Result<Self> {
        let written = unfinished.written()?;
        let written = written.ok_or(Error::Misuse("going on with segments of no split image"))?;
        let superblock = unfinished.superblock().clone();
        let (file, cuts) = SegmentedFile::resume(files, current, superblock, limit, written)?;
        let mut writer = Self::resume_in(Box::new(file), unfinished, session, seal)?;
        writer.cuts = Some(cuts);
        Ok(writer)
    }

    fn resume_in(
        file: Box<dyn AppendFile + 'f>,
        unfinished: &Unfinished,
        session: SessionTag,
        seal: Option<Seal>,
    ) -> Result<Self> {
        if unfinished.has_session(session) {
            return Err(Error::Misuse("a session that has written frames of the image before"));
        }
        check_seal(unfinished, seal.as_ref())?;
        check_file(&*file, unfinished)?;
        Ok(Self::resume_as(file, unfinished, session, seal, 0))
    }

    /// Goes on as `session`, whose next frame is `next_seq`.
    pub(crate) fn resume_as(
        file: Box<dyn AppendFile + 'f>,
        unfinished: &Unfinished,
        session: SessionTag,
        seal: Option<Seal>,
        next_seq: u64,
    ) -> Self {
        let (superblock, proven) = (unfinished.superblock(), unfinished.proven());
        let mut origins = proven.origins.clone();
        if !origins.contains(&session) {
            origins.push(session);
        }
        let access = seal.as_ref().map(|seal| seal.access(superblock.image, session));
        let access = access.unwrap_or(Access::Clear);
        let (open_piece, late) = (proven.open_piece.clone(), proven.late_pieces.clone());
        let stripes = unfinished.stripes().cloned();
        let mut file = Appender::resume(file, proven.len, open_piece, late, stripes)
            .with_slots(superblock.slot_area_len());
        if let Access::Open(key) = &access {
            file = file.sealing(key.clone());
        }
        Self {
            file,
            cuts: None,
            stripes_written: superblock.features.has_data_parity().then_some(proven.stripes),
            superblock: superblock.clone(),
            session,
            next_block: proven.next_block,
            next_seq,
            last_origin: session,
            origins,
            pending: Vec::new(),
            checkpoints: proven.checkpoints.clone(),
            last_checkpoint_end: proven.len,
            next_unlisted: proven.next_block,
            pieces_listed: proven.pieces_listed,
            totals: proven.totals,
            seal,
            access,
            checkpoint_bytes: super::CHECKPOINT_BYTES,
        }
    }
}

/// Whether the image was begun with this seal: else its trailer would prove what others wrote, or
/// its key slots would differ for no reason.
fn check_seal(unfinished: &Unfinished, seal: Option<&Seal>) -> Result<()> {
    let superblock = unfinished.superblock();
    let mut same = superblock.clone();
    same.features.incompat &= !(Features::KEYED | Features::KEY_SLOTS);
    same.key_commitment = Digest::default();
    let slots = seal.and_then(|seal| seal.slots.as_deref()).unwrap_or_default();
    if let Some(seal) = seal {
        seal.mark(&mut same)?;
    }
    match same == *superblock && slots == unfinished.slots() {
        true => Ok(()),
        false => Err(Error::Misuse("going on with another key, mode or key slots")),
    }
}

/// Whether the file begins and ends as the unfinished image does: what is appended to another
/// one, or behind what should have been cut off, would be lost.
fn check_file(file: &dyn AppendFile, unfinished: &Unfinished) -> Result<()> {
    let proven = unfinished.proven();
    let failed = |at| Error::io("read unfinished image", at);
    let mut page = [0; PAGE_SIZE];
    file.read_exact_at(&mut page, 0).map_err(failed(0))?;
    let mut end = vec![0; proven.open_piece.len()];
    let at = proven.len - end.len() as u64;
    file.read_exact_at(&mut end, at).map_err(failed(at))?;
    let is_cut = match file.read_exact_at(&mut [0], proven.len) {
        Ok(()) => false,
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => true,
        Err(error) => return Err(failed(proven.len)(error)),
    };
    let begins = Superblock::from_bytes(&page, Section::Superblock, 0)?;
    if begins != *unfinished.superblock() || end != proven.open_piece || !is_cut {
        return Err(Error::Misuse("going on with another file, or not where it was cut"));
    }
    Ok(())
}
