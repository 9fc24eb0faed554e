//! Folders of images, as commands open and leave them.

use std::path::Path;

use aiv_chain::{Folder, MergeIds};
use aiv_report::Failure;
use aiv_volume_io::{DirStorage, Job};

use crate::session::{now_unix_ms, random, stretch};

/// Opens a folder that exists.
///
/// # Errors
/// When it does not, or cannot be opened.
pub fn open_folder(dir: &Path) -> Result<DirStorage, Failure> {
    DirStorage::open(dir).map_err(cannot_open(dir))
}

/// Opens a folder; it is created when only its last part is missing.
///
/// # Errors
/// When it cannot be opened or created.
pub fn open_or_create_folder(dir: &Path) -> Result<DirStorage, Failure> {
    DirStorage::open_or_create(dir).map_err(cannot_open(dir))
}

fn cannot_open(dir: &Path) -> impl FnOnce(std::io::Error) -> Failure {
    Failure::io(format!("cannot open the folder {}", dir.display()))
}

/// Brings the catalogue of a folder up to date. Best effort: without it the folder is only
/// slower to look through.
pub fn remember(storage: &DirStorage, job: Job<'_>) {
    if let Ok((_, catalogue)) = Folder::scan_with(storage, job) {
        let _ = catalogue.write(storage);
    }
}

/// Random bytes, mixed with what does not come again where they do, as in a virtual machine that
/// is set back: a merged image has a session of its own, and two sessions must never be the same.
fn hedged(random: &[u8; 32], now_unix_ms: u64) -> [u8; 32] {
    // A hedge only: where it cannot be read, the rest has to do.
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let now = format!("{now_unix_ms} {} {}", std::process::id(), boot.trim());
    *blake3::keyed_hash(random, now.as_bytes()).as_bytes()
}

/// Ids of new images, each made of bytes that never come again.
///
/// # Errors
/// When the system has no random bytes.
pub fn merge_ids() -> Result<impl FnMut() -> MergeIds, Failure> {
    let now = now_unix_ms();
    let mut seed = hedged(&random()?, now);
    Ok(move || {
        let mut bytes = [0; MergeIds::RANDOM_LEN];
        stretch(&mut seed, &mut bytes);
        MergeIds::new(&bytes, now)
    })
}
