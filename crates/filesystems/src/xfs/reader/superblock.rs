//! The superblock as a reader of files needs it, and its copies.
//!
//! Less is asked than for a map: what only concerns free space may be unknown, a log may lie
//! elsewhere, and the filesystem may be longer than what is left of the volume. Where the first
//! superblock is damaged, the copies at the beginning of the other groups are looked for, first
//! where the damaged one says that groups begin, then where mkfs puts them by itself. A copy is
//! used when the root folder is where it says.

use aiv_volume_io::{Job, ReadAt};

use super::super::checksum;
use super::super::features::{
    FEATURES2_CRC, FEATURES2_KNOWN, INCOMPAT_KNOWN, INCOMPAT_META_UUID, INCOMPAT_NEEDSREPAIR,
    VERSION_BITS_KNOWN, VERSION_NUMBER,
};
use super::super::log;
use super::super::reason::XfsReason;
use super::super::superblock::{CRC_AT, MAGIC, SECTOR_SIZE_MAX, log_place, root_inode, sizes};
use super::layout::{Layout, Shape};
use super::replay::{self, Overlay};
use crate::bytes::{array, be16, be32, be64};
use crate::reader::{ReaderNote, VolumeOf};
use crate::stop::Stop;
use crate::{Error, Result};

/// Names without case.
const VERSION_CASELESS: u16 = 0x4000;
/// Folders as they are since 2001.
const VERSION_FOLDERS_2: u16 = 0x2000;
const FEATURES2_TYPES: u32 = 0x200;
const INCOMPAT_TYPES: u32 = 0x1;
/// Groups that mkfs makes of a disk, the usual numbers first.
const GROUPS_GUESSED: [u64; 12] = [4, 2, 1, 3, 8, 16, 32, 5, 6, 7, 24, 64];
const BLOCK_SIZES_GUESSED: [u64; 5] = [4096, 1024, 2048, 512, 65_536];
/// Copies that are tried.
const COPIES_MAX: u32 = 64;

/// The filesystem on a volume, and what is to be said of its state.
pub(super) fn read<'v>(
    volume: VolumeOf<'v>,
    job: Job<'_>,
) -> Result<(Layout<'v>, Vec<ReaderNote>)> {
    let first = sector(&volume, 0);
    let found = first.and_then(|sector| Ok((shape(&sector, Source::First)?, sector)));
    let mut notes = Vec::new();
    let (layout, sector) = match found {
        Ok((shape, sector)) => (Layout { volume, shape, overlay: None }, sector),
        Err(error @ (Error::Unsupported { .. } | Error::Canceled(_))) => return Err(error),
        Err(error) => {
            let (layout, sector) = from_copy(volume, job)?.ok_or(error)?;
            notes.push(ReaderNote::CopyUsed { what: "the superblock".to_owned() });
            (layout, sector)
        }
    };
    if layout.shape.self_describing && be32(&sector, 216) & INCOMPAT_NEEDSREPAIR != 0 {
        notes.push(ReaderNote::HasErrors);
    }
    let len = layout.shape.geometry.filesystem_len();
    if let Some(missing) = len.checked_sub(layout.volume.len()).filter(|&missing| missing > 0) {
        notes.push(ReaderNote::CutOff { missing });
    }
    let layout = match log_state(&layout, &sector, job)? {
        LogState::Empty => layout,
        LogState::Waiting(overlay) => {
            notes.push(ReaderNote::Replayed);
            replay::laid_over(layout, overlay)
        }
        LogState::Unknown(why) => {
            notes.push(ReaderNote::NotReplayed { why });
            layout
        }
    };
    Ok((layout, notes))
}

/// Where a superblock comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    First,
    /// Copies are never marked as finished.
    Copy,
    /// In the log it has an older checksum.
    Log,
}

enum LogState {
    Empty,
    /// Changes that are not in their places.
    Waiting(Overlay),
    /// Why it is not known whether there are any.
    Unknown(String),
}

/// What waits in the log.
fn log_state(layout: &Layout<'_>, sector: &[u8], job: Job<'_>) -> Result<LogState> {
    let mut geometry = layout.shape.geometry.clone();
    geometry.log = match log_place(sector, &geometry) {
        Ok(place) => place,
        Err(reason) => return Ok(LogState::Unknown(reason.to_string())),
    };
    let end = geometry.offset_of(geometry.log.group, geometry.log.block + geometry.log.blocks);
    if end > layout.volume.len() {
        return Ok(LogState::Unknown("the log lies behind the end of the volume".to_owned()));
    }
    match log::check_is_empty(layout.volume.data(), &geometry, &array(sector, 32)) {
        Ok(_) => return Ok(LogState::Empty),
        Err(Stop::Failed(error @ Error::Canceled(_))) => return Err(error),
        Err(_) => {}
    }
    match replay::overlay(layout, &geometry, sector, job) {
        Ok(overlay) => Ok(LogState::Waiting(overlay)),
        Err(error @ Error::Canceled(_)) => Err(error),
        Err(Error::Damaged { what, .. }) => Ok(LogState::Unknown(what)),
        Err(error) => Ok(LogState::Unknown(error.to_string())),
    }
}

/// The sector of a superblock.
fn sector(volume: &VolumeOf<'_>, offset: u64) -> Result<Vec<u8>> {
    let damaged = |what: String| Error::damaged(format!("superblock: {what}"), Some(offset));
    let mut sector = vec![0; 512];
    let read = |out: &mut [u8]| {
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > volume.len()) {
            return Err(damaged(XfsReason::NoSuperblock.to_string()));
        }
        volume.read_exact_at(out, offset).map_err(Error::io("read superblock", offset))
    };
    read(&mut sector)?;
    let size = be16(&sector, 102);
    if array(&sector, 0) != MAGIC {
        return Err(damaged("its magic is wrong".to_owned()));
    }
    if !size.is_power_of_two() || !(512..=SECTOR_SIZE_MAX).contains(&size) {
        return Err(damaged(format!("a sector of {size} bytes")));
    }
    sector.resize(size.into(), 0);
    read(&mut sector)?;
    Ok(sector)
}

/// What a superblock says of the files.
pub(super) fn shape(sector: &[u8], source: Source) -> Result<Shape> {
    let damaged = |what: String| Error::damaged(format!("superblock: {what}"), Some(0));
    let unsupported = |what: String| Error::Unsupported { what };
    let version = be16(sector, 100);
    let self_describing = match version & VERSION_NUMBER {
        4 => false,
        5 => true,
        found => return Err(damaged(XfsReason::Version { found }.to_string())),
    };
    if self_describing && source != Source::Log && !checksum::is_right(sector, CRC_AT) {
        return Err(damaged("its checksum is wrong".to_owned()));
    }
    let features2_known = FEATURES2_KNOWN | if self_describing { FEATURES2_CRC } else { 0 };
    let features2 = be32(sector, 200);
    let incompat = if self_describing { be32(sector, 216) } else { 0 };
    for (field, bits) in [
        ("sb_versionnum", u32::from(version & !VERSION_NUMBER & !VERSION_BITS_KNOWN)),
        ("sb_features2", features2 & !features2_known),
        ("sb_features_incompat", incompat & !INCOMPAT_KNOWN),
    ] {
        if bits != 0 {
            return Err(unsupported(XfsReason::UnknownFeatures { field, bits }.to_string()));
        }
    }
    if !self_describing && version & VERSION_FOLDERS_2 == 0 {
        return Err(unsupported("folders of version 1 of XFS are not read".to_owned()));
    }
    if sector[126] != 0 && source != Source::Copy {
        return Err(unsupported(XfsReason::InProgress.to_string()));
    }
    let wrong = |reason: XfsReason| damaged(reason.to_string());
    let mut geometry = sizes(sector, u64::MAX).map_err(wrong)?;
    geometry.root_inode = root_inode(sector, &geometry).map_err(wrong)?;
    let folder_log = u32::from(sector[192]);
    if folder_log + geometry.block_size.trailing_zeros() > 16 {
        return Err(damaged(format!("sb_dirblklog is {folder_log}")));
    }
    Ok(Shape {
        self_describing,
        meta_uuid: array(sector, if incompat & INCOMPAT_META_UUID != 0 { 248 } else { 32 }),
        inode_size: 1 << sector[122],
        inodes_log: sector[123].into(),
        folder_log,
        has_types: if self_describing {
            incompat & INCOMPAT_TYPES != 0
        } else {
            features2 & FEATURES2_TYPES != 0
        },
        ignores_case: version & VERSION_CASELESS != 0,
        root: be64(sector, 56),
        geometry,
    })
}

/// The filesystem by the first copy of the superblock that leads to a root folder.
fn from_copy<'v>(mut volume: VolumeOf<'v>, job: Job<'_>) -> Result<Option<(Layout<'v>, Vec<u8>)>> {
    for start in group_starts(&volume) {
        job.check()?;
        let Ok(found) = sector(&volume, start) else { continue };
        // Not every copy knows the root folder, but each knows where the others are.
        let group_len = u64::from(be32(&found, 84)) * u64::from(be32(&found, 4));
        let groups = be32(&found, 88);
        let others = (1..groups.min(COPIES_MAX)).rev();
        for group in [groups.wrapping_sub(1), groups / 2].into_iter().chain(others) {
            let Some(at) = group_len.checked_mul(group.into()) else { continue };
            let Ok(sector) = sector(&volume, at) else { continue };
            let Ok(shape) = shape(&sector, Source::Copy) else { continue };
            let geometry = &shape.geometry;
            if group == 0 || group >= geometry.groups || geometry.offset_of(group, 0) != at {
                continue;
            }
            let layout = Layout { volume, shape, overlay: None };
            if super::inode::Inode::read(&layout, layout.shape.root)
                .is_ok_and(|root| root.is_folder())
            {
                return Ok(Some((layout, sector)));
            }
            volume = layout.volume;
        }
    }
    Ok(None)
}

/// Where a second group may begin: by the damaged superblock, else by what mkfs likes.
fn group_starts(volume: &VolumeOf<'_>) -> Vec<u64> {
    let mut starts = Vec::new();
    let mut first = [0; 512];
    if volume.len() >= 512 && volume.read_exact_at(&mut first, 0).is_ok() {
        starts.push(u64::from(be32(&first, 84)) * u64::from(be32(&first, 4)));
    }
    for block_size in BLOCK_SIZES_GUESSED {
        let blocks = volume.len() / block_size;
        starts.extend(GROUPS_GUESSED.map(|groups| blocks.div_ceil(groups) * block_size));
        starts.extend(GROUPS_GUESSED.map(|groups| blocks / groups * block_size));
        // The largest group.
        starts.push((1 << 40) - block_size);
        starts.push(1 << 40);
    }
    starts.retain(|start| *start >= 32 << 10);
    starts
}
