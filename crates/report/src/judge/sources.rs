//! What it means when a virtual disk or a disk behind a server is not read.

use aiv_disk_formats::Error as DiskError;
use aiv_nbd_client::Error as ServerError;

use super::{failed, judge, refused};
use crate::failure::Verdict;

pub(super) fn judge_virtual_disk(error: &DiskError) -> Option<Verdict> {
    match error {
        DiskError::File(error) => Some(judge(error)),
        DiskError::In { source, .. } => judge_virtual_disk(source),
        DiskError::Ambiguous { .. } => refused(
            "ambiguous_format",
            "whoever uses a disk can make its content look like anything: say --source-format \
             raw for a raw disk, or the format of the virtual disk that it is",
        ),
        DiskError::NotAllowed { in_folder: true, .. } => refused(
            "not_followed",
            "a forged image names whatever file it wants to read: with --follow folder, files \
             beside the image are read",
        ),
        DiskError::NotAllowed { .. } => refused(
            "not_followed",
            "it is outside of the folder of the image; if you trust who made the image, \
             --follow anywhere reads it all the same",
        ),
        DiskError::NotAFile { .. } => failed(
            "not_followed",
            "copy or export the disk with the program that made the image, and back that up",
        ),
        DiskError::Missing { .. } | DiskError::WrongParent { .. } => failed(
            "source_incomplete",
            "put the file that the image was made on back beside it, unchanged since",
        ),
        DiskError::Cycle | DiskError::TooMany { .. } | DiskError::Corrupt { .. } => failed(
            "source_damaged",
            "nothing was published; repair a copy of it with the program that made it, or back \
             it up as it is with --source-format raw",
        ),
        DiskError::Unsupported { .. } => failed(
            "source_unsupported",
            "convert it with the program that made it, or back it up as it is with \
             --source-format raw",
        ),
        _ => None,
    }
}

pub(super) fn judge_server(error: &ServerError) -> Option<Verdict> {
    match error {
        ServerError::Connect { .. } => {
            failed("no_server", "check the address, and whether the server runs")
        }
        ServerError::Io(_) | ServerError::Broken(_) => {
            failed("server_failed", "nothing was published; look at the server, and try again")
        }
        ServerError::Tls => failed("server_wants_tls", "export the disk without TLS on a socket"),
        ServerError::Refused { .. } | ServerError::NoBitmap { .. } => {
            failed("no_such_export", "`nbdinfo --list URI` shows what the server has")
        }
        ServerError::Changed { .. } => {
            failed("source_changed", "nothing was published; begin again")
        }
        ServerError::Odd { .. } => failed("server_odd", "export the disk with smaller requests"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::PathBuf;

    use aiv_disk_formats::Format;

    use super::*;
    use crate::Failure;

    fn code(error: impl std::error::Error + 'static) -> (&'static str, u8) {
        let verdict = Failure::of(&error).verdict;
        assert!(!verdict.hint.is_empty() && !verdict.hint.ends_with('.'), "{}", verdict.hint);
        (verdict.code, verdict.exit.status())
    }

    fn corrupt() -> DiskError {
        DiskError::Corrupt {
            format: Format::Qcow2,
            section: "header",
            offset: 0,
            what: "there is none".into(),
        }
    }

    #[test]
    fn an_image_that_reaches_for_other_files_is_refused_and_says_how_to_allow_it() {
        for (in_folder, word) in [(true, "--follow folder"), (false, "--follow anywhere")] {
            let error = DiskError::NotAllowed { name: PathBuf::from("base"), in_folder };
            let inside = DiskError::In { path: PathBuf::from("a"), source: Box::new(error) };
            let error = aiv_jobs::Error::VirtualDisk(inside);
            assert!(Failure::of(&error).verdict.hint.contains(word));
            assert_eq!(code(error), ("not_followed", 5));
        }
        let path = PathBuf::from("disk.raw");
        let error = DiskError::Ambiguous { path, found: Format::Vhd };
        assert_eq!(code(aiv_jobs::Error::VirtualDisk(error)), ("ambiguous_format", 5));
    }

    #[test]
    fn damage_is_known_at_opening_and_at_reads() {
        assert_eq!(code(aiv_jobs::Error::VirtualDisk(corrupt())), ("source_damaged", 1));
        let read = io::Error::new(io::ErrorKind::InvalidData, corrupt());
        let read = aiv_backup_engine::Error::Source { offset: 7, source: read };
        assert_eq!(code(aiv_jobs::Error::Backup(read)), ("source_damaged", 1));
    }

    #[test]
    fn a_server_that_is_not_there_is_told_from_one_that_fails() {
        let uri: aiv_nbd_client::Uri = "nbd://host/x".parse().expect("an address");
        let source = io::Error::from(io::ErrorKind::NotFound);
        assert_eq!(code(ServerError::Connect { uri, source }), ("no_server", 1));
        let silent = ServerError::Io(io::Error::from(io::ErrorKind::TimedOut));
        assert_eq!(code(aiv_jobs::Error::Server(silent)), ("server_failed", 1));
        let error = aiv_jobs::Error::Address {
            word: "nbds://x".into(),
            source: "nbds://x".parse::<aiv_nbd_client::Uri>().expect_err("TLS"),
        };
        assert_eq!(code(error), ("bad_address", 2));
    }
}
