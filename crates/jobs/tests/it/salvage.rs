//! What is left of damaged images.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use aiv_chain::Keys;
use aiv_chain::salvage::{Fill, Hints};
use aiv_jobs::{Error, LostFiles, SalvageJob, SalvageTo};
use aiv_volume_io::{Cancel, Job, Progress, Step};

use crate::outside::{Outside, plain_job};

/// An image of some blocks of noise, one of which is damaged.
fn damaged(dir: &tempfile::TempDir) -> PathBuf {
    let disk = dir.path().join("disk.img");
    let mut state = 1_u32;
    let mut noise = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    };
    fs::write(&disk, (0..1 << 20).map(|_| noise()).collect::<Vec<u8>>()).unwrap();
    let to = dir.path().join("images");
    let done = plain_job().run(&[disk], &to, &Outside::new(), Job::silent()).unwrap();
    let image = to.join(&done.results[0].as_ref().unwrap().report.image);
    let mut bytes = fs::read(&image).unwrap();
    bytes[300_000] ^= 1;
    fs::write(&image, bytes).unwrap();
    image
}

fn images(folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".aiv") || name.ends_with(".part")).count()
}

/// Cancels when so many steps have begun or ended.
struct CancelAt<'c> {
    cancel: &'c Cancel,
    left: AtomicUsize,
}

impl CancelAt<'_> {
    fn count(&self) {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.cancel.cancel();
        }
    }
}

impl Progress for CancelAt<'_> {
    fn begin(&self, _: Step, _: u64) {
        self.count();
    }
    fn end(&self, _: Step) {
        self.count();
    }
}

#[test]
fn what_was_written_before_a_cancellation_is_told_and_else_nothing_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let file = damaged(&dir);
    let (raw, folder) = (dir.path().join("back.raw"), dir.path().join("new"));
    for to in [SalvageTo::Raw(raw.clone(), Fill::Hole), SalvageTo::Folder(folder.clone())] {
        let (mut canceled, mut late) = (0, 0);
        for steps in 1.. {
            let _ = (fs::remove_file(&raw), fs::remove_dir_all(&folder));
            let cancel = Cancel::new();
            let progress = CancelAt { cancel: &cancel, left: steps.into() };
            let hints = Hints::default();
            let job = SalvageJob {
                files: vec![file.clone()],
                parents: None,
                hints,
                keys: Keys::none(),
                plain: false,
                to: to.clone(),
            };
            let done = job.run(&Outside::new(), Job::new(&progress, &cancel));
            let written = usize::from(raw.exists()) + images(&folder);
            match done {
                Ok(done) => {
                    assert_eq!(written, 1, "{to:?} {steps}");
                    let [part] = done.parts.as_slice() else { panic!("{:?}", done.parts) };
                    assert!(part.lost > 0);
                    let LostFiles::Unknown(why) = &part.files else { panic!("{part:?}") };
                    assert_eq!(why.contains("canceled"), cancel.check().is_err(), "{why}");
                    if cancel.check().is_ok() {
                        break;
                    }
                    late += 1;
                }
                Err(Error::Chain(aiv_chain::Error::Canceled(_))) => {
                    assert_eq!(written, 0, "{to:?} {steps}");
                    canceled += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert!(canceled > 0 && late > 0, "{to:?}: {canceled} {late}");
    }
}

#[test]
fn a_look_that_is_canceled_is_canceled() {
    let dir = tempfile::tempdir().unwrap();
    let file = damaged(&dir);
    let cancel = Cancel::new();
    cancel.cancel();
    let (files, to) = (vec![file], SalvageTo::Nowhere);
    let job = SalvageJob {
        files,
        parents: None,
        hints: Hints::default(),
        keys: Keys::none(),
        plain: false,
        to,
    };
    let done = job.run(&Outside::new(), Job::new(Job::silent().progress, &cancel));
    assert!(matches!(done, Err(Error::Chain(aiv_chain::Error::Canceled(_)))));
}
