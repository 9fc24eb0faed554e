//! Volumes whose used blocks cannot be told from the volume alone, and why: encryption hides
//! them, they belong to a whole of which this is a part, or there is no free space at all.

use aiv_volume_io::ReadAt;

use crate::bytes::be16;
use crate::{Error, FilesystemKind, Result, UsedMap, WholeReason};

/// The answer for a kind that has no map of its own.
pub(crate) fn used_map(volume: &dyn ReadAt, kind: FilesystemKind) -> Result<UsedMap> {
    let assembled = "; to leave out free space, back up the assembled device";
    let part = |of, advice| WholeReason::PartOf { of, advice };
    let reason = match kind {
        FilesystemKind::LuksContainer => WholeReason::Encrypted { by: luks(volume)? },
        FilesystemKind::BitLocker => WholeReason::Encrypted { by: "BitLocker" },
        FilesystemKind::MdRaidMember => part("a Linux software RAID (md)", assembled),
        FilesystemKind::Bcache => part("a bcache device", assembled),
        FilesystemKind::DmIntegrity => part("a device with dm-integrity", assembled),
        FilesystemKind::Vdo => part("a VDO volume", assembled),
        FilesystemKind::Zfs => part("a ZFS pool", ""),
        FilesystemKind::ExtJournal => part("an ext filesystem on another device", ""),
        FilesystemKind::Squashfs | FilesystemKind::Erofs | FilesystemKind::Iso9660 => {
            WholeReason::NoFreeSpace { kind }
        }
        FilesystemKind::Unknown => WholeReason::UnknownFilesystem,
        kind => WholeReason::NoMap { kind },
    };
    Ok(UsedMap::Whole { reason })
}

fn luks(volume: &dyn ReadAt) -> Result<&'static str> {
    let mut start = [0; 8];
    if volume.len() < 8 {
        return Ok("LUKS");
    }
    volume.read_exact_at(&mut start, 0).map_err(Error::io("read LUKS header", 0))?;
    Ok(match be16(&start, 6) {
        1 => "LUKS1",
        2 => "LUKS2",
        _ => "LUKS",
    })
}
