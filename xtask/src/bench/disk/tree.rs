//! Real files: what is installed on this machine, or an even sample of it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::{Outcome, process};

const ROOTS: [&str; 3] = ["/usr", "/etc", "/var/lib/dpkg"];
/// What an administrator puts there differs from machine to machine.
const LEFT_OUT: &str = "/usr/local";
/// A file takes whole blocks of the filesystem.
const BLOCK: u64 = 4096;
/// `rsync` says so when a file vanished while it was copying; the machine is alive.
const RSYNC_VANISHED: i32 = 24;

/// One file or link and the room it takes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    path: PathBuf,
    bytes: u64,
}

/// Files of this machine that take at most about `bytes_max`, in order of their paths.
pub(super) fn choose(bytes_max: u64) -> Result<Vec<Entry>, String> {
    let mut entries = Vec::new();
    for root in ROOTS {
        walk(Path::new(root), &mut entries)?;
    }
    entries.sort();
    Ok(sample(entries, bytes_max))
}

/// Leaves files out evenly over the whole tree, so that a smaller disk holds the same mix. The
/// same tree gives the same sample.
fn sample(entries: Vec<Entry>, bytes_max: u64) -> Vec<Entry> {
    let total: u64 = entries.iter().map(|entry| entry.bytes).sum();
    if total <= bytes_max {
        return entries;
    }
    let mut left = bytes_max;
    let mut chosen = Vec::new();
    for entry in entries {
        let hash = blake3::hash(entry.path.as_os_str().as_bytes());
        let draw =
            u128::from(u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("32 bytes")));
        let is_drawn = (draw * u128::from(total)) >> 64 < u128::from(bytes_max);
        if is_drawn && entry.bytes <= left {
            left -= entry.bytes;
            chosen.push(entry);
        }
    }
    chosen
}

fn walk(root: &Path, entries: &mut Vec<Entry>) -> Outcome {
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let failed = |e: std::io::Error| format!("{}: {e}", folder.display());
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let kind = entry.file_type().map_err(failed)?;
            let path = entry.path();
            if kind.is_dir() && path != Path::new(LEFT_OUT) {
                folders.push(path);
            } else if kind.is_symlink() {
                entries.push(Entry { path, bytes: 0 });
            } else if kind.is_file() {
                // A file may vanish while we look.
                let Ok(facts) = entry.metadata() else { continue };
                entries.push(Entry { path, bytes: facts.len().next_multiple_of(BLOCK) });
            }
        }
    }
    Ok(())
}

/// Copies the files with their folders, owners, times and links below `target`.
pub(super) fn copy(entries: &[Entry], target: &Path) -> Outcome {
    rsync(entries, &["-aH"], target)
}

/// Copies the files that any filesystem keeps, with their folders and times.
pub(super) fn copy_portable(entries: &[Entry], target: &Path) -> Outcome {
    // Links take no bytes.
    let is_kept = |entry: &&Entry| entry.bytes > 0 && is_portable(&entry.path);
    let portable: Vec<Entry> = entries.iter().filter(is_kept).cloned().collect();
    rsync(&portable, &["-rt", "--inplace"], target)
}

fn is_portable(path: &Path) -> bool {
    let is_refused = |c: char| c.is_control() || c == '\u{fffd}' || r#":*?"<>|\"#.contains(c);
    let ends = |name: &str| name.ends_with(['.', ' ']);
    path.iter().all(|name| {
        let name = name.to_string_lossy();
        !name.contains(is_refused) && !ends(&name)
    })
}

fn rsync(entries: &[Entry], options: &[&str], target: &Path) -> Outcome {
    let mut command = process::command("rsync");
    command.args(options).args(["--files-from=-", "--from0", "/"]).arg(target);
    let line = process::describe(&command);
    let mut child =
        command.stdin(Stdio::piped()).spawn().map_err(|e| format!("cannot start `{line}`: {e}"))?;
    let mut list = Vec::new();
    for entry in entries {
        list.extend_from_slice(entry.path.as_os_str().as_bytes());
        list.push(0);
    }
    let sent = child.stdin.take().map(|mut pipe| pipe.write_all(&list));
    let status = child.wait().map_err(|e| format!("cannot wait for `{line}`: {e}"))?;
    if status.code() != Some(RSYNC_VANISHED) {
        process::expect_success(&line, status)?;
    }
    sent.unwrap_or(Ok(())).map_err(|e| format!("cannot name the files to `{line}`: {e}"))
}

/// Writes the contents of the files one behind the other, `bytes_max` in all.
pub(super) fn concatenate(entries: &[Entry], target: &Path, bytes_max: u64) -> Outcome {
    let failed = |e: std::io::Error| format!("{}: {e}", target.display());
    let mut out = File::create(target).map_err(failed)?;
    let mut left = bytes_max;
    for entry in entries.iter().filter(|entry| entry.bytes > 0) {
        if left == 0 {
            break;
        }
        let Ok(file) = File::open(&entry.path) else { continue };
        left -= std::io::copy(&mut file.take(left), &mut out).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(count: u64) -> Vec<Entry> {
        let entry = |n| Entry { path: format!("/{n:06}").into(), bytes: BLOCK * (n % 10) };
        (0..count).map(entry).collect()
    }

    #[test]
    fn names_that_windows_refuses_are_not_portable() {
        for name in ["/a/b c/d.e", "/ä"] {
            assert!(is_portable(Path::new(name)), "{name}");
        }
        for name in ["/usr/a:b", "/usr/a*", "/usr/a./b", "/usr/b\\c"] {
            assert!(!is_portable(Path::new(name)), "{name}");
        }
    }

    #[test]
    fn a_tree_that_fits_is_taken_whole() {
        let all = entries(100);
        assert_eq!(sample(all.clone(), 450 * BLOCK), all);
    }

    #[test]
    fn a_sample_fits_fills_and_comes_from_everywhere() {
        let all = entries(10_000);
        let max = 45_000 * BLOCK / 4;
        let chosen = sample(all, max);
        let bytes: u64 = chosen.iter().map(|entry| entry.bytes).sum();
        assert!(bytes <= max && bytes > max * 9 / 10, "{bytes} of {max}");
        let first_half = chosen.iter().filter(|entry| entry.path < Path::new("/005000")).count();
        assert!(first_half * 10 > chosen.len() * 4 && first_half * 10 < chosen.len() * 6);
    }

    #[test]
    fn chosen_files_arrive_with_their_links_and_times() {
        let source = tempfile::tempdir().unwrap();
        let target = tempfile::tempdir().unwrap();
        std::fs::create_dir(source.path().join("d")).unwrap();
        std::fs::write(source.path().join("d/a b"), "content").unwrap();
        std::os::unix::fs::symlink("a b", source.path().join("d/link")).unwrap();
        let mut found = Vec::new();
        walk(source.path(), &mut found).unwrap();
        copy(&found, target.path()).unwrap();
        let copied = target.path().join(source.path().strip_prefix("/").unwrap()).join("d");
        assert_eq!(std::fs::read_to_string(copied.join("link")).unwrap(), "content");
        let time =
            |folder: &Path| std::fs::metadata(folder.join("a b")).unwrap().modified().unwrap();
        assert_eq!(time(&copied), time(&source.path().join("d")));
    }

    #[test]
    fn contents_follow_each_other_up_to_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            Entry { path, bytes: BLOCK }
        };
        let entries = [file("a", "first"), file("b", "second")];
        let target = folder.path().join("out");
        concatenate(&entries, &target, 8).unwrap();
        assert_eq!(std::fs::read_to_string(target).unwrap(), "firstsec");
    }
}
