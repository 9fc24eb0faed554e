//! Sources that are in use: their filesystems are frozen while they are read, and thawed whatever
//! happens.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle, sleep};
use std::time::Duration;

use crate::support::{
    Loop, MIB, Mount, Run, Scratch, aiv, aiv_json, noise, run, start, wait, wait_for_part,
};

/// A filesystem on a loop device, mounted for writing.
struct Live {
    mount: Mount,
    device: Loop,
    scratch: Scratch,
}

impl Live {
    fn new(make: &[&str], mib: u64) -> Self {
        let scratch = Scratch::new();
        let disk = scratch.write("disk.raw", b"");
        File::options().write(true).open(&disk).unwrap().set_len(mib * MIB).unwrap();
        run(make[0], &[&make[1..], &[disk.as_str()]].concat());
        let device = Loop::new(disk.as_ref(), &[]);
        Self { mount: Mount::new(device.arg(), "rw"), device, scratch }
    }

    fn ext4() -> Self {
        Self::new(&["mkfs.ext4", "-q"], 64)
    }

    /// With enough in it that a backup at [`SLOW`] takes a while.
    fn full() -> Self {
        let live = Self::ext4();
        fs::write(live.mount.path().join("much"), noise(24 * MIB, 5)).unwrap();
        run("sync", &["--file-system", live.mount.path().to_str().unwrap()]);
        live
    }

    fn backup(&self, more: &[&str]) -> Run {
        aiv_json(&self.words(more))
    }

    fn words<'a>(&'a self, more: &[&'a str]) -> Vec<String> {
        let images = self.scratch.arg("images");
        let words = ["backup", self.device.arg(), "--to", images.as_str(), "--freeze"];
        words.iter().chain(more).map(|word| (*word).to_owned()).collect()
    }

    /// A backup that keeps the filesystem frozen for seconds, and is at it.
    fn start_slowly(&self, more: &[&str]) -> Child {
        let child = start(&self.words(&[&["--rate-limit", "4M"], more].concat()));
        wait_for_part(&self.scratch.path("images"));
        child
    }

    /// Writes to the filesystem, and tells when that is done.
    fn write(&self, name: &str) -> mpsc::Receiver<()> {
        let path = self.mount.path().join(name);
        let (send, receive) = mpsc::channel();
        thread::spawn(move || {
            fs::write(path, b"written").unwrap();
            send.send(()).unwrap();
        });
        receive
    }

    fn assert_frozen(&self, name: &str) -> mpsc::Receiver<()> {
        let written = self.write(name);
        assert!(written.recv_timeout(Duration::from_millis(300)).is_err(), "it is not frozen");
        written
    }

    fn assert_thawed(&self) {
        self.write("afterwards").recv_timeout(Duration::from_secs(20)).expect("it is still frozen");
    }

    fn guards(&self) -> Vec<i32> {
        let mount = self.mount.path().to_str().unwrap().to_owned();
        let is_guard = |pid: &i32| {
            let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<_> = words.split(|byte| *byte == 0).collect();
            words.contains(&b"freeze-guard".as_slice()) && words.contains(&mount.as_bytes())
        };
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        numbers.filter(is_guard).collect()
    }
}

/// What can be held against a backup that failed.
fn assert_no_image(live: &Live) {
    assert_eq!(live.scratch.images(), [""; 0]);
}

fn kill(signal: &str, pids: &[i32]) {
    let pids = pids.iter().map(ToString::to_string);
    run("kill", &["-s".to_owned(), signal.to_owned()].into_iter().chain(pids).collect::<Vec<_>>());
}

fn pid_of(child: &Child) -> i32 {
    i32::try_from(child.id()).unwrap()
}

/// Writes one file after the other, each durable before the next.
struct Writer {
    stop: Arc<AtomicBool>,
    /// Files that are durable.
    done: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    fn new(folder: &Path) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (folder, stopped, counter) =
            (folder.to_path_buf(), Arc::clone(&stop), Arc::clone(&done));
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let number = counter.load(Ordering::Relaxed);
                let mut file = File::create(folder.join(number.to_string())).unwrap();
                file.write_all(&content(number)).unwrap();
                file.sync_all().unwrap();
                if number % 7 == 3 {
                    fs::remove_file(folder.join((number - 1).to_string())).unwrap();
                }
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
        let writer = Self { stop, done, thread: Some(thread) };
        while writer.count() < 20 {
            sleep(Duration::from_millis(5));
        }
        writer
    }

    fn count(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    fn finish(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

fn content(number: u64) -> Vec<u8> {
    noise(10_000 + number % 13 * 1000, number)
}

/// Asserts that a restored folder is what the writer had made at one moment, after it had made
/// `before` files and before it had made more than `after`.
fn assert_moment(folder: &Path, before: u64, after: u64) {
    let has = |number: u64| folder.join(number.to_string()).exists();
    let newest = (0..after + 2).rev().find(|number| has(*number)).expect("files");
    assert!(before <= newest + 1, "{before} files were durable, {newest} is the newest");
    for number in 0..newest {
        // The file in front of one in seven is removed when that one is durable.
        if number % 7 == 2 && number + 1 < newest {
            assert!(!has(number), "{number} was removed");
        } else if number % 7 != 2 {
            let path = folder.join(number.to_string());
            assert!(fs::read(&path).unwrap() == content(number), "{number} is torn");
        }
    }
    let mut last = Vec::new();
    File::open(folder.join(newest.to_string())).unwrap().read_to_end(&mut last).unwrap();
    // What was under way may be there in part, and nothing else.
    let whole = content(newest);
    assert!(last == whole || last.iter().zip(&whole).all(|(a, b)| a == b || *a == 0));
}

/// A frozen backup under load, restored, checked by `check`, and compared.
fn under_load(make: &[&str], mib: u64, check: &[&str]) -> Run {
    let live = Live::new(make, mib);
    let writer = Writer::new(live.mount.path());
    let before = writer.count();
    let done = live.backup(&["--verify"]).ended(0);
    let after = writer.count();
    live.assert_thawed();
    writer.finish();
    let json = done.json();
    let image = &json["images"][0];
    assert_eq!(image["consistency"], "crash-consistent", "{image}");
    assert_eq!(image["frozen"][0], live.mount.path().to_str().unwrap(), "{image}");
    // Two filesystems of one identity are not mounted at once.
    let Live { mount, device, scratch } = live;
    drop(mount);
    drop(device);
    let restored = scratch.arg("restored.raw");
    let latest = scratch.arg("images") + "@latest";
    aiv(&["restore", latest.as_str(), "--to", restored.as_str()]).ended(0);
    let device = Loop::new(restored.as_ref(), &[]);
    assert_moment(Mount::new(device.arg(), "rw").path(), before, after);
    drop(device);
    run(check[0], &[&check[1..], &[restored.as_str()]].concat());
    done
}

#[test]
fn a_frozen_ext4_is_one_moment_of_a_busy_filesystem() {
    let done = under_load(&["mkfs.ext4", "-q"], 96, &["e2fsck", "-fn"]).json();
    // Frozen, its journal is empty.
    assert_eq!(done["images"][0]["partitions"][0]["capture"], "used", "{done}");
    assert_eq!(done["images"][0]["notes"], serde_json::json!([]), "{done}");
}

#[test]
fn a_frozen_xfs_is_one_moment_of_a_busy_filesystem() {
    let done = under_load(&["mkfs.xfs", "-q"], 300, &["xfs_repair", "-n"]).json();
    // Frozen, its log holds nothing but the superblock.
    assert_eq!(done["images"][0]["partitions"][0]["capture"], "used", "{done}");
}

#[test]
fn a_frozen_btrfs_is_one_moment_of_a_busy_filesystem() {
    under_load(&["mkfs.btrfs", "-q"], 128, &["btrfs", "check", "--readonly"]);
}

#[test]
fn a_killed_backup_leaves_nothing_frozen() {
    let live = Live::full();
    let mut child = live.start_slowly(&[]);
    let written = live.assert_frozen("meanwhile");
    kill("KILL", &[pid_of(&child)]);
    written.recv_timeout(Duration::from_secs(20)).expect("thawed soon after");
    child.wait().unwrap();
    // Only the unfinished file is left.
    assert!(live.scratch.images().iter().all(|name| name.ends_with(".part")));
    live.backup(&[]).ended(0);
}

#[test]
fn a_canceled_backup_thaws_and_leaves_no_image() {
    for signal in ["INT", "TERM"] {
        let live = Live::full();
        let child = live.start_slowly(&[]);
        let written = live.assert_frozen("meanwhile");
        // As when a terminal is closed, or a service is stopped. The guard goes when the backup does.
        let guards = live.guards();
        assert_eq!(guards.len(), 1);
        kill(signal, &[guards[0], pid_of(&child)]);
        written.recv_timeout(Duration::from_secs(20)).expect("thawed soon after");
        wait(child).failed(130, "canceled");
        assert_no_image(&live);
    }
}

#[test]
fn when_the_limit_passes_everything_is_thawed_and_no_image_is_left() {
    let live = Live::full();
    let child = live.start_slowly(&["--freeze-limit", "3"]);
    let written = live.assert_frozen("meanwhile");
    written.recv_timeout(Duration::from_secs(20)).expect("thawed after a while");
    let message = wait(child).failed(1, "freeze_expired");
    assert!(message.contains("thawed after 3 s"), "{message}");
    assert_no_image(&live);
}

#[test]
fn a_killed_guard_and_a_thaw_by_somebody_else_end_the_backup_without_an_image() {
    for by_others in [false, true] {
        let live = Live::full();
        let child = live.start_slowly(&[]);
        let written = live.assert_frozen("meanwhile");
        if by_others {
            run("fsfreeze", &["--unfreeze", live.mount.path().to_str().unwrap()]);
        } else {
            let guards = live.guards();
            assert_eq!(guards.len(), 1);
            kill("KILL", &guards);
        }
        written.recv_timeout(Duration::from_secs(20)).expect("thawed");
        wait(child).failed(1, "freeze_lost");
        live.assert_thawed();
        assert_no_image(&live);
    }
}

#[test]
fn what_cannot_be_frozen_is_named_and_what_was_frozen_before_is_thawed() {
    let scratch = Scratch::new();
    let disk = scratch.write("disk.raw", b"");
    File::options().write(true).open(&disk).unwrap().set_len(96 * MIB).unwrap();
    let parts = [(MIB, 48 * MIB), (50 * MIB, 32 * MIB)];
    let devices = parts.map(|part| Loop::part(disk.as_ref(), part, false));
    run("mkfs.ext4", &["-q", devices[0].arg()]);
    run("mkfs.ntfs", &["-q", "-F", devices[1].arg()]);
    let ext4 = Mount::new(devices[0].arg(), "rw");
    let backup = ["backup", disk.as_str(), "--freeze", "--to", &scratch.arg("images")];
    aiv_json(&backup).ended(0);
    // A filesystem in a program, over a device: nothing in the kernel could hold it still.
    let ntfs = Mount::program("ntfs-3g", devices[1].arg());
    let message = aiv_json(&backup).failed(1, "cannot_freeze");
    assert!(message.contains(ntfs.path().to_str().unwrap()), "{message}");
    for mount in [&ext4, &ntfs] {
        fs::write(mount.path().join("afterwards"), b"written").unwrap();
    }
    assert_eq!(scratch.images().len(), 1);
}

#[test]
fn whoever_writes_past_the_filesystems_is_not_frozen_with_them() {
    let live = Live::ext4();
    // As a virtual machine locks the disk it has open for writing.
    let file = live.scratch.arg("disk.raw");
    let mut machine = Command::new("qemu-io")
        .args(["-f", "raw", &file])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    machine.stdin.as_mut().unwrap().write_all(b"length\n").unwrap();
    machine.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    let images = live.scratch.arg("images");
    let ended = aiv_json(&["backup", &file, "--freeze", "--to", &images]);
    machine.kill().unwrap();
    machine.wait().unwrap();
    let message = ended.failed(5, "source_in_use");
    assert!(message.contains("virtual machine") && !message.contains("mounted"), "{message}");
    live.assert_thawed();
    aiv_json(&["backup", &file, "--freeze", "--to", &images]).ended(0);
}

#[test]
fn one_device_of_several_under_a_btrfs_is_refused() {
    let scratch = Scratch::new();
    let devices = ["one.raw", "two.raw"].map(|name| {
        let disk = scratch.write(name, b"");
        File::options().write(true).open(&disk).unwrap().set_len(128 * MIB).unwrap();
        Loop::new(disk.as_ref(), &[])
    });
    run("mkfs.btrfs", &["-q", "-d", "single", devices[0].arg(), devices[1].arg()]);
    run("btrfs", &["device", "scan", devices[0].arg(), devices[1].arg()]);
    let mount = Mount::new(devices[0].arg(), "rw");
    for device in &devices {
        let backup = ["backup", device.arg(), "--freeze", "--to", &scratch.arg("images")];
        let message = aiv_json(&backup).failed(5, "on_several_devices");
        assert!(message.contains(mount.path().to_str().unwrap()), "{message}");
    }
    assert_eq!(scratch.images(), [""; 0]);
}

#[test]
fn whoever_would_wait_for_itself_is_refused() {
    let live = Live::ext4();
    let inside = live.mount.arg("images");
    let device = live.device.arg();
    let words = ["backup", device, "--freeze", "--to", inside.as_str()];
    aiv_json(&words).failed(5, "destination_on_source");
    // A report that is written to what is frozen.
    let report = File::create(live.mount.path().join("report.json")).unwrap();
    let ended = Command::new(env!("CARGO_BIN_EXE_aiv"))
        .arg("--json")
        .args(live.words(&[]))
        .stdin(Stdio::null())
        .stdout(report)
        .status()
        .unwrap();
    assert_eq!(ended.code(), Some(5));
    let said = fs::read_to_string(live.mount.path().join("report.json")).unwrap();
    assert!(said.contains("freezes_itself") && said.contains("report.json"), "{said}");
    assert_no_image(&live);
}

#[test]
fn what_was_cached_of_the_device_before_does_not_hide_what_was_written_since() {
    let live = Live::ext4();
    let file = live.mount.path().join("file");
    fs::write(&file, noise(8 * MIB, 1)).unwrap();
    run("sync", &["--file-system", live.mount.path().to_str().unwrap()]);
    let open = File::open(live.device.path()).unwrap();
    let mut cached = vec![0; MIB as usize];
    while (&open).read(&mut cached).unwrap() > 0 {}
    // In place, past the cache of the device.
    let mut writing = File::options().write(true).open(&file).unwrap();
    writing.write_all(&noise(8 * MIB, 2)).unwrap();
    live.backup(&[]).ended(0);
    let restored = live.scratch.arg("restored.raw");
    let latest = live.scratch.arg("images") + "@latest";
    aiv(&["restore", latest.as_str(), "--to", restored.as_str()]).ended(0);
    let device = Loop::new(restored.as_ref(), &[]);
    let mount = Mount::new(device.arg(), "ro");
    assert!(fs::read(mount.path().join("file")).unwrap() == noise(8 * MIB, 2));
}

#[test]
fn what_is_no_logical_volume_has_no_snapshots_and_one_way_is_chosen() {
    let live = Live::ext4();
    let images = live.scratch.arg("images");
    let file = live.scratch.arg("disk.raw");
    for source in [live.device.arg(), file.as_str()] {
        let words = ["backup", source, "--to", &images, "--snapshot"];
        let message = aiv_json(&words).failed(5, "no_snapshots");
        assert!(message.contains(source), "{message}");
    }
    for wrong in
        [&["--freeze", "--live"][..], &["--freeze", "--snapshot"], &["--post-thaw", "true"]]
    {
        let words = [&["backup", &file, "--to", &images][..], wrong].concat();
        aiv_json(&words).failed(2, "usage");
    }
    assert_no_image(&live);
}

/// A shell command that adds a word to a file.
fn note(file: &Path, word: &str) -> String {
    format!("echo {word} $AIV_HOOK $AIV_SOURCE >> {}", file.display())
}

fn notes(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn hooks_run_around_the_freeze_and_are_reported() {
    let live = Live::ext4();
    let file: PathBuf = live.scratch.path("notes");
    // Each writes to the filesystem, which it can only before and after.
    let inside = live.mount.arg("hooked");
    let hook = |word| format!("touch {inside}-{word} && {}", note(&file, word));
    let (pre, post) = (hook("a"), hook("b"));
    let done = live.backup(&["--pre-freeze", &pre, "--post-thaw", &post]).ended(0).json();
    let device = live.device.arg();
    assert_eq!(notes(&file), [format!("a pre-freeze {device}"), format!("b post-thaw {device}")]);
    let hooks = &done["images"][0]["hooks"];
    assert_eq!((&hooks[0]["hook"], &hooks[1]["hook"]), (&"pre-freeze".into(), &"post-thaw".into()));
    assert!(hooks[0]["failure"].is_null() && hooks[1]["failure"].is_null(), "{hooks}");
    // A failure afterwards is a warning: the image is what it should be.
    let done = live.backup(&["--post-thaw", "echo still down >&2; exit 7"]).ended(3).json();
    let warnings = done["warnings"].to_string();
    assert!(warnings.contains("post-thaw") && warnings.contains("still down"), "{warnings}");
}

#[test]
fn without_the_first_hook_there_is_no_backup_and_the_second_runs_whatever_happens() {
    let live = Live::full();
    let file = live.scratch.path("notes");
    let post = note(&file, "post");
    let failing = ["--pre-freeze", "echo busy; exit 4", "--post-thaw", &post];
    let message = live.backup(&failing).failed(1, "hook_failed");
    assert!(message.contains("exit status: 4") && message.contains("busy"), "{message}");
    assert_eq!(notes(&file).len(), 1);
    // It hangs, and so does what it started.
    let hanging = ["--pre-freeze", "sleep 1000 & wait", "--hook-limit", "3", "--post-thaw", &post];
    let message = live.backup(&hanging).failed(1, "hook_failed");
    assert!(message.contains("within 3 s"), "{message}");
    assert_eq!(notes(&file).len(), 2);
    // The freeze itself fails later.
    let child = live.start_slowly(&["--freeze-limit", "3", "--post-thaw", &post]);
    wait(child).failed(1, "freeze_expired");
    assert_eq!(notes(&file).len(), 3);
    // Both fail, and neither hides the other.
    let child = live.start_slowly(&["--freeze-limit", "3", "--post-thaw", "exit 9"]);
    let message = wait(child).failed(1, "freeze_expired");
    assert!(message.contains("exit status: 9") && message.contains("thawed after"), "{message}");
    assert_no_image(&live);
}

#[test]
fn a_source_nobody_writes_to_is_not_frozen_and_stays_an_offline_one() {
    let scratch = Scratch::new();
    let disk = scratch.disk("disk.raw", 2 * MIB);
    let file = scratch.path("notes");
    let hook = note(&file, "pre");
    let images = scratch.arg("images");
    let words = ["backup", &disk, "--to", &images, "--freeze", "--pre-freeze", &hook];
    let done = aiv_json(&words).ended(0).json();
    assert_eq!(done["images"][0]["consistency"], "offline", "{done}");
    assert!(done["images"][0]["frozen"].is_null() && notes(&file).is_empty(), "{done}");
}
