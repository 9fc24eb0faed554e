//! Access control lists of POSIX: from the form on the volume to the one programs are given.

use crate::bytes::{le16, le32};

const VERSION_ON_DISK: u32 = 1;
const VERSION_GIVEN: u32 = 2;
/// Of whoever has no number: owner, group, mask and all others.
const NO_ID: u32 = u32::MAX;

/// The list as `getxattr` gives it; nothing when it is none.
pub(super) fn given(on_disk: &[u8]) -> Option<Vec<u8>> {
    const USER: u16 = 0x2;
    const GROUP: u16 = 0x8;
    /// Owner, group of the owner, mask, others.
    const WITHOUT_ID: [u16; 4] = [0x1, 0x4, 0x10, 0x20];
    let (version, mut rest) = on_disk.split_at_checked(4)?;
    if le32(version, 0) != VERSION_ON_DISK {
        return None;
    }
    let mut list = VERSION_GIVEN.to_le_bytes().to_vec();
    while !rest.is_empty() {
        let (entry, after) = rest.split_at_checked(4)?;
        let tag = le16(entry, 0);
        let (id, after) = match tag {
            USER | GROUP => {
                let (id, after) = after.split_at_checked(4)?;
                (le32(id, 0), after)
            }
            tag if WITHOUT_ID.contains(&tag) => (NO_ID, after),
            _ => return None,
        };
        list.extend_from_slice(entry);
        list.extend_from_slice(&id.to_le_bytes());
        rest = after;
    }
    Some(list)
}
