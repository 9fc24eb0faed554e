//! Files of XFS by name, and the blocks that are theirs alone.
//!
//! Three passes. All folders are walked for names. The extents of the files that match are read.
//! Last, whatever else claims blocks is read: the headers and trees of all groups, the log, the
//! chunks of inodes, and both forks of every inode in use. A block that the tree of reference
//! counts calls shared is kept, whoever shares it; a file of which anything else claims a block
//! that this tree does not explain is kept whole; and where an inode or a tree cannot be read,
//! nothing is left out at all.
//!
//! Facts: as in [`xfs`](super::super).

mod claims;
mod trees;

use std::sync::Arc;

use aiv_volume_io::{Extent, ExtentSet, Job, ReadAt};

use super::super::superblock::Superblock;
use super::fork::{Fork, Place};
use super::inode::{Inode, Which};
use super::layout::Layout;
use super::{Xfs, superblock};
use crate::files::{Candidate, KeptReason, MatchingFiles, Owners, PIECES_MAX, Pattern, Walk};
use crate::reader::{FileId, FileType, Filesystem, Piece, VolumeOf};
use crate::stop::Stop;
use crate::{Error, Result};
use claims::Claims;
use trees::Trees;

/// A file that matches, and what was read of it.
struct Owner {
    inode: u64,
    path: String,
    len: u64,
    fault: Option<KeptReason>,
    /// Whole blocks, in the order of the file.
    pieces: Vec<Piece>,
}

/// Finds the files that match, on a volume with this map.
pub(crate) fn find(
    volume: &dyn ReadAt,
    used: &ExtentSet,
    patterns: &[Pattern],
    job: Job<'_>,
) -> std::result::Result<MatchingFiles, Stop> {
    let superblock = Superblock::read(volume)?;
    let (layout, notes) = superblock::read(VolumeOf::new(Arc::new(volume)), job)?;
    if !notes.is_empty() {
        return Err(Error::damaged("its records are not all in their places", None).into());
    }
    let xfs = Xfs { layout, notes };
    let mut answer = MatchingFiles::default();
    let names = Walk::new(&xfs, patterns, false, &mut answer).run(job, &mut |_| Ok(()))?;
    if names.candidates.is_empty() {
        return Ok(answer);
    }
    let trees = Trees::read(volume, &superblock, job)?;
    let (mut owners, mut room) = (Vec::new(), PIECES_MAX);
    for (file, candidate) in names.candidates {
        job.check()?;
        let mut owner = owner(&xfs, file, candidate)?;
        if owner.fault.is_none() && owner.pieces.len() > room {
            owner.fault = Some(KeptReason::TooMany);
        }
        match owner.fault {
            Some(_) => owner.pieces = Vec::new(),
            None => room -= owner.pieces.len(),
        }
        owners.push(owner);
    }
    let mut claims = Claims::new(owners, &trees);
    claims.check(&xfs.layout, &trees, job)?;

    let mut all = Owners::new(superblock.geometry.block_size);
    for owner in claims.owners {
        all.begin(owner.path, owner.len).fault = owner.fault;
        let mut is_common = !owner.pieces.is_empty();
        for piece in owner.pieces {
            all.front(piece);
            for own in trees.shared.gaps_within(Extent::new(piece.physical, piece.len)) {
                is_common = false;
                all.extent(own);
            }
        }
        if is_common {
            all.fault(KeptReason::Common);
        }
    }
    all.tell(volume, used, &mut answer, job)?;
    Ok(answer)
}

/// Reads what a file consists of. What is damaged is its own fault.
fn owner(xfs: &Xfs<'_>, file: FileId, candidate: Candidate) -> Result<Owner> {
    let (inode, path) = (file.number, candidate.path);
    let mut owner = Owner { inode, path, len: 0, fault: None, pieces: Vec::new() };
    let read = xfs.metadata(file).and_then(|metadata| {
        owner.len = metadata.len;
        if metadata.file_type != FileType::File {
            owner.fault = Some(KeptReason::NotUnderstood("its inode is no regular file"));
        } else if metadata.links != candidate.names {
            owner.fault = Some(KeptReason::OtherName);
        }
        let forks = Forks::of(&xfs.layout, &Inode::read(&xfs.layout, file.number)?)?;
        owner.pieces = forks.data.map_or_else(Vec::new, |fork| pieces(&xfs.layout, &fork));
        Ok(())
    });
    match read {
        Ok(()) => {}
        Err(Error::Damaged { .. } | Error::Unsupported { .. }) => {
            owner.fault = Some(KeptReason::NotUnderstood("its inode is damaged"));
        }
        Err(error) => return Err(error),
    }
    Ok(owner)
}

fn pieces(layout: &Layout<'_>, fork: &Fork) -> Vec<Piece> {
    let block_size = layout.block_size();
    let piece = |run: &super::fork::Run| Piece {
        logical: run.logical.saturating_mul(block_size),
        physical: run.physical,
        len: u64::from(run.blocks) * block_size,
    };
    fork.runs.iter().map(piece).collect()
}

/// The forks of an inode that have extents.
struct Forks {
    data: Option<Fork>,
    attributes: Option<Fork>,
}

impl Forks {
    fn of(layout: &Layout<'_>, inode: &Inode) -> Result<Self> {
        let fork = |which| {
            let place = inode.fork(which)?;
            let has_extents = |place: &Place<'_>| match place {
                Place::Extents { .. } | Place::Tree { .. } => true,
                Place::Device(_) | Place::Local(_) => false,
            };
            let place = place.filter(has_extents);
            place.map(|place| Fork::read(layout, place, inode.number)).transpose()
        };
        let forks = Self { data: fork(Which::Data)?, attributes: fork(Which::Attributes)? };
        if inode.is_on_realtime_device() && forks.data.as_ref().is_some_and(|f| !f.runs.is_empty())
        {
            return Err(inode.damaged("it is on a realtime device, and there is none"));
        }
        Ok(forks)
    }
}
