//! One image per source, all in one group.

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aiv_backup_engine::{
    BackupIds, BackupOptions, BackupPlan, BackupReport, HeldSource, Hold, PlanNote, RateLimit,
    SourceFacts, machine_inventory, marks,
};
use aiv_disk_formats::OpenOptions;
use aiv_image_format::GroupId;
use aiv_volume_io::{ChangeTracker, DirStorage, FileDisk, Job, device};

use crate::error::{Error, Refusal, Result};
use crate::hooks::Hooks;
use crate::keys::NewKey;
use crate::rest::AtRest;
use crate::seal::SealJob;
use crate::source::{SeenAs, Source, is_twin};
use crate::stamp::stamp_of;
use crate::still::{Still, StillReport, unwrapped};
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
    /// Texts of `era_dump` or `thin_delta` that tell what of the source was written.
    pub marks: Vec<PathBuf>,
    /// How each image is made.
    pub options: BackupOptions,
    /// Bytes read of each source per second, at most.
    pub rate_limit: Option<NonZeroU64>,
    /// How a source that others write to is kept from changing meanwhile, if it is.
    pub still: Option<Still>,
    /// Commands around the moment in which it is; they run only then.
    pub hooks: Hooks,
    /// What gets keys, if anything.
    pub seal: Option<SealJob>,
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

impl Backups {
    /// Whether any image is the first with its key.
    #[must_use]
    pub fn begins_a_key(&self) -> bool {
        self.results.iter().flatten().any(|done| done.report.begins_key)
    }
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
        let is_for_one = self.name.is_some() || self.source_id.is_some() || !self.marks.is_empty();
        if sources.len() > 1 && is_for_one {
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

    /// The trackers that the marks make.
    fn trackers(&self, job: Job<'_>) -> Result<Vec<Box<dyn ChangeTracker>>> {
        let mut all: Vec<Box<dyn ChangeTracker>> = Vec::new();
        for path in &self.marks {
            let text = FileDisk::open_source(path)?;
            let found = marks(&text, self.options.changes.as_deref(), job)
                .map_err(|source| Error::Marks { path: path.clone(), source })?;
            all.extend(found.into_iter().map(|marks| Box::new(marks) as Box<dyn ChangeTracker>));
        }
        Ok(all)
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
        let mut source = Source::open(world.root(), word, &self.open)?;
        source.trackers.extend(self.trackers(job)?);
        if source.facts.writers.is_empty() {
            source.facts.stamp = stamp_of(&source.made_of, world.now_unix_ms());
        }
        for part in &source.made_of {
            if device::holds_path(world.root(), part, folder.path())? {
                return Err(Refusal::DestinationOnSource.into());
            }
        }
        let seen_as = source.seen_as.clone();
        let run = Run { request: self, word, folder, group, world, job };
        let done = match self.still {
            Some(Still::Freeze(limit)) => run.frozen(source, limit),
            Some(Still::Snapshot(space)) => run.of_snapshot(source, space),
            None => run.as_it_is(source),
        };
        let elapsed = world.clock().now().saturating_sub(started);
        done.map(|done| BackupDone { seen_as, elapsed, ..done })
    }
}

/// One source on its way into an image.
pub(crate) struct Run<'a> {
    pub(crate) request: &'a BackupJob,
    pub(crate) word: &'a Path,
    folder: &'a DirStorage,
    group: GroupId,
    pub(crate) world: &'a dyn World,
    pub(crate) job: Job<'a>,
}

impl Run<'_> {
    /// Reads `source`, which nothing holds still. Where nobody was seen to write to it, the backup
    /// fails when somebody did.
    pub(crate) fn as_it_is(&self, source: Source) -> Result<BackupDone> {
        let is_live = self.request.options.live;
        let rest = (!is_live).then(|| AtRest::of(self.world.root(), &source.made_of));
        let hold = rest.as_ref().map(|rest| rest as &dyn Hold);
        let held = HeldSource { disk: &*source.disk, hold, trackers: &source.trackers };
        let mut done = self.image(held, source.facts).map_err(unwrapped)?;
        let before = done.report.parent_source.as_deref();
        let root = self.world.root();
        let twin = before.filter(|before| is_twin(root, before.as_ref(), &source.made_of));
        let note = twin.map(|path| PlanNote::Twin { path: path.to_owned() });
        done.report.notes.extend(note);
        Ok(done)
    }

    pub(crate) fn image(
        &self,
        source: HeldSource<'_>,
        mut facts: SourceFacts,
    ) -> Result<BackupDone> {
        let Self { request, folder, world, job, .. } = *self;
        facts.source_id.clone_from(&request.source_id);
        facts.name = request.name.clone().unwrap_or(facts.name);
        let seal = request.seal.as_ref().map(|seal| seal.options(world)).transpose()?;
        let options = BackupOptions { seal, ..request.options.clone() };
        let plan = BackupPlan::new(source.disk, facts, options, job)?;
        let ids = BackupIds::new(&random(world)?, self.group, world.now_unix_ms());
        let clock = world.clock();
        let limit = request.rate_limit.map(|rate| RateLimit { bytes_per_second: rate, clock });
        let machine = machine_inventory(world.root());
        let mut report = plan.apply_held(source, folder, &ids, &machine, limit, job)?;
        // Images for recipients have a key each, and nobody here opens any of them.
        let is_for_others = |seal: &SealJob| matches!(seal.new, NewKey::Recipient(_));
        report.leaves_key &= !request.seal.as_ref().is_some_and(is_for_others);
        // A folder without it is only slower to look through.
        let _ = report.remember(folder, job);
        let seen_as = SeenAs::default();
        Ok(BackupDone { seen_as, plan, report, elapsed: Duration::ZERO, still: None })
    }
}

/// Bytes that never come again.
pub(crate) fn random<const N: usize>(world: &dyn World) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    world.fill_random(&mut bytes).map_err(Error::Random)?;
    Ok(bytes)
}
