//! What is left of damaged images: from words to a raw file or a new image, and whose bytes are
//! lost.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aiv_chain::meta::{DiskInfo, RegionInfo, RegionKind};
use aiv_chain::salvage::{
    Fill, Hints, SalvageIds, SalvageOptions, SalvageReport, Salvaged, salvage_chains,
};
use aiv_chain::{KeyedChain, Keys, MergeIds, PointId};
use aiv_filesystems::{Matching, Pattern, Recognised, UsedMap, find_files, recognise, used_map};
use aiv_image_format::Compression;
use aiv_volume_io::partition::{self, SectorSize};
use aiv_volume_io::{Canceled, DirStorage, Extent, FileDisk, Job, ReadAt, Slice, Storage};

use crate::error::{Error, Result};
use crate::world::World;

/// Files that are named for one partition; of more there is the number.
const NAMED_MAX: usize = 1000;

/// How blocks of a new image are stored.
const COMPRESSION: Compression = Compression::Zstd(1);

/// Where what is left goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SalvageTo {
    /// Nowhere: it is only looked at.
    Nowhere,
    /// A raw file, which must not exist.
    Raw(PathBuf, Fill),
    /// A new image in a folder.
    Folder(PathBuf),
}

impl SalvageTo {
    /// A raw file, else a folder, else nowhere; `fill` marks what is lost in a raw file.
    #[must_use]
    pub fn new(raw: Option<PathBuf>, folder: Option<PathBuf>, fill: bool) -> Self {
        match (raw, folder) {
            (Some(raw), _) if fill => Self::Raw(raw, Fill::Pattern),
            (Some(raw), _) => Self::Raw(raw, Fill::Hole),
            (None, Some(folder)) => Self::Folder(folder),
            (None, None) => Self::Nowhere,
        }
    }
}

/// Files to be salvaged.
#[derive(Debug, Clone)]
pub struct SalvageJob {
    /// Damaged files, of one chain, in any order.
    pub files: Vec<PathBuf>,
    /// The folder with what they build on, instead of the one the first file lies in.
    pub parents: Option<PathBuf>,
    /// What is known about them.
    pub hints: Hints,
    /// Keys of those that are sealed or authenticated.
    pub keys: Keys,
    /// A new image gets no key, also where they have one.
    pub plain: bool,
    /// Where what is left goes.
    pub to: SalvageTo,
}

/// What became of them.
pub struct SalvageDone {
    /// What is left.
    pub salvaged: Salvaged,
    /// What is lost, by blocks.
    pub report: SalvageReport,
    /// The parts of the disk of which something is lost.
    pub parts: Vec<LostPart>,
}

/// A part of the disk of which something is lost.
#[derive(Debug, Clone)]
pub struct LostPart {
    /// What it is: its place, and what the table and its volume say.
    pub region: RegionInfo,
    /// Bytes of it that are lost.
    pub lost: u64,
    /// The files in them.
    pub files: LostFiles,
}

/// Files of which something is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LostFiles {
    /// Files with their lost bytes, by path, as many as are named; how many more there are; and
    /// how many files were not looked into, since their bytes are not theirs alone.
    Named {
        /// Path in the volume, and bytes.
        files: Vec<(String, u64)>,
        /// Files that are not named.
        more: u64,
        /// Files whose data is unknown.
        skipped: u64,
    },
    /// They are not known, for this reason.
    Unknown(String),
}

impl SalvageJob {
    /// Scans the files, writes what is left, and says what is lost. The files are only read, and
    /// nothing that exists is overwritten.
    ///
    /// # Errors
    /// [`Error::Volume`] when a file cannot be opened, or the raw file exists; [`Error::Folder`];
    /// [`Error::Chain`] when nothing is left, when writing fails, or it was canceled. Then nothing
    /// new is left: once the file or image is there and proven, it is no error that its lost files
    /// were not looked for to the end.
    pub fn run(&self, world: &dyn World, job: Job<'_>) -> Result<SalvageDone> {
        let (files, parents) = self.open()?;
        let parents: Vec<&dyn Storage> = parents.iter().map(|p| p as &dyn Storage).collect();
        let mut salvaged = Salvaged::open(files, &parents, &self.keys, &self.hints, job)?;
        if let Some(beside) = self.beside_too() {
            salvaged = salvaged.with_slots_of(&[&beside], job)?;
        }
        let report = match &self.to {
            SalvageTo::Nowhere => salvaged.check(job)?,
            SalvageTo::Raw(path, fill) => {
                let target = FileDisk::create_target(path, salvaged.geometry().len())?;
                let written = salvaged.write_raw(&target, *fill, job);
                if written.is_err() {
                    // It is not what it seems to be. The first error is the one that matters.
                    let _ = std::fs::remove_file(path);
                }
                written.map_err(|error| match error {
                    aiv_chain::Error::Io { op, source } => {
                        aiv_chain::Error::Io { op: format!("{}: {op}", path.display()), source }
                    }
                    error => error,
                })?
            }
            SalvageTo::Folder(folder) => {
                let storage = DirStorage::open_or_create(folder).map_err(in_folder(folder))?;
                let options = SalvageOptions { compression: COMPRESSION, plain: self.plain };
                salvaged.write_image(&storage, &options, &ids(world)?, job)?
            }
        };
        let stays = !matches!(self.to, SalvageTo::Nowhere);
        let parts = lost_parts(&salvaged, &report, stays, job)?;
        Ok(SalvageDone { salvaged, report, parts })
    }

    /// The chains the files may belong to, with the ways to their keys that are left in them and in
    /// other images: those beside the first file, and those of the folder with what they build on.
    ///
    /// # Errors
    /// As [`SalvageJob::run`], and those of [`salvage_chains`].
    pub fn chains(&self, job: Job<'_>) -> Result<Vec<KeyedChain>> {
        let (files, parents) = self.open()?;
        let beside = self.beside_too();
        let folders: Vec<&dyn Storage> =
            parents.iter().chain(&beside).map(|folder| folder as &dyn Storage).collect();
        Ok(salvage_chains(&files, &folders, job)?)
    }

    /// The files, and the folder with what they build on.
    fn open(&self) -> Result<(Files, Option<DirStorage>)> {
        let mut files: Files = Vec::new();
        for path in &self.files {
            let disk = FileDisk::open_source(path)?;
            files.push((path.display().to_string(), Arc::new(disk)));
        }
        let parents = match &self.parents {
            Some(folder) => Some(open_folder(folder)?),
            None => self.beside().and_then(|folder| DirStorage::open(folder).ok()),
        };
        Ok((files, parents))
    }

    /// The folder the first file lies in, where another one is looked into for what it builds on:
    /// the key slots of its images are those of the chain as well.
    fn beside_too(&self) -> Option<DirStorage> {
        let folder = self.beside().filter(|_| self.parents.is_some())?;
        DirStorage::open(folder).ok()
    }

    /// The folder the first file lies in.
    fn beside(&self) -> Option<&Path> {
        let folder = self.files.first()?.parent()?;
        Some(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })
    }
}

/// Files with their names for messages.
type Files = Vec<(String, Arc<dyn ReadAt>)>;

fn open_folder(folder: &Path) -> Result<DirStorage> {
    DirStorage::open(folder).map_err(in_folder(folder))
}

fn in_folder(folder: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = folder.to_path_buf();
    move |source| Error::Folder { path, source }
}

fn ids(world: &dyn World) -> Result<SalvageIds> {
    let (mut file, mut point) = ([0; MergeIds::RANDOM_LEN], PointId::default());
    world.fill_random(&mut file).map_err(Error::Random)?;
    world.fill_random(&mut point.0).map_err(Error::Random)?;
    Ok(SalvageIds { file: MergeIds::new(&file, world.now_unix_ms()), point })
}

/// The parts in which something is lost. Where what was written `stays`, a cancellation comes too
/// late: parts and bytes are listed all the same, without files.
fn lost_parts(
    salvaged: &Salvaged,
    report: &SalvageReport,
    stays: bool,
    job: Job<'_>,
) -> Result<Vec<LostPart>> {
    let mut parts = Vec::new();
    if report.lost.is_empty() {
        return Ok(parts);
    }
    for region in regions(salvaged) {
        let lost = report.lost_within(region.extent);
        if lost == 0 {
            continue;
        }
        let found = job.check().and_then(|()| match region.kind {
            RegionKind::Partition => files(salvaged, report, region.extent, job),
            kind => Ok(LostFiles::Unknown(format!("the {} holds none", kind.name()))),
        });
        let files = match found {
            Err(Canceled) if stays => {
                LostFiles::Unknown("not looked for: it was canceled".to_owned())
            }
            found => found.map_err(aiv_chain::Error::from)?,
        };
        parts.push(LostPart { region, lost, files });
    }
    Ok(parts)
}

/// The parts of the disk, as META has them, or else as the salvaged bytes do.
fn regions(salvaged: &Salvaged) -> Vec<RegionInfo> {
    let disk = &salvaged.meta().disk;
    if disk.regions.len() > 1 {
        return disk.regions.clone();
    }
    let sector = SectorSize::new(salvaged.geometry().sector_size());
    let table = sector.and_then(|sector| partition::read_table(salvaged, sector).ok());
    let Some(table) = table.filter(|table| !table.partitions.is_empty()) else {
        return disk.regions.clone();
    };
    let info = |found: partition::Region| {
        let bare = DiskInfo::bare(found.extent.len, 512);
        let mut info = bare.regions.into_iter().next()?;
        info.extent = found.extent;
        info.kind = match found.kind {
            partition::RegionKind::BootCode => RegionKind::BootCode,
            partition::RegionKind::Table => RegionKind::Table,
            partition::RegionKind::Gap => RegionKind::Gap,
            partition::RegionKind::Partition(number) => {
                let entry = aiv_chain::meta::PartitionInfo { number, ..Default::default() };
                info.partition = Some(entry);
                RegionKind::Partition
            }
        };
        Some(info)
    };
    partition::regions(&table, salvaged.len()).into_iter().filter_map(info).collect()
}

/// The files in the lost bytes of one partition, as far as what is left of its filesystem tells.
fn files(
    salvaged: &Salvaged,
    report: &SalvageReport,
    extent: Extent,
    job: Job<'_>,
) -> std::result::Result<LostFiles, Canceled> {
    let unknown = |why: String| Ok(LostFiles::Unknown(why));
    let Ok(volume) = Slice::new(salvaged, extent) else {
        return unknown("the partition ends behind the disk".to_owned());
    };
    let found = match find_all(&volume, job) {
        Ok(found) => found,
        Err(aiv_filesystems::Error::Canceled(canceled)) => return Err(canceled),
        Err(_) => return unknown("records of the filesystem are lost, too".to_owned()),
    };
    let found = match found {
        Matching::Files(found) => found,
        Matching::Nothing { reason } => return unknown(reason.to_string()),
    };
    let mut all: Vec<(String, u64)> = Vec::new();
    for file in found.files {
        let within =
            |piece: &Extent| report.lost_within(Extent::new(extent.start + piece.start, piece.len));
        let lost = file.extents.iter().map(within).sum();
        if lost > 0 {
            all.push((file.path, lost));
        }
    }
    all.sort();
    let more = all.len().saturating_sub(NAMED_MAX) as u64;
    all.truncate(NAMED_MAX);
    Ok(LostFiles::Named { files: all, more, skipped: found.kept_count })
}

fn find_all(volume: &dyn ReadAt, job: Job<'_>) -> aiv_filesystems::Result<Matching> {
    let recognised: Recognised = recognise(volume)?;
    let map: UsedMap = used_map(volume, &recognised, job)?;
    let every: Vec<Pattern> = "*".parse().into_iter().collect();
    find_files(volume, &recognised, &map, &every, job)
}
