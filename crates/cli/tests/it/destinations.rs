//! Places to write to that cannot be written: whatever fails names them, and nothing is left there.

use std::fs;
use std::path::Path;

use crate::support::{Loop, MIB, Mount, Scratch, aiv, aiv_json, names_in, run};

#[test]
fn a_place_that_cannot_be_written_is_named_by_every_command() {
    let scratch = Scratch::new();
    let image = scratch.image().to_str().unwrap().to_owned();
    let (disk, images) = (scratch.arg("disk.raw"), scratch.arg("images"));
    let place = Mount::memory(64 * MIB);
    fs::create_dir(place.path().join("images")).unwrap();
    let theirs = place.arg("images");
    // Two points, for those that want to merge some.
    aiv_json(&["backup", &disk, "--to", &theirs]).ended(0);
    aiv_json(&["backup", &disk, "--to", &theirs]).ended(0);
    run("mount", &["-o", "remount,ro", place.path().to_str().unwrap()]);
    let (file, folder) = (place.arg("file"), place.arg("new"));
    for command in [
        &["backup", &disk, "--to", &theirs][..],
        &["backup", &disk, "--to", &folder],
        &["copy", &images, "--to", &theirs],
        &["copy", &image, "--to", &folder],
        &["move", &images, "--to", &theirs],
        &["move", &theirs, "--to", &images],
        &["consolidate", &theirs, "--keep", "1"],
        &["archive", &image, "--to", &file],
        &["restore", &image, "--to", &file],
    ] {
        let (status, code, message) = aiv_json(command).error();
        assert!(message.contains(place.path().to_str().unwrap()), "{command:?}: {message}");
        assert_eq!((status, code.as_str()), (1, "read_only"), "{command:?}: {message}");
    }
    assert_eq!(names_in(place.path()), ["images"]);
}

#[test]
fn a_full_place_is_named_too() {
    let scratch = Scratch::new();
    let disk = scratch.disk("large.raw", 4 * MIB);
    let place = Mount::memory(MIB);
    let to = place.arg("images");
    let image = scratch.image().to_str().unwrap().to_owned();
    let file = place.arg("file");
    for command in [
        &["backup", &disk, "--to", &to][..],
        &["copy", &image, "--to", &to],
        &["archive", &image, "--to", &file],
        &["restore", &image, "--to", &file],
        &["salvage", &image, "--to", &file],
    ] {
        let message = aiv_json(command).failed(1, "disk_full");
        assert!(message.contains(place.path().to_str().unwrap()), "{command:?}: {message}");
    }
}

#[test]
fn a_folder_that_was_made_for_nothing_does_not_stay() {
    let scratch = Scratch::new();
    let nothing = scratch.write("nothing", b"");
    let letter = scratch.write("letter.aiv", &b"Dear reader, this is no image. ".repeat(1000));
    let (new, old) = (scratch.path("new"), scratch.path("old"));
    fs::create_dir(&old).unwrap();
    for (folder, stays) in [(&new, false), (&old, true)] {
        let to = folder.to_str().unwrap();
        aiv_json(&["backup", &nothing, "--to", to]).failed(5, "source_empty");
        aiv_json(&["backup", "/dev/nosuch", "--to", to]).failed(1, "not_found");
        aiv_json(&["copy", &letter, "--to", to]).failed(1, "foreign");
        assert_eq!(folder.exists(), stays);
    }
    aiv(&["backup", &scratch.disk("disk.raw", MIB), "/dev/nosuch", "--to", &scratch.arg("new")])
        .ended(1);
    assert_eq!(names_in(&new).len(), 1);
}

/// A disk with a partition table and an identity, as a file.
fn partitioned(scratch: &Scratch, name: &str) -> String {
    let disk = scratch.disk(name, 8 * MIB);
    run("sgdisk", &["--clear", "--new=1:2048:+2M", &disk]);
    disk
}

#[test]
fn two_devices_that_say_they_are_one_disk_are_told_of() {
    let scratch = Scratch::new();
    let first = partitioned(&scratch, "first.raw");
    let second = scratch.arg("second.raw");
    fs::copy(&first, &second).unwrap();
    let other = partitioned(&scratch, "other.raw");
    let images = scratch.arg("images");
    let notes = |device: &str| {
        let json = aiv_json(&["backup", device, "--to", &images]).ended(0).json();
        json["images"][0]["notes"].to_string()
    };
    let is_told = |notes: &str| notes.contains("--source-id tells them apart");
    let device = Loop::new(first.as_ref(), &[]);
    let clone = Loop::new(second.as_ref(), &[]);
    assert!(!is_told(&notes(device.arg())));
    let said = notes(clone.arg());
    assert!(is_told(&said) && said.contains(device.arg()), "{said}");
    // Alone, and where the name is that of another disk by now, nothing is to be told.
    drop(device);
    drop(clone);
    let (a, b) = (Loop::new(first.as_ref(), &[]), Loop::new(other.as_ref(), &[]));
    assert!(!is_told(&notes(a.arg())));
    let before = a.arg().to_owned();
    drop(b);
    drop(a);
    let taken = Loop::new(other.as_ref(), &[]);
    let again = Loop::new(first.as_ref(), &[]);
    let said = notes(again.arg());
    assert!(!is_told(&said), "{before} {} {}: {said}", taken.arg(), again.arg());
    // The same disk by another name is one disk.
    let link = scratch.path("link");
    std::os::unix::fs::symlink(again.path(), &link).unwrap();
    assert!(!is_told(&notes(link.to_str().unwrap())));
    assert!(Path::new(&images).is_dir());
}
