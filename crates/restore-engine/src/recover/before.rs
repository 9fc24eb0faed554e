//! What was there before the job: a target may take two names for one, as where it does not tell
//! upper from lower case, and then a file must never take the place of one that has just been
//! written.

use std::collections::{HashMap, HashSet};
use std::io;

use aiv_browse::FileType;
use rustix::fs::{AtFlags, Mode, OFlags, openat, statat, unlinkat};

use super::folder::{Existing, Sink};
use super::items::Item;
use crate::error::Result;

/// What stands for a path in a set.
type Key = [u8; 16];

/// What of the plan was in the target before anything was written; nothing is known where nothing
/// is replaced.
#[derive(Debug, Default)]
pub(super) struct Before {
    was_there: Vec<bool>,
    /// Something else of the plan is this item for the target.
    is_twin: Vec<bool>,
}

impl Before {
    /// Whether what has the name of an item was there, and is that of no other item.
    pub(super) fn may_replace(&self, at: usize) -> bool {
        let is = |list: &[bool]| list.get(at).copied().unwrap_or(false);
        is(&self.was_there) && !is(&self.is_twin)
    }
}

/// Something of the plan has a name already that the target takes for this one.
#[derive(Debug, thiserror::Error)]
#[error(
    "the target takes its name for another one of this job (it may not tell upper from lower \
     case, or leave out dots at the end): recover it under another name, or to another filesystem"
)]
pub(super) struct SameName;

/// The same of a folder, which is no reason to lose what is in it.
#[derive(Debug, thiserror::Error)]
#[error(
    "the target takes its name for another one of this job; what is in it is put there, as far as \
     no name is taken"
)]
pub(super) struct SameFolder;

impl Sink<'_> {
    /// Looks for everything that may be replaced. Folders come before what is in them.
    pub(super) fn look_before(&mut self) -> Result<()> {
        if self.options.existing == Existing::Refuse {
            return Ok(());
        }
        let plan = self.plan;
        let mut before = Before {
            was_there: vec![false; plan.items.len()],
            is_twin: vec![false; plan.items.len()],
        };
        // Folders that are there, and what stands for each: the same for two that are one.
        let mut folders: HashMap<Key, Key> = HashMap::new();
        let mut folds: HashSet<Key> = HashSet::new();
        let mut files: HashSet<(u64, u64)> = HashSet::new();
        let mut loose: Option<(Vec<u8>, bool)> = None;
        for (at, item) in plan.items.iter().enumerate() {
            self.job.check()?;
            let slash = item.path.iter().rposition(|&byte| byte == b'/');
            let above = slash.map(|at| &item.path[..at]);
            let within = match above {
                None => Key::default(),
                Some(above) => match folders.get(&key(&[above])) {
                    Some(within) => *within,
                    None => continue,
                },
            };
            let Ok((parent, name)) = self.beneath.parent(&item.path) else { continue };
            let found = statat(&*parent, name, AtFlags::SYMLINK_NOFOLLOW).ok();
            let mut own = key(&[&within, &folded(name)]);
            if !folds.insert(own) {
                let above = above.unwrap_or_default();
                if loose.as_ref().is_none_or(|(known, _)| known != above) {
                    loose = Some((above.to_vec(), self.is_loose(&parent)));
                }
                let is_loose = loose.as_ref().is_some_and(|(_, is_loose)| *is_loose);
                before.is_twin[at] = is_loose;
                if !is_loose {
                    own = key(&[&within, b"/", name]);
                }
            }
            let Some(found) = found else { continue };
            before.was_there[at] = true;
            if item.file_type == FileType::Folder {
                folders.insert(key(&[&item.path]), own);
            } else if found.st_nlink == 1 && found.st_ino != 0 {
                // No number stands for a file of which nobody knows it.
                before.is_twin[at] |= !files.insert((found.st_dev, found.st_ino));
            }
        }
        self.before = before;
        Ok(())
    }

    /// Whether a folder takes names for the same that differ in case.
    fn is_loose(&mut self, folder: &impl std::os::fd::AsFd) -> bool {
        let part = self.part();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        if openat(folder, part.as_str(), flags, Mode::RUSR | Mode::WUSR).is_err() {
            // Nothing can be written there at all.
            return true;
        }
        let upper = part.to_ascii_uppercase();
        let is_loose = statat(folder, upper.as_str(), AtFlags::SYMLINK_NOFOLLOW).is_ok();
        let _ = unlinkat(folder, part.as_str(), AtFlags::empty());
        is_loose
    }

    /// Whether something of the plan has the name that a damaged file would get.
    pub(super) fn is_of_another(&self, above: &[u8], name: &[u8]) -> bool {
        let path = [above, name].concat();
        self.plan.items.iter().any(|item| item.path.eq_ignore_ascii_case(&path))
    }

    /// Refuses an item whose name has been taken by this job.
    pub(super) fn check_name(&mut self, at: usize, item: &Item) -> io::Result<()> {
        if self.options.existing == Existing::Refuse || self.before.may_replace(at) {
            return Ok(());
        }
        // Whoever needs the folder says why it is not there.
        let Ok((parent, name)) = self.beneath.parent(&item.path) else { return Ok(()) };
        match statat(&*parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Err(io::Error::other(SameName)),
            Err(_) => Ok(()),
        }
    }
}

/// The error of a name that is taken in a folder that is new: only the job itself has taken it.
pub(super) fn taken(existing: Existing, error: io::Error) -> io::Error {
    let is_ours = existing == Existing::Refuse && error.kind() == io::ErrorKind::AlreadyExists;
    if is_ours { io::Error::other(SameName) } else { error }
}

fn key(parts: &[&[u8]]) -> Key {
    let mut hasher = blake3::Hasher::new();
    parts.iter().for_each(|part| {
        hasher.update(part);
    });
    let mut key = Key::default();
    hasher.finalize_xof().fill(&mut key);
    key
}

/// A name as a target may take it that is as loose as any: without case, and without dots and
/// blanks at its end.
fn folded(name: &[u8]) -> Vec<u8> {
    let mut name = match std::str::from_utf8(name) {
        Ok(text) => text.to_uppercase().to_lowercase().into_bytes(),
        Err(_) => name.to_ascii_lowercase(),
    };
    let end = name.iter().rposition(|byte| !b". ".contains(byte)).map_or(0, |at| at + 1);
    name.truncate(end);
    name
}

#[cfg(test)]
mod tests {
    use super::folded;

    #[test]
    fn names_are_folded() {
        assert_eq!(folded("Stra\u{df}E. ".as_bytes()), b"strasse");
        assert_eq!(folded(b"X\xff."), b"x\xff");
        assert_eq!(folded(b"..."), b"");
    }
}
