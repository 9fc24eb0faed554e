//! Volumes inside of others: the metadata of LVM2 and superblocks of md, their checksums mended.

use std::sync::Arc;

use aiv_filesystems::{logical_volumes, raid_contents};
use aiv_volume_io::{Job, MemDisk, ReadAt};

/// Bytes of the physical volume, and of the RAID member.
const DISK: usize = 2 << 20;
/// Where the metadata area begins, and its text within.
const AREA: usize = 4096;
const TEXT: usize = 512;
const AREA_LEN: usize = 1 << 20;
const ID: &[u8; 32] = b"aaaaaabbbbccccddddeeeeffffgggggg";

/// The text of a volume group behind a zero byte, or a superblock of md behind any other.
pub fn layers(data: &[u8]) -> bool {
    let Some((kind, rest)) = data.split_first() else { return false };
    if *kind == 0 { group(rest) } else { member(rest) }
}

fn physical_volume(text: &[u8]) -> Arc<dyn ReadAt> {
    let mut disk = vec![0; DISK];
    let mut set = |at: usize, bytes: &[u8]| disk[at..at + bytes.len()].copy_from_slice(bytes);
    // Label in the second sector, its header behind it: one data area, one of metadata.
    set(512, b"LABELONE");
    set(520, &1_u64.to_le_bytes());
    set(532, &32_u32.to_le_bytes());
    set(536, b"LVM2 001");
    set(544, ID);
    for (at, word) in [(576, DISK), (584, AREA + AREA_LEN), (616, AREA), (624, AREA_LEN)] {
        set(at, &(word as u64).to_le_bytes());
    }
    set(AREA + 4, b" LVM2 x[5A%r0N*>");
    set(AREA + 20, &1_u32.to_le_bytes());
    for (at, word) in [(24, AREA), (32, AREA_LEN), (40, TEXT), (48, text.len())] {
        set(AREA + at, &(word as u64).to_le_bytes());
    }
    set(AREA + 56, &crc(text).to_le_bytes());
    set(AREA + TEXT, text);
    let sums = [(528, 532..1024), (AREA, AREA + 4..AREA + 512)];
    for (at, summed) in sums {
        let sum = crc(&disk[summed]);
        disk[at..at + 4].copy_from_slice(&sum.to_le_bytes());
    }
    Arc::new(MemDisk::from_bytes(disk))
}

fn group(text: &[u8]) -> bool {
    let text = &text[..text.len().min(AREA_LEN - 2 * TEXT)];
    let disk = physical_volume(text);
    let Ok(found) = logical_volumes(&[disk], Job::silent()) else { return false };
    for volume in found.volumes {
        assert!(volume.name.split('/').count() == 2 && !volume.name.contains(".."));
        let Ok(bytes) = volume.bytes else { continue };
        assert_eq!(bytes.len(), volume.len);
        let mut out = [0; 4096];
        let count = out.len().min(usize::try_from(bytes.len()).unwrap_or(4096));
        for at in [0, bytes.len() - count as u64] {
            bytes.read_exact_at(&mut out[..count], at).expect("it lies on the disk");
        }
        let spans = volume.spans.unwrap_or_default();
        assert!(spans.iter().all(|span| span.extent.end() <= DISK as u64));
    }
    // With its sums right the text is what was looked at.
    !text.is_empty()
}

fn member(superblock: &[u8]) -> bool {
    let mut record = superblock[..superblock.len().min(4096)].to_vec();
    record.resize(4096, 0);
    // As many roles as the record has room for are summed.
    let roles = usize::from(u16::from_le_bytes([record[220], record[221]]));
    let end = (256 + 2 * roles).min(4096);
    record[216..220].fill(0);
    let words = record[..end].chunks(4).map(|word| {
        let word = word.iter().rev().fold(0_u32, |number, &byte| number << 8 | u32::from(byte));
        u64::from(word)
    });
    let sum: u64 = words.sum();
    let sum = u32::try_from(((sum & 0xffff_ffff) + (sum >> 32)) & 0xffff_ffff).expect("masked");
    record[216..220].copy_from_slice(&sum.to_le_bytes());
    let mut disk = vec![0; DISK];
    disk[4096..8192].copy_from_slice(&record);
    let disk = MemDisk::from_bytes(disk);
    match raid_contents(&disk) {
        Ok(contents) => {
            assert!(contents.extent.end() <= disk.len() && !contents.extent.is_empty());
            true
        }
        Err(error) => !error.to_string().contains("there is no superblock"),
    }
}

fn crc(bytes: &[u8]) -> u32 {
    let mut sum = 0xf597_a6cf_u32;
    for &byte in bytes {
        sum ^= u32::from(byte);
        for _ in 0..8 {
            sum = if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 };
        }
    }
    sum
}

/// A group with a volume of every kind that is read, and a member of a mirror.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut text = String::from(
        "contents = \"Text Format Volume Group\"\nversion = 1\nvg {\nid = \"one\"\nseqno = 3\n\
         format = \"lvm2\"\nstatus = [\"RESIZEABLE\", \"READ\", \"WRITE\"]\nflags = []\n\
         extent_size = 8\nphysical_volumes {\npv0 {\n\
         id = \"aaaaaa-bbbb-cccc-dddd-eeee-ffff-gggggg\"\nstatus = [\"ALLOCATABLE\"]\nflags = []\n\
         dev_size = 4096\npe_start = 2056\npe_count = 200\n}\n}\nlogical_volumes {\n",
    );
    let area = |first: u32, count: u32| {
        format!(
            "extent_count = {count}\ntype = \"striped\"\nstripe_count = 1\n\
             stripes = [\"pv0\", {first}]"
        )
    };
    let [rest, whole] = ["extent_count = 4\n", "extent_count = 4\ndevice_count = 2\n"];
    let volumes = [
        ("root", true, area(0, 8)),
        (
            "wide",
            true,
            format!(
                "{rest}type = \"striped\"\nstripe_count = 2\nstripe_size = 8\n\
                 stripes = [\"pv0\", 8, \"pv0\", 10]"
            ),
        ),
        (
            "raid",
            true,
            format!(
                "{whole}type = \"raid1\"\nregion_size = 1024\n\
                 raids = [\"meta0\", \"image0\", \"meta1\", \"image1\"]"
            ),
        ),
        ("meta0", false, area(12, 1)),
        ("image0", false, area(13, 4)),
        ("meta1", false, area(17, 1)),
        ("image1", false, area(18, 4)),
        (
            "mirror",
            true,
            format!(
                "{rest}type = \"mirror\"\nmirror_count = 2\nregion_size = 1024\n\
                 mirrors = [\"image0\", 0, \"image1\", 0]"
            ),
        ),
        (
            "stacked",
            true,
            format!("{rest}type = \"striped\"\nstripe_count = 1\nstripes = [\"root\", 2]"),
        ),
        ("thin", true, format!("{rest}type = \"thin\"\nthin_pool = \"pool\"\ndevice_id = 1")),
    ];
    for (name, shown, segment) in volumes {
        let shown = if shown { ", \"VISIBLE\"" } else { "" };
        text += &format!(
            "{name} {{\nid = \"{name}\"\nstatus = [\"READ\", \"WRITE\"{shown}]\nflags = []\n\
             segment_count = 1\nsegment1 {{\nstart_extent = 0\n{segment}\n}}\n}}\n"
        );
    }
    text += "}\n}\n";
    let mut superblock = vec![0; 512];
    let mut set = |at: usize, bytes: &[u8]| superblock[at..at + bytes.len()].copy_from_slice(bytes);
    for (at, word) in [(0, 0xa92b_4efc_u32), (4, 1), (72, 1), (92, 2), (220, 128)] {
        set(at, &word.to_le_bytes());
    }
    for (at, word) in [(80, 2048_u64), (128, 2048), (136, 2048), (144, 8), (208, u64::MAX)] {
        set(at, &word.to_le_bytes());
    }
    [([0].as_slice(), text.into_bytes()), (&[1], superblock)]
        .into_iter()
        .map(|(kind, rest)| [kind, rest.as_slice()].concat())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_has_every_volume_that_is_read() {
        let seed = seeds().remove(0);
        assert!(layers(&seed));
        let found = logical_volumes(&[physical_volume(&seed[1..])], Job::silent()).unwrap();
        let opened = found.volumes.iter().filter(|volume| volume.bytes.is_ok());
        let names: Vec<_> = opened.map(|volume| volume.name.as_str()).collect();
        assert_eq!(names, ["vg/root", "vg/wide", "vg/raid", "vg/mirror", "vg/stacked"]);
    }
}
