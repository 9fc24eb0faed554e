//! What merges that did not end have left in a set.

use std::collections::{HashMap, HashSet};
use std::sync::OnceLock;

use aiv_image_format::SessionTag;
use aiv_volume_io::{Job, Storage};

use crate::folder::{Point, Set};
use crate::keep::{Evidence, State, link_state, state};
use crate::look::in_parallel;
use crate::open::{Head, open};

/// The evidence of a set, looked up only when somebody asks.
pub(super) struct Traces<'a> {
    storage: &'a dyn Storage,
    set: &'a Set,
    job: Job<'a>,
    /// States that a file builds on whose own point is read from another file.
    replaced: OnceLock<HashSet<State>>,
    /// For each session, the newest of the restorable points whose image names it as an origin,
    /// and for each of them the session that began its image.
    sessions: OnceLock<Sessions>,
}

#[derive(Default)]
struct Sessions {
    newest: HashMap<SessionTag, usize>,
    own: HashMap<State, (usize, SessionTag)>,
}

impl<'a> Traces<'a> {
    pub(super) fn new(storage: &'a dyn Storage, set: &'a Set, job: Job<'a>) -> Self {
        Self { storage, set, job, replaced: OnceLock::new(), sessions: OnceLock::new() }
    }

    fn replaced(&self) -> HashSet<State> {
        let restorable = self.set.points.iter().filter(|point| point.is_restorable());
        let others = restorable.flat_map(|point| &point.other_files);
        let parent = |file: &String| {
            let image = open(self.storage, file, Head::Read, &self.set.keys).ok()?;
            image.superblock().parent.map(link_state)
        };
        others.filter_map(parent).collect()
    }

    fn sessions(&self) -> Sessions {
        // What cannot be restored has taken nobody's place.
        let points = self.set.points.iter().enumerate().filter(|(_, point)| point.is_restorable());
        let points: Vec<(usize, &Point)> = points.collect();
        let look = |&(at, point): &(usize, &Point)| {
            self.job.check()?;
            // A file that cannot be read is evidence of nothing.
            let opened = open(self.storage, &point.file, Head::Read, &self.set.keys);
            let Ok(image) = opened else { return Ok(None) };
            let origins = image.meta().origins.clone();
            Ok(Some((at, state(point), image.superblock().session, origins)))
        };
        let mut sessions = Sessions::default();
        let found = in_parallel(&points, &look).unwrap_or_default();
        for (at, state, own, origins) in found.into_iter().flatten() {
            sessions.own.insert(state, (at, own));
            for origin in origins {
                let newest = sessions.newest.entry(origin).or_insert(at);
                *newest = at.max(*newest);
            }
        }
        sessions
    }
}

impl Evidence for Traces<'_> {
    /// A file that a merge replaced still builds on the point; or a newer point, which does not,
    /// names the session that made it.
    fn was_merged(&self, point: &Point) -> bool {
        if self.replaced.get_or_init(|| self.replaced()).contains(&state(point)) {
            return true;
        }
        let sessions = self.sessions.get_or_init(|| self.sessions());
        let Some((at, own)) = sessions.own.get(&state(point)) else { return false };
        sessions.newest.get(own).is_some_and(|newest| newest > at)
    }
}
