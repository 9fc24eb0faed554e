use std::collections::BTreeMap;
use std::fs;
use std::sync::Mutex;

use super::super::owner::tests::{NUMBER, make_proc, process};
use super::*;

const LEN: u64 = 64 << 20;
const NAME: &str = "aiv-0badcafe";

/// A pool that answers as the programs of ZFS 2.1 do, and devices in a tree of its own.
struct Pool {
    root: tempfile::TempDir,
    volume: &'static str,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Snapshots with the value of the tag.
    snapshots: BTreeMap<String, String>,
    /// Clones and their snapshots.
    clones: BTreeMap<String, String>,
    /// What is mounted or open, and cannot be destroyed.
    open: Vec<String>,
    devices: Vec<String>,
    /// The device that goes when the next one comes, which gets its number.
    reused: Option<usize>,
    room: u64,
    asked: Vec<Vec<String>>,
}

impl Pool {
    fn new(volume: &'static str) -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("sys/class/block")).unwrap();
        make_proc(root.path());
        for file in ["proc/self/mountinfo", "proc/swaps"] {
            fs::write(root.path().join(file), "").unwrap();
        }
        let state = Mutex::new(State { room: LEN, ..State::default() });
        let pool = Self { root, volume, state };
        pool.appear(volume);
        pool
    }

    /// A device of a volume, the next one.
    fn appear(&self, volume: &str) {
        let mut state = self.state.lock().unwrap();
        let at = state.reused.take().unwrap_or(state.devices.len());
        state.devices.truncate(at);
        state.devices.push(volume.to_owned());
        let number = at * 16;
        let at = self.root.path().join(format!("sys/class/block/zd{number}"));
        fs::create_dir_all(&at).unwrap();
        let (len, read_only) = ((LEN / 512).to_string(), u8::from(volume != self.volume));
        for (name, text) in
            [("dev", format!("230:{number}")), ("size", len), ("ro", read_only.to_string())]
        {
            fs::write(at.join(name), text).unwrap();
        }
    }

    fn answer(&self, program: &str, words: &[&str]) -> io::Result<String> {
        let mut state = self.state.lock().unwrap();
        state.asked.push([&[program], words].concat().iter().map(ToString::to_string).collect());
        let failed = |what: &str| Err(io::Error::other(format!("{program}: {what}")));
        match (program, words) {
            ("/usr/lib/udev/zvol_id", _) => Err(io::Error::from(io::ErrorKind::NotFound)),
            ("/lib/udev/zvol_id", [device]) => {
                let number: usize = device.strip_prefix("/dev/zd").unwrap().parse().unwrap();
                Ok(state.devices[number / 16].replace(' ', "+") + "\n")
            }
            ("zfs", ["list", "-H", "-p", "-t", "volume", "-o", "name,volsize", volume]) => {
                Ok(format!("{volume}\t{LEN}\n"))
            }
            ("zfs", ["list", "-H", "-p", "-o", "name,available", pool, volume]) => {
                Ok(format!("{pool}\t{}\n{volume}\t{LEN}\n", state.room))
            }
            ("zfs", ["list", "-H", "-p", "-d", "1", "-t", "snapshot", ..]) => {
                let line = |(name, tag): (&String, &String)| {
                    let clones = state.clones.iter().filter(|(_, of)| *of == name);
                    let clones: Vec<_> = clones.map(|(clone, _)| clone.as_str()).collect();
                    format!("{name}\t{}\t{tag}\n", clones.join(","))
                };
                Ok(state.snapshots.iter().map(line).collect())
            }
            ("zfs", ["snapshot", "-o", tag, name]) => {
                let tag = tag.strip_prefix("aivory:snapshot=").unwrap().to_owned();
                state.snapshots.insert((*name).to_owned(), tag);
                Ok(String::new())
            }
            ("zfs", ["clone", .., snapshot, clone]) => {
                if !state.snapshots.contains_key(*snapshot) {
                    return failed("dataset does not exist");
                }
                state.clones.insert((*clone).to_owned(), (*snapshot).to_owned());
                drop(state);
                self.appear(clone);
                Ok(String::new())
            }
            ("zfs", ["destroy", name]) => {
                let has_clones = state.clones.values().any(|of| of == name);
                if has_clones || state.open.iter().any(|open| open == name) {
                    return failed("dataset is busy");
                }
                let is_gone = state.snapshots.remove(*name).is_some();
                match state.clones.remove(*name).is_some() || is_gone {
                    true => Ok(String::new()),
                    false => failed("dataset does not exist"),
                }
            }
            _ => failed("nobody should ask that"),
        }
    }

    /// What is left of snapshots and clones.
    fn left(&self) -> Vec<String> {
        let state = self.state.lock().unwrap();
        state.snapshots.keys().chain(state.clones.keys()).cloned().collect()
    }

    fn device(&self) -> BlockDevice {
        device::list(self.root.path()).unwrap().remove(0)
    }
}

/// Does something with the volume of a pool.
fn with<T>(pool: &Pool, act: impl FnOnce(&Zfs<'_>) -> T) -> T {
    let run = |program: &str, words: &[&str]| pool.answer(program, words);
    act(&Zfs::of(&pool.device(), pool.root.path(), owner(pool), &run).expect("a volume"))
}

fn owner(pool: &Pool) -> Owner {
    Owner::this_process(pool.root.path(), NUMBER).expect("it is there")
}

#[test]
fn devices_of_volumes_are_known_by_their_names() {
    for device in ["zd0", "zd16", "zd4096"] {
        assert!(is_volume(device), "{device}");
    }
    for device in ["zd", "zd0p1", "sda", "zram0", "zdx", "dm-0"] {
        assert!(!is_volume(device), "{device}");
    }
}

#[test]
fn names_that_zfs_gives_are_words_and_everything_else_is_no_name() {
    for name in ["tank/a", "tank/-rf x/a:b.c_d-e", "0/ "] {
        assert!(is_name(name), "{name}");
    }
    let long = format!("tank/{}", "a".repeat(251));
    let wrong =
        ["tank", "", "/", "tank/", "tank//a", "-tank/a", "tank/a@b", "tank/a\n", "tank/$(a)"];
    for name in wrong.into_iter().chain(["tank/a;b", "tank/ä", "tank/a\tb", &long]) {
        assert!(!is_name(name), "{name}");
    }
}

#[test]
fn a_snapshot_is_a_clone_to_read_and_both_go() {
    for volume in ["tank/vm", "tank/a b/-rf x.y:z"] {
        let pool = Pool::new(volume);
        with(&pool, |zfs| {
            zfs.create(NAME).expect("created");
            assert_eq!(zfs.show(NAME).expect("shown"), Path::new("/dev/zd16"));
            zfs.check(NAME).expect("holds");
            let clone = format!("{}/{NAME}", volume.rsplit_once('/').unwrap().0);
            assert_eq!(pool.left(), [format!("{volume}@{NAME}"), clone]);
            assert_eq!(zfs.title(NAME), format!("{volume}@{NAME}"));
            zfs.remove(NAME).expect("removed");
            assert_eq!(pool.left(), [""; 0]);
        });
        let asked = &pool.state.lock().unwrap().asked;
        assert!(asked.iter().all(|words| words[1] != "set"), "no property is changed: {asked:?}");
        let cloned = asked.iter().find(|words| words[1] == "clone").expect("cloned");
        assert!(cloned.contains(&"readonly=on".to_owned()), "{cloned:?}");
    }
}

#[test]
fn a_clone_that_gets_the_number_of_one_that_went_meanwhile_is_found() {
    let pool = Pool::new("tank/vm");
    // Of another backup, which ends now.
    pool.appear("tank/aiv-00000001");
    pool.state.lock().unwrap().reused = Some(1);
    with(&pool, |zfs| {
        zfs.create(NAME).expect("created");
        assert_eq!(zfs.show(NAME).expect("shown"), Path::new("/dev/zd16"));
    });
}

#[test]
fn a_snapshot_without_its_clone_is_removed_as_well() {
    let pool = Pool::new("tank/vm");
    with(&pool, |zfs| {
        zfs.remove(NAME).expect("there is none");
        zfs.create(NAME).expect("created");
        zfs.remove(NAME).expect("removed");
    });
    assert_eq!(pool.left(), [""; 0]);
}

#[test]
fn a_snapshot_of_a_backup_that_runs_stays_for_as_long_as_its_command_takes() {
    let pool = Pool::new("tank/vm");
    // It is made, and not open yet: a command of the user runs, for a day if need be.
    process(pool.root.path(), 77, 500);
    let mark = owner(&pool).to_string().replace(":4242:900", ":77:500");
    let name = format!("tank/vm@{NAME}");
    pool.state.lock().unwrap().snapshots.insert(name.clone(), format!("{NAME}:{mark}"));
    let clean = |pool: &Pool| with(pool, |zfs| zfs.remove_leftovers());
    assert_eq!(clean(&pool), Leftovers::default());
    assert_eq!(pool.left(), std::slice::from_ref(&name));
    // It is killed.
    fs::remove_dir_all(pool.root.path().join("proc/77")).unwrap();
    assert_eq!(clean(&pool).removed, [name]);
    assert_eq!(pool.left(), [""; 0]);
    // One of this process.
    with(&pool, |zfs| zfs.create(NAME)).expect("created");
    assert_eq!(clean(&pool), Leftovers::default());
    assert_eq!(pool.left().len(), 1);
}

#[test]
fn leftovers_go_unless_they_are_in_use_open_or_not_ours() {
    let pool = Pool::new("tank/vm");
    let ours = |number: u32| format!("aiv-{number:08x}");
    // Of a process that is gone.
    let gone = owner(&pool).to_string().replace(":4242:", ":4243:");
    {
        let mut state = pool.state.lock().unwrap();
        let mut add = |name: &str, tag: &str| {
            state.snapshots.insert(format!("tank/vm@{name}"), tag.to_owned());
        };
        for number in [1, 2, 3, 4] {
            add(&ours(number), &format!("{}:{gone}", ours(number)));
        }
        // With no mark.
        add(&ours(5), &ours(5));
        // Of others: with a name like ours, with an inherited tag, and with no tag.
        add(&ours(6), "-");
        add(&ours(7), &format!("{}:{gone}", ours(1)));
        add("daily", "daily");
        for (clone, of) in [(ours(2), 2), (ours(3), 3), ("mine".to_owned(), 4)] {
            state.clones.insert(format!("tank/{clone}"), format!("tank/vm@{}", ours(of)));
        }
        // Somebody's volume that has the name our clone would have.
        state.clones.insert(format!("tank/{}", ours(1)), "tank/other@x".to_owned());
        state.open.push(format!("tank/{}", ours(3)));
    }
    let leftovers = with(&pool, |zfs| zfs.remove_leftovers());
    assert_eq!(leftovers.removed, [1, 2].map(|number| format!("tank/vm@{}", ours(number))));
    // Each that stays, and may be one, is told, with what holds it.
    let why = ["dataset is busy", "has another clone, tank/mine", "nothing says which process"];
    assert_eq!(leftovers.kept.len(), why.len(), "{:?}", leftovers.kept);
    for ((number, why), (name, told)) in [3, 4, 5].into_iter().zip(why).zip(&leftovers.kept) {
        assert_eq!(*name, format!("tank/vm@{}", ours(number)));
        assert!(told.contains(why), "{told}");
    }
    let left = pool.left();
    let expected = [3, 4, 5, 6, 7].map(|number| format!("tank/vm@{}", ours(number)));
    assert_eq!(left[..5], expected);
    assert_eq!(
        left[5..],
        [
            "tank/vm@daily".to_owned(),
            format!("tank/{}", ours(1)),
            format!("tank/{}", ours(3)),
            "tank/mine".to_owned(),
        ]
    );
}

#[test]
fn a_full_pool_is_a_snapshot_that_ran_over() {
    let pool = Pool::new("tank/vm");
    with(&pool, |zfs| {
        zfs.create(NAME).expect("created");
        pool.state.lock().unwrap().room = ROOM_MIN - 1;
        let check = |result: Result<(), SnapshotError>| match result {
            Err(SnapshotError::Overflow { name }) => assert_eq!(name, "tank"),
            other => panic!("{other:?}"),
        };
        check(zfs.check(NAME));
        check(zfs.show(NAME).map(drop));
    });
}

#[test]
fn missing_programs_and_answers_about_something_else_are_errors() {
    let pool = Pool::new("tank/vm");
    let of = |run: Run<'_>| Zfs::of(&pool.device(), pool.root.path(), owner(&pool), run).map(drop);
    let none = |_: &str, _: &[&str]| Err(io::Error::from(io::ErrorKind::NotFound));
    assert!(matches!(of(&none), Err(SnapshotError::NoProgram { .. })));
    let only_udev = |program: &str, words: &[&str]| match program {
        "zfs" => Err(io::Error::from(io::ErrorKind::NotFound)),
        _ => pool.answer(program, words),
    };
    assert!(matches!(of(&only_udev), Err(SnapshotError::NoProgram { .. })));
    for said in ["", "tank/vm\t1\n", "tank/other\t67108864\n", "tank/vm\t67108864\nx\t1\n"] {
        let lies = |program: &str, words: &[&str]| match program {
            "zfs" => Ok(said.to_owned()),
            _ => pool.answer(program, words),
        };
        assert!(matches!(of(&lies), Err(SnapshotError::Zfs(_))), "{said:?}");
    }
    let hostile = |_: &str, _: &[&str]| Ok("tank/$(reboot)\n".to_owned());
    assert!(matches!(of(&hostile), Err(SnapshotError::Zfs(_))));
}
