//! `aiv info`: what an image says about itself.

use std::path::Path;

use aiv_chain::locate_image;
use aiv_report::{Failure, Outcome, Remarks, json, text};

use aiv_terminal::Session;

pub(crate) fn run(argument: &Path, session: &Session) -> Result<Outcome, Failure> {
    let (path, image) = locate_image(argument, session.job())?;
    let mut json = json::image(&image);
    json["image"] = json::path(&path);
    let text = text::image(&path, &image);
    Ok(Outcome::answer(json, text).with(Remarks::on_image(&image)))
}
