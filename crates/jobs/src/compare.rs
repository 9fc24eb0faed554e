//! Two recovery points, or disks, and what became of their files and blocks.

use aiv_browse::{
    Closely, Comparison, Error as BrowseError, File, Links, Path, Place, compare as compare_files,
};
use aiv_chain::changed_bytes;
use aiv_volume_io::{ExtentSet, Job};

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
    /// What there is to know about reading it, then or now.
    pub notes: Vec<String>,
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
    let find = |opened: &Opened| opened.disk.resolve(path, Links::Keep, job);
    let (before, after) = match (find(old)?, find(new)?) {
        (Place::File(before), Place::File(after)) => {
            compared.volumes.push(one(old, new, &before, &after, compared.changed.as_ref(), job)?);
            return Ok(compared);
        }
        (before, after) => (names(old, &before), names(new, &after)),
    };
    for name in &before {
        if !after.contains(name) {
            compared.not_compared.push((name.clone(), "it is gone".to_owned()));
        }
    }
    for name in &after {
        if !before.contains(name) {
            compared.not_compared.push((name.clone(), "it is new".to_owned()));
            continue;
        }
        let path = Path::parse(name.as_bytes()).map_err(BrowseError::Path)?;
        let find = |opened: &Opened| opened.disk.resolve(&path, Links::Keep, job);
        let both = find(old).and_then(|before| Ok((before, find(new)?)));
        match both {
            Ok((Place::File(before), Place::File(after))) => {
                let changed = compared.changed.as_ref();
                compared.volumes.push(one(old, new, &before, &after, changed, job)?);
            }
            Err(BrowseError::Canceled(canceled)) => return Err(canceled.into()),
            // What is inside of a volume is compared by itself; swap space has no files to be missed.
            Ok((Place::Volumes(_), Place::Volumes(_))) | Err(BrowseError::NoFiles { .. }) => {}
            Ok(_) => {
                let why = "it holds files in one of them, and volumes in the other".to_owned();
                compared.not_compared.push((name.clone(), why));
            }
            Err(why) => compared.not_compared.push((name.clone(), why.to_string())),
        }
    }
    Ok(compared)
}

/// Names of the volumes at a place, or of the one a file is on.
fn names(opened: &Opened, place: &Place) -> Vec<String> {
    let volumes = match place {
        Place::File(file) => vec![file.volume],
        place => opened.disk.volumes_at(place),
    };
    volumes.into_iter().map(|at| opened.disk.volumes()[at].name().to_owned()).collect()
}

fn one(
    old: &Opened,
    new: &Opened,
    before: &File,
    after: &File,
    changed: Option<&ExtentSet>,
    job: Job<'_>,
) -> Result<VolumeCompared> {
    let volume = &new.disk.volumes()[after.volume];
    // Changed blocks tell of the files of a volume only where it lies where it did.
    let stayed = volume.lies_like(&old.disk.volumes()[before.volume]);
    let here = changed.filter(|_| stayed).and_then(|changed| volume.within_disk(changed));
    let files = compare_files(before, after, Closely { changed: here.as_ref() }, job)?;
    let changed = here.map(|here| here.total_len());
    let mut notes: Vec<String> = new.disk.notes_on(after).collect();
    let then = old.disk.notes_on(before).filter(|note| !notes.contains(note)).collect::<Vec<_>>();
    notes.extend(then.into_iter().map(|note| format!("in the older point: {note}")));
    Ok(VolumeCompared { name: volume.name().to_owned(), changed, notes, files })
}
