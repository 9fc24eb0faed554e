//! Decides which bytes of a source matter; writes nothing.

use aiv_filesystems::{FilesystemKind, KeptFile, MapNote, UsedMap, recognise, used_map};
use aiv_image_format::meta::{
    Capture, Consistency, DiskInfo, Excluded, PartitionInfo, RegionInfo, RegionKind, VolumeInfo,
};
use aiv_image_format::{BlockSize, Geometry, smallest_split};
use aiv_volume_io::partition::{self, Partition, PartitionTable, SectorSize, TableKind};
use aiv_volume_io::{Extent, ExtentSet, Job, ReadAt, Slice};

use crate::error::{Error, Refusal, Result};
use crate::exclude::Exclusion;
use crate::facts::{BackupOptions, Sectors, SourceFacts};
use crate::identity::source_id;
use crate::read::is_bad_sector;

/// What will be captured, and why. Plain data: printing it is a dry run.
#[derive(Debug, Clone)]
pub struct BackupPlan {
    /// Length, block size and sector size of the image.
    pub geometry: Geometry,
    /// The disk, its regions and volumes, as the image will describe them.
    pub disk: DiskInfo,
    /// Identity of the source, as text.
    pub source_id: String,
    /// What the bytes of the point may be trusted for.
    pub consistency: Consistency,
    /// Things the user should know.
    pub notes: Vec<PlanNote>,
    /// Files whose content will be left out, as the image will list them.
    pub excluded_files: Excluded,
    pub(crate) used: ExtentSet,
    /// Used by the filesystems' account, and left out; no part of `used`.
    pub(crate) excluded: ExtentSet,
    pub(crate) facts: SourceFacts,
    pub(crate) options: BackupOptions,
}

/// Something the user should know about a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PlanNote {
    /// The partition table contradicts itself.
    Table(String),
    /// The state a filesystem's allocation records were found in.
    Filesystem {
        /// First byte of the volume on the disk.
        volume: u64,
        /// What was found.
        note: MapNote,
    },
    /// The source may change while it is read, and the user said to go on.
    Live(String),
    /// The source is held still, except for swap in use on it.
    Swap(String),
    /// No file of a volume is left out, although the user asked for it.
    NothingExcluded {
        /// First byte of the volume on the disk.
        volume: u64,
        /// Its filesystem, by name.
        filesystem: String,
        /// Why.
        why: String,
    },
    /// The same of a volume whose files nobody can look into: it is kept in full, or no filesystem
    /// that this program reads files of.
    FilesNotRead {
        /// First byte of the volume on the disk.
        volume: u64,
        /// Its filesystem, by name.
        filesystem: String,
        /// Why.
        why: String,
    },
    /// Files that the user wanted to leave out are kept.
    NotExcluded {
        /// First byte of the volume on the disk.
        volume: u64,
        /// The first of them, with reasons; never empty.
        files: Vec<KeptFile>,
        /// How many there are.
        count: u64,
    },
    /// The point the image builds on is of another file or device, which is there still and says
    /// that it is the same disk: a copy, or a machine made from the same template.
    Twin {
        /// Where it lies.
        path: String,
    },
    /// The folder has images of a source of this name and host with another identity: this is
    /// another disk, or one with a new partition table, and begins a set of its own.
    NewIdentity {
        /// Identity of the source of the earlier images.
        before: String,
    },
}

impl BackupPlan {
    /// Examines `source` and plans a full image of it.
    ///
    /// # Errors
    /// [`Error::Refused`] when going on would not be safe, [`Error::Examine`] when table or
    /// filesystems cannot be read, [`Error::Canceled`].
    pub fn new(
        source: &dyn ReadAt,
        facts: SourceFacts,
        options: BackupOptions,
        job: Job<'_>,
    ) -> Result<Self> {
        if options.sectors == Sectors::All && !options.exclude.is_empty() {
            return Err(Refusal::ExcludeFromAll.into());
        }
        let mut notes = Vec::new();
        let consistency = match facts.writers.as_slice() {
            [] if facts.held.is_some() => {
                notes.extend(facts.swap.iter().cloned().map(PlanNote::Swap));
                Consistency::Crash
            }
            [] => Consistency::Offline,
            writers if options.live => {
                notes.push(PlanNote::Live(writers.join(", ")));
                Consistency::Inconsistent
            }
            writers => return Err(Refusal::InUse { uses: writers.join(", ") }.into()),
        };
        let len = source.len();
        if len == 0 {
            return Err(Refusal::Empty.into());
        }
        let sector_size = sector_size(source, &facts);
        let (table, table_problems) = read_table(source, sector_size)?;
        notes.extend(table_problems.iter().cloned().map(PlanNote::Table));
        let stands_still = consistency != Consistency::Inconsistent;
        let mut exclusion = Exclusion::new(&options.exclude, stands_still);
        let mut used = Vec::new();
        let mut regions = Vec::new();
        for region in partition::regions(&table, len) {
            job.check()?;
            let found = &mut Findings { notes: &mut notes, exclusion: &mut exclusion };
            let (info, kept) = examine_region(source, &table, region, options.sectors, found, job)?;
            used.extend(kept);
            regions.push(info);
        }
        let whole_uuid = match regions.as_slice() {
            [only] => only.volume.as_ref().map_or("", |v| v.uuid.as_str()),
            _ => "",
        };
        let source_id = source_id(&facts, &table, len, whole_uuid);
        let block_size = options.block_size.unwrap_or(BlockSize::recommended(len));
        let geometry = Geometry::new(len, block_size, sector_size.bytes())
            .ok_or(Refusal::BlockSize { len, block_size: block_size.get() })?;
        let used_bytes = used.iter().map(|extent: &Extent| extent.len).fold(0, u64::saturating_add);
        let stored = used_bytes.min(len);
        let is_padded = options.seal.as_ref().is_some_and(|seal| seal.padding);
        // What is padded grows by an eighth at most.
        let stored = if is_padded { stored.saturating_add(stored / 8) } else { stored };
        refuse_split(options.split, stored)?;
        let disk = DiskInfo {
            len,
            logical_sector: sector_size.bytes(),
            physical_sector: facts.physical_sector.max(sector_size.bytes()),
            model: facts.model.clone(),
            serial: facts.serial.clone(),
            wwn: facts.wwn.clone(),
            table: table_name(table.kind).to_owned(),
            table_id: table.disk_id.map(|id| id.to_string()).unwrap_or_default(),
            table_problems,
            regions,
        };
        let (used, excluded, excluded_files) = exclusion.finish(used.into_iter().collect());
        Ok(Self {
            geometry,
            disk,
            source_id,
            consistency,
            notes,
            excluded_files,
            used,
            excluded,
            facts,
            options,
        })
    }

    /// Bytes that will be read at most.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.used.total_len()
    }
}

/// Refuses before anything is read what could only fail at the end.
fn refuse_split(split: Option<u64>, bytes: u64) -> Result<()> {
    let Some(split) = split else { return Ok(()) };
    let needed = smallest_split(bytes, split);
    if split < needed {
        return Err(Refusal::SplitSize { bytes, split, needed }.into());
    }
    Ok(())
}

fn examine(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Examine(Box::new(error))
}

/// The device's sector size; for raw files the one its partition table was written with.
pub(crate) fn sector_size(source: &dyn ReadAt, facts: &SourceFacts) -> SectorSize {
    SectorSize::new(facts.logical_sector)
        .or_else(|| partition::detect_sector_size(source))
        .unwrap_or(SectorSize::B512)
}

/// The table and what is wrong with it. Bad sectors where it should be cost only the table: the
/// disk is then captured as one volume.
fn read_table(source: &dyn ReadAt, size: SectorSize) -> Result<(PartitionTable, Vec<String>)> {
    match partition::read_table(source, size) {
        Ok(table) => {
            let problems = table.problems.iter().map(ToString::to_string).collect();
            Ok((table, problems))
        }
        Err(aiv_volume_io::Error::Io { offset, source: error, .. }) if is_bad_sector(&error) => {
            let table = PartitionTable {
                sector_size: size,
                kind: TableKind::None,
                disk_id: None,
                partitions: Vec::new(),
                problems: Vec::new(),
                areas: Vec::new(),
            };
            Ok((
                table,
                vec![format!("the partition table cannot be read: {error} at byte {offset}")],
            ))
        }
        Err(error) => Err(examine(error)),
    }
}

const fn table_name(kind: TableKind) -> &'static str {
    match kind {
        TableKind::None => "none",
        TableKind::Mbr => "mbr",
        TableKind::Gpt => "gpt",
    }
}

/// What the regions have to say beside their bytes.
struct Findings<'f, 'p> {
    notes: &'f mut Vec<PlanNote>,
    exclusion: &'f mut Exclusion<'p>,
}

/// Describes one region and returns the extents of it that have to be kept.
fn examine_region(
    source: &dyn ReadAt,
    table: &PartitionTable,
    region: partition::Region,
    sectors: Sectors,
    found: &mut Findings<'_, '_>,
    job: Job<'_>,
) -> Result<(RegionInfo, Vec<Extent>)> {
    let extent = region.extent;
    let entry = match region.kind {
        partition::RegionKind::Partition(number) => {
            table.partitions.iter().find(|p| p.number == number)
        }
        _ => None,
    };
    let kind = match region.kind {
        partition::RegionKind::BootCode => RegionKind::BootCode,
        partition::RegionKind::Table => RegionKind::Table,
        partition::RegionKind::Gap if table.kind != TableKind::None => RegionKind::Gap,
        // A disk without a table is one volume.
        partition::RegionKind::Gap | partition::RegionKind::Partition(_) => RegionKind::Partition,
    };
    let mut info = RegionInfo { kind, extent, partition: entry.map(partition_info), volume: None };
    if kind != RegionKind::Partition {
        return Ok((info, vec![extent]));
    }
    let volume = Slice::new(source, extent).map_err(examine)?;
    let mut about = VolumeInfo {
        filesystem: FilesystemKind::Unknown.name().to_owned(),
        label: String::new(),
        uuid: String::new(),
        cluster_size: 0,
        capture: Capture::Whole,
        reason: String::new(),
        used_bytes: extent.len,
    };
    let recognised = match recognise(&volume) {
        Ok(recognised) => recognised,
        Err(error) => {
            about.reason = unreadable_records(error)?;
            info.volume = Some(about);
            return Ok((info, vec![extent]));
        }
    };
    about.filesystem = recognised.kind.name().to_owned();
    about.label.clone_from(&recognised.label);
    about.uuid.clone_from(&recognised.uuid);
    about.cluster_size = recognised.block_size.unwrap_or(0);
    let in_pieces = entry.is_some_and(|p| p.extent != extent);
    let mut keep = vec![extent];
    if sectors == Sectors::Used && in_pieces {
        about.reason = "the partition overlaps something else or the end of the disk".to_owned();
    } else if sectors == Sectors::Used {
        let Findings { notes, exclusion } = found;
        let map = used_map(&volume, &recognised, job);
        if let Ok(map) = &map {
            exclusion.look_into(&volume, extent, &recognised, map, notes, job)?;
        }
        match map {
            Ok(UsedMap::Used { used, cluster_size, notes: map_notes }) => {
                about.capture = Capture::Used;
                about.cluster_size = cluster_size;
                about.used_bytes = used.total_len();
                keep = used.shifted(extent.start).runs().to_vec();
                let volume = extent.start;
                let of_map =
                    map_notes.into_iter().map(|note| PlanNote::Filesystem { volume, note });
                notes.extend(of_map);
            }
            Ok(UsedMap::Whole { reason }) => about.reason = reason.to_string(),
            Err(error) => about.reason = unreadable_records(error)?,
        }
    }
    info.volume = Some(about);
    Ok((info, keep))
}

/// Why a volume whose records lie in bad sectors is captured in full; any other error ends the
/// plan.
pub(crate) fn unreadable_records(error: aiv_filesystems::Error) -> Result<String> {
    match error {
        aiv_filesystems::Error::Canceled(canceled) => Err(canceled.into()),
        aiv_filesystems::Error::Io { op, offset, source } if is_bad_sector(&source) => {
            Ok(format!("bad sectors in its own records: {op} at byte {offset}: {source}"))
        }
        error => Err(examine(error)),
    }
}

fn partition_info(partition: &Partition) -> PartitionInfo {
    PartitionInfo {
        number: partition.number,
        type_id: partition.kind.to_string(),
        unique_id: partition.unique_id.map(|id| id.to_string()).unwrap_or_default(),
        name: partition.name.clone(),
        attributes: partition.attributes,
        bootable: partition.bootable,
    }
}
