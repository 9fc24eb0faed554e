//! The log of XFS: without an unmount record at its end there is no map.

use std::fs;

use aiv_filesystems::{XfsLogState, XfsReason};
use aiv_volume_io::ReadAt;

use crate::ext_tools::{MIB, used_bytes};
use crate::tools::{Mounted, Volume, noise, run, try_run};
use crate::xfs_maps::check_map;
use crate::xfs_refusals::{bytes_of, xfs};
use crate::xfs_tools::{MOUNT, field, files_in, fragment, log_at, mkfs};

fn log_state(volume: &Volume) -> XfsLogState {
    match xfs(volume) {
        XfsReason::LogDirty(state) => state,
        other => panic!("{other}"),
    }
}

/// Every mount writes a few records, padded to the stripe unit of the log, behind the ones
/// before. So the log ends in many places, the last block among them, and begins again.
#[test]
fn a_log_that_goes_round_ends_anywhere() {
    for (options, rounds) in [("-l su=256k,size=18m", 45), ("-l su=16k,size=5m", 120)] {
        let volume = mkfs(64 * MIB, &format!("-b size=4096 -d agcount=2 {options}"));
        let log_at = log_at(&volume);
        let mut cycles = std::collections::BTreeSet::new();
        for round in 0..rounds {
            let mounted = Mounted::new(&volume, MOUNT);
            fs::write(mounted.path().join(format!("file{round}")), noise(round, 9000)).unwrap();
            drop(mounted);
            used_bytes(&volume);
            let mut cycle = [0; 4];
            volume.open().read_exact_at(&mut cycle, log_at).unwrap();
            if cycle == 0xfeed_babe_u32.to_be_bytes() {
                volume.open().read_exact_at(&mut cycle, log_at + 4).unwrap();
            }
            cycles.insert(cycle);
        }
        assert!(cycles.len() > 1, "the log did not go round");
        check_map(&volume, 4096, &files_in(&volume));
    }
}

#[test]
fn a_log_replayed_by_the_kernel_and_one_zeroed_by_xfs_repair() {
    let volume = mkfs(48 * MIB, "-d agcount=2");
    let mounted = Mounted::new(&volume, MOUNT);
    fragment(mounted.path(), 100);
    run("sync", &["-f", mounted.path().to_str().unwrap()]);
    let crashed = volume.duplicate();
    drop(mounted);
    let replayed = crashed.duplicate();
    drop(Mounted::new(&replayed, MOUNT));
    check_map(&replayed, 4096, &files_in(&replayed));
    let repaired = try_run("xfs_repair", &["-L", "-f", crashed.path()]);
    assert!(repaired.status.success(), "{repaired:?}");
    check_map(&crashed, 4096, &files_in(&crashed));
}

#[test]
fn a_mounted_filesystem_and_a_snapshot_of_one() {
    let volume = mkfs(48 * MIB, "-d agcount=2");
    let mounted = Mounted::new(&volume, MOUNT);
    fragment(mounted.path(), 100);
    run("sync", &["-f", mounted.path().to_str().unwrap()]);
    let snapshot = volume.duplicate();
    assert_eq!(log_state(&snapshot), XfsLogState::NotUnmounted);
    assert!(xfs(&snapshot).to_string().starts_with("the log is dirty: "));
    drop(mounted);
    used_bytes(&volume);
}

#[test]
fn every_moment_of_a_mounted_filesystem_is_dirty() {
    let volume = mkfs(48 * MIB, "-d agcount=2");
    let mounted = Mounted::new(&volume, MOUNT);
    for n in 0..20 {
        fs::write(mounted.path().join(format!("file{n}")), [1; 5000]).unwrap();
        run("sync", &["-f", mounted.path().to_str().unwrap()]);
        assert_eq!(log_state(&volume.duplicate()), XfsLogState::NotUnmounted, "{n}");
    }
}

#[test]
fn logs_that_do_not_end_where_they_should() {
    let volume = mkfs(32 * MIB, "-d agcount=2");
    let mounted = Mounted::new(&volume, MOUNT);
    fragment(mounted.path(), 10);
    drop(mounted);
    used_bytes(&volume);
    let log = log_at(&volume);
    let len = field(&volume, "sb 0", "logblocks") * 8;
    // Blocks of the lap before may look like records, too: the kernel stamps them so.
    let magic = 0xfeed_babe_u32.to_be_bytes();
    let cycle = |block: u64| {
        let bytes: [u8; 8] = bytes_of(&volume, log + block * 512);
        if bytes[..4] == magic { bytes[7] } else { bytes[3] }
    };
    let head = (0..len).find(|&block| cycle(block) == 0).unwrap();
    let head32 = u32::try_from(head).unwrap();
    let last = (0..head).rfind(|block| bytes_of(&volume, log + block * 512) == magic).unwrap();
    let block = u32::try_from(last).unwrap();

    let damaged = |at: u64, bytes: &[u8]| {
        let damaged = volume.duplicate();
        damaged.patch(log + at, bytes);
        log_state(&damaged)
    };
    // The first block, one in the middle, and one behind the head.
    assert_eq!(damaged(0, &[0; 8]), XfsLogState::Cycles { block: 0 });
    assert_eq!(damaged(512, &[0, 0, 0, 7]), XfsLogState::Cycles { block: 1 });
    let behind = XfsLogState::Cycles { block: head32 + 3 };
    assert_eq!(damaged((head + 3) * 512, &[0, 0, 0, 1]), behind);
    let end = (len - 1) * 512;
    let cycle_at_end = XfsLogState::Cycles { block: u32::try_from(len - 1).unwrap() };
    assert_eq!(damaged(end, &[0, 0, 0, 9]), cycle_at_end);
    // The last record.
    let at = last * 512;
    for (field, bytes, what) in [
        (8, &[0, 0, 0, 9][..], "version or length"),
        (12, &[0x7f], "version or length"),
        (12, &[0; 4], "version or length"),
        (20, &[1], "its number is not its place"),
        (304, &[1, 2, 3], "it belongs to another filesystem"),
        (100, &[1, 2, 3], "checksum"),
        (512 + 20, &[0x55], "checksum"),
    ] {
        assert_eq!(damaged(at + field, bytes), XfsLogState::Damaged { block, what });
    }
    // Without its checksum, as old kernels write it.
    let unsummed = volume.duplicate();
    unsummed.patch(log + at + 32, &[0; 4]);
    used_bytes(&unsummed);
    for (field, bytes) in [(40, &[0, 0, 0, 2][..]), (512 + 9, &[0]), (12, &[0, 0, 4, 0])] {
        let forged = unsummed.duplicate();
        forged.patch(log + at + field, bytes);
        assert_eq!(log_state(&forged), XfsLogState::NotUnmounted);
    }
    // No record at all, only cycles.
    let empty = volume.duplicate();
    for block in 0..head {
        empty.patch(log + block * 512, &[0, 0, 0, 1]);
    }
    assert_eq!(log_state(&empty), XfsLogState::NoRecord { head: head32 });
}
