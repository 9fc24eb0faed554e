//! Blocks on their way to a target that lets one writer in at a time.
//!
//! A filesystem locks a file for each write, and whoever comes meanwhile waits for it with a busy
//! processor. So whoever comes meanwhile leaves his blocks to the one who writes, and goes on
//! decoding.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use aiv_volume_io::{Extent, WriteAt};

use crate::error::{Error, Result};
use crate::zeros::in_memory;

/// Bytes for the target, and which of them are to be written.
#[derive(Debug)]
pub(crate) struct Filled {
    pub(crate) bytes: Vec<u8>,
    /// Where the first of them belongs.
    pub(crate) start: u64,
    /// Places of the target, all of them among the bytes.
    pub(crate) runs: Vec<Extent>,
}

/// Who writes, and what was left to him.
pub(crate) struct Turns<'t> {
    target: &'t dyn WriteAt,
    /// Buffers that may wait for the writer.
    waiting_max: usize,
    state: Mutex<State>,
    /// There is room to wait in, or nobody writes.
    change: Condvar,
}

#[derive(Default)]
struct State {
    is_taken: bool,
    waiting: VecDeque<Filled>,
    /// Buffers to use again.
    spare: Vec<Vec<u8>>,
}

impl<'t> Turns<'t> {
    /// For so many threads: one buffer of each may wait.
    pub(crate) fn new(target: &'t dyn WriteAt, threads: usize) -> Self {
        Self { target, waiting_max: threads, state: Mutex::default(), change: Condvar::new() }
    }

    /// Writes what was `filled`, or leaves it to another thread that is inside this call and will
    /// not return before it was written. Returns a buffer with anything in it.
    ///
    /// # Errors
    /// [`Error::Io`] for any write that was left to this thread.
    pub(crate) fn write(&self, mut filled: Filled) -> Result<Vec<u8>> {
        if self.target.takes_writes_side_by_side() {
            self.carry_out(&filled)?;
            return Ok(filled.bytes);
        }
        let mut state = self.lock();
        while state.is_taken {
            if state.waiting.len() < self.waiting_max {
                state.waiting.push_back(filled);
                return Ok(state.spare.pop().unwrap_or_default());
            }
            state = self.change.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.is_taken = true;
        drop(state);
        let mut turn = Turn { turns: self, is_over: false };
        loop {
            self.carry_out(&filled)?;
            let mut state = self.lock();
            let Some(next) = state.waiting.pop_front() else {
                // Under the lock: what comes from now on finds nobody to be left to.
                turn.end(&mut state);
                return Ok(filled.bytes);
            };
            state.spare.push(std::mem::replace(&mut filled, next).bytes);
            self.change.notify_one();
        }
    }

    fn carry_out(&self, filled: &Filled) -> Result<()> {
        for run in &filled.runs {
            let at = in_memory(run.start - filled.start);
            let bytes = &filled.bytes[at..at + in_memory(run.len)];
            self.target.write_all_at(bytes, run.start).map_err(Error::io("writing", run.start))?;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The turn of one thread, which ends with an error or a panic, too.
struct Turn<'a> {
    turns: &'a Turns<'a>,
    is_over: bool,
}

impl Turn<'_> {
    fn end(&mut self, state: &mut State) {
        self.is_over = true;
        state.is_taken = false;
        self.turns.change.notify_all();
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.end(&mut self.turns.lock());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
    use std::time::Duration;

    use aiv_volume_io::{MemDisk, ReadAt};

    use super::*;

    const PIECE: u64 = 4096;

    /// Counts who is inside, takes its time, and fails at one place.
    struct OneAtATime {
        disk: MemDisk,
        inside: AtomicUsize,
        met: AtomicBool,
        bad: Option<u64>,
        panics: bool,
    }

    impl OneAtATime {
        fn new(pieces: u64, bad: Option<u64>, panics: bool) -> Self {
            let disk = MemDisk::from_bytes(vec![0; in_memory(pieces * PIECE)]);
            let (inside, met) = (AtomicUsize::new(0), AtomicBool::new(false));
            Self { disk, inside, met, bad, panics }
        }
    }

    impl ReadAt for OneAtATime {
        fn len(&self) -> u64 {
            self.disk.len()
        }

        fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
            self.disk.read_exact_at(out, offset)
        }
    }

    impl WriteAt for OneAtATime {
        fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
            if self.inside.fetch_add(1, Ordering::SeqCst) != 0 {
                self.met.store(true, Ordering::SeqCst);
            }
            std::thread::sleep(Duration::from_micros(200));
            self.inside.fetch_sub(1, Ordering::SeqCst);
            if self.bad.is_some_and(|bad| bad == offset) {
                if self.panics {
                    std::panic::panic_any("as asked for");
                }
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.disk.write_all_at(data, offset)
        }

        fn zero_range(&self, range: Extent) -> io::Result<()> {
            self.disk.zero_range(range)
        }

        fn discard_range(&self, range: Extent) -> io::Result<()> {
            self.disk.discard_range(range)
        }

        fn sync(&self) -> io::Result<()> {
            Ok(())
        }

        fn takes_writes_side_by_side(&self) -> bool {
            false
        }
    }

    fn piece(number: u64) -> Filled {
        let fill = u8::try_from(number % 251).unwrap() + 1;
        let start = number * PIECE;
        let runs = vec![Extent::new(start, 1000), Extent::new(start + 2000, PIECE - 2000)];
        Filled { bytes: vec![fill; in_memory(PIECE)], start, runs }
    }

    /// Writes all pieces by several threads, and says how many of those did not come to the end.
    fn write_all(target: &OneAtATime, pieces: u64, threads: usize) -> usize {
        let (turns, next) = (Turns::new(target, threads), AtomicU64::new(0));
        let work = || -> Result<()> {
            loop {
                let number = next.fetch_add(1, Ordering::SeqCst);
                if number >= pieces {
                    return Ok(());
                }
                turns.write(piece(number))?;
            }
        };
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            all.into_iter().filter_map(|one| one.join().ok()?.ok()).count()
        })
        .abs_diff(threads)
    }

    #[test]
    fn all_is_written_when_all_have_returned_and_two_writers_never_meet() {
        for threads in [1, 2, 5] {
            let target = OneAtATime::new(300, None, false);
            assert_eq!(write_all(&target, 300, threads), 0);
            assert!(!target.met.load(Ordering::SeqCst));
            for number in 0..300 {
                let Filled { mut bytes, start, .. } = piece(number);
                bytes[1000..2000].fill(0);
                let mut found = vec![0; bytes.len()];
                target.read_exact_at(&mut found, start).unwrap();
                assert!(found == bytes, "piece {number} with {threads} threads");
            }
        }
    }

    #[test]
    fn a_write_that_fails_or_panics_ends_one_thread_and_holds_nobody_up() {
        for panics in [false, true] {
            let target = OneAtATime::new(100, Some(50 * PIECE), panics);
            assert_eq!(write_all(&target, 100, 4), 1);
        }
    }
}
