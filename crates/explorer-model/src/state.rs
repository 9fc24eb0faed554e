//! Where somebody is, and what an event makes of it.

use std::collections::VecDeque;
use std::path::PathBuf;

use crate::event::{Amount, Command, Event, Key, Problem, ProvenNow, Work};
use crate::keys::{Action, action};
use crate::preview::Tab;
use crate::prompt::{Prompt, Purpose};
use crate::rows::SetRow;
use crate::screen::{Cursor, Move, Screen};

/// Files of a folder, or of a search, that are held.
pub const FILES_MAX: usize = 100_000;
/// Files that are held for all screens: those below give up theirs, and list them again.
const FILES_HELD_MAX: usize = 2 * FILES_MAX;
/// Columns and lines where they mean nothing.
const WIDTH: u16 = 80;
const HEIGHT: u16 = 24;
/// Screens on top of each other: below that, folders in folders are not entered.
const SCREENS_MAX: usize = 2048;

/// What the explorer was started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// A folder of images.
    Folder(PathBuf),
    /// A recovery point, a raw or virtual disk, or a device.
    Disk(PathBuf),
}

impl Start {
    pub(crate) fn path(&self) -> &PathBuf {
        match self {
            Self::Folder(path) | Self::Disk(path) => path,
        }
    }
}

/// Something the outside is doing.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Busy {
    ticket: u64,
    pub(crate) work: Work,
    pub(crate) amount: Option<Amount>,
    /// The user was asked for a passphrase for it already.
    pub(crate) asked: bool,
}

/// What lies over a screen.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Over {
    Help(Cursor),
    Problem(Problem, Cursor),
    Prompt(Prompt),
}

/// What somebody sees, and where they are.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    pub(crate) start: Start,
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) sets: Vec<SetRow>,
    /// What people should know about the folder.
    pub(crate) notes: Vec<String>,
    /// Never empty.
    pub(crate) screens: Vec<Screen>,
    pub(crate) over: Option<Over>,
    pub(crate) busy: Option<Busy>,
    /// What is done when something was unlocked.
    pub(crate) after: Option<Work>,
    /// Passphrases of a volume that were tried in a row.
    pub(crate) tries: u8,
    /// Keys that were pressed meanwhile.
    pub(crate) ahead: VecDeque<Key>,
    /// File of the point that is marked.
    pub(crate) marked: Option<String>,
    /// One line for the moment.
    pub(crate) said: String,
    /// What verifications found meanwhile, of which the folder may know nothing.
    pub(crate) proven: Vec<ProvenNow>,
    /// Something was unlocked since the folder was looked into.
    pub(crate) outdated: bool,
    ticket: u64,
    ended: bool,
    /// Files are handed over, not written somewhere.
    pub(crate) downloads: bool,
    /// Another one where something else is shown.
    version: u64,
}

impl State {
    /// The beginning, on so many columns and lines, and what has to be done first.
    #[must_use]
    pub fn new(start: Start, width: u16, height: u16) -> (Self, Vec<Command>) {
        let name = start.path().display().to_string();
        let first = match start {
            Start::Folder(_) => Screen::Sets { cursor: Cursor::default() },
            Start::Disk(_) => Screen::Disk { name, facts: None, cursor: Cursor::default() },
        };
        let mut state = Self {
            start,
            width: width.into(),
            height: height.into(),
            sets: Vec::new(),
            notes: Vec::new(),
            screens: vec![first],
            over: None,
            busy: None,
            after: None,
            tries: 0,
            ahead: VecDeque::new(),
            marked: None,
            said: String::new(),
            proven: Vec::new(),
            outdated: false,
            ticket: 0,
            ended: false,
            downloads: false,
            version: 0,
        };
        let mut out = Vec::new();
        state.refresh(&mut out);
        (state, out)
    }

    /// The same for a face that is at another place than the files: it downloads them, and
    /// nothing is extracted.
    #[must_use]
    pub fn for_downloads(start: Start) -> (Self, Vec<Command>) {
        let (state, commands) = Self::new(start, WIDTH, HEIGHT);
        (Self { downloads: true, ..state }, commands)
    }

    /// A number that is another one whenever something else is shown: not when another row is
    /// selected, nor when what is going on goes on.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether the user has left.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// Screens on top of each other, at least one.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.screens.len()
    }

    /// Columns and lines.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        (self.width, self.height)
    }

    /// Whether something is going on.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.busy.is_some()
    }

    /// Whether nothing is going on, and nothing lies over the screen.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.busy.is_none() && self.over.is_none()
    }

    /// Takes an event, and says what has to be done.
    pub fn update(&mut self, event: Event) -> Vec<Command> {
        let mut out = Vec::new();
        let is_same = matches!(
            event,
            Event::Progress { .. } | Event::Resize { .. } | Event::Select(_) | Event::Abandoned
        );
        self.version += u64::from(!is_same);
        match event {
            _ if self.ended => {}
            Event::Resize { width, height } => {
                (self.width, self.height) = (width.into(), height.into());
            }
            Event::Progress { ticket, amount } => {
                if let Some(busy) = self.busy.as_mut().filter(|busy| busy.ticket == ticket) {
                    busy.amount = Some(amount);
                }
            }
            Event::Answer { ticket, answer } => {
                if let Some(busy) = self.busy.take_if(|busy| busy.ticket == ticket) {
                    self.answered(busy, answer, &mut out);
                    self.catch_up(&mut out);
                }
            }
            Event::Abandoned => self.abandoned(&mut out),
            Event::Stop if self.busy.is_some() => self.stop(&mut out),
            Event::Stop => {}
            Event::Key(key) => self.pressed(key, &mut out),
            Event::Typed(line) => match self.over.take() {
                Some(Over::Prompt(prompt)) => self.entered(prompt.typed(&line), &mut out),
                over => self.over = over,
            },
            Event::Select(_) | Event::Tab(_) | Event::BackTo(_) if !self.is_at_rest() => {}
            Event::Select(at) => self.select(at),
            Event::Tab(at) => self.show_tab(Tab::ALL.get(at).copied()),
            Event::BackTo(depth) => self.back_to(depth, &mut out),
        }
        self.settle();
        out
    }

    pub(crate) fn start_work(&mut self, work: Work, out: &mut Vec<Command>) {
        self.begin(work, false, out);
    }

    pub(crate) fn begin(&mut self, work: Work, asked: bool, out: &mut Vec<Command>) {
        self.ticket += 1;
        let ticket = self.ticket;
        out.push(Command::Start { ticket, work: work.clone() });
        self.busy = Some(Busy { ticket, work, amount: None, asked });
    }

    pub(crate) fn stop(&mut self, out: &mut Vec<Command>) {
        out.push(Command::Stop);
        self.busy = None;
        self.after = None;
        self.ahead.clear();
        "stopped".clone_into(&mut self.said);
    }

    fn abandoned(&mut self, out: &mut Vec<Command>) {
        let is_for_itself = |busy: &Busy| matches!(busy.work, Work::Verify { .. });
        if self.busy.as_ref().is_some_and(|busy| !is_for_itself(busy)) {
            self.stop(out);
            self.version += 1;
            "stopped, because no page was open".clone_into(&mut self.said);
        }
    }

    pub(crate) fn quit(&mut self, out: &mut Vec<Command>) {
        out.extend([Command::Stop, Command::Quit]);
        self.busy = None;
        self.ended = true;
    }

    pub(crate) fn pressed(&mut self, key: Key, out: &mut Vec<Command>) {
        self.said.clear();
        if self.busy.is_some() {
            return self.pressed_ahead(key, out);
        }
        let kind = self.top().kind();
        match (self.over.take(), action(kind, key, self.downloads)) {
            (_, Some(Action::Stop)) => self.quit(out),
            (Some(Over::Prompt(prompt)), _) => self.typed(prompt, key, out),
            (Some(_), Some(Action::Quit)) => self.quit(out),
            (Some(over), Some(Action::Go(by))) => self.over = Some(self.scrolled(over, by)),
            // Any other key puts it away.
            (Some(_), _) => {}
            (None, Some(action)) => self.act(action, out),
            (None, None) => {}
        }
    }

    fn scrolled(&self, over: Over, by: Move) -> Over {
        let (len, room) = self.panel_size(&over);
        match over {
            Over::Help(mut cursor) => {
                cursor.scroll(by, room, len);
                Over::Help(cursor)
            }
            Over::Problem(problem, mut cursor) => {
                cursor.scroll(by, room, len);
                Over::Problem(problem, cursor)
            }
            prompt @ Over::Prompt(_) => prompt,
        }
    }

    fn typed(&mut self, mut prompt: Prompt, key: Key, out: &mut Vec<Command>) {
        match key {
            Key::Escape => return,
            Key::Enter => return self.entered(prompt, out),
            Key::Char(c) => prompt.type_char(c),
            Key::Backspace => prompt.backspace(),
            Key::Left => prompt.left(),
            Key::Right => prompt.right(),
            Key::Home => prompt.home(),
            Key::End => prompt.end(),
            _ => {}
        }
        self.over = Some(Over::Prompt(prompt));
    }

    fn entered(&mut self, prompt: Prompt, out: &mut Vec<Command>) {
        let text = prompt.text();
        if text.trim().is_empty() {
            return;
        }
        let work = match prompt.purpose {
            Purpose::Search => {
                self.folder_here().map(|below| Work::Search { below, pattern: text })
            }
            Purpose::Extract => {
                self.file_here().map(|path| Work::Extract { path, to: PathBuf::from(text) })
            }
        };
        if let Some(work) = work {
            self.start_work(work, out);
        }
    }

    pub(crate) fn push(&mut self, screen: Screen) {
        if self.screens.len() < SCREENS_MAX {
            self.screens.push(screen);
        } else {
            "too many folders in folders to go on".clone_into(&mut self.said);
        }
        let mut held: usize = self.screens.iter().map(Screen::files_held).sum();
        for screen in &mut self.screens {
            if held <= FILES_HELD_MAX {
                break;
            }
            held -= match screen {
                Screen::Folder { files, .. } => files.take().map_or(0, |files| files.rows.len()),
                _ => 0,
            };
        }
    }

    pub(crate) fn top(&self) -> &Screen {
        self.screens.last().expect("the first screen is never taken away")
    }

    pub(crate) fn settle(&mut self) {
        let (len, room) = (self.line_count(), self.room());
        let Some(screen) = self.screens.last_mut() else { return };
        let is_text = screen.is_text();
        match screen.cursor_mut() {
            Some(cursor) if is_text => cursor.settle_text(room, len),
            Some(cursor) => cursor.settle(room, len),
            None => {}
        }
    }
}
