//! The state a backup compares a source with.

use std::sync::{Arc, Mutex, PoisonError};

use aiv_chain::{Error as ChainError, Stretch, View};
use aiv_image_format::{BlockIndex, Digest, Error as ImageError, Geometry};
use aiv_volume_io::Job;

use crate::moved::Moved;

type ImageResult<T> = std::result::Result<T, ImageError>;

/// The parent's state, and what the workers learn about it.
pub(crate) struct Parent {
    pub view: View,
    /// Blocks, from the first on, that exist in both with the same length: only these can be
    /// inherited.
    shared: u64,
    /// Whether changed blocks may be stored as differences.
    pub deltas: bool,
    moved: Mutex<Option<Arc<Moved>>>,
    /// The first damage met in the parent's blocks. The backup goes on without them.
    damage: Mutex<Option<ChainError>>,
}

impl Parent {
    pub(crate) fn new(view: View, geometry: &Geometry, deltas: bool) -> Self {
        let old = view.geometry().len();
        let shared = if old == geometry.len() {
            geometry.blocks()
        } else {
            old.min(geometry.len()) / u64::from(geometry.block_size().get())
        };
        Self { view, shared, deltas, moved: Mutex::default(), damage: Mutex::default() }
    }

    /// First block that cannot be inherited.
    pub(crate) fn shared(&self) -> BlockIndex {
        self.shared
    }

    /// What the parent says about the blocks `first .. end`, in order; blocks that cannot be
    /// inherited are left out.
    pub(crate) fn stretches(
        &self,
        first: BlockIndex,
        end: BlockIndex,
    ) -> ImageResult<Vec<Stretch>> {
        let end = end.min(self.shared);
        let mut found = Vec::new();
        if first < end {
            for stretch in self.view.stretches(first) {
                let stretch = stretch.map_err(as_parent)?;
                let last = stretch.block().saturating_add(stretch.run()) >= end;
                found.push(stretch);
                if last {
                    break;
                }
            }
        }
        Ok(found)
    }

    /// Another block of the parent with the bytes of this leaf and this length, `guess` first.
    pub(crate) fn find_moved(
        &self,
        leaf: &Digest,
        len: u32,
        guess: Option<BlockIndex>,
        job: Job<'_>,
    ) -> ImageResult<Option<BlockIndex>> {
        let is_it = |block: BlockIndex| -> ImageResult<bool> {
            if self.view.geometry().block_len(block) != len {
                return Ok(false);
            }
            let stretch = self.view.stretches(block).next().transpose().map_err(as_parent)?;
            Ok(stretch.is_some_and(|s| s.leaf() == Some(*leaf)))
        };
        if let Some(block) = guess
            && is_it(block)?
        {
            return Ok(guess);
        }
        for block in self.moved(job)?.candidates(leaf) {
            if is_it(block)? {
                return Ok(Some(block));
            }
        }
        Ok(None)
    }

    /// The table of the state's blocks, made when it is first needed: it takes a look at the
    /// whole index and some memory, so all threads wait for one to make it.
    fn moved(&self, job: Job<'_>) -> ImageResult<Arc<Moved>> {
        let mut moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(moved) = &*moved {
            return Ok(Arc::clone(moved));
        }
        let made = Arc::new(Moved::of(&self.view, job).map_err(as_parent)?);
        *moved = Some(Arc::clone(&made));
        Ok(made)
    }

    /// Remembers damage of the parent that the backup works around.
    pub(crate) fn note_damage(&self, error: ChainError) {
        self.damage.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    /// The first damage met since this was last asked.
    pub(crate) fn take_damage(&self) -> Option<ChainError> {
        self.damage.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// An error of a file of the parent's chain.
pub(crate) fn as_parent(error: ChainError) -> ImageError {
    match error {
        ChainError::Image { file, source } => ImageError::Parent { file, source: Box::new(source) },
        ChainError::Canceled(canceled) => canceled.into(),
        _ => ImageError::Misuse("a parent that cannot be read"),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use aiv_image_format::meta::Inventory;
    use aiv_image_format::{GroupId, Image};
    use aiv_testkit::MemStorage;
    use aiv_testkit::disks::Content;
    use aiv_volume_io::{Cancel, Job, MemDisk, Progress, ReadAt, Storage};

    use super::*;
    use crate::{BackupIds, BackupOptions, BackupPlan, SourceFacts};

    /// A file whose reads take long enough to meet each other.
    struct Slow {
        file: Arc<dyn ReadAt>,
        reads: AtomicU64,
    }

    impl ReadAt for Slow {
        fn len(&self) -> u64 {
            self.file.len()
        }
        fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(20));
            self.file.read_exact_at(out, offset)
        }
    }

    /// A full image of a disk of these bytes, in blocks of 16 KiB.
    fn file_of(bytes: Vec<u8>) -> Arc<dyn ReadAt> {
        let source = MemDisk::from_bytes(bytes);
        let block_size = aiv_image_format::BlockSize::new(16 << 10);
        let options = BackupOptions { block_size, ..BackupOptions::default() };
        let storage = MemStorage::new();
        let plan = BackupPlan::new(&source, SourceFacts::default(), options, Job::silent())
            .expect("a disk");
        let ids = BackupIds::new(&[7; BackupIds::RANDOM_LEN], GroupId([7; 16]), 0);
        let report = plan
            .apply(&source, &storage, &ids, &Inventory::default(), None, Job::silent())
            .expect("a sound storage");
        storage.open(&report.image).expect("published")
    }

    pub(crate) fn image_of(bytes: Vec<u8>) -> View {
        let image = Image::open(file_of(bytes)).expect("a sound image");
        View::of_full(Arc::new(image), "image".to_owned())
    }

    /// The state of a disk of 200 blocks, freshly opened.
    fn parent() -> (Parent, Arc<Slow>) {
        let file = file_of(Content::Random(1).bytes(200 << 14));
        let file = Arc::new(Slow { file, reads: AtomicU64::new(0) });
        let image = Image::open(Arc::clone(&file) as Arc<dyn ReadAt>).expect("a sound image");
        file.reads.store(0, Ordering::Relaxed);
        let view = View::of_full(Arc::new(image), "image".to_owned());
        let geometry = *view.geometry();
        (Parent::new(view, &geometry, true), file)
    }

    const NOWHERE: Digest = Digest([9; 32]);

    #[test]
    fn threads_that_look_for_moved_blocks_at_once_read_the_index_once() {
        let reads = |threads: usize| {
            let (parent, file) = parent();
            let start = Barrier::new(threads);
            std::thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| {
                        start.wait();
                        let found = parent.find_moved(&NOWHERE, 16 << 10, None, Job::silent());
                        assert!(matches!(found, Ok(None)), "{found:?}");
                    });
                }
            });
            file.reads.load(Ordering::Relaxed)
        };
        assert_eq!(reads(8), reads(1));
    }

    #[test]
    fn looking_for_moved_blocks_stops_when_canceled() {
        struct Quiet;
        impl Progress for Quiet {}
        let (parent, _) = parent();
        let cancel = Cancel::new();
        cancel.cancel();
        let found = parent.find_moved(&NOWHERE, 16 << 10, None, Job::new(&Quiet, &cancel));
        assert!(matches!(found, Err(ImageError::Canceled(_))), "{found:?}");
    }
}
