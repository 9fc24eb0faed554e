//! `aiv restore`: plan, ask, apply; or put back what an undo log has.

use std::path::Path;

use aiv_chain::locate_view;
use aiv_jobs::World;
use aiv_report::{Failure, Outcome, Remarks, json, text, words};
use aiv_restore_engine::{
    Around, RestoreOptions, RestorePlan, SystemTools, TargetFacts, ToShrink, UndoLog,
};
use aiv_terminal::{Session, now_unix_ms, random, threads};
use aiv_volume_io::device;

use crate::args::Restore;

pub(crate) fn run(args: &Restore, session: &Session) -> Result<Outcome, Failure> {
    let to = &device::named(session.root(), &args.to)?;
    if let Some(undo) = UndoLog::open(&args.image)? {
        return put_back(&undo, args, to, session);
    }
    let (path, view) = locate_view(&args.image, session.job())?;
    let of_image = Remarks::on_image(view.image());
    let target = TargetFacts::gather(session.root(), to, &path)?;
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
    let (tools, job) = (SystemTools::new("/run"), session.job());
    let settle = |dir| ToShrink::settle(&view, &target, &options, dir, &tools, job);
    let shrunk = args.shrink.as_deref().map(settle).transpose()?.flatten();
    let plan = RestorePlan::with(&view, &target, options, shrunk.as_ref(), job)?;
    let mut remarks = Remarks::on_restore(plan.notes(), plan.unreadable());
    let title = words::clean(&format!("{} -> {}", path.display(), to.display())) + "\n";
    let mut outcome = if args.dry_run {
        Outcome::answer(json::restore_plan(&plan), title + &text::restore_plan(&plan))
    } else {
        let settled = args.yes || !target.exists;
        session.confirm(settled, to, target.len, target.serial.as_deref())?;
        let undo = args.undo.as_deref().map(|file| (file, now_unix_ms()));
        let around = Around { undo, shrunk: shrunk.as_ref(), tools: Some(&tools) };
        let applied = plan.apply_at(&view, to, around, job);
        let report = applied.map_err(|failed| Failure::of_restore(&failed))?;
        remarks = Remarks::on_restore(&report.notes, &report.unreadable);
        Outcome::report(json::restore(&report), title + &text::restore(&report))
    };
    (outcome.json["image"], outcome.json["target"]) = (json::path(&path), json::path(to));
    Ok(outcome.with(of_image).with(remarks))
}

fn put_back(undo: &UndoLog, args: &Restore, to: &Path, ask: &Session) -> Result<Outcome, Failure> {
    let target = TargetFacts::gather(ask.root(), to, &args.image)?;
    undo.check_target(&target, to)?;
    if args.dry_run {
        return Ok(Outcome::answer(json::undo(undo, None), text::undo(undo)));
    }
    ask.confirm(args.yes, to, target.len, target.serial.as_deref())?;
    let written = undo.put_back_at(to)?;
    Ok(Outcome::report(json::undo(undo, Some(written)), text::undo(undo)))
}
