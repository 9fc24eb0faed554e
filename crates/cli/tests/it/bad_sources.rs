//! Sources that must not or cannot be backed up, and destinations that fail.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use crate::support::{
    Loop, MIB, Mount, Scratch, aiv, aiv_json, names_in, noise, run, start, wait, wait_for_part,
};

/// Everything about a file that a write would change.
fn state(path: &Path) -> (Vec<u8>, std::time::SystemTime) {
    (fs::read(path).unwrap(), fs::metadata(path).unwrap().modified().unwrap())
}

#[test]
fn a_source_is_never_opened_for_writing_and_never_changes() {
    let scratch = Scratch::new();
    let disk = scratch.disk("disk.raw", 4 * MIB);
    let before = state(disk.as_ref());
    let device = Loop::new(disk.as_ref(), &[]);
    let (log, images) = (scratch.arg("strace.log"), scratch.arg("images"));
    let aiv = env!("CARGO_BIN_EXE_aiv");
    let trace = ["-f", "-e", "trace=open,openat,openat2", "-o", log.as_str(), aiv, "backup"];
    let backup = [disk.as_str(), device.arg(), "--verify", "--to", images.as_str()];
    run("strace", &[trace.as_slice(), backup.as_slice()].concat());

    let log = fs::read_to_string(log).unwrap();
    for source in [disk.as_str(), device.arg()] {
        let quoted = format!("\"{source}\"");
        let opened: Vec<&str> = log.lines().filter(|line| line.contains(&quoted)).collect();
        assert!(!opened.is_empty(), "{source} was opened under another name?\n{log}");
        for line in opened {
            let writes = ["O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC", "O_APPEND"];
            assert!(!writes.iter().any(|flag| line.contains(flag)), "{line}");
        }
    }
    drop(device);
    assert_eq!(state(disk.as_ref()), before);
    assert_eq!(scratch.images().len(), 2);
}

#[test]
fn a_source_mounted_for_writing_is_refused_unless_live() {
    let scratch = Scratch::new();
    let disk = scratch.write("disk.raw", &[0; 8 * MIB as usize]);
    run("mkfs.ext4", &["-q", disk.as_str()]);
    let device = Loop::new(disk.as_ref(), &[]);
    let mount = Mount::new(device.arg(), "rw");
    let images = scratch.arg("images");
    let backup = ["backup", device.arg(), "--to", images.as_str()];
    let message = aiv_json(&backup).failed(5, "source_in_use");
    assert!(message.contains(mount.path().to_str().unwrap()), "{message}");
    assert_eq!(scratch.images(), [""; 0]);
    // The file behind the device is in use just the same.
    aiv_json(&["backup", disk.as_str(), "--to", images.as_str()]).failed(5, "source_in_use");

    let run = aiv_json(&[backup.as_slice(), &["--live"]].concat()).ended(3);
    let image = &run.json()["images"][0];
    assert_eq!(image["consistency"], "inconsistent");
    assert!(image["warnings"][0].as_str().unwrap().contains("inconsistent"), "{image}");
    assert!(run.stderr.contains("warning: "), "{}", run.stderr);
    let latest = format!("{images}@latest");
    let info = aiv_json(&["info", latest.as_str()]).ended(0).json();
    assert_eq!(info["consistency"], "inconsistent");
}

#[test]
fn a_source_mounted_read_only_is_backed_up() {
    let scratch = Scratch::new();
    let disk = scratch.write("disk.raw", &[0; 8 * MIB as usize]);
    run("mkfs.ext4", &["-q", disk.as_str()]);
    let device = Loop::new(disk.as_ref(), &[]);
    let _mount = Mount::new(device.arg(), "ro");
    let args = ["backup", device.arg(), "--to", &scratch.arg("images")];
    let json = aiv_json(&args).ended(0).json();
    assert_eq!(json["images"][0]["consistency"], "offline");
    assert_eq!(json["images"][0]["partitions"][0]["capture"], "used");
}

#[test]
fn the_folder_of_images_must_not_lie_on_the_source() {
    let scratch = Scratch::new();
    let disk = scratch.write("disk.raw", &[0; 8 * MIB as usize]);
    run("mkfs.ext4", &["-q", disk.as_str()]);
    let device = Loop::new(disk.as_ref(), &[]);
    let mount = Mount::new(device.arg(), "rw");
    for source in [device.arg(), disk.as_str()] {
        let args = ["backup", source, "--live", "--to", &mount.arg("images")];
        aiv_json(&args).failed(5, "destination_on_source");
    }
}

#[test]
fn a_source_that_shrinks_is_reported_and_leaves_nothing_behind() {
    let scratch = Scratch::new();
    let earlier = scratch.image();
    let disk = scratch.disk("shrinking.raw", 8 * MIB);
    let images = scratch.arg("images");
    let child = start(&["backup", disk.as_str(), "--to", images.as_str(), "--rate-limit", "2M"]);
    wait_for_part(images.as_ref());
    File::options().write(true).open(&disk).unwrap().set_len(4 * MIB).unwrap();
    let message = wait(child).failed(1, "source_shrank");
    assert!(message.contains(&format!("it had {} bytes", 8 * MIB)), "{message}");
    assert_eq!(scratch.images(), [earlier.file_name().unwrap().to_str().unwrap()]);
    aiv(&["verify", images.as_str()]).ended(0);
}

#[test]
fn a_source_that_nobody_seemed_to_use_and_somebody_writes_to_leaves_no_image() {
    let scratch = Scratch::new();
    let images = scratch.arg("images");
    let written = scratch.disk("written.raw", 8 * MIB);
    let shown = scratch.disk("shown.raw", 8 * MIB);
    let device = Loop::new(shown.as_ref(), &[]);
    // The last block was read, or was not: both is one point of two moments.
    for (source, at) in [(written.as_str(), 0), (device.arg(), 7 * MIB)] {
        let child = start(&["backup", source, "--to", images.as_str(), "--rate-limit", "2M"]);
        wait_for_part(images.as_ref());
        let target = File::options().write(true).open(source).unwrap();
        target.write_all_at(&[7; 4096], at).unwrap();
        target.sync_all().unwrap();
        let message = wait(child).failed(1, "source_changed");
        assert!(message.contains(source), "{message}");
        assert_eq!(scratch.images(), [""; 0]);
    }
    // Whoever wants it as it is gets it, and a source at rest is backed up.
    let child = start(&["backup", &written, "--live", "--to", &images, "--rate-limit", "4M"]);
    wait_for_part(images.as_ref());
    File::options().write(true).open(&written).unwrap().write_all_at(&[8; 4096], 0).unwrap();
    wait(child).ended(0);
    aiv(&["backup", device.arg(), "--to", images.as_str()]).ended(0);
}

#[test]
fn a_full_destination_leaves_earlier_images_intact_and_nothing_else() {
    let scratch = Scratch::new();
    let memory = Mount::memory(4 * MIB);
    let images = memory.arg("images");
    let small = scratch.disk("small.raw", MIB);
    aiv(&["backup", small.as_str(), "--to", images.as_str()]).ended(0);
    let earlier = names_in(images.as_ref());

    let large = scratch.disk("large.raw", 8 * MIB);
    let backup = ["backup", large.as_str(), "--to", images.as_str()];
    aiv_json(&backup).failed(1, "disk_full");
    let run = aiv(&backup).ended(1);
    assert!(run.stderr.contains("earlier images are intact"), "{}", run.stderr);
    assert_eq!(names_in(images.as_ref()), earlier);
    aiv(&["verify", images.as_str()]).ended(0);
}

#[test]
fn a_destination_that_cannot_be_written_is_named() {
    let scratch = Scratch::new();
    let disk = scratch.disk("disk.raw", MIB);
    let orphan = scratch.arg("not/there");
    let message = aiv_json(&["backup", &disk, "--to", &orphan]).failed(1, "not_found");
    assert!(message.contains(&orphan), "{message}");
    let message = aiv_json(&["backup", &disk, "--to", &disk]).failed(1, "not_a_folder");
    assert!(message.contains("disk.raw"), "{message}");

    let memory = Mount::memory(MIB);
    run("mount", &["-o", "remount,ro", memory.path().to_str().unwrap()]);
    aiv_json(&["backup", &disk, "--to", &memory.arg("")]).failed(1, "read_only");
}

#[test]
fn an_empty_source_and_one_that_is_no_disk_are_refused() {
    let scratch = Scratch::new();
    let (empty, images) = (scratch.write("empty.raw", &[]), scratch.arg("images"));
    aiv_json(&["backup", &empty, "--to", &images]).failed(5, "source_empty");
    aiv_json(&["backup", "/dev/null", "--to", &images]).failed(1, "not_a_disk");
    let message = aiv_json(&["backup", "/dev/nosuch", "--to", &images]).failed(1, "not_found");
    assert_eq!(message.matches("/dev/nosuch").count(), 1, "{message}");
    assert_eq!(scratch.images(), [""; 0]);
}

#[test]
fn one_failing_source_does_not_stop_the_others() {
    let scratch = Scratch::new();
    let disks = [scratch.disk("a.raw", MIB), scratch.disk("b.raw", MIB)];
    let images = scratch.arg("images");
    let args = ["backup", &disks[0], "/dev/nosuch", &disks[1], "--to", &images];
    let run = aiv_json(&args);
    run.failed(1, "not_found");
    let json = run.json();
    let done = json["images"].as_array().unwrap();
    assert_eq!(done.len(), 3, "{json}");
    assert_eq!(done[1]["error"]["code"], "not_found");
    assert!(done[0]["image"].is_string() && done[2]["image"].is_string());
    // Both belong to one group of points.
    let group = |at: usize| {
        aiv_json(&["info", done[at]["image"].as_str().unwrap()]).ended(0).json()["group"].clone()
    };
    assert_eq!((group(0), group(2)), (json["group"].clone(), json["group"].clone()));
    // The same for people: the account of what was done, and the failure.
    let run = aiv(&args).ended(1);
    assert!(run.stdout.contains("a.raw -> ") && run.stdout.contains("b.raw -> "), "{}", run.stdout);
    assert!(run.stderr.contains("/dev/nosuch"), "{}", run.stderr);
}

#[test]
fn a_rate_limit_slows_a_backup_down() {
    let scratch = Scratch::new();
    let disk = scratch.write("disk.raw", &noise(3 * MIB, 1));
    let args = ["backup", &disk, "--to", &scratch.arg("images"), "--rate-limit", "2M"];
    let json = aiv_json(&args).ended(0).json();
    let elapsed = json["images"][0]["elapsed_ms"].as_u64().unwrap();
    // A burst of half a second is free.
    assert!((900..20_000).contains(&elapsed), "{elapsed}");
}

#[test]
fn what_a_killed_backup_left_is_removed_by_the_next_one() {
    let scratch = Scratch::new();
    let disk = scratch.disk("disk.raw", 8 * MIB);
    let images = scratch.arg("images");
    let mut child = start(&["backup", &disk, "--to", &images, "--rate-limit", "2M"]);
    wait_for_part(images.as_ref());
    let part = scratch.path("images").join(&scratch.images()[0]);
    while fs::metadata(&part).unwrap().len() == 0 {
        sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(part.exists());
    let json = aiv_json(&["backup", &disk, "--to", &images]).ended(0).json();
    let notes = json["images"][0]["notes"].to_string();
    assert!(notes.contains(".part"), "{notes}");
    assert_eq!(scratch.images().len(), 1);
}

#[test]
fn unreadable_sectors_are_named_kept_as_such_and_warned_of_at_every_step() {
    let scratch = Scratch::new();
    let disk = scratch.disk("disk.raw", 4 * MIB);
    let (images, target) = (scratch.arg("images"), scratch.arg("target.raw"));
    let latest = format!("{images}@latest");
    {
        // Without the page cache in between, a loop device has nothing but errors where the
        // file behind it was cut off.
        let device = Loop::new(disk.as_ref(), &["--direct-io=on"]);
        File::options().write(true).open(&disk).unwrap().set_len(3 * MIB).unwrap();
        let run = aiv_json(&["backup", device.arg(), "--to", &images]).ended(3);
        let image = &run.json()["images"][0];
        assert_eq!(image["unreadable"], serde_json::json!([{"start": 3 * MIB, "size": MIB}]));
        assert!(run.stderr.contains("unreadable: 1048576 bytes"), "{}", run.stderr);
    }
    aiv(&["verify", &images]).ended(0);
    let info = aiv_json(&["info", &latest]).ended(0).json();
    assert_eq!(info["source_errors"][0]["start"], 3 * MIB);
    let json = aiv_json(&["restore", &latest, "--to", &target]).ended(3).json();
    assert_eq!(json["unreadable"], serde_json::json!([{"start": 3 * MIB, "size": MIB}]));
    let restored = fs::read(&target).unwrap();
    assert_eq!(restored[..3 * MIB as usize], fs::read(&disk).unwrap());
    let lost = &restored[3 * MIB as usize..];
    assert!(lost.chunks(16).all(|chunk| chunk == b"!AIV-UNREADABLE!"));
}

#[test]
fn a_path_that_is_no_text_works_like_any_other() {
    let scratch = Scratch::new();
    let disk = scratch.path("").join(OsStr::from_bytes(b"d\xffisk.raw"));
    fs::write(&disk, noise(MIB, 3)).unwrap();
    let images = scratch.path("").join(OsStr::from_bytes(b"im\xfeages"));
    let words = |args: &[&str], paths: &[&Path]| {
        let args = args.iter().map(OsStr::new).chain(paths.iter().map(|p| p.as_os_str()));
        args.map(OsStr::to_owned).collect::<Vec<_>>()
    };
    let run = aiv_json(&words(&["backup", "--to"], &[&images, &disk])).ended(0);
    assert!(run.json()["images"][0]["source"].as_str().unwrap().contains("d\u{fffd}isk.raw"));
    let latest = [images.as_os_str().as_bytes(), b"@latest"].concat();
    let latest = Path::new(OsStr::from_bytes(&latest));
    aiv_json(&words(&["verify"], &[&images])).ended(0);
    aiv_json(&words(&["list"], &[&images])).ended(0);
    aiv_json(&words(&["info"], &[latest])).ended(0);
    let target = scratch.path("").join(OsStr::from_bytes(b"t\xffarget"));
    aiv_json(&words(&["restore", "--to"], &[&target, latest])).ended(0);
    assert_eq!(fs::read(target).unwrap(), noise(MIB, 3));
}
