//! What takes the outside, one after the other on a thread of its own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use aiv_browse::LuksKey;
use aiv_chain::Keys;
use aiv_explorer_model::{Amount, Event, Problem, Work};
use aiv_jobs::World;
use aiv_report::words;
use aiv_volume_io::{Cancel, Job, Progress, Step};

use crate::answers::Outside;

struct Task {
    ticket: u64,
    work: Work,
    keys: Keys,
    /// What the user typed for an encrypted volume.
    secret: Option<LuksKey>,
    cancel: Arc<Cancel>,
}

/// How far the task is that runs.
type Latest = Arc<Mutex<Option<(u64, Amount)>>>;

/// The thread, and how to reach it.
pub struct Worker {
    tasks: Option<Sender<Task>>,
    answers: Receiver<Event>,
    latest: Latest,
    /// Stop buttons of what was started, and of which no answer came yet.
    cancels: Vec<Arc<Cancel>>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts the thread; as [`Outside::new`].
    #[must_use]
    pub fn start(world: Arc<dyn World + Send + Sync>, owners: bool) -> Self {
        Self::with(Outside::new(world, owners))
    }

    /// Starts the thread with somebody who answers.
    #[must_use]
    pub fn with(mut outside: Outside) -> Self {
        let (tasks, todo) = channel::<Task>();
        let (done, answers) = channel();
        let latest = Latest::default();
        let told = Arc::clone(&latest);
        let thread = thread::spawn(move || {
            for Task { ticket, work, keys, secret, cancel } in todo {
                let tell =
                    Tell { ticket, latest: Arc::clone(&told), done: 0.into(), total: 0.into() };
                let looked = |count| tell.set(Amount::Looked(count));
                let job = Job::new(&tell, &cancel);
                let answer = match (work, secret) {
                    (Work::UnlockVolume { path, .. }, Some(key)) => {
                        outside.unlock_volume(&path, Some(key), &keys, job)
                    }
                    (work, _) => outside.answer(work, &keys, job, &looked),
                };
                let answer = answer.map_err(|failure| Problem::of(&failure));
                if done.send(Event::Answer { ticket, answer }).is_err() {
                    return;
                }
            }
        });
        Self { tasks: Some(tasks), answers, latest, cancels: Vec::new(), thread: Some(thread) }
    }

    /// Hands it something to do, with the keys that are known by now.
    pub fn begin(&mut self, ticket: u64, work: Work, keys: Keys) {
        self.begin_with(ticket, work, keys, None);
    }

    /// The same, with what the user typed for an encrypted volume, which is for
    /// [`Work::UnlockVolume`].
    pub fn begin_with(&mut self, ticket: u64, work: Work, keys: Keys, secret: Option<LuksKey>) {
        let cancel = Arc::new(Cancel::new());
        self.cancels.push(Arc::clone(&cancel));
        if let Some(tasks) = &self.tasks {
            // That nobody takes it is seen when no answer comes.
            let _ = tasks.send(Task { ticket, work, keys, secret, cancel });
        }
    }

    /// Stops whatever was begun.
    pub fn stop(&mut self) {
        self.cancels.drain(..).for_each(|cancel| cancel.cancel());
    }

    /// What happened since the last time; `None` when the thread is gone.
    pub fn news(&mut self) -> Option<Vec<Event>> {
        let mut news = Vec::new();
        let amount = self.latest.lock().unwrap_or_else(PoisonError::into_inner).take();
        news.extend(amount.map(|(ticket, amount)| Event::Progress { ticket, amount }));
        loop {
            match self.answers.try_recv() {
                Ok(answer) => news.push(answer),
                Err(TryRecvError::Empty) => return Some(news),
                Err(TryRecvError::Disconnected) => return None,
            }
        }
    }
}

impl Drop for Worker {
    /// What is going on stops, and tidies up.
    fn drop(&mut self) {
        self.stop();
        self.tasks = None;
        if let Some(thread) = self.thread.take() {
            // A panic has been told already.
            let _ = thread.join();
        }
    }
}

/// Progress of a job, as the latest amount.
struct Tell {
    ticket: u64,
    latest: Latest,
    done: AtomicU64,
    total: AtomicU64,
}

impl Tell {
    fn set(&self, amount: Amount) {
        let latest = Some((self.ticket, amount));
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = latest;
    }
}

impl Progress for Tell {
    fn begin(&self, step: Step, total: u64) {
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
        self.set(Amount::Bytes { step: words::step(step), done: 0, total });
    }

    fn advance(&self, step: Step, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let total = self.total.load(Ordering::Relaxed);
        self.set(Amount::Bytes { step: words::step(step), done, total });
    }
}
