//! `aiv backup`: one image per source, all in one group.

use std::num::NonZeroU64;
use std::time::Duration;

use aiv_backup_engine::{BackupOptions, Basis};
use aiv_jobs::{BackupJob, Backups, Hooks, Still};
use aiv_report::{Failure, Outcome, backups};
use aiv_terminal::{Session, threads};

use aiv_words::Backup;

/// A consolidation removes what it merged within moments.
const PATIENCE: Duration = Duration::from_secs(3);

pub(crate) fn run(args: Backup, session: &Session) -> Result<Outcome, Failure> {
    let sealing = args.protect.sealing(session, &args.to)?;
    let full_only = args.full || sealing.as_ref().is_some_and(|sealing| sealing.full_only);
    let options = BackupOptions {
        sectors: args.sectors,
        exclude: args.exclude,
        basis: match (full_only, args.differential) {
            (true, _) => Basis::Nothing,
            (_, true) => Basis::NewestFull,
            _ => Basis::Newest,
        },
        deltas: !args.no_delta,
        repeats: !args.no_delta,
        compression: args.compress,
        block_size: args.block_size,
        threads: args.threads.unwrap_or_else(threads),
        parity: args.parity,
        verify: args.verify,
        live: args.live,
        resume: !args.no_resume,
        changes: args.changes,
        read_holes: args.no_hints,
        patience: PATIENCE,
        comment: args.comment,
        split: args.split,
        ..BackupOptions::default()
    };
    let seconds = |limit: NonZeroU64| Duration::from_secs(limit.get());
    let still = match (args.freeze, args.snapshot) {
        (true, _) => Some(Still::Freeze(seconds(args.freeze_limit))),
        (_, true) => Some(Still::Snapshot(args.snapshot_size)),
        _ => None,
    };
    let Backup { sources, to, name, source_id, marks, rate_limit, pre_freeze, post_thaw, .. } =
        args;
    let hooks = Hooks { pre_freeze, post_thaw, limit: seconds(args.hook_limit) };
    let open = args.open.options();
    let seal = sealing.as_ref().map(|sealing| sealing.job.clone());
    let backup =
        BackupJob { name, source_id, open, marks, options, rate_limit, still, hooks, seal };
    let done = backup.run(&sources, &to, session, session.job());
    if let Some(sealing) = sealing {
        sealing.settle(session, done.as_ref().ok().map(Backups::begins_a_key));
    }
    let done = done?;
    let (outcome, others) = backups(&sources, &done);
    // The worst failure is the caller's to tell.
    others.iter().filter(|_| !session.json).for_each(|failure| session.say(&failure.line()));
    outcome
}
