//! Which files a user means: patterns of shells, on paths inside a volume.

use std::fmt;
use std::str::FromStr;

/// Bytes of one pattern: as long as a path may be.
const PATTERN_LEN_MAX: usize = 4096;

/// A pattern that names files by their path inside a volume, with `/` between folders.
///
/// * `?` is one character, `*` any number of them, `[abc]`, `[a-z]` and `[!a-z]` one of (or not
///   of) a set; none of them is a `/`. `\` takes the next character as it is.
/// * `**` between slashes is any number of folders, none included.
/// * A pattern that begins with `/` is a path from the root of a volume; any other may begin in
///   any folder: `*.iso`, `cache/*.tmp`.
/// * A folder that matches takes everything below it along. A `/` at the end lets a pattern
///   match folders only.
///
/// Matching costs at most the length of the path times that of the pattern. Case matters where
/// it does to the filesystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    parts: Vec<Part>,
    folders_only: bool,
}

/// A pattern that means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the pattern {pattern:?} {fault}")]
pub struct BadPattern {
    /// As it was given; of a long one the beginning.
    pub pattern: String,
    /// What is wrong with it, as the rest of a sentence.
    pub fault: &'static str,
}

/// What stands between two slashes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// Any number of folders.
    Folders,
    Name(Vec<Token>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Char(char),
    One,
    Any,
    Set { ranges: Vec<(char, char)>, negated: bool },
}

impl FromStr for Pattern {
    type Err = BadPattern;

    /// Reads a pattern as a user wrote it.
    fn from_str(text: &str) -> Result<Self, BadPattern> {
        let bad = |fault| BadPattern { pattern: text.chars().take(80).collect(), fault };
        let (parts, folders_only) = parse(text).map_err(bad)?;
        Ok(Self { text: text.to_owned(), parts, folders_only })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Pattern {
    /// The pattern with which names match whatever their case, once they are folded.
    #[must_use]
    pub fn without_case(&self) -> Self {
        let mut pattern = self.clone();
        for part in &mut pattern.parts {
            let Part::Name(tokens) = part else { continue };
            for token in tokens {
                match token {
                    Token::Char(c) => *c = fold(*c),
                    // Both halves of the alphabet: a range may mix them.
                    Token::Set { ranges, .. } => {
                        let folded = ranges.iter().map(|&(a, b)| (fold(a), fold(b)));
                        let folded: Vec<_> = folded.filter(|(a, b)| a <= b).collect();
                        ranges.extend(folded);
                    }
                    Token::One | Token::Any => {}
                }
            }
        }
        pattern
    }

    /// Whether a file or folder matches by its own path, given as its parts from the root on.
    #[must_use]
    pub fn matches(&self, path: &[&str], is_folder: bool) -> bool {
        let matches = |part: &Part, name: &&str| match part {
            Part::Folders => false,
            Part::Name(tokens) => matches_name(tokens, name),
        };
        (is_folder || !self.folders_only)
            && wild(&self.parts, path, |part| *part == Part::Folders, matches)
    }
}

/// Whether a file or folder matches one of `patterns` by its own path.
pub(crate) fn any_matches(patterns: &[Pattern], path: &[&str], is_folder: bool) -> bool {
    patterns.iter().any(|pattern| pattern.matches(path, is_folder))
}

/// One character whatever its case. Names whose characters become several in another case
/// (`ß`) match only as they are written.
#[must_use]
pub fn fold(c: char) -> char {
    let mut upper = c.to_uppercase();
    match (upper.next(), upper.next()) {
        (Some(only), None) => only,
        _ => c,
    }
}

fn parse(text: &str) -> Result<(Vec<Part>, bool), &'static str> {
    if text.len() > PATTERN_LEN_MAX {
        return Err("is longer than 4,096 bytes");
    }
    let anchored = text.starts_with('/');
    let mut parts = if anchored { Vec::new() } else { vec![Part::Folders] };
    let mut name = Vec::new();
    let mut folders_only = false;
    let mut chars = text.chars().peekable();
    let mut end_name = |name: &mut Vec<Token>| match name.as_slice() {
        [] => {}
        [Token::Any, Token::Any] => {
            name.clear();
            // One after the other says no more than one.
            if parts.last() != Some(&Part::Folders) {
                parts.push(Part::Folders);
            }
        }
        _ => parts.push(Part::Name(std::mem::take(name))),
    };
    while let Some(c) = chars.next() {
        folders_only = c == '/';
        match c {
            '/' => end_name(&mut name),
            '*' => name.push(Token::Any),
            '?' => name.push(Token::One),
            '[' => name.push(parse_set(&mut chars)?),
            '\\' => match chars.next() {
                None => return Err("ends with a backslash, which has nothing to quote"),
                Some('/') => return Err("quotes a slash, which no name can have"),
                Some(quoted) => name.push(Token::Char(quoted)),
            },
            '\0' => return Err("has a zero byte, which no name can have"),
            c => name.push(Token::Char(c)),
        }
    }
    end_name(&mut name);
    let names_something = |part: &Part| matches!(part, Part::Name(_));
    if !parts.iter().any(names_something) {
        return Err("names nothing; `*` stands for everything");
    }
    // What lies anywhere below a folder: the folder itself is not meant, and what is in it is.
    if parts.last() == Some(&Part::Folders) {
        parts.push(Part::Name(vec![Token::Any]));
    }
    Ok((parts, folders_only))
}

/// The set after its opening bracket.
fn parse_set(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Token, &'static str> {
    const OPEN: &str = "has a `[` without its `]`; `\\[` is the bracket itself";
    let negated = chars.next_if(|&c| c == '!' || c == '^').is_some();
    let mut ranges = Vec::new();
    loop {
        let from = match chars.next().ok_or(OPEN)? {
            // As the first of a set it is a member.
            ']' if !ranges.is_empty() => return Ok(Token::Set { ranges, negated }),
            '/' => return Err("has a slash in a set, which no name can have"),
            '\\' => chars.next().ok_or(OPEN)?,
            c => c,
        };
        let mut ahead = chars.clone();
        let range = ahead.next() == Some('-') && ahead.peek().is_some_and(|&c| c != ']');
        let to = if range {
            chars.next();
            match chars.next().ok_or(OPEN)? {
                '\\' => chars.next().ok_or(OPEN)?,
                c => c,
            }
        } else {
            from
        };
        if to < from {
            return Err("has a set whose range runs backwards");
        }
        ranges.push((from, to));
    }
}

fn matches_name(tokens: &[Token], name: &str) -> bool {
    let chars: Vec<char> = name.chars().collect();
    wild(
        tokens,
        &chars,
        |token| *token == Token::Any,
        |token, c| match token {
            Token::Char(wanted) => wanted == c,
            Token::One => true,
            Token::Any => false,
            Token::Set { ranges, negated } => {
                ranges.iter().any(|(from, to)| (from..=to).contains(&c)) != *negated
            }
        },
    )
}

/// Matches a sequence against a pattern some of whose parts stand for any number of items. On a
/// mismatch only the last such part takes one item more: nothing before it can do better.
fn wild<P, T>(
    pattern: &[P],
    items: &[T],
    is_any: impl Fn(&P) -> bool,
    matches: impl Fn(&P, &T) -> bool,
) -> bool {
    let (mut p, mut i) = (0, 0);
    // Behind the last part for any number, and how many items it has taken up to.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        match (pattern.get(p), items.get(i)) {
            (Some(part), _) if is_any(part) => {
                p += 1;
                retry = Some((p, i));
            }
            (Some(part), Some(item)) if matches(part, item) => {
                p += 1;
                i += 1;
            }
            (None, None) => return true,
            _ => match retry {
                Some((after, taken)) if taken < items.len() => {
                    retry = Some((after, taken + 1));
                    (p, i) = (after, taken + 1);
                }
                _ => return false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        let pattern: Pattern = pattern.parse().expect("a good pattern");
        let (path, is_folder) = match path.strip_suffix('/') {
            Some(path) => (path, true),
            None => (path, false),
        };
        pattern.matches(&path.split('/').collect::<Vec<_>>(), is_folder)
    }

    #[test]
    fn a_pattern_means_what_a_shell_would_take_it_for() {
        for (pattern, path, expected) in [
            ("*.iso", "a.iso", true),
            ("*.iso", "deep/in/folders/a.iso", true),
            ("*.iso", "a.iso.txt", false),
            ("*.iso", "a.ISO", false),
            ("/*.iso", "a.iso", true),
            ("/*.iso", "sub/a.iso", false),
            ("cache/*.tmp", "var/cache/x.tmp", true),
            ("cache/*.tmp", "var/cache/sub/x.tmp", false),
            ("/var/**/x", "var/x", true),
            ("/var/**/x", "var/a/b/x", true),
            ("/var/**/x", "usr/a/b/x", false),
            ("/var/**", "var/", false),
            ("/var/**", "var/a", true),
            ("**/a/**/b/**/c", "x/a/y/a/b/z/c", true),
            ("**/a/**/b/**/c", "x/a/y/a/z/c", false),
            ("a**b", "axxb", true),
            ("a**b", "ax/xb", false),
            ("tmp/", "tmp/", true),
            ("tmp/", "tmp", false),
            ("?.txt", "é.txt", true),
            ("?.txt", "ab.txt", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[^a-c]x", "dx", true),
            ("[]-]x", "]x", true),
            ("[]-]x", "-x", true),
            (r"\*.txt", "*.txt", true),
            (r"\*.txt", "a.txt", false),
            (r"[\]]", "]", true),
            ("a//b", "a/b", true),
            ("*", "anything", true),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} on {path}");
        }
    }

    #[test]
    fn a_pattern_that_means_nothing_is_named() {
        for pattern in ["", "/", "**", "/**/", "[", "[a", "[!]", r"a\", "[z-a]", "a[b/c]d", "a\0b"]
        {
            let error = pattern.parse::<Pattern>().expect_err(pattern);
            assert_eq!(error.pattern, pattern);
            assert!(error.to_string().contains(&format!("{pattern:?}")), "{error}");
        }
        assert!("x".repeat(PATTERN_LEN_MAX + 1).parse::<Pattern>().is_err());
        assert!("x".repeat(PATTERN_LEN_MAX).parse::<Pattern>().is_ok());
    }

    #[test]
    fn without_case_names_match_in_any() {
        let pattern = |text: &str| text.parse::<Pattern>().expect("good").without_case();
        let patterns = ["PageFile.[r-t]YS", "Ä*"].map(pattern);
        for (name, expected) in [("pagefile.sys", true), ("ÄRGER", true), ("pagefile.xys", false)]
        {
            let folded: String = name.chars().map(fold).collect();
            assert_eq!(any_matches(&patterns, &[&folded], false), expected, "{name}");
        }
    }

    #[test]
    fn many_stars_take_no_time() {
        let name = "a".repeat(255);
        let path = vec![name.as_str(); 100];
        let stars = format!("{}b", "*a".repeat(100));
        let folders = format!("{}b", "**/a*/".repeat(100));
        let patterns = [stars, folders].map(|text| text.parse::<Pattern>().expect("good"));
        assert!(!any_matches(&patterns, &path, false));
    }
}
