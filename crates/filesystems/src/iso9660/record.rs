//! A record of a folder.

use aiv_volume_io::Extent;

use super::time::recorded;
use crate::Timestamp;
use crate::bytes::{be16, le32};

/// Bytes of a record before its name, and one of name.
pub(super) const RECORD_MIN: usize = 34;
const NAME_AT: usize = 33;

/// A section of a file, or a folder.
#[derive(Debug, Clone)]
pub(super) struct Record {
    /// Bytes of the volume.
    pub(super) extent: Extent,
    pub(super) is_folder: bool,
    pub(super) is_hidden: bool,
    /// An older relative of a file's resource fork.
    pub(super) is_associated: bool,
    /// Another section of the file follows.
    pub(super) goes_on: bool,
    /// Blocks of other files lie between its own.
    pub(super) is_interleaved: bool,
    pub(super) modified: Option<Timestamp>,
    /// As it lies there: with its version.
    pub(super) name: Vec<u8>,
    /// What the standard leaves to systems.
    pub(super) system: Vec<u8>,
}

impl Record {
    /// Reads a record of `bytes`, which has no byte more.
    pub(super) fn parse(bytes: &[u8], block_size: u32) -> Option<Self> {
        const HIDDEN: u8 = 0x01;
        const FOLDER: u8 = 0x02;
        const ASSOCIATED: u8 = 0x04;
        const GOES_ON: u8 = 0x80;
        if bytes.len() < RECORD_MIN {
            return None;
        }
        let name_len = usize::from(bytes[32]);
        let name = bytes.get(NAME_AT..NAME_AT + name_len)?;
        let system_at = NAME_AT + name_len + usize::from(name_len.is_multiple_of(2));
        let flags = bytes[25];
        // Blocks of an extended attribute record come first.
        let first = u64::from(le32(bytes, 2)) + u64::from(bytes[1]);
        Some(Self {
            extent: Extent::new(first * u64::from(block_size), le32(bytes, 10).into()),
            is_folder: flags & FOLDER != 0,
            is_hidden: flags & HIDDEN != 0,
            is_associated: flags & ASSOCIATED != 0,
            goes_on: flags & GOES_ON != 0,
            is_interleaved: bytes[26] != 0 || bytes[27] != 0,
            modified: recorded(&bytes[18..25]),
            name: name.to_vec(),
            system: bytes.get(system_at..).unwrap_or_default().to_vec(),
        })
    }

    /// Whether it is the folder itself, or the one it is in.
    pub(super) fn is_dot(&self) -> bool {
        matches!(self.name[..], [0 | 1])
    }

    /// A name of the primary tree: without a version, and without a dot that nothing follows.
    pub(super) fn plain_name(&self) -> Vec<u8> {
        let end = self.name.iter().rposition(|&byte| byte == b';').unwrap_or(self.name.len());
        let name = &self.name[..end];
        name.strip_suffix(b".").unwrap_or(name).to_vec()
    }

    /// The units of a name of Joliet, without a version.
    pub(super) fn joliet_name(&self) -> Vec<u16> {
        let mut units: Vec<u16> =
            self.name.as_chunks::<2>().0.iter().map(|pair| be16(pair, 0)).collect();
        let version = units.len().saturating_sub(2);
        if version > 0 && units[version..] == [u16::from(b';'), u16::from(b'1')] {
            units.truncate(version);
        }
        units
    }
}
