//! All there is to show, for a face that has other means than lines of characters.

use aiv_browse::{FileType, Path};
use aiv_report::words::clean;

use crate::event::{Amount, Work};
use crate::keys::{MOVES, about, bindings};
use crate::map::BlockMap;
use crate::page::{Line, Tone, busy_text, set_name};
use crate::preview::Tab;
use crate::rows::{FileRow, Files, VolumeRow};
use crate::screen::{Kind, Screen};
use crate::screens::{
    Column, DIFFERENCES_IN_WORDS, DISK, FILES, POINTS, SETS, difference_cells, file_cells, minute,
    point_cells, set_cells, shown_of, volume_cells,
};
use crate::state::{Over, Start, State};
use crate::timeline::sign;

/// What a screen shows but its rows and its picture. All text is safe to show.
#[derive(Debug, Clone, PartialEq)]
pub struct Scene {
    /// [`State::version`].
    pub version: u64,
    /// The screen in a word: `sets`, `points`, `disk`, `folder`, `found`, `preview`, `map`,
    /// `differences` or `report`.
    pub kind: &'static str,
    /// The screens on top of each other, by name.
    pub trail: Vec<String>,
    /// The columns of its rows; none for a text.
    pub columns: &'static [Column],
    /// The column that says what a row is.
    pub main: usize,
    /// How many rows there are.
    pub len: usize,
    /// What is said when there are none.
    pub empty: &'static str,
    /// The row that is selected; none of a text.
    pub selected: Option<usize>,
    /// What people should know about it.
    pub notes: Vec<String>,
    /// The views of a file, and which of them is seen.
    pub tabs: Vec<(&'static str, bool)>,
    /// What is selected, or how much is seen.
    pub status: Line,
    /// One line for the moment; empty when nothing happened.
    pub said: String,
    /// What is going on.
    pub working: Option<Working>,
    /// What keys do here.
    pub keys: Vec<Help>,
    /// What lies over the screen.
    pub over: Option<Overlay>,
    /// Whether [`State::picture`] has one.
    pub has_picture: bool,
}

/// A key and what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Help {
    /// How the key is called.
    pub key: &'static str,
    /// What it does, in a word; empty for keys that only move.
    pub short: &'static str,
    /// What it does, in a sentence.
    pub long: &'static str,
}

/// Something that goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Working {
    /// What, and how far it is.
    pub text: String,
    /// Bytes done and bytes in all, where both are known.
    pub amount: Option<(u64, u64)>,
    /// Somebody has to say a passphrase.
    pub asks: bool,
}

/// What lies over a screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Overlay {
    /// What the screen is about, and all of its keys.
    Help {
        /// Lines of a paragraph.
        about: &'static [&'static str],
        /// The keys.
        keys: Vec<Help>,
    },
    /// Something was not done.
    Problem {
        /// What happened.
        line: String,
        /// The next step.
        hint: String,
    },
    /// A line is asked for: [`Event::Typed`](crate::Event::Typed).
    Prompt {
        /// What for.
        title: &'static str,
        /// What it may look like.
        explained: &'static str,
        /// What it begins with.
        text: String,
    },
}

/// A row of a list, or a line of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// One text for each column; of a text, the line.
    pub cells: Vec<String>,
    /// How it is meant.
    pub tone: Tone,
    /// Whether there is something to see in it.
    pub opens: bool,
    /// The file or folder it is, where it can be downloaded.
    pub path: Option<Path>,
}

/// The picture of a screen.
#[derive(Debug, Clone, PartialEq)]
pub enum Picture<'s> {
    /// Points in time.
    Time(Vec<PointMark>),
    /// A disk of so many bytes and its partitions.
    Disk(u64, Vec<Part>),
    /// The blocks of a point.
    Blocks(&'s BlockMap),
}

/// A point in a picture of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PointMark {
    /// When, milliseconds since 1970 UTC.
    pub time_unix_ms: u64,
    /// The same as people read it.
    pub time: String,
    /// Bytes stored for it.
    pub size_stored: u64,
    /// `F` full, `i` incremental, `d` differential, `?` locked, `!` flawed, `x` lost.
    pub sign: char,
}

/// A partition in a picture of a disk; one in pieces is not drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Which row it is.
    pub row: usize,
    /// Its name.
    pub name: String,
    /// What is on it.
    pub holds: &'static str,
    /// First byte.
    pub start: u64,
    /// Bytes.
    pub len: u64,
}

impl State {
    /// What is shown but rows and picture.
    #[must_use]
    pub fn scene(&self) -> Scene {
        let top = self.top();
        let is_text = top.is_text() || matches!(top, Screen::Map { .. });
        Scene {
            version: self.version(),
            kind: kind_name(top.kind()),
            trail: self.screens.iter().map(|screen| self.name_of(screen)).collect(),
            columns: self.columns(),
            main: match top.kind() {
                Kind::Points | Kind::Disk => 0,
                _ => self.columns().len().saturating_sub(1),
            },
            len: self.line_count(),
            empty: self.empty(),
            selected: top.cursor().filter(|_| !is_text).map(|cursor| cursor.at),
            notes: self.notes_here(),
            tabs: match top {
                Screen::Preview { tab, .. } => {
                    Tab::ALL.map(|one| (one.name(), one == *tab)).to_vec()
                }
                _ => Vec::new(),
            },
            status: self.status_here(),
            said: self.said.clone(),
            working: self.busy.as_ref().map(|busy| Working {
                text: busy_text(busy),
                amount: match busy.amount {
                    Some(Amount::Bytes { done, total: total @ 1.., .. }) => Some((done, total)),
                    _ => None,
                },
                asks: matches!(
                    busy.work,
                    Work::Unlock { .. } | Work::UnlockVolume { asks: Some(_), .. }
                ),
            }),
            keys: self.keys_here().collect(),
            over: self.over.as_ref().map(|over| self.overlay(over)),
            has_picture: self.picture().is_some(),
        }
    }

    /// At most `count` rows from `first` on.
    #[must_use]
    pub fn rows(&self, first: usize, count: usize) -> Vec<Row> {
        let texts = |lines: &[String]| {
            let seen = lines.iter().skip(first).take(count);
            seen.map(|line| row((vec![line.clone()], Tone::Plain), false, None)).collect()
        };
        match self.top() {
            Screen::Sets { .. } => {
                let seen = self.sets.iter().skip(first).take(count);
                seen.map(|set| row(set_cells(set), true, None)).collect()
            }
            Screen::Points { .. } => {
                let points = self.set().map_or(&[][..], |set| &set.points);
                let seen = points.iter().skip(first).take(count);
                seen.map(|point| row(point_cells(point), true, None)).collect()
            }
            Screen::Disk { facts, .. } => {
                let volumes = facts.as_ref().map_or(&[][..], |facts| &facts.volumes);
                let seen = volumes.iter().skip(first).take(count);
                let path =
                    |volume: &VolumeRow| volume.closed.is_empty().then(|| volume.path.clone());
                seen.map(|volume| row(volume_cells(volume), true, path(volume))).collect()
            }
            Screen::Folder { files: None, .. } | Screen::Map { .. } => Vec::new(),
            Screen::Folder { files: Some(files), path, .. } => file_rows(files, path, first, count),
            Screen::Found { files, below, .. } => file_rows(files, below, first, count),
            Screen::Differences { found, .. } => {
                let seen = found.rows.iter().skip(first).take(count);
                let cells = |one| {
                    let (mut cells, tone) = difference_cells(one);
                    if let Some(sign) = cells.first_mut() {
                        *sign = in_a_word(sign).to_owned();
                    }
                    (cells, tone)
                };
                seen.map(|one| row(cells(one), false, None)).collect()
            }
            Screen::Preview { lines, .. } | Screen::Report { lines, .. } => texts(lines),
        }
    }

    /// The picture of the screen, where it has one.
    #[must_use]
    pub fn picture(&self) -> Option<Picture<'_>> {
        match self.top() {
            Screen::Points { .. } => {
                let points = self.set()?.points.iter();
                let marks = points.map(|point| PointMark {
                    time_unix_ms: point.time_unix_ms,
                    time: minute(point.time_unix_ms),
                    size_stored: point.size_stored,
                    sign: sign(point),
                });
                Some(Picture::Time(marks.collect()))
            }
            Screen::Disk { facts: Some(facts), .. } => {
                let parts = facts.volumes.iter().enumerate().filter_map(|(row, volume)| {
                    let start = volume.start?;
                    let name = volume.name.clone();
                    Some(Part { row, name, holds: volume.holds, start, len: volume.len })
                });
                Some(Picture::Disk(facts.len, parts.collect()))
            }
            Screen::Map { map } => Some(Picture::Blocks(map)),
            _ => None,
        }
    }

    fn columns(&self) -> &'static [Column] {
        match self.top().kind() {
            Kind::Sets => &SETS,
            Kind::Points => &POINTS,
            Kind::Disk => &DISK,
            Kind::Folder | Kind::Found => &FILES,
            Kind::Differences => &DIFFERENCES_IN_WORDS,
            Kind::Preview | Kind::Map | Kind::Report => &[],
        }
    }

    fn name_of(&self, screen: &Screen) -> String {
        match screen {
            Screen::Sets { .. } => clean(&self.start.path().display().to_string()),
            Screen::Points { set, .. } => {
                self.sets.get(*set).map_or_else(String::new, |set| set_name(&set.name))
            }
            Screen::Disk { name, .. } => clean(name),
            Screen::Folder { path, .. } => last_of(path),
            Screen::Found { pattern, .. } => clean(&format!("found: {pattern}")),
            Screen::Preview { preview, .. } => last_of(&preview.path),
            Screen::Map { .. } => "blocks".to_owned(),
            Screen::Differences { .. } => "compared".to_owned(),
            Screen::Report { title, .. } => title.clone(),
        }
    }

    fn notes_here(&self) -> Vec<String> {
        let notes = match self.top() {
            Screen::Sets { .. } => &self.notes[..],
            Screen::Folder { files: Some(files), .. } | Screen::Found { files, .. } => &files.notes,
            Screen::Differences { found, .. } => &found.notes,
            _ => &[],
        };
        notes.iter().map(|note| clean(note)).collect()
    }

    fn status_here(&self) -> Line {
        match self.top() {
            Screen::Preview { preview, .. } => {
                let (text, tone) = shown_of(preview);
                Line::of(text, tone)
            }
            Screen::Report { bad, lines, .. } => match bad {
                true => Line::of("something is wrong", Tone::Bad),
                false if lines.len() == 1 => Line::of("1 line", Tone::Dim),
                false => Line::of(format!("{} lines", lines.len()), Tone::Dim),
            },
            Screen::Differences { title, .. } => {
                Line::of(format!("{title}  "), Tone::Plain).and_all(self.about_selected())
            }
            Screen::Map { .. } => Line::of("each cell stands for blocks in a row", Tone::Dim),
            _ => self.about_selected(),
        }
    }

    fn keys_here(&self) -> impl Iterator<Item = Help> {
        let is_disk = matches!(self.start, Start::Disk(_));
        bindings(self.top().kind(), self.downloads)
            // What a disk without points cannot tell.
            .filter(move |binding| !is_disk || binding.called != "b" || self.is_point())
            .map(|binding| Help { key: binding.called, short: binding.short, long: binding.long })
    }

    fn is_point(&self) -> bool {
        match self.top() {
            Screen::Disk { facts: Some(facts), .. } => facts.is_point,
            _ => false,
        }
    }

    fn overlay(&self, over: &Over) -> Overlay {
        match over {
            Over::Help(_) => {
                let moves = MOVES.iter().filter(|(key, _)| *key != "Ctrl-C" || !self.downloads);
                let moves = moves.map(|&(key, long)| Help { key, short: "", long });
                Overlay::Help {
                    about: about(self.top().kind(), self.downloads),
                    keys: self.keys_here().chain(moves).collect(),
                }
            }
            Over::Problem(problem, _) => {
                Overlay::Problem { line: clean(&problem.line), hint: clean(&problem.hint) }
            }
            Over::Prompt(prompt) => Overlay::Prompt {
                title: prompt.purpose.title(),
                explained: prompt.purpose.explained(),
                text: prompt.text(),
            },
        }
    }
}

fn row((cells, tone): (Vec<String>, Tone), opens: bool, path: Option<Path>) -> Row {
    Row { cells, tone, opens, path }
}

fn file_rows(files: &Files, folder: &Path, first: usize, count: usize) -> Vec<Row> {
    let path = |file: &FileRow| match file.metadata.file_type {
        FileType::File | FileType::Folder => Some(file.path(folder)),
        _ => None,
    };
    let seen = files.rows.iter().skip(first).take(count);
    seen.map(|file| row(file_cells(file), true, path(file))).collect()
}

/// What a sign of a difference means.
fn in_a_word(sign: &str) -> &str {
    match sign {
        "+" => "new",
        "-" => "gone",
        ">" => "renamed",
        "~" => "changed",
        other => other,
    }
}

/// The last name of a path, safe to show.
fn last_of(path: &Path) -> String {
    let name = Path::default().join(path.name()).to_string();
    clean(name.strip_prefix('/').unwrap_or(&name))
}

const fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Sets => "sets",
        Kind::Points => "points",
        Kind::Disk => "disk",
        Kind::Folder => "folder",
        Kind::Found => "found",
        Kind::Preview => "preview",
        Kind::Map => "map",
        Kind::Differences => "differences",
        Kind::Report => "report",
    }
}
