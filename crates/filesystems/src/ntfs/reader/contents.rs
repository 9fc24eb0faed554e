//! The clusters of an attribute, put together from all of its pieces.

use aiv_volume_io::ReadAt;

use super::file::{Attr, Held, HeldMap, damaged};
use crate::ntfs::boot::Geometry;
use crate::ntfs::reason::NtfsReason;
use crate::ntfs::runlist::{Run, Runs};
use crate::reader::{Piece, Pieces, Volume};
use crate::{EXTENTS_MAX, Error, Result};

pub(super) const COMPRESSED: u16 = 0x00ff;
pub(super) const ENCRYPTED: u16 = 0x4000;

/// The bytes of an attribute, wherever they are.
pub(super) struct Contents {
    pub(super) record: u64,
    pub(super) flags: u16,
    pub(super) size: u64,
    pub(super) initialised: u64,
    pub(super) unit: u16,
    pub(super) cluster_size: u64,
    pub(super) place: Clusters,
}

pub(super) enum Clusters {
    /// In a record.
    Resident(Vec<u8>),
    /// Ascending and without gaps from cluster 0 on, holes included.
    Runs(Vec<Run>),
}

impl Contents {
    /// Puts the pieces of an attribute of file `record` together.
    pub(super) fn of(geometry: &Geometry, record: u64, pieces: &[Attr]) -> Result<Self> {
        let wrong = |what| damaged(&NtfsReason::Runs { record, what });
        let first = pieces.first().ok_or_else(|| wrong("is missing"))?;
        let (flags, cluster_size) = (first.flags, u64::from(geometry.cluster_size));
        let map = match &first.value {
            Held::Mapped(map) => map,
            Held::Resident(value) => {
                let (size, place) = (value.len() as u64, Clusters::Resident(value.clone()));
                // What is in a record is never compressed, whatever its flags.
                let flags = flags & ENCRYPTED;
                let initialised = size;
                return Ok(Self { record, flags, size, initialised, unit: 0, cluster_size, place });
            }
        };
        let HeldMap { size, initialised, unit, .. } = *map;
        let mut runs: Vec<Run> = Vec::new();
        let mut end = 0;
        for piece in pieces {
            let Held::Mapped(map) = &piece.value else {
                return Err(wrong("is in clusters and in a record"));
            };
            if map.vcn != end {
                return Err(wrong("has pieces that do not fit together"));
            }
            for run in Runs::new(&map.pairs, map.vcn, map.len, geometry.clusters) {
                let run = run.map_err(wrong)?;
                end = run.vcn + run.len;
                if runs.len() == EXTENTS_MAX {
                    return Err(wrong("has more runs than can be read"));
                }
                runs.push(run);
            }
        }
        // Its end in bytes is a number.
        let len = end.checked_mul(cluster_size).filter(|&len| i64::try_from(len).is_ok());
        if len.is_none_or(|len| size > len) {
            return Err(wrong("has fewer clusters than the file needs"));
        }
        let initialised = initialised.min(size);
        let place = Clusters::Runs(runs);
        Ok(Self { record, flags, size, initialised, unit, cluster_size, place })
    }

    /// Runs from the one on that `vcn` is in.
    pub(super) fn runs_from(&self, vcn: u64) -> &[Run] {
        let Clusters::Runs(runs) = &self.place else { return &[] };
        let first = runs.partition_point(|run| run.vcn + run.len <= vcn);
        runs.get(first..).unwrap_or_default()
    }

    /// Bytes in clusters: no more than the volume has, or something is there twice.
    pub(super) fn check_once(&self, geometry: &Geometry) -> Result<()> {
        let mapped = self.runs_from(0).iter().filter(|run| run.lcn.is_some());
        let total = mapped.map(|run| run.len).fold(0, u64::saturating_add);
        match total <= geometry.clusters {
            true => Ok(()),
            false => {
                let what = "names more clusters than there are";
                Err(damaged(&NtfsReason::Runs { record: self.record, what }))
            }
        }
    }

    /// Fills `out` from byte `at` on; metadata, through the cache.
    pub(super) fn read(
        &self,
        volume: &Volume,
        op: &'static str,
        at: u64,
        out: &mut [u8],
    ) -> Result<()> {
        let short = || {
            let what = "ends before what was looked for";
            damaged(&NtfsReason::Runs { record: self.record, what })
        };
        let end = at.checked_add(out.len() as u64).filter(|&end| end <= self.size);
        end.ok_or_else(short)?;
        if let Clusters::Resident(value) = &self.place {
            let start = usize::try_from(at).map_err(|_| short())?;
            let bytes = value.get(start..).and_then(|rest| rest.get(..out.len()));
            out.copy_from_slice(bytes.ok_or_else(short)?);
            return Ok(());
        }
        let valid = usize::try_from(self.initialised.saturating_sub(at)).unwrap_or(usize::MAX);
        let (out, behind) = out.split_at_mut(valid.min(out.len()));
        behind.fill(0);
        let mut done = 0;
        for run in self.runs_from(at / self.cluster_size) {
            if done == out.len() {
                break;
            }
            let within = at + done as u64 - run.vcn * self.cluster_size;
            let room = run.len * self.cluster_size - within;
            let now = usize::try_from(room).unwrap_or(usize::MAX).min(out.len() - done);
            let piece = &mut out[done..done + now];
            match run.lcn {
                None => piece.fill(0),
                Some(lcn) => {
                    let from = lcn * self.cluster_size + within;
                    volume.read_exact_at(piece, from).map_err(Error::io(op, from))?;
                }
            }
            done += now;
        }
        if done == out.len() { Ok(()) } else { Err(short()) }
    }

    /// The clusters as pieces of a file that is stored as it is.
    pub(super) fn pieces<'a>(&self, volume: &'a Volume) -> Result<Pieces<'a>> {
        let mut pieces = Pieces::new(volume);
        for run in self.runs_from(0) {
            let Some(lcn) = run.lcn else { continue };
            let size = self.cluster_size;
            pieces.push(Piece {
                logical: run.vcn * size,
                physical: lcn * size,
                len: run.len * size,
            })?;
        }
        Ok(pieces)
    }
}
