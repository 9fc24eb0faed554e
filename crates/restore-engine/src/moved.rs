//! Partitions behind one that was made smaller, which begin earlier on the target.
//!
//! Most filesystems do not know where they lie. The boot sectors of FAT, exFAT and NTFS do, in
//! sectors from the beginning of the disk, and boot code goes by it: where such a field was true,
//! it is made true again, in both copies. What counts sectors elsewhere (boot loaders with lists
//! of blocks, boot entries of an MBR disk of Windows) cannot be mended here, and is told.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use aiv_volume_io::Extent;

/// A partition that begins elsewhere on the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// Its number.
    pub number: u32,
    /// Its bytes on the source disk.
    pub before: Extent,
    /// Its bytes on the target, as many.
    pub after: Extent,
}

/// Bytes of a file copied at once.
const STRIDE: usize = 1 << 20;
/// Length of a boot sector, as far as anybody looks at it here.
const BOOT_LEN: usize = 512;

/// Copies the partition in `from` to `at` of `to`, holes left out, and proves it.
pub(crate) fn copy(from: &File, to: &File, at: u64) -> io::Result<()> {
    let len = from.metadata()?.len();
    let mut bytes = vec![0; STRIDE];
    for offset in (0..len).step_by(STRIDE) {
        let part = &mut bytes[..crate::zeros::in_memory((len - offset).min(STRIDE as u64))];
        from.read_exact_at(part, offset)?;
        if part.iter().any(|&byte| byte != 0) {
            to.write_all_at(part, at + offset)?;
        }
    }
    to.sync_data()?;
    let mut copied = vec![0; STRIDE];
    for offset in (0..len).step_by(STRIDE) {
        let count = crate::zeros::in_memory((len - offset).min(STRIDE as u64));
        from.read_exact_at(&mut bytes[..count], offset)?;
        to.read_exact_at(&mut copied[..count], at + offset)?;
        if bytes[..count] != copied[..count] {
            return Err(io::Error::other("a copy is not what was copied"));
        }
    }
    Ok(())
}

/// Makes the boot sectors of the volume at byte `at` of `file`, a copy of the partition, say where
/// it is now. Returns whether they said before where it was; otherwise they stay.
///
/// # Errors
/// Those of the file.
pub fn mend(file: &File, at: u64, moved: &Moved) -> io::Result<bool> {
    let mut boot = [0; BOOT_LEN];
    if moved.after.len < boot.len() as u64 {
        return Ok(false);
    }
    file.read_exact_at(&mut boot, at)?;
    let is_boot = boot[510..] == [0x55, 0xAA];
    match &boot[3..11] {
        b"NTFS    " if is_boot => mend_hidden(file, at, moved, &boot, Kind::Ntfs),
        b"EXFAT   " if is_boot => mend_exfat(file, at, moved, &boot),
        _ if is_boot && is_fat(&boot) => mend_hidden(file, at, moved, &boot, Kind::Fat),
        _ => Ok(false),
    }
}

enum Kind {
    Fat,
    Ntfs,
}

/// A boot sector whose fields can only be those of FAT.
fn is_fat(boot: &[u8; BOOT_LEN]) -> bool {
    let is_jump = boot[0] == 0xE9 || boot[0] == 0xEB && boot[2] == 0x90;
    let sector = u16_at(boot, 11);
    let cluster = boot[13];
    is_jump
        && (512..=4096).contains(&sector)
        && sector.is_power_of_two()
        && cluster.is_power_of_two()
        && u16_at(boot, 14) > 0
        && (1..=2).contains(&boot[16])
        && boot[21] >= 0xF0
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// The field of four bytes that FAT and NTFS have: sectors in front of the partition.
fn mend_hidden(
    file: &File,
    at: u64,
    moved: &Moved,
    boot: &[u8; BOOT_LEN],
    kind: Kind,
) -> io::Result<bool> {
    const HIDDEN_AT: usize = 28;
    let sector = u64::from(u16_at(boot, 11));
    let before = moved.before.start.checked_div(sector);
    let after = moved.after.start.checked_div(sector).and_then(|n| u32::try_from(n).ok());
    let found = <[u8; 4]>::try_from(&boot[HIDDEN_AT..HIDDEN_AT + 4]).map(u32::from_le_bytes);
    let (Ok(found), Some(before), Some(after)) = (found, before, after) else { return Ok(false) };
    if u64::from(found) != before {
        return Ok(false);
    }
    let second = match kind {
        // Behind the filesystem, in the last sector of the partition.
        Kind::Ntfs => moved.after.len.checked_sub(sector),
        // Of FAT32 alone, which has no length of tables in this place.
        Kind::Fat if u16_at(boot, 22) == 0 => Some(u64::from(u16_at(boot, 50)) * sector),
        Kind::Fat => None,
    };
    for place in [Some(0), second.filter(|&place| place > 0)].into_iter().flatten() {
        let mut copy = [0; BOOT_LEN];
        if place + copy.len() as u64 > moved.after.len {
            continue;
        }
        file.read_exact_at(&mut copy, at + place)?;
        // The second one may be something else.
        if copy[3..HIDDEN_AT + 4] == boot[3..HIDDEN_AT + 4] {
            file.write_all_at(&after.to_le_bytes(), at + place + HIDDEN_AT as u64)?;
        }
    }
    Ok(true)
}

/// `PartitionOffset` of both boot regions, and their checksums.
fn mend_exfat(file: &File, at: u64, moved: &Moved, boot: &[u8; BOOT_LEN]) -> io::Result<bool> {
    const OFFSET_AT: usize = 64;
    /// Sectors of a region, the last one of which repeats the checksum of the others.
    const REGION: usize = 12;
    let shift = u32::from(boot[108]);
    if !(9..=12).contains(&shift) {
        return Ok(false);
    }
    let before = (moved.before.start >> shift).to_le_bytes();
    if boot[OFFSET_AT..OFFSET_AT + 8] != before {
        return Ok(false);
    }
    let sector = 1_usize << shift;
    for region in 0..2 {
        let place = at + (region * REGION * sector) as u64;
        if ((region + 1) * REGION * sector) as u64 > moved.after.len {
            continue;
        }
        let mut bytes = vec![0; REGION * sector];
        file.read_exact_at(&mut bytes, place)?;
        if bytes[3..11] != *b"EXFAT   " || bytes[OFFSET_AT..OFFSET_AT + 8] != before {
            continue;
        }
        let stored = |bytes: &[u8]| bytes[(REGION - 1) * sector..][..4].to_vec();
        // One that was wrong before stays wrong.
        if stored(&bytes) != sum_of(&bytes[..(REGION - 1) * sector]).to_le_bytes() {
            continue;
        }
        let after = moved.after.start >> shift;
        bytes[OFFSET_AT..OFFSET_AT + 8].copy_from_slice(&after.to_le_bytes());
        let (main, last) = bytes.split_at_mut((REGION - 1) * sector);
        let sum = sum_of(main).to_le_bytes();
        last.as_chunks_mut::<4>().0.iter_mut().for_each(|place| *place = sum);
        file.write_all_at(&bytes, place)?;
    }
    Ok(true)
}

/// The checksum of a boot region, which leaves out flags and percentage.
fn sum_of(bytes: &[u8]) -> u32 {
    let counted = bytes.iter().enumerate().filter(|(n, _)| ![106, 107, 112].contains(n));
    counted.fold(0, |sum: u32, (_, &byte)| sum.rotate_right(1).wrapping_add(byte.into()))
}
