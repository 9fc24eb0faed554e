//! A GPT in place of an MBR, with the same partitions.

use super::gpt::Gpt;
use super::{Draft, Raw, Unfit};
use crate::partition::mbr::{RECORD_SIZE, put_protective};
use crate::partition::table::{DiskId, Partition, PartitionKind};
use crate::partition::{Guid, TableKind};

/// Entries of a GPT, and bytes of each, as every tool makes them.
const ENTRIES: u32 = 128;
const ENTRY_SIZE: u8 = 128;
const HEADER_LEN: u8 = 92;
/// "Legacy BIOS bootable".
const BOOTABLE: u64 = 1 << 2;

const BASIC_DATA: &str = "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7";
const RECOVERY: &str = "de94bba4-06d1-4d40-a16a-bfd50179d6ac";
const SWAP: &str = "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f";
const LINUX: &str = "0fc63daf-8483-4772-8e79-3d69d8477de4";
const LVM: &str = "e6d6d379-f507-44c2-a23c-238f2a3df928";
const RAID: &str = "a19d880f-05fc-4d3b-a006-743f0f84911e";
const EFI_SYSTEM: &str = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";

impl Draft {
    /// Makes an MBR a GPT. Primary and logical partitions keep their numbers and bytes, and get
    /// the types that mean the same; extended ones, which only hold others, are gone. The boot
    /// code of the MBR is left out, and what lies between it and the first partition is written
    /// over as far as the table needs that: a boot loader there has to be installed again.
    /// `new_id` gives an identity to the disk, as number 0, and to each partition.
    ///
    /// A GPT stays as it is.
    ///
    /// # Errors
    /// [`Unfit::TypeUnknown`] for a type that no type of a GPT stands for,
    /// [`Unfit::TooManyPartitions`].
    pub fn make_gpt(
        &mut self,
        new_id: &mut dyn FnMut(u32) -> Guid,
    ) -> std::result::Result<(), Unfit> {
        if self.kind() == TableKind::Gpt {
            return Ok(());
        }
        let is_kept = |partition: &Partition| !partition.kind.is_extended();
        self.before.partitions.retain(is_kept);
        self.partitions.retain(is_kept);
        let entry_size = usize::from(ENTRY_SIZE);
        let mut entries = vec![0; ENTRIES as usize * entry_size];
        for partition in &mut self.partitions {
            let number = partition.number;
            let index = number.checked_sub(1).filter(|&index| index < ENTRIES);
            let index = index.ok_or(Unfit::TooManyPartitions { max: ENTRIES })? as usize;
            let kind = guid_of(partition.kind)
                .ok_or(Unfit::TypeUnknown { number, kind: partition.kind })?;
            partition.kind = PartitionKind::Gpt(kind);
            partition.unique_id = Some(new_id(number));
            partition.attributes = if partition.bootable { BOOTABLE } else { 0 };
            let entry = &mut entries[index * entry_size..][..entry_size];
            entry[..16].copy_from_slice(&kind.to_bytes());
            entry[48..56].copy_from_slice(&partition.attributes.to_le_bytes());
        }
        self.disk_id = Some(DiskId::Gpt(new_id(0)));
        let mut boot = [0; RECORD_SIZE];
        put_protective(&mut boot);
        let gpt = Gpt::new(boot, header(), entries, entry_size, self.before.sector_size);
        self.raw = Raw::Gpt(Box::new(gpt));
        Ok(())
    }
}

/// What does not depend on the disk.
fn header() -> Vec<u8> {
    let mut header = vec![0; usize::from(HEADER_LEN)];
    for (at, bytes) in [
        (0, &b"EFI PART"[..]),
        (8, &[0, 0, 1, 0]),
        (12, &[HEADER_LEN, 0, 0, 0]),
        (80, &ENTRIES.to_le_bytes()),
        (84, &[ENTRY_SIZE, 0, 0, 0]),
    ] {
        header[at..at + bytes.len()].copy_from_slice(bytes);
    }
    header
}

/// The type of a GPT that means the same.
fn guid_of(kind: PartitionKind) -> Option<Guid> {
    let PartitionKind::Mbr(code) = kind else { return None };
    let text = match code {
        0x01 | 0x04 | 0x06 | 0x07 | 0x0B | 0x0C | 0x0E => BASIC_DATA,
        0x27 => RECOVERY,
        0x82 => SWAP,
        0x83 => LINUX,
        0x8E => LVM,
        0xEF => EFI_SYSTEM,
        0xFD => RAID,
        _ => return None,
    };
    text.parse().ok()
}
