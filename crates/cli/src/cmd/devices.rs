//! `aiv devices`: what could be backed up, or restored to.

use aiv_backup_engine::{BackupOptions, BackupPlan, Sectors, SourceFacts};
use aiv_jobs::World;
use aiv_report::{Failure, Outcome, json, text};
use aiv_volume_io::FileDisk;
use aiv_volume_io::device::{self, BlockDevice};
use serde_json::json;

use aiv_terminal::Session;

pub(crate) fn run(session: &Session) -> Result<Outcome, Failure> {
    let found = device::list(session.root())?.into_iter().filter(|device| device.size > 0);
    let devices: Vec<_> = found
        .map(|device| {
            let examined = examine(&device, session);
            (device, examined)
        })
        .collect();
    Ok(Outcome::answer(json!({"devices": json::devices(&devices)}), text::devices(&devices)))
}

/// Table, filesystems and identity, as a backup would find them. Reads a few blocks.
fn examine(device: &BlockDevice, session: &Session) -> Result<BackupPlan, Failure> {
    let disk = FileDisk::open_source(&device.path)?;
    let options = BackupOptions { sectors: Sectors::All, live: true, ..BackupOptions::default() };
    Ok(BackupPlan::new(&disk, SourceFacts::of_device(device), options, session.job())?)
}
