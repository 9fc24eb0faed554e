//! A recovery point as bytes at offsets.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use aiv_image_format::{
    BlockIndex, BlockReader, Digest, Entries, Geometry, Image, IndexEntry, Kind, PointId,
};
use aiv_volume_io::{ReadAt, Storage};

use crate::error::{Error, Result};
use crate::folder;

/// A recovery point, readable at any offset from any thread.
///
/// Bytes come back as a whole restore would write them: free and excluded space reads as
/// zeros, unreadable places as the fill pattern of the format. Every block is checked against
/// its hash before a byte of it is handed out.
pub struct View {
    image: Arc<Image>,
    file: String,
    /// The block read last by [`ReadAt`], so that small reads in a row decode it once.
    recent: Mutex<Option<(BlockIndex, Arc<Vec<u8>>)>>,
}

/// Consecutive blocks that are stored alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    entry: IndexEntry,
}

impl Stretch {
    /// First block.
    #[must_use]
    pub fn block(&self) -> BlockIndex {
        self.entry.block
    }

    /// Number of blocks, at least one.
    #[must_use]
    pub fn run(&self) -> u64 {
        self.entry.run
    }

    /// How they are stored.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.entry.kind
    }

    /// Leaf hash of the block, for blocks whose bytes are stored.
    #[must_use]
    pub fn leaf(&self) -> Option<Digest> {
        self.entry.has_frame().then_some(self.entry.leaf)
    }

    /// Where the stored bytes lie in the image file: reading in this order is sequential.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.entry.address
    }
}

impl View {
    /// Opens the point that `file` of `storage` provides.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read, [`Error::Image`] when it cannot be used.
    pub fn open(storage: &dyn Storage, file: &str) -> Result<Self> {
        let image = folder::open(storage, file)?;
        Ok(Self::new(Arc::new(image), file.to_owned()))
    }

    /// The point `image` provides; `file` is its name for messages.
    #[must_use]
    pub fn new(image: Arc<Image>, file: String) -> Self {
        Self { image, file, recent: Mutex::new(None) }
    }

    /// The image that provides the point.
    #[must_use]
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// Identity of the point.
    #[must_use]
    pub fn point(&self) -> PointId {
        self.image.superblock().point
    }

    /// Length, block size and sector size.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        self.image.geometry()
    }

    /// The stretches in block order from the one that covers `first`; together they cover
    /// every block.
    pub fn stretches(&self, first: BlockIndex) -> impl Iterator<Item = Result<Stretch>> + Send {
        let entries: Entries<'_> = self.image.entries(first);
        entries.map(|entry| entry.map(|entry| Stretch { entry }).map_err(|e| self.wrap(e)))
    }

    /// A reader with working memory of its own, for one thread.
    #[must_use]
    pub fn reader(&self) -> ViewReader<'_> {
        ViewReader { view: self, blocks: self.image.block_reader() }
    }

    fn wrap(&self, source: aiv_image_format::Error) -> Error {
        match source {
            aiv_image_format::Error::Canceled(canceled) => canceled.into(),
            source => Error::Image { file: self.file.clone(), source },
        }
    }

    fn block(&self, block: BlockIndex) -> io::Result<Arc<Vec<u8>>> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((number, bytes)) = &*recent
            && *number == block
        {
            return Ok(Arc::clone(bytes));
        }
        drop(recent);
        let mut bytes = vec![0; self.geometry().block_len(block) as usize];
        self.reader()
            .read(block, &mut bytes)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        let bytes = Arc::new(bytes);
        recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        *recent = Some((block, Arc::clone(&bytes)));
        Ok(bytes)
    }
}

impl ReadAt for View {
    fn len(&self) -> u64 {
        self.geometry().len()
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(out.len() as u64);
        if end.is_none_or(|end| end > self.len()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let size = u64::from(self.geometry().block_size().get());
        let (mut done, mut at) = (0, offset);
        while done < out.len() {
            let bytes = self.block(at / size)?;
            // Below the block size, so it fits a usize on every platform.
            let from = usize::try_from(at % size).map_err(io::Error::other)?;
            let count = (bytes.len() - from).min(out.len() - done);
            out[done..done + count].copy_from_slice(&bytes[from..from + count]);
            done += count;
            at += count as u64;
        }
        Ok(())
    }
}

/// Reads blocks of a view; keeps the working memory of one thread.
pub struct ViewReader<'a> {
    view: &'a View,
    blocks: BlockReader<'a>,
}

impl ViewReader<'_> {
    /// Reads one block, checked against its hash, into `out` of exactly its length.
    ///
    /// # Errors
    /// [`Error::Image`] when the image is damaged there or cannot be read.
    pub fn read(&mut self, block: BlockIndex, out: &mut [u8]) -> Result<Kind> {
        self.blocks.read(block, out).map_err(|e| self.view.wrap(e))
    }

    /// Reads `block`, which `stretch` covers, without looking it up again.
    ///
    /// # Errors
    /// As [`ViewReader::read`].
    pub fn read_in(&mut self, stretch: &Stretch, block: BlockIndex, out: &mut [u8]) -> Result<()> {
        self.blocks.read_entry(&stretch.entry, block, out).map_err(|e| self.view.wrap(e))
    }
}
