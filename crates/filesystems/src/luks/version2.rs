//! The header of version 2: a record and JSON behind it, under one checksum, twice.

use std::collections::BTreeMap;

use aiv_keys::Argon2;
use aiv_volume_io::{Extent, ReadAt};
use base64ct::{Base64, Encoding};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::cipher::Spec;
use super::hash::Hash;
use super::slot::Slot;
use super::stretch::Stretch;
use super::{Data, Header, MAGIC, Proof, record, shown, unsupported};
use crate::bytes::{array, be16, be64};
use crate::{Error, Result};

/// The record in front of the JSON.
const RECORD: usize = 4096;
/// Where its checksum is.
const SUM: usize = 448;
/// Bytes that a copy can have, and so places of the second one.
const SIZES: [usize; 9] =
    [16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20, 2 << 20, 4 << 20];
const SECOND_MAGIC: [u8; 6] = *b"SKUL\xba\xbe";
/// Key slots a header can have.
const SLOTS_MAX: usize = 32;
/// Bytes of a salt or digest.
const TEXT_MAX: usize = 1024;
/// Bytes of the shortest digest of a volume key: that of version 1, and of SHA-1.
const DIGEST_MIN: usize = 20;

/// A copy of the header that is whole.
struct Copy {
    number: u64,
    size: usize,
    json: Json,
}

#[derive(Deserialize)]
struct Json {
    keyslots: BTreeMap<String, KeySlot>,
    segments: BTreeMap<String, Segment>,
    digests: BTreeMap<String, Digest>,
    config: Config,
}

/// What other kinds of key slots do not have is missing.
#[derive(Deserialize)]
struct KeySlot {
    #[serde(rename = "type")]
    kind: String,
    key_size: Option<usize>,
    priority: Option<i64>,
    area: Option<Area>,
    kdf: Option<Kdf>,
    af: Option<Splitter>,
}

#[derive(Deserialize)]
struct Area {
    #[serde(rename = "type")]
    kind: String,
    offset: String,
    size: String,
    encryption: Option<String>,
    key_size: Option<usize>,
}

#[derive(Deserialize)]
struct Kdf {
    #[serde(rename = "type")]
    kind: String,
    salt: String,
    hash: Option<String>,
    iterations: Option<u32>,
    time: Option<u32>,
    memory: Option<u32>,
    cpus: Option<u32>,
}

#[derive(Deserialize)]
struct Splitter {
    #[serde(rename = "type")]
    kind: String,
    stripes: Option<u32>,
    hash: Option<String>,
}

#[derive(Deserialize)]
struct Segment {
    #[serde(rename = "type")]
    kind: String,
    offset: String,
    size: String,
    iv_tweak: Option<String>,
    encryption: Option<String>,
    sector_size: Option<u32>,
    integrity: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Digest {
    #[serde(rename = "type")]
    kind: String,
    keyslots: Vec<String>,
    segments: Vec<String>,
    salt: String,
    digest: String,
    hash: Option<String>,
    iterations: Option<u32>,
}

#[derive(Deserialize)]
struct Config {
    requirements: Option<Requirements>,
}

#[derive(Deserialize)]
struct Requirements {
    mandatory: Option<Vec<String>>,
}

pub(super) fn read(volume: &dyn ReadAt) -> Result<Header> {
    let first = copy_at(volume, 0, MAGIC);
    let second = match &first {
        Ok(copy) => copy_at(volume, copy.size as u64, SECOND_MAGIC).ok(),
        Err(Error::Io { .. } | Error::Damaged { .. }) => {
            SIZES.iter().find_map(|size| copy_at(volume, *size as u64, SECOND_MAGIC).ok())
        }
        Err(_) => None,
    };
    let copy = match (first, second) {
        (Ok(first), Some(second)) if second.number > first.number => second,
        (Err(_), Some(second)) => second,
        (first, _) => first?,
    };
    header(&copy.json, copy.size, volume.len())
}

/// The copy at `at`, when it is one, and whole.
fn copy_at(volume: &dyn ReadAt, at: u64, magic: [u8; 6]) -> Result<Copy> {
    let damaged = |what: &str| Error::damaged(format!("the header of LUKS {what}"), Some(at));
    let head = record(volume, at, RECORD)?;
    if head[..6] != magic || be16(&head, 6) != 2 || be64(&head, 256) != at {
        return Err(damaged("is none"));
    }
    let size = usize::try_from(be64(&head, 8)).ok().filter(|size| SIZES.contains(size));
    let size = size.ok_or_else(|| damaged("has a size that is none"))?;
    let mut bytes = record(volume, at, size)?;
    let algorithm: [u8; 32] = array(&bytes, 72);
    let algorithm = algorithm.split(|byte| *byte == 0).next().unwrap_or_default();
    let hash = Hash::named(&String::from_utf8_lossy(algorithm))?;
    let sum: [u8; 64] = array(&bytes, SUM);
    bytes[SUM..SUM + 64].fill(0);
    if hash.digest(&[&bytes])[..] != sum[..hash.size()] {
        return Err(damaged("does not match its checksum"));
    }
    let json = bytes[RECORD..].split(|byte| *byte == 0).next().unwrap_or_default();
    let json = serde_json::from_slice(json).map_err(|_| damaged("holds no metadata"))?;
    Ok(Copy { number: be64(&bytes, 16), size, json })
}

fn header(json: &Json, size: usize, volume_len: u64) -> Result<Header> {
    let needed = json.config.requirements.as_ref().and_then(|all| all.mandatory.as_ref());
    if let Some(first) = needed.and_then(|needed| needed.first()) {
        let what = if first.starts_with("online-reencrypt") || first == "offline-reencrypt" {
            "it is being encrypted anew: let cryptsetup finish that first".to_owned()
        } else {
            format!("it needs {}, which is not known here", shown(first))
        };
        return Err(unsupported(what));
    }
    let damaged = |what: &str| Error::damaged(what, None);
    let mut segments = json.segments.iter();
    let (name, segment) = match (segments.next(), segments.next()) {
        (Some(only), None) => only,
        _ => return Err(unsupported("its data is not in one segment".to_owned())),
    };
    let digest = json.digests.values().find(|digest| digest.segments.contains(name));
    let digest = digest.ok_or_else(|| damaged("there is no digest of the volume key"))?;
    let data = data(segment, size, volume_len)?;
    let mut slots: Vec<(i64, u32, &KeySlot)> = Vec::new();
    for number in &digest.keyslots {
        let Some(slot) = json.keyslots.get(number) else { continue };
        // The lowest priority is for slots that are asked for by their number: they come last.
        let priority = slot.priority.unwrap_or(1).clamp(0, 2);
        slots.push((2 - priority, number.parse().unwrap_or(u32::MAX), slot));
    }
    slots.sort_by_key(|(priority, number, _)| (*priority, *number));
    slots.dedup_by_key(|(_, number, _)| *number);
    slots.truncate(SLOTS_MAX);
    let slots = slots.into_iter().map(|(_, _, slot)| key_slot(slot, &data.cipher, volume_len));
    Ok(Header { slots: slots.collect(), proof: proof(digest)?, data })
}

fn data(segment: &Segment, size: usize, volume_len: u64) -> Result<Data> {
    if segment.integrity.is_some() {
        let what = "it keeps checksums between its data (dm-integrity), which is not opened";
        return Err(unsupported(what.to_owned()));
    }
    if segment.kind != "crypt" {
        return Err(unsupported(format!("data of kind {} is not known", shown(&segment.kind))));
    }
    let start = number(&segment.offset)?;
    if start < 2 * size as u64 {
        let what = "it is a header whose data lies elsewhere, which is not opened";
        return Err(unsupported(what.to_owned()));
    }
    let len = match segment.size.as_str() {
        "dynamic" => volume_len.saturating_sub(start),
        size => number(size)?,
    };
    let sector = segment.sector_size.unwrap_or(512);
    if ![512, 1024, 2048, 4096].contains(&sector) {
        return Err(unsupported(format!("sectors of {sector} bytes are not known")));
    }
    let cipher = cipher(segment.encryption.as_deref())?;
    let first = segment.iv_tweak.as_deref().map_or(Ok(0), number)?;
    Ok(Data { extent: Extent::new(start, len), cipher, sector, first })
}

fn proof(digest: &Digest) -> Result<Proof> {
    if digest.kind != "pbkdf2" {
        return Err(unsupported(format!("a digest of kind {} is not known", shown(&digest.kind))));
    }
    let sum = bytes(&digest.digest)?;
    if sum.len() < DIGEST_MIN {
        // A wrong key would pass for the right one.
        let what = format!("a digest of the volume key of {} bytes is none", sum.len());
        return Err(Error::damaged(what, None));
    }
    Ok(Proof {
        hash: hash(digest.hash.as_deref())?,
        rounds: digest.iterations.unwrap_or(0),
        salt: bytes(&digest.salt)?,
        digest: sum,
    })
}

fn key_slot(slot: &KeySlot, data: &Spec, volume_len: u64) -> Result<Slot> {
    let damaged = || Error::damaged("a key slot lacks a part", None);
    if slot.kind != "luks2" {
        return Err(unsupported(format!("a key slot of kind {} is not known", shown(&slot.kind))));
    }
    let (Some(area), Some(kdf), Some(af)) = (&slot.area, &slot.kdf, &slot.af) else {
        return Err(damaged());
    };
    for (kind, known) in [(&area.kind, "raw"), (&af.kind, "luks1")] {
        if kind != known {
            return Err(unsupported(format!("a key slot of kind {} is not known", shown(kind))));
        }
    }
    let key_len = slot.key_size.ok_or_else(damaged)?;
    data.check(key_len)?;
    let slot = Slot {
        stretch: stretch(kdf)?,
        cipher: cipher(area.encryption.as_deref())?,
        wrapping_len: area.key_size.ok_or_else(damaged)?,
        start: number(&area.offset)?,
        stripes: af.stripes.ok_or_else(damaged)?,
        hash: hash(af.hash.as_deref())?,
        key_len,
    };
    let slot = slot.checked(volume_len)?;
    match number(&area.size)? >= slot.len() {
        true => Ok(slot),
        false => Err(Error::damaged("a key slot is larger than its place", Some(slot.start))),
    }
}

fn stretch(kdf: &Kdf) -> Result<Stretch> {
    let salt = bytes(&kdf.salt)?;
    let kind = match kdf.kind.as_str() {
        "pbkdf2" => {
            let (hash, rounds) = (hash(kdf.hash.as_deref())?, kdf.iterations.unwrap_or(0));
            return Ok(Stretch::Pbkdf2 { hash, rounds, salt });
        }
        "argon2id" => Argon2::Id,
        "argon2i" => Argon2::I,
        other => {
            let what = format!("the key derivation {} is not known", shown(other));
            return Err(unsupported(what));
        }
    };
    let [memory, passes, lanes] = [kdf.memory, kdf.time, kdf.cpus].map(|cost| cost.unwrap_or(0));
    Stretch::argon2(kind, memory, passes, lanes, salt)
}

fn cipher(name: Option<&str>) -> Result<Spec> {
    let name = name.unwrap_or_default();
    let (cipher, mode) = name.split_once('-').unwrap_or((name, ""));
    Spec::named(cipher, mode)
}

fn hash(name: Option<&str>) -> Result<Hash> {
    Hash::named(name.unwrap_or_default())
}

fn bytes(text: &str) -> Result<Vec<u8>> {
    let decoded = Base64::decode_vec(text).ok().filter(|bytes| bytes.len() <= TEXT_MAX);
    decoded.ok_or_else(|| Error::damaged("a salt or digest of LUKS is no text of base64", None))
}

fn number(text: &str) -> Result<u64> {
    text.parse().map_err(|_| Error::damaged("a number of the header of LUKS is none", None))
}
