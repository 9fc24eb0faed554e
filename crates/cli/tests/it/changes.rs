//! Dirty bitmaps of QEMU as hints: the image is the one that would have been made without them.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::support::{MIB, Scratch, aiv, aiv_json, noise, run, wait_for_listener};

/// A qcow2 of 64 MiB, half of it noise.
struct Machine {
    scratch: Scratch,
    disk: String,
}

impl Machine {
    fn new() -> Self {
        let scratch = Scratch::new();
        let raw = scratch.write("raw", &noise(32 * MIB, 7));
        let disk = scratch.arg("vm.qcow2");
        run("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", raw.as_str(), &disk]);
        run("qemu-img", &["resize", "-q", &disk, "64M"]);
        Self { scratch, disk }
    }

    fn bitmap(&self, args: &[&str]) {
        let (name, how) = args.split_last().expect("a name");
        run("qemu-img", &[&["bitmap"], how, &[&*self.disk, *name]].concat());
    }

    fn io(&self, commands: &[&str]) {
        let commands = commands.iter().flat_map(|command| ["-c", command]);
        let args: Vec<&str> = ["-f", "qcow2"].into_iter().chain(commands).collect();
        run("qemu-io", &[args, vec![&*self.disk]].concat());
    }

    /// A backup, and what it says about its image; its state is that of a full one without hints.
    fn backup_of(&self, source: &str, args: &[&str], exit: i32) -> Value {
        let images = self.scratch.arg("images");
        let all = [&["backup", source, "--source-id", "vm", "--to", &images], args].concat();
        let image = aiv_json(&all).ended(exit).json()["images"][0].clone();
        let fresh = tempfile::tempdir().expect("a folder");
        let fresh = fresh.path().join("fresh");
        let whole = ["backup", &self.disk, "--no-hints", "--source-id", "vm", "--to"];
        let json = aiv_json(&[&whole[..], &[fresh.to_str().expect("text")]].concat());
        let whole = json.ended(0).json()["images"][0].clone();
        assert_eq!(image["state_root"], whole["state_root"], "{image:#}");
        assert_eq!(whole["bytes_read"], whole["bytes_source"]);
        image
    }

    fn backup(&self, args: &[&str], exit: i32) -> Value {
        self.backup_of(&self.disk, args, exit)
    }
}

fn why_not(image: &Value) -> &str {
    image["changes"]["why_not"].as_str().unwrap_or("it was used")
}

fn bytes(image: &Value, field: &str) -> u64 {
    image["changes"][field].as_u64().expect("a number")
}

#[test]
fn bitmaps_that_take_turns_save_reading_and_the_images_are_as_without() {
    let machine = Machine::new();
    machine.bitmap(&["--add", "b0"]);
    let first = machine.backup(&["--changes", "bitmap:b0"], 0);
    assert_eq!((&first["kind"], &first["changes"]["used"]), (&"full".into(), &false.into()));
    let work: [&[&str]; 4] = [
        &["write -P 1 5M 70000"],
        &["write -P 2 40M 3M", "discard 8M 1M", "write -z 12M 100k"],
        &[],
        &["write -P 3 31M 2M", "write -P 4 0 512", "discard 41M 1M"],
    ];
    for (commands, n) in work.iter().zip(1..) {
        if !commands.is_empty() {
            machine.io(commands);
        }
        // The next one begins before anything is read, the old one is no longer needed then.
        let (old, new) = (format!("b{}", n - 1), format!("b{n}"));
        machine.bitmap(&["--add", &new]);
        let image = machine.backup(&["--changes", &format!("bitmap:{old}")], 0);
        assert_eq!(why_not(&image), "it was used", "{image:#}");
        machine.bitmap(&["--remove", &old]);
        let (skipped, compared) =
            (bytes(&image, "bytes_not_read"), bytes(&image, "bytes_compared"));
        assert!(skipped > 24 * MIB && compared > MIB / 2, "{image:#}");
        assert!(image["bytes_read"].as_u64().unwrap() < 8 * MIB, "{image:#}");
    }
    let point = format!("{}@latest", machine.scratch.arg("images"));
    let said = aiv_json(&["info", &point]).ended(0).json()["bitmaps"].clone();
    assert_eq!((&said["seen"], &said["used"]), (&json!(["b3", "b4"]), &"b3".into()));
    assert!(said["bytes_not_read"].as_u64().unwrap() > 24 * MIB, "{said}");
    let text = aiv(&["info", &point]).ended(0).stdout;
    assert!(text.contains("b3, b4; ") && text.contains("not read as b3 does not"), "{text}");
    // A point that was made without a hint saw the bitmap all the same.
    machine.io(&["write -P 9 3M 64k"]);
    machine.backup(&[], 0);
    let image = machine.backup(&["--changes", "bitmap:b4"], 0);
    assert_eq!(why_not(&image), "it was used");
}

#[test]
fn bitmaps_of_another_time_or_not_closed_are_refused_at_once() {
    let machine = Machine::new();
    machine.bitmap(&["--add", "b"]);
    machine.io(&["write -P 1 1M 64k"]);
    machine.backup(&[], 0);
    let refused = |said: &str| {
        let image = machine.backup(&["--changes", "bitmap:b"], 0);
        assert!(why_not(&image).contains(said), "{said}: {image:#}");
        assert_eq!(bytes(&image, "bytes_not_read"), 0);
        let notes = image["notes"].as_array().unwrap();
        assert!(notes.iter().any(|note| note.as_str().unwrap().contains(said)), "{image:#}");
    };
    // Its mark is gone.
    machine.io(&["write -P 2 9M 64k"]);
    machine.bitmap(&["--clear", "b"]);
    machine.io(&["write -P 2 10M 128k"]);
    refused("cleared or made anew");
    machine.bitmap(&["--remove", "b"]);
    refused("none of this name");
    machine.bitmap(&["--add", "-g", "1M", "b"]);
    refused("did not see it record");
    machine.bitmap(&["--disable", "b"]);
    refused("does not record");
    machine.bitmap(&["--enable", "b"]);
    refused("did not see it record");
    // A machine that is killed.
    let kill = ["-f", "qcow2", "-c", "write -P 7 30M 64k", "-c", "sigraise 9", &machine.disk];
    assert!(!Command::new("qemu-io").args(kill).output().unwrap().status.success());
    refused("was not closed properly");
}

#[test]
fn a_bitmap_that_lies_is_a_warning_and_is_refused_until_a_backup_without_it() {
    let machine = Machine::new();
    machine.bitmap(&["--add", "b"]);
    machine.backup(&[], 0);
    // Every block of it would have its turn; the epoch is lost without a trace.
    machine.io(&["write -P 1 16M 4M"]);
    machine.bitmap(&["--clear", "b"]);
    let image = machine.backup(&["--changes", "bitmap:b"], 3);
    assert_eq!(image["changes"]["used"], false);
    let at = image["changes"]["change_not_marked_at"].as_u64().unwrap();
    assert!((16 * MIB..20 * MIB).contains(&at), "{image:#}");
    let warning = image["warnings"][0].as_str().unwrap();
    assert!(warning.contains("bitmap b is not to be trusted"), "{warning}");
    let image = machine.backup(&["--changes", "bitmap:b"], 3);
    assert!(why_not(&image).contains("make one backup without it"), "{image:#}");
    machine.backup(&[], 0);
    let image = machine.backup(&["--changes", "bitmap:b"], 0);
    assert_eq!(why_not(&image), "it was used");
}

#[test]
fn a_backing_file_that_changed_makes_the_bitmap_void() {
    let machine = Machine::new();
    let scratch = &machine.scratch;
    let base = scratch.write("base.raw", &noise(8 * MIB, 3));
    let overlay = scratch.arg("overlay.qcow2");
    let create = ["create", "-q", "-f", "qcow2", "-F", "raw", "-b", "base.raw", &*overlay];
    run("qemu-img", &create);
    let machine = Machine { disk: overlay, ..machine };
    machine.bitmap(&["--add", "b"]);
    let images = machine.scratch.arg("images");
    let backup = |args: &[&str]| {
        let all = ["backup", &machine.disk, "--follow", "folder", "--to", &images];
        aiv_json(&[&all[..], args].concat()).ended(0).json()["images"][0].clone()
    };
    backup(&[]);
    machine.io(&["write -P 5 1M 64k"]);
    let image = backup(&["--changes", "bitmap:b"]);
    assert_eq!(why_not(&image), "it was used");
    run("qemu-io", &["-f", "raw", "-c", "write -P 6 2M 64k", base.as_str()]);
    let image = backup(&["--changes", "bitmap:b"]);
    assert!(why_not(&image).contains("lies beneath"), "{image:#}");
}

/// QEMU's server, until dropped.
struct Server(Child);

impl Server {
    fn new(machine: &Machine, bitmaps: &[&str]) -> (Self, String) {
        let socket = machine.scratch.arg("socket");
        let _ = std::fs::remove_file(&socket);
        let mut serve = Command::new("qemu-nbd");
        serve.args(["-t", "-r", "-f", "qcow2", "-e", "8", "-x", "vm", "-k", &socket]);
        serve.args(bitmaps.iter().flat_map(|name| ["-B", name])).arg(&machine.disk);
        let child = serve.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("qemu-nbd");
        let server = Self(child);
        wait_for_listener(socket.as_ref());
        (server, format!("nbd+unix:///vm?socket={socket}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn bitmaps_behind_a_server_save_reading_as_those_of_the_file_do() {
    let machine = Machine::new();
    machine.bitmap(&["--add", "b0"]);
    let (server, uri) = Server::new(&machine, &["b0"]);
    machine.backup_of(&uri, &[], 0);
    drop(server);
    for (n, command) in (1..).zip(["write -P 1 5M 70000", "write -P 2 31M 3M"]) {
        machine.io(&[command]);
        let (old, new) = (format!("b{}", n - 1), format!("b{n}"));
        machine.bitmap(&["--add", &new]);
        let (server, uri) = Server::new(&machine, &[&old, &new]);
        let image = machine.backup_of(&uri, &["--changes", &format!("bitmap:{old}")], 0);
        assert_eq!(why_not(&image), "it was used", "{image:#}");
        assert!(bytes(&image, "bytes_not_read") > 24 * MIB, "{image:#}");
        let image = machine.backup_of(&uri, &["--changes", "bitmap:other"], 0);
        assert!(why_not(&image).contains("none of this name"));
        drop(server);
    }
    // The file's own bitmap is another tracker than that of the server.
    let image = machine.backup(&["--changes", "bitmap:b1"], 0);
    assert!(why_not(&image).contains("did not see it record"), "{image:#}");
}

/// A machine that goes on writing, with a temporary node from which its backup is pulled: QEMU's
/// storage daemon, until dropped.
struct Daemon {
    child: Child,
    said: BufReader<ChildStdout>,
    socket: String,
}

impl Daemon {
    /// Takes the state of the disk for a backup. Bitmap `old` ends in this moment, `new` begins,
    /// and an empty one of the new name stands for it beside the old one.
    fn new(machine: &Machine, old: Option<&str>, new: &str) -> Self {
        let (socket, tmp) = (machine.scratch.arg("daemon"), machine.scratch.arg("tmp.qcow2"));
        let _ = std::fs::remove_file(&socket);
        run("qemu-img", &["create", "-q", "-f", "qcow2", &tmp, "64M"]);
        let mut start = Command::new("qemu-storage-daemon");
        let file = format!("driver=file,node-name=file,filename={}", machine.disk);
        start.args(["--blockdev", &file, "--blockdev", "driver=qcow2,node-name=disk,file=file"]);
        start.args(["--chardev", "stdio,id=m", "--monitor", "chardev=m"]);
        let mut child = start.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        let mut daemon = Self { child, said, socket };
        daemon.call("qmp_capabilities", &json!({}));
        let address = json!({"type": "unix", "data": {"path": daemon.socket}});
        daemon.call("nbd-server-start", &json!({"addr": address}));
        let file = json!({"driver": "file", "filename": tmp});
        let node = json!({"driver": "qcow2", "node-name": "tmp", "file": file});
        daemon.call("blockdev-add", &node);
        for node in ["tmp", "disk"] {
            let (kept, off) = (node == "disk", node == "tmp");
            let bitmap = json!({"node": node, "name": new, "persistent": kept, "disabled": off});
            daemon.call("block-dirty-bitmap-add", &bitmap);
        }
        let mut bitmaps = vec![json!({"node": "tmp", "name": new})];
        if let Some(old) = old {
            let ends = json!({"node": "disk", "name": old});
            daemon.call("block-dirty-bitmap-disable", &ends);
            bitmaps.push(ends);
        }
        for (driver, name, file) in
            [("copy-before-write", "before", "disk"), ("snapshot-access", "then", "before")]
        {
            let mut node = json!({"driver": driver, "node-name": name, "file": file});
            if driver == "copy-before-write" {
                node["target"] = "tmp".into();
            }
            daemon.call("blockdev-add", &node);
        }
        for (name, node) in [("vm", "before"), ("pull", "then")] {
            let mut export = json!({"type": "nbd", "id": name, "name": name, "node-name": node});
            match name {
                "vm" => export["writable"] = true.into(),
                _ => export["bitmaps"] = Value::from(bitmaps.clone()),
            }
            daemon.call("block-export-add", &export);
        }
        daemon
    }

    fn call(&mut self, command: &str, arguments: &Value) {
        let line = json!({"execute": command, "arguments": arguments});
        let input = self.child.stdin.as_mut().unwrap();
        writeln!(input, "{line}").unwrap();
        loop {
            let mut said = String::new();
            assert!(self.said.read_line(&mut said).unwrap() > 0, "{line}: it ended");
            assert!(!said.contains("\"error\""), "{line}: {said}");
            if said.contains("\"return\"") {
                return;
            }
        }
    }

    fn uri(&self, export: &str) -> String {
        format!("nbd+unix:///{export}?socket={}", self.socket)
    }

    /// The machine is switched off: bitmaps are written to the file.
    fn quit(mut self) {
        self.call("quit", &json!({}));
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn backups_pulled_from_a_machine_that_goes_on_writing_use_its_bitmaps() {
    let machine = Machine::new();
    let images = machine.scratch.arg("images");
    for n in 0..3 {
        let (old, new) = (format!("b{n}"), format!("b{}", n + 1));
        let raw = machine.scratch.arg("then.raw");
        run("qemu-img", &["convert", "-f", "qcow2", "-O", "raw", &machine.disk, &raw]);
        let daemon = Daemon::new(&machine, (n > 0).then_some(&*old), &new);
        let write = |command: &str| {
            run("qemu-io", &["-f", "raw", "-c", command, &*daemon.uri("vm")]);
        };
        // It changes what was to be read a moment later, and what no bitmap knows yet.
        write(&format!("write -P {} 3M 1M", n + 1));
        write(&format!("write -P {} {}M 300k", n + 7, 20 + n));
        let uri = daemon.uri("pull");
        let hint = format!("bitmap:{old}");
        let mut args = vec!["backup", &uri, "--source-id", "vm", "--to", &images];
        if n > 0 {
            args.extend(["--changes", &*hint]);
        }
        let image = aiv_json(&args).ended(0).json()["images"][0].clone();
        if n > 0 {
            assert_eq!(why_not(&image), "it was used", "{image:#}");
            assert!(bytes(&image, "bytes_not_read") > 24 * MIB, "{image:#}");
        }
        daemon.quit();
        let fresh = tempfile::tempdir().unwrap();
        let to = fresh.path().join("fresh");
        let whole = ["backup", &raw, "--no-hints", "--to", to.to_str().unwrap()];
        let whole = aiv_json(&whole).ended(0).json()["images"][0].clone();
        assert_eq!(image["state_root"], whole["state_root"], "{image:#}");
    }
}
