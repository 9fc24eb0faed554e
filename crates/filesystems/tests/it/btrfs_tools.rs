//! Btrfs volumes, and what btrfs-progs says about them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use aiv_volume_io::{Extent, ExtentSet, ReadAt};

use crate::ext_tools::{MIB, churn};
use crate::tools::{Files, Mounted, Volume, files_below, noise, run, try_run};

pub(crate) const MOUNT: &str = "rw,discard=async,commit=300";

pub(crate) fn mkfs(len: u64, options: &str) -> Volume {
    Volume::made_by(len, "mkfs.btrfs", &format!("-q -f {options}"))
}

/// Fills a filesystem through the kernel: files of many sizes, deleted ones, subvolumes,
/// snapshots that diverge, files that share extents, preallocated space, compressible text.
pub(crate) fn fill(volume: &Volume, options: &str, bytes: u64) -> Files {
    let mounted = Mounted::new(volume, options);
    let root = mounted.path();
    let btrfs = |words: &str, paths: &[&Path]| {
        let mut arguments: Vec<&str> = words.split(' ').collect();
        arguments.extend(paths.iter().map(|path| path.to_str().unwrap()));
        run("btrfs", &arguments);
    };
    btrfs("subvolume create", &[&root.join("home")]);
    churn(&root.join("home"), bytes);
    btrfs("subvolume snapshot", &[&root.join("home"), &root.join("before")]);
    btrfs("subvolume snapshot -r", &[&root.join("home"), &root.join("frozen")]);
    for n in 0..200u64 {
        let len = 3000 + usize::try_from(n % 7).unwrap() * 900;
        fs::write(root.join(format!("home/small{n}")), noise(n, len)).unwrap();
    }
    run("sync", &["-f", root.to_str().unwrap()]);
    for n in (0..200).step_by(2) {
        fs::remove_file(root.join(format!("home/small{n}"))).unwrap();
    }
    fs::write(root.join("text"), "a line that is repeated\n".repeat(20_000)).unwrap();
    let (source, copy) = (root.join("home/dir1/file1"), root.join("shared"));
    run("cp", &["--reflink=always", source.to_str().unwrap(), copy.to_str().unwrap()]);
    let copy = fs::File::options().write(true).open(copy).unwrap();
    copy.write_all_at(&noise(5, 5000), 20_000).unwrap();
    run("fallocate", &["-l", "300K", root.join("set-aside").to_str().unwrap()]);
    btrfs("subvolume delete", &[&root.join("before")]);
    files_below(root)
}

/// The files of a volume, through the kernel, without any change to it.
pub(crate) fn files_in(volume: &Volume) -> Files {
    let mounted = Mounted::new(volume, "ro,rescue=nologreplay");
    files_below(mounted.path())
}

/// `btrfs check` finds nothing to complain about, in metadata and data, and changes nothing.
pub(crate) fn assert_clean(volume: &Volume) {
    let output = try_run("btrfs", &["check", "--readonly", "--check-data-csum", volume.path()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

/// A field of the superblock.
pub(crate) fn super_field(volume: &Volume, name: &str) -> u64 {
    let dump = run("btrfs", &["inspect-internal", "dump-super", volume.path()]);
    let line = dump.lines().find(|line| line.split_whitespace().next() == Some(name));
    let value = line.unwrap_or_else(|| panic!("no {name}: {dump}")).split_whitespace().nth(1);
    match value.unwrap().strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).unwrap(),
        None => value.unwrap().parse().unwrap(),
    }
}

pub(crate) fn dump_tree(volume: &Volume, tree: &str) -> String {
    run("btrfs", &["inspect-internal", "dump-tree", "-t", tree, volume.path()])
}

/// The number behind a word of a line.
fn number_after(line: &str, word: &str) -> Option<u64> {
    let mut words = line.split_whitespace().skip_while(|found| *found != word);
    words.nth(1)?.trim_end_matches(')').parse().ok()
}

/// Chunks by their logical addresses: how long they are, and where they lie.
pub(crate) type ChunksByDump = BTreeMap<u64, (u64, Vec<u64>)>;

/// Chunks as `btrfs inspect-internal` prints them.
pub(crate) fn chunks_by_dump(volume: &Volume) -> ChunksByDump {
    let mut chunks = BTreeMap::new();
    let mut last = 0;
    for line in dump_tree(volume, "chunk").lines() {
        if let Some(logical) = number_after(line, "CHUNK_ITEM") {
            last = logical;
        } else if let Some(len) = number_after(line, "length") {
            chunks.insert(last, (len, Vec::new()));
        } else if line.trim_start().starts_with("stripe ") {
            chunks.get_mut(&last).unwrap().1.push(number_after(line, "offset").unwrap());
        }
    }
    chunks
}

/// Where extents lie on the device, by `btrfs inspect-internal`.
pub(crate) fn extents_by_dump(volume: &Volume) -> ExtentSet {
    let chunks = chunks_by_dump(volume);
    let node_size = super_field(volume, "nodesize");
    let mut extents = Vec::new();
    for line in dump_tree(volume, "extent").lines() {
        let Some((_, key)) = line.split_once(" key (") else { continue };
        let words: Vec<&str> = key.split([' ', ')']).collect();
        let len = match words[1] {
            "EXTENT_ITEM" => words[2].parse().unwrap(),
            "METADATA_ITEM" => node_size,
            _ => continue,
        };
        let logical: u64 = words[0].parse().unwrap();
        let (start, (_, places)) = chunks.range(..=logical).next_back().unwrap();
        extents.extend(places.iter().map(|place| Extent::new(place + logical - start, len)));
    }
    extents.into_iter().collect()
}

/// All that a map has to hold, when the log is empty.
pub(crate) fn used_by_dump(volume: &Volume) -> ExtentSet {
    let (len, end) = (volume.open().len(), super_field(volume, "dev_item.total_bytes"));
    let mut used: Vec<Extent> = extents_by_dump(volume).runs().to_vec();
    used.push(Extent::new(0, MIB));
    let copies = [64 * MIB, 256 << 30].map(|at| Extent::new(at, 4096));
    used.extend(copies.into_iter().filter(|copy| copy.end() <= end));
    used.push(Extent::between(end, len));
    used.into_iter().collect()
}
