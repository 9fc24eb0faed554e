//! Files of FAT by name, and their clusters.
//!
//! Who owns a cluster is proven by the whole table and all folders: a file has its clusters alone
//! when nothing leads to the first one but its record, and to each other one nothing but the one
//! before it. Entries of the table that belong to no file count, and so do folders. Where a folder
//! cannot be read to its end, nothing is left out at all.

use std::sync::Arc;

use aiv_volume_io::{ExtentSet, Job, ReadAt};

use super::boot::{FIRST_CLUSTER, Geometry};
use super::reader::Fat;
use super::table::{Links, Table, geometry};
use crate::bitmap::Bitmap;
use crate::clusters::Chain;
use crate::files::{KeptReason, MatchingFiles, Owners, Pattern, Walk, fold};
use crate::reader::{Piece, VolumeOf};
use crate::stop::Stop;
use crate::{Error, FilesystemKind};

/// The beginning of this file tells whether Windows is hibernated. What the target of a restore
/// held there before must not say so.
const HIBERNATION_FILE: &str = "HIBERFIL.SYS";

/// Finds the files that match, on a volume with this map.
pub(crate) fn find(
    volume: &dyn ReadAt,
    kind: FilesystemKind,
    used: &ExtentSet,
    patterns: &[Pattern],
    job: Job<'_>,
) -> std::result::Result<MatchingFiles, Stop> {
    let geometry = geometry(volume)?;
    let fat = Fat::open(VolumeOf::new(Arc::new(volume)), kind)?;
    let mut answer = MatchingFiles::default();
    let mut heads = Heads::new(&geometry);
    let walk = Walk::new(&fat, patterns, true, &mut answer);
    let names = walk.run(job, &mut |file| {
        heads.add(fat.first_cluster(file)?);
        Ok(())
    })?;
    if names.is_incomplete {
        return Err(Error::damaged("a folder cannot be read to its end", None).into());
    }
    let table = Table::read(volume, &geometry, Links::Counted, job)?;
    let mut owners = Owners::new(geometry.cluster_size);
    for (file, candidate) in names.candidates {
        job.check()?;
        let is_hibernation_file = candidate.path.chars().map(fold).eq(HIBERNATION_FILE.chars());
        let owner = owners.begin(candidate.path, 0);
        owner.keeps_front = is_hibernation_file;
        let (len, chain) = match fat.whole(file) {
            Ok(whole) => whole,
            Err(Error::Damaged { .. }) => {
                owner.fault = Some(KeptReason::NotUnderstood("its clusters cannot be told"));
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        owner.len = len.into();
        owner.fault = fault_of(len, &chain, &geometry, &table, &heads);
        let mut logical = 0;
        for extent in fat.extents(&chain) {
            owners.piece(Piece { logical, physical: extent.start, len: extent.len });
            logical += extent.len;
        }
    }
    owners.tell(volume, used, &mut answer, job)?;
    Ok(answer)
}

/// Clusters that records lead to.
struct Heads {
    once: Bitmap,
    twice: Bitmap,
}

impl Heads {
    fn new(geometry: &Geometry) -> Self {
        let (once, twice) = (Bitmap::empty(geometry.clusters), Bitmap::empty(geometry.clusters));
        let mut heads = Self { once, twice };
        if let Some(root) = geometry.root_cluster {
            heads.add(root);
        }
        heads
    }

    /// A record without clusters leads to none of them.
    fn add(&mut self, cluster: u32) {
        let Some(bit) = cluster.checked_sub(FIRST_CLUSTER) else { return };
        let place = bit..bit.saturating_add(1);
        if self.once.has(bit) && self.once.is_set(bit) {
            self.twice.set(place);
        } else if self.once.has(bit) {
            self.once.set(place);
        }
    }
}

/// What speaks against a file whose record leads to `chain`.
fn fault_of(
    len: u32,
    chain: &Chain,
    geometry: &Geometry,
    table: &Table,
    heads: &Heads,
) -> Option<KeptReason> {
    let count: u64 = chain.runs.iter().map(|run| u64::from(run.count)).sum();
    if chain.fault.is_some() || count * u64::from(geometry.cluster_size) < u64::from(len) {
        return Some(KeptReason::NotUnderstood("its clusters end before it does"));
    }
    let clusters = chain.runs.iter().flat_map(|run| run.first..run.first + run.count);
    for (n, bit) in clusters.map(|cluster| cluster - FIRST_CLUSTER).enumerate() {
        let is_linked_twice = table.linked_twice.as_ref().is_none_or(|twice| twice.is_set(bit));
        let is_alone = match n {
            0 => !table.linked.is_set(bit) && !heads.twice.is_set(bit),
            _ => !is_linked_twice && !heads.once.is_set(bit),
        };
        if !is_alone {
            return Some(KeptReason::Shared);
        }
    }
    None
}
