//! A rate limit that does not know the time by itself.

use std::num::NonZeroU64;
use std::time::Duration;

use aiv_volume_io::{Canceled, Job};

/// The caller's clock.
pub trait Clock: Sync {
    /// Time since an arbitrary moment; never goes backwards.
    fn now(&self) -> Duration;
    /// Waits.
    fn sleep(&self, time: Duration);
}

/// How fast a source may be read.
#[derive(Clone, Copy)]
pub struct RateLimit<'a> {
    /// Bytes per second on average over any few seconds.
    pub bytes_per_second: NonZeroU64,
    /// The caller's clock.
    pub clock: &'a dyn Clock,
}

/// A pause is cut into pieces of this length, so that canceling does not wait for it.
const SLICE: Duration = Duration::from_millis(100);

/// Time that may be saved up while the pipeline waits for something else.
const BURST: Duration = Duration::from_millis(500);

pub(crate) struct Pacer<'a> {
    limit: RateLimit<'a>,
    /// When the bytes read so far should have been done.
    due: Duration,
}

impl<'a> Pacer<'a> {
    pub(crate) fn new(limit: RateLimit<'a>) -> Self {
        Self { limit, due: limit.clock.now() }
    }

    /// Waits until `bytes` more fit the limit.
    pub(crate) fn wait(&mut self, bytes: u64, job: Job<'_>) -> Result<(), Canceled> {
        let nanos =
            u128::from(bytes) * 1_000_000_000 / u128::from(self.limit.bytes_per_second.get());
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let earliest = self.limit.clock.now().saturating_sub(BURST);
        self.due = self.due.max(earliest).saturating_add(cost);
        loop {
            job.check()?;
            let left = self.due.saturating_sub(self.limit.clock.now());
            if left.is_zero() {
                return Ok(());
            }
            self.limit.clock.sleep(left.min(SLICE));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Default)]
    struct FakeClock(Mutex<Duration>);

    impl Clock for FakeClock {
        fn now(&self) -> Duration {
            *self.0.lock().expect("no test panics while holding it")
        }
        fn sleep(&self, time: Duration) {
            *self.0.lock().expect("no test panics while holding it") += time;
        }
    }

    #[test]
    fn the_rate_holds_within_a_few_percent_over_ten_seconds_and_at_any_size() {
        let clock = FakeClock::default();
        let rate = NonZeroU64::new(100 << 20).expect("not zero");
        let mut pacer = Pacer::new(RateLimit { bytes_per_second: rate, clock: &clock });
        for _ in 0..1000 {
            pacer.wait(1 << 20, Job::silent()).expect("not canceled");
        }
        let seconds = clock.now().as_secs_f64();
        assert!((9.5..10.5).contains(&seconds), "{seconds}");
        pacer.wait(1 << 40, Job::silent()).expect("not canceled");
        assert!(clock.now().as_secs() > 10_000);
    }
}
