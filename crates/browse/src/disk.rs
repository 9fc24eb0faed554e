//! A disk and its volumes.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use aiv_filesystems::{Filesystem, FilesystemKind, Recognised, open_filesystem, recognise};
use aiv_volume_io::partition::{Partition, SectorSize, TableKind, read_table};
use aiv_volume_io::{Extent, Job, ReadAt, Slice};

use crate::error::{Error, Result};
use crate::path::Path;

/// A disk whose volumes were looked at.
pub struct Disk {
    volumes: Vec<Volume>,
    table: TableKind,
    bytes: Arc<dyn ReadAt>,
}

/// A part of a disk that can hold a filesystem.
pub struct Volume {
    name: String,
    extent: Extent,
    recognised: Recognised,
    partition: Option<Partition>,
    bytes: Arc<dyn ReadAt>,
    filesystem: Mutex<Option<Arc<dyn Filesystem>>>,
}

impl Disk {
    /// Looks at the partition table of `disk`, and at what is on each partition.
    ///
    /// # Errors
    /// [`Error::Disk`] when the table cannot be read, [`Error::Canceled`]. A partition that cannot
    /// be read is one of unknown content.
    pub fn open(disk: Arc<dyn ReadAt>, sector_size: SectorSize, job: Job<'_>) -> Result<Self> {
        let table = read_table(&disk, sector_size).map_err(Error::Disk)?;
        let whole = Extent::new(0, disk.len());
        let mut volumes = Vec::new();
        for partition in &table.partitions {
            job.check()?;
            let is_volume = !partition.kind.is_extended();
            let Some(extent) = partition.extent.intersect(whole).filter(|_| is_volume) else {
                continue;
            };
            let name = format!("p{}", partition.number);
            volumes.push(Volume::new(name, &disk, extent, Some(partition.clone())));
        }
        if table.kind == TableKind::None {
            volumes.push(Volume::new("p0".to_owned(), &disk, whole, None));
        }
        Ok(Self { volumes, table: table.kind, bytes: disk })
    }

    /// A disk with one volume, `p0`, that is a filesystem which is open already.
    #[must_use]
    pub fn of_filesystem(filesystem: Arc<dyn Filesystem>, bytes: Arc<dyn ReadAt>) -> Self {
        let whole = Extent::new(0, bytes.len());
        let mut volume = Volume::new("p0".to_owned(), &bytes, whole, None);
        volume.recognised.kind = filesystem.kind();
        volume.filesystem = Mutex::new(Some(filesystem));
        Self { volumes: vec![volume], table: TableKind::None, bytes }
    }

    /// The volumes, in the order of the table.
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

impl Volume {
    fn new(
        name: String,
        disk: &Arc<dyn ReadAt>,
        extent: Extent,
        partition: Option<Partition>,
    ) -> Self {
        let bytes: Arc<dyn ReadAt> = match Slice::new(Arc::clone(disk), extent) {
            Ok(slice) => Arc::new(slice),
            // Cut to the disk by the caller.
            Err(_) => Arc::clone(disk),
        };
        // What cannot be read is shown as unknown; whoever opens it is told why.
        let recognised =
            recognise(&bytes).unwrap_or_else(|_| Recognised::new(FilesystemKind::Unknown));
        Self { name, extent, recognised, partition, bytes, filesystem: Mutex::new(None) }
    }

    /// `pN` with the number of its partition; 0 for a disk without a table.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its bytes on the disk.
    #[must_use]
    pub fn extent(&self) -> Extent {
        self.extent
    }

    /// What is on it.
    #[must_use]
    pub fn recognised(&self) -> &Recognised {
        &self.recognised
    }

    /// The entry of the partition table, where there is one.
    #[must_use]
    pub fn partition(&self) -> Option<&Partition> {
        self.partition.as_ref()
    }

    /// The bytes of the volume itself.
    #[must_use]
    pub fn bytes(&self) -> &Arc<dyn ReadAt> {
        &self.bytes
    }

    /// The path of its root.
    #[must_use]
    pub fn path(&self) -> Path {
        Path::default().join(self.name.as_bytes())
    }

    /// Its filesystem, opened the first time somebody asks.
    ///
    /// # Errors
    /// [`Error::NoFiles`] when there is none that can be read, [`Error::Filesystem`] when it cannot
    /// be opened, [`Error::Canceled`].
    pub fn filesystem(&self, job: Job<'_>) -> Result<Arc<dyn Filesystem>> {
        let mut opened = self.filesystem.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(filesystem) = &*opened {
            return Ok(Arc::clone(filesystem));
        }
        if let Some(why) = why_none(self.recognised.kind) {
            return Err(Error::NoFiles {
                volume: self.name.clone(),
                kind: self.recognised.kind,
                why,
            });
        }
        let filesystem = open_filesystem(Arc::clone(&self.bytes), &self.recognised, job)
            .map_err(|source| Error::of(&self.path(), source))?;
        let filesystem: Arc<dyn Filesystem> = filesystem.into();
        *opened = Some(Arc::clone(&filesystem));
        Ok(filesystem)
    }
}

/// Why there are no files to read, for kinds of which that is no fault.
fn why_none(kind: FilesystemKind) -> Option<&'static str> {
    Some(match kind {
        FilesystemKind::Unknown => "nothing that is known here",
        FilesystemKind::Swap | FilesystemKind::SwapSuspended => "there are no files in it",
        FilesystemKind::ExtJournal => "it is the journal of another filesystem",
        FilesystemKind::LuksContainer => {
            "it is encrypted; back up the unlocked volume to see its files"
        }
        FilesystemKind::BitLocker => "it is encrypted; its files cannot be read",
        _ => return None,
    })
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk")
            .field("volumes", &self.volumes)
            .field("table", &self.table)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Volume")
            .field("name", &self.name)
            .field("extent", &self.extent)
            .field("recognised", &self.recognised)
            .finish_non_exhaustive()
    }
}
