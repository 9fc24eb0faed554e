//! Files of exFAT by name, and their clusters. That each cluster of a file or folder belongs to it
//! alone was proven when the map of the volume was read.

use std::sync::Arc;

use aiv_volume_io::{ExtentSet, Job, ReadAt};

use super::boot::Geometry;
use super::reader::ExFat;
use crate::Error;
use crate::files::{KeptReason, MatchingFiles, Owners, Pattern, Walk};
use crate::reader::{Piece, VolumeOf};
use crate::stop::Stop;

/// Finds the files that match, on a volume with this map.
pub(crate) fn find(
    volume: &dyn ReadAt,
    used: &ExtentSet,
    patterns: &[Pattern],
    job: Job<'_>,
) -> std::result::Result<MatchingFiles, Stop> {
    let cluster_size = Geometry::read(volume)?.cluster_size;
    let exfat = ExFat::open(VolumeOf::new(Arc::new(volume)), job)?;
    let mut answer = MatchingFiles::default();
    let names = Walk::new(&exfat, patterns, true, &mut answer).run(job, &mut |_| Ok(()))?;
    let mut owners = Owners::new(cluster_size);
    for (file, candidate) in names.candidates {
        job.check()?;
        let owner = owners.begin(candidate.path, 0);
        let (len, chain) = match exfat.whole(file) {
            Ok(whole) => whole,
            Err(Error::Damaged { .. }) => {
                owner.fault = Some(KeptReason::NotUnderstood("its clusters cannot be told"));
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        owner.len = len;
        let mut logical = 0;
        for extent in exfat.extents(&chain) {
            owners.piece(Piece { logical, physical: extent.start, len: extent.len });
            logical += extent.len;
        }
        if chain.fault.is_some() || logical < len {
            owners.fault(KeptReason::NotUnderstood("its clusters end before it does"));
        }
    }
    owners.tell(volume, used, &mut answer, job)?;
    Ok(answer)
}
