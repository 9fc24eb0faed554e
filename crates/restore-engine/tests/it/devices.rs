//! Real loop devices, looked at through the running system.

use std::path::{Path, PathBuf};
use std::process::Command;

use aiv_restore_engine::{Error, Refusal, RestoreOptions, RestorePlan, TargetFacts, Unused, Use};
use aiv_volume_io::{Extent, FileDisk, Job, ReadAt, WriteAt};

use crate::build::{Built, Disk, FILE, noise, threads};

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().expect(program);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {errors}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A file of noise shown as a device, until dropped.
struct Loop {
    folder: tempfile::TempDir,
    device: PathBuf,
}

impl Loop {
    fn new(len: u64, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("backing.raw");
        std::fs::write(&file, noise(len)).unwrap();
        let mut args = vec!["--find", "--show"];
        args.extend(options);
        args.push(file.to_str().unwrap());
        let device = run("losetup", &args).into();
        Self { folder, device }
    }

    fn device(&self) -> &str {
        self.device.to_str().unwrap()
    }

    fn backing(&self) -> PathBuf {
        self.folder.path().join("backing.raw")
    }

    fn facts(&self) -> TargetFacts {
        gather(&self.device, self.folder.path())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        run("losetup", &["--detach", self.device()]);
    }
}

/// A mounted ext4 on a loop device, until dropped.
struct Mounted<'a> {
    _device: &'a Loop,
    at: tempfile::TempDir,
}

impl<'a> Mounted<'a> {
    fn new(device: &'a Loop) -> Self {
        run("mkfs.ext4", &["-q", "-F", device.device()]);
        let at = tempfile::tempdir().unwrap();
        run("mount", &[device.device(), at.path().to_str().unwrap()]);
        Self { _device: device, at }
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        run("umount", &[self.at.path().to_str().unwrap()]);
    }
}

fn gather(target: &Path, image: &Path) -> TargetFacts {
    TargetFacts::gather(Path::new("/"), target, image).expect("examined")
}

fn refusal(built: &Built, facts: &TargetFacts) -> Refusal {
    match RestorePlan::new(&built.view(), facts, threads(1), Job::silent()) {
        Err(Error::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

/// A disk of whole sectors, so that a loop device can have its length.
fn disk() -> Disk {
    Disk { short_by: 8192, ..Disk::partitioned_sample() }
}

#[test]
fn a_disk_goes_onto_a_device_and_free_space_as_asked() {
    let built = disk().build();
    for (unused, delta) in [(Unused::Zero, false), (Unused::Leave, true), (Unused::Discard, false)]
    {
        let device = Loop::new(built.len(), &[]);
        let facts = device.facts();
        assert_eq!((facts.len, facts.logical_sector_size), (built.len(), 512));
        assert!(facts.uses.is_empty() && !facts.holds_image, "{facts:?}");
        let options = RestoreOptions { unused, delta, ..threads(2) };
        let view = built.view();
        let plan = RestorePlan::new(&view, &facts, options, Job::silent()).unwrap();
        let target = FileDisk::open_target(&device.device, true).unwrap();
        let report = plan.apply(&view, &target, Job::silent()).unwrap();
        assert!(report.verified);
        drop(target);

        let (before, after) = (noise(built.len()), std::fs::read(&device.device).unwrap());
        for (number, kind) in built.kinds.iter().enumerate() {
            let at = number * built.block_size;
            let range = at..(at + built.block_size).min(after.len());
            let free = kind.map_state() == 1 || kind.map_state() == 2;
            match unused {
                Unused::Discard if free => {}
                Unused::Leave if free => assert!(after[range.clone()] == before[range]),
                _ => assert!(after[range.clone()] == built.bytes[range], "block {number}"),
            }
        }
    }
}

#[test]
fn a_partition_goes_onto_a_larger_device_whose_rest_stays() {
    let disk = disk();
    let (built, region) = (disk.build(), disk.parts[1].1);
    let device = Loop::new(2 << 20, &[]);
    let options = RestoreOptions { partition: Some(7), unused: Unused::Zero, ..threads(2) };
    let view = built.view();
    let plan = RestorePlan::new(&view, &device.facts(), options, Job::silent()).unwrap();
    let target = FileDisk::open_target(&device.device, true).unwrap();
    plan.apply(&view, &target, Job::silent()).unwrap();
    drop(target);
    let (before, after) = (noise(2 << 20), std::fs::read(&device.device).unwrap());
    let range = usize::try_from(region.start).unwrap()..usize::try_from(region.end()).unwrap();
    assert!(after[..range.len()] == built.bytes[range.clone()]);
    assert!(after[range.len()..] == before[range.len()..]);
}

#[test]
fn sectors_of_4096_bytes_do_not_take_a_disk_of_512() {
    let built = disk().build();
    let device = Loop::new(4 << 20, &["--sector-size", "4096"]);
    let target = device.device().to_owned();
    let wanted = Refusal::SectorSize { target, needed: 512, found: 4096 };
    assert_eq!(refusal(&built, &device.facts()), wanted);
}

#[test]
fn sectors_of_4096_bytes_take_a_disk_of_4096() {
    let built = Disk { sector_size: 4096, short_by: 0, ..disk() }.build();
    let device = Loop::new(built.len(), &["--sector-size", "4096"]);
    let view = built.view();
    let options = RestoreOptions { unused: Unused::Zero, ..threads(2) };
    let plan = RestorePlan::new(&view, &device.facts(), options, Job::silent()).unwrap();
    let target = FileDisk::open_target(&device.device, true).unwrap();
    plan.apply(&view, &target, Job::silent()).unwrap();
    drop(target);
    assert!(std::fs::read(&device.device).unwrap() == built.bytes);
}

#[test]
fn a_device_that_is_too_small_is_refused() {
    let built = disk().build();
    let device = Loop::new(built.len() - 512, &[]);
    let refused = refusal(&built, &device.facts());
    assert!(matches!(refused, Refusal::TooSmall { .. }), "{refused}");
}

#[test]
fn a_read_only_device_is_refused() {
    let built = disk().build();
    let device = Loop::new(4 << 20, &["--read-only"]);
    let refused = refusal(&built, &device.facts());
    assert!(matches!(refused, Refusal::ReadOnly { .. }), "{refused}");
}

#[test]
fn a_mounted_device_is_refused_and_so_is_the_file_behind_it() {
    let built = disk().build();
    let device = Loop::new(16 << 20, &[]);
    let mounted = Mounted::new(&device);
    let is_mount =
        |found: &Use| matches!(found, Use::Mounted { path, .. } if path == mounted.at.path());
    for target in [device.device.clone(), device.backing()] {
        let Refusal::InUse { uses, .. } = refusal(&built, &gather(&target, Path::new("/proc")))
        else {
            panic!("{target:?} is not in use")
        };
        assert!(uses.iter().any(is_mount), "{uses:?}");
    }
    let claimed = FileDisk::open_target(&device.device, true);
    assert!(claimed.is_err(), "the kernel must refuse it too");
}

/// Active swap space on a loop device, until dropped.
struct Swap<'a>(&'a Loop);

impl<'a> Swap<'a> {
    fn new(device: &'a Loop) -> Self {
        run("mkswap", &[device.device()]);
        run("swapon", &[device.device()]);
        Self(device)
    }
}

impl Drop for Swap<'_> {
    fn drop(&mut self) {
        run("swapoff", &[self.0.device()]);
    }
}

#[test]
fn a_device_that_is_active_swap_space_is_refused() {
    let built = disk().build();
    let device = Loop::new(4 << 20, &[]);
    let swap = Swap::new(&device);
    let Refusal::InUse { uses, .. } = refusal(&built, &device.facts()) else {
        panic!("not in use")
    };
    assert!(matches!(&uses[..], [Use::Swap { device: Some(_) }]), "{uses:?}");
    assert!(FileDisk::open_target(&device.device, true).is_err(), "the kernel must refuse it too");
    drop(swap);
    assert!(device.facts().uses.is_empty());
}

#[test]
fn nobody_mounts_a_device_that_is_being_restored_to() {
    let device = Loop::new(16 << 20, &[]);
    run("mkfs.ext4", &["-q", "-F", device.device()]);
    let at = tempfile::tempdir().unwrap();
    let mount = || Command::new("mount").arg(&device.device).arg(at.path()).output().unwrap();
    let claimed = FileDisk::open_target(&device.device, true).unwrap();
    let refused = mount();
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("busy"), "{refused:?}");
    drop(claimed);
    assert!(mount().status.success());
    run("umount", &[at.path().to_str().unwrap()]);
}

#[test]
fn a_file_that_a_loop_device_shows_is_refused() {
    let built = disk().build();
    let device = Loop::new(4 << 20, &[]);
    let Refusal::InUse { uses, .. } =
        refusal(&built, &gather(&device.backing(), Path::new("/proc")))
    else {
        panic!("not in use")
    };
    assert_eq!(uses.len(), 1);
    assert!(matches!(&uses[0], Use::BacksLoop { by } if device.device().ends_with(by)));
}

#[test]
fn a_device_that_carries_the_image_is_refused() {
    let built = disk().build();
    let device = Loop::new(16 << 20, &[]);
    let mounted = Mounted::new(&device);
    let image = mounted.at.path().join(FILE);
    std::fs::write(&image, &*built.storage.contents(FILE).unwrap()).unwrap();
    for (target, image) in [(&device.device, &*image), (&device.backing(), mounted.at.path())] {
        let refused = refusal(&built, &gather(target, image));
        assert!(matches!(refused, Refusal::HoldsImage { .. }), "{refused}");
    }
}

#[test]
fn a_dropped_range_of_a_file_is_no_longer_in_memory() {
    const LEN: u64 = 4 << 20;
    let device = Loop::new(16 << 20, &[]);
    let mounted = Mounted::new(&device);
    let path = mounted.at.path().join("target.raw");
    let resident = || {
        let args = ["--bytes", "--noheadings", "--output", "RES", path.to_str().unwrap()];
        run("fincore", &args).parse::<u64>().unwrap()
    };
    let target = FileDisk::create_target(&path, LEN).unwrap();
    target.write_all_at(&noise(LEN), 0).unwrap();
    target.sync().unwrap();
    assert_eq!(std::fs::read(&path).unwrap().len() as u64, target.len());
    assert_eq!(resident(), LEN);
    target.drop_cache(Extent::new(0, 1 << 20));
    assert!(resident() <= LEN - (1 << 20), "{}", resident());
    target.drop_cache(Extent::new(0, LEN));
    assert_eq!(resident(), 0);
}
