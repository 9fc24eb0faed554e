use aiv_volume_io::ReadAt;

use super::boot::Geometry;
use super::reason::NtfsReason;
use super::record::{Attribute, Mapped, Value};
use super::runlist::Run;
use crate::Error;
use crate::stop::Stop;

/// Runs one of the filesystem's own files may have: 32 MiB of memory. `$MFT` of a very
/// fragmented volume has thousands.
const RUNS_MAX: usize = 1 << 20;

/// A volume and its geometry: reads what geometry has a name for.
pub(super) struct Disk<'a> {
    pub(super) volume: &'a dyn ReadAt,
    pub(super) geometry: Geometry,
}

impl Disk<'_> {
    pub(super) fn read(&self, op: &'static str, offset: u64, out: &mut [u8]) -> Result<(), Stop> {
        Ok(self.volume.read_exact_at(out, offset).map_err(Error::io(op, offset))?)
    }
}

/// The clusters of one of the filesystem's own files: without holes, not compressed.
#[derive(Debug)]
pub(super) struct Stream {
    record: u64,
    /// Ascending and without gaps from cluster 0 on.
    runs: Vec<Run>,
    allocated: u64,
    pub(super) size: u64,
    /// Bytes that were ever written; behind them everything reads as zeros.
    pub(super) initialised: u64,
}

impl Stream {
    /// The stream that begins with `attribute` of file `record`.
    pub(super) fn begin(
        disk: &Disk<'_>,
        record: u64,
        attribute: &Attribute<'_>,
    ) -> Result<Self, NtfsReason> {
        let Value::Mapped(mapped) = attribute.value else {
            return Err(NtfsReason::SystemFile { record, what: "has no clusters" });
        };
        let Mapped { allocated, size, initialised, .. } = mapped;
        if initialised > size || size > allocated {
            return Err(NtfsReason::SystemFile { record, what: "has an impossible size" });
        }
        let mut stream = Self { record, runs: Vec::new(), allocated, size, initialised };
        stream.append(disk, attribute)?;
        Ok(stream)
    }

    /// Adds the piece that follows.
    pub(super) fn append(
        &mut self,
        disk: &Disk<'_>,
        attribute: &Attribute<'_>,
    ) -> Result<(), NtfsReason> {
        let wrong = |what| NtfsReason::SystemFile { record: self.record, what };
        let Value::Mapped(mapped) = attribute.value else {
            return Err(wrong("has no clusters"));
        };
        if attribute.flags != 0 {
            return Err(wrong("is compressed, encrypted or sparse"));
        }
        if mapped.vcn != self.clusters() {
            return Err(wrong("has pieces that do not fit together"));
        }
        for run in mapped.runs(self.record, disk.geometry.clusters) {
            let run = run?;
            if run.lcn.is_none() {
                return Err(wrong("has holes"));
            }
            // No cluster twice, so that reading it never costs more than the volume.
            if self.clusters().saturating_add(run.len) > disk.geometry.clusters {
                return Err(wrong("has more clusters than the volume"));
            }
            if self.runs.len() >= RUNS_MAX {
                return Err(wrong("has too many fragments"));
            }
            self.runs.push(run);
        }
        Ok(())
    }

    /// Clusters known so far.
    fn clusters(&self) -> u64 {
        self.runs.last().map_or(0, |run| run.vcn + run.len)
    }

    /// All pieces are there.
    pub(super) fn complete(self, disk: &Disk<'_>) -> Result<Self, NtfsReason> {
        let found = self.clusters().checked_mul(disk.geometry.cluster_size.into());
        if found == Some(self.allocated) {
            Ok(self)
        } else {
            let what = "has more or fewer clusters than it says";
            Err(NtfsReason::SystemFile { record: self.record, what })
        }
    }

    pub(super) fn first_lcn(&self) -> Option<u64> {
        self.runs.first().and_then(|run| run.lcn)
    }

    /// Fills `out` from byte `at` of the stream on.
    pub(super) fn read(
        &self,
        disk: &Disk<'_>,
        op: &'static str,
        at: u64,
        out: &mut [u8],
    ) -> Result<(), Stop> {
        let outside = NtfsReason::SystemFile { record: self.record, what: "is too short" };
        let cluster_size = u64::from(disk.geometry.cluster_size);
        let mut at = at;
        let mut left = out;
        while !left.is_empty() {
            let vcn = at / cluster_size;
            let index = self.runs.partition_point(|run| run.vcn + run.len <= vcn);
            let Some(&Run { vcn: first, len, lcn: Some(lcn) }) = self.runs.get(index) else {
                return Err(outside.into());
            };
            // Runs lie inside the volume, so their ends in bytes fit.
            let within = at - first * cluster_size;
            let room = len * cluster_size - within;
            let now = usize::try_from(room).unwrap_or(usize::MAX).min(left.len());
            let (piece, rest) = left.split_at_mut(now);
            disk.read(op, disk.geometry.offset_of(lcn) + within, piece)?;
            at += now as u64;
            left = rest;
        }
        Ok(())
    }
}
