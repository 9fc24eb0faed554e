//! Two recovery points, or disks, and what became of their files and blocks.

use aiv_browse::{
    Closely, Comparison, Error as BrowseError, Links, Path, Place, compare as compare_files,
};
use aiv_chain::changed_bytes;
use aiv_volume_io::{Extent, ExtentSet, Job};

use crate::error::Result;
use crate::files::Opened;

/// What is different between two disks.
#[derive(Debug, Clone, Default)]
pub struct Compared {
    /// Volumes, or the one in which the path lies.
    pub volumes: Vec<VolumeCompared>,
    /// Bytes of the disk that changed, in whole blocks; only where both are points of disks and
    /// blocks of the same size.
    pub changed: Option<ExtentSet>,
    /// Volumes that could not be compared, and why.
    pub not_compared: Vec<(String, String)>,
}

/// What is different on one volume.
#[derive(Debug, Clone)]
pub struct VolumeCompared {
    /// Its name.
    pub name: String,
    /// Bytes of it that changed, where that is known.
    pub changed: Option<u64>,
    /// Its files.
    pub files: Comparison,
}

/// Compares what is at `path` on two disks.
///
/// # Errors
/// [`Error::Recover`](crate::Error::Recover) when the path leads nowhere on one of them,
/// [`Error::Chain`](crate::Error::Chain) when an index cannot be read,
/// [`Error::Canceled`](crate::Error::Canceled).
pub fn compare_disks(old: &Opened, new: &Opened, path: &Path, job: Job<'_>) -> Result<Compared> {
    let mut compared = Compared::default();
    if let (Some(a), Some(b)) = (&old.point, &new.point) {
        compared.changed = changed_bytes(a, b, job)?;
    }
    if !path.parts().is_empty() {
        let volume = one(old, new, path, compared.changed.as_ref(), job)?;
        compared.volumes.push(volume);
        return Ok(compared);
    }
    let names = |opened: &Opened| -> Vec<String> {
        opened.disk.volumes().iter().map(|volume| volume.name().to_owned()).collect()
    };
    let (before, after) = (names(old), names(new));
    for name in &before {
        if !after.contains(name) {
            compared.not_compared.push((name.clone(), "it is gone".to_owned()));
        }
    }
    for (at, name) in after.iter().enumerate() {
        if !before.contains(name) {
            compared.not_compared.push((name.clone(), "it is new".to_owned()));
            continue;
        }
        let path = new.disk.volumes()[at].path();
        match one(old, new, &path, compared.changed.as_ref(), job) {
            Ok(volume) => compared.volumes.push(volume),
            Err(crate::Error::Recover(aiv_restore_engine::Error::Browse(why))) => {
                // Swap space has no files to be missed.
                if !matches!(why, BrowseError::NoFiles { .. }) {
                    compared.not_compared.push((name.clone(), why.to_string()));
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(compared)
}

fn one(
    old: &Opened,
    new: &Opened,
    path: &Path,
    changed: Option<&ExtentSet>,
    job: Job<'_>,
) -> Result<VolumeCompared> {
    let find = |opened: &Opened| match opened.disk.resolve(path, Links::Keep, job)? {
        Place::File(file) => Ok::<_, BrowseError>(file),
        Place::Top => Err(BrowseError::NotFound { path: path.clone() }),
    };
    let (before, after) = (find(old)?, find(new)?);
    let volume = &new.disk.volumes()[after.volume];
    // Changed blocks tell of the files of a volume only where it lies where it did.
    let was = old.disk.volumes()[before.volume].extent();
    let here = changed.filter(|_| was == volume.extent());
    let here: Option<ExtentSet> = here.map(|changed| {
        let start = volume.extent().start;
        let within = changed.within(volume.extent());
        within.map(|run| Extent::new(run.start - start, run.len)).collect()
    });
    let files = compare_files(&before, &after, Closely { changed: here.as_ref() }, job)?;
    let changed = here.map(|here| here.total_len());
    Ok(VolumeCompared { name: volume.name().to_owned(), changed, files })
}
