//! `consolidate`, `archive`, `salvage`, `copy`, `move`: the life of chains.

use std::path::Path;
use std::time::Duration;

use aiv_backup_engine::Compression;
use aiv_chain::{
    ConsolidateOptions, ConsolidationPlan, Folder, Keep, Keys, MergeOptions, Point, Selector, Set,
    Stray, Trust, archive_as, copy_point, copy_set, find_set, locate_point_keyed,
    locate_view_keyed, move_point, move_set, storage_of,
};
use aiv_jobs::{Hints, SalvageJob, SalvageTo};
use aiv_report::{Failure, Outcome, Remarks, chains, salvage::salvaged, text};
use aiv_terminal::{Session, merge_ids, open_folder, open_or_create_folder, remember};
use aiv_volume_io::DirStorage;

use aiv_words::{Archive, Consolidate, Salvage, Transfer};

/// For the few blocks a merge stores anew.
const COMPRESSION: Compression = Compression::Zstd(1);
/// Time to wait for a backup to end before old files are left to the next run.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn consolidate(args: &Consolidate, session: &Session) -> Result<Outcome, Failure> {
    let storage = open_folder(&args.dir)?;
    let folder =
        session.with_keys(&[&args.dir], &args.unlock, |keys| unlocked(&storage, keys, session))?;
    let mut keep = Keep { newest: args.keep.get(), ..Keep::default() };
    for id in &args.keep_point {
        keep.points.insert(id.parse::<Selector>()?.find(&folder)?.1.id);
    }
    let mut outcome =
        Outcome::report(chains::consolidation_json(&args.dir, args.dry_run), String::new());
    let sets: Vec<&Set> = match &args.set {
        Some(word) => vec![find_set(&folder, word)?],
        None => folder.sets.iter().collect(),
    };
    let asked = sets.first().filter(|_| args.set.is_some()).map(|set| set.id);
    outcome.add(Remarks::on_unused(&folder.unused(&storage, asked), "merged"));
    let done = sets.into_iter().try_for_each(|set| -> Result<(), Failure> {
        let plan = ConsolidationPlan::new(&storage, set, &keep, session.job())?;
        chains::add_plan(&mut outcome.json, set, &plan);
        outcome.text += &chains::plan_text(set, &plan);
        if args.dry_run || plan.is_empty() {
            return Ok(());
        }
        let (compression, parity, split) = (COMPRESSION, args.parity, args.split);
        let options = ConsolidateOptions { compression, parity, split, patience: PATIENCE };
        let mut ids = merge_ids()?;
        let report = plan.apply(&storage, &options, &mut ids, session.job())?;
        chains::add_consolidation(&mut outcome.json, &args.dir, &report);
        outcome.text += &chains::consolidation_text(&report);
        outcome.add(Remarks::on_consolidation(&report));
        Ok(())
    });
    if folder.sets.is_empty() {
        outcome.text = text::no_images(&args.dir);
    }
    outcome.is_report = !args.dry_run;
    if !args.dry_run {
        remember(&storage, session.job());
    }
    outcome.ended(done)
}

/// The folder, or a failure that says what is locked in it: what cannot be read is not merged.
fn unlocked(storage: &DirStorage, keys: &Keys, session: &Session) -> Result<Folder, Failure> {
    let (folder, _) = Folder::scan_keyed(storage, keys, Trust::Catalogue, session.job())?;
    folder.check_unlocked()?;
    Ok(folder)
}

pub(crate) fn archive(args: &Archive, session: &Session) -> Result<Outcome, Failure> {
    let (path, view) = session.with_keys(&[&args.image], &args.unlock, |keys| {
        let (path, view) = locate_view_keyed(&args.image, keys, session.job())?;
        view.check_key()?;
        Ok((path, view))
    })?;
    let ((from, _), (to, name)) = (storage_of(&path)?, storage_of(&args.to)?);
    let (compression, parity, split) = (COMPRESSION, args.parity, args.split);
    let options = MergeOptions { compression, parity, split };
    let report = archive_as(&from, &view, &to, name, options, merge_ids()?(), session.job())?;
    let json = chains::archive_json(&path, &args.to, &report);
    Ok(Outcome::report(json, chains::archive_text(&path, &args.to, &report)))
}

pub(crate) fn salvage(args: Salvage, session: &Session) -> Result<Outcome, Failure> {
    let hints = Hints { len: args.size, block_size: args.block_size };
    let to = SalvageTo::new(args.to, args.image, args.fill);
    let (plain, keys) = (args.plain, Keys::none());
    let job = SalvageJob { files: args.files, parents: args.parent, hints, keys, plain, to };
    let chains = || Ok(job.chains(session.job())?);
    session.with_salvage_keys(&args.unlock, chains, |keys| {
        let job = SalvageJob { keys: keys.clone(), ..job.clone() };
        Ok(salvaged(&job, &job.run(session, session.job())?))
    })
}

/// `copy`, or with `leaving` `move`.
pub(crate) fn transfer(
    args: &Transfer,
    leaving: bool,
    session: &Session,
) -> Result<Outcome, Failure> {
    let mut outcome = Outcome::report(chains::transfer_json(&args.to), String::new());
    let keys = session.keys(&args.what, &args.unlock)?;
    let ((wanted, mut unused), mut ids) = (wanted(&args.what, &keys, session)?, merge_ids()?);
    let to = open_or_create_folder(&args.to)?;
    let done = wanted.iter().try_for_each(|(from, set, point)| -> Result<(), Failure> {
        let job = session.job();
        let copied = if leaving {
            let report = match point {
                Some(point) => move_point(from, set, point, &to, PATIENCE, &mut ids, job)?,
                None => move_set(from, set, &to, PATIENCE, &mut ids, job)?,
            };
            chains::add_move(&mut outcome.json, &args.to, &report);
            outcome.text += &chains::move_text(set, &report);
            outcome.add(Remarks::on_move(&report));
            report.copy.copied
        } else {
            let report = match point {
                Some(point) => copy_point(from, set, point, &to, &mut ids, job)?,
                None => copy_set(from, set, &to, &mut ids, job)?,
            };
            chains::add_copy(&mut outcome.json, &args.to, &report);
            outcome.text += &chains::copy_text(set, &report);
            outcome.add(Remarks::on_copy(&report));
            report.copied
        };
        // One that nothing but its parent role was left of went with its chain.
        unused.retain(|stray| copied.iter().all(|copied| copied.from != stray.file));
        Ok(())
    });
    if wanted.is_empty() {
        outcome.text = text::no_images(&args.what);
    }
    outcome.add(Remarks::on_unused(&unused, if leaving { "moved" } else { "copied" }));
    remember(&to, session.job());
    outcome.ended(done)
}

type Wanted = (DirStorage, Set, Option<Point>);

/// What to take: one point, or each set of a folder, which may hold files that cannot be used.
fn wanted(
    what: &Path,
    keys: &Keys,
    session: &Session,
) -> Result<(Vec<Wanted>, Vec<Stray>), Failure> {
    if what.is_dir() {
        let storage = open_folder(what)?;
        let (folder, _) = Folder::scan_keyed(&storage, keys, Trust::Catalogue, session.job())?;
        let each = |set: Set| Ok((open_folder(what)?, set, None));
        let unused = folder.unused(&storage, None);
        let sets = folder.sets.into_iter().map(each).collect::<Result<_, Failure>>()?;
        return Ok((sets, unused));
    }
    let (from, set, point) = locate_point_keyed(what, keys, session.job())?;
    Ok((vec![(from, set, Some(point))], Vec::new()))
}
