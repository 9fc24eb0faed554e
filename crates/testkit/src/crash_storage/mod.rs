//! Storage that remembers its history, and the states a power cut may leave.
//!
//! # The model
//!
//! A history is the list of operations that succeeded, in order, with the marks
//! ([`CrashStorage::mark`]) the scenario made between them. The power may go after any prefix
//! of it. What an operation under way at that moment did is covered by the next prefix, in
//! which that operation is done but not synced.
//!
//! **File contents.** Everything appended before the last completed sync of the file is there,
//! byte for byte. Of the *tail* appended since, any of these may be:
//! - all of it, or none of it;
//! - its length without its data: zeros, or garbage that was on the medium before;
//! - torn: the file ends anywhere on a sector boundary (or at the true end), and each sector of
//!   the tail by itself holds its data, zeros or garbage, in no order.
//!
//! Sectors are 512 bytes, counted from the start of the file. A sector that holds synced bytes
//! and unsynced ones keeps the synced ones: a medium writes a sector or does not.
//!
//! **Cutting.** [`Storage::reopen`] is two operations: the cut, then a sync of the file. Between
//! them the cut happened or did not; what an earlier writer left unsynced may meet any of the
//! fates above, in what is left as in what should have been cut off. Nothing is appended before
//! both are done, so the old end and a new one never mix.
//!
//! **Directory entries.** Everything before the last completed [`Storage::sync_dir`] is there.
//! Each operation since (create, publish, remove) by itself happened or did not, in any order
//! between files, with two rules that every filesystem keeps:
//! - operations on *the same file* happen in their order: no publish without the create;
//! - operations on *the same name* happen in their order: if a name was freed (by remove or by
//!   publishing the file elsewhere) and then given to another file, the second can only be
//!   there when the first is gone.
//!
//! So a file whose entry was never synced may vanish wholly, however often it was synced
//! itself. A publish is never half done in the bad sense: a file whose entry was durable is
//! there under its old name or its new one. It may be under both for a moment, as filesystems
//! that link and unlink, or that write two directories, leave it after a crash; such a file is
//! one file with two names.
//!
//! **Independence.** Syncing a file promises nothing about its entry and syncing the directory
//! promises nothing about the data of files: a renamed file without contents is a state.
//!
//! **Assumptions.** A completed sync keeps its promise (no lying medium), leases die with the
//! machine but their tokens stay (taking a lease syncs its token), operations that returned an
//! error left no trace, and folders exist when a file in them does. Bytes once synced do not rot;
//! that is for damage tests.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aiv_volume_io::{AppendFile, FileEntry, Lease, ReadAt, Storage};

use crate::MemStorage;
use crate::mem_storage::Tokens;

mod choice;
mod replay;
mod states;

pub use states::{CrashState, CrashStates};

/// A folder in memory that records what is done to it. Clones share folder and history.
///
/// To crash the recovery from a crash, continue from a state it left:
/// [`CrashStorage::starting_from`].
#[derive(Debug, Clone, Default)]
pub struct CrashStorage {
    live: MemStorage,
    history: Arc<Mutex<History>>,
}

/// What happened, and what was there before.
#[derive(Debug, Clone, Default)]
struct History {
    /// Files that were durable at the start, by name; their inodes count from zero.
    start: Vec<(String, Arc<Vec<u8>>)>,
    events: Vec<Event>,
    /// Inode of each name as things are now.
    names: HashMap<String, InodeId>,
    /// Inodes given out so far.
    inodes: usize,
    /// Tokens as of the end; for the states before it they are larger than they need to be.
    tokens: Tokens,
}

/// Number of a file, never used again for another.
type InodeId = usize;

#[derive(Debug, Clone)]
enum Event {
    Create { inode: InodeId, name: String },
    Append { inode: InodeId, data: Arc<[u8]> },
    Cut { inode: InodeId, len: u64 },
    Sync { inode: InodeId },
    Publish { inode: InodeId, from: String, to: String },
    Remove { inode: InodeId, name: String },
    SyncDir,
    Mark { label: String },
}

impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Create { name, inode } => write!(f, "create {name} (file {inode})"),
            Self::Append { inode, data } => {
                write!(f, "append {} bytes to file {inode}", data.len())
            }
            Self::Cut { inode, len } => write!(f, "cut file {inode} to {len} bytes"),
            Self::Sync { inode } => write!(f, "sync file {inode}"),
            Self::Publish { inode, from, to } => write!(f, "publish {from} as {to} (file {inode})"),
            Self::Remove { inode, name } => write!(f, "remove {name} (file {inode})"),
            Self::SyncDir => write!(f, "sync directory"),
            Self::Mark { label } => write!(f, "mark {label:?}"),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl CrashStorage {
    /// An empty folder, without history.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A folder in which everything in `durable` was there long before the history begins.
    #[must_use]
    pub fn starting_from(durable: &MemStorage) -> Self {
        let live = durable.fork();
        let contents = |name: String| live.contents(&name).map(|bytes| (name, bytes));
        let start: Vec<_> = live.names().into_iter().filter_map(contents).collect();
        let names = start.iter().enumerate().map(|(inode, (name, _))| (name.clone(), inode));
        let (names, inodes) = (names.collect(), start.len());
        let history = History { names, inodes, start, ..History::default() };
        Self { live, history: Arc::new(Mutex::new(history)) }
    }

    /// Notes in the history that the scenario has told its caller something: what a state after
    /// this point must then still keep.
    pub fn mark(&self, label: impl Into<String>) {
        lock(&self.history).events.push(Event::Mark { label: label.into() });
    }

    /// Number of operations and marks recorded so far.
    #[must_use]
    pub fn history_len(&self) -> usize {
        lock(&self.history).events.len()
    }

    /// The history as text, one operation per line, numbered as in [`CrashState::prefix`].
    #[must_use]
    pub fn history_text(&self) -> String {
        let line = |(at, event): (usize, &Event)| format!("{:4} {event}\n", at + 1);
        lock(&self.history).events.iter().enumerate().map(line).collect()
    }

    /// States a power cut may leave: for every prefix of the history its corner states (all
    /// kept, all lost, and so on), then sampled ones up to `per_prefix`. Prefixes at which
    /// nothing is unsynced have one state only. The same seed gives the same states.
    #[must_use]
    pub fn crash_states(&self, seed: u64, per_prefix: usize) -> CrashStates {
        CrashStates::sampled(self.snapshot(), seed, per_prefix)
    }

    /// Every state of the model for every prefix, for histories of a few operations: the number
    /// multiplies with each file and each sector that is unsynced at the same time. Tails of
    /// more than six sectors are torn in six pieces instead of in sectors.
    #[must_use]
    pub fn all_crash_states(&self) -> CrashStates {
        CrashStates::exhaustive(self.snapshot())
    }

    fn snapshot(&self) -> History {
        History { tokens: self.live.tokens(), ..lock(&self.history).clone() }
    }

    /// Does the operation, and records it if it succeeds, as one step.
    fn record<T>(
        &self,
        act: impl FnOnce(&MemStorage) -> io::Result<T>,
        event: impl FnOnce(&mut History) -> Event,
    ) -> io::Result<T> {
        let mut history = lock(&self.history);
        let done = act(&self.live)?;
        let event = event(&mut history);
        history.events.push(event);
        Ok(done)
    }
}

impl Storage for CrashStorage {
    fn create(&self, name: &str) -> io::Result<Box<dyn AppendFile>> {
        let mut inode = 0;
        let file = self.record(
            |live| live.create(name),
            |history| {
                inode = history.inodes;
                history.inodes += 1;
                history.names.insert(name.to_owned(), inode);
                Event::Create { inode, name: name.to_owned() }
            },
        )?;
        Ok(Box::new(Appender { inode, file, storage: self.clone() }))
    }

    fn reopen(&self, name: &str, len: u64) -> io::Result<Box<dyn AppendFile>> {
        let mut inode = 0;
        let file = self.record(
            |live| live.reopen(name, len),
            |history| {
                inode = *history.names.get(name).expect("every live name has an inode");
                Event::Cut { inode, len }
            },
        )?;
        self.record(|_| Ok(()), |_| Event::Sync { inode })?;
        Ok(Box::new(Appender { inode, file, storage: self.clone() }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn ReadAt>> {
        self.live.open(name)
    }

    fn publish(&self, from: &str, to: &str) -> io::Result<()> {
        self.record(
            |live| live.publish(from, to),
            |history| {
                let inode = history.names.remove(from).expect("every live name has an inode");
                history.names.insert(to.to_owned(), inode);
                Event::Publish { inode, from: from.to_owned(), to: to.to_owned() }
            },
        )
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.record(
            |live| live.remove(name),
            |history| {
                let inode = history.names.remove(name).expect("every live name has an inode");
                Event::Remove { inode, name: name.to_owned() }
            },
        )
    }

    fn list(&self) -> io::Result<Vec<FileEntry>> {
        self.live.list()
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.record(|_| Ok(()), |_| Event::SyncDir)
    }

    fn free_bytes(&self) -> io::Result<Option<u64>> {
        self.live.free_bytes()
    }

    fn lease(&self, name: &str) -> io::Result<Box<dyn Lease>> {
        self.live.lease(name)
    }
}

struct Appender {
    inode: InodeId,
    file: Box<dyn AppendFile>,
    storage: CrashStorage,
}

impl AppendFile for Appender {
    fn append(&mut self, data: &[u8]) -> io::Result<usize> {
        let (inode, file) = (self.inode, &mut self.file);
        self.storage.record(|_| file.append(data), |_| Event::Append { inode, data: data.into() })
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        let inode = self.inode;
        self.storage.record(|_| Ok(()), |_| Event::Sync { inode })
    }
}
