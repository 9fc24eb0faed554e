//! A machine with more disks than anybody has numbers for.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;

use crate::support::{MIB, Mount, Scratch, aiv_json, names_in, run};

const DISKS: usize = 100;
const PARTITIONS: usize = 24;
const PARTITION_MIB: u64 = 8;

/// A disk of 24 partitions: ext4, NTFS, and then FAT and swap in turns, which take little room.
fn disk(scratch: &Scratch) -> String {
    let path = scratch.arg("template.raw");
    let file = fs::File::create(&path).unwrap();
    file.set_len((PARTITIONS as u64 * PARTITION_MIB + 2) * MIB).unwrap();
    let size = format!(":0:+{PARTITION_MIB}M");
    let mut words: Vec<String> = Vec::new();
    for number in 1..=PARTITIONS {
        words.extend(["-n".to_owned(), format!("{number}{size}")]);
    }
    words.push(path.clone());
    run("sgdisk", &words);
    let mkfs: [&[&str]; 4] = [
        &["mkfs.ext4", "-q", "-F"],
        &["mkfs.ntfs", "-q", "-F", "-f"],
        &["mkfs.fat", "-F", "12"],
        &["mkswap", "-q"],
    ];
    let volumes = mkfs.map(|words| {
        let volume = scratch.arg(words[0]);
        fs::File::create(&volume).unwrap().set_len(PARTITION_MIB * MIB).unwrap();
        let (program, options) = words.split_first().unwrap();
        run(program, &[options, &[volume.as_str()]].concat());
        fs::read(&volume).unwrap()
    });
    for number in 0..PARTITIONS {
        let start = MIB + number as u64 * PARTITION_MIB * MIB;
        let which = if number < 2 { number } else { 2 + number % 2 };
        let volume = volumes[which].chunks(4096);
        for (block, at) in volume.zip((start..).step_by(4096)) {
            if block.iter().any(|&byte| byte != 0) {
                file.write_all_at(block, at).unwrap();
            }
        }
    }
    path
}

#[test]
fn a_hundred_disks_of_24_partitions_are_one_job() {
    let scratch = Scratch::new();
    let template = disk(&scratch);
    let disks: Vec<String> = (0..DISKS).map(|n| scratch.arg(&format!("disk{n:03}.raw"))).collect();
    for (number, disk) in disks.iter().enumerate() {
        run("cp", &["--sparse=always", template.as_str(), disk]);
        // `sgdisk` would wait a second for the kernel each time.
        let guid = format!("11111111-2222-3333-4444-{number:012}");
        run("sfdisk", &["--quiet", "--no-reread", "--no-tell-kernel", "--disk-id", disk, &guid]);
    }
    // Hundreds of images, each made durable several times, would measure the disk of the test.
    let memory = Mount::memory(128 * MIB);
    let images = memory.path().to_str().unwrap();
    let mut groups = BTreeSet::new();
    for (kind, number) in [("full", 1), ("incremental", 2)] {
        let mut words: Vec<&str> = vec!["backup", "--to", images];
        words.extend(disks.iter().map(String::as_str));
        let made = aiv_json(&words).ended(0).json();
        let images = made["images"].as_array().unwrap();
        let sources: BTreeSet<&str> =
            images.iter().map(|i| i["source"].as_str().unwrap()).collect();
        assert_eq!(sources.len(), DISKS);
        assert!(images.iter().all(|image| image["kind"] == kind), "{made}");
        groups.insert(made["group"].as_str().unwrap().to_owned());
        assert_eq!(names_in(memory.path()).len(), number * DISKS);
    }

    let listed = aiv_json(&["list", images]).ended(0).json();
    let sets = listed["sets"].as_array().unwrap();
    assert_eq!(sets.len(), DISKS, "each disk is a set of its own");
    assert_eq!(groups.len(), 2, "the points of one job belong together");

    let last = format!("{images}@disk099:latest");
    let info = aiv_json(&["info", &last]).ended(0).json();
    let partitions = info["partitions"].as_array().unwrap();
    assert_eq!(partitions.len(), PARTITIONS);
    let kinds: Vec<&str> =
        partitions.iter().map(|p| p["filesystem"].as_str().unwrap()).take(4).collect();
    assert_eq!(kinds, ["ext4", "ntfs", "vfat", "swap"]);
    let restored = scratch.arg("restored.raw");
    aiv_json(&["restore", &last, "--to", &restored]).ended(0);
    let (old, new) = (&disks[99], restored.as_str());
    assert_eq!(
        run("sgdisk", &["-p", new]).lines().count(),
        run("sgdisk", &["-p", old]).lines().count()
    );
    let root = format!("{new}?offset={MIB}");
    run("e2fsck", &["-fn", &root]);
}
