//! The same work on many items by all threads of the machine.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::measure::own_cpu_s;

/// Items handed out at a time: so many that asking for them costs nothing, so few that no
/// thread waits long for the last.
const BATCH: usize = 8;

/// What work on all threads cost.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Spent {
    pub(super) wall_s: f64,
    /// Of all threads together; other processes on the machine change it little.
    pub(super) cpu_s: f64,
}

impl Spent {
    pub(super) fn plus(self, other: Self) -> Self {
        Self { wall_s: self.wall_s + other.wall_s, cpu_s: self.cpu_s + other.cpu_s }
    }

    pub(super) fn slower_of(self, other: Self) -> Self {
        if other.wall_s > self.wall_s { other } else { self }
    }
}

/// All threads of the machine.
pub(super) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Does `work` on each item, with one value of `tools` for each thread; returns what it
/// cost.
pub(super) fn on_all_threads<T: Send, S>(
    items: &mut [T],
    tools: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, &mut T) + Sync,
) -> Spent {
    let (begun, cpu_before) = (Instant::now(), own_cpu_s());
    let batches = Mutex::new(items.chunks_mut(BATCH));
    let next = || batches.lock().unwrap_or_else(PoisonError::into_inner).next();
    std::thread::scope(|scope| {
        for _ in 0..threads() {
            scope.spawn(|| {
                let mut tools = tools();
                while let Some(batch) = next() {
                    batch.iter_mut().for_each(|item| work(&mut tools, item));
                }
            });
        }
    });
    Spent { wall_s: begun.elapsed().as_secs_f64(), cpu_s: own_cpu_s() - cpu_before }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_worked_on_once() {
        let mut items: Vec<u64> = (0..1000).collect();
        let spent = on_all_threads(&mut items, || 1, |one, item| *item += *one);
        assert!(spent.wall_s > 0.0);
        assert!(items.into_iter().eq(1..=1000));
    }
}
