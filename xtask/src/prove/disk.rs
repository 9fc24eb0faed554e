//! A small disk that changes the way disks do, as plain bytes.

use aiv_testkit::Random;

/// The smallest blocks there are, so that small disks have many.
pub(crate) const BLOCK: usize = 16 << 10;

/// Blocks a disk has at most: more than a group of 128, so that borders of groups are met.
const BLOCKS_MAX: usize = 140;

/// A disk of noise.
pub(crate) fn new_disk(random: &mut Random) -> Vec<u8> {
    let mut bytes = vec![0; (1 + random.below(BLOCKS_MAX)) * BLOCK - random.below(BLOCK)];
    random.fill(&mut bytes);
    bytes
}

/// Changes a disk a little: pages, whole blocks that recur, zeros, moved rows, another length.
pub(crate) fn change(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..1 + random.below(4) {
        let len = bytes.len();
        let blocks = len.div_ceil(BLOCK);
        let row = |at: usize, count: usize| at * BLOCK..((at + count) * BLOCK).min(len);
        match random.below(10) {
            0..3 => {
                let at = random.below(len);
                let end = (at + 600).min(len);
                random.fill(&mut bytes[at..end]);
            }
            3..6 => {
                // One of a few contents, so that blocks repeat within and across images.
                let range = row(random.below(blocks), 1);
                Random::new(&[random.below(6) as u64]).fill(&mut bytes[range]);
            }
            6 => {
                let range = row(random.below(blocks), 1 + random.below(20));
                bytes[range].fill(0);
            }
            7 | 8 => {
                let count = 1 + random.below(12);
                let (from, to) =
                    (row(random.below(blocks), count), row(random.below(blocks), count));
                let count = from.len().min(to.len());
                bytes.copy_within(from.start..from.start + count, to.start);
            }
            _ => {
                let new = 1 + random.below(BLOCKS_MAX * BLOCK);
                bytes.resize(new, 0);
                if new > len {
                    let end = (len + 3 * BLOCK).min(new);
                    random.fill(&mut bytes[len..end]);
                }
            }
        }
    }
}
