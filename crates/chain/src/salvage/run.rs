//! Reads everything that is left, block by block in order, on all processors.

use aiv_image_format::salvage::Loss;
use aiv_image_format::{BlockIndex, Compression, EncodedBlock, Encoder, Kind, hash};
use aiv_volume_io::{Job, Step};
use rayon::prelude::*;

use super::Salvaged;
use super::laid::{Failed, Piece, Readers};
use super::report::SalvageReport;
use crate::error::{Error, Result};

/// Bytes of blocks that are read side by side: bounds the memory, with what is made of them.
const BATCH_BYTES: u64 = 16 << 20;

/// Takes what is left, in block order.
pub(super) trait Sink {
    /// How blocks are to be stored; `None` when only their bytes are wanted.
    fn compression(&self) -> Option<Compression>;

    /// Blocks that need no frame.
    fn run(&mut self, kind: Kind, first: BlockIndex, count: u64) -> Result<()>;

    /// A block with its bytes; encoded when a compression was asked for.
    fn block(&mut self, block: BlockIndex, kind: Kind, read: &Block) -> Result<()>;

    /// Blocks that are gone.
    fn lost(&mut self, first: BlockIndex, count: u64) -> Result<()>;
}

/// A block that was read.
pub(super) struct Block {
    pub bytes: Vec<u8>,
    pub encoded: Option<EncodedBlock>,
}

/// What becomes of a task.
enum Done {
    Block(Kind, Block),
    Lost(Loss),
}

struct Worker<'s> {
    readers: Readers<'s>,
    encoder: Option<Encoder>,
}

impl Salvaged {
    /// Hands everything to `sink`, and says what is lost.
    pub(super) fn run(&self, sink: &mut dyn Sink, job: Job<'_>) -> Result<SalvageReport> {
        let mut report = SalvageReport::new(self);
        let size = u64::from(self.geometry().block_size().get());
        let batch_max = (BATCH_BYTES / size).max(1);
        job.progress.begin(Step::CopyImage, self.geometry().len());
        let mut tasks: Vec<(Piece, BlockIndex)> = Vec::new();
        for piece in self.pieces() {
            if let Some(kind) = piece.constant() {
                self.flush(&mut tasks, sink, &mut report, job)?;
                sink.run(kind, piece.first, piece.run)?;
                report.count(&piece, piece.run);
                if piece.is_unproven() {
                    report.doubt(piece.first, piece.run);
                }
                job.progress.advance(Step::CopyImage, piece.run.saturating_mul(size));
                continue;
            }
            if let super::laid::By::Nobody(loss) = piece.by {
                self.flush(&mut tasks, sink, &mut report, job)?;
                sink.lost(piece.first, piece.run)?;
                report.lose(piece.first, piece.run, loss);
                job.progress.advance(Step::CopyImage, piece.run.saturating_mul(size));
                continue;
            }
            for block in piece.first..piece.first + piece.run {
                tasks.push((piece, block));
                if tasks.len() as u64 == batch_max {
                    self.flush(&mut tasks, sink, &mut report, job)?;
                }
            }
        }
        self.flush(&mut tasks, sink, &mut report, job)?;
        job.progress.end(Step::CopyImage);
        Ok(report)
    }

    fn flush(
        &self,
        tasks: &mut Vec<(Piece, BlockIndex)>,
        sink: &mut dyn Sink,
        report: &mut SalvageReport,
        job: Job<'_>,
    ) -> Result<()> {
        if tasks.is_empty() {
            return Ok(());
        }
        job.check()?;
        let compression = sink.compression();
        let worker = || Worker {
            readers: self.readers(),
            encoder: compression.map(|compression| Encoder::new(compression, true)),
        };
        let done: Vec<Result<Done>> = tasks
            .par_iter()
            .map_init(worker, |worker, (piece, block)| self.task(worker, piece, *block))
            .collect();
        for ((piece, block), done) in tasks.drain(..).zip(done) {
            match done? {
                Done::Block(kind, read) => {
                    sink.block(block, kind, &read)?;
                    report.count(&piece, 1);
                    if piece.is_unproven() {
                        report.doubt(block, 1);
                    }
                }
                Done::Lost(loss) => {
                    sink.lost(block, 1)?;
                    report.lose(block, 1, loss);
                }
            }
            let len = u64::from(self.geometry().block_len(block));
            job.progress.advance(Step::CopyImage, len);
        }
        Ok(())
    }

    fn task(&self, worker: &mut Worker<'_>, piece: &Piece, block: BlockIndex) -> Result<Done> {
        let mut bytes = vec![0; self.geometry().block_len(block) as usize];
        let kind = match worker.readers.read(piece, block, &mut bytes) {
            Ok(kind) => kind,
            Err(Failed::Lost(loss)) => return Ok(Done::Lost(loss)),
            Err(Failed::Error(error)) => return Err(Error::in_file(&self.layers[0].file, error)),
        };
        let encoded = match &mut worker.encoder {
            Some(encoder) => {
                let encoded = encoder.encode(&bytes, hash::leaf(&bytes));
                Some(encoded.map_err(|e| Error::in_file("the new image", e))?)
            }
            None => None,
        };
        Ok(Done::Block(kind, Block { bytes, encoded }))
    }
}
