//! What is on each screen.

use aiv_chain::{ImageKind, Protection};
use aiv_report::files::{mode, moment};
use aiv_report::words::{clean, size, time};

use crate::map::{BLOCK_KINDS, BlockKind, BlockMap};
use crate::page::{Line, Tone, set_name};
use crate::preview::{Preview, Tab};
use crate::rows::{DifferenceRow, DiskFacts, FileRow, PointRow, SetRow, Truth, VolumeRow};
use crate::screen::{Cursor, Screen};
use crate::state::State;
use crate::timeline::timeline;

/// Lines a screen must have to show a picture above its list.
const PICTURE_MIN: usize = 8;
/// Lines of that picture.
const PICTURE: usize = 2;
/// Columns of the offsets beside a map.
const OFFSET_WIDTH: usize = 12;

/// Kinds of blocks that are explained in one line.
const LEGEND: usize = 3;

/// A column of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// What stands above it.
    pub head: &'static str,
    /// Characters it is wide; 0 for the last one, which takes what is left.
    pub width: usize,
    /// Whether its text ends on the right.
    pub right: bool,
    /// Characters the screen must be wide for it.
    pub from: usize,
}

const fn left(head: &'static str, width: usize, from: usize) -> Column {
    Column { head, width, right: false, from }
}

const fn right(head: &'static str, width: usize, from: usize) -> Column {
    Column { head, width, right: true, from }
}

pub(crate) const SETS: [Column; 6] = [
    right("POINTS", 6, 0),
    left("STATE", 12, 0),
    left("NEWEST", 19, 62),
    right("STORED", 11, 74),
    left("HOST", 16, 100),
    left("SET", 0, 0),
];
pub(crate) const POINTS: [Column; 8] = [
    left("TIME", 19, 0),
    left("KIND", 4, 0),
    left("STATE", 10, 0),
    right("STORED", 11, 52),
    left("VERIFIED", 10, 64),
    left("KEY", 6, 72),
    left("POINT", 8, 80),
    left("IMAGE", 0, 100),
];
/// Characters of a name of a volume that are seen in its own column.
const PART_WIDTH: usize = 5;
pub(crate) const DISK: [Column; 5] = [
    left("PART", PART_WIDTH, 0),
    right("START", 11, 60),
    right("SIZE", 11, 0),
    left("HOLDS", 11, 0),
    left("LABEL", 0, 0),
];
pub(crate) const FILES: [Column; 4] =
    [left("MODE", 10, 60), right("SIZE", 11, 0), left("MODIFIED", 19, 48), left("NAME", 0, 0)];
pub(crate) const DIFFERENCES: [Column; 4] =
    [left("", 1, 0), right("SIZE", 11, 60), right("CHANGED", 11, 0), left("FILE", 0, 0)];
/// The same where there is room for a word.
pub(crate) const DIFFERENCES_IN_WORDS: [Column; 4] =
    [left("WHAT", 8, 0), right("SIZE", 11, 60), right("CHANGED", 11, 48), left("FILE", 0, 0)];

impl State {
    /// Lines of a list or text that are seen at once.
    pub(crate) fn room(&self) -> usize {
        let body = self.body_height();
        let above = match self.top() {
            Screen::Points { .. } | Screen::Disk { .. } if body >= PICTURE_MIN => 1 + PICTURE,
            Screen::Report { .. } => 0,
            _ => 1,
        };
        body.saturating_sub(above)
    }

    /// Lines of the list or text of the screen.
    pub(crate) fn line_count(&self) -> usize {
        match self.top() {
            Screen::Sets { .. } => self.sets.len(),
            Screen::Points { .. } => self.set().map_or(0, |set| set.points.len()),
            Screen::Disk { facts, .. } => facts.as_ref().map_or(0, |facts| facts.volumes.len()),
            Screen::Folder { files, .. } => files.as_ref().map_or(0, |files| files.rows.len()),
            Screen::Found { files, .. } => files.rows.len(),
            Screen::Preview { lines, .. } | Screen::Report { lines, .. } => lines.len(),
            Screen::Differences { found, .. } => found.rows.len(),
            Screen::Map { .. } => 0,
        }
    }

    pub(crate) fn body(&self) -> Vec<Line> {
        match self.top() {
            Screen::Sets { cursor } => {
                self.list(&SETS, *cursor, &self.sets, set_cells, &self.notes)
            }
            Screen::Points { cursor, .. } => {
                let points = self.set().map_or(&[][..], |set| &set.points);
                let mut lines = self.picture_lines(|width| time_picture(points, cursor.at, width));
                lines.extend(self.list(&POINTS, *cursor, points, point_cells, &[]));
                lines
            }
            Screen::Disk { facts: None, .. } => vec![Line::of(self.empty(), Tone::Dim)],
            Screen::Disk { facts: Some(facts), cursor, .. } => {
                let mut lines = self.picture_lines(|width| disk_picture(facts, cursor.at, width));
                lines.extend(self.list(&DISK, *cursor, &facts.volumes, volume_cells, &[]));
                lines
            }
            Screen::Folder { files: None, .. } => vec![Line::of(self.empty(), Tone::Dim)],
            Screen::Folder { files: Some(files), cursor, .. }
            | Screen::Found { files, cursor, .. } => {
                self.list(&FILES, *cursor, &files.rows, file_cells, &files.notes)
            }
            Screen::Differences { found, cursor, .. } => {
                self.list(&DIFFERENCES, *cursor, &found.rows, difference_cells, &found.notes)
            }
            Screen::Preview { preview, tab, lines, cursor } => {
                let mut page = vec![tab_line(preview, *tab)];
                page.extend(self.text(lines, *cursor));
                page
            }
            Screen::Report { lines, bad, cursor, .. } => {
                let tone = if *bad { Tone::Warn } else { Tone::Plain };
                let lines = self.text(lines, *cursor).into_iter();
                lines.map(|line| Line::of(line.text(), tone)).collect()
            }
            Screen::Map { map } => self.map_lines(map),
        }
    }

    /// What is said where there is nothing to list.
    pub(crate) fn empty(&self) -> &'static str {
        match self.top() {
            Screen::Sets { .. } => "no images in this folder",
            Screen::Points { .. } => "no points",
            Screen::Disk { facts: None, .. } if self.busy.is_some() => "",
            Screen::Disk { facts: None, .. } => "nothing is open; r tries again",
            Screen::Disk { .. } => "no partitions",
            Screen::Folder { files: None, .. } => "not listed; r lists it",
            Screen::Folder { .. } => "nothing is in this folder",
            Screen::Found { .. } => "nothing found",
            Screen::Differences { .. } => "no file is different",
            Screen::Preview { .. } | Screen::Report { .. } | Screen::Map { .. } => "nothing",
        }
    }

    /// The lines of a picture, where there is room for it.
    fn picture_lines(&self, draw: impl Fn(usize) -> Line) -> Vec<Line> {
        match self.body_height() >= PICTURE_MIN {
            true => vec![draw(self.width), Line::default()],
            false => Vec::new(),
        }
    }

    fn text(&self, lines: &[String], cursor: Cursor) -> Vec<Line> {
        let seen = lines.iter().skip(cursor.top).take(self.room());
        seen.map(|line| Line::of(line.clone(), Tone::Plain)).collect()
    }

    /// A list with its head, and notes below it where there is room.
    fn list<T>(
        &self,
        columns: &[Column],
        cursor: Cursor,
        rows: &[T],
        cells: impl Fn(&T) -> (Vec<String>, Tone),
        notes: &[String],
    ) -> Vec<Line> {
        let heads = columns.iter().map(|column| column.head.to_owned()).collect();
        let mut lines = vec![self.row(columns, heads, Tone::Strong)];
        let seen = rows.iter().enumerate().skip(cursor.top).take(self.room());
        for (at, row) in seen {
            let (cells, tone) = cells(row);
            let line = self.row(columns, cells, tone);
            lines.push(Line { selected: at == cursor.at, ..line });
        }
        if rows.is_empty() && self.busy.is_none() {
            lines.push(Line::of(self.empty(), Tone::Dim));
        }
        let notes = notes.iter().map(|note| Line::of(clean(note), Tone::Warn));
        lines.push(Line::default());
        lines.extend(notes);
        lines
    }

    fn row(&self, columns: &[Column], cells: Vec<String>, tone: Tone) -> Line {
        let fits = |column: &Column| self.width >= column.from;
        let mut text = String::new();
        for (column, cell) in columns.iter().zip(cells).filter(|(column, _)| fits(column)) {
            let width = column.width;
            let cell: String = match width {
                0 => cell,
                _ => cell.chars().take(width).collect(),
            };
            text += &match column.right {
                true => format!("{cell:>width$}  "),
                false => format!("{cell:<width$}  "),
            };
        }
        Line::of(text.trim_end(), tone)
    }

    fn map_lines(&self, map: &BlockMap) -> Vec<Line> {
        let mut lines: Vec<Line> = legend(map).to_vec();
        let columns = self.width.saturating_sub(OFFSET_WIDTH).max(1);
        let room = self.room().saturating_sub(1);
        let cells = map.cells(columns.saturating_mul(room));
        for (row, cells_of_row) in cells.chunks(columns).enumerate() {
            let offset = size(map.offset(row * columns, cells.len()));
            let mut line = Line::of(format!("{offset:>10}  "), Tone::Dim);
            for run in cells_of_row.chunk_by(|a, b| a == b) {
                let (sign, tone) = match run.first() {
                    Some(Some(kind)) => (kind.sign(), map_tone(*kind)),
                    _ => (' ', Tone::Plain),
                };
                line = line.and(std::iter::repeat_n(sign, run.len()).collect::<String>(), tone);
            }
            lines.push(line);
        }
        lines
    }

    /// What is to be said of what is selected, and where that is.
    pub(crate) fn about_selected(&self) -> Line {
        let place = |cursor: &Cursor, len: usize| match len {
            0 => String::new(),
            len => format!("{} of {len}  ", cursor.at + 1),
        };
        let more = |more: u64| match more {
            0 => String::new(),
            more => format!("and {more} more, not listed  "),
        };
        match self.top() {
            Screen::Sets { cursor } => Line::of(place(cursor, self.sets.len()), Tone::Dim),
            Screen::Points { cursor, .. } => {
                let line = Line::of(place(cursor, self.line_count()), Tone::Dim);
                let Some(point) = self.point() else { return line };
                let line = match &point.truth {
                    Truth::Restorable => line,
                    Truth::Locked => line.and("sealed: u asks for its passphrase  ", Tone::Warn),
                    Truth::Flawed(why) => line.and(clean(&format!("{why}  ")), Tone::Warn),
                    Truth::Lost(why) => line.and(clean(&format!("lost: {why}  ")), Tone::Bad),
                };
                let (file, comment) = (&point.file, &point.comment);
                line.and(clean(&format!("{file}  {comment}")), Tone::Dim)
            }
            Screen::Disk { facts: Some(facts), name, cursor } => {
                let table = match facts.table {
                    "none" => "no partition table".to_owned(),
                    table => format!("{table} table"),
                };
                let line = Line::of(format!("{} {table}  ", size(facts.len)), Tone::Dim);
                let volume = facts.volumes.get(cursor.at);
                let line = match volume.map(|volume| clean(&volume.closed)) {
                    Some(closed) if !closed.is_empty() => line.and(closed + "  ", Tone::Warn),
                    _ => line,
                };
                line.and(name.clone(), Tone::Dim)
            }
            Screen::Disk { facts: None, .. } | Screen::Folder { files: None, .. } => {
                Line::default()
            }
            Screen::Folder { files: Some(files), cursor, .. }
            | Screen::Found { files, cursor, .. } => {
                let text = place(cursor, files.rows.len()) + &more(files.more);
                Line::of(text, Tone::Dim)
            }
            Screen::Differences { found, cursor, .. } => {
                Line::of(place(cursor, found.rows.len()) + &more(found.more), Tone::Dim)
            }
            Screen::Preview { lines, cursor, .. } | Screen::Report { lines, cursor, .. } => {
                let last = (cursor.top + self.room()).min(lines.len());
                Line::of(format!("lines to {last} of {}", lines.len()), Tone::Dim)
            }
            Screen::Map { .. } => Line::of("each sign stands for blocks in a row", Tone::Dim),
        }
    }
}

/// What the signs of a map mean, in two lines, and how much there is of each.
fn legend(map: &BlockMap) -> [Line; 2] {
    let there = BLOCK_KINDS.into_iter().rev().filter(|&kind| map.bytes(kind) > 0);
    let mut lines = [Line::default(), Line::default()];
    for (at, kind) in there.enumerate() {
        let text = format!(" {} {}  ", kind.name(), size(map.bytes(kind)));
        let line = &mut lines[usize::from(at >= LEGEND)];
        *line = std::mem::take(line).and(kind.sign(), map_tone(kind)).and(text, Tone::Plain);
    }
    lines
}

fn map_tone(kind: BlockKind) -> Tone {
    match kind {
        BlockKind::Free => Tone::Dim,
        BlockKind::Zero | BlockKind::Used => Tone::Plain,
        BlockKind::Changed | BlockKind::Delta => Tone::Warn,
        BlockKind::Unreadable => Tone::Bad,
    }
}

/// A time as it stands in a column.
pub(crate) fn minute(unix_ms: u64) -> String {
    time(unix_ms).trim_end_matches('Z').replace('T', " ")
}

pub(crate) fn set_cells(set: &SetRow) -> (Vec<String>, Tone) {
    let count = |is: fn(&Truth) -> bool| set.points.iter().filter(|p| is(&p.truth)).count();
    let lost = count(|truth| matches!(truth, Truth::Lost(_)));
    let flawed = count(|truth| matches!(truth, Truth::Flawed(_)));
    let locked = count(|truth| *truth == Truth::Locked);
    let (state, tone) = match (lost, flawed, locked) {
        (0, 0, 0) => ("restorable".to_owned(), Tone::Plain),
        (0, 0, locked) => (format!("{locked} locked"), Tone::Warn),
        (0, flawed, _) => (format!("{flawed} flawed"), Tone::Warn),
        (lost, ..) => (format!("{lost} LOST"), Tone::Bad),
    };
    let newest = set.points.last().map_or_else(String::new, |p| minute(p.time_unix_ms));
    let stored = set.points.iter().fold(0_u64, |sum, p| sum.saturating_add(p.size_stored));
    let host = clean(&set.host);
    (
        vec![set.points.len().to_string(), state, newest, size(stored), host, set_name(&set.name)],
        tone,
    )
}

pub(crate) fn point_cells(point: &PointRow) -> (Vec<String>, Tone) {
    let kind = match point.kind {
        ImageKind::Full => "full",
        ImageKind::Incremental => "incr",
        ImageKind::Differential => "diff",
    };
    let (state, tone) = match &point.truth {
        Truth::Restorable => ("restorable", Tone::Plain),
        Truth::Flawed(_) => ("flawed", Tone::Warn),
        Truth::Locked => ("locked", Tone::Warn),
        Truth::Lost(_) => ("LOST", Tone::Bad),
    };
    let (verified, tone) = match point.verified {
        None => ("never".to_owned(), tone),
        Some(proof) if proof.sound => (time(proof.time_unix_ms).chars().take(10).collect(), tone),
        Some(_) => ("DAMAGED".to_owned(), Tone::Bad),
    };
    let key = match point.protection {
        Protection::None => "-",
        Protection::Authenticated(_) => "authen",
        Protection::Sealed(_) => "sealed",
    };
    let cells = [
        minute(point.time_unix_ms),
        kind.to_owned(),
        state.to_owned(),
        size(point.size_stored),
        verified,
        key.to_owned(),
        point.id.clone(),
        clean(&format!("{}  {}", point.file, point.comment)),
    ];
    (cells.to_vec(), tone)
}

pub(crate) fn volume_cells(volume: &VolumeRow) -> (Vec<String>, Tone) {
    // The name of a volume inside of others is longer, and there is more room for the label.
    let name = clean(&volume.name);
    let is_long = name.chars().count() > PART_WIDTH;
    let long = if is_long { format!("{name}  ") } else { String::new() };
    let cells = [
        name,
        volume.start.map_or_else(String::new, size),
        size(volume.len),
        volume.holds.to_owned(),
        clean(&format!("{long}{}", volume.label)),
    ];
    (cells.to_vec(), Tone::Plain)
}

pub(crate) fn file_cells(file: &FileRow) -> (Vec<String>, Tone) {
    let metadata = &file.metadata;
    let len = match metadata.file_type {
        aiv_browse::FileType::File => size(metadata.len),
        _ => String::new(),
    };
    let tone = if file.is_folder() { Tone::Good } else { Tone::Plain };
    (vec![mode(metadata), len, moment(metadata.modified), file.shown()], tone)
}

pub(crate) fn difference_cells(one: &DifferenceRow) -> (Vec<String>, Tone) {
    let tone = match one.sign {
        '+' => Tone::Good,
        '-' => Tone::Bad,
        _ => Tone::Plain,
    };
    let changed = if one.changed > 0 { size(one.changed) } else { String::new() };
    (vec![one.sign.to_string(), size(one.len), changed, one.text.clone()], tone)
}

fn time_picture(points: &[PointRow], selected: usize, width: usize) -> Line {
    let (signs, at) = timeline(points, selected, width);
    let mut line = Line::default();
    for (place, sign) in signs.into_iter().enumerate() {
        let tone = match sign {
            _ if Some(place) == at => Tone::Strong,
            'x' => Tone::Bad,
            '!' | '?' => Tone::Warn,
            '-' => Tone::Dim,
            _ => Tone::Good,
        };
        let sign = if Some(place) == at { '^' } else { sign };
        match line.spans.last_mut() {
            Some(span) if span.tone == tone => span.text.push(sign),
            _ => line = line.and(sign, tone),
        }
    }
    line
}

/// The partitions of a disk as they share it; what is in none is dots.
fn disk_picture(facts: &DiskFacts, selected: usize, width: usize) -> Line {
    let mut signs = vec![('.', Tone::Dim); width];
    let column = |byte: u64| {
        let at = u128::from(byte) * width as u128 / u128::from(facts.len.max(1));
        usize::try_from(at).unwrap_or(width).min(width)
    };
    for (at, volume) in facts.volumes.iter().enumerate() {
        // A volume in pieces lies within one that is drawn.
        let Some(first) = volume.start else { continue };
        let start = column(first).min(width.saturating_sub(1));
        let end = column(first.saturating_add(volume.len)).max(start + 1).min(width);
        let tone = if at == selected { Tone::Strong } else { Tone::Plain };
        let fill = if at == selected { '#' } else { '=' };
        let name = std::iter::once('|').chain(volume.name.chars());
        let text = name.chain(std::iter::repeat(fill));
        for (cell, sign) in signs.iter_mut().take(end).skip(start).zip(text) {
            *cell = (sign, tone);
        }
    }
    let mut line = Line::default();
    for run in signs.chunk_by(|a, b| a.1 == b.1) {
        let text: String = run.iter().map(|(sign, _)| *sign).collect();
        line = line.and(text, run.first().map_or(Tone::Plain, |(_, tone)| *tone));
    }
    line
}

fn tab_line(preview: &Preview, shown: Tab) -> Line {
    let mut line = Line::default();
    for tab in [Tab::Text, Tab::Hex, Tab::Facts] {
        let (text, tone) = match tab == shown {
            true => (format!("[{}] ", tab.name()), Tone::Strong),
            false => (format!(" {}  ", tab.name()), Tone::Dim),
        };
        line = line.and(text, tone);
    }
    let (text, tone) = shown_of(preview);
    let blanks = if tone == Tone::Bad { "" } else { "  " };
    line.and(format!("{blanks}{text}"), tone)
}

/// How much of a file is seen, or why nothing is.
pub(crate) fn shown_of(preview: &Preview) -> (String, Tone) {
    let held = preview.bytes.len() as u64;
    let text = match (held < preview.len, preview.trouble.is_empty()) {
        (_, false) => return (clean(&preview.trouble), Tone::Bad),
        (true, _) => format!("the first {} of {}", size(held), size(preview.len)),
        (false, _) => size(preview.len),
    };
    (text, Tone::Dim)
}
