//! How far the writer has got: what the tables say of blocks before that is final.

use std::sync::{Condvar, Mutex, PoisonError};

use aiv_image_format::BlockIndex;

#[derive(Default)]
pub(crate) struct Reached {
    next_block: Mutex<BlockIndex>,
    moved: Condvar,
}

impl Reached {
    /// All blocks below `next` are decided.
    pub(crate) fn set(&self, next: BlockIndex) {
        *self.next_block.lock().unwrap_or_else(PoisonError::into_inner) = next;
        self.moved.notify_all();
    }

    /// Waits until all blocks below `limit` are decided, or nobody decides any more.
    pub(crate) fn wait_for(&self, limit: BlockIndex) {
        let mut next = self.next_block.lock().unwrap_or_else(PoisonError::into_inner);
        while *next < limit {
            next = self.moved.wait(next).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends all waiting when it is dropped, however the writer ends.
    pub(crate) fn guard(&self) -> Guard<'_> {
        Guard(self)
    }
}

pub(crate) struct Guard<'r>(&'r Reached);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.set(BlockIndex::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_goes_on_when_the_writer_is_past_it_or_gives_up() {
        let reached = Reached::default();
        reached.wait_for(0);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| reached.wait_for(3));
            (1..=3).for_each(|next| reached.set(next));
            waits.join().expect("it went on");
            let waits = scope.spawn(|| reached.wait_for(100));
            drop(reached.guard());
            waits.join().expect("it went on");
        });
    }
}
