//! The names in a folder, in little memory: a folder may hold millions.

use std::ops::ControlFlow;

use aiv_filesystems::{FileId, Filesystem};
use aiv_volume_io::Job;

/// Bytes that the names of all folders on the way take at once, with what they lead to: some
/// twelve million of usual length.
pub(crate) const NAMES_MAX: usize = 512 << 20;

/// Why the names behind those are not listed.
pub(crate) const TOO_MANY_NAMES: &str = "it holds more names than can be listed at once";

/// What is left of the names in a folder, in the order of their bytes.
#[derive(Debug, Default)]
pub(crate) struct Names {
    bytes: Vec<u8>,
    /// The next one last.
    entries: Vec<Name>,
    is_cut: bool,
}

#[derive(Debug, Clone, Copy)]
struct Name {
    start: u32,
    len: u16,
    id: FileId,
}

impl Names {
    /// Reads a folder, as far as its names take no more than `room` bytes. Those before the first
    /// one that cannot be read are there all the same.
    pub(crate) fn read(
        filesystem: &dyn Filesystem,
        folder: FileId,
        room: usize,
        job: Job<'_>,
    ) -> (Self, aiv_filesystems::Result<()>) {
        let mut names = Self::default();
        let mut taken = 0_usize;
        let read = filesystem.entries(folder, job, &mut |entry| {
            // Whatever the volume says: a name that leads elsewhere is none.
            if !is_name(&entry.name) {
                return ControlFlow::Continue(());
            }
            taken += size_of::<Name>() + entry.name.len();
            let place = (u32::try_from(names.bytes.len()), u16::try_from(entry.name.len()));
            match place {
                (Ok(start), Ok(len)) if taken <= room => {
                    names.bytes.extend_from_slice(&entry.name);
                    names.entries.push(Name { start, len, id: entry.id });
                    ControlFlow::Continue(())
                }
                _ => {
                    names.is_cut = true;
                    ControlFlow::Break(())
                }
            }
        });
        let Self { bytes, entries, .. } = &mut names;
        entries.sort_unstable_by(|a, b| b.of(bytes).cmp(a.of(bytes)));
        (names, read)
    }

    /// Whether there was no room for all of them.
    pub(crate) const fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Bytes it takes, as [`NAMES_MAX`] counts them.
    pub(crate) fn taken(&self) -> usize {
        self.bytes.len() + self.entries.len() * size_of::<Name>()
    }

    /// The next name.
    pub(crate) fn peek(&self) -> Option<&[u8]> {
        self.entries.last().map(|name| name.of(&self.bytes))
    }

    /// The next name, and what it leads to.
    pub(crate) fn next(&mut self) -> Option<(&[u8], FileId)> {
        let name = self.entries.pop()?;
        Some((name.of(&self.bytes), name.id))
    }
}

impl Name {
    fn of(self, bytes: &[u8]) -> &[u8] {
        let start = self.start as usize;
        bytes.get(start..start + usize::from(self.len)).unwrap_or_default()
    }
}

/// Whether a name is one, and leads nowhere else.
fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name != b"."
        && name != b".."
        && !name.iter().any(|&byte| byte == b'/' || byte == 0)
}

#[cfg(test)]
mod tests {
    use aiv_testkit::files::{Node, Tree};

    use super::*;

    #[test]
    fn names_come_in_the_order_of_their_bytes_and_end_where_the_room_does() {
        let mut tree = Tree::new();
        for name in [&b"b"[..], b"..", b"a\xff", b"a", b"x/y", b""] {
            tree.add(1, name, Node::file(b""));
        }
        let read = |room| {
            let (mut names, read) = Names::read(&tree, tree.root(), room, Job::silent());
            assert!(read.is_ok());
            let is_cut = names.is_cut();
            let mut all = Vec::new();
            while let Some((name, id)) = names.next() {
                all.push((name.to_vec(), id.number));
            }
            (all, is_cut)
        };
        let all = vec![(b"a".to_vec(), 5), (b"a\xff".to_vec(), 4), (b"b".to_vec(), 2)];
        assert_eq!(read(NAMES_MAX), (all.clone(), false));
        let (some, is_cut) = read(2 * size_of::<Name>() + 3);
        assert_eq!((some, is_cut), (all[1..].to_vec(), true));
    }
}
