//! Files of a recovery point, or of a disk that has none yet: from words to a disk whose volumes
//! were looked at, and files out of it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aiv_browse::{Disk, Filter, LuksKeys, Path as FilePath};
use aiv_chain::{Folder, Keys, Trust, View, find_set, locate_view_keyed};
use aiv_disk_formats::OpenOptions;
use aiv_image_format::Error as ImageError;
use aiv_restore_engine::recover::{RecoverOptions, RecoverPlan, RecoverReport, give_name};
use aiv_volume_io::partition::{SectorSize, detect_sector_size};
use aiv_volume_io::{DirStorage, Job, ReadAt};

use crate::error::{Error, Result};
use crate::source::Source;
use crate::world::World;

/// A disk whose files can be read.
pub struct Opened {
    /// The disk.
    pub disk: Disk,
    /// The recovery point it is, where it is one.
    pub point: Option<Arc<View>>,
}

impl Opened {
    /// Whether it is a recovery point that is neither sealed nor authenticated.
    #[must_use]
    pub fn is_unkeyed_point(&self) -> bool {
        self.point.as_ref().is_some_and(|view| !view.image().superblock().is_keyed())
    }
}

/// What `word` names, to read its files: a recovery point, or else a block device, a raw file or
/// a virtual disk, which is opened by `options`. LUKS volumes are opened by `luks`; when there are
/// both, one must open.
///
/// # Errors
/// [`Error::Chain`] when an image cannot be read, those of [`Source::open`] for anything else,
/// [`Error::Recover`] when its partition table cannot be read, or `luks` opens nothing.
pub fn open_disk(
    world: &dyn World,
    word: &Path,
    options: &OpenOptions,
    (keys, luks): (&Keys, &LuksKeys),
    job: Job<'_>,
) -> Result<Opened> {
    let mut point = None;
    let (bytes, sector_size) = match locate_view_keyed(word, keys, job) {
        Ok((_, view)) => {
            let sector_size = sector_size_of(&view);
            let view = Arc::new(view);
            point = Some(Arc::clone(&view));
            (view as Arc<dyn ReadAt>, sector_size)
        }
        Err(error) if may_be_source(word, &error) => {
            let source = Source::open(world.root(), word, options)?;
            let sector_size = SectorSize::new(source.facts.logical_sector);
            (Arc::from(source.disk), sector_size)
        }
        Err(error) => return Err(error.into()),
    };
    let sector_size = sector_size.or_else(|| detect_sector_size(&bytes));
    let disk = Disk::unlock(bytes, sector_size.unwrap_or(SectorSize::B512), luks, job)?;
    if !luks.is_empty() {
        disk.check_unlocked()?;
    }
    Ok(Opened { disk, point })
}

/// What `word` names, or of a folder the file of the newest point of each set that can be
/// restored; of the set called `set` alone where one is named.
///
/// # Errors
/// [`Error::Folder`] and [`Error::Chain`] when the folder cannot be looked through.
pub fn newest_points(
    word: &Path,
    set: Option<&str>,
    keys: &Keys,
    job: Job<'_>,
) -> Result<Vec<PathBuf>> {
    if !word.is_dir() {
        return Ok(vec![word.to_owned()]);
    }
    let failed = |source| Error::Folder { path: word.to_owned(), source };
    let storage = DirStorage::open(word).map_err(failed)?;
    let (folder, _) = Folder::scan_keyed(&storage, keys, Trust::Catalogue, job)?;
    let only = set.map(|set| find_set(&folder, set).map(|set| set.id)).transpose()?;
    let meant = folder.sets.iter().filter(|set| only.is_none_or(|only| only == set.id));
    let newest =
        meant.filter_map(|set| set.points.iter().rev().find(|point| point.is_restorable()));
    Ok(newest.map(|point| word.join(&point.file)).collect())
}

/// The sector size the disk was imaged with.
fn sector_size_of(view: &View) -> Option<SectorSize> {
    SectorSize::new(view.image().meta().disk.logical_sector)
}

/// Whether a word may name something else than an image: it exists, and is none.
fn may_be_source(word: &Path, error: &aiv_chain::Error) -> bool {
    let is_device = || fs::metadata(word).is_ok_and(|found| !found.is_file() && !found.is_dir());
    let is_foreign = |source: &ImageError| matches!(source, ImageError::Foreign(_));
    match error {
        aiv_chain::Error::Image { source, .. } => is_foreign(source) && word.exists(),
        _ => is_device(),
    }
}

/// Where recovered files go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecoverTo {
    /// A folder.
    Folder(PathBuf),
    /// A new tar archive.
    Tar(PathBuf),
    /// A new zip archive.
    Zip(PathBuf),
}

impl RecoverTo {
    /// The folder or archive.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Folder(path) | Self::Tar(path) | Self::Zip(path) => path,
        }
    }
}

/// Files that are recovered.
#[derive(Debug, Clone)]
pub struct RecoverJob {
    /// Each with everything below it.
    pub paths: Vec<FilePath>,
    /// Which files below them; all without.
    pub filter: Option<Filter>,
    /// Where they go.
    pub to: RecoverTo,
    /// How, where that is a folder.
    pub options: RecoverOptions,
}

impl RecoverJob {
    /// Recovers the files. An archive appears under its name when it is complete, and must not
    /// exist before.
    ///
    /// # Errors
    /// [`Error::Recover`]. What concerns one file only is in the report.
    pub fn run(&self, disk: &Disk, job: Job<'_>) -> Result<RecoverReport> {
        let plan = RecoverPlan::new(disk, &self.paths, self.filter.as_ref(), job)?;
        match &self.to {
            RecoverTo::Folder(folder) => Ok(plan.to_folder(folder, self.options, job)?),
            RecoverTo::Tar(path) => archive(path, |out| plan.to_tar(out, job)),
            RecoverTo::Zip(path) => archive(path, |out| plan.to_zip(out, job)),
        }
    }
}

/// Writes a file that appears when it is complete and synced.
fn archive(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> aiv_restore_engine::Result<RecoverReport>,
) -> Result<RecoverReport> {
    let failed_at = |op: &'static str, path: &Path| {
        let path = path.to_owned();
        move |source: io::Error| Error::from(aiv_restore_engine::Error::Output { op, path, source })
    };
    let failed = |op: &'static str| failed_at(op, path);
    if fs::symlink_metadata(path).is_ok() {
        let path = path.to_owned();
        return Err(
            aiv_restore_engine::Error::from(aiv_restore_engine::Refusal::Exists { path }).into()
        );
    }
    let (Some(name), around) = (path.file_name(), folder_of(path)) else {
        return Err(failed("creating")(io::ErrorKind::IsADirectory.into()));
    };
    let folder = File::open(around).map_err(failed("creating"))?;
    let part_name = [name.as_bytes(), b".part"].concat();
    let part = around.join(OsStr::from_bytes(&part_name));
    // As all that is made of an image: what only its owner could read stays so.
    let file = File::options().write(true).create_new(true).mode(0o600).open(&part);
    let mut out = BufWriter::with_capacity(1 << 20, file.map_err(failed_at("creating", &part))?);
    let filled = fill(&mut out).map_err(|error| match error {
        // The one who filled it does not know its name.
        aiv_restore_engine::Error::Output { op, source, .. } => failed(op)(source),
        error => error.into(),
    });
    let filled = filled.and_then(|report| {
        let file = out.into_inner().map_err(|e| failed("writing")(e.into_error()))?;
        file.sync_all().map_err(failed("syncing"))?;
        // A name that was taken meanwhile stays whose it is.
        give_name(&folder, &part_name, name.as_bytes()).map_err(failed("naming"))?;
        folder.sync_all().map_err(failed("syncing"))?;
        Ok(report)
    });
    if filled.is_err() {
        // Best effort: under its own name, it is no archive to anybody.
        let _ = fs::remove_file(&part);
    }
    filled
}

fn folder_of(path: &Path) -> &Path {
    let around = path.parent().filter(|around| !around.as_os_str().is_empty());
    around.unwrap_or(Path::new("."))
}
