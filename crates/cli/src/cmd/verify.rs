//! `aiv verify`: proof that images are readable.

use std::path::Path;

use aiv_browse::{boot_report, inspect};
use aiv_chain::{
    Checked, Depth, Folder, Keys, Repaired, Trust, VerifyOptions, find_set, locate_with_keys,
    repair, storage_of, verify_file_keyed, verify_folder_keyed, verify_point_keyed,
};
use aiv_jobs::{OpenOptions, newest_points, open_disk};
use aiv_report::{Exit, Failure, Outcome, Remarks, Verdict, add_inside, json, repairs, text};
use aiv_terminal::{Session, now_unix_ms, open_folder, open_or_create_folder};
use aiv_volume_io::Storage;
use serde_json::json;

use aiv_words::{Verify, VerifyDepth};

pub(crate) fn run(args: &Verify, session: &Session) -> Result<Outcome, Failure> {
    const DAY_MS: u64 = 24 * 60 * 60 * 1000;
    let (target, depth) = (&args.target, args.depth.of_image());
    if !args.luks.is_empty() && args.depth != VerifyDepth::Filesystem {
        let hint = "add --depth filesystem";
        let verdict = Verdict { code: "usage", exit: Exit::Usage, hint };
        return Err(Failure::new(verdict, "nothing inside of the image is looked at"));
    }
    let keys = session.keys(target, &args.unlock)?;
    let (images, strays) = if target.is_dir() {
        let storage = open_folder(target)?;
        let now_unix_ms = now_unix_ms();
        let ago = |days: u64| now_unix_ms.saturating_sub(days.saturating_mul(DAY_MS));
        let set = match &args.set {
            Some(word) => {
                // What a sealed set is called its images tell with their key.
                let scan = Folder::scan_keyed(&storage, &keys, Trust::Catalogue, session.job())?;
                Some(find_set(&scan.0, word)?.id)
            }
            None => None,
        };
        let not_verified_since = args.skip_verified.map(ago);
        let options = VerifyOptions { depth, not_verified_since, now_unix_ms, set };
        let verified = verify_folder_keyed(&storage, &options, &keys, session.job())?;
        // On a medium that cannot be written, the next verification skips nothing.
        let _ = verified.record(&storage, session.job());
        (verified.images, verified.strays)
    } else {
        (image_or_point(target, depth, &keys, session)?, Vec::new())
    };
    let mut json = json::verification(&images);
    json["depth"] = json!(args.depth.name());
    json["strays"] = json::strays(&strays);
    let text = match images.as_slice() {
        [] => text::no_images(target),
        images => text::verification(images),
    };
    let remarks = Remarks::on_unverified(&images, &strays, depth, &keys);
    let mut outcome = Outcome::report(json, text).with(remarks);
    if !images.iter().all(Checked::is_sound) {
        outcome = Outcome { exit: Exit::Damage, is_report: false, ..outcome };
        repair_all(args, &images, &keys, &mut outcome, session)?;
    }
    if args.depth == VerifyDepth::Filesystem {
        // What was proven and repaired is told, also when nobody can look inside.
        let looked = inside(args, &keys, &mut outcome, session);
        return outcome.ended(looked);
    }
    Ok(outcome)
}

/// Proves the image file that `target` is, or the point that it names: with all that it is read
/// through, newest first.
fn image_or_point(
    target: &Path,
    depth: Depth,
    keys: &Keys,
    session: &Session,
) -> Result<Vec<Checked>, Failure> {
    let path = locate_with_keys(target, keys, session.job())?;
    let mut images = Vec::new();
    if path != target {
        let (storage, name) = storage_of(&path)?;
        let now_unix_ms = now_unix_ms();
        let options = VerifyOptions { depth, not_verified_since: None, now_unix_ms, set: None };
        let verified = verify_point_keyed(&storage, name, &options, keys, session.job())?;
        let _ = verified.record(&storage, session.job());
        images = verified.images;
        images.reverse();
        images.sort_by_key(|image| image.file != name);
        for image in &mut images {
            image.file = path.with_file_name(&image.file).display().to_string();
        }
    }
    if images.is_empty() {
        images.push(verify_file_keyed(&path, depth, keys, session.job())?);
    }
    Ok(images)
}

/// Looks into the filesystems of an image, or of the newest point of each set.
fn inside(
    args: &Verify,
    keys: &Keys,
    outcome: &mut Outcome,
    session: &Session,
) -> Result<(), Failure> {
    let luks = args.luks.read()?;
    for image in newest_points(&args.target, args.set.as_deref(), keys, session.job())? {
        let disk =
            open_disk(session, &image, &OpenOptions::default(), (keys, &luks), session.job())?.disk;
        let (found, boot) = (inspect(&disk, session.job())?, boot_report(&disk, session.job())?);
        add_inside(outcome, &image.display().to_string(), &found, &boot);
    }
    Ok(())
}

/// Repairs what is damaged, if asked to. What was repaired in full is a warning, no damage.
fn repair_all(
    args: &Verify,
    images: &[Checked],
    keys: &Keys,
    outcome: &mut Outcome,
    session: &Session,
) -> Result<(), Failure> {
    let Some(to) = &args.to else {
        outcome.add(Remarks::on_damaged(images));
        return Ok(());
    };
    let target = open_or_create_folder(to)?;
    let folders = args.from.iter().map(|dir| open_folder(dir)).collect::<Result<Vec<_>, _>>()?;
    let copies: Vec<&dyn Storage> = folders.iter().map(|folder| folder as _).collect();
    let mut done: Vec<Repaired> = Vec::new();
    let forged = images.iter().any(Checked::is_forged);
    for image in images.iter().filter(|image| !image.is_sound() && !image.is_forged()) {
        let path = match args.target.is_dir() {
            true => args.target.join(&image.file),
            false => image.file.clone().into(),
        };
        let (from, name) = storage_of(&path)?;
        // A segment stands for all of them.
        if done.iter().any(|image| image.segments.iter().any(|segment| segment == name)) {
            continue;
        }
        done.push(repair(&from, name, &copies, &target, keys, session.job())?);
    }
    if !forged && done.iter().all(|image| image.file.is_some()) {
        outcome.exit = Exit::Warnings;
    }
    outcome.json["repairs"] = repairs::repairs_json(to, &done);
    outcome.text += &repairs::repairs_text(to, &done);
    outcome.add(Remarks::on_repairs(&done));
    Ok(())
}
