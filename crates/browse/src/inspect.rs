//! Every record of a filesystem, read once.

use aiv_filesystems::{FileType, Filesystem, FilesystemKind};
use aiv_volume_io::{Job, causes};

use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::path::Path;
use crate::resolve::{File, Links, Place};
use crate::volume::Volume;
use crate::walk::{Step, Trouble, Walk};

/// Troubles that are named; all are counted.
const LISTED_MAX: usize = 10_000;

/// What was found on a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    /// Its name.
    pub volume: String,
    /// What is on it.
    pub kind: FilesystemKind,
    /// Why its files were not looked at; everything else is zero then.
    pub not_read: Option<String>,
    /// Names of regular files.
    pub files: u64,
    /// Folders, its root among them.
    pub folders: u64,
    /// Symbolic links.
    pub links: u64,
    /// Devices, pipes, sockets, and what is not known.
    pub others: u64,
    /// Bytes the files say they have.
    pub bytes: u64,
    /// Files, folders or records that cannot be read, and why; the first ten thousand.
    pub troubles: Vec<(Path, String)>,
    /// How many there are.
    pub trouble_count: u64,
    /// What is to be known about its state.
    pub notes: Vec<String>,
}

impl Inspected {
    fn new(volume: &Volume) -> Self {
        Self {
            volume: volume.name().to_owned(),
            kind: volume.recognised().kind,
            not_read: None,
            files: 0,
            folders: 0,
            links: 0,
            others: 0,
            bytes: 0,
            troubles: Vec::new(),
            trouble_count: 0,
            notes: Vec::new(),
        }
    }

    fn trouble(&mut self, path: &Path, why: String) {
        self.trouble_count += 1;
        if self.troubles.len() < LISTED_MAX {
            self.troubles.push((path.clone(), why));
        }
    }
}

/// Reads every folder, every file's record, block map, attributes, streams and link, of all
/// volumes; of the bytes of files none. What a reader proves by checksums is proven.
///
/// # Errors
/// [`Error::Canceled`] only.
pub fn inspect(disk: &Disk, job: Job<'_>) -> Result<Vec<Inspected>> {
    disk.volumes().iter().map(|volume| inspect_volume(disk, volume, job)).collect()
}

fn inspect_volume(disk: &Disk, volume: &Volume, job: Job<'_>) -> Result<Inspected> {
    let mut found = Inspected::new(volume);
    let root = match disk.resolve(&volume.path(), Links::Keep, job) {
        Ok(Place::File(root)) => root,
        Ok(Place::Top) => return Ok(found),
        Ok(Place::Volumes(which)) => {
            let count = which.len();
            let volumes = if count == 1 { "volume" } else { "volumes" };
            found.not_read = Some(format!("it holds {count} {volumes}"));
            return Ok(found);
        }
        Err(Error::Canceled(canceled)) => return Err(canceled.into()),
        Err(
            Error::NoFiles { why, .. } | Error::NotOpened { why, .. } | Error::Locked { why, .. },
        ) => {
            found.not_read = Some(why);
            return Ok(found);
        }
        Err(why) => {
            found.trouble(&volume.path(), causes(&why));
            return Ok(found);
        }
    };
    found.notes = volume.notes().to_vec();
    found.notes.extend(root.filesystem.notes().iter().map(ToString::to_string));
    walk(&root, &mut found, job)?;
    Ok(found)
}

fn walk(root: &File, found: &mut Inspected, job: Job<'_>) -> Result<()> {
    let filesystem = &*root.filesystem;
    let (mut unread, mut unread_count) = (Vec::new(), 0);
    Walk::default().run(
        root,
        job,
        &mut |file| {
            match file.metadata.file_type {
                FileType::File => {
                    found.files += 1;
                    found.bytes = found.bytes.saturating_add(file.metadata.len);
                }
                FileType::Folder => found.folders += 1,
                FileType::Link => found.links += 1,
                _ => found.others += 1,
            }
            for why in faults(filesystem, file.id, file.metadata.file_type) {
                found.trouble(file.path, why);
            }
            Step::On
        },
        &mut |trouble: &Trouble<'_>| {
            let why = std::error::Error::source(&trouble.why);
            let why = why.map_or_else(|| trouble.why.to_string(), causes);
            unread_count += 1;
            if unread.len() < LISTED_MAX {
                unread.push((trouble.path.clone(), why));
            }
        },
    )?;
    found.trouble_count += unread_count - unread.len() as u64;
    for (path, why) in unread {
        found.trouble(&path, why);
    }
    Ok(())
}

/// What cannot be read of a file, its bytes left out.
fn faults(
    filesystem: &dyn Filesystem,
    id: aiv_filesystems::FileId,
    file_type: FileType,
) -> Vec<String> {
    let mut faults = Vec::new();
    let mut note = |result: aiv_filesystems::Result<()>| {
        // What nobody here can read is no damage.
        if let Err(error) = result
            && !matches!(error, aiv_filesystems::Error::Unsupported { .. })
        {
            faults.push(causes(&error));
        }
    };
    match file_type {
        FileType::File => {
            note(filesystem.open(id).and_then(|data| data.extents()).map(|_| ()));
        }
        FileType::Link => note(filesystem.link_target(id).map(|_| ())),
        _ => {}
    }
    note(filesystem.attributes(id).map(|_| ()));
    match filesystem.streams(id) {
        Ok(streams) => {
            for stream in streams {
                let opened = filesystem.open_stream(id, &stream.name);
                note(opened.and_then(|data| data.extents()).map(|_| ()));
            }
        }
        Err(error) => note(Err(error)),
    }
    faults
}
