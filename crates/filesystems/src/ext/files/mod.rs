//! Files of ext2, ext3 and ext4 by name, and the blocks that are theirs alone.
//!
//! Three passes. The folders are walked from the root on, and every name is either one that
//! matches or one that does not: an inode with a name of either kind is no candidate. The block
//! maps of the candidates are read. Last, every other inode in use is read with its block map, as
//! a check of the filesystem would do: a candidate that shares a block with anything is kept, and
//! where the map of any inode cannot be read, nothing is left out at all.
//!
//! Facts: kernel documentation "ext4 data structures and algorithms".

mod claims;
mod walk;

use aiv_volume_io::{ExtentSet, Job, ReadAt};

use super::blocks::Blocks;
use super::groups::Group;
use super::inode::Inodes;
use super::map::{Fault, Maps};
use super::superblock::Superblock;
use super::used::superblock_on_disk;
use crate::files::{Matching, MatchingFiles, NothingReason, Pattern};
use crate::stop::Stop;
use crate::{Error, Result};

/// A filesystem whose files are looked at.
struct Filesystem<'a> {
    blocks: Blocks<'a>,
    superblock: Superblock,
    groups: Vec<Group>,
}

impl Filesystem<'_> {
    fn inodes(&self) -> Inodes<'_> {
        Inodes::new(&self.blocks, &self.superblock, &self.groups)
    }

    fn maps(&self) -> Maps<'_> {
        Maps::new(&self.blocks, &self.superblock.geometry)
    }
}

/// Why no file can be left out.
enum NoFiles {
    Damaged(String),
    Failed(Error),
}

impl From<Error> for NoFiles {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<aiv_volume_io::Canceled> for NoFiles {
    fn from(canceled: aiv_volume_io::Canceled) -> Self {
        Self::Failed(canceled.into())
    }
}

impl From<Fault> for NoFiles {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Map(what) => Self::Damaged(what.to_owned()),
            Fault::TooMany => Self::Damaged("files claim more blocks than there are".to_owned()),
            Fault::Failed(error) => Self::Failed(error),
        }
    }
}

impl From<Stop> for NoFiles {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Whole(reason) => Self::Damaged(reason.to_string()),
            Stop::Failed(error) => Self::Failed(error),
        }
    }
}

/// Finds the files that match, on a volume with this map.
pub(crate) fn find(
    volume: &dyn ReadAt,
    used: &ExtentSet,
    patterns: &[Pattern],
    job: Job<'_>,
) -> Result<Matching> {
    match read(volume, used, patterns, job) {
        Ok(files) => Ok(Matching::Files(files)),
        Err(NoFiles::Damaged(what)) => {
            Ok(Matching::Nothing { reason: NothingReason::Damaged { what } })
        }
        Err(NoFiles::Failed(error)) => Err(error),
    }
}

fn read(
    volume: &dyn ReadAt,
    used: &ExtentSet,
    patterns: &[Pattern],
    job: Job<'_>,
) -> std::result::Result<MatchingFiles, NoFiles> {
    let superblock = superblock_on_disk(volume)?;
    if superblock.needs_recovery {
        return Err(NoFiles::Damaged("its journal waits to be replayed".to_owned()));
    }
    if superblock.shares_blocks {
        return Err(NoFiles::Damaged("its files may share blocks".to_owned()));
    }
    let blocks = Blocks::on_disk(volume, superblock.geometry.block_size);
    let groups = Group::read_first(superblock.geometry.groups, &blocks, &superblock, job)?;
    let filesystem = Filesystem { blocks, superblock, groups };
    let (names, mut answer) = walk::names(&filesystem, patterns, job)?;
    claims::own_blocks(&filesystem, used, names, &mut answer, job)?;
    Ok(answer)
}
