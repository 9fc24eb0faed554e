//! `aiv verify`: proof that images are readable.

use std::path::Path;

use aiv_chain::{Checked, Depth, locate, verify_file, verify_folder};
use aiv_report::{Exit, Failure, Outcome, Remarks, json, text};
use aiv_volume_io::DirStorage;
use serde_json::json;

use aiv_terminal::Session;

pub(crate) fn run(target: &Path, depth: Depth, session: &Session) -> Result<Outcome, Failure> {
    let (images, strays) = if target.is_dir() {
        let failed = Failure::io(format!("cannot open the folder {}", target.display()));
        let storage = DirStorage::open(target).map_err(failed)?;
        verify_folder(&storage, depth, session.job())?
    } else {
        let path = locate(target, session.job())?;
        (vec![verify_file(&path, depth, session.job())?], Vec::new())
    };
    let mut json = json::verification(&images);
    json["depth"] = json!(if depth == Depth::Quick { "quick" } else { "data" });
    json["strays"] = json::strays(&strays);
    let text = match images.as_slice() {
        [] => format!("no images in {}\n", target.display()),
        images => text::verification(images),
    };
    let outcome = Outcome::report(json, text).with(Remarks::on_unverified(&strays));
    if images.iter().all(Checked::is_sound) {
        return Ok(outcome);
    }
    Ok(Outcome { exit: Exit::Damage, is_report: false, ..outcome })
}
