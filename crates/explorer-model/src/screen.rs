//! The screens, one on top of the other, and where somebody is on each.

use aiv_browse::Path;

use crate::map::BlockMap;
use crate::preview::{Preview, Tab};
use crate::rows::{Differences, DiskFacts, Files};

/// What is selected of a list, or where a text begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Cursor {
    pub(crate) at: usize,
    /// The first line that is seen.
    pub(crate) top: usize,
}

impl Cursor {
    /// At the line `at`, wherever it is seen.
    pub(crate) fn on(at: usize) -> Self {
        Self { at, top: 0 }
    }

    /// Moves by lines, or to an end.
    pub(crate) fn go(&mut self, by: Move, room: usize, len: usize) {
        let last = len.saturating_sub(1);
        let page = room.saturating_sub(1).max(1);
        self.at = match by {
            Move::Up => self.at.saturating_sub(1),
            Move::Down => self.at.saturating_add(1),
            Move::PageUp => self.at.saturating_sub(page),
            Move::PageDown => self.at.saturating_add(page),
            Move::First => 0,
            Move::Last => last,
        }
        .min(last);
    }

    /// Keeps what is selected in the list, and in sight where `room` lines of it are.
    pub(crate) fn settle(&mut self, room: usize, len: usize) {
        self.at = self.at.min(len.saturating_sub(1));
        let lowest = (self.at + 1).saturating_sub(room.max(1));
        self.top = self.top.clamp(lowest, self.at);
        // No blank lines below where there are lines above.
        self.top = self.top.min(len.saturating_sub(room));
    }

    /// For a text, of which a page is seen and no line is selected.
    pub(crate) fn scroll(&mut self, by: Move, room: usize, len: usize) {
        let most = len.saturating_sub(room);
        let page = room.saturating_sub(1).max(1);
        self.top = match by {
            Move::Up => self.top.saturating_sub(1),
            Move::Down => self.top.saturating_add(1),
            Move::PageUp => self.top.saturating_sub(page),
            Move::PageDown => self.top.saturating_add(page),
            Move::First => 0,
            Move::Last => most,
        }
        .min(most);
        self.at = self.top;
    }

    pub(crate) fn settle_text(&mut self, room: usize, len: usize) {
        self.top = self.top.min(len.saturating_sub(room));
        self.at = self.top;
    }
}

/// Ways to move in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Move {
    Up,
    Down,
    PageUp,
    PageDown,
    First,
    Last,
}

/// A screen.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Screen {
    /// The sets of a folder.
    Sets { cursor: Cursor },
    /// The points of the set at this place.
    Points { set: usize, cursor: Cursor },
    /// The partitions of the opened disk; none before it is open.
    Disk { name: String, facts: Option<DiskFacts>, cursor: Cursor },
    /// A folder of the opened disk. Its files may have been given up for memory.
    Folder { path: Path, files: Option<Files>, cursor: Cursor },
    /// What a search found.
    Found { below: Path, pattern: String, files: Files, cursor: Cursor },
    /// The beginning of a file.
    Preview { preview: Preview, tab: Tab, lines: Vec<String>, cursor: Cursor },
    /// The blocks of the opened point.
    Map { map: BlockMap },
    /// What is different between two points.
    Differences { title: String, found: Differences, cursor: Cursor },
    /// A text.
    Report { title: String, lines: Vec<String>, bad: bool, cursor: Cursor },
}

/// A screen without what is on it: what keys do there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Sets,
    Points,
    Disk,
    Folder,
    Found,
    Preview,
    Map,
    Differences,
    Report,
}

impl Screen {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Sets { .. } => Kind::Sets,
            Self::Points { .. } => Kind::Points,
            Self::Disk { .. } => Kind::Disk,
            Self::Folder { .. } => Kind::Folder,
            Self::Found { .. } => Kind::Found,
            Self::Preview { .. } => Kind::Preview,
            Self::Map { .. } => Kind::Map,
            Self::Differences { .. } => Kind::Differences,
            Self::Report { .. } => Kind::Report,
        }
    }

    pub(crate) fn cursor(&self) -> Option<Cursor> {
        match self {
            Self::Map { .. } => None,
            Self::Sets { cursor }
            | Self::Points { cursor, .. }
            | Self::Disk { cursor, .. }
            | Self::Folder { cursor, .. }
            | Self::Found { cursor, .. }
            | Self::Preview { cursor, .. }
            | Self::Differences { cursor, .. }
            | Self::Report { cursor, .. } => Some(*cursor),
        }
    }

    pub(crate) fn cursor_mut(&mut self) -> Option<&mut Cursor> {
        match self {
            Self::Map { .. } => None,
            Self::Sets { cursor }
            | Self::Points { cursor, .. }
            | Self::Disk { cursor, .. }
            | Self::Folder { cursor, .. }
            | Self::Found { cursor, .. }
            | Self::Preview { cursor, .. }
            | Self::Differences { cursor, .. }
            | Self::Report { cursor, .. } => Some(cursor),
        }
    }

    /// Whether it is a text, of which no line is selected.
    pub(crate) fn is_text(&self) -> bool {
        matches!(self, Self::Preview { .. } | Self::Report { .. })
    }

    /// Files that are held for it.
    pub(crate) fn files_held(&self) -> usize {
        match self {
            Self::Folder { files: Some(files), .. } | Self::Found { files, .. } => files.rows.len(),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_selected_stays_in_the_list_and_in_sight() {
        let mut cursor = Cursor::default();
        for (by, at, top) in [
            (Move::Up, 0, 0),
            (Move::Down, 1, 0),
            (Move::PageDown, 5, 1),
            (Move::Last, 99, 95),
            (Move::Down, 99, 95),
            (Move::PageUp, 95, 95),
            (Move::First, 0, 0),
        ] {
            cursor.go(by, 5, 100);
            cursor.settle(5, 100);
            assert_eq!((cursor.at, cursor.top), (at, top), "{by:?}");
        }
        cursor = Cursor::on(50);
        cursor.settle(5, 3);
        assert_eq!(cursor, Cursor { at: 2, top: 0 });
        cursor.settle(0, 0);
        assert_eq!(cursor, Cursor::default());
    }

    #[test]
    fn a_text_ends_with_its_last_line_at_the_bottom() {
        let mut cursor = Cursor::default();
        cursor.scroll(Move::Last, 10, 25);
        assert_eq!(cursor.top, 15);
        cursor.scroll(Move::Down, 10, 25);
        assert_eq!(cursor.top, 15);
        cursor.settle_text(30, 25);
        assert_eq!(cursor.top, 0);
    }
}
