//! The language LVM2 writes its metadata in: names with values, and sections of them.
//!
//! ```text
//! # a comment
//! name {
//!     number = 42
//!     string = "some \"words\""
//!     list = ["pv0", 0]
//! }
//! ```
//!
//! Only what LVM2 itself writes is read; anything else is an error with its place, and so is a
//! name given twice in one section. The tree borrows from the text.

use std::borrow::Cow;

/// Sections within sections: LVM2 nests group, list of volumes, volume, segment.
const DEPTH_MAX: usize = 8;
/// Entries and list elements of a whole text, at about 100 bytes of memory each. A logical volume
/// of one segment takes about 25, so this is enough for ten thousand.
const ITEMS_MAX: usize = 1 << 18;
/// Bytes of a name. LVM2 ends volume names at 127.
const NAME_MAX: usize = 255;

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// Numbers are decimal.
    Number(i64),
    Text(Cow<'a, str>),
    List(Vec<Value<'a>>),
    Section(Section<'a>),
}

/// Names and their values, in the order of the text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Section<'a>(pub(super) Vec<(&'a str, Value<'a>)>);

impl<'a> Section<'a> {
    pub(super) fn get(&self, name: &str) -> Option<&Value<'a>> {
        self.0.iter().find(|entry| entry.0 == name).map(|entry| &entry.1)
    }

    /// Names that are not in `known`; the first of them.
    pub(super) fn unknown(&self, known: &[&str]) -> Option<&'a str> {
        self.0.iter().map(|entry| entry.0).find(|name| !known.contains(name))
    }
}

/// Where a text stops making sense, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Nonsense {
    /// Byte of the text.
    pub(super) at: usize,
    pub(super) what: &'static str,
}

/// Reads a whole text.
pub(super) fn parse(text: &str) -> Result<Section<'_>, Nonsense> {
    let mut parser = Parser { text, at: 0, items: 0 };
    let section = parser.section(0)?;
    match parser.peek() {
        None => Ok(section),
        Some(_) => Err(parser.wrong("a bracket that closes nothing")),
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    items: usize,
}

impl<'a> Parser<'a> {
    const fn wrong(&self, what: &'static str) -> Nonsense {
        Nonsense { at: self.at, what }
    }

    fn rest(&self) -> &'a [u8] {
        &self.text.as_bytes()[self.at..]
    }

    /// The next byte that is neither blank nor comment.
    fn peek(&mut self) -> Option<u8> {
        loop {
            match *self.rest().first()? {
                b' ' | b'\t' | b'\n' | b'\r' => self.at += 1,
                b'#' => {
                    let line = self.rest().iter().position(|&byte| byte == b'\n');
                    self.at = line.map_or(self.text.len(), |len| self.at + len);
                }
                byte => return Some(byte),
            }
        }
    }

    fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), Nonsense> {
        if self.peek() != Some(byte) {
            return Err(self.wrong(what));
        }
        self.at += 1;
        Ok(())
    }

    fn count_item(&mut self) -> Result<(), Nonsense> {
        self.items += 1;
        if self.items > ITEMS_MAX { Err(self.wrong("too many entries")) } else { Ok(()) }
    }

    /// Entries up to a closing brace or the end of the text.
    fn section(&mut self, depth: usize) -> Result<Section<'a>, Nonsense> {
        let mut entries: Vec<(&str, Value<'_>)> = Vec::new();
        while self.peek().is_some_and(|byte| byte != b'}') {
            self.count_item()?;
            let name = self.name()?;
            let value = match self.peek() {
                Some(b'=') => {
                    self.at += 1;
                    self.value(true)?
                }
                Some(b'{') if depth < DEPTH_MAX => {
                    self.at += 1;
                    let section = self.section(depth + 1)?;
                    self.expect(b'}', "a section that does not end")?;
                    Value::Section(section)
                }
                Some(b'{') => return Err(self.wrong("sections nested too deeply")),
                _ => return Err(self.wrong("a name without value")),
            };
            entries.push((name, value));
        }
        let mut names: Vec<&str> = entries.iter().map(|entry| entry.0).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(self.wrong("a section with a name twice"));
        }
        Ok(Section(entries))
    }

    fn name(&mut self) -> Result<&'a str, Nonsense> {
        let of_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"_+.-".contains(byte);
        let len = self.rest().iter().take_while(|byte| of_name(byte)).count();
        if len == 0 || len > NAME_MAX {
            return Err(self.wrong("no name where one must be"));
        }
        let name = &self.text[self.at..self.at + len];
        self.at += len;
        Ok(name)
    }

    fn value(&mut self, lists: bool) -> Result<Value<'a>, Nonsense> {
        match self.peek() {
            Some(b'"') => self.string().map(Value::Text),
            Some(b'[') if lists => self.list(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => Err(self.wrong("no value where one must be")),
        }
    }

    fn number(&mut self) -> Result<Value<'a>, Nonsense> {
        let of_number = |byte: &u8| byte.is_ascii_digit() || *byte == b'-';
        let len = self.rest().iter().take_while(|byte| of_number(byte)).count();
        let digits = &self.text[self.at..self.at + len];
        let number = digits.parse().map_err(|_| self.wrong("a number that is none"))?;
        self.at += len;
        // "42abc" and "4.2" are no numbers with something behind them.
        match self.rest().first() {
            None | Some(b' ' | b'\t' | b'\n' | b'\r' | b'#' | b',' | b']' | b'}') => {
                Ok(Value::Number(number))
            }
            Some(_) => Err(self.wrong("a number that is none")),
        }
    }

    /// In double quotes; a backslash stands before those and before itself.
    fn string(&mut self) -> Result<Cow<'a, str>, Nonsense> {
        self.at += 1;
        let start = self.at;
        let mut escapes = false;
        loop {
            match self.rest() {
                [b'"', ..] => break,
                [b'\\', b'"' | b'\\', ..] => {
                    escapes = true;
                    self.at += 2;
                }
                [b'\\' | b'\n' | 0, ..] | [] => {
                    return Err(self.wrong("a string that does not end"));
                }
                _ => self.at += 1,
            }
        }
        let raw = &self.text[start..self.at];
        self.at += 1;
        if !escapes {
            return Ok(Cow::Borrowed(raw));
        }
        let mut text = String::with_capacity(raw.len());
        let mut letters = raw.chars();
        while let Some(letter) = letters.next() {
            text.extend(if letter == '\\' { letters.next() } else { Some(letter) });
        }
        Ok(Cow::Owned(text))
    }

    fn list(&mut self) -> Result<Value<'a>, Nonsense> {
        self.at += 1;
        let mut values = Vec::new();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Value::List(values));
        }
        loop {
            self.count_item()?;
            values.push(self.value(false)?);
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(Value::List(values));
                }
                _ => return Err(self.wrong("a list that does not end")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wrong(text: &str, what: &str) {
        let found = parse(text).unwrap_err();
        assert_eq!(found.what, what, "{text:?}");
        assert!(found.at <= text.len());
    }

    #[test]
    fn names_sections_numbers_strings_and_lists() {
        let text = "# c\nvg.1 { a = -7 # b = 1\n l = [ \"x\\\"\\\\\", 0 ]\n s {}\n e = [] } t=\"\"";
        let inner = Section(vec![
            ("a", Value::Number(-7)),
            ("l", Value::List(vec![Value::Text("x\"\\".into()), Value::Number(0)])),
            ("s", Value::Section(Section::default())),
            ("e", Value::List(Vec::new())),
        ]);
        let whole = vec![("vg.1", Value::Section(inner)), ("t", Value::Text("".into()))];
        assert_eq!(parse(text), Ok(Section(whole)));
        assert_eq!(parse(" # nothing"), Ok(Section::default()));
    }

    #[test]
    fn whatever_lvm_does_not_write_is_refused() {
        wrong("}", "a bracket that closes nothing");
        wrong("a {", "a section that does not end");
        wrong("a", "a name without value");
        wrong("a = ", "no value where one must be");
        wrong("a = b", "no value where one must be");
        wrong("= 1", "no name where one must be");
        wrong("a = 1 a = 1", "a section with a name twice");
        wrong("a { b = 1 b {} }", "a section with a name twice");
        wrong("a = 4.2", "a number that is none");
        wrong("a = 12x", "a number that is none");
        wrong("a = 99999999999999999999", "a number that is none");
        wrong("a = --1", "a number that is none");
        wrong("a = \"b", "a string that does not end");
        wrong("a = \"b\n\"", "a string that does not end");
        wrong("a = \"\\n\"", "a string that does not end");
        wrong("a = [1", "a list that does not end");
        wrong("a = [1 2]", "a list that does not end");
        wrong("a = [[1]]", "no value where one must be");
        wrong("a = [1,]", "no value where one must be");
        wrong(&"a {".repeat(100_000), "sections nested too deeply");
        wrong(&format!("{} = 1", "n".repeat(256)), "no name where one must be");
    }

    #[test]
    fn entries_are_counted() {
        let list = |len: usize| format!("a = [{}1]", "1,".repeat(len - 1));
        assert!(parse(&list(ITEMS_MAX - 1)).is_ok());
        wrong(&list(ITEMS_MAX), "too many entries");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in r#"([a-b]|[ \n{}=\[\],#"\\]|-?[0-9]{1,20}|\PC){0,60}"#) {
            if let Err(Nonsense { at, .. }) = parse(&text) {
                prop_assert!(at <= text.len());
            }
        }
    }
}
