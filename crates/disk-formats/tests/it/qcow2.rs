//! qcow2 as QEMU writes it.

use aiv_disk_formats::{DiskImage, Follow, Format, OpenOptions};
use aiv_volume_io::{Extent, ReadAt};

use crate::tools::{KIB, MIB, Scratch, TIB, chain, refusal};

const QCOW2: Format = Format::Qcow2;

#[test]
fn every_cluster_size_reads_as_qemu_reads_it() {
    let scratch = Scratch::new();
    for bits in 9..=21 {
        // Sizes that are no multiple of the cluster.
        let len = 5 * MIB + 3 * 512;
        scratch.raw("source.raw", len);
        let options = format!("cluster_size={}", 1 << bits);
        scratch
            .run(&format!("qemu-img convert -O qcow2 -o {options} source.raw disk-{bits}.qcow2"));
        let disk = scratch.check(QCOW2, &format!("disk-{bits}.qcow2"));
        let holes: u64 = disk.holes(Extent::new(0, len)).unwrap().iter().map(|h| h.len).sum();
        assert!(bits > 20 || holes > MIB, "{holes} bytes of holes with clusters of 2^{bits}");
    }
}

#[test]
fn versions_compressions_and_subclusters_read_as_qemu_reads_them() {
    let scratch = Scratch::new();
    scratch.raw("source.raw", 9 * MIB + 512);
    for (name, flags) in [
        ("v2", "-o compat=0.10"),
        ("v2z", "-c -o compat=0.10,cluster_size=512"),
        ("zlib", "-c"),
        ("zlib-2m", "-c -o cluster_size=2M"),
        ("zlib-4k", "-c -o cluster_size=4k"),
        ("zstd", "-c -o compression_type=zstd"),
        ("zstd-2m", "-c -o compression_type=zstd,cluster_size=2M"),
        ("ext", "-o extended_l2=on,cluster_size=16k"),
        ("ext-z", "-c -o extended_l2=on,cluster_size=128k,compression_type=zstd"),
        ("pre", "-o preallocation=metadata"),
        ("full", "-o preallocation=full"),
        ("sparse", "-S 0"),
    ] {
        scratch.run(&format!("qemu-img convert -O qcow2 {flags} source.raw {name}.qcow2"));
        let disk = scratch.check(QCOW2, &format!("{name}.qcow2"));
        assert_eq!(disk.files(), [scratch.path(&format!("{name}.qcow2"))]);
        assert!(disk.notes().is_empty(), "{:?}", disk.notes());
    }
}

#[test]
fn zero_clusters_hide_the_backing_file_and_discarded_ones_do_too() {
    let scratch = Scratch::new();
    scratch.raw("base.raw", 8 * MIB);
    for (name, options) in [
        ("plain", "cluster_size=64k"),
        ("small", "cluster_size=512"),
        ("sub", "extended_l2=on,cluster_size=64k"),
    ] {
        let file = format!("{name}.qcow2");
        scratch
            .run(&format!("qemu-img create -f qcow2 -o {options} -F raw -b base.raw {file} 10M"));
        scratch.io(
            "qcow2",
            &file,
            &[
                "write -P 7 100 3000",
                "write -z 64k 128k",
                "write -z 70k 2k",
                "write -P 9 4195000 70000",
                "write -z -u 4M 64k",
                "write -P 3 8388000 2000",
                "discard 2M 64k",
                "write -P 8 9M 1000",
            ],
        );
        let disk = scratch.check(QCOW2, &file);
        assert_eq!(disk.files(), [scratch.path(&file), scratch.path("base.raw")]);
    }
}

#[test]
fn chains_of_overlays_read_through_all_of_them() {
    let scratch = Scratch::new();
    scratch.raw("base.raw", 3 * MIB + 512);
    // Larger, smaller and larger again than what they lie on.
    scratch.run("qemu-img create -q -f qcow2 -F raw -b base.raw one.qcow2 6M");
    scratch.write("qcow2", "one.qcow2", &[(1, MIB, 100_000), (1, 5 * MIB, 300)]);
    scratch.run("qemu-img create -q -f qcow2 -F qcow2 -b one.qcow2 two.qcow2 2M");
    scratch.write("qcow2", "two.qcow2", &[(2, MIB + 512, 512), (2, 2 * MIB - 100, 100)]);
    scratch.run("qemu-img create -q -f qcow2 -F qcow2 -b ./two.qcow2 three.qcow2 7M");
    scratch.write("qcow2", "three.qcow2", &[(3, 0, 1), (3, 7 * MIB - 1, 1)]);
    let disk = scratch.check(QCOW2, "three.qcow2");
    assert_eq!(disk.files().len(), 4);
    // What lies beyond an overlay in the middle that is shorter is no longer there.
    let end = disk.holes(Extent::new(0, 7 * MIB)).unwrap().into_iter().find(|h| h.len > 4 * MIB);
    assert!(end.is_some_and(|hole| hole.start == 2 * MIB), "{end:?}");
    // As deep as allowed, and one deeper.
    for depth in 4..=64 {
        let below = if depth == 4 { "three".into() } else { format!("at{}", depth - 1) };
        let line = format!("qemu-img create -q -f qcow2 -u -F qcow2 -b {below}.qcow2");
        scratch.run(&format!("{line} at{depth}.qcow2 7M"));
    }
    scratch.check(QCOW2, "at63.qcow2");
    let said = refusal(scratch.open_chain("at64.qcow2"));
    assert_eq!(said, "the image is built of more than 64 files");
}

/// Numbers that are the same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }

    /// A change to a disk of `len` bytes with clusters of `cluster`.
    fn command(&mut self, len: u64, cluster: u64) -> String {
        let at = self.roll(len - 1);
        let most = [700, 5_000, 70_000, 300_000][self.roll(4) as usize];
        let count = 1 + self.roll(most.min(len - at));
        let byte = 1 + self.roll(255);
        match self.roll(8) {
            0 => format!("write -z {at} {count}"),
            1 => format!("write -z -u {at} {count}"),
            2 => format!("discard {at} {count}"),
            3 => {
                let at = at / cluster * cluster;
                format!("write -c -P {byte} {at} {}", cluster.min(len - at))
            }
            _ => format!("write -P {byte} {at} {count}"),
        }
    }
}

#[test]
fn what_a_random_history_leaves_behind_reads_as_qemu_reads_it() {
    for seed in 1..=10u64 {
        let scratch = Scratch::new();
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let len = 3 * MIB + 512 * dice.roll(2000);
        scratch.raw("base.raw", len);
        let (mut below, mut format) = ("base.raw".to_owned(), "raw");
        for layer in 0..3 {
            let bits = 9 + dice.roll(9);
            let cluster = 1 << bits;
            let kind = ["compat=0.10", "compat=1.1", "compression_type=zstd", "extended_l2=on"];
            let kind = kind[dice.roll(if bits >= 14 { 4 } else { 3 }) as usize];
            let options = format!("cluster_size={cluster},{kind}");
            let (name, len) = (format!("{layer}.qcow2"), len + 512 * dice.roll(3000));
            let create = "qemu-img create -q -f qcow2";
            scratch.run(&format!("{create} -o {options} -F {format} -b {below} {name} {len}"));
            let commands: Vec<String> = (0..25).map(|_| dice.command(len, cluster)).collect();
            let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
            // Not every cluster can be compressed once it is there.
            scratch.try_io("qcow2", &name, &commands);
            (below, format) = (name, "qcow2");
        }
        let disk = scratch.check(QCOW2, &below);
        assert_eq!(disk.files().len(), 4, "seed {seed}");
    }
}

#[test]
fn an_image_that_builds_on_itself_is_refused() {
    let scratch = Scratch::new();
    for (name, on) in [("a", "b"), ("b", "c"), ("c", "a"), ("made", "self")] {
        scratch
            .run(&format!("qemu-img create -q -f qcow2 -u -F qcow2 -b {on}.qcow2 {name}.qcow2 1M"));
    }
    std::fs::rename(scratch.path("made.qcow2"), scratch.path("self.qcow2")).unwrap();
    let cycle = "the chain of parents comes back to this file";
    assert!(refusal(scratch.open_chain("a.qcow2")).ends_with(cycle));
    assert!(refusal(scratch.open_chain("self.qcow2")).ends_with(cycle));
    // Under another name it is the same file still.
    std::fs::hard_link(scratch.path("self.qcow2"), scratch.path("twin.qcow2")).unwrap();
    let said = refusal(scratch.open_chain("twin.qcow2"));
    assert!(said.ends_with(cycle), "{said}");
}

#[test]
fn disks_beyond_two_tib_with_data_at_both_ends() {
    let scratch = Scratch::new();
    for (name, len, options) in [
        ("large", 5 * TIB + 4096, "cluster_size=64k"),
        ("huge", 60 * TIB, "cluster_size=2M"),
        ("sub", 3 * TIB, "extended_l2=on,cluster_size=128k"),
    ] {
        let file = format!("{name}.qcow2");
        scratch.run(&format!("qemu-img create -q -f qcow2 -o {options} {file} {len}"));
        let runs = [(1, 0, 4096), (2, 2 * TIB - 256, 512), (3, len - 4096, 4096)];
        scratch.write("qcow2", &file, &runs);
        let disk = scratch.open(&file).unwrap();
        assert_eq!(disk.len(), len);
        for (byte, at, count) in runs {
            let mut out = vec![0; count as usize + 512];
            let start = at.saturating_sub(256).min(len - out.len() as u64);
            disk.read_exact_at(&mut out, start).unwrap();
            let found = out.iter().filter(|found| **found == byte).count();
            assert_eq!(found as u64, count, "{name} at {at}");
        }
        let holes: u64 = disk.holes(Extent::new(0, len)).unwrap().iter().map(|h| h.len).sum();
        assert!(len - holes <= 8 * MIB, "{name}: {holes} of {len}");
    }
}

#[test]
fn internal_snapshots_are_not_in_the_way_and_are_noted() {
    let scratch = Scratch::new();
    scratch.run("qemu-img create -q -f qcow2 disk.qcow2 4M");
    scratch.write("qcow2", "disk.qcow2", &[(1, 0, MIB)]);
    scratch.run("qemu-img snapshot -c before disk.qcow2");
    scratch.write("qcow2", "disk.qcow2", &[(2, 4096, 100_000)]);
    let disk = scratch.check(QCOW2, "disk.qcow2");
    let note = "1 internal snapshots are not part of the disk and not in the backup";
    assert_eq!(disk.notes(), [note]);
}

#[test]
fn data_in_an_external_file_is_read_when_that_is_allowed() {
    let scratch = Scratch::new();
    for (name, raw) in [("own", "off"), ("plain", "on")] {
        let options = format!("data_file={name}.data,data_file_raw={raw}");
        scratch.run(&format!("qemu-img create -q -f qcow2 -o {options} {name}.qcow2 4M"));
        scratch.write("qcow2", &format!("{name}.qcow2"), &[(1, 0, 70_000), (2, 3 * MIB, 512)]);
        let disk = scratch.check(QCOW2, &format!("{name}.qcow2"));
        assert_eq!(disk.files().len(), 2);
        let said = refusal(scratch.open(&format!("{name}.qcow2")));
        assert!(said.contains(&format!("{name}.data', which was not allowed")), "{said}");
    }
}

#[test]
fn what_cannot_be_read_right_is_refused_with_the_reason() {
    let scratch = Scratch::new();
    scratch.run("qemu-img create -q -f qcow2 disk.qcow2 4M");
    scratch.write("qcow2", "disk.qcow2", &[(1, 0, MIB)]);
    let check = |offset: u64, bytes: &[u8], says: &str| {
        std::fs::copy(scratch.path("disk.qcow2"), scratch.path("wrong.qcow2")).unwrap();
        scratch.patch("wrong.qcow2", offset, bytes);
        let said = refusal(scratch.open("wrong.qcow2"));
        assert!(said.contains(says), "byte {offset}: {said}");
    };
    check(7, &[1], "version 1 is not known");
    check(7, &[4], "version 4 is not known");
    check(23, &[8], "clusters of 2^8 bytes");
    check(23, &[22], "clusters of 2^22 bytes");
    check(35, &[1], "it is encrypted");
    check(79, &[2], "marked as corrupt");
    check(79, &[0x20], "incompatible features that are not known: 0x20");
    check(72, &[0x80], "not known: 0x8000000000000000");
    check(79, &[4], "its data lies in another file");
    // A v3 image of 512-byte clusters has no room for subclusters.
    scratch.run("qemu-img create -q -f qcow2 -o cluster_size=512 disk.qcow2 1M");
    check(79, &[16], "subclusters in clusters of 2^9 bytes");
    check(36, &[0, 0, 0, 1], "L1 table of 1 entries, the disk needs 32");
    check(36, &[0x7f, 0xff, 0xff, 0xff], "L1 table of 2147483647 entries");
    check(40, &[0xff; 8], "L1 table of 256 bytes at 0xffffffffffffffff");
    check(24, &[0x7f], "L1 table of 32 entries");
    check(100, &[0, 0, 0, 96], "header of 96 bytes");
    check(100, &[0x7f, 0, 0, 0], "header of 2130706432 bytes");
    check(0, b"X", "by its content, but not by its name");
}

#[test]
fn an_unclean_image_is_read_and_noted() {
    let scratch = Scratch::new();
    scratch.run("qemu-img create -q -f qcow2 -o lazy_refcounts=on disk.qcow2 4M");
    scratch.write("qcow2", "disk.qcow2", &[(1, 0, MIB)]);
    scratch.patch("disk.qcow2", 79, &[1]);
    let disk = scratch.check(QCOW2, "disk.qcow2");
    assert!(disk.notes()[0].starts_with("the image was not closed properly"));
}

#[test]
fn an_encrypted_image_is_refused() {
    let scratch = Scratch::new();
    scratch.run(
        "qemu-img create -q -f qcow2 --object secret,id=s,data=x \
         -o encrypt.format=aes,encrypt.key-secret=s disk.qcow2 4M",
    );
    let said = refusal(scratch.open("disk.qcow2"));
    assert!(said.contains("qcow2 image: it is encrypted"), "{said}");
}

#[test]
fn a_parent_that_is_no_file_is_never_opened() {
    let scratch = Scratch::new();
    for name in ["nbd://127.0.0.1:1/x", "json:{\"driver\":\"null-co\"}", "fat:rw:folder"] {
        let created = scratch.try_words(&[
            "qemu-img", "create", "-q", "-f", "qcow2", "-u", "-F", "raw", "-b", name, "x.qcow2",
            "1M",
        ]);
        assert!(created.status.success(), "{created:?}");
        let options = OpenOptions { follow: Follow::Anywhere, format: None };
        let said = chain(&DiskImage::open(&scratch.path("x.qcow2"), &options).unwrap_err());
        assert!(said.ends_with("which is not a file"), "{said}");
    }
}

#[test]
fn a_cluster_that_lies_nowhere_is_an_error_and_never_zeros() {
    let scratch = Scratch::new();
    scratch.run("qemu-img create -q -f qcow2 disk.qcow2 4M");
    scratch.write("qcow2", "disk.qcow2", &[(1, 0, MIB), (1, 2 * MIB, MIB)]);
    let len = std::fs::metadata(scratch.path("disk.qcow2")).unwrap().len();
    let file = std::fs::File::options().write(true).open(scratch.path("disk.qcow2")).unwrap();
    file.set_len(len - MIB).unwrap();
    let disk = scratch.open("disk.qcow2").unwrap();
    disk.read_exact_at(&mut vec![0; MIB as usize], 0).unwrap();
    let error = disk.read_exact_at(&mut [0; 512], 3 * MIB - 64 * KIB).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    assert!(error.to_string().contains("lies past the end"), "{error}");
}
