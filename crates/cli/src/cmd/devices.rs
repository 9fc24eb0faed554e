//! `aiv devices`: what could be backed up, or restored to.

use aiv_jobs::{World, survey};
use aiv_report::{Failure, Outcome, json, text};
use aiv_terminal::Session;
use serde_json::json;

pub(crate) fn run(session: &Session) -> Result<Outcome, Failure> {
    let devices = survey(session.root(), session.job())?;
    let devices: Vec<_> =
        devices.into_iter().map(|(d, plan)| (d, plan.map_err(Failure::from))).collect();
    Ok(Outcome::answer(json!({"devices": json::devices(&devices)}), text::devices(&devices)))
}
