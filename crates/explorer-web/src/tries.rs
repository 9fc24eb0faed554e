//! How often a passphrase may be tried: as often as people mistype one, and then ever more slowly.

use std::time::Duration;

/// Wrong ones in a row after which there is no pause.
const FREE: u32 = 3;
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Wrong passphrases in a row.
#[derive(Debug, Default)]
pub(crate) struct Tries {
    wrong: u32,
    /// None is tried before.
    not_before: Duration,
}

impl Tries {
    /// How long none is tried, if so.
    pub(crate) fn pause(&self, now: Duration) -> Option<Duration> {
        self.not_before.checked_sub(now).filter(|pause| !pause.is_zero())
    }

    /// One was tried, and was wrong or not.
    pub(crate) fn tried(&mut self, is_wrong: bool, now: Duration) {
        self.wrong = if is_wrong { self.wrong.saturating_add(1) } else { 0 };
        let pause = match self.wrong.checked_sub(FREE) {
            None => Duration::ZERO,
            Some(more) => Duration::from_secs(2_u64.saturating_pow(more)).min(PAUSE_MAX),
        };
        self.not_before = now.saturating_add(pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_three_wrong_ones_each_takes_twice_as_long_up_to_a_minute() {
        let mut tries = Tries::default();
        let mut now = Duration::from_secs(100);
        let pauses = [0, 0, 1, 2, 4, 8, 16, 32, 60, 60];
        for pause in pauses {
            tries.tried(true, now);
            let pause = Duration::from_secs(pause);
            assert_eq!(tries.pause(now), Some(pause).filter(|pause| !pause.is_zero()));
            now += pause;
            assert_eq!(tries.pause(now), None);
        }
        tries.tried(false, now);
        tries.tried(true, now);
        assert_eq!(tries.pause(now), None, "it begins anew after a right one");
        tries.wrong = u32::MAX;
        tries.tried(true, now);
        assert_eq!(tries.pause(now), Some(PAUSE_MAX));
    }
}
