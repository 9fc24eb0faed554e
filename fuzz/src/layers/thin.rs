//! Pools of thin volumes: the records that `thin_restore` writes, their checksums mended, in a volume
//! group that has such a pool.

use std::fmt::Write;
use std::process::Command;

use aiv_filesystems::logical_volumes;
use aiv_volume_io::{Extent, FileDisk, Job, ReadAt};

use super::{AREA, AREA_LEN, physical_volume, read_ends, text_of};
use crate::SparseDisk;
use crate::seeds::{kept, run};

/// Bytes of a record.
const RECORD: usize = 4096;
/// Extents of 4 KiB: of the metadata of the pool, and of its data.
const METADATA: (u32, u32) = (20, 60);
const DATA: (u32, u32) = (80, 64);
/// What the checksum of the superblock is mixed with, and that of a node.
const SUMS: [u32; 2] = [160_774, 121_107];

/// The text of a group with a pool and three volumes of it.
pub(super) fn text() -> String {
    let area = |(first, count): (u32, u32)| {
        format!(
            "extent_count = {count}\ntype = \"striped\"\nstripe_count = 1\n\
             stripes = [\"pv0\", {first}]"
        )
    };
    let pool = "extent_count = 64\ntype = \"thin-pool\"\nmetadata = \"pool_tmeta\"\n\
                pool = \"pool_tdata\"\ntransaction_id = 1\nchunk_size = 128\n\
                discards = \"passdown\"\nzero_new_blocks = 1";
    let thin = |device: u32| {
        format!(
            "extent_count = 16000\ntype = \"thin\"\nthin_pool = \"pool\"\ntransaction_id = 0\n\
             device_id = {device}"
        )
    };
    text_of(&[
        ("pool", true, pool.to_owned()),
        ("pool_tmeta", false, area(METADATA)),
        ("pool_tdata", false, area(DATA)),
        ("one", true, thin(1)),
        ("two", true, thin(2)),
        ("three", true, thin(3)),
    ])
}

/// The metadata of a pool in a [`SparseDisk`].
pub(super) fn pool(container: &[u8]) -> bool {
    let metadata = SparseDisk::from_bytes(container);
    let mut disk = physical_volume(text().as_bytes());
    let start = AREA + AREA_LEN + METADATA.0 as usize * RECORD;
    for number in 0..METADATA.1 {
        let at = number as usize * RECORD;
        let record = &mut disk[start + at..start + at + RECORD];
        if metadata.read_exact_at(record, at as u64).is_err() {
            break;
        }
        if record.iter().any(|byte| *byte != 0) {
            let sum = !crc32c::crc32c(&record[4..]) ^ SUMS[usize::from(number > 0)];
            record[..4].copy_from_slice(&sum.to_le_bytes());
        }
    }
    let disk = super::of_bytes(disk);
    let Ok(found) = logical_volumes(&[disk], Job::silent()) else { return false };
    let mut reached = false;
    for volume in found.volumes {
        let Ok(bytes) = volume.bytes else { continue };
        assert_eq!(bytes.len(), volume.len);
        reached = true;
        // Its tree may be wrong further down.
        read_ends(&*bytes);
        let mut out = [0; 512];
        for part in 0..64 {
            let _ = bytes.read_exact_at(&mut out, (bytes.len() / 64 * part) & !511);
        }
    }
    reached
}

/// A volume, its snapshot, and one whose blocks take a tree of several levels.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let mut text = String::from(
        "<superblock uuid=\"\" time=\"2\" transaction=\"1\" flags=\"0\" version=\"2\" \
         data_block_size=\"128\" nr_data_blocks=\"4\">\n",
    );
    let maps = [
        (1, vec![(0, 0), (3, 1), (900, 2)]),
        (2, vec![(0, 0), (3, 3)]),
        (3, (0..600).map(|n| (n + n / 7, n % 4)).collect()),
    ];
    for (device, map) in maps {
        let count = map.len();
        let _ = writeln!(
            text,
            "<device dev_id=\"{device}\" mapped_blocks=\"{count}\" transaction=\"0\" \
             creation_time=\"0\" snap_time=\"1\">"
        );
        for (from, to) in map {
            let _ = writeln!(
                text,
                "<single_mapping origin_block=\"{from}\" data_block=\"{to}\" time=\"1\"/>"
            );
        }
        text += "</device>\n";
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [described, made] = ["described", "made"].map(|name| folder.path().join(name));
    std::fs::write(&described, text + "</superblock>\n").expect("room");
    let file = std::fs::File::create(&made).expect("room");
    file.set_len(2 << 20).expect("room");
    let mut command = Command::new("thin_restore");
    run(command.arg("-q").arg("-i").arg(&described).arg("-o").arg(&made));
    let disk = FileDisk::open_source(&made).expect("just made");
    let all = Extent::new(0, u64::from(METADATA.1) * RECORD as u64);
    vec![kept(&disk, &[all])]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_has_three_volumes_with_blocks_and_holes() {
        let [seed] = seeds().try_into().unwrap();
        assert!(pool(&seed));
        let metadata = SparseDisk::from_bytes(&seed);
        let mut disk = physical_volume(text().as_bytes());
        let start = AREA + AREA_LEN + METADATA.0 as usize * RECORD;
        let len = METADATA.1 as usize * RECORD;
        metadata.read_exact_at(&mut disk[start..start + len], 0).unwrap();
        let data = start + len;
        disk[data..data + 5].copy_from_slice(b"first");
        let found = logical_volumes(&[super::super::of_bytes(disk)], Job::silent()).unwrap();
        let names: Vec<_> = found.volumes.iter().map(|volume| volume.name.as_str()).collect();
        assert_eq!(names, ["vg/one", "vg/two", "vg/three"]);
        for volume in found.volumes {
            let bytes = volume.bytes.unwrap();
            let mut out = [0; 5];
            bytes.read_exact_at(&mut out, 0).unwrap();
            assert_eq!(&out, b"first", "{}", volume.name);
            assert!(!bytes.holes(Extent::new(0, bytes.len())).unwrap().is_empty());
        }
    }
}
