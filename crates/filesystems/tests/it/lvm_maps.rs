//! LVM2 physical volumes: what is kept of them is what their logical volumes need, by LVM2 and by
//! the tools of the filesystems inside.

use aiv_filesystems::{FilesystemKind, MapNote, recognise};
use aiv_volume_io::{Extent, ExtentSet};

use crate::ext_files::found;
use crate::ext_tools::{self, MIB, churn, copy_of_used, mke2fs, used_bytes};
use crate::lvm_tools::{Lvm, told};
use crate::tools::{Mounted, Volume, noise, run};
use crate::xfs_tools;

/// What `used` of a volume is where LVM says that the volume lies.
fn placed(used: &ExtentSet, places: &[(usize, Extent)], disk: usize) -> Vec<Extent> {
    let mut found = Vec::new();
    let mut at = 0;
    for &(on, place) in places {
        let inside = used.within(Extent::new(at, place.len));
        let moved = inside.map(|run| Extent::new(place.start + (run.start - at), run.len));
        found.extend(moved.filter(|_| on == disk));
        at += place.len;
    }
    found
}

/// The same bytes in noise, as a disk that LVM knows.
fn copy(lvm: &Lvm, used: &ExtentSet) -> Lvm {
    Lvm::over(vec![copy_of_used(&lvm.disks[0], used)])
}

fn filled_ext4(len: u64) -> (Volume, crate::tools::Files) {
    let volume = mke2fs(len, "-t ext4 -b 1024");
    let mounted = Mounted::new(&volume, "rw");
    churn(mounted.path(), len / 3);
    let files = crate::tools::files_below(mounted.path());
    drop(mounted);
    (volume, files)
}

#[test]
fn the_used_blocks_of_every_filesystem_in_logical_volumes_of_many_segments() {
    let lvm = Lvm::new(&[120 * MIB + 12_345 * 512], "--metadatacopies 2");
    for (name, extents) in [("root", 5), ("swap", 4), ("data", 20), ("old", 3), ("raw", 2)] {
        lvm.create(name, extents, "");
    }
    lvm.call("lvremove -y vg/old");
    for (name, extents) in [("root", 3), ("swap", 1), ("root", 12), ("raw", 1), ("data", 4)] {
        lvm.call(&format!("lvextend -l +{extents} vg/{name}"));
    }
    assert!(lvm.places("root").len() >= 3 && lvm.places("data").len() == 2);

    let (root, root_files) = filled_ext4(20 * MIB);
    let data = xfs_tools::mkfs(24 * MIB, "");
    let data_files = xfs_tools::fill(&data, 4 * MIB, false);
    let swap = Volume::made_by(5 * MIB, "mkswap", "-q -L pages");
    let raw = Volume::new(0);
    raw.patch(0, &noise(5, 3 << 20));
    let contents = [("root", &root), ("swap", &swap), ("data", &data), ("raw", &raw)];
    let mut expected = lvm.records(0);
    for (name, volume) in contents {
        lvm.fill(name, volume);
        let used = match name {
            "raw" => [Extent::new(0, 3 * MIB)].into_iter().collect(),
            _ => used_bytes(volume).0,
        };
        expected.extend(placed(&used, &lvm.places(name), 0));
    }

    let recognised = recognise(&lvm.disks[0].open()).unwrap();
    assert_eq!(recognised.kind, FilesystemKind::Lvm2Member);
    let (used, cluster_size, notes) = used_bytes(&lvm.disks[0]);
    assert_eq!(used, expected.into_iter().collect());
    assert_eq!(cluster_size, 1 << 20);
    let notes: Vec<_> = notes.iter().map(told).collect();
    let sum = |volume| used_bytes(volume).0.total_len();
    let unknown = "unknown filesystem".to_owned();
    assert_eq!(
        notes,
        [
            ("vg/root", "ext4", 20 * MIB, sum(&root), String::new()),
            ("vg/swap", "swap", 5 * MIB, 4096, String::new()),
            ("vg/data", "xfs", 24 * MIB, sum(&data), String::new()),
            ("vg/raw", "unknown", 3 * MIB, 3 * MIB, unknown),
        ]
    );

    let copy = copy(&lvm, &used);
    assert_eq!(copy.told(), lvm.told());
    copy.call("pvck @0");
    copy.call("vgck vg");
    assert_eq!(copy.places("root"), lvm.places("root"));
    let root = copy.extract("root");
    ext_tools::assert_clean(&root);
    assert_eq!(ext_tools::files_in(&root), root_files);
    let data = copy.extract("data");
    xfs_tools::assert_clean(&data);
    assert_eq!(xfs_tools::files_in(&data), data_files);
    assert!(run("swaplabel", &[copy.extract("swap").path()]).contains("LABEL: pages"));
    let raws = [copy.extract("raw"), raw].map(|volume| std::fs::read(volume.path).unwrap());
    assert!(raws[0] == raws[1]);
}

/// In logical volumes of many segments: bytes of the disk, and a sound filesystem without them.
#[test]
fn files_in_logical_volumes_are_found_by_their_names() {
    let lvm = Lvm::new(&[80 * MIB], "");
    for (name, extents) in [("root", 5), ("swap", 4), ("data", 24), ("bad", 2)] {
        lvm.create(name, extents, "");
    }
    lvm.call("lvextend -l +15 vg/root");
    assert!(lvm.places("root").len() >= 2);
    let (root, files) = filled_ext4(20 * MIB);
    lvm.fill("root", &root);
    lvm.fill("swap", &Volume::made_by(4 * MIB, "mkswap", "-q"));
    // The mark of a driver that writes.
    let in_use = Volume::made_by(24 * MIB, "mkfs.fat", "-F 16 -s 4");
    in_use.patch(37, &[1]);
    lvm.fill("data", &in_use);
    let alone = found(&root, &["*[0-4]", "/dir2/"]);
    let inside = found(&lvm.disks[0], &["*[0-4]", "/dir2/"]);
    assert!(!alone.files.is_empty());
    assert_eq!(alone.files.len(), inside.files.len());
    for (alone, inside) in alone.files.iter().zip(&inside.files) {
        assert_eq!(
            (format!("vg/root:{}", alone.path), alone.len),
            (inside.path.clone(), inside.len)
        );
        let set = alone.extents.iter().copied().collect();
        let moved: ExtentSet = placed(&set, &lvm.places("root"), 0).into_iter().collect();
        assert_eq!(moved.runs(), inside.extents);
    }
    let others: Vec<_> = inside.inner.iter().map(|v| (v.name.as_str(), v.filesystem)).collect();
    assert_eq!(others, [("vg/data", FilesystemKind::Fat16), ("vg/bad", FilesystemKind::Unknown)]);

    let left_out: ExtentSet = inside.files.iter().flat_map(|file| file.extents.clone()).collect();
    let (used, ..) = used_bytes(&lvm.disks[0]);
    let rest: ExtentSet = used.runs().iter().flat_map(|&run| left_out.gaps_within(run)).collect();
    assert_eq!(rest.total_len() + left_out.total_len(), used.total_len());
    let copy = copy(&lvm, &rest).extract("root");
    ext_tools::assert_clean(&copy);
    let mut is = ext_tools::files_in(&copy);
    let mut was = files;
    for file in &alone.files {
        is.remove(std::path::Path::new(&file.path)).unwrap();
        was.remove(std::path::Path::new(&file.path)).unwrap();
    }
    assert!(is == was && !is.is_empty());
}

#[test]
fn a_label_in_each_of_the_first_four_sectors() {
    for sector in 0..4 {
        let lvm = Lvm::new(&[20 * MIB], &format!("--labelsector {sector}"));
        let (used, ..) = used_bytes(&lvm.disks[0]);
        assert_eq!(used, lvm.records(0).into_iter().collect(), "sector {sector}");
        assert!(used.total_len() <= 2 * MIB);
    }
}

#[test]
fn extents_of_any_size_and_place() {
    for (extent, start, cluster_size) in [("128k", "192k", 128 << 10), ("4m", "3m", 4 << 20)] {
        let lvm = Lvm::over(vec![Volume::new(40 * MIB)]);
        lvm.call(&format!("pvcreate --dataalignment {start} --bootloaderareasize 70k @0"));
        lvm.call(&format!("vgcreate -s {extent} vg @0"));
        lvm.create("raw", 2, "");
        lvm.disks[0].patch(lvm.data_start(0), &noise(1, 1000));
        let (used, size, notes) = used_bytes(&lvm.disks[0]);
        let raw = lvm.places("raw").into_iter().map(|(_, place)| place);
        assert_eq!(used, lvm.records(0).into_iter().chain(raw).collect());
        assert_eq!((size, notes.len()), (cluster_size, 1));
    }
}

#[test]
fn the_valid_text_while_the_ring_of_texts_turns_round() {
    let lvm = Lvm::new(&[20 * MIB], "--metadatasize 32k --dataalignment 36k");
    lvm.create("raw", 4, "");
    for tag in 0..5 {
        lvm.call(&format!("lvchange --addtag {tag}{} vg/raw", "t".repeat(900)));
    }
    lvm.disks[0].patch(lvm.places("raw")[0].1.start, &noise(1, 1000));
    let mut wrapped = 0;
    for round in 0..24 {
        match round % 2 {
            0 => lvm.create("next", 3, ""),
            _ => drop(lvm.call("lvremove -y vg/next")),
        }
        let dump = lvm.call("pvck --dump headers @0");
        let field = |name: &str| {
            let line = dump.lines().find(|line| line.contains(name)).unwrap();
            line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
        };
        let end = field("raw_locn[0].offset") + field("raw_locn[0].size");
        wrapped += u32::from(end > field("mda_header_1.size"));
        let (used, _, notes) = used_bytes(&lvm.disks[0]);
        let (extents, volumes) = if round % 2 == 0 { (7, 2) } else { (4, 1) };
        let kept = used.within(lvm.data(0)).map(|run| run.len).sum::<u64>();
        assert_eq!((kept, notes.len()), (extents * MIB, volumes));
    }
    assert!(wrapped >= 2, "{wrapped} texts went round the end");
}

#[test]
fn disks_of_one_group_keep_what_lies_on_several_of_them() {
    let lvm = Lvm::new(&[40 * MIB, 30 * MIB], "");
    lvm.create("here", 10, "@0");
    lvm.create("there", 5, "@1");
    lvm.create("both", 6, "@0");
    lvm.call("lvextend -l +4 vg/both @1");
    lvm.call("lvcreate -an -Zn -Wn -y -i 2 -n stripes -l 6 vg");
    let (filesystem, files) = filled_ext4(10 * MIB);
    lvm.fill("here", &filesystem);
    lvm.fill("both", &filesystem);
    let elsewhere = "parts of it are on other disks".to_owned();
    let all = |name, len| (name, "unknown", len * MIB, len * MIB, elsewhere.clone());

    let (used, _, notes) = used_bytes(&lvm.disks[0]);
    let of_ext = used_bytes(&filesystem).0;
    let mut expected = lvm.records(0);
    expected.extend(placed(&of_ext, &lvm.places("here"), 0));
    for name in ["both", "stripes"] {
        expected.extend(lvm.places(name).into_iter().filter(|at| at.0 == 0).map(|at| at.1));
    }
    assert_eq!(used, expected.into_iter().collect());
    let ext = ("vg/here", "ext4", 10 * MIB, of_ext.total_len(), String::new());
    let notes: Vec<_> = notes.iter().map(told).collect();
    assert_eq!(notes, [ext, all("vg/both", 6), all("vg/stripes", 3)]);

    let second = used_bytes(&lvm.disks[1]);
    let notes: Vec<_> = second.2.iter().map(told).collect();
    let unknown = "unknown filesystem".to_owned();
    let there = ("vg/there", "unknown", 5 * MIB, 5 * MIB, unknown);
    assert_eq!(notes, [there, all("vg/both", 4), all("vg/stripes", 3)]);

    let disks = vec![copy_of_used(&lvm.disks[0], &used), copy_of_used(&lvm.disks[1], &second.0)];
    let copy = Lvm::over(disks);
    assert_eq!(copy.told(), lvm.told());
    for name in ["here", "both"] {
        let volume = copy.extract(name);
        ext_tools::assert_clean(&volume);
        assert_eq!(ext_tools::files_in(&volume), files);
    }
}

#[test]
fn a_filesystem_in_use_is_told_by_the_name_of_its_volume() {
    let lvm = Lvm::new(&[20 * MIB], "");
    lvm.create("root", 10, "");
    let volume = mke2fs(10 * MIB, "-t ext4 -b 1024");
    let mounted = Mounted::new(&volume, "rw,commit=600");
    std::fs::write(mounted.path().join("file"), noise(1, 70_000)).unwrap();
    std::fs::File::open(mounted.path().join("file")).unwrap().sync_all().unwrap();
    let hot = volume.duplicate();
    drop(mounted);
    lvm.fill("root", &hot);
    let notes = used_bytes(&lvm.disks[0]).2;
    assert_eq!(told(&notes[0]).0, "vg/root");
    match &notes[1..] {
        [MapNote::Within { name, note }] => {
            assert_eq!(name, "vg/root");
            assert!(matches!(**note, MapNote::JournalPending { .. }), "{note:?}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_physical_volume_in_a_logical_volume_is_read_once_and_not_endlessly() {
    let (filesystem, files) = filled_ext4(10 * MIB);
    let inner = Lvm::new(&[14 * MIB], "");
    inner.create("root", 10, "");
    inner.fill("root", &filesystem);
    let middle = Lvm::new(&[18 * MIB], "");
    middle.create("guest", 14, "");
    middle.fill("guest", &inner.disks[0]);

    let (used, _, notes) = used_bytes(&middle.disks[0]);
    let inner_used = used_bytes(&inner.disks[0]).0;
    assert_eq!(
        told(&notes[0]),
        ("vg/guest", "LVM2_member", 14 * MIB, inner_used.total_len(), String::new())
    );
    let ext_used = used_bytes(&filesystem).0.total_len();
    match &notes[1] {
        MapNote::Within { name, note } => {
            assert_eq!(name, "vg/guest");
            assert_eq!(told(note), ("vg/root", "ext4", 10 * MIB, ext_used, String::new()));
        }
        other => panic!("{other:?}"),
    }
    let copied = copy(&middle, &used);
    let guest = Lvm::over(vec![copied.extract("guest")]);
    assert_eq!(guest.told(), inner.told());
    let root = guest.extract("root");
    ext_tools::assert_clean(&root);
    assert_eq!(ext_tools::files_in(&root), files);

    let outer = Lvm::new(&[22 * MIB], "");
    outer.create("host", 18, "");
    outer.fill("host", &middle.disks[0]);
    let notes = used_bytes(&outer.disks[0]).2;
    let MapNote::Within { note, .. } = &notes[1] else { panic!("{notes:?}") };
    let (name, kind, len, used, reason) = told(note);
    assert_eq!((name, kind, len, used), ("vg/guest", "LVM2_member", 14 * MIB, 14 * MIB));
    assert_eq!(reason, "LVM2 physical volume: physical volumes are nested too deeply");
}
