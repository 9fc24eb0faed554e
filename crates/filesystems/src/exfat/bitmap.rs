//! From the allocation bitmap to used bytes.

use aiv_volume_io::{Extent, ExtentSet, Job, ReadAt};

use super::boot::{FIRST_CLUSTER, Geometry};
use super::chain::Table;
use super::directory::{BITMAP, ROOT, Structures, UPCASE};
use super::reason::ExFatReason;
use super::walk::Walk;
use crate::bitmap::Bitmap;
use crate::runs::{RUNS_MAX, RunCollector};
use crate::stop::Stop;
use crate::{Error, MapNote, UsedMap};

pub(super) fn read(volume: &dyn ReadAt, job: Job<'_>) -> Result<UsedMap, Stop> {
    let geometry = Geometry::read(volume)?;
    let mut table = Table::open(volume, &geometry)?;
    let structures = Structures::find(volume, &geometry, &mut table, job)?;
    let bitmap = read_bitmap(volume, &geometry, &structures, job)?;
    check_metadata(&structures, &bitmap)?;
    Walk::new(volume, &geometry, table, &bitmap, job).check(&structures)?;
    let mut notes = Vec::new();
    if geometry.marked_dirty {
        notes.push(MapNote::NotUnmounted);
    }
    if geometry.media_failed {
        notes.push(MapNote::MediaFailed);
    }
    if geometry.backup_differs {
        notes.push(MapNote::BackupBootDiffers);
    }
    let used = used_bytes(volume, &geometry, &bitmap);
    Ok(UsedMap::Used { used, cluster_size: geometry.cluster_size, notes })
}

/// The bitmap, at most 128 MiB by the limit on clusters.
fn read_bitmap(
    volume: &dyn ReadAt,
    geometry: &Geometry,
    structures: &Structures,
    job: Job<'_>,
) -> Result<Bitmap, Stop> {
    const STRIDE: usize = 1 << 20;
    let mut bytes = vec![0; geometry.clusters.div_ceil(8) as usize];
    let places = (structures.bitmap_at..).step_by(STRIDE);
    for (stride, at) in bytes.chunks_mut(STRIDE).zip(places) {
        job.check()?;
        volume.read_exact_at(stride, at).map_err(Error::io("read allocation bitmap", at))?;
    }
    Ok(Bitmap::of_bytes(bytes, geometry.clusters))
}

fn used_bytes(volume: &dyn ReadAt, geometry: &Geometry, bitmap: &Bitmap) -> ExtentSet {
    let mut runs = RunCollector::new(RUNS_MAX);
    runs.push(Extent::between(0, geometry.heap_at));
    for run in bitmap.runs() {
        let start = geometry.offset_of_index(run.start);
        runs.push(Extent::between(start, geometry.offset_of_index(run.end)));
    }
    let end = geometry.offset_of_index(geometry.clusters);
    runs.push(Extent::between(end, volume.len()));
    runs.finish()
}

/// Checks that the bitmap calls used what is used in any case.
fn check_metadata(structures: &Structures, bitmap: &Bitmap) -> Result<(), ExFatReason> {
    let root = structures.root.runs().iter().map(|&run| (ROOT, run));
    for (section, run) in root.chain([(BITMAP, structures.bitmap), (UPCASE, structures.upcase)]) {
        for cluster in run.start..run.end() {
            let cluster = u32::try_from(cluster).unwrap_or(u32::MAX);
            if !bitmap.is_set(cluster - FIRST_CLUSTER) {
                return Err(ExFatReason::MetadataFree { section, cluster });
            }
        }
    }
    Ok(())
}
