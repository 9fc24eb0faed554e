//! Disks of a few hundred KiB, in memory.
//!
//! A [`DiskLayout`] says what a disk holds; [`DiskLayout::build`] makes the bytes, with the
//! partition tables a real tool would write (checksums, backups, chains of logical partitions
//! and all), and tells where everything went.
//!
//! ```
//! use aiv_testkit::disks::{Content, DiskLayout, Part, Table};
//! use aiv_volume_io::ReadAt;
//!
//! let layout = DiskLayout::new(Table::Gpt).part(Part::new(64 << 10, Content::Text(1)));
//! let disk = layout.build();
//! let part = &disk.parts[0];
//! let mut out = vec![0; 64 << 10];
//! disk.to_disk().read_exact_at(&mut out, part.extent.start).unwrap();
//! assert_eq!(out, Content::Text(1).bytes(64 << 10));
//! ```

use aiv_volume_io::{Extent, MemDisk};

mod content;
mod failing;
mod gpt;
mod mbr;

pub use content::Content;
pub use failing::{CountingDisk, FlakyDisk, ShrinkingDisk};

/// Kind of partition table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Table {
    /// No table: the first partition's contents are the whole disk.
    None,
    /// Master boot record, with an extended partition for logical ones.
    Mbr,
    /// GUID partition table with its backup at the end.
    Gpt,
}

/// A partition to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Length in bytes; rounded up to whole sectors.
    pub len: u64,
    /// What it holds.
    pub content: Content,
    /// Whether it is a logical partition inside the extended one (MBR only, ignored
    /// otherwise). Logical partitions come after all primary ones on the disk.
    pub logical: bool,
    /// Unused sectors in front of it.
    pub gap: u64,
}

impl Part {
    /// A primary partition without a gap.
    #[must_use]
    pub fn new(len: u64, content: Content) -> Self {
        Self { len, content, logical: false, gap: 0 }
    }

    /// The same as a logical partition.
    #[must_use]
    pub fn logical(self) -> Self {
        Self { logical: true, ..self }
    }

    /// The same behind `sectors` unused sectors.
    #[must_use]
    pub fn after_gap(self, sectors: u64) -> Self {
        Self { gap: sectors, ..self }
    }
}

/// What a disk is to look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskLayout {
    /// Bytes in a sector: 512 or 4096.
    pub sector_size: u32,
    /// Kind of partition table.
    pub table: Table,
    /// Partitions in the order of their numbers, and of their place on the disk.
    pub parts: Vec<Part>,
    /// Unused sectors behind the last partition.
    pub tail: u64,
    /// Seed of disk identity and partition GUIDs.
    pub seed: u64,
}

/// A disk that was built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TinyDisk {
    /// All bytes of the disk.
    pub bytes: Vec<u8>,
    /// Bytes in a sector.
    pub sector_size: u32,
    /// Kind of partition table.
    pub table: Table,
    /// Where the partitions are, in the order of the layout.
    pub parts: Vec<PlacedPart>,
    /// Disk GUID of a GPT in its on-disk byte order, zeros otherwise.
    pub disk_guid: [u8; 16],
    /// Disk signature of an MBR, zero otherwise.
    pub mbr_signature: u32,
}

/// Where a partition went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedPart {
    /// Number in the table, as Linux counts: logical partitions from 5. Zero without a table.
    pub number: u32,
    /// Bytes on the disk.
    pub extent: Extent,
    /// What it holds.
    pub content: Content,
    /// Whether it is a logical partition.
    pub logical: bool,
    /// Unique GUID of a GPT partition in its on-disk byte order, zeros otherwise.
    pub guid: [u8; 16],
}

impl DiskLayout {
    /// A disk of 512-byte sectors without partitions.
    #[must_use]
    pub fn new(table: Table) -> Self {
        Self { sector_size: 512, table, parts: Vec::new(), tail: 8, seed: 0 }
    }

    /// The same with sectors of `bytes`.
    ///
    /// # Panics
    /// Unless `bytes` is 512 or 4096.
    #[must_use]
    pub fn sector_size(mut self, bytes: u32) -> Self {
        assert!(matches!(bytes, 512 | 4096), "sectors have 512 or 4096 bytes, not {bytes}");
        self.sector_size = bytes;
        self
    }

    /// The same with one more partition.
    #[must_use]
    pub fn part(mut self, part: Part) -> Self {
        self.parts.push(part);
        self
    }

    /// The same with another identity.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Makes the disk.
    ///
    /// # Panics
    /// When the table cannot hold the partitions: more than 128 in a GPT, more than four
    /// primary ones in an MBR (the extended one counts), more than one without a table, or a
    /// primary one behind a logical one.
    #[must_use]
    pub fn build(&self) -> TinyDisk {
        match self.table {
            Table::Gpt => gpt::build(self),
            Table::Mbr => mbr::build(self),
            Table::None => self.build_plain(),
        }
    }

    fn build_plain(&self) -> TinyDisk {
        assert!(self.parts.len() <= 1, "a disk without a table holds one thing");
        let mut disk = Canvas::new(self);
        let parts = self.parts.iter().map(|part| {
            let first = disk.end;
            disk.place(part, first, 0)
        });
        let parts = parts.collect();
        disk.end += self.tail;
        disk.finish(parts)
    }
}

impl TinyDisk {
    /// The disk as a source and target.
    #[must_use]
    pub fn to_disk(&self) -> MemDisk {
        MemDisk::from_bytes(self.bytes.clone())
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Whether the disk has no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The bytes of a partition.
    ///
    /// # Panics
    /// When `part` is of another, longer disk.
    #[must_use]
    pub fn part_bytes(&self, part: &PlacedPart) -> &[u8] {
        let at = |byte: u64| usize::try_from(byte).expect("tiny");
        &self.bytes[at(part.extent.start)..at(part.extent.end())]
    }
}

/// A disk under construction: bytes that grow as sectors are written.
struct Canvas<'a> {
    layout: &'a DiskLayout,
    bytes: Vec<u8>,
    /// First sector nothing was placed on yet.
    end: u64,
}

impl<'a> Canvas<'a> {
    fn new(layout: &'a DiskLayout) -> Self {
        Self { layout, bytes: Vec::new(), end: 0 }
    }

    fn sectors(&self, len: u64) -> u64 {
        len.div_ceil(u64::from(self.layout.sector_size))
    }

    /// Writes at a sector, making the disk longer as needed.
    fn write(&mut self, sector: u64, data: &[u8]) {
        let start = usize::try_from(sector * u64::from(self.layout.sector_size)).expect("tiny");
        let end = start + data.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[start..end].copy_from_slice(data);
        self.end = self.end.max(sector + self.sectors(data.len() as u64));
    }

    /// Puts a partition's contents at `first`.
    fn place(&mut self, part: &Part, first: u64, number: u32) -> PlacedPart {
        let sector = u64::from(self.layout.sector_size);
        let len = self.sectors(part.len).max(1) * sector;
        self.write(first, &part.content.bytes(usize::try_from(len).expect("tiny")));
        PlacedPart {
            number,
            extent: Extent::new(first * sector, len),
            content: part.content,
            logical: part.logical,
            guid: [0; 16],
        }
    }

    fn finish(mut self, parts: Vec<PlacedPart>) -> TinyDisk {
        let len = self.end * u64::from(self.layout.sector_size);
        self.bytes.resize(usize::try_from(len).expect("tiny"), 0);
        TinyDisk {
            bytes: self.bytes,
            sector_size: self.layout.sector_size,
            table: self.layout.table,
            parts,
            disk_guid: [0; 16],
            mbr_signature: 0,
        }
    }
}
