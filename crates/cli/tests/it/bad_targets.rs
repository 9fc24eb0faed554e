//! Targets that must not be overwritten, and the question before one is.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{Loop, MIB, Mount, Scratch, aiv, aiv_json, noise, run};

/// An image of two MiB, and a function that restores it to a target with `--yes`.
struct Setup {
    scratch: Scratch,
    image: String,
}

impl Setup {
    fn new() -> Self {
        let scratch = Scratch::new();
        let image = scratch.image().to_str().unwrap().to_owned();
        Self { scratch, image }
    }

    fn refuses(&self, target: &str, code: &str) -> String {
        let before = fs::read(target).unwrap();
        let message = aiv_json(&["restore", &self.image, "--to", target, "--yes"]).failed(5, code);
        assert_eq!(fs::read(target).unwrap(), before, "refused, and yet written");
        message
    }

    fn source(&self) -> Vec<u8> {
        fs::read(self.scratch.path("disk.raw")).unwrap()
    }

    /// A device of `len` bytes of noise.
    fn device(&self, len: u64, options: &[&str]) -> Loop {
        let file = self.scratch.write("target.raw", &noise(len, 99));
        Loop::new(file.as_ref(), options)
    }
}

#[test]
fn a_target_that_is_too_small_is_refused_with_both_sizes() {
    let setup = Setup::new();
    let device = setup.device(MIB, &[]);
    let message = setup.refuses(device.arg(), "target_too_small");
    assert!(message.contains("1048576") && message.contains("2097152"), "{message}");
}

#[test]
fn a_mounted_target_is_refused() {
    let setup = Setup::new();
    let device = setup.device(8 * MIB, &[]);
    // Nothing that the kernel would write later by itself: the bytes are compared.
    let quiet = ["-q", "-F", "-O", "^has_journal", "-E", "lazy_itable_init=0", device.arg()];
    run("mkfs.ext4", &quiet);
    let mount = Mount::new(device.arg(), "rw");
    File::create(mount.path().join("precious")).unwrap().write_all(b"data").unwrap();
    run("sync", &["-f", mount.path().to_str().unwrap()]);
    for target in [device.arg(), setup.scratch.path("target.raw").to_str().unwrap()] {
        let message = setup.refuses(target, "target_in_use");
        assert!(message.contains(mount.path().to_str().unwrap()), "{message}");
    }
    assert_eq!(fs::read(mount.path().join("precious")).unwrap(), b"data");
}

#[test]
fn a_read_only_target_is_refused() {
    let setup = Setup::new();
    let device = setup.device(4 * MIB, &["--read-only"]);
    setup.refuses(device.arg(), "target_read_only");
}

#[test]
fn a_target_with_other_sectors_is_refused() {
    let setup = Setup::new();
    let device = setup.device(4 * MIB, &["--sector-size", "4096"]);
    setup.refuses(device.arg(), "sector_size");
}

#[test]
fn an_image_is_never_overwritten() {
    let setup = Setup::new();
    setup.refuses(&setup.image, "target_is_image");
    let other = setup.scratch.image();
    setup.refuses(other.to_str().unwrap(), "target_is_image");
}

#[test]
fn a_file_that_holds_a_virtual_disk_is_not_overwritten_whatever_it_is_called() {
    let setup = Setup::new();
    for (format, options) in [
        ("qcow2", "compat=1.1"),
        ("vhdx", "subformat=dynamic"),
        ("vmdk", "subformat=monolithicSparse"),
        ("vpc", "subformat=fixed"),
        ("vpc", "subformat=dynamic"),
    ] {
        let target = setup.scratch.arg("vm.img");
        run("qemu-img", &["create", "-q", "-f", format, "-o", options, &target, "4M"]);
        let message = setup.refuses(&target, "target_is_virtual");
        assert!(message.contains("vm.img holds a"), "{message}");
        for more in ["--delta", "--dry-run"] {
            let args = ["restore", &setup.image, "--to", &target, "--yes", more];
            aiv_json(&args).failed(5, "target_is_virtual");
        }
        fs::remove_file(&target).unwrap();
        aiv_json(&["restore", &setup.image, "--to", &target]).ended(0);
        fs::remove_file(&target).unwrap();
    }
}

#[test]
fn a_partition_the_disk_does_not_have_is_named() {
    let setup = Setup::new();
    let target = setup.scratch.arg("part.raw");
    let args = ["restore", &setup.image, "--to", &target, "--partition", "3"];
    aiv_json(&args).failed(1, "no_such_partition");
    assert!(!Path::new(&target).exists());
}

#[test]
fn an_existing_target_is_not_overwritten_without_yes() {
    let setup = Setup::new();
    let device = setup.device(2 * MIB, &[]);
    let file = setup.scratch.disk("existing.raw", 2 * MIB);
    for target in [device.arg(), &file] {
        let before = fs::read(target).unwrap();
        for run in [
            aiv(&["restore", &setup.image, "--to", target]),
            aiv_json(&["restore", &setup.image, "--to", target]),
        ] {
            assert_eq!(run.status, 5);
            assert!((run.stdout + &run.stderr).contains("--yes"));
        }
        assert_eq!(fs::read(target).unwrap(), before);
        aiv(&["restore", &setup.image, "--to", target, "--yes"]).ended(0);
        assert_eq!(fs::read(target).unwrap(), setup.source());
    }
}

/// Runs a restore at a terminal and types `answer`.
fn restore_at_terminal(image: &str, target: &str, answer: &str) -> i32 {
    let aiv = env!("CARGO_BIN_EXE_aiv");
    let command = format!("{aiv} restore {image} --to {target}");
    let (stdin, quiet) = (Stdio::piped(), Stdio::null());
    let mut terminal = Command::new("script");
    terminal.args(["--quiet", "--return", "--command", &command, "/dev/null"]);
    let mut child = terminal.stdin(stdin).stdout(quiet).spawn().expect("script of bsdutils");
    let mut keyboard = child.stdin.take().unwrap();
    writeln!(keyboard, "{answer}").unwrap();
    let status = child.wait().unwrap();
    drop(keyboard);
    status.code().unwrap()
}

#[test]
fn at_a_terminal_the_size_of_the_target_must_be_typed() {
    let setup = Setup::new();
    let target = setup.scratch.disk("existing.raw", 3 * MIB);
    let before = fs::read(&target).unwrap();
    for wrong in ["", "y", "yes", "2097152"] {
        assert_eq!(restore_at_terminal(&setup.image, &target, wrong), 5, "{wrong:?}");
        assert_eq!(fs::read(&target).unwrap(), before, "{wrong:?}");
    }
    assert_eq!(restore_at_terminal(&setup.image, &target, "3145728"), 0);
    assert_eq!(fs::read(&target).unwrap()[..2 * MIB as usize], setup.source());
}

#[test]
fn a_dry_run_prints_the_plan_and_does_nothing() {
    let setup = Setup::new();
    let target = setup.scratch.arg("new.raw");
    let args = ["restore", &setup.image, "--to", &target, "--dry-run"];
    let run = aiv(&args).ended(0);
    assert!(run.stdout.contains("create a file of 2097152 bytes"), "{}", run.stdout);
    let json = aiv_json(&args).ended(0).json();
    assert_eq!(json["dry_run"], true);
    assert!(json["steps"].as_array().unwrap().len() > 1, "{json}");
    assert!(!Path::new(&target).exists());
    // It refuses what the restore would refuse, and needs no --yes for what exists.
    let device = setup.device(MIB, &[]);
    let args = ["restore", &setup.image, "--to", device.arg(), "--dry-run"];
    aiv_json(&args).failed(5, "target_too_small");
    let existing = setup.scratch.disk("existing.raw", 2 * MIB);
    let before = fs::read(&existing).unwrap();
    aiv(&["restore", &setup.image, "--to", &existing, "--dry-run"]).ended(0);
    assert_eq!(fs::read(&existing).unwrap(), before);
}

#[test]
fn a_full_filesystem_under_a_new_file_leaves_no_file() {
    let setup = Setup::new();
    let memory = Mount::memory(MIB);
    let target = memory.arg("target.raw");
    let run = aiv_json(&["restore", &setup.image, "--to", &target]);
    let message = run.failed(1, "disk_full");
    assert!(message.contains("the new file was removed"), "{message}");
    assert!(!Path::new(&target).exists());
}

#[test]
fn a_larger_target_gets_a_note_and_keeps_its_tail() {
    let setup = Setup::new();
    let device = setup.device(3 * MIB, &[]);
    let run = aiv(&["restore", &setup.image, "--to", device.arg(), "--yes"]).ended(0);
    assert!(run.stdout.contains("note: the target is larger"), "{}", run.stdout);
    let (now, then) = (fs::read(device.path()).unwrap(), noise(3 * MIB, 99));
    assert_eq!(now[..2 * MIB as usize], setup.source());
    assert_eq!(now[2 * MIB as usize..], then[2 * MIB as usize..]);
}

#[test]
fn a_delta_restore_writes_only_what_differs() {
    let setup = Setup::new();
    let mut bytes = setup.source();
    bytes[700_000] ^= 1;
    let target = setup.scratch.write("existing.raw", &bytes);
    let args = ["restore", &setup.image, "--to", &target, "--delta", "--yes"];
    let json = aiv_json(&args).ended(0).json();
    let written = json["bytes_written"].as_u64().unwrap();
    assert!((1..=2 << 16).contains(&written) || written <= MIB + (1 << 16), "{json}");
    assert_eq!(fs::read(&target).unwrap(), setup.source());
    let json = aiv_json(&args).ended(0).json();
    assert_eq!((&json["bytes_written"], &json["bytes_skipped"]), (&0.into(), &(2 * MIB).into()));
}

#[test]
fn a_restore_to_the_wrong_disk_is_undone_from_its_log() {
    let setup = Setup::new();
    let target = setup.scratch.disk("existing.raw", 4 * MIB);
    let before = fs::read(&target).unwrap();
    let undo = setup.scratch.arg("undo");
    let restore = ["restore", &setup.image, "--to", &target, "--yes", "--undo", &undo];
    aiv(&restore).ended(0);
    assert_ne!(fs::read(&target).unwrap(), before);
    // The log is kept: a second restore does not overwrite it.
    aiv_json(&restore).failed(1, "undo_log");
    let put_back = ["restore", &undo, "--to", &target];
    aiv_json(&put_back).failed(5, "not_confirmed");
    let text = aiv(&[&put_back[..], &["--dry-run"]].concat()).ended(0).stdout;
    assert!(text.contains("bytes 0 to 1048576"), "{text}");
    assert_ne!(fs::read(&target).unwrap(), before);
    let other = setup.scratch.disk("other.raw", 4 * MIB);
    aiv_json(&["restore", &undo, "--to", &other, "--yes"]).failed(5, "other_target");
    let json = aiv_json(&[&put_back[..], &["--yes"]].concat()).ended(0).json();
    assert_eq!(json["bytes_written"], 2 * MIB);
    let after = fs::read(&target).unwrap();
    assert!(after[..MIB as usize] == before[..MIB as usize], "the first MiB");
    assert!(after[3 * MIB as usize..] == before[3 * MIB as usize..], "the last MiB");
}

#[test]
fn a_serial_number_no_disk_has_is_refused() {
    let setup = Setup::new();
    for name in ["serial:no-such-disk", "wwn:0x0"] {
        let args = ["restore", &setup.image, "--to", name, "--yes"];
        let message = aiv_json(&args).failed(5, "no_such_device");
        assert!(message.starts_with("no disk has "), "{message}");
        assert!(!Path::new(name).exists());
    }
}

#[test]
fn several_restores_are_one_file_and_all_are_refused_for_one() {
    let setup = Setup::new();
    let [first, second] = ["first.raw", "second.raw"].map(|name| setup.scratch.disk(name, 3 * MIB));
    let plan = |targets: &[&str]| {
        let entry = |to: &&str| serde_json::json!({"image": setup.image, "to": to});
        let restores: Vec<_> = targets.iter().map(entry).collect();
        let text = serde_json::json!({"restores": restores}).to_string();
        setup.scratch.write("plan.json", text.as_bytes())
    };
    let before = fs::read(&first).unwrap();
    let small = setup.device(MIB, &[]);
    let refused = plan(&[&first, small.arg()]);
    aiv_json(&["restore", "--plan", &refused, "--yes"]).failed(5, "target_too_small");
    let twice = plan(&[&first, &first]);
    aiv_json(&["restore", "--plan", &twice, "--yes"]).failed(5, "same_target");
    assert_eq!(fs::read(&first).unwrap(), before);

    let both = plan(&[&first, &second]);
    let run = aiv_json(&["restore", "--plan", &both, "--dry-run"]).ended(0).json();
    assert_eq!(run["restores"].as_array().unwrap().len(), 2, "{run}");
    assert_eq!(fs::read(&first).unwrap(), before);
    aiv_json(&["restore", "--plan", &both]).failed(5, "not_confirmed");
    let json = aiv_json(&["restore", "--plan", &both, "--yes"]).ended(0).json();
    assert_eq!(json["restores"][1]["target"], second.as_str());
    for target in [&first, &second] {
        assert_eq!(fs::read(target).unwrap()[..2 * MIB as usize], setup.source());
    }
    aiv_json(&["restore", "--plan", &first]).failed(1, "plan_file");
}
