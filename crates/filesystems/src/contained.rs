//! Volumes inside of others, as bytes: to read the files in them.
//!
//! What is given out here is no statement about which bytes of a disk are used: maps are made by
//! [`used_map`](crate::used_map), which believes less.

use std::fmt;
use std::sync::Arc;

use aiv_volume_io::{Extent, Job, ReadAt};

use crate::luks::{self, LuksKeys};
use crate::{Result, lvm, md};

/// Physical volumes that are looked at together; more belong to no machine.
pub const MEMBERS_MAX: usize = 256;

/// What the physical volumes of a disk hold.
#[derive(Debug, Default)]
pub struct LogicalVolumes {
    /// The logical volumes that LVM shows, in the order of the disks and of the metadata.
    pub volumes: Vec<LogicalVolume>,
    /// For each physical volume that was given, the position of the first one of its group, or why
    /// its group cannot be read.
    pub members: Vec<std::result::Result<usize, String>>,
}

/// A logical volume of LVM2.
pub struct LogicalVolume {
    /// Position of the first physical volume of its group among those that were given.
    pub member: usize,
    /// `GROUP/NAME`, of letters, digits and `+_.-`; neither part is `.` or `..`.
    pub name: String,
    /// Bytes, by its metadata.
    pub len: u64,
    /// Its bytes, or why they cannot be read, as the rest of a sentence.
    pub bytes: std::result::Result<Arc<dyn ReadAt>, String>,
    /// Where they lie, in their order; `None` when that is not told.
    pub spans: Option<Vec<Span>>,
}

/// Bytes of a logical volume of which all, or one stripe of each round, lie in one run of a physical
/// volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Bytes of the logical volume that lie here or on the other legs.
    pub volume: Extent,
    /// Position of the physical volume among those that were given.
    pub member: usize,
    /// Bytes of the physical volume.
    pub extent: Extent,
    /// Bytes of a stripe, not zero; all of them when there are none.
    pub stripe: u64,
    /// Which stripe of each round lies here, from 0.
    pub number: u64,
    /// Stripes of a round.
    pub every: u64,
}

impl Span {
    /// The same bytes in the logical volume, of `runs` inside its extent: a run of them for each
    /// stripe.
    pub fn in_volume(&self, runs: impl Iterator<Item = Extent>) -> Vec<Extent> {
        let mut found = Vec::new();
        for run in runs.filter_map(|run| run.intersect(self.extent)) {
            let (mut at, end) = (run.start - self.extent.start, run.end() - self.extent.start);
            while at < end && self.stripe > 0 {
                let (row, within) = (at / self.stripe, at % self.stripe);
                let len = (self.stripe - within).min(end - at);
                let stripe = row.saturating_mul(self.every).saturating_add(self.number);
                let start = stripe.saturating_mul(self.stripe).saturating_add(within);
                found.push(Extent::new(self.volume.start.saturating_add(start), len));
                at += len;
            }
        }
        found
    }
}

/// What a member of a Linux software RAID holds by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaidContents {
    /// The bytes of the array, as bytes of the member.
    pub extent: Extent,
    /// What is to be known about their state.
    pub note: Option<String>,
}

/// What members of a Linux software RAID hold together.
pub struct RaidArray {
    /// Positions of its members among those that were given.
    pub members: Vec<usize>,
    /// Its bytes, or why they cannot be read, as the rest of a sentence.
    pub bytes: std::result::Result<Arc<dyn ReadAt>, String>,
    /// What is to be known about their state.
    pub note: Option<String>,
}

/// What a LUKS volume holds.
pub struct LuksContents {
    /// Its decrypted bytes.
    pub bytes: Arc<dyn ReadAt>,
    /// Where they lie, encrypted, in the volume: each byte at the place of the same number.
    pub extent: Extent,
}

/// Opens the logical volumes of LVM2 physical volumes: all those that are at hand, since a group
/// may lie on several. Read are linear and striped volumes of any segments, and mirrors of which
/// an image that is right is here; of everything else there is the reason why not. Pools and what
/// LVM hides are not told of.
///
/// # Errors
/// [`Error::Canceled`](crate::Error::Canceled) only: what cannot be read is in the answer.
pub fn logical_volumes(members: &[Arc<dyn ReadAt>], job: Job<'_>) -> Result<LogicalVolumes> {
    let (looked_at, others) = members.split_at(members.len().min(MEMBERS_MAX));
    let mut answer = lvm::logical_volumes(looked_at, job)?;
    let why = format!("more than {MEMBERS_MAX} physical volumes are not looked at");
    answer.members.extend(others.iter().map(|_| Err(why.clone())));
    Ok(answer)
}

/// Where the array lies on a member of a Linux software RAID (md) that holds all of it: a RAID1,
/// or another one of a single device.
///
/// # Errors
/// [`Error::Unsupported`](crate::Error::Unsupported) when other members are needed,
/// [`Error::Damaged`](crate::Error::Damaged), [`Error::Io`](crate::Error::Io).
pub fn raid_contents(member: &dyn ReadAt) -> Result<RaidContents> {
    md::contents(member)
}

/// Opens a LUKS volume, version 1 or 2, with the first of `keys` that opens one of its key slots.
/// What a slot may cost is bounded: a gibibyte of memory and some fifteen seconds.
///
/// # Errors
/// [`Error::WrongKey`](crate::Error::WrongKey) when none of them does,
/// [`Error::Unsupported`](crate::Error::Unsupported) for ciphers and hashes that are not known, slots
/// that ask for too much, detached headers and dm-integrity,
/// [`Error::Damaged`](crate::Error::Damaged), [`Error::Io`](crate::Error::Io),
/// [`Error::Canceled`](crate::Error::Canceled).
pub fn open_luks(volume: Arc<dyn ReadAt>, keys: &LuksKeys, job: Job<'_>) -> Result<LuksContents> {
    luks::open(volume, keys, job)
}

/// Puts Linux software RAIDs (md) together of which several members are needed: linear arrays,
/// RAID0, 4, 5, 6 and 10. All of their data must be at hand: nothing is computed from parity.
/// Members that hold all of their array are not among them: see [`raid_contents`].
#[must_use]
pub fn raid_arrays(members: &[Arc<dyn ReadAt>]) -> Vec<RaidArray> {
    md::arrays(members.get(..MEMBERS_MAX).unwrap_or(members))
}

/// Positions of members of RAID1 (md) that are sound, and old: another member of their array, which
/// is at hand, has seen more changes than the kernel lets one miss.
#[must_use]
pub fn stale_mirrors(members: &[Arc<dyn ReadAt>]) -> Vec<usize> {
    md::stale_mirrors(members.get(..MEMBERS_MAX).unwrap_or(members))
}

impl fmt::Debug for RaidArray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = self.bytes.as_ref().err();
        f.debug_struct("RaidArray")
            .field("members", &self.members)
            .field("why", &why)
            .field("note", &self.note)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for LuksContents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LuksContents").field("extent", &self.extent).finish_non_exhaustive()
    }
}

impl fmt::Debug for LogicalVolume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = self.bytes.as_ref().err();
        f.debug_struct("LogicalVolume")
            .field("member", &self.member)
            .field("name", &self.name)
            .field("len", &self.len)
            .field("why", &why)
            .finish_non_exhaustive()
    }
}
