//! Access control lists, kept as IRIX had them, in the form that `getxattr` returns.
//!
//! Facts: `xfs_acl.c`, `struct xfs_acl_entry`; `posix_acl_xattr.h`.

use crate::bytes::{be16, be32};

/// Tag, number, permissions, two bytes of nothing.
const STORED_LEN: usize = 12;
const VERSION: u32 = 2;
const USER: u32 = 0x02;
const GROUP: u32 = 0x08;
/// Owner, owning group, mask, others: they have no number.
const OTHERS: [u32; 4] = [0x01, 0x04, 0x10, 0x20];
const NO_NUMBER: u32 = u32::MAX;

/// The name Linux has for an attribute that is a list.
pub(super) fn name_of(is_root: bool, name: &[u8]) -> Option<&'static str> {
    match name {
        b"SGI_ACL_FILE" if is_root => Some("system.posix_acl_access"),
        b"SGI_ACL_DEFAULT" if is_root => Some("system.posix_acl_default"),
        _ => None,
    }
}

/// A stored list as Linux returns it; `None` when it is not a list.
pub(super) fn value_of(stored: &[u8]) -> Option<Vec<u8>> {
    let (count, entries) = stored.split_at_checked(4)?;
    let count = usize::try_from(be32(count, 0)).ok()?;
    // A list is at times stored with room for more.
    let entries = entries.get(..count.checked_mul(STORED_LEN)?)?;
    let mut value = VERSION.to_le_bytes().to_vec();
    for entry in entries.as_chunks::<STORED_LEN>().0 {
        let (tag, number, allowed) = (be32(entry, 0), be32(entry, 4), be16(entry, 8));
        let number = match tag {
            USER | GROUP => number,
            _ if OTHERS.contains(&tag) => NO_NUMBER,
            _ => return None,
        };
        value.extend(u16::try_from(tag).ok()?.to_le_bytes());
        value.extend(allowed.to_le_bytes());
        value.extend(number.to_le_bytes());
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_list_is_told_as_linux_does_and_anything_else_is_none() {
        let mut stored = vec![0, 0, 0, 2];
        stored.extend([0, 0, 0, 1, 0, 0, 0, 9, 0, 6, 0, 0]);
        stored.extend([0, 0, 0, 2, 0, 0, 3, 0xe8, 0, 7, 0, 0]);
        let told = [2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 7, 0, 0xe8, 3, 0, 0];
        assert_eq!(value_of(&stored), Some(told.to_vec()));
        assert_eq!(value_of(&stored[..27]), None);
        stored[7] = 3;
        assert_eq!(value_of(&stored), None);
        assert_eq!(value_of(&[255; 40]), None);
    }
}
