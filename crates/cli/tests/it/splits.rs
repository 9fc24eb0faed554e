//! Images of several files on the command line.

use std::fs;

use crate::support::{MIB, Scratch, aiv, aiv_json};

#[test]
fn a_split_image_is_made_listed_proven_alone_missed_and_restored() {
    let scratch = Scratch::new();
    let disk = scratch.disk("box.raw", 150 * MIB);
    let images = scratch.arg("images");
    let args = ["backup", &disk, "--to", &images, "--split", "64M", "--compress", "none"];
    let done = aiv_json(&args).ended(0).json()["images"][0].clone();
    assert_eq!(done["segments"], 3);
    let first = done["image"].as_str().unwrap().to_owned();
    let parts = [first.clone(), format!("{first}.p002"), format!("{first}.p003")];
    let sizes = parts.each_ref().map(|part| fs::metadata(part).unwrap().len());
    assert!(sizes.iter().all(|&size| size <= 64 * MIB), "{sizes:?}");
    assert_eq!(done["bytes_stored"], sizes.iter().sum::<u64>());
    let list = aiv_json(&["list", &images]).ended(0).json();
    let point = &list["sets"][0]["points"][0];
    assert_eq!((&point["segments"], &point["restorable"]), (&3.into(), &true.into()));
    assert_eq!(list["strays"].as_array().unwrap().len(), 0);

    aiv(&["verify", &images]).ended(0);
    let alone = aiv_json(&["verify", &parts[1]]).ended(0).json();
    assert_eq!((&alone["images"][0]["segment"], &alone["ok"]), (&2.into(), &true.into()));
    let said = aiv(&["verify", &parts[1]]).ended(0).stdout;
    assert!(said.contains("segment 2 by itself: sound"), "{said}");
    assert!(aiv(&["dump", &first]).ended(0).stdout.contains("segment 3: bytes"));

    let target = scratch.arg("target.raw");
    aiv(&["restore", &first, "--to", &target]).ended(0);
    assert!(fs::read(&disk).unwrap() == fs::read(&target).unwrap());

    // One that is called something else is found; one that is gone is named.
    fs::rename(&parts[1], scratch.path("images/renamed")).unwrap();
    aiv(&["verify", &images, "--depth", "quick"]).ended(0);
    fs::rename(scratch.path("images/renamed"), scratch.path("kept")).unwrap();
    let run = aiv_json(&["verify", &first]).ended(4);
    assert!(run.stdout.contains("segment 2 is missing"), "{}", run.stdout);
    let run = aiv_json(&["restore", &first, "--to", &scratch.arg("other.raw")]);
    let message = run.failed(4, "segments");
    assert!(message.contains("segment 2 is missing (a file like"), "{message}");
    let list = aiv_json(&["list", &images]).ended(3).json();
    assert!(list["strays"][0]["detail"].as_str().unwrap().contains("cannot be restored"));

    // The next backup tells of the point once, and what it lacks.
    let done = aiv_json(&["backup", &disk, "--to", &images]).ended(3).json()["images"][0].clone();
    let lost = done["lost"].as_array().unwrap();
    assert_eq!((lost.len(), &done["kind"]), (1, &"full".into()), "{lost:?}");
    assert!(lost[0]["why"].as_str().unwrap().contains("segment 2 is missing"), "{lost:?}");
}

#[test]
fn a_size_that_is_too_small_is_refused_before_anything_is_written() {
    let scratch = Scratch::new();
    let disk = scratch.disk("box.raw", 2 * MIB);
    let images = scratch.arg("images");
    let said = aiv(&["backup", &disk, "--to", &images, "--split", "63M"]).ended(2).stderr;
    assert!(said.contains("less than 64M"), "{said}");
    let sparse = scratch.arg("large.raw");
    fs::File::create(&sparse).unwrap().set_len(100 << 30).unwrap();
    let args = ["backup", &sparse, "--to", &images, "--split", "64M", "--sectors", "all"];
    let message = aiv_json(&args).failed(5, "split_size");
    assert!(message.contains("cannot be split into files of"), "{message}");
}
