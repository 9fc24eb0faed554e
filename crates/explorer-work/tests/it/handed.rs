//! Files that are handed over, and an outside that writes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use aiv_browse::Path as FilePath;
use aiv_chain::Keys;
use aiv_explorer_model::{Answer, Work};
use aiv_explorer_work::{Handed, Outside, Shelf, write_file, write_zip};
use aiv_volume_io::{Cancel, Job};

use crate::made::{self, HELLO, Made, run};

fn path(text: &str) -> FilePath {
    FilePath::parse(text.as_bytes()).unwrap()
}

/// Every file of a folder, with all of its bytes.
fn all_of(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    files
        .map(|file| {
            (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap_or_default())
        })
        .collect()
}

#[test]
fn what_is_on_the_shelf_is_handed_over_as_it_is_and_links_lead_nowhere() {
    let made = Made::new();
    let shelf = Shelf::default();
    let mut outside = Outside::reading_only(Arc::new(made::Outside::new()), shelf.clone());
    assert_eq!(shelf.number(), None);
    let mut open = || {
        let work = Work::Open { what: made.path("disk.raw") };
        outside.answer(work, &Keys::none(), Job::silent(), &|_| {}).unwrap();
    };
    open();
    let opened = shelf.take(1).unwrap();
    let of = |at: &str| Handed::of(&opened, &path(at), Job::silent());
    let Ok(Handed::File(file, len)) = of("/p1/etc/hello.txt") else { panic!("a file") };
    assert_eq!(len, HELLO.len() as u64);
    let mut part = Vec::new();
    write_file(&file, 6..10, &mut part, Job::silent()).unwrap();
    assert_eq!(part, HELLO.as_bytes()[6..10]);
    assert!(matches!(of("/p1/etc"), Ok(Handed::Folder)));
    assert!(matches!(of("/p1"), Ok(Handed::Folder)));
    for nothing in ["/p1/link", "/p1/missing", "/", "/p9"] {
        assert!(of(nothing).is_err(), "{nothing}");
    }
    let mut zip = Vec::new();
    write_zip(&opened, &path("/p1/etc"), &mut zip, Job::silent()).unwrap();
    fs::write(made.path("etc.zip"), zip).unwrap();
    run("unzip", &["-q", "-d", &made.arg("out"), &made.arg("etc.zip")]);
    run("diff", &["-r", &made.arg("tree/etc"), &made.arg("out/etc")]);
    let canceled = Cancel::new();
    canceled.cancel();
    let job = Job::new(Job::silent().progress, &canceled);
    assert!(write_file(&file, 0..len, &mut Vec::new(), job).is_err());
    assert!(write_zip(&opened, &path("/p1/etc"), &mut Vec::new(), job).is_err());
    // Another disk has another number, and nobody takes one for the other.
    open();
    assert_eq!(shelf.number(), Some(2));
    assert!(shelf.take(1).is_none() && shelf.take(2).is_some());
    assert!(of("/p1/etc").is_ok(), "whoever took it has it");
}

#[test]
fn an_outside_that_only_reads_leaves_no_file_and_no_catalogue_behind() {
    let made = Made::new();
    made.back_up(None);
    let before = all_of(&made.images());
    let ask =
        |outside: &mut Outside, work| outside.answer(work, &Keys::none(), Job::silent(), &|_| {});
    let mut outside = Outside::reading_only(Arc::new(made::Outside::new()), Shelf::default());
    let folder = made.images();
    let Ok(Answer::Sets(sets, _)) = ask(&mut outside, Work::Scan { folder: folder.clone() }) else {
        panic!("sets")
    };
    let verify = || Work::Verify { what: folder.clone(), set: Some(sets[0].id.clone()) };
    let Ok(Answer::Report { proven, bad: false, .. }) = ask(&mut outside, verify()) else {
        panic!("a report")
    };
    assert_eq!(proven.len(), 1);
    ask(&mut outside, Work::Open { what: made.path("disk.raw") }).unwrap();
    let extract = || Work::Extract { path: path("/p1/etc"), to: made.path("extracted") };
    assert!(ask(&mut outside, extract()).is_err());
    assert!(!made.path("extracted").exists());
    assert_eq!(all_of(&folder), before);
    // The one that may write does both.
    let mut writer = Outside::new(Arc::new(made::Outside::new()), false);
    ask(&mut writer, verify()).unwrap();
    assert_ne!(all_of(&folder), before);
    ask(&mut writer, Work::Open { what: made.path("disk.raw") }).unwrap();
    ask(&mut writer, extract()).unwrap();
    assert!(made.path("extracted").exists());
}
