use super::head::Head;
use super::{Recognised, text};
use crate::bytes::{array, be32, le32};
use crate::{FilesystemKind, Result};

/// UFS of the BSDs, 1 and 2, in either byte order. Its superblock is at one of four places.
pub(super) fn ufs(head: &Head<'_>) -> Result<Option<Recognised>> {
    const MAGICS: [u32; 2] = [0x0001_1954, 0x1954_0119];
    const LEN: usize = 1376;
    for at in [0, 8 << 10, 64 << 10, 256 << 10] {
        let Some(sb) = head.far(at, LEN)? else { continue };
        let word: fn(&[u8], usize) -> u32 = match () {
            () if MAGICS.contains(&le32(&sb, 1372)) => le32,
            () if MAGICS.contains(&be32(&sb, 1372)) => be32,
            () => continue,
        };
        let mut found = Recognised::new(FilesystemKind::Ufs);
        found.block_size = Some(word(&sb, 52));
        let identity = [word(&sb, 144), word(&sb, 148)];
        if identity != [0; 2] {
            found.uuid = identity.map(|half| format!("{half:08x}")).concat();
        }
        if word(&sb, 1372) == MAGICS[1] {
            found.label = text::label(&array::<32>(&sb, 680));
        }
        return Ok(Some(found));
    }
    Ok(None)
}
