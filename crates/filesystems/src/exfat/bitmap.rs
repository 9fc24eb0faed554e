//! From the allocation bitmap to used bytes.

use aiv_volume_io::{Extent, ExtentSet, Job, ReadAt};

use super::boot::{FIRST_CLUSTER, Geometry};
use super::directory::{BITMAP, ROOT, Structures, UPCASE};
use super::reason::ExFatReason;
use crate::bitmap::Bitmap;
use crate::runs::{RUNS_MAX, RunCollector};
use crate::stop::Stop;
use crate::{Error, MapNote, UsedMap};

/// Bytes of the bitmap read in one go.
const STRIDE: u32 = 1 << 20;

pub(super) fn read(volume: &dyn ReadAt, job: Job<'_>) -> Result<UsedMap, Stop> {
    let geometry = Geometry::read(volume)?;
    let structures = Structures::find(volume, &geometry, job)?;
    let used = used_bytes(volume, &geometry, &structures, job)?;
    let mut notes = Vec::new();
    if geometry.media_failed {
        notes.push(MapNote::MediaFailed);
    }
    if geometry.backup_differs {
        notes.push(MapNote::BackupBootDiffers);
    }
    Ok(UsedMap::Used { used, cluster_size: geometry.cluster_size, notes })
}

fn used_bytes(
    volume: &dyn ReadAt,
    geometry: &Geometry,
    structures: &Structures,
    job: Job<'_>,
) -> Result<ExtentSet, Stop> {
    let metadata = Metadata::of(structures)?;
    let mut runs = RunCollector::new(RUNS_MAX);
    runs.push(Extent::between(0, geometry.heap_at));
    let mut bytes = Vec::new();
    let mut first = 0;
    while first < geometry.clusters {
        job.check()?;
        let count = (STRIDE * 8).min(geometry.clusters - first);
        bytes.resize(count.div_ceil(8) as usize, 0);
        let at = structures.bitmap_at + u64::from(first / 8);
        volume.read_exact_at(&mut bytes, at).map_err(Error::io("read allocation bitmap", at))?;
        let bitmap = Bitmap::new(&bytes, count);
        metadata.check(first, count, &bitmap)?;
        for run in bitmap.runs() {
            let (start, end) = (first + run.start, first + run.end);
            let start = geometry.offset_of_index(start);
            runs.push(Extent::between(start, geometry.offset_of_index(end)));
        }
        first += count;
    }
    let end = geometry.offset_of_index(geometry.clusters);
    runs.push(Extent::between(end, volume.len()));
    Ok(runs.finish())
}

/// Clusters that are used whatever the bitmap says, by what lies there.
struct Metadata(Vec<(&'static str, ExtentSet)>);

impl Metadata {
    fn of(structures: &Structures) -> Result<Self, ExFatReason> {
        let one = |extent: Extent| std::iter::once(extent).collect::<ExtentSet>();
        let (bitmap, upcase) = (one(structures.bitmap), one(structures.upcase));
        let root = structures.root.clone();
        let apart = |a: &ExtentSet, b: &ExtentSet| {
            a.runs().iter().all(|run| b.within(*run).next().is_none())
        };
        if apart(&bitmap, &upcase) && apart(&root, &bitmap) && apart(&root, &upcase) {
            Ok(Self(vec![(ROOT, root), (BITMAP, bitmap), (UPCASE, upcase)]))
        } else {
            Err(ExFatReason::MetadataOverlap)
        }
    }

    /// Checks the bits for `count` clusters from index `first` on.
    fn check(&self, first: u32, count: u32, bitmap: &Bitmap) -> Result<(), ExFatReason> {
        let start = u64::from(first) + u64::from(FIRST_CLUSTER);
        let window = Extent::new(start, count.into());
        for (section, clusters) in &self.0 {
            for run in clusters.within(window) {
                for cluster in run.start..run.end() {
                    let bit = u32::try_from(cluster - start).unwrap_or(u32::MAX);
                    if !bitmap.is_set(bit) {
                        let cluster = u32::try_from(cluster).unwrap_or(u32::MAX);
                        return Err(ExFatReason::MetadataFree { section, cluster });
                    }
                }
            }
        }
        Ok(())
    }
}
