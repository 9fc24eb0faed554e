use super::front::{self, Front};
use super::mbr::{BootRecord, Entry, RECORD_SIZE};
use super::sectors::Sectors;
use super::{SectorSize, gpt};
use crate::ReadAt;

/// Finds the sector size that a disk was partitioned with from its bytes alone, for raw files,
/// where no device tells it. `None` when nothing does; 512 bytes is then the best guess.
///
/// A GPT tells its sector size by where its copies are. An MBR tells nothing, but what its
/// partitions begin with may: an extended boot record, or a boot sector of FAT, exFAT or NTFS
/// that states this very sector size. Places that cannot be read tell nothing.
#[must_use]
pub fn detect_sector_size(disk: &dyn ReadAt) -> Option<SectorSize> {
    let views = SectorSize::BY_LIKELIHOOD.map(|size| Sectors::new(disk, size));
    let found = |proves: &dyn Fn(Sectors<'_>) -> bool| views.into_iter().find(|v| proves(*v));

    let mut sector0 = [0; RECORD_SIZE];
    disk.read_exact_at(&mut sector0, 0).ok()?;
    // The smallest sectors are the most sectors, and keep every entry in range that may be.
    let view = match front::judge(&sector0, views[0].count) {
        Front::Filesystem => None,
        Front::Mbr(record) if record.used().next().is_some() => {
            let mut proven = views.into_iter().filter(|view| partitions_prove(*view, &record));
            let first = proven.next();
            first.filter(|_| proven.next().is_none())
        }
        Front::Mbr(_) | Front::Unknown => found(&|view| gpt::read_primary(view).is_ok()),
        Front::Protective(_) => found(&|view| gpt::read_primary(view).is_ok())
            .or_else(|| found(&|view| gpt::read_backup_at_end(view).is_some())),
    };
    view.map(|view| view.size)
}

/// Whether a partition of the MBR begins with something that fits the sector size of `view`.
fn partitions_prove(view: Sectors<'_>, record: &BootRecord) -> bool {
    record.used().any(|(_, entry)| {
        let mut first_sector = [0; RECORD_SIZE];
        let at = view.size.extent(u64::from(entry.start), 1).start;
        view.disk.read_exact_at(&mut first_sector, at).is_ok()
            && if entry.is_extended() {
                is_chain_start(&first_sector, entry)
            } else {
                front::stated_sector_size(&first_sector) == Some(view.size.bytes())
            }
    })
}

/// Whether `bytes` are a boot record whose entries lie inside the extended partition `entry`.
fn is_chain_start(bytes: &[u8; RECORD_SIZE], entry: Entry) -> bool {
    let Some(record) = BootRecord::parse(bytes) else { return false };
    let mut used = record.used().map(|(_, logical)| logical).peekable();
    record.has_valid_status_bytes()
        && used.peek().is_some()
        && used.all(|logical| logical.start != 0 && logical.start < entry.sectors)
}
