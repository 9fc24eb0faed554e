//! The volume group as its metadata describes it, reduced to what lies on one physical volume.
//!
//! Everything that is allocated is found, whatever it is: a segment of an unknown type that
//! names this physical volume makes the whole volume unknown. Whether a logical volume can be
//! read as one piece is decided in [`volume`](super::volume).

use std::collections::{HashMap, HashSet};

use aiv_volume_io::Extent;

use super::reason::LvmReason;
use super::text::{Section, Value};
use super::volume::{self, LogicalVolume};

const SECTOR: u64 = 512;

const GROUP_FIELDS: &[&str] = &[
    "id",
    "seqno",
    "format",
    "status",
    "flags",
    "tags",
    "system_id",
    "extent_size",
    "max_lv",
    "max_pv",
    "metadata_copies",
    "allocation_policy",
    "profile",
    "physical_volumes",
    "logical_volumes",
    "historical_logical_volumes",
];
const DISK_FIELDS: &[&str] = &[
    "id",
    "device",
    "device_id",
    "device_id_type",
    "status",
    "flags",
    "tags",
    "dev_size",
    "pe_start",
    "pe_count",
    "ba_start",
    "ba_size",
];
const TOP_FIELDS: &[&str] =
    &["contents", "version", "description", "creation_host", "creation_time"];

/// What lies on one physical volume.
#[derive(Debug)]
pub(super) struct Group {
    /// Bytes of an extent.
    pub(super) extent_len: u64,
    /// The physical extents, as bytes of the volume.
    pub(super) data: Extent,
    /// Bytes of the volume when its metadata was written, if it says so.
    pub(super) device_len: Option<u64>,
    /// All logical volumes with data here, in the order of the metadata.
    pub(super) volumes: Vec<LogicalVolume>,
}

type Checked<T> = std::result::Result<T, LvmReason>;

pub(super) fn wrong(place: &str, what: impl Into<String>) -> LvmReason {
    LvmReason::Metadata { place: place.to_owned(), what: what.into() }
}

/// The one section of a text, which bears the name of the volume group.
pub(super) fn of_text<'a, 'text>(
    text: &'a Section<'text>,
) -> Checked<(&'text str, &'a Section<'text>)> {
    if text.get("contents") != Some(&Value::Text("Text Format Volume Group".into()))
        || text.get("version") != Some(&Value::Number(1))
    {
        return Err(wrong("metadata", "it is not a volume group of version 1"));
    }
    let mut groups = text.0.iter().filter(|(name, _)| !TOP_FIELDS.contains(name));
    match (groups.next(), groups.next()) {
        (Some((name, Value::Section(group))), None) => Ok((name, group)),
        _ => Err(wrong("metadata", "it does not describe one volume group")),
    }
}

/// Reads the group called `name` for the physical volume with the identity `id`.
pub(super) fn read(name: &str, group: &Section<'_>, id: &[u8; 32]) -> Checked<Group> {
    let at = format!("volume group {name}");
    if let Some(field) = group.unknown(GROUP_FIELDS) {
        return Err(wrong(&at, format!("it has the unknown property {field}")));
    }
    let format = group.get("format").is_none_or(|f| *f == Value::Text("lvm2".into()));
    if !format {
        return Err(wrong(&at, "its format is not lvm2"));
    }
    only(&at, group, "status", &["RESIZEABLE", "READ", "WRITE", "EXPORTED"])?;
    only(&at, group, "flags", &[])?;
    let extent_len = sectors(&at, group, "extent_size")?;
    if extent_len == 0 {
        return Err(wrong(&at, "extent_size is 0"));
    }
    let disks = section(&at, group, "physical_volumes")?;
    let (disk_name, disk) = this_disk(&at, disks, id)?;
    let at_disk = format!("physical volume {disk_name}");
    if let Some(field) = disk.unknown(DISK_FIELDS) {
        return Err(wrong(&at_disk, format!("it has the unknown property {field}")));
    }
    only(&at_disk, disk, "status", &["ALLOCATABLE", "EXPORTED"])?;
    only(&at_disk, disk, "flags", &[])?;
    let extents = number(&at_disk, disk, "pe_count")?;
    let data_len = extents.checked_mul(extent_len);
    let data_start = sectors(&at_disk, disk, "pe_start")?;
    let data = data_len
        .filter(|len| data_start.checked_add(*len).is_some())
        .map(|len| Extent::new(data_start, len))
        .ok_or_else(|| wrong(&at_disk, "its extents reach further than any disk"))?;
    let device_len =
        disk.get("dev_size").map(|_| sectors(&at_disk, disk, "dev_size")).transpose()?;
    let others = disks.0.iter().map(|disk| disk.0).filter(|&name| name != disk_name).collect();
    let here = Here { name: disk_name, others, extent_len, data };
    let volumes = match group.get("logical_volumes") {
        None => Vec::new(),
        Some(Value::Section(volumes)) => logical_volumes(name, volumes, &here)?,
        Some(_) => return Err(wrong(&at, "logical_volumes is not a section")),
    };
    Ok(Group { extent_len, data, device_len, volumes })
}

/// The physical volume that is looked at, among those of its group.
pub(super) struct Here<'a> {
    /// The name other parts of the metadata call it by.
    pub(super) name: &'a str,
    pub(super) others: HashSet<&'a str>,
    /// Bytes of an extent.
    pub(super) extent_len: u64,
    /// The physical extents, as bytes of the volume.
    pub(super) data: Extent,
}

fn this_disk<'a, 'text>(
    at: &str,
    disks: &'a Section<'text>,
    id: &[u8; 32],
) -> Checked<(&'text str, &'a Section<'text>)> {
    let mut found = None;
    for (name, disk) in &disks.0 {
        let Value::Section(disk) = disk else {
            return Err(wrong(at, format!("{name} is not a physical volume")));
        };
        if is_called(disk, id) && found.replace((*name, disk)).is_some() {
            return Err(wrong(at, "two physical volumes have one identity"));
        }
    }
    found.ok_or_else(|| wrong(at, "this disk is none of its physical volumes"))
}

/// Whether a physical volume of the metadata has the identity of a label.
pub(super) fn is_called(disk: &Section<'_>, id: &[u8; 32]) -> bool {
    match disk.get("id") {
        Some(Value::Text(text)) => text.bytes().filter(|&byte| byte != b'-').eq(id.iter().copied()),
        _ => false,
    }
}

fn logical_volumes(
    group: &str,
    volumes: &Section<'_>,
    here: &Here<'_>,
) -> Checked<Vec<LogicalVolume>> {
    // Every name that a volume's segments mention, and who mentions it.
    let mut users: HashMap<&str, &str> = HashMap::new();
    let mut sections = Vec::new();
    for (name, volume) in &volumes.0 {
        let at = format!("logical volume {group}/{name}");
        let Value::Section(volume) = volume else {
            return Err(wrong(&at, "it is not a section"));
        };
        for mentioned in volume::mentioned(volume) {
            users.entry(mentioned).or_insert(name);
        }
        sections.push((*name, at, volume));
    }
    let mut found = Vec::new();
    for (name, at, volume) in sections {
        let user = users.get(name).copied();
        found.extend(volume::read(group, name, &at, volume, user, here)?);
    }
    let mut taken: Vec<Extent> =
        found.iter().flat_map(|volume| &volume.pieces).map(|piece| piece.physical).collect();
    taken.sort_unstable();
    match taken.windows(2).find(|pair| pair[0].end() > pair[1].start) {
        Some(pair) => {
            let at = format!("volume group {group}");
            Err(wrong(&at, format!("two logical volumes own byte {}", pair[1].start)))
        }
        None => Ok(found),
    }
}

pub(super) fn section<'a, 'text>(
    at: &str,
    parent: &'a Section<'text>,
    name: &str,
) -> Checked<&'a Section<'text>> {
    match parent.get(name) {
        Some(Value::Section(section)) => Ok(section),
        _ => Err(wrong(at, format!("it has no section {name}"))),
    }
}

/// A number that is not negative.
pub(super) fn number(at: &str, parent: &Section<'_>, name: &str) -> Checked<u64> {
    match parent.get(name) {
        Some(Value::Number(number)) => u64::try_from(*number).ok(),
        _ => None,
    }
    .ok_or_else(|| wrong(at, format!("it has no number {name}, or a negative one")))
}

/// A number of sectors, as bytes.
pub(super) fn sectors(at: &str, parent: &Section<'_>, name: &str) -> Checked<u64> {
    let bytes = number(at, parent, name)?.checked_mul(SECTOR);
    bytes.ok_or_else(|| wrong(at, format!("{name} is too large")))
}

/// Words of a list, none when it is not there. `None` when it is no list of words.
pub(super) fn words<'a>(parent: &'a Section<'_>, name: &str) -> Option<Vec<&'a str>> {
    let Some(value) = parent.get(name) else { return Some(Vec::new()) };
    let Value::List(values) = value else { return None };
    let word = |value: &'a Value<'_>| match value {
        Value::Text(word) => Some(word.as_ref()),
        _ => None,
    };
    values.iter().map(word).collect()
}

/// Refuses a list of words with one that is not `known`.
fn only(at: &str, parent: &Section<'_>, name: &str, known: &[&str]) -> Checked<()> {
    let words = words(parent, name).ok_or_else(|| wrong(at, format!("{name} is no list")))?;
    match words.iter().find(|word| !known.contains(word)) {
        Some(word) => Err(wrong(at, format!("its {name} {word:?} is not known here"))),
        None => Ok(()),
    }
}
