//! Candidates with the bytes they claim, and what is left of them at the end.

use aiv_volume_io::{Extent, ExtentSet, Job, ReadAt};

use super::{FileExtents, KeptReason, MatchingFiles, PIECES_MAX};
use crate::reader::Piece;
use crate::{Error, Result};

/// A page of swap space, and what of a file is looked at for one.
pub(crate) const PAGE: u64 = 4096;
/// The smallest swap space has ten pages.
const SWAP_LEN_MIN: u64 = 10 * PAGE;

/// A file that matches.
pub(crate) struct Owner {
    pub(crate) path: String,
    /// Length in bytes.
    pub(crate) len: u64,
    /// What speaks against leaving it out.
    pub(crate) fault: Option<KeptReason>,
    /// Its first page is kept, whatever is in it.
    pub(crate) keeps_front: bool,
    /// Whole blocks that are its alone, in any order.
    extents: Vec<Extent>,
    /// Where the first page of the file is, each of its places.
    front: Vec<Piece>,
}

/// The files that match, within a bound of memory.
pub(crate) struct Owners {
    list: Vec<Owner>,
    pieces: usize,
    /// Bytes of the blocks that files consist of.
    unit: u64,
}

impl Owners {
    /// Of a filesystem whose files consist of blocks of `unit` bytes.
    pub(crate) fn new(unit: u32) -> Self {
        Self { list: Vec::new(), pieces: 0, unit: unit.into() }
    }

    /// Begins with the next file, to which all that follows belongs.
    pub(crate) fn begin(&mut self, path: String, len: u64) -> &mut Owner {
        let (extents, front) = (Vec::new(), Vec::new());
        self.list.push(Owner { path, len, fault: None, keeps_front: false, extents, front });
        let last = self.list.len() - 1;
        &mut self.list[last]
    }

    /// Speaks against the last file.
    pub(crate) fn fault(&mut self, reason: KeptReason) {
        if let Some(owner) = self.list.last_mut() {
            owner.fault.get_or_insert(reason);
        }
    }

    /// Adds bytes of the last file that lie as they are.
    pub(crate) fn piece(&mut self, piece: Piece) {
        self.front(piece);
        self.extent(Extent::new(piece.physical, piece.len));
    }

    /// Tells where bytes of the last file lie, without claiming them.
    pub(crate) fn front(&mut self, piece: Piece) {
        let end = PAGE.max(self.unit);
        if let Some(owner) = self.list.last_mut()
            && piece.logical < end
        {
            owner.front.push(Piece { len: piece.len.min(end - piece.logical), ..piece });
        }
    }

    /// Claims bytes for the last file.
    pub(crate) fn extent(&mut self, extent: Extent) {
        let Some(owner) = self.list.last_mut() else { return };
        if let Some(last) = owner.extents.last_mut().filter(|last| last.end() == extent.start) {
            last.len += extent.len;
        } else if self.pieces == PIECES_MAX {
            owner.fault.get_or_insert(KeptReason::TooMany);
        } else {
            self.pieces += 1;
            owner.extents.push(extent);
        }
    }

    /// Adds the files without a fault to `answer`, and the others as kept.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Canceled`].
    pub(crate) fn tell(
        mut self,
        volume: &dyn ReadAt,
        used: &ExtentSet,
        answer: &mut MatchingFiles,
        job: Job<'_>,
    ) -> Result<()> {
        self.find_shared();
        for owner in self.list {
            job.check()?;
            let extents: ExtentSet = owner.extents.iter().copied().collect();
            let is_used = |run: &Extent| used.within(*run).next() == Some(*run);
            let fault = owner.fault.or_else(|| {
                let is_known = extents.runs().iter().all(is_used);
                (!is_known).then_some(KeptReason::NotUnderstood("it claims blocks called free"))
            });
            if let Some(reason) = fault {
                answer.keep(owner.path, reason);
                continue;
            }
            let header = owner.header(volume)?;
            let left = extents.runs().iter().flat_map(|&run| header.gaps_within(run));
            let extents: ExtentSet = left.collect();
            if !extents.is_empty() {
                let (path, len) = (owner.path, owner.len);
                answer.files.push(FileExtents { path, len, extents: extents.runs().to_vec() });
            }
        }
        answer.files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok(())
    }

    /// Finds bytes that are claimed twice.
    fn find_shared(&mut self) {
        let mut claims: Vec<(Extent, usize)> = Vec::with_capacity(self.pieces);
        for (n, owner) in self.list.iter().enumerate() {
            claims.extend(owner.extents.iter().map(|&extent| (extent, n)));
        }
        claims.sort_unstable_by_key(|(extent, _)| (extent.start, extent.end()));
        let mut furthest: Option<(u64, usize)> = None;
        for (extent, n) in claims {
            if let Some((end, before)) = furthest
                && extent.start < end
            {
                for owner in [before, n] {
                    self.list[owner].fault.get_or_insert(KeptReason::Shared);
                }
            }
            if furthest.is_none_or(|(end, _)| extent.end() > end) {
                furthest = Some((extent.end(), n));
            }
        }
    }
}

impl Owner {
    /// What of the file is kept all the same: the first page of a swap file. A swap file that came
    /// back without it could not be used, or would pass for a sleeping system if the target of
    /// the restore held one there before.
    fn header(&self, volume: &dyn ReadAt) -> Result<ExtentSet> {
        if !self.keeps_front && !self.is_swap(volume)? {
            return Ok(ExtentSet::new());
        }
        Ok(self.front.iter().map(|piece| Extent::new(piece.physical, piece.len)).collect())
    }

    fn is_swap(&self, volume: &dyn ReadAt) -> Result<bool> {
        const LEN: u64 = 10;
        const AT: u64 = PAGE - LEN;
        if !self.len.is_multiple_of(PAGE) || self.len < SWAP_LEN_MIN {
            return Ok(false);
        }
        let has = |piece: &&Piece| piece.logical <= AT && AT + LEN <= piece.logical + piece.len;
        let Some(piece) = self.front.iter().find(has) else { return Ok(false) };
        let mut signature = [0; 10];
        let offset = piece.physical + (AT - piece.logical);
        let failed = Error::io("read the first page of a file", offset);
        volume.read_exact_at(&mut signature, offset).map_err(failed)?;
        Ok(is_swap_signature(&signature))
    }
}

/// Whether the last ten bytes of the first page of a file say that it is swap space, or a sleeping
/// system.
pub(crate) fn is_swap_signature(signature: &[u8]) -> bool {
    [&b"SWAPSPACE2"[..], b"SWAP-SPACE", b"S1SUSPEND", b"S2SUSPEND", b"ULSUSPEND"]
        .iter()
        .any(|known| signature.starts_with(known))
}
