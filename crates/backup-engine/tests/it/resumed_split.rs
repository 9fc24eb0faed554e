//! Backups that are split, or have parity over all their bytes, go on as others do.

use aiv_backup_engine::{BackupOptions, BackupPlan, BackupReport, Basis};
use aiv_image_format::limits::SEGMENT_BYTES_MIN;
use aiv_image_format::{peek, segment_name};
use aiv_testkit::{FaultPlan, FaultStorage};
use aiv_testkit::{MemStorage, Op, Random};
use aiv_volume_io::{Job, MemDisk, Storage};

use crate::common::{BLOCK, apply, disk, facts, options};
use crate::resumed::{
    assert_image_right, assert_right, content, interrupt, parts, plan_of, resuming,
};

const MIB: u64 = 1 << 20;

pub(crate) fn split() -> BackupOptions {
    BackupOptions { split: Some(SEGMENT_BYTES_MIN), ..resuming() }
}

pub(crate) fn with_parity() -> BackupOptions {
    BackupOptions { parity: true, ..resuming() }
}

pub(crate) fn both() -> BackupOptions {
    BackupOptions { parity: true, ..split() }
}

/// A folder in which a backup was killed: the first `fifths` of five parts of all it had written
/// when it was about to publish.
pub(crate) fn killed(source: &MemDisk, options: &BackupOptions, fifths: usize) -> MemStorage {
    let (whole, storage) = (MemStorage::new(), MemStorage::new());
    apply(&plan_of(source, options.clone(), None), source, &whole, 1).unwrap();
    let files: Vec<_> =
        whole.names().into_iter().map(|n| (whole.contents(&n).unwrap(), n)).collect();
    let mut left = files.iter().map(|(bytes, _)| bytes.len()).sum::<usize>() * fifths / 5;
    for (bytes, name) in files {
        let now = left.min(bytes.len());
        if now > 0 {
            storage.insert(&format!("{name}.part"), bytes[..now].to_vec());
        }
        left -= now;
    }
    storage
}

/// As `assert_right`, where a power cut or a fault may have left files that nobody knows any more.
#[track_caller]
pub(crate) fn assert_right_but_blanks(storage: &MemStorage, report: &BackupReport, bytes: &[u8]) {
    assert_image_right(storage, report, bytes);
    for name in parts(storage) {
        assert!(peek(&*storage.open(&name).unwrap()).is_none(), "{name} stays");
    }
}

#[test]
fn a_backup_that_is_split_or_has_parity_goes_on_and_is_the_image_it_would_have_been() {
    let bytes = content(192);
    let source = disk(&bytes);
    let whole = apply(&plan_of(&source, options(), None), &source, &MemStorage::new(), 3).unwrap();
    for options in [split(), with_parity(), both()] {
        for stamp in [None, Some(&b"inode 7"[..])] {
            let storage = MemStorage::new();
            let plan = plan_of(&source, options.clone(), stamp);
            let blocks = interrupt(&source, &storage, &plan, 2 * MIB, 1);
            let left = parts(&storage);
            assert_eq!((blocks, left.len() > 10), (128, options.split.is_some()));
            let report = apply(&plan, &source, &storage, 2).unwrap();
            let resumed = report.resumed.clone().unwrap();
            assert_eq!((&resumed.file, resumed.blocks), (left.last().unwrap(), blocks));
            assert_eq!(resumed.blocks_compared, if stamp.is_some() { 0 } else { blocks });
            assert!(resumed.bytes > MIB && report.verified);
            assert_eq!((&report.not_resumed, report.leftovers_removed.len()), (&None, 0));
            assert_right(&storage, &report, &bytes);
            assert_eq!(report.state_root, whole.state_root);
            assert_eq!(report.totals.blocks_ref, whole.totals.blocks_ref, "found again");
            assert_eq!(report.totals.payload_bytes, whole.totals.payload_bytes);
            assert_eq!(report.segments > 20, options.split.is_some());
            let superblock = peek(&*storage.open(&report.image).unwrap()).unwrap();
            assert_eq!(superblock.features.has_data_parity(), options.parity);
        }
    }
}

#[test]
fn a_split_backup_may_be_interrupted_again_and_again() {
    let bytes = content(320);
    let source = disk(&bytes);
    for options in [split(), both()] {
        let storage = MemStorage::new();
        let plan = plan_of(&source, options, None);
        let mut before = 0;
        for n in 1..=4 {
            let blocks = interrupt(&source, &storage, &plan, u64::from(n) * MIB, n);
            assert!(blocks > before);
            before = blocks;
        }
        let report = apply(&plan, &source, &storage, 9).unwrap();
        assert_eq!(report.resumed.clone().unwrap().blocks, before);
        assert_right(&storage, &report, &bytes);
    }
}

#[test]
fn the_parity_of_a_stripe_that_was_open_is_that_of_all_of_it() {
    let bytes = content(1152);
    let source = disk(&bytes);
    let options = BackupOptions { checkpoint_bytes: 1 << 20, ..with_parity() };
    for options in [BackupOptions { split: Some(5 << 20), ..options.clone() }, options] {
        let storage = MemStorage::new();
        let plan = plan_of(&source, options, Some(b"same"));
        // In the first stripe, and behind the PARITY frame of the first.
        interrupt(&source, &storage, &plan, 7 * MIB, 1);
        interrupt(&source, &storage, &plan, 13 * MIB, 2);
        let report = apply(&plan, &source, &storage, 3).unwrap();
        assert!(report.resumed.clone().unwrap().bytes > 8 * MIB + (300 << 10));
        // Which computes the parity anew.
        assert_right(&storage, &report, &bytes);
    }
}

#[test]
fn a_source_that_changed_is_backed_up_anew_and_no_segment_of_what_was_begun_stays() {
    let mut bytes = content(192);
    let source = disk(&bytes);
    bytes[5 * BLOCK + 99] ^= 1;
    let changed = disk(&bytes);
    for options in [split(), both()] {
        let storage = MemStorage::new();
        let plan = plan_of(&source, options, None);
        interrupt(&source, &storage, &plan, 2 * MIB, 1);
        let mut left = parts(&storage);
        let report = apply(&plan, &changed, &storage, 2).unwrap();
        let why = report.not_resumed.clone().unwrap();
        assert_eq!(why, format!("the source has changed since, at byte {}", 5 * BLOCK));
        let mut removed = report.leftovers_removed.clone();
        removed.sort();
        left.sort();
        assert_eq!(removed, left);
        assert_right(&storage, &report, &bytes);
    }
}

#[test]
fn a_segment_of_another_image_in_the_way_is_not_touched() {
    let bytes = content(40);
    let source = disk(&bytes);
    let plan = plan_of(&source, split(), None);
    // Of another source, finished, and called as the next segment would be, or one far behind.
    let other = MemStorage::new();
    let foreign = disk(&content(20)[7 * BLOCK..]);
    let theirs = BackupPlan::new(&foreign, facts("other"), split(), Job::silent()).unwrap();
    let theirs = apply(&theirs, &foreign, &other, 7).unwrap();
    let theirs = other.contents(&segment_name(&theirs.image, 1)).unwrap();
    for ahead in [0, 5] {
        let storage = killed(&source, &split(), 3);
        let first = parts(&storage).pop().unwrap();
        let file = first.strip_suffix(".part").unwrap();
        let no = u32::try_from(parts(&storage).len()).unwrap() + ahead;
        let name = format!("{}.part", segment_name(file, no));
        storage.insert(&name, theirs.clone());
        let mut left = parts(&storage);
        left.retain(|left| *left != name);
        let report = apply(&plan, &source, &storage, 2).unwrap();
        let why = report.not_resumed.clone().unwrap();
        assert!(report.resumed.is_none() && why.contains(&name), "{why}");
        let mut removed = report.leftovers_removed.clone();
        removed.sort();
        left.sort();
        assert_eq!(removed, left);
        assert_eq!(parts(&storage), std::slice::from_ref(&name));
        assert_eq!(storage.contents(&name).unwrap(), theirs);
        assert_image_right(&storage, &report, &bytes);
    }
}

#[test]
fn what_a_power_cut_left_of_the_next_segment_is_replaced() {
    let bytes = content(40);
    let source = disk(&bytes);
    let plan = plan_of(&source, split(), None);
    for blank in [Vec::new(), vec![0; 4096], vec![0xa5; 9000]] {
        let storage = killed(&source, &split(), 3);
        let first = parts(&storage).pop().unwrap();
        let file = first.strip_suffix(".part").unwrap();
        let no = u32::try_from(parts(&storage).len()).unwrap();
        storage.insert(&format!("{}.part", segment_name(file, no)), blank);
        let report = apply(&plan, &source, &storage, 2).unwrap();
        assert!(report.resumed.is_some(), "{report:?}");
        assert_right(&storage, &report, &bytes);
    }
}

#[test]
fn of_a_split_image_that_lost_a_segment_what_comes_before_it_is_gone_on_with() {
    let bytes = content(60);
    let source = disk(&bytes);
    let plan = plan_of(&source, split(), None);
    let all = apply(&plan, &source, &killed(&source, &split(), 4), 2).unwrap();
    let mut before = 0;
    for no in 1..5 {
        let storage = killed(&source, &split(), 4);
        let first = parts(&storage).pop().unwrap();
        let file = first.strip_suffix(".part").unwrap();
        storage.remove(&format!("{}.part", segment_name(file, no))).unwrap();
        let report = apply(&plan, &source, &storage, 2).unwrap();
        assert_right(&storage, &report, &bytes);
        let blocks = report.resumed.map_or(0, |resumed| resumed.blocks);
        assert!(blocks >= before && blocks < all.resumed.clone().unwrap().blocks, "{blocks}");
        before = blocks;
    }
    assert!(before > 5, "{before}");
    // Without the first one nothing says whose the others are, but that they are of this source.
    let storage = killed(&source, &split(), 4);
    let first = parts(&storage).pop().unwrap();
    storage.remove(&first).unwrap();
    let report = apply(&plan, &source, &storage, 2).unwrap();
    assert!(report.resumed.is_none() && report.leftovers_removed.len() > 3);
    assert_right_but_blanks(&storage, &report, &bytes);
}

#[test]
fn segments_behind_the_cut_go_only_when_it_is_durable_and_before_others_get_their_names() {
    let bytes = content(60);
    let source = disk(&bytes);
    let memory = killed(&source, &split(), 4);
    // The list of the third segment is not right: the second is cut, and the others are of no use.
    let first = parts(&memory).pop().unwrap();
    let file = first.strip_suffix(".part").unwrap();
    let names: Vec<String> = (0..)
        .map(|no| format!("{}.part", segment_name(file, no)))
        .take(parts(&memory).len())
        .collect();
    let mut third = memory.contents(&names[2]).unwrap().to_vec();
    let list = 4096 + (64 << 10);
    third[list + 3] ^= 1;
    memory.insert(&names[2], third);
    let storage = FaultStorage::new(memory);
    let plan = plan_of(&source, split(), None);
    let report = apply(&plan, &source, &storage, 2).unwrap();
    assert!(report.resumed.is_some(), "{report:?}");
    assert_right(storage.inner(), &report, &bytes);
    let trace: Vec<_> = storage.trace().into_iter().map(|it| (it.op, it.name)).collect();
    let at = |wanted: (Op, &str)| {
        trace.iter().position(|(op, name)| (*op, name.as_str()) == wanted).unwrap()
    };
    let reopened: Vec<usize> = names[..2].iter().map(|name| at((Op::Reopen, name))).collect();
    assert!(reopened.is_sorted(), "{reopened:?}");
    let removed: Vec<usize> = names[2..].iter().map(|name| at((Op::Remove, name))).collect();
    let created = at((Op::Create, &names[2]));
    assert!(removed.len() >= 2);
    for remove in removed {
        assert!(remove > reopened[1] && remove < created);
        let synced = trace[remove..created].iter().any(|(op, _)| *op == Op::SyncDir);
        assert!(synced, "{trace:?}");
    }
}

/// Makes the checksums of superblocks, frames and segment trailers fit again.
fn mend(bytes: &mut [u8]) {
    let crc = |salt: &[u8; 8], bytes: &[u8]| {
        crc32c::crc32c_append(crc32c::crc32c(salt), bytes).to_le_bytes()
    };
    for at in (0..bytes.len()).step_by(64) {
        let (salt, is_page): (&[u8; 8], _) = match bytes[at..].first_chunk::<8>() {
            Some(b"AIVSEGMT") => (b"aiv.segt", true),
            Some(_) if at == 0 => (b"aiv.supr", true),
            Some(head) if head.starts_with(b"AVF1") => (b"aiv.fram", false),
            _ => continue,
        };
        if is_page && bytes.len() >= at + 4096 {
            if salt == b"aiv.segt" {
                let key = b"aivory draft: segment trailer   ";
                let hash = blake3::keyed_hash(key, &bytes[at..at + 4060]);
                bytes[at + 4060..at + 4092].copy_from_slice(hash.as_bytes());
            }
            let sum = crc(salt, &bytes[at..at + 4092]);
            bytes[at + 4092..at + 4096].copy_from_slice(&sum);
        } else if !is_page && bytes.len() >= at + 64 {
            let len = u32::from_le_bytes(bytes[at + 44..at + 48].try_into().unwrap()) as usize;
            if let Some(payload) = bytes.get(at + 64..at + 64 + len) {
                let sum = crc(b"aiv.load", payload);
                bytes[at + 48..at + 52].copy_from_slice(&sum);
            }
            let sum = crc(salt, &bytes[at..at + 60]);
            bytes[at + 60..at + 64].copy_from_slice(&sum);
        }
    }
}

#[test]
fn no_forged_segment_gives_an_image_of_anything_but_the_source() {
    let bytes = content(26);
    let source = disk(&bytes);
    let root = apply(&plan_of(&source, resuming(), None), &source, &MemStorage::new(), 9).unwrap();
    let mut random = Random::new(&[23]);
    let (mut on, mut shorter, mut anew) = (0, 0, 0);
    for options in [split(), both()] {
        let folder = killed(&source, &options, 4);
        let plan = plan_of(&source, options, None);
        let whole = apply(&plan, &source, &folder.fork(), 2).unwrap().resumed.unwrap().blocks;
        let names = parts(&folder);
        for _ in 0..120 {
            let storage = folder.fork();
            for _ in 0..=random.below(2) {
                let name = &names[random.below(names.len())];
                let mut file = storage.contents(name).unwrap().to_vec();
                let frames: Vec<usize> = (4096..file.len().saturating_sub(64))
                    .step_by(64)
                    .filter(|&at| file[at..].starts_with(b"AVF1"))
                    .collect();
                let len = file.len();
                let at = match random.below(6) {
                    // Features, ids, geometry, place, token.
                    0 => [16, 48, 64, 80, 112, 148, 149, 160, 168, 1792, 1824, 1826]
                        [random.below(12)],
                    // The list, and the last trailer.
                    1 if len > 78_000 => len - 77_824 - 4096 + random.below(64),
                    2 if len > 78_000 => len - 4096 + 12 + random.below(132),
                    3 if !frames.is_empty() => {
                        frames[random.below(frames.len())] + 4 + random.below(50)
                    }
                    4 if !frames.is_empty() => {
                        frames[random.below(frames.len())] + 64 + random.below(900)
                    }
                    _ => random.below(len),
                };
                file[at.min(len - 1)] ^= 1 << random.below(8);
                mend(&mut file);
                storage.insert(name, file);
            }
            let report = apply(&plan, &source, &storage, 2).unwrap();
            assert_eq!(report.state_root, root.state_root);
            // A file that is of another set by now, or of none, is nobody's to remove.
            assert_image_right(&storage, &report, &bytes);
            match report.resumed {
                Some(resumed) if resumed.blocks == whole => on += 1,
                Some(_) => shorter += 1,
                None => anew += 1,
            }
        }
    }
    assert!(on >= 10 && shorter >= 40 && anew >= 20, "{on} {shorter} {anew}");
}

#[test]
fn no_single_fault_while_a_split_backup_with_parity_goes_on_gives_false_success() {
    let bytes = content(26);
    let source = disk(&bytes);
    let plan = plan_of(&source, both(), None);
    let folder = killed(&source, &both(), 3);
    let mut gone_on = 0;
    for planned in [FaultPlan::once, FaultPlan::persistent] {
        for fault in aiv_testkit::Fault::ALL {
            let mut at = 0;
            loop {
                let storage = FaultStorage::failing(folder.fork(), planned(at, fault));
                let done = apply(&plan, &source, &storage, 2);
                let memory = storage.inner();
                match &done {
                    Ok(report) => assert_image_right(memory, report, &bytes),
                    Err(_) => assert!(storage.fired(), "{done:?}"),
                }
                if storage.fired() && fault.is_harmless() {
                    assert!(done.is_ok(), "{done:?}");
                }
                gone_on += u32::from(done.is_ok_and(|report| report.resumed.is_some()));
                // After healing.
                let report = apply(&plan, &source, memory, 3).unwrap();
                assert_right_but_blanks(memory, &report, &bytes);
                let hit = storage.trace().iter().find(|it| it.failed).map(|it| it.op);
                // All operations but reads and appends, and of those one in many.
                match hit {
                    None => break,
                    Some(Op::Read) => at += 61,
                    Some(Op::Append) => at += 3,
                    Some(_) => at += 1,
                }
            }
            assert!(at > 0, "{fault:?} hit nothing");
        }
    }
    assert!(gone_on >= 8, "{gone_on}");
}

#[test]
fn what_was_interrupted_while_it_got_its_names_is_begun_anew_and_nothing_of_it_stays() {
    let bytes = content(40);
    let source = disk(&bytes);
    let plan = plan_of(&source, split(), None);
    for published in [0, 1, 3] {
        let storage = killed(&source, &split(), 5);
        let first = parts(&storage).pop().unwrap();
        let file = first.strip_suffix(".part").unwrap();
        storage.publish(&first, &format!("{file}.publishing.part")).unwrap();
        for no in 1..=published {
            let name = segment_name(file, no);
            storage.publish(&format!("{name}.part"), &name).unwrap();
        }
        let left = storage.names().len();
        let report = apply(&plan, &source, &storage, 2).unwrap();
        assert_eq!((&report.resumed, report.leftovers_removed.len()), (&None, left));
        assert_right(&storage, &report, &bytes);
    }
}

#[test]
fn no_segment_of_a_published_image_is_cut_where_its_temporary_names_are_still_there() {
    let bytes = content(40);
    let source = disk(&bytes);
    let (storage, full) = (MemStorage::new(), BackupOptions { basis: Basis::Nothing, ..split() });
    let first = apply(&plan_of(&source, full.clone(), None), &source, &storage, 1).unwrap();
    let published: Vec<_> =
        storage.names().into_iter().map(|n| (storage.contents(&n).unwrap(), n)).collect();
    for (bytes, name) in &published {
        storage.insert(&format!("{name}.part"), bytes.clone());
    }
    let report = apply(&plan_of(&source, full, None), &source, &storage, 2).unwrap();
    assert_eq!((&report.resumed, &report.not_resumed), (&None, &None));
    assert_eq!(report.leftovers_removed.len(), published.len());
    for (bytes, name) in &published {
        assert_eq!(storage.contents(name).as_ref(), Some(bytes));
    }
    assert_image_right(&storage, &first, &bytes);
    assert_right(&storage, &report, &bytes);
}
