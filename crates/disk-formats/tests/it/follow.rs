//! What is read besides the file that was asked for, and what a file is taken for.

use std::fs;

use aiv_disk_formats::{DiskImage, Error, Follow, Format, OpenOptions};
use aiv_volume_io::ReadAt;

use crate::tools::{MIB, Scratch, refusal};

/// A raw disk whose owner wrote the header of a qcow2 over its first sectors, which names a file
/// that is not his.
fn forged(scratch: &Scratch, name: &str) {
    fs::write(scratch.path("secret"), [0x53; 4096]).unwrap();
    scratch.run("qemu-img create -q -f qcow2 -u -F raw -b secret forged.qcow2 1M");
    let header = fs::read(scratch.path("forged.qcow2")).unwrap();
    scratch.raw(name, 4 * MIB);
    scratch.patch(name, 0, &header);
    fs::remove_file(scratch.path("forged.qcow2")).unwrap();
}

#[test]
fn a_raw_disk_that_looks_like_a_virtual_one_is_not_taken_for_it() {
    let scratch = Scratch::new();
    for name in ["disk.raw", "disk.img", "disk", "disk.vmdk", "disk.vhd"] {
        forged(&scratch, name);
        for follow in [Follow::Pieces, Follow::Folder, Follow::Anywhere] {
            let options = OpenOptions { follow, format: None };
            let error = DiskImage::open(&scratch.path(name), &options).unwrap_err();
            assert!(matches!(error, Error::Ambiguous { found: Format::Qcow2, .. }), "{error}");
        }
        let options = OpenOptions { format: Some(Format::Raw), follow: Follow::Anywhere };
        let disk = DiskImage::open(&scratch.path(name), &options).unwrap();
        assert_eq!((disk.format(), disk.len()), (Format::Raw, 4 * MIB));
        assert_eq!(disk.files(), [scratch.path(name)]);
        let mut head = [0; 4];
        disk.read_exact_at(&mut head, 0).unwrap();
        assert_eq!(head, *b"QFI\xFB");
    }
}

#[test]
fn a_raw_disk_below_an_overlay_is_not_taken_for_a_virtual_one_either() {
    let scratch = Scratch::new();
    forged(&scratch, "base.img");
    // The overlay says that its parent is raw: then it is.
    scratch.run("qemu-img create -q -f qcow2 -u -F raw -b base.img sure.qcow2 4M");
    let disk = scratch.open_chain("sure.qcow2").unwrap();
    assert_eq!(disk.files(), [scratch.path("sure.qcow2"), scratch.path("base.img")]);
    let mut head = [0; 4];
    disk.read_exact_at(&mut head, 0).unwrap();
    assert_eq!(head, *b"QFI\xFB");
    // One that does not say, as old programs wrote them: nobody can know.
    fs::copy(scratch.path("sure.qcow2"), scratch.path("unsure.qcow2")).unwrap();
    let bytes = fs::read(scratch.path("unsure.qcow2")).unwrap();
    let at = bytes.windows(4).position(|four| four == [0xE2, 0x79, 0x2A, 0xCA]).unwrap();
    scratch.patch("unsure.qcow2", at as u64, &[0x11]);
    let said = refusal(scratch.open_chain("unsure.qcow2"));
    assert!(
        said.ends_with(
            "looks like qcow2 by its content, but not by its name: say which of both it is"
        ),
        "{said}"
    );
}

#[test]
fn a_flat_piece_of_a_vmdk_is_raw_whatever_its_owner_writes_into_it() {
    let scratch = Scratch::new();
    scratch.run("qemu-img create -q -f vmdk other.vmdk 1M");
    scratch.run("qemu-img create -q -f vmdk -F vmdk -b other.vmdk forged.vmdk");
    let header = fs::read(scratch.path("forged.vmdk")).unwrap();
    for name in ["disk-flat.vmdk", "disk-f001.vmdk", "disk-FLAT.VMDK"] {
        scratch.raw(name, 4 * MIB);
        let disk = scratch.open_chain(name).unwrap();
        assert_eq!((disk.format(), disk.len()), (Format::Raw, 4 * MIB));
        scratch.patch(name, 0, &header[..header.len().min(MIB as usize)]);
        let options = OpenOptions { follow: Follow::Anywhere, format: None };
        let error = DiskImage::open(&scratch.path(name), &options).unwrap_err();
        assert!(matches!(error, Error::Ambiguous { found: Format::Vmdk, .. }), "{name}: {error}");
    }
    for name in ["disk-s001.vmdk", "disk-fast.vmdk", "flat.vmdk", "disk-f.vmdk"] {
        fs::write(scratch.path(name), &header).unwrap();
        assert_eq!(scratch.open_chain(name).unwrap().format(), Format::Vmdk, "{name}");
    }
}

#[test]
fn a_name_without_the_content_for_it_is_a_question_as_well() {
    let scratch = Scratch::new();
    scratch.raw("disk.qcow2", MIB);
    let said = refusal(scratch.open("disk.qcow2"));
    assert!(said.contains("looks like raw by its content"), "{said}");
    fs::write(scratch.path("disk.raw"), b"").unwrap();
    assert_eq!(scratch.open("disk.raw").unwrap().len(), 0);
}

#[test]
fn names_in_an_image_lead_only_where_the_caller_allows() {
    let scratch = Scratch::new();
    for folder in ["vm", "vm/sub", "other"] {
        fs::create_dir(scratch.path(folder)).unwrap();
    }
    let outside = scratch.path("other/base.raw");
    fs::write(&outside, [1; 4096]).unwrap();
    fs::write(scratch.path("vm/base.raw"), [2; 4096]).unwrap();
    fs::write(scratch.path("vm/sub/base.raw"), [3; 4096]).unwrap();
    std::os::unix::fs::symlink("../other/base.raw", scratch.path("vm/out.raw")).unwrap();
    std::os::unix::fs::symlink("base.raw", scratch.path("vm/in.raw")).unwrap();
    std::os::unix::fs::symlink("../other", scratch.path("vm/dir")).unwrap();
    scratch.run("mkfifo vm/pipe.raw");
    let open = |name: &str, follow| {
        let created = ["qemu-img", "create", "-q", "-f", "qcow2", "-u", "-F", "raw", "-b", name];
        let output = scratch.try_words(&[&created[..], &["vm/disk.qcow2", "4096"]].concat());
        assert!(output.status.success(), "{output:?}");
        DiskImage::open(&scratch.path("vm/disk.qcow2"), &OpenOptions { follow, format: None })
    };
    let byte = |disk: DiskImage| {
        let mut out = [0; 4096];
        disk.read_exact_at(&mut out, 0).unwrap();
        out[4095]
    };
    let absolute_inside = scratch.path("vm/base.raw");
    let inside = [
        ("base.raw", 2),
        ("sub/base.raw", 3),
        ("in.raw", 2),
        ("sub/../base.raw", 2),
        (absolute_inside.to_str().unwrap(), 2),
    ];
    let out = ["../other/base.raw", "out.raw", "dir/base.raw", outside.to_str().unwrap()];
    for (name, value) in inside {
        assert_eq!(byte(open(name, Follow::Folder).unwrap()), value, "{name}");
        assert_eq!(byte(open(name, Follow::Anywhere).unwrap()), value, "{name}");
        let error = open(name, Follow::Pieces).unwrap_err();
        assert!(refusal(Err(error)).contains("was not allowed to be read"), "{name}");
    }
    for name in out {
        for follow in [Follow::Pieces, Follow::Folder] {
            let said = refusal(open(name, follow));
            assert!(said.contains("was not allowed to be read"), "{name}: {said}");
        }
        assert_eq!(byte(open(name, Follow::Anywhere).unwrap()), 1, "{name}");
    }
    // Not even looked at, or they would wait for ever.
    for name in ["pipe.raw", "/dev/null", "sub"] {
        let said = refusal(open(name, Follow::Folder));
        assert!(said.contains("was not allowed to be read"), "{name}: {said}");
        let said = refusal(open(name, Follow::Anywhere));
        assert!(said.contains("neither a regular file nor a block device"), "{name}: {said}");
    }
    let said = refusal(open("gone.raw", Follow::Folder));
    assert!(said.ends_with("needs the file 'gone.raw', which does not exist"), "{said}");
}

#[test]
fn an_image_that_is_no_file_names_none() {
    let scratch = Scratch::new();
    fs::write(scratch.path("secret"), [0x53; 4096]).unwrap();
    scratch.run("qemu-img create -q -f qcow2 -u -F raw -b secret disk.qcow2 1M");
    let bytes = fs::read(scratch.path("disk.qcow2")).unwrap();
    let bytes = std::sync::Arc::new(aiv_volume_io::MemDisk::from_bytes(bytes));
    let said = refusal(DiskImage::of_bytes(bytes, Format::Qcow2));
    assert!(said.ends_with("needs the file 'secret', which was not allowed to be read"), "{said}");
}
