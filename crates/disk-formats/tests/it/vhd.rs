//! VHD as QEMU writes it, judged by QEMU and by libvhdi; differencing ones by libvhdi alone,
//! because QEMU reads them as if they had no parent.

use std::fs;

use aiv_disk_formats::{DiskImage, Follow, Format, OpenOptions};
use aiv_volume_io::{Extent, ReadAt};

use crate::tools::{MIB, Scratch, TIB, check_same, noise, refusal};
use crate::vhd_maker::{Differencing, footer_id, reseal};

const VHD: Format = Format::Vhd;

#[test]
fn fixed_and_dynamic_disks_read_as_two_other_programs_read_them() {
    let scratch = Scratch::new();
    for (name, len, flags) in [
        ("fixed", 5 * MIB + 512, "subformat=fixed,force_size=on"),
        ("dynamic", 5 * MIB + 512, "subformat=dynamic,force_size=on"),
        ("rounded", 5 * MIB + 512, "subformat=dynamic"),
        ("large", 70 * MIB + 512, "subformat=dynamic,force_size=on"),
    ] {
        scratch.raw("source.raw", len);
        let file = format!("{name}.vhd");
        scratch.run(&format!("qemu-img convert -f raw -O vpc -o {flags} source.raw {file}"));
        let disk = scratch.check(VHD, &file);
        check_same(&disk, &scratch.libvhdi(&[&file]));
        let raw_len = fs::metadata(scratch.path("source.raw")).unwrap().len();
        assert!(disk.len() == raw_len || name == "rounded", "{name}: {}", disk.len());
        let holes: u64 = disk.holes(Extent::new(0, len)).unwrap().iter().map(|h| h.len).sum();
        assert_eq!(holes > 0, name == "large", "{name}: {holes} bytes of holes");
    }
}

#[test]
fn the_largest_vhd_has_its_data_at_both_ends() {
    let scratch = Scratch::new();
    let len = 2040 << 30;
    scratch.run(&format!("qemu-img create -q -f vpc -o force_size=on large.vhd {len}"));
    let runs = [(1, 0, 512), (2, TIB + 512, 4096), (3, len - 512, 512)];
    scratch.write("vpc", "large.vhd", &runs);
    let disk = scratch.open("large.vhd").unwrap();
    assert_eq!(disk.len(), len);
    for (byte, at, count) in runs {
        let mut out = vec![0; count as usize];
        disk.read_exact_at(&mut out, at).unwrap();
        assert!(out.iter().all(|found| *found == byte), "at {at}");
    }
    let holes: u64 = disk.holes(Extent::new(0, len)).unwrap().iter().map(|h| h.len).sum();
    assert_eq!(len - holes, 6 * MIB);
}

/// Sectors with content of their own.
fn sectors(seed: u64, list: impl IntoIterator<Item = u64>) -> Vec<(u64, Vec<u8>)> {
    list.into_iter().map(|sector| (sector, noise(seed + sector, 512))).collect()
}

/// A parent with content and two generations on top. What they have to read as lies beside them,
/// as `child.raw` and `grand.raw`.
fn chain(scratch: &Scratch, child: &[u64], grand: &[u64]) -> u64 {
    let len = 9 * MIB + 512;
    scratch.raw("source.raw", len);
    scratch.run("qemu-img convert -f raw -O vpc -o force_size=on source.raw base.vhd");
    let mut below = ("base.vhd", "source.raw");
    for (seed, (name, raw), list) in
        [(100, ("child.vhd", "child.raw"), child), (900, ("grand.avhd", "grand.raw"), grand)]
    {
        let own = sectors(seed, list.iter().copied());
        Differencing { len, parent: below.0, block_size: 2 << 20 }.make(scratch, name, &own);
        fs::copy(scratch.path(below.1), scratch.path(raw)).unwrap();
        own.iter().for_each(|(sector, bytes)| scratch.patch(raw, sector * 512, bytes));
        below = (name, raw);
    }
    len
}

#[test]
fn differencing_disks_read_as_libvhdi_reads_them() {
    let scratch = Scratch::new();
    // libvhdi takes all sectors behind one of the image's own, up to a multiple of eight, for
    // the image's own as well. Windows writes multiples of eight.
    let child: Vec<u64> = (5..16).chain(4095..4104).chain([9 * MIB / 512]).collect();
    let grand: Vec<u64> = (15..24).chain(4100..4104).chain(12_001..12_008).collect();
    let len = chain(&scratch, &child, &grand);
    let child = scratch.open_chain("child.vhd").unwrap();
    check_same(&child, &scratch.libvhdi(&["child.vhd", "base.vhd"]));
    let grand = scratch.open_chain("grand.avhd").unwrap();
    assert_eq!((grand.len(), grand.files().len()), (len, 3));
    check_same(&grand, &scratch.libvhdi(&["grand.avhd", "child.vhd", "base.vhd"]));
}

#[test]
fn single_sectors_hide_those_of_the_parent() {
    let scratch = Scratch::new();
    let last = 9 * MIB / 512;
    chain(&scratch, &[0, 1, 2, 9, 4095, 4096, last], &[1, 8, 10, 4097, 12_000, last]);
    check_same(&scratch.open_chain("child.vhd").unwrap(), &scratch.path("child.raw"));
    check_same(&scratch.open_chain("grand.avhd").unwrap(), &scratch.path("grand.raw"));
}

#[test]
fn a_parent_is_only_read_when_allowed_and_only_when_it_is_the_right_one() {
    let scratch = Scratch::new();
    chain(&scratch, &[0], &[1]);
    let said = refusal(scratch.open("child.vhd"));
    assert!(
        said.ends_with("needs the file './base.vhd', which was not allowed to be read"),
        "{said}"
    );
    scratch.run("qemu-img create -q -f vpc -o force_size=on other.vhd 9437696");
    fs::rename(scratch.path("other.vhd"), scratch.path("base.vhd")).unwrap();
    let said = refusal(scratch.open_chain("child.vhd"));
    assert!(said.contains("it is not the parent the image was made on"), "{said}");
    fs::remove_file(scratch.path("base.vhd")).unwrap();
    let said = refusal(scratch.open_chain("child.vhd"));
    assert!(said.ends_with("needs the file './base.vhd', which does not exist"), "{said}");
}

#[test]
fn a_lost_footer_is_replaced_by_its_copy_and_a_wrong_one_is_refused() {
    let scratch = Scratch::new();
    scratch.raw("source.raw", 5 * MIB);
    scratch.run("qemu-img convert -f raw -O vpc -o force_size=on source.raw disk.vhd");
    let opinion = scratch.convert("vpc", "disk.vhd");
    let end = fs::metadata(scratch.path("disk.vhd")).unwrap().len() - 512;
    scratch.patch("disk.vhd", end + 100, &[0xAA]);
    let disk = scratch.open("disk.vhd").unwrap();
    check_same(&disk, &opinion);
    assert_eq!(disk.notes(), ["the footer at the end is damaged or missing; its copy is used"]);
    scratch.patch("disk.vhd", 100, &[0xAA]);
    let said = refusal(scratch.open("disk.vhd"));
    assert!(said.contains("damaged vhd image: footer at byte"), "{said}");
    assert!(said.contains("checksum 0x"), "{said}");
}

#[test]
fn each_wrong_field_is_refused_although_the_checksum_is_right() {
    let scratch = Scratch::new();
    scratch.raw("source.raw", 5 * MIB);
    scratch.run("qemu-img convert -f raw -O vpc -o force_size=on source.raw disk.vhd");
    let end = fs::metadata(scratch.path("disk.vhd")).unwrap().len() - 512;
    let check = |at: u64, bytes: &[u8], says: &str| {
        fs::copy(scratch.path("disk.vhd"), scratch.path("wrong.vhd")).unwrap();
        scratch.patch("wrong.vhd", at, bytes);
        if at >= 512 {
            let (start, len, sum) = if at >= end { (end, 512, 64) } else { (512, 1024, 36) };
            reseal(&scratch.path("wrong.vhd"), start, len, sum);
        }
        let said = refusal(scratch.open("wrong.vhd"));
        assert!(said.contains(says), "byte {at}: {said}");
    };
    // The copy at the front must not step in.
    scratch.patch("disk.vhd", 0, b"X");
    check(end + 12, &[0, 2], "version 2.0");
    check(end + 60, &[0, 0, 0, 9], "disk type 9");
    check(end + 48, &[0xFF], "a disk of");
    check(end + 55, &[1], "a disk of 5242881 bytes");
    let fixed = [0, 0, 0, 0, 0, 0x70, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
    check(end + 48, &fixed, "a fixed disk of 7340032 bytes in a file");
    check(end + 16, &[0xFF; 8], "the header is at 18446744073709551615");
    check(end + 16, &[0, 0, 0, 0, 0, 0, 0, 8], "there is none");
    check(512 + 24, &[0, 2], "version 0x20000 of the header");
    check(512 + 32, &[0, 0, 0, 3], "blocks of 3 bytes");
    check(512 + 32, &[0xFF; 4], "blocks of 4294967295 bytes");
    check(512 + 28, &[0, 0, 0, 1], "table of 1 blocks");
    check(512 + 16, &[0xFF; 8], "at 18446744073709551615, the disk has");
    assert_ne!(footer_id(&scratch.path("disk.vhd")), [0; 16]);
}

#[test]
fn a_block_past_the_end_is_an_error_and_never_zeros() {
    let scratch = Scratch::new();
    scratch.raw("source.raw", 5 * MIB);
    scratch.run("qemu-img convert -f raw -O vpc -o force_size=on source.raw disk.vhd");
    scratch.patch("disk.vhd", 1536, &[0, 0xFF, 0xFF, 0xFF]);
    let disk = scratch.open("disk.vhd").unwrap();
    let error = disk.read_exact_at(&mut [0; 512], 512).unwrap_err();
    assert!(error.to_string().contains("block allocation table at byte 1536: block 0"), "{error}");
    disk.read_exact_at(&mut [0; 512], 2 * MIB).unwrap();
}

#[test]
fn a_raw_disk_with_a_footer_at_its_end_stays_one() {
    let scratch = Scratch::new();
    scratch.raw("source.raw", 4 * MIB);
    scratch
        .run("qemu-img convert -f raw -O vpc -o subformat=fixed,force_size=on source.raw disk.img");
    let said = refusal(scratch.open("disk.img"));
    assert!(said.contains("looks like vhd by its content, but not by its name"), "{said}");
    let open = |format| {
        let options = OpenOptions { format: Some(format), follow: Follow::Pieces };
        DiskImage::open(&scratch.path("disk.img"), &options).unwrap().len()
    };
    assert_eq!((open(VHD), open(Format::Raw)), (4 * MIB, 4 * MIB + 512));
}
