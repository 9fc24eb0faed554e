//! The state of the explorer, its worker, and whoever looks at it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aiv_browse::Path as FilePath;
use aiv_explorer_model::{Answer, Command, Event, Problem, Start, State, Work};
use aiv_explorer_work::{Outside, Shelf, Worker};
use aiv_jobs::World;
use aiv_keys::{ChainKey, Credential, Keys};
use aiv_report::Failure;
use serde_json::Value;
use tokio::sync::{Notify, watch};

use crate::wire::{self, Message};

/// How long nobody looks whether the worker has news.
const TICK: Duration = Duration::from_millis(25);
/// How long somebody is kept who waits for something new.
const WAIT: Duration = Duration::from_secs(20);
/// Rows in one answer.
const ROWS_MAX: usize = 256;
/// Cells of a picture of blocks.
const CELLS_MAX: usize = 8192;

/// From what opens the images in a folder or file to the keys of those that it opens.
pub type Unlock =
    Arc<dyn Fn(&Path, Credential) -> Result<Vec<ChainKey>, Failure> + Send + Sync + 'static>;

/// One explorer.
pub(crate) struct Hub {
    inner: Mutex<Inner>,
    unlock: Unlock,
    shelf: Shelf,
    /// Counts what happened.
    news: watch::Sender<u64>,
    /// The worker has something to do.
    begun: Notify,
}

struct Inner {
    state: State,
    worker: Worker,
    keys: Keys,
    /// What waits for a passphrase.
    asking: Option<Asking>,
    ended: bool,
}

#[derive(Clone)]
struct Asking {
    ticket: u64,
    what: PathBuf,
    /// One is being tried.
    is_tried: bool,
    /// What was wrong with the last one.
    wrong: Option<Problem>,
}

impl Hub {
    pub(crate) fn new(
        start: Start,
        world: Arc<dyn World + Send + Sync>,
        keys: Keys,
        unlock: Unlock,
    ) -> Self {
        let shelf = Shelf::default();
        let worker = Worker::with(Outside::reading_only(world, shelf.clone()));
        let (state, commands) = State::for_downloads(start);
        let mut inner = Inner { state, worker, keys, asking: None, ended: false };
        let mut downloads = Vec::new();
        inner.carry_out(commands, &mut downloads);
        let news = watch::Sender::new(1);
        Self { inner: Mutex::new(inner), unlock, shelf, news, begun: Notify::new() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn happened(&self) {
        self.news.send_modify(|count| *count += 1);
        self.begun.notify_one();
    }

    pub(crate) fn shelf(&self) -> &Shelf {
        &self.shelf
    }

    /// Hands what the worker says to the state, until the user leaves; `false` when the worker is
    /// gone.
    pub(crate) async fn run(&self) -> bool {
        loop {
            let (is_busy, has_ended) = {
                let inner = self.inner();
                (inner.state.is_busy(), inner.ended)
            };
            if has_ended {
                return true;
            }
            let begun = self.begun.notified();
            if is_busy {
                let _ = tokio::time::timeout(TICK, begun).await;
            } else {
                begun.await;
            }
            let mut inner = self.inner();
            let Some(events) = inner.worker.news() else { return false };
            if !events.is_empty() {
                inner.update(events);
                drop(inner);
                self.news.send_modify(|count| *count += 1);
            }
        }
    }

    /// What is shown, as soon as it is something else than whoever asks has seen, or after a while.
    pub(crate) async fn wait(&self, seen: u64) -> Value {
        let mut news = self.news.subscribe();
        let _ = tokio::time::timeout(WAIT, news.wait_for(|&count| count != seen)).await;
        self.scene(&self.inner(), &[])
    }

    /// Takes a message, and tells what is shown then. Where something else is shown by now than
    /// whoever sent it saw, it was not meant for that, and nothing happens.
    pub(crate) fn take(&self, message: Message) -> Value {
        let mut inner = self.inner();
        if inner.state.version() != message.version {
            return self.scene(&inner, &[]);
        }
        let downloads = inner.update(message.events);
        drop(inner);
        self.happened();
        self.scene(&self.inner(), &downloads)
    }

    fn scene(&self, inner: &Inner, downloads: &[FilePath]) -> Value {
        let mut scene = wire::scene(&inner.state.scene());
        let asking = inner.asking.as_ref().map(|asking| {
            let wrong = asking.wrong.as_ref().map(|problem| &problem.line);
            serde_json::json!({"tried": asking.is_tried, "wrong": wrong})
        });
        let disk = self.shelf.number();
        let download = downloads.first().zip(disk).map(|(path, disk)| wire::address(path, disk));
        if let Some(scene) = scene.as_object_mut() {
            scene.insert("seen".to_owned(), (*self.news.borrow()).into());
            scene.insert("ended".to_owned(), inner.ended.into());
            scene.insert("asks".to_owned(), asking.into());
            scene.insert("download".to_owned(), download.into());
        }
        scene
    }

    /// Rows of what is shown; `None` when it is something else.
    pub(crate) fn rows(&self, version: u64, first: usize, count: usize) -> Option<Value> {
        let inner = self.inner();
        let rows = || inner.state.rows(first, count.min(ROWS_MAX));
        (inner.state.version() == version).then(|| wire::rows(&rows(), self.shelf.number()))
    }

    /// The picture of what is shown; `None` when it has none, or is something else.
    pub(crate) fn picture(&self, version: u64, cells: usize) -> Option<Value> {
        let inner = self.inner();
        let picture = inner.state.picture().filter(|_| inner.state.version() == version)?;
        Some(wire::picture(&picture, cells.min(CELLS_MAX)))
    }

    /// Whether somebody is to say a passphrase, and none is being tried.
    fn begin_try(&self) -> Option<Asking> {
        let mut inner = self.inner();
        let asking = inner.asking.as_mut().filter(|asking| !asking.is_tried)?;
        asking.is_tried = true;
        Some(asking.clone())
    }

    /// Tries what somebody typed; `false` when nobody is asked, or another one is tried. It takes
    /// a while and much memory: one is tried at a time.
    pub(crate) fn try_credential(&self, credential: Credential) -> bool {
        let Some(asking) = self.begin_try() else { return false };
        self.happened();
        let tried = (self.unlock)(&asking.what, credential);
        let mut inner = self.inner();
        // Somebody may have stopped it, and be asked for something else.
        if inner.asking.as_ref().is_some_and(|now| now.ticket == asking.ticket) {
            let answer = match tried {
                Ok(keys) => {
                    keys.into_iter().for_each(|key| inner.keys.add(key));
                    Some(Ok(Answer::Unlocked))
                }
                Err(failure) if failure.verdict.code == WRONG => {
                    let asking = inner.asking.as_mut();
                    if let Some(asking) = asking {
                        asking.is_tried = false;
                        asking.wrong = Some(Problem::of(&failure));
                    }
                    None
                }
                Err(failure) => Some(Err(Problem::of(&failure))),
            };
            if let Some(answer) = answer {
                inner.asking = None;
                inner.update(vec![Event::Answer { ticket: asking.ticket, answer }]);
            }
        }
        drop(inner);
        self.happened();
        true
    }

    /// Stops whatever goes on, for good.
    pub(crate) fn end(&self) {
        let mut inner = self.inner();
        inner.worker.stop();
        inner.ended = true;
        drop(inner);
        self.happened();
    }
}

/// The code of a passphrase that opens nothing.
const WRONG: &str = "wrong_key";

impl Inner {
    /// Hands events to the state, and carries out what comes of them. What is to be downloaded is
    /// returned.
    fn update(&mut self, events: Vec<Event>) -> Vec<FilePath> {
        let mut downloads = Vec::new();
        for event in events {
            let commands = self.state.update(event);
            self.carry_out(commands, &mut downloads);
        }
        downloads
    }

    fn carry_out(&mut self, commands: Vec<Command>, downloads: &mut Vec<FilePath>) {
        for command in commands {
            match command {
                Command::Start { ticket, work: Work::Unlock { what } } => {
                    self.asking = Some(Asking { ticket, what, is_tried: false, wrong: None });
                }
                Command::Start { ticket, work } => {
                    self.worker.begin(ticket, work, self.keys.clone());
                }
                Command::Stop => {
                    self.asking = None;
                    self.worker.stop();
                }
                Command::Download { path } => downloads.push(path),
                Command::Quit => self.ended = true,
            }
        }
    }
}
