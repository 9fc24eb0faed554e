//! What an image says about its point: manifest, disk, inventory, source errors, origins,
//! excluded files, change trackers, and the specification itself.

mod area;
mod excluded;
mod manifest;
mod tlv;
mod trackers;

pub(crate) use area::{EncodedSection, encode_roots, read_area};

pub use excluded::{Excluded, ExcludedFile};
pub use manifest::{
    Capture, Consistency, DiskInfo, Inventory, Manifest, PartitionInfo, RegionInfo, RegionKind,
    VolumeInfo,
};
pub use trackers::{ReliedOn, SeenTracker, Trackers};

use aiv_volume_io::Extent;

use crate::error::Fault;
use crate::hash::Roots;
use crate::ids::{Digest, Geometry, SessionTag};
use crate::limits::ORIGINS_MAX;
use tlv::{Items, Writer};

/// Types of META sections, the `subject` of their frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SectionType {
    /// [`Manifest`]; exactly one.
    Manifest,
    /// [`DiskInfo`]; exactly one.
    Disk,
    /// [`Inventory`] of the machine; at most one.
    Inventory,
    /// Ranges that could not be read at the source; at most one.
    SourceErrors,
    /// Sessions that wrote frames of this image; exactly one.
    Origins,
    /// The text of the specification; at most one.
    Specification,
    /// Files the user left out, [`Excluded`]; at most one.
    Excluded,
    /// The roots of the state; in sealed images, exactly one.
    Roots,
    /// Who watched the source for changes, [`Trackers`]; at most one.
    Trackers,
}

impl SectionType {
    /// The words of `docs/format.md` and of dumps.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Disk => "disk",
            Self::Inventory => "inventory",
            Self::SourceErrors => "source errors",
            Self::Origins => "origins",
            Self::Specification => "specification",
            Self::Excluded => "excluded files",
            Self::Roots => "roots",
            Self::Trackers => "change trackers",
        }
    }

    pub(crate) const fn code(self) -> u64 {
        match self {
            Self::Manifest => 1,
            Self::Disk => 2,
            Self::Inventory => 3,
            Self::SourceErrors => 4,
            Self::Origins => 5,
            Self::Specification => 6,
            Self::Excluded => 8,
            Self::Roots => 9,
            Self::Trackers => 10,
        }
    }

    pub(crate) const fn from_code(code: u64) -> Option<Self> {
        match code {
            1 => Some(Self::Manifest),
            2 => Some(Self::Disk),
            3 => Some(Self::Inventory),
            4 => Some(Self::SourceErrors),
            5 => Some(Self::Origins),
            6 => Some(Self::Specification),
            8 => Some(Self::Excluded),
            9 => Some(Self::Roots),
            10 => Some(Self::Trackers),
            _ => None,
        }
    }
}

/// Everything an image says in META.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Meta {
    /// The point and how it came to be.
    pub manifest: Manifest,
    /// The source disk, its table and its volumes.
    pub disk: DiskInfo,
    /// The machine.
    pub inventory: Inventory,
    /// Byte ranges that could not be read at the source, ascending.
    pub source_errors: Vec<Extent>,
    /// Sessions that wrote frames of this image; filled in by the writer.
    pub origins: Vec<SessionTag>,
    /// The text of the specification, for a reader in twenty years; may be empty.
    pub specification: String,
    /// What the user left out.
    pub excluded: Excluded,
    /// Who watched the source for changes when the point was read.
    pub trackers: Trackers,
}

const ITEM: u16 = 1;

impl Meta {
    /// The sections in the order they are written, plain.
    fn sections(&self) -> impl Iterator<Item = (SectionType, Vec<u8>)> {
        let mut errors = Writer::default();
        for extent in &self.source_errors {
            let mut raw = [0; 16];
            raw[..8].copy_from_slice(&extent.start.to_le_bytes());
            raw[8..].copy_from_slice(&extent.len.to_le_bytes());
            errors.bytes(ITEM, &raw);
        }
        let mut origins = Writer::default();
        self.origins.iter().for_each(|o| {
            origins.bytes(ITEM, &o.0);
        });
        let mut specification = Writer::default();
        specification.text(ITEM, &self.specification);
        let sections = [
            (SectionType::Manifest, self.manifest.to_bytes()),
            (SectionType::Disk, self.disk.to_bytes()),
            (SectionType::Inventory, self.inventory.to_bytes()),
            (SectionType::SourceErrors, errors.finish()),
            (SectionType::Origins, origins.finish()),
            (SectionType::Specification, specification.finish()),
            (SectionType::Excluded, self.excluded.to_bytes()),
            (SectionType::Trackers, self.trackers.to_bytes()),
        ];
        sections.into_iter().filter(|(_, bytes)| !bytes.is_empty())
    }

    /// Takes in one decoded section.
    pub(crate) fn read_section(&mut self, section: SectionType, bytes: &[u8]) -> CheckedMeta<()> {
        match section {
            SectionType::Manifest => self.manifest = Manifest::from_bytes(bytes)?,
            SectionType::Disk => self.disk = DiskInfo::from_bytes(bytes)?,
            SectionType::Inventory => self.inventory = Inventory::from_bytes(bytes)?,
            SectionType::SourceErrors => self.source_errors = read_source_errors(bytes)?,
            SectionType::Origins => self.origins = read_origins(bytes)?,
            SectionType::Specification => {
                self.specification = Items::parse(bytes, &[ITEM])?.text(ITEM)?;
            }
            SectionType::Excluded => self.excluded = Excluded::from_bytes(bytes)?,
            // No part of what an image says about its point: see `Area`.
            SectionType::Roots => {}
            SectionType::Trackers => self.trackers = Trackers::from_bytes(bytes)?,
        }
        Ok(())
    }

    /// Refuses META that contradicts the geometry of its image.
    pub(crate) fn check(&self, geometry: &Geometry) -> CheckedMeta<()> {
        let disk = &self.disk;
        if self.source_errors.iter().any(|e| e.is_empty() || e.end() > geometry.len()) {
            return Err(Fault::Bounds);
        }
        if self.excluded.files.iter().flat_map(|f| &f.extents).any(|e| e.end() > geometry.len()) {
            return Err(Fault::Bounds);
        }
        if disk.len != geometry.len() {
            return Err(Fault::Differs { field: "disk size", other: "superblock" });
        }
        if disk.logical_sector != geometry.sector_size() {
            return Err(Fault::Differs { field: "sector size", other: "superblock" });
        }
        let covered = disk.regions.last().map_or(0, |region| region.extent.end());
        if covered != disk.len || disk.regions.iter().any(|region| region.extent.is_empty()) {
            return Err(Fault::Differs { field: "regions", other: "disk size" });
        }
        Ok(())
    }
}

type CheckedMeta<T> = std::result::Result<T, Fault>;

fn read_source_errors(bytes: &[u8]) -> CheckedMeta<Vec<Extent>> {
    let mut errors: Vec<Extent> = Vec::new();
    for value in Items::parse(bytes, &[ITEM])?.all(ITEM) {
        let extent = read_extent(value)?;
        if errors.last().is_some_and(|last| last.end() > extent.start) {
            let allowed = "ascending";
            return Err(Fault::Value { field: "range start", found: extent.start, allowed });
        }
        errors.push(extent);
    }
    Ok(errors)
}

/// Start and length, eight bytes each.
fn read_extent(value: &[u8]) -> CheckedMeta<Extent> {
    let raw = <[u8; 16]>::try_from(value).map_err(|_| Fault::CutOff)?;
    let (start, len) = raw.split_at(8);
    let number = |half: &[u8]| half.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b));
    Ok(Extent::new(number(start), number(len)))
}

fn read_roots(bytes: &[u8]) -> CheckedMeta<Roots> {
    let items = Items::parse(bytes, &[1, 2, 3])?;
    let root = |tag| items.bytes(tag).map(Digest);
    Ok(Roots { content: root(1)?, map: root(2)?, state: root(3)? })
}

fn write_roots(roots: &Roots) -> Vec<u8> {
    let mut w = Writer::default();
    w.bytes(1, &roots.content.0).bytes(2, &roots.map.0).bytes(3, &roots.state.0);
    w.finish()
}

fn read_origins(bytes: &[u8]) -> CheckedMeta<Vec<SessionTag>> {
    let items = Items::parse(bytes, &[ITEM])?;
    let count = items.all(ITEM).count();
    if count == 0 || count > ORIGINS_MAX {
        let allowed = "1 to 16384";
        return Err(Fault::Value { field: "origin count", found: count as u64, allowed });
    }
    let tag = |value: &[u8]| <[u8; 12]>::try_from(value).map(SessionTag);
    items.all(ITEM).map(|value| tag(value).map_err(|_| Fault::CutOff)).collect()
}
