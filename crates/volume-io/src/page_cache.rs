//! Moving a disk through the page cache without emptying it of what others use.
//!
//! A backup touches every byte once. Left alone, the kernel would keep the newest of those
//! bytes and evict the working set of the machine for them. So what *we* brought into the
//! cache is handed back soon after use; what was there before us stays.
//!
//! All of this is advice to the kernel: failures are ignored, contents are never affected.

use std::collections::VecDeque;
use std::fs::File;
use std::num::NonZeroU64;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{Advice, fadvise};

use crate::{Extent, ExtentSet};

/// Bytes handed back at a time. Large enough that the system call costs nothing beside the
/// I/O, small enough that a backup holds only a few tens of MiB.
const STRIDE: u64 = 8 << 20;

/// Runs remembered before they are handed back early, so that scattered I/O stays cheap.
const RUNS_MAX: usize = 256;

/// Strides of writes under way to the medium before the oldest is dropped. Dropping skips
/// pages that are still dirty, so a stride needs time between being started and dropped.
const STRIDES_IN_FLIGHT: usize = 4;

/// Unit of the page cache for aligning advice. Larger pages only make the kernel keep the
/// incomplete pages at the edges of a run.
const PAGE: u64 = 4096;

/// The largest unit the cache keeps and drops as one (a huge page). Advice for a part of it
/// does nothing, so strides are handed back up to such a boundary and the rest with the next.
const FOLIO_MAX: u64 = 2 << 20;

/// How far beyond a read the kernel may have read ahead: the largest `read_ahead_kb` in use,
/// 8 MiB, doubled by sequential advice, and doubled again as the next window is begun before
/// the present one is used up.
const READ_AHEAD_MAX: u64 = 32 << 20;

/// Places in which a file is read at a time, told apart: that of who goes through it, and those
/// that several threads read again meanwhile.
const PLACES_MAX: usize = 128;

/// Hands back pages behind a reader.
///
/// A read that has to wait for the medium is ours, and so are the hits that follow it as far
/// as the kernel may have read ahead. As read-ahead can hide every later miss from a slow
/// reader, and follow somebody else's cached data to its end and beyond, a single byte out of
/// its reach is looked at now and then: it tells which of the two continues there. At a border
/// between cached and uncached data the answer is off by [`READ_AHEAD_MAX`] at most.
#[derive(Debug, Default)]
pub(crate) struct ReadBehind {
    state: Mutex<ReadState>,
}

#[derive(Debug, Default)]
struct ReadState {
    used: Runs,
    /// The one used last in front.
    places: VecDeque<Place>,
}

/// Where somebody reads: what he did somewhere else says nothing about it.
#[derive(Debug, Default)]
struct Place {
    /// Where the last read ended.
    end: u64,
    /// Bytes that come from the medium for all we know.
    ours: Option<Extent>,
    /// A hit that reaches this offset asks for a look ahead.
    look_at: u64,
}

/// What a look ahead found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ahead {
    Resident,
    NotResident,
    PastTheEnd,
}

impl ReadBehind {
    /// The range had to be read from the medium.
    pub(crate) fn miss(&self, file: &File, range: Extent) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let ours = Some(Extent::new(range.start, range.len.saturating_add(READ_AHEAD_MAX)));
        let look_at = range.end().saturating_add(READ_AHEAD_MAX / 2);
        *state.place(range) = Place { end: range.end(), ours, look_at };
        state.used(file, range);
    }

    /// The range was resident. Returns an offset at which the reader is to look whether that
    /// byte is resident, and to tell [`ReadBehind::looked`].
    pub(crate) fn hit(&self, file: &File, range: Extent) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_ours = |place: &Place| place.ours.is_some_and(|o| o.intersect(range).is_some());
        if state.places.iter().any(is_ours) {
            state.used(file, range);
        }
        let place = state.place(range);
        place.end = range.end();
        // Far behind the last look: the reader went back, and what is known lies elsewhere.
        let went_back = range.end().saturating_add(READ_AHEAD_MAX) < place.look_at;
        if range.end() < place.look_at && !went_back {
            return None;
        }
        place.look_at = range.end().saturating_add(READ_AHEAD_MAX / 2);
        Some(range.end().saturating_add(READ_AHEAD_MAX))
    }

    /// What was found at the offset that [`ReadBehind::hit`] gave for `range`.
    pub(crate) fn looked(&self, range: Extent, at: u64, found: Ahead) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let place = state.place(range);
        let was_ours = place.ours.filter(|ours| ours.intersect(range).is_some());
        place.ours = match (was_ours, found) {
            (Some(ours), Ahead::Resident) => Some(ours),
            (Some(ours), _) => Some(Extent::between(ours.start, at)),
            (None, Ahead::NotResident) => Some(Extent::new(at, READ_AHEAD_MAX)),
            (None, _) => place.ours,
        };
    }

    /// Hands back everything used so far.
    pub(crate) fn finish(&self, file: &File) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        hand_back(file, &state.used.take_all());
    }
}

impl ReadState {
    /// The place nearest to a range, within what the kernel may have read ahead; else a new one,
    /// for which the one that was not used for longest is forgotten.
    fn place(&mut self, range: Extent) -> &mut Place {
        let far = |place: &Place| place.end.abs_diff(range.start);
        let places = self.places.iter().enumerate();
        let near = places.filter(|(_, place)| far(place) <= READ_AHEAD_MAX);
        let nearest = near.min_by_key(|(_, place)| far(place)).map(|(at, _)| at);
        let place = nearest.and_then(|at| self.places.remove(at)).unwrap_or_default();
        self.places.truncate(PLACES_MAX - 1);
        self.places.push_front(place);
        &mut self.places[0]
    }

    fn used(&mut self, file: &File, range: Extent) {
        self.used.add(range);
        if self.used.is_large() {
            hand_back(file, &self.used.take_whole_folios());
        }
    }
}

/// Starts writeback behind a writer and hands back the pages once they are clean.
#[derive(Debug, Default)]
pub(crate) struct WriteBehind {
    state: Mutex<WriteState>,
}

#[derive(Debug, Default)]
struct WriteState {
    fresh: Runs,
    in_flight: VecDeque<ExtentSet>,
    /// From the first to the last byte written since the last sync: some pages of a stride may
    /// still have been dirty when it was dropped.
    span: Option<Extent>,
}

impl WriteBehind {
    /// The range was written.
    pub(crate) fn wrote(&self, file: &File, range: Extent) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.fresh.add(range);
        let span = state.span.unwrap_or(range);
        let end = span.end().max(range.end());
        state.span = Some(Extent::between(span.start.min(range.start), end));
        if !state.fresh.is_large() {
            return;
        }
        // On Linux this advice also starts the writeback of dirty pages in the range, without
        // waiting for it; the pages themselves can only go on a second call.
        let stride = state.fresh.take_whole_folios();
        hand_back(file, &stride);
        state.in_flight.push_back(stride);
        if state.in_flight.len() > STRIDES_IN_FLIGHT
            && let Some(oldest) = state.in_flight.pop_front()
        {
            hand_back(file, &oldest);
        }
    }

    /// Everything written is durable, so every page of it can go. A later read then proves
    /// what the medium holds, not what memory holds.
    pub(crate) fn synced(&self, file: &File) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(span) = std::mem::take(&mut *state).span {
            let mut all = Runs::default();
            all.add(span);
            hand_back(file, &all.take_all());
        }
    }
}

/// Hands back every clean page of the range, whoever brought it in.
pub(crate) fn drop_range(file: &File, range: Extent) {
    let mut runs = Runs::default();
    runs.add(Extent::between(range.start - range.start % FOLIO_MAX, range.end()));
    hand_back(file, &runs.take_all());
}

#[derive(Debug, Default)]
struct Runs {
    runs: Vec<Extent>,
    total: u64,
}

impl Runs {
    fn add(&mut self, range: Extent) {
        if range.is_empty() {
            return;
        }
        let start = range.start - range.start % PAGE;
        let end = range.end().checked_next_multiple_of(PAGE).unwrap_or(u64::MAX);
        self.total = self.total.saturating_add(range.len);
        match self.runs.last_mut() {
            Some(last) if last.start <= start && start <= last.end() => {
                *last = Extent::between(last.start, last.end().max(end));
            }
            _ => self.runs.push(Extent::between(start, end)),
        }
    }

    fn is_large(&self) -> bool {
        self.total >= STRIDE || self.runs.len() >= RUNS_MAX
    }

    /// Takes what can be handed back now: long runs up to the last boundary of a folio, as
    /// their last folio is still being used, and short ones whole.
    fn take_whole_folios(&mut self) -> ExtentSet {
        let joined: ExtentSet = std::mem::take(self).runs.into_iter().collect();
        let mut whole = ExtentSet::new();
        for &run in joined.runs() {
            let boundary = run.end() - run.end() % FOLIO_MAX;
            let end = if boundary > run.start { boundary } else { run.end() };
            whole.push(Extent::between(run.start, end));
            self.add(Extent::between(end, run.end()));
        }
        whole
    }

    /// Takes everything, to the end of the last folio of each run.
    fn take_all(&mut self) -> ExtentSet {
        let to_folio = |run: Extent| {
            let end = run.end().checked_next_multiple_of(FOLIO_MAX).unwrap_or(u64::MAX);
            Extent::between(run.start, end)
        };
        std::mem::take(self).runs.into_iter().map(to_folio).collect()
    }
}

fn hand_back(file: &File, runs: &ExtentSet) {
    for run in runs.runs() {
        // A refusal (a filesystem without a page cache) leaves nothing to hand back.
        let _ = fadvise(file, run.start, NonZeroU64::new(run.len), Advice::DontNeed);
    }
}
