//! The key of a chain on paper: it opens what nothing else opens any more, and is shown to nobody
//! who did not ask for it.

use std::fs;
use std::path::Path;

use crate::support::{MIB, Run, Scratch, aiv, aiv_json, names_in, noise, run};

/// A sealed image of a disk of noise, in a folder of its own, and its paper key.
struct Sealed {
    scratch: Scratch,
    disk: String,
    images: String,
    pass: String,
    sheet: String,
}

impl Sealed {
    fn new(len: u64, seed: u64, options: &[&str]) -> Self {
        let scratch = Scratch::new();
        let disk = scratch.write("disk.img", &noise(len, seed));
        let (images, pass) = (scratch.arg("images"), scratch.write("pass", b"correct horse"));
        let backup = ["backup", &disk, "--to", &images, "--seal", "--password-file", &pass];
        aiv_json(&[&backup[..], options].concat()).ended(0);
        let sheet = scratch.arg("sheet.txt");
        let sealed = Self { scratch, disk, images, pass, sheet };
        let json = sealed.with_pass(&["key", "paper-key", &sealed.images, "--out", &sealed.sheet]);
        let listed = aiv_json(&["key", "list", &sealed.images]).ended(0).json();
        assert_eq!(json.ended(0).json()["key"], listed["chains"][0]["key"]);
        sealed
    }

    fn with_pass(&self, args: &[&str]) -> Run {
        aiv_json(&[args, &["--password-file", &self.pass]].concat())
    }

    fn with_paper(&self, args: &[&str]) -> Run {
        aiv_json(&[args, &["--recovery-code-file", &self.sheet]].concat())
    }

    /// The image itself.
    fn image(&self) -> String {
        let folder = self.scratch.path("images");
        let name = names_in(&folder).into_iter().find(|name| name.ends_with(".aiv")).unwrap();
        folder.join(name).to_str().unwrap().to_owned()
    }

    fn restores(&self, with: &Run) -> bool {
        assert_eq!(with.status, 0, "{}{}", with.stdout, with.stderr);
        fs::read(self.scratch.path("back.img")).unwrap() == fs::read(&self.disk).unwrap()
    }
}

#[test]
fn it_opens_a_segment_from_the_middle_when_nothing_else_is_left() {
    let sealed = Sealed::new(150 * MIB, 5, &["--split", "64M", "--compress", "none"]);
    let away = Scratch::new();
    let (middle, code) = (away.arg("left.p002"), away.arg("code.txt"));
    sealed.with_pass(&["key", "recovery-code", &sealed.images, "--out", &code]).ended(0);
    fs::rename(format!("{}.p002", sealed.image()), &middle).unwrap();
    let list = ["salvage", &middle, "--list"];
    sealed.with_pass(&list).failed(6, "no_slots");
    aiv_json(&[&list[..], &["--recovery-code-file", &code]].concat()).failed(6, "no_slots");
    let hint = aiv(&[&list[..], &["--password-file", &sealed.pass]].concat()).stderr;
    assert!(hint.contains("paper key"), "{hint}");
    let other = Sealed::new(8192, 6, &[]);
    other.with_paper(&list).failed(6, "wrong_key");

    let listed = sealed.with_paper(&list).ended(3).json();
    assert_eq!(listed["files"][0]["sealed"], true, "{listed}");
    let raw = away.arg("left.raw");
    sealed.with_paper(&["salvage", &middle, "--to", &raw]).ended(3);
    let (left, disk) = (fs::read(&raw).unwrap(), fs::read(&sealed.disk).unwrap());
    assert_eq!(left.len(), disk.len());
    let mut found = 0;
    for (left, disk) in left.chunks(65_536).zip(disk.chunks(65_536)) {
        assert!(left == disk || left.iter().all(|&byte| byte == 0), "a block is made up");
        found += u64::from(left == disk);
    }
    // All of a segment of 64 MiB but what tells of its blocks.
    assert!((1000..1024).contains(&found), "{found}");
    let lost = listed["bytes_lost"].as_u64().unwrap();
    assert_eq!(lost, 150 * MIB - found * 65_536);
    // In a folder of its own it is no image, and nobody calls it one that was put there.
    let folder = away.arg(".");
    let said = sealed.with_paper(&["list", &folder]).failed(4, "no_key");
    assert!(said.contains("left.p002") && !said.contains("put in the place"), "{said}");
    // Nobody could open a new image of it but with this sheet: in clear it is written when asked for.
    let new = away.arg("new");
    sealed.with_paper(&["salvage", &middle, "--image", &new]).failed(6, "no_slots");
    sealed.with_paper(&["salvage", &middle, "--image", &new, "--plain"]).ended(3);
}

/// Writes zeros over both copies of the key slots.
fn without_slots(image: &Path) {
    let mut bytes = fs::read(image).unwrap();
    let second = bytes.len() - 8192 - (64 << 10);
    for at in [4096, second] {
        bytes[at..at + 32_768].fill(0);
    }
    fs::write(image, bytes).unwrap();
}

#[test]
fn it_opens_images_whose_key_slots_are_gone_and_makes_them_anew() {
    let sealed = Sealed::new(300_000, 7, &[]);
    let (images, image) = (&sealed.images, sealed.image());
    let old = fs::read(&image).unwrap();
    without_slots(Path::new(&image));
    let latest = format!("{images}@latest");
    let restore = ["restore", &latest, "--to", &sealed.scratch.arg("back.img")];
    sealed.with_pass(&restore).failed(4, "key_slots_damaged");
    let restored = sealed.with_paper(&restore);
    assert!(restored.stderr.contains("nothing but the paper key opens"), "{}", restored.stderr);
    assert!(sealed.restores(&restored));
    fs::remove_file(sealed.scratch.path("back.img")).unwrap();
    for change in [&["remove", images, "--slot", "1"][..], &["rotate", images]] {
        sealed.with_paper(&[&["key"], change].concat()).failed(4, "key_slots_lost");
    }

    let new = sealed.scratch.write("new", b"battery staple");
    let with_new = |args: &[&str]| aiv_json(&[args, &["--password-file", &new]].concat());
    let made = sealed.with_paper(&["key", "add", images, "--new-password-file", &new]).ended(0);
    let chain = &made.json()["chains"][0];
    // Nobody knows whether the key was retired: from now on it is.
    assert_eq!((&chain["anew"], &chain["retired"]), (&true.into(), &true.into()), "{chain}");
    assert!(chain["generation"].as_u64().unwrap() > 1_000_000_000);
    assert!(sealed.restores(&with_new(&restore)));
    sealed.with_pass(&["verify", images]).failed(6, "wrong_key");
    // What an older image brings back does not take the place of the new slots.
    fs::write(sealed.scratch.path("images/older.aiv"), old).unwrap();
    let file = sealed.scratch.write("file", &noise(64, 1));
    with_new(&["key", "add", images, "--new-key-file", &file]).ended(0);
    let slots = aiv_json(&["key", "list", images]).ended(0).json()["chains"][0]["slots"].clone();
    assert_eq!(slots.as_array().unwrap().len(), 2, "{slots}");
    with_new(&["verify", images]).ended(0);
    sealed.with_pass(&["verify", images]).failed(6, "wrong_key");
    let backup = ["backup", &sealed.disk, "--to", images, "--seal"];
    let begun = with_new(&backup).ended(0).json();
    assert_eq!(begun["images"][0]["kind"], "full", "{begun}");
}

#[test]
fn what_would_never_have_slots_is_not_written_and_what_has_none_is_told() {
    let sealed = Sealed::new(300_000, 10, &[]);
    let mut bytes = fs::read(sealed.image()).unwrap();
    let end = bytes.len() - 8192 - (128 << 10);
    bytes[..36_864].fill(0);
    bytes[end..].fill(0);
    let away = Scratch::new();
    let (broken, new) = (away.write("broken.aiv", &bytes), away.arg("new"));
    // Known by its frames alone: nothing tells whether it had any.
    sealed.with_paper(&["salvage", &broken, "--image", &new]).failed(6, "no_slots");
    sealed.with_paper(&["salvage", &broken, "--image", &new, "--plain"]).ended(3);

    let code = sealed.scratch.arg("code.txt");
    let image = sealed.image();
    run("chattr", &["+i", &image]);
    let refused = sealed.with_pass(&["key", "recovery-code", &sealed.images, "--out", &code]);
    run("chattr", &["-i", &image]);
    assert!(refused.failed(1, "not_changed").contains("no image was changed"));
    assert!(!Path::new(&code).exists(), "a sheet that opens nothing");
}

#[test]
fn it_is_shown_to_people_kept_from_programs_and_begins_nothing() {
    let sealed = Sealed::new(300_000, 8, &[]);
    let text = fs::read_to_string(&sealed.sheet).unwrap();
    let show = ["key", "paper-key", &sealed.images];
    sealed.with_pass(&show).failed(2, "no_secret");
    sealed.with_pass(&[&show[..], &["--out", &sealed.sheet]].concat()).failed(1, "exists");
    let shown = aiv(&[&show[..], &["--password-file", &sealed.pass]].concat()).ended(0);
    let key = |text: &str| -> Vec<String> {
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    };
    assert!(key(&shown.stdout) == key(&text) && key(&text).len() == 3, "{}", shown.stdout);
    assert!(!shown.stderr.contains(&text[text.len() - 10..]), "{}", shown.stderr);
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &fs::metadata(&sealed.sheet).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);

    let (images, disk) = (&sealed.images, &sealed.disk);
    for to in [images.clone(), sealed.scratch.arg("elsewhere")] {
        let message = sealed.with_paper(&["backup", disk, "--to", &to, "--seal"]);
        assert!(message.failed(5, "unusable_key").contains("paper key"));
        assert_eq!(Path::new(&to).exists(), to == *images);
    }
    let change = ["key", "change", images, "--new-password-file", &sealed.pass];
    assert!(sealed.with_paper(&change).failed(5, "unusable_key").contains("no slot"));
    let group = key(&text)[1][6..11].to_owned();
    let wrong = if group.starts_with('0') { '1' } else { '0' };
    let typed = text.replace(&group, &format!("{wrong}{}", &group[1..]));
    let typed = sealed.scratch.write("typed", typed.as_bytes());
    let verify = ["verify", images, "--recovery-code-file", &typed];
    let message = aiv_json(&verify).failed(6, "mistyped_key");
    assert!(message.contains("group 7 is mistyped"), "{message}");

    // Which of two keys is meant is for the user to say.
    let second = sealed.scratch.write("second.img", &noise(20_000, 9));
    let args = ["backup", &second, "--to", images, "--seal", "--full"];
    sealed.with_pass(&args).ended(0);
    let count =
        aiv_json(&["key", "list", images]).ended(0).json()["chains"].as_array().unwrap().len();
    assert_eq!(count, 2);
    sealed.with_pass(&show).failed(5, "many_keys");
    let one = sealed.scratch.arg("one.txt");
    sealed.with_pass(&["key", "paper-key", &sealed.image(), "--out", &one]).ended(0);
}
