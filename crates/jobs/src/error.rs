use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::hooks::Hook;

/// Result of every fallible function of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A source, or what the kernel tells about it, cannot be read.
    #[error(transparent)]
    Volume(#[from] aiv_volume_io::Error),
    /// A source is a virtual disk that cannot be read, or must not be.
    #[error(transparent)]
    VirtualDisk(aiv_disk_formats::Error),
    /// A source is meant as a disk behind a server, and its address makes no sense.
    #[error("{word}")]
    Address {
        /// What was given.
        word: String,
        /// What is wrong with it.
        source: aiv_nbd_client::UriError,
    },
    /// A disk behind a server cannot be had.
    #[error(transparent)]
    Server(#[from] aiv_nbd_client::Error),
    /// The backup itself failed.
    #[error(transparent)]
    Backup(#[from] aiv_backup_engine::Error),
    /// What is said to have been written to a source cannot be understood.
    #[error("{} does not tell what was written", path.display())]
    Marks {
        /// The file.
        path: PathBuf,
        /// Why.
        source: aiv_backup_engine::MarksError,
    },
    /// The folder for the images cannot be opened.
    #[error("cannot open the folder {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The filesystems of the source could not be frozen, or not for long enough; no image was
    /// left.
    #[error(transparent)]
    Freeze(#[from] FreezeError),
    /// There was no snapshot of the source, or it was lost; no image was left.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// Nobody was seen to use the source, and it was written to while it was read; no image was
    /// left.
    #[error("{} was written to while it was read", path.display())]
    Changed {
        /// The file or device.
        path: PathBuf,
    },
    /// A command of the user failed before anything was read; there is no image.
    #[error("the {} command failed: {failure}", hook.name())]
    Hook {
        /// Which one.
        hook: Hook,
        /// How.
        failure: String,
    },
    /// A command of the user failed after something else had failed.
    #[error("the {} command failed as well: {failure}; before that", hook.name())]
    HookToo {
        /// Which one.
        hook: Hook,
        /// How.
        failure: String,
        /// What failed first.
        source: Box<Error>,
    },
    /// A key cannot be used or changed as asked.
    #[error(transparent)]
    Key(#[from] aiv_keys::Error),
    /// The images of a folder cannot be looked through, their key slots not be changed, or nothing
    /// was salvaged from them.
    #[error(transparent)]
    Chain(#[from] aiv_chain::Error),
    /// Files cannot be found, or not be recovered.
    #[error(transparent)]
    Recover(#[from] aiv_restore_engine::Error),
    /// Bytes of a file cannot be read: others can; verify the image.
    #[error("{path} cannot be read from byte {offset} on")]
    Unreadable {
        /// The file, safe to print.
        path: String,
        /// Byte offset in the file; some bytes behind it may be good.
        offset: u64,
        /// Why.
        source: io::Error,
    },
    /// A file is too large to be held in memory.
    #[error("{path} has more than {allowed} bytes, too many for an answer")]
    TooLarge {
        /// The file, safe to print.
        path: String,
        /// How many fit.
        allowed: u64,
    },
    /// What was read cannot be written.
    #[error("cannot write what was read")]
    Written(#[source] io::Error),
    /// The caller asked to stop.
    #[error(transparent)]
    Canceled(#[from] aiv_volume_io::Canceled),
    /// Random bytes for new ids are missing.
    #[error("no random numbers")]
    Random(#[source] io::Error),
    /// Going on would not be safe, or would not mean anything; nothing was written.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl From<aiv_browse::Error> for Error {
    fn from(error: aiv_browse::Error) -> Self {
        match error {
            aiv_browse::Error::Canceled(canceled) => Self::Canceled(canceled),
            error => Self::Recover(error.into()),
        }
    }
}

impl From<aiv_disk_formats::Error> for Error {
    fn from(error: aiv_disk_formats::Error) -> Self {
        match error {
            // Nothing about formats: the file itself cannot be opened.
            aiv_disk_formats::Error::File(error) => Self::Volume(error),
            error => Self::VirtualDisk(error),
        }
    }
}

impl Error {
    /// What a hold says that was made of this crate's freezing or snapshots.
    pub(crate) fn of_hold(why: Box<dyn std::error::Error + Send + Sync>) -> Self {
        let why = match why.downcast::<Self>() {
            Ok(error) => return *error,
            Err(why) => why,
        };
        match why.downcast::<FreezeError>() {
            Ok(error) => Self::Freeze(*error),
            Err(why) => match why.downcast::<SnapshotError>() {
                Ok(error) => Self::Snapshot(*error),
                Err(why) => Self::Backup(aiv_backup_engine::Error::NotHeld(why)),
            },
        }
    }

    /// Whether the caller's stop button ended it.
    #[must_use]
    pub fn is_canceled(&self) -> bool {
        use aiv_backup_engine::Error as Backup;
        use aiv_volume_io::Error as Volume;
        match self {
            Self::HookToo { source, .. } => source.is_canceled(),
            Self::Volume(Volume::Canceled(_)) | Self::Backup(Backup::Canceled(_)) => true,
            Self::Backup(Backup::Interrupted { source, .. }) => {
                matches!(**source, Backup::Canceled(_))
            }
            _ => false,
        }
    }
}

/// Why a job was refused before it began.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Name, identity or marks were given for several sources at once.
    #[error("--name, --source-id and --marks are for a single source")]
    OneNameForMany,
    /// A number names a slot of one chain, and there are several.
    #[error("several chains are opened by this: a slot can be removed from one at a time")]
    OneSlotOfMany,
    /// Images would be written onto what they are made of.
    #[error("the folder for the images lies on the source itself")]
    DestinationOnSource,
    /// The machine would stand still.
    #[error("the root filesystem lies on the source, and cannot be frozen")]
    FreezesRoot,
    /// This program writes to a file on what would be frozen, and would wait for itself.
    #[error("{} lies on the source, and is written meanwhile", file.display())]
    WritesThere {
        /// The file.
        file: PathBuf,
    },
    /// Only a part of the filesystem is on the source.
    #[error("the filesystem at {} lies on {elsewhere} too", mount.display())]
    OnSeveral {
        /// Where it is mounted.
        mount: PathBuf,
        /// The other devices.
        elsewhere: String,
    },
    /// Other mounts cover every way to the filesystem.
    #[error("the filesystem at {} cannot be reached, another one is mounted over it", mount.display())]
    Covered {
        /// Where it is mounted.
        mount: PathBuf,
    },
}

/// Why a source was not kept from changing by freezing its filesystems.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FreezeError {
    /// The process that thaws whatever happens could not be started; nothing was frozen.
    #[error("cannot start the process that thaws")]
    Guard {
        /// What the system said.
        source: io::Error,
    },
    /// A filesystem refused, or writes under way did not end in time.
    #[error("cannot freeze {what}")]
    Cannot {
        /// Where it is mounted, and why.
        what: String,
    },
    /// The time limit passed before everything was read.
    #[error("the source was thawed after {} s, before it was read", limit.as_secs())]
    Expired {
        /// The time limit.
        limit: Duration,
    },
    /// Somebody else thawed a filesystem.
    #[error("somebody else thawed the source before it was read")]
    ThawedByOthers,
    /// The process that thaws ended early.
    #[error("the process that thaws ended before the source was read")]
    GuardEnded,
    /// Something was mounted on the source just before everything else was frozen.
    #[error("mounts on the source changed while it was frozen")]
    MountsChanged,
}

/// Why a source was not kept from changing by a snapshot.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// Snapshots are made of logical volumes of LVM and volumes of ZFS.
    #[error("{} is neither a logical volume of LVM nor a volume of ZFS", device.display())]
    NoProvider {
        /// The source.
        device: PathBuf,
    },
    /// Snapshots are made of whole volumes.
    #[error("{} is a part of the volume {}", device.display(), volume.display())]
    PartOfVolume {
        /// The source, a partition.
        device: PathBuf,
        /// The device of the volume.
        volume: PathBuf,
    },
    /// The programs of ZFS are not installed.
    #[error("the programs of ZFS are missing")]
    NoProgram {
        /// Which one.
        source: io::Error,
    },
    /// Nothing would say that the snapshot is in use.
    #[error("this process cannot be told from others")]
    NoOwner(#[source] io::Error),
    /// A program of LVM failed.
    #[error("LVM failed")]
    Lvm(#[source] io::Error),
    /// A program of ZFS failed.
    #[error("ZFS failed")]
    Zfs(#[source] io::Error),
    /// More was overwritten than there was space for, or the pool can take no more.
    #[error("the space for what is overwritten ran over: {name}")]
    Overflow {
        /// The snapshot, the thin pool, or the pool or volume of ZFS.
        name: String,
    },
}
