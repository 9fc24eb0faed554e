use std::path::Path;

use aiv_backup_engine::{BackupOptions, BackupPlan, Sectors, SourceFacts};
use aiv_volume_io::device::{self, BlockDevice};
use aiv_volume_io::{FileDisk, Job};

use crate::error::Result;

/// The block devices of this machine that have a size, each with table, filesystems and identity
/// as a backup would find them, or why they are not known. Reads a few blocks of each; `root` is
/// where `/sys` and `/proc` are found.
///
/// # Errors
/// [`crate::Error::Volume`] when the devices cannot be listed.
pub fn survey(root: &Path, job: Job<'_>) -> Result<Vec<(BlockDevice, Result<BackupPlan>)>> {
    let found = device::list(root)?.into_iter().filter(|device| device.size > 0);
    let devices = found.map(|device| {
        let plan = plan(&device, job);
        (device, plan)
    });
    Ok(devices.collect())
}

fn plan(device: &BlockDevice, job: Job<'_>) -> Result<BackupPlan> {
    let disk = FileDisk::open_source(&device.path)?;
    let options = BackupOptions { sectors: Sectors::All, live: true, ..BackupOptions::default() };
    Ok(BackupPlan::new(&disk, SourceFacts::of_device(device), options, job)?)
}
