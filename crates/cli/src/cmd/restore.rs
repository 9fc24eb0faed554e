//! `aiv restore`: plan, ask, apply; or put back what an undo log has.

use aiv_chain::locate_view;
use aiv_jobs::World;
use aiv_report::{Failure, Outcome, Remarks, json, text, words};
use aiv_restore_engine::{Around, RestoreOptions, RestorePlan, SystemTools, TargetFacts, UndoLog};
use aiv_terminal::{Session, now_unix_ms, threads};

use crate::args::Restore;

pub(crate) fn run(args: &Restore, session: &Session) -> Result<Outcome, Failure> {
    if let Some(undo) = UndoLog::open(&args.image)? {
        return put_back(&undo, args, session);
    }
    let (path, view) = locate_view(&args.image, session.job())?;
    let of_image = Remarks::on_image(view.image());
    let target = TargetFacts::gather(session.root(), &args.to, &path)?;
    let options = RestoreOptions {
        partition: args.partition,
        delta: args.delta,
        unused: args.unused,
        table: args.table,
        grow: args.grow,
        threads: threads(),
    };
    let plan = RestorePlan::new(&view, &target, options, session.job())?;
    let mut remarks = Remarks::on_restore(plan.notes(), plan.unreadable());
    let title = words::clean(&format!("{} -> {}", path.display(), args.to.display())) + "\n";
    let mut outcome = if args.dry_run {
        Outcome::answer(json::restore_plan(&plan), title + &text::restore_plan(&plan))
    } else {
        confirm(args, &target, session)?;
        let tools = SystemTools::new("/run");
        let undo = args.undo.as_deref().map(|file| (file, now_unix_ms()));
        let around = Around { undo, tools: Some(&tools) };
        let applied = plan.apply_at(&view, &args.to, around, session.job());
        let report = applied.map_err(|failed| Failure::of_restore(&failed))?;
        remarks = Remarks::on_restore(&report.notes, &report.unreadable);
        Outcome::report(json::restore(&report), title + &text::restore(&report))
    };
    (outcome.json["image"], outcome.json["target"]) = (json::path(&path), json::path(&args.to));
    Ok(outcome.with(of_image).with(remarks))
}

fn confirm(args: &Restore, target: &TargetFacts, session: &Session) -> Result<(), Failure> {
    if !target.exists || args.yes {
        return Ok(());
    }
    session.confirm(&args.to, target.len, target.serial.as_deref())
}

fn put_back(undo: &UndoLog, args: &Restore, session: &Session) -> Result<Outcome, Failure> {
    let target = TargetFacts::gather(session.root(), &args.to, &args.image)?;
    undo.check_target(&target, &args.to)?;
    if args.dry_run {
        return Ok(Outcome::answer(json::undo(undo, None), text::undo(undo)));
    }
    confirm(args, &target, session)?;
    let written = undo.put_back_at(&args.to)?;
    Ok(Outcome::report(json::undo(undo, Some(written)), text::undo(undo)))
}
