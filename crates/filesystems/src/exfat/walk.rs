//! All directories, and whether the bitmap knows the clusters of all files.

use aiv_volume_io::{Job, ReadAt};

use super::boot::{FIRST_CLUSTER, Geometry};
use super::chain::Table;
use super::directory::Structures;
use super::entry_set::{Allocation, Entry, Reader};
use super::reason::ExFatReason;
use crate::Error;
use crate::bitmap::Bitmap;
use crate::stop::Stop;

const SECTION: &str = "a file or folder";
/// Folders that are known and wait to be read: 16 MiB of memory.
const FOLDERS_WAITING_MAX: usize = 1 << 20;
/// Bytes of a folder read in one go.
const STRIDE: usize = 64 << 10;
/// Clusters between two looks at the stop button.
const CLUSTERS_PER_CHECK: u32 = 1 << 16;

/// Clusters one after the other, whose number was counted when they were claimed.
#[derive(Debug, Clone, Copy)]
struct Chain {
    first: u32,
    clusters: u32,
    /// Neighbours, and not in the table.
    in_one_piece: bool,
}

/// A walk through all directories. Every cluster is claimed at most once, which bounds it.
pub(super) struct Walk<'a> {
    volume: &'a dyn ReadAt,
    geometry: &'a Geometry,
    table: Table<'a>,
    used: &'a Bitmap,
    claimed: Bitmap,
    folders: Vec<Chain>,
    job: Job<'a>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        volume: &'a dyn ReadAt,
        geometry: &'a Geometry,
        table: Table<'a>,
        used: &'a Bitmap,
        job: Job<'a>,
    ) -> Self {
        let claimed = Bitmap::empty(geometry.clusters);
        Self { volume, geometry, table, used, claimed, folders: Vec::new(), job }
    }

    /// Follows every file and folder from the root on.
    pub(super) fn check(mut self, structures: &Structures) -> Result<(), Stop> {
        for cluster in
            [structures.bitmap, structures.upcase].into_iter().flat_map(|run| run.start..run.end())
        {
            self.claim(u32::try_from(cluster).unwrap_or(u32::MAX))?;
        }
        let root = self.claim_chain(self.geometry.root_cluster)?;
        self.folders.push(root);
        while let Some(folder) = self.folders.pop() {
            self.job.check()?;
            self.read_folder(folder)?;
        }
        Ok(())
    }

    fn read_folder(&mut self, folder: Chain) -> Result<(), Stop> {
        let mut reader = Reader::default();
        let stride = STRIDE.min(self.geometry.cluster_size as usize);
        let mut bytes = vec![0; stride];
        let mut cluster = folder.first;
        for n in 1..=folder.clusters {
            let start = self.geometry.offset_of(cluster);
            let end = start + u64::from(self.geometry.cluster_size);
            for at in (start..end).step_by(stride) {
                let failed = Error::io("read directory", at);
                self.volume.read_exact_at(&mut bytes, at).map_err(failed)?;
                for (entry, at) in bytes.as_chunks::<32>().0.iter().zip((at..).step_by(32)) {
                    match reader.take(entry, at)? {
                        Entry::End => return Ok(()),
                        Entry::Nothing => {}
                        Entry::Allocation(allocation) => self.follow(allocation, at)?,
                    }
                }
            }
            if n < folder.clusters {
                cluster = match folder.in_one_piece {
                    true => cluster + 1,
                    false => self.next(cluster)?.ok_or_else(|| broken(cluster))?,
                };
            }
        }
        Ok(reader.finish()?)
    }

    /// Claims the clusters of a file or folder, and notes a folder to be read.
    fn follow(&mut self, allocation: Allocation, at: u64) -> Result<(), Stop> {
        let clusters = allocation.len.div_ceil(self.geometry.cluster_size.into());
        if clusters == 0 && allocation.first == 0 {
            return Ok(());
        }
        let all = u64::from(self.geometry.clusters);
        if clusters == 0 || clusters > all || !self.geometry.has(allocation.first) {
            let what = "has a size or first cluster it cannot have";
            return Err(ExFatReason::DirectoryEntry { offset: at, what }.into());
        }
        let clusters = u32::try_from(clusters).expect("there are fewer than 32 bits of clusters");
        let chain = match allocation.in_one_piece {
            true => self.claim_piece(allocation.first, clusters)?,
            false => self.claim_chain(allocation.first)?,
        };
        // More than it takes is room for growth.
        if chain.clusters < clusters {
            return Err(broken(allocation.first));
        }
        if allocation.is_folder {
            if self.folders.len() >= FOLDERS_WAITING_MAX {
                return Err(ExFatReason::TooManyFolders.into());
            }
            self.folders.push(Chain { clusters, ..chain });
        }
        Ok(())
    }

    fn claim_piece(&mut self, first: u32, clusters: u32) -> Result<Chain, Stop> {
        let end = first.checked_add(clusters).ok_or_else(|| broken(first))?;
        for (n, cluster) in (0u32..).zip(first..end) {
            self.check_job(n)?;
            if !self.geometry.has(cluster) {
                return Err(broken(first));
            }
            self.claim(cluster)?;
        }
        Ok(Chain { first, clusters, in_one_piece: true })
    }

    /// Claims a chain of the table to its end. One that comes back to itself meets a claimed
    /// cluster.
    fn claim_chain(&mut self, first: u32) -> Result<Chain, Stop> {
        let mut clusters = 0u32;
        let mut next = Some(first);
        while let Some(cluster) = next {
            self.check_job(clusters)?;
            self.claim(cluster)?;
            clusters += 1;
            next = self.next(cluster)?;
        }
        Ok(Chain { first, clusters, in_one_piece: false })
    }

    fn check_job(&self, clusters: u32) -> Result<(), Stop> {
        if clusters.is_multiple_of(CLUSTERS_PER_CHECK) {
            self.job.check()?;
        }
        Ok(())
    }

    fn next(&mut self, cluster: u32) -> Result<Option<u32>, Stop> {
        self.table.next(SECTION, cluster)
    }

    /// Marks a cluster of the heap as belonging to somebody.
    fn claim(&mut self, cluster: u32) -> Result<(), ExFatReason> {
        let bit = cluster - FIRST_CLUSTER;
        if !self.used.is_set(bit) {
            return Err(ExFatReason::FileFree { cluster });
        }
        if self.claimed.is_set(bit) {
            return Err(ExFatReason::SharedCluster { cluster });
        }
        self.claimed.set(bit..bit + 1);
        Ok(())
    }
}

fn broken(cluster: u32) -> Stop {
    ExFatReason::Chain { section: SECTION, cluster }.into()
}
