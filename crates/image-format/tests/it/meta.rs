//! META: every section there and back, and sections nobody should write.

use std::sync::Arc;

use aiv_image_format::meta::{
    Capture, Consistency, DiskInfo, Excluded, ExcludedFile, Inventory, Manifest, Meta,
    PartitionInfo, RegionInfo, RegionKind, ReliedOn, SeenTracker, Trackers, VolumeInfo,
};
use aiv_image_format::{Digest, Error, GroupId, ImageWriter, RunKind};
use aiv_testkit::MemStorage;
use aiv_volume_io::{Extent, Storage};
use proptest::prelude::*;

use crate::areas::Areas;
use crate::forge::{section, with_meta_area, with_sections};
use crate::recipe::{Block, Recipe, open, refusal};

const LEN: u64 = 64 * (16 << 10);

fn base() -> Arc<Vec<u8>> {
    // One lost block, so that every section is there.
    Recipe::new(&[(Block::Unreadable, 1), (Block::Zero, 63)]).build()
}

fn manifest() -> impl Strategy<Value = Manifest> {
    let texts = prop::array::uniform5(any::<String>());
    let numbers = (any::<u32>(), any::<u32>(), any::<u64>(), any::<[u8; 16]>());
    let consistency = prop::sample::select(vec![
        Consistency::Offline,
        Consistency::Crash,
        Consistency::Inconsistent,
    ]);
    (texts, numbers, consistency, capture()).prop_map(
        |([host, name, source, source_id, comment], numbers, consistency, capture)| Manifest {
            host,
            name,
            source,
            source_id,
            full_number: numbers.0,
            increment_number: numbers.1,
            group: GroupId(numbers.3),
            time_unix_ms: numbers.2,
            consistency,
            capture,
            comment,
        },
    )
}

fn capture() -> impl Strategy<Value = Capture> {
    prop::sample::select(vec![Capture::Used, Capture::Whole])
}

fn region() -> impl Strategy<Value = (RegionInfo, u64)> {
    let kind = prop::sample::select(vec![
        RegionKind::BootCode,
        RegionKind::Table,
        RegionKind::Gap,
        RegionKind::Partition,
    ]);
    let partition = (any::<[String; 3]>(), any::<u32>(), any::<u64>(), any::<bool>()).prop_map(
        |([type_id, unique_id, name], number, attributes, bootable)| PartitionInfo {
            number,
            type_id,
            unique_id,
            name,
            attributes,
            bootable,
        },
    );
    let volume = (any::<[String; 4]>(), any::<u32>(), any::<u64>(), capture()).prop_map(
        |([filesystem, label, uuid, reason], cluster_size, used_bytes, capture)| VolumeInfo {
            filesystem,
            label,
            uuid,
            cluster_size,
            capture,
            reason,
            used_bytes,
        },
    );
    (kind, prop::option::of(partition), prop::option::of(volume), 1..LEN / 8).prop_map(
        |(kind, partition, volume, len)| {
            (RegionInfo { kind, extent: Extent::new(0, 0), partition, volume }, len)
        },
    )
}

fn disk() -> impl Strategy<Value = DiskInfo> {
    let texts = prop::array::uniform5(any::<String>());
    let problems = prop::collection::vec(any::<String>(), 0..4);
    let regions = prop::collection::vec(region(), 1..8).prop_map(|regions| {
        let mut at = 0;
        let place = |(mut region, len): (RegionInfo, u64)| {
            region.extent = Extent::new(at, len);
            at += len;
            region
        };
        let mut regions: Vec<RegionInfo> = regions.into_iter().map(place).collect();
        if let Some(last) = regions.last_mut() {
            last.extent = Extent::between(last.extent.start, LEN);
        }
        regions
    });
    (texts, any::<u32>(), problems, regions).prop_map(
        |(texts, physical_sector, table_problems, regions)| {
            let [model, serial, wwn, table, table_id] = texts;
            DiskInfo {
                len: LEN,
                logical_sector: 512,
                physical_sector,
                model,
                serial,
                wwn,
                table,
                table_id,
                table_problems,
                regions,
            }
        },
    )
}

fn meta() -> impl Strategy<Value = Meta> {
    let facts = prop::collection::vec(any::<(String, String)>(), 0..6);
    let errors = prop::collection::vec((0..1000u64, 1..1000u64), 0..9).prop_map(|gaps| {
        let mut at = 0;
        let place = |(gap, len)| {
            let extent = Extent::new(at + gap, len);
            at = extent.end();
            extent
        };
        gaps.into_iter().map(place).collect::<Vec<Extent>>()
    });
    (manifest(), disk(), facts, errors, any::<String>(), excluded(), trackers()).prop_map(
        |(manifest, disk, facts, source_errors, specification, excluded, trackers)| Meta {
            manifest,
            disk,
            inventory: Inventory { facts },
            source_errors,
            origins: Vec::new(),
            specification,
            excluded,
            trackers,
        },
    )
}

fn trackers() -> impl Strategy<Value = Trackers> {
    let witnesses = prop::collection::btree_set(any::<u64>(), 0..9);
    let lied_at = prop::option::of(any::<u64>());
    let seen = (any::<[String; 2]>(), any::<[u64; 2]>(), any::<[u8; 32]>(), witnesses, lied_at)
        .prop_map(|([kind, name], [granularity, marked], beneath, witnesses, lied_at)| {
            let (beneath, witnesses) = (Digest(beneath), witnesses.into_iter().collect());
            SeenTracker { kind, name, granularity, beneath, marked, witnesses, lied_at }
        });
    let relied_on = (any::<String>(), any::<[u64; 2]>()).prop_map(|(name, bytes)| {
        let [bytes_skipped, bytes_audited] = bytes;
        ReliedOn { name, bytes_skipped, bytes_audited }
    });
    let seen = prop::collection::vec(seen, 0..3);
    (any::<[u8; 32]>(), seen, prop::option::of(relied_on))
        .prop_map(|(used, seen, relied_on)| Trackers { used: Digest(used), seen, relied_on })
}

fn excluded() -> impl Strategy<Value = Excluded> {
    let extent = (0..1u64 << 19, 1..4096u64).prop_map(|(start, len)| Extent::new(start, len));
    let file = (any::<u64>(), any::<String>(), any::<u64>(), prop::option::of(extent)).prop_map(
        |(volume, path, len, extent)| {
            let extents = extent.into_iter().collect();
            ExcludedFile { volume, path, len, extents }
        },
    );
    let files = prop::collection::vec(file, 0..5);
    let patterns = prop::collection::vec(any::<String>(), 0..3);
    (patterns, files).prop_map(|(patterns, files)| Excluded::of_files(patterns, files))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn every_section_comes_back_as_it_was(meta in meta()) {
        let recipe = Recipe::new(&[(Block::Zero, 64)]);
        let storage = MemStorage::new();
        let file = storage.create("image").unwrap();
        let mut writer = ImageWriter::create(file, recipe.superblock()).unwrap();
        writer.push_run(RunKind::Zero, 64).unwrap();
        writer.finish(meta.clone()).unwrap();
        let image = open(&storage.contents("image").unwrap()).unwrap();
        let origins = vec![recipe.superblock().session];
        prop_assert_eq!(image.meta(), &Meta { origins, ..meta });
    }
}

/// Any bytes, and bytes that look like items.
fn plain() -> impl Strategy<Value = Vec<u8>> {
    let item = (0u16..14, 0u16..3, prop::collection::vec(any::<u8>(), 0..40), -1i64..2)
        .prop_map(|(tag, flags, value, off)| item(tag, flags, &value, off));
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        prop::collection::vec(item, 0..12).prop_map(|items| items.concat()),
    ]
}

/// An item whose length is wrong by `off`.
fn item(tag: u16, flags: u16, value: &[u8], off: i64) -> Vec<u8> {
    let len = u32::try_from((value.len() as i64 + off).max(0)).unwrap();
    let head = [&tag.to_le_bytes()[..], &flags.to_le_bytes(), &len.to_le_bytes()];
    [&head.concat(), value].concat()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn any_bytes_are_a_section_or_an_error(kind in 0u64..9, plain in plain()) {
        let base = base();
        let mut sections = plain_sections(&base);
        match sections.iter_mut().find(|s| s.0 == kind) {
            Some(section) => section.1 = plain,
            None => sections.push((kind, plain)),
        }
        match open(&with_sections(&base, &sections)) {
            Ok(_) => {}
            Err(Error::Corrupt(corrupt)) => {
                prop_assert_eq!(corrupt.section, aiv_image_format::Section::Meta);
            }
            Err(other) => prop_assert!(false, "{}", other),
        }
    }

    #[test]
    fn one_changed_byte_of_a_section_gives_a_value_or_an_error(
        section in 0usize..6, at in any::<prop::sample::Index>(), value in any::<u8>(),
    ) {
        let base = base();
        let mut sections = plain_sections(&base);
        let count = sections.len();
        let plain = &mut sections[section % count].1;
        let at = at.index(plain.len());
        plain[at] = value;
        let opened = open(&with_sections(&base, &sections));
        prop_assert!(matches!(opened, Ok(_) | Err(Error::Corrupt(_))));
    }
}

/// The sections of an image, decoded.
fn plain_sections(image: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let decode = |frame: &crate::areas::Frame| {
        let header = &image[frame.header.clone()];
        let kind = u64::from_le_bytes(header[32..40].try_into().unwrap());
        let payload = &image[frame.payload.clone()];
        let plain_len = u32::from_le_bytes(header[40..44].try_into().unwrap()) as usize;
        let plain = match header[5] {
            2 => zstd::bulk::decompress(payload, plain_len).unwrap(),
            _ => payload.to_vec(),
        };
        (kind, plain)
    };
    Areas::of(image).sections.iter().map(decode).collect()
}

fn changed(change: impl FnOnce(&mut Vec<(u64, Vec<u8>)>)) -> Arc<Vec<u8>> {
    let base = base();
    let mut sections = plain_sections(&base);
    change(&mut sections);
    with_sections(&base, &sections)
}

/// Replaces the section of a type.
fn replaced(kind: u64, plain: Vec<u8>) -> Arc<Vec<u8>> {
    changed(|sections| {
        sections.iter_mut().filter(|s| s.0 == kind).for_each(|s| s.1 = plain.clone());
    })
}

const MANIFEST: u64 = 1;
const DISK: u64 = 2;
const INVENTORY: u64 = 3;
const SOURCE_ERRORS: u64 = 4;
const ORIGINS: u64 = 5;

#[test]
fn sections_stored_as_they_are_read_as_well() {
    let image = open(&changed(|_| {})).expect("only the codec changed");
    assert_eq!(image.meta(), open(&base()).unwrap().meta());
}

#[test]
fn a_section_of_a_later_version_is_skipped() {
    let image = open(&changed(|s| s.push((77, b"whatever".to_vec())))).expect("unknown, unread");
    assert_eq!(image.meta(), open(&base()).unwrap().meta());
}

#[test]
fn a_section_that_is_missing_or_twice_there_is_refused() {
    for (kind, name) in [(MANIFEST, "manifest"), (DISK, "disk"), (ORIGINS, "origins")] {
        let message = refusal(changed(|s| s.retain(|section| section.0 != kind)));
        assert!(message.contains(name) && message.contains("required sections"), "{message}");
    }
    let message = refusal(changed(|s| s.push(s[0].clone())));
    assert!(message.contains("repeated section type is 1, allowed is once"), "{message}");
    let many = refusal(changed(|s| s.extend((100..400).map(|kind| (kind, Vec::new())))));
    assert!(many.contains("META section at byte"), "{many}");
}

#[test]
fn an_unknown_item_is_skipped_only_if_it_says_so() {
    let with = |flags| {
        changed(|sections| {
            sections[0].1.extend(item(999, flags, b"new", 0));
        })
    };
    assert!(open(&with(1)).is_ok());
    let message = refusal(with(0));
    assert!(message.contains("item 999 is unknown and must not be skipped"), "{message}");
    assert!(refusal(with(2)).contains("item flags is 2"));
}

#[test]
fn what_the_lists_of_a_disk_may_hold_is_bounded() {
    let disk = |more: &dyn Fn(usize) -> Vec<u8>, count: usize| {
        let numbers: [(u16, u64); 3] = [(1, LEN), (2, 512), (3, 512)];
        let mut plain = numbers.map(|(tag, n)| item(tag, 0, &n.to_le_bytes(), 0)).concat();
        (0..count).for_each(|n| plain.extend(more(n)));
        replaced(DISK, plain)
    };
    // Regions of one byte each; the last one of `count` reaches to the end of the disk.
    let region = |n: usize, count: usize, partition: Vec<u8>| {
        let len = if n + 1 == count { LEN - n as u64 } else { 1 };
        let numbers = [(1, 3), (2, n as u64), (3, len)]
            .map(|(tag, number): (u16, u64)| item(tag, 0, &number.to_le_bytes(), 0));
        item(10, 0, &[numbers.concat(), partition].concat(), 0)
    };
    let gap = |n| region(n, 8192, Vec::new());
    assert!(open(&disk(&gap, 8192)).unwrap().has_meta());
    assert!(refusal(disk(&gap, 8193)).contains("region count is 8193, allowed is at most 8192"));
    let numbers = [1, 5, 6].map(|tag| item(tag, 0, &[0; 8], 0)).concat();
    let partitions = |count| disk(&|n| region(n, count, item(4, 0, &numbers, 0)), count);
    assert!(open(&partitions(1024)).unwrap().has_meta());
    assert!(refusal(partitions(1025)).contains("partition count is 1025"));
    let problem = |_| item(9, 1, b"", 0);
    assert!(refusal(disk(&problem, 65_537)).contains("table problem count is 65537"));
}

#[test]
fn what_other_lists_may_hold_is_bounded() {
    let fact = item(1, 0, b"", 0);
    let message = refusal(replaced(INVENTORY, fact.repeat(65_537)));
    assert!(message.contains("fact count is 65537, allowed is at most 65536"), "{message}");
    let origin = item(1, 0, &[7; 12], 0);
    assert!(open(&replaced(ORIGINS, origin.repeat(16_384))).unwrap().has_meta());
    assert!(refusal(replaced(ORIGINS, origin.repeat(16_385))).contains("origin count is 16385"));
    assert!(refusal(replaced(ORIGINS, Vec::new())).contains("origin count is 0"));
    assert!(refusal(replaced(ORIGINS, item(1, 0, &[7; 11], 0))).contains("middle of an item"));
    let message = refusal(replaced(INVENTORY, fact.repeat((1 << 20) + 1)));
    assert!(message.contains("item count is 1048577"), "{message}");
}

#[test]
fn ranges_that_cannot_be_are_refused() {
    let errors = |ranges: &[(u64, u64)]| {
        let raw = |&(start, len): &(u64, u64)| [start.to_le_bytes(), len.to_le_bytes()].concat();
        replaced(SOURCE_ERRORS, ranges.iter().flat_map(|r| item(1, 0, &raw(r), 0)).collect())
    };
    assert!(open(&errors(&[(0, 5), (5, LEN - 5)])).unwrap().has_meta());
    assert!(refusal(errors(&[(0, LEN + 1)])).contains("past the end"));
    assert!(refusal(errors(&[(0, u64::MAX)])).contains("past the end"));
    assert!(refusal(errors(&[(u64::MAX, u64::MAX)])).contains("past the end"));
    assert!(refusal(errors(&[(3, 0)])).contains("past the end"));
    assert!(
        refusal(errors(&[(9, 2), (10, 1)])).contains("range start is 10, allowed is ascending")
    );
}

#[test]
fn a_section_larger_than_it_may_be_is_refused_before_it_is_decoded() {
    let zeros = vec![0; (16 << 20) + 1];
    let bomb = zstd::bulk::compress(&zeros, 1).unwrap();
    let message = refusal(with_meta_area(&base(), &section(2, 1, &zeros, &bomb)));
    assert!(message.contains("plain length is 16777217, allowed is at most 16 MiB"), "{message}");
    // A bomb that says it is small.
    let message = refusal(with_meta_area(&base(), &section(2, 1, &zeros[..100], &bomb)));
    assert!(message.contains("does not decode to 100 bytes"), "{message}");
}

#[test]
fn frames_that_are_no_sections_are_refused_in_the_meta_area() {
    let mut frame = section(0, 1, b"text", b"text");
    frame[4] = 1;
    let message = refusal(with_meta_area(&base(), &frame));
    assert!(message.contains("its type and the area do not agree"), "{message}");
}
