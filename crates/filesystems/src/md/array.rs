//! Arrays of several members, all of which are at hand: data is read where it lies, and nothing is
//! computed from parity.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use aiv_volume_io::{Extent, ReadAt};

use super::{EVENTS_BEHIND_MAX, LINEAR, NOT_SURE, RAID0, RAID1, Role, Superblock, name_of};
use crate::RaidArray;

/// Members of an array that is read.
const MEMBERS_MAX: u32 = 256;
/// Bytes of the largest chunk.
const CHUNK_MAX: u64 = 1 << 30;

type Told<T> = std::result::Result<T, String>;

/// A member, and what its superblock says.
pub(super) struct Member {
    pub(super) position: usize,
    pub(super) bytes: Arc<dyn ReadAt>,
    pub(super) found: Superblock,
}

/// Where chunks lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// One chunk on each member, round and round.
    Stripes,
    /// The same, each chunk on so many members side by side; stripes lie so many rows apart.
    Copies { near: u64, rows: u64 },
    /// One chunk of each row is parity. Its place goes backwards, or forwards; data begins behind
    /// it, or at the front.
    Rotating { parities: u64, forwards: bool, behind: bool },
    /// So many chunks in front of each row, and behind it, hold none.
    Fixed { before: u64, behind: u64 },
}

/// The bytes of an array.
struct Array {
    /// Members in their order, and the first byte of each.
    legs: Vec<(Arc<dyn ReadAt>, u64)>,
    /// Bytes of each that are used.
    lens: Vec<u64>,
    /// `None` for members one behind the other.
    shape: Option<Shape>,
    chunk: u64,
    len: u64,
}

/// Puts the members of one array together.
pub(super) fn join(mut members: Vec<Member>) -> RaidArray {
    let positions = members.iter().map(|member| member.position).collect();
    let level = members.first().map_or(0, |member| member.found.level);
    let is_in_sync = members.iter().all(|member| member.found.is_in_sync);
    members.sort_by_key(|member| match member.found.role {
        Role::Data(role) => role,
        _ => u32::MAX,
    });
    let bytes = checked(&members).and_then(|()| array(&members));
    let bytes = bytes.map(|array| Arc::new(array) as Arc<dyn ReadAt>);
    let note = (level == 10 && !is_in_sync).then(|| NOT_SURE.to_owned());
    RaidArray { members: positions, bytes, note }
}

/// Whether all members are there, agree, and are of one moment.
fn checked(members: &[Member]) -> Told<()> {
    let Some(first) = members.first() else { return Err("it has no members".to_owned()) };
    let first = &first.found;
    if !(2..=MEMBERS_MAX).contains(&first.members) {
        return Err("it has more members than are read".to_owned());
    }
    let shape = |found: &Superblock| {
        let Superblock { format, level, members, chunk, layout, used, .. } = *found;
        (format, level, members, chunk, layout, used)
    };
    if members.iter().any(|member| shape(&member.found) != shape(first)) {
        return Err("its superblocks contradict each other".to_owned());
    }
    if let Some(doubt) = members.iter().find_map(|member| member.found.doubt.clone()) {
        return Err(doubt);
    }
    let roles: HashSet<u32> = members
        .iter()
        .filter_map(|member| match member.found.role {
            Role::Data(role) if role < first.members => Some(role),
            _ => None,
        })
        .collect();
    let here = u32::try_from(roles.len()).unwrap_or(u32::MAX);
    if here < first.members {
        let missing = first.members - here;
        let (all, kind) = (first.members, name_of(first.level));
        return Err(format!("{missing} of the {all} members of its {kind} are not here"));
    }
    if members.len() > roles.len() {
        return Err("two of its members have one place".to_owned());
    }
    let events = members.iter().map(|member| member.found.events);
    let (oldest, newest) = (events.clone().min().unwrap_or(0), events.max().unwrap_or(0));
    match newest - oldest {
        0..=EVENTS_BEHIND_MAX => Ok(()),
        _ => Err("its members are not of one moment: some were left out".to_owned()),
    }
}

fn array(members: &[Member]) -> Told<Array> {
    let Some(first) = members.first() else { return Err("it has no members".to_owned()) };
    let Superblock { level, layout, chunk, used, .. } = first.found;
    let count = members.len() as u64;
    let whole = |len: u64| len - len.checked_rem(chunk).unwrap_or(0);
    let is_chunk = chunk > 0 && chunk <= CHUNK_MAX && chunk.is_multiple_of(512);
    if !is_chunk && level != LINEAR {
        return Err("its chunks have a length that is none".to_owned());
    }
    let shape = shape(level, layout, count)?;
    let lens: Vec<u64> = members
        .iter()
        .map(|member| match level {
            LINEAR | RAID0 => whole(member.found.data.len),
            _ => whole(used.min(member.found.data.len)),
        })
        .collect();
    let least = lens.iter().copied().min().unwrap_or(0);
    if shape.is_some() && lens.iter().any(|len| *len != least) {
        return Err("its members are of different lengths, which is not read".to_owned());
    }
    for (member, len) in members.iter().zip(&lens) {
        let Extent { start, .. } = member.found.data;
        let end = start.checked_add(*len);
        if *len == 0 || end.is_none_or(|end| end > member.bytes.len()) {
            return Err("the data of the RAID does not fit into its members".to_owned());
        }
    }
    let rows = least.checked_div(chunk).unwrap_or(0);
    let chunks = match shape {
        None => Some(0),
        Some(Shape::Stripes) => rows.checked_mul(count),
        Some(Shape::Copies { near, rows: apart }) => {
            // `apart` is 1 for all copies side by side.
            (rows / far_of(layout).max(apart)).checked_mul(count).map(|all| all / near)
        }
        Some(Shape::Rotating { parities, .. }) => rows.checked_mul(count - parities),
        Some(Shape::Fixed { before, behind }) => rows.checked_mul(count - before - behind),
    };
    let len = match shape {
        None => lens.iter().try_fold(0_u64, |sum, len| sum.checked_add(*len)),
        Some(_) => chunks.and_then(|chunks| chunks.checked_mul(chunk)),
    };
    let len = len.filter(|len| *len > 0).ok_or("it is larger than any disk, or empty")?;
    let legs = members.iter().map(|member| (Arc::clone(&member.bytes), member.found.data.start));
    Ok(Array { legs: legs.collect(), lens, shape, chunk, len })
}

/// Copies of a RAID10 that lie in another part of each member.
fn far_of(layout: u32) -> u64 {
    u64::from(layout >> 8 & 0xff)
}

fn shape(level: i32, layout: u32, count: u64) -> Told<Option<Shape>> {
    let parities = if level == 6 { 2 } else { 1 };
    let rotating = |forwards, behind| Shape::Rotating { parities, forwards, behind };
    let unknown = || Err(format!("the layout {layout:#x} of a RAID{level} is not known"));
    Ok(Some(match (level, layout) {
        (LINEAR, _) => return Ok(None),
        (RAID0, _) => Shape::Stripes,
        (4, _) => Shape::Fixed { before: 0, behind: 1 },
        (10, layout) => {
            let (near, far) = (u64::from(layout & 0xff), far_of(layout));
            let is_offset = layout & 1 << 16 != 0;
            let is_known = layout >> 17 == 0 && near > 0 && far > 0 && near * far <= count;
            if !is_known {
                return unknown();
            }
            Shape::Copies { near, rows: if is_offset { far } else { 1 } }
        }
        (5, _) if count < 2 => return unknown(),
        (6, _) if count < 4 => return unknown(),
        (5 | 6, 0) => rotating(false, false),
        (5 | 6, 1) => rotating(true, false),
        (5 | 6, 2) => rotating(false, true),
        (5 | 6, 3) => rotating(true, true),
        (5 | 6, 4) => Shape::Fixed { before: parities, behind: 0 },
        (5 | 6, 5) => Shape::Fixed { before: 0, behind: parities },
        (5 | 6, _) => return unknown(),
        (RAID1, _) => return Err("a mirror is one of its members".to_owned()),
        _ => return Err(format!("a RAID of level {level} is not known")),
    }))
}

impl Shape {
    /// The member a chunk of data is on, and the row there, of so many members.
    fn place(self, chunk: u64, count: u64) -> (u64, u64) {
        match self {
            Self::Stripes => (chunk % count, chunk / count),
            Self::Copies { near, rows } => {
                let first = chunk.saturating_mul(near);
                (first % count, (first / count).saturating_mul(rows))
            }
            Self::Fixed { before, behind } => {
                let data = count - before - behind;
                (chunk % data + before, chunk / data)
            }
            Self::Rotating { parities, forwards, behind } => {
                let data = count - parities;
                let (row, number) = (chunk / data, chunk % data);
                let turn = row % count;
                let parity = if forwards { turn } else { count - 1 - turn };
                let member = if behind {
                    (parity + parities + number) % count
                } else if parities == 2 && parity == count - 1 {
                    // The second parity went round to the front.
                    number + 1
                } else if number >= parity {
                    number + parities
                } else {
                    number
                };
                (member, row)
            }
        }
    }
}

impl Array {
    /// The member a byte is on, the byte there, and how many follow it.
    fn place(&self, at: u64) -> Option<(&dyn ReadAt, u64, u64)> {
        let (number, inside, follow) = match self.shape {
            Some(shape) => {
                let (chunk, within) = (at / self.chunk, at % self.chunk);
                let (number, row) = shape.place(chunk, self.legs.len() as u64);
                let inside = row.checked_mul(self.chunk)?.checked_add(within)?;
                (usize::try_from(number).ok()?, inside, self.chunk - within)
            }
            None => {
                let mut before = 0_u64;
                let found = self.lens.iter().position(|len| {
                    let is_here = at - before < *len;
                    before += if is_here { 0 } else { *len };
                    is_here
                })?;
                (found, at - before, *self.lens.get(found)? - (at - before))
            }
        };
        let (bytes, start) = self.legs.get(number)?;
        Some((&**bytes, start.checked_add(inside)?, follow))
    }
}

impl ReadAt for Array {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (mut rest, mut at) = (out, offset);
        while !rest.is_empty() {
            let place = self.place(at).ok_or(io::ErrorKind::UnexpectedEof)?;
            let (bytes, start, follow) = place;
            let count = usize::try_from(follow).unwrap_or(usize::MAX).min(rest.len());
            let (now, later) = rest.split_at_mut(count);
            bytes.read_exact_at(now, start)?;
            at += count as u64;
            rest = later;
        }
        Ok(())
    }
}
