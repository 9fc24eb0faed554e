//! The beginning of a file: as text, as bytes, and what is known about it.

use aiv_browse::Path;
use aiv_report::words::clean;

/// Bytes of a file that are read for a preview.
pub const PREVIEW_BYTES_MAX: usize = 64 << 10;
/// Bytes in a line of hexadecimal digits.
const HEX_BYTES: usize = 16;
/// Columns between two stops of a tabulator.
const TAB: usize = 8;

/// A file that is looked into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preview {
    /// Where it is.
    pub path: Path,
    /// Its beginning; of what is no regular file, nothing.
    pub bytes: Vec<u8>,
    /// Bytes of the file.
    pub len: u64,
    /// Names and values.
    pub facts: Vec<(String, String)>,
    /// What could not be read, in one line; empty when nothing.
    pub trouble: String,
}

/// One of the views of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tab {
    Text,
    Hex,
    Facts,
}

impl Tab {
    pub(crate) const ALL: [Self; 3] = [Self::Text, Self::Hex, Self::Facts];

    pub(crate) const fn next(self) -> Self {
        match self {
            Self::Text => Self::Hex,
            Self::Hex => Self::Facts,
            Self::Facts => Self::Text,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Hex => "hex",
            Self::Facts => "facts",
        }
    }
}

impl Preview {
    /// The view to begin with: text where it looks like text.
    pub(crate) fn first_tab(&self) -> Tab {
        match self.bytes.as_slice() {
            [] => Tab::Facts,
            bytes if bytes.contains(&0) || !is_text(bytes) => Tab::Hex,
            _ => Tab::Text,
        }
    }

    /// All lines of a view.
    pub(crate) fn lines(&self, tab: Tab) -> Vec<String> {
        match tab {
            Tab::Text => text_lines(&self.bytes),
            Tab::Hex => hex_lines(&self.bytes),
            Tab::Facts => self
                .facts
                .iter()
                .map(|(name, value)| clean(&format!("{name:<14} {value}")))
                .collect(),
        }
    }
}

/// Whether it is UTF-8, but for a character that is cut off at the end.
fn is_text(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).map_or_else(|e| e.error_len().is_none(), |_| true)
}

fn text_lines(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let line = |line: &str| {
        let mut out = String::new();
        let mut column = 0;
        for c in line.trim_end_matches('\r').chars() {
            if c == '\t' {
                let blanks = TAB - column % TAB;
                out.extend(std::iter::repeat_n(' ', blanks));
                column += blanks;
            } else {
                out.push(c);
                column += 1;
            }
        }
        clean(&out)
    };
    text.lines().map(line).collect()
}

fn hex_lines(bytes: &[u8]) -> Vec<String> {
    let line = |(at, bytes): (usize, &[u8])| {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x} ")).collect();
        let shown = |&byte: &u8| if matches!(byte, 0x20..0x7f) { char::from(byte) } else { '.' };
        let text: String = bytes.iter().map(shown).collect();
        format!("{:08x}  {hex:<48} {text}", at * HEX_BYTES)
    };
    bytes.chunks(HEX_BYTES).enumerate().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preview(bytes: &[u8]) -> Preview {
        Preview {
            path: Path::default(),
            bytes: bytes.to_vec(),
            len: bytes.len() as u64,
            facts: vec![("type".into(), "file\u{1b}".into())],
            trouble: String::new(),
        }
    }

    #[test]
    fn text_is_shown_as_text_and_anything_else_as_bytes() {
        for (bytes, tab) in [
            (&b"hello\n"[..], Tab::Text),
            (b"", Tab::Facts),
            (b"\x7fELF\0", Tab::Hex),
            (b"\xff\xfe", Tab::Hex),
            // Cut off in the middle of a character.
            (b"gr\xc3", Tab::Text),
        ] {
            assert_eq!(preview(bytes).first_tab(), tab, "{bytes:?}");
        }
    }

    #[test]
    fn nothing_in_a_file_acts_on_a_terminal() {
        let hostile = preview(b"a\tb\r\n\x1b[2J\xff\xe2\x80\xaex\n");
        assert_eq!(hostile.lines(Tab::Text), ["a       b", "\u{fffd}[2J\u{fffd}\u{fffd}x"]);
        assert_eq!(hostile.lines(Tab::Facts), ["type           file\u{fffd}"]);
        assert_eq!(
            hostile.lines(Tab::Hex),
            ["00000000  61 09 62 0d 0a 1b 5b 32 4a ff e2 80 ae 78 0a     a.b...[2J....x."
                .to_owned()]
        );
    }
}
