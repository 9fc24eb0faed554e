//! What becomes of an answer.

use std::path::PathBuf;

use aiv_browse::Path;
use aiv_report::words::clean;

use crate::event::{Answer, Asks, Command, Lock, Problem, Work};
use crate::preview::Tab;
use crate::rows::{DiskFacts, Proof, SetRow};
use crate::screen::{Cursor, Screen};
use crate::state::{Busy, Over, State};

/// How often somebody may mistype the passphrase of a volume before they are told more.
const TRIES: u8 = 3;

impl State {
    /// What came of something that was asked for.
    pub(crate) fn answered(
        &mut self,
        busy: Busy,
        answer: Result<Answer, Problem>,
        out: &mut Vec<Command>,
    ) {
        let answer = match answer {
            Ok(answer) => answer,
            Err(problem) => return self.failed(busy, problem, out),
        };
        match (busy.work, answer) {
            (Work::Unlock { .. }, Answer::Unlocked) => match self.after.take() {
                Some(work) => {
                    self.outdated = true;
                    self.begin(work, true, out);
                }
                None => self.refresh(out),
            },
            (Work::UnlockVolume { path, .. }, Answer::Disk(facts)) => {
                self.unlocked(&path, facts, out);
            }
            (Work::Scan { .. }, Answer::Sets(sets, notes)) => self.found_sets(sets, notes),
            (Work::Open { what }, Answer::Disk(facts)) => {
                let name = what.file_name().unwrap_or(what.as_os_str()).to_string_lossy();
                let new = Screen::Disk {
                    name: clean(&name),
                    facts: Some(facts),
                    cursor: Cursor::default(),
                };
                match self.screens.last_mut() {
                    Some(top @ Screen::Disk { .. }) => *top = new,
                    _ => self.push(new),
                }
            }
            (Work::List { path }, Answer::Files(files)) => match self.screens.last_mut() {
                // Listed again.
                Some(Screen::Folder { path: here, files: held, .. }) if *here == path => {
                    *held = Some(files);
                }
                _ => self.push(Screen::Folder {
                    path,
                    files: Some(files),
                    cursor: Cursor::default(),
                }),
            },
            (Work::Search { below, pattern }, Answer::Files(files)) => {
                self.push(Screen::Found { below, pattern, files, cursor: Cursor::default() });
            }
            (Work::Read { facts, .. }, Answer::Preview(preview)) => {
                let tab = if facts { Tab::Facts } else { preview.first_tab() };
                let lines = preview.lines(tab);
                self.push(Screen::Preview { preview, tab, lines, cursor: Cursor::default() });
            }
            (Work::Map, Answer::Map(map)) => self.push(Screen::Map { map }),
            (Work::Compare { old, new }, Answer::Differences(found)) => {
                let name =
                    |path: &PathBuf| path.file_name().map(|n| n.to_string_lossy().into_owned());
                let title = [&old, &new].map(|path| name(path).unwrap_or_default()).join(" -> ");
                let title = clean(&title);
                self.push(Screen::Differences { title, found, cursor: Cursor::default() });
            }
            (work, Answer::Report { text, bad, proven }) => {
                // Other points may be read through what is damaged.
                self.outdated |= proven.iter().any(|image| !image.sound);
                self.proven.retain(|old| proven.iter().all(|new| new.file != old.file));
                self.proven.extend(proven);
                self.prove();
                let title = title_of(&work).to_owned();
                let lines = text.lines().map(clean).collect();
                self.push(Screen::Report { title, lines, bad, cursor: Cursor::default() });
            }
            // Another answer than the one to this question: nothing is to be made of it.
            _ => {}
        }
    }

    /// What was not done is done after somebody was asked for a passphrase that would help; else
    /// the problem is shown.
    fn failed(&mut self, busy: Busy, problem: Problem, out: &mut Vec<Command>) {
        if problem.canceled {
            self.after = None;
            return "stopped".clone_into(&mut self.said);
        }
        match (problem.lock, busy.work) {
            (Lock::Image, work) if !busy.asked && !is_unlock(&work) => {
                let what = self.start.path().clone();
                self.after = Some(work);
                self.begin(Work::Unlock { what }, true, out);
            }
            // Not by what is known, or not by what was typed.
            (Lock::Volume | Lock::WrongKey, Work::UnlockVolume { path, asks })
                if self.tries < TRIES =>
            {
                self.tries += 1;
                let asks = Some(Asks { line: clean(&problem.line), again: asks.is_some() });
                self.begin(Work::UnlockVolume { path, asks }, true, out);
            }
            (Lock::Volume | Lock::WrongKey, work)
                if !busy.asked && path_of(&work).is_some() && !is_unlock(&work) =>
            {
                let path = path_of(&work).cloned().unwrap_or_default();
                self.after = Some(work);
                self.tries = 0;
                self.begin(Work::UnlockVolume { path, asks: None }, true, out);
            }
            _ => {
                self.after = None;
                self.over = Some(Over::Problem(problem, Cursor::default()));
            }
        }
    }

    /// An encrypted volume is open: the disk may have more volumes now.
    fn unlocked(&mut self, path: &Path, facts: DiskFacts, out: &mut Vec<Command>) {
        let is_inside = |inner: &Path| {
            inner.parts().len() > path.parts().len() && inner.parts().starts_with(path.parts())
        };
        let holds_volumes = facts.volumes.iter().any(|volume| is_inside(&volume.path));
        let disks = self.screens.iter_mut().rev();
        let known = disks.filter_map(|screen| match screen {
            Screen::Disk { facts, .. } => Some(facts),
            _ => None,
        });
        if let Some(known) = known.into_iter().next() {
            *known = Some(facts);
        }
        match self.after.take() {
            Some(work) if !holds_volumes => self.begin(work, true, out),
            _ => "unlocked; what it holds is listed".clone_into(&mut self.said),
        }
    }

    /// The sets, where somebody goes on looking at the one and the point they were at.
    fn found_sets(&mut self, sets: Vec<SetRow>, notes: Vec<String>) {
        let place = |screens: &[Screen], old: &[SetRow]| {
            let Some(Screen::Points { set, cursor }) = screens.get(1) else { return None };
            let set = old.get(*set)?;
            Some((set.id.clone(), set.points.get(cursor.at).map(|point| point.file.clone())))
        };
        let place = place(&self.screens, &self.sets);
        (self.sets, self.notes, self.outdated) = (sets, notes, false);
        self.prove();
        let Some((id, file)) = place else { return };
        let found = self.sets.iter().position(|set| set.id == id);
        match (found, self.screens.get_mut(1)) {
            (Some(at), Some(Screen::Points { set, cursor })) => {
                *set = at;
                let points = &self.sets[at].points;
                let is_it = |file: &String| points.iter().position(|point| point.file == *file);
                cursor.at = file.as_ref().and_then(is_it).unwrap_or(cursor.at);
            }
            // The set is gone.
            _ => self.screens.truncate(1),
        }
    }

    fn prove(&mut self) {
        for point in self.sets.iter_mut().flat_map(|set| &mut set.points) {
            let found = self.proven.iter().find(|proven| proven.file == point.file);
            let found = found.map(|p| Proof { time_unix_ms: p.time_unix_ms, sound: p.sound });
            point.verified = found.or(point.verified);
        }
    }
}

const fn is_unlock(work: &Work) -> bool {
    matches!(work, Work::Unlock { .. } | Work::UnlockVolume { .. })
}

/// The file of the opened disk that something is about.
const fn path_of(work: &Work) -> Option<&Path> {
    match work {
        Work::List { path }
        | Work::Search { below: path, .. }
        | Work::Read { path, .. }
        | Work::Extract { path, .. } => Some(path),
        _ => None,
    }
}

/// What a report is about.
const fn title_of(work: &Work) -> &'static str {
    match work {
        Work::Verify { .. } => "verified",
        Work::Extract { .. } => "extracted",
        Work::Describe { .. } => "image",
        _ => "report",
    }
}
