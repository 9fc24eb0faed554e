//! What the metadata of a group says of thin volumes and their pools.

use super::group::{number, sectors};
use super::text::{Section, Value};
use super::volume::{SEGMENT_FIELDS, segments};

type Told<T> = std::result::Result<T, String>;

/// A thin volume in a segment.
#[derive(Clone, Copy)]
pub(super) struct Thin<'a> {
    /// Name of its pool.
    pub(super) pool: &'a str,
    /// Its number there.
    pub(super) device: u64,
}

/// A pool.
pub(super) struct PoolParts<'a> {
    /// Name of the volume with its metadata.
    pub(super) metadata: &'a str,
    /// Name of the volume with its data.
    pub(super) data: &'a str,
    /// Bytes of its blocks.
    pub(super) block_len: u64,
}

pub(super) fn thin<'a>(segment: &'a Section<'_>) -> Told<Thin<'a>> {
    if segment.get("external_origin").is_some() {
        return Err("it is thin, with an origin outside of its pool".to_owned());
    }
    if segment.get("merge").is_some() {
        return Err("it is being merged into its origin".to_owned());
    }
    only(segment, &["thin_pool", "transaction_id", "device_id", "origin"])?;
    let device = number("a thin volume", segment, "device_id").map_err(|why| why.to_string())?;
    Ok(Thin { pool: name(segment, "thin_pool")?, device })
}

/// What a pool consists of, by the section of its volume.
pub(super) fn pool<'a>(volume: &'a Section<'_>) -> Told<PoolParts<'a>> {
    let mut all = segments(volume);
    let (Some((_, segment)), None) = (all.next(), all.next()) else {
        return Err("its pool is not in one piece".to_owned());
    };
    let kind = segment.get("type");
    if !matches!(kind, Some(Value::Text(kind)) if kind == "thin-pool") {
        return Err("its pool is none".to_owned());
    }
    // What the pool is still to be told makes or removes other volumes.
    only(
        segment,
        &[
            "metadata",
            "pool",
            "transaction_id",
            "chunk_size",
            "discards",
            "zero_new_blocks",
            "crop_metadata",
        ],
    )?;
    let block_len = sectors("a pool", segment, "chunk_size").map_err(|why| why.to_string())?;
    Ok(PoolParts { metadata: name(segment, "metadata")?, data: name(segment, "pool")?, block_len })
}

fn only(segment: &Section<'_>, fields: &[&str]) -> Told<()> {
    let is_known = |name: &str| {
        SEGMENT_FIELDS.contains(&name) || fields.contains(&name) || name.starts_with("message")
    };
    let unknown = segment.0.iter().map(|entry| entry.0).find(|name| !is_known(name));
    unknown.map_or(Ok(()), |name| Err(format!("it has the unknown property {name:?}")))
}

fn name<'a>(segment: &'a Section<'_>, field: &str) -> Told<&'a str> {
    match segment.get(field) {
        Some(Value::Text(name)) => Ok(name.as_ref()),
        _ => Err(format!("its {field} has no name")),
    }
}
