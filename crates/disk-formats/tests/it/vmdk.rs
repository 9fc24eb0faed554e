//! VMDK as QEMU writes it.

use std::fs;

use aiv_disk_formats::{DiskImage, Follow, Format, OpenOptions};
use aiv_volume_io::{Extent, ReadAt};

use crate::tools::{GIB, MIB, Scratch, TIB, check_same, refusal};

const VMDK: Format = Format::Vmdk;

#[test]
fn every_kind_reads_as_qemu_reads_it() {
    let scratch = Scratch::new();
    let len = 5 * MIB + 3 * 512;
    scratch.raw("source.raw", len);
    for kind in [
        "monolithicSparse",
        "monolithicFlat",
        "twoGbMaxExtentSparse",
        "twoGbMaxExtentFlat",
        "streamOptimized",
    ] {
        let file = format!("{kind}.vmdk");
        scratch.run(&format!("qemu-img convert -O vmdk -o subformat={kind} source.raw {file}"));
        check_same(&scratch.check(VMDK, &file), &scratch.path("source.raw"));
        // Pieces that are called like the disk are part of it.
        let disk = scratch.open(&file).unwrap();
        let is_split = kind.ends_with("Flat") || kind.starts_with("twoGb");
        assert_eq!(disk.files().len(), 1 + usize::from(is_split), "{kind}");
        let holes: u64 = disk.holes(Extent::new(0, len)).unwrap().iter().map(|h| h.len).sum();
        assert_eq!(holes > MIB, !kind.ends_with("Flat"), "{kind}: {holes}");
    }
}

#[test]
fn a_disk_in_several_pieces_is_read_across_their_borders() {
    let scratch = Scratch::new();
    for kind in ["twoGbMaxExtentSparse", "twoGbMaxExtentFlat"] {
        let file = format!("{kind}.vmdk");
        scratch.run(&format!("qemu-img create -q -f vmdk -o subformat={kind} {file} 5G"));
        let runs = [
            (1, 0, 512),
            (2, 2 * GIB - MIB, 2 * MIB),
            (3, 4 * GIB - 100, 200),
            (4, 5 * GIB - 1, 1),
        ];
        scratch.write("vmdk", &file, &runs);
        let disk = scratch.open(&file).unwrap();
        assert_eq!((disk.len(), disk.files().len()), (5 * GIB, 4));
        if kind.ends_with("Sparse") {
            scratch.check(VMDK, &file);
        }
        for (byte, at, count) in runs {
            let mut out = vec![0; count as usize];
            disk.read_exact_at(&mut out, at).unwrap();
            assert!(out.iter().all(|found| *found == byte), "{kind} at {at}");
        }
    }
}

#[test]
fn a_sparse_disk_beyond_two_tib_has_its_data_at_both_ends() {
    let scratch = Scratch::new();
    scratch.run(&format!("qemu-img create -q -f vmdk large.vmdk {}", 3 * TIB));
    let runs = [(1, 0, 512), (2, 2 * TIB - 256, 512), (3, 3 * TIB - 512, 512)];
    scratch.write("vmdk", "large.vmdk", &runs);
    let disk = scratch.open("large.vmdk").unwrap();
    for (byte, at, count) in runs {
        let mut out = vec![0; count as usize];
        disk.read_exact_at(&mut out, at).unwrap();
        assert!(out.iter().all(|found| *found == byte), "at {at}");
    }
    let holes: u64 = disk.holes(Extent::new(0, disk.len())).unwrap().iter().map(|h| h.len).sum();
    assert_eq!(disk.len() - holes, 4 * 65536);
}

#[test]
fn chains_read_through_all_parents_and_zeroed_grains_hide_them() {
    let scratch = Scratch::new();
    scratch.raw("source.raw", 8 * MIB);
    scratch.run("qemu-img convert -O vmdk source.raw base.vmdk");
    scratch.run("qemu-img create -q -f vmdk -F vmdk -o zeroed_grain=on -b base.vmdk one.vmdk");
    scratch.io(
        "vmdk",
        "one.vmdk",
        &["write -P 1 70000 3000", "write -z 2M 128k", "write -z 64k 64k"],
    );
    scratch.run("qemu-img create -q -f vmdk -F vmdk -b one.vmdk two.vmdk");
    scratch.write("vmdk", "two.vmdk", &[(2, 71_000, 100), (2, 8 * MIB - 1, 1)]);
    let disk = scratch.check(VMDK, "two.vmdk");
    assert_eq!(disk.files().len(), 3);
    let said = refusal(scratch.open("two.vmdk"));
    assert!(
        said.ends_with("needs the file 'one.vmdk', which was not allowed to be read"),
        "{said}"
    );
    // A parent that changed since is another disk.
    scratch.write("vmdk", "base.vmdk", &[(9, 0, 1)]);
    let said = refusal(scratch.open_chain("two.vmdk"));
    assert!(said.contains("it is not the parent the image was made on"), "{said}");
}

#[test]
fn a_descriptor_cannot_reach_for_the_files_of_others() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path("vm")).unwrap();
    fs::write(scratch.path("secret.raw"), [7; 4096]).unwrap();
    fs::write(scratch.path("vm/other-flat.vmdk"), [8; 4096]).unwrap();
    std::os::unix::fs::symlink("../secret.raw", scratch.path("vm/disk-link.vmdk")).unwrap();
    std::os::unix::fs::symlink("other-flat.vmdk", scratch.path("vm/disk-inner.vmdk")).unwrap();
    scratch.run("mkfifo vm/disk-pipe.vmdk");
    let open = |name: &str, follow| {
        let text = format!(
            "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\n\
             createType=\"monolithicFlat\"\nRW 8 FLAT \"{name}\" 0\n"
        );
        fs::write(scratch.path("vm/disk.vmdk"), text).unwrap();
        DiskImage::open(&scratch.path("vm/disk.vmdk"), &OpenOptions { follow, format: None })
    };
    let secret = scratch.path("secret.raw");
    let secret = secret.to_str().unwrap();
    for name in
        ["other-flat.vmdk", "disk-link.vmdk", "../secret.raw", secret, "disk-../../secret.raw"]
    {
        let said = refusal(open(name, Follow::Pieces));
        assert!(said.contains("which was not allowed to be read"), "{name}: {said}");
    }
    for name in ["disk-link.vmdk", "../secret.raw", secret, "disk-pipe.vmdk", "../vm"] {
        let said = refusal(open(name, Follow::Folder));
        assert!(said.contains("which was not allowed to be read"), "{name}: {said}");
    }
    for name in ["other-flat.vmdk", "disk-inner.vmdk"] {
        assert_eq!(open(name, Follow::Folder).unwrap().len(), 4096);
    }
    for name in ["../secret.raw", secret, "disk-link.vmdk"] {
        let disk = open(name, Follow::Anywhere).unwrap();
        let mut out = [0; 4096];
        disk.read_exact_at(&mut out, 0).unwrap();
        assert_eq!(out, [7; 4096]);
    }
    for name in ["disk-pipe.vmdk", "/dev/null", "/dev/tty", "../vm"] {
        let said = refusal(open(name, Follow::Anywhere));
        assert!(said.contains("neither a regular file nor a block device"), "{name}: {said}");
    }
}

/// As VMware exports a disk: the directory is at the end, and so is the header that knows where.
fn with_footer(scratch: &Scratch, name: &str) {
    let mut bytes = fs::read(scratch.path(name)).unwrap();
    let footer = bytes[..512].to_vec();
    bytes[56..64].fill(0xFF);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    let mut marker = [0; 512];
    (marker[0], marker[12]) = (1, 3);
    bytes.extend(marker);
    bytes.extend(footer);
    bytes.extend([0; 512]);
    fs::write(scratch.path(name), bytes).unwrap();
}

#[test]
fn a_directory_at_the_end_is_found() {
    let scratch = Scratch::new();
    scratch.raw("source.raw", 5 * MIB);
    scratch.run("qemu-img convert -O vmdk -o subformat=streamOptimized source.raw disk.vmdk");
    with_footer(&scratch, "disk.vmdk");
    check_same(&scratch.check(VMDK, "disk.vmdk"), &scratch.path("source.raw"));
}

#[test]
fn each_wrong_field_is_refused() {
    let scratch = Scratch::new();
    scratch.raw("source.raw", 5 * MIB);
    scratch.run("qemu-img convert -O vmdk source.raw disk.vmdk");
    scratch.run("qemu-img convert -O vmdk -o subformat=streamOptimized source.raw stream.vmdk");
    with_footer(&scratch, "stream.vmdk");
    let check = |from: &str, at: u64, bytes: &[u8], says: &str| {
        fs::copy(scratch.path(from), scratch.path("wrong.vmdk")).unwrap();
        scratch.patch("wrong.vmdk", at, bytes);
        let said = refusal(scratch.open("wrong.vmdk"));
        assert!(said.contains(says), "byte {at}: {said}");
    };
    check("disk.vmdk", 4, &[4], "version 4 with flags");
    check("disk.vmdk", 9, &[1], "version 1 with flags");
    check("disk.vmdk", 73, b"\r\n\r\n", "its line ends were changed");
    check("disk.vmdk", 20, &[3], "grains of 3 sectors");
    check("disk.vmdk", 20, &[0, 0, 0, 0, 0, 0, 0, 0x80], "grains of 9223372036854775808 sectors");
    check("disk.vmdk", 44, &[0, 0, 0, 0], "0 entries in a grain table");
    check("disk.vmdk", 12, &[0xFF; 8], "18446744073709551615 sectors");
    check("disk.vmdk", 17, &[0x40], "directory of 1073741825 tables");
    check("disk.vmdk", 56, &[0, 0, 0, 0, 0, 0, 0x80, 0], "directory of 1 tables at sector");
    check("disk.vmdk", 36, &[0, 0, 0, 0, 0, 0, 1], "damaged vmdk image: descriptor");
    check("disk.vmdk", 0, b"COWD", "sparse extents of ESX (COWD) are not read");
    let end = fs::metadata(scratch.path("stream.vmdk")).unwrap().len() - 1024;
    check("stream.vmdk", end, b"X", "header at byte");
    check("stream.vmdk", end + 77, &[2], "compression 2 is not known");
    check("stream.vmdk", end + 56, &[0xFF; 8], "directory of 1 tables at sector");
}

#[test]
fn a_grain_that_is_not_what_its_table_says_is_an_error_and_never_zeros() {
    let scratch = Scratch::new();
    scratch.raw("source.raw", 2 * MIB);
    scratch.run("qemu-img convert -O vmdk -o subformat=streamOptimized source.raw disk.vmdk");
    let bytes = fs::read(scratch.path("disk.vmdk")).unwrap();
    // The first grain is that of sector 0 and lies behind the overhead the header speaks of.
    let overhead = u64::from_le_bytes(bytes[64..72].try_into().unwrap()) * 512;
    for (at, value, says) in [
        (overhead, 1, "it is that of sector 1, not 0"),
        (overhead + 11, 0x7F, "bytes, the file ends at"),
        (overhead + 12, 0, "bytes are no grain"),
    ] {
        fs::write(scratch.path("disk.vmdk"), &bytes).unwrap();
        scratch.patch("disk.vmdk", at, &[value]);
        let disk = scratch.open("disk.vmdk").unwrap();
        let error = disk.read_exact_at(&mut [0; 512], 0).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
        assert!(error.to_string().contains(says), "{error}");
    }
}
