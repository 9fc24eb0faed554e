//! A recovery point as bytes at offsets.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use aiv_image_format::{
    BlockIndex, Depth, Digest, Geometry, Image, IndexEntry, Keys, Kind, PointId,
};
use aiv_volume_io::{Job, ReadAt, Storage};

use crate::catalogue::Catalogue;
use crate::error::{Error, Result};
use crate::folder::{Folder, Point, PointState, Set};
use crate::layers::{Layer, Layers};
use crate::look::in_parallel;
use crate::open::{self, Head};
use crate::reader::{Memory, ViewReader};
use crate::scan::Trust;

/// A recovery point, readable at any offset from any thread.
///
/// Bytes come back as a whole restore would write them: free and excluded space reads as
/// zeros, unreadable places as the fill pattern of the format. Every block is checked against
/// its hash before a byte of it is handed out.
///
/// The files of its chain stay open: removing or merging them does not disturb a view.
pub struct View {
    pub(crate) layers: Layers,
    /// Where the blocks of recently used groups are found; only for chains.
    groups: Mutex<HashMap<u64, Arc<Vec<Stretch>>>>,
    /// What [`ReadAt`] works with.
    memory: Memory,
}

/// Groups of 128 blocks whose places are remembered: those of 8 GiB in blocks of 64 KiB.
const GROUPS_MAX: usize = 1024;
const GROUP: u64 = aiv_image_format::hash::FAN_OUT as u64;

/// Consecutive blocks that are stored alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    pub(crate) entry: IndexEntry,
    pub(crate) layer: usize,
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

    /// Leaf hash of the block, for blocks whose kind does not determine their bytes.
    #[must_use]
    pub fn leaf(&self) -> Option<Digest> {
        self.entry.has_leaf().then_some(self.entry.leaf)
    }

    /// Where the stored bytes lie in the image file: reading in this order is sequential.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.entry.address
    }

    /// The index entry of the image that decides the blocks.
    #[must_use]
    pub fn entry(&self) -> &IndexEntry {
        &self.entry
    }

    /// Which image of the view decides them: 0 for the newest, see [`View::images`].
    #[must_use]
    pub fn layer(&self) -> usize {
        self.layer
    }
}

impl View {
    /// Opens the point that `file` of `storage` provides, with the images it builds on, which
    /// are looked for in all of `storage`.
    ///
    /// # Errors
    /// [`Error::Io`] when a file cannot be read, [`Error::Image`] when one cannot be used,
    /// [`Error::NotRestorable`] when one is missing, [`Error::Canceled`].
    pub fn open(storage: &dyn Storage, file: &str, job: Job<'_>) -> Result<Self> {
        Self::open_keyed(storage, file, &Keys::none(), job)
    }

    /// As [`View::open`], with the keys of images that have one.
    ///
    /// # Errors
    /// As [`View::open`].
    pub fn open_keyed(
        storage: &dyn Storage,
        file: &str,
        keys: &Keys,
        job: Job<'_>,
    ) -> Result<Self> {
        let image = Arc::new(open::open(storage, file, Head::Read, keys)?);
        Self::with_parents(storage, image, file, keys, job)
    }

    /// Opens the point that `image`, which is `file` of `storage`, provides.
    pub(crate) fn with_parents(
        storage: &dyn Storage,
        image: Arc<Image>,
        file: &str,
        keys: &Keys,
        job: Job<'_>,
    ) -> Result<Self> {
        if image.superblock().parent.is_none() {
            return Self::of_layers(vec![Layer { image, file: file.to_owned() }]);
        }
        // Without a look at the folder: what is opened is compared with what was expected.
        let set = image.superblock().set;
        let remembered =
            Catalogue::try_read(storage).map(|known| known.into_folder(set).with_keys(keys));
        if let Some(folder) = remembered {
            match Self::open_in(storage, &folder, Arc::clone(&image), file) {
                Err(error) if is_worth_a_scan(&error) => {}
                opened => return opened,
            }
        }
        let (folder, _) = Folder::scan_keyed(storage, keys, Trust::Catalogue, job)?;
        match Self::open_in(storage, &folder, Arc::clone(&image), file) {
            Err(error) if is_worth_a_scan(&error) && folder.is_remembered() => {
                let (folder, _) = Folder::scan_keyed(storage, keys, Trust::Files, job)?;
                Self::open_in(storage, &folder, image, file)
            }
            opened => opened,
        }
    }

    /// Opens the point that `image`, which is `file` of `storage`, provides, with the images it
    /// builds on, as `folder` lists them.
    pub(crate) fn open_in(
        storage: &dyn Storage,
        folder: &Folder,
        image: Arc<Image>,
        file: &str,
    ) -> Result<Self> {
        let mut files = Vec::new();
        if let Some(link) = image.superblock().parent {
            let missing = || Error::NotRestorable {
                point: image.superblock().point,
                state: PointState::MissingParent { point: link.point },
            };
            let set = folder.any_set(image.superblock().set).ok_or_else(missing)?;
            let parent = set.provider(link).ok_or_else(missing)?;
            files = set.chain(parent)?;
        }
        let mut layers = vec![Layer { image, file: file.to_owned() }];
        layers.extend(open_all(storage, &files, &folder.keys, known)?);
        Self::of_layers(layers)
    }

    /// Opens `point` of `set`, which a scan of `storage` found. When the files are not what the
    /// scan said, because they changed since or a catalogue was wrong, the folder is scanned
    /// once more.
    ///
    /// # Errors
    /// As [`View::open`].
    pub fn of_point(storage: &dyn Storage, set: &Set, point: &Point) -> Result<Self> {
        let open = |set: &Set, point: &Point| {
            let chain = set.chain(point)?;
            // What is wrong with the newest image can be asked of the view.
            let is_newest = |file: &Point| file.file == point.file;
            let head = |file: &Point| if is_newest(file) { Head::Read } else { known(file) };
            Self::of_layers(open_all(storage, &chain, &set.keys, head)?)
        };
        match open(set, point) {
            // Nothing but the files themselves said so.
            Err(error) if !point.is_restorable() && !set.remembered => Err(error),
            Err(error) if is_worth_a_scan(&error) => {
                let (keys, job) = (&set.keys, Job::silent());
                let (folder, _) = Folder::scan_keyed(storage, keys, Trust::Files, job)?;
                let found = folder.any_set(set.id);
                let found = found.and_then(|set| Some((set, set.provider(point.link())?)));
                match (found, error) {
                    (Some((set, point)), _) => open(set, point),
                    (None, Error::Io { source, .. })
                        if source.kind() == io::ErrorKind::NotFound =>
                    {
                        Err(gone(point))
                    }
                    // What is wrong with the file is known already.
                    (None, error) => Err(error),
                }
            }
            opened => opened,
        }
    }

    /// As [`View::of_point`], and takes the scan at its word. What is wrong with any of the
    /// images can be asked of the view.
    pub(crate) fn of_point_whole(storage: &dyn Storage, set: &Set, point: &Point) -> Result<Self> {
        Self::of_layers(open_all(storage, &set.chain(point)?, &set.keys, |_| Head::Read)?)
    }

    /// The point a full `image`, which is not locked, provides; `file` is its name for messages.
    #[must_use]
    pub fn of_full(image: Arc<Image>, file: String) -> Self {
        Self::new(Layers::new(vec![Layer { image, file }]))
    }

    fn of_layers(layers: Vec<Layer>) -> Result<Self> {
        let layers = Layers::new(layers);
        layers.check_links()?;
        Ok(Self::new(layers))
    }

    pub(crate) fn new(layers: Layers) -> Self {
        Self { layers, groups: Mutex::default(), memory: Memory::default() }
    }

    /// The state this one builds on; `None` for a full image.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        self.layers.parent().map(Self::new)
    }

    /// The image that provides the point.
    #[must_use]
    pub fn image(&self) -> &Image {
        self.layers.top()
    }

    /// Proves the image that provides the point; those it builds on only as far as it needs
    /// them.
    pub(crate) fn prove_newest(&self, depth: Depth, job: Job<'_>) -> Result<()> {
        let report = match self.parent() {
            Some(parent) => self.image().verify_on(&parent, depth, job),
            None => self.image().verify(depth, job),
        };
        let report = report.map_err(|error| self.layers.explain(error))?;
        match report.damage.into_iter().next() {
            None => Ok(()),
            Some(damage) => Err(Error::in_file(self.file(), damage.into())),
        }
    }

    /// Refuses a point of which no new image can be made, because its key was not given: it may be
    /// readable without, when it is only authenticated.
    ///
    /// # Errors
    /// [`Error::Image`] with [`aiv_image_format::Error::Locked`].
    pub fn check_key(&self) -> Result<()> {
        let made = self.image().seal(0).map(drop);
        made.map_err(|error| Error::in_file(self.file(), error))
    }

    /// The images of the chain with the names of their files, newest first.
    pub fn images(&self) -> impl ExactSizeIterator<Item = (&Image, &str)> {
        self.layers.iter().map(|layer| (&*layer.image, layer.file.as_str()))
    }

    /// Name of the file that provides the point.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.layers.get(0).file
    }

    /// Identity of the point.
    #[must_use]
    pub fn point(&self) -> PointId {
        self.image().superblock().point
    }

    /// Length, block size and sector size.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        self.image().geometry()
    }

    /// The stretches in block order from the one that covers `first`; together they cover
    /// every block.
    pub fn stretches(
        &self,
        first: BlockIndex,
    ) -> Box<dyn Iterator<Item = Result<Stretch>> + Send + '_> {
        let wrap = |item: std::result::Result<Stretch, _>| item.map_err(|e| self.layers.explain(e));
        Box::new(self.layers.stretches(first, self.geometry().blocks()).map(wrap))
    }

    /// A reader with working memory of its own, for one thread.
    #[must_use]
    pub fn reader(&self) -> ViewReader<'_> {
        ViewReader::new(self)
    }

    /// The stretch that covers `block`.
    pub(crate) fn find(
        &self,
        block: BlockIndex,
    ) -> std::result::Result<Stretch, aiv_image_format::Error> {
        if self.layers.len() >= 3
            && let Ok(stretches) = self.group(block / GROUP)
        {
            let after = stretches.partition_point(|s| s.entry.block <= block);
            let found = after.checked_sub(1).map(|at| stretches[at]);
            return found
                .filter(|s| s.entry.end() > block)
                .ok_or_else(|| self.image().lacks(block));
        }
        // Damage that concerns another block of the group must not cost this one.
        let (layer, entry) = self.layers.find(0, block)?;
        Ok(Stretch { entry, layer })
    }

    /// Where the blocks of a group are found. In a long chain this costs as much as finding one
    /// of them, and neighbours are usually asked for next.
    fn group(&self, group: u64) -> std::result::Result<Arc<Vec<Stretch>>, aiv_image_format::Error> {
        let remembered =
            || self.groups.lock().unwrap_or_else(PoisonError::into_inner).get(&group).cloned();
        if let Some(stretches) = remembered() {
            return Ok(stretches);
        }
        let first = group.saturating_mul(GROUP);
        let end = first.saturating_add(GROUP).min(self.geometry().blocks());
        let stretches: std::result::Result<Vec<_>, _> = self.layers.stretches(first, end).collect();
        let stretches = Arc::new(stretches?);
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        if groups.len() >= GROUPS_MAX {
            groups.clear();
        }
        groups.insert(group, Arc::clone(&stretches));
        Ok(stretches)
    }

    fn block(&self, block: BlockIndex) -> io::Result<Arc<Vec<u8>>> {
        self.memory.block(block, |blocks, bytes| {
            bytes.resize(self.geometry().block_len(block) as usize, 0);
            let read = self.find(block).and_then(|Stretch { layer, entry }| {
                blocks.read(&self.layers, (layer, entry), block, bytes)
            });
            let explained = read.map_err(|e| self.layers.explain(e));
            explained.map(drop).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
        })
    }
}

fn known(point: &Point) -> Head {
    Head::Known { tail: point.tail }
}

/// Opens the files of points, several at a time.
fn open_all(
    storage: &dyn Storage,
    points: &[&Point],
    keys: &Keys,
    head: impl Fn(&Point) -> Head + Sync,
) -> Result<Vec<Layer>> {
    in_parallel(points, &|point: &&Point| {
        let image = open::open(storage, &point.file, head(point), keys)?;
        let (superblock, trailer) = (image.superblock(), image.trailer());
        // Somebody may have put another file in its place since the folder was scanned.
        if (superblock.point, trailer.state_root) != (point.id, point.state_root) {
            return Err(gone(point));
        }
        Ok(Layer { image: Arc::new(image), file: point.file.clone() })
    })
}

/// Whether files that differ from what a scan said may be the reason.
fn is_worth_a_scan(error: &Error) -> bool {
    matches!(error, Error::Io { .. } | Error::Image { .. } | Error::NotRestorable { .. })
}

fn gone(point: &Point) -> Error {
    let state = PointState::MissingParent { point: point.id };
    Error::NotRestorable { point: point.id, state }
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
