//! The file allocation table: which cluster follows which.

use aiv_volume_io::{Extent, Job, ReadAt};

use super::boot::Geometry;
use super::reason::ExFatReason;
use crate::Error;
use crate::bytes::{le32, le64};
use crate::stop::Stop;

/// The entry of the last cluster of a chain.
const END: u32 = 0xffff_ffff;
/// Bytes of the table read in one go.
const STRIDE: u32 = 1 << 20;

/// Bytes of the table kept for the next step along a chain. A chain that jumps costs no more
/// than its clusters, which are not smaller.
const WINDOW: usize = 512;

pub(super) struct Table<'a> {
    volume: &'a dyn ReadAt,
    geometry: &'a Geometry,
    window: [u8; WINDOW],
    window_at: Option<u64>,
}

impl<'a> Table<'a> {
    /// The table, if it begins as every table does: media type f8h and ones.
    pub(super) fn open(volume: &'a dyn ReadAt, geometry: &'a Geometry) -> Result<Self, Stop> {
        const FIRST_ENTRIES: u64 = 0xffff_ffff_ffff_fff8;
        let mut table = Self { volume, geometry, window: [0; WINDOW], window_at: None };
        table.entry(0)?;
        match le64(&table.window, 0) {
            FIRST_ENTRIES => Ok(table),
            found => Err(ExFatReason::FirstEntries { found }.into()),
        }
    }

    /// The cluster after `cluster`, `None` after the last one.
    pub(super) fn next(
        &mut self,
        section: &'static str,
        cluster: u32,
    ) -> Result<Option<u32>, Stop> {
        match self.entry(cluster)? {
            END => Ok(None),
            next if self.geometry.has(next) => Ok(Some(next)),
            _ => Err(ExFatReason::Chain { section, cluster }.into()),
        }
    }

    fn entry(&mut self, cluster: u32) -> Result<u32, Error> {
        let byte = u64::from(cluster) * 4;
        let window_at = byte - byte % WINDOW as u64;
        if self.window_at != Some(window_at) {
            self.window_at = None;
            // Tables are whole sectors, and so is the window.
            let at = self.geometry.table_at + window_at;
            let failed = Error::io("read file allocation table", at);
            self.volume.read_exact_at(&mut self.window, at).map_err(failed)?;
            self.window_at = Some(window_at);
        }
        let index = usize::try_from(byte - window_at).expect("a window is small");
        Ok(le32(&self.window, index))
    }

    /// The clusters of a structure of `count` clusters from `first` on, which has to be in one
    /// piece: chained in order, or not chained at all (each entry zero). The clusters lie
    /// inside the heap.
    pub(super) fn one_piece(
        &self,
        section: &'static str,
        first: u32,
        count: u32,
        job: Job<'_>,
    ) -> Result<Extent, Stop> {
        let broken = |cluster: u32| Stop::from(ExFatReason::Chain { section, cluster });
        let inside = |&end: &u32| self.geometry.has(first) && self.geometry.has(end - 1);
        let Some(end) = first.checked_add(count).filter(|&end| end > first).filter(inside) else {
            return Err(broken(first));
        };
        let mut bytes = Vec::new();
        let mut at = first;
        let mut chained = None;
        while at < end {
            job.check()?;
            let stride = (STRIDE / 4).min(end - at);
            bytes.resize(stride as usize * 4, 0);
            self.read(at, &mut bytes)?;
            for (cluster, entry) in (at..).zip(bytes.as_chunks::<4>().0) {
                let entry = u32::from_le_bytes(*entry);
                let chained = *chained.get_or_insert(entry != 0);
                let expected = match chained {
                    false => 0,
                    true if cluster + 1 == end => END,
                    true => cluster + 1,
                };
                if entry != expected {
                    return Err(broken(cluster));
                }
            }
            at += stride;
        }
        Ok(Extent::new(first.into(), count.into()))
    }

    fn read(&self, cluster: u32, out: &mut [u8]) -> Result<(), Error> {
        let at = self.geometry.table_at + u64::from(cluster) * 4;
        self.volume.read_exact_at(out, at).map_err(Error::io("read file allocation table", at))
    }
}
