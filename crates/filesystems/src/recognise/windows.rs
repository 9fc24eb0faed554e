use super::head::Head;
use super::{Recognised, text};
use crate::bytes::{array, le16, le32, le64};
use crate::{FilesystemKind, Result};

/// Clusters of an exFAT root directory looked through for the label, which the formatter
/// writes into the first one.
const EXFAT_ROOT_CLUSTERS_MAX: usize = 16;
/// Bytes of each such cluster looked at: clusters may be 32 MiB.
const EXFAT_ROOT_BYTES_MAX: usize = 4 << 10;

/// BitLocker, on fixed disks from Windows Vista on, and "To Go" with its FAT disguise.
pub(super) fn bitlocker(head: &Head<'_>) -> Result<Option<Recognised>> {
    const GUID: [u8; 16] = [
        0x3b, 0xd6, 0x67, 0x49, 0x29, 0x2e, 0xd8, 0x4a, 0x83, 0x99, 0xf6, 0xa3, 0x39, 0xe3, 0xd0,
        0x01,
    ];
    let fixed = head.with_magic(0, 512, 3, b"-FVE-FS-").is_some();
    let to_go = head.with_magic(0, 512, 3, b"MSWIN4.1").is_some_and(|boot| boot[424..440] == GUID);
    Ok((fixed || to_go).then(|| Recognised::new(FilesystemKind::BitLocker)))
}

pub(super) fn refs(head: &Head<'_>) -> Result<Option<Recognised>> {
    let found = head.with_magic(0, 512, 3, b"ReFS\0\0\0\0").is_some();
    Ok(found.then(|| Recognised::new(FilesystemKind::ReFs)))
}

pub(super) fn ntfs(head: &Head<'_>) -> Result<Option<Recognised>> {
    let Some(boot) = head.with_magic(0, 512, 3, b"NTFS    ") else { return Ok(None) };
    let sector_size = u32::from(le16(boot, 11));
    // Above 128 the byte is the negative logarithm: clusters of more than 64 KiB.
    let sectors_per_cluster = match boot[13] {
        n @ 1..=128 => u32::from(n),
        n => 1u32.checked_shl(256 - u32::from(n)).unwrap_or(0),
    };
    let cluster_size = match sector_size.checked_mul(sectors_per_cluster) {
        Some(size) if sector_size.is_power_of_two() && size.is_power_of_two() => size,
        _ => return Ok(None),
    };
    let mut found = Recognised::new(FilesystemKind::Ntfs);
    found.uuid = format!("{:016X}", le64(boot, 72));
    found.block_size = Some(cluster_size);
    // The sector after the filesystem's last holds the second boot sector.
    found.size = le64(boot, 40).checked_add(1).and_then(|n| n.checked_mul(sector_size.into()));
    found.label = ntfs_label(head, boot, cluster_size)?.unwrap_or_default();
    Ok(Some(found))
}

/// The label is the `$VOLUME_NAME` attribute of file record 3, `$Volume`.
fn ntfs_label(head: &Head<'_>, boot: &[u8], cluster_size: u32) -> Result<Option<String>> {
    let [record_size] = array::<1>(boot, 64);
    let record_size = match record_size.cast_signed() {
        clusters @ 1.. => u32::from(clusters.unsigned_abs()).checked_mul(cluster_size),
        log => 1u32.checked_shl(log.unsigned_abs().into()),
    };
    let Some(record_size @ 512..=65_536) = record_size else { return Ok(None) };
    let Some(at) = le64(boot, 48)
        .checked_mul(cluster_size.into())
        .and_then(|mft| mft.checked_add(3 * u64::from(record_size)))
    else {
        return Ok(None);
    };
    let Some(record) = head.far(at, record_size as usize)? else { return Ok(None) };
    Ok(volume_name(&record))
}

fn volume_name(record: &[u8]) -> Option<String> {
    const VOLUME_NAME: u32 = 0x60;
    if !record.starts_with(b"FILE") {
        return None;
    }
    let mut at = usize::from(le16(record, 20));
    loop {
        let attribute = record.get(at..)?;
        let header = attribute.get(..24)?;
        let len = usize::try_from(le32(header, 4)).ok()?;
        match le32(header, 0) {
            // Resident: the value follows the header.
            VOLUME_NAME if header[8] == 0 => {
                let start = usize::from(le16(header, 20));
                let value_len = usize::try_from(le32(header, 16)).ok()?;
                return Some(text::label_utf16le(
                    attribute.get(start..start.checked_add(value_len)?)?,
                ));
            }
            u32::MAX => return None,
            // Each step is at least one header further, so the walk ends with the record.
            _ if len < 24 => return None,
            _ => at = at.checked_add(len)?,
        }
    }
}

pub(super) fn exfat(head: &Head<'_>) -> Result<Option<Recognised>> {
    let Some(boot) = head.with_magic(0, 512, 3, b"EXFAT   ") else { return Ok(None) };
    let (sector_shift, cluster_shift) = (u32::from(boot[108]), u32::from(boot[109]));
    if !(9..=12).contains(&sector_shift) || sector_shift + cluster_shift > 25 {
        return Ok(None);
    }
    let mut found = Recognised::new(FilesystemKind::ExFat);
    found.uuid = text::serial32(le32(boot, 100));
    found.block_size = Some(1 << (sector_shift + cluster_shift));
    found.size = le64(boot, 72).checked_mul(1 << sector_shift);
    found.label = exfat_label(head, boot)?.unwrap_or_default();
    Ok(Some(found))
}

fn exfat_label(head: &Head<'_>, boot: &[u8]) -> Result<Option<String>> {
    const VOLUME_LABEL: u8 = 0x83;
    let (sector_shift, cluster_shift) = (u32::from(boot[108]), u32::from(boot[109]));
    let fat_at = u64::from(le32(boot, 80)) << sector_shift;
    let heap_at = u64::from(le32(boot, 88)) << sector_shift;
    let clusters = le32(boot, 92);
    let mut cluster = le32(boot, 96);
    for _ in 0..EXFAT_ROOT_CLUSTERS_MAX {
        if cluster < 2 || cluster - 2 >= clusters {
            break;
        }
        let at = heap_at + (u64::from(cluster - 2) << (sector_shift + cluster_shift));
        let len = (1usize << (sector_shift + cluster_shift)).min(EXFAT_ROOT_BYTES_MAX);
        let Some(entries) = head.far(at, len)? else { break };
        for entry in entries.as_chunks::<32>().0 {
            match entry[0] {
                0 => return Ok(None),
                VOLUME_LABEL => {
                    let units = usize::from(entry[1]).min(11);
                    return Ok(Some(text::label_utf16le(&entry[2..2 + 2 * units])));
                }
                _ => {}
            }
        }
        let Some(next) = head.far(fat_at + 4 * u64::from(cluster), 4)? else { break };
        cluster = le32(&next, 0);
    }
    Ok(None)
}
