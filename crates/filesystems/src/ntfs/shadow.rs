//! Shadow copies: earlier states of the volume that Windows keeps beside the files.
//!
//! Facts: libvshadow project, "Volume Shadow Snapshot (VSS) format". A shadow copy holds old
//! contents of clusters that were written since, and reads everything else from the volume
//! itself: also clusters of files deleted since, which `$Bitmap` calls free now. A map of the
//! present loses them, and nothing would say so later.

use super::reason::NtfsReason;
use super::stream::Disk;
use crate::bytes::{le32, le64};
use crate::stop::Stop;

const IDENTIFIER: [u8; 16] = [
    0x6b, 0x87, 0x08, 0x38, 0x76, 0xc1, 0x48, 0x4e, 0xb7, 0xae, 0x04, 0x04, 0x6e, 0x6c, 0xc7, 0x52,
];
/// Where the header is: in `$Boot`, behind the code.
const HEADER_OFFSET: u64 = 7680;
const BLOCK_SIZE: usize = 16 << 10;
const ENTRY_SIZE: usize = 128;
/// Windows keeps 512 shadow copies of a volume at most; a block describes 63.
const BLOCKS_MAX: usize = 64;

/// There are no shadow copies on the volume.
pub(super) fn check_none(disk: &Disk<'_>) -> Result<(), Stop> {
    const OP: &str = "read catalog of shadow copies";
    let mut header = [0; 128];
    if disk.volume.len() < HEADER_OFFSET + header.len() as u64 {
        return Ok(());
    }
    disk.read(OP, HEADER_OFFSET, &mut header)?;
    let mut at = le64(&header, 48);
    if !header.starts_with(&IDENTIFIER) || at == 0 {
        return Ok(());
    }
    let found = || Err(NtfsReason::ShadowCopies.into());
    // Kept on another volume: nothing here tells what they need.
    if header[64..80] != header[80..96] {
        return found();
    }
    let mut block = vec![0; BLOCK_SIZE];
    for _ in 0..BLOCKS_MAX {
        let fits = at.checked_add(BLOCK_SIZE as u64).is_some_and(|end| end <= disk.volume.len());
        if !fits {
            return found();
        }
        disk.read(OP, at, &mut block)?;
        if !block.starts_with(&IDENTIFIER) {
            return found();
        }
        // 0 was never used, 1 no longer is.
        if block.chunks_exact(ENTRY_SIZE).skip(1).any(|entry| !matches!(le32(entry, 0), 0 | 1)) {
            return found();
        }
        at = le64(&block, 40);
        if at == 0 {
            return Ok(());
        }
    }
    found()
}
