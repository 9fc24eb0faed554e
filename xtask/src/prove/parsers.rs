//! Every parser fed with mutants of sound inputs: no panic, little memory, little time.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aiv_fuzz::{MEMORY_MAX, TARGETS, TIME_MAX, Target};
use aiv_testkit::{Random, mutants};

use super::hang;
use super::memory::{peak, peak_from_here};
use crate::{Outcome, process};

/// Mutants of each parser in the full tier.
pub(super) const MUTANTS: u64 = 1_000_000;

/// A mutant that took long is tried again this often: the first one may have warmed something.
const TRIES: usize = 5;

/// Runs the campaign of the parser called `name`, or of all, and of those with several families of
/// inputs each family by itself, or the one called `family`.
pub(super) fn campaign(
    name: Option<&str>,
    family: Option<&str>,
    first: u64,
    count: u64,
) -> Outcome {
    let chosen: Vec<(Target, Option<&str>)> = TARGETS
        .iter()
        .filter(|target| name.is_none_or(|name| target.name == name))
        .flat_map(by_family)
        .filter(|(_, own)| family.is_none_or(|family| *own == Some(family)))
        .collect();
    if chosen.is_empty() {
        let family = family.map(|family| format!(" with a family {family}")).unwrap_or_default();
        return Err(format!("no parser {}{family}: {}", name.unwrap_or(""), names()));
    }
    for (target, family) in chosen {
        let label = match family {
            Some(family) => format!("{}-{family}", target.name),
            None => target.name.to_owned(),
        };
        let tried = run(&label, &target, first, count)?;
        let end = first.saturating_add(count);
        println!("parsers: {label}: seeds {first}..{end}, {tried}, 0 failed");
    }
    Ok(())
}

/// A target for each family of inputs.
fn by_family(target: &Target) -> Vec<(Target, Option<&'static str>)> {
    if target.families.is_empty() {
        return vec![(*target, None)];
    }
    target
        .families
        .iter()
        .map(|family| (Target { seeds: family.seeds, ..*target }, Some(family.name)))
        .collect()
}

/// The names of all parsers, with those of their families.
pub(super) fn names() -> String {
    let name = |target: &Target| match target.families {
        [] => target.name.to_owned(),
        families => {
            let families: Vec<&str> = families.iter().map(|family| family.name).collect();
            format!("{} ({})", target.name, families.join(", "))
        }
    };
    TARGETS.iter().map(name).collect::<Vec<_>>().join(", ")
}

/// What came of a number of mutants.
#[derive(Default)]
struct Tried {
    mutants: u64,
    seeds: usize,
    reached: u64,
    /// The longest, and the seed it was of.
    time_max: (Duration, u64),
    memory_max: u64,
}

impl std::fmt::Display for Tried {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { mutants, seeds, reached, time_max, memory_max } = self;
        let (kib, (time, slowest)) = (memory_max >> 10, time_max);
        let ms = time.as_millis();
        write!(
            f,
            "{mutants} mutants of {seeds} inputs, {reached} past the first checks, at most {kib} KiB \
             of memory and {ms} ms (seed {slowest})"
        )
    }
}

fn run(label: &str, target: &Target, first: u64, count: u64) -> Result<Tried, String> {
    let seeds = (target.seeds)();
    // What is made once for all inputs is no cost of any.
    seeds.iter().for_each(|seed| {
        (target.run)(seed);
    });
    let mut tried = Tried { seeds: seeds.len(), ..Tried::default() };
    let started = Instant::now();
    let current = AtomicU64::new(first);
    hang::watched(&format!("parsers: {label}"), &current, || {
        for number in first..first.saturating_add(count) {
            current.store(number, Ordering::Relaxed);
            let mut random = Random::new(&[number, 0x7061_7273]);
            let seed = &seeds[random.below(seeds.len())];
            let mutant = mutants::mutate(&mut random, seed);
            let verdict = judge(target, &mutant);
            let (reached, time, memory) = verdict.map_err(|why| {
                let kept = keep(label, number, &mutant);
                format!("{label} seed {number}: {why}; {kept}")
            })?;
            tried.mutants += 1;
            tried.reached += u64::from(reached);
            tried.time_max = tried.time_max.max((time, number));
            tried.memory_max = tried.memory_max.max(memory);
            if tried.mutants.is_multiple_of(100_000) {
                let seconds = started.elapsed().as_secs();
                println!("parsers: {label}: {} of {count}, {seconds} s", tried.mutants);
            }
        }
        Ok(())
    })?;
    Ok(tried)
}

/// Whether an input gets past the first checks of a parser, and the time and memory it takes.
fn judge(target: &Target, input: &[u8]) -> Result<(bool, Duration, u64), String> {
    let mut tries = 0;
    loop {
        let before = peak_from_here()?;
        let started = cpu_time();
        let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
        let time = cpu_time().saturating_sub(started);
        let memory = peak()?.saturating_sub(before);
        tries += 1;
        let Ok(reached) = outcome else { return Err("it panicked".to_owned()) };
        if time <= TIME_MAX && memory <= MEMORY_MAX {
            return Ok((reached, time, memory));
        }
        if tries == TRIES {
            return Err(format!("it took {} ms and {memory} bytes of memory", time.as_millis()));
        }
    }
}

/// Processor time this program has taken: a machine that others use as well takes longer by the
/// clock on the wall.
fn cpu_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Writes an input that failed to a file: seeds made by other programs differ from run to run.
fn keep(name: &str, number: u64, input: &[u8]) -> String {
    let folder = process::repository().join("target/prove");
    let path = folder.join(format!("{name}-{number}.bin"));
    match std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, input)) {
        Ok(()) => format!("the input is {}", path.display()),
        Err(error) => format!("the input could not be kept: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn lame(name: &'static str, run: fn(&[u8]) -> bool) -> Target {
        Target { name, run, seeds: || vec![vec![1; 100], (0..100).collect()], families: &[] }
    }

    #[test]
    fn a_parser_that_panics_takes_long_or_much_is_found() {
        let panics = lame("panics", |data| {
            assert!(data.first() != Some(&0xff), "planted");
            true
        });
        let why = run("panics", &panics, 1, 20_000).err().unwrap();
        assert!(why.contains("it panicked"), "{why}");
        let slow = lame("slow", |data| {
            if data.len() > 4000 {
                let began = cpu_time();
                while cpu_time().saturating_sub(began) < 2 * TIME_MAX {
                    std::hint::spin_loop();
                }
            }
            true
        });
        assert!(run("slow", &slow, 1, 10_000).is_err());
        let greedy = lame("greedy", |data| {
            let held = vec![1u8; if data.len() > 4000 { 40 << 20 } else { 1 }];
            std::hint::black_box(&held).iter().all(|&byte| byte == 1)
        });
        assert!(run("greedy", &greedy, 1, 10_000).is_err());
        let good = lame("good", |_| true);
        let tried = run("good", &good, 1, 1000).unwrap();
        assert_eq!(tried.mutants, 1000);
        let slowest = format!("(seed {})", tried.time_max.1);
        assert!((1..=1000).contains(&tried.time_max.1) && tried.to_string().ends_with(&slowest));
    }

    #[test]
    fn a_target_with_families_is_run_family_by_family() {
        assert!(names().contains("files (ext, ntfs,") && names().contains("layers (lvm, md,"));
        let why = campaign(Some("files"), Some("no such"), 1, 1).unwrap_err();
        assert!(why.contains("no parser files with a family no such"), "{why}");
        campaign(Some("layers"), Some("thin"), 1, 20).unwrap();
        for target in TARGETS.iter().filter(|target| !target.families.is_empty()) {
            let of = by_family(target);
            assert_eq!(of.len(), target.families.len());
            assert!(of.iter().all(|(_, family)| family.is_some()));
        }
    }
}
