//! `aiv restore`: plan, ask, apply.

use std::fs;
use std::io::{self, IsTerminal};
use std::path::Path;

use aiv_chain::locate_view;
use aiv_jobs::World;
use aiv_report::{Exit, Failure, Outcome, Remarks, Verdict, json, text, words};
use aiv_restore_engine::{RestoreOptions, RestorePlan, RestoreReport, TargetFacts, View};
use aiv_volume_io::{FileDisk, device};

use crate::args::Restore;
use aiv_terminal::{Session, threads};

pub(crate) fn run(args: &Restore, session: &Session) -> Result<Outcome, Failure> {
    let (path, view) = locate_view(&args.image, session.job())?;
    let of_image = Remarks::on_image(view.image());
    let target = TargetFacts::gather(session.root(), &args.to, &path)?;
    let options = RestoreOptions {
        partition: args.partition,
        delta: args.delta,
        unused: args.unused,
        threads: threads(),
    };
    let plan = RestorePlan::new(&view, &target, options, session.job())?;
    let remarks = Remarks::on_restore(plan.notes(), plan.unreadable());
    let title = words::clean(&format!("{} -> {}", path.display(), args.to.display())) + "\n";
    let mut outcome = if args.dry_run {
        Outcome::answer(json::restore_plan(&plan), title + &text::restore_plan(&plan))
    } else {
        if target.exists && !args.yes {
            confirm(&args.to, target.len, session)?;
        }
        let report = apply(plan, &view, &args.to, session)?;
        Outcome::report(json::restore(&report), title + &text::restore(&report))
    };
    (outcome.json["image"], outcome.json["target"]) = (json::path(&path), json::path(&args.to));
    Ok(outcome.with(of_image).with(remarks))
}

/// Has the user type something only this target has.
fn confirm(path: &Path, len: u64, session: &Session) -> Result<(), Failure> {
    let refused = |message: &str| {
        let hint = "add --yes to overwrite it";
        let verdict = Verdict { code: "not_confirmed", exit: Exit::Refused, hint };
        Failure::new(verdict, format!("{} exists, {message}", path.display()))
    };
    if session.json || !io::stdin().is_terminal() {
        return Err(refused("and nobody could be asked whether to overwrite it"));
    }
    let serial = device::at(session.root(), path)?.and_then(|device| device.serial);
    let (what, token) = serial.map_or(("size in bytes", len.to_string()), |s| ("serial number", s));
    session.say(&format!("{} with {} will be overwritten.", path.display(), words::size(len)));
    session.say(&format!("To go on, type its {what}: {token}"));
    let answer = session.read_line().map_err(Failure::io("cannot read the answer"))?;
    if answer.trim() == token { Ok(()) } else { Err(refused("and the answer was another one")) }
}

/// Applies the plan. A file that was created for it does not outlive a failure.
fn apply(
    plan: RestorePlan,
    view: &View,
    path: &Path,
    session: &Session,
) -> Result<RestoreReport, Failure> {
    let (needed, exists) = (plan.target_len_needed(), plan.target().exists);
    let target = if exists {
        FileDisk::open_target(path, true)?
    } else {
        FileDisk::create_target(path, needed)?
    };
    if plan.extends_target() {
        target.set_len(needed).map_err(Failure::io(format!("cannot extend {}", path.display())))?;
    }
    plan.apply(view, &target, session.job()).map_err(|error| {
        let failure = Failure::of(&error);
        let what_is_left = match exists {
            false if fs::remove_file(path).is_ok() => "the new file was removed",
            _ => "the target holds part of a disk and must not be used",
        };
        Failure { message: format!("{} ({what_is_left})", failure.message), ..failure }
    })
}
