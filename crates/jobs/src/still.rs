//! Keeping a source from changing while it is read.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aiv_backup_engine::{Clock, HeldSource, Hold, SourceFacts};
use aiv_volume_io::{FileDisk, causes, device};

use crate::backup::{BackupDone, Run, random};
use crate::error::{Error, FreezeError, Result, SnapshotError};
use crate::freeze::{Choice, Frozen, choose};
use crate::hooks::{Around, HookReport};
use crate::snapshot::{Snapshot, SnapshotProvider, provider};
use crate::source::Source;

/// How long making a snapshot may take while filesystems are frozen for it.
const MOMENT_MAX: Duration = Duration::from_secs(30);

/// How a source is kept from changing while it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Still {
    /// Its mounted filesystems are frozen, for at most this time. A backup that takes longer
    /// fails and leaves no image.
    Freeze(Duration),
    /// A snapshot is read in its place, with room for so many overwritten bytes, or for a tenth
    /// of the volume; a thin volume and one of ZFS have no need of it. When that or the pool runs
    /// over, the backup fails and leaves no image. The source has to be a logical volume of LVM
    /// or a volume of ZFS, and mounted filesystems on it are frozen for the moment.
    Snapshot(Option<u64>),
}

/// How a source was kept from changing while it was read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StillReport {
    /// Mount points of the filesystems that were frozen, unless the kernel did that by itself.
    pub frozen: Vec<PathBuf>,
    /// The snapshot that was read.
    pub snapshot: Option<String>,
    /// How long everything was frozen, or how long making the snapshot took.
    pub elapsed: Duration,
    /// The commands of the user.
    pub hooks: Vec<HookReport>,
    /// Snapshots of interrupted backups that were removed.
    pub leftovers_removed: Vec<String>,
    /// Snapshots that may be of interrupted backups and stay, and why.
    pub leftovers_kept: Vec<(String, String)>,
    /// Why the snapshot could not be removed, if it could not.
    pub left_behind: Option<String>,
}

impl Run<'_> {
    /// Reads `source` while what could write to it is frozen, if anything could.
    pub(crate) fn frozen(&self, source: Source, limit: Duration) -> Result<BackupDone> {
        let Self { request, word, world, job, .. } = *self;
        let choice = choose(world.root(), &source.made_of)?;
        if choice.mounts.is_empty() {
            return self.as_it_is(source);
        }
        drop(source);
        let around = Around::begin(&request.hooks, word, world.clock(), job)?;
        let result = self.while_frozen(&choice, limit, &around);
        let ((done, elapsed), hooks) = around.end(result)?;
        let report =
            StillReport { frozen: choice.mounts, elapsed, hooks, ..StillReport::default() };
        Ok(BackupDone { still: Some(report), ..done })
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
        let mut writers = source.facts.writers;
        // Whoever writes past a filesystem, such as a virtual machine, still does.
        writers.retain(|writer| !choice.held.contains(writer) && !choice.swap.contains(writer));
        let facts = SourceFacts {
            writers,
            held: Some(format!("frozen: {}", names.join(", "))),
            swap: choice.swap.clone(),
            ..source.facts
        };
        let thawed = AtomicU64::new(0);
        let then = Thaw { frozen: &frozen, around, clock: world.clock(), thawed: &thawed };
        let disk = &frozen.watch(&*source.disk);
        let held = HeldSource { disk, hold: Some(&then), trackers: &source.trackers };
        match self.image(held, facts) {
            Ok(done) => {
                let thawed = Duration::from_nanos(thawed.load(Ordering::Relaxed));
                Ok((done, thawed.saturating_sub(began)))
            }
            Err(error) if error.is_canceled() => Err(error),
            // Whatever failed because of it, this is the cause.
            Err(error) if frozen.is_lost() => Err(frozen.thaw().err().map_or(error, Error::from)),
            Err(error) => Err(unwrapped(error)),
        }
    }

    /// Reads a snapshot in place of `source`.
    pub(crate) fn of_snapshot(&self, source: Source, space: Option<u64>) -> Result<BackupDone> {
        let Self { request, word, world, job, .. } = *self;
        let device = device::at(world.root(), word)?;
        let no_provider = || SnapshotError::NoProvider { device: word.to_path_buf() };
        let provider = provider(&device.ok_or_else(no_provider)?, space, world)?;
        let provider = &*provider;
        let leftovers = provider.remove_leftovers();
        let name = format!("aiv-{:08x}", u32::from_le_bytes(random(world)?));
        let around = Around::begin(&request.hooks, word, world.clock(), job)?;
        let began = world.clock().now();
        let made = self.made(provider, &name, &source.made_of);
        let elapsed = world.clock().now().saturating_sub(began);
        let ((snapshot, frozen), hooks) = around.end(made)?;
        let facts = SourceFacts {
            writers: Vec::new(),
            held: Some(format!("snapshot {}", provider.title(&name))),
            ..source.facts
        };
        let result = self.while_it_holds(&snapshot, facts);
        let removed = snapshot.remove();
        let left_behind = removed.err().map(|error| causes(&Error::from(error)));
        let report = StillReport {
            frozen,
            snapshot: Some(provider.title(&name)),
            elapsed,
            hooks,
            leftovers_removed: leftovers.removed,
            leftovers_kept: leftovers.kept,
            left_behind,
        };
        result.map(|done| BackupDone { still: Some(report), ..done })
    }

    /// A snapshot, and mount points of what was frozen for the moment it took.
    fn made<'p>(
        &self,
        provider: &'p dyn SnapshotProvider,
        name: &str,
        made_of: &[PathBuf],
    ) -> Result<(Snapshot<'p>, Vec<PathBuf>)> {
        let create = || Snapshot::create(provider, name.to_owned());
        if provider.freezes() {
            return Ok((create()?, Vec::new()));
        }
        let choice = choose(self.world.root(), made_of)?;
        if choice.mounts.is_empty() {
            return Ok((create()?, Vec::new()));
        }
        let frozen = Frozen::freeze(choice.mounts.clone(), MOMENT_MAX, self.world)?;
        if choose(self.world.root(), made_of)? != choice {
            return Err(FreezeError::MountsChanged.into());
        }
        let made = create();
        // First of all, whatever came of it.
        let thawed = frozen.thaw();
        let snapshot = made?;
        thawed?;
        Ok((snapshot, choice.mounts))
    }

    fn while_it_holds(&self, snapshot: &Snapshot<'_>, facts: SourceFacts) -> Result<BackupDone> {
        let disk = FileDisk::open_source(&snapshot.show()?)?;
        let disk = &snapshot.watch(&disk, self.world.clock());
        let hold = Some(&Holds(snapshot) as &dyn Hold);
        let done = self.image(HeldSource { disk, hold, trackers: &[] }, facts);
        match done {
            Err(error) if error.is_canceled() => Err(error),
            // Whatever failed because of it, this is the cause.
            Err(error) => Err(snapshot.check().err().map_or_else(|| unwrapped(error), Error::from)),
            done => done,
        }
    }
}

/// What this crate's own hold had to say is told as it is.
pub(crate) fn unwrapped(error: Error) -> Error {
    match error {
        Error::Backup(aiv_backup_engine::Error::NotHeld(why)) => Error::of_hold(why),
        error => error,
    }
}

/// Thaws, and then runs the user's command.
struct Thaw<'a> {
    frozen: &'a Frozen,
    around: &'a Around<'a>,
    clock: &'a dyn Clock,
    /// When, in nanoseconds of the clock.
    thawed: &'a AtomicU64,
}

impl Hold for Thaw<'_> {
    fn release(&self) -> std::result::Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let thawed = self.frozen.thaw();
        let now = u64::try_from(self.clock.now().as_nanos()).unwrap_or(u64::MAX);
        self.thawed.store(now, Ordering::Relaxed);
        self.around.over();
        Ok(thawed?)
    }
}

/// A snapshot that has to hold until everything was read.
struct Holds<'a>(&'a Snapshot<'a>);

impl Hold for Holds<'_> {
    fn release(&self) -> std::result::Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.0.check()?)
    }
}
