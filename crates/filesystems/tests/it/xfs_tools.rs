//! XFS volumes, and what xfsprogs says about them.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use aiv_volume_io::{Extent, ExtentSet, ReadAt};

use crate::ext_tools::churn;
use crate::tools::{Files, Mounted, Volume, files_below, run, try_run};

/// Nothing that is written here waits for anything: mounts of copies have the same identity.
pub(crate) const MOUNT: &str = "rw,nouuid";

/// Groups below 300 MiB in all are for tests only, says mkfs.
pub(crate) fn mkfs(len: u64, options: &str) -> Volume {
    Volume::made_by(len, "mkfs.xfs", &format!("-q -f --unsupported {options}"))
}

/// Fills a filesystem through the kernel and returns what is then in it. `reflink` also shares
/// blocks between files.
pub(crate) fn fill(volume: &Volume, bytes: u64, reflink: bool) -> Files {
    let mounted = Mounted::new(volume, MOUNT);
    churn(mounted.path(), bytes);
    fragment(mounted.path(), 400);
    if reflink {
        let source = mounted.path().join("dir1/file1");
        for n in 0..5 {
            let copy = mounted.path().join(format!("shared{n}"));
            let words = [source.to_str().unwrap(), copy.to_str().unwrap()];
            run("cp", &["--reflink=always", words[0], words[1]]);
            let copy = fs::File::options().write(true).open(copy).unwrap();
            copy.write_all_at(&crate::tools::noise(n, 5000), n * 20_000).unwrap();
        }
    }
    files_below(mounted.path())
}

/// Free extents between small files.
pub(crate) fn fragment(root: &Path, files: u64) {
    let dir = root.join("small");
    fs::create_dir_all(&dir).unwrap();
    for n in 0..files {
        fs::write(dir.join(n.to_string()), crate::tools::noise(n, 1000)).unwrap();
    }
    run("sync", &["-f", root.to_str().unwrap()]);
    for n in (0..files).step_by(2) {
        fs::remove_file(dir.join(n.to_string())).unwrap();
    }
}

/// The files of a volume, through the kernel, without any change to it.
pub(crate) fn files_in(volume: &Volume) -> Files {
    let mounted = Mounted::new(volume, "ro,norecovery,nouuid");
    files_below(mounted.path())
}

/// `xfs_repair` finds nothing to complain about, and changes nothing. Without the option it
/// gives up on a filesystem of one group, where no copy confirms the superblock.
pub(crate) fn assert_clean(volume: &Volume) {
    let output = try_run("xfs_repair", &["-n", "-f", "-o", "force_geometry", volume.path()]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

pub(crate) fn xfs_db(volume: &Volume, commands: &[&str]) -> String {
    let mut words = vec!["-r", "-f"];
    commands.iter().for_each(|command| words.extend(["-c", command]));
    words.push(volume.path());
    run("xfs_db", &words)
}

/// A field of a structure, such as `("agf 0", "bnoroot")`.
pub(crate) fn field(volume: &Volume, structure: &str, name: &str) -> u64 {
    let printed = xfs_db(volume, &[structure, &format!("print {name}")]);
    let value = printed.trim().rsplit(" = ").next().unwrap().to_owned();
    let value = value.split_whitespace().next().unwrap_or("0");
    match value.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).unwrap(),
        None => value.parse().unwrap_or_else(|_| panic!("{structure} {name}: {printed}")),
    }
}

/// The bytes of a volume that `xfs_db` calls free, by the given tree (`-b` or `-d` of its
/// command `freesp`). Blocks in AGFLs are among them for `xfs_db`, and are taken out.
pub(crate) fn free_by_xfs_db(volume: &Volume) -> ExtentSet {
    let [block_size, group_blocks, groups] =
        ["blocksize", "agblocks", "agcount"].map(|name| field(volume, "sb 0", name));
    let place = |group: u64, block: u64, blocks: u64| {
        Extent::new((group * group_blocks + block) * block_size, blocks * block_size)
    };
    let mut set_aside = Vec::new();
    for group in 0..groups {
        let [first, count] =
            ["flfirst", "flcount"].map(|name| field(volume, &format!("agf {group}"), name));
        for entry in agfl(volume, group, first, count) {
            set_aside.push(place(group, entry, 1));
        }
    }
    xfs_db(volume, &["freesp -d"])
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().map(str::parse).collect::<Vec<_>>())
        .take_while(|words| words.len() == 3 && words.iter().all(Result::is_ok))
        .map(|words| words.into_iter().map(Result::unwrap).collect::<Vec<u64>>())
        .map(|words| place(words[0], words[1], words[2]))
        .filter(|extent| !set_aside.contains(extent))
        .collect()
}

fn agfl(volume: &Volume, group: u64, first: u64, count: u64) -> Vec<u64> {
    let sector = field(volume, "sb 0", "sectsize");
    let header = if field(volume, "sb 0", "versionnum") & 0xf == 5 { 36 } else { 0 };
    let size = (sector - header) / 4;
    let start = group * field(volume, "sb 0", "agblocks") * field(volume, "sb 0", "blocksize");
    let source = volume.open();
    (0..count)
        .map(|n| {
            let mut entry = [0; 4];
            let at = start + 3 * sector + header + (first + n) % size * 4;
            source.read_exact_at(&mut entry, at).unwrap();
            u32::from_be_bytes(entry).into()
        })
        .collect()
}

/// Byte offset of the log.
pub(crate) fn log_at(volume: &Volume) -> u64 {
    let [start, bits, group_blocks, block_size] =
        ["logstart", "agblklog", "agblocks", "blocksize"].map(|name| field(volume, "sb 0", name));
    ((start >> bits) * group_blocks + (start & ((1 << bits) - 1))) * block_size
}
