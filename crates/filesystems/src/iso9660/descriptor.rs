//! The descriptors of a volume: where its trees of folders begin.

use aiv_volume_io::ReadAt;

use super::record::{RECORD_MIN, Record};
use crate::bytes::le16;
use crate::reader::Volume;
use crate::{Error, Result};

/// Bytes of a sector, whatever the size of blocks.
pub(super) const SECTOR: u64 = 2048;
type Sector = [u8; 2048];
/// The sectors before are the system's.
const FIRST: u64 = 16;
/// More descriptors than any volume has.
const COUNT_MAX: u64 = 64;

/// A tree of folders.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) root: Record,
    pub(super) block_size: u32,
}

/// All trees of a volume.
#[derive(Debug, Default)]
pub(super) struct Trees {
    pub(super) primary: Option<Tree>,
    /// With names of UTF-16.
    pub(super) joliet: Option<Tree>,
}

impl Trees {
    pub(super) fn read(volume: &Volume) -> Result<Self> {
        const PRIMARY: u8 = 1;
        const SUPPLEMENTARY: u8 = 2;
        const END: u8 = 255;
        let mut trees = Self::default();
        for at in (FIRST..FIRST + COUNT_MAX).map(|sector| sector * SECTOR) {
            let mut bytes: Sector = [0; 2048];
            if at + SECTOR > volume.len() {
                break;
            }
            volume.read_exact_at(&mut bytes, at).map_err(Error::io("read descriptor", at))?;
            if bytes[1..6] != *b"CD001" {
                break;
            }
            match bytes[0] {
                PRIMARY if trees.primary.is_none() => trees.primary = tree(&bytes),
                SUPPLEMENTARY if trees.joliet.is_none() && is_joliet(&bytes) => {
                    trees.joliet = tree(&bytes);
                }
                END => break,
                _ => {}
            }
        }
        Ok(trees)
    }
}

/// The three levels of UCS-2, of which only the set of letters differs.
fn is_joliet(descriptor: &[u8]) -> bool {
    matches!(&descriptor[88..91], b"%/@" | b"%/C" | b"%/E")
}

fn tree(descriptor: &Sector) -> Option<Tree> {
    let block_size = u32::from(le16(descriptor, 128));
    let root = Record::parse(&descriptor[156..156 + RECORD_MIN], block_size)?;
    (matches!(block_size, 512 | 1024 | 2048) && root.is_folder).then_some(Tree { root, block_size })
}
