//! What lies on a volume, from its signatures.

mod apple;
mod bsd;
mod containers;
mod ext;
mod fat;
mod head;
mod linux;
mod others;
mod raid;
mod read_only;
mod text;
mod udf;
mod windows;

use aiv_volume_io::ReadAt;

use crate::{FilesystemKind, Result};
use head::Head;

/// A filesystem or container found on a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recognised {
    /// What it is.
    pub kind: FilesystemKind,
    /// The label its owner gave it, empty when there is none. Bytes that are no text are shown
    /// as U+FFFD.
    pub label: String,
    /// Its identity as `blkid` writes it: a UUID, or the serial number of FAT (`1234-ABCD`) and
    /// NTFS (16 hexadecimal digits). Empty when there is none.
    pub uuid: String,
    /// Unit of allocation in bytes: block, or cluster for FAT, exFAT and NTFS.
    pub block_size: Option<u32>,
    /// Size in bytes the filesystem claims, which may be more than the volume has.
    pub size: Option<u64>,
    /// Further kinds whose signatures are present although they cannot be what the volume
    /// holds now: left-overs that make the answer doubtful. Empty for containers, whose
    /// contents may show through.
    pub also: Vec<FilesystemKind>,
}

impl Recognised {
    /// Something of which only the kind is known.
    #[must_use]
    pub fn new(kind: FilesystemKind) -> Self {
        Self {
            kind,
            label: String::new(),
            uuid: String::new(),
            block_size: None,
            size: None,
            also: Vec::new(),
        }
    }
}

type Probe = fn(&Head<'_>) -> Result<Option<Recognised>>;

/// Containers first: what they hold may show its own signature. Then whoever has the longer
/// magic; FAT, which has none to speak of, comes last.
const PROBES: &[Probe] = &[
    raid::md_member,
    containers::luks,
    containers::lvm2,
    containers::zfs,
    containers::bcache,
    containers::dm_integrity,
    containers::vdo,
    windows::bitlocker,
    windows::ntfs,
    windows::exfat,
    windows::refs,
    linux::xfs,
    linux::btrfs,
    ext::ext,
    linux::f2fs,
    linux::swap,
    linux::swap_suspended,
    read_only::squashfs,
    read_only::erofs,
    read_only::iso9660,
    apple::apfs,
    apple::hfs_plus,
    apple::hfs,
    bsd::ufs,
    fat::fat,
];

/// Kinds that are looked for where there is none of those: of some the magic is short, and what is left
/// of others must not make what is there now doubtful.
const NAMES: &[Probe] = &[
    udf::udf,
    others::jfs,
    others::reiser,
    others::nilfs2,
    others::ocfs2,
    others::gfs2,
    others::bcachefs,
    others::vmfs,
    others::cramfs,
    others::romfs,
    others::bfs,
    others::minix,
];

/// Names the filesystem on `volume` from its signatures.
///
/// Only what is needed to tell kinds apart, and to show label and identity, is checked; a
/// damaged filesystem is still recognised. Reads the first 256 KiB, some small records behind them, two
/// near the end and, for the label of NTFS, FAT, exFAT and HFS+, at most 256 KiB of its folders.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io) when the medium fails.
pub fn recognise(volume: &dyn ReadAt) -> Result<Recognised> {
    let head = Head::read(volume)?;
    let mut found: Option<Recognised> = None;
    for probe in PROBES {
        let Some(match_) = probe(&head)? else { continue };
        match &mut found {
            None if match_.kind.is_container() => return Ok(match_),
            None => found = Some(match_),
            Some(first) => first.also.push(match_.kind),
        }
    }
    if let Some(found) = found {
        return Ok(found);
    }
    for probe in NAMES {
        if let Some(found) = probe(&head)? {
            return Ok(found);
        }
    }
    Ok(Recognised::new(FilesystemKind::Unknown))
}

/// The first kind other than `kind` whose signature is on `volume`, containers included.
pub(crate) fn beside(volume: &dyn ReadAt, kind: FilesystemKind) -> Result<Option<FilesystemKind>> {
    let head = Head::read(volume)?;
    for probe in PROBES {
        if let Some(found) = probe(&head)?.filter(|found| found.kind != kind) {
            return Ok(Some(found.kind));
        }
    }
    Ok(None)
}
