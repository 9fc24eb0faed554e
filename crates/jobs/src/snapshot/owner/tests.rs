use super::*;

const BOOT: &str = "6a2f1c52-84c5-4d0c-9f63-0b1a2c3d4e5f";
/// This process.
pub(in crate::snapshot) const NUMBER: u32 = 4242;

/// Makes `/proc` with this process, the first one, and their namespaces.
pub(in crate::snapshot) fn make_proc(root: &Path) {
    fs::create_dir_all(root.join("proc/sys/kernel/random")).unwrap();
    fs::create_dir_all(root.join("proc/self/ns")).unwrap();
    fs::write(root.join("proc/sys/kernel/random/boot_id"), format!("{BOOT}\n")).unwrap();
    process(root, 1, 3);
    process(root, NUMBER, 900);
    fs::copy(root.join("proc/4242/stat"), root.join("proc/self/stat")).unwrap();
    namespaces(root, "pid:[4026531836]", "time:[4026531834]");
}

/// A process that began then, with a name that looks like fields.
pub(in crate::snapshot) fn process(root: &Path, number: u32, began: u64) {
    let folder = root.join(format!("proc/{number}"));
    fs::create_dir_all(&folder).unwrap();
    let name = b"(a) S 1 \xff 2 3";
    let front = format!("{number} (");
    let back = format!(") S 1 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 {began} 1 2 3\n");
    fs::write(folder.join("stat"), [front.as_bytes(), name, back.as_bytes()].concat()).unwrap();
}

fn namespaces(root: &Path, pid: &str, time: &str) {
    for (kind, link) in [("pid", pid), ("time", time)] {
        let at = root.join("proc/self/ns").join(kind);
        let _ = fs::remove_file(&at);
        std::os::unix::fs::symlink(link, at).unwrap();
    }
}

fn a_machine() -> (tempfile::TempDir, Owner) {
    let root = tempfile::tempdir().unwrap();
    make_proc(root.path());
    let owner = Owner::this_process(root.path(), NUMBER).expect("it is there");
    (root, owner)
}

fn mark(number: u32, began: u64) -> String {
    format!("{BOOT}:4026531836:4026531834:{number}:{began}")
}

#[test]
fn a_process_is_known_by_its_mark_and_this_machine_has_one() {
    let (root, owner) = a_machine();
    assert_eq!(owner.to_string(), mark(NUMBER, 900));
    assert_eq!(Owner::parse(&mark(NUMBER, 900)), Some(owner.clone()));
    assert_eq!(owner.fate(root.path(), &mark(NUMBER, 900)), Fate::Runs);
    let here = Path::new("/");
    let really = Owner::this_process(here, std::process::id()).expect("Linux");
    assert_eq!(really.fate(here, &really.to_string()), Fate::Runs);
    // LVM takes no other characters in a tag, and ZFS no blanks before the end of a value.
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-:".contains(&byte);
    assert!(really.to_string().bytes().all(allowed) && really.to_string().len() < 200);
}

#[test]
fn a_killed_process_is_gone_whoever_has_its_number_now_and_after_a_boot_all_are() {
    let (root, owner) = a_machine();
    let (root, mut child) =
        (root.path(), std::process::Command::new("sleep").arg("60").spawn().unwrap());
    process(root, 77, 500);
    assert_eq!(owner.fate(root, &mark(77, 500)), Fate::Runs);
    assert_eq!(owner.fate(root, &mark(77, 499)), Fate::Gone);
    assert_eq!(owner.fate(root, &mark(78, 500)), Fate::Gone);
    let booted = mark(77, 500).replace("6a2f", "6a2e");
    assert_eq!(owner.fate(root, &booted), Fate::Gone);
    // A real one.
    let here = Path::new("/");
    let really = Owner::this_process(here, std::process::id()).expect("Linux");
    let began = began(here, child.id()).unwrap().expect("it sleeps");
    let mark = Owner { number: child.id(), began, ..really.clone() }.to_string();
    assert_eq!(really.fate(here, &mark), Fate::Runs);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(really.fate(here, &mark), Fate::Gone);
}

#[test]
fn what_cannot_be_seen_from_here_is_not_gone() {
    let (root, owner) = a_machine();
    let root = root.path();
    let unknown = |mark: &str| match owner.fate(root, mark) {
        Fate::Unknown(why) => why,
        fate => panic!("{mark}: {fate:?}"),
    };
    // A container numbers its processes by itself, and may have a clock of its own.
    assert_eq!(unknown(&mark(78, 5).replace("4026531836", "4026532111")), ELSEWHERE);
    assert_eq!(unknown(&mark(NUMBER, 7).replace("4026531834", "4026532112")), ELSEWHERE);
    let good = mark(78, 5);
    for wrong in ["", ":", "x", BOOT, &good[1..], &good[..good.len() - 1], "a:1:2:3:4"] {
        // A shorter last number is a mark as well.
        if Owner::parse(wrong).is_none() {
            assert_eq!(unknown(wrong), NO_MARK, "{wrong}");
        }
    }
    for wrong in [
        format!("{good}:1"),
        format!("{good} "),
        good.replace(":78:", ":078:"),
        good.replace(":78:", ":+78:"),
        good.replace(":78:", ":-1:"),
        good.replace(":78:", ":4294967296:"),
        good.replace("6a2f", "6A2F"),
    ] {
        assert_eq!(unknown(&wrong), NO_MARK, "{wrong}");
    }
    fs::write(root.join("proc/77"), "").unwrap();
    assert_eq!(unknown(&mark(77, 5)), NOT_TOLD);
    process(root, 79, 5);
    fs::write(root.join("proc/79/stat"), "79 (x) S 1").unwrap();
    assert_eq!(unknown(&mark(79, 5)), NOT_TOLD);
    // A /proc that shows only one's own processes does not show the first one.
    fs::remove_dir_all(root.join("proc/1")).unwrap();
    assert_eq!(unknown(&good), HIDDEN);
    assert_eq!(owner.fate(root, &mark(NUMBER, 900)), Fate::Runs);
}

#[test]
fn a_proc_that_does_not_show_this_process_gives_no_mark() {
    let (root, _) = a_machine();
    let root = root.path();
    let made = |number| Owner::this_process(root, number).map(drop);
    assert!(made(1).is_err(), "the /proc of another namespace has other numbers");
    namespaces(root, "pid:[1]", "pid:[2]");
    assert!(made(NUMBER).is_err());
    namespaces(root, "pid:[1]", "time:[2]");
    fs::remove_file(root.join("proc/self/ns/time")).unwrap();
    made(NUMBER).expect("before Linux 5.6");
    fs::write(root.join("proc/sys/kernel/random/boot_id"), "").unwrap();
    assert!(made(NUMBER).is_err());
    fs::remove_dir_all(root.join("proc")).unwrap();
    assert!(made(NUMBER).is_err());
}

#[test]
fn only_what_is_left_over_goes_and_what_may_be_is_told() {
    let (root, owner) = a_machine();
    let found = [
        ("own", mark(NUMBER, 900)),
        ("left", mark(5, 5)),
        ("open", mark(6, 6)),
        ("?", String::new()),
    ];
    let found = found.map(|(name, mark)| (name.to_owned(), mark));
    let asked = std::cell::RefCell::new(Vec::new());
    let leftovers = owner.remove_leftovers(root.path(), found, |name| {
        asked.borrow_mut().push(name.to_owned());
        if name == "open" { Err(io::Error::other("busy")) } else { Ok(()) }
    });
    assert_eq!(asked.into_inner(), ["left", "open"]);
    assert_eq!(leftovers.removed, ["left"]);
    let kept =
        [("open", "busy"), ("?", NO_MARK)].map(|(name, why)| (name.to_owned(), why.to_owned()));
    assert_eq!(leftovers.kept, kept);
}
