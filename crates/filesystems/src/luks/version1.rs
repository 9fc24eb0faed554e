//! The header of version 1: one record, with eight key slots.

use aiv_volume_io::{Extent, ReadAt};

use super::cipher::Spec;
use super::hash::Hash;
use super::slot::Slot;
use super::stretch::Stretch;
use super::{Data, Header, Proof, SECTOR, record, unsupported};
use crate::Result;
use crate::bytes::{array, be32};

const SIZE: usize = 592;
const SLOTS: usize = 8;
const ENABLED: u32 = 0x00ac_71f3;

pub(super) fn read(volume: &dyn ReadAt) -> Result<Header> {
    let header = record(volume, 0, SIZE)?;
    let cipher = Spec::named(&word(&array::<32>(&header, 8)), &word(&array::<32>(&header, 40)))?;
    let hash = Hash::named(&word(&array::<32>(&header, 72)))?;
    let start = u64::from(be32(&header, 104)) * SECTOR;
    let key_len = usize::try_from(be32(&header, 108)).unwrap_or(usize::MAX);
    cipher.check(key_len)?;
    if start == 0 {
        let what = "it is a header whose data lies elsewhere, which is not opened";
        return Err(unsupported(what.to_owned()));
    }
    let slots = (0..SLOTS).map(|n| 208 + 48 * n).filter(|at| be32(&header, *at) == ENABLED);
    let slots = slots.map(|at| {
        let slot = Slot {
            stretch: Stretch::Pbkdf2 {
                hash,
                rounds: be32(&header, at + 4),
                salt: array::<32>(&header, at + 8).to_vec(),
            },
            cipher,
            wrapping_len: key_len,
            start: u64::from(be32(&header, at + 40)) * SECTOR,
            stripes: be32(&header, at + 44),
            hash,
            key_len,
        };
        slot.checked(volume.len())
    });
    let proof = Proof {
        hash,
        rounds: be32(&header, 164),
        salt: array::<32>(&header, 132).to_vec(),
        digest: array::<20>(&header, 112).to_vec(),
    };
    let len = volume.len().saturating_sub(start);
    let extent = Extent::new(start, len);
    let data = Data { extent, cipher, sector: 512, first: 0 };
    Ok(Header { slots: slots.collect(), proof, data })
}

/// A word that ends with its first zero.
fn word(bytes: &[u8; 32]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
