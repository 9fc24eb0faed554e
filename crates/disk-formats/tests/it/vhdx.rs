//! VHDX as QEMU writes it, judged by QEMU and libvhdi; differencing ones by libvhdi alone, and
//! logs by what QEMU makes of a copy it repairs.

use std::fs;

use aiv_disk_formats::{Error, Format};
use aiv_volume_io::{Extent, ReadAt};

use crate::tools::{GIB, MIB, Scratch, TIB, check_same, noise, refusal};
use crate::vhdx_maker::{
    DATA_ID, Differencing, Write, log_entry, log_place, regions, reseal, set_data_id, set_log_id,
};

const VHDX: Format = Format::Vhdx;

#[test]
fn fixed_and_dynamic_disks_read_as_two_other_programs_read_them() {
    let scratch = Scratch::new();
    for (name, len, flags) in [
        ("fixed", 5 * MIB + 512, "subformat=fixed"),
        ("dynamic", 5 * MIB + 512, "subformat=dynamic"),
        ("small", 41 * MIB + 512, "subformat=dynamic,block_size=1M"),
        ("zero", 70 * MIB, "subformat=dynamic,block_size=2M,block_state_zero=off"),
    ] {
        scratch.raw("source.raw", len);
        let file = format!("{name}.vhdx");
        scratch.run(&format!("qemu-img convert -f raw -O vhdx -o {flags} source.raw {file}"));
        let disk = scratch.check(VHDX, &file);
        check_same(&disk, &scratch.libvhdi(&[&file]));
        assert_eq!(disk.len(), len);
        let holes: u64 = disk.holes(Extent::new(0, len)).unwrap().iter().map(|h| h.len).sum();
        assert_eq!(holes > MIB, ["small", "zero"].contains(&name), "{name}: {holes}");
    }
}

#[test]
fn a_disk_beyond_two_tib_has_its_data_at_both_ends_and_around_its_bitmap_blocks() {
    let scratch = Scratch::new();
    let len = 60 * TIB;
    scratch.run(&format!("qemu-img create -q -f vhdx -o block_size=1M large.vhdx {}", 3 * TIB));
    scratch.run(&format!("qemu-img create -q -f vhdx -o block_size=256M huge.vhdx {len}"));
    for (name, len) in [("large", 3 * TIB), ("huge", len)] {
        let file = format!("{name}.vhdx");
        // Every 4 GiB the table has an entry that is no block.
        let runs =
            [(1, 0, 512), (2, 4 * GIB - 512, 1024), (3, 2 * TIB + 512, 512), (4, len - 512, 512)];
        scratch.write("vhdx", &file, &runs);
        let disk = scratch.open(&file).unwrap();
        assert_eq!(disk.len(), len);
        for (byte, at, count) in runs {
            let mut out = vec![0; count as usize];
            disk.read_exact_at(&mut out, at).unwrap();
            assert!(out.iter().all(|found| *found == byte), "{name} at {at}");
        }
        let holes: u64 = disk.holes(Extent::new(0, len)).unwrap().iter().map(|h| h.len).sum();
        assert!(len - holes <= 5 * 256 * MIB, "{name}");
    }
}

fn sectors(seed: u64, list: impl IntoIterator<Item = u64>) -> Vec<(u64, Vec<u8>)> {
    list.into_iter().map(|sector| (sector, noise(seed + sector, 512))).collect()
}

/// A parent and a differencing disk, and what that has to read as in `child.raw`.
fn pair(scratch: &Scratch, own: &[u64]) -> u64 {
    let len = 9 * MIB + 512;
    scratch.raw("source.raw", len);
    scratch.run("qemu-img convert -f raw -O vhdx -o block_size=1M source.raw base.vhdx");
    set_data_id(&scratch.path("base.vhdx"), DATA_ID);
    let own = sectors(3, own.iter().copied());
    let child = Differencing { len, parent: "base.vhdx", block_size: MIB };
    child.make(scratch, "child.avhdx", &own, &[(3, 0xC3)]);
    fs::copy(scratch.path("source.raw"), scratch.path("child.raw")).unwrap();
    own.iter().for_each(|(sector, bytes)| scratch.patch("child.raw", sector * 512, bytes));
    scratch.patch("child.raw", 3 * MIB, &vec![0xC3; MIB as usize]);
    len
}

#[test]
fn differencing_disks_read_as_libvhdi_reads_them() {
    let scratch = Scratch::new();
    let own: Vec<u64> = (0..16).chain(2040..2056).chain([9 * MIB / 512]).collect();
    let len = pair(&scratch, &own);
    let disk = scratch.open_chain("child.avhdx").unwrap();
    assert_eq!((disk.len(), disk.files().len()), (len, 2));
    check_same(&disk, &scratch.libvhdi(&["child.avhdx", "base.vhdx"]));
    check_same(&disk, &scratch.path("child.raw"));
}

#[test]
fn single_sectors_hide_those_of_the_parent() {
    let scratch = Scratch::new();
    pair(&scratch, &[0, 2, 9, 15, 2047, 2048, 10_001, 9 * MIB / 512]);
    check_same(&scratch.open_chain("child.avhdx").unwrap(), &scratch.path("child.raw"));
}

#[test]
fn a_parent_is_only_read_when_allowed_and_only_when_it_is_the_right_one() {
    let scratch = Scratch::new();
    pair(&scratch, &[0]);
    let said = refusal(scratch.open("child.avhdx"));
    assert!(
        said.ends_with("needs the file './base.vhdx', which was not allowed to be read"),
        "{said}"
    );
    set_data_id(&scratch.path("base.vhdx"), [9; 16]);
    let said = refusal(scratch.open_chain("child.avhdx"));
    let id = "it has identity 09090909090909090909090909090909, expected 11111111111111111111111111111111";
    assert!(said.ends_with(id), "{said}");
}

/// A disk of which a log in `dirty.vhdx` still holds the table as it should be: the table in the
/// file is that of an empty disk.
fn dirty(scratch: &Scratch) {
    scratch.raw("source.raw", 9 * MIB);
    scratch.run("qemu-img convert -f raw -O vhdx -o block_size=1M source.raw clean.vhdx");
    fs::copy(scratch.path("clean.vhdx"), scratch.path("dirty.vhdx")).unwrap();
    let (table, _) = regions(&scratch.path("clean.vhdx"));
    let clean = fs::read(scratch.path("clean.vhdx")).unwrap();
    let good = clean[table as usize..][..4096].to_vec();
    scratch.patch("dirty.vhdx", table, &[0; 4096]);
    let id = [0xA5; 16];
    let (log, log_len) = log_place(&scratch.path("dirty.vhdx"));
    let file_len = clean.len() as u64;
    // Three entries, the last around the end of the log: rubbish, zeros over it, the truth.
    let first = log_len - 3 * 4096;
    let rubbish = log_entry(id, 40, first, file_len, &[Write::Data(table, vec![0xEE; 4096])]);
    let zeros = log_entry(id, 41, first, file_len, &[Write::Zero(table, 4096)]);
    let truth =
        log_entry(id, 42, first, file_len, &[Write::Zero(table, 4096), Write::Data(table, good)]);
    assert_eq!((rubbish.len(), zeros.len(), truth.len()), (8192, 4096, 8192));
    scratch.patch("dirty.vhdx", log + first, &rubbish);
    scratch.patch("dirty.vhdx", log + first + 8192, &zeros);
    scratch.patch("dirty.vhdx", log, &truth);
    // An older sequence that is whole as well, and one that has lost its end.
    let older = log_entry(id, 9, 64 << 10, file_len, &[Write::Data(table, vec![0xDD; 4096])]);
    scratch.patch("dirty.vhdx", log + (64 << 10), &older);
    let torn = log_entry(id, 99, 128 << 10, file_len, &[Write::Data(table, vec![0xDD; 4096])]);
    scratch.patch("dirty.vhdx", log + (128 << 10), &torn[..4096]);
    set_log_id(&scratch.path("dirty.vhdx"), id);
}

#[test]
fn a_log_is_replayed_in_memory_as_qemu_replays_it_into_the_file() {
    let scratch = Scratch::new();
    dirty(&scratch);
    let before = fs::read(scratch.path("dirty.vhdx")).unwrap();
    let disk = scratch.open("dirty.vhdx").unwrap();
    assert_eq!(disk.notes(), ["the image was not closed properly; its log was replayed in memory"]);
    check_same(&disk, &scratch.path("source.raw"));
    assert!(fs::read(scratch.path("dirty.vhdx")).unwrap() == before, "the source was written");
    scratch.run("cp dirty.vhdx repaired.vhdx");
    scratch.run("qemu-img check -q -r all -f vhdx repaired.vhdx");
    check_same(&disk, &scratch.convert("vhdx", "repaired.vhdx"));
}

#[test]
fn a_log_that_cannot_be_replayed_is_refused() {
    let scratch = Scratch::new();
    dirty(&scratch);
    let bytes = fs::read(scratch.path("dirty.vhdx")).unwrap();
    let (log, log_len) = log_place(&scratch.path("dirty.vhdx"));
    let last = log as usize;
    let check = |says: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut wrong = bytes.clone();
        change(&mut wrong);
        fs::write(scratch.path("wrong.vhdx"), wrong).unwrap();
        let said = refusal(scratch.open("wrong.vhdx"));
        assert!(said.contains(says), "{said}");
    };
    let seal = |bytes: &mut Vec<u8>| {
        crate::vhdx_maker::seal(&mut bytes[last..last + 8192]);
    };
    check("it should be replayed, and has no sound entry", &|bytes| {
        bytes[last..last + log_len as usize].fill(0);
    });
    check("is not of entry 42", &|bytes| {
        bytes[last + 64 + 24] = 41;
        seal(bytes);
    });
    check("is of no known kind", &|bytes| {
        bytes[last + 64] = b'x';
        seal(bytes);
    });
    check("the data of descriptor 1 is missing", &|bytes| {
        bytes[last + 4096] = b'x';
        seal(bytes);
    });
    check("zeros at", &|bytes| {
        bytes[last + 64 + 15] = 0x7F;
        seal(bytes);
    });
    check("the file had", &|bytes| {
        bytes[last + 48 + 7] = 1;
        seal(bytes);
    });
}

#[test]
fn each_wrong_field_is_refused_although_the_checksum_is_right() {
    let scratch = Scratch::new();
    scratch.raw("source.raw", 5 * MIB);
    scratch.run("qemu-img convert -f raw -O vhdx -o block_size=1M source.raw disk.vhdx");
    let (table, metadata) = regions(&scratch.path("disk.vhdx"));
    let wrong = |patches: &[(u64, &[u8])], says: &str| {
        let path = scratch.path("wrong.vhdx");
        fs::copy(scratch.path("disk.vhdx"), &path).unwrap();
        for (at, bytes) in patches {
            scratch.patch("wrong.vhdx", *at, bytes);
        }
        for at in [64u64 << 10, 128 << 10] {
            reseal(&path, at, 4096);
        }
        for at in [192u64 << 10, 256 << 10] {
            reseal(&path, at, 64 << 10);
        }
        let said = refusal(scratch.open("wrong.vhdx"));
        assert!(said.contains(says), "{patches:?}: {said}");
    };
    let both = |at: u64, bytes: &[u8], says: &str| {
        wrong(&[(at, bytes), (at + (64 << 10), bytes)], says);
    };
    both((64 << 10) + 66, &[2], "version 2 with a log of version 0");
    both((64 << 10) + 64, &[1], "version 1 with a log of version 1");
    both(64 << 10, b"x", "header at byte 65536: there is none");
    both(192 << 10, b"x", "region table at byte 196608: there is none");
    both((192 << 10) + 8, &[0xFF; 4], "4294967295 regions");
    both((192 << 10) + 8, &[1], "a region is missing");
    both((192 << 10) + 16, &[1; 32], "a region that is required and not known");
    both((192 << 10) + 32, &[0xFF; 8], "bytes at 18446744073709551615");
    both((192 << 10) + 39, &[1], "the file ends at");
    wrong(&[(metadata, b"x")], "metadata at byte");
    wrong(&[(metadata + 10, &[0xFF; 2])], "65535 items");
    wrong(&[(metadata + 10, &[0; 2])], "there is no block size");
    let mut entries = [0; 6 * 32];
    let file = fs::File::open(scratch.path("disk.vhdx")).unwrap();
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut entries, metadata + 32).unwrap();
    let item = |id: &str| {
        let id = crate::vhdx_maker::guid(id);
        let entry = entries.chunks(32).position(|entry| entry[..16] == id).unwrap();
        let at = u32::from_le_bytes(entries[entry * 32 + 16..][..4].try_into().unwrap());
        (metadata + 32 + 32 * entry as u64, metadata + u64::from(at))
    };
    let (parameters_entry, parameters) = item("CAA16737-FA36-4D43-B3B6-33F0AA44E76B");
    wrong(&[(parameters_entry + 16, &[1, 0, 0, 0])], "item of 8 bytes at 1");
    wrong(&[(parameters_entry + 20, &[0xFF; 4])], "item of 4294967295 bytes");
    wrong(&[(parameters_entry, &[1; 16])], "metadata that is required and not known");
    wrong(&[(parameters, &[1, 0, 0, 0])], "blocks of 1 bytes");
    wrong(&[(parameters, &[0, 0, 0, 0x80])], "blocks of 2147483648 bytes");
    wrong(&[(parameters + 4, &[2])], "it has a parent without a name");
    let (_, size) = item("2FA54224-CD1B-4876-B211-5DBED83BF4B8");
    wrong(&[(size, &[0xFF; 8])], "a disk of 18446744073709551615 bytes");
    wrong(&[(size + 5, &[0x40])], "a disk of");
    wrong(&[(size + 5, &[0x30])], "block allocation table at byte");
    let (_, sector) = item("8141BF1D-A96F-4709-BA47-F233A8FAAB5F");
    wrong(&[(sector, &[1, 0])], "sectors of 1 bytes");

    // What only a read can see.
    for (entry, says) in [
        ([6, 0, 0xF0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], "the file ends at"),
        ([6, 0, 0, 0, 0, 0, 0, 0], "1048576 bytes at 0"),
        ([4, 0, 0x10, 0, 0, 0, 0, 0], "state 4 of block 0 is not known"),
        ([7, 0, 0x10, 0, 0, 0, 0, 0], "state 7 of block 0 is not known"),
        ([0xE, 0, 0x10, 0, 0, 0, 0, 0], "reserved bits"),
    ] {
        fs::copy(scratch.path("disk.vhdx"), scratch.path("wrong.vhdx")).unwrap();
        scratch.patch("wrong.vhdx", table, &entry);
        let disk = scratch.open("wrong.vhdx").unwrap();
        let error = disk.read_exact_at(&mut [0; 512], 0).unwrap_err();
        let inner = error.get_ref().unwrap().downcast_ref::<Error>().unwrap();
        assert!(matches!(inner, Error::Corrupt { format: VHDX, .. }), "{inner}");
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[test]
fn of_two_headers_the_newer_sound_one_counts() {
    let scratch = Scratch::new();
    scratch.raw("source.raw", 5 * MIB);
    scratch.run("qemu-img convert -f raw -O vhdx source.raw disk.vhdx");
    for damaged in [64u64 << 10, 128 << 10, 192 << 10, 256 << 10] {
        fs::copy(scratch.path("disk.vhdx"), scratch.path("one.vhdx")).unwrap();
        scratch.patch("one.vhdx", damaged + 100, &[0xAA]);
        check_same(&scratch.open("one.vhdx").unwrap(), &scratch.path("source.raw"));
    }
    for pair in [64u64 << 10, 192 << 10] {
        fs::copy(scratch.path("disk.vhdx"), scratch.path("one.vhdx")).unwrap();
        scratch.patch("one.vhdx", pair + 100, &[0xAA]);
        scratch.patch("one.vhdx", pair + (64 << 10) + 100, &[0xAA]);
        assert!(refusal(scratch.open("one.vhdx")).contains("checksum 0x"));
    }
}
