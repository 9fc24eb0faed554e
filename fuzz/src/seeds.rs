//! Sound inputs: stored images, and what the tools people have make. A tool that is missing is
//! a failure.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, LazyLock};

use aiv_filesystems::{UsedMap, recognise, used_map};
use aiv_image_format::{Image, Keys};
use aiv_keys::ChainKey;
use aiv_testkit::MemStorage;
use aiv_testkit::disks::{Content, DiskLayout, Part, Table};
use aiv_testkit::mutants::{Changes, Mutated};
use aiv_volume_io::{CATALOGUE_NAME, Extent, FileDisk, Job, MemDisk, ReadAt};

use crate::SparseDisk;

pub(crate) const MIB: u64 = 1 << 20;
/// Stretches of a seed are no longer than this, and those of zeros are left out.
const PIECE: usize = 4096;

/// The stored images of the repository, by name.
pub(crate) fn goldens() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/golden");
    let mut files: Vec<(String, Vec<u8>)> = std::fs::read_dir(folder)
        .expect("stored images")
        .map(|entry| entry.expect("a listed file"))
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()))
        .filter(|(name, _)| Path::new(name).extension().is_some_and(|e| e != "dump"))
        .map(|(name, path)| (name, std::fs::read(path).expect("a readable file")))
        .collect();
    files.sort();
    files
}

/// A folder of the stored images, for one input: they are read from the disk once.
pub(crate) fn golden_folder() -> MemStorage {
    static FOLDER: LazyLock<MemStorage> = LazyLock::new(|| {
        let storage = MemStorage::new();
        goldens().into_iter().for_each(|(name, bytes)| storage.insert(&name, bytes));
        storage
    });
    FOLDER.fork()
}

/// The key of the stored images that have one.
pub(crate) fn keys() -> Keys {
    Keys::of(ChainKey::new(*b"a chain key of thirty-two bytes."))
}

/// Images in one file each.
pub(crate) fn images() -> Vec<Vec<u8>> {
    let whole = goldens().into_iter().filter(|(name, _)| !name.contains("split"));
    whole.map(|(_, bytes)| bytes).collect()
}

/// The files of an image in several.
pub(crate) fn segments() -> Vec<Vec<u8>> {
    let parts = goldens().into_iter().filter(|(name, _)| name.contains("split"));
    parts.map(|(_, bytes)| bytes).collect()
}

/// Both copies of the key slots of the sealed image.
pub(crate) fn slots() -> Vec<Vec<u8>> {
    let (_, sealed) = goldens().into_iter().find(|(name, _)| name == "sealed.aiv").expect("stored");
    let image = Image::open(Arc::new(MemDisk::from_bytes(sealed))).expect("sound");
    image.slot_copies().expect("memory").expect("it has slots").map(<[u8]>::into_vec).to_vec()
}

pub(crate) fn catalogues() -> Vec<Vec<u8>> {
    let storage = golden_folder();
    let (_, catalogue) = aiv_chain::Folder::scan_with(&storage, Job::silent()).expect("a folder");
    catalogue.write(&storage).expect("memory");
    vec![storage.contents(CATALOGUE_NAME).expect("written").to_vec()]
}

pub(crate) fn disks() -> Vec<Vec<u8>> {
    let of = |table, bytes| {
        let layout = DiskLayout::new(table).sector_size(bytes);
        let layout = (0..4).fold(layout, |layout, n| {
            let part = Part::new(64 << 10, Content::Text(n));
            let logical = table == Table::Mbr && n > 1;
            layout.part(if logical { part.logical() } else { part.after_gap(3) })
        });
        let disk = layout.build().to_disk();
        kept(&disk, &[Extent::new(0, disk.len())])
    };
    vec![of(Table::Gpt, 512), of(Table::Gpt, 4096), of(Table::Mbr, 512)]
}

/// What parsers read of volumes of every family.
pub(crate) fn volumes() -> Vec<Vec<u8>> {
    let makers = [
        (4, "mke2fs -q -F -t ext2 -b 1024 -O ^resize_inode"),
        (4, "mke2fs -q -F -t ext4 -b 1024 -O ^metadata_csum,^uninit_bg,^resize_inode"),
        (4, "mke2fs -q -F -t ext4 -b 4096"),
        (2, "mkntfs -q -Q -F -c 512"),
        (1, "mkfs.fat -F 12"),
        (35, "mkfs.fat -F 32"),
        (4, "mkfs.exfat -b 64K"),
        (1, "mkswap"),
        (300, "mkfs.xfs -q -m crc=0 -d agcount=2"),
        (300, "mkfs.xfs -q -d agcount=2"),
        (128, "mkfs.btrfs -q -m single"),
        (64, "mkfs.f2fs -q"),
    ];
    makers.iter().map(|(mib, maker)| volume(mib * MIB, maker)).collect()
}

fn volume(len: u64, maker: &str) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.as_file().set_len(len).expect("room");
    let words: Vec<&str> = maker.split(' ').collect();
    run(Command::new(words[0]).args(&words[1..]).arg(file.path()));
    let disk = FileDisk::open_source(file.path()).expect("just made");
    let unchanged = Changes::new();
    let recorder = Mutated::new(&disk, &unchanged);
    let recognised = recognise(&recorder).expect("readable");
    let map = used_map(&recorder, &recognised, Job::silent()).expect("readable");
    assert!(matches!(map, UsedMap::Used { .. }), "{maker}: {map:?}");
    let mut reads = recorder.take_reads();
    reads.sort();
    kept(&disk, &reads)
}

/// Small disks of every format that QEMU writes.
pub(crate) fn virtual_disks() -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let raw = folder.path().join("raw");
    std::fs::write(&raw, Content::Text(1).bytes(200 << 10)).expect("room");
    let formats = ["qcow2", "vpc", "vhdx -o block_size=1M", "vmdk", "qcow2 -c"];
    formats
        .iter()
        .map(|format| {
            let made = folder.path().join("made");
            let mut command = Command::new("qemu-img");
            command.args(["convert", "-f", "raw", "-O"]).args(format.split(' '));
            run(command.args([&raw, &made]));
            let disk = MemDisk::from_bytes(std::fs::read(&made).expect("just made"));
            kept(&disk, &[Extent::new(0, disk.len())])
        })
        .collect()
}

/// Messages of a server, and URIs.
pub(crate) fn conversations() -> Vec<Vec<u8>> {
    let greeting = b"NBDMAGICIHAVEOPT\x00\x03".to_vec();
    let option =
        [&[0, 3, 0xe8, 0x89, 4, 0x55, 0x65, 0xa9][..], &[0, 0, 0, 7, 0, 0, 0, 3, 0, 0, 0, 12]];
    let export = [&[0, 0][..], &(5u64 << 20).to_be_bytes(), &[0, 3]];
    let chunk = [&[0x66, 0x8e, 0x33, 0xef, 0, 1, 0, 1][..], &1u64.to_be_bytes(), &[0, 0, 16, 8]];
    let context = [&7u32.to_be_bytes()[..], b"base:allocation"];
    let status = [&7u32.to_be_bytes()[..], &[0, 0, 16, 0, 0, 0, 0, 3], &[0, 1, 0, 0, 0, 0, 0, 0]];
    let error = [&[0, 0, 0, 5, 0, 4][..], b"gone"];
    vec![
        greeting,
        option.concat(),
        export.concat(),
        chunk.concat(),
        context.concat(),
        status.concat(),
        error.concat(),
        b"nbd+unix:///disk%201?socket=/run/nbd.sock".to_vec(),
        b"nbd://[::1]:10809/export".to_vec(),
    ]
}

/// The container of what is not zeros in some stretches of a disk.
pub(crate) fn kept(disk: &dyn ReadAt, stretches: &[Extent]) -> Vec<u8> {
    let mut kept: Vec<Extent> = Vec::new();
    for stretch in stretches {
        for at in (stretch.start..stretch.end()).step_by(PIECE) {
            let piece = Extent::between(at, stretch.end().min(at + PIECE as u64));
            let mut bytes = vec![0; usize::try_from(piece.len).expect("small")];
            disk.read_exact_at(&mut bytes, at).expect("readable");
            if bytes.iter().any(|&byte| byte != 0) && !kept.contains(&piece) {
                kept.push(piece);
            }
        }
    }
    SparseDisk::container(disk, &kept).expect("readable")
}

pub(crate) fn run(command: &mut Command) {
    let output =
        command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}
