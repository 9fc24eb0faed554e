//! Which bytes of the target are written in which part of a restore.

use aiv_volume_io::partition::Patch;
use aiv_volume_io::{Extent, ExtentSet};

use crate::plan::RestorePlan;
use crate::zeros::in_memory;

/// The bytes that are written, by when. Bytes of the source disk where the region has them, and
/// behind them those of a table at the end of a larger target. All ascending and disjoint.
pub(crate) struct Ranges {
    /// First, after head and late were cleared.
    pub(crate) body: Vec<Extent>,
    /// When the body is proven: what tells at the end of the disk what it is.
    pub(crate) late: Vec<Extent>,
    /// Last.
    pub(crate) head: Vec<Extent>,
}

impl RestorePlan {
    pub(crate) fn ranges(&self) -> Ranges {
        let head = self.head();
        let behind = Extent::between(head.end(), u64::MAX);
        let late: ExtentSet = self.late.within(behind).collect();
        let patches = self.patches.iter().map(Patch::extent);
        let all: ExtentSet = patches.chain([self.region]).collect();
        let body = all.within(behind).flat_map(|run| late.gaps_within(run)).collect();
        Ranges { body, late: late.runs().to_vec(), head: vec![head] }
    }

    /// Bytes that are written or left alone by intention, all together.
    pub(crate) fn len_touched(&self) -> u64 {
        let ranges = self.ranges();
        let all = [&ranges.body, &ranges.late, &ranges.head];
        all.into_iter().flatten().map(|range| range.len).sum()
    }

    /// What a range consists of: parts of patches, what comes from the image, and what
    /// comes from a smaller copy. Ascending.
    pub(crate) fn parts(&self, range: Extent) -> Vec<Part> {
        let patched = self.patches.iter().filter_map(|patch| patch.extent().intersect(range));
        let replaced = self.replaced.and_then(|extent| extent.intersect(range));
        let set: ExtentSet = patched.clone().chain(replaced).collect();
        let kept = set.gaps_within(range).into_iter().map(Part::Image);
        let mut parts: Vec<Part> = patched.clone().map(Part::Patch).chain(kept).collect();
        let patched: ExtentSet = patched.collect();
        let replaced = replaced.map(|extent| patched.gaps_within(extent)).unwrap_or_default();
        parts.extend(replaced.into_iter().map(Part::Replaced));
        parts.sort_by_key(|part| part.extent().start);
        parts
    }

    /// The bytes of a part of a patch; none for a range that is not.
    pub(crate) fn patch_bytes(&self, extent: Extent) -> &[u8] {
        let Some(patch) = self.patches.iter().find(|patch| patch.extent().contains(extent)) else {
            return &[];
        };
        let at = in_memory(extent.start - patch.offset);
        &patch.bytes[at..at + in_memory(extent.len)]
    }
}

/// Where the bytes of a range come from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Part {
    Image(Extent),
    Patch(Extent),
    /// A partition that was made smaller.
    Replaced(Extent),
}

impl Part {
    pub(crate) fn extent(self) -> Extent {
        match self {
            Self::Image(extent) | Self::Patch(extent) | Self::Replaced(extent) => extent,
        }
    }
}
