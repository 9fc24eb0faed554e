//! `aiv restore`: plan, ask, apply; or put back what an undo log has.

use std::path::Path;

use aiv_jobs::World;
use aiv_report::{Failure, Outcome, Remarks, json, text};
use aiv_restore_engine::{
    Entry, Prepared, RestoreOptions, SystemTools, TargetFacts, Tools, UndoLog,
};
use aiv_terminal::{Session, now_unix_ms, random, threads};
use aiv_volume_io::device;

use aiv_words::Restore;

pub(crate) fn run(args: &Restore, session: &Session) -> Result<Outcome, Failure> {
    let options = RestoreOptions {
        partition: args.partition,
        delta: args.delta,
        unused: args.unused,
        table: args.table,
        grow: args.grow,
        identity: args.identity,
        seed: random()?,
        threads: threads(),
    };
    let entries = match (&args.to, UndoLog::open(&args.image)?) {
        (Some(to), Some(undo)) => return put_back(&undo, args, to, session),
        (Some(to), None) => vec![Entry::new(&args.image, to, options, args.undo.clone())],
        (None, _) => Entry::read_all(&args.image, &options)?,
    };
    let tools = SystemTools::new("/run");
    let shrink = args.shrink.as_deref().map(|dir| (dir, &tools as &dyn Tools));
    let images: Vec<&Path> = entries.iter().map(|entry| entry.image.as_path()).collect();
    let all = session.with_keys(&images, &args.unlock, |keys| {
        Ok(Prepared::all(session.root(), entries.clone(), shrink, keys, session.job())?)
    })?;
    for one in all.iter().filter(|one| !args.dry_run && one.plan.target().exists) {
        let target = one.plan.target();
        session.confirm(args.yes, &one.to, target.len, target.serial.as_deref())?;
    }
    Outcome::all(
        "restores",
        all.into_iter().map(|one| {
            let (image, to) = (one.image.clone(), one.to.clone());
            let of_image = Remarks::on_image(one.view.image());
            let outcome = if args.dry_run {
                Outcome::of_restore_plan(&one.plan, &image, &to)
            } else {
                let applied = one.apply(now_unix_ms(), &tools, session.job());
                let report = applied.map_err(|failed| Failure::of_restore(&failed, &to))?;
                Outcome::of_restore(&report, &image, &to)
            };
            Ok(outcome.with(of_image))
        }),
    )
}

fn put_back(undo: &UndoLog, args: &Restore, to: &Path, ask: &Session) -> Result<Outcome, Failure> {
    let to = &device::named(ask.root(), to)?;
    let target = TargetFacts::gather(ask.root(), to, &args.image)?;
    undo.check_target(&target, to)?;
    if args.dry_run {
        return Ok(Outcome::answer(json::undo(undo, None), text::undo(undo)));
    }
    ask.confirm(args.yes, to, target.len, target.serial.as_deref())?;
    let written = undo.put_back_at(to)?;
    Ok(Outcome::report(json::undo(undo, Some(written)), text::undo(undo)))
}
