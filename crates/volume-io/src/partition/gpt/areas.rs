use super::GptCopy;
use super::copies::{Copies, PRIMARY_LBA, Table, Unusable};
use crate::Extent;
use crate::partition::sectors::Sectors;
use crate::partition::table::{TableArea, TableAreaKind};

/// The bytes of both copies. The place of a copy that is not sound follows from `best`.
pub(super) fn of_both_copies(copies: &Copies, best: &Table, disk: Sectors<'_>) -> Vec<TableArea> {
    let mut areas = match &copies.primary {
        Ok(table) => of_copy(GptCopy::Primary, table, disk),
        Err(_) => guess_primary(best, disk),
    };
    areas.extend(match &copies.backup {
        Ok(table) => of_copy(GptCopy::Backup, table, disk),
        Err(unusable) => guess_backup(unusable, best, disk),
    });
    areas.retain(|area| !area.extent.is_empty());
    areas
}

fn of_copy(copy: GptCopy, table: &Table, disk: Sectors<'_>) -> Vec<TableArea> {
    let header = disk.size.extent(table.lba(), 1);
    let entries = disk.size.extent(table.header.entries_lba, entry_sectors(table, disk));
    areas(copy, header, entries).to_vec()
}

/// The primary copy begins in sector 1; nothing usable begins before its end.
fn guess_primary(best: &Table, disk: Sectors<'_>) -> Vec<TableArea> {
    let before_usable = disk.size.extent(0, best.header.first_usable_lba.min(disk.count));
    let header = disk.size.extent(PRIMARY_LBA, 1);
    let entries = disk.size.extent(PRIMARY_LBA + 1, entry_sectors(best, disk));
    clipped(areas(GptCopy::Primary, header, entries), before_usable)
}

/// The backup ends with its header, and its entries come just before; nothing usable lies
/// behind its begin. A guess must never take bytes that partitions may own.
fn guess_backup(unusable: &Unusable, best: &Table, disk: Sectors<'_>) -> Vec<TableArea> {
    let usable_end = best.header.last_usable_lba.saturating_add(1);
    let after_usable = Extent::between(
        disk.size.extent(usable_end, 0).start,
        disk.size.extent(disk.count, 0).start,
    );
    let header = disk.size.extent(unusable.lba, 1);
    let sectors = entry_sectors(best, disk).min(unusable.lba);
    let entries = disk.size.extent(unusable.lba - sectors, sectors);
    clipped(areas(GptCopy::Backup, header, entries), after_usable)
}

fn entry_sectors(table: &Table, disk: Sectors<'_>) -> u64 {
    disk.covering(table.header.entries_len())
}

fn areas(copy: GptCopy, header: Extent, entries: Extent) -> [TableArea; 2] {
    let (header_kind, entries_kind) = match copy {
        GptCopy::Primary => (TableAreaKind::GptHeader, TableAreaKind::GptEntries),
        GptCopy::Backup => (TableAreaKind::GptBackupHeader, TableAreaKind::GptBackupEntries),
    };
    [
        TableArea { extent: header, kind: header_kind },
        TableArea { extent: entries, kind: entries_kind },
    ]
}

fn clipped(areas: [TableArea; 2], bounds: Extent) -> Vec<TableArea> {
    let clip = |TableArea { extent, kind }| {
        extent.intersect(bounds).map(|extent| TableArea { extent, kind })
    };
    areas.into_iter().filter_map(clip).collect()
}
