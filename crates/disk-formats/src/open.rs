use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aiv_volume_io::{ChangeTracker, Extent, FileKind, MemDisk, ReadAt};

use crate::follow::{Files, Follow};
use crate::layer::{Layer, Stacked};
use crate::{Error, Format, Result, qcow2, vhd, vhdx, vmdk};

/// Files a chain of parents may have, the image itself included.
pub const CHAIN_MAX: usize = 64;

/// What the caller knows, and what he allows.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenOptions {
    /// What the file is, when the caller knows; else content and name have to agree.
    pub format: Option<Format>,
    /// Which files named by the image are read.
    pub follow: Follow,
}

/// A disk in a file, in several files, or in a file that builds on others.
///
/// [`ReadAt::holes`] answers with what the tables call unallocated or zero.
pub struct DiskImage {
    format: Format,
    disk: Arc<dyn ReadAt>,
    files: Vec<PathBuf>,
    notes: Vec<String>,
    bitmaps: Vec<qcow2::Bitmap>,
}

/// One file, understood.
pub(crate) struct Understood {
    pub(crate) layer: Box<dyn Layer>,
    pub(crate) parent: Option<ParentRef>,
    /// What overlays call this file.
    pub(crate) identity: Option<Identity>,
    /// Things its user should know.
    pub(crate) notes: Vec<String>,
}

/// The parent a file asks for.
pub(crate) struct ParentRef {
    /// Its names, the likeliest first; relative ones start at the file's folder.
    pub(crate) names: Vec<PathBuf>,
    /// Its format, where the file says so.
    pub(crate) format: Option<Format>,
    /// What it has to call itself; any of them. Empty where the format knows no identities.
    pub(crate) expected: Vec<Identity>,
}

/// By what a parent is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identity {
    /// Unique id of a VHD, data write id of a VHDX.
    Guid([u8; 16]),
    /// Content id of a VMDK.
    Cid(u32),
}

impl DiskImage {
    /// Opens the image at `path` and everything it is built of. A block device is raw unless
    /// the options say otherwise.
    ///
    /// # Errors
    /// Any of [`Error`] but [`Error::Io`] at reads only.
    pub fn open(path: &Path, options: &OpenOptions) -> Result<Self> {
        let mut files = Files::beside(path, options.follow);
        let (disk, id) = files.asked(path)?;
        let format = match options.format {
            Some(format) => format,
            None if disk.kind() == FileKind::BlockDevice => Format::Raw,
            None => agreed(path, &disk)?,
        };
        Self::build(path, Arc::new(disk), Some(id), format, files)
    }

    /// Reads an image that lies in other bytes than a file: in a view, on a server. Such an
    /// image cannot name files.
    ///
    /// # Errors
    /// As [`DiskImage::open`].
    pub fn of_bytes(bytes: Arc<dyn ReadAt>, format: Format) -> Result<Self> {
        Self::build(Path::new(""), bytes, None, format, Files::none())
    }

    fn build(
        path: &Path,
        file: Arc<dyn ReadAt>,
        id: Option<(u64, u64)>,
        format: Format,
        mut files: Files,
    ) -> Result<Self> {
        let mut layers: Vec<Box<dyn Layer>> = Vec::new();
        let mut notes = Vec::new();
        let mut seen: Vec<(u64, u64)> = id.into_iter().collect();
        let (mut path, mut file, mut at) = (path.to_path_buf(), file, format);
        let mut expected: Vec<Identity> = Vec::new();
        let base: Arc<dyn ReadAt> = loop {
            let found = understand(at, &file, &path, &mut files).map_err(Error::within(&path))?;
            let Some(found) = found else { break file };
            check_identity(&expected, found.identity).map_err(Error::within(&path))?;
            let several = !layers.is_empty() || found.parent.is_some();
            notes.extend(found.notes.into_iter().map(|note| match several {
                true => format!("{}: {note}", path.display()),
                false => note,
            }));
            layers.push(found.layer);
            // What nobody says anything about is past the end of nothing, and that reads as zeros.
            let Some(parent) = found.parent else { break Arc::new(MemDisk::default()) };
            if layers.len() >= CHAIN_MAX {
                return Err(Error::TooMany { max: CHAIN_MAX });
            }
            let opened = files.named(&path, &parent.names).map_err(Error::within(&path))?;
            if seen.contains(&opened.id) {
                return Err(Error::within(&opened.path)(Error::Cycle));
            }
            seen.push(opened.id);
            at = match parent.format {
                Some(format) => format,
                None => agreed(&opened.path, &opened.file)?,
            };
            expected = parent.expected;
            (path, file) = (opened.path, opened.file);
        };
        // Those further down watched other disks.
        let bitmaps = layers.first().map(|top| top.bitmaps().to_vec()).unwrap_or_default();
        let mut disk = base;
        for layer in layers.into_iter().rev() {
            disk = Arc::new(Stacked::new(layer, disk));
        }
        Ok(Self { format, disk, files: files.opened, notes, bitmaps })
    }

    /// What the file is.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// All files that are read: the image itself, its pieces, its parents. Empty when it lies in
    /// no file.
    #[must_use]
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// The dirty bitmaps of a qcow2 file, each with the reason where it is not to be asked. They
    /// do not watch the other [`files`](Self::files) the disk is built of: `beneath` is what the
    /// caller makes of those.
    #[must_use]
    pub fn change_trackers(&self, beneath: [u8; 32]) -> Vec<Box<dyn ChangeTracker>> {
        let boxed = |bitmap: &qcow2::Bitmap| {
            let mut bitmap = bitmap.clone();
            bitmap.facts.beneath = beneath;
            Box::new(bitmap) as Box<dyn ChangeTracker>
        };
        self.bitmaps.iter().map(boxed).collect()
    }

    /// Things the user should know, as sentences without a full stop.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

impl std::fmt::Debug for DiskImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct("DiskImage");
        out.field("format", &self.format).field("len", &self.len()).field("files", &self.files);
        out.finish_non_exhaustive()
    }
}

impl ReadAt for DiskImage {
    fn len(&self) -> u64 {
        self.disk.len()
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        self.disk.read_exact_at(out, offset)
    }

    fn holes(&self, range: Extent) -> io::Result<Vec<Extent>> {
        self.disk.holes(range)
    }

    fn file(&self) -> Option<&File> {
        self.disk.file()
    }
}

fn agreed(path: &Path, file: &dyn ReadAt) -> Result<Format> {
    let found = Format::agreed(path, file).map_err(Error::io("read the file", 0))?;
    found.map_err(|found| Error::Ambiguous { path: path.to_path_buf(), found })
}

/// `None` for a raw file, of which there is nothing to understand.
fn understand(
    format: Format,
    file: &Arc<dyn ReadAt>,
    path: &Path,
    files: &mut Files,
) -> Result<Option<Understood>> {
    let file = file.clone();
    Ok(Some(match format {
        Format::Raw => return Ok(None),
        Format::Qcow2 => qcow2::open(file, path, files)?,
        Format::Vhd => vhd::open(file)?,
        Format::Vhdx => vhdx::open(file)?,
        Format::Vmdk => vmdk::open(file, path, files)?,
    }))
}

fn check_identity(expected: &[Identity], found: Option<Identity>) -> Result<()> {
    if expected.is_empty() || found.is_some_and(|found| expected.contains(&found)) {
        return Ok(());
    }
    let found = found.map_or_else(|| "none".to_owned(), |found| found.to_string());
    let expected: Vec<String> = expected.iter().map(ToString::to_string).collect();
    let what = format!("it has identity {found}, expected {}", expected.join(" or "));
    Err(Error::WrongParent { what })
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Guid(bytes) => bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
            Self::Cid(cid) => write!(f, "{cid:08x}"),
        }
    }
}
