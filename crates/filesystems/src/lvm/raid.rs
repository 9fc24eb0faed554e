//! Which image of a RAID1 of LVM is right.

use aiv_volume_io::ReadAt;

use super::joined::Leg;
use super::text::{Section, Value};
use crate::bytes::{le32, le64};

/// Properties of a segment beside those that all have.
pub(super) const FIELDS: &[&str] = &[
    "device_count",
    "region_size",
    "raids",
    "writebehind",
    "min_recovery_rate",
    "max_recovery_rate",
    "data_copies",
];

const MAGIC: u32 = 0x6452_6d44;
const SUPERBLOCK: usize = 64;
/// Nothing is left to do.
const DONE: u64 = u64::MAX;

/// An image of the volume, and what its own records say of all of them.
pub(super) struct Image {
    leg: Result<Leg, String>,
    superblock: Option<Superblock>,
}

/// What the kernel writes on the volume beside an image.
struct Superblock {
    events: u64,
    /// A bit for each image.
    failed: u64,
    /// Up to where this image was filled.
    filled: u64,
    /// Up to where all of them are the same.
    in_sync: u64,
}

/// Pairs of names: what describes an image, and the image.
pub(super) fn images<'a>(segment: &'a Section<'_>) -> Option<Vec<(&'a str, &'a str)>> {
    let Some(Value::List(values)) = segment.get("raids") else { return None };
    let pairs: Option<Vec<_>> = values
        .chunks(2)
        .map(|pair| match pair {
            [Value::Text(described), Value::Text(image)] => {
                Some((described.as_ref(), image.as_ref()))
            }
            _ => None,
        })
        .collect();
    pairs.filter(|pairs| {
        let count = i64::try_from(pairs.len()).unwrap_or(i64::MAX);
        (1..=64).contains(&count) && segment.get("device_count") == Some(&Value::Number(count))
    })
}

impl Image {
    pub(super) fn new(described: Option<&dyn ReadAt>, leg: Result<Leg, String>) -> Self {
        let superblock = described.and_then(|bytes| {
            let mut record = [0; SUPERBLOCK];
            bytes.read_exact_at(&mut record, 0).ok()?;
            (le32(&record, 0) == MAGIC).then(|| Superblock {
                events: le64(&record, 16),
                failed: le64(&record, 24),
                filled: le64(&record, 32),
                in_sync: le64(&record, 40),
            })
        });
        Self { leg, superblock }
    }
}

/// The first image that is here, whole and up to date.
pub(super) fn good(images: Vec<Image>) -> Result<Leg, String> {
    let newest = images.iter().filter_map(|image| image.superblock.as_ref());
    let newest = newest.max_by_key(|superblock| superblock.events);
    let newest = newest.map(|found| (found.events, found.failed, found.in_sync));
    let mut why = None;
    for (at, image) in images.into_iter().enumerate() {
        let judged = match (&image.superblock, newest) {
            // It never was active: nothing was written yet but to the first one.
            (None, None) if at == 0 => Ok(()),
            (None, _) => Err("an image has no record of its state"),
            (Some(own), Some((events, failed, in_sync))) => {
                if own.events != events || failed & (1 << at) != 0 || own.filled != DONE {
                    Err("an image is not up to date")
                } else if at > 0 && in_sync != DONE {
                    Err("its images are not the same yet")
                } else {
                    Ok(())
                }
            }
            (Some(_), None) => Err("an image has no record of its state"),
        };
        match (image.leg, judged) {
            (Ok(leg), Ok(())) => return Ok(leg),
            (Err(reason), _) => why = why.or(Some(reason)),
            (_, Err(reason)) => why = why.or(Some(reason.to_owned())),
        }
    }
    Err(why.unwrap_or_else(|| "it has no images".to_owned()))
}
