//! The logical volumes of a group as bytes, as far as their disks are at hand.
//!
//! This is for reading files: what lies on disks that are not here, or is put together in a way
//! that is not known here, is a logical volume without bytes, and the reason why.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use aiv_volume_io::{Extent, Job, ReadAt};

use super::group::{self, is_called, number, section, sectors, words};
use super::joined::{Joined, Leg, On, Part};
use super::raid::{self, Image};
use super::text::{Section, Value};
use super::thin::{self, Thin};
use super::volume::{FIELDS, SEGMENT_FIELDS, areas, is_segment, segments};
use crate::thin::{Pool, ThinVolume};
use crate::{Error, LogicalVolume, Result};

/// Logical volumes made of others: a cached mirror of images is two.
const DEPTH_MAX: usize = 6;
/// Logical volumes of a group that are shown. Each may be looked at.
const VOLUMES_MAX: usize = 1024;

/// A physical volume that is at hand.
pub(super) struct Disk {
    pub(super) id: [u8; 32],
    /// First byte of the first extent, by its label.
    pub(super) data_start: u64,
    pub(super) bytes: Arc<dyn ReadAt>,
    /// Its position among those that are at hand.
    pub(super) member: usize,
}

/// An answer, or why there is none.
type Told<T> = std::result::Result<T, String>;

/// What the metadata says of a group.
struct Layout<'a> {
    extent_len: u64,
    disks: HashMap<&'a str, Told<Known<'a>>>,
    volumes: HashMap<&'a str, Told<Logical<'a>>>,
    done: HashMap<&'a str, Told<Arc<Joined>>>,
    pools: HashMap<&'a str, Told<Arc<Pool>>>,
}

/// A physical volume of the metadata that is at hand.
#[derive(Clone)]
struct Known<'a> {
    disk: &'a Disk,
    data: Extent,
}

struct Logical<'a> {
    segments: Vec<Segment<'a>>,
    /// It is being filled from its other images.
    is_filling: bool,
}

struct Segment<'a> {
    start: u64,
    extents: u64,
    kind: Kind<'a>,
}

enum Kind<'a> {
    /// One area, or several in stripes of so many bytes.
    Striped(u64, Vec<(&'a str, u64)>),
    /// The first image of a mirror, which is the one that is right when they differ.
    Mirror((&'a str, u64)),
    /// Names of what describes an image, and of the image.
    Raid1(Vec<(&'a str, &'a str)>),
    /// A volume of a pool.
    Thin(Thin<'a>),
}

/// The visible logical volumes of the group called `name`, in the order of the metadata, with
/// `member` still to be set.
pub(super) fn read(
    name: &str,
    group: &Section<'_>,
    disks: &[Disk],
    job: Job<'_>,
) -> Result<Told<Vec<LogicalVolume>>> {
    let at = format!("volume group {name}");
    let mut layout = match Layout::of(&at, group, disks) {
        Ok(layout) => layout,
        Err(why) => return Ok(Err(why)),
    };
    let volumes = match group.get("logical_volumes") {
        None => return Ok(Ok(Vec::new())),
        Some(Value::Section(volumes)) => volumes,
        Some(_) => return Ok(Err(format!("{at}: logical_volumes is not a section"))),
    };
    for (volume, value) in &volumes.0 {
        let read = match value {
            Value::Section(section) => layout.logical(section),
            _ => Err("it is not a section".to_owned()),
        };
        layout.volumes.insert(volume, read);
    }
    if let Some(byte) = layout.owned_twice() {
        return Ok(Err(format!("{at}: two logical volumes own byte {byte} of a disk")));
    }
    let stores = stores_of(volumes);
    let mut found = Vec::new();
    for (volume, value) in &volumes.0 {
        job.check()?;
        let Value::Section(section) = value else { continue };
        let is_visible = words(section, "status").is_some_and(|words| words.contains(&"VISIBLE"));
        // LVM hides what holds a snapshot, and shows it as the snapshot.
        if !(is_visible || stores.contains_key(volume)) || is_pool(section) {
            continue;
        }
        if found.len() == VOLUMES_MAX {
            return Ok(Err(format!("{at}: it has more than {VOLUMES_MAX} logical volumes")));
        }
        if [".", ".."].contains(volume) {
            continue;
        }
        let (bytes, spans) = match stores.get(volume) {
            Some(why) => (Err((*why).to_owned()), None),
            None => match layout.thin_bytes(volume, volumes) {
                Some(thin) => (thin.map(|thin| Arc::new(thin) as Arc<dyn ReadAt>), None),
                None => {
                    let joined = layout.bytes_of(volume, 0);
                    let spans = joined.as_ref().ok().and_then(|joined| joined.spans());
                    (joined.map(|joined| joined as Arc<dyn ReadAt>), spans)
                }
            },
        };
        let is_known = |segment: &Section<'_>| number("", segment, "extent_count").ok();
        let extents = segments(section).filter_map(|(_, segment)| is_known(segment));
        let len = extents.fold(0, u64::saturating_add).saturating_mul(layout.extent_len);
        let name = format!("{name}/{volume}");
        found.push(LogicalVolume { member: 0, name, len, bytes, spans });
    }
    Ok(Ok(found))
}

/// Whether others are made of it, and nothing else is in it.
fn is_pool(volume: &Section<'_>) -> bool {
    let pools = ["thin-pool", "cache-pool"].map(|kind| Value::Text(kind.into()));
    segments(volume)
        .any(|(_, segment)| segment.get("type").is_some_and(|kind| pools.contains(kind)))
}

/// Volumes that hold something else than what they show, by what other volumes say of them.
fn stores_of<'a>(volumes: &'a Section<'_>) -> HashMap<&'a str, &'static str> {
    let mut stores = HashMap::new();
    for (_, volume) in &volumes.0 {
        let Value::Section(volume) = volume else { continue };
        for (_, segment) in segments(volume) {
            let name = |field| match segment.get(field) {
                Some(Value::Text(name)) => Some(name.as_ref()),
                _ => None,
            };
            let snapshot = "it is a snapshot: only what its origin has lost since is in it";
            stores.extend(name("cow_store").map(|name| (name, snapshot)));
            if let Some(store) = name("merging_store") {
                stores.insert(store, snapshot);
                let merging = "a snapshot is being merged into it";
                stores.extend(name("origin").map(|name| (name, merging)));
            }
        }
    }
    stores
}

fn told<T>(read: std::result::Result<T, super::LvmReason>) -> Told<T> {
    read.map_err(|reason| reason.to_string())
}

impl<'a> Layout<'a> {
    fn of(at: &str, group: &'a Section<'_>, here: &'a [Disk]) -> Told<Self> {
        let extent_len = told(sectors(at, group, "extent_size"))?;
        if extent_len == 0 {
            return Err(format!("{at}: extent_size is 0"));
        }
        let mut disks = HashMap::new();
        for (name, disk) in &told(section(at, group, "physical_volumes"))?.0 {
            let Value::Section(disk) = disk else {
                return Err(format!("{at}: {name} is not a physical volume"));
            };
            let mut known = here.iter().filter(|here| is_called(disk, &here.id));
            let known = match (known.next(), known.next()) {
                (Some(here), None) => Self::known(disk, here, extent_len),
                (Some(_), Some(_)) => Err("two physical volumes have one identity".to_owned()),
                (None, _) => Err("parts of it are on other disks".to_owned()),
            };
            disks.insert(*name, known);
        }
        Ok(Self {
            extent_len,
            disks,
            volumes: HashMap::new(),
            done: HashMap::new(),
            pools: HashMap::new(),
        })
    }

    fn known(disk: &Section<'_>, here: &'a Disk, extent_len: u64) -> Told<Known<'a>> {
        let at = "a physical volume";
        let flags = words(disk, "flags").unwrap_or_default();
        if flags.contains(&"MISSING") {
            return Err("parts of it are on a disk that was missing when it changed".to_owned());
        }
        let start = told(sectors(at, disk, "pe_start"))?;
        let len = told(number(at, disk, "pe_count"))?.checked_mul(extent_len);
        let data = len.filter(|len| start.checked_add(*len).is_some());
        let data = data.ok_or("a physical volume reaches further than any disk")?;
        if start != here.data_start {
            return Err("the label of a physical volume names another first extent".to_owned());
        }
        Ok(Known { disk: here, data: Extent::new(start, data) })
    }

    /// What the metadata says of one volume, whatever it is for.
    fn logical(&self, volume: &'a Section<'_>) -> Told<Logical<'a>> {
        let mut rest = volume.0.iter().map(|entry| entry.0).filter(|name| !is_segment(name));
        if let Some(name) = rest.find(|name| !FIELDS.contains(name)) {
            return Err(format!("it has the unknown property {name:?}"));
        }
        // What LVM calls flags may be passed over by whoever does not know them.
        let status = words(volume, "status").ok_or("its status is no list")?;
        let known = ["READ", "WRITE", "VISIBLE", "FIXED_MINOR", "NOTSYNCED", "REBUILD"];
        if let Some(word) = status.iter().find(|word| !known.contains(word)) {
            return Err(format!("it has the unknown property {word:?}"));
        }
        let mut found = Vec::new();
        for (_, segment) in segments(volume) {
            found.push(self.segment(segment)?);
        }
        if told(number("a logical volume", volume, "segment_count"))? != found.len() as u64 {
            return Err("segment_count is not the number of its segments".to_owned());
        }
        found.sort_by_key(|segment| segment.start);
        let mut end = Some(0);
        for segment in &found {
            if end != Some(segment.start) {
                return Err("its segments do not follow each other".to_owned());
            }
            end = segment.start.checked_add(segment.extents);
        }
        if found.is_empty() {
            return Err("it is empty".to_owned());
        }
        Ok(Logical { segments: found, is_filling: status.contains(&"REBUILD") })
    }

    fn segment(&self, segment: &'a Section<'_>) -> Told<Segment<'a>> {
        let at = "a segment";
        let start = told(number(at, segment, "start_extent"))?;
        let extents = told(number(at, segment, "extent_count"))?;
        let Some(Value::Text(kind)) = segment.get("type") else {
            return Err("a segment has no type".to_owned());
        };
        let len = extents.checked_mul(self.extent_len).filter(|len| *len > 0);
        let len = len.ok_or("its extents are none, or too many")?;
        let only = |fields: &[&str]| {
            let unknown = segment
                .0
                .iter()
                .map(|entry| entry.0)
                .find(|name| !SEGMENT_FIELDS.contains(name) && !fields.contains(name));
            unknown.map_or(Ok(()), |name| Err(format!("it has the unknown property {name:?}")))
        };
        let kind = match kind.as_ref() {
            "striped" => {
                only(&["stripe_size"])?;
                let areas = told(areas(at, segment, "stripes"))?;
                let count = told(number(at, segment, "stripe_count"))?;
                if count != areas.len() as u64 || count == 0 || !extents.is_multiple_of(count) {
                    return Err("its stripes are not as many as it says".to_owned());
                }
                let stripe = match count {
                    1 => len,
                    _ => told(sectors(at, segment, "stripe_size"))?,
                };
                if stripe == 0 || !(len / count).is_multiple_of(stripe) {
                    return Err("its stripes do not fill its extents".to_owned());
                }
                Kind::Striped(stripe, areas)
            }
            "mirror" => {
                only(&["mirror_count", "extents_moved", "mirror_log", "region_size", "mirrors"])?;
                let areas = told(areas(at, segment, "mirrors"))?;
                Kind::Mirror(*areas.first().ok_or("it is a mirror without images")?)
            }
            "raid1" => {
                only(raid::FIELDS)?;
                Kind::Raid1(raid::images(segment).ok_or("its images are no list of names")?)
            }
            "thin" => Kind::Thin(thin::thin(segment)?),
            kind => return Err(why_not(kind)),
        };
        Ok(Segment { start, extents, kind })
    }

    /// A byte of a disk that two segments lie on.
    fn owned_twice(&self) -> Option<u64> {
        let mut taken = Vec::new();
        for logical in self.volumes.values().flatten() {
            for segment in &logical.segments {
                let (areas, count) = match &segment.kind {
                    Kind::Striped(_, areas) => (areas.as_slice(), areas.len() as u64),
                    Kind::Mirror(area) => (std::slice::from_ref(area), 1),
                    Kind::Raid1(_) | Kind::Thin(_) => continue,
                };
                for (disk, start) in areas {
                    if self.disks.contains_key(disk) {
                        let end = start.saturating_add(segment.extents / count.max(1));
                        taken.push((*disk, *start, end));
                    }
                }
            }
        }
        taken.sort_unstable();
        let twice = taken.windows(2).find(|pair| pair[0].0 == pair[1].0 && pair[0].2 > pair[1].1);
        twice.map(|pair| pair[1].1.saturating_mul(self.extent_len))
    }

    /// The bytes of a volume inside `depth` others. Each is put together once.
    fn bytes_of(&mut self, name: &'a str, depth: usize) -> Told<Arc<Joined>> {
        if let Some(done) = self.done.get(name) {
            return done.clone();
        }
        if depth == DEPTH_MAX {
            return Err("it is made of volumes that are nested too deeply".to_owned());
        }
        let bytes = self.join(name, depth);
        self.done.insert(name, bytes.clone());
        bytes
    }

    fn join(&mut self, name: &'a str, depth: usize) -> Told<Arc<Joined>> {
        let logical = match self.volumes.get(name) {
            Some(Ok(logical)) => logical,
            Some(Err(why)) => return Err(why.clone()),
            None => return Err(format!("there is no logical volume {name:?}")),
        };
        let lens: Vec<u64> = logical.segments.iter().map(|segment| segment.extents).collect();
        let mut parts = Vec::new();
        for (at, extents) in lens.into_iter().enumerate() {
            let len = extents.checked_mul(self.extent_len).ok_or("it is too large")?;
            parts.push(self.part(name, at, len, depth)?);
        }
        let joined = Joined::new(parts).ok_or("it is larger than any disk")?;
        Ok(Arc::new(joined))
    }

    fn part(&mut self, name: &'a str, at: usize, len: u64, depth: usize) -> Told<Part> {
        let segment = match self.volumes.get(name) {
            Some(Ok(logical)) => logical.segments.get(at),
            _ => None,
        };
        let Some(segment) = segment else { return Err("it has no such segment".to_owned()) };
        let whole = |leg| Part { len, stripe: len, legs: vec![leg], start: 0 };
        match &segment.kind {
            Kind::Striped(stripe, areas) => {
                let (stripe, areas) = (*stripe, areas.clone());
                let each = len / areas.len().max(1) as u64;
                let legs = areas.into_iter().map(|area| self.leg(area, each, depth));
                let legs = legs.collect::<Told<Vec<_>>>()?;
                Ok(Part { len, stripe, legs, start: 0 })
            }
            Kind::Mirror(area) => {
                let area = *area;
                let first = self.leg(area, len, depth);
                first.map(whole).map_err(|why| format!("{why} (its first image)"))
            }
            Kind::Raid1(names) => {
                let names = names.clone();
                let mut images = Vec::new();
                for (described, image) in names {
                    let bytes = match self.volumes.get(image) {
                        Some(Ok(image)) if image.is_filling => {
                            Err("an image is being filled".to_owned())
                        }
                        _ => self.leg((image, 0), len, depth),
                    };
                    let described = self.bytes_of(described, depth + 1).ok();
                    images.push(Image::new(
                        described.as_deref().map(|volume| volume as &dyn ReadAt),
                        bytes,
                    ));
                }
                raid::good(images).map(whole)
            }
            Kind::Thin(_) => Err("it is made of a thin volume".to_owned()),
        }
    }

    /// The bytes of a volume that is thin, and nothing else; `None` for all others.
    fn thin_bytes(&mut self, name: &str, volumes: &'a Section<'_>) -> Option<Told<ThinVolume>> {
        let Some(Ok(Logical { segments, .. })) = self.volumes.get(name) else { return None };
        let [Segment { extents, kind: Kind::Thin(thin), .. }] = segments.as_slice() else {
            return None;
        };
        let (thin, len) = (*thin, extents.saturating_mul(self.extent_len));
        let pool = match self.pools.get(thin.pool) {
            Some(pool) => pool.clone(),
            None => {
                let pool = self.pool(thin.pool, volumes).map(Arc::new);
                self.pools.insert(thin.pool, pool.clone());
                pool
            }
        };
        let opened = |pool| ThinVolume::open(pool, thin.device, len);
        Some(pool.and_then(|pool| opened(pool).map_err(reason)))
    }

    fn pool(&mut self, name: &str, volumes: &'a Section<'_>) -> Told<Pool> {
        let Some(Value::Section(section)) = volumes.get(name) else {
            return Err(format!("there is no pool {name:?}"));
        };
        let parts = thin::pool(section)?;
        let in_pool = |why| format!("{why} (of its pool)");
        let metadata = self.bytes_of(parts.metadata, 0).map_err(in_pool)?;
        let data = self.bytes_of(parts.data, 0).map_err(in_pool)?;
        Pool::open(metadata, data, parts.block_len).map_err(reason)
    }

    /// `len` bytes from an extent of a disk or of another volume.
    fn leg(&mut self, (name, extent): (&'a str, u64), len: u64, depth: usize) -> Told<Leg> {
        let offset = extent.checked_mul(self.extent_len);
        let offset = offset.ok_or("its extents reach further than any disk")?;
        let (on, place, end) = match self.disks.get(name) {
            Some(Ok(known)) => {
                let start = known.data.start.checked_add(offset);
                let start = start.ok_or("its extents reach further than any disk")?;
                let end = known.data.end().min(known.disk.bytes.len());
                (On::Disk(known.disk.member, Arc::clone(&known.disk.bytes)), start, end)
            }
            Some(Err(why)) => return Err(why.clone()),
            None => {
                let volume = self.bytes_of(name, depth + 1)?;
                let end = volume.len();
                (On::Volume(volume), offset, end)
            }
        };
        if place.checked_add(len).is_none_or(|last| last > end) {
            return Err("its extents reach past the end of a disk".to_owned());
        }
        Ok(Leg { on, start: place })
    }
}

/// What is wrong with a pool.
fn reason(error: Error) -> String {
    match error {
        Error::Damaged { what, .. } => what,
        error => error.to_string(),
    }
}

/// Why segments of a type are not read.
fn why_not(kind: &str) -> String {
    match kind {
        "snapshot" => "it is a snapshot".to_owned(),
        "cache" | "writecache" => "it is cached: its newest blocks may be in the cache".to_owned(),
        kind => format!("it is of the type {kind:?}, which is not read"),
    }
}

/// The sequence number and identity of a group.
pub(super) fn version_of(name: &str, group: &Section<'_>) -> Told<(u64, String)> {
    let at = format!("volume group {name}");
    let number = told(group::number(&at, group, "seqno"))?;
    match group.get("id") {
        Some(Value::Text(id)) => Ok((number, id.to_string())),
        _ => Err(format!("{at}: it has no identity")),
    }
}

/// Identities of the physical volumes of a group, as their labels write them.
pub(super) fn disks_of(group: &Section<'_>) -> HashSet<String> {
    let Some(Value::Section(disks)) = group.get("physical_volumes") else { return HashSet::new() };
    let id = |disk: &Value<'_>| match disk {
        Value::Section(disk) => match disk.get("id") {
            Some(Value::Text(id)) => Some(id.replace('-', "")),
            _ => None,
        },
        _ => None,
    };
    disks.0.iter().filter_map(|(_, disk)| id(disk)).collect()
}
