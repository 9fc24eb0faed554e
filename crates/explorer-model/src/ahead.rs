//! Keys that are pressed while something goes on: they wait, and mean what they mean then.

use crate::event::{Command, Key, Work};
use crate::state::{Busy, Over, State};

/// Keys that wait at most.
const AHEAD_MAX: usize = 32;

impl State {
    /// Takes a key while something goes on. In a browser nothing waits: what is there may be another
    /// thing than whoever pressed it saw.
    pub(crate) fn pressed_ahead(&mut self, key: Key, out: &mut Vec<Command>) {
        // What begins with one of these is a line that is typed.
        let is_typed = self.ahead.iter().any(|key| matches!(key, Key::Char('/' | 'e')));
        match key {
            Key::Escape | Key::Stop => self.stop(out),
            Key::Char('q') if !is_typed => self.quit(out),
            _ if self.downloads => {}
            key if self.ahead.len() < AHEAD_MAX => self.ahead.push_back(key),
            _ => {}
        }
    }

    /// Does what waiting keys say, until something goes on again. Where something went wrong or
    /// somebody is asked, they were not meant for that.
    pub(crate) fn catch_up(&mut self, out: &mut Vec<Command>) {
        while !self.ahead.is_empty() {
            let asks =
                |busy: &Busy| matches!(busy.work, Work::Unlock { .. } | Work::UnlockVolume { .. });
            let is_other = matches!(self.over, Some(Over::Problem(..)));
            if is_other || self.busy.as_ref().is_some_and(asks) {
                self.ahead.clear();
            }
            if self.busy.is_some() {
                return;
            }
            if let Some(key) = self.ahead.pop_front() {
                self.pressed(key, out);
                self.settle();
            }
        }
    }

    /// What is said of keys that wait; empty when none does.
    pub(crate) fn waiting_keys(&self) -> String {
        match self.ahead.len() {
            0 => String::new(),
            1 => "; 1 key waits".to_owned(),
            AHEAD_MAX => format!("; {AHEAD_MAX} keys wait, no more are taken"),
            count => format!("; {count} keys wait"),
        }
    }
}
