//! `aiv list`: what a folder holds.

use std::path::Path;

use aiv_chain::{Folder, Trust};
use aiv_report::{Failure, Outcome, Remarks, json, text};
use serde_json::json;

use aiv_terminal::{SecretFiles, Session, open_folder};

pub(crate) fn run(dir: &Path, unlock: &SecretFiles, session: &Session) -> Result<Outcome, Failure> {
    let (storage, keys) = (open_folder(dir)?, session.keys(dir, unlock)?);
    let (folder, _) = Folder::scan_keyed(&storage, &keys, Trust::Catalogue, session.job())?;
    let (sets, strays) = (json::sets(&folder.sets), json::strays(&folder.strays));
    let json = json!({"folder": json::path(dir), "sets": sets, "strays": strays});
    let text = match folder.sets.as_slice() {
        [] => text::no_images(dir),
        sets => text::sets(sets),
    };
    Ok(Outcome::answer(json, text).with(Remarks::on_folder(&folder)))
}
