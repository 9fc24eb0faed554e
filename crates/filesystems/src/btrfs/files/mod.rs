//! Files of Btrfs by name, and the extents that are theirs alone.
//!
//! The extent tree says who refers to an extent of data: the trees, files and places, and how
//! many there are. An extent is a file's alone when all of its references are of this file in
//! this subvolume, and all of them were found in its tree. A block of the tree that another tree
//! has as well (a snapshot shares all blocks it does not change, and extents below them are
//! counted once) is not entered: what it refers to is somebody else's, too. Extents are left out
//! whole or not at all, however much of them the file uses; compressed ones are no exception.
//!
//! Extents of the extent tree are disjoint, and those of data are no tree blocks: that was proven
//! with the map. As there, the records are believed when they agree.
//!
//! Checksums of data stay in their tree. What is left out does not match them any more, so that
//! reading such a file of a restored volume fails instead of giving bytes that nobody wrote.

mod references;

use std::cell::Cell;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use aiv_volume_io::{Extent, ExtentSet, Job, ReadAt};

use super::chunks::Chunks;
use super::key::{Item, kind};
use super::reader::Btrfs;
use super::reason::BtrfsReason;
use super::roots::{self, Roots};
use super::superblock::{Root, Superblock};
use super::tree::{Tree, TreeReader};
use super::used::read_chunks;
use crate::bytes::le64;
use crate::files::{KeptReason, MatchingFiles, Names, Owners, PAGE, PIECES_MAX, Pattern, Walk};
use crate::reader::{FileFlags, FileId, FileType, Filesystem, Piece, VolumeOf};
use crate::stop::Stop;
use crate::{Error, Result};
use references::Judge;

/// Tree blocks that several trees have: 128 MiB of memory.
const SHARED_MAX: usize = 1 << 22;

/// Finds the files that match, on a volume with this map.
pub(crate) fn find(
    volume: &dyn ReadAt,
    used: &ExtentSet,
    patterns: &[Pattern],
    job: Job<'_>,
) -> std::result::Result<MatchingFiles, Stop> {
    let superblock = &Superblock::read(volume)?;
    let btrfs = Btrfs::open(VolumeOf::new(Arc::new(volume)), job)?;
    if !btrfs.notes().is_empty() {
        return Err(Error::damaged("its records are not all in their places", None).into());
    }
    let mut answer = MatchingFiles::default();
    let names = Walk::new(&btrfs, patterns, false, &mut answer).run(job, &mut |_| Ok(()))?;
    if names.candidates.is_empty() {
        return Ok(answer);
    }
    let mut files = Files::of(&btrfs, names, job)?;

    let mut reader = TreeReader::new(volume, superblock, job);
    let (chunks, _) = read_chunks(&mut reader, superblock)?;
    let chunks = &chunks;
    let mut trees = Trees::default();
    reader.walk(chunks, Tree::ROOT, superblock.root, &mut |item| trees.take(superblock, item))?;
    let mut shared = HashSet::new();
    let extent_root = trees.roots.extent()?;
    reader.walk(chunks, Tree::EXTENT, extent_root, &mut |item| {
        shared.extend(shared_block(item));
        match shared.len() > SHARED_MAX {
            true => Err(too_many("tree blocks that are shared", SHARED_MAX)),
            false => Ok(()),
        }
    })?;
    for subvolume in files.subvolumes() {
        let Some(&root) = trees.subvolumes.get(&subvolume) else { continue };
        let is_skipped = Cell::new(false);
        let is_own = |block: u64| {
            let is_shared = shared.contains(&block);
            is_skipped.set(is_skipped.get() || is_shared);
            !is_shared
        };
        reader.walk_where(chunks, Tree::FILES, root, &is_own, &mut |item| {
            files.take(subvolume, item);
            Ok(())
        })?;
        if is_skipped.get() {
            files.in_common.insert(subvolume);
        }
    }
    drop(shared);

    let mut judge = Judge::new(std::mem::take(&mut files.claims));
    // This tree was read before: no block counts twice.
    let mut reader = TreeReader::new(volume, superblock, job);
    reader.walk(chunks, Tree::EXTENT, extent_root, &mut |item| {
        judge.take(item);
        Ok(())
    })?;
    let own = judge.finish();
    files.owners(superblock, chunks, own).tell(volume, used, &mut answer, job)?;
    Ok(answer)
}

fn too_many(what: &'static str, allowed: usize) -> Stop {
    BtrfsReason::TooMany { what, allowed: allowed as u64 }.into()
}

/// What the root tree names.
#[derive(Default)]
struct Trees {
    roots: Roots,
    /// Those of subvolumes that are not about to vanish. What these refer to is counted in the
    /// extent tree.
    subvolumes: BTreeMap<u64, Root>,
}

impl Trees {
    fn take(&mut self, superblock: &Superblock, item: Item<'_>) -> std::result::Result<(), Stop> {
        const REFERENCES_AT: usize = 216;
        self.roots.take(superblock, item)?;
        if item.key.kind != kind::ROOT_ITEM {
            return Ok(());
        }
        let root = roots::parse(item, Tree::ROOT, superblock.generation)?;
        let is_alive = item.data[REFERENCES_AT..REFERENCES_AT + 4] != [0; 4];
        if is_alive && self.subvolumes.insert(item.key.object, root).is_some() {
            let what = "it names one of the trees twice";
            return Err(BtrfsReason::Tree { tree: "root", block: item.leaf, what }.into());
        }
        Ok(())
    }
}

/// The address of a tree block that several trees have.
fn shared_block(item: Item<'_>) -> Option<u64> {
    const TREE_BLOCK: u64 = 2;
    const FULL_BACKREF: u64 = 1 << 8;
    let is_extent = matches!(item.key.kind, kind::EXTENT_ITEM | kind::METADATA_ITEM);
    if !is_extent || item.data.len() < references::HEADER_LEN {
        return None;
    }
    let (count, flags) = (le64(item.data, 0), le64(item.data, 16));
    (flags & TREE_BLOCK != 0 && (count != 1 || flags & FULL_BACKREF != 0))
        .then_some(item.key.object)
}

/// A file that matches.
struct File {
    id: FileId,
    path: String,
    len: u64,
    fault: Option<KeptReason>,
    /// It has extents.
    has_data: bool,
    /// Logical addresses of what lies at its beginning.
    front: Vec<Piece>,
}

/// A reference of a file to an extent.
#[derive(Debug, Clone, Copy)]
struct Claim {
    /// The whole extent, by logical address.
    extent: Extent,
    /// Number of the file.
    file: usize,
    id: FileId,
    /// What the extent tree calls the place: where the extent would begin in the file.
    place: u64,
}

/// The files that match, and what they refer to.
#[derive(Default)]
struct Files {
    list: Vec<File>,
    numbers: BTreeMap<FileId, usize>,
    claims: Vec<Claim>,
    /// Subvolumes that have blocks of their tree in common with others.
    in_common: HashSet<u64>,
}

impl Files {
    fn of(btrfs: &Btrfs<'_>, names: Names, job: Job<'_>) -> Result<Self> {
        let mut files = Self::default();
        for (id, candidate) in names.candidates {
            job.check()?;
            let (len, fault) = match btrfs.metadata(id) {
                Ok(metadata) if metadata.file_type != FileType::File => {
                    (0, Some(KeptReason::NotUnderstood("its inode is no regular file")))
                }
                Ok(metadata) if metadata.flags.contains(FileFlags::VERITY) => {
                    (metadata.len, Some(KeptReason::Sealed))
                }
                Ok(metadata) if metadata.links != candidate.names => {
                    (metadata.len, Some(KeptReason::OtherName))
                }
                Ok(metadata) => (metadata.len, None),
                Err(error @ (Error::Io { .. } | Error::Canceled(_))) => return Err(error),
                Err(_) => (0, Some(KeptReason::NotUnderstood("its inode is damaged"))),
            };
            files.numbers.insert(id, files.list.len());
            let (path, front) = (candidate.path, Vec::new());
            files.list.push(File { id, path, len, fault, has_data: false, front });
        }
        Ok(files)
    }

    fn subvolumes(&self) -> Vec<u64> {
        let mut all: Vec<u64> = self.list.iter().map(|file| file.id.space).collect();
        // Files are in the order of their numbers.
        all.dedup();
        all
    }

    /// An item of the tree of a subvolume.
    fn take(&mut self, subvolume: u64, item: Item<'_>) {
        const INLINE: u8 = 0;
        const PREALLOCATED: u8 = 2;
        const KIND_AT: usize = 20;
        const LEN: usize = 53;
        let id = FileId { space: subvolume, number: item.key.object };
        let number = (item.key.kind == kind::EXTENT_DATA).then(|| self.numbers.get(&id)).flatten();
        let Some(&number) = number else { return };
        let file = &mut self.list[number];
        if file.fault.is_some() {
            return;
        }
        let data = item.data;
        if data.len() > KIND_AT && data[KIND_AT] == INLINE {
            file.fault = Some(KeptReason::InRecord);
            return;
        }
        // Encrypted, or encoded in some other way.
        if data.len() != LEN || data[KIND_AT] > PREALLOCATED || data[17..KIND_AT] != [0; 3] {
            file.fault = Some(KeptReason::NotUnderstood("an extent is of an unknown kind"));
            return;
        }
        let [logical, stored, offset, len] = [21, 29, 37, 45].map(|at| le64(data, at));
        // A hole in the file.
        if logical == 0 {
            return;
        }
        if self.claims.len() == PIECES_MAX {
            file.fault = Some(KeptReason::TooMany);
            return;
        }
        file.has_data = true;
        let is_compressed = data[16] != 0;
        if item.key.offset < PAGE && !is_compressed {
            let physical = logical.saturating_add(offset);
            file.front.push(Piece { logical: item.key.offset, physical, len });
        }
        self.claims.push(Claim {
            extent: Extent::new(logical, stored),
            file: number,
            id,
            place: item.key.offset.wrapping_sub(offset),
        });
    }

    /// The files with the places on the device of the extents that are theirs: pairs of a file
    /// and a logical extent, by file.
    fn owners(self, superblock: &Superblock, chunks: &Chunks, own: Vec<(usize, Extent)>) -> Owners {
        let mut owners = Owners::new(superblock.sector_size);
        let front_len = PAGE.max(superblock.sector_size.into());
        let mut own = own.into_iter().peekable();
        for (number, file) in self.list.into_iter().enumerate() {
            owners.begin(file.path, file.len).fault = file.fault;
            for piece in file.front {
                let extent = Extent::new(piece.physical, piece.len.min(front_len));
                let Some((_, chunk)) = chunks.around(extent) else { continue };
                for place in chunk.places_of(extent) {
                    owners.front(Piece { physical: place.start, len: place.len, ..piece });
                }
            }
            let is_hidden = file.len > 0 && self.in_common.contains(&file.id.space);
            let mut is_common = file.has_data || is_hidden;
            while let Some((_, extent)) = own.next_if(|(owner, _)| *owner == number) {
                // The extent tree has it, so it lies in one chunk.
                let Some((_, chunk)) = chunks.around(extent) else { continue };
                is_common = false;
                chunk.places_of(extent).for_each(|place| owners.extent(place));
            }
            if is_common {
                owners.fault(KeptReason::Common);
            }
        }
        owners
    }
}
