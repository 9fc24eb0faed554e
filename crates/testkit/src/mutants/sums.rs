//! Checksums of filesystems, written once more: a judge that shares code with the accused would
//! agree with it.

use aiv_volume_io::{Extent, ReadAt};

use super::{Changes, Mutated};

/// What protects the records of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sums {
    /// Nothing.
    None,
    /// Checksums of the superblock, group descriptors and bitmaps of ext4, if it has them.
    Ext,
    /// CRC-32C of version 5 of XFS, by the magic of each record; none in version 4.
    Xfs,
    /// The sum of the main boot region of exFAT.
    ExFat,
    /// CRC-32C at the beginning of each record of Btrfs, of what follows 32 bytes.
    Btrfs,
    /// The ends of sectors that NTFS keeps elsewhere: they are left alone.
    Ntfs,
    /// The second superblock of F2FS, and the headers of both checkpoints.
    F2fs,
    /// The label of LVM2 in sector 1, the metadata area at byte 4096 and its text.
    Lvm,
}

impl Sums {
    /// Makes `changes` of `volume` such that no checksum gives them away. `records` is what is
    /// read of the unchanged volume.
    ///
    /// # Panics
    /// When the unchanged volume is not of the kind.
    pub fn mend(self, volume: &dyn ReadAt, records: &[Extent], changes: &mut Changes) {
        match self {
            Self::None => {}
            Self::Ext => mend_ext(volume, changes),
            Self::Xfs => mend_xfs(volume, records, changes),
            Self::ExFat => mend_exfat(volume, changes),
            Self::Btrfs => mend_btrfs(volume, records, changes),
            Self::Ntfs => changes.retain(|at, _| at % 512 < 510),
            Self::F2fs => mend_f2fs(volume, changes),
            Self::Lvm => mend_lvm(volume, changes),
        }
    }

    /// The records of XFS that have a checksum, and its offset in each. Headers of a group are
    /// read together.
    ///
    /// # Panics
    /// When a record is not on the volume.
    #[must_use]
    pub fn xfs_records(volume: &dyn ReadAt, records: &[Extent]) -> Vec<(Extent, u64)> {
        let mut found = Vec::new();
        for read in records {
            let headers = read.len == 2048 && bytes(volume, *read).starts_with(b"XFSB");
            for n in 0..if headers { 4 } else { 1 } {
                let record = if headers { Extent::new(read.start + n * 512, 512) } else { *read };
                let at = match bytes(volume, Extent::new(record.start, 4)).as_slice() {
                    b"XFSB" => 224,
                    b"XAGF" => 216,
                    b"XAGI" => 312,
                    b"XAFL" => 32,
                    b"AB3B" | b"AB3C" => 52,
                    _ => continue,
                };
                found.push((record, at));
            }
        }
        found
    }
}

fn bytes(volume: &dyn ReadAt, extent: Extent) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(extent.len).expect("records are small")];
    volume.read_exact_at(&mut bytes, extent.start).expect("records are on the volume");
    bytes
}

fn changed(volume: &dyn ReadAt, changes: &Changes, extent: Extent) -> Vec<u8> {
    bytes(&Mutated::new(volume, changes), extent)
}

fn le16(bytes: &[u8], at: usize) -> u64 {
    u64::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

fn le32(bytes: &[u8], at: usize) -> u64 {
    le16(bytes, at) | le16(bytes, at + 2) << 16
}

fn put(changes: &mut Changes, at: u64, sum: &[u8]) {
    changes.extend((at..).zip(sum.iter().copied()));
}

fn mend_xfs(volume: &dyn ReadAt, records: &[Extent], changes: &mut Changes) {
    let version = bytes(volume, Extent::new(100, 2))[1] & 0xf;
    if version != 5 {
        return;
    }
    for (record, sum_at) in Sums::xfs_records(volume, records) {
        if changes.range(record.start..record.end()).next().is_none() {
            continue;
        }
        let mut summed = changed(volume, changes, record);
        let at = usize::try_from(sum_at).expect("small");
        summed[at..at + 4].fill(0);
        put(changes, record.start + sum_at, &crc32c::crc32c(&summed).to_le_bytes());
    }
}

/// A record of Btrfs is what is read at once: a superblock or a node.
fn mend_btrfs(volume: &dyn ReadAt, records: &[Extent], changes: &mut Changes) {
    for record in records.iter().filter(|record| record.len > 32) {
        if changes.range(record.start..record.end()).next().is_some() {
            let summed = changed(volume, changes, Extent::between(record.start + 32, record.end()));
            put(changes, record.start, &crc32c::crc32c(&summed).to_le_bytes());
        }
    }
}

fn mend_exfat(volume: &dyn ReadAt, changes: &mut Changes) {
    let sector = 1u64 << bytes(volume, Extent::new(108, 1))[0];
    let region = changed(volume, changes, Extent::new(0, 11 * sector));
    let mut sum = 0u32;
    for (at, byte) in region.into_iter().enumerate() {
        // Flags and the percentage in use change with every mount.
        if ![106, 107, 112].contains(&at) {
            sum = sum.rotate_right(1).wrapping_add(byte.into());
        }
    }
    for at in (11 * sector..12 * sector).step_by(4) {
        put(changes, at, &sum.to_le_bytes());
    }
}

/// CRC-32C as ext4 has it, inverted at neither end.
fn ext_crc(seed: u32, bytes: &[u8]) -> u32 {
    !crc32c::crc32c_append(!seed, bytes)
}

fn mend_ext(volume: &dyn ReadAt, changes: &mut Changes) {
    const METADATA_CSUM: u64 = 0x400;
    const META_BG: u64 = 0x10;
    const WIDE: u64 = 0x80;
    const SEED: u64 = 0x2000;
    let superblock = Extent::new(1024, 1024);
    let sb = bytes(volume, superblock);
    let incompat = le32(&sb, 0x60);
    if le32(&sb, 0x64) & METADATA_CSUM == 0 {
        return;
    }
    let seed = match incompat & SEED {
        0 => ext_crc(!0, &sb[0x68..0x78]),
        _ => u32::try_from(le32(&sb, 0x270)).expect("four bytes"),
    };
    let block = 1024u64 << le32(&sb, 0x18);
    let len = if incompat & WIDE == 0 { 32 } else { le16(&sb, 0xfe) };
    let groups = (le32(&sb, 4) - le32(&sb, 0x14)).div_ceil(le32(&sb, 0x20));
    let table = (le32(&sb, 0x14) + 1) * block;
    for group in (0..groups).filter(|_| incompat & META_BG == 0) {
        let descriptor = Extent::new(table + group * len, len);
        let bitmap_at = le32(&bytes(volume, descriptor), 0) * block;
        let bitmap = Extent::new(bitmap_at, le32(&sb, 0x24) / 8);
        if changes.range(bitmap.start..bitmap.end()).next().is_some() {
            let sum = ext_crc(seed, &changed(volume, changes, bitmap)).to_le_bytes();
            put(changes, descriptor.start + 0x18, &sum[..2]);
            if len >= 0x3a {
                put(changes, descriptor.start + 0x38, &sum[2..]);
            }
        }
        if changes.range(descriptor.start..descriptor.end()).next().is_some() {
            let mut summed = changed(volume, changes, descriptor);
            summed[0x1e..0x20].fill(0);
            let number = u32::try_from(group).expect("a small volume").to_le_bytes();
            let sum = ext_crc(ext_crc(seed, &number), &summed).to_le_bytes();
            put(changes, descriptor.start + 0x1e, &sum[..2]);
        }
    }
    let summed = changed(volume, changes, superblock);
    put(changes, 1024 + 0x3fc, &ext_crc(!0, &summed[..0x3fc]).to_le_bytes());
}

fn mend_lvm(volume: &dyn ReadAt, changes: &mut Changes) {
    const AREA: u64 = 4096;
    let header = bytes(volume, Extent::new(AREA, 512));
    let text = Extent::new(AREA + le32(&header, 40), le32(&header, 48));
    let label = Extent::new(512 + 20, 492);
    let area = Extent::new(AREA + 4, 508);
    for (summed, at) in [(label, 512 + 16), (text, AREA + 56), (area, AREA)] {
        let sum = crc32(0xf597_a6cf, &changed(volume, changes, summed));
        put(changes, at, &sum.to_le_bytes());
    }
}

/// Each checkpoint has a header at either end; in a newer one other bytes may differ from those
/// of the older.
fn mend_f2fs(volume: &dyn ReadAt, changes: &mut Changes) {
    const BLOCK: u64 = 4096;
    let superblock = changes.range(1024..BLOCK).map(|(&at, &byte)| (at + BLOCK, byte));
    let twins: Vec<(u64, u8)> = superblock.collect();
    changes.extend(twins);
    let first = le32(&bytes(volume, Extent::new(1024 + 76, 4)), 0);
    for pack in [first, first + 512] {
        let len = le32(&bytes(volume, Extent::new(pack * BLOCK + 136, 4)), 0);
        // What is changed in the first header is changed in the last one as well.
        let [front, back] = [pack, pack + len - 1].map(|block| block * BLOCK);
        let twins: Vec<(u64, u8)> = changes
            .range(front..front + BLOCK)
            .map(|(&at, &byte)| (at - front + back, byte))
            .collect();
        changes.extend(twins);
        for header in [front, back] {
            if changes.range(header..header + BLOCK).next().is_some() {
                let summed = changed(volume, changes, Extent::new(header, BLOCK - 4));
                put(changes, header + BLOCK - 4, &crc32(0xf2f5_2010, &summed).to_le_bytes());
            }
        }
    }
}

/// CRC-32 without final inversion, from a start value of its user's.
fn crc32(start: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(start, |sum, &byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| {
            if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 }
        })
    })
}
