//! Every operation of the storage fails once, and for good, in every way it can.

use std::sync::Arc;

use aiv_image_format::{Depth, Error, Image};
use aiv_testkit::{CrashStorage, Fault, FaultPlan, FaultStorage, MemStorage, Op, Repeat};
use aiv_volume_io::{Job, Storage};

use crate::recipe::{Block, Fill, Recipe, open, read_all};

/// Far more operations than writing the sample takes.
const RUNAWAY: u64 = 2_000;

/// Several flushes of the buffer, several checkpoints, an index of two levels.
fn sample() -> Recipe {
    let mut blocks = vec![(Block::Data(Fill::Noise(1)), 20)];
    blocks.extend((0..50).flat_map(|_| [(Block::Zero, 1), (Block::Unused, 1)]));
    blocks.push((Block::Data(Fill::Words(2)), 3));
    Recipe { checkpoint_every: 30, block_size: 64 << 10, small_meta: true, ..Recipe::new(&blocks) }
}

#[test]
fn a_write_that_reports_success_has_left_a_sound_image() {
    let expected = sample().build();
    for fault in Fault::ALL {
        for repeat in [Repeat::Once, Repeat::Persistent] {
            let mut fired = 0;
            for at in 0..RUNAWAY {
                let plan = FaultPlan { at, fault, repeat };
                let storage = FaultStorage::failing(MemStorage::new(), plan);
                let result = match storage.create("image") {
                    Ok(file) => sample().write(file),
                    Err(_) => continue,
                };
                if !storage.fired() {
                    assert!(result.is_ok());
                    break;
                }
                fired += 1;
                let trace = storage.trace();
                let struck = trace.iter().find(|operation| operation.failed);
                match result {
                    Ok(_) => {
                        let hidden = fault.is_harmless() || fault == Fault::Eintr;
                        assert!(hidden, "{fault:?} in {struck:?} was not noticed");
                        assert_eq!(storage.inner().contents("image"), Some(expected.clone()));
                    }
                    Err(Error::Io { .. }) => assert!(!fault.is_harmless(), "{fault:?} {struck:?}"),
                    Err(other) => panic!("{fault:?} in {struck:?}: {other}"),
                }
            }
            let possible = !matches!(fault, Fault::RenameFails);
            assert_eq!(fired > 0, possible, "{fault:?} never struck");
            assert!(fired < RUNAWAY / 2, "{fault:?} struck without end");
        }
    }
}

#[test]
fn nothing_is_written_after_a_failed_write() {
    let plan = FaultPlan::once(3, Fault::Enospc);
    let storage = FaultStorage::failing(MemStorage::new(), plan);
    let error = sample().write(storage.create("image").unwrap()).expect_err("no space");
    assert!(error.to_string().starts_with("write image failed at byte "), "{error}");
    let after = storage.trace().into_iter().skip_while(|operation| !operation.failed).skip(1);
    assert_eq!(after.filter(|o| matches!(o.op, Op::Append | Op::Sync)).count(), 0);
}

#[test]
fn a_read_error_is_never_taken_for_contents() {
    let storage = MemStorage::new();
    storage.insert("image", sample().build());
    let truth = read_all(&open(&sample().build()).unwrap()).unwrap();
    for fault in [Fault::Eio, Fault::ShortRead] {
        for at in 0..RUNAWAY {
            let failing = FaultStorage::failing(storage.clone(), FaultPlan::once(at, fault));
            let result = failing.open("image").map_err(|_| ()).and_then(|file| {
                let image = Image::open(file).map_err(|_| ())?;
                let report = image.verify(Depth::Data, Job::silent()).map_err(|_| ())?;
                let read = read_all(&image).map_err(|_| ())?;
                Ok((report.is_sound(), read))
            });
            if !failing.fired() {
                assert!(at > 20 && result.is_ok());
                break;
            }
            if let Ok((sound, read)) = result {
                // One of two copies could not be read: the other one did, and that is said.
                assert!(!sound && read == truth, "{fault:?} at {at} went unnoticed");
            }
        }
    }
}

#[test]
fn a_crash_at_any_operation_leaves_the_whole_image_or_none() {
    let recipe = Recipe {
        small_meta: true,
        ..Recipe::new(&[(Block::Data(Fill::Noise(1)), 10), (Block::Zero, 20)])
    };
    let storage = CrashStorage::new();
    let file = storage.create("image").unwrap();
    storage.sync_dir().unwrap();
    storage.mark("named");
    recipe.write(file).expect("it does not fail before the crash");
    storage.mark("written");
    let expected = recipe.expected();
    let (mut states, mut complete) = (0, 0);
    for state in storage.all_crash_states() {
        states += 1;
        let written = state.acknowledged.contains(&"written".to_owned());
        let Some(bytes) = state.storage.contents("image") else {
            assert!(!state.acknowledged.contains(&"named".to_owned()), "{state}");
            continue;
        };
        match open(&bytes) {
            // A trailer may be torn while the other is there, and that is said. What the
            // trailers promise must all be there before the first of them can be.
            Ok(image) => {
                complete += 1;
                assert!(image.damage().is_empty() || !written, "{state}");
                let read = read_all(&image).unwrap_or_else(|error| panic!("{error} in {state}"));
                assert!(read.iter().zip(&expected).all(|(r, e)| r.1 == e.bytes), "{state}");
            }
            Err(Error::Incomplete { .. } | Error::Foreign(_) | Error::Corrupt(_)) => {
                assert!(!written, "a finished image was lost: {state}");
            }
            Err(other) => panic!("{other} in {state}"),
        }
    }
    assert!(states > 1_000 && complete > 10, "{complete} of {states}");
}

#[test]
fn many_threads_read_one_image() {
    let recipe = sample();
    let image = Arc::new(recipe.open());
    let expected = recipe.expected();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (image, expected) = (&image, &expected);
            scope.spawn(move || {
                let mut reader = image.block_reader();
                let mut out = vec![0; 64 << 10];
                for turn in 0..300 {
                    let block = (turn * 7 + thread * 31) % expected.len();
                    let kind = reader.read(block as u64, &mut out).unwrap();
                    assert!(kind == expected[block].kind && out == expected[block].bytes);
                }
            });
        }
    });
}
