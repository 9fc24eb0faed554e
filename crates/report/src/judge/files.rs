//! Errors about files of a disk.

use std::io;

use aiv_browse::Error as BrowseError;
use aiv_filesystems::Error as FilesystemError;

use super::keys::locked;
use super::{CANCELED, DISK_FULL, VOLUME_LOCKED, VOLUME_WRONG_KEY, failed, judge, judge_io};
use crate::failure::{Exit, Verdict};

pub(super) fn judge_browse(error: &BrowseError) -> Option<Verdict> {
    match error {
        BrowseError::Canceled(_) => Some(CANCELED),
        BrowseError::Disk(error) => Some(judge(error)),
        BrowseError::Filesystem { source, .. } => Some(judge(source)),
        BrowseError::NoFiles { .. } => {
            failed("no_files", "`aiv ls IMAGE` shows what each volume holds")
        }
        BrowseError::Locked { tried: false, .. } => {
            locked(VOLUME_LOCKED, "name a file with --luks-password-file or --luks-key-file")
        }
        BrowseError::Locked { .. } => locked(
            VOLUME_WRONG_KEY,
            "nothing was changed; mind Caps Lock and the keyboard's layout; a file with the passphrase \
             goes with --luks-password-file, and a key file with --luks-key-file",
        ),
        BrowseError::NotOpened { .. } => failed(
            "not_opened",
            "restore the disk and read it with the system it was made by, or back up the volume inside",
        ),
        BrowseError::Path(_) => {
            Some(Verdict { code: "usage", exit: Exit::Usage, hint: "write /p2/folder/file" })
        }
        BrowseError::NoVolume { .. } | BrowseError::Ambiguous { .. } => failed(
            "no_such_volume",
            "`aiv ls IMAGE` shows the volumes; paths begin with one, as /p2",
        ),
        BrowseError::NotFound { .. }
        | BrowseError::NotAFolder { .. }
        | BrowseError::LinkNowhere { .. } => failed(
            "no_such_file",
            "`aiv ls IMAGE FOLDER` shows what is there; `aiv find` looks for names",
        ),
        _ => None,
    }
}

pub(super) fn judge_filesystem(error: &FilesystemError) -> Option<Verdict> {
    match error {
        FilesystemError::Canceled(_) => Some(CANCELED),
        FilesystemError::Io { source, .. } => Some(judge(source)),
        FilesystemError::Damaged { .. } => Some(Verdict {
            code: "filesystem_damaged",
            exit: Exit::Damage,
            hint: "other files can still be read; or restore the volume, and let its own tool repair it",
        }),
        FilesystemError::Unsupported { .. } => {
            failed("unsupported", "restore the volume, and read it with the system it was made by")
        }
        FilesystemError::WrongType { .. } => {
            failed("wrong_type", "`aiv ls IMAGE FOLDER` shows what it is")
        }
        _ => None,
    }
}

/// An error of the place where files are written.
pub(super) fn judge_output(error: &io::Error) -> Verdict {
    match judge_io(error) {
        Verdict { code: DISK_FULL, .. } => Verdict {
            code: DISK_FULL,
            exit: Exit::Failed,
            hint: "make room, and run it again; in a folder, files that are complete stay, and \
                   --existing skip goes on with the others",
        },
        verdict => verdict,
    }
}
