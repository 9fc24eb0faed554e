//! From `$Bitmap` to used bytes.

use aiv_volume_io::{Extent, ExtentSet, Job, ReadAt};

use super::bitmap::Bitmap;
use super::boot::{BOOT_SECTOR_SIZE, Geometry};
use super::log;
use super::mft::Mft;
use super::reason::NtfsReason;
use super::record::{VOLUME_INFORMATION, Value};
use super::shadow;
use super::stream::Disk;
use super::walk;
use crate::bytes::le16;
use crate::runs::{RUNS_MAX, RunCollector};
use crate::stop::Stop;
use crate::{Error, MapNote, UsedMap};

pub(super) const LOG: u64 = 2;
pub(super) const VOLUME: u64 = 3;
const BITMAP: u64 = 6;
const BOOT: u64 = 7;

const STRIDE: usize = 1 << 20;
/// How much of an empty log is looked through: Windows makes none larger by itself.
const EMPTY_LOG_MAX: u64 = 64 << 20;

pub(super) fn read(volume: &dyn ReadAt, job: Job<'_>) -> Result<UsedMap, Stop> {
    let disk = Disk { volume, geometry: geometry(volume)? };
    let mft = Mft::open(&disk, job)?;
    check_volume(&mft)?;
    log::check_clean(&disk, &mft.file(LOG, job)?, EMPTY_LOG_MAX, job)?;
    if mft.file(BOOT, job)?.first_lcn() != Some(0) {
        let what = "does not begin with the volume";
        return Err(NtfsReason::SystemFile { record: BOOT, what }.into());
    }
    shadow::check_none(&disk)?;
    let mut bitmap = bitmap(&mft, job)?;
    let allocated = walk::allocated(&mft, &bitmap, job)?;
    let missing = bitmap.add(&allocated);
    let mut notes = Vec::new();
    if missing > 0 {
        notes.push(MapNote::NotInBitmap { clusters: missing });
    }
    keep_middle(&disk, &mut bitmap)?;
    let used = used_bytes(&disk, &bitmap, job)?;
    Ok(UsedMap::Used { used, cluster_size: disk.geometry.cluster_size, notes })
}

pub(super) fn geometry(volume: &dyn ReadAt) -> Result<Geometry, Stop> {
    Ok(Geometry::parse(&boot_sector(volume)?, volume.len())?)
}

/// The same of a volume that may have been cut off, and how many bytes of it are missing.
pub(super) fn geometry_of_rest(volume: &dyn ReadAt) -> Result<(Geometry, u64), Stop> {
    let boot = boot_sector(volume)?;
    match Geometry::parse(&boot, volume.len()) {
        Err(NtfsReason::LargerThanVolume { filesystem, volume }) => {
            Ok((Geometry::parse(&boot, filesystem)?, filesystem - volume))
        }
        geometry => Ok((geometry?, 0)),
    }
}

fn boot_sector(volume: &dyn ReadAt) -> Result<[u8; BOOT_SECTOR_SIZE], Stop> {
    let mut boot = [0; BOOT_SECTOR_SIZE];
    if volume.len() < boot.len() as u64 {
        return Err(NtfsReason::NoBootSector.into());
    }
    volume.read_exact_at(&mut boot, 0).map_err(Error::io("read boot sector", 0))?;
    Ok(boot)
}

/// `$Volume` names a version that is known, and says that nothing has to be repaired.
fn check_volume(mft: &Mft<'_>) -> Result<(), Stop> {
    let mut buffer = Vec::new();
    let record = mft.base_record(VOLUME, &mut buffer)?;
    let information = record.find(VOLUME_INFORMATION, &[], 0)?.map(|attribute| attribute.value);
    let value = if let Some(Value::Resident(value)) = information { value } else { &[] };
    Ok(check_information(value)?)
}

/// The same of the information in `$Volume`.
pub(super) fn check_information(value: &[u8]) -> Result<(), NtfsReason> {
    /// Dirty, and "chkdsk is at work".
    const DIRTY: u16 = 0x4001;
    /// Resize the log, upgrade at mount, mounted by NT 4, delete the change journal, repair
    /// object identities, changed by chkdsk: nothing of it concerns the bitmap. 0x80 has no
    /// name in any source; every volume that Windows 10 mounted carries it.
    const KNOWN: u16 = DIRTY | 0x80be;
    let what = "has no volume information";
    let value = value.get(..12).ok_or(NtfsReason::SystemFile { record: VOLUME, what })?;
    let (major, minor, flags) = (value[8], value[9], le16(value, 10));
    // NT 3.51 and 4, Windows 2000, Windows XP and later.
    if !matches!((major, minor), (1, 2) | (3, 0 | 1)) {
        return Err(NtfsReason::Version { major, minor });
    }
    if flags & DIRTY != 0 {
        return Err(NtfsReason::Dirty { flags });
    }
    if flags & !KNOWN != 0 {
        return Err(NtfsReason::UnknownFlags { flags: flags & !KNOWN });
    }
    Ok(())
}

/// `$Bitmap` as it is on the volume.
fn bitmap(mft: &Mft<'_>, job: Job<'_>) -> Result<Bitmap, Stop> {
    let stream = mft.file(BITMAP, job)?;
    let clusters = mft.disk.geometry.clusters;
    let expected = Bitmap::stored_len(clusters);
    if stream.size != expected {
        return Err(NtfsReason::BitmapSize { found: stream.size, expected }.into());
    }
    // Bits that were never written would read as free.
    if stream.initialised != stream.size {
        return Err(
            NtfsReason::SystemFile { record: BITMAP, what: "is not written to its end" }.into()
        );
    }
    // Its bytes exist on the volume, which bounds what is allocated here.
    let mut bitmap = Bitmap::empty(clusters);
    let mut at = 0;
    for piece in bitmap.bytes_mut().chunks_mut(STRIDE) {
        job.check()?;
        stream.read(mft.disk, "read $Bitmap", at, piece)?;
        at += piece.len() as u64;
    }
    if bitmap.is_padded() { Ok(bitmap) } else { Err(NtfsReason::Padding.into()) }
}

/// A copy of the boot sector in the middle of the volume belongs to no file.
fn keep_middle(disk: &Disk<'_>, bitmap: &mut Bitmap) -> Result<(), Stop> {
    let mut boot = [0; BOOT_SECTOR_SIZE];
    let mut middle = [0; BOOT_SECTOR_SIZE];
    disk.read("read boot sector", 0, &mut boot)?;
    let at = disk.geometry.middle;
    // A sector may be smaller than a boot sector; half of a volume is not.
    disk.read("read middle boot sector", at, &mut middle)?;
    if boot == middle {
        let cluster_size = u64::from(disk.geometry.cluster_size);
        let first = at / cluster_size;
        let end = (at + boot.len() as u64).div_ceil(cluster_size).min(disk.geometry.clusters);
        bitmap.claim(first, end.saturating_sub(first));
    }
    Ok(())
}

fn used_bytes(disk: &Disk<'_>, bitmap: &Bitmap, job: Job<'_>) -> Result<ExtentSet, Stop> {
    let geometry = &disk.geometry;
    let mut runs = RunCollector::new(RUNS_MAX);
    for (start, end) in bitmap.runs() {
        job.check()?;
        runs.push(Extent::between(geometry.offset_of(start), geometry.offset_of(end)));
    }
    // The copy of the boot sector lies in the last sector of the partition, behind all
    // clusters and behind the sectors the boot sector counts.
    runs.push(Extent::between(geometry.end(), disk.volume.len()));
    Ok(runs.finish())
}
