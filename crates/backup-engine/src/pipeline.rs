//! Reader, workers, writer: blocks flow in order through bounded memory.
//!
//! The calling thread reads ahead in large strides; a pool masks, hashes and compresses; one
//! thread hands the results to the image writer in the order of the disk, so that the image
//! does not depend on the timing of threads.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aiv_image_format::{BlockIndex, BlockPlace, Geometry, ImageWriter, Kind, RunKind, Unfinished};
use aiv_volume_io::{Extent, ExtentSet, Job, Notice, ReadAt, Step};
use crossbeam_channel::{Receiver, Sender, bounded};

use crate::bad_ranges::BadRanges;
use crate::dedup;
use crate::error::{Error, Result};
use crate::hints::Hint;
use crate::ordered::write_in_order;
use crate::pace::Pacer;
use crate::pages::PageTable;
use crate::parent::Parent;
use crate::plan::BackupPlan;
use crate::read::read_around_bad_sectors;
use crate::repeats;
use crate::section::{self, Section};
use crate::spans::{Span, Spans};
use crate::workshop::{Batch, Block, Workshop, mask};

/// Bytes read at a time: large enough for any disk, small enough for the cache.
const STRIDE: u64 = 1 << 20;

/// Bytes that may wait for a worker or the writer: an increment works in larger pieces, and a
/// machine may have many threads.
const WAITING_BYTES_MAX: u64 = 64 << 20;

/// Pieces of work between blocks of a full image, or of another one, and those they may be
/// differences to: about as many as are on their way at a time.
const REPEAT_DISTANCES: (u64, u64) = (16, 8);

/// What was read.
#[derive(Debug, Clone)]
pub(crate) struct Captured {
    /// Bytes read from the source.
    pub bytes_read: u64,
    /// Bytes not read because a tracker did not mark them.
    pub bytes_skipped: u64,
    /// Bytes it did not mark that were read and compared.
    pub bytes_audited: u64,
    /// Ranges that matter and could not be read.
    pub unreadable: BadRanges,
    /// Pages of blocks that the image has whole.
    pub pages: Arc<PageTable>,
}

/// A stretch of the disk on its way from the reader to the writer.
pub(crate) enum Item {
    Run(RunKind, u64),
    /// So many blocks are as in the parent's state.
    Inherited(u64),
    /// The outcome arrives when a worker is done; the channel holds at most one.
    Batch(Receiver<aiv_image_format::Result<Vec<Block>>>),
}

/// What is captured, and how.
#[derive(Clone, Copy)]
pub(crate) struct Capture<'a> {
    pub source: &'a dyn ReadAt,
    pub plan: &'a BackupPlan,
    pub geometry: Geometry,
    /// What the blocks are compared with; `None` for a full image.
    pub parent: Option<&'a Parent>,
    /// What has been decided already, by a backup that was interrupted.
    pub resumed: Option<&'a Unfinished>,
    /// Whose word is taken for what did not change since then.
    pub hint: Option<&'a Hint<'a>>,
    pub job: Job<'a>,
}

impl Capture<'_> {
    /// The first block to be decided.
    pub(crate) fn first(&self) -> BlockIndex {
        self.resumed.map_or(0, Unfinished::next_block)
    }

    /// Blocks of the largest piece of work.
    pub(crate) fn blocks_per_work(&self) -> u64 {
        let block_size = u64::from(self.geometry.block_size().get());
        match self.parent {
            None => (STRIDE / block_size).max(1),
            Some(_) => section::blocks_per_section(block_size),
        }
    }

    /// Blocks below it are decided before the work that begins with `first` is.
    pub(crate) fn limit(&self, first: BlockIndex) -> BlockIndex {
        let pieces = match self.parent {
            None => REPEAT_DISTANCES.0,
            Some(_) => REPEAT_DISTANCES.1,
        };
        let block_size = u64::from(self.geometry.block_size().get());
        let distance = self.plan.options.repeat_distance.map(|bytes| bytes.div_ceil(block_size));
        first.saturating_sub(distance.unwrap_or(pieces * self.blocks_per_work()))
    }
}

impl Capture<'_> {
    pub(crate) fn nothing_captured(&self) -> Captured {
        let geometry = self.geometry;
        let unreadable = BadRanges::new(geometry.sector_size(), geometry.len());
        let block_size = geometry.block_size();
        let most = dedup::ENTRIES_MAX as u64 * u64::from(block_size.get());
        let bytes = match repeats::are_stored(&self.plan.options, block_size) {
            true => self.plan.used_bytes().min(most),
            false => 0,
        };
        let pages = Arc::new(PageTable::new(block_size, bytes));
        Captured { bytes_read: 0, bytes_skipped: 0, bytes_audited: 0, unreadable, pages }
    }

    pub(crate) fn spans(&self) -> Spans<'_> {
        let Capture { plan, source, geometry, .. } = *self;
        Spans::new(source, &plan.used, &plan.excluded, geometry, !plan.options.read_holes)
    }

    /// Reads from the first to the last byte that matters; the rest of the batch is undefined
    /// until it is masked.
    pub(crate) fn read_batch(
        &self,
        workshop: &Workshop,
        first: u64,
        extent: Extent,
        captured: &mut Captured,
    ) -> Result<Batch> {
        let Capture { plan, source, geometry, job, .. } = *self;
        let keep: Vec<Extent> = plan.used.within(extent).collect();
        // What an earlier batch left in the buffer is read over or masked.
        let mut bytes = workshop.buffer(in_memory(extent.len));
        let sector = in_memory(u64::from(geometry.sector_size()));
        let mut unreadable = Vec::new();
        if let Some(matter) = self.hull(&keep, extent) {
            let Extent { start: from, len } = matter;
            let at = in_memory(from - extent.start);
            let out = &mut bytes[at..at + in_memory(len)];
            let bad = read_around_bad_sectors(source, out, from, sector, job)?;
            captured.bytes_read += len;
            unreadable =
                bad.iter().flat_map(|b| keep.iter().filter_map(|k| k.intersect(*b))).collect();
            for &extent in &unreadable {
                job.progress.notice(&Notice::Unreadable { extent });
                captured.unreadable.push(extent);
            }
        }
        Ok(Batch { first, bytes, keep, unreadable })
    }

    /// The bytes of a block as they are now, masked. Nothing is tried twice, and what is read is
    /// added to `count`.
    pub(crate) fn read_again(&self, block: BlockIndex, count: &AtomicU64) -> io::Result<Vec<u8>> {
        let extent = blocks_extent(&self.geometry, block, 1);
        let keep: Vec<Extent> = self.plan.used.within(extent).collect();
        let mut bytes = vec![0; in_memory(extent.len)];
        if let Some(Extent { start, len }) = self.hull(&keep, extent) {
            let at = in_memory(start - extent.start);
            count.fetch_add(len, Ordering::Relaxed);
            self.source.read_exact_at(&mut bytes[at..at + in_memory(len)], start)?;
        }
        let mut batch = Batch { first: block, bytes, keep, unreadable: Vec::new() };
        mask(&mut batch, self.geometry);
        Ok(batch.bytes)
    }

    /// From the first to the last byte of `keep`, which lies in `extent`; from the start of a
    /// sector on.
    fn hull(&self, keep: &[Extent], extent: Extent) -> Option<Extent> {
        let (head, tail) = (keep.first()?, keep.last()?);
        let sector = u64::from(self.geometry.sector_size());
        let from = (head.start / sector * sector).max(extent.start);
        Some(Extent::between(from, tail.end()))
    }
}

/// Work for the pool.
pub(crate) enum Work {
    Batch(Batch),
    Section(Section),
}

pub(crate) type Outcome = aiv_image_format::Result<Vec<Block>>;

/// Reads everything the plan calls used and pushes every block of the disk that `writer` has not
/// got yet into it. `captured` is what reading those before has found.
pub(crate) fn run(
    capture: Capture<'_>,
    writer: &mut ImageWriter<'_>,
    mut pacer: Option<Pacer<'_>>,
    captured: Captured,
    image: &str,
) -> Result<Captured> {
    let Capture { plan, job, .. } = capture;
    let threads = plan.options.threads.get();
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|e| Error::Examine(Box::new(e)))?;
    let pool = Arc::new(pool);
    writer.seal_in(Arc::clone(&pool));
    // Each waiting item may hold a piece of work, and so do the reader and the writer. What the
    // workers have is among what waits for the writer.
    let whole = capture.blocks_per_work() * u64::from(capture.geometry.block_size().get());
    let waiting = in_memory(WAITING_BYTES_MAX / whole).clamp(2, 2 * threads + 2);
    let (items, ordered) = bounded::<Item>(waiting);
    let pages = Arc::clone(&captured.pages);
    let workshop = Workshop::new(capture.geometry, &plan.options, pages, in_memory(whole));
    if let Some(unfinished) = capture.resumed {
        remember_blocks(unfinished, &workshop).map_err(|e| Error::of_image(image, e))?;
    }
    job.progress.begin(Step::ReadSource, plan.used_bytes());
    let outcome = std::thread::scope(|threads| {
        // The receiver moves along, so that it hangs up when the writer gives up.
        let remembers = &workshop;
        let writing = threads.spawn(move || write_in_order(&ordered, writer, remembers));
        let reading = pool.in_place_scope(|scope| {
            let spawn = |work: Work, done: Sender<_>| {
                let workshop = &workshop;
                scope.spawn(move |_| {
                    let outcome = match (work, capture.parent) {
                        (Work::Section(section), Some(parent)) => {
                            section.judge(workshop, parent, capture)
                        }
                        (Work::Batch(batch), _) => workshop.judge(batch, capture),
                        (Work::Section(_), None) => Ok(Vec::new()),
                    };
                    // The writer hangs up after an error; then nobody needs the outcome.
                    let _ = done.send(outcome);
                });
            };
            let paced = Cell::new(0);
            let reader = Reader { capture, workshop: &workshop, items, spawn: &spawn, paced };
            reader.advance(blocks_extent(&capture.geometry, 0, capture.first()));
            match capture.parent {
                None => reader.read(&mut pacer, captured),
                Some(parent) => reader.read_changes(parent, &mut pacer, captured),
            }
        });
        let written = writing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match written {
            Err(source) => Err(Error::of_image(image, source)),
            Ok(()) => reading,
        }
    });
    job.progress.end(Step::ReadSource);
    // Whoever compared last may have found what the reader did not wait for.
    capture.hint.map_or(Ok(()), Hint::check)?;
    let reread = workshop.reread.load(Ordering::Relaxed);
    outcome.map(|captured| Captured { bytes_read: captured.bytes_read + reread, ..captured })
}

/// Blocks that are stored already can be referred to.
fn remember_blocks(unfinished: &Unfinished, workshop: &Workshop) -> aiv_image_format::Result<()> {
    for entry in unfinished.entries() {
        let entry = entry?;
        if entry.kind == Kind::Data {
            let place = BlockPlace { address: entry.address, frame_size: entry.frame_size };
            workshop.seen.remember(entry.leaf, place, entry.block);
        }
    }
    Ok(())
}

/// The calling thread: reads, and hands out work.
pub(crate) struct Reader<'a> {
    pub capture: Capture<'a>,
    pub workshop: &'a Workshop,
    items: Sender<Item>,
    spawn: &'a dyn Fn(Work, Sender<Outcome>),
    /// Bytes that were read again and count for the rate limit already.
    paced: Cell<u64>,
}

/// The writer gave up; its error is the one to report.
pub(crate) struct HungUp;

impl Reader<'_> {
    /// Reads span after span. Ends early, without an error of its own, when the writer gave up.
    fn read(&self, pacer: &mut Option<Pacer<'_>>, mut captured: Captured) -> Result<Captured> {
        let Capture { geometry, job, .. } = self.capture;
        let per_batch = self.capture.blocks_per_work();
        let mut spans = self.capture.spans();
        while let Some(span) = next_span(&mut spans)? {
            let Some(span) = span.from(self.capture.first()) else { continue };
            let extent = blocks_extent(&geometry, span.first, span.count);
            if let Some(kind) = section::run_kind(span.kind) {
                job.check()?;
                if self.send(Item::Run(kind, span.count)).is_err() {
                    return Ok(captured);
                }
                self.advance(extent);
                continue;
            }
            let mut first = span.first;
            while first < span.first + span.count {
                job.check()?;
                let count = per_batch.min(span.first + span.count - first);
                let extent = blocks_extent(&geometry, first, count);
                let batch = self.capture.read_batch(self.workshop, first, extent, &mut captured)?;
                self.pace(pacer, batch.bytes.len() as u64)?;
                if self.give(first, Work::Batch(batch)).is_err() {
                    return Ok(captured);
                }
                self.advance(extent);
                first += count;
            }
        }
        Ok(captured)
    }

    pub(crate) fn send(&self, item: Item) -> std::result::Result<(), HungUp> {
        self.items.send(item).map_err(|_| HungUp)
    }

    /// Waits for the rate limit after `bytes` were read, and what the workers read again.
    pub(crate) fn pace(&self, pacer: &mut Option<Pacer<'_>>, bytes: u64) -> Result<()> {
        let Some(pacer) = pacer else { return Ok(()) };
        let reread = self.workshop.reread.load(Ordering::Relaxed);
        let new = reread - self.paced.replace(reread);
        Ok(pacer.wait(bytes.saturating_add(new), self.capture.job)?)
    }

    /// Gives the work that begins with `first` to the pool, with a place for its outcome in the
    /// order of the disk. The workers never wait for the writer, which may need them: it is here
    /// that work waits until the blocks it may build on are decided.
    pub(crate) fn give(&self, first: BlockIndex, work: Work) -> std::result::Result<(), HungUp> {
        if self.workshop.finds_repeats() {
            self.workshop.reached.wait_for(self.capture.limit(first));
        }
        let (done, outcome) = bounded(1);
        self.send(Item::Batch(outcome))?;
        (self.spawn)(work, done);
        Ok(())
    }

    pub(crate) fn advance(&self, extent: Extent) {
        let used: &ExtentSet = &self.capture.plan.used;
        let bytes = used.within(extent).map(|u| u.len).sum();
        self.capture.job.progress.advance(Step::ReadSource, bytes);
    }
}

/// The next span; failing to ask for holes is a failure of the source.
pub(crate) fn next_span(spans: &mut Spans<'_>) -> Result<Option<Span>> {
    spans.next().map_err(|source| Error::Source { offset: 0, source })
}

/// Bytes of `count` blocks from `first`, clipped at the end of the disk.
pub(crate) fn blocks_extent(geometry: &Geometry, first: u64, count: u64) -> Extent {
    let start = geometry.offset_of(first);
    Extent::between(start, geometry.offset_of(first + count).min(geometry.len()))
}

/// A length that was bounded by the stride or the block size.
pub(crate) fn in_memory(len: u64) -> usize {
    usize::try_from(len).expect("a stride fits the address space")
}
