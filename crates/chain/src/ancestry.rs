//! Which files can be read as what: the tree of parents, and of several files that provide one
//! state the one to read.

use std::collections::{HashMap, HashSet, VecDeque};

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
    /// Files of the chain, this one included, for states whose whole ancestry is there.
    depth: HashMap<Node, usize>,
    /// Those of them of which no file is damaged.
    sound: HashSet<Node>,
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
            if !with_damaged {
                ancestry.sound = ancestry.depth.keys().copied().collect();
            }
        }
        // What cannot be read is listed by its first file.
        for (at, facts) in all.iter().enumerate() {
            ancestry.chosen.entry(node(facts)).or_insert(at);
        }
        ancestry
    }

    /// States whose whole ancestry is there.
    pub(crate) fn whole(&self) -> impl Iterator<Item = Node> + '_ {
        self.depth.keys().copied()
    }

    /// Whether a state's whole ancestry is there; with `sound`, without a damaged file.
    pub(crate) fn has(&self, node: Node, sound: bool) -> bool {
        if sound { self.sound.contains(&node) } else { self.depth.contains_key(&node) }
    }

    fn resolve(&mut self, all: &[Facts], children: &HashMap<Node, Vec<usize>>, with_damaged: bool) {
        // Breadth first, so that the shortest chain to a state is found first.
        let usable = |facts: &Facts| with_damaged || facts.damage.is_empty();
        let mut open: VecDeque<usize> = VecDeque::new();
        for (at, facts) in all.iter().enumerate() {
            if usable(facts) && facts.parent.is_none() {
                open.push_back(at);
            }
        }
        // States an earlier round resolved may have children only this round takes.
        if with_damaged {
            let resolved: HashSet<Node> = self.depth.keys().copied().collect();
            let more = all.iter().enumerate().filter(|(_, facts)| {
                parent_node(facts).is_some_and(|parent| resolved.contains(&parent))
            });
            open.extend(more.map(|(at, _)| at));
        }
        while let Some(at) = open.pop_front() {
            let facts = &all[at];
            let this = node(facts);
            let depth = match parent_node(facts) {
                None => 1,
                Some(parent) => match self.depth.get(&parent) {
                    Some(&depth) if fits(facts, &all[self.chosen[&parent]]) => depth + 1,
                    _ => continue,
                },
            };
            if depth > CHAIN_MAX || self.depth.contains_key(&this) {
                continue;
            }
            self.depth.insert(this, depth);
            self.chosen.insert(this, at);
            let below = children.get(&this).into_iter().flatten();
            open.extend(below.copied().filter(|&child| usable(&all[child])));
        }
    }

    /// Whether the state of `facts` can be read through the chosen files, and if not why.
    pub(crate) fn state(&self, all: &[Facts], facts: &Facts) -> PointState {
        if self.depth.contains_key(&node(facts)) {
            return match facts.damage.as_slice() {
                [] => PointState::Restorable,
                damage => PointState::Damaged(damage.to_vec()),
            };
        }
        let mut seen = HashSet::new();
        let mut at = facts;
        loop {
            let Some(parent) = parent_node(at) else { return PointState::TooLong };
            if !seen.insert(node(at)) {
                return PointState::Circular;
            }
            match self.chosen.get(&parent) {
                Some(&next) if self.depth.contains_key(&parent) => {
                    return match fits(at, &all[next]) {
                        true => PointState::TooLong,
                        false => PointState::ParentDiffers { point: parent.1 },
                    };
                }
                Some(&next) => at = &all[next],
                None => {
                    let other = all.iter().any(|f| (f.set, f.point) == (parent.0, parent.1));
                    return match other {
                        true => PointState::ParentDiffers { point: parent.1 },
                        false => PointState::MissingParent { point: parent.1 },
                    };
                }
            }
        }
    }
}

/// Whether an image can be read on top of one that provides its parent's state.
pub(crate) fn fits(child: &Facts, parent: &Facts) -> bool {
    child.block_size == parent.block_size && child.sector_size == parent.sector_size
}
