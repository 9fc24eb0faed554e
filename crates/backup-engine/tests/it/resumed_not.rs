//! Backups that are not gone on with: they begin anew, and nothing of them is left.

use aiv_backup_engine::{BackupOptions, Error};
use aiv_image_format::limits::SEGMENT_BYTES_MIN;
use aiv_image_format::{Digest, peek};
use aiv_testkit::MemStorage;
use aiv_volume_io::{Extent, Storage};

use crate::common::{BLOCK, all_sectors, apply, disk};
use crate::hints::{BLOCK_LEN, Bitmap, hinted, not_used, relying_on, try_hinted};
use crate::resumed::{GoneFrom, assert_right, content, parts, plan_of, resuming};
use crate::resumed_split::{both, split, with_parity};

/// A folder in which a backup was killed when it was about to publish, by what it had written.
fn killed(options: &BackupOptions) -> MemStorage {
    let (source, whole) = (disk(&content(192)), MemStorage::new());
    let plan = plan_of(&source, options.clone(), Some(b"same"));
    apply(&plan, &source, &whole, 1).unwrap();
    let storage = MemStorage::new();
    for name in whole.names() {
        storage.insert(&format!("{name}.part"), whole.contents(&name).unwrap().to_vec());
    }
    storage
}

#[test]
fn a_killed_backup_goes_on_only_as_split_and_with_the_parity_it_was_begun_with() {
    let source = disk(&content(192));
    let larger = || BackupOptions { split: Some(SEGMENT_BYTES_MIN + 1), ..split() };
    let ways: [&dyn Fn() -> BackupOptions; 5] = [&resuming, &split, &with_parity, &both, &larger];
    for (begun, wanted) in (0..25).map(|n| (n / 5, n % 5)) {
        let resumes = begun == wanted;
        let (begun, wanted) = (ways[begun](), ways[wanted]());
        let storage = killed(&begun);
        let left = parts(&storage);
        assert_eq!(left.len() > 3, begun.split.is_some());
        let plan = plan_of(&source, wanted, Some(b"same"));
        let report = apply(&plan, &source, &storage, 2).unwrap();
        assert_eq!(report.resumed.is_some(), resumes, "{left:?}");
        let removed = if resumes { Vec::new() } else { left };
        assert_eq!(report.leftovers_removed, removed);
        assert_right(&storage, &report, &content(192));
    }
}

#[test]
fn an_image_that_is_gone_on_with_is_spared_when_segments_of_another_one_go() {
    let (source, storage) = (disk(&content(192)), killed(&split()));
    let segments = parts(&storage);
    let plan = plan_of(&source, resuming(), None);
    let gone = apply(&plan, &GoneFrom(&source, 2 << 20), &MemStorage::new(), 1);
    assert!(matches!(gone, Err(Error::Interrupted { .. })), "{gone:?}");
    let other = killed(&resuming());
    let part = parts(&other).remove(0);
    storage.insert("other.part", other.contents(&part).unwrap().to_vec());
    let plan = plan_of(&source, resuming(), Some(b"same"));
    let report = apply(&plan, &source, &storage, 2).unwrap();
    assert_eq!(report.resumed.as_ref().map(|it| it.file.as_str()), Some("other.part"));
    assert_eq!(report.leftovers_removed, segments);
    assert_right(&storage, &report, &content(192));
}

#[test]
fn what_a_tracker_told_counts_for_one_backup_and_is_not_gone_on_with() {
    let (mut bytes, storage) = (content(800), MemStorage::new());
    let mut bitmap = Bitmap::new("b", 65536);
    let small = BackupOptions { checkpoint_bytes: 1, resume: true, ..all_sectors() };
    let full = hinted(&disk(&bytes), &bitmap, &storage, small.clone(), 1);
    for block in (0..800).step_by(8) {
        bytes[block * BLOCK + 7] ^= 0x55;
        bitmap.mark(Extent::new(block as u64 * BLOCK_LEN + 7, 1));
    }
    let (source, trackers) = (disk(&bytes), bitmap.as_trackers());
    let options = BackupOptions { changes: relying_on("b").changes, ..small };
    let names = storage.names();
    // Plans look at the beginning and the end: only what is in between is gone.
    let gone = Gap(&source, 9 << 20);
    let done = try_hinted(&gone, &trackers, &storage, options.clone(), 2);
    assert!(matches!(done, Err(Error::Source { .. })), "{done:?}");
    assert_eq!(storage.names(), names);
    // As a full backup would have it, where nobody is believed.
    let done =
        try_hinted(&gone, &[], &storage, BackupOptions { changes: None, ..options.clone() }, 3);
    assert!(matches!(done, Err(Error::Interrupted { .. })), "{done:?}");
    assert_eq!(parts(&storage).len(), 1);
    let report = hinted(&source, &bitmap, &storage, options, 4);
    assert_eq!((not_used(&report), &report.resumed), (None, &None));
    assert_eq!(report.leftovers_removed.len(), 1);
    assert_right(&storage, &report, &bytes);
    let token = |image: &str| peek(&*storage.open(image).unwrap()).unwrap().source_token;
    assert_ne!(token(&full.image), Digest::default());
    assert_eq!(token(&report.image), Digest::default());
}

/// A disk of which half a MiB is gone from some byte on.
struct Gap<'a>(&'a dyn aiv_volume_io::ReadAt, u64);

impl aiv_volume_io::ReadAt for Gap<'_> {
    fn len(&self) -> u64 {
        self.0.len()
    }
    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> std::io::Result<()> {
        match offset < self.1 + (512 << 10) && self.1 < offset + out.len() as u64 {
            // No such device.
            true => Err(std::io::Error::from_raw_os_error(19)),
            false => self.0.read_exact_at(out, offset),
        }
    }
}
