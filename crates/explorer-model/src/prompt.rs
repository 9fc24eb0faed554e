//! A line that is typed.

/// Characters of the longest line: more than any path has.
const LEN_MAX: usize = 4096;

/// What a line is typed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// What the names of files look like.
    Search,
    /// Where files go.
    Extract,
}

impl Purpose {
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Search => "find files",
            Self::Extract => "extract",
        }
    }

    pub(crate) const fn explained(self) -> &'static str {
        match self {
            Self::Search => "a part of the name, or a pattern: *.txt  etc/*.conf",
            Self::Extract => "into a folder, or a new archive: NAME.tar, NAME.zip",
        }
    }
}

/// A line that is being typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Prompt {
    pub(crate) purpose: Purpose,
    chars: Vec<char>,
    /// Where the next character goes.
    at: usize,
}

impl Prompt {
    pub(crate) fn new(purpose: Purpose, text: &str) -> Self {
        let chars: Vec<char> = text.chars().take(LEN_MAX).collect();
        Self { purpose, at: chars.len(), chars }
    }

    /// The same, as if all of the line had been typed.
    pub(crate) fn typed(self, text: &str) -> Self {
        let mut prompt = Self::new(self.purpose, "");
        text.chars().for_each(|c| prompt.type_char(c));
        prompt
    }

    pub(crate) fn text(&self) -> String {
        self.chars.iter().collect()
    }

    /// The part of the line that fits `width` columns, and the column of the cursor in it.
    pub(crate) fn shown(&self, width: usize) -> (String, usize) {
        let first = (self.at + 1).saturating_sub(width.max(1));
        let text = self.chars.iter().skip(first).take(width).collect();
        (text, self.at - first)
    }

    pub(crate) fn type_char(&mut self, c: char) {
        if !c.is_control() && self.chars.len() < LEN_MAX {
            self.chars.insert(self.at, c);
            self.at += 1;
        }
    }

    pub(crate) fn backspace(&mut self) {
        if let Some(before) = self.at.checked_sub(1) {
            self.chars.remove(before);
            self.at = before;
        }
    }

    pub(crate) fn left(&mut self) {
        self.at = self.at.saturating_sub(1);
    }

    pub(crate) fn right(&mut self) {
        self.at = (self.at + 1).min(self.chars.len());
    }

    pub(crate) fn home(&mut self) {
        self.at = 0;
    }

    pub(crate) fn end(&mut self) {
        self.at = self.chars.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_typed_and_removed_where_the_cursor_is() {
        let mut prompt = Prompt::new(Purpose::Search, "ac");
        prompt.left();
        prompt.type_char('b');
        prompt.type_char('\n');
        assert_eq!(prompt.text(), "abc");
        prompt.home();
        prompt.backspace();
        prompt.left();
        prompt.end();
        prompt.right();
        prompt.backspace();
        assert_eq!(prompt.text(), "ab");
    }

    #[test]
    fn of_a_long_line_the_part_with_the_cursor_is_shown() {
        let mut prompt = Prompt::new(Purpose::Extract, "0123456789");
        assert_eq!(prompt.shown(5), ("6789".to_owned(), 4));
        prompt.home();
        assert_eq!(prompt.shown(5), ("01234".to_owned(), 0));
        assert_eq!(prompt.shown(0), (String::new(), 0));
    }
}
