//! Every image as a disk: backup, verify, restore, compare. Damaged filesystems are still
//! bytes, and bytes must come back.

use std::fs::File;
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::Stdio;

use aiv_backup_engine::{BackupIds, BackupOptions, BackupPlan, Sectors, SourceFacts};
use aiv_chain::View;
use aiv_image_format::GroupId;
use aiv_image_format::meta::{Capture, Inventory};
use aiv_restore_engine::{RestoreOptions, RestorePlan, TargetFacts};
use aiv_volume_io::{DirStorage, FileDisk, Job, ReadAt};

use super::manifest::{ImageFact, Trust};
use super::{Problem, Verdict};
use crate::process;

const THREADS: NonZeroUsize = NonZeroUsize::MIN;
/// Larger disks are not restored over noise: filling them would take the time of all others.
const NOISE_MAX: u64 = 512 << 20;

/// Takes `raw` through both captures. `work` is an empty folder.
pub(super) fn check(
    fact: &ImageFact,
    raw: &Path,
    work: &Path,
    verdict: &mut Verdict,
) -> Result<(), Problem> {
    let storage = DirStorage::open(work).map_err(|e| e.to_string())?;
    let restored = work.join("restored");

    let (_, image) = backup(raw, &storage, Sectors::All, 1)?;
    restore(&storage, work, &image, &restored)?;
    if !succeeds("cmp", &["--silent"], &[raw, &restored])? {
        return Err("restored from all sectors, it is another disk".into());
    }
    remove(&restored)?;
    verdict.remarks.push("all sectors: came back bit for bit".into());

    let (plan, image) = backup(raw, &storage, Sectors::Used, 2)?;
    let volumes = plan.disk.regions.iter().filter_map(|r| r.volume.as_ref());
    let captured_by_use = volumes.filter(|v| v.capture == Capture::Used).count();
    if captured_by_use == 0 || plan.disk.len > NOISE_MAX {
        return Ok(());
    }
    fill_with_noise(&restored, plan.disk.len)?;
    restore(&storage, work, &image, &restored)?;
    let one_volume = plan.disk.regions.len() == 1;
    let judge = judge(fact.expected["blkid"]["TYPE"].as_str().unwrap_or_default());
    if fact.trust == Trust::Valid
        && one_volume
        && let Some((program, options)) = judge
    {
        let before = succeeds(program, options, &[raw])?;
        let after = succeeds(program, options, &[&restored])?;
        if before != after {
            return Err(format!("{program} finds it sound: {before}; over noise: {after}"));
        }
        verdict.remarks.push(format!("used sectors: {program} agrees after a restore over noise"));
    }
    remove(&restored)
}

/// Who judges a filesystem of a type that `blkid` names, without changing it.
fn judge(kind: &str) -> Option<(&'static str, &'static [&'static str])> {
    match kind {
        "ext2" | "ext3" | "ext4" => Some(("e2fsck", &["-f", "-n"])),
        "xfs" => Some(("xfs_repair", &["-n", "-f"])),
        "btrfs" => Some(("btrfs", &["check", "--readonly", "--check-data-csum"])),
        "vfat" => Some(("fsck.fat", &["-n"])),
        "exfat" => Some(("fsck.exfat", &["-n"])),
        _ => None,
    }
}

fn backup(
    raw: &Path,
    storage: &DirStorage,
    sectors: Sectors,
    seed: u8,
) -> Result<(BackupPlan, String), Problem> {
    let said = |e: &dyn std::error::Error| format!("backup of {sectors:?} sectors: {}", chain(e));
    let source = FileDisk::open_source(raw).map_err(|e| said(&e))?;
    let facts = SourceFacts {
        label: raw.display().to_string(),
        name: "image".into(),
        host: "campaign".into(),
        ..SourceFacts::default()
    };
    let options = BackupOptions { sectors, verify: true, ..BackupOptions::default() };
    let plan = BackupPlan::new(&source, facts, options, Job::silent()).map_err(|e| said(&e))?;
    let ids = BackupIds::new(&[seed; BackupIds::RANDOM_LEN], GroupId([seed; 16]), 0);
    let report = plan
        .apply(&source, storage, &ids, &Inventory::default(), None, Job::silent())
        .map_err(|e| said(&e))?;
    if report.bytes_source != source.len() || !report.verified {
        return Err(format!("backup of {sectors:?} sectors: its report contradicts the disk"));
    }
    Ok((plan, report.image))
}

fn restore(storage: &DirStorage, work: &Path, image: &str, to: &Path) -> Result<(), Problem> {
    let said = |e: &dyn std::error::Error| format!("restore: {}", chain(e));
    let view = View::open(storage, image, Job::silent()).map_err(|e| said(&e))?;
    let facts = TargetFacts::gather(Path::new("/"), to, &work.join(image)).map_err(|e| said(&e))?;
    let plan = RestorePlan::new(&view, &facts, RestoreOptions::new(THREADS), Job::silent())
        .map_err(|e| said(&e))?;
    let target = match facts.exists {
        true => FileDisk::open_target(to, true),
        false => FileDisk::create_target(to, plan.target_len_needed()),
    };
    let target = target.map_err(|e| said(&e))?;
    plan.apply(&view, &target, Job::silent()).map(|_| ()).map_err(|e| said(&e))
}

/// The error and everything below it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

fn succeeds(program: &str, options: &[&str], files: &[&Path]) -> Result<bool, Problem> {
    let mut command = process::command(program);
    command.args(options).args(files).stdout(Stdio::null()).stderr(Stdio::null());
    let status = command.status().map_err(|e| format!("cannot start {program}: {e}"))?;
    Ok(status.success())
}

fn remove(path: &Path) -> Result<(), Problem> {
    std::fs::remove_file(path).map_err(|e| e.to_string())
}

fn fill_with_noise(path: &Path, len: u64) -> Result<(), Problem> {
    let said = |e: std::io::Error| format!("filling {} with noise: {e}", path.display());
    let mut file = File::create_new(path).map_err(said)?;
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut noise = Vec::with_capacity(1 << 16);
    while noise.len() < 1 << 16 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend_from_slice(&state.to_le_bytes());
    }
    let mut left = len;
    while left > 0 {
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(noise.len());
        file.write_all(&noise[..count]).map_err(said)?;
        left -= count as u64;
    }
    Ok(())
}
