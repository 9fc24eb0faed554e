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
    /// Those of them of which no file is damaged.
    sound: HashSet<Node>,
    /// States that are chained to another state of their own point.
    repeated: HashSet<Node>,
    /// Why the others cannot be read.
    broken: HashMap<Node, PointState>,
}

#[derive(Debug, Clone, Copy)]
struct Resolved {
    /// Files of the chain, this one included.
    depth: usize,
    /// The state below.
    parent: Option<Node>,
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
        let several = several_states(all);
        for with_damaged in [false, true] {
            ancestry.resolve(all, &children, &several, with_damaged);
            if !with_damaged {
                ancestry.sound = ancestry.resolved.keys().copied().collect();
            }
        }
        // What cannot be read is listed by its first file.
        for (at, facts) in all.iter().enumerate() {
            ancestry.chosen.entry(node(facts)).or_insert(at);
        }
        ancestry.explain(all);
        ancestry
    }

    /// States whose whole ancestry is there.
    pub(crate) fn whole(&self) -> impl Iterator<Item = Node> + '_ {
        self.resolved.keys().copied()
    }

    /// Whether a state's whole ancestry is there; with `sound`, without a damaged file.
    pub(crate) fn has(&self, node: Node, sound: bool) -> bool {
        if sound { self.sound.contains(&node) } else { self.resolved.contains_key(&node) }
    }

    fn resolve(
        &mut self,
        all: &[Facts],
        children: &HashMap<Node, Vec<usize>>,
        several: &HashSet<(SetId, PointId)>,
        with_damaged: bool,
    ) {
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
            let parent = parent_node(facts);
            if let Some(parent) = parent {
                if !fits(facts, &all[self.chosen[&parent]]) {
                    continue;
                }
                if several.contains(&(facts.set, facts.point)) && self.holds(parent, facts.point) {
                    self.repeated.insert(this);
                    continue;
                }
                damaged_by = damaged_by.or(self.resolved[&parent].damaged_by);
            }
            self.resolved.insert(this, Resolved { depth, parent, damaged_by });
            self.chosen.insert(this, at);
            let below = children.get(&this).into_iter().flatten().copied();
            open.extend(below.filter(|&child| usable(child)).map(|child| rank(depth + 1, child)));
        }
    }

    /// Whether a state of `point` is in the chain from `node` on.
    fn holds(&self, node: Node, point: PointId) -> bool {
        let below = |node: &Node| self.resolved.get(node).and_then(|resolved| resolved.parent);
        std::iter::successors(Some(node), below).any(|node| node.1 == point)
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
                if self.repeated.contains(&this) {
                    break PointState::Circular;
                }
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
            (None, _) if facts.locked => {
                PointState::Locked { key: facts.protection.key().unwrap_or_default() }
            }
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

/// Points that files provide in several states. A chain holds no point twice, and only these
/// could be.
fn several_states(all: &[Facts]) -> HashSet<(SetId, PointId)> {
    let mut first = HashMap::new();
    let differs = |facts: &&Facts| {
        *first.entry((facts.set, facts.point)).or_insert(facts.state_root) != facts.state_root
    };
    all.iter().filter(differs).map(|facts| (facts.set, facts.point)).collect()
}

/// Whether an image can be read on top of one that provides its parent's state.
pub(crate) fn fits(child: &Facts, parent: &Facts) -> bool {
    child.block_size == parent.block_size
        && child.sector_size == parent.sector_size
        && child.protection == parent.protection
}

#[cfg(test)]
mod tests {
    use aiv_image_format::{BlockSize, Depth, ImageId, ImageKind};

    use super::*;
    use crate::catalogue::Verified;
    use crate::facts::{About, Protection};

    fn id(number: u32) -> [u8; 16] {
        let mut id = [1; 16];
        id[..4].copy_from_slice(&number.to_be_bytes());
        id
    }

    fn link(number: u32) -> ParentLink {
        let mut root = [2; 32];
        root[..4].copy_from_slice(&number.to_be_bytes());
        ParentLink { point: PointId(id(number)), state_root: Digest(root) }
    }

    /// A file called `file` with point `number` on top of `parent`.
    fn facts(file: &str, number: u32, parent: Option<u32>) -> Facts {
        let ParentLink { point, state_root } = link(number);
        Facts {
            file: file.to_owned(),
            image: ImageId(id(number)),
            set: SetId([3; 16]),
            point,
            state_root,
            content_root: Digest::default(),
            kind: if parent.is_some() { ImageKind::Incremental } else { ImageKind::Full },
            parent: parent.map(link),
            protection: Protection::None,
            locked: false,
            size: 1 << 20,
            block_size: BlockSize::recommended(1),
            sector_size: 512,
            size_stored: 100,
            tail: 50,
            about: Some(About::default()),
            damage: Vec::new(),
            verified: None,
        }
    }

    fn known_damaged(facts: Facts) -> Facts {
        let verified = Verified { depth: Depth::Data, time_unix_ms: 1, sound: false };
        Facts { verified: Some(verified), ..facts }
    }

    /// A full image and `count - 1` increments, each on the one before it.
    fn chain(count: u32) -> Vec<Facts> {
        (0..count).map(|n| facts(&format!("{n:06}"), n, n.checked_sub(1))).collect()
    }

    fn state(all: &[Facts], at: usize) -> PointState {
        Ancestry::of(all).state(&all[at])
    }

    #[test]
    fn a_chain_may_have_as_many_images_as_the_limit_and_no_more() {
        let all = chain(u32::try_from(CHAIN_MAX).unwrap() + 3);
        let ancestry = Ancestry::of(&all);
        assert_eq!(ancestry.state(&all[CHAIN_MAX - 1]), PointState::Restorable);
        for facts in &all[CHAIN_MAX..] {
            assert_eq!(ancestry.state(facts), PointState::TooLong);
        }
    }

    #[test]
    fn everything_above_a_missing_point_names_it_however_long_the_chain() {
        let all = chain(20_000);
        let ancestry = Ancestry::of(&all[1..]);
        let missing = PointState::MissingParent { point: link(0).point };
        assert!(all[1..].iter().all(|facts| ancestry.state(facts) == missing));
    }

    #[test]
    fn cycles_are_told_and_do_not_disturb_what_lies_beside_them() {
        let all = [
            facts("a", 1, Some(2)),
            facts("b", 2, Some(3)),
            facts("c", 3, Some(1)),
            facts("above", 4, Some(2)),
            facts("itself", 5, Some(5)),
            facts("full", 6, None),
        ];
        let ancestry = Ancestry::of(&all);
        assert!(all[..5].iter().all(|facts| ancestry.state(facts) == PointState::Circular));
        assert_eq!(ancestry.state(&all[5]), PointState::Restorable);
    }

    #[test]
    fn a_chain_that_holds_a_point_twice_is_refused_and_what_is_above_it_as_well() {
        let mut again = facts("c", 1, Some(2));
        again.state_root = Digest([9; 32]);
        let mut above = facts("d", 3, Some(1));
        above.parent = Some(ParentLink { state_root: Digest([9; 32]), ..link(1) });
        let all = [facts("a", 1, None), facts("b", 2, Some(1)), again, above];
        let states: Vec<_> = (0..4).map(|at| state(&all, at)).collect();
        use PointState::{Circular, Restorable};
        assert_eq!(states, [Restorable, Restorable, Circular, Circular]);
    }

    #[test]
    fn another_state_of_the_parent_point_is_no_parent() {
        let mut other = facts("a", 1, None);
        other.state_root = Digest([9; 32]);
        let all = [other, facts("b", 2, Some(1)), facts("c", 3, Some(2))];
        let differs = PointState::ParentDiffers { point: link(1).point };
        assert_eq!(state(&all, 1), differs);
        assert_eq!(state(&all, 2), differs);
        let mut all = [facts("a", 1, None), facts("b", 2, Some(1))];
        all[1].sector_size = 4096;
        assert_eq!(state(&all, 1), differs);
    }

    #[test]
    fn of_several_files_the_first_one_is_chosen_whose_whole_chain_is_there() {
        let chosen = |all: &[Facts], number: u32| {
            let ParentLink { point, state_root } = link(number);
            all[Ancestry::of(all).chosen[&(SetId([3; 16]), point, state_root)]].file.clone()
        };
        // The parent of the first is missing; the second needs none.
        assert_eq!(chosen(&[facts("a", 2, Some(1)), facts("b", 2, None)], 2), "b");
        // Both are whole: the shorter chain, then the name.
        let both = [facts("a", 2, Some(1)), facts("b", 2, None), facts("c", 1, None)];
        assert_eq!(chosen(&both, 2), "b");
        assert_eq!(chosen(&[facts("b", 2, None), facts("a", 2, None)], 2), "b", "as listed");
        // A longer chain of sound files is better than a damaged file.
        let damaged =
            [facts("a", 2, Some(1)), known_damaged(facts("b", 2, None)), facts("c", 1, None)];
        assert_eq!(chosen(&damaged, 2), "a");
        // A damaged file is better than none.
        let alone = [known_damaged(facts("b", 2, None)), facts("c", 3, Some(2))];
        assert_eq!(chosen(&alone, 2), "b");
        assert_eq!(state(&alone, 1), PointState::Restorable);
    }

    #[test]
    fn the_second_round_takes_the_shorter_chain_as_well() {
        // All of them lead through a damaged file; "long" is found first.
        let all = [
            known_damaged(facts("full", 1, None)),
            facts("long", 4, Some(3)),
            facts("short", 4, Some(2)),
            facts("second", 2, Some(1)),
            facts("third", 3, Some(2)),
        ];
        let ancestry = Ancestry::of(&all);
        assert_eq!(ancestry.chosen[&node(&all[1])], 2);
    }

    #[test]
    fn known_damage_is_inherited_and_the_newest_one_named() {
        let mut all = chain(6);
        all[1] = known_damaged(all[1].clone());
        all[3] = known_damaged(all[3].clone());
        all.push(facts("branch", 9, Some(0)));
        let ancestry = Ancestry::of(&all);
        let by: Vec<_> = all.iter().map(|facts| ancestry.damaged_by(facts)).collect();
        assert_eq!(by, [None, Some(1), Some(1), Some(3), Some(3), Some(3), None]);
        assert!(all.iter().all(|facts| ancestry.state(facts) == PointState::Restorable));
    }
}
