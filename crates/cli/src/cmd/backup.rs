//! `aiv backup`: one image per source, all in one group.

use std::num::NonZeroUsize;
use std::path::Path;
use std::thread::available_parallelism;
use std::time::Duration;

use aiv_backup_engine::{
    BackupIds, BackupOptions, BackupPlan, Basis, Clock, RateLimit, SourceFacts, machine_inventory,
};
use aiv_image_format::GroupId;
use aiv_report::{Exit, Failure, Outcome, Remarks, Verdict, json, text, words};
use aiv_volume_io::{DirStorage, FileDisk, device};
use serde_json::{Value, json};

use super::ROOT;
use crate::args::Backup;
use aiv_terminal::{Session, now_unix_ms, open_or_create_folder, random};

/// A consolidation removes what it merged within moments.
const PATIENCE: Duration = Duration::from_secs(3);

pub(crate) fn run(args: &Backup, session: &Session) -> Result<Outcome, Failure> {
    if args.sources.len() > 1 && (args.name.is_some() || args.source_id.is_some()) {
        let hint = "back the sources up one by one";
        let verdict = Verdict { code: "usage", exit: Exit::Usage, hint };
        return Err(Failure::new(verdict, "--name and --source-id are for a single source"));
    }
    let storage = open_or_create_folder(&args.to)?;
    let group = GroupId(random()?);
    let json = json!({"folder": json::path(&args.to), "group": group.to_string()});
    let mut all = Outcome::report(json, String::new());
    let (mut images, mut failures) = (Vec::new(), Vec::<Failure>::new());
    for source in &args.sources {
        match one(source, args, &storage, group, session) {
            Ok(done) => {
                images.push(done.json);
                all.text += &done.text;
                all.warnings.extend(done.warnings);
                all.exit = all.exit.max(done.exit);
            }
            Err(failure) => {
                let name = source.display().to_string();
                let is_named = failure.message.contains(&name);
                let failure = if is_named { failure } else { failure.about(name) };
                images.push(
                    json!({"source": json::path(source), "error": failure.to_json()["error"]}),
                );
                failures.push(failure);
            }
        }
        if failures.last().is_some_and(|failure| failure.verdict.exit == Exit::Canceled) {
            break;
        }
    }
    all.json["images"] = Value::from(images);
    failures.sort_by_key(|failure| failure.verdict.exit);
    let Some(worst) = failures.pop() else { return Ok(all) };
    // The worst failure is the caller's to tell.
    for failure in failures.iter().filter(|_| !session.json) {
        session.say(&words::clean(&format!("aiv: {}", failure.message)));
    }
    Err(worst.after(all))
}

fn one(
    path: &Path,
    args: &Backup,
    storage: &DirStorage,
    group: GroupId,
    session: &Session,
) -> Result<Outcome, Failure> {
    let (root, started) = (Path::new(ROOT), session.clock.now());
    let source = FileDisk::open_source(path)?;
    if device::holds_path(root, path, storage.path())? {
        let hint = "choose a folder on another disk";
        let verdict = Verdict { code: "destination_on_source", exit: Exit::Refused, hint };
        return Err(Failure::new(verdict, "the folder for the images lies on the source itself"));
    }
    let mut facts = SourceFacts::gather(root, path)?;
    facts.source_id.clone_from(&args.source_id);
    facts.name = args.name.clone().unwrap_or(facts.name);
    let threads = args.threads.or_else(|| available_parallelism().ok());
    let options = BackupOptions {
        sectors: args.sectors,
        basis: match (args.full, args.differential) {
            (true, _) => Basis::Nothing,
            (_, true) => Basis::NewestFull,
            _ => Basis::Newest,
        },
        deltas: !args.no_delta,
        compression: args.compress,
        block_size: args.block_size,
        threads: threads.unwrap_or(NonZeroUsize::MIN),
        verify: args.verify,
        live: args.live,
        patience: PATIENCE,
        comment: args.comment.clone(),
        ..BackupOptions::default()
    };
    let plan = BackupPlan::new(&source, facts, options, session.job())?;
    let ids = BackupIds::new(&random()?, group, now_unix_ms());
    let clock = &session.clock;
    let limit = args.rate_limit.map(|rate| RateLimit { bytes_per_second: rate, clock });
    let machine = machine_inventory(root);
    let report = plan.apply(&source, storage, &ids, &machine, limit, session.job())?;
    // A folder without it is only slower to look through.
    let _ = report.remember(storage, session.job());
    let elapsed = clock.now().saturating_sub(started);
    let mut json = json::backup(storage.path(), &plan, &report, elapsed);
    json["source"] = json::path(path);
    let text = text::backup(path, storage.path(), &plan, &report, elapsed);
    Ok(Outcome::report(json, text).with(Remarks::on_backup(&report)))
}
