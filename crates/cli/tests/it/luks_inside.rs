//! Files in encrypted volumes: opened by a passphrase or a key file, which are never shown.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::files::{fill, said_of, sums_of};
use crate::files_inside::{column, disk, ext4, put};
use crate::layers::Group;
use crate::support::{MIB, Mount, Scratch, aiv, aiv_json, noise, run};

const SECRET: &str = "correct horse";

/// Encrypts a file where it lies, behind a header of 2 MiB; it becomes 2 MiB longer.
fn encrypt(scratch: &Scratch, file: &str, secret: &str) {
    let len = fs::metadata(file).unwrap().len();
    // The tool wants twice as much room, which is cut off.
    run("truncate", &["-s", &(len + 4 * MIB).to_string(), file]);
    let key = scratch.write("luks", secret.as_bytes());
    let words = "reencrypt --encrypt --type luks2 --reduce-device-size 4M -q --pbkdf argon2id \
                 --pbkdf-memory 64 --pbkdf-force-iterations 4 --key-file";
    let words: Vec<&str> = words.split_whitespace().chain([key.as_str(), file]).collect();
    run("cryptsetup", &words);
    run("truncate", &["-s", &(len + 2 * MIB).to_string(), file]);
}

/// A disk with an encrypted filesystem and an encrypted group with one, by different secrets.
fn encrypted(scratch: &Scratch) {
    let parts = disk(scratch, "disk.raw", &[36, 60]);
    ext4(scratch, "system", 34, fill);
    let data = ext4(scratch, "data", 32, |root| {
        fs::write(root.join("numbers"), noise(3_000_000, 5)).unwrap();
    });
    let group = scratch.disk("group", 58 * MIB);
    let inner = Group::new(Path::new(&group), &[(0, 58 * MIB)]);
    inner.create("data", "-l 32");
    inner.fill("data", &data);
    drop(inner);
    let system = scratch.arg("clear");
    run("cp", &[&scratch.arg("system"), &system]);
    for (file, secret, part) in [(&system, SECRET, parts[0]), (&group, "battery\nstaple", parts[1])]
    {
        encrypt(scratch, file, secret);
        put(&scratch.path("disk.raw"), part.0, &fs::read(file).unwrap());
    }
}

#[test]
fn files_of_encrypted_volumes_come_back_for_whoever_has_their_secrets() {
    let scratch = Scratch::new();
    encrypted(&scratch);
    scratch.back_up(&scratch.arg("disk.raw"));
    let image = format!("{}@latest", scratch.arg("images"));
    let password = scratch.write("password", format!("{SECRET}\nnot read").as_bytes());
    let key = scratch.write("key", b"battery\nstaple");

    let listed = aiv_json(&["ls", &image]).ended(0).json();
    assert_eq!(column(&listed, "filesystem"), ["crypto_LUKS", "crypto_LUKS"]);
    for command in [
        vec!["ls", &image, "/p1"],
        vec!["cat", &image, "/p1/text"],
        vec!["find", &image, "/p1"],
        vec!["extract", &image, "/p2/vg/data", "--to", &scratch.arg("no")],
        vec!["diff", &image, &image, "/p1"],
    ] {
        let locked = aiv_json(&command).failed(6, "volume_locked");
        assert!(locked.contains("encrypted"), "{locked}");
    }
    assert!(!scratch.path("no").exists());

    let out = scratch.arg("out");
    let both = ["--luks-password-file", &password, "--luks-key-file", &key];
    let listed = aiv_json(&[&["ls", &image][..], &both].concat()).ended(0).json();
    assert_eq!(column(&listed, "filesystem"), ["ext4", "LVM2_member", "ext4"]);
    assert_eq!(column(&listed, "name"), ["p1", "p2", "p2/vg/data"]);
    aiv(&[&["extract", &image, "/p1", "/p2/vg/data", "--to", &out, "--verify"][..], &both].concat())
        .ended(0);
    for (volume, folder) in [("system", "out/p1"), ("data", "out/data")] {
        let mounted = Mount::new(&scratch.arg(volume), "loop,ro");
        assert_eq!(said_of(&scratch.path(folder)), said_of(mounted.path()));
        assert_eq!(sums_of(&scratch.path(folder)), sums_of(mounted.path()));
    }
    let told = aiv_json(&[&["verify", &image, "--depth", "filesystem"][..], &both].concat());
    let told = told.ended(0).json();
    let volumes = told["filesystems"][0]["volumes"].as_array().unwrap();
    assert_eq!((&volumes[0]["trouble_count"], &volumes[0]["not_read"]), (&0.into(), &().into()));
    assert!(volumes[0]["files"].as_u64().unwrap() > 4);
    // Nothing else of an image needs it.
    aiv_json(&["verify", &image, "--luks-key-file", &key]).failed(2, "usage");
}

#[test]
fn a_wrong_secret_is_told_and_shown_nowhere() {
    let scratch = Scratch::new();
    encrypted(&scratch);
    let disk = scratch.arg("disk.raw");
    let wrong = scratch.write("wrong", b"correct h0rse");
    // The bytes of a key file are all of it: the passphrase with the end of its line is another.
    let line = scratch.write("line", format!("{SECRET}\n").as_bytes());
    for secret in [["--luks-password-file", &wrong], ["--luks-key-file", &line]] {
        for command in [vec!["ls", &disk], vec!["cat", &disk, "/p1/text"]] {
            let command = [&command[..], &secret].concat();
            let failed = aiv_json(&command);
            let message = failed.failed(6, "volume_wrong_key");
            assert!(message.contains("does not open its key slot"), "{message}");
            let run = aiv(&command).ended(6);
            for said in [failed.stdout, run.stdout, run.stderr] {
                assert!(!said.contains("h0rse") && !said.contains("correct"), "{said}");
            }
        }
    }
    // What opens one volume opens no other.
    let password = scratch.write("password", SECRET.as_bytes());
    let open = ["--luks-password-file", password.as_str()];
    assert_eq!(aiv(&[&["cat", &disk, "/p1/text"][..], &open].concat()).ended(0).stdout, "hello\n");
    let other = aiv_json(&[&["ls", &disk, "/p2"][..], &open].concat());
    assert!(other.failed(6, "volume_wrong_key").contains("p2"));
    for missing in ["no such file", ""] {
        let file = scratch.arg(missing);
        assert_ne!(aiv(&["ls", &disk, "--luks-key-file", &file]).status, 0);
    }
    let empty = scratch.write("empty", b"");
    aiv_json(&["ls", &disk, "--luks-key-file", &empty]).failed(5, "unusable_key");
}

/// Runs `aiv` at a terminal, and types each of `lines` when it is asked.
fn at_terminal(words: &str, lines: &[&str]) -> (i32, String) {
    let command = format!("{} {words}", env!("CARGO_BIN_EXE_aiv"));
    let mut terminal = Command::new("script");
    terminal.args(["--quiet", "--return", "--command", &command, "/dev/null"]);
    let mut child =
        terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script of bsdutils");
    let (mut keyboard, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let (mut seen, mut asked) = (Vec::new(), 0);
    let mut byte = [0];
    while screen.read(&mut byte).unwrap() == 1 {
        seen.push(byte[0]);
        if seen.ends_with(b"Passphrase of the volume: ") && asked < lines.len() {
            writeln!(keyboard, "{}", lines[asked]).unwrap();
            asked += 1;
        }
    }
    assert_eq!(asked, lines.len(), "{}", String::from_utf8_lossy(&seen));
    (child.wait().unwrap().code().unwrap(), String::from_utf8_lossy(&seen).into_owned())
}

#[test]
fn at_a_terminal_the_passphrase_is_asked_for_and_not_shown() {
    let scratch = Scratch::new();
    encrypted(&scratch);
    let words = format!("cat {} /p1/text", scratch.arg("disk.raw"));
    let (status, seen) = at_terminal(&words, &["battery", SECRET]);
    assert!(status == 0 && seen.contains("hello"), "{status} {seen}");
    assert!(!seen.contains("battery") && !seen.contains(SECRET), "{seen}");
    let (status, seen) = at_terminal(&words, &["a", "b", "c"]);
    assert!(status == 6 && seen.contains("p1"), "{status} {seen}");
    // Nobody is asked for what is not needed.
    let (status, _) = at_terminal(&format!("ls {}", scratch.arg("disk.raw")), &[]);
    assert_eq!(status, 0);
}

#[test]
fn changed_blocks_of_an_encrypted_disk_are_told_by_file() {
    let scratch = Scratch::new();
    let content = |seed| {
        move |root: &Path| {
            fs::write(root.join("same"), noise(2 << 20, 1)).unwrap();
            fs::write(root.join("other"), noise(1 << 20, seed)).unwrap();
        }
    };
    ext4(&scratch, "plain", 16, content(2));
    let key = scratch.write("key", SECRET.as_bytes());
    let secret = format!("secret,id=s,file={key}");
    let (plain, disk) = (scratch.arg("plain"), scratch.arg("disk.raw"));
    let made = ["convert", "-f", "raw", "-O", "luks", "--object", &secret];
    run("qemu-img", &[&made[..], &["-o", "key-secret=s,iter-time=10", &plain, &disk]].concat());
    let old = scratch.back_up(&disk);
    // A file gets other bytes: the filesystem is written over the old one, under the same key.
    let name = |bytes: &[u8]| {
        let whole = fs::read(&plain).unwrap();
        let at = whole.chunks(1024).position(|block| block == &bytes[..1024]).unwrap();
        fs::File::options()
            .write(true)
            .open(&plain)
            .unwrap()
            .write_all_at(&noise(5000, 9), at as u64 * 1024)
    };
    name(&noise(1 << 20, 2)).unwrap();
    let target = format!("driver=luks,key-secret=s,file.filename={disk}");
    run(
        "qemu-img",
        &[
            "convert",
            "-n",
            "-f",
            "raw",
            "--object",
            &secret,
            "--target-image-opts",
            &plain,
            &target,
        ],
    );
    scratch.back_up(&disk);
    let new = format!("{}@latest", scratch.arg("images"));
    let old = old.to_str().unwrap();
    let json = aiv_json(&["diff", old, &new, "--luks-key-file", &key]).ended(0).json();
    let text = json.to_string();
    assert!(text.contains("/p0/other") && !text.contains("/p0/same"), "{text}");
}
