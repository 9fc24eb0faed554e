//! Some mutants of every seed, in every run of the tests: the same ones each time.

#![expect(clippy::disallowed_methods, reason = "a test may look at the clock")]

use std::panic::{AssertUnwindSafe, catch_unwind};

use aiv_fuzz::{TARGETS, TIME_MAX, Target};
use aiv_testkit::Random;
use aiv_testkit::mutants;

/// Mutants of each target; `cargo xtask prove parsers` takes a million.
const MUTANTS: u64 = 400;

fn replay(target: &Target) {
    let seeds = (target.seeds)();
    assert!(seeds.iter().all(|seed| (target.run)(seed)), "{}: a seed is refused", target.name);
    let mut reached = 0;
    for number in 0..MUTANTS {
        let mut random = Random::new(&[number, 0x6675_7a7a]);
        let seed = &seeds[random.below(seeds.len())];
        let mutant = mutants::mutate(&mut random, seed);
        let started = std::time::Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(&mutant)));
        let Ok(inside) = outcome else {
            panic!("{}: mutant {number} brings the parser down", target.name);
        };
        reached += u64::from(inside);
        // A debug build on a busy machine.
        assert!(started.elapsed() < 40 * TIME_MAX, "{}: mutant {number} takes long", target.name);
    }
    // An image or a slot without mended checksums is refused, as it should be.
    let wanted = if ["image", "key_slots"].contains(&target.name) { 0 } else { MUTANTS * 3 / 10 };
    assert!(reached >= wanted, "{}: {reached} of {MUTANTS} got past the first checks", target.name);
}

#[test]
fn mutants_of_images_end_in_an_answer() {
    TARGETS[..6].iter().for_each(replay);
}

#[test]
fn mutants_in_folders_end_in_an_answer() {
    TARGETS[6..8].iter().for_each(replay);
}

#[test]
fn mutants_of_disks_end_in_an_answer() {
    TARGETS[8..].iter().for_each(replay);
}

#[test]
fn every_target_has_a_program_of_its_name_and_sound_seeds() {
    for target in TARGETS {
        let program = format!("{}/fuzz_targets/{}.rs", env!("CARGO_MANIFEST_DIR"), target.name);
        let text = std::fs::read_to_string(&program).unwrap();
        assert!(text.contains(&format!("aiv_fuzz::{}(data)", target.name)), "{program}");
        assert!((target.seeds)().iter().all(|seed| !seed.is_empty()), "{}", target.name);
    }
}
