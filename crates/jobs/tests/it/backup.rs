//! Several sources in one job.

use std::fs;
use std::path::PathBuf;

use aiv_backup_engine::PlanNote;
use aiv_chain::Folder;
use aiv_jobs::{BackupJob, Error, Refusal};
use aiv_volume_io::{Cancel, DirStorage, Job};

use crate::outside::{Outside, plain_job};

/// Raw disk files of a few bytes, named after their content.
fn disks(dir: &tempfile::TempDir, names: &[&str]) -> Vec<PathBuf> {
    let disk = |name: &&str| {
        let path = dir.path().join(format!("{name}.img"));
        fs::write(&path, name.repeat(4096)).unwrap();
        path
    };
    names.iter().map(disk).collect()
}

#[test]
fn all_images_of_one_job_are_of_one_group_and_a_failing_source_stops_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let mut sources = disks(&dir, &["first", "second"]);
    sources.insert(1, dir.path().join("missing.img"));
    let to = dir.path().join("images");
    let done = plain_job().run(&sources, &to, &Outside::new(), Job::silent()).unwrap();
    let names: Vec<_> = done
        .results
        .iter()
        .map(|result| {
            result.as_ref().map(|done| done.report.bytes_source).map_err(|e| e.to_string())
        })
        .collect();
    assert_eq!((names.len(), &names[0], &names[2]), (3, &Ok(5 * 4096), &Ok(6 * 4096)));
    assert!(names[1].as_ref().is_err_and(|e| e.contains("missing.img")), "{names:?}");
    let folder = Folder::scan(&DirStorage::open(&to).unwrap(), Job::silent()).unwrap();
    assert_eq!(folder.sets.len(), 2);
    for set in &folder.sets {
        let image = aiv_chain::open_image(&to.join(&set.points[0].file)).unwrap();
        assert_eq!(image.meta().manifest.group, done.group);
    }
}

#[test]
fn a_canceled_job_begins_no_further_source_and_leaves_no_image() {
    let dir = tempfile::tempdir().unwrap();
    let sources = disks(&dir, &["first", "second"]);
    let to = dir.path().join("images");
    let cancel = Cancel::new();
    cancel.cancel();
    let job = Job::new(Job::silent().progress, &cancel);
    let done = plain_job().run(&sources, &to, &Outside::new(), job).unwrap();
    assert!(done.results.len() == 1 && done.results[0].as_ref().is_err_and(Error::is_canceled));
    assert!(!to.exists(), "a folder made for nothing");
}

#[test]
fn two_files_that_say_they_are_the_same_disk_are_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let disks = disks(&dir, &["first", "second"]);
    let to = dir.path().join("images");
    let job = BackupJob { source_id: Some("a template".to_owned()), ..plain_job() };
    let world = Outside::new();
    let twins = |disk: &PathBuf| {
        let sources = std::slice::from_ref(disk);
        let done = job.run(sources, &to, &world, Job::silent()).unwrap();
        let report = &done.results[0].as_ref().unwrap().report;
        let path = |note: &PlanNote| match note {
            PlanNote::Twin { path } => Some(PathBuf::from(path)),
            _ => None,
        };
        report.notes.iter().filter_map(path).collect::<Vec<_>>()
    };
    let none: [PathBuf; 0] = [];
    assert_eq!(twins(&disks[0]), none, "a first image");
    assert_eq!(twins(&disks[0]), none, "the same file");
    assert_eq!(twins(&disks[1]), [disks[0].clone()]);
    assert_eq!(twins(&disks[0]), [disks[1].clone()]);
    // One that was renamed or moved.
    fs::rename(&disks[0], dir.path().join("elsewhere.img")).unwrap();
    assert_eq!(twins(&dir.path().join("elsewhere.img")), none);
}

#[test]
fn one_name_for_several_sources_is_refused_before_a_folder_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let sources = disks(&dir, &["first", "second"]);
    let to = dir.path().join("images");
    let named = BackupJob { name: Some("both".to_owned()), ..plain_job() };
    let refused = named.run(&sources, &to, &Outside::new(), Job::silent());
    assert!(matches!(refused, Err(Error::Refused(Refusal::OneNameForMany))));
    assert!(!to.exists());
}
