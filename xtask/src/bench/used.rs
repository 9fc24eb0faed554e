//! Which bytes of the disk matter, and whether they came back.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use aiv_filesystems::{UsedMap, recognise, used_map};
use aiv_volume_io::partition::{self, RegionKind, SectorSize};
use aiv_volume_io::{Extent, ExtentSet, FileDisk, Job, ReadAt, Slice};

use super::parallel::on_all_threads;
use super::tool::Scope;
use crate::{Outcome, process};

/// Bytes compared at a time.
const PIECE: usize = 1 << 20;

/// The disk, and what of it is in use.
pub(super) struct UsedDisk {
    pub(super) file: File,
    pub(super) len: u64,
    /// Tables, gaps, and what filesystems use.
    pub(super) used: ExtentSet,
    /// The root partition.
    pub(super) root: Extent,
}

impl UsedDisk {
    pub(super) fn open(path: &Path, root: Extent) -> Result<Self, String> {
        let disk = FileDisk::open_source(path).map_err(|e| e.to_string())?;
        let table = partition::read_table(&disk, SectorSize::B512).map_err(|e| e.to_string())?;
        let mut used = ExtentSet::new();
        for region in partition::regions(&table, disk.len()) {
            let map = match region.kind {
                RegionKind::Partition(_) => volume_map(&disk, region.extent)?,
                _ => None,
            };
            match map {
                Some(map) => map.runs().iter().for_each(|run| used.push(*run)),
                None => used.push(region.extent),
            }
        }
        let file = File::open(path).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Self { file, len: disk.len(), used, root })
    }

    /// A volume without a disk around it.
    pub(super) fn of_volume(path: &Path) -> Result<Self, String> {
        let disk = FileDisk::open_source(path).map_err(|e| e.to_string())?;
        let whole = Extent::new(0, disk.len());
        let used = volume_map(&disk, whole)?.unwrap_or_else(|| [whole].into_iter().collect());
        let file = File::open(path).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Self { file, len: disk.len(), used, root: whole })
    }

    /// Compares a restored file with the disk, as far as the scope promises.
    pub(super) fn check(&self, restored: &Path, scope: Scope) -> Outcome {
        let file = File::open(restored).map_err(|e| format!("{}: {e}", restored.display()))?;
        let len = file.metadata().map_err(|e| format!("{}: {e}", restored.display()))?.len();
        let window = match scope {
            Scope::UsedOfRoot => self.root,
            Scope::FilesOfRoot => return Err("files are compared by another check".to_owned()),
            Scope::Disk | Scope::UsedOfDisk => Extent::new(0, self.len),
        };
        if len != window.len {
            return Err(format!("{len} bytes were restored, expected {}", window.len));
        }
        let runs: Vec<Extent> = match scope {
            Scope::Disk => vec![window],
            Scope::UsedOfDisk | Scope::UsedOfRoot | Scope::FilesOfRoot => {
                self.used.within(window).collect()
            }
        };
        self.compare(&file, window.start, runs)?;
        if scope == Scope::UsedOfDisk { self.check_root(restored) } else { Ok(()) }
    }

    /// `file` begins at byte `start` of the disk.
    fn compare(&self, file: &File, start: u64, runs: Vec<Extent>) -> Outcome {
        let mut pieces: Vec<(Extent, Outcome)> =
            runs.into_iter().flat_map(split).map(|p| (p, Ok(()))).collect();
        let buffers = || (vec![0; PIECE], vec![0; PIECE]);
        on_all_threads(&mut pieces, buffers, |(left, right), (piece, outcome)| {
            let len = usize::try_from(piece.len).expect("at most a piece");
            let (left, right) = (&mut left[..len], &mut right[..len]);
            let read = self
                .file
                .read_exact_at(left, piece.start)
                .and_then(|()| file.read_exact_at(right, piece.start - start));
            *outcome = match read {
                Err(e) => Err(format!("cannot compare at byte {}: {e}", piece.start)),
                Ok(()) if left == right => Ok(()),
                Ok(()) => {
                    let same = left.iter().zip(&*right).take_while(|(a, b)| a == b).count();
                    let at = piece.start + same as u64;
                    Err(format!("byte {at} of the disk is not what was restored"))
                }
            };
        });
        pieces.into_iter().try_for_each(|(_, outcome)| outcome)
    }

    /// A second opinion that does not depend on our own map.
    fn check_root(&self, restored: &Path) -> Outcome {
        let volume = format!("{}?offset={}", restored.display(), self.root.start);
        let mut command = process::command("e2fsck");
        command.args(["-fn", &volume]);
        let output = command.output().map_err(|e| format!("cannot start e2fsck: {e}"))?;
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        process::expect_success("e2fsck -fn", output.status).map_err(|e| format!("{e}: {said}"))
    }
}

/// Used bytes of the volume at `extent`, in bytes of the disk; `None` when all of it is used.
fn volume_map(disk: &FileDisk, extent: Extent) -> Result<Option<ExtentSet>, String> {
    let volume = Slice::new(disk, extent).map_err(|e| e.to_string())?;
    let kind = recognise(&volume).map_err(|e| e.to_string())?;
    match used_map(&volume, &kind, Job::silent()).map_err(|e| e.to_string())? {
        UsedMap::Used { used, .. } => Ok(Some(used.shifted(extent.start))),
        UsedMap::Whole { .. } => Ok(None),
    }
}

fn split(run: Extent) -> impl Iterator<Item = Extent> {
    let starts = (run.start..run.end()).step_by(PIECE);
    starts.map(move |start| Extent::between(start, run.end().min(start + PIECE as u64)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk of 3 MiB whose first byte and last MiB are used, and a copy of it.
    fn disk_and_copy(change: impl FnOnce(&mut Vec<u8>)) -> (UsedDisk, tempfile::NamedTempFile) {
        let mut bytes: Vec<u8> = (0..=250).cycle().take(3 << 20).collect();
        let disk = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(disk.path(), &bytes).unwrap();
        change(&mut bytes);
        let copy = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(copy.path(), &bytes).unwrap();
        let used = [Extent::new(0, 1), Extent::new(2 << 20, 1 << 20)].into_iter().collect();
        let root = Extent::new(1 << 20, 2 << 20);
        (UsedDisk { file: disk.reopen().unwrap(), len: 3 << 20, used, root }, copy)
    }

    #[test]
    fn a_whole_copy_must_be_equal_everywhere() {
        let (disk, copy) = disk_and_copy(|_| ());
        assert_eq!(disk.check(copy.path(), Scope::Disk), Ok(()));
        let (disk, copy) = disk_and_copy(|bytes| bytes[1_500_000] ^= 1);
        let failure = disk.check(copy.path(), Scope::Disk).unwrap_err();
        assert_eq!(failure, "byte 1500000 of the disk is not what was restored");
    }

    #[test]
    fn a_volume_must_be_equal_where_it_is_used() {
        let part = |change: usize| {
            let (disk, copy) = disk_and_copy(|bytes| {
                bytes[change] ^= 1;
                bytes.drain(..1 << 20);
            });
            disk.check(copy.path(), Scope::UsedOfRoot)
        };
        assert_eq!(part(1_500_000), Ok(()));
        assert_eq!(
            part(3_000_000).unwrap_err(),
            "byte 3000000 of the disk is not what was restored"
        );
    }

    #[test]
    fn a_short_copy_is_refused() {
        let (disk, copy) = disk_and_copy(|bytes| bytes.truncate(100));
        let failure = disk.check(copy.path(), Scope::Disk).unwrap_err();
        assert_eq!(failure, "100 bytes were restored, expected 3145728");
    }
}
