//! What LVM2 volumes are kept whole for: logical volumes that are more than their bytes, and
//! physical volumes that nobody can be sure about.

use aiv_filesystems::{FilesystemKind, LvmReason, UsedMap, WholeReason, recognise, used_map};
use aiv_volume_io::{Extent, Job, MemDisk, ReadAt};

use crate::ext_tools::{MIB, mke2fs, used_bytes, whole_reason};
use crate::lvm_tools::{Lvm, crc, edit_header, edit_text, told};
use crate::tools::Volume;

/// Bytes, used bytes and reason of every logical volume that is told of.
fn volumes(disk: &Volume) -> Vec<(String, u64, u64, String)> {
    let notes = used_bytes(disk).2;
    let short = |note| {
        let (name, _, len, used, reason) = told(note);
        (name.to_owned(), len / MIB, used / MIB, reason)
    };
    notes.iter().map(short).collect()
}

fn whole(name: &str, mib: u64, reason: &str) -> (String, u64, u64, String) {
    (format!("vg/{name}"), mib, mib, reason.to_owned())
}

fn lvm_reason(disk: &Volume) -> LvmReason {
    match whole_reason(disk) {
        WholeReason::Lvm(reason) => reason,
        other => panic!("{other}"),
    }
}

/// The same without the filesystem in `root`, which has its map.
fn beside_root(disk: &Volume) -> Vec<(String, u64, u64, String)> {
    let mut found = volumes(disk);
    let at = found.iter().position(|volume| volume.0 == "vg/root").unwrap();
    let (_, len, used, reason) = found.remove(at);
    assert_eq!((len, reason.as_str()), (8, ""));
    assert!(used < 8);
    found
}

/// A group with an ext4 filesystem in `root`, of 8 MiB.
fn with_root() -> Lvm {
    let lvm = Lvm::new(&[24 * MIB], "");
    lvm.create("root", 8, "");
    lvm.fill("root", &mke2fs(8 * MIB, "-t ext4 -b 1024"));
    assert_ne!(volumes(&lvm.disks[0])[0].2, 8);
    lvm
}

/// A logical volume as LVM writes it.
fn logical(name: &str, status: &str, segment: &str) -> String {
    let number = crc(name.as_bytes()) % 1_000_000;
    let id = format!("{number:06}-aaaa-bbbb-cccc-dddd-eeee-ffffff");
    format!(
        "{name} {{\nid = \"{id}\"\nstatus = [{status}]\nflags = []\n\
         segment_count = 1\nsegment1 {{\nstart_extent = 0\n{segment}\n}}\n}}\n"
    )
}

fn linear(extents: u64, first: u64) -> String {
    format!(
        "extent_count = {extents}\ntype = \"striped\"\nstripe_count = 1\n\
         stripes = [\"pv0\", {first}]"
    )
}

const HIDDEN: &str = "\"READ\", \"WRITE\"";
const VISIBLE: &str = "\"READ\", \"WRITE\", \"VISIBLE\"";

/// Puts more logical volumes behind those that are there; LVM checks them.
fn add(lvm: &Lvm, volumes: &[String]) {
    lvm.restore(|text| {
        let marker = "logical_volumes {";
        text.replace(marker, &format!("{marker}\n{}", volumes.concat()))
    });
}

#[test]
fn a_volume_with_a_snapshot_and_the_snapshot_are_kept_whole() {
    let lvm = with_root();
    let snapshot = "extent_count = 8\ntype = \"snapshot\"\nchunk_size = 8\norigin = \"root\"\n\
                    cow_store = \"snap\"";
    add(&lvm, &[logical("snap", VISIBLE, &linear(3, 8)), logical("snapshot0", HIDDEN, snapshot)]);
    let reason = "the logical volume \"snapshot0\" depends on it";
    let found = volumes(&lvm.disks[0]);
    assert_eq!(found, [whole("snap", 3, reason), whole("root", 8, reason)]);
}

#[test]
fn the_parts_of_a_mirror_and_of_a_raid_are_kept_whole() {
    let lvm = with_root();
    let mirror = "extent_count = 2\ntype = \"mirror\"\nmirror_count = 2\nregion_size = 1024\n\
                  mirrors = [\"m_mimage_0\", 0, \"m_mimage_1\", 0]";
    let raid = "extent_count = 2\ntype = \"raid1\"\ndevice_count = 2\nregion_size = 1024\n\
                raids = [\"r_rmeta_0\", \"r_rimage_0\", \"r_rmeta_1\", \"r_rimage_1\"]";
    let part = |name, extents, first| logical(name, HIDDEN, &linear(extents, first));
    add(
        &lvm,
        &[
            logical("m", VISIBLE, mirror),
            part("m_mimage_0", 2, 8),
            part("m_mimage_1", 2, 10),
            logical("r", VISIBLE, raid),
            part("r_rmeta_0", 1, 12),
            part("r_rimage_0", 2, 13),
            part("r_rmeta_1", 1, 15),
            part("r_rimage_1", 2, 16),
        ],
    );
    let [m, r] = ["m", "r"].map(|user| format!("the logical volume {user:?} depends on it"));
    let found = beside_root(&lvm.disks[0]);
    let parts = [
        ("m_mimage_0", 2, &m),
        ("m_mimage_1", 2, &m),
        ("r_rmeta_0", 1, &r),
        ("r_rimage_0", 2, &r),
        ("r_rmeta_1", 1, &r),
        ("r_rimage_1", 2, &r),
    ];
    assert_eq!(found, parts.map(|(name, extents, why)| whole(name, extents, why)));
}

#[test]
fn a_pool_and_what_is_in_it_are_kept_whole() {
    let lvm = with_root();
    let pool = "extent_count = 4\ntype = \"thin-pool\"\nmetadata = \"pool_tmeta\"\n\
                pool = \"pool_tdata\"\ntransaction_id = 1\nchunk_size = 128\n\
                discards = \"passdown\"\nzero_new_blocks = 1";
    let thin = "extent_count = 100\ntype = \"thin\"\nthin_pool = \"pool\"\ntransaction_id = 0\n\
                device_id = 1";
    add(
        &lvm,
        &[
            logical("pool", VISIBLE, pool),
            logical("pool_tmeta", HIDDEN, &linear(2, 8)),
            logical("pool_tdata", HIDDEN, &linear(4, 10)),
            logical("thin", VISIBLE, thin),
            logical("lvol0_pmspare", HIDDEN, &linear(2, 14)),
        ],
    );
    let reason = "the logical volume \"pool\" depends on it";
    let found = beside_root(&lvm.disks[0]);
    assert_eq!(found[..2], [whole("pool_tmeta", 2, reason), whole("pool_tdata", 4, reason)]);
    assert_eq!(found[2], whole("lvol0_pmspare", 2, "it is an internal volume of LVM"));
    assert_eq!(found.len(), 3);
}

#[test]
fn extents_that_are_being_moved_are_kept_at_both_places() {
    let lvm = with_root();
    lvm.call("lvremove -y vg/root");
    let moved = "extent_count = 3\ntype = \"mirror\"\nmirror_count = 2\nregion_size = 1024\nextents_moved = 0\n\
                 mirrors = [\"pv0\", 0, \"pv0\", 10]";
    let user = "extent_count = 3\ntype = \"striped\"\nstripe_count = 1\n\
                stripes = [\"pvmove0\", 0]";
    let volumes_text = [
        logical("pvmove0", "\"READ\", \"WRITE\", \"PVMOVE\", \"LOCKED\"", moved),
        logical("root", "\"READ\", \"WRITE\", \"VISIBLE\", \"LOCKED\"", user),
    ];
    let lists = format!("logical_volumes {{\n{}}}\n", volumes_text.concat());
    edit_text(&lvm.disks[0], |text| {
        text.replacen("\n}\n# Generated", &format!("\n{lists}}}\n# Generated"), 1)
    });
    let reason = "the logical volume \"root\" depends on it";
    assert_eq!(volumes(&lvm.disks[0]), [whole("pvmove0", 6, reason)]);
    let used = used_bytes(&lvm.disks[0]).0;
    let data = lvm.data(0);
    let kept: Vec<Extent> = used.within(data).collect();
    let at = |first: u64| Extent::new(data.start + first * MIB, 3 * MIB);
    assert_eq!(kept, [at(0), at(10)]);
}

#[test]
fn a_logical_volume_with_anything_unknown_is_kept_whole() {
    let lvm = with_root();
    let root = Extent::new(lvm.data(0).start, 8 * MIB);
    let flag = "it has the unknown property";
    for (before, after, reason) in [
        ("\"VISIBLE\"]", "\"VISIBLE\", \"NOTSYNCED\"]", format!("{flag} \"NOTSYNCED\"")),
        (
            "\"READ\", \"WRITE\", \"VISIBLE\"",
            "\"READ\", \"WRITE\"",
            "it is an internal volume of LVM".to_owned(),
        ),
        ("segment_count = 1", "segment_count = 1\nnew = 1", format!("{flag} \"new\"")),
        ("segment_count = 1", "segment_count = 1\nnew {\n}", format!("{flag} \"new\"")),
        ("stripe_count = 1", "stripe_count = 1\nnew = 1", format!("{flag} \"new\"")),
        ("\"VISIBLE\"]\nflags = []", "\"VISIBLE\"]\nflags = [\"NEW\"]", format!("{flag} \"NEW\"")),
    ] {
        let disk = lvm.disks[0].duplicate();
        edit_text(&disk, |text| text.replacen(before, after, 1));
        assert_eq!(volumes(&disk), [whole("root", 8, &reason)]);
        assert_eq!(used_bytes(&disk).0.within(root).collect::<Vec<_>>(), [root]);
    }
}

/// The text of the metadata, changed, makes the whole volume doubtful.
#[test]
fn metadata_that_is_unknown_or_contradicts_itself_keeps_the_whole_disk() {
    let lvm = with_root();
    let group = "volume group vg";
    let disk = "physical volume pv0";
    let root = "logical volume vg/root";
    let segment = "logical volume vg/root, segment1";
    let double = format!("logical_volumes {{\n{}", logical("two", VISIBLE, &linear(1, 7)));
    for (before, after, place, what) in [
        ("version = 1", "version = 2", "metadata", "it is not a volume group of version 1"),
        (
            "contents = \"Text",
            "contents = \"text",
            "metadata",
            "it is not a volume group of version 1",
        ),
        (
            "contents =",
            "other {\n}\ncontents =",
            "metadata",
            "it does not describe one volume group",
        ),
        ("seqno", "new = 1\nseqno", group, "it has the unknown property new"),
        ("format = \"lvm2\"", "format = \"lvm3\"", group, "its format is not lvm2"),
        ("\"RESIZEABLE\"", "\"CLUSTERED\"", group, "its status \"CLUSTERED\" is not known here"),
        ("seqno", "lock_type = \"sanlock\"\nseqno", group, "it has the unknown property lock_type"),
        ("extent_size = 2048", "extent_size = 0", group, "extent_size is 0"),
        (
            "extent_size = 2048",
            "extent_size = -8",
            group,
            "it has no number extent_size, or a negative one",
        ),
        (
            "extent_size = 2048",
            "extent_size = 9223372036854775807",
            group,
            "extent_size is too large",
        ),
        (
            "physical_volumes",
            "physical_things",
            group,
            "it has the unknown property physical_things",
        ),
        (
            "\"ALLOCATABLE\"",
            "\"ALLOCATABLE\", \"MISSING\"",
            disk,
            "its status \"MISSING\" is not known here",
        ),
        ("dev_size", "new = 1\ndev_size", disk, "it has the unknown property new"),
        (
            "pe_count = 23",
            "pe_count = 9223372036854775807",
            disk,
            "its extents reach further than any disk",
        ),
        ("pe_count = 23", "pe_count = 5", segment, "its extents are not on this disk"),
        (
            "pe_start = 2048",
            "pe_start = 1024",
            "label",
            "it names another first extent than the metadata",
        ),
        (
            "segment_count = 1",
            "segment_count = 2",
            root,
            "segment_count is not the number of its segments",
        ),
        ("start_extent = 0", "start_extent = 1", root, "its segments do not follow each other"),
        ("extent_count = 8", "extent_count = 0", segment, "its extents are none, or too many"),
        ("stripe_count = 1", "stripe_count = 2", segment, "its stripes are not as many as it says"),
        ("\"pv0\", 0", "\"pv0\", 0, \"pv0\"", segment, "stripes is no list of disks and extents"),
        ("\"pv0\", 0", "\"pv0\", 30", segment, "its extents are not on this disk"),
        ("\"pv0\", 0", "\"pv0\", 9223372036854775807", segment, "its extents are not on this disk"),
        ("type = \"striped\"", "type = \"new\"", segment, "its type \"new\" is not known here"),
        (
            "segment_count",
            "new {\nwhere = \"pv0\"\n}\nsegment_count",
            root,
            "its unknown part new lies on this disk",
        ),
        ("logical_volumes {", &double, group, "two logical volumes own byte 8388608"),
    ] {
        let edited = lvm.disks[0].duplicate();
        edit_text(&edited, |text| text.replacen(before, after, 1));
        let expected = LvmReason::Metadata { place: place.to_owned(), what: what.to_owned() };
        assert_eq!(lvm_reason(&edited), expected, "{before} -> {after}");
    }
    let edited = lvm.disks[0].duplicate();
    edit_text(&edited, |text| text.replacen("seqno", "seqno = 2 seqno", 1));
    let reason = lvm_reason(&edited);
    assert!(
        matches!(reason, LvmReason::Text { what: "a section with a name twice", .. }),
        "{reason}"
    );
    let edited = lvm.disks[0].duplicate();
    edit_text(&edited, |text| text.replacen("dev_size = 49152", "dev_size = 49153", 1));
    let reason = LvmReason::LargerThanVolume { claimed: 24 * MIB + 512, volume: 24 * MIB };
    assert_eq!(lvm_reason(&edited), reason);
}

#[test]
fn the_metadata_of_another_disk() {
    let [lvm, other] = [with_root(), with_root()];
    let mut area = vec![0; 1 << 20];
    other.disks[0].open().read_exact_at(&mut area, 4096).unwrap();
    lvm.disks[0].patch(4096, &area[..(1 << 20) - 4096]);
    let reason = lvm_reason(&lvm.disks[0]).to_string();
    assert_eq!(reason, "volume group vg: this disk is none of its physical volumes");
}

#[test]
fn checksums_of_label_header_and_text() {
    let lvm = with_root();
    let text_at = {
        let mut place = [0; 8];
        lvm.disks[0].open().read_exact_at(&mut place, 4096 + 40).unwrap();
        4096 + u64::from_le_bytes(place)
    };
    for (at, section, offset) in [
        (512 + 60, "label", 512),
        (4096 + 300, "header of the metadata area", 4096),
        (text_at + 5, "metadata", text_at),
    ] {
        let disk = lvm.disks[0].duplicate();
        disk.patch(at, &[0xa5]);
        assert_eq!(lvm_reason(&disk), LvmReason::Checksum { section, offset });
    }
}

#[test]
fn a_change_that_was_not_finished() {
    let lvm = with_root();
    edit_header(&lvm.disks[0], |header| {
        header[64..72].copy_from_slice(&8192u64.to_le_bytes());
        header[72..80].copy_from_slice(&100u64.to_le_bytes());
    });
    assert_eq!(lvm_reason(&lvm.disks[0]), LvmReason::PendingChange { offset: 4096 });
}

#[test]
fn headers_of_metadata_areas_that_make_no_sense() {
    let lvm = with_root();
    type Edit = fn(&mut [u8]);
    let edits: [(Edit, &str); 7] = [
        (|header| header[8] = b'x', "its header is of an unknown kind"),
        (|header| header[20] = 2, "its header is of an unknown kind"),
        (|header| header[24] = 1, "its header names another place"),
        (|header| header[33] ^= 0x10, "its header names another place"),
        (|header| header[60] = 2, "its header has unknown flags"),
        (|header| header[51] = 1, "its text is longer than 4 MiB"),
        (|header| header[43] = 1, "its text does not fit"),
    ];
    for (edit, what) in edits {
        let edited = lvm.disks[0].duplicate();
        edit_header(&edited, edit);
        assert_eq!(lvm_reason(&edited), LvmReason::Area { offset: 4096, what });
    }
}

#[test]
fn two_copies_that_differ_and_one_that_is_not_kept_up_to_date() {
    let lvm = Lvm::new(&[24 * MIB], "--metadatacopies 2");
    lvm.create("root", 8, "");
    edit_text(&lvm.disks[0], |text| text.replacen("seqno = ", "seqno = 1", 1));
    assert_eq!(lvm_reason(&lvm.disks[0]), LvmReason::CopiesDiffer);

    let lvm = Lvm::new(&[24 * MIB, 24 * MIB], "");
    lvm.call("pvchange --metadataignore y @0");
    lvm.create("root", 8, "@0");
    assert_eq!(lvm_reason(&lvm.disks[0]), LvmReason::NoMetadata);
    assert_eq!(volumes(&lvm.disks[1]), []);

    let lvm = Lvm::over(vec![Volume::new(24 * MIB), Volume::new(24 * MIB)]);
    lvm.call("pvcreate --metadatacopies 0 @0");
    lvm.call("pvcreate @1");
    lvm.call("vgcreate -s 1m vg @0 @1");
    assert_eq!(lvm_reason(&lvm.disks[0]), LvmReason::NoMetadata);
}

#[test]
fn a_disk_that_is_no_member_of_a_group() {
    let lvm = Lvm::over(vec![Volume::new(24 * MIB)]);
    lvm.call("pvcreate @0");
    assert_eq!(lvm_reason(&lvm.disks[0]), LvmReason::NoMetadata);
}

#[test]
fn a_disk_that_was_cut_off() {
    let lvm = with_root();
    lvm.disks[0].set_len(24 * MIB - 512);
    let reason = LvmReason::LargerThanVolume { claimed: 24 * MIB, volume: 24 * MIB - 512 };
    assert_eq!(lvm_reason(&lvm.disks[0]), reason);
}

#[test]
fn a_label_left_over_under_a_filesystem_or_a_filesystem_under_a_label() {
    let lvm = with_root();
    lvm.disks[0].patch(1024 + 0x38, b"\x53\xef\x01\0");
    let reason = lvm_reason(&lvm.disks[0]);
    assert_eq!(reason, LvmReason::OtherSignature(FilesystemKind::Ext2));

    let lvm = with_root();
    let mut label = [0; 512];
    lvm.disks[0].open().read_exact_at(&mut label, 512).unwrap();
    label[8] = 3;
    let sum = crc(&label[20..]);
    label[16..20].copy_from_slice(&sum.to_le_bytes());
    lvm.disks[0].patch(1536, &label);
    assert_eq!(lvm_reason(&lvm.disks[0]), LvmReason::TwoLabels);
}

#[test]
fn labels_that_make_no_sense() {
    let lvm = with_root();
    type Edit = fn(&mut [u8]);
    let edits: [(Edit, &str, u64); 5] = [
        (|label| label[20] = 31, "pv_header", 31),
        (|label| label[21] = 2, "pv_header", 512 + 32),
        (|label| label[136] = 3, "ext_version", 3),
        (|label| label[80] = 1, "data areas", 1),
        (|label| label[88..508].fill(1), "disk areas", 17),
    ];
    for (edit, name, value) in edits {
        let edited = lvm.disks[0].duplicate();
        let mut label = [0; 512];
        edited.open().read_exact_at(&mut label, 512).unwrap();
        edit(&mut label);
        let sum = crc(&label[20..]);
        label[16..20].copy_from_slice(&sum.to_le_bytes());
        let recognised = recognise(&edited.open()).unwrap();
        edited.patch(512, &label);
        let map = used_map(&edited.open(), &recognised, Job::silent()).unwrap();
        let UsedMap::Whole { reason: WholeReason::Lvm(LvmReason::Header { field, found, .. }) } =
            map
        else {
            panic!("{map:?}")
        };
        assert_eq!((field, found), (name, value));
    }
    for len in [0, 511, 1000] {
        let recognised = recognise(&lvm.disks[0].open()).unwrap();
        let map = used_map(&MemDisk::from_bytes(vec![0; len]), &recognised, Job::silent());
        let reason = WholeReason::Lvm(LvmReason::NoLabel);
        assert_eq!(map.unwrap(), UsedMap::Whole { reason });
    }
}
