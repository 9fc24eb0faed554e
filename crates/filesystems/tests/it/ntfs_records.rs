//! File records, attributes and run lists that contradict themselves mean the whole volume.

use aiv_filesystems::NtfsReason;
use aiv_volume_io::Extent;

use crate::ext_tools::used_bytes;
use crate::ntfs_maps::fragmented_table;
use crate::ntfs_tools::{
    Boot, CLUSTER, DATA, attribute, bytes_at, edit_bitmap, edit_record, edit_table, first_cluster,
    ntfs, plain, put, run_list,
};

#[track_caller]
fn assert_record(number: u64, what: &'static str, edit: impl FnOnce(&mut Vec<u8>)) {
    let volume = plain();
    edit_record(&volume, number, edit);
    assert_eq!(ntfs(&volume), NtfsReason::Record { record: number, what });
}

#[track_caller]
fn assert_runs(number: u64, what: &'static str, edit: impl FnOnce(&mut [u8])) {
    let volume = plain();
    edit_record(&volume, number, |record| {
        let at = run_list(record, DATA);
        edit(&mut record[at..]);
    });
    assert_eq!(ntfs(&volume), NtfsReason::Runs { record: number, what });
}

#[track_caller]
pub(crate) fn assert_system_file(number: u64, what: &'static str, edit: impl FnOnce(&mut Vec<u8>)) {
    let volume = plain();
    edit_record(&volume, number, edit);
    assert_eq!(ntfs(&volume), NtfsReason::SystemFile { record: number, what });
}

#[test]
fn a_mirror_that_is_not_equal() {
    for number in 0..4 {
        let volume = plain();
        // The link count, which nothing here looks at.
        edit_table(&volume, number, |record| record[18] ^= 8);
        assert_eq!(ntfs(&volume), NtfsReason::MirrorDiffers { record: number });
    }
    let volume = plain();
    volume.patch(Boot::of(&volume).mirror, b"BAAD");
    assert_eq!(ntfs(&volume), NtfsReason::MirrorDiffers { record: 0 });
    // The number of the update sequence may differ.
    let volume = plain();
    edit_table(&volume, 3, |record| record[48] ^= 0x55);
    used_bytes(&volume);
}

#[test]
fn a_record_that_was_not_written_completely() {
    for number in [0, 5] {
        let volume = plain();
        let at = Boot::of(&volume).mft + number * 1024 + 1022;
        volume.patch(at, &[bytes_at(&volume, at, 1)[0] ^ 1]);
        let what = "was not written completely";
        assert_eq!(ntfs(&volume), NtfsReason::Record { record: number, what });
    }
}

#[test]
fn records_with_impossible_frames() {
    let header = "has an impossible header";
    let size = "has an impossible size";
    assert_record(9, "has no signature", |record| put(record, 0, b"BAAD"));
    assert_record(0, "has no signature", |record| put(record, 0, b"INDX"));
    assert_record(0, "is free and must not be", |record| record[22] = 0);
    assert_record(6, "is free and must not be", |record| record[22] = 0);
    assert_record(6, "continues another and must not", |record| record[32] = 9);
    assert_record(9, "carries the number of another", |record| record[44] = 10);
    assert_record(9, header, |record| record[20] = 0x32);
    assert_record(9, header, |record| record[20] = 0x30);
    assert_record(9, size, |record| put(record, 24, &[0, 5]));
    assert_record(9, size, |record| put(record, 28, &[0, 8]));
    assert_record(9, size, |record| put(record, 24, &[8, 0]));
    let volume = plain();
    volume.patch(Boot::of(&volume).mft + 9 * 1024 + 6, &[4]);
    let what = "has an update sequence that cannot be";
    assert_eq!(ntfs(&volume), NtfsReason::Record { record: 9, what });
}

#[test]
fn records_with_impossible_attributes() {
    let what = "has an attribute that cannot be";
    for (offset, bytes) in [
        (0, &[0u8, 0, 0, 0][..]),
        (4, &[0, 0]),
        (4, &[9, 0]),
        (4, &[0, 4]),
        (4, &[40, 0]),
        (8, &[2]),
        (9, &[255]),
        (23, &[0x80]),
        (16, &[200]),
        (32, &[8, 0]),
        (32, &[0xff, 0xff]),
    ] {
        assert_record(9, what, |record| {
            let at = attribute(record, DATA, true) + offset;
            put(record, at, bytes);
        });
    }
    assert_record(9, "has attributes without an end", |record| {
        let used = u32::from_le_bytes(record[24..28].try_into().unwrap());
        put(record, 24, &(used - 8).to_le_bytes());
    });
}

#[test]
fn run_lists_that_cannot_be() {
    // $UpCase: 32 clusters, found by two bytes.
    assert_runs(10, "has a run with an impossible header", |runs| runs[0] = 0x20);
    assert_runs(10, "has a run with an impossible header", |runs| runs[0] = 0x91);
    assert_runs(10, "has a run without clusters", |runs| runs[1] = 0);
    assert_runs(10, "has a run without clusters", |runs| runs[1] = 0x80);
    assert_runs(10, "ends before its last cluster", |runs| runs[1] -= 1);
    assert_runs(10, "goes on behind its last cluster", |runs| runs[1] += 1);
    assert_runs(10, "leaves the filesystem", |runs| put(runs, 2, &[0xff, 0x7f]));
    assert_runs(10, "leaves the filesystem", |runs| put(runs, 2, &[0xff, 0xff]));
    assert_runs(10, "has no end", |runs| put(runs, 0, &[0x88; 8]));
}

#[test]
fn bad_clusters_are_kept_and_must_not_be_free() {
    let volume = plain();
    let clusters = Boot::of(&volume).clusters;
    edit_table(&volume, 8, |record| {
        let at = run_list(record, DATA);
        let before = u16::try_from(3000).unwrap().to_le_bytes();
        let behind = u16::try_from(clusters - 3002).unwrap().to_le_bytes();
        let runs =
            [0x02, before[0], before[1], 0x21, 2, before[0], before[1], 0x02, behind[0], behind[1]];
        // The list grows by eight bytes: so do the attribute and the record.
        let end = record.len() - 8;
        record.copy_within(at + 8..end, at + 16);
        put(record, at, &runs);
        record[at + 10] = 0;
        let header = attribute(record, DATA, true);
        record[header + 4] += 8;
        let used = u32::from_le_bytes(record[24..28].try_into().unwrap());
        put(record, 24, &(used + 8).to_le_bytes());
    });
    assert_eq!(ntfs(&volume), NtfsReason::SystemFree { record: 8, cluster: 3000 });
    edit_bitmap(&volume, 3000, |byte| byte | 3);
    let bad = Extent::new(3000 * CLUSTER, 2 * CLUSTER);
    assert_eq!(used_bytes(&volume).0.within(bad).next(), Some(bad));
}

#[test]
fn two_files_with_the_same_cluster() {
    let volume = plain();
    let cluster = first_cluster(&volume, 4);
    edit_record(&volume, 10, |record| {
        let at = run_list(record, DATA);
        put(record, at + 2, &u16::try_from(cluster).unwrap().to_le_bytes());
    });
    assert_eq!(ntfs(&volume), NtfsReason::Overlap { record: 10, cluster });
}

#[test]
fn system_files_that_are_not_what_they_have_to_be() {
    let data = |record: &[u8]| attribute(record, DATA, true);
    let set = |offset: usize, value: u64| {
        move |record: &mut Vec<u8>| {
            let at = attribute(record, DATA, true) + offset;
            put(record, at, &value.to_le_bytes());
        }
    };
    assert_system_file(6, "has no contents", |record| {
        let at = data(record);
        record[at] = 0x90;
    });
    assert_system_file(6, "has no clusters", |record| {
        let at = data(record);
        put(record, at + 8, &[0]);
        put(record, at + 16, &[8, 0, 0, 0, 24, 0, 0, 0]);
    });
    assert_system_file(6, "is compressed, encrypted or sparse", |record| {
        let at = data(record);
        record[at + 13] = 0x80;
    });
    assert_system_file(6, "has holes", |record| {
        let at = run_list(record, DATA);
        put(record, at, &[0x01, 1, 0]);
    });
    assert_system_file(6, "has an impossible size", set(56, 513));
    assert_system_file(6, "has an impossible size", set(48, 4097));
    assert_system_file(6, "has more or fewer clusters than it says", set(40, 8192));
    assert_system_file(2, "has more clusters than the volume", |record| {
        let at = data(record);
        put(record, at + 24, &7999u64.to_le_bytes());
        // The same 4000 clusters twice.
        let at = run_list(record, DATA);
        put(record, at, &[0x12, 0xa0, 0x0f, 0, 0x12, 0xa0, 0x0f, 0]);
    });
    assert_system_file(0, "ends within a record", set(56, 20_000));
    assert_system_file(0, "has too few records", set(56, 15 * 1024));
    assert_system_file(1, "has too few records", set(56, 3 * 1024));
    let elsewhere = |record: &mut Vec<u8>| {
        let at = run_list(record, DATA);
        // The place of the first run is its last byte but the end.
        let place = at + 1 + usize::from(record[at] & 15);
        record[place] ^= 1;
    };
    let what = "does not begin where the boot sector says";
    assert_system_file(0, what, elsewhere);
    assert_system_file(1, what, elsewhere);
    assert_system_file(7, "does not begin with the volume", elsewhere);
}

#[test]
fn an_attribute_list_that_does_not_fit() {
    let original = fragmented_table();
    let boot = Boot::of(&original);
    used_bytes(&original);
    // ntfs-3g keeps the list of $MFT in clusters.
    let mut list = 0;
    edit_table(&original, 0, |record| {
        let at = run_list(record, 0x20);
        let (len, delta) = (usize::from(record[at] & 15), usize::from(record[at] >> 4));
        let mut wide = [0; 8];
        wide[..delta].copy_from_slice(&record[at + 1 + len..at + 1 + len + delta]);
        list = u64::from_le_bytes(wide) * boot.cluster_size;
    });
    let bytes = bytes_at(&original, list, 512);
    // The first piece of the contents that lies in another record.
    let mut entry = 0;
    while bytes[entry] != 0x80 || bytes[entry + 16] == 0 {
        entry += usize::from(bytes[entry + 4]);
    }
    let entry = list + entry as u64;
    let lost = "has an attribute list that does not agree with the records";
    for (offset, value, what) in [
        (4, &[0u8][..], "has a damaged attribute list"),
        (4, &[33], "has a damaged attribute list"),
        (8, &[0xff, 0xff], lost),
        (22, &[0x77], lost),
    ] {
        let volume = original.duplicate();
        volume.patch(entry + offset, value);
        assert_eq!(ntfs(&volume), NtfsReason::SystemFile { record: 0, what }, "{offset}");
    }
    let volume = original.duplicate();
    volume.patch(entry + 16, &[0xff, 0xff, 0xff]);
    assert_eq!(ntfs(&volume), NtfsReason::SystemFile { record: 0, what: "is too short" });
    // A piece that begins one cluster late, in the list and in its record.
    let volume = original.duplicate();
    let at = usize::try_from(entry - list).unwrap();
    let (vcn, number) = (u64_at(&bytes, at + 8), u64_at(&bytes, at + 16) & 0xffff_ffff);
    volume.patch(entry + 8, &(vcn + 1).to_le_bytes());
    edit_record(&volume, number, |record| {
        let at = attribute(record, DATA, true);
        put(record, at + 16, &(vcn + 1).to_le_bytes());
    });
    let what = "has pieces that do not fit together";
    assert_eq!(ntfs(&volume), NtfsReason::SystemFile { record: 0, what });
    for (offset, value, what) in [
        (48, 300_000u64, "has an attribute list that is too long"),
        (56, 32, "has an attribute list that is not written"),
    ] {
        let volume = original.duplicate();
        edit_record(&volume, 0, |record| {
            let at = attribute(record, 0x20, true);
            put(record, at + offset, &value.to_le_bytes());
        });
        assert_eq!(ntfs(&volume), NtfsReason::SystemFile { record: 0, what });
    }
    let volume = original.duplicate();
    volume.patch(entry, &[0x90]);
    let what = "has more or fewer clusters than it says";
    assert_eq!(ntfs(&volume), NtfsReason::SystemFile { record: 0, what });
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}
