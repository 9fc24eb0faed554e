//! Sealed images as their owners meet them: secrets go in by files and terminals, and nothing
//! comes out without them, or gets into what others can see.

use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{Run, Scratch, aiv, aiv_json, names_in, noise, run};

const PASS: &str = "correct horse battery staple";
const OTHER: &str = "another one, Z\u{fc}rich 7";

/// A disk with a sealed image of it.
struct Sealed {
    scratch: Scratch,
    disk: String,
    images: String,
    pass: String,
    other: String,
}

impl Sealed {
    /// Sealed with what the file of this name holds.
    fn new(pass: &str) -> Self {
        let scratch = Scratch::new();
        let disk = scratch.write("disk.img", &noise(300_000, 5));
        let (images, pass) = (scratch.arg("images"), scratch.write(pass, PASS.as_bytes()));
        let other = scratch.write("other", format!("{OTHER}\n").as_bytes());
        let sealed = Self { scratch, disk, images, pass, other };
        sealed.back_up(&["--seal", "--password-file", &sealed.pass]).ended(0);
        sealed
    }

    fn back_up(&self, options: &[&str]) -> Run {
        let always = ["backup", &self.disk, "--to", &self.images];
        aiv_json(&[&always[..], options].concat())
    }

    /// The files of all images.
    fn files(&self) -> Vec<PathBuf> {
        let folder = self.scratch.path("images");
        let names = names_in(&folder);
        let is_image = |name: &String| name.ends_with(".aiv") || name.ends_with(".aii");
        names.iter().filter(|name| is_image(name)).map(|name| folder.join(name)).collect()
    }

    fn contents(&self) -> Vec<Vec<u8>> {
        self.files().iter().map(|file| fs::read(file).unwrap()).collect()
    }

    fn latest(&self) -> String {
        format!("{}@latest", self.images)
    }

    fn restore(&self, options: &[&str]) -> Run {
        let (latest, target) = (self.latest(), self.scratch.arg("restored.img"));
        let _ = fs::remove_file(&target);
        aiv_json(&[&["restore", &latest, "--to", &target][..], options].concat())
    }

    fn is_restored(&self) -> bool {
        let restored = fs::read(self.scratch.path("restored.img")).unwrap();
        restored == fs::read(&self.disk).unwrap()
    }
}

fn of<'v>(value: &'v Value, list: &str) -> &'v Vec<Value> {
    value[list].as_array().unwrap()
}

#[test]
fn a_sealed_chain_is_whole_with_the_passphrase_and_tells_nothing_without() {
    let sealed = Sealed::new("pass");
    let with = ["--password-file", &sealed.pass];
    let mut bytes = fs::read(&sealed.disk).unwrap();
    bytes[200_000..200_100].fill(0x5A);
    fs::write(&sealed.disk, &bytes).unwrap();
    let json = sealed.back_up(&["--seal", "--password-file", &sealed.pass]).ended(0).json();
    assert_eq!(json["images"][0]["kind"], "incremental");
    for image in sealed.contents() {
        let holds = |what: &[u8]| image.windows(what.len()).any(|window| window == what);
        assert!(!holds(&bytes[1000..1032]) && !holds(&[0x5A; 32]) && !holds(b"disk.img"));
        assert!(!holds(PASS.as_bytes()));
    }

    let json = aiv_json(&["list", &sealed.images]).ended(0).json();
    let point = &json["sets"][0]["points"][1];
    assert_eq!((&point["locked"], &point["protection"]), (&true.into(), &"sealed".into()));
    let text = aiv(&["list", &sealed.images]).ended(0).stdout;
    assert!(
        text.contains("sealed") && !text.contains("LOST") && !text.contains("disk.img"),
        "{text}"
    );
    let json = aiv_json(&["verify", &sealed.images]).ended(0).json();
    let locked = |json: &Value| of(json, "images").iter().all(|image| image["locked"] == true);
    assert!(json["ok"] == true && locked(&json), "{json}");
    let newest = sealed.files().into_iter().find(|f| f.extension().unwrap() == "aii").unwrap();
    let info = aiv_json(&["info", newest.to_str().unwrap()]).ended(0).json();
    assert!(info["locked"] == true && info["state_root"].is_null(), "{info}");
    // Which point is the newest is in what is sealed.
    let copies = sealed.scratch.arg("copies");
    for command in [
        &["info", &sealed.latest()][..],
        &["verify", &sealed.latest()],
        &["copy", &sealed.latest(), "--to", &copies],
        &["archive", &sealed.latest(), "--to", &copies],
    ] {
        aiv_json(command).failed(6, "locked");
    }
    let id = point["recovery_point"].as_str().unwrap();
    let by_id = format!("{}@{id}", sealed.images);
    assert_eq!(aiv_json(&["info", &by_id]).ended(0).json()["recovery_point"], id);
    assert!(point["time"].is_null(), "{point}");
    sealed.restore(&[]).failed(6, "locked");
    assert!(!sealed.scratch.path("restored.img").exists());

    let args = [&["verify", &sealed.images][..], &with].concat();
    let json = aiv_json(&args).ended(0).json();
    assert!(of(&json, "images").iter().all(|image| image["proven"] == true), "{json}");
    sealed.restore(&with).ended(0);
    assert!(sealed.is_restored());
    let latest = sealed.latest();
    let args = [&["info", &latest][..], &with].concat();
    assert!(aiv_json(&args).ended(0).json()["state_root"].is_string());
    let archive = sealed.scratch.arg("archive.aiv");
    let args = [&["archive", &latest, "--to", &archive][..], &with].concat();
    aiv_json(&args).ended(0);
    let args = [&["consolidate", &sealed.images, "--keep", "1"][..], &with].concat();
    aiv_json(&["consolidate", &sealed.images, "--keep", "1"]).failed(6, "locked");
    aiv_json(&args).ended(0);
    assert_eq!(sealed.files().len(), 1);
    sealed.restore(&with).ended(0);
    assert!(sealed.is_restored());
}

#[test]
fn a_wrong_passphrase_ends_with_its_own_status_and_changes_nothing() {
    let sealed = Sealed::new("pass");
    let before = sealed.contents();
    let wrong = ["--password-file", &sealed.other];
    sealed.restore(&wrong).failed(6, "wrong_key");
    assert!(!sealed.scratch.path("restored.img").exists());
    let refused = ["--seal", "--password-file", &sealed.other];
    sealed.back_up(&refused).failed(6, "wrong_key");
    // Without a word about keys, the disk would lie open beside its sealed images.
    sealed.back_up(&[]).failed(5, "set_has_key");
    for command in [
        &["verify", &sealed.images][..],
        &["list", &sealed.images],
        &["key", "change", &sealed.images, "--new-password-file", &sealed.pass],
        &["key", "remove", &sealed.images, "--slot", "1"],
        &["key", "rotate", &sealed.images],
    ] {
        aiv_json(&[command, &wrong].concat()).failed(6, "wrong_key");
    }
    let mistyped = sealed.scratch.write("code", b"ABCDE");
    sealed.restore(&["--recovery-code-file", &mistyped]).failed(6, "mistyped_key");
    assert_eq!(sealed.contents(), before);
}

#[test]
fn a_full_backup_with_another_passphrase_says_that_it_begins_a_key() {
    let sealed = Sealed::new("pass");
    let json =
        sealed.back_up(&["--seal", "--full", "--password-file", &sealed.other]).ended(3).json();
    assert!(json["warnings"].to_string().contains("has a new key"), "{json}");
    // Whoever has both keys at hand, or one of them alone, knows.
    let json =
        sealed.back_up(&["--seal", "--full", "--password-file", &sealed.other]).ended(0).json();
    assert_eq!(json["warnings"], serde_json::json!([]));
}

#[test]
fn a_secret_key_among_the_words_is_not_repeated_and_no_key_is_no_wrong_one() {
    let scratch = Scratch::new();
    let secret = "aiv-secret-0123456789abcdef0123456789abcdef0123456789abcdef";
    let (disk, images) = (scratch.write("disk.img", &noise(8192, 5)), scratch.arg("images"));
    scratch.back_up(&disk);
    for command in [
        &["backup", &disk, "--to", &images, "--recipient", secret][..],
        &["backup", &disk, "--to", &images, "--seal", "--key-file", secret],
        &["backup", &disk, "--to", &images, "--seal", "--password-file", secret],
        &["key", "add", &images, secret],
        &["key", secret],
        &["list", secret],
    ] {
        for run in [aiv(command), aiv_json(command)] {
            let shown = format!("{}{}", run.stdout, run.stderr);
            assert!(!shown.contains("0123456789") && !shown.is_empty(), "{shown}");
        }
    }
    let pass = scratch.write("pass", PASS.as_bytes());
    for change in [&["add"][..], &["change"], &["rotate"]] {
        let args = [&["key", change[0], &images, "--password-file", &pass][..], &change[1..]];
        let message = aiv_json(&args.concat()).failed(1, "no_key");
        assert!(message.contains("no image with a key"), "{message}");
    }
}

#[test]
fn ways_in_are_added_changed_and_removed_in_every_image() {
    let sealed = Sealed::new("pass");
    sealed.back_up(&["--seal", "--password-file", &sealed.pass]).ended(0);
    let key_file = sealed.scratch.write("key", &noise(64, 9));
    let key = |args: &[&str], with: &[&str]| {
        aiv_json(&[&["key", args[0], &sealed.images][..], &args[1..], with].concat())
    };
    let pass = ["--password-file", sealed.pass.as_str()];
    let json = key(&["add", "--new-key-file", &key_file, "--label", "usb"], &pass).ended(0).json();
    assert_eq!(of(&json["chains"][0], "changed").len(), 2);
    let file = ["--key-file", key_file.as_str()];
    key(&["change", "--new-password-file", &sealed.other], &pass).ended(0);
    sealed.restore(&pass).failed(6, "wrong_key");
    let other = ["--password-file", sealed.other.as_str()];
    for with in [file, other] {
        sealed.restore(&with).ended(0);
        assert!(sealed.is_restored());
    }
    let json = aiv_json(&["key", "list", &sealed.images]).ended(0).json();
    let slots = of(&json["chains"][0], "slots");
    let kinds: Vec<&str> = slots.iter().map(|slot| slot["kind"].as_str().unwrap()).collect();
    assert_eq!((kinds, &slots[1]["label"]), (vec!["passphrase", "key file"], &"usb".into()));
    let sheet = sealed.scratch.arg("sheet.txt");
    key(&["recovery-code", "--out", &sheet], &file).ended(0);
    for slot in ["1", "2"] {
        key(&["remove", "--slot", slot], &["--recovery-code-file", &sheet]).ended(0);
    }
    key(&["remove", "--slot", "3"], &["--recovery-code-file", &sheet]).failed(5, "last_slot");
    sealed.restore(&other).failed(6, "wrong_key");
    sealed.restore(&["--recovery-code-file", &sheet]).ended(0);
    assert!(sealed.is_restored());
    key(&["recovery-code"], &["--recovery-code-file", &sheet]).failed(2, "no_secret");
    let args = ["key", "recovery-code", &sealed.images, "--recovery-code-file", &sheet];
    let shown = aiv(&args).ended(0).stdout;
    sealed
        .restore(&["--recovery-code-file", &sealed.scratch.write("shown", shown.as_bytes())])
        .ended(0);
}

#[test]
fn a_recovery_code_that_nobody_was_given_opens_nothing() {
    let sealed = Sealed::new("pass");
    let before = sealed.contents();
    let args = ["key", "recovery-code", &sealed.images, "--password-file", &sealed.pass];
    let shell = |script: &str| {
        let script = format!("{} {} {script}", env!("CARGO_BIN_EXE_aiv"), args.join(" "));
        Command::new("bash").args(["-c", &script]).output().unwrap()
    };
    for (script, status) in [
        ("> /dev/full", 1),
        ("| sleep 0; exit ${PIPESTATUS[0]}", 1),
        ("> /dev/null", 2),
        (">&-", 2),
    ] {
        let output = shell(script);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{script}: {said}");
        assert!(said.contains("nothing was changed"), "{script}: {said}");
        assert_eq!(sealed.contents(), before, "{script}");
    }
    // One that was shown before the images could not be changed is called worthless.
    let lease = run("sh", &["-c", "ls -A \"$1\"/.aiv-lease-set-*", "sh", &sealed.images]);
    let lease = fs::File::open(lease).unwrap();
    lease.lock().unwrap();
    let output = shell("");
    let (shown, said) = (output.stdout, String::from_utf8_lossy(&output.stderr).into_owned());
    assert_eq!(output.status.code(), Some(1), "{said}");
    let shown = sealed.scratch.write("shown", &shown);
    sealed.restore(&["--recovery-code-file", &shown]).failed(6, "wrong_key");
    assert!(said.contains("recovery code that was shown opens nothing"), "{said}");
    assert_eq!(sealed.contents(), before);
}

#[test]
fn a_file_that_may_not_be_changed_is_named_and_opens_as_before() {
    let sealed = Sealed::new("pass");
    sealed.back_up(&["--seal", "--password-file", &sealed.pass]).ended(0);
    let file = &sealed.files()[0];
    run("chattr", &["+i".as_ref(), file.as_os_str()]);
    let args = ["key", "change", &sealed.images, "--password-file", &sealed.pass];
    let changed = aiv_json(&[&args[..], &["--new-password-file", &sealed.other]].concat());
    run("chattr", &["-i".as_ref(), file.as_os_str()]);
    let json = changed.ended(3).json();
    let unchanged = of(&json["chains"][0], "unchanged");
    let name = file.file_name().unwrap().to_str().unwrap();
    assert_eq!((unchanged.len(), &unchanged[0]["file"]), (1, &name.into()));
    assert!(json["warnings"][0].as_str().unwrap().contains("opens it still"), "{json}");
    let listed = aiv_json(&["key", "list", &sealed.images]).ended(3).json();
    assert_eq!(of(&listed["chains"][0], "behind"), &[Value::from(name)]);
}

#[test]
fn a_retired_key_gets_no_new_image_and_opens_what_it_has() {
    let sealed = Sealed::new("pass");
    let with = ["--password-file", sealed.pass.as_str()];
    aiv_json(&[&["key", "rotate", &sealed.images][..], &with].concat()).ended(0);
    let seal = ["--seal", "--password-file", sealed.pass.as_str()];
    let json = sealed.back_up(&seal).ended(0).json();
    assert_eq!(json["images"][0]["kind"], "full");
    let json = sealed.back_up(&seal).ended(0).json();
    assert_eq!(json["images"][0]["kind"], "incremental");
    let chains = aiv_json(&["key", "list", &sealed.images]).ended(0).json();
    let mut retired: Vec<(usize, bool)> = of(&chains, "chains")
        .iter()
        .map(|chain| (of(chain, "images").len(), chain["retired"].as_bool().unwrap()))
        .collect();
    retired.sort_unstable();
    assert_eq!(retired, [(1, true), (2, false)]);
    let args = [&["verify", &sealed.images][..], &with].concat();
    let json = aiv_json(&args).ended(0).json();
    assert!(of(&json, "images").iter().all(|image| image["proven"] == true), "{json}");
}

#[test]
fn a_machine_with_the_public_key_alone_seals_and_cannot_read() {
    let scratch = Scratch::new();
    let secret = scratch.arg("recipient.key");
    let made = aiv_json(&["key", "new-recipient", "--to", &secret]).ended(0).json();
    let public = made["public_key"].as_str().unwrap();
    aiv_json(&["key", "new-recipient", "--to", &secret]).failed(1, "exists");
    let disk = scratch.write("disk.img", &noise(200_000, 6));
    let images = scratch.arg("images");
    let backup = ["backup", &disk, "--to", &images, "--recipient", public];
    for _ in 0..2 {
        let json = aiv_json(&backup).ended(0).json();
        assert_eq!(json["images"][0]["kind"], "full");
    }
    aiv_json(&[&backup[..], &["--incremental"]].concat()).failed(2, "usage");
    aiv_json(&["backup", &disk, "--to", &images, "--recipient", &secret]).failed(6, "mistyped_key");
    let newest = names_in(&scratch.path("images")).into_iter().find(|n| n.ends_with(".aiv"));
    let image = scratch.path("images").join(newest.unwrap());
    let target = scratch.arg("restored.img");
    let restore = ["restore", image.to_str().unwrap(), "--to", &target];
    aiv_json(&restore).failed(6, "locked");
    aiv_json(&[&restore[..], &["--key-file", &secret]].concat()).ended(0);
    assert_eq!(fs::read(&target).unwrap(), fs::read(&disk).unwrap());
}

#[test]
fn an_authenticated_image_is_read_by_all_and_forged_by_nobody() {
    let scratch = Scratch::new();
    let disk = scratch.write("disk.img", &noise(200_000, 7));
    let (images, pass) = (scratch.arg("images"), scratch.write("pass", PASS.as_bytes()));
    let with = ["--password-file", pass.as_str()];
    let backup = ["backup", &disk, "--to", &images, "--authenticate"];
    aiv_json(&[&backup[..], &with].concat()).ended(0);
    let (latest, target) = (format!("{images}@latest"), scratch.arg("restored.img"));
    aiv_json(&["restore", &latest, "--to", &target]).ended(0);
    assert_eq!(fs::read(&target).unwrap(), fs::read(&disk).unwrap());
    aiv_json(&[&["verify", &latest][..], &with].concat()).ended(0);
    // An image without a key in its place is noticed by whoever gives one.
    let plain = scratch.arg("plain");
    aiv_json(&["backup", &disk, "--to", &plain]).ended(0);
    let name = names_in(&scratch.path("plain")).into_iter().find(|n| n.ends_with(".aiv")).unwrap();
    let placed = scratch.path("images").join("placed.aiv");
    fs::copy(scratch.path("plain").join(name), &placed).unwrap();
    let verify = ["verify", placed.to_str().unwrap()];
    aiv_json(&verify).ended(0);
    aiv_json(&[&verify[..], &with].concat()).failed(4, "not_keyed");
    let listed = aiv_json(&[&["list", &images][..], &with].concat()).ended(3).json();
    assert!(listed["warnings"].to_string().contains("has no key"), "{listed}");
}

#[test]
fn a_chain_that_everybody_can_read_is_merged_by_those_who_have_its_key() {
    let scratch = Scratch::new();
    let disk = scratch.write("disk.img", &noise(200_000, 7));
    let (images, pass) = (scratch.arg("images"), scratch.write("pass", PASS.as_bytes()));
    let with = ["--password-file", pass.as_str()];
    let backup = ["backup", &disk, "--to", &images, "--authenticate"];
    for _ in 0..3 {
        aiv_json(&[&backup[..], &with].concat()).ended(0);
    }
    let (latest, archive) = (format!("{images}@latest"), scratch.arg("archive.aiv"));
    let names = names_in(&scratch.path("images"));
    for command in
        [&["archive", &latest, "--to", &archive][..], &["consolidate", &images, "--keep", "1"]]
    {
        aiv_json(command).failed(6, "locked");
        assert_eq!(names_in(&scratch.path("images")), names);
        assert_eq!(scratch.path("archive.aiv").exists(), command[0] == "consolidate");
        let aiv = env!("CARGO_BIN_EXE_aiv");
        let (status, seen) = at_terminal(&format!("{aiv} {}", command.join(" ")), &[PASS]);
        assert!(status == 0 && seen.contains("Passphrase:"), "{status}: {seen}");
    }
    aiv_json(&[&["verify", &archive][..], &with].concat()).ended(0);
    aiv_json(&[&["verify", &images][..], &with].concat()).ended(0);
}

#[test]
fn a_verification_with_a_key_names_what_has_another_one_or_none() {
    let sealed = Sealed::new("pass");
    let with = ["--password-file", sealed.pass.as_str()];
    let quick = aiv(&["verify", &sealed.images, "--depth", "quick"]).ended(0).stdout;
    assert!(quick.contains("no stored block") && !quick.contains("every stored byte"), "{quick}");
    let full = aiv(&["verify", &sealed.images]).ended(0).stdout;
    assert!(full.contains("every stored byte"), "{full}");
    // Its name is sealed as well.
    let set = ["--set", "disk"];
    aiv_json(&[&["verify", &sealed.images][..], &set, &with].concat()).ended(0);
    for (name, how) in [
        ("other", &["--seal", "--password-file", &sealed.other][..]),
        ("third", &["--authenticate", "--password-file", &sealed.other]),
        ("plain", &[]),
    ] {
        let disk = sealed.scratch.write(&format!("{name}.img"), &noise(20_000, 8));
        let to = sealed.scratch.arg(&format!("images/{name}"));
        aiv_json(&[&["backup", &disk, "--to", &to][..], how].concat()).ended(0);
    }
    let run = aiv_json(&[&["verify", &sealed.images][..], &with].concat()).ended(3);
    let json = run.json();
    let about = |name: &str, words: &str| {
        let warnings = of(&json, "warnings").iter().map(|warning| warning.as_str().unwrap());
        warnings.filter(|w| w.starts_with(name) && w.contains(words)).count()
    };
    assert_eq!(about("other/", "another key"), 1, "{json}");
    assert_eq!(about("third/", "not checked: forgery"), 1, "{json}");
    assert_eq!(about("plain/", "has no key"), 1, "{json}");
    assert_eq!(of(&json, "warnings").len(), 3, "{json}");
    let text = aiv(&[&["verify", &sealed.images][..], &with].concat()).ended(3);
    assert!(!text.stdout.contains("no key was given"), "{}", text.stdout);
}

/// Types answers when the program asks, at a terminal, and returns what was to be seen there.
fn at_terminal(command: &str, answers: &[&str]) -> (i32, String) {
    let mut terminal = Command::new("script");
    terminal.args(["--quiet", "--return", "--command", command, "/dev/null"]);
    let mut child = terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut keyboard, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let (mut seen, mut answers) = (String::new(), answers.iter());
    let mut bytes = [0; 4096];
    loop {
        match screen.read(&mut bytes) {
            Ok(0) | Err(_) => break,
            Ok(count) => seen.push_str(&String::from_utf8_lossy(&bytes[..count])),
        }
        // What is hidden is hidden from before the prompt is shown. Other lines have colons as well.
        if ["assphrase: ", "once more: "].iter().any(|prompt| seen.ends_with(prompt))
            && let Some(answer) = answers.next()
        {
            writeln!(keyboard, "{answer}").unwrap();
        }
    }
    let status = child.wait().unwrap();
    drop(keyboard);
    (status.code().unwrap(), seen)
}

#[test]
fn at_a_terminal_a_passphrase_is_asked_for_without_showing_it_and_three_times_at_most() {
    let sealed = Sealed::new("pass");
    let aiv = env!("CARGO_BIN_EXE_aiv");
    let target = sealed.scratch.arg("restored.img");
    let restore = format!("{aiv} --quiet restore {} --to {target}", sealed.latest());
    let (status, seen) = at_terminal(&restore, &["wrong one", "wrong two", "wrong three", PASS]);
    assert_eq!(status, 6, "{seen}");
    assert_eq!(seen.matches("Passphrase:").count(), 3, "{seen}");
    assert!(!seen.contains("wrong") && seen.contains("not the right one"), "{seen}");
    assert!(!sealed.scratch.path("restored.img").exists());
    let (status, seen) = at_terminal(&restore, &["wrong one", PASS]);
    assert_eq!(status, 0, "{seen}");
    assert!(!seen.contains(PASS), "{seen}");
    assert!(sealed.is_restored());
    // A new one is asked for twice.
    let change = format!("{aiv} key change {} --password-file {}", sealed.images, sealed.pass);
    let (status, seen) = at_terminal(&change, &["new", "other"]);
    assert_eq!(status, 5, "{seen}");
    let (status, seen) = at_terminal(&change, &["new", "new"]);
    assert_eq!(status, 0, "{seen}");
    sealed.restore(&["--password-file", &sealed.scratch.write("new", b"new")]).ended(0);
}

#[test]
fn no_secret_gets_into_the_words_of_a_process_its_environment_or_its_output() {
    let sealed = Sealed::new("pass");
    let (sheet, paper) = (sealed.scratch.arg("sheet.txt"), sealed.scratch.arg("paper.txt"));
    let with = ["--password-file", sealed.pass.as_str()];
    let log = sealed.scratch.arg("strace.log");
    let program = env!("CARGO_BIN_EXE_aiv");
    let trace = ["-f", "-v", "-s", "65536", "-e", "trace=execve,write", "-o", log.as_str()];
    let (mut seen, latest) = (String::new(), sealed.latest());
    for command in [
        [&["backup", &sealed.disk, "--to", &sealed.images][..], &["--seal"], &with].concat(),
        [&["verify", &sealed.images][..], &with].concat(),
        [&["list", &sealed.images, "--json"][..], &with].concat(),
        [&["dump", &latest][..], &with].concat(),
        [&["key", "recovery-code", &sealed.images, "--out", &sheet, "--json"][..], &with].concat(),
        [&["key", "paper-key", &sealed.images, "--out", &paper][..], &with].concat(),
        vec!["verify", &sealed.images, "--recovery-code-file", &paper],
        [&["key", "list", &sealed.images, "--json"][..], &[]].concat(),
        [&["key", "remove", &sealed.images, "--slot", "9", "--json"][..], &with].concat(),
    ] {
        let output = Command::new("strace")
            .args(trace)
            .arg(program)
            .args(&command)
            .stdin(Stdio::null())
            .output()
            .expect("strace");
        seen += &String::from_utf8_lossy(&output.stdout);
        seen += &String::from_utf8_lossy(&output.stderr);
        let words = fs::read_to_string(&log).unwrap();
        seen += &words.lines().filter(|line| line.contains("execve(")).collect::<String>();
    }
    assert!(seen.contains("execve(") && seen.contains("sealed"), "{seen}");
    for (sheet, len) in [(sheet, 23), (paper, 29)] {
        let code = fs::read_to_string(&sheet).unwrap();
        let groups = code.lines().find(|line| !line.starts_with('#')).unwrap();
        assert!(groups.len() == len && !seen.contains(&groups[..11]), "{seen}");
    }
    assert!(!seen.contains(PASS), "{seen}");
}

#[test]
fn a_damaged_sealed_image_is_called_sealed_without_its_key_also_without_its_head() {
    let sealed = Sealed::new("pass");
    let image = &sealed.contents()[0];
    for head in [0, 4096] {
        let mut bytes = image[..image.len() - 100_000].to_vec();
        bytes[..head].fill(0);
        let broken = sealed.scratch.write("broken.aiv", &bytes);
        let message = aiv_json(&["salvage", &broken, "--list"]).failed(6, "sealed");
        let words = if head == 0 { "the image is sealed" } else { "frames that are left" };
        assert!(message.contains(words) && message.contains("encrypted"), "{message}");
        let wrong = ["--password-file", &sealed.other];
        aiv_json(&[&["salvage", &broken, "--list"][..], &wrong].concat()).failed(6, "wrong_key");
    }
}

#[test]
fn a_damaged_sealed_image_is_salvaged_with_its_passphrase_and_is_sealed_again() {
    let sealed = Sealed::new("pass");
    let with = ["--password-file", &sealed.pass];
    let image = &sealed.contents()[0];
    // A frame, the head with the key slots behind it, and what lies behind the second copy.
    let mut bytes = image.clone();
    bytes[100_000..100_064].fill(0);
    bytes[..20_000].fill(0);
    let broken = sealed.scratch.write("broken.aiv", &bytes);
    let listed = aiv_json(&[&["salvage", &broken, "--list"][..], &with].concat()).ended(3).json();
    let file = &listed["files"][0];
    assert_eq!((&file["sealed"], &file["authentic"]), (&true.into(), &true.into()));
    assert!((1..=2 * 65_536).contains(&listed["bytes_lost"].as_u64().unwrap()), "{listed}");
    let new = sealed.scratch.arg("new");
    let made = aiv_json(&[&["salvage", &broken, "--image", &new][..], &with].concat()).ended(3);
    assert_eq!(made.json()["protection"], "sealed");
    assert!(made.json()["image"].as_str().unwrap().ends_with(".aiv"));
    aiv_json(&["restore", &format!("{new}@latest"), "--to", &sealed.scratch.arg("no.img")])
        .failed(6, "locked");
    let (latest, target) = (format!("{new}@latest"), sealed.scratch.arg("back.img"));
    aiv_json(&[&["restore", &latest, "--to", &target][..], &with].concat()).ended(3);
    let (back, disk) = (fs::read(&target).unwrap(), fs::read(&sealed.disk).unwrap());
    let differ = (0..disk.len()).filter(|&at| back[at] != disk[at]).count() as u64;
    assert!(differ > 0 && differ <= listed["bytes_lost"].as_u64().unwrap());
    // Without a key only when asked for, and never beside those that have one.
    let plain = ["salvage", &broken, "--plain", "--image"];
    let beside = [&plain[..], &[&sealed.images], &with].concat();
    aiv_json(&beside).failed(5, "without_key");
    let clear = sealed.scratch.arg("clear");
    let made = aiv_json(&[&plain[..], &[&clear], &with].concat()).ended(3).json();
    assert_eq!(made["protection"], "none");
    assert!(made["warnings"].to_string().contains("whoever gets it reads it"), "{made}");
    assert!(fs::read(&broken).unwrap() == bytes, "the input is as it was");
}

#[test]
fn without_any_key_slots_those_of_another_image_of_the_chain_do() {
    let sealed = Sealed::new("pass");
    let with = ["--password-file", &sealed.pass];
    let mut bytes = fs::read(&sealed.disk).unwrap();
    bytes[200_000..200_100].fill(0x5A);
    fs::write(&sealed.disk, &bytes).unwrap();
    sealed.back_up(&["--seal", "--password-file", &sealed.pass]).ended(0);
    let full = sealed.files().into_iter().find(|f| f.extension().unwrap() == "aiv").unwrap();
    let mut broken = fs::read(&full).unwrap();
    let second = broken.len() - 8192 - (64 << 10);
    broken[4096..36_864].fill(0);
    broken[second..second + 32_768].fill(0);
    // Where no other image lies in any folder below.
    let away = Scratch::new();
    let broken = away.write("broken.aiv", &broken);
    let raw = away.arg("out.raw");
    let args = [&["salvage", &broken, "--to", &raw][..], &with].concat();
    aiv_json(&args).failed(6, "no_slots");
    let args = [&args[..], &["--parent", &sealed.images]].concat();
    aiv_json(&args).ended(0);
    assert_eq!(fs::read(&raw).unwrap().len(), bytes.len());
}
