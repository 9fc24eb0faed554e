use std::collections::HashSet;

use crate::reader::NAME_BYTES_MAX;

/// Whether an [`Entry`](crate::Entry) may have this name.
pub(crate) fn is_name(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..")
        && name.len() <= NAME_BYTES_MAX
        && !name.iter().any(|&byte| byte == b'/' || byte == 0)
}

/// The names of a folder that were told.
#[derive(Default)]
pub(crate) struct Told(HashSet<Vec<u8>>);

impl Told {
    /// Whether a name is one, and none of those before it.
    pub(crate) fn is_new(&mut self, name: &[u8]) -> bool {
        is_name(name) && self.0.insert(name.to_vec())
    }
}
