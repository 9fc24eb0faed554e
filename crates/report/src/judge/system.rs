//! Errors of the operating system, and what travels inside of them.

use std::error::Error;
use std::io::{self, ErrorKind};

use aiv_image_format::Error as ImageError;

use super::{DISK_FULL, judge, sources};
use crate::failure::{Exit, Verdict};

pub(super) fn judge_io(error: &io::Error) -> Verdict {
    // What reads found out about a virtual disk or a server travels inside.
    let inner = error.get_ref().map(|inner| inner as &(dyn Error + 'static));
    let known = inner.and_then(|inner| {
        let disk = inner.downcast_ref().and_then(sources::judge_virtual_disk);
        let disk = disk.or_else(|| inner.downcast_ref().and_then(sources::judge_server));
        // And so does what they found out about an image, under a filesystem that is read in it.
        let is_image = inner.is::<aiv_chain::Error>() || inner.is::<ImageError>();
        disk.or_else(|| is_image.then(|| judge(inner)))
    });
    if let Some(verdict) = known {
        return verdict;
    }
    let (code, hint) = match error.kind() {
        ErrorKind::NotFound => ("not_found", "check the path; `aiv devices` lists disks"),
        ErrorKind::PermissionDenied => {
            ("permission_denied", "run it as root, or as a user who may do that")
        }
        ErrorKind::ResourceBusy | ErrorKind::WouldBlock => {
            ("busy", "another program uses it; wait until it is done, or stop it")
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            (DISK_FULL, "make room, or choose another place")
        }
        ErrorKind::ReadOnlyFilesystem => ("read_only", "choose a place that can be written"),
        ErrorKind::NotADirectory => ("not_a_folder", "name a folder"),
        ErrorKind::AlreadyExists => ("exists", "choose another name; nothing is ever replaced"),
        _ => ("io", "the kernel log (dmesg) tells more; try again, or use another medium"),
    };
    Verdict { code, exit: Exit::Failed, hint }
}
