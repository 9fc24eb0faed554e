//! What an error means: the table of codes, exit statuses and next steps.

use std::error::Error;

use aiv_image_format::{Error as ImageError, Unsupported};

use crate::failure::{Exit, Verdict};

mod files;
mod keys;
mod restores;
mod salvage;
mod sources;
mod still;
mod system;

use system::judge_io;

const CANCELED: Verdict = Verdict {
    code: "canceled",
    exit: Exit::Canceled,
    hint: "nothing half-done was published; run it again when it suits",
};
const DAMAGED: Verdict = Verdict {
    code: "damaged",
    exit: Exit::Damage,
    hint: "`aiv verify` lists all damage, and with --repair --to DIR writes the image as it was, \
           where parity or another copy tells; or use an older point, or get out what is left: \
           `aiv salvage`",
};
/// The code of what a key would open.
pub const LOCKED: &str = "locked";
/// The code of an encrypted volume inside of a disk, for which nothing was given.
pub const VOLUME_LOCKED: &str = "volume_locked";
/// The code of one that what was given does not open.
pub const VOLUME_WRONG_KEY: &str = "volume_wrong_key";
/// The code of every failure to salvage that the key of an image would help.
pub const SEALED: &str = "sealed";
const DISK_FULL: &str = "disk_full";

const fn failed(code: &'static str, hint: &'static str) -> Option<Verdict> {
    Some(Verdict { code, exit: Exit::Failed, hint })
}

const fn refused(code: &'static str, hint: &'static str) -> Option<Verdict> {
    Some(Verdict { code, exit: Exit::Refused, hint })
}

/// The word of the outermost layer that has one.
pub(crate) fn judge(error: &(dyn Error + 'static)) -> Verdict {
    None.or_else(|| error.downcast_ref().and_then(judge_job))
        .or_else(|| error.downcast_ref().and_then(judge_backup))
        .or_else(|| error.downcast_ref().and_then(restores::judge_restore))
        .or_else(|| error.downcast_ref().and_then(files::judge_browse))
        .or_else(|| error.downcast_ref().and_then(files::judge_filesystem))
        .or_else(|| error.downcast_ref().and_then(judge_chain))
        .or_else(|| error.downcast_ref().and_then(judge_image))
        .or_else(|| error.downcast_ref().and_then(keys::judge_key))
        .or_else(|| error.downcast_ref().and_then(sources::judge_virtual_disk))
        .or_else(|| error.downcast_ref().and_then(sources::judge_server))
        .or_else(|| error.downcast_ref().and_then(judge_volume))
        .or_else(|| error.downcast_ref().map(judge_io))
        .or_else(|| error.downcast_ref().map(|aiv_volume_io::Canceled| CANCELED))
        .unwrap_or_else(|| judge_source(error))
}

fn judge_source(error: &(dyn Error + 'static)) -> Verdict {
    let unknown =
        || Verdict { code: "failed", exit: Exit::Failed, hint: "the message names the cause" };
    error.source().map_or_else(unknown, judge)
}

fn judge_job(error: &aiv_jobs::Error) -> Option<Verdict> {
    use aiv_jobs::{Error, Refusal};
    match error {
        Error::Volume(error) => Some(judge(error)),
        Error::Backup(error) => Some(judge(error)),
        Error::Refused(Refusal::OneNameForMany) => Some(Verdict {
            code: "usage",
            exit: Exit::Usage,
            hint: "back the sources up one by one",
        }),
        Error::Refused(Refusal::OneSlotOfMany) => {
            refused("several_chains", "name an image of the chain, instead of the folder")
        }
        Error::Key(error) => Some(judge(error)),
        Error::Chain(error) => Some(judge(error)),
        Error::Recover(error) => Some(judge(error)),
        Error::Canceled(_) => Some(CANCELED),
        Error::Unreadable { .. } => Some(Verdict {
            hint: "`aiv extract` gets out what can be read of it; `aiv verify` lists all damage",
            ..DAMAGED
        }),
        Error::TooLarge { .. } => failed("too_large", "leave out --json"),
        Error::Written(error) => Some(judge_io(error)),
        Error::Refused(Refusal::DestinationOnSource) => {
            refused("destination_on_source", "choose a folder on another disk")
        }
        Error::Refused(Refusal::FreezesRoot) => refused(
            "freezes_root",
            "the whole machine would wait; back it up from a rescue system, or with --live",
        ),
        Error::Refused(Refusal::WritesThere { .. }) => {
            refused("freezes_itself", "send messages and reports to another filesystem")
        }
        Error::Refused(Refusal::OnSeveral { .. }) => refused(
            "on_several_devices",
            "unmount it: an image of a part is only useful with images of all parts",
        ),
        Error::Refused(Refusal::Covered { .. }) => {
            refused("mount_covered", "unmount what covers it, or unmount it")
        }
        Error::VirtualDisk(error) => Some(judge(error)),
        Error::Address { .. } => Some(Verdict {
            code: "bad_address",
            exit: Exit::Usage,
            hint: "write nbd://HOST[:PORT]/EXPORT or nbd+unix:///EXPORT?socket=PATH",
        }),
        Error::Server(error) => Some(judge(error)),
        Error::Changed { .. } => failed(
            "source_changed",
            "nothing was published; stop what writes to it, or back up a snapshot or a copy of it; \
             with --live it is read as it is",
        ),
        Error::Freeze(error) => still::judge_freeze(error),
        Error::Snapshot(error) => still::judge_snapshot(error),
        Error::Hook { .. } => failed(
            "hook_failed",
            "nothing was read, and no image was made; mend the command, or leave it out",
        ),
        Error::HookToo { source, .. } => Some(judge(&**source)),
        _ => None,
    }
}

fn judge_backup(error: &aiv_backup_engine::Error) -> Option<Verdict> {
    use aiv_backup_engine::{Error, Refusal};
    match error {
        Error::Canceled(_) => Some(CANCELED),
        Error::Interrupted { source, .. } => Some(Verdict {
            hint: "run it again: what is stored is compared with the source and not stored again; \
                   with --no-resume it begins anew",
            ..judge(&**source)
        }),
        Error::Destination { .. } | Error::Image { .. }
            if judge_source(error).code == DISK_FULL =>
        {
            failed(
                DISK_FULL,
                "the destination is full; nothing was published and earlier images are intact: \
                 make room, or choose another folder",
            )
        }
        Error::SourceShrank { .. } => failed(
            "source_shrank",
            "nothing was published; stop what changes the source, or back up a copy of it",
        ),
        Error::Busy { .. } => failed("busy", "wait until the other backup is done"),
        Error::ReadBack { .. } => failed(
            "read_back",
            "nothing was published; the destination returns other bytes than it was given",
        ),
        Error::Refused(Refusal::InUse { .. }) => refused(
            "source_in_use",
            "unmount it or mount it read-only; with --live it is read as it is, and the point \
             is marked inconsistent; with --freeze or --snapshot it is kept from changing",
        ),
        Error::Refused(Refusal::Empty) => refused("source_empty", "check the source"),
        Error::Refused(Refusal::ExcludeFromAll) => {
            refused("exclude_from_all", "leave one of the two options away")
        }
        Error::Refused(Refusal::SplitSize { .. }) => {
            refused("split_size", "nothing was written: give a larger size with --split")
        }
        Error::Refused(Refusal::WithoutKey) => refused(
            "set_has_key",
            "add --seal and what opens the images, or use another folder for images without a key",
        ),
        Error::Refused(Refusal::OtherMode) => refused(
            "other_protection",
            "leave out --seal or --authenticate to go on as the images are, or begin a chain of the \
             other kind with --full",
        ),
        Error::Refused(Refusal::OtherKey) => Some(Verdict {
            code: "wrong_key",
            exit: Exit::Locked,
            hint: "give what opens the images of this source, or make a full image with --full",
        }),
        Error::Refused(Refusal::NoSlots) => {
            refused("key_slots_damaged", "make a full image with --full")
        }
        Error::Refused(_) => refused("block_size", "leave the block size to Aivory"),
        _ => None,
    }
}

fn judge_chain(error: &aiv_chain::Error) -> Option<Verdict> {
    use aiv_chain::Error;
    if let Some(about_keys) = keys::judge_chain(error) {
        return Some(about_keys);
    }
    match error {
        Error::Canceled(_) => Some(CANCELED),
        Error::File(error) => Some(judge(error)),
        Error::Key(error) => Some(judge(error)),
        Error::Image { file, source } if is_unfinished(file, source) => failed(
            "unfinished",
            "it was never finished: the next backup or merge goes on with it, or removes it and \
                 begins anew",
        ),
        Error::NotRestorable { .. } => Some(Verdict {
            code: "chain_broken",
            exit: Exit::Damage,
            hint: "put the missing image back into the folder, or use an older point: `aiv list \
                   DIR` shows which can be restored",
        }),
        Error::Busy { .. } => failed("busy", "wait until the other merge or copy is done"),
        Error::NoSpace { .. } => failed(
            DISK_FULL,
            "nothing was removed and nothing was published: make room, or keep more points",
        ),
        Error::SplitSize { .. } => {
            refused("split_size", "nothing was written: give a larger size with --split")
        }
        Error::ReadBack { .. } => failed(
            "read_back",
            "nothing was published; the destination returns other bytes than it was given",
        ),
        Error::NoChain { .. } => Some(salvage::NO_CHAIN),
        Error::PlainBesideKeyed { .. } => {
            refused("without_key", "nothing was written: leave out --plain, or name another folder")
        }
        Error::Changed { .. } => failed("changed", "run it again"),
        Error::InDoubt { .. } => {
            failed("in_doubt", "nothing was removed: mend or move that file away, then try again")
        }
        Error::Needed { .. } => {
            refused("point_needed", "nothing was written: copy instead, or move the whole folder")
        }
        Error::SameFolder => refused("same_folder", "choose another folder"),
        Error::NoSuchPoint { .. } => {
            failed("no_such_point", "`aiv list DIR` shows what the folder holds")
        }
        Error::Ambiguous { .. } => {
            failed("ambiguous", "name the set, as in DIR@NAME:latest, or give more of the id")
        }
        _ => None,
    }
}

/// Whether an image under its temporary name ends before it is one.
fn is_unfinished(file: &str, error: &ImageError) -> bool {
    let is_ours = || file.contains(".aiv.") || file.contains(".aii.");
    file.ends_with(".part")
        && match error {
            ImageError::Incomplete { .. } | ImageError::Segments(_) => true,
            // It has not even a superblock yet.
            ImageError::Foreign(_) => is_ours(),
            _ => false,
        }
}

fn judge_image(error: &ImageError) -> Option<Verdict> {
    match error {
        ImageError::Canceled(_) => Some(CANCELED),
        ImageError::Parent { source, .. } => judge_image(source),
        ImageError::Corrupt(_) => Some(DAMAGED),
        ImageError::Locked { .. }
        | ImageError::WrongKey { .. }
        | ImageError::Forged { .. }
        | ImageError::NotKeyed => keys::judge_image(error),
        ImageError::Incomplete { .. } => Some(Verdict {
            code: "incomplete",
            exit: Exit::Damage,
            hint: "copy it again from where it came from, use another point, or get out what is \
                   left: `aiv salvage`",
        }),
        ImageError::Segments(_) => Some(Verdict {
            code: "segments",
            exit: Exit::Damage,
            hint: "put all the files of the image into one folder, and name the first of them; \
                   `aiv verify` without a key proves one of the others alone, and `aiv salvage` reads it",
        }),
        ImageError::Unsalvageable(error) => salvage::judge_salvage(error),
        ImageError::Foreign(_) => failed(
            "foreign",
            "other products use the extension .aiv too; their formats are closed: restore with \
             the product that wrote it",
        ),
        ImageError::Unsupported(Unsupported::Version { .. }) => {
            failed("version", "a newer Aivory is needed to read this image")
        }
        ImageError::Unsupported(Unsupported::Features { .. }) => {
            failed("feature", "a newer Aivory is needed to read this image")
        }
        _ => None,
    }
}

fn judge_volume(error: &aiv_volume_io::Error) -> Option<Verdict> {
    match error {
        aiv_volume_io::Error::Canceled(_) => Some(CANCELED),
        aiv_volume_io::Error::NotOneDevice { .. } => refused(
            "no_such_device",
            "`aiv devices` lists serial numbers; a path names one of several",
        ),
        aiv_volume_io::Error::NotADisk { .. } => failed(
            "not_a_disk",
            "name a file or a block device; an image in a folder is called DIR@latest",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, ErrorKind};

    use super::*;
    use crate::Failure;
    use aiv_backup_engine as backup;
    use aiv_image_format::{Corrupt, Foreign};
    use aiv_restore_engine::{self as restore, Refusal};
    use aiv_volume_io::Canceled;

    fn io(kind: ErrorKind) -> io::Error {
        kind.into()
    }

    fn of(error: impl Error + 'static) -> (&'static str, u8) {
        let verdict = Failure::of(&error).verdict;
        assert!(!verdict.hint.is_empty() && !verdict.hint.ends_with('.'), "{}", verdict.hint);
        (verdict.code, verdict.exit.status())
    }

    fn corrupt() -> Corrupt {
        let page = vec![0; 4096];
        let disk =
            aiv_volume_io::MemDisk::from_bytes([b"\x89AIV\r\n\x1a\n".as_slice(), &page].concat());
        match aiv_image_format::Image::open(std::sync::Arc::new(disk)) {
            Err(ImageError::Corrupt(corrupt)) => corrupt,
            other => panic!("a superblock of zeros is {:?}", other.err()),
        }
    }

    #[test]
    fn damage_of_an_image_is_damage_when_a_filesystem_in_it_is_read() {
        let image = ImageError::Corrupt(corrupt());
        let source = io::Error::new(ErrorKind::InvalidData, image);
        let source = aiv_filesystems::Error::Io { op: "read inode", offset: 7, source };
        assert_eq!(of(source), ("damaged", 4));
        let file = "a.aiv".to_owned();
        let image = aiv_chain::Error::Image { file, source: ImageError::Corrupt(corrupt()) };
        assert_eq!(of(io::Error::new(ErrorKind::InvalidData, image)), ("damaged", 4));
    }

    #[test]
    fn cancellation_is_130_from_every_layer() {
        assert_eq!(of(backup::Error::Canceled(Canceled)), ("canceled", 130));
        let source = Box::new(backup::Error::Canceled(Canceled));
        assert_eq!(of(backup::Error::Interrupted { at: 7, source }), ("canceled", 130));
        assert_eq!(of(restore::Error::Canceled(Canceled)), ("canceled", 130));
        assert_eq!(of(aiv_chain::Error::Canceled(Canceled)), ("canceled", 130));
        assert_eq!(of(ImageError::Canceled(Canceled)), ("canceled", 130));
        assert_eq!(of(aiv_volume_io::Error::Canceled(Canceled)), ("canceled", 130));
        assert_eq!(of(Canceled), ("canceled", 130));
    }

    #[test]
    fn damage_is_4_however_deep_it_was_found() {
        assert_eq!(of(ImageError::Corrupt(corrupt())), ("damaged", 4));
        let in_chain = || aiv_chain::Error::Image {
            file: "a.aiv".to_owned(),
            source: ImageError::Corrupt(corrupt()),
        };
        assert_eq!(of(in_chain()), ("damaged", 4));
        assert_eq!(of(restore::Error::View(in_chain())), ("damaged", 4));
        assert_eq!(of(restore::Error::Undecided { block: 3 }), ("damaged", 4));
        assert_eq!(of(ImageError::Incomplete { len: 9 }), ("incomplete", 4));
    }

    #[test]
    fn an_incomplete_file_under_a_temporary_name_is_unfinished_and_no_damage() {
        let named = |file: &str| aiv_chain::Error::Image {
            file: file.to_owned(),
            source: ImageError::Incomplete { len: 9 },
        };
        assert_eq!(of(named("a.aiv.part")), ("unfinished", 1));
        assert_eq!(of(named("a.aiv")), ("incomplete", 4));
        let segment = |file: &str| aiv_chain::Error::Image {
            file: file.to_owned(),
            source: aiv_image_format::SegmentError::Count { told: 2, number: 1 }.into(),
        };
        assert_eq!(of(segment("a.aiv.p002.part")), ("unfinished", 1));
        assert_eq!(of(segment("a.aiv.p002")), ("segments", 4));
    }

    #[test]
    fn files_that_are_not_ours_or_too_new_fail() {
        assert_eq!(of(ImageError::Foreign(Foreign::TooShort { len: 1 })), ("foreign", 1));
        let version = Unsupported::Version { major: 9, minor: 0 };
        assert_eq!(of(ImageError::Unsupported(version)), ("version", 1));
        let feature = Unsupported::Features { bits: 1, names: "sealed".to_owned() };
        assert_eq!(of(ImageError::Unsupported(feature)), ("feature", 1));
    }

    #[test]
    fn a_full_destination_says_that_earlier_images_are_intact() {
        let appending =
            ImageError::Io { op: "append", offset: 7, source: io(ErrorKind::StorageFull) };
        let error = backup::Error::Image { image: "a.aiv".to_owned(), source: appending };
        let failure = Failure::of(&error);
        assert_eq!(failure.verdict.code, "disk_full");
        assert!(failure.verdict.hint.contains("earlier images are intact"));
        let creating = backup::Error::Destination {
            op: "creating a.aiv.part".to_owned(),
            source: io(ErrorKind::StorageFull),
        };
        assert_eq!(Failure::of(&creating).verdict, failure.verdict);
    }

    #[test]
    fn what_a_job_passes_on_from_below_keeps_its_meaning() {
        let busy = backup::Error::Busy { source_id: "gpt:1".to_owned() };
        assert_eq!(of(aiv_jobs::Error::from(busy)), ("busy", 1));
        let refusal = backup::Refusal::InUse { uses: "swap".to_owned() };
        let refused = aiv_jobs::Error::from(backup::Error::from(refusal));
        assert_eq!(of(refused), ("source_in_use", 5));
        assert_eq!(of(aiv_jobs::Error::from(backup::Error::Canceled(Canceled))).1, 130);
        let source = io(ErrorKind::NotFound);
        let missing = aiv_volume_io::Error::Path { op: "open", path: "/x".into(), source };
        assert_eq!(of(aiv_jobs::Error::from(missing)), ("not_found", 1));
        let both = aiv_jobs::Error::HookToo {
            hook: aiv_jobs::Hook::PostThaw,
            failure: "exit status: 1".to_owned(),
            source: Box::new(backup::Error::Canceled(Canceled).into()),
        };
        assert_eq!(of(both), ("canceled", 130));
        let full = aiv_jobs::SnapshotError::Overflow { name: "vg/aiv-1".to_owned() };
        assert_eq!(of(aiv_jobs::Error::from(full)), ("snapshot_overflow", 1));
        let limit = std::time::Duration::from_secs(60);
        let late = aiv_jobs::FreezeError::Expired { limit };
        assert_eq!(of(aiv_jobs::Error::from(late)), ("freeze_expired", 1));
        let root = aiv_jobs::Refusal::FreezesRoot;
        assert_eq!(of(aiv_jobs::Error::from(root)), ("freezes_root", 5));
        let many = aiv_jobs::Refusal::OneNameForMany;
        assert_eq!(of(aiv_jobs::Error::from(many)), ("usage", 2));
    }

    #[test]
    fn refusals_are_5() {
        let target = || "/dev/sdb".to_owned();
        for refusal in [
            Refusal::HoldsImage { target: target() },
            Refusal::IsImage { target: target() },
            Refusal::VirtualDisk { target: target(), format: "qcow2" },
            Refusal::InUse { target: target(), uses: Vec::new() },
            Refusal::ReadOnly { target: target() },
            Refusal::TooSmall { target: target(), needed: 2, len: 1 },
            Refusal::SectorSize { target: target(), needed: 512, found: 4096 },
            Refusal::OverlappingPartition { number: 1 },
            Refusal::PartitionTooFar { target: target(), number: 1, end: 3, needed: 4, len: 2 },
            Refusal::Table { target: target(), unfit: restore::Unfit::Hybrid },
            Refusal::NothingToGrow("a single partition"),
            Refusal::OtherCopy { target: target() },
            Refusal::SameTarget { target: target() },
            Refusal::SameIdentity { target: target(), other: String::new(), id: String::new() },
            Refusal::CannotShrink {
                target: target(),
                number: 1,
                filesystem: String::new(),
                from: 2,
                to: 1,
                why: "no tool".to_owned(),
            },
            Refusal::NoNewIdentity("a single partition"),
            Refusal::OtherTarget { target: target(), saved_from: "/dev/sdc".to_owned() },
            Refusal::OtherLength { target: target(), planned: 2, len: 1 },
            Refusal::Sectors {
                target: target(),
                needed: 512,
                found: 4096,
                number: 1,
                holds: "vfat".to_owned(),
                why: restore::Unusable::Stated,
            },
        ] {
            assert_eq!(of(restore::Error::Refused(refusal)).1, 5);
        }
        for refusal in [
            backup::Refusal::InUse { uses: "swap".to_owned() },
            backup::Refusal::Empty,
            backup::Refusal::BlockSize { len: 1, block_size: 1 },
            backup::Refusal::SplitSize { bytes: 3, split: 1, needed: 2 },
        ] {
            assert_eq!(of(backup::Error::Refused(refusal)).1, 5);
        }
    }

    #[test]
    fn the_message_is_the_whole_chain_of_causes_once() {
        let error = backup::Error::Folder(aiv_chain::Error::Io {
            op: "listing the folder".to_owned(),
            source: io(ErrorKind::PermissionDenied),
        });
        let failure = Failure::of(&error);
        let message = "looking through the destination folder failed: listing the folder failed: \
                       permission denied";
        assert_eq!(failure.message, message);
        assert_eq!(failure.verdict.code, "permission_denied");
        let json = failure.about("/dev/sda").to_json();
        assert_eq!(json["error"]["code"], "permission_denied");
        assert_eq!(json["error"]["message"], format!("/dev/sda: {message}"));
    }

    #[test]
    fn an_error_nobody_knows_is_a_failure_all_the_same() {
        assert_eq!(of(std::fmt::Error), ("failed", 1));
    }
}
