//! Virtual disks and disks behind servers as sources: what comes back is what `qemu-img convert`
//! says is in them.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::{
    Loop, MIB, Mount, Scratch, aiv, aiv_json, noise, run, start, wait, wait_for_listener,
};

/// A raw disk with a filesystem, and an overlay on it with changes of its own.
fn overlay(scratch: &Scratch) -> String {
    let base = scratch.write("base.raw", &vec![0; 24 * MIB as usize]);
    run("mkfs.ext4", &["-q", "-U", "6f1c0000-1111-4222-8333-123456789abc", base.as_str()]);
    let overlay = scratch.arg("overlay.qcow2");
    let create = ["create", "-q", "-f", "qcow2", "-F", "raw", "-b", "base.raw", overlay.as_str()];
    run("qemu-img", &create);
    qemu_write(&overlay, "write -P 0x41 20M 300k");
    overlay
}

fn qemu_write(image: &str, command: &str) {
    run("qemu-io", &["-f", "qcow2", "-c", command, image]);
}

/// The disk as QEMU sees it.
fn converted(scratch: &Scratch, image: &str) -> Vec<u8> {
    let raw = scratch.arg("converted.raw");
    run("qemu-img", &["convert", "-f", "qcow2", "-O", "raw", image, raw.as_str()]);
    fs::read(raw).unwrap()
}

/// The newest point of the folder `images`, restored into a file.
fn restored(scratch: &Scratch) -> Vec<u8> {
    let (point, target) = (format!("{}@latest", scratch.arg("images")), scratch.path("restored"));
    let _ = fs::remove_file(&target);
    aiv_json(&["restore", point.as_str(), "--to", target.to_str().unwrap()]).ended(0);
    fs::read(target).unwrap()
}

/// A program that serves a disk on a socket, until dropped.
struct Server(Child);

impl Server {
    fn new(socket: &Path, args: &[&str]) -> Self {
        let _ = fs::remove_file(socket);
        let mut serve = Command::new(args[0]);
        serve.args(&args[1..]).stdin(Stdio::null()).stderr(Stdio::null());
        let server = Self(serve.spawn().unwrap_or_else(|e| panic!("{}: {e}", args[0])));
        wait_for_listener(socket);
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_qcow2_with_its_backing_file_comes_back_as_the_raw_disk_and_then_as_an_increment() {
    let scratch = Scratch::new();
    let overlay = overlay(&scratch);
    let images = scratch.arg("images");
    let backup = ["backup", &overlay, "--follow", "folder", "--sectors", "all", "--to", &images];
    let json = aiv_json(&backup).ended(0).json();
    let one = &json["images"][0];
    assert_eq!((&one["kind"], &one["source_format"]), (&"full".into(), &"qcow2".into()));
    let files = [overlay.as_str(), &scratch.arg("base.raw")];
    assert_eq!(one["source_files"], serde_json::json!(files));
    assert!(restored(&scratch) == converted(&scratch, &overlay));

    qemu_write(&overlay, "write -P 0x42 21M 70k");
    let run = aiv(&backup).ended(0);
    assert!(run.stdout.contains("incremental image"), "{}", run.stdout);
    assert!(run.stdout.contains("read as qcow2 from 2 files"), "{}", run.stdout);
    assert!(restored(&scratch) == converted(&scratch, &overlay));
}

#[test]
fn the_same_disk_over_nbd_is_the_same_disk() {
    let scratch = Scratch::new();
    let overlay = overlay(&scratch);
    let (images, socket) = (scratch.arg("images"), scratch.path("s"));
    let files = ["backup", &overlay, "--follow", "folder", "--sectors", "all", "--to", &images];
    aiv_json(&files).ended(0);
    qemu_write(&overlay, "write -P 0x43 22M 70k");
    let path = socket.to_str().unwrap();
    let line = ["qemu-nbd", "-t", "-r", "-x", "vm1", "-f", "qcow2", "-k", path, &overlay];
    let server = Server::new(&socket, &line);
    let uri = format!("nbd+unix:///vm1?socket={path}");
    let json = aiv_json(&["backup", &uri, "--sectors", "all", "--to", &images]).ended(0).json();
    let one = &json["images"][0];
    // One filesystem, one identity: the increment builds on what was read from files.
    assert_eq!((&one["kind"], &one["source_format"]), (&"incremental".into(), &"nbd".into()));
    assert!(one["bytes_read"].as_u64().unwrap() < 24 * MIB, "holes are not read: {one}");
    assert!(restored(&scratch) == converted(&scratch, &overlay));
    drop(server);
    let message = aiv_json(&["backup", &uri, "--to", &images]).failed(1, "no_server");
    assert!(message.contains(&uri), "{message}");
}

#[test]
fn every_format_comes_back_as_the_disk_it_was_made_of() {
    let scratch = Scratch::new();
    let mut bytes = noise(3 * MIB, 5);
    bytes.resize(7 * MIB as usize, 0);
    bytes[6 * MIB as usize] = 1;
    let raw = scratch.write("source.raw", &bytes);
    for (name, format) in
        [("a.qcow2", "qcow2"), ("b.vhd", "vpc"), ("c.vhdx", "vhdx"), ("d.vmdk", "vmdk")]
    {
        let image = scratch.arg(name);
        let size = if format == "vpc" { "force_size=on" } else { "" };
        let mut convert = vec!["convert", "-f", "raw", "-O", format, raw.as_str(), image.as_str()];
        convert.extend(if size.is_empty() { vec![] } else { vec!["-o", size] });
        run("qemu-img", &convert);
        let images = scratch.arg("images");
        aiv_json(&["backup", &image, "--to", &images, "--source-id", name]).ended(0);
        let stem = &name[..1];
        let target = scratch.arg(&format!("{stem}.restored"));
        let point = format!("{images}@{stem}:latest");
        aiv_json(&["restore", &point, "--to", &target]).ended(0);
        assert!(fs::read(&target).unwrap() == bytes, "{name}");
    }
}

#[test]
fn files_that_an_image_names_are_read_only_when_that_is_allowed() {
    let scratch = Scratch::new();
    let overlay = overlay(&scratch);
    let images = scratch.arg("images");
    let run = aiv_json(&["backup", &overlay, "--to", &images]);
    assert!(run.json()["error"]["hint"].as_str().unwrap().contains("--follow folder"));
    let message = run.failed(5, "not_followed");
    assert!(message.contains("needs the file 'base.raw'"), "{message}");
    // A base that lies elsewhere.
    let outside = Scratch::new();
    let base = outside.disk("base.raw", MIB);
    let image = scratch.arg("far.qcow2");
    run_create(&base, &image);
    let folder = ["backup", &image, "--follow", "folder", "--to", &images];
    let run = aiv_json(&folder);
    assert!(run.json()["error"]["hint"].as_str().unwrap().contains("--follow anywhere"));
    run.failed(5, "not_followed");
    assert_eq!(scratch.images(), [""; 0]);
    aiv_json(&["backup", &image, "--follow", "anywhere", "--to", &images]).ended(0);
    assert_eq!(scratch.images().len(), 1);
    // Whoever looks into one is told the same, and can say the same.
    aiv_json(&["ls", &image]).failed(5, "not_followed");
    let seen = aiv_json(&["ls", &image, "--follow", "anywhere"]).ended(0).json();
    assert_eq!(seen["entries"][0]["size"], MIB);
    let seen = aiv_json(&["ls", &image, "--source-format", "raw"]).ended(0).json();
    assert_eq!(seen["entries"][0]["size"], fs::metadata(&image).unwrap().len());
}

fn run_create(base: &str, image: &str) {
    run("qemu-img", &["create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, image]);
}

#[test]
fn a_raw_disk_whose_owner_forged_a_header_is_not_read_as_what_it_pretends_to_be() {
    let scratch = Scratch::new();
    let secret = scratch.write("secret", &[0x53; 4096]);
    let forged = scratch.arg("forged.qcow2");
    run(
        "qemu-img",
        &["create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", &secret, &forged, "1M"],
    );
    let mut disk = noise(2 * MIB, 9);
    let header = fs::read(&forged).unwrap();
    disk[..header.len()].copy_from_slice(&header);
    let disk_path = scratch.write("vm.raw", &disk);
    let images = scratch.arg("images");
    for follow in ["pieces", "folder", "anywhere"] {
        let message = aiv_json(&["backup", &disk_path, "--follow", follow, "--to", &images])
            .failed(5, "ambiguous_format");
        assert!(message.contains("looks like qcow2 by its content"), "{message}");
    }
    assert_eq!(scratch.images(), [""; 0]);
    let raw = ["backup", &disk_path, "--source-format", "raw", "--to", &images];
    let json = aiv_json(&raw).ended(0).json();
    assert_eq!(json["images"][0]["source_format"], "raw");
    assert!(restored(&scratch) == disk);
}

#[test]
fn a_file_that_is_called_like_a_virtual_disk_is_no_target() {
    let scratch = Scratch::new();
    let image = scratch.image();
    let image = image.to_str().unwrap();
    let target = scratch.arg("vm.qcow2");
    for _ in ["missing", "there"] {
        let run = aiv_json(&["restore", image, "--to", &target, "--yes"]);
        assert!(run.json()["error"]["hint"].as_str().unwrap().contains("qemu-img convert"));
        run.failed(5, "target_is_virtual");
        if !fs::exists(&target).unwrap() {
            crate::support::run("qemu-img", &["create", "-q", "-f", "qcow2", &target, "8M"]);
        }
    }
    assert!(fs::read(&target).unwrap().starts_with(b"QFI\xfb"), "not touched");
}

#[test]
fn an_image_that_a_machine_writes_is_refused_unless_live() {
    let scratch = Scratch::new();
    let overlay = overlay(&scratch);
    let (images, socket) = (scratch.arg("images"), scratch.path("s"));
    let path = socket.to_str().unwrap();
    let backup = ["backup", &overlay, "--follow", "folder", "--to", &images];
    // Somebody who only reads is none to fear.
    let reader =
        Server::new(&socket, &["qemu-nbd", "-t", "-r", "-f", "qcow2", "-k", path, &overlay]);
    aiv_json(&backup).ended(0);
    drop(reader);
    let writer = Server::new(&socket, &["qemu-nbd", "-t", "-f", "qcow2", "-k", path, &overlay]);
    let message = aiv_json(&backup).failed(5, "source_in_use");
    let expected = format!("a virtual machine has {overlay} open for writing");
    assert!(message.contains(&expected), "{message}");
    let json = aiv_json(&[&backup[..], &["--live"]].concat()).ended(3).json();
    assert_eq!(json["images"][0]["consistency"], "inconsistent");
    drop(writer);
    aiv_json(&backup).ended(0);
}

#[test]
fn freezing_this_machine_does_not_hold_another_one() {
    let scratch = Scratch::new();
    let disk = scratch.write("disk.raw", &[0; 16 * MIB as usize]);
    run("mkfs.ext4", &["-q", disk.as_str()]);
    let device = Loop::new(disk.as_ref(), &[]);
    let mount = Mount::new(device.arg(), "rw");
    let (images, socket) = (scratch.arg("images"), scratch.path("s"));
    let path = socket.to_str().unwrap();
    let backup = ["backup", &disk, "--freeze", "--to", &images];
    let json = aiv_json(&backup).ended(0).json();
    assert_eq!(json["images"][0]["frozen"][0], mount.path().to_str().unwrap());
    let writer = Server::new(&socket, &["qemu-nbd", "-t", "-f", "raw", "-k", path, &disk]);
    let message = aiv_json(&backup).failed(5, "source_in_use");
    assert!(message.contains("a virtual machine has"), "{message}");
    drop(writer);
}

#[test]
fn images_are_not_written_onto_what_a_virtual_disk_builds_on() {
    let scratch = Scratch::new();
    let base = scratch.write("base.raw", &[0; 16 * MIB as usize]);
    run("mkfs.ext4", &["-q", base.as_str()]);
    let image = scratch.arg("disk.qcow2");
    run_create(&base, &image);
    let device = Loop::new(base.as_ref(), &[]);
    let mount = Mount::new(device.arg(), "rw");
    let to = mount.arg("images");
    let backup = ["backup", &image, "--follow", "folder", "--live", "--to", &to];
    aiv_json(&backup).failed(5, "destination_on_source");
}

#[test]
fn nbd_addresses_that_make_no_sense_are_usage_errors() {
    let scratch = Scratch::new();
    let images = scratch.arg("images");
    for (word, says) in [
        ("nbds://host/x", "TLS is not spoken"),
        ("nbd+unix:///x", "needs ?socket=PATH"),
        ("nbd://host:port/x", "'port' is no port"),
    ] {
        let message = aiv_json(&["backup", word, "--to", &images]).failed(2, "bad_address");
        assert_eq!(message.matches(says).count(), 1, "{message}");
    }
}

#[test]
fn a_damaged_virtual_disk_leaves_no_image() {
    let scratch = Scratch::new();
    let image = scratch.arg("disk.qcow2");
    run("qemu-img", &["create", "-q", "-f", "qcow2", &image, "4M"]);
    qemu_write(&image, "write -P 1 0 3M");
    let len = fs::metadata(&image).unwrap().len();
    fs::File::options().write(true).open(&image).unwrap().set_len(len - MIB).unwrap();
    let images = scratch.arg("images");
    let message = wait(start(&["backup", &image, "--to", &images])).failed(1, "source_damaged");
    assert!(message.contains("lies past the end"), "{message}");
    assert_eq!(scratch.images(), [""; 0]);
}
