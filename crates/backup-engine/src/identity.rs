//! Who a source is.

use aiv_filesystems::recognise;
use aiv_image_format::SetId;
use aiv_volume_io::partition::{self, DiskId, PartitionTable};
use aiv_volume_io::{ReadAt, Slice};

use crate::facts::SourceFacts;
use crate::plan::sector_size;

const KEY_SET: &[u8; 32] = b"aivory draft: set of a source   ";

/// The set all images of the source with this identity belong to, in every folder.
#[must_use]
pub fn set_id(source_id: &str) -> SetId {
    let hash = blake3::keyed_hash(KEY_SET, source_id.as_bytes());
    let mut id = SetId::default();
    id.0.copy_from_slice(&hash.as_bytes()[..16]);
    id
}

/// Identity of a source: what the user chose, else GPT disk GUID, MBR signature with size,
/// filesystem UUID, serial number or WWN, and where nothing else is known the place it was
/// found at.
pub(crate) fn source_id(
    facts: &SourceFacts,
    table: &PartitionTable,
    len: u64,
    whole_volume_uuid: &str,
) -> String {
    if let Some(chosen) = &facts.source_id {
        return format!("user:{chosen}");
    }
    match table.disk_id {
        Some(DiskId::Gpt(guid)) => return format!("gpt:{guid}"),
        Some(DiskId::Mbr(signature)) => return format!("mbr:{signature:08x}-{len}"),
        None => {}
    }
    let known = [("fs", whole_volume_uuid), ("serial", &facts.serial), ("wwn", &facts.wwn)];
    match known.iter().find(|(_, value)| !value.is_empty()) {
        Some((kind, value)) => format!("{kind}:{value}"),
        None => format!("path:{}:{}", facts.host, facts.label),
    }
}

/// What a disk itself says that it is: the identity of its table, or of the filesystem that it is.
/// `None` where it says nothing, or cannot be read.
#[must_use]
pub fn disk_identity(disk: &dyn ReadAt, facts: &SourceFacts) -> Option<String> {
    let len = disk.len();
    let table = partition::read_table(disk, sector_size(disk, facts)).ok()?;
    let uuid = match partition::regions(&table, len).as_slice() {
        [only] => recognise(&Slice::new(disk, only.extent).ok()?).ok()?.uuid,
        _ => String::new(),
    };
    let content_alone = SourceFacts::default();
    let is_known = table.disk_id.is_some() || !uuid.is_empty();
    is_known.then(|| source_id(&content_alone, &table, len, &uuid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_id_depends_on_nothing_but_the_identity() {
        assert_eq!(set_id("gpt:1"), set_id("gpt:1"));
        assert_ne!(set_id("gpt:1"), set_id("gpt:2"));
    }
}
