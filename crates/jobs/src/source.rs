use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aiv_backup_engine::{SourceFacts, disk_identity};
use aiv_disk_formats::{DiskImage, Format, OpenOptions};
use aiv_nbd_client::{Address, NbdDisk, NbdOptions, Uri};
use aiv_volume_io::device::{self, BlockDevice, DeviceKind};
use aiv_volume_io::{ChangeTracker, FileDisk, ReadAt, is_written_by_qemu};

use crate::error::{Error, Result};

/// A source, opened for reading, and what is known about it besides its bytes.
pub struct Source {
    /// Its bytes.
    pub disk: Box<dyn ReadAt>,
    /// Who watches them for changes: dirty bitmaps.
    pub trackers: Vec<Box<dyn ChangeTracker>>,
    /// Name, identity, sectors, and who could write to it.
    pub facts: SourceFacts,
    /// Every file and device its bytes come from. Images must not be written onto any of them.
    pub made_of: Vec<PathBuf>,
    /// How its bytes were found in those.
    pub seen_as: SeenAs,
}

/// How the bytes of a source are kept where it was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeenAs {
    /// `raw`, the format of a virtual disk, or `nbd` for a disk behind a server.
    pub format: &'static str,
    /// Files its bytes come from, when it is a virtual disk.
    pub files: Vec<PathBuf>,
    /// Things the user should know, as sentences without a full stop.
    pub notes: Vec<String>,
}

impl Source {
    /// Opens what `word` names: a block device, a raw disk file, a virtual disk, or by its URI a
    /// disk behind an NBD server. `root` is where `/sys` and `/proc` are found.
    ///
    /// # Errors
    /// [`Error::Volume`] when it cannot be opened, [`Error::VirtualDisk`] when it is one that
    /// cannot or must not be read, [`Error::Address`] and [`Error::Server`] for NBD,
    /// [`Error::Backup`] when the machine cannot be asked about it.
    pub fn open(root: &Path, word: &Path, options: &OpenOptions) -> Result<Self> {
        match word.to_str().filter(|word| Uri::is_meant(word)) {
            Some(uri) => Self::behind_server(root, uri),
            None => Self::in_files(root, word, options),
        }
    }

    fn in_files(root: &Path, word: &Path, options: &OpenOptions) -> Result<Self> {
        let image = DiskImage::open(word, options)?;
        let mut facts = SourceFacts::gather(root, word)?;
        for file in image.files() {
            if file != word {
                facts.writers.extend(SourceFacts::gather(root, file)?.writers);
            }
            if is_written_by_qemu(file)? {
                let file = file.display();
                facts.writers.push(format!("a virtual machine has {file} open for writing"));
            }
        }
        let made_of = image.files().to_vec();
        let is_raw = image.format() == Format::Raw;
        let seen_as = SeenAs {
            format: image.format().name(),
            files: if is_raw { Vec::new() } else { made_of.clone() },
            notes: image.notes().to_vec(),
        };
        let trackers = image.change_trackers(beneath(made_of.get(1..).unwrap_or_default())?);
        let disk: Box<dyn ReadAt> = match is_raw && !facts.writers.is_empty() {
            true => Box::new(FileDisk::open_source_direct(word)?),
            false => Box::new(image),
        };
        Ok(Self { disk, trackers, facts, made_of, seen_as })
    }

    fn behind_server(root: &Path, word: &str) -> Result<Self> {
        let uri: Uri =
            word.parse().map_err(|source| Error::Address { word: word.to_owned(), source })?;
        let hostname = fs::read_to_string(root.join("proc/sys/kernel/hostname"));
        let facts = SourceFacts {
            label: uri.to_string(),
            name: name(&uri),
            host: hostname.unwrap_or_default().trim().to_owned(),
            ..SourceFacts::default()
        };
        let options = NbdOptions { all_bitmaps: true, ..NbdOptions::default() };
        let disk = Arc::new(NbdDisk::connect(uri, options)?);
        let trackers = disk.change_trackers();
        let note = "whether anybody writes to the disk meanwhile cannot be seen through a server";
        let seen_as = SeenAs { format: "nbd", files: Vec::new(), notes: vec![note.to_owned()] };
        Ok(Self { disk: Box::new(disk), trackers, facts, made_of: Vec::new(), seen_as })
    }
}

/// Whether the file or device at `before`, of which the last point of a source is, exists still and
/// is none of those that the source is `made_of` now: two of them then say that they are the same
/// disk.
pub(crate) fn is_twin(root: &Path, before: &Path, made_of: &[PathBuf]) -> bool {
    let is_file = |path: &Path| fs::metadata(path).is_ok_and(|found| found.is_file());
    let is_it = |path: &PathBuf| device::same_file(path, before).unwrap_or(true);
    if is_file(before) {
        return made_of.iter().all(|path| is_file(path) && !is_it(path)) && !made_of.is_empty();
    }
    match made_of {
        [device] => !is_it(device) && are_clones(root, device, before).unwrap_or(false),
        _ => false,
    }
}

/// Whether two devices are disks of their own that say they are one. Devices change their names
/// with every boot, and one disk may have several: what they are called says nothing.
fn are_clones(root: &Path, one: &Path, other: &Path) -> Option<bool> {
    let (a, b) = (device::at(root, one).ok()??, device::at(root, other).ok()??);
    // What lies on other devices may be the very same bytes.
    let is_whole = |device: &BlockDevice| {
        let on_its_own = matches!(device.kind, DeviceKind::Disk | DeviceKind::Loop);
        on_its_own && device.slaves.is_empty()
    };
    let same = |a: &Option<String>, b: &Option<String>| a.is_some() && a == b;
    let is_one_disk = same(&a.serial, &b.serial) || same(&a.wwn, &b.wwn);
    let shows_one = |a: &BlockDevice, b: &BlockDevice| {
        let shown = a.backing_file.as_ref();
        shown.is_some_and(|file| b.backing_file.as_ref() == Some(file) || *file == b.path)
    };
    if !is_whole(&a) || !is_whole(&b) || is_one_disk || shows_one(&a, &b) || shows_one(&b, &a) {
        return Some(false);
    }
    let says = |device: &BlockDevice| {
        let disk = FileDisk::open_source(&device.path).ok()?;
        disk_identity(&disk, &SourceFacts::of_device(device))
    };
    Some(says(&a)? == says(&b)?)
}

/// Names the state of the files an image lies on: what its bitmaps do not watch.
fn beneath(files: &[PathBuf]) -> Result<[u8; 32]> {
    if files.is_empty() {
        return Ok([0; 32]);
    }
    let mut hasher = blake3::Hasher::new();
    for file in files {
        let found = fs::metadata(file).map_err(aiv_volume_io::Error::path("examine", file))?;
        let times = [found.mtime(), found.mtime_nsec()].map(i64::cast_unsigned);
        for number in [found.dev(), found.ino(), found.len(), times[0], times[1]] {
            hasher.update(&number.to_le_bytes());
        }
    }
    Ok(*hasher.finalize().as_bytes())
}

/// The export, or where there is none to name, what the server is found by.
fn name(uri: &Uri) -> String {
    let export = uri.export.rsplit('/').next().unwrap_or_default();
    match &uri.address {
        _ if !export.is_empty() => export.to_owned(),
        Address::Tcp { host, .. } => host.clone(),
        Address::Unix { socket } => {
            socket.file_stem().unwrap_or_default().to_string_lossy().into_owned()
        }
    }
}
