//! Mounts and swap, as the kernel lists them (proc(5), `/proc/pid/mountinfo`, `/proc/swaps`).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::Mount;
use super::attributes::read_limited;
use crate::{Error, Result};

/// A machine full of containers has tens of thousands of mounts of a few hundred bytes each.
const LIST_MAX: u64 = 64 << 20;

/// One line of mountinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MountLine {
    /// The kernel's number of the mount; never two at a time.
    pub(super) id: u64,
    pub(super) major: u32,
    pub(super) minor: u32,
    pub(super) mount: Mount,
    /// What was mounted, as the filesystem chose to name it.
    pub(super) source: PathBuf,
    /// Options of the filesystem as a whole.
    pub(super) super_options: String,
}

pub(super) fn read_mounts(root: &Path) -> Result<Vec<MountLine>> {
    let lines = read_lines(&root.join("proc/self/mountinfo"))?;
    Ok(lines.iter().filter_map(|line| parse_mount(line)).collect())
}

/// Devices and files that are active swap space.
pub(super) fn read_swaps(root: &Path) -> Result<Vec<PathBuf>> {
    let path = root.join("proc/swaps");
    let lines = match read_lines(&path) {
        // A kernel built without swap has no such file.
        Err(Error::Path { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Vec::new());
        }
        lines => lines?,
    };
    let first_word = |line: &Vec<u8>| Some(unescape(line.split(u8::is_ascii_whitespace).next()?));
    Ok(lines.iter().skip(1).filter(|line| !line.is_empty()).filter_map(first_word).collect())
}

fn read_lines(path: &Path) -> Result<Vec<Vec<u8>>> {
    let bytes = read_limited(path, LIST_MAX).map_err(Error::path("read", path))?;
    Ok(bytes.split(|&b| b == b'\n').map(<[u8]>::to_vec).collect())
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn parse_mount(line: &[u8]) -> Option<MountLine> {
    let mut words = line.split(|&b| b == b' ');
    let id = std::str::from_utf8(words.next()?).ok()?.parse().ok()?;
    let mut number = words
        .nth(1)?
        .splitn(2, |&b| b == b':')
        .map(|n| std::str::from_utf8(n).ok()?.parse::<u32>().ok());
    let (major, minor) = (number.next()??, number.next()??);
    let path = unescape(words.nth(1)?);
    let options = words.next()?;
    words.find(|word| *word == b"-")?;
    let fstype = String::from_utf8_lossy(words.next()?).into_owned();
    let source = unescape(words.next()?);
    let super_options = words.next().unwrap_or_default();
    let read_only = has_option(options, b"ro") || has_option(super_options, b"ro");
    Some(MountLine {
        id,
        major,
        minor,
        mount: Mount { path, read_only, fstype },
        source,
        super_options: unescape(super_options).to_string_lossy().into_owned(),
    })
}

fn has_option(options: &[u8], wanted: &[u8]) -> bool {
    options.split(|&b| b == b',').any(|option| option == wanted)
}

/// Undoes the kernel's escapes for blanks and backslashes: `\` and three octal digits.
fn unescape(word: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((&first, tail)) = rest.split_first() {
        match tail {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] if first == b'\\' => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => {
                out.push(first);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_with_optional_fields_and_blanks_is_read() {
        let before = br"36 35 98:0 /mnt1 /my\040disk\134x ro,noatime master:1 shared:2 - ";
        let line = [&before[..], b"ext3 /dev/root rw,errors=continue"].concat();
        let mount = parse_mount(&line).unwrap();
        assert_eq!((mount.id, mount.major, mount.minor), (36, 98, 0));
        assert_eq!(mount.mount.path, Path::new(r"/my disk\x"));
        assert!(mount.mount.read_only);
        assert_eq!(mount.mount.fstype, "ext3");
        assert_eq!(mount.source, Path::new("/dev/root"));
        assert_eq!(mount.super_options, "rw,errors=continue");
    }

    #[test]
    fn no_prefix_of_a_line_panics_and_none_without_a_source_is_a_mount() {
        let line = b"36 35 98:0 / /mnt rw,noatime - ext3 /dev/root rw";
        for end in 0..line.len() {
            let mount = parse_mount(&line[..end]);
            assert_eq!(
                mount.is_some(),
                end >= b"36 35 98:0 / /mnt rw,noatime - ext3 ".len(),
                "{end}"
            );
        }
    }

    #[test]
    fn an_incomplete_escape_is_kept_as_it_is() {
        assert_eq!(unescape(br"a\04"), Path::new(r"a\04"));
        assert_eq!(unescape(br"a\999"), Path::new(r"a\999"));
    }
}
