//! A folder that lives through random operations, with the model beside it.

use std::collections::BTreeSet;
use std::time::Duration;

use aiv_backup_engine::{
    BackupIds, BackupOptions, BackupPlan, BackupReport, Basis, BlockSize, Compression, Sectors,
    SourceFacts,
};
use aiv_chain::{
    ConsolidateOptions, ConsolidationPlan, Folder, Keep, MergeIds, MergeOptions, PointId, archive,
    move_set,
};
use aiv_image_format::GroupId;
use aiv_image_format::limits::SEGMENT_BYTES_MIN;
use aiv_image_format::meta::Inventory;
use aiv_testkit::{MemStorage, Random};
use aiv_volume_io::{Job, MemDisk, Storage};

use super::disk::BLOCK;
use super::oracle::Oracle;
use super::said;

/// What a backup of the model's one disk is made with.
pub(crate) struct Maker {
    seed: u64,
    /// Numbers the operations, for ids that never repeat.
    taken: u64,
}

impl Maker {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, taken: 0 }
    }

    /// Bytes that never come again in this program.
    pub(crate) fn random<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.taken += 1;
        Random::new(&[self.seed, self.taken]).fill(&mut bytes);
        bytes
    }

    /// Time of the operation that took the last random bytes.
    pub(crate) fn now_unix_ms(&self) -> u64 {
        self.taken * 1000
    }

    /// Backs `disk` up into `storage`.
    pub(crate) fn back_up(
        &mut self,
        disk: &[u8],
        storage: &dyn Storage,
        options: BackupOptions,
    ) -> Result<BackupReport, String> {
        let facts = SourceFacts {
            name: "disk".to_owned(),
            host: "model".to_owned(),
            source_id: Some("the one disk".to_owned()),
            ..SourceFacts::default()
        };
        let source = MemDisk::from_bytes(disk.to_vec());
        let plan = BackupPlan::new(&source, facts, options, Job::silent()).map_err(|e| said(&e))?;
        let ids = BackupIds::new(&self.random(), GroupId([7; 16]), self.now_unix_ms());
        let inventory = Inventory::default();
        plan.apply(&source, storage, &ids, &inventory, None, Job::silent()).map_err(|e| said(&e))
    }
}

/// Ids of merged and copied files, from the bytes a maker gives.
pub(crate) fn merge_ids(maker: &mut Maker) -> impl FnMut() -> MergeIds {
    move || {
        let random = maker.random();
        MergeIds::new(&random, maker.now_unix_ms())
    }
}

/// How points are merged in programs.
pub(crate) const CONSOLIDATE: ConsolidateOptions = ConsolidateOptions {
    compression: Compression::Zstd(1),
    parity: false,
    split: None,
    patience: Duration::ZERO,
};

/// Options of a random backup.
pub(crate) fn random_options(random: &mut Random) -> BackupOptions {
    let codecs = [Compression::Zstd(1), Compression::Lz4, Compression::None];
    let bases = [Basis::Newest, Basis::Newest, Basis::Newest, Basis::NewestFull, Basis::Nothing];
    BackupOptions {
        sectors: Sectors::All,
        basis: bases[random.below(bases.len())],
        deltas: random.below(4) > 0,
        compression: codecs[random.below(codecs.len())],
        block_size: u32::try_from(BLOCK).ok().and_then(BlockSize::new),
        ..BackupOptions::default()
    }
}

/// A folder under test, and what must be in it.
pub(crate) struct Scenario {
    pub random: Random,
    pub maker: Maker,
    pub disk: Vec<u8>,
    pub oracle: Oracle,
    /// Points that were acknowledged and that nobody has asked to drop.
    pub promised: BTreeSet<PointId>,
}

impl Scenario {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(&[seed]);
        // A few blocks: what matters is the order of writes, not their number.
        let mut disk = vec![0; 3 * BLOCK + 512];
        random.fill(&mut disk);
        let (maker, oracle) = (Maker::new(seed), Oracle::default());
        Self { random, maker, disk, oracle, promised: BTreeSet::new() }
    }

    /// Changes a page of the disk and backs it up.
    pub(crate) fn back_up(&mut self, storage: &dyn Storage) -> Result<PointId, String> {
        let at = self.random.below(self.disk.len() - 400);
        self.random.fill(&mut self.disk[at..at + 400]);
        let mut options = random_options(&mut self.random);
        options.basis = Basis::Newest;
        // Full images have several segments then, increments mostly one.
        options.split = (self.random.below(3) == 0).then_some(SEGMENT_BYTES_MIN);
        let report = self.maker.back_up(&self.disk, storage, options)?;
        let point = report.recovery_point;
        self.oracle.learn(point, self.disk.clone(), report.state_root);
        self.promised.insert(point);
        Ok(point)
    }

    /// Merges points so that a few of the newest stay. The points that go are given up before
    /// the first write: from then on they may be there or not.
    pub(crate) fn consolidate(
        &mut self,
        storage: &dyn Storage,
        give_up: &dyn Fn(PointId),
    ) -> Result<(), String> {
        let folder = Folder::scan(storage, Job::silent()).map_err(|e| said(&e))?;
        let Some(set) = folder.sets.first() else { return Ok(()) };
        let keep = Keep { newest: 1 + self.random.below(3), ..Keep::default() };
        let plan = ConsolidationPlan::new(storage, set, &keep, Job::silent());
        let plan = plan.map_err(|e| said(&e))?;
        let drops = plan.runs.iter().flat_map(|run| &run.drops).chain(&plan.leftovers);
        for point in drops.map(|dropped| dropped.link.point) {
            self.promised.remove(&point);
            give_up(point);
        }
        let mut ids = merge_ids(&mut self.maker);
        let done = plan.apply(storage, &CONSOLIDATE, &mut ids, Job::silent());
        done.map(drop).map_err(|e| said(&e))
    }

    /// Makes a full image of a point beside its others.
    pub(crate) fn archive(&mut self, storage: &dyn Storage) -> Result<(), String> {
        let folder = Folder::scan(storage, Job::silent()).map_err(|e| said(&e))?;
        let Some(set) = folder.sets.first() else { return Ok(()) };
        let point = &set.points[self.random.below(set.points.len())];
        let mut ids = merge_ids(&mut self.maker);
        let how = MergeOptions { parity: false, compression: Compression::Zstd(1), split: None };
        let done = archive(storage, set, point, storage, how, &mut ids, Job::silent());
        done.map(drop).map_err(|e| said(&e))
    }

    /// Moves all points from the folder of an earlier life into this one.
    pub(crate) fn take_over(
        &mut self,
        from: &MemStorage,
        storage: &dyn Storage,
    ) -> Result<(), String> {
        let folder = Folder::scan(from, Job::silent()).map_err(|e| said(&e))?;
        let Some(set) = folder.sets.first() else { return Ok(()) };
        let mut ids = merge_ids(&mut self.maker);
        let done = move_set(from, set, storage, Duration::ZERO, &mut ids, Job::silent());
        done.map(drop).map_err(|e| said(&e))
    }

    /// A durable chain of so many points to begin with.
    pub(crate) fn begin(&mut self, points: usize) -> Result<MemStorage, String> {
        let storage = MemStorage::new();
        for _ in 0..points {
            self.back_up(&storage)?;
        }
        Ok(storage)
    }
}
