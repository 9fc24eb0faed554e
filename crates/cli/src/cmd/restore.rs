//! `aiv restore`: plan, ask, apply.

use std::io::{self, IsTerminal};
use std::num::NonZeroUsize;
use std::path::Path;
use std::thread::available_parallelism;

use aiv_chain::locate_view;
use aiv_report::{Exit, Failure, Outcome, Remarks, Verdict, json, text, words};
use aiv_restore_engine::{RestoreOptions, RestorePlan, SystemTools, TargetFacts};
use aiv_volume_io::device;

use super::ROOT;
use crate::args::Restore;
use aiv_terminal::Session;

pub(crate) fn run(args: &Restore, session: &Session) -> Result<Outcome, Failure> {
    let (path, view) = locate_view(&args.image, session.job())?;
    let of_image = Remarks::on_image(view.image());
    let target = TargetFacts::gather(Path::new(ROOT), &args.to, &path)?;
    let options = RestoreOptions {
        partition: args.partition,
        delta: args.delta,
        unused: args.unused,
        table: args.table,
        grow: args.grow,
        threads: available_parallelism().unwrap_or(NonZeroUsize::MIN),
    };
    let plan = RestorePlan::new(&view, &target, options, session.job())?;
    let mut remarks = Remarks::on_restore(plan.notes(), plan.unreadable());
    let title = words::clean(&format!("{} -> {}", path.display(), args.to.display())) + "\n";
    let mut outcome = if args.dry_run {
        Outcome::answer(json::restore_plan(&plan), title + &text::restore_plan(&plan))
    } else {
        if target.exists && !args.yes {
            confirm(&args.to, target.len, session)?;
        }
        let tools = SystemTools::new("/run");
        let applied = plan.apply_at(&view, &args.to, Some(&tools), session.job());
        let report = applied.map_err(|failed| Failure::of_restore(&failed))?;
        remarks = Remarks::on_restore(&report.notes, &report.unreadable);
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
    let serial = device::at(Path::new(ROOT), path)?.and_then(|device| device.serial);
    let (what, token) = serial.map_or(("size in bytes", len.to_string()), |s| ("serial number", s));
    session.say(&format!("{} with {} will be overwritten.", path.display(), words::size(len)));
    session.say(&format!("To go on, type its {what}: {token}"));
    let answer = session.read_line().map_err(Failure::io("cannot read the answer"))?;
    if answer.trim() == token { Ok(()) } else { Err(refused("and the answer was another one")) }
}
