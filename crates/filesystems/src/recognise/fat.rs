use super::head::Head;
use super::{Recognised, text};
use crate::bytes::{le16, le32};
use crate::{FilesystemKind, Result};

/// Clusters of a FAT32 root directory looked through for the label, as many as `blkid` does.
const ROOT_CLUSTERS_MAX: usize = 100;
/// Bytes of root directory looked through in total.
const ROOT_BYTES_MAX: usize = 256 << 10;

/// The geometry of a FAT volume, from a boot sector that holds together.
struct Geometry {
    kind: FilesystemKind,
    sector_size: u32,
    cluster_size: u32,
    sectors: u32,
    fat_at: u64,
    root_at: u64,
    root_entries: u32,
    data_at: u64,
    clusters: u32,
}

/// FAT has no magic that others could not have: the whole boot sector is judged.
pub(super) fn fat(head: &Head<'_>) -> Result<Option<Recognised>> {
    let Some(boot) = head.get(0, 512) else { return Ok(None) };
    let Some(geometry) = geometry(boot) else { return Ok(None) };
    let extended_at = if geometry.kind == FilesystemKind::Fat32 { 64 } else { 36 };
    let mut found = Recognised::new(geometry.kind);
    // Signature 0x28: a serial number and no label; 0x29: both.
    if matches!(boot[extended_at + 2], 0x28 | 0x29) {
        found.uuid = text::serial32(le32(boot, extended_at + 3));
    }
    found.block_size = Some(geometry.cluster_size);
    found.size = Some(u64::from(geometry.sectors) * u64::from(geometry.sector_size));
    found.label = root_label(head, boot, &geometry)?.unwrap_or_default();
    Ok(Some(found))
}

fn geometry(boot: &[u8]) -> Option<Geometry> {
    let jump = boot[0] == 0xe9 || (boot[0] == 0xeb && boot[2] == 0x90);
    let named = boot[54..].starts_with(b"FAT") || boot[82..].starts_with(b"FAT32");
    let media = boot[21];
    if !(jump || named) || boot[510..512] != [0x55, 0xaa] || (media != 0xf0 && media < 0xf8) {
        return None;
    }
    let sector_size = u32::from(le16(boot, 11));
    let sectors_per_cluster = u32::from(boot[13]);
    if !matches!(sector_size, 512 | 1024 | 2048 | 4096) || !sectors_per_cluster.is_power_of_two() {
        return None;
    }
    let reserved = u32::from(le16(boot, 14));
    let fats = u32::from(boot[16]);
    let root_entries = u32::from(le16(boot, 17));
    let sectors = match le16(boot, 19) {
        0 => le32(boot, 32),
        n => u32::from(n),
    };
    let fat32 = le16(boot, 22) == 0;
    let fat_sectors = if fat32 { le32(boot, 36) } else { u32::from(le16(boot, 22)) };
    if reserved == 0 || !(1..=8).contains(&fats) || fat_sectors == 0 {
        return None;
    }
    let root_first = fat_sectors.checked_mul(fats)?.checked_add(reserved)?;
    let data_first = root_first.checked_add((root_entries * 32).div_ceil(sector_size))?;
    let clusters = sectors.checked_sub(data_first)? / sectors_per_cluster;
    let kind = match clusters {
        _ if fat32 => FilesystemKind::Fat32,
        ..4085 => FilesystemKind::Fat12,
        4085..65_525 => FilesystemKind::Fat16,
        _ => return None,
    };
    let bytes = |sector: u32| u64::from(sector) * u64::from(sector_size);
    Some(Geometry {
        kind,
        sector_size,
        cluster_size: sector_size * sectors_per_cluster,
        sectors,
        fat_at: bytes(reserved),
        root_at: bytes(root_first),
        root_entries,
        data_at: bytes(data_first),
        clusters,
    })
}

/// The label users see is an entry of the root directory; the copy in the boot sector is often
/// stale.
fn root_label(head: &Head<'_>, boot: &[u8], geometry: &Geometry) -> Result<Option<String>> {
    if geometry.kind != FilesystemKind::Fat32 {
        let len = (geometry.root_entries as usize * 32).min(ROOT_BYTES_MAX);
        let entries = head.far(geometry.root_at, len)?.unwrap_or_default();
        return Ok(find_label(&entries).unwrap_or_default());
    }
    let mut cluster = le32(boot, 44);
    let mut budget = ROOT_BYTES_MAX;
    for _ in 0..ROOT_CLUSTERS_MAX {
        if cluster < 2 || cluster - 2 >= geometry.clusters || budget == 0 {
            break;
        }
        let at = geometry.data_at + u64::from(cluster - 2) * u64::from(geometry.cluster_size);
        let len = (geometry.cluster_size as usize).min(budget);
        budget -= len;
        let Some(entries) = head.far(at, len)? else { break };
        if let Some(answer) = find_label(&entries) {
            return Ok(answer);
        }
        let Some(next) = head.far(geometry.fat_at + 4 * u64::from(cluster), 4)? else { break };
        // The upper four bits are reserved.
        cluster = le32(&next, 0) & 0x0fff_ffff;
    }
    Ok(None)
}

/// `None`: not in these entries, look on. `Some(None)`: the directory ended without one.
fn find_label(entries: &[u8]) -> Option<Option<String>> {
    const DELETED: u8 = 0xe5;
    const ATTRIBUTES: u8 = 0x3f;
    const LONG_NAME: u8 = 0x0f;
    const VOLUME_ID: u8 = 0x08;
    const DIRECTORY: u8 = 0x10;
    for entry in entries.as_chunks::<32>().0 {
        let attributes = entry[11];
        let no_file = le16(entry, 20) == 0 && le16(entry, 26) == 0;
        if entry[0] == 0 {
            return Some(None);
        }
        if entry[0] == DELETED || attributes & ATTRIBUTES == LONG_NAME || !no_file {
            continue;
        }
        if attributes & (VOLUME_ID | DIRECTORY) == VOLUME_ID {
            let mut name = entry[..11].to_vec();
            // A first letter that would read as "deleted" is stored as 5.
            if name[0] == 5 {
                name[0] = DELETED;
            }
            return Some(Some(text::label(&name)));
        }
    }
    None
}
