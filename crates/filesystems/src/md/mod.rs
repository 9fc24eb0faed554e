//! Linux software RAID (md): where the array lies on a member that holds all of it, and arrays of
//! which all members are at hand.
//!
//! A superblock describes the array and the member: near the front (formats 1.1 and 1.2) or the
//! end (1.0, and 0.90 in the byte order of its machine). A member of a RAID1 holds the whole array,
//! and so does the only member of a linear array or a RAID0. A member that is spare, failed, being
//! filled, or has blocks it cannot read is not taken for the array; neither is one of an array
//! that is being changed.
//!
//! # What one member cannot know
//! A member that was left out of a mirror while others went on is sound, and old: only they show it.
//! One that was in use when it was copied, or whose mirror was never made the same, may lack what
//! the first member has: a note says so.
//!
//! Facts: `drivers/md/md.c` and `include/uapi/linux/raid/md_p.h` of Linux, `mdadm --examine`.

mod array;
mod version0;
mod version1;

use std::sync::Arc;

use aiv_volume_io::{Extent, ReadAt};

use crate::{Error, RaidArray, RaidContents, Result};
use array::Member;

const MAGIC: u32 = 0xa92b_4efc;
const SECTOR: u64 = 512;
const RAID1: i32 = 1;
const RAID0: i32 = 0;
const LINEAR: i32 = -1;

/// Changes that a member may not have seen: the kernel leaves out those that lack more.
const EVENTS_BEHIND_MAX: u64 = 1;

/// Of mirrors.
const NOT_SURE: &str = "it is a mirror that was in use or not yet the same on all members: what was \
                        written last may be missing here";

/// What a superblock says, of either format.
struct Superblock {
    level: i32,
    /// Members of the array.
    members: u32,
    /// Position of this one, if it is one that has its part of the data.
    role: Role,
    /// Bytes of the member that may hold data.
    data: Extent,
    /// Bytes of them that the array uses, for levels that say so.
    used: u64,
    /// Bytes of a chunk, 0 when there are none.
    chunk: u64,
    /// How chunks lie, by the numbers of each level.
    layout: u32,
    /// The major number of its format.
    format: u32,
    /// The identity of the array.
    array: [u8; 16],
    /// Changes of the array the member has seen.
    events: u64,
    /// Why the data of this member is not that of the array, as a sentence.
    doubt: Option<String>,
    /// All members are known to be the same.
    is_in_sync: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Data(u32),
    Spare,
    Failed,
    Journal,
}

/// The arrays of which several members are needed, of those that are at hand. Members that are
/// spare or failed, or hold all of their array, belong to none.
pub(crate) fn arrays(members: &[Arc<dyn ReadAt>]) -> Vec<RaidArray> {
    let needs_others = |found: &Superblock| found.level != RAID1 && found.members > 1;
    groups(members, needs_others).into_iter().map(array::join).collect()
}

/// Positions of the members of mirrors that went on without them, as others show that are at hand.
pub(crate) fn stale_mirrors(members: &[Arc<dyn ReadAt>]) -> Vec<usize> {
    let mut stale = Vec::new();
    for group in groups(members, |found| found.level == RAID1) {
        let newest = group.iter().map(|member| member.found.events).max().unwrap_or(0);
        let old = group.iter().filter(|member| newest - member.found.events > EVENTS_BEHIND_MAX);
        stale.extend(old.map(|member| member.position));
    }
    stale
}

/// Those that have their part of the data of an array, by their arrays.
fn groups(members: &[Arc<dyn ReadAt>], wanted: fn(&Superblock) -> bool) -> Vec<Vec<Member>> {
    let mut groups: Vec<Vec<Member>> = Vec::new();
    for (position, bytes) in members.iter().enumerate() {
        let Ok(Some(found)) = superblock(&**bytes) else { continue };
        if !matches!(found.role, Role::Data(_)) || !wanted(&found) {
            continue;
        }
        let is_of = |group: &&mut Vec<Member>| {
            group.first().is_some_and(|member| member.found.array == found.array)
        };
        let group = groups.iter_mut().find(is_of);
        let member = Member { position, bytes: Arc::clone(bytes), found };
        match group {
            Some(group) => group.push(member),
            None => groups.push(vec![member]),
        }
    }
    groups
}

fn superblock(member: &dyn ReadAt) -> Result<Option<Superblock>> {
    match version1::read(member)? {
        Some(found) => Ok(Some(found)),
        None => version0::read(member),
    }
}

pub(crate) fn contents(member: &dyn ReadAt) -> Result<RaidContents> {
    let found = superblock(member)?;
    let found = found.ok_or_else(|| Error::damaged("there is no superblock of md", None))?;
    let unsupported = |what: String| Err(Error::Unsupported { what });
    if let Some(what) = found.doubt {
        return unsupported(what);
    }
    let role = match found.role {
        Role::Data(role) if role < found.members => role,
        Role::Data(_) => return Err(Error::damaged("its place in the RAID is none", None)),
        Role::Spare => return unsupported("it is a spare of a RAID".to_owned()),
        Role::Failed => {
            return unsupported("it failed, and its RAID went on without it".to_owned());
        }
        Role::Journal => return unsupported("it is the journal of a RAID".to_owned()),
    };
    let used = match (found.level, found.members) {
        (RAID1, _) => found.used,
        (LINEAR | RAID0, 1) => {
            found.data.len - found.data.len.checked_rem(found.chunk).unwrap_or(0)
        }
        (level, members) => {
            return unsupported(format!(
                "it is one of {members} members of a {}: the others are needed, too",
                name_of(level)
            ));
        }
    };
    let fits = found.data.start.checked_add(found.data.len).is_some_and(|end| end <= member.len());
    if used == 0 || used > found.data.len || !fits {
        return Err(Error::damaged("the data of the RAID does not fit into its member", None));
    }
    let is_sure = found.level != RAID1 || role == 0 || found.is_in_sync;
    let extent = Extent::new(found.data.start, used);
    Ok(RaidContents { extent, note: (!is_sure).then(|| NOT_SURE.to_owned()) })
}

fn name_of(level: i32) -> String {
    match level {
        LINEAR => "linear array".to_owned(),
        -4 => "multipath device".to_owned(),
        level => format!("RAID{level}"),
    }
}

/// The sum of little- or big-endian words, what is carried out of it added once more.
fn folded(words: impl Iterator<Item = u32>) -> u32 {
    let sum = words.fold(0_u64, |sum, word| sum.wrapping_add(u64::from(word)));
    let [low, high] = [sum & 0xffff_ffff, sum >> 32];
    u32::try_from((low + high) & 0xffff_ffff).unwrap_or(0)
}
