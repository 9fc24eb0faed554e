//! Manifest, disk and inventory sections: plain values and their items.

use aiv_volume_io::Extent;

use super::tlv::{Items, Writer};
use crate::error::Fault;
use crate::ids::GroupId;
use crate::limits::{FACTS_MAX, PARTITIONS_MAX, REGIONS_MAX};

type Checked<T> = std::result::Result<T, Fault>;

/// Declares a code table: enum, names, numbers on disk.
macro_rules! coded {
    ($(#[$doc:meta])* $name:ident ($field:literal, $allowed:literal) {
        $($(#[$vdoc:meta])* $variant:ident = $code:literal $word:literal,)*
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// The word of reports and JSON.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
            const fn code(self) -> u64 {
                match self { $(Self::$variant => $code,)* }
            }
            fn from_code(found: u64) -> Checked<Self> {
                match found {
                    $($code => Ok(Self::$variant),)*
                    _ => Err(Fault::Value { field: $field, found, allowed: $allowed }),
                }
            }
        }
    };
}

coded! {
    /// What the bytes of a point may be trusted for.
    Consistency("consistency", "1 to 3") {
        /// Nobody could write to the source while it was read.
        Offline = 1 "offline",
        /// The filesystems were frozen or a snapshot was read: as after a power cut.
        Crash = 2 "crash-consistent",
        /// The source was in use: blocks may stem from different moments.
        Inconsistent = 3 "inconsistent",
    }
}

coded! {
    /// Which bytes of a volume were captured.
    Capture("capture", "1 or 2") {
        /// Only what the filesystem's own allocation data calls used.
        Used = 1 "used",
        /// Every byte.
        Whole = 2 "whole",
    }
}

coded! {
    /// What a part of a disk is for.
    RegionKind("region kind", "1 to 4") {
        /// Executable code of the boot sector.
        BootCode = 1 "boot code",
        /// Partition table structures.
        Table = 2 "table",
        /// Between partitions: may hold boot loaders.
        Gap = 3 "gap",
        /// A partition, or the whole volume of a disk without a table.
        Partition = 4 "partition",
    }
}

/// The point and how it came to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Host the source was attached to.
    pub host: String,
    /// Name of the set: what people call the source.
    pub name: String,
    /// Where the source was found (a path); a label, identifies nothing.
    pub source: String,
    /// The identity the set id is derived from, as text: `gpt:GUID`, `mbr:SIGNATURE-SIZE` ...
    pub source_id: String,
    /// Number of the full image in its set, from 1.
    pub full_number: u32,
    /// Number of the increment after that full image, zero for the full image itself.
    pub increment_number: u32,
    /// Points taken together with this one.
    pub group: GroupId,
    /// When the source was read, milliseconds since 1970 UTC. Informational.
    pub time_unix_ms: u64,
    /// What the bytes may be trusted for.
    pub consistency: Consistency,
    /// Whether free space was left out where possible.
    pub capture: Capture,
    /// Free text of the user.
    pub comment: String,
}

impl Default for Manifest {
    fn default() -> Self {
        Self {
            host: String::new(),
            name: String::new(),
            source: String::new(),
            source_id: String::new(),
            full_number: 1,
            increment_number: 0,
            group: GroupId::default(),
            time_unix_ms: 0,
            consistency: Consistency::Offline,
            capture: Capture::Whole,
            comment: String::new(),
        }
    }
}

impl Manifest {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.text(1, &self.host)
            .text(2, &self.name)
            .text(3, &self.source)
            .text(4, &self.source_id)
            .number(5, self.full_number.into())
            .number(6, self.increment_number.into())
            .bytes(7, &self.group.0)
            .number(8, self.time_unix_ms)
            .number(9, self.consistency.code())
            .number(10, self.capture.code())
            .text(11, &self.comment);
        w.finish()
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Checked<Self> {
        let items = Items::parse(bytes, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11])?;
        Ok(Self {
            host: items.text(1)?,
            name: items.text(2)?,
            source: items.text(3)?,
            source_id: items.text(4)?,
            full_number: items.small(5)?,
            increment_number: items.small(6)?,
            group: GroupId(items.bytes(7)?),
            time_unix_ms: items.number(8)?,
            consistency: Consistency::from_code(items.number(9)?)?,
            capture: Capture::from_code(items.number(10)?)?,
            comment: items.text(11)?,
        })
    }
}

/// The source disk, its table and its volumes. Every byte belongs to exactly one region.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DiskInfo {
    /// Bytes of the disk; equals the address space of the image.
    pub len: u64,
    /// Bytes per logical sector.
    pub logical_sector: u32,
    /// Bytes per physical sector.
    pub physical_sector: u32,
    /// Model as the device reports it.
    pub model: String,
    /// Serial number as the device reports it.
    pub serial: String,
    /// World-wide name as the device reports it.
    pub wwn: String,
    /// `gpt`, `mbr` or `none`.
    pub table: String,
    /// GPT disk GUID or MBR signature, as text.
    pub table_id: String,
    /// What was wrong with the table, one sentence each.
    pub table_problems: Vec<String>,
    /// The regions in ascending order, without gaps.
    pub regions: Vec<RegionInfo>,
}

/// One region of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionInfo {
    /// What it is for.
    pub kind: RegionKind,
    /// Where it is, in bytes.
    pub extent: Extent,
    /// The table entry, for partitions of a table.
    pub partition: Option<PartitionInfo>,
    /// What is inside, for partitions and volumes.
    pub volume: Option<VolumeInfo>,
}

/// One entry of a partition table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PartitionInfo {
    /// The table's own number.
    pub number: u32,
    /// Type GUID, or MBR type as `0x83`.
    pub type_id: String,
    /// Unique GUID; empty for MBR.
    pub unique_id: String,
    /// Name in the table; empty for MBR.
    pub name: String,
    /// Attribute bits of the table.
    pub attributes: u64,
    /// Whether the table marks it for booting.
    pub bootable: bool,
}

/// What a partition holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeInfo {
    /// Name as `blkid` prints it; empty when not recognised.
    pub filesystem: String,
    /// Volume label.
    pub label: String,
    /// Volume UUID or serial.
    pub uuid: String,
    /// Bytes per allocation unit, zero when not known.
    pub cluster_size: u32,
    /// Whether only used clusters were captured.
    pub capture: Capture,
    /// Why the whole volume was captured although used clusters were asked for.
    pub reason: String,
    /// Bytes in use by the filesystem's own account; the size of the volume when captured whole.
    pub used_bytes: u64,
}

const REGION: u16 = 10;

impl DiskInfo {
    /// A disk of which nothing is known but its size: one region of `len` bytes, at least one,
    /// in sectors of `logical_sector`.
    #[must_use]
    pub fn bare(len: u64, logical_sector: u32) -> Self {
        let extent = Extent::new(0, len);
        let kind = RegionKind::Partition;
        let whole = RegionInfo { kind, extent, partition: None, volume: None };
        Self {
            len,
            logical_sector,
            physical_sector: logical_sector,
            table: "none".to_owned(),
            regions: vec![whole],
            ..Self::default()
        }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.number(1, self.len)
            .number(2, self.logical_sector.into())
            .number(3, self.physical_sector.into())
            .text(4, &self.model)
            .text(5, &self.serial)
            .text(6, &self.wwn)
            .text(7, &self.table)
            .text(8, &self.table_id);
        self.table_problems.iter().for_each(|p| {
            w.optional(9, p.as_bytes());
        });
        for region in &self.regions {
            w.group(REGION, |r| region.write(r));
        }
        w.finish()
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Checked<Self> {
        let items = Items::parse(bytes, &[1, 2, 3, 4, 5, 6, 7, 8, 9, REGION])?;
        let mut regions: Vec<RegionInfo> = Vec::new();
        items.at_most("region count", REGION, REGIONS_MAX, "at most 8192")?;
        items.at_most("table problem count", 9, FACTS_MAX, "at most 65536")?;
        for group in items.groups(REGION, &[1, 2, 3, 4, 5]) {
            let region = RegionInfo::read(&group?)?;
            let expected = regions.last().map_or(0, |last| last.extent.end());
            if region.extent.start != expected {
                let (found, allowed) = (region.extent.start, "the end of the region before");
                return Err(Fault::Value { field: "region start", found, allowed });
            }
            regions.push(region);
        }
        let partitions = regions.iter().filter(|r| r.partition.is_some()).count();
        if partitions > PARTITIONS_MAX {
            let (found, allowed) = (partitions as u64, "at most 1024");
            return Err(Fault::Value { field: "partition count", found, allowed });
        }
        let text = |value: &[u8]| std::str::from_utf8(value).map(str::to_owned);
        let table_problems: std::result::Result<Vec<String>, _> = items.all(9).map(text).collect();
        Ok(Self {
            len: items.number(1)?,
            logical_sector: items.small(2)?,
            physical_sector: items.small(3)?,
            model: items.text(4)?,
            serial: items.text(5)?,
            wwn: items.text(6)?,
            table: items.text(7)?,
            table_id: items.text(8)?,
            table_problems: table_problems.map_err(|_| Fault::Text)?,
            regions,
        })
    }
}

impl RegionInfo {
    fn write(&self, w: &mut Writer) {
        w.number(1, self.kind.code()).number(2, self.extent.start).number(3, self.extent.len);
        if let Some(p) = &self.partition {
            w.group(4, |w| {
                w.number(1, p.number.into())
                    .text(2, &p.type_id)
                    .text(3, &p.unique_id)
                    .text(4, &p.name)
                    .number(5, p.attributes)
                    .number(6, p.bootable.into());
            });
        }
        if let Some(v) = &self.volume {
            w.group(5, |w| {
                w.text(1, &v.filesystem)
                    .text(2, &v.label)
                    .text(3, &v.uuid)
                    .number(4, v.cluster_size.into())
                    .number(5, v.capture.code())
                    .text(6, &v.reason)
                    .number(7, v.used_bytes);
            });
        }
    }

    fn read(items: &Items<'_>) -> Checked<Self> {
        let partition = items.group(4, &[1, 2, 3, 4, 5, 6])?;
        let partition = partition.map(|p| {
            Ok::<_, Fault>(PartitionInfo {
                number: p.small(1)?,
                type_id: p.text(2)?,
                unique_id: p.text(3)?,
                name: p.text(4)?,
                attributes: p.number(5)?,
                bootable: p.number(6)? != 0,
            })
        });
        let volume = items.group(5, &[1, 2, 3, 4, 5, 6, 7])?;
        let volume = volume.map(|v| {
            Ok::<_, Fault>(VolumeInfo {
                filesystem: v.text(1)?,
                label: v.text(2)?,
                uuid: v.text(3)?,
                cluster_size: v.small(4)?,
                capture: Capture::from_code(v.number(5)?)?,
                reason: v.text(6)?,
                used_bytes: v.number(7)?,
            })
        });
        Ok(Self {
            kind: RegionKind::from_code(items.number(1)?)?,
            extent: Extent::new(items.number(2)?, items.number(3)?),
            partition: partition.transpose()?,
            volume: volume.transpose()?,
        })
    }
}

/// Facts about the machine as pairs of key and value, in the order they were noted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inventory {
    /// Keys are dotted lower-case words: `os.name`, `kernel.release`, `disk.0.model`.
    pub facts: Vec<(String, String)>,
}

impl Inventory {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut w = Writer::default();
        for (key, value) in &self.facts {
            w.group(1, |w| {
                w.text(1, key).text(2, value);
            });
        }
        w.finish()
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Checked<Self> {
        let items = Items::parse(bytes, &[1])?;
        items.at_most("fact count", 1, FACTS_MAX, "at most 65536")?;
        let fact = |group: Checked<Items<'_>>| {
            let group = group?;
            Ok((group.text(1)?, group.text(2)?))
        };
        Ok(Self { facts: items.groups(1, &[1, 2]).map(fact).collect::<Checked<_>>()? })
    }
}
