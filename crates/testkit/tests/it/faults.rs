//! Every operation fails once in every way it can; the oracle is a toy writer.

use std::io;

use aiv_testkit::{Fault, FaultPlan, FaultStorage, MemStorage, Op, Repeat};
use aiv_volume_io::{ReadAt, Storage};

/// Far more than any scenario here has operations.
const RUNAWAY: u64 = 1000;

fn content() -> Vec<u8> {
    (0..5000u32).flat_map(u32::to_le_bytes).collect()
}

/// Writes, proves and publishes one file.
fn write(storage: &dyn Storage) -> io::Result<()> {
    let lease = storage.lease("writer")?;
    let mut file = storage.create("a.tmp")?;
    for part in content().chunks(3000) {
        file.append_all(part)?;
    }
    let mut back = [0; 100];
    file.read_exact_at(&mut back, 0)?;
    file.sync()?;
    lease.check()?;
    storage.publish("a.tmp", "a")?;
    storage.sync_dir()?;
    storage.list()?;
    storage.open("a")?.read_exact_at(&mut back, 1000)
}

#[test]
fn no_fault_is_hidden_and_none_is_reported_that_was_not_there() {
    for fault in Fault::ALL {
        for repeat in [Repeat::Once, Repeat::Persistent] {
            let mut fired = 0;
            for at in 0..RUNAWAY {
                let plan = FaultPlan { at, fault, repeat };
                let storage = FaultStorage::failing(MemStorage::new(), plan);
                let result = write(&storage);
                if !storage.fired() {
                    result.unwrap();
                    break;
                }
                fired += 1;
                let last = storage.trace().into_iter().rfind(|op| op.failed).unwrap();
                // An interrupted append is gone on with, as after a short one.
                let hidden =
                    fault.is_harmless() || (fault == Fault::Eintr && last.op == Op::Append);
                assert_eq!(result.is_ok(), hidden, "{plan:?} at {last:?}");
                if hidden {
                    assert_eq!(*storage.inner().contents("a").unwrap(), content(), "{plan:?}");
                }
            }
            assert!(fired > 0 && fired < RUNAWAY, "{fault:?} {repeat:?} fired {fired} times");
        }
    }
}

#[test]
fn counting_alone_changes_nothing() {
    let storage = FaultStorage::new(MemStorage::new());
    write(&storage).unwrap();
    // Lease, create, 7 appends, read, sync, check of the lease, publish, directory sync, list,
    // open, read.
    assert_eq!(storage.operations(), 17);
    assert_eq!(storage.trace().iter().filter(|op| op.op == Op::Append).count(), 7);
    assert!(!storage.fired());
    assert_eq!(*storage.inner().contents("a").unwrap(), content());
}

#[test]
fn an_error_carries_the_number_the_kernel_would_give() {
    for (fault, kind) in [
        (Fault::Enospc, io::ErrorKind::StorageFull),
        (Fault::Edquot, io::ErrorKind::QuotaExceeded),
        (Fault::Eintr, io::ErrorKind::Interrupted),
    ] {
        let storage = FaultStorage::failing(MemStorage::new(), FaultPlan::once(0, fault));
        assert_eq!(storage.create("a").err().unwrap().kind(), kind);
    }
}

#[test]
fn data_of_a_failed_sync_is_gone_although_the_next_sync_succeeds() {
    let plan = FaultPlan::once(1, Fault::SyncFailsThenSucceeds);
    let storage = FaultStorage::failing(MemStorage::new(), plan);
    let mut file = storage.create("a").unwrap();
    file.append_all(b"one").unwrap();
    file.sync().unwrap();
    file.append_all(b"two").unwrap();
    let mut back = [0; 6];
    file.read_exact_at(&mut back, 0).unwrap();
    assert_eq!(&back, b"onetwo");
    file.sync().unwrap_err();
    file.append_all(b"three").unwrap();
    file.sync().unwrap();
    assert_eq!(*storage.inner().contents("a").unwrap(), b"one\0\0\0three");
}

#[test]
fn a_failed_rename_renames_nothing() {
    let plan = FaultPlan::once(0, Fault::RenameFails);
    let storage = FaultStorage::failing(MemStorage::new(), plan);
    storage.create("a").unwrap();
    storage.publish("a", "b").unwrap_err();
    assert_eq!(storage.inner().names(), ["a"]);
    storage.publish("a", "b").unwrap();
    assert_eq!(storage.inner().names(), ["b"]);
}

#[test]
fn the_check_of_a_lease_can_fail_while_the_lease_is_held() {
    let plan = FaultPlan::once(1, Fault::Eio);
    let storage = FaultStorage::failing(MemStorage::new(), plan);
    let lease = storage.lease("set").unwrap();
    lease.check().unwrap_err();
    let last = storage.trace().pop().unwrap();
    assert_eq!((last.op, last.name.as_str(), last.failed), (Op::CheckLease, "set", true));
    lease.check().unwrap();
    storage.inner().steal_lease("set");
    assert_eq!(lease.check().unwrap_err().kind(), io::ErrorKind::PermissionDenied);
}

#[test]
fn what_a_writer_appended_is_seen_by_readers_before_it_is_synced() {
    let plan = FaultPlan::once(9, Fault::SyncFailsThenSucceeds);
    let storage = FaultStorage::failing(MemStorage::new(), plan);
    let mut file = storage.create("a").unwrap();
    file.append_all(b"data").unwrap();
    storage.publish("a", "b").unwrap();
    assert_eq!(storage.list().unwrap()[0].len, 4);
    assert_eq!(storage.open("b").unwrap().len(), 4);
}

#[test]
fn a_reopened_file_whose_sync_failed_has_lost_what_was_in_it() {
    let memory = MemStorage::new();
    memory.insert("a.part", b"data".to_vec());
    let plan = FaultPlan::once(0, Fault::SyncFailsThenSucceeds);
    let storage = FaultStorage::failing(memory, plan);
    storage.reopen("a.part", 3).err().expect("the sync fails");
    assert_eq!(*storage.inner().contents("a.part").unwrap(), [0; 3]);
    storage.reopen("a.part", 3).expect("the next sync says that all is well");
}
