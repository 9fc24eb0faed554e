//! Finds what a new block repeats of blocks that this image has already: a copy that is shifted
//! by some pages is no equal block anywhere, and small files lie in another order.
//!
//! Nothing that is found is believed: candidates are read from the source again and hashed, and
//! only what the image has whole with that hash becomes a base. Which blocks may be bases depends
//! on where its piece of work begins alone, so the image does not depend on the timing of threads.

use aiv_image_format::hash;
use aiv_image_format::{BlockIndex, BlockSize, Compression, Digest, LocalBase};

use crate::facts::BackupOptions;
use crate::pages::{PAGE, Page, is_constant};
use crate::pipeline::Capture;
use crate::workshop::Workshop;

/// The largest blocks that are looked for: each thread keeps a few of them.
const BLOCK_MAX: u32 = 1 << 20;

/// Blocks one block may be a difference to.
const BASES_MAX: usize = aiv_image_format::limits::LOCAL_BASES_MAX;

/// Blocks kept after they were read again: a row of blocks uses each of them twice.
const KEPT: usize = 4;

/// Places looked at for one block, those with most pages of it first.
const RUNS_MAX: usize = 32;

/// A block is tried when so large a share of its pages was found.
const SHARE: usize = 4;

/// Places that are read again, for each MiB of a piece of work: more would make a disk with a head
/// slow, and find little that these do not, since what was copied together lies together.
const JUMPS_PER_MIB: u64 = 4;

/// Whether blocks of this image may be differences to each other.
pub(crate) fn are_stored(options: &BackupOptions, block_size: BlockSize) -> bool {
    let fits = block_size.bytes() > PAGE && block_size.get() <= BLOCK_MAX;
    options.repeats && options.compression != Compression::None && fits
}

/// The search for one piece of work.
pub(crate) struct Repeats<'w> {
    capture: Capture<'w>,
    workshop: &'w Workshop,
    /// Blocks below it may be bases.
    limit: BlockIndex,
    kept: Vec<Kept>,
    /// The page of the disk that the next block begins with if it goes on as the last one did.
    next_page: Option<u64>,
    /// The block read last.
    at: BlockIndex,
    /// Places elsewhere that may still be read.
    jumps_left: u64,
}

/// A block that was read again.
struct Kept {
    number: BlockIndex,
    bytes: Vec<u8>,
    leaf: Digest,
    /// The block that is stored whole with these bytes.
    stored: BlockIndex,
}

/// Pages of a block that follow each other in a place they were seen in before.
struct Run {
    /// The page of the disk in the place of the block's first one; may be before the disk.
    start: i64,
    hits: u64,
}

impl<'w> Repeats<'w> {
    pub(crate) fn new(capture: Capture<'w>, workshop: &'w Workshop, first: BlockIndex) -> Self {
        let limit = capture.limit(first);
        let block_size = u64::from(capture.geometry.block_size().get());
        let mib = (capture.blocks_per_work().saturating_mul(block_size) >> 20).max(1);
        let (kept, next_page, at) = (Vec::new(), None, BlockIndex::MAX);
        let jumps_left = mib * JUMPS_PER_MIB;
        Self { capture, workshop, limit, kept, next_page, at, jumps_left }
    }

    /// Blocks of the image that `block`, with these `pages`, repeats in part; ascending. Few
    /// enough for one difference, and none when the difference would not be worth it.
    pub(crate) fn find(&mut self, block: &[u8], pages: &[Page]) -> Vec<LocalBase<'_>> {
        let guess = self.next_page.take().filter(|_| !self.workshop.pages.is_complete());
        let (runs, numbers) = self.candidates(pages, guess);
        for number in &numbers {
            self.keep(*number);
        }
        let (known, longest) = self.compare(block, &runs, &numbers);
        let whole = block.chunks_exact(PAGE).filter(|page| !is_constant(page)).count();
        if known == 0 || known * SHARE < whole {
            return Vec::new();
        }
        let next = |start| u64::try_from(start).ok()?.checked_add(self.pages_per_block());
        self.next_page = longest.and_then(next);
        let mut bases: Vec<LocalBase<'_>> = Vec::new();
        for kept in numbers.iter().filter_map(|number| self.kept(*number)) {
            if bases.iter().all(|base| base.block != kept.stored) {
                let Kept { stored: block, leaf, .. } = *kept;
                bases.push(LocalBase { block, leaf, bytes: &kept.bytes });
            }
        }
        bases
    }

    /// The runs that `pages` were seen in before, longest first, and the blocks that most of them
    /// are in, ascending. Where pages are chosen by what they hold, a block may have none of them:
    /// then `guess` is where its run may begin.
    fn candidates(&self, pages: &[Page], guess: Option<u64>) -> (Vec<Run>, Vec<BlockIndex>) {
        let per_block = self.pages_per_block();
        let mut runs: Vec<Run> = Vec::new();
        let mut scores: Vec<(BlockIndex, u64)> = Vec::new();
        for (page, old) in self.workshop.pages.find(pages, self.limit) {
            add(&mut scores, old / per_block, per_block);
            let start = signed(old) - signed(page.at);
            match runs.iter().position(|run| run.start == start) {
                Some(run) => runs[run].hits += 1,
                None if runs.len() < RUNS_MAX => runs.push(Run { start, hits: 1 }),
                None => {}
            }
        }
        if let Some(guess) = guess.filter(|_| runs.is_empty()) {
            runs.push(Run { start: signed(guess), hits: 0 });
        }
        for run in &runs {
            self.add_neighbours(run, &mut scores);
        }
        runs.sort_by_key(|run| std::cmp::Reverse(run.hits));
        scores.sort_unstable_by_key(|(block, score)| (std::cmp::Reverse(*score), *block));
        let mut numbers: Vec<BlockIndex> =
            scores.into_iter().take(BASES_MAX).map(|(block, _)| block).collect();
        numbers.sort_unstable();
        (runs, numbers)
    }

    fn pages_per_block(&self) -> u64 {
        u64::from(self.capture.geometry.block_size().get()) / PAGE as u64
    }

    /// The blocks a run lies in, if it goes on in both directions, by the pages in each.
    fn add_neighbours(&self, run: &Run, hits: &mut Vec<(BlockIndex, u64)>) {
        let per_block = signed(self.pages_per_block());
        let (first, into) = (run.start.div_euclid(per_block), run.start.rem_euclid(per_block));
        for (block, share) in [(first, per_block - into), (first + 1, into)] {
            if let (Ok(block), Ok(share)) = (u64::try_from(block), u64::try_from(share))
                && block < self.limit
                && share > 0
            {
                add(hits, block, share);
            }
        }
    }

    /// Non-constant pages of `block` that candidates hold in fact, and the start of the run that
    /// has most of them.
    fn compare(&self, block: &[u8], runs: &[Run], numbers: &[BlockIndex]) -> (usize, Option<i64>) {
        let per_block = self.pages_per_block();
        let bases: Vec<&Kept> = numbers.iter().filter_map(|number| self.kept(*number)).collect();
        let is_held = |page: &[u8], at: i64| {
            let Ok(at) = u64::try_from(at) else { return false };
            let base = bases.iter().find(|base| base.number == at / per_block);
            let old = base.and_then(|base| {
                base.bytes.chunks_exact(PAGE).nth(usize::try_from(at % per_block).ok()?)
            });
            old == Some(page)
        };
        let mut by_run = vec![0; runs.len()];
        let mut known = 0;
        for (at, page) in (0..).zip(block.chunks_exact(PAGE)) {
            if is_constant(page) {
                continue;
            }
            let run = runs.iter().position(|run| is_held(page, run.start.saturating_add(at)));
            if let Some(count) = run.and_then(|run| by_run.get_mut(run)) {
                *count += 1;
                known += 1;
            }
        }
        let most = by_run.iter().zip(runs).max_by_key(|(count, _)| **count);
        (known, most.filter(|(count, _)| **count > 0).map(|(_, run)| run.start))
    }

    fn kept(&self, number: BlockIndex) -> Option<&Kept> {
        self.kept.iter().find(|kept| kept.number == number)
    }

    /// Reads a block again, if the image has it whole. The source may have changed since, or
    /// fail now: then it is no base, and nothing else.
    fn keep(&mut self, number: BlockIndex) {
        if let Some(at) = self.kept.iter().position(|kept| kept.number == number) {
            let kept = self.kept.remove(at);
            self.kept.push(kept);
            return;
        }
        if number != self.at.saturating_add(1) {
            if self.jumps_left == 0 {
                return;
            }
            self.jumps_left -= 1;
        }
        self.at = number;
        let Ok(bytes) = self.capture.read_again(number, &self.workshop.reread) else {
            // A drive may take seconds to say no.
            self.jumps_left = 0;
            self.at = BlockIndex::MAX;
            return;
        };
        let leaf = hash::leaf(&bytes);
        let stored = self.workshop.seen.stored(&leaf).filter(|stored| *stored < self.limit);
        if let Some(stored) = stored {
            if self.kept.len() >= KEPT {
                self.kept.remove(0);
            }
            self.kept.push(Kept { number, bytes, leaf, stored });
        }
    }
}

fn add(scores: &mut Vec<(BlockIndex, u64)>, block: BlockIndex, score: u64) {
    match scores.iter_mut().find(|(other, _)| *other == block) {
        Some((_, sum)) => *sum += score,
        None => scores.push((block, score)),
    }
}

/// A number of a page: the table has none above 2^40.
fn signed(page: u64) -> i64 {
    i64::try_from(page).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use aiv_chain::View;
    use aiv_image_format::GroupId;
    use aiv_image_format::meta::Inventory;
    use aiv_testkit::MemStorage;
    use aiv_testkit::disks::Content;
    use aiv_volume_io::{Extent, ExtentSet, Job, MemDisk, ReadAt};

    use super::*;
    use crate::{BackupIds, BackupPlan, SourceFacts};

    /// An image of `bytes`, of which what is `free` does not matter.
    fn image_of(bytes: &[u8], free: &[Extent]) -> (MemStorage, crate::BackupReport) {
        let source = MemDisk::from_bytes(bytes.to_vec());
        let options = BackupOptions {
            block_size: BlockSize::new(16 << 10),
            repeat_distance: Some(0),
            ..BackupOptions::default()
        };
        let mut plan = BackupPlan::new(&source, SourceFacts::default(), options, Job::silent())
            .expect("a disk");
        let free: ExtentSet = free.iter().copied().collect();
        plan.used = free.gaps_within(Extent::new(0, bytes.len() as u64)).into_iter().collect();
        let ids = BackupIds::new(&[1; BackupIds::RANDOM_LEN], GroupId([1; 16]), 0);
        let storage = MemStorage::new();
        let nothing = Inventory::default();
        let report = plan.apply(&source, &storage, &ids, &nothing, None, Job::silent());
        (storage, report.expect("a backup"))
    }

    #[test]
    fn free_space_of_a_base_is_masked_before_anything_is_made_of_it() {
        const COPY: usize = 1 << 20;
        let mut bytes = Content::Random(1).bytes(40 * PAGE);
        let noise = bytes.clone();
        bytes.resize(COPY + PAGE, 0);
        bytes.extend_from_slice(&noise);
        // A deleted page in the original and, deleted too, in the copy.
        let places = [5 * PAGE, COPY + PAGE + 5 * PAGE];
        let free = places.map(|at| Extent::new(at as u64, PAGE as u64));
        let (storage, report) = image_of(&bytes, &free);
        assert!(report.totals.blocks_local >= 9, "{:?}", report.totals);
        let mut expected = bytes.clone();
        places.iter().for_each(|at| expected[*at..*at + PAGE].fill(0));
        let view = View::open(&storage, &report.image, Job::silent()).expect("an image");
        let mut back = vec![0; bytes.len()];
        view.read_exact_at(&mut back, 0).expect("a sound image");
        assert!(back == expected);
        let image = storage.contents(&report.image).expect("published");
        let deleted = &bytes[5 * PAGE..5 * PAGE + 16];
        assert!(!image.windows(16).any(|bytes| bytes == deleted), "nothing deleted is in it");
        let kept = &bytes[6 * PAGE..6 * PAGE + 16];
        assert!(image.windows(16).any(|bytes| bytes == kept), "what is kept can be seen");
    }
}
