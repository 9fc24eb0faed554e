//! What every image goes through, and what is compared with the facts of the manifest.

use std::path::Path;
use std::sync::Arc;

use aiv_filesystems::{FilesystemKind, Recognised, UsedMap, WholeReason, recognise, used_map};
use aiv_volume_io::partition::{self, DiskId, PartitionTable, RegionKind, SectorSize, TableKind};
use aiv_volume_io::{Extent, ExtentSet, Job, ReadAt, Slice};
use serde_json::Value;

use super::manifest::{ImageFact, Trust};
use super::{Problem, Verdict, containers, files, round_trip};

/// Sector size in which the manifest counts partitions.
pub(super) const FACT_SECTOR: u64 = 512;
/// What `blkid` calls things the library does not know.
const KINDS_NOT_KNOWN: [&str; 1] = ["ddf_raid_member"];
/// Sound images about which the library and the tools differ for a known reason.
const DISPUTED: [(&str, &str); 2] = [
    (
        "dissect.ntfs/tests___data__boot_2m.bin.gz",
        "an NTFS boot sector without the file table that blkid asks for",
    ),
    (
        "discutils/Tests__LibraryTests__Swap__Data__swap.vhdx.gz",
        "a swap label with a letter that blkid does not print as it is",
    ),
];

/// Puts one raw image through the library. Any damage is fine as an answer; a panic is caught
/// by whoever runs this.
pub(super) fn check_image(fact: &ImageFact, raw: &Path) -> Verdict {
    let mut verdict = Verdict::default();
    if let Err(failure) = check_disk(fact, raw, &mut verdict) {
        verdict.problems.push(failure);
    }
    if let Err(failure) = check_round_trip(fact, raw, &mut verdict) {
        verdict.problems.push(failure);
    }
    verdict
}

fn check_round_trip(fact: &ImageFact, raw: &Path, verdict: &mut Verdict) -> Result<(), Problem> {
    // Beside the unpacked image, where there is room for it.
    let beside = raw.parent().ok_or("an image without a folder")?;
    let work = tempfile::tempdir_in(beside).map_err(|e| format!("no temporary folder: {e}"))?;
    round_trip::check(fact, raw, work.path(), verdict)
}

fn check_disk(fact: &ImageFact, raw: &Path, verdict: &mut Verdict) -> Result<(), Problem> {
    let Some(disk) = containers::open(fact, raw, verdict)? else { return Ok(()) };
    let disk: Arc<dyn ReadAt> = disk.into();
    let sector_size = partition::detect_sector_size(&disk).unwrap_or(SectorSize::B512);
    let table = partition::read_table(&disk, sector_size).map_err(|e| e.to_string())?;
    check_regions(&table, disk.len())?;

    // The disk as a whole is looked at even when it has a table: other programs do as well.
    let whole = check_volume(&disk, "disk", fact.trust, verdict)?;
    files::check(fact, None, disk.clone(), &whole, verdict);
    let mut volumes = Vec::new();
    for partition in &table.partitions {
        let on_disk = partition.extent.intersect(Extent::between(0, disk.len()));
        let Some(extent) = on_disk else { continue };
        let slice = Slice::new(disk.clone(), extent).map_err(|e| e.to_string())?;
        let name = format!("partition {}", partition.number);
        let start = partition.extent.start;
        let volume = check_volume(&slice, &name, fact.trust, verdict)?;
        files::check(fact, Some(start), Arc::new(slice), &volume, verdict);
        volumes.push((start, volume));
    }

    let remark = if fact.trust != Trust::Valid {
        "damaged or incomplete: survived".into()
    } else if fact.expected["blkid"].is_null() {
        "sound, not compared: no tool says what it is".into()
    } else if KINDS_NOT_KNOWN.iter().any(|kind| fact.expected["blkid"]["TYPE"] == *kind) {
        "sound, not compared: the library does not know its kind".into()
    } else {
        let differences = compare(&fact.expected, &table, &whole, &volumes);
        settle(&fact.id, differences, verdict)
    };
    verdict.remarks.push(remark);
    Ok(())
}

/// Differences are problems, except for a disputed image, where their absence is one.
fn settle(id: &str, differences: Vec<Problem>, verdict: &mut Verdict) -> String {
    match DISPUTED.iter().find(|(disputed, _)| *disputed == id) {
        None => {
            verdict.problems.extend(differences);
            "sound: compared with what independent tools say".into()
        }
        Some((_, reason)) => {
            if differences.is_empty() {
                verdict.problems.push("is listed as disputed and no longer is".into());
            }
            format!("sound, disputed: {reason}")
        }
    }
}

/// Every byte of the disk belongs to exactly one region.
fn check_regions(table: &PartitionTable, disk_len: u64) -> Result<(), Problem> {
    let mut at = 0;
    for region in partition::regions(table, disk_len) {
        if region.extent.start != at || region.extent.is_empty() {
            return Err(format!("region {:?} does not begin at byte {at}", region.extent));
        }
        if let RegionKind::Partition(number) = region.kind
            && !table.partitions.iter().any(|partition| partition.number == number)
        {
            return Err(format!("a region of partition {number}, which is not in the table"));
        }
        at = region.extent.end();
    }
    if at == disk_len {
        Ok(())
    } else {
        Err(format!("regions end at {at}, the disk at {disk_len}"))
    }
}

/// Recognises a volume and reads its map of used bytes.
fn check_volume(
    volume: &dyn ReadAt,
    name: &str,
    trust: Trust,
    verdict: &mut Verdict,
) -> Result<Recognised, Problem> {
    let recognised = recognise(volume).map_err(|e| format!("{name}: {e}"))?;
    let kind = recognised.kind;
    let map = used_map(volume, &recognised, Job::silent()).map_err(|e| format!("{name}: {e}"))?;
    let remark = match &map {
        UsedMap::Used { used, cluster_size, .. } => {
            check_map(used, *cluster_size, volume.len()).map_err(|e| format!("{name}: {e}"))?;
            format!("map of {kind}: read")
        }
        UsedMap::Whole { reason: WholeReason::UnknownFilesystem } => return Ok(recognised),
        UsedMap::Whole { reason: WholeReason::NoMap { .. } } => format!("map of {kind}: none yet"),
        UsedMap::Whole {
            reason:
                WholeReason::Encrypted { .. }
                | WholeReason::PartOf { .. }
                | WholeReason::NoFreeSpace { .. },
        } => format!("map of {kind}: none possible"),
        UsedMap::Whole { reason } if trust == Trust::Valid => {
            format!("map of {kind}: refused although sound: {reason}")
        }
        UsedMap::Whole { .. } => format!("map of {kind}: refused, damaged or incomplete"),
    };
    verdict.remarks.push(remark);
    Ok(recognised)
}

fn check_map(used: &ExtentSet, cluster_size: u32, volume_len: u64) -> Result<(), Problem> {
    if let Some(last) = used.runs().last().filter(|last| last.end() > volume_len) {
        return Err(format!("used bytes {last:?} of a volume of {volume_len}"));
    }
    if !cluster_size.is_power_of_two() {
        return Err(format!("cluster size {cluster_size}"));
    }
    Ok(())
}

/// Compares what the library says with what independent tools said. `volumes` are the
/// partitions by their first byte.
fn compare(
    expected: &Value,
    table: &PartitionTable,
    whole: &Recognised,
    volumes: &[(u64, Recognised)],
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let blkid = &expected["blkid"];
    if let Some(kind) = blkid["PTTYPE"].as_str() {
        problems.extend(compare_table(kind, blkid, &expected["pt"], table));
    } else {
        if table.kind != TableKind::None {
            problems.push(format!("a {:?} table where there is none", table.kind));
        }
        problems.extend(compare_volume("disk", blkid, whole));
    }
    let parts = expected["pt"]["parts"].as_array().map_or(&[] as &[Value], Vec::as_slice);
    for (index, part) in parts.iter().enumerate() {
        let name = format!("p{}", index + 1);
        let facts = &expected[&name]["blkid"];
        let start = part[0].as_u64().unwrap_or_default() * FACT_SECTOR;
        if facts.is_null() || is_protective(part) {
            continue;
        }
        match volumes.iter().find(|(at, _)| *at == start) {
            Some((_, volume)) => problems.extend(compare_volume(&name, facts, volume)),
            None => problems.push(format!("{name}: no partition begins at byte {start}")),
        }
    }
    problems
}

/// The entry with which an MBR hides a GPT from old programs.
fn is_protective(part: &Value) -> bool {
    part[2].as_str() == Some("ee")
}

fn compare_table(
    blkid_kind: &str,
    blkid: &Value,
    facts: &Value,
    table: &PartitionTable,
) -> Vec<Problem> {
    let kind = match blkid_kind {
        "dos" => TableKind::Mbr,
        // `blkid` calls a GPT it cannot read by its protective MBR.
        "gpt" | "PMBR" => TableKind::Gpt,
        other => return vec![format!("the manifest names a table of kind {other}")],
    };
    let mut problems = Vec::new();
    if table.kind != kind {
        problems.push(format!("table is {:?}, expected {kind:?}", table.kind));
    }
    if blkid_kind == "PMBR" {
        return problems;
    }
    let id = match table.disk_id {
        Some(DiskId::Gpt(guid)) => guid.to_string().to_lowercase(),
        Some(DiskId::Mbr(signature)) => format!("{signature:08x}"),
        None => String::new(),
    };
    let expected_id = blkid["PTUUID"].as_str().unwrap_or_default().to_lowercase();
    if id != expected_id {
        problems.push(format!("disk id is '{id}', expected '{expected_id}'"));
    }
    let parts = facts["parts"].as_array().map_or(&[] as &[Value], Vec::as_slice);
    let mut expected: Vec<(u64, u64)> = parts.iter().filter_map(start_and_len).collect();
    let mut found: Vec<(u64, u64)> =
        table.partitions.iter().map(|p| (p.extent.start, p.extent.len)).collect();
    expected.sort_unstable();
    found.sort_unstable();
    if found != expected {
        problems.push(format!("partitions (start, length) are {found:?}, expected {expected:?}"));
    }
    problems
}

fn start_and_len(part: &Value) -> Option<(u64, u64)> {
    Some((part[0].as_u64()? * FACT_SECTOR, part[1].as_u64()? * FACT_SECTOR))
}

fn compare_volume(name: &str, blkid: &Value, found: &Recognised) -> Vec<Problem> {
    let mut problems = Vec::new();
    let expected_kind = blkid["TYPE"].as_str().unwrap_or(FilesystemKind::Unknown.name());
    let mut differ = |what: &str, found: &str, expected: Option<&str>| {
        if let Some(expected) = expected.filter(|expected| *expected != found) {
            problems.push(format!("{name}: {what} is '{found}', expected '{expected}'"));
        }
    };
    differ("kind", found.kind.name(), Some(expected_kind));
    differ("uuid", &found.uuid, blkid["UUID"].as_str());
    // Where a disc carries a second, shorter label for Windows, blkid prefers that one.
    let joliet = blkid["VERSION"] == "Joliet Extension";
    differ("label", &found.label, blkid["LABEL"].as_str().filter(|_| !joliet));
    problems
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What the library says about an ext4 volume made by `mkfs.ext4`.
    fn ext4() -> (tempfile::NamedTempFile, Value) {
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(8 << 20).unwrap();
        let uuid = "6f1c0000-1111-4222-8333-123456789abc";
        let mut mkfs = crate::process::command("mkfs.ext4");
        mkfs.args(["-q", "-F", "-L", "data", "-U", uuid]).arg(image.path());
        crate::process::run(&mut mkfs).unwrap();
        (image, json!({"TYPE": "ext4", "UUID": uuid, "LABEL": "data"}))
    }

    fn verdict(image: &Path, trust: Trust, expected: Value) -> Verdict {
        let fact = ImageFact {
            id: "test".into(),
            stored: vec!["test".into()],
            decompress: "-".into(),
            unpacked_size: None,
            unpacked_sha256: None,
            kind: "test".into(),
            trust,
            expected,
            listings: Vec::new(),
        };
        check_image(&fact, image)
    }

    #[test]
    fn a_sound_image_that_is_what_the_facts_say_passes() {
        let (image, blkid) = ext4();
        let verdict = verdict(image.path(), Trust::Valid, json!({"blkid": blkid}));
        assert_eq!(verdict.problems, [""; 0]);
        assert_eq!(
            verdict.remarks,
            [
                "map of ext4: read",
                "files of ext4: read, no tool lists them",
                "sound: compared with what independent tools say",
                "all sectors: came back bit for bit",
                "used sectors: e2fsck agrees after a restore over noise",
            ]
        );
    }

    #[test]
    fn each_wrong_fact_of_a_sound_image_is_a_problem() {
        let (image, blkid) = ext4();
        for (fact, what) in [("TYPE", "kind"), ("UUID", "uuid"), ("LABEL", "label")] {
            let mut wrong = blkid.clone();
            wrong[fact] = json!("other");
            let verdict = verdict(image.path(), Trust::Valid, json!({"blkid": wrong}));
            assert_eq!(verdict.problems.len(), 1, "{:?}", verdict.problems);
            assert!(verdict.problems[0].starts_with(&format!("disk: {what} is '")));
        }
    }

    #[test]
    fn a_table_that_is_not_there_is_missed() {
        let (image, _) = ext4();
        let facts = json!({
            "blkid": {"PTTYPE": "dos", "PTUUID": "df7c7c37"},
            "pt": {"parts": [[1, 129, "83", ""]]},
            "p1": {"blkid": {"TYPE": "ext2"}},
        });
        let problems = verdict(image.path(), Trust::Valid, facts).problems;
        assert_eq!(problems.len(), 4, "{problems:?}");
        assert_eq!(problems[0], "table is None, expected Mbr");
        assert_eq!(problems[3], "p1: no partition begins at byte 512");
    }

    #[test]
    fn facts_about_damaged_images_are_not_compared() {
        let (image, _) = ext4();
        let verdict = verdict(image.path(), Trust::Other, json!({"blkid": {"TYPE": "xfs"}}));
        assert_eq!(verdict.problems, [""; 0]);
    }

    #[test]
    fn a_disputed_image_must_stay_disputed() {
        let mut verdict = Verdict::default();
        settle(DISPUTED[0].0, vec!["differs".into()], &mut verdict);
        assert_eq!(verdict.problems, [""; 0]);
        settle(DISPUTED[0].0, Vec::new(), &mut verdict);
        assert_eq!(verdict.problems, ["is listed as disputed and no longer is"]);
    }

    #[test]
    fn a_map_past_the_end_of_its_volume_is_refused() {
        let used: ExtentSet = [Extent::new(4096, 4096)].into_iter().collect();
        assert_eq!(check_map(&used, 4096, 8192), Ok(()));
        assert!(check_map(&used, 4096, 8191).is_err());
        assert!(check_map(&used, 4095, 8192).is_err());
    }
}
