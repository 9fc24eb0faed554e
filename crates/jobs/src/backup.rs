//! One image per source, all in one group.

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aiv_backup_engine::{
    BackupIds, BackupOptions, BackupPlan, BackupReport, RateLimit, machine_inventory,
};
use aiv_image_format::GroupId;
use aiv_volume_io::{DirStorage, Job, device};

use crate::error::{Error, Refusal, Result};
use crate::source::Source;
use crate::world::World;

/// A backup of one or several sources into one folder.
#[derive(Debug, Clone)]
pub struct BackupJob {
    /// What people call the source, instead of the name it was found by.
    pub name: Option<String>,
    /// Identity of the source, instead of the one found on it.
    pub source_id: Option<String>,
    /// How each image is made.
    pub options: BackupOptions,
    /// Bytes read of each source per second, at most.
    pub rate_limit: Option<NonZeroU64>,
}

/// What became of all sources.
#[derive(Debug)]
pub struct Backups {
    /// The folder with the images.
    pub folder: PathBuf,
    /// Ties the images together.
    pub group: GroupId,
    /// One result per source that was begun, in their order.
    pub results: Vec<Result<BackupDone>>,
}

/// What became of one source.
#[derive(Debug, Clone)]
pub struct BackupDone {
    /// What was captured.
    pub plan: BackupPlan,
    /// What was done.
    pub report: BackupReport,
    /// How long it took.
    pub elapsed: Duration,
}

impl BackupJob {
    /// Backs up each of `sources` into the folder `to`, in order; it is created when only its last
    /// part is missing. A source that fails does not keep the others from being backed up; the
    /// stop button of `job` does, and is the last result then.
    ///
    /// # Errors
    /// When not even the first can be begun: [`Refusal::OneNameForMany`], [`Error::Folder`],
    /// [`Error::Random`].
    pub fn run(
        &self,
        sources: &[PathBuf],
        to: &Path,
        world: &dyn World,
        job: Job<'_>,
    ) -> Result<Backups> {
        if sources.len() > 1 && (self.name.is_some() || self.source_id.is_some()) {
            return Err(Refusal::OneNameForMany.into());
        }
        let folder = DirStorage::open_or_create(to)
            .map_err(|source| Error::Folder { path: to.to_path_buf(), source })?;
        let group = GroupId(random(world)?);
        let mut results = Vec::new();
        for source in sources {
            let result = self.one(source, &folder, group, world, job);
            let is_canceled = result.as_ref().is_err_and(Error::is_canceled);
            results.push(result);
            if is_canceled {
                break;
            }
        }
        Ok(Backups { folder: folder.path().to_path_buf(), group, results })
    }

    fn one(
        &self,
        word: &Path,
        folder: &DirStorage,
        group: GroupId,
        world: &dyn World,
        job: Job<'_>,
    ) -> Result<BackupDone> {
        let (root, clock) = (world.root(), world.clock());
        let started = clock.now();
        let Source { disk, mut facts, made_of } = Source::open(root, word)?;
        for part in &made_of {
            if device::holds_path(root, part, folder.path())? {
                return Err(Refusal::DestinationOnSource.into());
            }
        }
        facts.source_id.clone_from(&self.source_id);
        facts.name = self.name.clone().unwrap_or(facts.name);
        let plan = BackupPlan::new(&*disk, facts, self.options.clone(), job)?;
        let ids = BackupIds::new(&random(world)?, group, world.now_unix_ms());
        let limit = self.rate_limit.map(|rate| RateLimit { bytes_per_second: rate, clock });
        let machine = machine_inventory(root);
        let report = plan.apply(&*disk, folder, &ids, &machine, limit, job)?;
        // A folder without it is only slower to look through.
        let _ = report.remember(folder, job);
        let elapsed = clock.now().saturating_sub(started);
        Ok(BackupDone { plan, report, elapsed })
    }
}

/// Bytes that never come again.
fn random<const N: usize>(world: &dyn World) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    world.fill_random(&mut bytes).map_err(Error::Random)?;
    Ok(bytes)
}
