//! Whether anybody looks.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long nobody may look before what goes on for them stops: a page that is loaded anew is
/// there again at once.
const ABANDONED: Duration = Duration::from_secs(8);

/// Pages that wait for news.
#[derive(Debug, Default)]
pub(crate) struct Watched(Mutex<Watchers>);

#[derive(Debug, Default)]
struct Watchers {
    count: usize,
    /// When the last one went; none before anybody was there.
    last: Option<Duration>,
}

/// One that waits, until this is dropped.
pub(crate) struct Watcher<'w, N: Fn() -> Duration> {
    watched: &'w Watched,
    now: N,
}

impl Watched {
    fn watchers(&self) -> MutexGuard<'_, Watchers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One begins to wait; `now` tells the time when it goes.
    pub(crate) fn begin<N: Fn() -> Duration>(&self, now: N) -> Watcher<'_, N> {
        self.watchers().count += 1;
        Watcher { watched: self, now }
    }

    /// Whether somebody was there, and nobody has been for a while.
    pub(crate) fn is_abandoned(&self, now: Duration) -> bool {
        let watchers = self.watchers();
        let since = watchers.last.and_then(|last| now.checked_sub(last));
        watchers.count == 0 && since.is_some_and(|since| since > ABANDONED)
    }
}

impl<N: Fn() -> Duration> Drop for Watcher<'_, N> {
    fn drop(&mut self) {
        let now = (self.now)();
        let mut watchers = self.watched.watchers();
        watchers.count = watchers.count.saturating_sub(1);
        watchers.last = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_abandoned_when_all_who_were_there_have_been_gone_for_a_while() {
        let watched = Watched::default();
        let at = Duration::from_secs;
        assert!(!watched.is_abandoned(at(1000)), "nobody has come yet");
        let (first, second) = (watched.begin(|| at(10)), watched.begin(|| at(20)));
        drop(first);
        assert!(!watched.is_abandoned(at(1000)));
        drop(second);
        assert!(!watched.is_abandoned(at(20) + ABANDONED));
        assert!(watched.is_abandoned(at(21) + ABANDONED));
        let _third = watched.begin(|| at(50));
        assert!(!watched.is_abandoned(at(1000)));
    }
}
