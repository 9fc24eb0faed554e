//! Buffers on their way to the storage, sealed by other threads meanwhile.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use super::SealKey;
use crate::error::{Error, Result};
use crate::ids::SessionTag;

/// A frame that is laid out and not yet sealed.
pub(crate) struct SealJob {
    /// Where its header begins in the buffer.
    pub at: usize,
    pub stored_len: usize,
    pub session: SessionTag,
    pub seq: u64,
    pub salt: u32,
}

/// Buffers in the order they were written, each with the frames in it sealed when it comes out.
/// Numbers and places were given to the frames before, so the order of the threads decides
/// nothing.
pub(crate) struct Queue {
    key: Arc<SealKey>,
    pool: Option<Arc<rayon::ThreadPool>>,
    waiting: VecDeque<Receiver<Result<Vec<u8>>>>,
    /// Bytes of all that waits.
    bytes: u64,
}

impl Queue {
    pub(crate) fn new(key: Arc<SealKey>) -> Self {
        Self { key, pool: None, waiting: VecDeque::new(), bytes: 0 }
    }

    /// Lets the threads of `pool` seal.
    pub(crate) fn seal_in(&mut self, pool: Arc<rayon::ThreadPool>) {
        self.pool = Some(pool);
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether so much waits that the next buffer has to be taken out first: each thread may
    /// have one, and as many may be done or not begun.
    pub(crate) fn is_full(&self) -> bool {
        let threads = self.pool.as_ref().map_or(0, |pool| pool.current_num_threads());
        self.waiting.len() > 2 * threads + 2
    }

    /// Puts in a buffer and the frames in it that have to be sealed.
    pub(crate) fn push(&mut self, mut buffer: Vec<u8>, jobs: Vec<SealJob>) {
        let key = self.key.clone();
        self.bytes += buffer.len() as u64;
        let (done, outcome) = sync_channel(1);
        let seal = move || {
            let sealed = jobs.iter().try_for_each(|job| key.seal_frame(&mut buffer[job.at..], job));
            // Nobody listens when the writer was given up.
            let _ = done.send(sealed.map(|()| buffer));
        };
        match &self.pool {
            // A thread of a pool that waits for the others of its pool might wait for itself.
            Some(pool) if rayon::current_thread_index().is_none() => pool.spawn(seal),
            _ => seal(),
        }
        self.waiting.push_back(outcome);
    }

    /// Takes out the oldest buffer; `None` when nothing waits.
    pub(crate) fn pop(&mut self) -> Result<Option<Vec<u8>>> {
        let Some(outcome) = self.waiting.pop_front() else { return Ok(None) };
        let buffer = outcome.recv().map_err(|_| Error::Misuse("a thread that gave up"))??;
        self.bytes -= buffer.len() as u64;
        Ok(Some(buffer))
    }
}
