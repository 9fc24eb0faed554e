//! The power goes at every operation of random scenarios of backups, merges, archives, moves and
//! removals: no acknowledged point is lost, none reads wrong, none is orphaned.

use std::collections::BTreeSet;
use std::fmt;

use aiv_chain::PointId;
use aiv_testkit::{CrashState, CrashStorage};

use super::scenario::Scenario;

/// How much was tried.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tried {
    pub states: u64,
    pub double_crashes: u64,
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} states, {} of them after a second crash", self.states, self.double_crashes)
    }
}

/// States sampled for each operation of a history, besides the corner cases.
const PER_OPERATION: usize = 40;
/// One in so many states is continued from, and crashes again.
const AGAIN_EVERY: usize = 150;

/// Runs the scenario of `seed` and checks the states its crashes leave.
pub(crate) fn run(seed: u64) -> Result<Tried, String> {
    let mut scenario = Scenario::new(seed);
    let start = scenario.begin(2)?;
    let crash = CrashStorage::starting_from(&start);
    let long_ago = scenario.promised.clone();
    operations(&mut scenario, &crash, 4)?;
    let mut tried = Tried::default();
    for (number, state) in crash.crash_states(seed, PER_OPERATION).enumerate() {
        let promised = promised_in(&state, &long_ago);
        let told = |why: String| format!("{state}: {why}");
        scenario.oracle.check(&state.storage, &promised).map_err(told)?;
        tried.states += 1;
        if number % AGAIN_EVERY == AGAIN_EVERY - 1 {
            let pairs = crash_again(&mut scenario, &state, &promised, seed)
                .map_err(|why| format!("first crash: {state}, second crash: {why}"))?;
            tried.states += pairs;
            tried.double_crashes += pairs;
        }
    }
    Ok(tried)
}

/// Goes on from what a crash left, and crashes that.
fn crash_again(
    scenario: &mut Scenario,
    state: &CrashState,
    promised: &BTreeSet<PointId>,
    seed: u64,
) -> Result<u64, String> {
    let again = CrashStorage::starting_from(&state.storage);
    operations(scenario, &again, 1)?;
    let mut count = 0;
    for second in again.crash_states(seed, 4) {
        let promised = promised_in(&second, promised);
        let told = |why: String| format!("{second}: {why}");
        scenario.oracle.check(&second.storage, &promised).map_err(told)?;
        count += 1;
    }
    Ok(count)
}

/// Does `count` random things in a folder that remembers its history. A mark `+ID` promises a
/// point, a mark `-ID` gives one up.
fn operations(scenario: &mut Scenario, crash: &CrashStorage, count: usize) -> Result<(), String> {
    for _ in 0..count {
        match scenario.random.below(8) {
            0..4 => {
                let point = scenario.back_up(crash)?;
                crash.mark(format!("+{point}"));
            }
            4..6 => scenario.consolidate(crash, &|point| crash.mark(format!("-{point}")))?,
            6 => scenario.archive(crash)?,
            _ => {
                // Points of another folder arrive; they are promised when they have.
                let mut elsewhere = Scenario::new(scenario.random.next());
                let from = elsewhere.begin(2)?;
                scenario.take_over(&from, crash)?;
                for point in elsewhere.promised {
                    crash.mark(format!("+{point}"));
                    scenario.promised.insert(point);
                }
                scenario.oracle.absorb(elsewhere.oracle);
            }
        }
    }
    Ok(())
}

fn promised_in(state: &CrashState, before: &BTreeSet<PointId>) -> BTreeSet<PointId> {
    let mut promised = before.clone();
    for mark in &state.acknowledged {
        let (sign, id) = mark.split_at(1);
        let Some(id) = PointId::from_hex(id) else { continue };
        match sign {
            "+" => promised.insert(id),
            _ => promised.remove(&id),
        };
    }
    promised
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_crash_of_a_random_scenario_loses_a_point() {
        let mut states = 0;
        for seed in 1..=3 {
            states += run(seed).unwrap_or_else(|why| panic!("seed {seed}: {why}")).states;
        }
        assert!(states >= 1_000, "{states} states");
    }
}
