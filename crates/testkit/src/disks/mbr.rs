//! Master boot record and the chain of extended boot records behind it.

use super::{Canvas, DiskLayout, PlacedPart, Table, TinyDisk};
use crate::random::Random;

const SIGNATURE_AT: usize = 440;
const ENTRIES_AT: usize = 446;
const ENTRY_SIZE: usize = 16;

const TYPE_LINUX: u8 = 0x83;
const TYPE_EXTENDED_LBA: u8 = 0x0F;
const TYPE_GPT_PROTECTIVE: u8 = 0xEE;

/// Primary partitions, the extended one included.
const PRIMARIES_MAX: usize = 4;

pub(super) fn build(layout: &DiskLayout) -> TinyDisk {
    let logical_at = layout.parts.iter().position(|p| p.logical).unwrap_or(layout.parts.len());
    let (primary, logical) = layout.parts.split_at(logical_at);
    assert!(logical.iter().all(|part| part.logical), "primary partitions come first");
    let entries_needed = primary.len() + usize::from(!logical.is_empty());
    assert!(entries_needed <= PRIMARIES_MAX, "an MBR has {PRIMARIES_MAX} entries");

    let signature = u32::from_le_bytes(low_half(Random::new(&[layout.seed, 4]).next()));
    let mut disk = Canvas::new(layout);
    let mut mbr = boot_record();
    mbr[SIGNATURE_AT..SIGNATURE_AT + 4].copy_from_slice(&signature.to_le_bytes());
    disk.write(0, &mbr);

    let mut parts = Vec::new();
    for (number, part) in (1..).zip(primary) {
        let first = disk.end + part.gap;
        parts.push(disk.place(part, first, number));
        let entry = Entry { kind: TYPE_LINUX, first, sectors: disk.end - first };
        entry.write(&mut mbr, usize::try_from(number - 1).expect("at most four"));
    }
    if !logical.is_empty() {
        let first = disk.end;
        parts.extend(build_chain(&mut disk, layout, logical_at, first));
        let entry = Entry { kind: TYPE_EXTENDED_LBA, first, sectors: disk.end - first };
        entry.write(&mut mbr, primary.len());
    }
    disk.write(0, &mbr);
    disk.end += layout.tail;
    TinyDisk { mbr_signature: signature, table: Table::Mbr, ..disk.finish(parts) }
}

/// Lays out the logical partitions, each behind a boot record that names it and points to the
/// next: the partition relative to its own record, the next record relative to the first.
fn build_chain(
    disk: &mut Canvas<'_>,
    layout: &DiskLayout,
    logical_at: usize,
    extended: u64,
) -> Vec<PlacedPart> {
    let mut placed = Vec::new();
    let mut records: Vec<(u64, Vec<u8>)> = Vec::new();
    for (number, part) in (5..).zip(&layout.parts[logical_at..]) {
        let record_at = disk.end;
        let first = record_at + 1 + part.gap;
        placed.push(disk.place(part, first, number));
        let mut record = boot_record();
        let own = Entry { kind: TYPE_LINUX, first: first - record_at, sectors: disk.end - first };
        own.write(&mut record, 0);
        if let Some((_, previous)) = records.last_mut() {
            let next = Entry {
                kind: TYPE_EXTENDED_LBA,
                first: record_at - extended,
                sectors: disk.end - record_at,
            };
            next.write(previous, 1);
        }
        records.push((record_at, record));
    }
    for (at, record) in records {
        disk.write(at, &record);
    }
    placed
}

/// The MBR in front of a GPT, which keeps tools that know no GPT away.
pub(super) fn protective(last_sector: u64) -> Vec<u8> {
    let mut mbr = boot_record();
    Entry { kind: TYPE_GPT_PROTECTIVE, first: 1, sectors: last_sector }.write(&mut mbr, 0);
    mbr
}

fn boot_record() -> Vec<u8> {
    let mut record = vec![0; 512];
    record[510..].copy_from_slice(&[0x55, 0xAA]);
    record
}

struct Entry {
    kind: u8,
    first: u64,
    sectors: u64,
}

impl Entry {
    fn write(&self, record: &mut [u8], slot: usize) {
        // Cylinder, head and sector cannot express today's disks; this value says so.
        const NO_GEOMETRY: [u8; 3] = [0xFE, 0xFF, 0xFF];
        let entry = &mut record[ENTRIES_AT + slot * ENTRY_SIZE..][..ENTRY_SIZE];
        entry[1..4].copy_from_slice(&NO_GEOMETRY);
        entry[4] = self.kind;
        entry[5..8].copy_from_slice(&NO_GEOMETRY);
        entry[8..12].copy_from_slice(&low_half(self.first));
        entry[12..16].copy_from_slice(&low_half(self.sectors));
    }
}

/// The low 32 bits, as they lie on the disk.
fn low_half(value: u64) -> [u8; 4] {
    let [a, b, c, d, ..] = value.to_le_bytes();
    [a, b, c, d]
}
