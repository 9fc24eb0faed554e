//! Bytes of an attacker: thousands of mutants of each format, with right checksums. No panic, no
//! endless loop, no memory or reads without bound, and nothing past the end of the disk.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use aiv_disk_formats::{DiskImage, Format};
use aiv_volume_io::{Extent, ReadAt};
use proptest::prelude::*;

use crate::tools::{GIB, MIB, Scratch};
use crate::vhdx_maker::{Write, log_entry, log_place, regions, seal, set_log_id};

/// An image in memory, the places its reader looks at to find the rest, and what makes a changed
/// image pass its checksums.
struct Seed {
    format: Format,
    bytes: Arc<Vec<u8>>,
    records: Vec<Extent>,
    reseal: fn(&mut Mutant),
}

/// The bytes of a seed with some changed.
#[derive(Clone)]
struct Mutant {
    bytes: Arc<Vec<u8>>,
    changes: BTreeMap<u64, u8>,
    seen: Arc<Mutex<Vec<Extent>>>,
    read: Arc<AtomicU64>,
}

impl Mutant {
    fn new(bytes: Arc<Vec<u8>>) -> Self {
        Self { bytes, changes: BTreeMap::new(), seen: Arc::default(), read: Arc::default() }
    }

    fn get(&self, at: u64, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        self.read_exact_at(&mut out, at).unwrap();
        out
    }

    fn put(&mut self, at: u64, bytes: &[u8]) {
        self.changes.extend((at..).zip(bytes.iter().copied()));
    }
}

impl ReadAt for Mutant {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let range = Extent::new(offset, out.len() as u64);
        let from = usize::try_from(offset).map_err(io::Error::other)?;
        let found = self.bytes.get(from..).and_then(|rest| rest.get(..out.len()));
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        for (at, byte) in self.changes.range(range.start..range.end()) {
            out[(at - offset) as usize] = *byte;
        }
        self.read.fetch_add(range.len, Ordering::Relaxed);
        self.seen.lock().unwrap().push(range);
        Ok(())
    }
}

impl Seed {
    fn new(format: Format, bytes: Vec<u8>, reseal: fn(&mut Mutant)) -> Self {
        let mutant = Mutant::new(Arc::new(bytes));
        let disk = DiskImage::of_bytes(Arc::new(mutant.clone()), format).unwrap();
        disk.holes(Extent::new(0, disk.len())).unwrap();
        let mut records = std::mem::take(&mut *mutant.seen.lock().unwrap());
        records.sort();
        records.dedup();
        let bytes = mutant.bytes;
        Self { format, bytes, records, reseal }
    }

    /// Length of the disk; `None` when the image is refused.
    fn check(&self, changes: &[(u64, u8)]) -> Option<u64> {
        let mut mutant = Mutant::new(self.bytes.clone());
        mutant.changes.extend(changes.iter().copied());
        (self.reseal)(&mut mutant);
        mutant.read.store(0, Ordering::Relaxed);
        mutant.seen.lock().unwrap().clear();
        let disk = DiskImage::of_bytes(Arc::new(mutant.clone()), self.format).ok()?;
        let len = disk.len();
        assert!(disk.files().is_empty());
        let ends = [Extent::new(0, GIB), Extent::between(len.saturating_sub(GIB), len)];
        for range in ends {
            let Ok(holes) = disk.holes(range) else { continue };
            assert!(holes.windows(2).all(|pair| pair[0].end() < pair[1].start), "not ascending");
            let is_inside = |hole: &Extent| hole.end() <= len && range.contains(*hole);
            assert!(holes.iter().all(is_inside) && holes.len() <= 1 << 17, "holes outside");
        }
        let mut out = vec![0; 70_001];
        let mut at = 0;
        while at < len.min(4 * MIB) {
            let count = out.len().min((len - at) as usize);
            // What reads as an error is none; what reads is bytes.
            let _ = disk.read_exact_at(&mut out[..count], at);
            at += count as u64;
        }
        for at in [len / 2, len.saturating_sub(512)] {
            let _ = disk.read_exact_at(&mut out[..512.min((len - at) as usize)], at);
        }
        assert!(disk.read_exact_at(&mut [0; 2], len.saturating_sub(1)).is_err());
        let read = mutant.read.load(Ordering::Relaxed);
        assert!(read < 256 * MIB, "{read} bytes read");
        Some(len)
    }
}

fn made(options: &str, name: &str) -> Vec<u8> {
    let scratch = Scratch::new();
    scratch.raw("source.raw", 3 * MIB + 512);
    scratch.run(&format!("qemu-img convert -f raw {options} source.raw {name}"));
    std::fs::read(scratch.path(name)).unwrap()
}

static QCOW2: LazyLock<Vec<Seed>> = LazyLock::new(|| {
    [
        "-O qcow2",
        "-O qcow2 -c -o cluster_size=4k",
        "-O qcow2 -c -o compression_type=zstd",
        "-O qcow2 -o extended_l2=on,cluster_size=16k",
        "-O qcow2 -o cluster_size=512",
        "-O qcow2 -o compat=0.10",
    ]
    .map(|options| Seed::new(Format::Qcow2, made(options, "disk.qcow2"), |_| {}))
    .into()
});

static VMDK: LazyLock<Vec<Seed>> = LazyLock::new(|| {
    ["monolithicSparse", "streamOptimized"]
        .map(|kind| made(&format!("-O vmdk -o subformat={kind}"), "disk.vmdk"))
        .map(|bytes| Seed::new(Format::Vmdk, bytes, |_| {}))
        .into()
});

static VHD: LazyLock<Vec<Seed>> = LazyLock::new(|| {
    ["fixed", "dynamic"]
        .map(|kind| made(&format!("-O vpc -o subformat={kind},force_size=on"), "disk.vhd"))
        .map(|bytes| Seed::new(Format::Vhd, bytes, reseal_vhd))
        .into()
});

fn reseal_vhd(mutant: &mut Mutant) {
    for (start, len, sum_at) in [(0, 512, 64), (512, 1024, 36), (mutant.len() - 512, 512, 64)] {
        let mut record = mutant.get(start, len);
        record[sum_at..sum_at + 4].fill(0);
        let sum = !record.iter().fold(0u32, |sum, byte| sum.wrapping_add(u32::from(*byte)));
        mutant.put(start + sum_at as u64, &sum.to_be_bytes());
    }
}

static VHDX: LazyLock<Vec<Seed>> = LazyLock::new(|| {
    let clean = made("-O vhdx -o block_size=1M,log_size=1M", "disk.vhdx");
    let scratch = Scratch::new();
    let path = scratch.path("disk.vhdx");
    std::fs::write(&path, &clean).unwrap();
    let ((table, _), (log, _)) = (regions(&path), log_place(&path));
    let good = clean[table as usize..][..4096].to_vec();
    let writes = [Write::Zero(table, 8192), Write::Data(table, good)];
    scratch.patch("disk.vhdx", log, &log_entry([7; 16], 5, 0, clean.len() as u64, &writes));
    set_log_id(&path, [7; 16]);
    let dirty = std::fs::read(&path).unwrap();
    [clean, dirty].map(|bytes| Seed::new(Format::Vhdx, bytes, reseal_vhdx)).into()
});

fn reseal_vhdx(mutant: &mut Mutant) {
    let kib = 1 << 10;
    // Two headers, two region tables, and the entry at the front of the log.
    let log = u64::from_le_bytes(mutant.bytes[(64 << 10) + 72..][..8].try_into().unwrap());
    for (start, len) in
        [(64 * kib, 4096), (128 * kib, 4096), (192 * kib, 65536), (256 * kib, 65536), (log, 8192)]
    {
        let mut record = mutant.get(start, len);
        if start != log || record.starts_with(b"loge") {
            seal(&mut record);
            mutant.put(start + 4, &record[4..8]);
        }
    }
}

/// Which seed, and which bytes of its records become what. Most fields lie at the front of a
/// record.
fn changes()
-> impl Strategy<Value = (prop::sample::Index, Vec<(prop::sample::Index, u64, bool, u8)>)> {
    let value =
        prop_oneof![Just(0), Just(1), Just(2), Just(0x7f), Just(0x80), Just(0xff), any::<u8>()];
    let change = (any::<prop::sample::Index>(), 0u64..1 << 20, any::<bool>(), value);
    (any::<prop::sample::Index>(), prop::collection::vec(change, 1..5))
}

fn mutate(
    seeds: &[Seed],
    which: prop::sample::Index,
    list: Vec<(prop::sample::Index, u64, bool, u8)>,
) -> Option<u64> {
    let seed = which.get(seeds);
    let place = |(range, at, front, value): (prop::sample::Index, u64, bool, u8)| {
        let range = *range.get(&seed.records);
        let len = if front { range.len.min(128) } else { range.len };
        (range.start + at % len.max(1), value)
    };
    let changes: Vec<(u64, u8)> = list.into_iter().map(place).collect();
    seed.check(&changes)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn mutated_qcow2((which, list) in changes()) {
        let _ = mutate(&QCOW2, which, list);
    }

    #[test]
    fn mutated_vmdk((which, list) in changes()) {
        let _ = mutate(&VMDK, which, list);
    }

    #[test]
    fn mutated_vhd((which, list) in changes()) {
        let _ = mutate(&VHD, which, list);
    }

    #[test]
    fn mutated_vhdx((which, list) in changes()) {
        let _ = mutate(&VHDX, which, list);
    }

    #[test]
    fn arbitrary_bytes_behind_a_sound_front(
        which in 0..8usize,
        noise in any::<u64>(),
        kept in prop_oneof![0usize..600, 600usize..300_000],
        len in 0usize..400_000,
    ) {
        let seeds = [&QCOW2[0], &QCOW2[1], &QCOW2[3], &VMDK[0], &VMDK[1], &VHD[1], &VHDX[0], &VHDX[1]];
        let seed = seeds[which];
        let mut bytes = crate::tools::noise(noise, len);
        let kept = kept.min(len).min(seed.bytes.len());
        bytes[..kept].copy_from_slice(&seed.bytes[..kept]);
        let seed = Seed {
            format: seed.format,
            bytes: Arc::new(bytes),
            records: Vec::new(),
            reseal: |_| {},
        };
        let _ = seed.check(&[]);
    }

    #[test]
    fn arbitrary_descriptors(text in "(RW|CID|#| |=|\"|[0-9]{1,20}|FLAT|SPARSE|ZERO|\n|\\PC){0,60}") {
        let bytes = format!("# Disk DescriptorFile\nCID=1\n{text}").into_bytes();
        let _ = DiskImage::of_bytes(Arc::new(aiv_volume_io::MemDisk::from_bytes(bytes)), Format::Vmdk);
    }
}

#[test]
fn the_seeds_are_sound_and_each_parser_can_refuse() {
    for (seeds, at, value) in [(&QCOW2, 23, 30), (&VMDK, 20, 3), (&VHD, 8, 0), (&VHDX, 0, 0)] {
        for seed in seeds.iter() {
            assert!(seed.check(&[]).unwrap() >= 3 * MIB, "{}", seed.format);
            assert!(!seed.records.is_empty());
            // For a VHD, the footer at the end says what kind of disk it is.
            let at =
                if seed.format == Format::Vhd { seed.bytes.len() as u64 - 512 + 12 } else { at };
            if seed.format == Format::Vhd {
                assert!(seed.check(&[(at, 9), (12, 9)]).is_none());
            } else {
                assert!(seed.check(&[(at, value)]).is_none(), "{}", seed.format);
            }
        }
    }
}
