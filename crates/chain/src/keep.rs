//! Which points of a set stay, and which ones a consolidation may merge into others.

use std::collections::{BTreeSet, HashMap, HashSet};

use aiv_image_format::{Digest, ParentLink, PointId};

use crate::folder::{Point, Set};

/// The points that are to stay.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keep {
    /// So many of the newest points that can be restored.
    pub newest: usize,
    /// These points, however old.
    pub points: BTreeSet<PointId>,
}

/// A state within one set.
pub(crate) type State = (PointId, Digest);

pub(crate) fn state(point: &Point) -> State {
    (point.id, point.state_root)
}

pub(crate) fn link_state(link: ParentLink) -> State {
    (link.point, link.state_root)
}

/// Points of a set that are to be merged into the kept one that follows them.
#[derive(Debug)]
pub(crate) struct Line<'s> {
    /// The point they are merged into.
    pub result: &'s Point,
    /// The points that go, oldest first.
    pub drops: Vec<&'s Point>,
}

/// What becomes of the points of a set.
#[derive(Debug)]
pub(crate) struct Sorted<'s> {
    /// Oldest first.
    pub lines: Vec<Line<'s>>,
    /// Points that a merge made superfluous and did not remove, oldest first.
    pub leftovers: Vec<&'s Point>,
    /// All others.
    pub kept: Vec<&'s Point>,
}

/// Tells what was left behind by merges that did not end.
pub(crate) trait Evidence {
    /// Whether a point that nobody builds on any more was merged into another one that stays.
    fn was_merged(&self, point: &Point) -> bool;
}

impl Keep {
    /// A point stays that is asked for, that cannot be restored now, that others than one
    /// restorable point build on, or that nobody builds on: no chain loses its newest point.
    pub(crate) fn sort<'s>(&self, set: &'s Set, evidence: &dyn Evidence) -> Sorted<'s> {
        let mut children: HashMap<State, Vec<&Point>> = HashMap::new();
        for point in set.points.iter().chain(&set.nameless) {
            if let Some(link) = point.parent {
                children.entry(link_state(link)).or_default().push(point);
            }
        }
        let restorable = set.points.iter().rev().filter(|point| point.is_restorable());
        let newest: HashSet<State> = restorable.take(self.newest).map(state).collect();
        let asked_for = |point: &Point| {
            !point.is_restorable()
                || newest.contains(&state(point))
                || self.points.contains(&point.id)
        };
        let has_name: HashSet<State> = set.points.iter().map(state).collect();
        let mut leftovers: HashSet<State> = HashSet::new();
        // Until nothing is found any more: a leftover may have been built on by leftovers only.
        loop {
            let before = leftovers.len();
            for point in set.points.iter().rev().filter(|point| !asked_for(point)) {
                let below = children.get(&state(point)).map_or(&[][..], Vec::as_slice);
                let abandoned = below.iter().all(|child| leftovers.contains(&state(child)));
                let merged = !below.is_empty() || evidence.was_merged(point);
                if abandoned && merged {
                    leftovers.insert(state(point));
                }
            }
            if leftovers.len() == before {
                break;
            }
        }
        let only_child = |point: &Point| {
            let below = children.get(&state(point))?;
            let mut living = below.iter().filter(|child| !leftovers.contains(&state(child)));
            let child = *living.next()?;
            let alone = living.next().is_none();
            let usable = child.is_restorable() && has_name.contains(&state(child));
            (alone && usable).then_some(child)
        };
        let goes = |point: &Point| !asked_for(point) && only_child(point).is_some();
        let find = |link: ParentLink| set.points.iter().find(|point| point.link() == link);
        let mut sorted = Sorted { lines: Vec::new(), leftovers: Vec::new(), kept: Vec::new() };
        for point in &set.points {
            if leftovers.contains(&state(point)) {
                sorted.leftovers.push(point);
                continue;
            }
            if goes(point) {
                continue;
            }
            sorted.kept.push(point);
            let mut drops = Vec::new();
            let mut next = point.parent.and_then(find);
            while let Some(parent) = next.filter(|parent| goes(parent)) {
                drops.push(parent);
                next = parent.parent.and_then(find);
            }
            drops.reverse();
            if point.is_restorable() && !drops.is_empty() {
                sorted.lines.push(Line { result: point, drops });
            }
        }
        sorted
    }
}
