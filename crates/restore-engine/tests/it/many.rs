//! Several restores at once: all are planned before the first write of any.

use std::fs;
use std::path::{Path, PathBuf};

use aiv_restore_engine::{
    Entry, Error, Identity, Note, Prepared, Refusal, RestoreOptions, SystemTools,
};
use aiv_volume_io::Job;
use aiv_volume_io::partition::Partition;

use crate::build::{FILE, noise, threads};
use crate::real::{Loop, MIB, RealDisk, check_table, run};

/// A disk that was imaged into a folder, and a target of noise.
struct Machine {
    disk: RealDisk,
    target: PathBuf,
}

impl Machine {
    fn new(partition: &str, target_len: u64) -> Self {
        let disk = RealDisk::gpt(6 * MIB, 512, &[partition]);
        let bytes = disk.image().contents(FILE).unwrap();
        fs::write(disk.folder().join(FILE), &*bytes).unwrap();
        let target = disk.folder().join("target.raw");
        fs::write(&target, noise(target_len)).unwrap();
        Self { disk, target }
    }

    fn image(&self) -> PathBuf {
        self.disk.folder().join(FILE)
    }

    fn entry(&self) -> Entry {
        let (image, to) = (self.image(), self.target.clone());
        Entry { image, to, options: threads(1), undo: None }
    }

    fn is_untouched(&self) -> bool {
        let found = fs::read(&self.target).unwrap();
        found == noise(found.len() as u64)
    }

    fn check(&self) -> Vec<Partition> {
        let found = check_table(&self.target, 512);
        assert_eq!(found, self.disk.partitions());
        found
    }
}

fn prepare(entries: Vec<Entry>) -> Result<Vec<Prepared>, Error> {
    Prepared::all(Path::new("/"), entries, None, &aiv_chain::Keys::none(), Job::silent())
}

fn refusal(entries: Vec<Entry>) -> Refusal {
    match prepare(entries) {
        Err(Error::Refused(refusal)) => refusal,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("not refused"),
    }
}

#[test]
fn two_disks_go_to_two_targets() {
    let (one, other) =
        (Machine::new("--new=1:1M:+1M", 9 * MIB), Machine::new("--new=2:2M:0", 6 * MIB));
    let tools = SystemTools::new(one.disk.folder());
    let undo = one.disk.folder().join("undo");
    let entries = vec![Entry { undo: Some(undo.clone()), ..one.entry() }, other.entry()];
    for prepared in prepare(entries).unwrap() {
        assert!(prepared.apply(5, &tools, Job::silent()).unwrap().verified);
    }
    assert_eq!((one.check()[0].number, other.check()[0].number), (1, 2));
    assert!(undo.exists());
}

#[test]
fn two_targets_of_one_point_are_one_disk_unless_they_get_new_identities() {
    let one = Machine::new("--new=1:1M:+1M", 9 * MIB);
    let second = one.disk.folder().join("second.raw");
    fs::write(&second, noise(6 * MIB)).unwrap();
    let entries = |identity: Identity| {
        let both = [one.target.clone(), second.clone()];
        let options = RestoreOptions { identity, seed: [9; 32], ..threads(1) };
        both.map(|to| Entry { to, options, ..one.entry() }).to_vec()
    };
    let refused = refusal(entries(Identity::Unique));
    assert!(matches!(refused, Refusal::SameIdentity { .. }), "{refused}");
    assert!(one.is_untouched());
    // Whichever of both asks for it, and whichever comes first.
    for is_first in [true, false] {
        let mut mixed = entries(Identity::Keep);
        mixed[usize::from(!is_first)].options.identity = Identity::Unique;
        let refused = refusal(mixed);
        assert!(matches!(refused, Refusal::SameIdentity { .. }), "{is_first}: {refused}");
    }
    assert!(one.is_untouched());
    let told = |prepared: &Prepared| {
        prepared.plan.notes().iter().any(|note| matches!(note, Note::SameIdentity { .. }))
    };
    let all = prepare(entries(Identity::Keep)).unwrap();
    assert_eq!(all.iter().map(told).collect::<Vec<_>>(), [false, true]);
    let tools = SystemTools::new(one.disk.folder());
    for prepared in prepare(entries(Identity::NewAll)).unwrap() {
        assert!(!told(&prepared));
        assert!(prepared.apply(5, &tools, Job::silent()).unwrap().verified);
    }
    let ids = [&one.target, &second].map(|path| check_table(path, 512)[0].unique_id);
    assert!(ids[0].is_some() && ids[0] != ids[1]);
}

#[test]
fn when_one_is_refused_no_other_is_begun() {
    let (one, other) =
        (Machine::new("--new=1:1M:+1M", 9 * MIB), Machine::new("--new=1:1M:+4M", 2 * MIB));
    let device = Loop::whole(&other.target, 512);
    let small = Entry { to: device.0.clone(), ..other.entry() };
    for entries in [vec![one.entry(), small.clone()], vec![small, one.entry()]] {
        assert!(matches!(refusal(entries), Refusal::PartitionTooFar { .. }));
    }
    drop(device);
    assert!(one.is_untouched() && other.is_untouched());
}

#[test]
fn two_restores_do_not_share_a_target_under_any_name() {
    let (one, other) =
        (Machine::new("--new=1:1M:+1M", 9 * MIB), Machine::new("--new=1:1M:+4M", 9 * MIB));
    let link = other.disk.folder().join("link");
    std::os::unix::fs::symlink(&one.target, &link).unwrap();
    let missing = one.disk.folder().join("missing.raw");
    let dotted = one.disk.folder().join("./missing.raw");
    for (first, second) in [(&one.target, &one.target), (&one.target, &link), (&missing, &dotted)] {
        let entries = [(&one, first), (&other, second)];
        let entries = entries.map(|(machine, to)| Entry { to: to.clone(), ..machine.entry() });
        let refused = refusal(entries.to_vec());
        assert!(matches!(refused, Refusal::SameTarget { .. }), "{second:?}: {refused}");
    }
    // A disk and a partition of it are one target, too.
    let device = Loop::whole(&one.disk.path, 512);
    run("partx", &["--add", device.node()]);
    let part = PathBuf::from(format!("{}p1", device.node()));
    let entries = [device.0.clone(), part].map(|to| Entry { to, ..other.entry() }).to_vec();
    let refused = prepare(entries);
    run("partx", &["--delete", device.node()]);
    assert!(matches!(refused, Err(Error::Refused(Refusal::SameTarget { .. }))));
}

#[test]
fn no_target_holds_the_image_of_another_restore() {
    let (one, other) =
        (Machine::new("--new=1:1M:+1M", 9 * MIB), Machine::new("--new=1:1M:+4M", 9 * MIB));
    // What the first one reads, the second one would overwrite: in the image file of the first
    // there is an image, so its own kind would be refused; a disk below it is found as well.
    let onto = Entry { to: one.image(), ..other.entry() };
    let refused = refusal(vec![one.entry(), onto]);
    let is_one = matches!(refused, Refusal::HoldsImage { .. } | Refusal::IsImage { .. });
    assert!(is_one, "{refused}");
    let file = one.disk.folder().join("volume.raw");
    fs::File::create(&file).unwrap().set_len(16 * MIB).unwrap();
    let device = Loop::whole(&file, 512);
    run("mkfs.ext4", &["-q", device.node()]);
    let mounted = crate::real::Mount::new(&device, "rw");
    let copy = mounted.path().join(FILE);
    fs::copy(one.image(), &copy).unwrap();
    let reads = Entry { image: copy, ..one.entry() };
    let overwrites = Entry { to: file, ..other.entry() };
    // In use is what is noticed first; either way nothing is written.
    let refused = refusal(vec![overwrites, reads]);
    let is_one = matches!(refused, Refusal::HoldsImage { .. } | Refusal::InUse { .. });
    assert!(is_one, "{refused}");
}

#[test]
fn undo_logs_are_asked_for_before_the_first_write() {
    let (one, other) =
        (Machine::new("--new=1:1M:+1M", 9 * MIB), Machine::new("--new=1:1M:+4M", 9 * MIB));
    let undo = Some(one.disk.folder().join("undo"));
    let entries = [&one, &other].map(|machine| Entry { undo: undo.clone(), ..machine.entry() });
    assert!(matches!(prepare(entries.to_vec()), Err(Error::Undo { .. })), "twice the same");
    let taken = Entry { undo: Some(other.image()), ..other.entry() };
    assert!(matches!(prepare(vec![one.entry(), taken]), Err(Error::Undo { .. })), "it exists");
    assert!(one.is_untouched() && other.is_untouched());
}

#[test]
fn a_plan_file_is_read_up_to_a_length() {
    let machine = Machine::new("--new=1:1M:+1M", 9 * MIB);
    let path = machine.disk.folder().join("plan.json");
    let (image, to) = (machine.image(), machine.target.clone());
    let text = format!(r#"{{"restores": [{{"image": {image:?}, "to": {to:?}}}]}}"#);
    fs::write(&path, text).unwrap();
    assert_eq!(Entry::read_all(&path, &threads(1)).unwrap(), [machine.entry()]);
    let refuse = |path: &Path| Entry::read_all(path, &threads(1)).unwrap_err().to_string();
    assert!(refuse(&machine.image()).contains("is no plan of restores: no JSON"));
    assert!(refuse(&machine.target).contains("9437184 bytes, at most 1048576"));
    assert!(refuse(machine.disk.folder()).contains("is a folder"));
}
