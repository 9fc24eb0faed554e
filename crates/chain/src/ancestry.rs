//! Which files can be read as what: the tree of parents, and of several files that provide one
//! state the one to read.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use aiv_image_format::{Digest, ParentLink, PointId, SetId};

use crate::facts::Facts;
use crate::folder::PointState;

/// Images from one point to its full image, at most. Longer chains are refused: reading would
/// open as many files.
pub const CHAIN_MAX: usize = 10_000;

/// A state somebody provides: point and root of one set. Two files with one point and
/// different roots are different states.
pub(crate) type Node = (SetId, PointId, Digest);

pub(crate) fn node(facts: &Facts) -> Node {
    (facts.set, facts.point, facts.state_root)
}

pub(crate) fn parent_node(facts: &Facts) -> Option<Node> {
    facts.parent.map(|ParentLink { point, state_root }| (facts.set, point, state_root))
}

/// For each state, the file to read it from, and how far it can be read.
#[derive(Debug, Default)]
pub(crate) struct Ancestry {
    /// Position in the list of facts.
    pub chosen: HashMap<Node, usize>,
    /// States whose whole ancestry is there.
    resolved: HashMap<Node, Resolved>,
    /// Why the others cannot be read.
    broken: HashMap<Node, PointState>,
}

#[derive(Debug, Clone, Copy)]
struct Resolved {
    /// Files of the chain, this one included.
    depth: usize,
    /// The newest file of the chain in which a verification found damage.
    damaged_by: Option<usize>,
}

impl Ancestry {
    /// Looks at all images of a folder. The rule: the first file whose whole ancestry resolves
    /// with the roots the links name; undamaged files before damaged ones, shorter chains before
    /// longer ones, then by name. Nothing is visited twice, so the tree of parents may be as
    /// wrong as it likes.
    pub(crate) fn of(all: &[Facts]) -> Self {
        let mut children: HashMap<Node, Vec<usize>> = HashMap::new();
        for (at, facts) in all.iter().enumerate() {
            if let Some(parent) = parent_node(facts) {
                children.entry(parent).or_default().push(at);
            }
        }
        let mut ancestry = Self::default();
        for with_damaged in [false, true] {
            ancestry.resolve(all, &children, with_damaged);
        }
        // What cannot be read is listed by its first file.
        for (at, facts) in all.iter().enumerate() {
            ancestry.chosen.entry(node(facts)).or_insert(at);
        }
        ancestry.explain(all);
        ancestry
    }

    fn resolve(&mut self, all: &[Facts], children: &HashMap<Node, Vec<usize>>, with_damaged: bool) {
        let usable = |at: usize| with_damaged || all[at].is_sound();
        // Shorter chains first, so that the first one that leads to a state is the shortest.
        let rank = |depth: usize, at: usize| Reverse((depth, !all[at].is_sound(), at));
        let mut open = BinaryHeap::new();
        for (at, facts) in all.iter().enumerate().filter(|(at, _)| usable(*at)) {
            match parent_node(facts) {
                None => open.push(rank(1, at)),
                // States an earlier round resolved may have children only this round takes.
                Some(parent) => {
                    if let Some(parent) = self.resolved.get(&parent) {
                        open.push(rank(parent.depth + 1, at));
                    }
                }
            }
        }
        while let Some(Reverse((depth, _, at))) = open.pop() {
            let facts = &all[at];
            let this = node(facts);
            if depth > CHAIN_MAX || self.resolved.contains_key(&this) {
                continue;
            }
            let mut damaged_by = facts.is_known_damaged().then_some(at);
            if let Some(parent) = parent_node(facts) {
                if !fits(facts, &all[self.chosen[&parent]]) {
                    continue;
                }
                damaged_by = damaged_by.or(self.resolved[&parent].damaged_by);
            }
            self.resolved.insert(this, Resolved { depth, damaged_by });
            self.chosen.insert(this, at);
            let below = children.get(&this).into_iter().flatten().copied();
            open.extend(below.filter(|&child| usable(child)).map(|child| rank(depth + 1, child)));
        }
    }

    /// Finds out what is wrong with each state that was not resolved: whatever is wrong with the
    /// first of its ancestors that cannot be read.
    fn explain(&mut self, all: &[Facts]) {
        let points: HashSet<(SetId, PointId)> = all.iter().map(|f| (f.set, f.point)).collect();
        for start in all {
            let mut way = Vec::new();
            let mut on_way = HashSet::new();
            let mut at = start;
            let state = loop {
                let this = node(at);
                if way.is_empty() && self.resolved.contains_key(&this) {
                    break PointState::Restorable;
                }
                if let Some(known) = self.broken.get(&this) {
                    break known.clone();
                }
                if !on_way.insert(this) {
                    break PointState::Circular;
                }
                way.push(this);
                let Some(parent) = parent_node(at) else { break PointState::TooLong };
                match self.chosen.get(&parent) {
                    Some(&next) if self.resolved.contains_key(&parent) => {
                        break match fits(at, &all[next]) {
                            true => PointState::TooLong,
                            false => PointState::ParentDiffers { point: parent.1 },
                        };
                    }
                    Some(&next) => at = &all[next],
                    None if points.contains(&(parent.0, parent.1)) => {
                        break PointState::ParentDiffers { point: parent.1 };
                    }
                    None => break PointState::MissingParent { point: parent.1 },
                }
            };
            self.broken.extend(way.into_iter().map(|node| (node, state.clone())));
        }
    }

    /// Whether the state of `facts` can be read through the chosen files, and if not why.
    pub(crate) fn state(&self, facts: &Facts) -> PointState {
        match (self.broken.get(&node(facts)), facts.damage.as_slice()) {
            (Some(broken), _) => broken.clone(),
            (None, []) => PointState::Restorable,
            (None, damage) => PointState::Damaged(damage.to_vec()),
        }
    }

    /// The newest of the files the state of `facts` is read from in which a verification found
    /// damage.
    pub(crate) fn damaged_by(&self, facts: &Facts) -> Option<usize> {
        self.resolved.get(&node(facts)).and_then(|resolved| resolved.damaged_by)
    }
}

/// Whether an image can be read on top of one that provides its parent's state.
pub(crate) fn fits(child: &Facts, parent: &Facts) -> bool {
    child.block_size == parent.block_size && child.sector_size == parent.sector_size
}
