//! The bytes of logical volumes, by what LVM2 says about where they are: on one disk and on
//! several, in segments, stripes and images; and the reasons of those that have none.

use std::sync::Arc;

use aiv_filesystems::{LogicalVolumes, logical_volumes};
use aiv_testkit::mutants::{Changes, Sums};
use aiv_volume_io::{Extent, Job, MemDisk, ReadAt};
use proptest::prelude::*;

use crate::ext_tools::MIB;
use crate::lvm_tools::{Lvm, edit_text};
use crate::tools::{Volume, noise};

fn opened(disks: &[&Volume]) -> LogicalVolumes {
    let members: Vec<Arc<dyn ReadAt>> =
        disks.iter().map(|disk| Arc::new(disk.open()) as Arc<dyn ReadAt>).collect();
    logical_volumes(&members, Job::silent()).unwrap()
}

fn all(lvm: &Lvm) -> LogicalVolumes {
    opened(&lvm.disks.iter().collect::<Vec<_>>())
}

/// The bytes of `vg/NAME`, or why there are none.
fn bytes(found: &LogicalVolumes, name: &str) -> Result<Vec<u8>, String> {
    let name = format!("vg/{name}");
    let volume = found.volumes.iter().find(|volume| volume.name == name).unwrap();
    let bytes = volume.bytes.clone()?;
    let mut out = vec![0; usize::try_from(volume.len).unwrap()];
    bytes.read_exact_at(&mut out, 0).unwrap();
    Ok(out)
}

fn why(found: &LogicalVolumes, name: &str) -> String {
    bytes(found, name).unwrap_err()
}

/// Fills the extents of a logical volume with noise: what it holds when it is linear.
fn filled(lvm: &Lvm, name: &str) -> Vec<u8> {
    let contents = Volume::new(0);
    let len: u64 = lvm.places(name).iter().map(|place| place.1.len).sum();
    let bytes = noise(name.bytes().map(u64::from).sum(), usize::try_from(len).unwrap());
    contents.patch(0, &bytes);
    lvm.fill(name, &contents);
    bytes
}

#[test]
fn segments_on_one_disk_and_on_several() {
    let lvm = Lvm::new(&[20 * MIB, 20 * MIB, 20 * MIB], "");
    for (name, extents, disk) in [("one", 3, "@0"), ("gap", 2, "@0"), ("two", 4, "@1")] {
        lvm.create(name, extents, disk);
    }
    lvm.call("lvextend -l +3 vg/one @0");
    lvm.call("lvextend -l +2 vg/two @0");
    lvm.call("lvextend -l +5 vg/two @2");
    let [one, gap, two] = ["one", "gap", "two"].map(|name| filled(&lvm, name));
    let found = all(&lvm);
    assert_eq!(found.members, [Ok(0), Ok(0), Ok(0)]);
    let names: Vec<_> = found.volumes.iter().map(|v| (v.member, v.name.as_str())).collect();
    assert_eq!(names, [(0, "vg/one"), (0, "vg/gap"), (0, "vg/two")]);
    assert!(bytes(&found, "one") == Ok(one.clone()) && bytes(&found, "gap") == Ok(gap));
    assert!(bytes(&found, "two") == Ok(two));
    // Without the third disk, and with disks in another order.
    let found = opened(&[&lvm.disks[1], &lvm.disks[0]]);
    assert!(bytes(&found, "one") == Ok(one));
    assert_eq!(why(&found, "two"), "parts of it are on other disks");
    assert!(opened(&[]).volumes.is_empty());
}

#[test]
fn stripes_over_disks_go_round_them() {
    let lvm = Lvm::new(&[30 * MIB, 30 * MIB, 30 * MIB], "");
    lvm.create("first", 3, "@0");
    lvm.call("lvcreate -an -Zn -Wn -y -i 3 -I 64k -n wide -l 12 vg");
    lvm.call("lvextend -i 2 -I 128k -l +6 vg/wide @1 @2");
    let mut expected = Vec::new();
    let places = lvm.places("wide");
    assert_eq!(places.len(), 5);
    for (stripe, legs) in [(64 << 10, &places[..3]), (128 << 10, &places[3..])] {
        let rows = usize::try_from(legs[0].1.len).unwrap() / stripe;
        for row in 0..rows {
            for (disk, place) in legs {
                let bytes = noise((expected.len() + 1) as u64, stripe);
                lvm.disks[*disk].patch(place.start + (row * stripe) as u64, &bytes);
                expected.extend(bytes);
            }
        }
    }
    let found = all(&lvm);
    assert!(bytes(&found, "wide") == Ok(expected.clone()));
    let volume = found.volumes.iter().find(|volume| volume.name == "vg/wide").unwrap();
    let source = volume.bytes.as_ref().unwrap();
    for (at, len) in [(1, 70_000), (65_535, 2), (4 * 64 * 1024 - 1, 300_001), (12 * MIB - 5, 10)] {
        let mut part = vec![0; len];
        source.read_exact_at(&mut part, at).unwrap();
        let at = usize::try_from(at).unwrap();
        assert!(part == expected[at..at + len], "{len} bytes at {at}");
    }
}

/// A logical volume as LVM writes it.
pub(crate) fn logical(name: &str, status: &str, segment: &str) -> String {
    let number = crate::lvm_tools::crc(name.as_bytes()) % 1_000_000;
    let id = format!("{number:06}-aaaa-bbbb-cccc-dddd-eeee-ffffff");
    format!(
        "{name} {{\nid = \"{id}\"\nstatus = [\"READ\", \"WRITE\"{status}]\nflags = []\n\
         segment_count = 1\nsegment1 {{\nstart_extent = 0\n{segment}\n}}\n}}\n"
    )
}

pub(crate) fn linear(extents: u64, disk: u64, first: u64) -> String {
    format!(
        "extent_count = {extents}\ntype = \"striped\"\nstripe_count = 1\n\
         stripes = [\"pv{disk}\", {first}]"
    )
}

pub(crate) const VISIBLE: &str = ", \"VISIBLE\"";

/// Puts logical volumes into the metadata; LVM checks them.
pub(crate) fn with(disks: &[u64], volumes: &[String]) -> Lvm {
    let lvm = Lvm::new(disks, "");
    lvm.create("root", 1, "@0");
    lvm.restore(|text| {
        let marker = "logical_volumes {";
        text.replace(marker, &format!("{marker}\n{}", volumes.concat()))
    });
    lvm
}

/// What the kernel writes about an image of a RAID: events, failed images, up to where this one
/// was filled and all are the same.
fn superblock(events: u64, failed: u64, filled: u64, in_sync: u64) -> Vec<u8> {
    let mut record = vec![0; 64];
    record[..4].copy_from_slice(&0x6452_6d44_u32.to_le_bytes());
    for (at, word) in [(16, events), (24, failed), (32, filled), (40, in_sync)] {
        record[at..at + 8].copy_from_slice(&word.to_le_bytes());
    }
    record
}

#[test]
fn the_image_of_a_raid1_that_is_up_to_date() {
    let raid = "extent_count = 2\ntype = \"raid1\"\ndevice_count = 2\nregion_size = 1024\n\
                raids = [\"r_rmeta_0\", \"r_rimage_0\", \"r_rmeta_1\", \"r_rimage_1\"]";
    let parts = [
        logical("r", VISIBLE, raid),
        logical("r_rmeta_0", "", &linear(1, 0, 1)),
        logical("r_rimage_0", "", &linear(2, 0, 2)),
        logical("r_rmeta_1", "", &linear(1, 1, 1)),
        logical("r_rimage_1", "", &linear(2, 1, 2)),
    ];
    let lvm = with(&[10 * MIB, 10 * MIB], &parts);
    let [first, second] = ["r_rimage_0", "r_rimage_1"].map(|image| filled(&lvm, image));
    assert_ne!(first, second);
    let set = |image: usize, record: Vec<u8>| {
        let place = lvm.places(&format!("r_rmeta_{image}"))[0];
        lvm.disks[place.0].patch(place.1.start, &record);
    };
    let done = u64::MAX;
    let two = |found: &LogicalVolumes| bytes(found, "r");
    // It never was active.
    assert!(two(&all(&lvm)) == Ok(first.clone()));
    assert_eq!(why(&opened(&[&lvm.disks[1]]), "r"), "parts of it are on other disks");
    for image in 0..2 {
        set(image, superblock(7, 0, done, done));
    }
    assert!(two(&all(&lvm)) == Ok(first.clone()));
    assert!(two(&opened(&[&lvm.disks[1]])) == Ok(second.clone()));
    // The second one is behind, is being filled, or failed.
    for record in [superblock(6, 0, done, done), superblock(7, 0, 5, done), vec![0; 64]] {
        set(1, record);
        assert!(two(&all(&lvm)) == Ok(first.clone()));
    }
    set(1, superblock(7, 0, 5, done));
    assert_eq!(why(&opened(&[&lvm.disks[1]]), "r"), "parts of it are on other disks");
    // The first one failed, and the second one knows.
    set(1, superblock(9, 1, done, done));
    assert!(two(&all(&lvm)) == Ok(second));
    // Images that are not the same yet: the first one is what is copied from.
    for image in 0..2 {
        set(image, superblock(9, 0, done, 2048));
    }
    assert!(two(&all(&lvm)) == Ok(first));
    assert_eq!(why(&opened(&[&lvm.disks[1]]), "r"), "parts of it are on other disks");
    // None of them.
    for image in 0..2 {
        set(image, superblock(9, 3, done, done));
    }
    assert_eq!(why(&all(&lvm), "r"), "an image is not up to date");
}

#[test]
fn the_first_image_of_a_mirror_and_the_origin_of_a_snapshot() {
    let mirror = "extent_count = 2\ntype = \"mirror\"\nmirror_count = 2\nregion_size = 1024\n\
                  mirrors = [\"m_mimage_0\", 0, \"m_mimage_1\", 0]";
    let snapshot = "extent_count = 1\ntype = \"snapshot\"\nchunk_size = 8\norigin = \"root\"\n\
                    cow_store = \"snap\"";
    let lvm = with(
        &[10 * MIB, 10 * MIB],
        &[
            logical("m", VISIBLE, mirror),
            logical("m_mimage_0", "", &linear(2, 0, 2)),
            logical("m_mimage_1", "", &linear(2, 1, 2)),
            logical("snap", VISIBLE, &linear(3, 0, 4)),
            logical("snapshot0", "", snapshot),
        ],
    );
    let [first, root] = ["m_mimage_0", "root"].map(|name| filled(&lvm, name));
    filled(&lvm, "m_mimage_1");
    let found = all(&lvm);
    assert!(bytes(&found, "m") == Ok(first) && bytes(&found, "root") == Ok(root));
    let reason = "it is a snapshot: only what its origin has lost since is in it";
    assert_eq!(why(&found, "snap"), reason);
    let names: Vec<_> = found.volumes.iter().map(|volume| volume.name.as_str()).collect();
    assert_eq!(names, ["vg/m", "vg/snap", "vg/root"], "nothing that LVM hides");
    let found = opened(&[&lvm.disks[1]]);
    assert_eq!(why(&found, "m"), "parts of it are on other disks (its first image)");
}

#[test]
fn thin_and_cached_volumes_and_whatever_is_not_known_have_a_reason() {
    let pool = "extent_count = 4\ntype = \"thin-pool\"\nmetadata = \"pool_tmeta\"\n\
                pool = \"pool_tdata\"\ntransaction_id = 0\nchunk_size = 128\n\
                discards = \"passdown\"\nzero_new_blocks = 1";
    let thin = "extent_count = 100\ntype = \"thin\"\nthin_pool = \"pool\"\ntransaction_id = 0\n\
                device_id = 1";
    let lvm = with(
        &[20 * MIB],
        &[
            logical("pool", VISIBLE, pool),
            logical("pool_tdata", "", &linear(4, 0, 1)),
            logical("pool_tmeta", "", &linear(1, 0, 5)),
            logical("thin", VISIBLE, thin),
            logical("plain", VISIBLE, &linear(1, 0, 6)),
        ],
    );
    let found = all(&lvm);
    let names: Vec<_> = found.volumes.iter().map(|volume| volume.name.as_str()).collect();
    assert_eq!(names, ["vg/thin", "vg/plain", "vg/root"]);
    assert_eq!(why(&found, "thin"), "a record of its pool does not match its checksum");
    assert!(bytes(&found, "plain").is_ok());
    let edited = |from: &str, to: &str| {
        let disk = lvm.disks[0].duplicate();
        edit_text(&disk, |text| text.replacen(from, to, 1));
        opened(&[&disk])
    };
    let found = edited("type = \"thin\"", "type = \"cache\"");
    assert_eq!(why(&found, "thin"), "it is cached: its newest blocks may be in the cache");
    let found = edited("type = \"thin\"", "type = \"raid6\"");
    assert_eq!(why(&found, "thin"), "it is of the type \"raid6\", which is not read");
    let found = edited("chunk_size = 128", "chunk_size = 1");
    assert!(bytes(&found, "root").is_ok());
}

#[test]
fn the_newest_metadata_of_a_group_counts_and_doubles_are_refused() {
    let lvm = Lvm::new(&[10 * MIB, 10 * MIB], "");
    lvm.create("both", 2, "@0");
    let old = lvm.disks[1].duplicate();
    lvm.call("lvextend -l +2 vg/both @1");
    let both = filled(&lvm, "both");
    // The second disk has missed the change of the metadata, not the data.
    let area = {
        let mut head = vec![0; usize::try_from(MIB).unwrap()];
        old.open().read_exact_at(&mut head, 0).unwrap();
        head
    };
    lvm.disks[1].patch(0, &area);
    assert!(bytes(&all(&lvm), "both") == Ok(both));
    assert_eq!(bytes(&opened(&[&old]), "both").unwrap_err(), "parts of it are on other disks");
    let twin = lvm.disks[0].duplicate();
    let found = opened(&[&lvm.disks[0], &twin, &lvm.disks[1]]);
    assert_eq!(why(&found, "both"), "two physical volumes have one identity");
    // One number, two texts.
    edit_text(&twin, |text| {
        text.replacen("\"both\"", "\"tags\"", 1).replacen("both {", "boty {", 1)
    });
    let found = opened(&[&lvm.disks[0], &twin]);
    let reason = Err("the copies of its metadata differ".to_owned());
    assert_eq!((found.volumes.len(), found.members), (0, vec![reason.clone(), reason]));
}

/// The metadata of a group that missed it does not give back what went into another one.
#[test]
fn a_disk_that_went_to_another_group_is_read_as_a_part_of_that_one() {
    let lvm = Lvm::new(&[10 * MIB, 10 * MIB, 10 * MIB], "");
    lvm.create("both", 2, "@0");
    lvm.call("lvextend -l +2 vg/both @1");
    let missed = lvm.disks[0].duplicate();
    lvm.call("lvremove -y vg/both");
    lvm.call("vgreduce vg @1");
    lvm.call("vgcreate -s 1m other @1");
    lvm.call("lvcreate -an -Zn -Wn -y -n new -l 3 other");
    let found = opened(&[&missed, &lvm.disks[1]]);
    assert_eq!(found.members, [Ok(0), Ok(1)]);
    assert_eq!(why(&found, "both"), "parts of it are on other disks");
    let new = found.volumes.iter().find(|volume| volume.name == "other/new").unwrap();
    assert!(new.member == 1 && new.bytes.is_ok());
    // And one that was taken out of a group, with old metadata of its own.
    let out = lvm.disks[2].duplicate();
    lvm.call("vgreduce vg @2");
    let found = opened(&[&lvm.disks[0], &out]);
    assert_eq!(found.members[1], Err("it is no part of its group any more".to_owned()));
}

/// Loops, extents that are nowhere, counts that no disk has: each is a reason, none costs more.
#[test]
fn metadata_of_an_attacker_is_refused_for_the_volumes_it_concerns() {
    let stacked = |on: &str| {
        format!("extent_count = 1\ntype = \"striped\"\nstripe_count = 1\nstripes = [\"{on}\", 0]")
    };
    let mut volumes = vec![
        logical("ring1", VISIBLE, &stacked("ring2")),
        logical("ring2", VISIBLE, &stacked("ring1")),
        logical("self", VISIBLE, &stacked("self")),
        logical("nobody", VISIBLE, &stacked("nothing")),
        logical("far", VISIBLE, &linear(1, 0, u64::MAX >> 12)),
        logical("past", VISIBLE, &linear(4, 0, 17)),
        logical("huge", VISIBLE, &linear(u64::MAX >> 2, 0, 0)),
        logical("none", VISIBLE, &linear(0, 0, 3)),
        logical(
            "zero",
            VISIBLE,
            "extent_count = 2\ntype = \"striped\"\nstripe_count = 2\n\
                 stripe_size = 0\nstripes = [\"pv0\", 3, \"pv0\", 4]",
        ),
        logical(
            "short",
            VISIBLE,
            "extent_count = 9\ntype = \"raid1\"\ndevice_count = 1\n\
                 raids = [\"nothing\", \"good\"]",
        ),
        logical("good", VISIBLE, &linear(1, 0, 5)),
        logical("..", VISIBLE, &linear(1, 0, 6)),
        logical("n0", VISIBLE, &linear(1, 0, 7)),
    ];
    for n in 1..12 {
        volumes.push(logical(&format!("n{n}"), VISIBLE, &stacked(&format!("n{}", n - 1))));
    }
    volumes.reverse();
    let lvm = Lvm::new(&[20 * MIB], "--metadatasize 128k");
    lvm.create("root", 1, "");
    edit_text(&lvm.disks[0], |text| {
        let marker = "logical_volumes {";
        text.replace(marker, &format!("{marker}\n{}", volumes.concat()))
    });
    let found = all(&lvm);
    assert_eq!(found.members, [Ok(0)]);
    assert!(found.volumes.iter().all(|volume| !volume.name.contains("..")));
    let past = "its extents reach past the end of a disk";
    for (name, reason) in [
        ("ring1", "it is made of volumes that are nested too deeply"),
        ("ring2", "it is made of volumes that are nested too deeply"),
        ("self", "it is made of volumes that are nested too deeply"),
        ("n11", "it is made of volumes that are nested too deeply"),
        ("nobody", "there is no logical volume \"nothing\""),
        ("far", "its extents reach further than any disk"),
        ("past", past),
        ("huge", "its extents are none, or too many"),
        ("none", "its extents are none, or too many"),
        ("zero", "its stripes do not fill its extents"),
        ("short", past),
    ] {
        assert_eq!(why(&found, name), reason, "{name}");
    }
    assert!(bytes(&found, "good").is_ok() && bytes(&found, "root").is_ok());
    assert_eq!(bytes(&found, "n3").unwrap().len(), 1 << 20);
    // One byte of a disk is in one volume.
    edit_text(&lvm.disks[0], |text| {
        text.replacen("stripes = [\"pv0\", 7]", "stripes = [\"pv0\", 5]", 1)
    });
    let why = all(&lvm).members[0].clone().unwrap_err();
    assert_eq!(why, "volume group vg: two logical volumes own byte 5242880 of a disk");
}

fn target() -> (Vec<u8>, Extent) {
    let lvm = Lvm::new(&[6 * MIB], "");
    for (name, extents) in [("root", 1), ("swap", 1)] {
        lvm.create(name, extents, "");
    }
    lvm.call("lvextend -l +1 vg/root");
    let disk = std::fs::read(&lvm.disks[0].path).unwrap();
    let word = |at: usize| u64::from_le_bytes(*disk[at..].first_chunk().unwrap());
    let text = Extent::new(4096 + word(4096 + 40), word(4096 + 48));
    (disk, text)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn mutated_metadata_is_read_within_its_disk_or_refused(
        list in prop::collection::vec(
            (any::<prop::sample::Index>(),
             prop_oneof![prop::sample::select(b"0123459-\"{}[]=,# \n\\".as_slice()), any::<u8>()]),
            1..5,
        ),
    ) {
        static TARGET: std::sync::LazyLock<(Vec<u8>, Extent)> = std::sync::LazyLock::new(target);
        let (disk, text) = &*TARGET;
        let original = MemDisk::from_bytes(disk.clone());
        let mut changes: Changes = list
            .into_iter()
            .map(|(at, value)| {
                (text.start + at.index(usize::try_from(text.len).unwrap()) as u64, value)
            })
            .collect();
        Sums::Lvm.mend(&original, &[], &mut changes);
        let mut bytes = disk.clone();
        for (&at, &value) in &changes {
            bytes[usize::try_from(at).unwrap()] = value;
        }
        let disk: Arc<dyn ReadAt> = Arc::new(MemDisk::from_bytes(bytes));
        let found = logical_volumes(&[disk], Job::silent()).unwrap();
        for volume in found.volumes {
            if let Ok(bytes) = volume.bytes {
                prop_assert!(bytes.len() <= 6 * MIB);
                let mut out = vec![0; usize::try_from(bytes.len()).unwrap()];
                prop_assert!(bytes.read_exact_at(&mut out, 0).is_ok());
            }
        }
    }
}
