//! Chains of clusters, by whichever table can be believed.

use aiv_volume_io::Extent;

use super::super::boot::{FIRST_CLUSTER, Geometry, Width};
use super::super::table::Marks;
use crate::clusters::{Chain, Step, Window, follow};
use crate::reader::VolumeOf;
use crate::{ReaderNote, Result};

/// The tables of a volume, the better one first.
pub(super) struct Tables {
    first: Extent,
    /// Its copy, where it has one.
    second: Option<Extent>,
    /// Entry 1 says that the volume was not unmounted.
    pub(super) marked_dirty: bool,
}

impl Tables {
    /// Chooses among the tables: one that begins as every table does, where only the second does.
    pub(super) fn open(
        volume: &VolumeOf<'_>,
        geometry: &Geometry,
        notes: &mut Vec<ReaderNote>,
    ) -> Result<Self> {
        let place = |n: u8| {
            let at = geometry.table_at + u64::from(n) * geometry.table_len;
            Extent::new(at, geometry.table_len)
        };
        let marks = Marks::of(geometry.width);
        let is_sound = |table: Extent| match entry(&mut Window::new(table), volume, geometry, 0) {
            Ok(value) => Ok(marks.check_first(value, geometry.media).is_ok()),
            Err(error) => Err(error),
        };
        let mut first = place(geometry.active_table.unwrap_or(0));
        let mut second = (geometry.tables > 1 && geometry.active_table.is_none()).then(|| place(1));
        let found = is_sound(first);
        if let Some(copy) = second
            && !matches!(found, Ok(true))
            && is_sound(copy).unwrap_or(false)
        {
            (first, second) = (copy, None);
            notes.push(ReaderNote::CopyUsed { what: "the file allocation table".to_owned() });
        }
        let mut tables = Self { first, second, marked_dirty: false };
        let second_entry = entry(&mut Window::new(tables.first), volume, geometry, 1);
        tables.marked_dirty = second_entry.is_ok_and(|value| value & marks.clean != marks.clean);
        Ok(tables)
    }

    /// The chain from a cluster on, `max` clusters of it at most.
    pub(super) fn chain(
        &self,
        volume: &VolumeOf<'_>,
        geometry: &Geometry,
        first: u32,
        max: u32,
    ) -> Result<Chain> {
        if !has(geometry, first) {
            let fault = Some(format!("its first cluster, {first}, is none"));
            return Ok(Chain { runs: Vec::new(), fault });
        }
        let mut window = Window::new(self.first);
        let mut copy = self.second.map(Window::new);
        follow(first, max.min(geometry.clusters), |cluster| {
            let found = step(&mut window, volume, geometry, cluster);
            // What cannot be read or leads nowhere may be right in the copy, and if it is not,
            // nothing is lost.
            match (&found, &mut copy) {
                (Ok(Step::To(_) | Step::End), _) | (_, None) => found,
                (_, Some(copy)) => match step(copy, volume, geometry, cluster) {
                    Ok(Step::Broken) | Err(_) => found,
                    right => right,
                },
            }
        })
    }
}

/// Whether there is a cluster of this number.
pub(super) fn has(geometry: &Geometry, cluster: u32) -> bool {
    cluster >= FIRST_CLUSTER && cluster - FIRST_CLUSTER < geometry.clusters
}

fn step(
    window: &mut Window,
    volume: &VolumeOf<'_>,
    geometry: &Geometry,
    cluster: u32,
) -> Result<Step> {
    let marks = Marks::of(geometry.width);
    let value = entry(window, volume, geometry, cluster)? & marks.mask;
    Ok(match value {
        value if value > marks.bad => Step::End,
        value if has(geometry, value) => Step::To(value),
        _ => Step::Broken,
    })
}

fn entry(
    window: &mut Window,
    volume: &VolumeOf<'_>,
    geometry: &Geometry,
    cluster: u32,
) -> Result<u32> {
    let index = u64::from(cluster);
    match geometry.width {
        Width::Fat12 => {
            let pair = u16::from_le_bytes(window.get(volume, index + index / 2)?);
            let value = if cluster.is_multiple_of(2) { pair & 0xfff } else { pair >> 4 };
            Ok(value.into())
        }
        Width::Fat16 => Ok(u16::from_le_bytes(window.get(volume, index * 2)?).into()),
        Width::Fat32 => Ok(u32::from_le_bytes(window.get(volume, index * 4)?)),
    }
}
