//! Virtual disks: opened by content and facts, and compared with what QEMU and libvhdi read.

use std::io::Write;
use std::path::Path;

use aiv_disk_formats::{DiskImage, Follow, Format, OpenOptions};
use aiv_volume_io::{Extent, ExtentSet, FileDisk, ReadAt};

use super::manifest::{ImageFact, Trust};
use super::{Problem, Verdict, unpack};

/// Bytes hashed at once.
const STEP: u64 = 1 << 20;
/// Sound images that are refused for a known reason.
const REFUSED: [(&str, &str); 1] = [(
    "dfvfs/test_data__image.vhd",
    "an old program wrote a wrong checksum into its header; QEMU refuses it as well",
)];

/// The virtual disk that the facts call an image; `None` for a raw one.
fn format_of(fact: &ImageFact) -> Option<Format> {
    let word = match fact.expected["container"].as_str() {
        Some(word) => word,
        // Nobody could open it: what it was meant to be is in its kind.
        None if fact.trust != Trust::Valid => fact.kind.split('+').next().unwrap_or_default(),
        None => return None,
    };
    let word = if word == "vpc" { "vhd" } else { word };
    Format::WORDS.iter().find(|(known, _)| *known == word).map(|(_, format)| *format)
}

/// Puts the parent of an image beside it, under the name it was made with.
pub(super) fn fetch_parent(
    folder: &Path,
    facts: &[ImageFact],
    fact: &ImageFact,
    raw: &Path,
) -> Result<(), Problem> {
    let Some(id) = fact.expected["parent"].as_str() else { return Ok(()) };
    let parent = facts.iter().find(|fact| fact.id == id).ok_or("its parent is not listed")?;
    let name = id.rsplit("__").next().unwrap_or(id);
    let beside = raw.with_file_name(name);
    let work = tempfile::tempdir_in(beside.parent().ok_or("an image without a folder")?)
        .map_err(|e| format!("no temporary folder: {e}"))?;
    let unpacked =
        unpack::unpack(folder, parent, work.path()).map_err(|e| format!("its parent: {e:?}"))?;
    std::fs::copy(unpacked, beside).map_err(|e| format!("its parent: {e}"))?;
    Ok(())
}

/// The disk in an image. `None` when it is refused, as it may be or should be.
pub(super) fn open(
    fact: &ImageFact,
    raw: &Path,
    verdict: &mut Verdict,
) -> Result<Option<Box<dyn ReadAt>>, Problem> {
    let Some(format) = format_of(fact) else {
        let disk = FileDisk::open_source(raw).map_err(|e| e.to_string())?;
        return Ok(Some(Box::new(disk)));
    };
    let options = OpenOptions { format: Some(format), follow: Follow::Folder };
    let disputed = REFUSED.iter().find(|(id, _)| *id == fact.id);
    let disk = match (DiskImage::open(raw, &options), disputed) {
        (Ok(_), Some(_)) => return Err("is listed as refused and no longer is".into()),
        (Ok(disk), None) => disk,
        (Err(_), Some((_, reason))) => {
            verdict.remarks.push(format!("sound {format}, refused: {reason}"));
            return Ok(None);
        }
        (Err(_), None) if fact.trust != Trust::Valid => {
            verdict.remarks.push(format!("damaged {format}: refused"));
            return Ok(None);
        }
        (Err(error), None) => return Err(format!("refused although sound: {error:?}")),
    };
    if fact.trust == Trust::Valid {
        compare(fact, &disk, verdict)?;
    }
    Ok(Some(Box::new(disk)))
}

fn compare(fact: &ImageFact, disk: &DiskImage, verdict: &mut Verdict) -> Result<(), Problem> {
    let (format, expected) = (disk.format(), &fact.expected);
    if let Some(size) = expected["virtual_size"].as_u64().filter(|size| *size != disk.len()) {
        return Err(format!("a {format} of {} bytes, expected {size}", disk.len()));
    }
    let all = Extent::new(0, disk.len());
    let holes: ExtentSet = holes(disk)?;
    let hashes: Vec<&str> = ["raw_sha256", "libvhdi_raw_sha256"]
        .iter()
        .filter_map(|key| expected[key].as_str())
        .collect();
    if !hashes.is_empty() {
        let found = hash(disk, &[all], &holes, |_| String::new())?;
        if let Some(other) = hashes.iter().find(|hash| **hash != found) {
            return Err(format!("a {format} of SHA-256 {found}, expected {other}"));
        }
        verdict.remarks.push(format!("{format}: every byte as other programs read it"));
    }
    if let Some(expected) = expected["alloc_sha256"].as_str() {
        let data = holes.gaps_within(all);
        let found =
            hash(disk, &data, &ExtentSet::new(), |run| format!("{}+{}:", run.start, run.len))?;
        if found != expected {
            return Err(format!("allocated parts of SHA-256 {found}, expected {expected}"));
        }
        verdict.remarks.push(format!("{format}: allocated parts as QEMU sees them"));
    }
    Ok(())
}

fn holes(disk: &DiskImage) -> Result<ExtentSet, Problem> {
    let mut all = Vec::new();
    let mut at = 0;
    // One call names a bounded number of them.
    while at < disk.len() {
        let window = Extent::new(at, 1 << 30);
        all.extend(disk.holes(window).map_err(|e| format!("holes at {at}: {e}"))?);
        at = window.end();
    }
    Ok(all.into_iter().collect())
}

/// SHA-256 of the runs, each with a prefix. What is a hole is not read.
fn hash(
    disk: &DiskImage,
    runs: &[Extent],
    holes: &ExtentSet,
    prefix: impl Fn(Extent) -> String,
) -> Result<String, Problem> {
    let mut child = unpack::start_hash()?;
    let mut pipe = child.stdin.take().ok_or("openssl has no input")?;
    let mut buffer = vec![0; usize::try_from(STEP).unwrap_or_default()];
    let mut put = |bytes: &[u8]| pipe.write_all(bytes).map_err(|e| format!("cannot hash: {e}"));
    for run in runs {
        put(prefix(*run).as_bytes())?;
        let mut at = run.start;
        while at < run.end() {
            let part = Extent::new(at, STEP.min(run.end() - at));
            let bytes = &mut buffer[..usize::try_from(part.len).unwrap_or_default()];
            match holes.gaps_within(part).is_empty() {
                true => bytes.fill(0),
                false => disk.read_exact_at(bytes, at).map_err(|e| format!("byte {at}: {e}"))?,
            }
            put(bytes)?;
            at = part.end();
        }
    }
    drop(pipe);
    unpack::finish_hash(child)
}
