//! Which blocks of the candidates are theirs alone.

use aiv_volume_io::{Extent, ExtentSet, Job};

use super::super::blocks::STRIDE;
use super::super::groups::metadata_blocks;
use super::super::inode::{Inode, Kind};
use super::super::map::{Fault, Maps, Piece};
use super::super::superblock::{SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE};
use super::walk::Names;
use super::{Filesystem, NoFiles};
use crate::Error;
use crate::files::{FileExtents, KeptReason, MatchingFiles, PIECES_MAX, is_swap_signature};

/// A candidate, and what was found against it.
struct Owner {
    number: u32,
    path: String,
    len: u64,
    fault: Option<KeptReason>,
    /// Blocks that are kept all the same: the header of a swap file, without which it is none.
    header: ExtentSet,
}

/// Blocks that one candidate claims.
#[derive(Clone, Copy)]
struct Claim {
    start: u64,
    end: u64,
    owner: usize,
}

struct Claims {
    owners: Vec<Owner>,
    /// Ascending once they are sorted; disjoint but for those of owners with a fault.
    claims: Vec<Claim>,
    /// The furthest end of all claims up to each.
    reach: Vec<u64>,
}

/// Adds the candidates without a fault to `answer`, with their blocks, and the others as kept.
pub(super) fn own_blocks(
    filesystem: &Filesystem<'_>,
    used: &ExtentSet,
    names: Names,
    answer: &mut MatchingFiles,
    job: Job<'_>,
) -> Result<(), NoFiles> {
    if names.candidates.is_empty() {
        return Ok(());
    }
    let mut claims = Claims::of_candidates(filesystem, used, names, job)?;
    claims.sort();
    claims.fixed_places(filesystem)?;
    claims.all_inodes(filesystem, job)?;
    claims.tell(filesystem, answer);
    Ok(())
}

impl Claims {
    fn of_candidates(
        filesystem: &Filesystem<'_>,
        used: &ExtentSet,
        names: Names,
        job: Job<'_>,
    ) -> Result<Self, NoFiles> {
        let mut claims = Self { owners: Vec::new(), claims: Vec::new(), reach: Vec::new() };
        let mut inodes = filesystem.inodes();
        let mut maps = filesystem.maps();
        for (number, candidate) in names.candidates {
            job.check()?;
            let (path, header) = (candidate.path, ExtentSet::new());
            let mut owner = Owner { number, path, len: 0, fault: None, header };
            let first = claims.claims.len();
            match inodes.read(number)? {
                Err(what) => owner.fault = Some(KeptReason::NotUnderstood(what)),
                Ok(inode) => {
                    owner.len = inode.len;
                    owner.fault = fault_of(&inode, names.others.is_set(number), candidate.names);
                    let mut front = Vec::new();
                    let at = claims.owners.len();
                    let found = claims.pieces_of(&inode, at, &mut maps, &mut front)?;
                    owner.fault = owner.fault.or(found);
                    if owner.fault.is_none() {
                        owner.header = swap_header(filesystem, &inode, &front)?;
                    }
                }
            }
            let block_size = filesystem.superblock.geometry.block_size;
            let is_used = |claim: &Claim| {
                let bytes = in_bytes(claim, block_size);
                used.within(bytes).next() == Some(bytes)
            };
            if owner.fault.is_none() && !claims.claims[first..].iter().all(is_used) {
                owner.fault = Some(KeptReason::NotUnderstood("it claims blocks called free"));
            }
            claims.owners.push(owner);
        }
        Ok(claims)
    }

    /// Notes the data blocks of one candidate. `front` is told those of its first page.
    fn pieces_of(
        &mut self,
        inode: &Inode,
        owner: usize,
        maps: &mut Maps<'_>,
        front: &mut Vec<Front>,
    ) -> Result<Option<KeptReason>, NoFiles> {
        let (first, mut fits) = (self.claims.len(), true);
        let all = &mut self.claims;
        let found = maps.pieces(inode, u64::MAX, &mut |piece| {
            let (Piece::Data { logical, physical: start, count }
            | Piece::Unwritten { logical, physical: start, count }) = piece
            else {
                return Ok(());
            };
            // The smallest blocks are a quarter of a page.
            let of_page = logical..logical.saturating_add(count).min(4);
            front.extend(of_page.map(|n| Front { logical: n, physical: start + n - logical }));
            let is_full = all.len() >= PIECES_MAX;
            match all[first..].last_mut() {
                Some(last) if last.end == start => last.end += count,
                _ if is_full => fits = false,
                _ => all.push(Claim { start, end: start + count, owner }),
            }
            Ok(())
        });
        match found {
            Ok(()) if fits => Ok(None),
            Ok(()) => {
                self.claims.truncate(first);
                Ok(Some(KeptReason::TooMany))
            }
            Err(Fault::Map(what)) => Ok(Some(KeptReason::NotUnderstood(what))),
            Err(fault) => Err(fault.into()),
        }
    }

    /// Orders the claims, and finds those of several candidates to one block.
    fn sort(&mut self) {
        self.claims.sort_unstable_by_key(|claim| (claim.start, claim.end));
        let mut furthest: Option<Claim> = None;
        for claim in &self.claims {
            if let Some(before) = furthest
                && claim.start < before.end
            {
                self.owners[before.owner].fault.get_or_insert(KeptReason::Shared);
                self.owners[claim.owner].fault.get_or_insert(KeptReason::Shared);
            }
            if furthest.is_none_or(|before| before.end < claim.end) {
                furthest = Some(*claim);
            }
            self.reach.push(furthest.map_or(0, |before| before.end));
        }
    }

    /// Something else claims these blocks: no candidate that does, too, may be left out.
    fn taken(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let mut at = self.reach.partition_point(|&reach| reach <= start);
        while let Some(claim) = self.claims.get(at)
            && claim.start < end
        {
            if claim.end > start {
                self.owners[claim.owner].fault.get_or_insert(KeptReason::Shared);
            }
            at += 1;
        }
    }

    /// Superblocks, descriptors, bitmaps, inode tables: they belong to no inode.
    fn fixed_places(&mut self, filesystem: &Filesystem<'_>) -> Result<(), NoFiles> {
        let geometry = &filesystem.superblock.geometry;
        let boot = (SUPERBLOCK_OFFSET + SUPERBLOCK_SIZE) as u64;
        self.taken(0, boot.div_ceil(u64::from(geometry.block_size)));
        let metadata = metadata_blocks(&filesystem.groups, geometry)
            .map_err(|reason| NoFiles::Damaged(reason.to_string()))?;
        for run in metadata.runs() {
            self.taken(run.start, run.end());
        }
        for group in 0..geometry.groups {
            let copies = geometry.copies_in(group, false);
            self.taken(copies.start, copies.end);
            let descriptors = geometry.descriptor_blocks();
            if u64::from(group) < descriptors {
                let block = geometry.descriptor_block(group);
                self.taken(block, block + 1);
            }
        }
        if let Some(block) = filesystem.superblock.mmp_block {
            self.taken(block, block.saturating_add(1));
        }
        Ok(())
    }

    /// Looks at every inode in use: of the candidates the map itself and the attributes are
    /// somebody else's, of all others everything.
    fn all_inodes(&mut self, filesystem: &Filesystem<'_>, job: Job<'_>) -> Result<(), NoFiles> {
        let Filesystem { blocks, superblock, groups } = filesystem;
        let geometry = &superblock.geometry;
        let mut maps = filesystem.maps();
        let inode_size = usize::from(geometry.inode_size);
        let mut table = Vec::new();
        let mut number = 0;
        for (n, group) in groups.iter().enumerate() {
            let count = geometry.inodes_per_group - group.inodes_unused;
            let len = count as usize * inode_size;
            for at in (0..len).step_by(STRIDE) {
                job.check()?;
                table.resize(STRIDE.min(len - at), 0);
                let first = group.inode_table + (at / blocks.block_size()) as u64;
                blocks.read("read inode table", first, &mut table)?;
                let before = n * geometry.inodes_per_group as usize + at / inode_size;
                for (index, raw) in table.chunks_exact(inode_size).enumerate() {
                    number = u32::try_from(before + index + 1).unwrap_or(u32::MAX);
                    self.inode(number, raw, filesystem, &mut maps)?;
                }
            }
        }
        debug_assert!(number <= geometry.inodes_per_group.saturating_mul(geometry.groups));
        Ok(())
    }

    fn inode(
        &mut self,
        number: u32,
        raw: &[u8],
        filesystem: &Filesystem<'_>,
        maps: &mut Maps<'_>,
    ) -> Result<(), NoFiles> {
        let damaged = |what: &str| NoFiles::Damaged(format!("inode {number}: {what}"));
        let inode = Inode::parse(number, raw, &filesystem.superblock).map_err(damaged)?;
        let Some(inode) = inode else { return Ok(()) };
        if inode.attributes != 0 {
            self.taken(inode.attributes, inode.attributes.saturating_add(1));
        }
        // Owners are in the order of inodes. Candidates were compared with each other; those
        // that are kept claim their blocks as everybody else does.
        let found = self.owners.binary_search_by_key(&number, |owner| owner.number);
        let candidate = found.is_ok_and(|at| self.owners[at].fault.is_none());
        let found = maps.pieces(&inode, u64::MAX, &mut |piece| {
            match piece {
                Piece::Map { physical } => self.taken(physical, physical + 1),
                Piece::Data { physical, count, .. } | Piece::Unwritten { physical, count, .. }
                    if !candidate =>
                {
                    self.taken(physical, physical + count);
                }
                Piece::Data { .. } | Piece::Unwritten { .. } => {}
            }
            Ok(())
        });
        match found {
            Ok(()) => Ok(()),
            Err(Fault::Map(what)) => Err(damaged(what)),
            Err(fault) => Err(fault.into()),
        }
    }

    /// Splits the candidates into those to leave out and those to keep.
    fn tell(mut self, filesystem: &Filesystem<'_>, answer: &mut MatchingFiles) {
        let block_size = filesystem.superblock.geometry.block_size;
        self.claims.sort_unstable_by_key(|claim| (claim.owner, claim.start));
        let mut claims = self.claims.iter().peekable();
        for (n, owner) in self.owners.into_iter().enumerate() {
            let mut extents = ExtentSet::new();
            while let Some(claim) = claims.next_if(|claim| claim.owner == n) {
                extents.push(in_bytes(claim, block_size));
            }
            if !owner.header.is_empty() {
                let left = extents.runs().iter().flat_map(|&run| owner.header.gaps_within(run));
                extents = left.collect();
            }
            match owner.fault {
                Some(reason) => answer.keep(owner.path, reason),
                None if extents.is_empty() => {}
                None => {
                    let extents = extents.runs().to_vec();
                    answer.files.push(FileExtents { path: owner.path, len: owner.len, extents });
                }
            }
        }
        answer.files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    }
}

/// What of an inode itself says that it is kept.
fn fault_of(inode: &Inode, has_other_name: bool, names: u32) -> Option<KeptReason> {
    if inode.kind != Kind::File {
        Some(KeptReason::NotUnderstood("its inode is no regular file"))
    } else if inode.is_attribute() {
        Some(KeptReason::SystemFile)
    } else if inode.is_inline() {
        Some(KeptReason::InRecord)
    } else if inode.is_encrypted() {
        Some(KeptReason::Encrypted)
    } else if inode.is_compressed() {
        Some(KeptReason::Compressed)
    } else if inode.is_sealed() {
        Some(KeptReason::Sealed)
    } else if has_other_name || u32::from(inode.links) != names {
        Some(KeptReason::OtherName)
    } else {
        None
    }
}

/// A block of the first page of a file.
struct Front {
    logical: u64,
    physical: u64,
}

/// The bytes of the volume with the first page of a swap file; nothing for any other file. A swap
/// file that came back without it could not be used, or would pass for a sleeping system if the
/// target of the restore held one there before.
fn swap_header(
    filesystem: &Filesystem<'_>,
    inode: &Inode,
    front: &[Front],
) -> Result<ExtentSet, NoFiles> {
    const PAGE: u64 = 4096;
    const SIGNATURE_AT: u64 = PAGE - 10;
    // The smallest swap space has ten pages.
    if !inode.len.is_multiple_of(PAGE) || inode.len < 10 * PAGE {
        return Ok(ExtentSet::new());
    }
    let block_size = u64::from(filesystem.superblock.geometry.block_size);
    let page = front.iter().filter(|block| block.logical * block_size < PAGE);
    let Some(last) = page.clone().find(|block| block.logical == SIGNATURE_AT / block_size) else {
        return Ok(ExtentSet::new());
    };
    let mut signature = [0; 10];
    let offset = last.physical * block_size + SIGNATURE_AT % block_size;
    let failed = Error::io("read the first page of a file", offset);
    filesystem.blocks.volume().read_exact_at(&mut signature, offset).map_err(failed)?;
    let bytes = page.map(|block| Extent::new(block.physical * block_size, block_size));
    Ok(if is_swap_signature(&signature) { bytes.collect() } else { ExtentSet::new() })
}

fn in_bytes(claim: &Claim, block_size: u32) -> Extent {
    let block_size = u64::from(block_size);
    Extent::between(claim.start * block_size, claim.end * block_size)
}
