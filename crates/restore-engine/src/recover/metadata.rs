//! What is known about a file, put onto one.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use aiv_browse::{Attribute, FileFlags, FileType, Metadata, Timestamp};
use rustix::fs::{
    AtFlags, FileType as MadeType, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid,
    XattrFlags, chmod, chownat, fchmod, fchown, fsetxattr, fstat, futimens, lsetxattr, openat,
    utimensat,
};
use rustix::io::Errno;

use super::report::{NotKept, RecoverReport, shown};

/// Permissions of files and folders whose filesystem has none.
const FILE_MODE: u16 = 0o644;
const FOLDER_MODE: u16 = 0o755;
/// Run as somebody else: means harm when the owner is not kept.
const SET_ID: u16 = 0o6000;
/// Rights of root for whoever runs a file: the same.
const CAPABILITIES: &[u8] = b"security.capability";

/// Permissions a file gets.
pub(super) fn mode_of(metadata: &Metadata, owners: bool) -> u16 {
    let is_folder = metadata.file_type == FileType::Folder;
    let fallback = if is_folder { FOLDER_MODE } else { FILE_MODE };
    let mode = metadata.mode.unwrap_or_else(|| {
        let is_read_only = !is_folder && metadata.flags.contains(FileFlags::READ_ONLY);
        if is_read_only { fallback & !0o222 } else { fallback }
    });
    if owners { mode } else { mode & !SET_ID }
}

/// Marks that nothing here can set.
fn has_marks(flags: FileFlags) -> bool {
    [
        FileFlags::HIDDEN,
        FileFlags::SYSTEM,
        FileFlags::ARCHIVE,
        FileFlags::IMMUTABLE,
        FileFlags::APPEND_ONLY,
        FileFlags::NO_DUMP,
    ]
    .iter()
    .any(|&one| flags.contains(one))
}

/// Counts what no way of writing a file can keep.
pub(super) fn count_unkept(metadata: &Metadata, report: &mut RecoverReport) {
    if has_marks(metadata.flags) {
        report.not_kept(NotKept::Flags);
    }
}

/// Puts owner, permissions, attributes and times onto an open file or folder.
pub(super) fn apply(
    file: impl AsFd,
    metadata: &Metadata,
    attributes: &[Attribute],
    owners: bool,
    report: &mut RecoverReport,
) {
    let file = file.as_fd();
    count_unkept(metadata, report);
    let mut owned = owners;
    if let Some(owner) = metadata.owner {
        let (user, group) = (Uid::from_raw(owner.user), Gid::from_raw(owner.group));
        owned = owners && fchown(file, Some(user), Some(group)).is_ok();
        if !owned {
            report.not_kept(NotKept::Owner);
        }
    }
    let mode = mode_of(metadata, owned);
    let is_cut = metadata.mode.is_some_and(|wanted| wanted != mode);
    let is_set = fchmod(file, Mode::from_raw_mode(mode.into())).is_ok();
    if is_cut || !is_set {
        report.not_kept(NotKept::Mode);
    }
    for attribute in attributes {
        // Access lists say again what the permissions say, and more.
        let name = OsStr::from_bytes(&attribute.name);
        let is_left_out = !owned && attribute.name == CAPABILITIES;
        if is_left_out || fsetxattr(file, name, &attribute.value, XattrFlags::empty()).is_err() {
            report.not_kept(NotKept::Attribute(shown(&attribute.name)));
        }
    }
    if let Some(times) = times(metadata)
        && futimens(file, &whole(file, times)).is_err()
    {
        report.not_kept(NotKept::Times);
    }
}

/// Times with what the file has for the one that is left out: some filesystems of FUSE take both or
/// none, and say nothing.
fn whole(file: impl AsFd, mut times: Timestamps) -> Timestamps {
    if let Ok(found) = fstat(file) {
        let fill = |time: &mut Timespec, tv_sec, tv_nsec| {
            if time.tv_nsec == UTIME_OMIT {
                *time = Timespec { tv_sec, tv_nsec };
            }
        };
        fill(&mut times.last_access, found.st_atime, found.st_atime_nsec as _);
        fill(&mut times.last_modification, found.st_mtime, found.st_mtime_nsec as _);
    }
    times
}

/// The same for something that cannot be opened: a link, a device.
pub(super) fn apply_at(
    folder: impl AsFd,
    name: &[u8],
    metadata: &Metadata,
    attributes: &[Attribute],
    owners: bool,
    report: &mut RecoverReport,
) {
    let folder = folder.as_fd();
    count_unkept(metadata, report);
    if let Some(owner) = metadata.owner {
        let (user, group) = (Uid::from_raw(owner.user), Gid::from_raw(owner.group));
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        if !owners || chownat(folder, name, Some(user), Some(group), flags).is_err() {
            report.not_kept(NotKept::Owner);
        }
    }
    let path = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()));
    let path = path.join(OsStr::from_bytes(name));
    for attribute in attributes {
        let of = OsStr::from_bytes(&attribute.name);
        if lsetxattr(&path, of, &attribute.value, XattrFlags::empty()).is_err() {
            report.not_kept(NotKept::Attribute(shown(&attribute.name)));
        }
    }
    if let Some(times) = times(metadata)
        && utimensat(folder, name, &times, AtFlags::SYMLINK_NOFOLLOW).is_err()
    {
        report.not_kept(NotKept::Times);
    }
}

/// Sets permissions of something that is not opened for that, and never through a link somebody
/// put in its place.
pub(super) fn set_mode_at(folder: impl AsFd, name: &[u8], mode: Mode) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = openat(folder, name, flags, Mode::empty())?;
    if MadeType::from_raw_mode(fstat(&found)?.st_mode) == MadeType::Symlink {
        return Err(Errno::LOOP.into());
    }
    Ok(chmod(format!("/proc/self/fd/{}", found.as_raw_fd()), mode)?)
}

fn times(metadata: &Metadata) -> Option<Timestamps> {
    let omit = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let time = |time: Option<Timestamp>| {
        time.map_or(omit, |time| Timespec {
            tv_sec: time.seconds,
            tv_nsec: time.nanoseconds.into(),
        })
    };
    (metadata.modified.is_some() || metadata.accessed.is_some()).then(|| Timestamps {
        last_access: time(metadata.accessed),
        last_modification: time(metadata.modified),
    })
}
