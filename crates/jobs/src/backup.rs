//! One image per source, all in one group.

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aiv_backup_engine::{
    BackupIds, BackupOptions, BackupPlan, BackupReport, Clock, HeldSource, Hold, RateLimit,
    SourceFacts, machine_inventory,
};
use aiv_disk_formats::OpenOptions;
use aiv_image_format::GroupId;
use aiv_volume_io::{DirStorage, Job, ReadAt, device};

use crate::error::{Error, FreezeError, Refusal, Result};
use crate::freeze::{Choice, Frozen, choose};
use crate::hooks::{Around, HookReport, Hooks};
use crate::source::{SeenAs, Source};
use crate::world::World;

/// A backup of one or several sources into one folder.
#[derive(Debug, Clone)]
pub struct BackupJob {
    /// What people call the source, instead of the name it was found by.
    pub name: Option<String>,
    /// Identity of the source, instead of the one found on it.
    pub source_id: Option<String>,
    /// What virtual disks are, where the caller knows, and which files they may name.
    pub open: OpenOptions,
    /// How each image is made.
    pub options: BackupOptions,
    /// Bytes read of each source per second, at most.
    pub rate_limit: Option<NonZeroU64>,
    /// How a source that others write to is kept from changing meanwhile, if it is.
    pub still: Option<Still>,
    /// Commands around the moment in which it is; they run only then.
    pub hooks: Hooks,
}

/// How a source is kept from changing while it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Still {
    /// Its mounted filesystems are frozen, for at most this time. A backup that takes longer
    /// fails and leaves no image.
    Freeze(Duration),
}

/// How a source was kept from changing while it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StillReport {
    /// Mount points of the filesystems that were frozen.
    pub frozen: Vec<PathBuf>,
    /// How long.
    pub elapsed: Duration,
    /// The commands of the user.
    pub hooks: Vec<HookReport>,
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
    /// How the source was found.
    pub seen_as: SeenAs,
    /// What was captured.
    pub plan: BackupPlan,
    /// What was done.
    pub report: BackupReport,
    /// How long it took.
    pub elapsed: Duration,
    /// How the source was kept from changing; `None` where nobody could change it, or nothing
    /// was done about it.
    pub still: Option<StillReport>,
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
        let started = world.clock().now();
        let source = Source::open(world.root(), word, &self.open)?;
        for part in &source.made_of {
            if device::holds_path(world.root(), part, folder.path())? {
                return Err(Refusal::DestinationOnSource.into());
            }
        }
        let seen_as = source.seen_as.clone();
        let run = Run { request: self, word, folder, group, world, job };
        let done = match self.still {
            Some(Still::Freeze(limit)) => run.frozen(source, limit),
            None => run.image(&*source.disk, source.facts, None),
        };
        let elapsed = world.clock().now().saturating_sub(started);
        done.map(|done| BackupDone { seen_as, elapsed, ..done })
    }
}

/// One source on its way into an image.
struct Run<'a> {
    request: &'a BackupJob,
    word: &'a Path,
    folder: &'a DirStorage,
    group: GroupId,
    world: &'a dyn World,
    job: Job<'a>,
}

impl Run<'_> {
    fn image(
        &self,
        disk: &dyn ReadAt,
        mut facts: SourceFacts,
        hold: Option<&dyn Hold>,
    ) -> Result<BackupDone> {
        let Self { request, folder, world, job, .. } = *self;
        facts.source_id.clone_from(&request.source_id);
        facts.name = request.name.clone().unwrap_or(facts.name);
        let plan = BackupPlan::new(disk, facts, request.options.clone(), job)?;
        let ids = BackupIds::new(&random(world)?, self.group, world.now_unix_ms());
        let clock = world.clock();
        let limit = request.rate_limit.map(|rate| RateLimit { bytes_per_second: rate, clock });
        let machine = machine_inventory(world.root());
        let source = HeldSource { disk, hold };
        let report = plan.apply_held(source, folder, &ids, &machine, limit, job)?;
        // A folder without it is only slower to look through.
        let _ = report.remember(folder, job);
        let seen_as = SeenAs::default();
        Ok(BackupDone { seen_as, plan, report, elapsed: Duration::ZERO, still: None })
    }

    /// Freezes what could write to `source`, if anything could.
    fn frozen(&self, source: Source, limit: Duration) -> Result<BackupDone> {
        let Self { request, word, world, job, .. } = *self;
        let choice = choose(world.root(), &source.made_of)?;
        if choice.mounts.is_empty() {
            return self.image(&*source.disk, source.facts, None);
        }
        drop(source);
        let around = Around::begin(&request.hooks, word, world.clock(), job)?;
        let result = self.while_frozen(&choice, limit, &around);
        let ((done, elapsed), hooks) = around.end(result)?;
        let still = Some(StillReport { frozen: choice.mounts, elapsed, hooks });
        Ok(BackupDone { still, ..done })
    }

    /// The image, and how long everything was frozen for it.
    fn while_frozen(
        &self,
        choice: &Choice,
        limit: Duration,
        around: &Around<'_>,
    ) -> Result<(BackupDone, Duration)> {
        let Self { request, word, world, .. } = *self;
        let began = world.clock().now();
        let frozen = Frozen::freeze(choice.mounts.clone(), limit, world)?;
        // Only what is read from now on counts: bytes, and who could still write.
        let source = Source::open(world.root(), word, &request.open)?;
        if choose(world.root(), &source.made_of)? != *choice {
            return Err(FreezeError::MountsChanged.into());
        }
        let names: Vec<_> = choice.mounts.iter().map(|path| path.display().to_string()).collect();
        let facts = SourceFacts {
            writers: Vec::new(),
            held: Some(format!("frozen: {}", names.join(", "))),
            swap: choice.swap.clone(),
            ..source.facts
        };
        let thawed = AtomicU64::new(0);
        let then = Then { frozen: &frozen, around, clock: world.clock(), thawed: &thawed };
        match self.image(&frozen.watch(&*source.disk), facts, Some(&then)) {
            Ok(done) => {
                let thawed = Duration::from_nanos(thawed.load(Ordering::Relaxed));
                Ok((done, thawed.saturating_sub(began)))
            }
            Err(error) if error.is_canceled() => Err(error),
            // Whatever failed because of it, this is the cause.
            Err(error) if frozen.is_lost() => Err(frozen.thaw().err().map_or(error, Error::from)),
            Err(Error::Backup(aiv_backup_engine::Error::NotHeld(why))) => {
                Err(FreezeError::from_hold(why).into())
            }
            Err(error) => Err(error),
        }
    }
}

/// Thaws, and then runs the user's command.
struct Then<'a> {
    frozen: &'a Frozen,
    around: &'a Around<'a>,
    clock: &'a dyn Clock,
    /// When, in nanoseconds of the clock.
    thawed: &'a AtomicU64,
}

impl Hold for Then<'_> {
    fn release(&self) -> std::result::Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let thawed = self.frozen.thaw();
        let now = u64::try_from(self.clock.now().as_nanos()).unwrap_or(u64::MAX);
        self.thawed.store(now, Ordering::Relaxed);
        self.around.over();
        Ok(thawed?)
    }
}

/// Bytes that never come again.
fn random<const N: usize>(world: &dyn World) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    world.fill_random(&mut bytes).map_err(Error::Random)?;
    Ok(bytes)
}
