//! The state of the explorer, its worker, and whoever looks at it.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aiv_browse::{LuksKey, LuksKeys, Path as FilePath};
use aiv_explorer_model::{Answer, Command, Event, Lock, Problem, Start, State, Work};
use aiv_explorer_work::{Outside, Shelf, Worker};
use aiv_jobs::World;
use aiv_keys::{ChainKey, Credential, Keys, Passphrase};
use aiv_report::Failure;
use serde_json::Value;
use tokio::sync::{Notify, watch};
use zeroize::Zeroizing;

use crate::tries::Tries;
use crate::watched::Watched;
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
    world: Arc<dyn World + Send + Sync>,
    shelf: Shelf,
    watched: Watched,
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
    tries: Tries,
    /// The ticket of the passphrase that is being tried, also when nobody waits for it any more.
    trying: Option<u64>,
    ended: bool,
}

#[derive(Clone)]
struct Asking {
    ticket: u64,
    /// What it is for: [`Work::Unlock`] or [`Work::UnlockVolume`].
    work: Work,
    /// One is being tried.
    is_tried: bool,
    /// What was wrong with the last one.
    wrong: Option<String>,
}

/// What became of a passphrase.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Tried {
    /// It was or is being tried: the scene tells.
    Taken,
    /// Nobody asks for one.
    Unasked,
    /// It cannot be one: why.
    Unusable(String),
    /// Others were wrong; none is tried for so long.
    TooSoon(Duration),
}

impl Hub {
    pub(crate) fn new(
        start: Start,
        world: Arc<dyn World + Send + Sync>,
        (keys, luks): (Keys, LuksKeys),
        unlock: Unlock,
    ) -> Self {
        let shelf = Shelf::default();
        let outside = Outside::reading_only(Arc::clone(&world), shelf.clone());
        let worker = Worker::with(outside.with_luks(luks));
        let (state, commands) = State::for_downloads(start);
        let tries = Tries::default();
        let (asking, trying, ended) = (None, None, false);
        let mut inner = Inner { state, worker, keys, asking, tries, trying, ended };
        let mut downloads = Vec::new();
        inner.carry_out(commands, &mut downloads);
        let news = watch::Sender::new(1);
        let (inner, watched) = (Mutex::new(inner), Watched::default());
        Self { inner, unlock, world, shelf, watched, news, begun: Notify::new() }
    }

    fn now(&self) -> Duration {
        self.world.clock().now()
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
            let Some(mut events) = inner.worker.news() else { return false };
            let now = self.now();
            events.iter().for_each(|event| inner.heard(event, now));
            if inner.state.is_busy() && self.watched.is_abandoned(now) {
                events.push(Event::Abandoned);
            }
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
        let _watching = self.watched.begin(|| self.now());
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
            let of = match &asking.work {
                Work::UnlockVolume { asks: Some(asks), .. } if !asks.again => Some(&asks.line),
                _ => None,
            };
            let is_volume = matches!(asking.work, Work::UnlockVolume { .. });
            let (tried, wrong) = (asking.is_tried, &asking.wrong);
            serde_json::json!({"tried": tried, "wrong": wrong, "volume": is_volume, "why": of})
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

    /// Tries what somebody typed. It takes a while and much memory: one is tried at a time, and
    /// after some that were wrong there is a pause.
    pub(crate) fn try_passphrase(&self, text: &str) -> Tried {
        let mut inner = self.inner();
        let pause = inner.tries.pause(self.now());
        let is_busy = inner.trying.is_some();
        let Some(asking) = inner.asking.as_mut().filter(|asking| !asking.is_tried) else {
            return Tried::Unasked;
        };
        if let Some(pause) = pause {
            return Tried::TooSoon(pause);
        }
        if is_busy {
            return Tried::Unusable("the one before is being tried still".to_owned());
        }
        let Asking { ticket, work, .. } = asking.clone();
        if let Work::Unlock { what } = work {
            let passphrase = match Passphrase::new(text) {
                Ok(passphrase) => passphrase,
                Err(error) => return Tried::Unusable(error.to_string()),
            };
            asking.is_tried = true;
            inner.trying = Some(ticket);
            drop(inner);
            self.happened();
            self.try_credential(ticket, &what, Credential::Passphrase(passphrase));
        } else {
            let Some(key) = LuksKey::new(Zeroizing::new(text.as_bytes().to_vec())) else {
                return Tried::Unusable("nothing was typed".to_owned());
            };
            asking.is_tried = true;
            inner.trying = Some(ticket);
            let keys = inner.keys.clone();
            inner.worker.begin_with(ticket, work, keys, Some(key));
            drop(inner);
        }
        self.happened();
        Tried::Taken
    }

    fn try_credential(&self, ticket: u64, what: &Path, credential: Credential) {
        let tried = (self.unlock)(what, credential);
        let now = self.now();
        let mut inner = self.inner();
        let is_wrong = tried.as_ref().is_err_and(|failure| failure.verdict.code == WRONG);
        inner.trying = None;
        inner.tries.tried(is_wrong, now);
        // Somebody may have stopped it, and be asked for something else.
        let Some(asking) = inner.asking.as_mut().filter(|now| now.ticket == ticket) else { return };
        let answer = match tried {
            Ok(keys) => {
                keys.into_iter().for_each(|key| inner.keys.add(key));
                Ok(Answer::Unlocked)
            }
            Err(failure) if is_wrong => {
                asking.is_tried = false;
                asking.wrong = Some(Problem::of(&failure).line);
                return;
            }
            Err(failure) => Err(Problem::of(&failure)),
        };
        inner.asking = None;
        inner.update(vec![Event::Answer { ticket, answer }]);
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
    /// Takes note of what became of a passphrase for a volume.
    fn heard(&mut self, event: &Event, now: Duration) {
        let Event::Answer { ticket, answer } = event else { return };
        if self.asking.as_ref().is_some_and(|asking| asking.ticket == *ticket) {
            self.asking = None;
        }
        if self.trying.take_if(|trying| *trying == *ticket).is_some() {
            // One that somebody stopped may be a wrong one.
            let is_wrong = |problem: &Problem| problem.canceled || problem.lock == Lock::WrongKey;
            self.tries.tried(answer.as_ref().is_err_and(is_wrong), now);
        }
    }

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
                Command::Start {
                    ticket,
                    work: work @ (Work::Unlock { .. } | Work::UnlockVolume { asks: Some(_), .. }),
                } => {
                    let wrong = match &work {
                        Work::UnlockVolume { asks, .. } => asks.as_ref(),
                        _ => None,
                    };
                    let wrong = wrong.filter(|asks| asks.again).map(|asks| asks.line.clone());
                    self.asking = Some(Asking { ticket, work, is_tried: false, wrong });
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

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::PathBuf;
    use std::process;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::channel;
    use std::thread;

    use aiv_backup_engine::Clock;
    use aiv_explorer_model::{Asks, Key};
    use aiv_report::{Exit, Verdict};

    use super::*;

    /// A world in which no time passes.
    struct Still;

    impl Clock for Still {
        fn now(&self) -> Duration {
            Duration::from_secs(100)
        }

        fn sleep(&self, _: Duration) {}
    }

    impl World for Still {
        fn root(&self) -> &Path {
            Path::new("/nowhere")
        }

        fn clock(&self) -> &dyn Clock {
            self
        }

        fn now_unix_ms(&self) -> u64 {
            0
        }

        fn fill_random(&self, _: &mut [u8]) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn guard(&self, _: Duration, _: &[PathBuf]) -> process::Command {
            process::Command::new("false")
        }
    }

    fn hub(unlock: Unlock) -> Hub {
        let start = Start::Folder(PathBuf::from("/nowhere"));
        Hub::new(start, Arc::new(Still), (Keys::none(), LuksKeys::none()), unlock)
    }

    fn wrong() -> Failure {
        let verdict = Verdict { code: WRONG, exit: Exit::Refused, hint: "" };
        Failure::new(verdict, "wrong")
    }

    /// Somebody is asked for the passphrase of the images.
    fn ask(hub: &Hub) {
        hub.inner().update([Key::Escape, Key::Char('u')].map(Event::Key).into());
        assert!(hub.inner().asking.is_some());
    }

    #[test]
    fn one_passphrase_is_tried_at_a_time_also_when_nobody_waits_for_it_any_more() {
        let (go, gone) = channel();
        let (begin, begun) = channel();
        let (gone, count) = (Mutex::new(gone), Arc::new(AtomicUsize::new(0)));
        let tried = Arc::clone(&count);
        let hub = hub(Arc::new(move |_, _| {
            if tried.fetch_add(1, Ordering::Relaxed) == 0 {
                begin.send(()).unwrap();
                gone.lock().unwrap().recv().unwrap();
            }
            Err(wrong())
        }));
        ask(&hub);
        thread::scope(|scope| {
            let first = scope.spawn(|| hub.try_passphrase("one"));
            begun.recv().unwrap();
            ask(&hub);
            let second = hub.try_passphrase("two");
            go.send(()).unwrap();
            assert_eq!(first.join().unwrap(), Tried::Taken);
            assert!(matches!(second, Tried::Unusable(_)), "{second:?}");
        });
        assert_eq!(count.load(Ordering::Relaxed), 1);
        assert_eq!(hub.try_passphrase("two"), Tried::Taken);
        assert_eq!(count.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn who_stops_a_passphrase_of_a_volume_before_it_was_found_wrong_waits_all_the_same() {
        let hub = hub(Arc::new(|_, _| Err(wrong())));
        for ticket in 1000..1003 {
            let asks = Some(Asks { line: String::new(), again: false });
            let work = Work::UnlockVolume { path: FilePath::default(), asks };
            let mut inner = hub.inner();
            assert_eq!(inner.tries.pause(hub.now()), None, "{ticket}");
            inner.carry_out(vec![Command::Start { ticket, work }], &mut Vec::new());
            drop(inner);
            assert_eq!(hub.try_passphrase("wrong"), Tried::Taken);
            let canceled = ticket % 2 == 0;
            let lock = if canceled { Lock::None } else { Lock::WrongKey };
            let answer = Err(Problem { lock, canceled, ..Problem::of(&wrong()) });
            let mut inner = hub.inner();
            inner.carry_out(vec![Command::Stop], &mut Vec::new());
            inner.heard(&Event::Answer { ticket, answer }, hub.now());
        }
        let inner = hub.inner();
        assert_eq!(inner.tries.pause(hub.now()), Some(Duration::from_secs(1)));
    }
}
