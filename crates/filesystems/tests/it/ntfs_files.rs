//! Files of NTFS by name: their clusters are what ntfs-3g's tools say, and a volume without them
//! is sound and has every other file.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use aiv_filesystems::{KeptReason, Matching, MatchingFiles, NothingReason};
use aiv_volume_io::{Extent, ExtentSet};

use crate::ext_files::{found, look_for, paths};
use crate::ext_tools::{MIB, churn, copy_of_used, used_bytes};
use crate::ntfs_maps::fragmented_table;
use crate::ntfs_tools::{Boot, assert_sound, files_in, mkntfs, mount};
use crate::tools::{Volume, files_below, noise, run};

/// Where ntfscluster says that the contents of a file lie, streams included.
fn by_ntfscluster(volume: &Volume, path: &str) -> Vec<Extent> {
    let text = run("ntfscluster", &["-f", "-F", path, volume.path()]);
    let size = Boot::of(volume).cluster_size;
    let mut is_data = false;
    let mut extents = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if line.trim_start().starts_with("0x") {
            is_data = line.contains("0x80 - non-resident");
        } else if let [_, lcn, len] = words.as_slice()
            && let (true, Ok(lcn), Ok(len)) = (is_data, lcn.parse::<u64>(), len.parse::<u64>())
        {
            extents.push(Extent::new(lcn * size, len * size));
        }
    }
    extents.into_iter().collect::<ExtentSet>().runs().to_vec()
}

fn without(used: &ExtentSet, found: &MatchingFiles) -> ExtentSet {
    let left_out: ExtentSet = found.files.iter().flat_map(|file| file.extents.clone()).collect();
    let rest: ExtentSet = used.runs().iter().flat_map(|&run| left_out.gaps_within(run)).collect();
    assert_eq!(rest.total_len() + left_out.total_len(), used.total_len(), "only what is used");
    rest
}

fn kept(found: &MatchingFiles) -> Vec<(&str, KeptReason)> {
    found.kept.iter().map(|kept| (kept.path.as_str(), kept.reason)).collect()
}

/// All files with clusters are found where ntfscluster has them; without some of them the volume
/// is sound and has all others.
fn check(mib: u64, options: &str) {
    let volume = mkntfs(mib * MIB, options);
    let mut contents = {
        let mounted = mount(&volume, "streams_interface=windows");
        let root = mounted.path();
        churn(root, 6 * MIB);
        fs::create_dir_all(root.join("Deep/Er/and/deeper")).unwrap();
        fs::write(root.join("Deep/Er/and/deeper/Disk.ISO"), noise(3, 300_000)).unwrap();
        fs::write(root.join("Deep/keep.txt"), noise(4, 30_000)).unwrap();
        fs::write(root.join("Deep/streams"), noise(5, 30_000)).unwrap();
        fs::write(root.join("Deep/streams:more"), noise(6, 70_000)).unwrap();
        fs::write(root.join("Deep/öl.dat"), noise(7, 70_000)).unwrap();
        files_below(root)
    };
    let all = found(&volume, &["*"]);
    assert_eq!(kept(&all).iter().filter(|(_, why)| *why != KeptReason::InRecord).count(), 0);
    let is: BTreeMap<_, _> =
        all.files.iter().map(|f| (f.path.clone(), f.extents.clone())).collect();
    let expected: BTreeMap<_, _> = contents
        .keys()
        .map(|path| path.to_str().unwrap().to_owned())
        .map(|path| (path.clone(), by_ntfscluster(&volume, &format!("/{path}"))))
        .filter(|(_, extents)| !extents.is_empty())
        .collect();
    assert!(expected.len() > 20);
    assert_eq!(is, expected, "{options}");
    for file in &all.files {
        assert_eq!(file.len, contents[Path::new(&file.path)].len() as u64, "{}", file.path);
    }

    let some = found(&volume, &["*[02468]", "/deep/**/*.iso", "deep/streams", "ÖL.*"]);
    for name in ["Deep/Er/and/deeper/Disk.ISO", "Deep/streams", "Deep/öl.dat", "dir1/file1"] {
        let is_some = paths(&some).contains(&name);
        assert_eq!(is_some, name != "dir1/file1", "{name}");
    }
    let copy = copy_of_used(&volume, &without(&used_bytes(&volume).0, &some));
    assert_sound(&copy);
    let mut others = files_in(&copy);
    assert_eq!(others.len(), contents.len());
    for file in &some.files {
        let path = Path::new(&file.path);
        let (is, was) = (others.remove(path).unwrap(), contents.remove(path).unwrap());
        assert_eq!(is.len(), was.len(), "{}", file.path);
    }
    assert!(others == contents, "other files differ: {options}");
}

#[test]
fn files_of_ntfs_are_where_ntfscluster_has_them() {
    check(24, "-c 4096");
    check(24, "-c 512");
}

#[test]
fn so_are_those_in_large_clusters() {
    check(48, "-c 65536");
}

fn filled(options: &str, fill: impl FnOnce(&Path)) -> Volume {
    let volume = mkntfs(16 * MIB, options);
    let mounted = mount(&volume, "compression,streams_interface=windows");
    fill(mounted.path());
    drop(mounted);
    volume
}

#[test]
fn a_file_in_so_many_pieces_that_it_needs_several_records_is_found_whole() {
    let volume = filled("-c 512", |root| {
        // Holes cut what was written in one piece.
        let sparse = File::create(root.join("c.iso")).unwrap();
        for n in 0..900 {
            sparse.write_all_at(&noise(n, 512), n * 1024).unwrap();
        }
    });
    let isos = found(&volume, &["*.iso"]);
    assert_eq!(paths(&isos), ["c.iso"]);
    let said = run("ntfsinfo", &["-F", "/c.iso", "-f", volume.path()]);
    assert!(said.contains("$ATTRIBUTE_LIST"), "{said}");
    for file in &isos.files {
        assert_eq!(file.extents, by_ntfscluster(&volume, &format!("/{}", file.path)));
        let bytes: u64 = file.extents.iter().map(|extent| extent.len).sum();
        assert_eq!((file.len, bytes), (899 * 1024 + 512, 900 * 512));
    }
}

#[test]
fn files_of_many_names_that_lie_in_records_of_a_scattered_table_are_found() {
    let volume = fragmented_table();
    let all = found(&volume, &["file*1"]);
    let names = files_in(&volume);
    let meant = names.keys().filter_map(|path| path.to_str());
    let meant: Vec<_> =
        meant.filter(|name| name.starts_with("file") && name.ends_with('1')).collect();
    assert!(meant.len() > 100);
    let mut told: Vec<_> = paths(&all);
    told.extend(kept(&all).iter().filter(|(_, why)| *why == KeptReason::InRecord).map(|(p, _)| *p));
    told.sort_unstable();
    assert_eq!(told, meant);
}

#[test]
fn a_file_of_which_one_name_does_not_match_is_kept() {
    let volume = filled("-c 4096", |root| {
        fs::create_dir(root.join("sub")).unwrap();
        fs::write(root.join("a.iso"), noise(1, 50_000)).unwrap();
        fs::hard_link(root.join("a.iso"), root.join("sub/a.txt")).unwrap();
        fs::write(root.join("b.iso"), noise(2, 50_000)).unwrap();
        fs::hard_link(root.join("b.iso"), root.join("sub/c.iso")).unwrap();
    });
    let isos = found(&volume, &["*.iso"]);
    assert_eq!(
        (paths(&isos), kept(&isos)),
        (vec!["b.iso"], vec![("a.iso", KeptReason::OtherName)])
    );
    assert_eq!(paths(&found(&volume, &["/sub/", "a.*"])), ["a.iso"]);
}

#[test]
fn compressed_files_and_those_in_their_records_are_kept() {
    let volume = filled("-C -c 4096", |root| {
        let mut text = File::create(root.join("compressed")).unwrap();
        (0..20_000).for_each(|line| writeln!(text, "the same line again, {line}").unwrap());
        fs::write(root.join("tiny"), [1; 30]).unwrap();
        fs::write(root.join("empty"), []).unwrap();
    });
    let all = found(&volume, &["*"]);
    assert_eq!(paths(&all), [""; 0]);
    let reasons = [("compressed", KeptReason::Compressed), ("tiny", KeptReason::InRecord)];
    let mut told = kept(&all);
    told.sort_by_key(|(path, _)| *path);
    assert_eq!(told, reasons);
}

/// What the target of a restore held there before must not look like a sleeping Windows.
#[test]
fn the_beginning_of_the_hibernation_file_is_always_kept() {
    for (options, header) in [("-c 4096", 4096), ("-c 1024", 4096), ("-c 16384", 16_384)] {
        let volume = filled(options, |root| {
            let mut awake = noise(1, 300_000);
            awake[..4].copy_from_slice(b"wake");
            fs::write(root.join("hiberfil.sys"), &awake).unwrap();
            fs::write(root.join("pagefile.sys"), &awake).unwrap();
        });
        let files = found(&volume, &["HiberFil.Sys", "pagefile.sys"]).files;
        let lens: Vec<u64> = files.iter().map(|f| f.extents.iter().map(|e| e.len).sum()).collect();
        assert_eq!(lens[0] + header, lens[1], "{options}");
        let whole = by_ntfscluster(&volume, "/hiberfil.sys");
        assert_eq!(files[0].extents[0].start, whole[0].start + header);
    }
}

#[test]
fn of_a_dirty_volume_nothing_is_left_out() {
    let volume = filled("-c 4096", |root| fs::write(root.join("a"), noise(1, 50_000)).unwrap());
    assert_eq!(paths(&found(&volume, &["A"])), ["a"]);
    run("ntfsfix", &[volume.path()]);
    let reason = NothingReason::KeptInFull;
    assert_eq!(look_for(&volume, &["A"]), Matching::Nothing { reason });
}
