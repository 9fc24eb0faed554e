//! A part of a disk that can hold a filesystem, or other volumes.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use aiv_filesystems::{
    Error as FilesystemError, Filesystem, FilesystemKind, LuksKeys, Recognised, Span,
    open_filesystem, open_luks, raid_contents, recognise,
};
use aiv_volume_io::partition::Partition;
use aiv_volume_io::{Extent, ExtentSet, Job, ReadAt, Slice};

use crate::error::{Error, Result};
use crate::path::Path;

/// Pieces of a set of bytes in one volume: bounds its memory.
const PIECES_MAX: u64 = 1 << 22;

/// A part of a disk that can hold a filesystem, or other volumes.
pub struct Volume {
    name: String,
    len: u64,
    extent: Option<Extent>,
    /// Of a logical volume, in bytes of the disk.
    spans: Option<Vec<Span>>,
    recognised: Recognised,
    within: Vec<FilesystemKind>,
    partition: Option<Partition>,
    logical: Option<String>,
    bytes: Option<Arc<dyn ReadAt>>,
    notes: Vec<String>,
    inside: Inside,
    filesystem: Mutex<Option<Arc<dyn Filesystem>>>,
}

/// What is known about volumes inside of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Inside {
    /// It is none that holds volumes, as far as anybody looked.
    Nothing,
    /// Its volumes are among those of the disk; where, as the rest of a sentence.
    Opened(String),
    /// Why it, or what is in it, cannot be read.
    Closed(String),
    /// It is encrypted, and nothing that was given opens it.
    Locked {
        /// Whether anything was.
        tried: bool,
        /// The same as the rest of a sentence.
        why: String,
    },
}

impl Volume {
    /// `extent` of `disk`, inside it, looked at.
    pub(crate) fn new(name: String, disk: &Arc<dyn ReadAt>, extent: Extent) -> Self {
        let bytes: Arc<dyn ReadAt> = match Slice::new(Arc::clone(disk), extent) {
            Ok(slice) => Arc::new(slice),
            // Cut to the disk by the caller.
            Err(_) => Arc::clone(disk),
        };
        Self { extent: Some(extent), ..Self::of_bytes(name, bytes) }
    }

    /// A volume of bytes that lie wherever they lie.
    pub(crate) fn of_bytes(name: String, bytes: Arc<dyn ReadAt>) -> Self {
        Self {
            name,
            len: bytes.len(),
            extent: None,
            spans: None,
            recognised: look(&*bytes),
            within: Vec::new(),
            partition: None,
            logical: None,
            bytes: Some(bytes),
            notes: Vec::new(),
            inside: Inside::Nothing,
            filesystem: Mutex::new(None),
        }
    }

    /// A volume that is there and cannot be read.
    pub(crate) fn closed(name: String, len: u64, why: String) -> Self {
        Self {
            name,
            len,
            extent: None,
            spans: None,
            recognised: Recognised::new(FilesystemKind::Unknown),
            within: Vec::new(),
            partition: None,
            logical: None,
            bytes: None,
            notes: Vec::new(),
            inside: Inside::Closed(why),
            filesystem: Mutex::new(None),
        }
    }

    /// The volume of an entry of a partition table, its name behind `before`; `None` when the entry
    /// is none, or lies outside.
    pub(crate) fn of_partition(
        before: String,
        disk: &Arc<dyn ReadAt>,
        partition: &Partition,
    ) -> Option<Self> {
        let whole = Extent::new(0, disk.len());
        let is_volume = !partition.kind.is_extended();
        let extent = partition.extent.intersect(whole).filter(|_| is_volume)?;
        let volume = Self::new(format!("{before}p{}", partition.number), disk, extent);
        Some(Self { partition: Some(partition.clone()), ..volume })
    }

    pub(crate) fn opened(mut self, filesystem: Arc<dyn Filesystem>) -> Self {
        self.recognised.kind = filesystem.kind();
        self.filesystem = Mutex::new(Some(filesystem));
        self
    }

    /// The same as a part of another volume.
    pub(crate) fn below(mut self, outer: &Self, kind: Option<FilesystemKind>) -> Self {
        self.within.splice(..0, outer.within.iter().copied().chain(kind));
        self.extent = None;
        self
    }

    /// The same as a logical volume, of which the bytes lie on the disk where `spans` say.
    pub(crate) fn logical_volume(mut self, name: String, spans: Option<Vec<Span>>) -> Self {
        self.logical = Some(name);
        self.spans = spans;
        self
    }

    pub(crate) fn set_inside(&mut self, inside: Inside) {
        self.inside = inside;
    }

    pub(crate) fn add_note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Becomes what the RAID holds that this is a member of, when that can be had from it alone.
    pub(crate) fn leave_raid(&mut self) {
        let Some(bytes) = self.bytes.clone() else { return };
        let slice = raid_contents(&*bytes).and_then(|contents| {
            let slice = Slice::new(bytes, contents.extent);
            let failed = |source| FilesystemError::Io { op: "open RAID", offset: 0, source };
            Ok((slice.map_err(failed)?, contents))
        });
        let (slice, contents) = match slice {
            Ok(slice) => slice,
            Err(why) => {
                self.inside = Inside::Closed(why.to_string());
                return;
            }
        };
        self.become_inner(Arc::new(slice), contents.extent);
        self.notes.extend(contents.note);
    }

    /// Becomes what the RAID holds of which this is the first member.
    pub(crate) fn become_array(&mut self, bytes: Arc<dyn ReadAt>, note: Option<String>) {
        let whole = Extent::new(0, bytes.len());
        self.become_inner(bytes, whole);
        // It lies on all of its members.
        self.extent = None;
        self.notes.extend(note);
    }

    /// Becomes what it encrypts, when one of `keys` opens it.
    pub(crate) fn unlock(&mut self, keys: &LuksKeys, job: Job<'_>) -> Result<()> {
        let Some(bytes) = self.bytes.clone() else { return Ok(()) };
        match open_luks(bytes, keys, job) {
            Ok(contents) => self.become_inner(contents.bytes, contents.extent),
            Err(FilesystemError::Canceled(canceled)) => return Err(canceled.into()),
            Err(why @ FilesystemError::WrongKey { .. }) => {
                self.inside = Inside::Locked { tried: true, why: why.to_string() };
            }
            Err(FilesystemError::Damaged { what, .. }) => self.inside = Inside::Closed(what),
            Err(why) => self.inside = Inside::Closed(why.to_string()),
        }
        Ok(())
    }

    /// Becomes what lies at `extent` in it, read as `bytes`.
    fn become_inner(&mut self, bytes: Arc<dyn ReadAt>, within: Extent) {
        self.within.push(self.recognised.kind);
        self.recognised = look(&*bytes);
        self.len = bytes.len();
        let moved = |extent: Extent| extent.start.saturating_add(within.start);
        self.extent = self.extent.map(|extent| Extent::new(moved(extent), within.len));
        self.bytes = Some(bytes);
    }

    /// `pN` with the number of its partition; 0 for a disk without a table. A volume inside of
    /// another has its name behind that one's: `p2/GROUP/NAME`, `p2/GROUP/NAME/p1`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its bytes on the disk, where they lie there in one run: not those of a logical volume.
    #[must_use]
    pub fn extent(&self) -> Option<Extent> {
        self.extent
    }

    /// Whether its bytes lie on its disk where those of `other` lie on another one, as far as that
    /// is known.
    #[must_use]
    pub fn lies_like(&self, other: &Self) -> bool {
        match (self.extent, &self.spans) {
            (None, None) => false,
            (extent, spans) => (extent, spans) == (other.extent, &other.spans),
        }
    }

    /// The bytes of the volume that lie in `set` on its disk; `None` when that is not known, or
    /// they are in very many pieces.
    #[must_use]
    pub fn within_disk(&self, set: &ExtentSet) -> Option<ExtentSet> {
        if let Some(extent) = self.extent {
            let moved = |run: Extent| Extent::new(run.start - extent.start, run.len);
            return Some(set.within(extent).map(moved).collect());
        }
        let mut found = Vec::new();
        for span in self.spans.as_ref()? {
            let pieces = |run: Extent| (run.len / span.stripe.max(1)).saturating_add(2);
            let more = set.within(span.extent).map(pieces).fold(0, u64::saturating_add);
            if more.saturating_add(found.len() as u64) > PIECES_MAX {
                return None;
            }
            found.extend(span.in_volume(set.within(span.extent)));
        }
        Some(found.into_iter().collect())
    }

    /// Its length in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "nobody asks for volumes of no bytes")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// What is on it.
    #[must_use]
    pub fn recognised(&self) -> &Recognised {
        &self.recognised
    }

    /// What it is inside of, the outermost first: a RAID, a physical volume.
    #[must_use]
    pub fn within(&self) -> &[FilesystemKind] {
        &self.within
    }

    /// The entry of the partition table, where there is one.
    #[must_use]
    pub fn partition(&self) -> Option<&Partition> {
        self.partition.as_ref()
    }

    /// `GROUP/NAME` of a logical volume.
    #[must_use]
    pub fn logical(&self) -> Option<&str> {
        self.logical.as_deref()
    }

    /// The bytes of the volume itself, if they can be read.
    #[must_use]
    pub fn bytes(&self) -> Option<&Arc<dyn ReadAt>> {
        self.bytes.as_ref()
    }

    /// What is to be known about the state of its bytes.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Whether it holds volumes that are among those of the disk, or would be if it had any.
    #[must_use]
    pub fn is_opened(&self) -> bool {
        matches!(self.inside, Inside::Opened(_))
    }

    /// Whether a passphrase or key file may open it that was not given.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        matches!(self.inside, Inside::Locked { .. })
    }

    /// Why files that may be on it cannot be read, as the rest of a sentence.
    #[must_use]
    pub fn why_closed(&self) -> Option<&str> {
        match &self.inside {
            Inside::Closed(why) | Inside::Locked { why, .. } => Some(why),
            Inside::Opened(_) => None,
            Inside::Nothing => why_closed(self.recognised.kind),
        }
    }

    /// The error of whoever wants its files, where they cannot be read.
    pub(crate) fn closed_error(&self) -> Option<Error> {
        let why = self.why_closed()?.to_owned();
        let (volume, kind) = (self.name.clone(), self.recognised.kind);
        Some(match self.inside {
            Inside::Locked { tried, .. } => Error::Locked { volume, kind, tried, why },
            _ => Error::NotOpened { volume, kind, why },
        })
    }

    /// The path of its root.
    #[must_use]
    pub fn path(&self) -> Path {
        let parts = self.name.split('/');
        parts.fold(Path::default(), |path, part| path.join(part.as_bytes()))
    }

    /// Its filesystem, opened the first time somebody asks.
    ///
    /// # Errors
    /// [`Error::NoFiles`] when there is none, [`Error::Locked`], [`Error::NotOpened`] and
    /// [`Error::Filesystem`] when it cannot be opened, [`Error::Canceled`].
    pub fn filesystem(&self, job: Job<'_>) -> Result<Arc<dyn Filesystem>> {
        let mut opened = self.filesystem.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(filesystem) = &*opened {
            return Ok(Arc::clone(filesystem));
        }
        if let Some(error) = self.closed_error() {
            return Err(error);
        }
        let (volume, kind) = (self.name.clone(), self.recognised.kind);
        let none = match &self.inside {
            Inside::Opened(place) => Some(place.as_str()),
            _ => why_none(kind),
        };
        let bytes = match (none, &self.bytes) {
            (None, Some(bytes)) => Arc::clone(bytes),
            (why, _) => {
                let why = why.unwrap_or("there are no bytes of it").to_owned();
                return Err(Error::NoFiles { volume, kind, why });
            }
        };
        let filesystem = open_filesystem(bytes, &self.recognised, job)
            .map_err(|source| Error::of(&self.path(), source))?;
        let filesystem: Arc<dyn Filesystem> = filesystem.into();
        *opened = Some(Arc::clone(&filesystem));
        Ok(filesystem)
    }
}

/// What cannot be read is shown as unknown; whoever opens it is told why.
fn look(bytes: &dyn ReadAt) -> Recognised {
    recognise(bytes).unwrap_or_else(|_| Recognised::new(FilesystemKind::Unknown))
}

/// Why there are no files, for kinds of which that is no fault.
fn why_none(kind: FilesystemKind) -> Option<&'static str> {
    Some(match kind {
        FilesystemKind::Unknown => "nothing that is known here",
        FilesystemKind::Swap | FilesystemKind::SwapSuspended => "there are no files in it",
        FilesystemKind::ExtJournal => "it is the journal of another filesystem",
        _ => return None,
    })
}

/// Why files are not read that may well be there.
fn why_closed(kind: FilesystemKind) -> Option<&'static str> {
    Some(match kind {
        FilesystemKind::BitLocker => "it is encrypted; its files cannot be read",
        FilesystemKind::Zfs => "it belongs to a ZFS pool, which is not read",
        FilesystemKind::Apfs
        | FilesystemKind::ReFs
        | FilesystemKind::HfsPlus
        | FilesystemKind::Hfs
        | FilesystemKind::Ufs
        | FilesystemKind::Udf
        | FilesystemKind::Jfs
        | FilesystemKind::ReiserFs
        | FilesystemKind::Reiser4
        | FilesystemKind::Nilfs2
        | FilesystemKind::Ocfs2
        | FilesystemKind::Gfs2
        | FilesystemKind::Bcachefs
        | FilesystemKind::Vmfs
        | FilesystemKind::Cramfs
        | FilesystemKind::Romfs
        | FilesystemKind::Bfs
        | FilesystemKind::Minix
        | FilesystemKind::F2fs
        | FilesystemKind::Erofs => "files of this filesystem are not read",
        FilesystemKind::Bcache => "it belongs to a bcache device, which is not read",
        FilesystemKind::DmIntegrity => "its bytes lie between checksums and are not read",
        FilesystemKind::Vdo => "it is compressed and deduplicated storage, which is not read",
        _ => return None,
    })
}

impl fmt::Debug for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Volume")
            .field("name", &self.name)
            .field("extent", &self.extent)
            .field("recognised", &self.recognised)
            .field("within", &self.within)
            .field("inside", &self.inside)
            .finish_non_exhaustive()
    }
}
