//! Thin volumes: pools whose metadata `thin_restore` wrote, in groups that LVM2 checked.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::sync::Arc;

use aiv_filesystems::{LogicalVolumes, logical_volumes};
use aiv_testkit::Random;
use aiv_testkit::mutants::changes;
use aiv_volume_io::{Extent, Job, MemDisk, ReadAt};

use crate::ext_tools::MIB;
use crate::lvm_inside::{VISIBLE, linear, logical, with};
use crate::lvm_tools::{Lvm, edit_text};
use crate::tools::{Volume, noise, run};

/// Bytes of a block of the pool.
const CHUNK: usize = 64 << 10;
/// Blocks of the pool.
const CHUNKS: u64 = 40 * 16;
/// Mebibytes, which are extents, of a thin volume: more than the pool has.
const THIN: u64 = 100;

/// Blocks of a volume, and those of the pool they are in.
type Map = BTreeMap<u64, u64>;

/// What `thin_restore` reads.
fn xml(maps: &BTreeMap<u64, Map>) -> String {
    let mut text = format!(
        "<superblock uuid=\"\" time=\"2\" transaction=\"1\" flags=\"0\" version=\"2\" \
         data_block_size=\"128\" nr_data_blocks=\"{CHUNKS}\">\n"
    );
    for (device, map) in maps {
        let count = map.len();
        writeln!(
            text,
            "<device dev_id=\"{device}\" mapped_blocks=\"{count}\" transaction=\"0\" \
             creation_time=\"0\" snap_time=\"1\">"
        )
        .unwrap();
        for (n, (from, to)) in map.iter().enumerate() {
            let time = n % 3;
            writeln!(
                text,
                "<single_mapping origin_block=\"{from}\" data_block=\"{to}\" time=\"{time}\"/>"
            )
            .unwrap();
        }
        text += "</device>\n";
    }
    text + "</superblock>\n"
}

/// A group with a pool of these volumes, of which each has a logical volume `thinN`; its data is
/// noise.
struct Pool {
    lvm: Lvm,
    data: Vec<u8>,
    /// Where the metadata is on the disk.
    metadata: Extent,
}

impl Pool {
    fn new(maps: &BTreeMap<u64, Map>, shown: &[u64], more: &str) -> Self {
        let pool = "extent_count = 40\ntype = \"thin-pool\"\nmetadata = \"pool_tmeta\"\n\
                    pool = \"pool_tdata\"\ntransaction_id = 1\nchunk_size = 128\n\
                    discards = \"passdown\"\nzero_new_blocks = 1";
        let mut volumes = vec![
            logical("pool", VISIBLE, pool),
            logical("pool_tdata", "", &linear(40, 0, 5)),
            logical("pool_tmeta", "", &linear(2, 0, 2)),
        ];
        for device in shown {
            let segment = format!(
                "extent_count = {THIN}\ntype = \"thin\"\nthin_pool = \"pool\"\n\
                 transaction_id = 0\ndevice_id = {device}{more}"
            );
            volumes.push(logical(&format!("thin{device}"), VISIBLE, &segment));
        }
        let lvm = with(&[50 * MIB], &volumes);
        let described = Volume::new(0);
        fs::write(&described.path, xml(maps)).unwrap();
        let made = Volume::new(2 * MIB);
        run("thin_restore", &["-q", "-i", described.path(), "-o", made.path()]);
        lvm.fill("pool_tmeta", &made);
        let data = noise(11, usize::try_from(CHUNKS).unwrap() * CHUNK);
        let filled = Volume::new(0);
        fs::write(&filled.path, &data).unwrap();
        lvm.fill("pool_tdata", &filled);
        let metadata = lvm.places("pool_tmeta")[0].1;
        Self { lvm, data, metadata }
    }

    fn chunk(&self, number: u64) -> &[u8] {
        &self.data[usize::try_from(number).unwrap() * CHUNK..][..CHUNK]
    }
}

fn opened(disk: Arc<dyn ReadAt>) -> LogicalVolumes {
    logical_volumes(&[disk], Job::silent()).unwrap()
}

fn bytes_of(found: &LogicalVolumes, name: &str) -> Result<Arc<dyn ReadAt>, String> {
    let name = format!("vg/{name}");
    found.volumes.iter().find(|volume| volume.name == name).unwrap().bytes.clone()
}

/// Every block of a volume is what the map says.
fn check(pool: &Pool, bytes: &dyn ReadAt, map: &Map) {
    assert_eq!(bytes.len(), THIN * MIB);
    let mut out = vec![0; CHUNK];
    let mut zeros = 0;
    for number in 0..bytes.len() / CHUNK as u64 {
        out.fill(7);
        bytes.read_exact_at(&mut out, number * CHUNK as u64).unwrap();
        match map.get(&number) {
            Some(place) => assert!(out == pool.chunk(*place), "block {number}"),
            None => {
                assert!(out.iter().all(|byte| *byte == 0), "block {number}");
                zeros += CHUNK as u64;
            }
        }
    }
    let holes = bytes.holes(Extent::new(0, bytes.len())).unwrap();
    assert_eq!(holes.iter().map(|hole| hole.len).sum::<u64>(), zeros);
    // Across blocks, from the middle of one into another.
    let mut all = vec![0; 5 * CHUNK];
    bytes.read_exact_at(&mut all, 0).unwrap();
    let mut part = vec![0; 2 * CHUNK + 10];
    bytes.read_exact_at(&mut part, CHUNK as u64 - 5).unwrap();
    assert!(part == all[CHUNK - 5..][..part.len()]);
    assert!(bytes.read_exact_at(&mut [0; 2], bytes.len() - 1).is_err());
}

/// Each block of the pool in one place of one volume, where `pick` says.
fn scattered(seed: u64, count: usize) -> Map {
    let mut random = Random::new(&[seed]);
    let mut map = Map::new();
    while map.len() < count {
        let to = random.next() % CHUNKS;
        map.insert(random.next() % (THIN * 16), to);
    }
    map
}

#[test]
fn thin_volumes_and_their_snapshots_have_the_blocks_that_their_pool_maps() {
    let origin: Map = (0..200).map(|n| (n + n / 50, n)).collect();
    let mut snapshot = origin.clone();
    snapshot.extend((10..20).map(|n| (n, n + 300)));
    snapshot.remove(&30);
    let maps = BTreeMap::from([(1, origin), (2, snapshot), (7, Map::new())]);
    let pool = Pool::new(&maps, &[1, 2, 7, 8], "");
    let found = opened(Arc::new(pool.lvm.disks[0].open()));
    let names: Vec<_> = found.volumes.iter().map(|volume| volume.name.as_str()).collect();
    assert_eq!(names, ["vg/thin1", "vg/thin2", "vg/thin7", "vg/thin8", "vg/root"]);
    for (device, map) in &maps {
        check(&pool, &*bytes_of(&found, &format!("thin{device}")).unwrap(), map);
    }
    assert_eq!(bytes_of(&found, "thin8").err().unwrap(), "its pool does not know it");
}

#[test]
fn trees_of_several_levels_are_gone_down() {
    let mut maps: BTreeMap<u64, Map> = (100..700).map(|device| (device, Map::new())).collect();
    maps.insert(3, scattered(1, 600));
    maps.insert(400, scattered(2, 300));
    maps.insert(9000, scattered(3, 40));
    let pool = Pool::new(&maps, &[3, 400, 9000, 699], "");
    let found = opened(Arc::new(pool.lvm.disks[0].open()));
    for device in [3, 400, 9000, 699] {
        check(&pool, &*bytes_of(&found, &format!("thin{device}")).unwrap(), &maps[&device]);
    }
}

#[test]
fn what_is_not_read_of_a_pool_has_a_reason() {
    let maps = BTreeMap::from([(1, scattered(1, 100))]);
    let pool = Pool::new(&maps, &[1], "");
    let why = |disk: &Volume| bytes_of(&opened(Arc::new(disk.open())), "thin1").err().unwrap();
    let edited = |from: &str, to: &str| {
        let disk = pool.lvm.disks[0].duplicate();
        edit_text(&disk, |text| text.replacen(from, to, 1));
        why(&disk)
    };
    for (from, to, reason) in [
        (
            "device_id = 1",
            "device_id = 1\nexternal_origin = \"root\"",
            "origin outside of its pool",
        ),
        ("device_id = 1", "device_id = 1\nmerge = \"root\"", "merged"),
        ("device_id = 1", "device_id = 1\nanother = 1", "unknown property \"another\""),
        ("thin_pool = \"pool\"", "thin_pool = \"root\"", "its pool is none"),
        ("thin_pool = \"pool\"", "thin_pool = \"nobody\"", "no pool \"nobody\""),
        ("chunk_size = 128", "chunk_size = 256", "blocks of another length"),
        ("zero_new_blocks = 1", "zero_new_blocks = 1\nanother = 1", "unknown property \"another\""),
        ("pool = \"pool_tdata\"", "pool = \"gone\"", "no logical volume \"gone\" (of its pool)"),
    ] {
        let why = edited(from, to);
        assert!(why.contains(reason), "{to}: {why}");
    }
    // Records of the pool.
    let disk = fs::read(&pool.lvm.disks[0].path).unwrap();
    let record = |number: u64, at: u64| {
        let mut changed = disk.clone();
        changed[usize::try_from(pool.metadata.start + number * 4096 + at).unwrap()] ^= 0xa5;
        bytes_of(&opened(Arc::new(MemDisk::from_bytes(changed))), "thin1")
    };
    let broken = record(0, 100).err().unwrap();
    assert!(broken.contains("checksum"), "{broken}");
    // A volume one of whose nodes is damaged is one of which some cannot be read, or all.
    let lost = (1..12).filter(|number| {
        let Ok(bytes) = record(*number, 50) else { return true };
        let mut out = [0; 512];
        let blocks = 0..bytes.len() / CHUNK as u64;
        blocks.map(|n| n * CHUNK as u64).any(|at| bytes.read_exact_at(&mut out, at).is_err())
    });
    assert!(lost.count() >= 2);
}

fn attack(cases: std::ops::Range<u64>) {
    let maps = BTreeMap::from([(1, scattered(1, 400)), (2, scattered(2, 5))]);
    let pool = Pool::new(&maps, &[1, 2], "");
    let disk = fs::read(&pool.lvm.disks[0].path).unwrap();
    let start = usize::try_from(pool.metadata.start).unwrap();
    let original = MemDisk::from_bytes(disk.clone());
    let is_node = |at: &usize| disk[*at..*at + 4] != [0; 4];
    let nodes: Vec<usize> = (start..start + (2 << 20)).step_by(4096).filter(is_node).collect();
    let records: Vec<Extent> = nodes.iter().map(|at| Extent::new(*at as u64, 600)).collect();
    let (mut opens, mut refused) = (0, 0);
    for seed in cases {
        let mut bytes = disk.clone();
        for (at, byte) in changes(&mut Random::new(&[seed]), &original, &records) {
            bytes[usize::try_from(at).unwrap()] = byte;
        }
        // Checksums are mended: what a node says is looked at.
        for at in &nodes {
            let sum = if *at == start { 160_774 } else { 121_107 };
            let sum = !crc32c::crc32c(&bytes[at + 4..at + 4096]) ^ sum;
            bytes[*at..at + 4].copy_from_slice(&sum.to_le_bytes());
        }
        let found = opened(Arc::new(MemDisk::from_bytes(bytes)));
        for name in ["thin1", "thin2"] {
            let Ok(bytes) = bytes_of(&found, name) else {
                refused += 1;
                continue;
            };
            opens += 1;
            let mut out = vec![0; 4096];
            for at in (0..THIN).map(|mib| mib * MIB) {
                let _ = bytes.read_exact_at(&mut out, at);
            }
            let _ = bytes.holes(Extent::new(0, bytes.len()));
        }
    }
    assert!(opens > 10 && refused > 5, "{opens} {refused}");
}

/// So many.
const CASES: u64 = 100;

#[test]
fn changed_pools_neither_panic_nor_last() {
    attack(0..CASES);
}
