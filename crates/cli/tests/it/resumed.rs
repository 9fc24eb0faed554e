//! Backups that are killed or stopped, and the same command once more.

use std::fs;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use serde_json::Value;

use crate::support::{MIB, Scratch, aiv_json, names_in, noise, run, start, wait};

/// More than two checkpoints, which come every 64 MiB.
const DISK: u64 = 180 * MIB;

fn args<'a>(disk: &'a str, images: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["backup", disk, "--to", images, "--compress", "none"], more].concat()
}

/// Bytes of what is unfinished in a folder, in however many files.
fn part_len(folder: &Path) -> u64 {
    let parts = names_in(folder).into_iter().filter(|name| name.ends_with(".part"));
    parts.filter_map(|name| fs::metadata(folder.join(name)).ok()).map(|m| m.len()).sum()
}

/// Waits until so much is in the unfinished file, or the program has ended.
fn wait_for_len(child: &mut Child, folder: &Path, len: u64) {
    while part_len(folder) < len && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn restored(scratch: &Scratch, image: &Value) -> Vec<u8> {
    restored_with(scratch, image, &[])
}

fn restored_with(scratch: &Scratch, image: &Value, key: &[&str]) -> Vec<u8> {
    let (image, target) = (image["image"].as_str().unwrap(), scratch.arg("back.raw"));
    aiv_json(&[&["verify", image], key].concat()).ended(0);
    aiv_json(&[&["restore", image, "--to", &target, "--yes"], key].concat()).ended(0);
    fs::read(target).unwrap()
}

#[test]
fn a_backup_that_is_killed_at_any_moment_goes_on_when_it_is_run_again() {
    // Before the first checkpoint, behind it, while it is compared, behind the next.
    check_kills(DISK, &[0, 30, 90, 66, 150], &[], None);
}

#[test]
fn so_does_one_that_is_split() {
    check_kills(DISK, &[25, 90, 70, 150], &["--split", "64M"], None);
}

#[test]
fn so_does_one_with_parity() {
    check_kills(DISK, &[90, 70, 150], &["--parity"], None);
}

#[test]
fn so_does_one_that_is_split_and_authenticated_and_has_parity() {
    let more = ["--split", "64M", "--parity", "--authenticate"];
    check_kills(140 * MIB, &[80, 130], &more, Some("a passphrase"));
}

/// Kills a backup whenever so many MiB, and a random number of bytes, are there, and runs it again.
fn check_kills(len: u64, mibs: &[u64], more: &[&str], passphrase: Option<&str>) {
    let scratch = Scratch::new();
    let disk = scratch.disk("disk.raw", len);
    let key = passphrase.map(|text| scratch.write("pass", text.as_bytes()));
    let key: Vec<&str> = key.iter().flat_map(|pass| ["--password-file", pass.as_str()]).collect();
    let more = &[more, &key[..]].concat()[..];
    let (images, folder) = (scratch.arg("images"), scratch.path("images"));
    let other = scratch.arg("other");
    let whole = aiv_json(&args(&disk, &other, more)).ended(0).json()["images"][0].clone();
    let mut before = 0;
    for &mib in mibs {
        let jitter = u64::from(std::process::id()) * 4099 % MIB;
        let mut child = start(&args(&disk, &images, more));
        wait_for_len(&mut child, &folder, mib * MIB + jitter);
        child.kill().unwrap();
        child.wait().unwrap();
        let finished = names_in(&folder).iter().filter(|name| !name.ends_with(".part")).count();
        if finished > 0 {
            break;
        }
        // What was there is never lost again, but for what follows the last checkpoint.
        assert!(part_len(&folder) + 70 * MIB > before, "{mib}");
        before = part_len(&folder);
    }
    let image = aiv_json(&args(&disk, &images, more)).ended(0).json()["images"][0].clone();
    assert_eq!(image["state_root"], whole["state_root"]);
    assert_eq!(whole["segments"].as_u64() > Some(2), more.contains(&"--split"));
    assert!(restored_with(&scratch, &image, &key) == fs::read(&disk).unwrap());
    let parts = names_in(&folder).into_iter().filter(|name| name.ends_with(".part")).count();
    assert_eq!(parts, 0);
    // Otherwise it was done before it was killed, and this is an increment.
    if image["kind"] == "full" {
        assert_eq!(image["segments"], whole["segments"]);
        let resumed = &image["resumed"];
        assert!(resumed["bytes"].as_u64().unwrap() >= 64 * MIB, "{resumed}");
        assert_eq!(image["verified"], true);
        let notes = image["notes"].to_string();
        assert!(notes.contains("went on with"), "{notes}");
    }
}

/// A backup that got so far and was then sent a signal.
fn interrupted(scratch: &Scratch, disk: &str, signal: &str) -> crate::support::Run {
    let images = scratch.arg("images");
    let mut child = start(&args(disk, &images, &["--rate-limit", "50M"]));
    wait_for_len(&mut child, &scratch.path("images"), 70 * MIB);
    run("kill", &[signal, &child.id().to_string()]);
    wait(child)
}

#[test]
fn ctrl_c_keeps_what_is_stored_and_says_that_the_next_backup_goes_on_from_there() {
    let scratch = Scratch::new();
    let disk = scratch.disk("disk.raw", DISK);
    let images = scratch.arg("images");
    let message = interrupted(&scratch, &disk, "-INT").failed(130, "canceled");
    assert!(message.contains("the next one goes on from there"), "{message}");
    assert_eq!(names_in(&scratch.path("images")).len(), 1);
    // Another disk in its place: what was stored is of no use, and says so.
    let mut bytes = fs::read(&disk).unwrap();
    bytes[usize::try_from(5 * MIB).unwrap()] ^= 1;
    fs::write(&disk, &bytes).unwrap();
    let image = aiv_json(&args(&disk, &images, &[])).ended(0).json()["images"][0].clone();
    assert_eq!(image["resumed"], Value::Null);
    let why = image["not_resumed"].as_str().unwrap();
    assert!(why.contains("the source has changed since, at byte 5242880"), "{why}");
    assert!(restored(&scratch, &image) == bytes);
}

#[test]
fn a_plain_file_at_rest_is_not_read_again_and_no_resume_begins_anew() {
    let scratch = Scratch::new();
    let disk = scratch.write("disk.raw", &noise(DISK, 3));
    let images = scratch.arg("images");
    // A file counts as being at rest after three seconds.
    std::thread::sleep(Duration::from_millis(3100));
    interrupted(&scratch, &disk, "-INT").failed(130, "canceled");
    let part = scratch.images().remove(0);
    let kept = fs::read(scratch.path("images").join(&part)).unwrap();
    let image = aiv_json(&args(&disk, &images, &[])).ended(0).json()["images"][0].clone();
    assert_eq!(image["resumed"]["file"], part.as_str());
    assert_eq!(image["resumed"]["blocks_compared"], 0);
    assert!(image["bytes_read"].as_u64().unwrap() < DISK - 64 * MIB);
    assert!(restored(&scratch, &image) == fs::read(&disk).unwrap());
    let other = scratch.arg("other");
    fs::create_dir(&other).unwrap();
    fs::write(Path::new(&other).join(&part), kept).unwrap();
    let image = aiv_json(&args(&disk, &other, &["--no-resume"])).ended(0).json();
    let image = image["images"][0].clone();
    assert_eq!((&image["resumed"], &image["bytes_read"]), (&Value::Null, &DISK.into()));
    assert!(image["notes"].to_string().contains(&part), "{image}");
}

#[test]
fn a_sealed_backup_that_was_stopped_goes_on_with_what_opens_it() {
    let scratch = Scratch::new();
    let disk = scratch.disk("disk.raw", 96 * MIB);
    let (images, folder) = (scratch.arg("images"), scratch.path("images"));
    let [pass, other] =
        ["one of two", "the other one"].map(|text| scratch.write(text, text.as_bytes()));
    let with = |pass: &str, more: &[&str]| -> Vec<String> {
        let all = args(&disk, &images, &["--seal", "--password-file", pass]);
        [&all[..], more].concat().into_iter().map(str::to_owned).collect()
    };
    let run_with = |pass: &str| {
        let all = with(pass, &[]);
        aiv_json(&all.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let slow = with(&pass, &["--rate-limit", "15M"]);
    let mut child = start(&slow.iter().map(String::as_str).collect::<Vec<_>>());
    wait_for_len(&mut child, &folder, 67 * MIB);
    run("kill", &["-INT", &child.id().to_string()]);
    let message = wait(child).failed(130, "canceled");
    assert!(message.contains("the next one goes on from there"), "{message}");
    let part = names_in(&folder).remove(0);
    let image = run_with(&pass).ended(0).json()["images"][0].clone();
    assert_eq!(
        (&image["resumed"]["file"], &image["verified"]),
        (&part.as_str().into(), &true.into())
    );
    assert!(image["resumed"]["blocks_compared"].as_u64().unwrap() > 1000, "{image}");
    let (file, back) = (image["image"].as_str().unwrap(), scratch.arg("back.raw"));
    aiv_json(&["restore", file, "--to", &back, "--password-file", &other]).failed(6, "wrong_key");
    aiv_json(&["restore", file, "--to", &back, "--password-file", &pass]).ended(0);
    assert!(fs::read(back).unwrap() == fs::read(&disk).unwrap());
}
