//! All directories, and whether the table knows the first cluster of every file.
//!
//! What follows the first cluster of a file was checked with the table: no link leads to a free
//! cluster. Only a directory entry leads to the first one.

use aiv_volume_io::{Extent, Job, ReadAt};

use super::boot::{FIRST_CLUSTER, Geometry, Width};
use super::reason::FatReason;
use super::table::{Marks, Table, entry};
use crate::Error;
use crate::bitmap::Bitmap;
use crate::bytes::le16;
use crate::stop::Stop;

/// Folders that are known and wait to be read: 4 MiB of memory.
const FOLDERS_WAITING_MAX: usize = 1 << 20;
/// Bytes of a folder read in one go.
const STRIDE: u64 = 64 << 10;

/// A walk through all directories. Every cluster of one is read at most once, which bounds it.
pub(super) struct Walk<'a> {
    volume: &'a dyn ReadAt,
    geometry: &'a Geometry,
    table: &'a Table,
    /// Clusters of directories.
    seen: Bitmap,
    /// First clusters.
    folders: Vec<u32>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(volume: &'a dyn ReadAt, geometry: &'a Geometry, table: &'a Table) -> Self {
        let seen = Bitmap::empty(geometry.clusters);
        Self { volume, geometry, table, seen, folders: Vec::new() }
    }

    /// Reads every directory from the root on.
    pub(super) fn check(mut self, job: Job<'_>) -> Result<(), Stop> {
        match self.geometry.root_cluster {
            Some(cluster) => self.folders.push(cluster),
            None => {
                let root = Extent::between(self.geometry.root_at, self.geometry.data_at);
                self.read_entries(root)?;
            }
        }
        while let Some(first) = self.folders.pop() {
            let mut next = Some(first);
            let mut ended = false;
            while let Some(cluster) = next {
                job.check()?;
                self.see(cluster)?;
                if !ended {
                    let at = self.geometry.offset_of(cluster);
                    ended =
                        self.read_entries(Extent::new(at, self.geometry.cluster_size.into()))?;
                }
                next = self.next(cluster)?;
            }
        }
        Ok(())
    }

    /// Marks a cluster as read. A chain that comes back to itself meets a marked one.
    fn see(&mut self, cluster: u32) -> Result<(), FatReason> {
        let bit = cluster - FIRST_CLUSTER;
        if self.seen.is_set(bit) {
            return Err(FatReason::SharedFolder { cluster });
        }
        self.seen.set(bit..bit + 1);
        Ok(())
    }

    /// The cluster after `cluster`, whose entry was checked with the table.
    fn next(&self, cluster: u32) -> Result<Option<u32>, Error> {
        let width = self.geometry.width;
        // The second of a pair of 12-bit entries begins within a byte.
        let first = cluster & !1;
        let mut bytes = [0; 8];
        let len = width.table_bytes(2);
        let bytes = &mut bytes[..usize::try_from(len).expect("two entries are a few bytes")];
        let at = self.geometry.table_at + width.table_bytes(first.into());
        // A table of an odd number of entries may end with the first of the pair.
        let in_table = (self.geometry.table_at + self.geometry.table_len).saturating_sub(at);
        let bytes = &mut bytes[..usize::try_from(len.min(in_table)).expect("it only got less")];
        let failed = Error::io("read file allocation table", at);
        self.volume.read_exact_at(bytes, at).map_err(failed)?;
        let marks = Marks::of(width);
        let value = entry(width, bytes, cluster - first) & marks.mask;
        Ok((value < marks.bad && self.has(value)).then_some(value))
    }

    fn has(&self, cluster: u32) -> bool {
        cluster >= FIRST_CLUSTER && cluster - FIRST_CLUSTER < self.geometry.clusters
    }

    /// Reads a piece of a directory; whether it ends in it.
    fn read_entries(&mut self, piece: Extent) -> Result<bool, Stop> {
        const END: u8 = 0x00;
        const DELETED: u8 = 0xe5;
        let mut bytes = Vec::new();
        let mut at = piece.start;
        while at < piece.end() {
            let len = STRIDE.min(piece.end() - at);
            bytes.resize(usize::try_from(len).expect("a stride is small"), 0);
            let failed = Error::io("read directory", at);
            self.volume.read_exact_at(&mut bytes, at).map_err(failed)?;
            for (entry, offset) in bytes.as_chunks::<32>().0.iter().zip((at..).step_by(32)) {
                match entry[0] {
                    END => return Ok(true),
                    DELETED => {}
                    _ => self.take(entry, offset)?,
                }
            }
            at += len;
        }
        Ok(false)
    }

    fn take(&mut self, entry: &[u8; 32], offset: u64) -> Result<(), FatReason> {
        const VOLUME_ID: u8 = 0x08;
        const DIRECTORY: u8 = 0x10;
        let attributes = entry[11];
        // Labels, and the pieces of long names, which carry this attribute among others.
        let no_file = attributes & VOLUME_ID != 0;
        let itself_or_parent =
            matches!(&entry[..11], b".          " | b"..         ") && attributes & DIRECTORY != 0;
        if no_file || itself_or_parent {
            return Ok(());
        }
        // Before FAT32 the upper half was something else.
        let high = if self.geometry.width == Width::Fat32 { le16(entry, 20) } else { 0 };
        let cluster = u32::from(high) << 16 | u32::from(le16(entry, 26));
        if cluster == 0 && attributes & DIRECTORY == 0 {
            return Ok(());
        }
        if !self.has(cluster) {
            return Err(FatReason::DirectoryEntry { offset, cluster });
        }
        if !self.table.used.is_set(cluster - FIRST_CLUSTER) {
            return Err(FatReason::FileFree { cluster });
        }
        if attributes & DIRECTORY != 0 {
            if self.folders.len() >= FOLDERS_WAITING_MAX {
                return Err(FatReason::TooManyFolders);
            }
            self.folders.push(cluster);
        }
        Ok(())
    }
}
