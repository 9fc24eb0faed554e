//! Volumes inside of others: the metadata of LVM2 and of its pools of thin volumes, superblocks of md,
//! headers of LUKS, their checksums mended.

mod arrays;
mod luks;
mod thin;

use std::sync::Arc;

use aiv_filesystems::logical_volumes;
use aiv_volume_io::{Extent, Job, MemDisk, ReadAt};

use crate::Family;

/// Bytes of the physical volume, and of the RAID member.
const DISK: usize = 2 << 20;
/// Where the metadata area begins, and its text within.
const AREA: usize = 4096;
const TEXT: usize = 512;
const AREA_LEN: usize = 1 << 20;
const ID: &[u8; 32] = b"aaaaaabbbbccccddddeeeeffffgggggg";

/// What the first byte says: the text of a volume group, a superblock of md, one for all members of an
/// array, one for each, a LUKS volume, the metadata of a pool of thin volumes, or one of the three of md
/// again, of format 0.90.
pub fn layers(data: &[u8]) -> bool {
    const PARSERS: [fn(&[u8]) -> bool; 9] = [
        group,
        arrays::member,
        arrays::alike,
        arrays::each,
        luks::volume,
        thin::pool,
        arrays::old_member,
        arrays::old_alike,
        arrays::old_each,
    ];
    let Some((kind, rest)) = data.split_first() else { return false };
    PARSERS[usize::from(*kind) % PARSERS.len()](rest)
}

/// Reads what is at either end, and asks for holes; whether all of that could be read.
fn read_ends(bytes: &dyn ReadAt) -> bool {
    let mut out = [0; 4096];
    let count = out.len().min(usize::try_from(bytes.len()).unwrap_or(4096));
    let mut is_read = true;
    for at in [0, bytes.len() - count as u64] {
        is_read &= bytes.read_exact_at(&mut out[..count], at).is_ok();
    }
    let holes = bytes.holes(Extent::new(0, bytes.len()));
    is_read &= holes.is_ok();
    for hole in holes.unwrap_or_default() {
        assert!(hole.end() <= bytes.len() && !hole.is_empty(), "{hole:?} of {}", bytes.len());
    }
    is_read
}

fn of_bytes(disk: Vec<u8>) -> Arc<dyn ReadAt> {
    Arc::new(MemDisk::from_bytes(disk))
}

fn physical_volume(text: &[u8]) -> Vec<u8> {
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
    disk
}

fn group(text: &[u8]) -> bool {
    let text = &text[..text.len().min(AREA_LEN - 2 * TEXT)];
    let disk = of_bytes(physical_volume(text));
    let Ok(found) = logical_volumes(&[disk], Job::silent()) else { return false };
    for volume in found.volumes {
        assert!(volume.name.split('/').count() == 2 && !volume.name.contains(".."));
        let Ok(bytes) = volume.bytes else { continue };
        assert_eq!(bytes.len(), volume.len);
        assert!(read_ends(&*bytes), "it lies on the disk");
        let spans = volume.spans.unwrap_or_default();
        assert!(spans.iter().all(|span| span.extent.end() <= DISK as u64));
    }
    // With its sums right the text is what was looked at.
    !text.is_empty()
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

/// The text of a group: names, whether they are shown, and the one segment of each.
fn text_of(volumes: &[(&str, bool, String)]) -> String {
    let mut text = String::from(
        "contents = \"Text Format Volume Group\"\nversion = 1\nvg {\nid = \"one\"\nseqno = 3\n\
         format = \"lvm2\"\nstatus = [\"RESIZEABLE\", \"READ\", \"WRITE\"]\nflags = []\n\
         extent_size = 8\nphysical_volumes {\npv0 {\n\
         id = \"aaaaaa-bbbb-cccc-dddd-eeee-ffff-gggggg\"\nstatus = [\"ALLOCATABLE\"]\nflags = []\n\
         dev_size = 4096\npe_start = 2056\npe_count = 200\n}\n}\nlogical_volumes {\n",
    );
    for (name, shown, segment) in volumes {
        let shown = if *shown { ", \"VISIBLE\"" } else { "" };
        text += &format!(
            "{name} {{\nid = \"{name}\"\nstatus = [\"READ\", \"WRITE\"{shown}]\nflags = []\n\
             segment_count = 1\nsegment1 {{\nstart_extent = 0\n{segment}\n}}\n}}\n"
        );
    }
    text + "}\n}\n"
}

/// A group with a volume of every kind that is read but thin ones.
fn group_text() -> String {
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
    text_of(&volumes)
}

/// One for each kind of metadata.
pub(crate) const FAMILIES: &[Family] = &[
    Family {
        name: "lvm",
        seeds: || of_kind(0, [group_text(), thin::text()].map(String::into_bytes)),
    },
    Family {
        name: "md",
        seeds: || {
            let [member, alike, each] = arrays::seeds();
            let new = [of_kind(1, member), of_kind(2, alike), of_kind(3, each)].concat();
            let [member, alike, each] = arrays::old_seeds();
            let old = [of_kind(6, member), of_kind(7, alike), of_kind(8, each)].concat();
            [new, old].concat()
        },
    },
    Family { name: "luks", seeds: || of_kind(4, luks::seeds()) },
    Family { name: "thin", seeds: || of_kind(5, thin::seeds()) },
];

/// Of all of them.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    FAMILIES.iter().flat_map(|family| (family.seeds)()).collect()
}

fn of_kind(kind: u8, seeds: impl IntoIterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
    seeds.into_iter().map(|seed| [&[kind], seed.as_slice()].concat()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_has_every_volume_that_is_read() {
        let seed = seeds().remove(0);
        assert!(layers(&seed));
        let found =
            logical_volumes(&[of_bytes(physical_volume(&seed[1..]))], Job::silent()).unwrap();
        let opened = found.volumes.iter().filter(|volume| volume.bytes.is_ok());
        let names: Vec<_> = opened.map(|volume| volume.name.as_str()).collect();
        assert_eq!(names, ["vg/root", "vg/wide", "vg/raid", "vg/mirror", "vg/stacked"]);
    }
}
