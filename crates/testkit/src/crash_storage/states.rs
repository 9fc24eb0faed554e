//! Iterating over the states of a history.

use std::fmt;

use super::choice::{Choice, Corner, Odometer, Sampled};
use super::replay::{ENTRY_KEPT, ENTRY_LOST, Replay, TAIL_FATES};
use super::{Event, History};
use crate::MemStorage;
use crate::random::Random;

/// A state a power cut may leave.
#[derive(Debug)]
pub struct CrashState {
    /// Operations and marks that had completed.
    pub prefix: usize,
    /// Which of the states of this prefix.
    pub number: usize,
    /// Labels the scenario had marked before the crash.
    pub acknowledged: Vec<String>,
    /// What is found after the restart. The test's own: change it at will.
    pub storage: MemStorage,
    last_event: String,
}

impl fmt::Display for CrashState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "state {} after {} operations (last: {})",
            self.number, self.prefix, self.last_event
        )
    }
}

/// The states of a history, prefix by prefix. Made by
/// [`CrashStorage::crash_states`](super::CrashStorage::crash_states) and
/// [`CrashStorage::all_crash_states`](super::CrashStorage::all_crash_states).
#[derive(Debug)]
pub struct CrashStates {
    history: History,
    replay: Replay,
    prefix: usize,
    number: usize,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Sampled { seed: u64, per_prefix: usize },
    Exhaustive { odometer: Odometer, exhausted: bool },
}

impl CrashStates {
    pub(super) fn sampled(history: History, seed: u64, per_prefix: usize) -> Self {
        Self::new(history, Source::Sampled { seed, per_prefix })
    }

    pub(super) fn exhaustive(history: History) -> Self {
        Self::new(history, Source::Exhaustive { odometer: Odometer::default(), exhausted: false })
    }

    fn new(history: History, source: Source) -> Self {
        let replay = Replay::new(&history);
        Self { history, replay, prefix: 0, number: 0, source }
    }

    /// The next state of this prefix, `None` when it has no more.
    fn next_here(&mut self) -> Option<MemStorage> {
        let (prefix, number) = (self.prefix as u64, self.number as u64);
        match &mut self.source {
            Source::Sampled { seed, per_prefix } => {
                let states = if self.replay.is_uncertain() { *per_prefix } else { 1 };
                if self.number >= states {
                    return None;
                }
                let mut garbage = Random::new(&[*seed, prefix, number, 1]);
                let mut corner = corner(self.number);
                let mut sampled = Sampled(Random::new(&[*seed, prefix, number, 0]));
                let choice: &mut dyn Choice = match &mut corner {
                    Some(corner) => corner,
                    None => &mut sampled,
                };
                Some(self.replay.crash(choice, &mut garbage))
            }
            Source::Exhaustive { exhausted, .. } if *exhausted => None,
            Source::Exhaustive { odometer, exhausted } => {
                let state = self.replay.crash(odometer, &mut Random::new(&[prefix, number]));
                *exhausted = !odometer.advance();
                Some(state)
            }
        }
    }

    fn next_prefix(&mut self) -> bool {
        let Some(event) = self.history.events.get(self.prefix) else { return false };
        self.replay.apply(event);
        self.prefix += 1;
        self.number = 0;
        if let Source::Exhaustive { odometer, exhausted } = &mut self.source {
            *odometer = Odometer::default();
            *exhausted = false;
        }
        true
    }
}

impl Iterator for CrashStates {
    type Item = CrashState;

    fn next(&mut self) -> Option<CrashState> {
        loop {
            if let Some(storage) = self.next_here() {
                storage.set_tokens(self.history.tokens.clone());
                let number = self.number;
                self.number += 1;
                let last = self.prefix.checked_sub(1).and_then(|at| self.history.events.get(at));
                return Some(CrashState {
                    prefix: self.prefix,
                    number,
                    acknowledged: self.replay.acknowledged().to_vec(),
                    storage,
                    last_event: last.map_or("nothing".to_owned(), Event::to_string),
                });
            }
            if !self.next_prefix() {
                return None;
            }
        }
    }
}

/// The corner states come first: what chance would find late or never.
fn corner(number: usize) -> Option<Corner> {
    // A torn tail has no corner: it is what chance is for.
    const UNTORN_FATES: usize = TAIL_FATES - 1;
    let entry = match number / UNTORN_FATES {
        0 => ENTRY_KEPT,
        1 => ENTRY_LOST,
        _ => return None,
    };
    Some(Corner { entry, tail: number % UNTORN_FATES })
}
