//! `aiv salvage`, from a damaged image to a mounted disk.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::real_disk::{ROOT, make_disk};
use crate::support::{Loop, MIB, Mount, Scratch, aiv, aiv_json, noise, run};

/// Where in the image the middle of the file `etc/deep/er/noise` is stored.
fn middle_of_noise(image: &[u8]) -> usize {
    let needle = &noise(3 * MIB, 2)[1_500_000..1_500_064];
    image.windows(needle.len()).position(|bytes| bytes == needle).expect("noise is stored as it is")
}

/// An image of a real disk, with 100 KiB of zeros where a file is stored.
fn damaged(scratch: &Scratch) -> (String, Vec<u8>) {
    let disk = make_disk(scratch);
    let image = scratch.back_up(&disk);
    let mut bytes = fs::read(&image).unwrap();
    let at = middle_of_noise(&bytes);
    bytes[at..at + (100 << 10)].fill(0);
    (scratch.write("broken.aiv", &bytes), bytes)
}

fn partition(json: &Value) -> &Value {
    let parts = json["parts"].as_array().unwrap();
    assert_eq!(parts.len(), 1, "{parts:?}");
    &parts[0]
}

#[test]
fn a_damaged_image_becomes_one_that_restores_and_names_the_file_that_is_lost() {
    let scratch = Scratch::new();
    let (broken, bytes) = damaged(&scratch);
    aiv_json(&["verify", &broken]).ended(4);
    let listed = aiv_json(&["salvage", &broken, "--list"]).ended(3).json();
    assert!(listed["bytes_lost"].as_u64().unwrap() >= 100 << 10, "{listed}");
    assert!(listed["bytes_lost"].as_u64().unwrap() <= 256 << 10, "{listed}");
    assert_eq!(listed["lost"][0]["why"], "frame");
    let lost = partition(&listed);
    assert_eq!(lost["start"], ROOT.0);
    assert_eq!(lost["files"][0]["path"], "etc/deep/er/noise");
    assert_eq!(lost["bytes_lost"], listed["bytes_lost"]);
    assert_eq!(listed["image"], Value::Null);

    let new = scratch.arg("new");
    let text = aiv(&["salvage", &broken, "--image", &new]).ended(3);
    assert!(text.stdout.contains("etc/deep/er/noise: "), "{}", text.stdout);
    assert!(text.stdout.contains(", proven\n") && text.stderr.contains("are lost"));
    let latest = format!("{new}@latest");
    aiv(&["verify", &new]).ended(0);
    let info = aiv_json(&["info", &latest]).ended(0).json();
    let comment = info["comment"].as_str().unwrap();
    assert!(comment.starts_with("salvaged from image "), "{comment}");
    let target = scratch.arg("restored.raw");
    aiv_json(&["restore", &latest, "--to", &target]).ended(3);
    let device = Loop::part(target.as_ref(), ROOT, true);
    run("e2fsck", &["-fn", device.arg()]);
    let mount = Mount::new(device.arg(), "ro");
    assert_eq!(fs::read_to_string(mount.path().join("etc/hostname")).unwrap(), "box\n");
    let noisy = fs::read(mount.path().join("etc/deep/er/noise")).unwrap();
    let whole = noise(3 * MIB, 2);
    assert!(noisy != whole && noisy[..1 << 20] == whole[..1 << 20]);
    assert!(fs::read(&broken).unwrap() == bytes, "the input is as it was");
}

#[test]
fn without_any_head_the_partitions_come_from_the_salvaged_bytes() {
    let scratch = Scratch::new();
    let (_, mut bytes) = damaged(&scratch);
    let len = bytes.len();
    bytes[..4096].fill(0);
    bytes[len - (200 << 10)..].fill(0);
    let headless = scratch.write("headless.bin", &bytes);
    let message = aiv_json(&["salvage", &headless, "--list"]).failed(1, "size_needed");
    assert!(message.contains("the size of the disk"), "{message}");
    let size = fs::metadata(scratch.path("disk.raw")).unwrap().len().to_string();
    let raw = scratch.arg("out.raw");
    let args = ["salvage", &headless, "--to", &raw, "--size", &size, "--fill"];
    let done = aiv_json(&args).ended(3).json();
    assert_eq!(done["files"][0]["known_by"], "frames");
    let parts = done["parts"].as_array().unwrap();
    let root = parts.iter().find(|part| part["start"] == ROOT.0).unwrap();
    assert!(root["number"].as_u64().is_some(), "{root}");
    let out = fs::read(&raw).unwrap();
    assert_eq!(out.len().to_string(), size);
    let lost = &done["lost"][0];
    let at = lost["start"].as_u64().unwrap() as usize;
    assert!(out[at..].starts_with(b"!AIV-UNREADABLE!"));
    // What exists is never overwritten, an input least of all.
    let over = ["salvage", &headless, "--to", &headless, "--size", &size];
    aiv_json(&over).failed(1, "exists");
    assert!(fs::read(&headless).unwrap() == bytes);
}

#[test]
fn a_killed_backup_and_a_chain_are_salvaged_from_their_files() {
    let scratch = Scratch::new();
    let disk = scratch.disk("disk.raw", 2 * MIB);
    let full = scratch.back_up(&disk);
    let mut content = fs::read(&disk).unwrap();
    content[MIB as usize..MIB as usize + 5000].fill(7);
    fs::write(&disk, &content).unwrap();
    let increment = scratch.back_up(&disk);
    let arg = |path: &Path| path.to_str().unwrap().to_owned();
    // The increment alone: its parent lies beside it.
    let raw = scratch.arg("one.raw");
    aiv(&["salvage", &arg(&increment), "--to", &raw]).ended(0);
    assert!(fs::read(&raw).unwrap() == content);
    // Both moved away.
    fs::create_dir(scratch.path("away")).unwrap();
    let moved = [&full, &increment].map(|file| {
        let to = scratch.path("away").join(file.file_name().unwrap());
        fs::rename(file, &to).unwrap();
        arg(&to)
    });
    let raw = scratch.arg("two.raw");
    let done = aiv_json(&["salvage", &moved[1], &moved[0], "--to", &raw]).ended(0).json();
    assert_eq!(done["blocks_lost"], 0);
    assert!(fs::read(&raw).unwrap() == content);
    let proven = aiv_json(&["salvage", &moved[1], "--image", &scratch.arg("new")]).ended(0).json();
    assert_eq!(proven["proven"], true);
    // Cut off, as a backup that was killed.
    let half = fs::read(&moved[0]).unwrap();
    let part = scratch.write("a.aiv.part", &half[..half.len() / 2]);
    let done = aiv_json(&["salvage", &part, "--list"]).ended(3).json();
    assert!((10..25).contains(&done["blocks"].as_u64().unwrap()), "{done}");
    // The increment without its parent.
    fs::create_dir(scratch.path("alone")).unwrap();
    let alone = scratch.write("alone/a.aii", &fs::read(&moved[1]).unwrap());
    let done = aiv_json(&["salvage", &alone, "--list"]).ended(3).json();
    assert_eq!(done["lost"][0]["why"], "parent");
    let found = aiv_json(&["salvage", &alone, "--list", "--parent", &scratch.arg("away")]).ended(0);
    assert_eq!(found.json()["missing_parent"], Value::Null);
}

#[test]
fn what_is_no_image_gives_nothing() {
    let scratch = Scratch::new();
    let disk = scratch.disk("disk.raw", MIB);
    aiv_json(&["salvage", &disk, "--list"]).failed(1, "nothing_left");
    aiv_json(&["salvage", &scratch.arg("missing"), "--list"]).failed(1, "not_found");
    aiv_json(&["salvage", &disk]).failed(2, "usage");
    let (one, other) = (scratch.image(), scratch.disk("other.raw", 2 * MIB));
    let other = scratch.back_up(&other);
    let both = [one.to_str().unwrap(), other.to_str().unwrap()];
    aiv_json(&["salvage", both[0], both[1], "--list"]).failed(1, "no_chain");
}
