//! What the keys of the screens do.

use std::path::PathBuf;

use aiv_browse::{FileType, Path};
use aiv_report::words::clean;

use crate::event::{Command, Work};
use crate::keys::Action;
use crate::preview::Tab;
use crate::prompt::{Prompt, Purpose};
use crate::rows::{FileRow, PointRow, SetRow};
use crate::screen::{Cursor, Screen};
use crate::state::{Over, Start, State};

/// Where files go unless somebody says otherwise.
const EXTRACT_TO: &str = "restored";

impl State {
    pub(crate) fn act(&mut self, action: Action, out: &mut Vec<Command>) {
        match action {
            Action::Go(by) => {
                let (len, room) = (self.line_count(), self.room());
                let Some(screen) = self.screens.last_mut() else { return };
                let is_text = screen.is_text();
                match screen.cursor_mut() {
                    Some(cursor) if is_text => cursor.scroll(by, room, len),
                    Some(cursor) => cursor.go(by, room, len),
                    None => {}
                }
            }
            Action::Open => self.open(out),
            Action::Back => self.back(out),
            Action::Help => self.over = Some(Over::Help(Cursor::default())),
            Action::Quit | Action::Stop => self.quit(out),
            Action::Refresh => self.refresh(out),
            Action::Unlock => {
                let what = self.start.path().clone();
                self.start_work(Work::Unlock { what }, out);
            }
            Action::Verify => self.verify(out),
            Action::Describe => self.describe(out),
            Action::Mark => self.mark(),
            Action::Compare => self.compare(out),
            Action::Map => self.map(out),
            Action::Search => {
                if self.folder_here().is_some() {
                    self.over = Some(Over::Prompt(Prompt::new(Purpose::Search, "")));
                }
            }
            Action::Extract => {
                if self.file_here().is_some() {
                    self.over = Some(Over::Prompt(Prompt::new(Purpose::Extract, EXTRACT_TO)));
                }
            }
            Action::Download if self.is_closed() => {
                "open it first: Enter".clone_into(&mut self.said);
            }
            Action::Download => match self.file_row().map(|file| file.metadata.file_type) {
                None | Some(FileType::File | FileType::Folder) => {
                    out.extend(self.file_here().map(|path| Command::Download { path }));
                }
                Some(_) => "only files and folders can be downloaded".clone_into(&mut self.said),
            },
            Action::NextTab => {
                let next = match self.top() {
                    Screen::Preview { tab, .. } => Some(tab.next()),
                    _ => None,
                };
                self.show_tab(next);
            }
        }
    }

    /// Shows one of the views of a file, where one is looked into.
    pub(crate) fn show_tab(&mut self, shown: Option<Tab>) {
        if let (Some(Screen::Preview { preview, tab, lines, cursor }), Some(shown)) =
            (self.screens.last_mut(), shown)
        {
            *tab = shown;
            *lines = preview.lines(shown);
            *cursor = Cursor::default();
        }
    }

    /// Selects a row, where rows are selected.
    pub(crate) fn select(&mut self, at: usize) {
        let Some(screen) = self.screens.last_mut().filter(|screen| !screen.is_text()) else {
            return;
        };
        if let Some(cursor) = screen.cursor_mut() {
            cursor.at = at;
        }
    }

    /// Does again what made the screen that is seen.
    pub(crate) fn refresh(&mut self, out: &mut Vec<Command>) {
        let work = match (self.top(), &self.start) {
            (Screen::Folder { path, .. }, _) => Work::List { path: path.clone() },
            (Screen::Disk { .. }, _) => match self.point_file() {
                Some(what) => Work::Open { what },
                None => Work::Open { what: self.start.path().clone() },
            },
            (_, Start::Folder(folder)) => Work::Scan { folder: folder.clone() },
            (_, Start::Disk(what)) => Work::Open { what: what.clone() },
        };
        self.start_work(work, out);
    }

    fn open(&mut self, out: &mut Vec<Command>) {
        let work = match self.top() {
            Screen::Sets { cursor } => {
                let set = cursor.at;
                // To the newest point: the one people look for.
                if let Some(row) = self.sets.get(set) {
                    let cursor = Cursor::on(row.points.len().saturating_sub(1));
                    self.push(Screen::Points { set, cursor });
                }
                return;
            }
            Screen::Points { .. } => self.point_file().map(|what| Work::Open { what }),
            Screen::Disk { facts: None, .. } => return self.refresh(out),
            Screen::Disk { facts: Some(facts), cursor, .. } => {
                facts.volumes.get(cursor.at).map(|volume| Work::List { path: volume.path.clone() })
            }
            Screen::Folder { files: None, .. } => return self.refresh(out),
            Screen::Folder { .. } | Screen::Found { .. } => {
                self.file_row().zip(self.file_here()).map(|(file, path)| match file.is_folder() {
                    true => Work::List { path },
                    false => Work::Read { path, facts: false },
                })
            }
            Screen::Preview { .. }
            | Screen::Map { .. }
            | Screen::Differences { .. }
            | Screen::Report { .. } => None,
        };
        if let Some(work) = work {
            self.start_work(work, out);
        }
    }

    fn back(&mut self, out: &mut Vec<Command>) {
        match self.screens.len() - 1 {
            0 => "this is the first screen; q leaves".clone_into(&mut self.said),
            depth => self.back_to(depth, out),
        }
    }

    /// Back, until only so many screens are left; where there are no more, nothing happens.
    pub(crate) fn back_to(&mut self, depth: usize, out: &mut Vec<Command>) {
        let depth = depth.max(1);
        if depth >= self.screens.len() {
            return;
        }
        self.screens.truncate(depth);
        let needs_files = matches!(self.top(), Screen::Folder { files: None, .. });
        let needs_sets =
            self.outdated && matches!(self.top(), Screen::Sets { .. } | Screen::Points { .. });
        if needs_files || needs_sets {
            self.refresh(out);
        }
    }

    fn verify(&mut self, out: &mut Vec<Command>) {
        let Start::Folder(folder) = &self.start else { return };
        let work = match self.top() {
            Screen::Sets { cursor } => self
                .sets
                .get(cursor.at)
                .map(|set| Work::Verify { what: folder.clone(), set: Some(set.id.clone()) }),
            _ => self.point_file().map(|what| Work::Verify { what, set: None }),
        };
        if let Some(work) = work {
            self.start_work(work, out);
        }
    }

    fn describe(&mut self, out: &mut Vec<Command>) {
        let work = match self.top() {
            Screen::Points { .. } => self.point_file().map(|image| Work::Describe { image }),
            _ => self.file_here().map(|path| Work::Read { path, facts: true }),
        };
        if let Some(work) = work {
            self.start_work(work, out);
        }
    }

    fn mark(&mut self) {
        let Some(point) = self.point() else { return };
        let file = point.file.clone();
        self.said = format!("{} is marked; c on another point compares", clean(&file));
        self.marked = Some(file);
    }

    fn compare(&mut self, out: &mut Vec<Command>) {
        let (Screen::Points { cursor, .. }, Some(set), Start::Folder(folder)) =
            (self.top(), self.set(), &self.start)
        else {
            return;
        };
        let marked = self.marked.as_ref();
        let marked = marked.and_then(|file| set.points.iter().position(|p| p.file == *file));
        let other = marked.filter(|&at| at != cursor.at).or(cursor.at.checked_sub(1));
        let points = other.and_then(|other| {
            let (old, new) = (other.min(cursor.at), other.max(cursor.at));
            Some((set.points.get(old)?, set.points.get(new)?))
        });
        match points {
            Some((old, new)) => {
                let (old, new) = (folder.join(&old.file), folder.join(&new.file));
                self.start_work(Work::Compare { old, new }, out);
            }
            None => {
                "nothing is before it; mark another point with m".clone_into(&mut self.said);
            }
        }
    }

    fn map(&mut self, out: &mut Vec<Command>) {
        match self.top() {
            Screen::Disk { facts: Some(facts), .. } if facts.is_point => {
                self.start_work(Work::Map, out);
            }
            _ => {
                "only recovery points know about their blocks".clone_into(&mut self.said);
            }
        }
    }

    /// The set whose points are seen.
    pub(crate) fn set(&self) -> Option<&SetRow> {
        self.screens.iter().find_map(|screen| match screen {
            Screen::Points { set, .. } => self.sets.get(*set),
            _ => None,
        })
    }

    /// The point that is selected, or the one that is open.
    pub(crate) fn point(&self) -> Option<&PointRow> {
        let at = self.screens.iter().find_map(|screen| match screen {
            Screen::Points { cursor, .. } => Some(cursor.at),
            _ => None,
        });
        self.set()?.points.get(at?)
    }

    fn point_file(&self) -> Option<PathBuf> {
        let Start::Folder(folder) = &self.start else { return None };
        Some(folder.join(&self.point()?.file))
    }

    fn file_row(&self) -> Option<&FileRow> {
        match self.top() {
            Screen::Folder { files: Some(files), cursor, .. }
            | Screen::Found { files, cursor, .. } => files.rows.get(cursor.at),
            _ => None,
        }
    }

    /// The file, folder or partition that is selected or looked into.
    pub(crate) fn file_here(&self) -> Option<Path> {
        match self.top() {
            Screen::Folder { path, .. } => Some(self.file_row()?.path(path)),
            Screen::Found { below, .. } => Some(self.file_row()?.path(below)),
            Screen::Preview { preview, .. } => Some(preview.path.clone()),
            Screen::Disk { .. } => self.folder_here(),
            _ => None,
        }
    }

    /// Whether a partition is selected whose files cannot be read.
    fn is_closed(&self) -> bool {
        match self.top() {
            Screen::Disk { facts: Some(facts), cursor, .. } => {
                facts.volumes.get(cursor.at).is_some_and(|volume| !volume.closed.is_empty())
            }
            _ => false,
        }
    }

    /// The folder that a search begins in.
    pub(crate) fn folder_here(&self) -> Option<Path> {
        match self.top() {
            Screen::Folder { path, .. } => Some(path.clone()),
            Screen::Disk { facts: Some(facts), cursor, .. } => {
                Some(facts.volumes.get(cursor.at)?.path.clone())
            }
            _ => None,
        }
    }
}
