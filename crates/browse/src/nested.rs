//! Volumes inside of volumes: RAID members, physical volumes, disks of virtual machines.

use std::sync::Arc;

use aiv_filesystems::{
    FilesystemKind, LuksKeys, Span, logical_volumes, raid_arrays, stale_mirrors,
};
use aiv_volume_io::partition::{SectorSize, TableKind, read_table};
use aiv_volume_io::{Extent, Job};

use crate::error::Result;
use crate::volume::{Inside, Volume};

/// Levels of volumes below the partitions of a disk: a virtual machine that keeps its own group on
/// a logical volume has three.
const DEPTH_MAX: usize = 4;
/// RAIDs of RAIDs, and what is encrypted in them.
const LAYERS_MAX: usize = 4;
/// Encrypted volumes of a disk that are tried: each may take half a minute.
const LUKS_MAX: usize = 16;
/// Volumes of a disk. A quarter of a mebibyte of each may be read to name it.
const VOLUMES_MAX: usize = 2048;

/// What is still allowed to be looked at.
struct Search<'a> {
    sector_size: SectorSize,
    left: usize,
    keys: &'a LuksKeys,
    luks_left: usize,
    job: Job<'a>,
}

/// `volumes` with those inside of each behind it.
pub(crate) fn with_inner(
    volumes: Vec<Volume>,
    sector_size: SectorSize,
    keys: &LuksKeys,
    job: Job<'_>,
) -> Result<Vec<Volume>> {
    Search { sector_size, left: VOLUMES_MAX, keys, luks_left: LUKS_MAX, job }.level(volumes, 0)
}

impl Search<'_> {
    fn level(&mut self, mut volumes: Vec<Volume>, depth: usize) -> Result<Vec<Volume>> {
        arrays(&mut volumes);
        for volume in &mut volumes {
            self.layers(volume)?;
        }
        let mut inner: Vec<Vec<Volume>> = volumes.iter().map(|_| Vec::new()).collect();
        self.logical_volumes(&mut volumes, &mut inner, depth)?;
        for (volume, inner) in volumes.iter_mut().zip(&mut inner) {
            self.partitions(volume, inner, depth)?;
        }
        let mut all = Vec::new();
        for (volume, inner) in volumes.into_iter().zip(inner) {
            all.push(volume);
            if !inner.is_empty() {
                all.extend(self.level(inner, depth + 1)?);
            }
        }
        Ok(all)
    }

    /// Becomes what is in a RAID of which this is a member, or what it encrypts.
    fn layers(&mut self, volume: &mut Volume) -> Result<()> {
        for left in (0..=LAYERS_MAX).rev() {
            self.job.check()?;
            let kind = volume.recognised().kind;
            let is_layer =
                matches!(kind, FilesystemKind::MdRaidMember | FilesystemKind::LuksContainer);
            if !is_layer || is_closed(volume) || volume.is_opened() {
                break;
            } else if left == 0 {
                volume.set_inside(too_deep());
            } else if kind == FilesystemKind::MdRaidMember {
                volume.leave_raid();
            } else if self.keys.is_empty() {
                volume.set_inside(Inside::Locked { tried: false, why: LOCKED.to_owned() });
            } else if self.luks_left == 0 {
                let why = format!("more than {LUKS_MAX} encrypted volumes are not tried");
                volume.set_inside(Inside::Closed(why));
            } else {
                self.luks_left -= 1;
                volume.unlock(self.keys, self.job)?;
            }
        }
        Ok(())
    }

    /// Those of all physical volumes of this level, since a group may lie on several of them.
    fn logical_volumes(
        &mut self,
        volumes: &mut [Volume],
        inner: &mut [Vec<Volume>],
        depth: usize,
    ) -> Result<()> {
        let mut members = Vec::new();
        let mut places = Vec::new();
        for (at, volume) in volumes.iter_mut().enumerate() {
            if volume.recognised().kind != FilesystemKind::Lvm2Member {
                continue;
            }
            if depth == DEPTH_MAX {
                volume.set_inside(too_deep());
            } else if let Some(bytes) = volume.bytes() {
                members.push(Arc::clone(bytes));
                places.push(at);
            }
        }
        if members.is_empty() {
            return Ok(());
        }
        let found = match logical_volumes(&members, self.job) {
            Ok(found) => found,
            Err(aiv_filesystems::Error::Canceled(canceled)) => return Err(canceled.into()),
            Err(error) => {
                for at in places {
                    volumes[at].set_inside(Inside::Closed(error.to_string()));
                }
                return Ok(());
            }
        };
        for (member, first) in found.members.into_iter().enumerate() {
            let home = first.as_ref().ok().map(|first| volumes[places[*first]].name().to_owned());
            let volume = &mut volumes[places[member]];
            volume.set_inside(match (first, home) {
                (Err(why), _) => Inside::Closed(why),
                (Ok(first), Some(home)) if first != member => {
                    Inside::Opened(format!("its logical volumes are those of {home}"))
                }
                _ => Inside::Opened("there are no files beside its logical volumes".to_owned()),
            });
        }
        let extents: Vec<Option<Extent>> = places.iter().map(|at| volumes[*at].extent()).collect();
        for logical in found.volumes {
            let Some(&at) = places.get(logical.member) else { continue };
            if !self.take(&mut volumes[at]) {
                inner[at].clear();
                continue;
            }
            let outer = &volumes[at];
            let name = format!("{}/{}", outer.name(), logical.name);
            let volume = match logical.bytes {
                Ok(bytes) => Volume::of_bytes(name, bytes),
                Err(why) => Volume::closed(name, logical.len, why),
            };
            let volume = volume.below(outer, Some(FilesystemKind::Lvm2Member));
            let spans = logical.spans.and_then(|spans| on_disk(spans, &extents));
            inner[at].push(volume.logical_volume(logical.name, spans));
        }
        Ok(())
    }

    /// Those of a partition table in a volume that itself is not a partition.
    fn partitions(
        &mut self,
        outer: &mut Volume,
        inner: &mut Vec<Volume>,
        depth: usize,
    ) -> Result<()> {
        let is_disk = outer.recognised().kind == FilesystemKind::Unknown
            && !outer.within().is_empty()
            && !is_closed(outer)
            && depth < DEPTH_MAX;
        let Some(bytes) = outer.bytes().filter(|_| is_disk).map(Arc::clone) else {
            return Ok(());
        };
        self.job.check()?;
        let Ok(table) = read_table(&bytes, self.sector_size) else { return Ok(()) };
        if table.kind == TableKind::None || table.partitions.is_empty() {
            return Ok(());
        }
        let why = "there are no files beside its partitions".to_owned();
        outer.set_inside(Inside::Opened(why));
        for partition in &table.partitions {
            if !self.take(outer) {
                inner.clear();
                return Ok(());
            }
            let before = format!("{}/", outer.name());
            let volume = Volume::of_partition(before, &bytes, partition);
            inner.extend(volume.map(|volume| volume.below(outer, None)));
        }
        Ok(())
    }

    /// Takes one of the volumes that are left; when there is none, `outer` stays closed.
    fn take(&mut self, outer: &mut Volume) -> bool {
        if self.left == 0 {
            let why = format!("the disk has more than {VOLUMES_MAX} volumes inside of others");
            outer.set_inside(Inside::Closed(why));
        }
        self.left = self.left.saturating_sub(1);
        !is_closed(outer)
    }
}

/// The RAIDs that members of this level hold together: each is found at its first member.
fn arrays(volumes: &mut [Volume]) {
    let is_member = |volume: &&Volume| volume.recognised().kind == FilesystemKind::MdRaidMember;
    let (mut members, mut places) = (Vec::new(), Vec::new());
    for (at, volume) in volumes.iter().enumerate().filter(|(_, volume)| is_member(volume)) {
        members.extend(volume.bytes().map(Arc::clone));
        places.extend(volume.bytes().map(|_| at));
    }
    for member in stale_mirrors(&members) {
        if let Some(at) = places.get(member) {
            volumes[*at].add_note(STALE.to_owned());
        }
    }
    for array in raid_arrays(&members) {
        let mut places = array.members.iter().filter_map(|member| places.get(*member).copied());
        let Some(first) = places.next() else { continue };
        let home = volumes[first].name().to_owned();
        for place in places {
            volumes[place].set_inside(match &array.bytes {
                Ok(_) => Inside::Opened(format!("what its RAID holds is that of {home}")),
                Err(why) => Inside::Closed(why.clone()),
            });
        }
        match array.bytes {
            Ok(bytes) => volumes[first].become_array(bytes, array.note),
            Err(why) => volumes[first].set_inside(Inside::Closed(why)),
        }
    }
}

/// Spans of physical volumes as bytes of the disk, where those lie there in one run.
fn on_disk(spans: Vec<Span>, members: &[Option<Extent>]) -> Option<Vec<Span>> {
    let moved = |span: Span| {
        let member = (*members.get(span.member)?)?;
        let start = member.start.checked_add(span.extent.start)?;
        // Whose they are is no part of where they lie.
        Some(Span { member: 0, extent: Extent::new(start, span.extent.len), ..span })
    };
    spans.into_iter().map(moved).collect()
}

fn is_closed(volume: &Volume) -> bool {
    volume.why_closed().is_some()
}

/// Of a member of a mirror.
const STALE: &str = "its mirror went on without it: another member on this disk is newer";

/// What is said where nothing was given that may open it.
const LOCKED: &str = "it is encrypted; its passphrase or key file opens it";

fn too_deep() -> Inside {
    Inside::Closed("volumes are nested too deeply".to_owned())
}
