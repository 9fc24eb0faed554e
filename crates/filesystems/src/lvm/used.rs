//! The map of a physical volume: its records, and what its logical volumes use of themselves.

use aiv_volume_io::{Extent, ExtentSet, Job, ReadAt};

use super::group::{self, Group};
use super::label::{self, Label};
use super::pieces::Pieces;
use super::reason::LvmReason;
use super::volume::LogicalVolume;
use super::{area, text};
use crate::recognise::{Recognised, recognise};
use crate::runs::{RUNS_MAX, RunCollector};
use crate::stop::Stop;
use crate::used_map::used_map_in;
use crate::{Error, FilesystemKind, MapNote, UsedMap, WholeReason};

/// Physical volumes in logical volumes in physical volumes: a virtual machine whose disk is a
/// logical volume has two.
const NESTED_MAX: usize = 2;

/// Reads the map of a physical volume inside `depth` others.
pub(super) fn read(volume: &dyn ReadAt, depth: usize, job: Job<'_>) -> Result<UsedMap, Stop> {
    if depth >= NESTED_MAX {
        return Err(LvmReason::TooDeep.into());
    }
    let label = label::read(volume)?;
    let group = read_group(volume, &label)?;
    check_places(volume, &label, &group)?;
    if let Some(kind) = label::other_signature(volume, group.data.start)? {
        return Err(LvmReason::OtherSignature(kind).into());
    }
    let mut kept =
        vec![Extent::between(0, group.data.start), Extent::between(group.data.end(), volume.len())];
    let mut notes = Vec::new();
    for logical in &group.volumes {
        job.check()?;
        kept.extend(read_logical(volume, logical, depth, &mut notes, job)?);
        if kept.len() > RUNS_MAX {
            kept = coarse(kept).runs().to_vec();
        }
    }
    let cluster_size = 1 << group.extent_len.trailing_zeros().min(30);
    Ok(UsedMap::Used { used: coarse(kept), cluster_size, notes })
}

/// The runs in their order, within the bound that all maps have.
fn coarse(mut runs: Vec<Extent>) -> ExtentSet {
    runs.sort_unstable();
    // Half of what is allowed: the next volume shall not make it coarser at once.
    let mut collector = RunCollector::new(RUNS_MAX / 2);
    runs.into_iter().filter(|run| !run.is_empty()).for_each(|run| collector.push(run));
    collector.finish()
}

/// Reads every copy of the metadata that is kept up to date; they must say the same.
pub(super) fn read_group(volume: &dyn ReadAt, label: &Label) -> Result<Group, Stop> {
    let texts = read_texts(volume, label)?;
    let mut trees = Vec::new();
    for text in &texts {
        let tree = text::parse(text);
        trees.push(tree.map_err(|wrong| LvmReason::Text { at: wrong.at, what: wrong.what })?);
    }
    let Some((first, others)) = trees.split_first() else {
        return Err(LvmReason::NoMetadata.into());
    };
    let (name, section) = group::of_text(first)?;
    for other in others {
        if group::of_text(other)? != (name, section) {
            return Err(LvmReason::CopiesDiffer.into());
        }
    }
    Ok(group::read(name, section, &label.id)?)
}

/// The valid text of every copy on the volume that is kept up to date.
pub(super) fn read_texts(volume: &dyn ReadAt, label: &Label) -> Result<Vec<String>, Stop> {
    let mut texts = Vec::new();
    for &area in &label.areas {
        texts.extend(area::read(volume, area)?);
    }
    Ok(texts)
}

/// Whether label, metadata and volume agree about what is where.
fn check_places(volume: &dyn ReadAt, label: &Label, group: &Group) -> Result<(), LvmReason> {
    let volume_len = volume.len();
    let claims = [Some(label.device_len), group.device_len, Some(group.data.end())];
    if let Some(claimed) = claims.into_iter().flatten().find(|&claimed| claimed > volume_len) {
        return Err(LvmReason::LargerThanVolume { claimed, volume: volume_len });
    }
    let label_sectors = Extent::new(0, 2048);
    let records = label.areas.iter().chain(&label.boot_areas).chain([&label_sectors]);
    if label.data_start != group.data.start {
        return Err(group::wrong("label", "it names another first extent than the metadata"));
    }
    match records.filter_map(|record| record.intersect(group.data)).next() {
        Some(both) => {
            let what = format!("records and extents share byte {}", both.start);
            Err(group::wrong("physical volume", what))
        }
        None => Ok(()),
    }
}

/// What has to be kept of one logical volume.
fn read_logical(
    volume: &dyn ReadAt,
    logical: &LogicalVolume,
    depth: usize,
    notes: &mut Vec<MapNote>,
    job: Job<'_>,
) -> Result<Vec<Extent>, Stop> {
    let all: Vec<Extent> = logical.pieces.iter().map(|piece| piece.physical).collect();
    let len = all.iter().map(|run| run.len).sum();
    let mut told = |filesystem, used, reason: Option<WholeReason>| {
        let name = logical.name.clone();
        let reason = reason.map(Box::new);
        notes.push(MapNote::LogicalVolume { name, filesystem, len, used, reason });
    };
    if let Some(opaque) = &logical.opaque {
        let reason = WholeReason::LogicalVolume(opaque.clone());
        told(FilesystemKind::Unknown, len, Some(reason));
        return Ok(all);
    }
    let pieces = Pieces::new(volume, &logical.pieces);
    let (recognised, map) = look_inside(&pieces, depth, job)?;
    match map {
        UsedMap::Whole { reason } => {
            told(recognised.kind, len, Some(reason));
            Ok(all)
        }
        UsedMap::Used { used, notes: inner, .. } => {
            told(recognised.kind, used.total_len(), None);
            let name = &logical.name;
            notes.extend(inner.into_iter().map(|note| match note {
                MapNote::Within { name: inner, note } => {
                    MapNote::Within { name: format!("{name}/{inner}"), note }
                }
                note => MapNote::Within { name: name.clone(), note: Box::new(note) },
            }));
            Ok(pieces.places_of(&used))
        }
    }
}

/// What lies in a logical volume, and its map.
pub(super) fn look_inside(
    pieces: &Pieces<'_>,
    depth: usize,
    job: Job<'_>,
) -> Result<(Recognised, UsedMap), Error> {
    let look = || {
        let recognised = recognise(pieces)?;
        let map = used_map_in(pieces, &recognised, depth + 1, job)?;
        Ok((recognised, map))
    };
    look().map_err(|error| match error {
        // An offset in the logical volume would send its reader to the wrong place.
        Error::Io { op, offset, source } => {
            let place = pieces.places(Extent::new(offset, 1)).next();
            Error::Io { op, offset: place.map_or(offset, |place| place.start), source }
        }
        error => error,
    })
}
