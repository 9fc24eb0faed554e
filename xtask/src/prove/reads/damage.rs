//! What happens to one file of a chain.

use aiv_testkit::mutants::{mend_begun, mend_image, mutate};
use aiv_testkit::{MemStorage, Random};
use aiv_volume_io::Storage;

use super::chain::Chain;

/// Bytes of a burst at most.
const BURST_MAX: usize = 128 << 10;

/// A damaged file.
pub(super) struct Damage {
    file: String,
    what: What,
}

enum What {
    /// It is gone.
    Removed,
    /// It has changed places with another one.
    Exchanged(String),
    /// It holds other bytes.
    Bytes(Vec<u8>),
}

impl Damage {
    /// One of the files is changed in some places, cut off, overwritten by a burst, gone, or in the
    /// place of another; where it is forged, its index may lie, and its checksums and hashes are made right.
    pub(super) fn of(chain: &Chain, is_forged: bool, random: &mut Random) -> Self {
        let mut files = chain.files();
        let file = files.swap_remove(random.below(files.len()));
        let what = match random.below(32) {
            0 => What::Removed,
            1 => What::Exchanged(files.swap_remove(random.below(files.len()))),
            _ => What::Bytes(changed(chain, &file, is_forged, random)),
        };
        Self { file, what }
    }

    /// The folder of `chain` with this damage.
    pub(super) fn done(self, chain: &Chain) -> MemStorage {
        let damaged = chain.storage.fork();
        let contents = |name: &str| chain.storage.contents(name).unwrap_or_default();
        match self.what {
            What::Removed => drop(damaged.remove(&self.file)),
            What::Exchanged(other) => {
                damaged.insert(&self.file, contents(&other));
                damaged.insert(&other, contents(&self.file));
            }
            What::Bytes(bytes) => damaged.insert(&self.file, bytes),
        }
        damaged
    }
}

fn changed(chain: &Chain, file: &str, is_forged: bool, random: &mut Random) -> Vec<u8> {
    let mut bytes = mutate(random, &chain.storage.contents(file).unwrap_or_default());
    if random.below(4) == 0 && !bytes.is_empty() {
        let at = random.below(bytes.len());
        let end = bytes.len().min(at + 1 + random.below(BURST_MAX));
        random.fill(&mut bytes[at..end]);
    }
    if is_forged {
        // Pages of a sealed image have no checksums, and segments have other tails.
        let is_whole = !chain.kind.is_sealed() && !chain.kind.is_split && random.below(4) > 0;
        if is_whole && random.below(2) == 0 {
            redirect(&mut bytes, random);
        }
        match is_whole {
            true => mend_image(&mut bytes),
            false => mend_begun(std::slice::from_mut(&mut bytes)),
        }
    }
    bytes
}

/// Makes the index say of a block that it is equal to another one.
fn redirect(bytes: &mut [u8], random: &mut Random) {
    const PAGE: usize = 4096;
    let number = |at: usize, width: usize| {
        let field = bytes.get(at..at + width)?;
        let number = field.iter().rev().fold(0, |n, &byte| n << 8 | u64::from(byte));
        usize::try_from(number).ok()
    };
    let Some(trailer) = bytes.len().checked_sub(PAGE) else { return };
    let (index, leaves) = (number(trailer + 256, 8), number(trailer + 272, 8));
    let (Some(index), Some(leaves @ 1..=100)) = (index, leaves) else { return };
    let page = index.saturating_add(random.below(leaves) * PAGE);
    let Some(end) = page.checked_add(PAGE).filter(|&end| end <= trailer) else { return };
    let is_data = |at: &usize| number(*at, 8).is_some_and(|key| key >> 60 == 1);
    let entries: Vec<usize> = (page + 64..end - 48).step_by(48).filter(is_data).collect();
    if entries.len() < 2 {
        return;
    }
    let [from, to] = [0, 1].map(|_| entries[random.below(entries.len())]);
    bytes.copy_within(from + 8..from + 48, to + 8);
    bytes[to + 7] = bytes[to + 7] & 0xf | 7 << 4;
}
