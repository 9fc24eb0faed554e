//! The power goes at every operation of a merge, a copy and a move, and takes with it what a
//! medium may lose.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use aiv_chain::Folder;
use aiv_testkit::{CrashState, CrashStorage, MemStorage};
use aiv_volume_io::{Job, Storage};

use crate::consolidate::{consolidate, consolidate_with, keep};
use crate::described::{Built, Chain, SET, wrong};
use crate::merge_faults::{KEPT, small};
use crate::transfers::{archive_point, copy_all, copy_one, move_all};
use crate::wrappers::{Below, InSteps, Stopped};

/// How many states are tried: the seed they come from, and states of each prefix of a history.
#[derive(Clone, Copy)]
pub(crate) struct Tier {
    pub seed: u64,
    pub per_prefix: usize,
}

/// What continuous integration tries. Far more, `Tier { seed: 2, per_prefix: 3000 }`, were tried when
/// this was written, in eight minutes.
pub(crate) const CI: Tier = Tier { seed: 1, per_prefix: 60 };

/// Who finds the file a point is read from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// The scan of this crate.
    Scan,
    /// The first file by name that provides a state, as a careless reader would.
    FirstProvider,
}

/// What must be true in every state.
pub(crate) struct Oracle<'c> {
    chain: &'c Chain,
    /// Points that are never lost.
    pub kept: Vec<usize>,
    /// Whether every point whose own file is there has to be readable.
    pub own_files: bool,
    pub rule: Rule,
    /// Verdicts by what the folder holds: most states differ in unfinished files only.
    known: HashMap<u64, Result<(), String>>,
}

impl<'c> Oracle<'c> {
    pub(crate) fn new(chain: &'c Chain, kept: &[usize]) -> Self {
        let (kept, known) = (kept.to_vec(), HashMap::new());
        Self { chain, kept, own_files: true, rule: Rule::Scan, known }
    }

    pub(crate) fn check(&mut self, folder: &MemStorage) -> Result<(), String> {
        let (finished, key) = finished(folder);
        if let Some(verdict) = self.known.get(&key) {
            return verdict.clone();
        }
        let verdict = self.judge(&finished);
        self.known.insert(key, verdict.clone());
        verdict
    }

    fn judge(&self, folder: &MemStorage) -> Result<(), String> {
        for (at, built) in self.chain.points.iter().enumerate() {
            let own = self.own_files && folder.contents(&built.file).is_some();
            if !own && !self.kept.contains(&at) {
                continue;
            }
            let found = match self.rule {
                Rule::Scan => wrong(folder, built),
                Rule::FirstProvider => wrong_by_first_provider(folder, built),
            };
            if let Some(why) = found {
                return Err(format!("{why}, of {:?}", folder.names()));
            }
        }
        Ok(())
    }
}

/// The finished files of a folder, and a number that stands for all they hold.
pub(crate) fn finished(folder: &MemStorage) -> (MemStorage, u64) {
    let finished: MemStorage = folder
        .names()
        .into_iter()
        .filter(|name| !name.ends_with(".part"))
        .map(|name| (name.clone(), folder.contents(&name).unwrap()))
        .collect();
    let mut hasher = DefaultHasher::new();
    for name in finished.names() {
        (&name, finished.contents(&name).unwrap().as_slice()).hash(&mut hasher);
    }
    let key = hasher.finish();
    (finished, key)
}

/// Whether the chain of a point is whole when only the first file that provides a state counts.
fn wrong_by_first_provider(folder: &MemStorage, built: &Built) -> Option<String> {
    let open = |name: String| aiv_chain::Image::open(folder.open(&name).unwrap()).ok();
    let images: Vec<_> = folder.names().into_iter().filter_map(open).collect();
    let mut wanted = built.link();
    loop {
        let first = images.iter().find(|image| {
            let id = image.superblock().point;
            (id, image.trailer().state_root) == (wanted.point, wanted.state_root)
        });
        match first {
            None => {
                return Some(format!("point {} needs {}, which is lost", built.id, wanted.point));
            }
            Some(image) => match image.superblock().parent {
                None => return None,
                Some(parent) => wanted = parent,
            },
        }
    }
}

/// Counts the states and stops at the first in which something is lost.
pub(crate) fn check_states(
    states: impl Iterator<Item = CrashState>,
    mut check: impl FnMut(&CrashState) -> Result<(), String>,
) -> Result<usize, String> {
    let mut count = 0;
    for state in states {
        check(&state).map_err(|why| format!("{state}: {why}"))?;
        count += 1;
    }
    Ok(count)
}

/// Files of a folder that are finished images.
fn images(folder: &MemStorage) -> usize {
    let is_image = |name: &String| name.ends_with(".aiv") || name.ends_with(".aii");
    folder.names().into_iter().filter(is_image).count()
}

/// A consolidation of two runs, and in some states another one after the crash.
fn merging(tier: Tier, with_catalogue: bool) -> Result<usize, String> {
    let chain = small();
    if with_catalogue {
        let (_, catalogue) = Folder::scan_with(&chain.storage, Job::silent()).unwrap();
        catalogue.write(&chain.storage).unwrap();
    }
    let crash = CrashStorage::starting_from(&chain.storage);
    consolidate(&InSteps(crash.clone()), &keep(1, &[2])).unwrap();
    crash.mark("done");
    let mut oracle = Oracle::new(&chain, &KEPT);
    let mut healed = Oracle::new(&chain, &KEPT);
    let mut number = 0;
    check_states(crash.crash_states(tier.seed, tier.per_prefix), |state| {
        oracle.check(&state.storage)?;
        let done = state.acknowledged.contains(&"done".to_owned());
        if done && images(&state.storage) != 2 {
            return Err(format!("removed files are back: {:?}", state.storage.names()));
        }
        number += 1;
        if number % 13 == 0 {
            let storage = &state.storage;
            consolidate_with(storage, &keep(1, &[2]), 0xa1).map_err(|e| format!("again: {e:?}"))?;
            healed.check(storage).map_err(|why| format!("again: {why}"))?;
            if images(storage) != 2 {
                return Err(format!("again: {:?} is left", storage.names()));
            }
        }
        Ok(())
    })
}

/// A consolidation that only removes what another one had to leave.
fn finishing(tier: Tier) -> Result<usize, String> {
    let chain = small();
    let backup = chain.storage.lease(&format!("set-{SET}")).unwrap();
    consolidate(&chain.storage, &keep(1, &[2])).unwrap();
    drop(backup);
    let crash = CrashStorage::starting_from(&chain.storage);
    let report = consolidate(&crash, &keep(1, &[2])).unwrap();
    if (report.merged.len(), report.removed.len()) != (0, 4) {
        return Err(format!("it did not only remove: {report:?}"));
    }
    crash.mark("done");
    let mut oracle = Oracle::new(&chain, &KEPT);
    check_states(crash.crash_states(tier.seed, tier.per_prefix), |state| {
        oracle.check(&state.storage)
    })
}

/// Those before were stopped when the names of their images were not durable yet, and what they
/// left is taken for finished: by a consolidation, by a move.
fn going_on(tier: Tier) -> Result<usize, String> {
    let chain = small();
    let crash = CrashStorage::starting_from(&chain.storage);
    consolidate(&Stopped::new(crash.clone()), &keep(1, &[2])).unwrap_err();
    consolidate_with(&crash, &keep(1, &[2]), 0xa1).unwrap();
    let mut oracle = Oracle::new(&chain, &KEPT);
    let merged = check_states(crash.crash_states(tier.seed, tier.per_prefix), |state| {
        oracle.check(&state.storage)
    })?;
    let interrupted = |crash: CrashStorage| -> Box<dyn Storage> {
        let (from, to) = (Below(&crash, "a/"), Stopped::new(crash.clone()));
        for _ in 0..chain.points.len() {
            copy_all(&from, &Below(&to, "b/")).unwrap_err();
        }
        Box::new(crash)
    };
    moving(tier, interrupted).map(|moved| merged + moved)
}

/// A copy and an archive say that a point is there that somebody published who was stopped then.
fn found_there(tier: Tier) -> Result<usize, String> {
    let chain = small();
    let crash = CrashStorage::new();
    archive_point(&chain.storage, 2, &Stopped::new(crash.clone())).unwrap_err();
    if !archive_point(&chain.storage, 2, &crash).unwrap().was_there {
        return Err("it was archived again".to_owned());
    }
    crash.mark("archived");
    copy_all(&chain.storage, &Stopped::new(crash.clone())).unwrap_err();
    let report = copy_one(&chain.storage, 1, &crash).unwrap();
    if !report.copied.is_empty() {
        return Err(format!("it was copied again: {report:?}"));
    }
    crash.mark("copied");
    let kept: [&[usize]; 3] = [&[], &[1], &[0, 1]];
    let mut oracles = kept.map(|kept| Oracle::new(&chain, kept));
    check_states(crash.crash_states(tier.seed, tier.per_prefix), |state| {
        oracles[state.acknowledged.len()].check(&state.storage)
    })
}

/// A set is copied into an empty folder, and a point archived there.
fn copying(tier: Tier) -> Result<usize, String> {
    let chain = small();
    let crash = CrashStorage::new();
    let storage = InSteps(crash.clone());
    archive_point(&chain.storage, 2, &storage).unwrap();
    crash.mark("archived");
    copy_all(&chain.storage, &storage).unwrap();
    crash.mark("copied");
    let mut before = Oracle::new(&chain, &[]);
    let mut archived = Oracle::new(&chain, &[1]);
    let mut copied = Oracle::new(&chain, &[0, 1, 2, 3]);
    check_states(crash.crash_states(tier.seed, tier.per_prefix), |state| {
        match state.acknowledged.len() {
            0 => before.check(&state.storage),
            1 => archived.check(&state.storage),
            _ => copied.check(&state.storage),
        }
    })
}

/// The files of one folder of two that share a medium.
fn part_of(folder: &MemStorage, prefix: &str) -> MemStorage {
    let strip = |name: String| {
        let short = name.strip_prefix(prefix)?.to_owned();
        Some((short, folder.contents(&name).unwrap()))
    };
    folder.names().into_iter().filter_map(strip).collect()
}

/// A set moves from one folder of a medium to another. `wrap` may break the storage.
pub(crate) fn moving(
    tier: Tier,
    wrap: impl Fn(CrashStorage) -> Box<dyn Storage>,
) -> Result<usize, String> {
    let chain = small();
    let start: MemStorage = chain
        .storage
        .names()
        .into_iter()
        .map(|name| (format!("a/{name}"), chain.storage.contents(&name).unwrap()))
        .collect();
    let crash = CrashStorage::starting_from(&start);
    let storage = wrap(crash.clone());
    move_all(&Below(&*storage, "a/"), &Below(&*storage, "b/")).unwrap();
    crash.mark("done");
    let mut either: HashMap<(Vec<String>, Vec<String>), ()> = HashMap::new();
    let mut sides = [Oracle::new(&chain, &[]), Oracle::new(&chain, &[])];
    check_states(crash.crash_states(tier.seed, tier.per_prefix), |state| {
        let folders = ["a/", "b/"].map(|prefix| part_of(&state.storage, prefix));
        for (folder, oracle) in folders.iter().zip(&mut sides) {
            oracle.check(folder)?;
        }
        let [a, b] = &folders;
        if either.contains_key(&(a.names(), b.names())) {
            return Ok(());
        }
        for built in &chain.points {
            // Its own file is readable where it is, as was just seen.
            let there = |folder: &MemStorage| folder.contents(&built.file).is_some();
            if !there(a) && !there(b) {
                return Err(format!("point {} is in neither folder", built.id));
            }
        }
        either.insert((a.names(), b.names()), ());
        Ok(())
    })
}

fn all(tier: Tier) -> [(&'static str, Result<usize, String>); 7] {
    [
        ("merging", merging(tier, false)),
        ("merging with a catalogue", merging(tier, true)),
        ("finishing", finishing(tier)),
        ("going on", going_on(tier)),
        ("found there", found_there(tier)),
        ("copying", copying(tier)),
        ("moving", moving(tier, |crash| Box::new(InSteps(crash)))),
    ]
}

#[test]
fn after_a_power_cut_at_any_moment_no_kept_point_and_none_with_a_file_is_lost() {
    for (what, found) in all(CI) {
        let count = found.unwrap_or_else(|why| panic!("{what}: {why}"));
        assert!(count > 200, "{what}: {count} states");
    }
}
