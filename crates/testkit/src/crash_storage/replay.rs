//! The world at one prefix of a history: what is durable, and what is up to chance.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::choice::{Choice, Question};
use super::{Event, History, InodeId};
use crate::MemStorage;
use crate::random::Random;

const SECTOR: usize = 512;

/// Fates of a tail, in the order [`Question::Tail`] numbers them. The first is the one in
/// which nothing is lost.
const TAIL_KEPT: usize = 0;
const TAIL_LOST: usize = 1;
const TAIL_ZEROS: usize = 2;
const TAIL_GARBAGE: usize = 3;
const TAIL_TORN: usize = 4;
pub(super) const TAIL_FATES: usize = 5;

/// Answers to [`Question::Entry`].
pub(super) const ENTRY_KEPT: usize = 0;
pub(super) const ENTRY_LOST: usize = 1;

/// The state of everything after some events. Contents are shared with the states built from
/// it, and copied only when a file grows while such a state is still in use.
#[derive(Debug)]
pub(super) struct Replay {
    files: Vec<File>,
    /// Directory as of the last directory sync.
    durable: BTreeMap<String, InodeId>,
    /// Directory operations since.
    pending: Vec<Change>,
    acknowledged: Vec<String>,
}

#[derive(Debug, Clone)]
struct File {
    bytes: Arc<Vec<u8>>,
    synced: Arc<Vec<u8>>,
    /// What it was before a cut that is not synced yet.
    uncut: Option<Arc<Vec<u8>>>,
}

/// One directory operation that may or may not have happened.
#[derive(Debug)]
struct Change {
    inode: InodeId,
    /// Name taken away, unless this is a create.
    from: Option<String>,
    /// Name given, unless this is a remove.
    to: Option<String>,
    /// Pending operations that happened if this one did: the one before it on the same file,
    /// and the one that freed the name it gives.
    needs: Vec<usize>,
}

impl Replay {
    pub(super) fn new(history: &History) -> Self {
        let file = |(_, bytes): &(String, Arc<Vec<u8>>)| File {
            bytes: Arc::clone(bytes),
            synced: Arc::clone(bytes),
            uncut: None,
        };
        let entry = |(inode, (name, _)): (usize, &(String, _))| (name.clone(), inode);
        Self {
            files: history.start.iter().map(file).collect(),
            durable: history.start.iter().enumerate().map(entry).collect(),
            pending: Vec::new(),
            acknowledged: Vec::new(),
        }
    }

    pub(super) fn acknowledged(&self) -> &[String] {
        &self.acknowledged
    }

    /// Whether a crash here has more than one outcome.
    pub(super) fn is_uncertain(&self) -> bool {
        let reachable = |inode: &InodeId| self.files[*inode].is_uncertain();
        !self.pending.is_empty() || self.durable.values().any(reachable)
    }

    pub(super) fn apply(&mut self, event: &Event) {
        match event {
            Event::Create { inode, name } => {
                debug_assert_eq!(*inode, self.files.len());
                let (bytes, synced) = (Arc::default(), Arc::default());
                self.files.push(File { bytes, synced, uncut: None });
                self.change(*inode, None, Some(name));
            }
            Event::Append { inode, data } => {
                Arc::make_mut(&mut self.files[*inode].bytes).extend_from_slice(data);
            }
            Event::Cut { inode, len } => {
                let file = &mut self.files[*inode];
                file.uncut.get_or_insert(Arc::clone(&file.bytes));
                let len = usize::try_from(*len).expect("no longer than the file");
                Arc::make_mut(&mut file.bytes).truncate(len);
            }
            Event::Sync { inode } => {
                let file = &mut self.files[*inode];
                file.uncut = None;
                file.synced = Arc::clone(&file.bytes);
            }
            Event::Publish { inode, from, to } => self.change(*inode, Some(from), Some(to)),
            Event::Remove { inode, name } => self.change(*inode, Some(name), None),
            Event::SyncDir => {
                for change in std::mem::take(&mut self.pending) {
                    if let Some(from) = change.from {
                        self.durable.remove(&from);
                    }
                    if let Some(to) = change.to {
                        self.durable.insert(to, change.inode);
                    }
                }
            }
            Event::Mark { label } => self.acknowledged.push(label.clone()),
        }
    }

    fn change(&mut self, inode: InodeId, from: Option<&String>, to: Option<&String>) {
        let before = self.pending.iter().rposition(|change| change.inode == inode);
        let freed = to.and_then(|to| {
            self.pending.iter().rposition(|change| change.from.as_ref() == Some(to))
        });
        let needs = before.into_iter().chain(freed).collect();
        self.pending.push(Change { inode, from: from.cloned(), to: to.cloned(), needs });
    }

    /// One state a crash here may leave.
    pub(super) fn crash(&self, choice: &mut dyn Choice, garbage: &mut Random) -> MemStorage {
        let names = self.crash_names(choice);
        let mut contents: HashMap<InodeId, Arc<Vec<u8>>> = HashMap::new();
        let file = |(name, inode): (String, InodeId)| {
            let bytes =
                contents.entry(inode).or_insert_with(|| self.files[inode].crash(choice, garbage));
            (name, Arc::clone(bytes))
        };
        names.into_iter().map(file).collect()
    }

    fn crash_names(&self, choice: &mut dyn Choice) -> BTreeMap<String, InodeId> {
        let mut happened = vec![false; self.pending.len()];
        // Backwards, so that what an operation needs is settled before its turn comes.
        for (at, change) in self.pending.iter().enumerate().rev() {
            happened[at] = happened[at] || choice.pick_alike(Question::Entry, 2) == ENTRY_KEPT;
            if happened[at] {
                change.needs.iter().for_each(|&need| happened[need] = true);
            }
        }
        let mut names = self.durable.clone();
        let mut doubles = Vec::new();
        for (at, change) in self.pending.iter().enumerate().filter(|(at, _)| happened[*at]) {
            if let Some(from) = &change.from {
                names.remove(from);
            }
            if let Some(to) = &change.to {
                names.insert(to.clone(), change.inode);
            }
            let moved_on = self.pending[at + 1..]
                .iter()
                .zip(&happened[at + 1..])
                .any(|(later, &happened)| happened && later.inode == change.inode);
            if let (Some(from), Some(_), false) = (&change.from, &change.to, moved_on) {
                doubles.push((from, change.inode));
            }
        }
        for (from, inode) in doubles {
            if !names.contains_key(from) && choice.pick(2) == 1 {
                names.insert(from.clone(), inode);
            }
        }
        names
    }
}

impl File {
    fn is_uncertain(&self) -> bool {
        self.uncut.is_some() || self.bytes.len() > self.synced.len()
    }

    fn crash(&self, choice: &mut dyn Choice, garbage: &mut Random) -> Arc<Vec<u8>> {
        if let Some(uncut) = &self.uncut
            && choice.pick_alike(Question::Entry, 2) == ENTRY_LOST
        {
            let (bytes, synced) = (Arc::clone(uncut), Arc::clone(&self.synced));
            return File { bytes, synced, uncut: None }.crash(choice, garbage);
        }
        let (synced, len) = (self.synced.len(), self.bytes.len());
        // Shorter when what was synced has been cut.
        if synced >= len {
            return Arc::clone(&self.bytes);
        }
        match choice.pick_alike(Question::Tail, TAIL_FATES) {
            TAIL_KEPT => Arc::clone(&self.bytes),
            TAIL_LOST => Arc::clone(&self.synced),
            TAIL_ZEROS => {
                let mut bytes = Vec::with_capacity(len);
                bytes.extend_from_slice(&self.synced);
                bytes.resize(len, 0);
                Arc::new(bytes)
            }
            TAIL_GARBAGE => {
                let mut bytes = self.bytes.to_vec();
                garbage.fill(&mut bytes[synced..]);
                Arc::new(bytes)
            }
            TAIL_TORN => Arc::new(self.torn(choice, garbage)),
            fate => unreachable!("there are {TAIL_FATES} fates, {fate} is none"),
        }
    }

    fn torn(&self, choice: &mut dyn Choice, garbage: &mut Random) -> Vec<u8> {
        let (synced, len) = (self.synced.len(), self.bytes.len());
        let first = synced / SECTOR;
        let sectors = len.div_ceil(SECTOR) - first;
        let pieces = choice.pieces(sectors);
        // Byte at which a piece begins; the first begins where the synced bytes end.
        let begin = |piece: usize| ((first + piece * sectors / pieces) * SECTOR).clamp(synced, len);
        let kept_pieces = choice.pick(pieces + 1);
        let mut bytes = self.bytes[..begin(kept_pieces)].to_vec();
        for piece in 0..kept_pieces {
            let part = &mut bytes[begin(piece)..begin(piece + 1)];
            match choice.pick(3) {
                0 => {}
                1 => part.fill(0),
                _ => garbage.fill(part),
            }
        }
        bytes
    }
}
