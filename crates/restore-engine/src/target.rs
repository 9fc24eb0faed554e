use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::sync::Arc;

use aiv_disk_formats::Format;
use aiv_image_format::{Error as ImageError, Image};
use aiv_volume_io::device::{self, DeviceKind, Use};
use aiv_volume_io::{Extent, FileDisk, FileKind, ReadAt};

use crate::error::{Error, Refusal, Result};
use crate::identity::{Attached, attached};

/// What is known about a target before anything is written to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetFacts {
    /// What people call it: its path.
    pub label: String,
    /// Whether it exists. Only a regular file may be missing; it is created by whoever applies
    /// the plan, at the length the plan needs.
    pub exists: bool,
    /// Length in bytes, zero for a file that does not exist.
    pub len: u64,
    /// Bytes in a logical sector; not looked at for a file.
    pub logical_sector_size: u32,
    /// File or device.
    pub kind: FileKind,
    /// Whether it cannot be written.
    pub read_only: bool,
    /// Everything that uses it.
    pub uses: Vec<Use>,
    /// Whether overwriting it would destroy the image that is to be restored.
    pub holds_image: bool,
    /// Whether it is an Aivory image itself.
    pub is_image: bool,
    /// What virtual disk a file is by its content, [`Format::Raw`] for none.
    pub format: Format,
    /// The header of a backup GPT in its last sector, sound or not.
    pub old_backup: Option<Extent>,
    /// Serial number of the disk, where the system knows one.
    pub serial: Option<String>,
    /// World-wide name of the disk, where the system knows one.
    pub wwn: Option<String>,
    /// First byte on its disk, for a partition; else zero.
    pub offset: u64,
    /// The other disks of the machine, when the target is a device.
    pub attached: Vec<Attached>,
}

impl TargetFacts {
    /// Looks at the target at `path`. `image` is the file that is to be restored, or its
    /// folder; `root` is where `/sys` and `/proc` are found, `/` in production. Changes nothing.
    ///
    /// # Errors
    /// [`Error::Target`] when the target can be no disk, or when it, the image or the lists of
    /// the kernel cannot be examined.
    pub fn gather(root: &Path, path: &Path, image: &Path) -> Result<Self> {
        let label = path.display().to_string();
        if !path.try_exists().map_err(examine(path))? {
            return Ok(Self::missing_file(label));
        }
        let disk = FileDisk::open_source(path).map_err(Error::Target)?;
        let (len, kind) = (disk.len(), disk.kind());
        let logical_sector_size = disk.logical_sector_size();
        let found = device::at(root, path).map_err(Error::Target)?;
        let others = match kind {
            FileKind::BlockDevice => attached(root, path)?,
            FileKind::RegularFile => Vec::new(),
        };
        let uses = device::uses_of(root, path).map_err(Error::Target)?;
        let is_it = device::same_file(path, image).map_err(examine(image))?;
        let holds_it = is_it || device::holds_path(root, path, image).map_err(Error::Target)?;
        let old_backup = old_backup(&disk);
        let (refuses_writes, format, is_image) = match kind {
            FileKind::RegularFile => {
                let format = Format::of_content(&disk).map_err(examine(path))?;
                (refuses_writes(path)?, format, is_image(disk)?)
            }
            // The kernel tells about devices, and what lies on one is not what the device is.
            FileKind::BlockDevice => (false, Format::Raw, false),
        };
        Ok(Self {
            label,
            exists: true,
            len,
            logical_sector_size,
            kind,
            read_only: refuses_writes || uses.iter().any(forbids_writes),
            uses,
            holds_image: holds_it,
            is_image,
            format,
            old_backup,
            offset: found.as_ref().map_or(0, |device| match device.kind {
                DeviceKind::Partition { start, .. } => start,
                _ => 0,
            }),
            serial: found.as_ref().and_then(|device| device.serial.clone()),
            wwn: found.and_then(|device| device.wwn),
            attached: others,
        })
    }

    /// A regular file that is yet to be created.
    #[must_use]
    pub fn missing_file(label: String) -> Self {
        Self {
            label,
            exists: false,
            len: 0,
            logical_sector_size: 512,
            kind: FileKind::RegularFile,
            read_only: false,
            uses: Vec::new(),
            holds_image: false,
            is_image: false,
            format: Format::Raw,
            old_backup: None,
            serial: None,
            wwn: None,
            offset: 0,
            attached: Vec::new(),
        }
    }

    /// Refuses a target that must not be overwritten, whatever is restored to it.
    pub(crate) fn check_free(&self) -> std::result::Result<(), Refusal> {
        let target = self.label.clone();
        if self.holds_image {
            return Err(Refusal::HoldsImage { target });
        }
        if self.is_image {
            return Err(Refusal::IsImage { target });
        }
        // Whoever opens it by its name takes it for what it is not, as we would.
        let named = Format::of_name(Path::new(&target));
        if let (FileKind::RegularFile, Some(format)) = (self.kind, named) {
            return Err(Refusal::VirtualDisk { target, format: format.name() });
        }
        if self.format != Format::Raw {
            return Err(Refusal::HoldsVirtualDisk { target, format: self.format.name() });
        }
        if self.uses.iter().any(|found| !forbids_writes(found)) {
            return Err(Refusal::InUse { target, uses: self.uses.clone() });
        }
        if self.read_only || !self.uses.is_empty() {
            return Err(Refusal::ReadOnly { target });
        }
        Ok(())
    }

    /// From where on the target will read as zeros without being written: what a file gets
    /// when it is created or extended.
    pub(crate) fn zeros_from(&self) -> u64 {
        match self.kind {
            FileKind::RegularFile => self.len,
            FileKind::BlockDevice => u64::MAX,
        }
    }
}

/// Whether the last sector begins as a GPT header does. A file may be that of a disk with any
/// sectors; an unreadable last sector tells nobody anything.
fn old_backup(disk: &FileDisk) -> Option<Extent> {
    let sizes: &[u64] = match disk.kind() {
        FileKind::BlockDevice => &[disk.logical_sector_size().into()],
        FileKind::RegularFile => &[512, 4096],
    };
    for &size in sizes {
        let Some(start) = disk.len().checked_sub(size) else { continue };
        let mut signature = [0; 8];
        let read = disk.read_exact_at(&mut signature, start);
        if read.is_ok() && &signature == b"EFI PART" {
            return Some(Extent::new(start, size));
        }
    }
    None
}

fn forbids_writes(found: &Use) -> bool {
    matches!(found, Use::ReadOnly { .. })
}

/// Asks the filesystem by opening the file, which alone knows about mounts, attributes and
/// access lists together. Opening changes nothing.
fn refuses_writes(path: &Path) -> Result<bool> {
    match OpenOptions::new().write(true).open(path) {
        Ok(_) => Ok(false),
        Err(e) => match e.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Ok(true),
            _ => Err(examine(path)(e)),
        },
    }
}

fn is_image(file: FileDisk) -> Result<bool> {
    let path = file.path().to_path_buf();
    match Image::open(Arc::new(file)) {
        Err(ImageError::Foreign(_)) => Ok(false),
        Err(ImageError::Io { source, .. }) => Err(examine(&path)(source)),
        // Damaged, unfinished or newer than this program: somebody's backup all the same.
        Ok(_) | Err(_) => Ok(true),
    }
}

fn examine(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let wrap = aiv_volume_io::Error::path("examine", path);
    move |source| Error::Target(wrap(source))
}
