//! Each question, and its answer.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use aiv_browse::{LuksKey, Path as FilePath};
use aiv_chain::{Keys, keyed_chains};
use aiv_explorer_model::{
    Answer, BlockKind, Differences, DiskFacts, Files, Lock, Preview, Problem, ProvenNow, SetRow,
    Truth, Work,
};
use aiv_explorer_work::Outside;
use aiv_keys::{Credential, Passphrase, Work as KeyWork};
use aiv_volume_io::{Cancel, DirStorage, Job, Progress};

use crate::made::{self, HELLO, HOSTILE, Made, run};

/// Somebody who asks.
struct Asker {
    outside: Outside,
    keys: Keys,
}

impl Asker {
    fn new() -> Self {
        let outside = Outside::new(Arc::new(made::Outside::new()), false);
        Self { outside, keys: Keys::none() }
    }

    fn ask(&mut self, work: Work) -> Result<Answer, Problem> {
        let answer = self.outside.answer(work, &self.keys, Job::silent(), &|_| {});
        answer.map_err(|failure| Problem::of(&failure))
    }

    fn sets(&mut self, folder: PathBuf) -> Vec<SetRow> {
        match self.ask(Work::Scan { folder }) {
            Ok(Answer::Sets(sets, _)) => sets,
            other => panic!("{other:?}"),
        }
    }

    fn open(&mut self, what: PathBuf) -> DiskFacts {
        match self.ask(Work::Open { what }) {
            Ok(Answer::Disk(facts)) => facts,
            other => panic!("{other:?}"),
        }
    }

    fn files(&mut self, work: Work) -> Files {
        match self.ask(work) {
            Ok(Answer::Files(files)) => files,
            other => panic!("{other:?}"),
        }
    }

    fn read(&mut self, at: &str) -> Preview {
        match self.ask(Work::Read { path: path(at), facts: false }) {
            Ok(Answer::Preview(preview)) => preview,
            other => panic!("{other:?}"),
        }
    }

    fn report(&mut self, work: Work) -> (String, bool, Vec<ProvenNow>) {
        match self.ask(work) {
            Ok(Answer::Report { text, bad, proven }) => (text, bad, proven),
            other => panic!("{other:?}"),
        }
    }
}

fn path(text: &str) -> FilePath {
    FilePath::parse(text.as_bytes()).unwrap()
}

fn names(files: &Files) -> Vec<String> {
    files.rows.iter().map(|row| row.shown()).collect()
}

#[test]
fn a_point_is_found_opened_listed_searched_read_and_its_files_extracted() {
    let made = Made::new();
    let image = made.back_up(None);
    let mut asker = Asker::new();
    let sets = asker.sets(made.images());
    assert_eq!((sets.len(), sets[0].points.len()), (1, 1));
    let point = &sets[0].points[0];
    assert_eq!((&point.truth, point.verified), (&Truth::Restorable, None));
    assert_eq!(made.images().join(&point.file), image);

    let facts = asker.open(image.clone());
    assert!(facts.is_point);
    let volume = &facts.volumes[0];
    assert_eq!((facts.table, facts.volumes.len(), volume.holds), ("mbr", 1, "ext4"));
    assert_eq!((volume.start, volume.label.as_str()), (Some(1 << 20), "files"));

    let listed = asker.files(Work::List { path: path("/p1") });
    let shown = names(&listed);
    assert_eq!(shown[..2], ["etc/", "lost+found/"], "folders come first");
    assert!(shown.contains(&"link -> etc/hello.txt".to_owned()), "{shown:?}");
    assert!(shown.contains(&"\\u{1b}[2Jred".to_owned()), "{shown:?}");
    // Its name stays what it is, to be asked for.
    let hostile = listed.rows.iter().find(|row| row.below == [HOSTILE.as_bytes()]).unwrap();
    let preview = asker.read(&format!("/p1/{HOSTILE}"));
    assert_eq!((preview.bytes.len(), preview.path), (3000, hostile.path(&path("/p1"))));

    let hello = asker.read("/p1/etc/hello.txt");
    assert_eq!((hello.bytes, hello.trouble.as_str()), (HELLO.into(), ""));
    assert!(hello.facts.iter().any(|(name, value)| name == "size" && value.contains("21 bytes")));
    let link = asker.read("/p1/link");
    assert!(link.facts.contains(&("leads to".to_owned(), "etc/hello.txt".to_owned())));

    for (pattern, found) in [
        ("HELLO", vec!["etc/hello.txt"]),
        ("*.conf", vec!["etc/deep/other.conf"]),
        ("none", vec![]),
    ] {
        let work = Work::Search { below: path("/p1"), pattern: pattern.into() };
        assert_eq!(names(&asker.files(work)), found, "{pattern}");
    }
    let bad = Work::Search { below: path("/p1"), pattern: "[".into() };
    assert!(asker.ask(bad).unwrap_err().line.contains("pattern"));

    let to = made.path("out");
    let extract = || Work::Extract { path: path("/p1/etc"), to: to.clone() };
    let (text, bad, _) = asker.report(extract());
    assert!(text.contains("2 files") && !bad, "{text}");
    assert_eq!(fs::read_to_string(to.join("etc/hello.txt")).unwrap(), HELLO);
    let again = asker.ask(extract()).unwrap_err();
    assert!(again.line.contains("exists") && !again.hint.is_empty(), "{again:?}");
    let tar = made.path("out.tar");
    let work = Work::Extract { path: path("/p1/etc/hello.txt"), to: tar.clone() };
    assert!(!asker.report(work).1);
    run("tar", &["-tf", tar.to_str().unwrap(), "hello.txt"]);

    let (text, ..) = asker.report(Work::Describe { image });
    assert!(text.contains("state root") && text.contains("ext4"), "{text}");
}

#[test]
fn two_points_are_compared_and_the_newer_one_shows_what_changed() {
    let made = Made::new();
    let old = made.back_up(None);
    made.change();
    let new = made.back_up(None);
    let mut asker = Asker::new();
    let Ok(Answer::Differences(Differences { rows, more, notes })) =
        asker.ask(Work::Compare { old: old.clone(), new: new.clone() })
    else {
        panic!("two points of one disk");
    };
    let added = rows.iter().find(|row| row.text == "/p1/new").unwrap();
    assert_eq!((added.sign, added.len, more), ('+', 200_000, 0));
    assert!(notes[0].ends_with("in blocks that changed"), "{notes:?}");

    let mut map = |image: PathBuf| {
        asker.open(image);
        match asker.ask(Work::Map) {
            Ok(Answer::Map(map)) => map,
            other => panic!("{other:?}"),
        }
    };
    let (old, new) = (map(old), map(new));
    let changed = |map: &aiv_explorer_model::BlockMap| {
        map.bytes(BlockKind::Changed) + map.bytes(BlockKind::Delta)
    };
    assert_eq!(changed(&old), 0, "a full image builds on nothing");
    assert!((200_000..4 << 20).contains(&changed(&new)), "{}", changed(&new));
    for map in [&old, &new] {
        let all: u64 = aiv_explorer_model::BLOCK_KINDS.iter().map(|&kind| map.bytes(kind)).sum();
        assert_eq!(all, 16 << 20, "every block is something");
        assert!(map.bytes(BlockKind::Used) > 0 && map.bytes(BlockKind::Free) > 0);
    }
}

#[test]
fn what_a_verification_found_is_told_and_remembered() {
    let made = Made::new();
    let image = made.back_up(None);
    let mut asker = Asker::new();
    let one = Work::Verify { what: image.clone(), set: None };
    assert_eq!(asker.sets(made.images())[0].points[0].verified, None);
    let (text, bad, proven) = asker.report(one.clone());
    assert!(text.contains("sound") && !bad, "{text}");
    assert_eq!((proven.len(), proven[0].sound), (1, true));
    let set = asker.sets(made.images()).remove(0);
    assert!(set.points[0].verified.is_some_and(|proof| proof.sound), "for next time, too");
    let all = Work::Verify { what: made.images(), set: Some(set.id) };
    assert!(!asker.report(all.clone()).1);
    assert!(asker.sets(made.images())[0].points[0].verified.is_some_and(|proof| proof.sound));

    let file = fs::File::options().write(true).open(&image).unwrap();
    file.write_all_at(&[0x55; 4096], fs::metadata(&image).unwrap().len() / 3).unwrap();
    for work in [one, all] {
        let (text, bad, proven) = asker.report(work);
        assert!(text.contains("DAMAGED") && bad, "{text}");
        assert_eq!((proven.len(), proven[0].sound), (1, false));
        assert_eq!(made.images().join(&proven[0].file), image);
    }
}

#[test]
fn a_sealed_point_is_locked_until_its_key_is_there() {
    let made = Made::new();
    let image = made.back_up(Some("correct horse"));
    let mut asker = Asker::new();
    let sets = asker.sets(made.images());
    assert_eq!(sets[0].points[0].truth, Truth::Locked);
    assert_eq!(sets[0].name, "", "nothing tells whose it is");
    let locked = asker.ask(Work::Open { what: image.clone() }).unwrap_err();
    assert!(locked.lock == Lock::Image && !locked.canceled, "{locked:?}");

    let storage = DirStorage::open(made.images()).unwrap();
    let chains = keyed_chains(&storage, Job::silent()).unwrap().chains;
    let credential = Credential::Passphrase(Passphrase::new("correct horse").unwrap());
    asker.keys.add(chains[0].open(&credential, &mut KeyWork::new()).unwrap().key);
    assert_eq!(asker.sets(made.images())[0].points[0].truth, Truth::Restorable);
    asker.open(image);
    assert_eq!(asker.read("/p1/etc/hello.txt").bytes, HELLO.as_bytes());
}

#[test]
fn an_encrypted_volume_is_opened_by_its_passphrase_which_is_known_from_then_on() {
    let made = Made::new();
    let raw = made.encrypted("correct horse");
    let point = made.back_up_disk(&raw, None);
    let mut asker = Asker::new();
    let facts = asker.open(raw);
    assert!(facts.volumes[0].closed.contains("encrypted"), "{facts:?}");
    let list = || Work::List { path: path("/p0") };
    assert_eq!(asker.ask(list()).unwrap_err().lock, Lock::Volume);
    let known = || Work::UnlockVolume { path: path("/p0"), asks: None };
    assert_eq!(asker.ask(known()).unwrap_err().lock, Lock::Volume, "nothing is known");
    let unlock = |asker: &mut Asker, text: &str| {
        let key = LuksKey::new(text.as_bytes().to_vec().into());
        let answer = asker.outside.unlock_volume(&path("/p0"), key, &asker.keys, Job::silent());
        answer.map_err(|failure| Problem::of(&failure))
    };
    let wrong = unlock(&mut asker, "battery").unwrap_err();
    assert_eq!(wrong.lock, Lock::WrongKey);
    assert!(wrong.line.contains("does not open /p0") && wrong.hint.contains("Caps Lock"));
    assert_eq!(asker.ask(list()).unwrap_err().lock, Lock::Volume, "and it is forgotten");
    let Ok(Answer::Disk(opened)) = unlock(&mut asker, "correct horse") else { panic!("it opens") };
    assert_eq!((opened.volumes[0].holds, opened.volumes[0].closed.as_str()), ("ext4", ""));
    assert_eq!(asker.read("/p0/etc/hello.txt").bytes, HELLO.as_bytes());
    // The same volume in a point of the disk: nobody is asked once more, and it is compared.
    assert!(!asker.open(point.clone()).volumes[0].closed.is_empty());
    assert_eq!(asker.ask(list()).unwrap_err().lock, Lock::Volume);
    assert!(matches!(asker.ask(known()), Ok(Answer::Disk(_))));
    assert!(names(&asker.files(list())).contains(&"etc/".to_owned()));
    let Ok(Answer::Differences(found)) =
        asker.ask(Work::Compare { old: point.clone(), new: point })
    else {
        panic!("two points")
    };
    assert!(found.notes.iter().any(|note| note.contains("the same")), "{:?}", found.notes);
    // Another disk has nothing to do with it.
    asker.open(made.path("disk.raw"));
    assert_eq!(asker.read("/p1/etc/hello.txt").bytes, HELLO.as_bytes());
}

#[test]
fn raw_and_virtual_disks_are_opened_before_there_is_any_backup() {
    let made = Made::new();
    let (raw, qcow2) = (made.arg("disk.raw"), made.arg("disk.qcow2"));
    run("qemu-img", &["convert", "-O", "qcow2", &raw, &qcow2]);
    let mut asker = Asker::new();
    for disk in [raw, qcow2] {
        let facts = asker.open(disk.into());
        assert!(!facts.is_point);
        assert_eq!(asker.read("/p1/etc/hello.txt").bytes, HELLO.as_bytes());
        assert!(asker.ask(Work::Map).unwrap_err().line.contains("no recovery point"));
    }
}

#[test]
fn what_is_not_there_is_an_answer_with_a_next_step() {
    let made = Made::new();
    let mut asker = Asker::new();
    for work in [
        Work::Scan { folder: made.path("nowhere") },
        Work::Open { what: made.path("nowhere.aiv") },
        Work::List { path: path("/p1") },
        Work::Map,
        Work::Verify { what: made.path("nowhere.aiv"), set: None },
    ] {
        let problem = asker.ask(work.clone()).unwrap_err();
        assert!(!problem.hint.is_empty() && problem.lock == Lock::None, "{work:?} {problem:?}");
    }
    asker.open(made.path("disk.raw"));
    for missing in ["/p1/nothing", "/p9", "/"] {
        assert!(asker.ask(Work::List { path: path(missing) }).is_err(), "{missing}");
    }
}

#[test]
fn what_was_stopped_says_so() {
    struct Nobody;
    impl Progress for Nobody {}
    let made = Made::new();
    let image = made.back_up(None);
    let mut asker = Asker::new();
    let cancel = Cancel::new();
    cancel.cancel();
    for work in
        [Work::Scan { folder: made.images() }, Work::Verify { what: image, set: None }, Work::Map]
    {
        let job = Job::new(&Nobody, &cancel);
        let failure = asker.outside.answer(work, &asker.keys, job, &|_| {}).unwrap_err();
        assert!(Problem::of(&failure).canceled, "{failure:?}");
    }
}
