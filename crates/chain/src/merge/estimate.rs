//! How large a merged image may become, found by walking over the indexes of its parts.

use std::collections::HashSet;

use aiv_image_format::limits::{
    FRAME_ALIGN, PAGE_SIZE, PIECE_SIZE, TRAILER_GAP, TRAILER_GAP_WITH_PARITY,
};
use aiv_image_format::{IndexEntry, Kind};

use crate::layers::ImageResult;
use crate::merge::REMEMBERED_MAX;
use crate::merge::run::{Origin, Run};
use crate::view::View;

/// Bytes of a frame beside the payload: header, and padding at most.
const FRAME_OVERHEAD: u64 = 64 + FRAME_ALIGN;

/// Bytes per entry: once in a full index page with its share of the pages above (4096 / 84 and a
/// little), once in a checkpoint; and two tree nodes, those of the groups a run begins and ends
/// in.
const ENTRY: u64 = 50 + 48 + 2 * 82;

/// Padding in front of rows, of at least 1 MiB, whose storage is shared: one page for each, and
/// one part in so many of all frames.
const PADDING_SHARE: u64 = 256;

/// What does not depend on the number of blocks: superblocks, tail, the specification and other
/// META beside source errors, and areas rounded up to pages.
const FIXED: u64 = (512 << 10) + TRAILER_GAP + 16 * PAGE_SIZE as u64;

/// The parity area of an image with few pages: 13 stripes, and two directories.
const PARITY_AREA_MIN: u64 = (4 * 13 + 4) * PAGE_SIZE as u64;

/// An upper bound of the size of an image of so many bytes that is to have parity over its
/// pieces as well: four pieces for 128, those of the last stripe, its padding, and a wider gap.
pub(crate) fn bytes_with_parity(bytes: u64) -> u64 {
    bytes + bytes / 31 + 6 * PIECE_SIZE as u64 + TRAILER_GAP_WITH_PARITY
}

/// Whether any of the newest `count` images of a chain has parity over its pieces: what they merge
/// into has, too.
pub(crate) fn has_parity(view: &View, count: usize) -> bool {
    let mut layers = view.layers.iter().take(count);
    layers.any(|layer| layer.image.superblock().features.has_data_parity())
}

/// An upper bound of the size of the image that the newest `count` images of a chain merge
/// into, with parity where any of them has it.
pub(crate) fn bytes_max(view: &View, count: usize) -> ImageResult<u64> {
    let run = Run { layers: &view.layers, count };
    let has_parent = view.layers.len() > count;
    let geometry = *view.geometry();
    let anew = |entry: &IndexEntry| u64::from(geometry.block_len(entry.block)) + FRAME_OVERHEAD;
    let mut seen: HashSet<(usize, u64)> = HashSet::new();
    let (mut frames, mut entries) = (0u64, 0u64);
    for decision in run.decisions() {
        let Some((layer, entry)) = decision?.by else { continue };
        entries += 1;
        let own = |layer: usize, entry: &IndexEntry| {
            let size = view.layers.get(layer).image.frame_size(entry);
            size.map_err(|e| view.layers.in_layer(layer, e))
        };
        let mut shared = |layer: usize, entry: &IndexEntry| {
            let is_new = seen.len() >= REMEMBERED_MAX || seen.insert((layer, entry.address));
            if is_new { own(layer, entry) } else { Ok(0) }
        };
        frames += match entry.kind {
            Kind::Zero | Kind::Unused | Kind::Excluded => 0,
            Kind::Unreadable if !entry.has_frame() => 0,
            Kind::Data | Kind::Unreadable => own(layer, &entry)?,
            Kind::Ref => shared(layer, &entry)?,
            // Below the oldest image nothing changes.
            Kind::Delta if has_parent && layer + 1 == count => own(layer, &entry)?,
            Kind::Delta => anew(&entry).max(own(layer, &entry)?),
            // Nothing overlays the newest image, so its blocks keep what they build on.
            Kind::Local if layer == 0 => own(layer, &entry)?,
            Kind::Local => anew(&entry).max(own(layer, &entry)?),
            Kind::Parent => match run.follow(layer, &entry)? {
                Origin::Parent(_) => 0,
                Origin::Entry(from, found) => match found.kind {
                    Kind::Zero | Kind::Unused | Kind::Excluded => 0,
                    Kind::Data | Kind::Ref => shared(from, &found)?,
                    Kind::Delta | Kind::Local | Kind::Unreadable | Kind::Parent => anew(&entry),
                },
            },
        };
    }
    let layers = || view.layers.iter().take(count);
    let origins: u64 =
        layers().map(|l| 1 + l.image.meta().origins.len() as u64).sum::<u64>().min(16_384);
    let meta = view.image().trailer().meta_len;
    let body = frames + frames / PADDING_SHARE + entries * ENTRY + meta + origins * 20 + FIXED;
    // Every 64 MiB, and every 65,536 entries, a checkpoint lists the sessions.
    let checkpoints = body / (64 << 20) + entries / (1 << 16) + 2;
    let body = body + checkpoints * (origins * 16 + 2 * PAGE_SIZE as u64);
    let body = match has_parity(view, count) {
        true => bytes_with_parity(body),
        false => body,
    };
    // Hashes of pieces, in checkpoints and in the stored list.
    let pages = entries * ENTRY + meta + FIXED + body / PIECE_SIZE as u64 * 32;
    let body = body + body / PIECE_SIZE as u64 * 64 + 2 * PAGE_SIZE as u64;
    // Four pages of parity for 16, and two short hashes for each of them.
    Ok(body + pages * 5 / 16 + PARITY_AREA_MIN)
}
