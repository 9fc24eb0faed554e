//! Who a restored disk says it is: the same as the source disk, or somebody new.

use std::path::Path;
use std::str::FromStr;

use aiv_volume_io::FileDisk;
use aiv_volume_io::device::{self, BlockDevice, DeviceKind};
use aiv_volume_io::partition::{DiskId, Draft, Guid, SectorSize, TableKind, Unfit, read_table};

use crate::error::{Error, Refusal, Result};
use crate::report::Note;
use crate::target::TargetFacts;

/// What becomes of the GUID or MBR signature of a disk, and of the GUIDs of its partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Identity {
    /// They stay, as those of a disk that replaces another must.
    #[default]
    Keep,
    /// They stay, and no other disk of this machine may have that of the disk.
    Unique,
    /// The disk gets a new one. Under an MBR, that changes what partitions are called by.
    NewDisk,
    /// The disk and, under a GPT, all partitions get new ones.
    NewAll,
}

impl FromStr for Identity {
    type Err = &'static str;

    /// `keep`, `unique`, `new` or `new-all`.
    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        match text {
            "keep" => Ok(Self::Keep),
            "unique" => Ok(Self::Unique),
            "new" => Ok(Self::NewDisk),
            "new-all" => Ok(Self::NewAll),
            _ => Err("not one of keep, unique, new, new-all"),
        }
    }
}

impl Identity {
    /// Whether something else than what the source disk has is asked for.
    #[must_use]
    pub const fn is_new(self) -> bool {
        matches!(self, Self::NewDisk | Self::NewAll)
    }
}

/// Another disk of the machine, and who it says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// Its device node.
    pub node: String,
    /// What its partition table says.
    pub id: DiskId,
}

/// All disks but the one at `path`, which is a device. One that cannot be read is left out: a
/// drive without a medium is no reason to stop.
///
/// # Errors
/// [`Error::Target`] when the lists of the kernel cannot be read.
pub(crate) fn attached(root: &Path, path: &Path) -> Result<Vec<Attached>> {
    let this = device::at(root, path).map_err(Error::Target)?;
    let is_other = |device: &BlockDevice| {
        let is_disk = !matches!(device.kind, DeviceKind::Partition { .. });
        let is_this = this.as_ref().is_some_and(|this| {
            this.name == device.name || this.parent.as_deref() == Some(&*device.name)
        });
        is_disk && !is_this && device.size > 0
    };
    let disks = device::list(root).map_err(Error::Target)?.into_iter().filter(is_other);
    let look = |device: BlockDevice| {
        let disk = FileDisk::open_source(&device.path).ok()?;
        let size = SectorSize::new(disk.logical_sector_size())?;
        let id = read_table(&disk, size).ok()?.disk_id?;
        Some(Attached { node: device.path.display().to_string(), id })
    };
    Ok(disks.filter_map(look).collect())
}

/// Gives the draft the identity that is asked for.
pub(crate) fn change(
    draft: &mut Draft,
    identity: Identity,
    seed: &[u8; 32],
    notes: &mut Vec<Note>,
) -> std::result::Result<(), Unfit> {
    if !identity.is_new() {
        return Ok(());
    }
    let id = match draft.kind() {
        TableKind::Mbr => DiskId::Mbr(signature(seed)),
        TableKind::Gpt | TableKind::None => DiskId::Gpt(guid(seed, 0)),
    };
    let before = draft.before().disk_id.map(|id| id.to_string()).unwrap_or_default();
    draft.set_disk_id(id)?;
    let partitions = identity == Identity::NewAll && draft.kind() == TableKind::Gpt;
    if partitions {
        let numbers: Vec<u32> = draft.partitions().iter().map(|p| p.number).collect();
        for number in numbers {
            draft.set_partition_id(number, guid(seed, number))?;
        }
    }
    notes.push(Note::NewIdentity { before, after: id.to_string(), partitions });
    Ok(())
}

/// A warning for each other disk that says it is the same one; a refusal where none may.
pub(crate) fn collisions(
    id: Option<DiskId>,
    identity: Identity,
    facts: &TargetFacts,
) -> Result<Vec<Note>> {
    let same = facts.attached.iter().filter(|other| Some(other.id) == id);
    let notes = same.map(|other| collision(&other.node, other.id, identity, &facts.label));
    notes.collect()
}

/// The same for one other disk, or the target of another restore.
pub(crate) fn collision(other: &str, id: DiskId, identity: Identity, target: &str) -> Result<Note> {
    let (other, id) = (other.to_owned(), id.to_string());
    match identity {
        Identity::Unique => {
            let target = target.to_owned();
            Err(Refusal::SameIdentity { target, other, id }.into())
        }
        _ => Ok(Note::SameIdentity { other, id }),
    }
}

/// A random GUID (version 4, RFC 9562) that depends on nothing but seed and number.
pub(crate) fn guid(seed: &[u8; 32], number: u32) -> Guid {
    let hash = blake3::keyed_hash(seed, &number.to_le_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.as_bytes()[..16]);
    // On disk the third group is little-endian: its high byte is the eighth.
    bytes[7] = bytes[7] & 0x0F | 0x40;
    bytes[8] = bytes[8] & 0x3F | 0x80;
    Guid::from_bytes(bytes)
}

/// A random disk signature; never zero, which means that there is none.
fn signature(seed: &[u8; 32]) -> u32 {
    let hash = blake3::keyed_hash(seed, b"signature");
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&hash.as_bytes()[..4]);
    u32::from_le_bytes(bytes).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_guids_are_random_ones_and_differ() {
        let (one, other) = (guid(&[1; 32], 0), guid(&[1; 32], 1));
        assert_ne!(one, other);
        assert_ne!(one, guid(&[2; 32], 0));
        for guid in [one, other] {
            let text = guid.to_string();
            assert_eq!(&text[14..15], "4", "{text}");
            assert!(matches!(&text[19..20], "8" | "9" | "a" | "b"), "{text}");
        }
        assert_ne!(signature(&[1; 32]), signature(&[2; 32]));
    }

    #[test]
    fn the_words_are_keep_unique_new_and_new_all() {
        assert_eq!("keep".parse(), Ok(Identity::Keep));
        assert_eq!("unique".parse(), Ok(Identity::Unique));
        assert_eq!("new".parse(), Ok(Identity::NewDisk));
        assert_eq!("new-all".parse(), Ok(Identity::NewAll));
        assert!("ask".parse::<Identity>().is_err());
    }
}
