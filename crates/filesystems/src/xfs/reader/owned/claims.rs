//! Who else claims a block of a file that matches.

use aiv_volume_io::{Extent, Job};

use super::super::inode::Inode;
use super::super::layout::Layout;
use super::trees::{CHUNK, Trees};
use super::{Fork, Forks, Owner};
use crate::files::{KeptReason, PIECES_MAX};
use crate::{Error, Result};

/// The files that match, and their bytes.
pub(super) struct Claims {
    pub(super) owners: Vec<Owner>,
    /// Bytes of the volume that nobody is said to share, and the number of their owner, ascending
    /// and disjoint.
    claims: Vec<(Extent, usize)>,
}

impl Claims {
    pub(super) fn new(mut owners: Vec<Owner>, trees: &Trees) -> Self {
        let mut claims: Vec<(Extent, usize)> = Vec::new();
        for (n, owner) in owners.iter_mut().enumerate() {
            let own = owner
                .pieces
                .iter()
                .flat_map(|piece| trees.shared.gaps_within(Extent::new(piece.physical, piece.len)));
            claims.extend(own.map(|own| (own, n)));
            if claims.len() > PIECES_MAX {
                owner.fault.get_or_insert(KeptReason::TooMany);
                claims.retain(|&(_, other)| other != n);
            }
        }
        claims.sort_unstable_by_key(|(extent, _)| (extent.start, extent.end()));
        let mut furthest: Option<(u64, usize)> = None;
        for &(claim, n) in &claims {
            if let Some((end, before)) = furthest
                && claim.start < end
            {
                for owner in [before, n] {
                    owners[owner].fault.get_or_insert(KeptReason::Shared);
                }
            }
            if furthest.is_none_or(|(end, _)| claim.end() > end) {
                furthest = Some((claim.end(), n));
            }
        }
        claims.retain(|&(_, n)| owners[n].fault.is_none());
        Self { owners, claims }
    }

    /// Reads everything that claims blocks.
    pub(super) fn check(&mut self, layout: &Layout<'_>, trees: &Trees, job: Job<'_>) -> Result<()> {
        for &record in &trees.records {
            self.not_theirs(record);
        }
        let shape = &layout.shape;
        let group_log = shape.geometry.group_log() + shape.inodes_log;
        for chunk in &trees.chunks {
            job.check()?;
            for n in 0..CHUNK {
                let Some(within) = chunk.first.checked_add(n).filter(|_| chunk.has(n)) else {
                    continue;
                };
                let number = u64::from(chunk.group) << group_log | u64::from(within);
                let Some(offset) = layout.inode_offset(number).filter(|_| within >> group_log == 0)
                else {
                    return Err(Error::damaged("a chunk of inodes lies outside its group", None));
                };
                self.not_theirs(Extent::new(offset, shape.inode_size as u64));
                if chunk.is_used(n) {
                    self.inode(layout, &Inode::read(layout, number)?)?;
                }
            }
        }
        Ok(())
    }

    fn inode(&mut self, layout: &Layout<'_>, inode: &Inode) -> Result<()> {
        let forks = Forks::of(layout, inode)?;
        let block_size = layout.block_size();
        let places = |fork: &Fork| -> Vec<Extent> {
            let runs = fork.runs.iter();
            runs.map(|run| Extent::new(run.physical, u64::from(run.blocks) * block_size)).collect()
        };
        for fork in forks.data.iter().chain(&forks.attributes) {
            fork.tree_blocks.iter().for_each(|&at| self.not_theirs(Extent::new(at, block_size)));
        }
        for place in forks.attributes.iter().flat_map(places) {
            self.not_theirs(place);
        }
        for place in forks.data.iter().flat_map(places) {
            self.taken(place, Some(inode.number));
        }
        Ok(())
    }

    /// A record of the filesystem lies there.
    fn not_theirs(&mut self, place: Extent) {
        self.taken(place, None);
    }

    /// Something of the filesystem, or data of a file, lie there.
    fn taken(&mut self, place: Extent, inode: Option<u64>) {
        let first = self.claims.partition_point(|(claim, _)| claim.end() <= place.start);
        for (claim, owner) in self.claims.get(first..).unwrap_or_default() {
            if claim.start >= place.end() {
                break;
            }
            let owner = &mut self.owners[*owner];
            if Some(owner.inode) != inode {
                owner.fault.get_or_insert(KeptReason::Shared);
            }
        }
    }
}
