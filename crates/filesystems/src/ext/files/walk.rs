//! All folders from the root on: which inodes have names that match, and which have others.

use std::collections::BTreeMap;

use aiv_volume_io::Job;

use super::super::directory::{Entries, Entry};
use super::super::inode::{FIRST_OF_USERS, Inode, Inodes, Kind, ROOT};
use super::super::map::{Fault, Maps, Piece};
use super::{Filesystem, NoFiles};
use crate::FileType;
use crate::files::{
    Bits, FILES_MAX, KeptReason, MatchingFiles, PATH_BYTES_MAX, Pattern, any_matches,
};

/// Folders in folders: what is deeper is kept. No system call takes such a path.
const DEPTH_MAX: usize = 512;
/// Pieces one folder may be in.
const FOLDER_PIECES_MAX: usize = 1 << 20;
/// Folders whose names wait for their turn.
const WAITING_MAX: usize = 1 << 22;

/// An inode with a name that matches.
pub(super) struct Candidate {
    pub(super) path: String,
    /// How many such names.
    pub(super) names: u32,
}

/// What the names of a filesystem say.
pub(super) struct Names {
    /// By inode.
    pub(super) candidates: BTreeMap<u32, Candidate>,
    /// Inodes with a name that does not match.
    pub(super) others: Bits,
}

/// A folder whose folders are being walked.
struct Level {
    folders: Vec<(u32, String)>,
    /// Everything in it matches.
    inside: bool,
}

struct Walk<'a> {
    filesystem: &'a Filesystem<'a>,
    patterns: &'a [Pattern],
    job: Job<'a>,
    inodes: Inodes<'a>,
    maps: Maps<'a>,
    seen: Bits,
    names: Names,
    answer: MatchingFiles,
    path_bytes: usize,
    waiting: usize,
}

/// Walks all folders.
pub(super) fn names<'a>(
    filesystem: &'a Filesystem<'a>,
    patterns: &'a [Pattern],
    job: Job<'a>,
) -> Result<(Names, MatchingFiles), NoFiles> {
    let geometry = &filesystem.superblock.geometry;
    // The product was compared to the superblock's number of inodes.
    let last = geometry.inodes_per_group.saturating_mul(geometry.groups);
    let mut walk = Walk {
        filesystem,
        patterns,
        job,
        inodes: filesystem.inodes(),
        maps: filesystem.maps(),
        seen: Bits::new(last),
        names: Names { candidates: BTreeMap::new(), others: Bits::new(last) },
        answer: MatchingFiles::default(),
        path_bytes: 0,
        waiting: 0,
    };
    walk.run()?;
    Ok((walk.names, walk.answer))
}

impl Walk<'_> {
    fn run(&mut self) -> Result<(), NoFiles> {
        let mut path: Vec<String> = Vec::new();
        let mut levels = vec![self.folder(ROOT, &path, false)?];
        while let Some(level) = levels.last_mut() {
            let Some((number, name)) = level.folders.pop() else {
                levels.pop();
                path.pop();
                continue;
            };
            self.waiting -= 1;
            let inside = level.inside;
            path.push(name);
            if levels.len() >= DEPTH_MAX {
                self.answer.keep(path.join("/"), KeptReason::Folder("it is too deep"));
                path.pop();
                continue;
            }
            let inside = inside || self.matches(&path, None, true);
            levels.push(self.folder(number, &path, inside)?);
        }
        Ok(())
    }

    fn matches(&self, folder: &[String], name: Option<&str>, is_folder: bool) -> bool {
        let path: Vec<&str> = folder.iter().map(String::as_str).chain(name).collect();
        any_matches(self.patterns, &path, is_folder)
    }

    /// Reads the names of one folder. What cannot be read is kept, and said.
    fn folder(&mut self, number: u32, path: &[String], inside: bool) -> Result<Level, NoFiles> {
        self.job.check()?;
        let mut level = Level { folders: Vec::new(), inside };
        if let Err(fault) = self.read_folder(number, path, &mut level) {
            match fault {
                Fault::Map(what) => self.answer.keep(path.join("/"), KeptReason::Folder(what)),
                fault => return Err(fault.into()),
            }
        }
        Ok(level)
    }

    fn read_folder(
        &mut self,
        number: u32,
        path: &[String],
        level: &mut Level,
    ) -> Result<(), Fault> {
        let inode = self.inodes.read(number)?.map_err(Fault::Map)?;
        if inode.kind != Kind::Folder {
            return Err(Fault::Map("its inode is no folder"));
        }
        if !self.seen.set(number) {
            return Err(Fault::Map("it has more than one name"));
        }
        if inode.is_encrypted() {
            return Err(Fault::Map("its names are encrypted"));
        }
        if inode.is_inline() {
            return Err(Fault::Map("its names lie within its inode"));
        }
        let mut block = vec![0; self.filesystem.blocks.block_size()];
        for (first, count) in self.blocks_of(&inode)? {
            for physical in first..first + count {
                self.job.check()?;
                self.filesystem.blocks.read("read folder", physical, &mut block)?;
                let has_kinds = self.filesystem.superblock.has_entry_kinds;
                let entries = Entries::new(&block, has_kinds, inode.seed);
                let entries: Result<Vec<_>, _> = entries.and_then(Iterator::collect);
                for entry in entries.map_err(Fault::Map)? {
                    self.entry(entry, path, level)?;
                }
            }
        }
        Ok(())
    }

    /// Blocks of a folder's data in the order of the folder.
    fn blocks_of(&mut self, inode: &Inode) -> Result<Vec<(u64, u64)>, Fault> {
        let len = inode.len.div_ceil(self.filesystem.blocks.block_size() as u64);
        let (mut pieces, mut all) = (Vec::new(), true);
        self.maps.pieces(inode, u64::MAX, &mut |piece| {
            if let Piece::Data { logical, physical, count }
            | Piece::Unwritten { logical, physical, count } = piece
                && logical < len
            {
                match pieces.len() < FOLDER_PIECES_MAX {
                    true => pieces.push((physical, count.min(len - logical))),
                    false => all = false,
                }
            }
            Ok(())
        })?;
        if all { Ok(pieces) } else { Err(Fault::Map("it is in too many pieces")) }
    }

    fn entry(&mut self, entry: Entry<'_>, path: &[String], level: &mut Level) -> Result<(), Fault> {
        let name = String::from_utf8_lossy(entry.name);
        let kind = match entry.kind {
            Some(FileType::File) => Kind::File,
            Some(FileType::Folder) => Kind::Folder,
            Some(_) => return Ok(()),
            None => match self.inodes.read(entry.inode)? {
                Ok(inode) => inode.kind,
                // Without an inode there is nothing to leave out.
                Err(_) => return Ok(()),
            },
        };
        if kind == Kind::Folder {
            if self.waiting == WAITING_MAX {
                return Err(Fault::Map("there are too many folders"));
            }
            self.waiting += 1;
            level.folders.push((entry.inode, name.into_owned()));
        } else if kind == Kind::File {
            let matches = level.inside || self.matches(path, Some(&name), false);
            self.file(entry.inode, path, &name, matches);
        }
        Ok(())
    }

    fn file(&mut self, number: u32, folder: &[String], name: &str, matches: bool) {
        if !matches {
            self.names.others.set(number);
            return;
        }
        if let Some(candidate) = self.names.candidates.get_mut(&number) {
            candidate.names += 1;
            return;
        }
        let path = folder.iter().map(String::as_str).chain([name]).collect::<Vec<_>>().join("/");
        let special = &self.filesystem.superblock.special_inodes;
        let reason = if number < FIRST_OF_USERS || special.contains(&number) {
            KeptReason::SystemFile
        } else if self.names.candidates.len() == FILES_MAX
            || self.path_bytes + path.len() > PATH_BYTES_MAX
        {
            KeptReason::TooMany
        } else {
            self.path_bytes += path.len();
            self.names.candidates.insert(number, Candidate { path, names: 1 });
            return;
        };
        self.names.others.set(number);
        self.answer.keep(path, reason);
    }
}
