//! Every operation on the storage fails once, in every way it can, while points are merged,
//! copied and moved.

use aiv_chain::MERGE_PART;
use aiv_testkit::{Fault, FaultPlan, FaultStorage, MemStorage, Op};
use aiv_volume_io::Storage;

use crate::common::BLOCK;
use crate::consolidate::{consolidate, keep};
use crate::described::{Chain, Change, SET, Step, wrong};
use crate::transfers::{archive_point, copy_all, move_all};
use crate::wrappers::pass_on;

/// Four points of three blocks; the second and the last are to be kept.
pub(crate) fn small() -> Chain {
    small_named("p")
}

pub(crate) fn small_named(prefix: &str) -> Chain {
    let len = 2 * BLOCK as u64 + 512;
    let steps = [
        Step::full(len, &[(Change::New(1), 2)]),
        Step::on(1, len, &[(Change::Patch(1), 1)]),
        Step::on(1, len, &[(Change::Patch(2), 1), (Change::New(4), 1)]),
        Step::on(1, len, &[(Change::Patch(3), 2)]),
    ];
    Chain::named(prefix, &steps)
}

pub(crate) const KEPT: [usize; 2] = [1, 3];

/// The file a point was written to.
fn own_file_is_there(storage: &MemStorage, file: &str) -> bool {
    storage.names().iter().any(|name| name == file)
}

/// Points that have to be there are, and so is every point whose own file is.
fn check(chain: &Chain, storage: &MemStorage, kept: &[usize], what: &str) {
    for (at, built) in chain.points.iter().enumerate() {
        if kept.contains(&at) || own_file_is_there(storage, &built.file) {
            assert_eq!(wrong(storage, built), None, "{what}");
        }
    }
}

/// Only what holds no superblock may stay of a file that was being written.
fn no_parts(storage: &MemStorage) {
    for name in storage.names().into_iter().filter(|name| name.ends_with(MERGE_PART)) {
        let bytes = storage.contents(&name).unwrap();
        let blank = bytes.len() < 4096 || bytes[..4096].iter().all(|&b| b == 0);
        assert!(blank, "{name} stays");
    }
}

/// How many operations of a run `fault` can hit, and which of them are tried: all but reads, and
/// of those one in `stride`, another one for each fault.
fn sweep(fault: Fault, stride: u64, mut run: impl FnMut(FaultPlan) -> Vec<aiv_testkit::Operation>) {
    let mut at = 0;
    let mut fired = 0;
    loop {
        let trace = run(FaultPlan::once(at, fault));
        let Some(hit) = trace.iter().find(|operation| operation.failed) else { break };
        fired += 1;
        at += if hit.op == Op::Read { stride } else { 1 };
    }
    assert!(fired > 0, "{fault:?} hit nothing");
}

#[test]
fn no_fault_while_points_are_merged_loses_one_or_gives_false_success() {
    let chain = small();
    let wanted = keep(1, &[2]);
    for fault in Fault::ALL {
        // A read that ends early is one that fails, for all that is done about it.
        let stride = if fault == Fault::ShortRead { 5 } else { 1 };
        sweep(fault, stride, |plan| {
            let storage = FaultStorage::failing(chain.storage.fork(), plan);
            let done = consolidate(&storage, &wanted);
            let folder = storage.inner();
            let what = format!("{plan:?} {:?} {done:?}", storage.trace().iter().find(|o| o.failed));
            check(&chain, folder, &KEPT, &what);
            match &done {
                Ok(report) if report.left.is_empty() && report.merged.len() == 2 => {
                    assert_eq!(folder.names().len(), 2, "{what}");
                }
                Ok(_) => {}
                Err(_) => assert!(storage.fired(), "{what}"),
            }
            if storage.fired() && fault.is_harmless() {
                assert!(done.is_ok(), "{what}");
            }
            if storage.fired() && fault == Fault::SyncFailsThenSucceeds {
                assert!(done.is_err(), "a failed sync was taken for success: {what}");
            }
            // After healing.
            consolidate(folder, &wanted).unwrap();
            check(&chain, folder, &KEPT, &what);
            no_parts(folder);
            let images = folder.names().into_iter().filter(|name| !name.ends_with(MERGE_PART));
            assert_eq!(images.count(), 2, "{what}: {:?}", folder.names());
            storage.trace()
        });
    }
}

#[test]
fn a_lease_that_is_stolen_stops_the_removal() {
    let chain = small();
    for lease in [format!("set-{SET}"), format!("merge-{SET}")] {
        // The lease goes at each look at it in turn.
        for at in 0.. {
            let storage = Thief {
                inner: chain.storage.fork(),
                lease: lease.clone(),
                at,
                looks: Default::default(),
            };
            let done = consolidate(&storage, &keep(1, &[2]));
            let stolen = storage.looks.load(std::sync::atomic::Ordering::Relaxed) > at;
            let folder = &storage.inner;
            check(&chain, folder, &KEPT, &format!("{lease} {at}"));
            if !stolen {
                assert_eq!((done.unwrap().removed.len(), folder.names().len()), (4, 2));
                assert!(at >= 2, "{lease} was looked at {at} times");
                break;
            }
            let removed =
                4 - chain.points.iter().filter(|p| own_file_is_there(folder, &p.file)).count();
            assert!(
                done.is_err() && removed <= usize::try_from(at).unwrap(),
                "{lease} {at} {done:?}"
            );
        }
    }
}

/// A folder whose lease is taken over when it is looked at for the n-th time.
struct Thief {
    inner: MemStorage,
    lease: String,
    at: u64,
    looks: std::sync::Arc<std::sync::atomic::AtomicU64>,
}

struct Watched {
    lease: Box<dyn aiv_volume_io::Lease>,
    thief: Option<(MemStorage, String, u64)>,
    looks: std::sync::Arc<std::sync::atomic::AtomicU64>,
}

impl aiv_volume_io::Lease for Watched {
    fn token(&self) -> u64 {
        self.lease.token()
    }
    fn check(&self) -> std::io::Result<()> {
        if let Some((storage, name, at)) = &self.thief {
            let look = self.looks.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if look == *at {
                storage.steal_lease(name);
            }
        }
        self.lease.check()
    }
}

impl Storage for Thief {
    pass_on!(inner: create, open, publish, remove, list, sync_dir);
    fn lease(&self, name: &str) -> std::io::Result<Box<dyn aiv_volume_io::Lease>> {
        let lease = self.inner.lease(name)?;
        let thief = (name == self.lease).then(|| (self.inner.clone(), name.to_owned(), self.at));
        Ok(Box::new(Watched { lease, thief, looks: self.looks.clone() }))
    }
}

#[test]
fn no_fault_while_a_set_is_copied_or_archived_gives_false_success() {
    let chain = small();
    for fault in Fault::ALL {
        sweep(fault, 3, |plan| {
            let storage = FaultStorage::failing(MemStorage::new(), plan);
            let copied = copy_all(&chain.storage, &storage);
            check(&chain, storage.inner(), &[], "a copy");
            if copied.is_ok() {
                check(&chain, storage.inner(), &[0, 1, 2, 3], "a copy");
            } else {
                assert!(storage.fired(), "{copied:?}");
            }
            let again = copy_all(&chain.storage, storage.inner()).unwrap();
            assert_eq!(again.left_out, []);
            check(&chain, storage.inner(), &[0, 1, 2, 3], "a copy tried again");
            no_parts(storage.inner());
            storage.trace()
        });
        sweep(fault, 3, |plan| {
            let storage = FaultStorage::failing(MemStorage::new(), plan);
            let archived = archive_point(&chain.storage, 4, &storage);
            let kept: &[usize] = if archived.is_ok() { &[3] } else { &[] };
            check(&chain, storage.inner(), kept, "an archive");
            archive_point(&chain.storage, 4, storage.inner()).unwrap();
            check(&chain, storage.inner(), &[3], "an archive");
            no_parts(storage.inner());
            storage.trace()
        });
    }
}

#[test]
fn no_fault_on_either_side_of_a_move_loses_a_point() {
    let chain = small();
    for fault in [Fault::Eio, Fault::Enospc, Fault::SyncFailsThenSucceeds, Fault::RenameFails] {
        for source_fails in [true, false] {
            if source_fails && fault == Fault::RenameFails {
                // Nothing is published there.
                continue;
            }
            sweep(fault, 3, |plan| {
                let (from, to) = (chain.storage.fork(), MemStorage::new());
                let trace = if source_fails {
                    let storage = FaultStorage::failing(from.clone(), plan);
                    let set = crate::described::set_of(&from);
                    let none = std::time::Duration::ZERO;
                    let mut ids = crate::consolidate::ids(1);
                    let job = aiv_volume_io::Job::silent();
                    let _ = aiv_chain::move_set(&storage, &set, &to, none, &mut ids, job);
                    storage.trace()
                } else {
                    let storage = FaultStorage::failing(to.clone(), plan);
                    let _ = move_all(&from, &storage);
                    storage.trace()
                };
                for built in &chain.points {
                    let here = own_file_is_there(&from, &built.file);
                    let there = own_file_is_there(&to, &built.file);
                    assert!(here || there, "{plan:?}");
                    if here {
                        assert_eq!(wrong(&from, built), None, "{plan:?}");
                    } else {
                        assert_eq!(wrong(&to, built), None, "{plan:?}");
                    }
                }
                trace
            });
        }
    }
}
