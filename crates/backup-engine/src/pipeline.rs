//! Reader, workers, writer: blocks flow in order through bounded memory.
//!
//! The calling thread reads ahead in large strides; a pool masks, hashes and compresses; one
//! thread hands the results to the image writer in the order of the disk, so that the image
//! does not depend on the timing of threads.

use std::sync::{Mutex, PoisonError};

use aiv_image_format::{Compression, EncodedBlock, Encoder, Geometry, ImageWriter, RunKind, hash};
use aiv_volume_io::{Extent, ExtentSet, Job, Notice, ReadAt, Step};
use crossbeam_channel::{Receiver, Sender, bounded};

use crate::bad_ranges::BadRanges;
use crate::dedup::SeenBlocks;
use crate::error::{Error, Result};
use crate::pace::Pacer;
use crate::plan::BackupPlan;
use crate::read::read_around_bad_sectors;
use crate::spans::{SpanKind, Spans};

/// Bytes read at a time: large enough for any disk, small enough for the cache.
const STRIDE: u64 = 1 << 20;

/// What was read.
#[derive(Debug, Clone)]
pub(crate) struct Captured {
    /// Bytes read from the source.
    pub bytes_read: u64,
    /// Ranges that matter and could not be read.
    pub unreadable: BadRanges,
}

/// A stretch of the disk on its way from the reader to the writer.
enum Item {
    Run(RunKind, u64),
    /// The outcome arrives when a worker is done; the channel holds at most one.
    Batch(Receiver<aiv_image_format::Result<Vec<Block>>>),
}

/// What became of one block.
enum Block {
    Zero,
    /// Every byte is the pattern of unreadable places.
    Lost,
    /// Equal to a block the writer remembers.
    Seen(aiv_image_format::Digest),
    New(EncodedBlock),
    /// Partly unreadable.
    Damaged(EncodedBlock),
}

/// Blocks read and not yet judged.
struct Batch {
    first: u64,
    bytes: Vec<u8>,
    /// What has to be kept of the bytes, in disk offsets.
    keep: Vec<Extent>,
    unreadable: Vec<Extent>,
}

/// Reads everything `plan` calls used and pushes every block of the disk into `writer`.
pub(crate) fn run(
    source: &dyn ReadAt,
    plan: &BackupPlan,
    writer: &mut ImageWriter,
    mut pacer: Option<Pacer<'_>>,
    image: &str,
    job: Job<'_>,
) -> Result<Captured> {
    let threads = plan.options.threads.get();
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|e| Error::Examine(Box::new(e)))?;
    // Each waiting item may hold a stride, and each worker one more.
    let (items, ordered) = bounded::<Item>(2 * threads + 2);
    let workshop = Workshop::new(plan.geometry, plan.options.compression, plan.options.self_check);
    job.progress.begin(Step::ReadSource, plan.used_bytes());
    let outcome = std::thread::scope(|threads| {
        // The receiver moves along, so that it hangs up when the writer gives up.
        let remembers = &workshop;
        let writing = threads.spawn(move || write_in_order(&ordered, writer, remembers));
        let reading = pool.in_place_scope(|scope| {
            let spawn = |batch: Batch, done: Sender<_>| {
                let workshop = &workshop;
                scope.spawn(move |_| {
                    // The writer hangs up after an error; then nobody needs the outcome.
                    let _ = done.send(workshop.judge(batch));
                });
            };
            let reader = Reader { source, plan, workshop: &workshop, items, job };
            reader.read(&mut pacer, &spawn)
        });
        let written = writing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match written {
            Err(source) => Err(Error::Image { image: image.to_owned(), source }),
            Ok(()) => reading,
        }
    });
    job.progress.end(Step::ReadSource);
    outcome
}

struct Reader<'a> {
    source: &'a dyn ReadAt,
    plan: &'a BackupPlan,
    workshop: &'a Workshop,
    items: Sender<Item>,
    job: Job<'a>,
}

impl Reader<'_> {
    /// Reads span after span. Ends early, without an error of its own, when the writer gave up.
    fn read(
        &self,
        pacer: &mut Option<Pacer<'_>>,
        spawn: &dyn Fn(Batch, Sender<aiv_image_format::Result<Vec<Block>>>),
    ) -> Result<Captured> {
        let geometry = self.plan.geometry;
        let unreadable = BadRanges::new(geometry.sector_size(), geometry.len());
        let mut captured = Captured { bytes_read: 0, unreadable };
        let used = &self.plan.used;
        let block = u64::from(geometry.block_size().get());
        let per_batch = (STRIDE / block).max(1);
        let mut spans = Spans::new(self.source, used, geometry);
        let next = |spans: &mut Spans<'_>| {
            spans.next().map_err(|source| Error::Source { offset: 0, source })
        };
        while let Some(span) = next(&mut spans)? {
            let extent = blocks_extent(&geometry, span.first, span.count);
            let run = match span.kind {
                SpanKind::Unused => Some(RunKind::Unused),
                SpanKind::Zero => Some(RunKind::Zero),
                SpanKind::Read => None,
            };
            if let Some(kind) = run {
                self.job.check()?;
                if self.items.send(Item::Run(kind, span.count)).is_err() {
                    return Ok(captured);
                }
                self.advance(used, extent);
                continue;
            }
            let mut first = span.first;
            while first < span.first + span.count {
                self.job.check()?;
                let count = per_batch.min(span.first + span.count - first);
                let extent = blocks_extent(&geometry, first, count);
                let batch = self.read_batch(first, extent, &mut captured)?;
                if let Some(pacer) = pacer {
                    pacer.wait(batch.bytes.len() as u64, self.job)?;
                }
                let (done, outcome) = bounded(1);
                if self.items.send(Item::Batch(outcome)).is_err() {
                    return Ok(captured);
                }
                spawn(batch, done);
                self.advance(used, extent);
                first += count;
            }
        }
        Ok(captured)
    }

    fn advance(&self, used: &ExtentSet, extent: Extent) {
        let bytes = used.within(extent).map(|u| u.len).sum();
        self.job.progress.advance(Step::ReadSource, bytes);
    }

    /// Reads from the first to the last byte that matters; the rest of the batch is undefined
    /// until it is masked.
    fn read_batch(&self, first: u64, extent: Extent, captured: &mut Captured) -> Result<Batch> {
        let keep: Vec<Extent> = self.plan.used.within(extent).collect();
        // What an earlier batch left in the buffer is read over or masked.
        let mut bytes = self.workshop.buffer();
        bytes.resize(in_memory(extent.len), 0);
        let sector = u64::from(self.plan.geometry.sector_size());
        let mut unreadable = Vec::new();
        if let (Some(head), Some(tail)) = (keep.first(), keep.last()) {
            let from = head.start / sector * sector;
            let from = from.max(extent.start);
            let to = tail.end();
            let range = in_memory(from - extent.start)..in_memory(to - extent.start);
            let bad = read_around_bad_sectors(
                self.source,
                &mut bytes[range],
                from,
                in_memory(sector),
                self.job,
            )?;
            captured.bytes_read += to - from;
            unreadable =
                bad.iter().flat_map(|b| keep.iter().filter_map(|k| k.intersect(*b))).collect();
            for &extent in &unreadable {
                self.job.progress.notice(&Notice::Unreadable { extent });
                captured.unreadable.push(extent);
            }
        }
        Ok(Batch { first, bytes, keep, unreadable })
    }
}

/// Bytes of `count` blocks from `first`, clipped at the end of the disk.
fn blocks_extent(geometry: &Geometry, first: u64, count: u64) -> Extent {
    let start = geometry.offset_of(first);
    Extent::between(start, geometry.offset_of(first + count).min(geometry.len()))
}

/// A length that was bounded by the stride or the block size.
fn in_memory(len: u64) -> usize {
    usize::try_from(len).expect("a stride fits the address space")
}

/// What the workers share: encoders and buffers to reuse, blocks seen before.
struct Workshop {
    geometry: Geometry,
    compression: Compression,
    self_check: bool,
    seen: SeenBlocks,
    encoders: Mutex<Vec<Encoder>>,
    buffers: Mutex<Vec<Vec<u8>>>,
}

impl Workshop {
    fn new(geometry: Geometry, compression: Compression, self_check: bool) -> Self {
        Self {
            geometry,
            compression,
            self_check,
            seen: SeenBlocks::default(),
            encoders: Mutex::default(),
            buffers: Mutex::default(),
        }
    }

    fn buffer(&self) -> Vec<u8> {
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    /// Masks, hashes and compresses the blocks of a batch.
    fn judge(&self, mut batch: Batch) -> aiv_image_format::Result<Vec<Block>> {
        let spare = self.encoders.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut encoder = spare.unwrap_or_else(|| Encoder::new(self.compression, self.self_check));
        mask(&mut batch, self.geometry);
        let size = self.geometry.block_size().bytes();
        let blocks = (batch.first..)
            .zip(batch.bytes.chunks(size))
            .map(|(number, bytes)| self.judge_block(number, bytes, &batch, &mut encoder))
            .collect();
        self.encoders.lock().unwrap_or_else(PoisonError::into_inner).push(encoder);
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner).push(batch.bytes);
        blocks
    }

    fn judge_block(
        &self,
        number: u64,
        bytes: &[u8],
        batch: &Batch,
        encoder: &mut Encoder,
    ) -> aiv_image_format::Result<Block> {
        let here = blocks_extent(&self.geometry, number, 1);
        let damaged = batch.unreadable.iter().any(|u| u.intersect(here).is_some());
        if damaged {
            let lost = bytes.iter().zip(hash::FILL_PATTERN.iter().cycle()).all(|(a, b)| a == b);
            if lost {
                return Ok(Block::Lost);
            }
            return encoder.encode(bytes, hash::leaf(bytes)).map(Block::Damaged);
        }
        if is_zero(bytes) {
            return Ok(Block::Zero);
        }
        let leaf = hash::leaf(bytes);
        if self.seen.find(&leaf).is_some() {
            return Ok(Block::Seen(leaf));
        }
        encoder.encode(bytes, leaf).map(Block::New)
    }
}

/// Replaces every byte that does not matter by zero, so that free space neither changes hashes
/// nor leaks into the image.
fn mask(batch: &mut Batch, geometry: Geometry) {
    let start = geometry.offset_of(batch.first);
    let mut at = 0;
    for keep in &batch.keep {
        batch.bytes[at..in_memory(keep.start - start)].fill(0);
        at = in_memory(keep.end() - start);
    }
    batch.bytes[at..].fill(0);
}

/// Whether all bytes are zero; sixteen at a time, which the compiler turns into vector code.
fn is_zero(bytes: &[u8]) -> bool {
    let (chunks, rest) = bytes.as_chunks::<16>();
    chunks.iter().all(|c| u128::from_ne_bytes(*c) == 0) && rest.iter().all(|&b| b == 0)
}

fn write_in_order(
    items: &Receiver<Item>,
    writer: &mut ImageWriter,
    workshop: &Workshop,
) -> aiv_image_format::Result<()> {
    for item in items {
        let outcome = match item {
            Item::Run(kind, count) => {
                writer.push_run(kind, count)?;
                continue;
            }
            Item::Batch(outcome) => outcome,
        };
        // The sender is only dropped unsent when its worker panicked; the scope reports that.
        let Ok(blocks) = outcome.recv() else { return Ok(()) };
        for block in blocks? {
            match block {
                Block::Zero => writer.push_run(RunKind::Zero, 1)?,
                Block::Lost => writer.push_run(RunKind::Unreadable, 1)?,
                Block::Damaged(block) => {
                    writer.push_damaged_block(&block)?;
                }
                Block::Seen(leaf) => {
                    let place = workshop.seen.find(&leaf);
                    let place = place.expect("the table forgets nothing a worker found in it");
                    writer.push_ref(place, leaf)?;
                }
                Block::New(block) => match workshop.seen.find(&block.leaf) {
                    Some(place) => writer.push_ref(place, block.leaf)?,
                    None => {
                        let place = writer.push_block(&block)?;
                        workshop.seen.remember(block.leaf, place);
                    }
                },
            }
        }
    }
    Ok(())
}
