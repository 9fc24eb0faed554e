//! What is drawn: lines of text, each part with a tone.

use crate::event::{Amount, Work};
use crate::keys::{MOVES, about, bindings};
use crate::state::{Busy, Over, Start, State};
use aiv_report::words::{clean, size};

use crate::screen::Screen;

/// How a part of a line is meant; what that looks like is up to who draws it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tone {
    /// Text.
    #[default]
    Plain,
    /// Less important than the rest.
    Dim,
    /// The name of a column, a key, a title.
    Strong,
    /// All is well.
    Good,
    /// To be looked at.
    Warn,
    /// Lost or damaged.
    Bad,
}

/// A part of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// What it says, safe to draw.
    pub text: String,
    /// How it is meant.
    pub tone: Tone,
}

/// A line. It may be longer than there is room for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Line {
    /// Its parts, from left to right.
    pub spans: Vec<Span>,
    /// Whether it is the one that is selected.
    pub selected: bool,
}

impl Line {
    /// A line of one part.
    #[must_use]
    pub fn of(text: impl Into<String>, tone: Tone) -> Self {
        Self::default().and(text, tone)
    }

    /// The same with one more part.
    #[must_use]
    pub fn and(mut self, text: impl Into<String>, tone: Tone) -> Self {
        self.spans.push(Span { text: text.into(), tone });
        self
    }

    /// The same with all parts of another line.
    #[must_use]
    pub(crate) fn and_all(mut self, other: Self) -> Self {
        self.spans.extend(other.spans);
        self
    }

    /// What it says, without tones.
    #[must_use]
    pub fn text(&self) -> String {
        self.spans.iter().map(|span| span.text.as_str()).collect()
    }
}

/// A box in the middle of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Panel {
    /// What it is.
    pub title: String,
    /// How it is meant.
    pub tone: Tone,
    /// What is in it, as far as it is seen.
    pub lines: Vec<Line>,
    /// Columns of its inside.
    pub width: usize,
    /// Lines of its inside.
    pub height: usize,
    /// Column and line of the cursor in it, where something is typed.
    pub cursor: Option<(usize, usize)>,
}

/// All there is to draw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The first line: where one is.
    pub title: Line,
    /// As many lines as there are between the first and the last two.
    pub lines: Vec<Line>,
    /// The last but one: what is going on, or what is selected.
    pub status: Line,
    /// The last one: keys.
    pub keys: Line,
    /// What lies over the lines.
    pub panel: Option<Panel>,
}

/// Lines of a page that are no part of the screen.
const FRAME: usize = 3;
/// Columns of a panel, where there are as many.
const PANEL_WIDTH: usize = 74;

impl State {
    /// What is to be drawn.
    #[must_use]
    pub fn page(&self) -> Page {
        let mut lines = self.body();
        lines.resize(self.body_height(), Line::default());
        Page {
            title: self.title(),
            lines,
            status: self.status(),
            keys: self.key_line(),
            panel: self.over.as_ref().map(|over| self.panel(over)),
        }
    }

    /// Lines between the first and the last two.
    pub(crate) fn body_height(&self) -> usize {
        self.height.saturating_sub(FRAME)
    }

    fn title(&self) -> Line {
        const NAME: &str = "aiv-explorer ";
        let mut place = clean(&self.start.path().display().to_string());
        let points = self.screens.iter().any(|screen| matches!(screen, Screen::Points { .. }));
        if let Some(set) = self.set().filter(|_| points) {
            place += &format!(" > {}", set_name(&set.name));
        }
        if let (Start::Folder(_), Some(Screen::Disk { .. })) = (&self.start, self.screens.get(2))
            && let Some(point) = self.point()
        {
            place += &format!(" > {}", clean(&point.file));
        }
        place += &match self.top() {
            Screen::Folder { path, .. } => format!(" > {path}"),
            Screen::Found { below, pattern, .. } => format!(" > {} in {below}", clean(pattern)),
            Screen::Preview { preview, .. } => format!(" > {}", preview.path),
            Screen::Map { .. } => " > blocks".to_owned(),
            Screen::Differences { title, .. } | Screen::Report { title, .. } => {
                format!(" > {title}")
            }
            Screen::Sets { .. } | Screen::Points { .. } | Screen::Disk { .. } => String::new(),
        };
        let room = self.width.saturating_sub(NAME.len());
        Line::of(NAME, Tone::Strong).and(end_of(&clean(&place), room), Tone::Plain)
    }

    fn status(&self) -> Line {
        if let Some(busy) = &self.busy {
            return Line::of(busy_text(busy) + &self.waiting_keys(), Tone::Warn);
        }
        if !self.said.is_empty() {
            return Line::of(self.said.clone(), Tone::Warn);
        }
        self.about_selected()
    }

    /// The keys that fit, and no half ones; the help has all.
    fn key_line(&self) -> Line {
        let said: Vec<(&str, &str)> = match (&self.busy, &self.over) {
            (Some(_), _) => vec![("Esc", "stop"), ("q", "quit")],
            (None, Some(Over::Prompt(_))) => vec![("Enter", "go"), ("Esc", "back")],
            (None, Some(_)) => vec![("Esc", "close"), ("arrows", "scroll"), ("q", "quit")],
            (None, None) => {
                let bound = bindings(self.top().kind(), self.downloads);
                bound.map(|binding| (binding.called, binding.short)).collect()
            }
        };
        let (mut line, mut len) = (Line::default(), 0);
        for (key, what) in said {
            len += key.len() + 1 + what.len();
            if len > self.width {
                break;
            }
            line = line.and(key, Tone::Strong).and(format!(" {what}  "), Tone::Plain);
            len += 2;
        }
        line
    }

    /// All lines of a panel, and how many of them are seen.
    pub(crate) fn panel_size(&self, over: &Over) -> (usize, usize) {
        let lines = self.panel_lines(over).len();
        (lines, lines.min(self.panel_room()))
    }

    fn panel_width(&self) -> usize {
        PANEL_WIDTH.min(self.width.saturating_sub(4))
    }

    fn panel_room(&self) -> usize {
        self.height.saturating_sub(4)
    }

    fn panel(&self, over: &Over) -> Panel {
        let (_, height) = self.panel_size(over);
        let (title, tone, top) = match over {
            Over::Help(cursor) => ("help", Tone::Strong, cursor.top),
            Over::Problem(_, cursor) => ("that did not work", Tone::Bad, cursor.top),
            Over::Prompt(prompt) => (prompt.purpose.title(), Tone::Strong, 0),
        };
        let width = self.panel_width();
        let cursor = match over {
            Over::Prompt(prompt) => Some((prompt.shown(width).1, 0)),
            _ => None,
        };
        let lines = self.panel_lines(over).into_iter().skip(top).take(height).collect();
        Panel { title: title.to_owned(), tone, lines, width, height, cursor }
    }

    fn panel_lines(&self, over: &Over) -> Vec<Line> {
        let width = self.panel_width();
        let text = |text: &str, tone| wrap(text, width).into_iter().map(move |l| Line::of(l, tone));
        match over {
            Over::Help(_) => {
                let kind = self.top().kind();
                let about =
                    about(kind, self.downloads).iter().flat_map(|line| text(line, Tone::Plain));
                let keys =
                    bindings(kind, self.downloads).map(|binding| (binding.called, binding.long));
                let keys = keys.chain(MOVES.iter().copied());
                let keys = keys.flat_map(|(key, what)| help_lines(key, what, width));
                about.chain([Line::default()]).chain(keys).collect()
            }
            Over::Problem(problem, _) => {
                let next = clean(&format!("next: {}", problem.hint));
                let lines = text(&clean(&problem.line), Tone::Plain).chain([Line::default()]);
                lines.chain(text(&next, Tone::Strong)).collect()
            }
            Over::Prompt(prompt) => {
                let typed = Line::of(clean(&prompt.shown(width).0), Tone::Strong);
                [typed].into_iter().chain(text(prompt.purpose.explained(), Tone::Dim)).collect()
            }
        }
    }
}

/// Columns of the names of keys in a help.
const KEY_WIDTH: usize = 14;

fn help_lines(key: &str, what: &str, width: usize) -> Vec<Line> {
    let lines = wrap(what, width.saturating_sub(KEY_WIDTH));
    let line = |(at, text): (usize, String)| {
        let key = if at == 0 { key } else { "" };
        Line::of(format!("{key:<KEY_WIDTH$}"), Tone::Strong).and(text, Tone::Plain)
    };
    lines.into_iter().enumerate().map(line).collect()
}

pub(crate) fn busy_text(busy: &Busy) -> String {
    let what = match &busy.work {
        Work::Scan { .. } => "looking into the folder",
        Work::Open { .. } => "opening",
        Work::Describe { .. } | Work::Read { .. } => "reading",
        Work::List { .. } => "listing",
        Work::Search { .. } => "searching",
        Work::Map => "reading the index",
        Work::Verify { .. } => "verifying",
        Work::Extract { .. } => "extracting",
        Work::Compare { .. } => "comparing",
        Work::UnlockVolume { asks: None, .. } => "unlocking",
        Work::Unlock { .. } | Work::UnlockVolume { .. } => "unlocking by a passphrase",
    };
    match busy.amount {
        Some(Amount::Bytes { step, done, total: 0 }) => format!("{what}: {step}, {}", size(done)),
        Some(Amount::Bytes { step, done, total }) => {
            let percent = u128::from(done.min(total)) * 100 / u128::from(total);
            format!("{what}: {step}, {percent}%, {} of {}", size(done), size(total))
        }
        Some(Amount::Looked(count)) => format!("{what}: {count} looked at"),
        None => format!("{what} ..."),
    }
}

/// The name of a set, or what there is instead.
pub(crate) fn set_name(name: &str) -> String {
    if name.is_empty() { "sealed set".to_owned() } else { clean(name) }
}

/// The end of a text, with a mark where it was cut off.
fn end_of(text: &str, room: usize) -> String {
    let count = text.chars().count();
    if count <= room {
        return text.to_owned();
    }
    let kept = text.chars().skip(count - room.saturating_sub(1));
    std::iter::once('<').chain(kept).take(room).collect()
}

/// Text in lines of at most `width` characters, broken between words where there are any.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut len = 0;
    for word in text.split_whitespace() {
        let mut word: Vec<char> = word.chars().collect();
        if len > 0 && len + 1 + word.len() > width {
            lines.push(std::mem::take(&mut line));
            len = 0;
        }
        while word.len() > width {
            let rest = word.split_off(width);
            lines.push(word.into_iter().collect());
            word = rest;
        }
        if len > 0 {
            line.push(' ');
            len += 1;
        }
        len += word.len();
        line.extend(word);
    }
    if len > 0 {
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_words_are_broken_and_others_are_not() {
        assert_eq!(wrap("a bc def", 4), ["a bc", "def"]);
        assert_eq!(wrap("x abcdefghij", 4), ["x", "abcd", "efgh", "ij"]);
        assert_eq!(wrap("ab", 0), ["a", "b"]);
        assert_eq!(wrap("  ", 9), [""; 0]);
    }

    #[test]
    fn of_a_long_place_the_end_is_shown() {
        assert_eq!(end_of("/a/b", 9), "/a/b");
        assert_eq!(end_of("/home/user", 5), "<user");
        assert_eq!((end_of("/a", 1), end_of("/a", 0)), ("<".into(), String::new()));
    }
}
