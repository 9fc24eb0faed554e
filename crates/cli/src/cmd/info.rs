//! `aiv info`: what an image says about itself.

use std::path::Path;

use aiv_chain::locate_image_keyed;
use aiv_report::{Failure, Outcome, Remarks, json, text};

use aiv_terminal::{SecretFiles, Session};

pub(crate) fn run(
    argument: &Path,
    unlock: &SecretFiles,
    session: &Session,
) -> Result<Outcome, Failure> {
    let keys = session.keys(argument, unlock)?;
    let (path, image) = locate_image_keyed(argument, &keys, session.job())?;
    let mut json = json::image(&image);
    json["image"] = json::path(&path);
    let text = text::image(&path, &image);
    Ok(Outcome::answer(json, text).with(Remarks::on_image(&image)))
}
