//! Kind, label and identity, judged by `blkid`.

use std::fs;

use aiv_filesystems::{FilesystemKind, WholeReason, recognise};

use crate::ext_tools::{MIB, mke2fs, mke2fs_in, whole_reason};
use crate::tools::{Volume, run, try_run};

/// Kind, label and identity are what blkid probes; the size is the volume's, or a bit less.
fn check(volume: &Volume, kind: FilesystemKind) {
    let found = recognise(&volume.open()).unwrap();
    let output = try_run("blkid", &["-p", "-o", "udev", volume.path()]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_default().replace("\\x20", " ")
    };
    assert_eq!(found.kind, kind);
    assert_eq!(found.kind.name(), field("ID_FS_TYPE"));
    assert_eq!(found.label, field("ID_FS_LABEL_ENC"), "{kind}");
    assert_eq!(found.uuid, field("ID_FS_UUID_ENC"), "{kind}");
    assert_eq!(found.also, []);
    if let Some(size) = found.size {
        let len = fs::metadata(&volume.path).unwrap().len();
        assert!(size <= len && size >= len / 10 * 8, "{kind}: {size} of {len}");
    }
}

fn made(mib: u64, tool: &str, arguments: &str, kind: FilesystemKind) {
    check(&Volume::made_by(mib * MIB, tool, arguments), kind);
}

#[test]
fn ext() {
    check(&mke2fs(8 * MIB, "-t ext2 -L ext_2"), FilesystemKind::Ext2);
    check(&mke2fs(8 * MIB, "-t ext3 -L sixteen_letters_"), FilesystemKind::Ext3);
    check(&mke2fs(8 * MIB, "-t ext4"), FilesystemKind::Ext4);
    check(&mke2fs(8 * MIB, "-t ext4 -O ^has_journal"), FilesystemKind::Ext4);
    check(&mke2fs(8 * MIB, "-t ext4 -U clear"), FilesystemKind::Ext4);
}

#[test]
fn fat() {
    made(2, "mkfs.fat", "-F 12 -n SMALL", FilesystemKind::Fat12);
    made(20, "mkfs.fat", "-F 16 -n SIXTEEN", FilesystemKind::Fat16);
    made(40, "mkfs.fat", "-F 32 -n THIRTYTWO", FilesystemKind::Fat32);
    made(40, "mkfs.fat", "-F 32", FilesystemKind::Fat32);
    made(200, "mkfs.fat", "-F 16 -S 4096 -s 1", FilesystemKind::Fat16);
}

#[test]
fn a_fat_label_behind_many_files_is_found_and_a_deleted_one_is_not() {
    let volume = Volume::made_by(40 * MIB, "mkfs.fat", "-F 32 -s 1");
    for n in 0..200 {
        let name = format!("::file with a long name {n}");
        run("mcopy", &["-i", volume.path(), "/dev/null", &name]);
    }
    check(&volume, FilesystemKind::Fat32);
    run("mlabel", &["-i", volume.path(), "::LATE"]);
    check(&volume, FilesystemKind::Fat32);
    assert_eq!(recognise(&volume.open()).unwrap().label, "LATE");
    run("mlabel", &["-i", volume.path(), "-c", "::"]);
    check(&volume, FilesystemKind::Fat32);
}

#[test]
fn windows() {
    made(8, "mkfs.ntfs", "-q -F -L n-Über", FilesystemKind::Ntfs);
    made(8, "mkfs.ntfs", "-q -F", FilesystemKind::Ntfs);
    made(300, "mkfs.ntfs", "-q -F -c 131072", FilesystemKind::Ntfs);
    made(16, "mkfs.exfat", "-L ex-Über", FilesystemKind::ExFat);
    made(16, "mkfs.exfat", "", FilesystemKind::ExFat);
}

#[test]
fn linux() {
    made(320, "mkfs.xfs", "-q -L twelve_bytes", FilesystemKind::Xfs);
    made(128, "mkfs.btrfs", "-q -L butter", FilesystemKind::Btrfs);
    made(64, "mkfs.f2fs", "-q -l flash", FilesystemKind::F2fs);
    made(8, "mkswap", "-q -L swap", FilesystemKind::Swap);
    made(8, "mkswap", "-q -p 65536", FilesystemKind::Swap);
}

#[test]
fn containers() {
    let password = tempfile::NamedTempFile::new().unwrap();
    fs::write(password.path(), "password").unwrap();
    let cheap = "--pbkdf pbkdf2 --pbkdf-force-iterations 1000";
    for kind in ["--type luks1", "--type luks2 --label vault"] {
        let volume = Volume::new(20 * MIB);
        let arguments =
            format!("luksFormat -q {kind} {cheap} --key-file {}", password.path().display());
        run("cryptsetup", &volume.with_path(&arguments));
        check(&volume, FilesystemKind::LuksContainer);
        let by = if kind.contains("luks1") { "LUKS1" } else { "LUKS2" };
        assert_eq!(whole_reason(&volume), WholeReason::Encrypted { by });
    }
    let words = WholeReason::Encrypted { by: "LUKS2" }.to_string();
    assert!(
        words.starts_with("encrypted (LUKS2): every sector looks used; a backup of the unlocked")
    );
}

#[test]
fn bitlocker_on_a_fixed_disk_and_on_a_stick() {
    let fixed = Volume::new(MIB);
    fixed.patch(0, b"\xeb\x58\x90-FVE-FS-\0\x02\x08");
    fixed.patch(510, &[0x55, 0xaa]);
    let stick = Volume::made_by(40 * MIB, "mkfs.fat", "-F 32");
    stick.patch(3, b"MSWIN4.1");
    let guid = b"\x3b\xd6\x67\x49\x29\x2e\xd8\x4a\x83\x99\xf6\xa3\x39\xe3\xd0\x01";
    stick.patch(424, guid);
    for volume in [fixed, stick] {
        assert_eq!(recognise(&volume.open()).unwrap().kind, FilesystemKind::BitLocker);
        assert_eq!(whole_reason(&volume), WholeReason::Encrypted { by: "BitLocker" });
    }
}

fn part_of(volume: &Volume) -> &'static str {
    match whole_reason(volume) {
        WholeReason::PartOf { of, .. } => of,
        other => panic!("{other}"),
    }
}

#[test]
fn a_disk_behind_a_cache_and_the_cache() {
    for side in ["-B", "-C"] {
        let volume = Volume::new(80 * MIB);
        let device = run("losetup", &["--find", "--show", volume.path()]);
        let made = try_run("make-bcache", &[side, device.trim()]);
        run("losetup", &["--detach", device.trim()]);
        assert!(made.status.success(), "{made:?}");
        check(&volume, FilesystemKind::Bcache);
        assert_eq!(part_of(&volume), "a bcache device");
    }
}

#[test]
fn a_device_with_checksums_and_one_with_deduplication() {
    let integrity = Volume::new(MIB);
    integrity.patch(0, b"integrt\0\x05\x0f\x04\0");
    check(&integrity, FilesystemKind::DmIntegrity);
    assert_eq!(part_of(&integrity), "a device with dm-integrity");
    let vdo = Volume::new(MIB);
    vdo.patch(0, b"dmvdo001");
    vdo.patch(40, b"sixteen letters!");
    check(&vdo, FilesystemKind::Vdo);
    let words = "a part of a VDO volume: which blocks are used can only be told from the whole; to \
                 leave out free space, back up the assembled device";
    assert_eq!(whole_reason(&vdo).to_string(), words);
}

#[test]
fn an_lvm_physical_volume() {
    let volume = Volume::new(8 * MIB);
    // Label and header of a physical volume, as `pvcreate` writes them into sector 1.
    let mut sector = [0; 512];
    sector[..8].copy_from_slice(b"LABELONE");
    sector[8..16].copy_from_slice(&1u64.to_le_bytes());
    sector[20..24].copy_from_slice(&32u32.to_le_bytes());
    sector[24..32].copy_from_slice(b"LVM2 001");
    sector[32..64].copy_from_slice(b"V9N6H5MXloJmEETLHsKyAokLv5JL0RY7");
    sector[64..72].copy_from_slice(&(8 * MIB).to_le_bytes());
    let sum = crate::lvm_tools::crc(&sector[20..]);
    sector[16..20].copy_from_slice(&sum.to_le_bytes());
    volume.patch(512, &sector);
    check(&volume, FilesystemKind::Lvm2Member);
}

#[test]
fn a_raid_mirror_is_no_filesystem_although_it_looks_like_one() {
    // Format 0.90 keeps its superblock in the last 64 KiB; what is mirrored starts at byte 0.
    let volume = mke2fs_in(8 * MIB, 7 * MIB, "-t ext4");
    let mut superblock = [0u8; 4096];
    let words = [0xa92b_4efc_u32, 0, 90, 0, 0, 0x1122_3344];
    for (bytes, word) in superblock.chunks_exact_mut(4).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    superblock[52..64].copy_from_slice(b"abcdefghijkl");
    volume.patch(8 * MIB - 65_536, &superblock);
    check(&volume, FilesystemKind::MdRaidMember);
    assert_eq!(part_of(&volume), "a Linux software RAID (md)");
}

/// What is needed of an HFS+ at `at` to tell what it is: header, catalog, its first leaf.
fn put_hfs_plus(volume: &Volume, at: u64, magic: &[u8; 4]) {
    let mut header = [0; 512];
    header[..4].copy_from_slice(magic);
    header[40..44].copy_from_slice(&4096u32.to_be_bytes());
    header[44..48].copy_from_slice(&1000u32.to_be_bytes());
    header[104..112].copy_from_slice(b"\xc7\xad\x25\xcb\x22\xff\x87\x91");
    // The catalog is a block in front of three others.
    header[272..280].copy_from_slice(&32_768u64.to_be_bytes());
    header[284..288].copy_from_slice(&4u32.to_be_bytes());
    header[288..304].copy_from_slice(b"\0\0\0\x10\0\0\0\x01\0\0\0\x12\0\0\0\x03");
    volume.patch(at + 1024, &header);
    let mut tree = [0; 34];
    tree[8] = 1;
    tree[20..24].copy_from_slice(&1u32.to_be_bytes());
    tree[24..28].copy_from_slice(&2u32.to_be_bytes());
    tree[32..34].copy_from_slice(&4096u16.to_be_bytes());
    volume.patch(at + 16 * 4096, &tree);
    let mut leaf = vec![0; 22];
    leaf[8] = 0xff;
    leaf[10..12].copy_from_slice(&1u16.to_be_bytes());
    let name: Vec<u8> = "Über all".encode_utf16().flat_map(u16::to_be_bytes).collect();
    leaf[14..16].copy_from_slice(&(6 + u16::try_from(name.len()).unwrap()).to_be_bytes());
    leaf[16..20].copy_from_slice(&1u32.to_be_bytes());
    leaf[20..22].copy_from_slice(&u16::try_from(name.len() / 2).unwrap().to_be_bytes());
    leaf.extend(name);
    volume.patch(at + 19 * 4096, &leaf);
}

/// The master directory block of an HFS.
fn put_hfs(volume: &Volume) {
    let mut block = [0; 162];
    block[..2].copy_from_slice(b"BD");
    block[18..20].copy_from_slice(&8000u16.to_be_bytes());
    block[20..24].copy_from_slice(&512u32.to_be_bytes());
    block[28..30].copy_from_slice(&5u16.to_be_bytes());
    block[36..41].copy_from_slice(b"\x04long");
    block[116..124].copy_from_slice(b"identity");
    volume.patch(1024, &block);
}

#[test]
fn apple() {
    for magic in [b"H+\0\x04", b"HX\0\x05"] {
        let volume = Volume::new(4_096_000);
        put_hfs_plus(&volume, 0, magic);
        check(&volume, FilesystemKind::HfsPlus);
    }
    let volume = Volume::new(4_100_000);
    put_hfs(&volume);
    check(&volume, FilesystemKind::Hfs);
    // The same around an HFS+ that begins with its 16th block.
    volume.patch(1024 + 124, b"H+\0\x10\x1f\x00");
    put_hfs_plus(&volume, 5 * 512 + 16 * 512, b"H+\0\x04");
    check(&volume, FilesystemKind::HfsPlus);
}

#[test]
fn names_and_places_of_apple_that_lead_nowhere_are_none() {
    let name = |bytes: &[(u64, &[u8])]| {
        let volume = Volume::new(4_096_000);
        put_hfs_plus(&volume, 0, b"H+\0\x04");
        bytes.iter().for_each(|(at, bytes)| volume.patch(*at, bytes));
        let found = recognise(&volume.open()).unwrap();
        assert_eq!(found.kind, FilesystemKind::HfsPlus);
        found.label
    };
    assert_eq!(name(&[]), "Über all");
    for at in [1024 + 40, 1024 + 288, 16 * 4096 + 24, 16 * 4096 + 32, 19 * 4096 + 20] {
        assert_eq!(name(&[(at, &[0xff; 2])]), "", "{at}");
    }
    // A place that no number can hold.
    let far: [(u64, &[u8]); 3] =
        [(1024 + 40, &[0xff; 4]), (1024 + 288, &[0xff; 8]), (1024 + 296, &[0xff; 8])];
    assert_eq!(name(&far), "");
    let volume = Volume::new(4_096_000);
    put_hfs(&volume);
    for bytes in [b"H+\xff\xff\xff\xff", b"H+\0\0\0\0"] {
        volume.patch(1024 + 124, bytes);
        assert_eq!(recognise(&volume.open()).unwrap().kind, FilesystemKind::Unknown);
    }
}

#[test]
fn ufs() {
    for (at, magic, is_big) in [
        (8 << 10, 0x0001_1954u32, false),
        (8 << 10, 0x0001_1954, true),
        (64 << 10, 0x1954_0119, false),
        (256 << 10, 0x1954_0119, true),
    ] {
        let volume = Volume::new(4 * MIB);
        let mut superblock = [0; 1376];
        let words =
            [(48, 32_768), (52, 4096), (100, 1), (144, 0x6262_b872), (148, 0x1e), (1372, magic)];
        for (at, word) in words {
            let bytes = if is_big { word.to_be_bytes() } else { word.to_le_bytes() };
            superblock[at..at + 4].copy_from_slice(&bytes);
        }
        superblock[680..684].copy_from_slice(if magic == 0x1954_0119 { b"name" } else { &[0; 4] });
        volume.patch(at, &superblock);
        check(&volume, FilesystemKind::Ufs);
    }
}

#[test]
fn udf() {
    let files = tempfile::tempdir().unwrap();
    fs::write(files.path().join("file"), vec![7; 1_000_000]).unwrap();
    for name in ["Some name", "Größe"] {
        let volume = Volume::new(0);
        let to = ["-quiet", "-udf", "-input-charset", "utf-8", "-V", name, "-o", volume.path()];
        run("genisoimage", &[&to[..], &[files.path().to_str().unwrap()]].concat());
        assert_eq!(recognise(&volume.open()).unwrap().kind, FilesystemKind::Iso9660);
        // Without the volume of ISO 9660 around it.
        volume.patch(0x8000, &[9]);
        check(&volume, FilesystemKind::Udf);
    }
}

#[test]
fn kinds_of_which_only_the_name_is_known() {
    made(2, "mkfs.minix", "-1", FilesystemKind::Minix);
    made(2, "mkfs.minix", "-2 -n 14", FilesystemKind::Minix);
    made(20, "mkfs.minix", "-3", FilesystemKind::Minix);
    made(2, "mkfs.bfs", "", FilesystemKind::Bfs);
    let files = tempfile::tempdir().unwrap();
    fs::write(files.path().join("file"), vec![7; 1_000_000]).unwrap();
    let volume = Volume::new(0);
    fs::remove_file(&volume.path).unwrap();
    run("mkfs.cramfs", &["-n", "crammed", files.path().to_str().unwrap(), volume.path()]);
    check(&volume, FilesystemKind::Cramfs);
    let romfs = *b"-rom1fs-\x02\x80\0\0\0\0\0\0label\0\0\0\0\0\0\0\0\0\0\0";
    let sum: u32 = romfs
        .as_chunks()
        .0
        .iter()
        .fold(0, |sum: u32, &word| sum.wrapping_add(u32::from_be_bytes(word)));
    let mut romfs = romfs;
    romfs[12..16].copy_from_slice(&0u32.wrapping_sub(sum).to_be_bytes());
    forged(0, &romfs, FilesystemKind::Romfs);
}

/// Where what is put there, checked by blkid, is all there is.
fn forged(at: u64, bytes: &[u8], kind: FilesystemKind) {
    // On less blkid believes in no JFS and no GFS2.
    let volume = Volume::new(40 * MIB);
    volume.patch(at, bytes);
    check(&volume, kind);
}

/// Bytes of zeros with some in them.
fn record<const N: usize>(parts: &[(usize, &[u8])]) -> [u8; N] {
    let mut record = [0; N];
    for (at, bytes) in parts {
        record[*at..at + bytes.len()].copy_from_slice(bytes);
    }
    record
}

const UUID: &[u8] = b"0123456789abcdef";

#[test]
fn superblocks_of_other_linux_filesystems() {
    let le = |word: u32| word.to_le_bytes();
    let jfs = [
        (0, &b"JFS1"[..]),
        (4, &le(1)),
        (8, &le(80_000)),
        (16, &le(4096)),
        (20, &[12, 0, 3, 0]),
        (24, &le(512)),
        (28, &[9, 0]),
        (136, UUID),
        (152, b"on jfs"),
    ];
    forged(0x8000, &record::<512>(&jfs), FilesystemKind::Jfs);
    for (magic, at) in
        [(&b"ReIsErFs"[..], 0x2000), (b"ReIsEr2Fs", 0x1_0000), (b"ReIsEr3Fs", 0x1_0000)]
    {
        let mut parts = vec![(0, &[0, 0x27][..]), (12, &[18]), (44, &[0, 16]), (52, magic)];
        if magic != b"ReIsErFs" {
            parts.extend([(84, UUID), (100, &b"on reiser"[..])]);
        }
        forged(at, &record::<512>(&parts), FilesystemKind::ReiserFs);
    }
    let reiser4 = [(0, &b"ReIsEr4"[..]), (20, UUID), (36, b"four")];
    forged(0x1_0000, &record::<512>(&reiser4), FilesystemKind::Reiser4);
    let ocfs2 = [
        (0, &b"OCFSV2"[..]),
        (0xc0, &[0, 0, 90]),
        (0xc0 + 0x38, &[12]),
        (0xc0 + 0x50, b"on ocfs2"),
        (0xc0 + 0x90, UUID),
    ];
    forged(0x2000, &record::<512>(&ocfs2), FilesystemKind::Ocfs2);
    let be = |word: u32| word.to_be_bytes();
    let gfs2 = [
        (0, &be(0x0116_1970)[..]),
        (24, &be(1801)),
        (28, &be(1900)),
        (36, &be(4096)),
        (160, b"cluster:name"),
        (256, UUID),
    ];
    forged(0x1_0000, &record::<512>(&gfs2), FilesystemKind::Gfs2);
    let vmfs = [(0, &[0x5e, 0xf1, 0xab, 0x2f][..]), (9, UUID), (29, b"datastore1")];
    let volume = Volume::new(300 * MIB);
    volume.patch(0x20_0000, &record::<512>(&vmfs));
    check(&volume, FilesystemKind::Vmfs);
}

#[test]
fn nilfs2_is_known_by_its_checksum_and_bcachefs_by_its_long_magic() {
    let dev = (40 * MIB).to_le_bytes();
    let mut superblock = record::<1024>(&[
        (0, &[2]),
        (6, &[0x34, 0x34, 0x18, 0x01]),
        (12, &[1, 2, 3, 4]),
        (20, &[2]),
        (32, &dev),
        (152, UUID),
        (168, b"on nilfs"),
    ]);
    let volume = Volume::new(4 * MIB);
    volume.patch(1024, &superblock);
    assert_eq!(recognise(&volume.open()).unwrap().kind, FilesystemKind::Unknown);
    let sum = superblock[..0x118].iter().fold(0x0403_0201_u32, |sum, &byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| {
            sum >> 1 ^ (0xedb8_8320 & (sum & 1).wrapping_neg())
        })
    });
    superblock[16..20].copy_from_slice(&sum.to_le_bytes());
    forged(1024, &superblock, FilesystemKind::Nilfs2);

    let volume = Volume::new(4 * MIB);
    let magic = b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef";
    let parts = [(24, &magic[..]), (56, UUID), (72, b"on bcachefs")];
    volume.patch(4096, &record::<512>(&parts));
    let found = recognise(&volume.open()).unwrap();
    assert_eq!((found.kind.name(), &*found.label), ("bcachefs", "on bcachefs"));
    assert_eq!(found.uuid, "30313233-3435-3637-3839-616263646566");
}

#[test]
fn what_is_known_is_not_made_doubtful_by_what_only_has_a_name() {
    let volume = mke2fs(8 * MIB, "-t ext4 -b 4096");
    volume.patch(0x1_0000 + 52, b"ReIsEr2Fs");
    check(&volume, FilesystemKind::Ext4);
}

#[test]
fn read_only_filesystems() {
    let files = tempfile::tempdir().unwrap();
    fs::write(files.path().join("file"), vec![7; 5_000_000]).unwrap();
    let volume = Volume::new(0);
    fs::remove_file(&volume.path).unwrap();
    run("mksquashfs", &[files.path().to_str().unwrap(), volume.path(), "-quiet", "-noD"]);
    check(&volume, FilesystemKind::Squashfs);
    let words = "squashfs is read-only and has no free space";
    assert_eq!(whole_reason(&volume).to_string(), words);
}
