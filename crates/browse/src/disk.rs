//! A disk and its volumes.

use std::fmt;
use std::sync::Arc;

use aiv_filesystems::{Filesystem, FilesystemKind, LuksKeys};
use aiv_volume_io::partition::{SectorSize, TableKind, read_table};
use aiv_volume_io::{Extent, Job, ReadAt};

use crate::error::{Error, Result};
use crate::nested;
use crate::volume::Volume;

/// A disk whose volumes were looked at.
pub struct Disk {
    volumes: Vec<Volume>,
    table: TableKind,
    bytes: Arc<dyn ReadAt>,
}

impl Disk {
    /// Looks at the partition table of `disk`, at what is on each partition, and at the volumes
    /// inside of those: logical volumes of LVM2, RAIDs of which one member is enough, and
    /// partitions in both.
    ///
    /// # Errors
    /// [`Error::Disk`] when the table cannot be read, [`Error::Canceled`]. A partition that cannot
    /// be read is one of unknown content.
    pub fn open(disk: Arc<dyn ReadAt>, sector_size: SectorSize, job: Job<'_>) -> Result<Self> {
        Self::unlock(disk, sector_size, &LuksKeys::none(), job)
    }

    /// As [`open`](Self::open), with what opens LUKS volumes: those that are opened are what they
    /// encrypt.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn unlock(
        disk: Arc<dyn ReadAt>,
        sector_size: SectorSize,
        keys: &LuksKeys,
        job: Job<'_>,
    ) -> Result<Self> {
        let table = read_table(&disk, sector_size).map_err(Error::Disk)?;
        let mut volumes = Vec::new();
        for partition in &table.partitions {
            job.check()?;
            volumes.extend(Volume::of_partition(String::new(), &disk, partition));
        }
        if table.kind == TableKind::None {
            let whole = Extent::new(0, disk.len());
            volumes.push(Volume::new("p0".to_owned(), &disk, whole));
        }
        let volumes = nested::with_inner(volumes, sector_size, keys, job)?;
        Ok(Self { volumes, table: table.kind, bytes: disk })
    }

    /// Whether what was given for LUKS volumes opened one of them, if there are any.
    ///
    /// # Errors
    /// [`Error::Locked`] and [`Error::NotOpened`] of the first when it opened none.
    pub fn check_unlocked(&self) -> Result<()> {
        const LUKS: FilesystemKind = FilesystemKind::LuksContainer;
        if self.volumes.iter().any(|volume| volume.within().contains(&LUKS)) {
            return Ok(());
        }
        let closed = self.volumes.iter().filter(|volume| volume.recognised().kind == LUKS);
        closed.filter_map(Volume::closed_error).next().map_or(Ok(()), Err)
    }

    /// A disk with one volume, `p0`, that is a filesystem which is open already.
    #[must_use]
    pub fn of_filesystem(filesystem: Arc<dyn Filesystem>, bytes: Arc<dyn ReadAt>) -> Self {
        let whole = Extent::new(0, bytes.len());
        let volume = Volume::new("p0".to_owned(), &bytes, whole).opened(filesystem);
        Self { volumes: vec![volume], table: TableKind::None, bytes }
    }

    /// The volumes, in the order of the table; those inside of a volume come after it.
    #[must_use]
    pub fn volumes(&self) -> &[Volume] {
        &self.volumes
    }

    /// The bytes of the disk itself.
    #[must_use]
    pub fn bytes(&self) -> &Arc<dyn ReadAt> {
        &self.bytes
    }

    /// The kind of its partition table.
    #[must_use]
    pub fn table(&self) -> TableKind {
        self.table
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk")
            .field("volumes", &self.volumes)
            .field("table", &self.table)
            .finish_non_exhaustive()
    }
}
