//! Names of files on a disk.

use std::fmt;

/// Bytes of a path as a user writes it.
const LEN_MAX: usize = 64 << 10;

/// A path on a disk: a volume, then names of bytes. The empty one is the disk itself.
///
/// `Display` is safe to print: bytes that are no text, or would act on a terminal, are written
/// `\xHH` or as U+FFFD.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Path {
    parts: Vec<Vec<u8>>,
}

/// A path that means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It goes up: say where it leads instead.
    #[error("a path with .. in it is not followed")]
    Up,
    /// It is longer than any path.
    #[error("a path of {len} bytes is too long")]
    TooLong {
        /// Its bytes.
        len: usize,
    },
    /// It holds a byte no name can hold.
    #[error("a path cannot hold a zero byte")]
    Zero,
}

impl Path {
    /// Reads a path: parts between slashes, with or without one in front.
    ///
    /// # Errors
    /// [`PathError`].
    pub fn parse(text: &[u8]) -> Result<Self, PathError> {
        if text.len() > LEN_MAX {
            return Err(PathError::TooLong { len: text.len() });
        }
        let mut path = Self::default();
        for part in text.split(|&byte| byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => return Err(PathError::Up),
                part if part.contains(&0) => return Err(PathError::Zero),
                part => path.parts.push(part.to_vec()),
            }
        }
        Ok(path)
    }

    /// Its parts.
    #[must_use]
    pub fn parts(&self) -> &[Vec<u8>] {
        &self.parts
    }

    /// The path of `name` below this one.
    #[must_use]
    pub fn join(&self, name: &[u8]) -> Self {
        let mut path = self.clone();
        path.parts.push(name.to_vec());
        path
    }

    /// The last part; empty for the disk itself.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        self.parts.last().map_or(&[], Vec::as_slice)
    }

    /// The bytes of the path, with a slash in front.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in &self.parts {
            bytes.push(b'/');
            bytes.extend_from_slice(part);
        }
        if bytes.is_empty() { b"/".to_vec() } else { bytes }
    }

    pub(crate) fn push(&mut self, name: Vec<u8>) {
        self.parts.push(name);
    }

    pub(crate) fn pop(&mut self) {
        self.parts.pop();
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.parts.is_empty() {
            return f.write_str("/");
        }
        self.parts.iter().try_for_each(|part| write!(f, "/{}", Shown(part)))
    }
}

/// A name as it can be shown: control characters and what is no UTF-8 as `\xHH`.
pub(crate) struct Shown<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                if c.is_control() || is_directional(c) {
                    write!(f, "{}", c.escape_unicode())?;
                } else {
                    write!(f, "{c}")?;
                }
            }
            chunk.invalid().iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
        }
        Ok(())
    }
}

/// Characters that make a terminal show a name in another order than it has.
fn is_directional(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_parts_between_slashes() {
        let path = Path::parse(b"/p2//etc/./fstab/").unwrap();
        assert_eq!(path.parts(), [b"p2".to_vec(), b"etc".to_vec(), b"fstab".to_vec()]);
        assert_eq!(path, Path::parse(b"p2/etc/fstab").unwrap());
        assert_eq!(path.to_bytes(), b"/p2/etc/fstab");
        assert_eq!((path.name(), path.to_string().as_str()), (&b"fstab"[..], "/p2/etc/fstab"));
        assert_eq!(Path::parse(b"//").unwrap(), Path::default());
        assert_eq!(Path::default().to_bytes(), b"/");
    }

    #[test]
    fn what_goes_up_is_too_long_or_holds_a_zero_is_refused() {
        assert_eq!(Path::parse(b"/p1/../etc"), Err(PathError::Up));
        assert_eq!(Path::parse(b"/p1/a\0b"), Err(PathError::Zero));
        assert!(matches!(Path::parse(&[b'a'; LEN_MAX + 1]), Err(PathError::TooLong { .. })));
    }

    #[test]
    fn what_would_act_on_a_terminal_is_shown_and_not_done() {
        let path = Path::parse(b"/p1/a\x1b[2Jb\xff\xe2\x80\xaec").unwrap();
        assert_eq!(path.to_string(), "/p1/a\\u{1b}[2Jb\\xff\\u{202e}c");
    }
}
