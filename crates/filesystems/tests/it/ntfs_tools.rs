//! NTFS volumes, what ntfs-3g's tools say about them, and how to damage them.

use std::os::unix::fs::FileExt;

use aiv_filesystems::{NtfsReason, WholeReason};
use aiv_volume_io::{Extent, ExtentSet, ReadAt};

use crate::ext_tools::{MIB, used_bytes, whole_reason};
use crate::tools::{Files, Mounted, Volume, files_below, run};

const RECORD: usize = 1024;
pub(crate) const CLUSTER: u64 = 4096;
pub(crate) const DATA: u32 = 0x80;
pub(crate) const VOLUME_INFORMATION: u32 = 0x70;

pub(crate) fn mkntfs(len: u64, options: &str) -> Volume {
    Volume::made_by(len, "mkntfs", &format!("-q -Q -F {options}"))
}

/// Mounts through ntfs-3g, never through a driver of the kernel.
pub(crate) fn mount(volume: &Volume, options: &str) -> Mounted {
    // A file on a loop device is a block device: the unmount waits until all is written.
    Mounted::of_type("ntfs-3g", volume, options)
}

/// The bytes of clusters that `$Bitmap`, as ntfscat prints it, calls free.
pub(crate) fn free_by_ntfscat(volume: &Volume) -> ExtentSet {
    let output = crate::tools::try_run("ntfscat", &["-f", "-i", "6", volume.path()]);
    assert!(output.status.success(), "{output:?}");
    let boot = Boot::of(volume);
    (0..boot.clusters)
        .filter(|&n| output.stdout[usize::try_from(n / 8).unwrap()] >> (n % 8) & 1 == 0)
        .map(|n| Extent::new(n * boot.cluster_size, boot.cluster_size))
        .collect()
}

/// ntfsfix finds nothing to mend, ntfsinfo reads it, and ntfsresize, which compares `$Bitmap`
/// with the runs of all files, finds it consistent. Nothing is changed.
pub(crate) fn assert_sound(volume: &Volume) {
    run("ntfsfix", &["-n", volume.path()]);
    run("ntfsinfo", &["-m", "-f", volume.path()]);
    let said = run("ntfsresize", &["--info", "-f", "-P", volume.path()]);
    assert!(said.contains("Accounting clusters"), "{said}");
}

/// Every file, through a mount that cannot write.
pub(crate) fn files_in(volume: &Volume) -> Files {
    files_below(mount(volume, "ro").path())
}

/// What the boot sector says.
pub(crate) struct Boot {
    pub(crate) cluster_size: u64,
    pub(crate) clusters: u64,
    pub(crate) mft: u64,
    pub(crate) mirror: u64,
}

impl Boot {
    pub(crate) fn of(volume: &Volume) -> Self {
        let boot = bytes_at(volume, 0, 512);
        let number = |at: usize| u64::from_le_bytes(boot[at..at + 8].try_into().unwrap());
        let sector_size = u64::from(u16::from_le_bytes([boot[11], boot[12]]));
        let cluster_size = sector_size
            * match boot[13] {
                n @ 0..=128 => u64::from(n),
                n => 1 << (256 - u64::from(n)),
            };
        let clusters = number(40) * sector_size / cluster_size;
        let (mft, mirror) = (number(48) * cluster_size, number(56) * cluster_size);
        Self { cluster_size, clusters, mft, mirror }
    }
}

pub(crate) fn bytes_at(volume: &Volume, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    volume.open().read_exact_at(&mut bytes, at).unwrap();
    bytes
}

/// Changes a file record of the table only.
pub(crate) fn edit_table(volume: &Volume, number: u64, edit: impl FnOnce(&mut Vec<u8>)) {
    let at = Boot::of(volume).mft + number * RECORD as u64;
    let mut record = bytes_at(volume, at, RECORD);
    swap_strides(&mut record, false);
    edit(&mut record);
    swap_strides(&mut record, true);
    let file = std::fs::File::options().write(true).open(&volume.path).unwrap();
    file.write_all_at(&record, at).unwrap();
}

/// Changes a file record, also in the mirror.
pub(crate) fn edit_record(volume: &Volume, number: u64, edit: impl FnOnce(&mut Vec<u8>)) {
    edit_table(volume, number, edit);
    if number < 4 {
        let Boot { mft, mirror, .. } = Boot::of(volume);
        let at = number * RECORD as u64;
        volume.patch(mirror + at, &bytes_at(volume, mft + at, RECORD));
    }
}

/// Undoes or renews the protection of a record.
fn swap_strides(record: &mut [u8], protect: bool) {
    let at = usize::from(u16::from_le_bytes([record[4], record[5]]));
    for n in 0..record.len() / 512 {
        let (own, last) = (at + 2 + 2 * n, 512 * n + 510);
        let number = [record[at], record[at + 1]];
        let value = [record[last], record[last + 1]];
        if protect {
            record[own..own + 2].copy_from_slice(&value);
            record[last..last + 2].copy_from_slice(&number);
        } else {
            let value = [record[own], record[own + 1]];
            record[last..last + 2].copy_from_slice(&value);
        }
    }
}

/// Where the first attribute of a kind begins that is in clusters (or in the record).
pub(crate) fn attribute(record: &[u8], kind: u32, in_clusters: bool) -> usize {
    let number = |at: usize| u32::from_le_bytes(record[at..at + 4].try_into().unwrap());
    let mut at = usize::from(u16::from_le_bytes([record[20], record[21]]));
    while number(at) != kind || (record[at + 8] == 1) != in_clusters {
        assert_ne!(number(at), u32::MAX, "no attribute {kind:#x}");
        at += number(at + 4) as usize;
    }
    at
}

/// Where the run list of that attribute begins.
pub(crate) fn run_list(record: &[u8], kind: u32) -> usize {
    let at = attribute(record, kind, true);
    at + usize::from(u16::from_le_bytes([record[at + 32], record[at + 33]]))
}

/// First cluster of the unnamed contents of a system file.
pub(crate) fn first_cluster(volume: &Volume, number: u64) -> u64 {
    let mut cluster = 0;
    edit_table(volume, number, |record| {
        let at = run_list(record, 0x80);
        let (len, delta) = (usize::from(record[at] & 15), usize::from(record[at] >> 4));
        let mut wide = [0; 8];
        wide[..delta].copy_from_slice(&record[at + 1 + len..at + 1 + len + delta]);
        cluster = u64::from_le_bytes(wide);
    });
    cluster
}

/// Changes bits of `$Bitmap`, which has one run in a fresh volume.
pub(crate) fn edit_bitmap(volume: &Volume, cluster: u64, edit: impl FnOnce(u8) -> u8) {
    let at = first_cluster(volume, 6) * Boot::of(volume).cluster_size + cluster / 8;
    volume.patch(at, &[edit(bytes_at(volume, at, 1)[0])]);
}

/// A small fresh volume that has a map.
pub(crate) fn plain() -> Volume {
    let volume = mkntfs(16 * MIB, "-c 4096");
    assert_eq!(used_bytes(&volume).2, []);
    volume
}

/// The reason why an NTFS volume has no map.
pub(crate) fn ntfs(volume: &Volume) -> NtfsReason {
    match whole_reason(volume) {
        WholeReason::Ntfs(reason) => reason,
        other => panic!("{other}"),
    }
}

pub(crate) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}
