//! A metadata area: a header, and a ring of texts of which the header names the valid one.

use aiv_volume_io::{Extent, ReadAt};

use super::checksum;
use super::reason::LvmReason;
use crate::Error;
use crate::bytes::{le32, le64};
use crate::stop::Stop;

const HEADER: usize = 512;
const HEADER_LEN: u64 = HEADER as u64;
const MAGIC: &[u8; 16] = b" LVM2 x[5A%r0N*>";
/// Where the header's list of texts begins, and bytes of an entry.
const TEXTS_AT: usize = 40;
const TEXT_ENTRY: usize = 24;
/// The copy is not kept up to date; others are.
const IGNORED: u32 = 1;
/// Bytes of a text. A volume takes about a kilobyte of it; LVM makes areas of a mebibyte.
const TEXT_MAX: u64 = 4 << 20;

/// The text that is valid, `None` when this copy is not kept up to date or holds none yet.
pub(super) fn read(volume: &dyn ReadAt, area: Extent) -> Result<Option<String>, Stop> {
    let offset = area.start;
    let wrong = |what| Stop::from(LvmReason::Area { offset, what });
    if area.len < 2 * HEADER_LEN || area.end() > volume.len() {
        return Err(wrong("it does not fit into the volume"));
    }
    let mut header = [0; HEADER];
    let failed = Error::io("read header of LVM metadata area", offset);
    volume.read_exact_at(&mut header, offset).map_err(failed)?;
    if checksum::of(&header[4..]) != le32(&header, 0) {
        return Err(LvmReason::Checksum { section: "header of the metadata area", offset }.into());
    }
    if header[4..20] != *MAGIC || le32(&header, 20) != 1 {
        return Err(wrong("its header is of an unknown kind"));
    }
    if (le64(&header, 24), le64(&header, 32)) != (area.start, area.len) {
        return Err(wrong("its header names another place"));
    }
    let [valid, next] = [TEXTS_AT, TEXTS_AT + TEXT_ENTRY].map(|at| Text::from(&header[at..]));
    if valid.flags & !IGNORED != 0 {
        return Err(wrong("its header has unknown flags"));
    }
    if valid.flags == IGNORED {
        return Ok(None);
    }
    if next.offset != 0 && (next.offset, next.len) != (valid.offset, valid.len) {
        return Err(LvmReason::PendingChange { offset }.into());
    }
    if valid.offset == 0 {
        return Ok(None);
    }
    text(volume, area, valid).map(Some)
}

/// An entry of the header.
#[derive(Clone, Copy)]
struct Text {
    /// First byte in the area.
    offset: u64,
    /// Bytes, a final NUL included.
    len: u64,
    checksum: u32,
    flags: u32,
}

impl Text {
    fn from(entry: &[u8]) -> Self {
        Self {
            offset: le64(entry, 0),
            len: le64(entry, 8),
            checksum: le32(entry, 16),
            flags: le32(entry, 20),
        }
    }
}

/// Reads a text, which goes on behind the header where it meets the end of the area.
fn text(volume: &dyn ReadAt, area: Extent, text: Text) -> Result<String, Stop> {
    let offset = area.start;
    let wrong = |what| Stop::from(LvmReason::Area { offset, what });
    if text.len > TEXT_MAX {
        return Err(wrong("its text is longer than 4 MiB"));
    }
    if text.offset < HEADER_LEN || text.offset >= area.len || text.len > area.len - HEADER_LEN {
        return Err(wrong("its text does not fit"));
    }
    let first = text.len.min(area.len - text.offset);
    let mut bytes = vec![0; usize::try_from(text.len).unwrap_or(0)];
    let (head, tail) = bytes.split_at_mut(usize::try_from(first).unwrap_or(0));
    for (part, at) in [(head, text.offset), (tail, HEADER_LEN)] {
        let at = area.start + at;
        volume.read_exact_at(part, at).map_err(Error::io("read LVM metadata", at))?;
    }
    if checksum::of(&bytes) != text.checksum {
        let offset = area.start + text.offset;
        return Err(LvmReason::Checksum { section: "metadata", offset }.into());
    }
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    String::from_utf8(bytes).map_err(|_| wrong("its text is not UTF-8"))
}
