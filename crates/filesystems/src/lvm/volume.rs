//! One logical volume: where its data is, and whether it can be read as one piece.

use aiv_volume_io::Extent;

use super::group::{Here, number, words, wrong};
use super::reason::{LogicalVolumeReason, LvmReason};
use super::text::{Section, Value};

/// Properties of a volume that change nothing about its bytes.
pub(super) const FIELDS: &[&str] = &[
    "id",
    "status",
    "flags",
    "tags",
    "profile",
    "creation_time",
    "creation_host",
    "allocation_policy",
    "read_ahead",
    "major",
    "minor",
    "segment_count",
];
pub(super) const SEGMENT_FIELDS: &[&str] =
    &["start_extent", "extent_count", "tags", "type", "stripe_count", "stripes"];

/// A logical volume with data on this physical volume.
#[derive(Debug)]
pub(super) struct LogicalVolume {
    /// `GROUP/NAME`.
    pub(super) name: String,
    /// What of it lies here. In a volume that can be read these follow each other without gap.
    pub(super) pieces: Vec<Piece>,
    /// Why its bytes are not these pieces in their order.
    pub(super) opaque: Option<LogicalVolumeReason>,
}

/// Bytes of a logical volume that lie in one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    /// First byte in the logical volume.
    pub(super) logical: u64,
    /// Bytes of the physical volume.
    pub(super) physical: Extent,
}

type Checked<T> = std::result::Result<T, LvmReason>;

/// The segments among the entries of a volume.
pub(super) fn segments<'a, 'text>(
    volume: &'a Section<'text>,
) -> impl Iterator<Item = (&'text str, &'a Section<'text>)> {
    volume.0.iter().filter_map(|(name, value)| match value {
        Value::Section(segment) if is_segment(name) => Some((*name, segment)),
        _ => None,
    })
}

pub(super) fn is_segment(name: &str) -> bool {
    let digits = name.strip_prefix("segment").unwrap_or_default();
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Every word in the segments of a volume that may name another volume.
pub(super) fn mentioned<'a>(volume: &'a Section<'_>) -> Vec<&'a str> {
    let mut found = Vec::new();
    for (_, segment) in segments(volume) {
        words_below(segment, &mut found);
    }
    found
}

/// All strings below a section but those that are no names.
fn words_below<'a>(section: &'a Section<'_>, found: &mut Vec<&'a str>) {
    for (name, value) in &section.0 {
        match value {
            _ if ["type", "tags"].contains(name) => {}
            Value::Text(word) => found.push(word),
            Value::List(values) => found.extend(values.iter().filter_map(|value| match value {
                Value::Text(word) => Some(word.as_ref()),
                _ => None,
            })),
            Value::Section(section) => words_below(section, found),
            Value::Number(_) => {}
        }
    }
}

/// Reads the volume called `name`; `None` when nothing of it lies here. `user` is another volume
/// that mentions it.
pub(super) fn read(
    group: &str,
    name: &str,
    at: &str,
    volume: &Section<'_>,
    user: Option<&str>,
    here: &Here<'_>,
) -> Checked<Option<LogicalVolume>> {
    let mut found = Vec::new();
    for (segment_name, segment) in segments(volume) {
        found.push(read_segment(&format!("{at}, {segment_name}"), segment, here)?);
    }
    if number(at, volume, "segment_count")? != found.len() as u64 {
        return Err(wrong(at, "segment_count is not the number of its segments"));
    }
    found.sort_by_key(|segment| segment.start);
    let mut end = 0;
    for segment in &found {
        if segment.start != end {
            return Err(wrong(at, "its segments do not follow each other"));
        }
        end = segment.end;
    }
    let opaque = opaque(at, volume, user, here)?.or_else(|| {
        let first = found.iter_mut().find_map(|segment| segment.opaque.take());
        first.or_else(|| found.is_empty().then(|| LogicalVolumeReason::Type("empty".to_owned())))
    });
    let pieces: Vec<Piece> = found.into_iter().flat_map(|segment| segment.pieces).collect();
    let name = format!("{group}/{name}");
    Ok((!pieces.is_empty()).then_some(LogicalVolume { name, pieces, opaque }))
}

/// What beside its segments makes a volume more than what is written in them.
fn opaque(
    at: &str,
    volume: &Section<'_>,
    user: Option<&str>,
    here: &Here<'_>,
) -> Checked<Option<LogicalVolumeReason>> {
    if let Some(user) = user {
        return Ok(Some(LogicalVolumeReason::UsedBy(user.to_owned())));
    }
    let rest = volume.0.iter().filter(|(name, _)| !is_segment(name));
    for (name, value) in rest {
        if let Value::Section(section) = value {
            // It may own extents in a way that nobody here knows.
            let mut words = Vec::new();
            words_below(section, &mut words);
            if words.contains(&here.name) {
                return Err(wrong(at, format!("its unknown part {name} lies on this disk")));
            }
        }
        if !FIELDS.contains(name) {
            return Ok(Some(LogicalVolumeReason::Unknown((*name).to_owned())));
        }
    }
    let no_list = || wrong(at, "its status or flags are no list");
    let status = words(volume, "status").ok_or_else(no_list)?;
    let flags = words(volume, "flags").ok_or_else(no_list)?;
    if !status.contains(&"VISIBLE") {
        return Ok(Some(LogicalVolumeReason::Hidden));
    }
    let known = ["READ", "WRITE", "VISIBLE", "FIXED_MINOR"];
    let unknown = status.iter().find(|word| !known.contains(word));
    let unknown = unknown.or(flags.iter().find(|&&word| word != "ACTIVATION_SKIP"));
    Ok(unknown.map(|&word| LogicalVolumeReason::Unknown(word.to_owned())))
}

struct Segment {
    /// Extents of the logical volume.
    start: u64,
    end: u64,
    pieces: Vec<Piece>,
    opaque: Option<LogicalVolumeReason>,
}

fn read_segment(at: &str, segment: &Section<'_>, here: &Here<'_>) -> Checked<Segment> {
    let start = number(at, segment, "start_extent")?;
    let extents = number(at, segment, "extent_count")?;
    let end = start.checked_add(extents).filter(|_| extents > 0);
    let end = end.ok_or_else(|| wrong(at, "its extents are none, or too many"))?;
    let Some(Value::Text(kind)) = segment.get("type") else {
        return Err(wrong(at, "it has no type"));
    };
    let mut found = Segment { start, end, pieces: Vec::new(), opaque: None };
    let striped = kind == "striped";
    // LVM moves extents from disk to disk as a mirror of disks.
    let (list, stripes) = match kind.as_ref() {
        "striped" => ("stripes", number(at, segment, "stripe_count")?),
        "mirror" if segment.get("mirrors").is_some() => ("mirrors", 1),
        kind => {
            let mut words = Vec::new();
            words_below(segment, &mut words);
            if words.contains(&here.name) {
                return Err(wrong(at, format!("its type {kind:?} is not known here")));
            }
            found.opaque = Some(LogicalVolumeReason::Type(kind.to_owned()));
            return Ok(found);
        }
    };
    let areas = areas(at, segment, list)?;
    if striped
        && (stripes != areas.len() as u64 || stripes == 0 || !extents.is_multiple_of(stripes))
    {
        return Err(wrong(at, "its stripes are not as many as it says"));
    }
    for &(name, area) in &areas {
        if name == here.name {
            found.pieces.push(piece(at, start, area, extents / stripes, here)?);
        } else if here.others.contains(name) {
            found.opaque = Some(LogicalVolumeReason::OtherDisks);
        } else {
            // A volume made of others; whether those exist does not matter here.
            let kind = if striped { "stacked" } else { kind };
            found.opaque.get_or_insert_with(|| LogicalVolumeReason::Type(kind.to_owned()));
        }
    }
    if !striped {
        found.opaque = Some(LogicalVolumeReason::Type(kind.to_string()));
    } else if stripes > 1 {
        found.opaque.get_or_insert(LogicalVolumeReason::Striped(stripes));
    } else if let Some(field) = segment.unknown(SEGMENT_FIELDS) {
        found.opaque.get_or_insert_with(|| LogicalVolumeReason::Unknown(field.to_owned()));
    }
    Ok(found)
}

/// Pairs of a disk or volume and its first extent.
pub(super) fn areas<'a>(
    at: &str,
    segment: &'a Section<'_>,
    list: &str,
) -> Checked<Vec<(&'a str, u64)>> {
    let pair = |pair: &'a [Value<'_>]| match pair {
        [Value::Text(name), Value::Number(start)] => {
            Some((name.as_ref(), u64::try_from(*start).ok()?))
        }
        _ => None,
    };
    match segment.get(list) {
        Some(Value::List(values)) => values.chunks(2).map(pair).collect(),
        _ => None,
    }
    .ok_or_else(|| wrong(at, format!("{list} is no list of disks and extents")))
}

fn piece(at: &str, logical: u64, start: u64, extents: u64, here: &Here<'_>) -> Checked<Piece> {
    let bytes = |extents: u64| extents.checked_mul(here.extent_len);
    let outside = || wrong(at, "its extents are not on this disk");
    let physical = bytes(start)
        .and_then(|at| at.checked_add(here.data.start))
        .zip(bytes(extents))
        .map(|(at, len)| Extent::new(at, len))
        .filter(|run| run.len == extents * here.extent_len && here.data.contains(*run))
        .ok_or_else(outside)?;
    let logical = bytes(logical).ok_or_else(outside)?;
    Ok(Piece { logical, physical })
}
