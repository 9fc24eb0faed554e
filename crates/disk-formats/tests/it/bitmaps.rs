//! Dirty bitmaps of qcow2 files, as QEMU writes them, and as nobody should.

use std::sync::Arc;

use aiv_disk_formats::{DiskImage, Format};
use aiv_volume_io::{ChangeTracker, Extent, MemDisk, ReadAt};
use proptest::prelude::*;

use crate::tools::{KIB, MIB, Scratch};

fn trackers(scratch: &Scratch, name: &str) -> Vec<Box<dyn ChangeTracker>> {
    scratch.open(name).unwrap().change_trackers([7; 32])
}

fn tracker(scratch: &Scratch, file: &str, name: &str) -> Box<dyn ChangeTracker> {
    let mut found = trackers(scratch, file);
    found.retain(|tracker| tracker.facts().name == name);
    found.pop().unwrap_or_else(|| panic!("{name} is not there"))
}

fn unsound(scratch: &Scratch, file: &str, name: &str) -> String {
    let tracker = tracker(scratch, file, name);
    assert!(tracker.changed(Extent::new(0, MIB)).is_err(), "marks that mean nothing are not told");
    tracker.facts().unsound.clone().unwrap_or_else(|| panic!("{name} is sound"))
}

/// QEMU's opinion: what its NBD server calls dirty.
fn opinion(scratch: &Scratch, file: &str, bitmap: &str) -> Vec<Extent> {
    let script = format!(
        "set -e; exec 9>lock; flock 9; rm -f s; \
         qemu-nbd -r -f qcow2 -x e -k $PWD/s -B {bitmap} --fork --pid-file=pid {file}; \
         qemu-img map --output=json --image-opts driver=nbd,server.type=unix,server.path=$PWD/s,\
         export=e,x-dirty-bitmap=qemu:dirty-bitmap:{bitmap}; kill $(cat pid)"
    );
    let output = scratch.try_words(&["sh", "-c", &script]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let number = |line: &str, key: &str| {
        let rest = line.split(&format!("\"{key}\": ")).nth(1).unwrap();
        rest.split([',', '}']).next().unwrap().parse::<u64>().unwrap()
    };
    // Dirty is told as "no data" there.
    let dirty = text.lines().filter(|line| line.contains("\"data\": false"));
    dirty.map(|line| Extent::new(number(line, "start"), number(line, "length"))).collect()
}

#[test]
fn marks_are_those_that_qemu_tells_for_every_granularity_and_cluster_size() {
    let scratch = Scratch::new();
    for (cluster, granularity) in
        [("64k", "64k"), ("512", "512"), ("4k", "1M"), ("2M", "4k"), ("64k", "2M"), ("1k", "512")]
    {
        let file = format!("{cluster}-{granularity}.qcow2");
        // A length that is no multiple of anything.
        let len = 33 * MIB + 1536;
        scratch.run(&format!("qemu-img create -q -f qcow2 -o cluster_size={cluster} {file} {len}"));
        scratch.run(&format!("qemu-img bitmap --add -g {granularity} {file} first"));
        scratch.io(
            "qcow2",
            &file,
            &[
                "write -P 1 0 512",
                "write -P 1 1M 3000000",
                "write -z 9M 64k",
                "discard 12M 1M",
                "write -P 2 34603520 1024",
            ],
        );
        scratch.run(&format!("qemu-img bitmap --add -g {granularity} {file} second"));
        scratch.io("qcow2", &file, &["write -P 3 20M 70000"]);
        assert_eq!(trackers(&scratch, &file).len(), 2);
        for name in ["first", "second"] {
            let tracker = tracker(&scratch, &file, name);
            let facts = tracker.facts();
            assert_eq!(
                (facts.kind, &facts.unsound, facts.beneath),
                ("qcow2 bitmap", &None, [7; 32])
            );
            let all = tracker.changed(Extent::new(0, len)).unwrap();
            assert_eq!(all, opinion(&scratch, &file, name), "{file} {name}");
            assert!(all.iter().map(|run| run.len).sum::<u64>() >= 70_000);
            // In windows that fit nothing the same is told.
            let mut joined: Vec<Extent> = Vec::new();
            let mut at = 0;
            while at < len {
                let window = Extent::between(at, (at + 777_777).min(len));
                for run in tracker.changed(window).unwrap() {
                    assert!(window.contains(run) && !run.is_empty());
                    match joined.last_mut() {
                        Some(last) if last.end() == run.start => last.len += run.len,
                        _ => joined.push(run),
                    }
                }
                at = window.end();
            }
            assert_eq!(joined, all);
        }
    }
}

#[test]
fn a_bitmap_that_is_full_from_end_to_end_is_told_as_one_run() {
    let scratch = Scratch::new();
    scratch.run("qemu-img create -q -f qcow2 -o cluster_size=512 d.qcow2 64M");
    scratch.run("qemu-img bitmap --add -g 512 d.qcow2 b");
    scratch.io("qcow2", "d.qcow2", &["write -z 0 64M"]);
    let tracker = tracker(&scratch, "d.qcow2", "b");
    assert_eq!(tracker.changed(Extent::new(0, u64::MAX)).unwrap(), [Extent::new(0, 64 * MIB)]);
    assert_eq!(tracker.changed(Extent::new(64 * MIB, 5)).unwrap(), []);
}

#[test]
fn bitmaps_that_do_not_record_or_were_not_closed_say_so() {
    let scratch = Scratch::new();
    scratch.run("qemu-img create -q -f qcow2 d.qcow2 16M");
    scratch.run("qemu-img bitmap --add d.qcow2 b");
    scratch.run("qemu-img bitmap --add --disable d.qcow2 off");
    assert_eq!(unsound(&scratch, "d.qcow2", "off"), "it does not record");
    assert_eq!(tracker(&scratch, "d.qcow2", "b").facts().unsound, None);
    // A machine that is killed while it writes.
    let script = "qemu-io -f qcow2 -c 'write -P 1 1M 64k' -c 'sigraise 9' d.qcow2";
    assert!(!scratch.try_words(&["sh", "-c", script]).status.success());
    let info = scratch.run("qemu-img info d.qcow2");
    assert!(info.contains("in-use"), "{info}");
    let said = unsound(&scratch, "d.qcow2", "b");
    assert!(said.contains("was not closed properly"), "{said}");
    // The disk is read all the same.
    scratch.check(Format::Qcow2, "d.qcow2");
}

#[test]
fn a_program_that_knows_no_bitmaps_makes_them_void() {
    let scratch = Scratch::new();
    scratch.run("qemu-img create -q -f qcow2 d.qcow2 16M");
    scratch.run("qemu-img bitmap --add d.qcow2 b");
    // As the specification wants it of who writes: the bits he does not know are cleared.
    scratch.patch("d.qcow2", 88, &[0; 8]);
    let said = unsound(&scratch, "d.qcow2", "b");
    assert_eq!(said, "a program that does not know bitmaps wrote to the image");
}

/// Where the directory is, from the header extension.
fn directory(bytes: &[u8]) -> usize {
    let id = 0x2385_2875u32.to_be_bytes();
    let at = bytes[..65536].windows(4).position(|window| window == id).unwrap();
    let raw: [u8; 8] = bytes[at + 24..at + 32].try_into().unwrap();
    usize::try_from(u64::from_be_bytes(raw)).unwrap()
}

fn made() -> Vec<u8> {
    let scratch = Scratch::new();
    scratch.run("qemu-img create -q -f qcow2 -o cluster_size=512 d.qcow2 4M");
    for name in ["one", "two", "three"] {
        scratch.run(&format!("qemu-img bitmap --add -g 512 d.qcow2 {name}"));
        scratch.io("qcow2", "d.qcow2", &["write -P 1 1M 70000", "write -P 2 3M 512"]);
    }
    std::fs::read(scratch.path("d.qcow2")).unwrap()
}

/// Opens the bytes and asks every bitmap; the disk must be readable.
fn ask(bytes: Vec<u8>) -> Option<Vec<Box<dyn ChangeTracker>>> {
    let disk = DiskImage::of_bytes(Arc::new(MemDisk::from_bytes(bytes)), Format::Qcow2).ok()?;
    let trackers = disk.change_trackers([0; 32]);
    for tracker in &trackers {
        for range in [Extent::new(0, disk.len()), Extent::new(MIB - 3, 5 * KIB)] {
            let Ok(runs) = tracker.changed(range) else { continue };
            assert!(runs.windows(2).all(|pair| pair[0].end() <= pair[1].start), "{runs:?}");
            assert!(runs.iter().all(|run| !run.is_empty() && range.contains(*run)), "{runs:?}");
        }
    }
    Some(trackers)
}

#[test]
fn records_that_contradict_themselves_make_bitmaps_void_and_the_disk_stays_readable() {
    let bytes = made();
    assert_eq!(ask(bytes.clone()).unwrap().len(), 3);
    let at = directory(&bytes);
    // The first entry: offset in it, new bytes, how many bitmaps are left, and how many of them
    // are sound.
    for (offset, new, left, sound) in [
        (0, &[0xFF; 8][..], 3, 2),
        (8, &[0, 0, 0, 1], 3, 2),
        (8, &[0xFF; 4], 3, 2),
        (12, &[0xFF; 4], 3, 2),
        (16, &[9], 3, 2),
        (17, &[63], 3, 2),
        (17, &[255], 3, 2),
        (18, &[0, 0], 0, 0),
        (18, &[0xFF, 0xFF], 0, 0),
        (20, &[0xFF; 4], 0, 0),
        // The second name is the first.
        (24, b"two", 0, 0),
    ] {
        let mut bytes = bytes.clone();
        bytes[at + offset..][..new.len()].copy_from_slice(new);
        let found = ask(bytes).expect("the disk is readable");
        let count = found.iter().filter(|tracker| tracker.facts().unsound.is_none()).count();
        assert_eq!((found.len(), count), (left, sound), "{new:?} at {offset}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn whatever_the_structures_of_bitmaps_hold_nothing_breaks(
        changes in prop::collection::vec((0usize..4096, any::<u8>()), 1..6), tables in any::<bool>(),
    ) {
        static MADE: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(made);
        let mut bytes = MADE.clone();
        let directory = directory(&bytes);
        // In the directory and the header, or in the tables the directory names.
        let raw: [u8; 8] = bytes[directory..directory + 8].try_into().unwrap();
        let table = usize::try_from(u64::from_be_bytes(raw)).unwrap();
        for (at, value) in changes {
            let place = match (tables, at % 3) {
                (true, _) => table + at % 512,
                (false, 0) => 88 + at % 100,
                (false, _) => directory + at % 96,
            };
            bytes[place] = value;
        }
        ask(bytes);
    }
}
