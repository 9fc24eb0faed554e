//! One-line backups, and what to expect of the images they make.

use std::io;
use std::num::NonZeroUsize;

use aiv_backup_engine::{
    BackupIds, BackupOptions, BackupPlan, BackupReport, BlockSize, Compression, Error, Result,
    Sectors, SourceFacts,
};
use aiv_chain::{Depth, Digest, Geometry, Kind, View};
use aiv_image_format::meta::Inventory;
use aiv_image_format::{GroupId, hash};
use aiv_testkit::MemStorage;
use aiv_volume_io::{Extent, Job, MemDisk, ReadAt, Storage};

/// The smallest blocks, so that tiny disks have several.
pub(crate) const BLOCK: usize = 16 << 10;

/// Ids of the `n`-th backup of a test; a minute apart.
pub(crate) fn ids(n: u8) -> BackupIds {
    let group = GroupId([n; 16]);
    BackupIds::new(&[n; BackupIds::RANDOM_LEN], group, 1_790_000_000_000 + u64::from(n) * 60_000)
}

pub(crate) fn facts(name: &str) -> SourceFacts {
    SourceFacts {
        label: format!("/dev/{name}"),
        name: name.to_owned(),
        host: "host".to_owned(),
        ..SourceFacts::default()
    }
}

/// Blocks of 16 KiB, compressed fast, checked twice.
pub(crate) fn options() -> BackupOptions {
    BackupOptions {
        compression: Compression::Lz4,
        block_size: BlockSize::new(u32::try_from(BLOCK).unwrap()),
        self_check: true,
        ..BackupOptions::default()
    }
}

pub(crate) fn all_sectors() -> BackupOptions {
    BackupOptions { sectors: Sectors::All, ..options() }
}

pub(crate) fn threads(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).unwrap()
}

pub(crate) fn plan(source: &dyn ReadAt, options: BackupOptions) -> BackupPlan {
    BackupPlan::new(source, facts("disk"), options, Job::silent()).unwrap()
}

pub(crate) fn apply(
    plan: &BackupPlan,
    source: &dyn ReadAt,
    storage: &dyn Storage,
    n: u8,
) -> Result<BackupReport> {
    plan.apply(source, storage, &ids(n), &Inventory::default(), None, Job::silent())
}

/// Plans and carries out the `n`-th backup of `source`.
pub(crate) fn try_backup(
    source: &dyn ReadAt,
    storage: &dyn Storage,
    options: BackupOptions,
    n: u8,
) -> Result<BackupReport> {
    let plan = BackupPlan::new(source, facts("disk"), options, Job::silent())?;
    apply(&plan, source, storage, n)
}

/// A backup into a new folder, and the view of it.
pub(crate) fn backup(source: &dyn ReadAt, options: BackupOptions) -> Made {
    backup_as(facts("disk"), source, options)
}

pub(crate) fn backup_as(facts: SourceFacts, source: &dyn ReadAt, options: BackupOptions) -> Made {
    let storage = MemStorage::new();
    let plan = BackupPlan::new(source, facts, options, Job::silent()).unwrap();
    let report = apply(&plan, source, &storage, 1).unwrap();
    assert_eq!(storage.names(), std::slice::from_ref(&report.image));
    let view = View::open(&storage, &report.image, Job::silent()).unwrap();
    let found = view.image().verify(Depth::Data, Job::silent()).unwrap();
    assert_eq!((found.damage, view.image().damage()), (vec![], &[][..]));
    Made { storage, report, view }
}

pub(crate) struct Made {
    pub(crate) storage: MemStorage,
    pub(crate) report: BackupReport,
    pub(crate) view: View,
}

impl Made {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        read_all(&self.view)
    }

    /// How each block is stored.
    pub(crate) fn kinds(&self) -> Vec<Kind> {
        let stretches = self.view.stretches(0).map(|s| s.unwrap());
        let run = |run| usize::try_from(run).unwrap();
        stretches.flat_map(|s| std::iter::repeat_n(s.kind(), run(s.run()))).collect()
    }
}

/// Every byte, in reads that cross blocks.
pub(crate) fn read_all(source: &dyn ReadAt) -> Vec<u8> {
    try_read_all(source).unwrap()
}

pub(crate) fn try_read_all(source: &dyn ReadAt) -> io::Result<Vec<u8>> {
    const STRIDE: usize = 100_000;
    let mut bytes = vec![0; usize::try_from(source.len()).unwrap()];
    for (part, at) in bytes.chunks_mut(STRIDE).zip((0..).step_by(STRIDE)) {
        source.read_exact_at(part, at)?;
    }
    Ok(bytes)
}

/// The content root by the words of the format document, level by level.
pub(crate) fn content_root(bytes: &[u8], block_size: usize) -> Digest {
    let node = |level: u64, children: &[Digest]| {
        let mut hasher = blake3::Hasher::new_keyed(b"aivory draft: content tree node ");
        hasher.update(&level.to_le_bytes());
        for child in children {
            hasher.update(&child.0);
        }
        Digest(*hasher.finalize().as_bytes())
    };
    let leaf = |block: &[u8]| {
        Digest(*blake3::keyed_hash(b"aivory draft: leaf of one block ", block).as_bytes())
    };
    let mut nodes: Vec<Digest> = bytes.chunks(block_size).map(leaf).collect();
    for level in 1.. {
        nodes = nodes.chunks(128).map(|children| node(level, children)).collect();
        if nodes.len() == 1 {
            break;
        }
    }
    nodes[0]
}

/// The state root of these bytes when every block is in use.
pub(crate) fn content_matches(geometry: &Geometry, bytes: &[u8], root: Digest) -> bool {
    content_root(bytes, geometry.block_size().bytes()) == root
}

/// `bytes` with the fill pattern of unreadable places in `lost`.
pub(crate) fn with_fill(mut bytes: Vec<u8>, lost: &[Extent]) -> Vec<u8> {
    for extent in lost {
        for at in extent.start..extent.end() {
            let at = usize::try_from(at).unwrap();
            bytes[at] = hash::FILL_PATTERN[at % hash::FILL_PATTERN.len()];
        }
    }
    bytes
}

/// A disk without a table whose blocks all differ and compress well.
pub(crate) fn numbered_blocks(count: usize) -> Vec<u8> {
    let block = |n: usize| {
        let mut block = vec![0x55; BLOCK];
        block[..8].copy_from_slice(&(n as u64).to_le_bytes());
        block
    };
    (0..count).flat_map(block).collect()
}

pub(crate) fn disk(bytes: &[u8]) -> MemDisk {
    MemDisk::from_bytes(bytes.to_vec())
}

/// The raw error number inside a failure, wherever it is in the chain.
pub(crate) fn errno(error: &Error) -> Option<i32> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return io.raw_os_error();
        }
        cause = error.source();
    }
    None
}
