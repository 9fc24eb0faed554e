use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use aiv_nbd_protocol::{STATUS_DIRTY, STATUS_ZERO, Uri};
use aiv_volume_io::{ChangeTracker, Extent, ReadAt, TrackerFacts};

use crate::connection::{Connection, Failure};
use crate::error::{Error, Result};
use crate::handshake::{Agreed, shake};
use crate::pool::Pool;
use crate::stream::Stream;

/// The context that tells what is allocated.
pub const BASE_ALLOCATION: &str = "base:allocation";
/// Bytes asked for at once: two strides of a backup.
const REQUEST_MAX: u32 = 2 << 20;
/// Bytes whose status is asked at once.
const STATUS_LEN_MAX: u64 = 1 << 30;
/// Runs that one call names at most; the rest counts as unknown.
const RUNS_MAX: usize = 1 << 16;

/// How a server is spoken to.
#[derive(Debug, Clone)]
pub struct NbdOptions {
    /// Longest wait for the server, each time.
    pub timeout: Duration,
    /// Connections at the same time, where the server says that several see the same disk.
    pub connections: NonZeroUsize,
    /// A bitmap of the server's (QEMU's `qemu:dirty-bitmap:NAME`), for [`NbdDisk::dirty`].
    pub dirty_bitmap: Option<String>,
    /// Whether to ask for all bitmaps the server has, for [`NbdDisk::change_trackers`]; 16 of
    /// them at most.
    pub all_bitmaps: bool,
}

impl Default for NbdOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(60),
            connections: NonZeroUsize::MIN.saturating_add(3),
            dirty_bitmap: None,
            all_bitmaps: false,
        }
    }
}

/// A disk behind an NBD server.
pub struct NbdDisk {
    uri: Uri,
    options: NbdOptions,
    len: u64,
    /// Bytes of a request: a multiple of the first, at most the second.
    sizes: (u32, u32),
    is_read_only: bool,
    has_allocation: bool,
    bitmaps: Vec<String>,
    pool: Pool,
}

impl NbdDisk {
    /// Connects and chooses the export.
    ///
    /// # Errors
    /// Any of [`Error`] but [`Error::Changed`].
    pub fn connect(uri: Uri, options: NbdOptions) -> Result<Self> {
        let Agreed { connection, export, sizes } = open(&uri, &options)?;
        if let Some(name) = &options.dirty_bitmap
            && !connection.knows(&bitmap_context(name))
        {
            return Err(Error::NoBitmap { name: name.clone() });
        }
        let several = export.flags.can_multi_conn();
        let limit = if several { options.connections.get() } else { 1 };
        let (minimum, maximum) = sizes;
        let maximum = maximum.min(REQUEST_MAX).max(minimum) / minimum * minimum;
        Ok(Self {
            uri,
            len: export.size,
            sizes: (minimum, maximum),
            is_read_only: export.flags.is_read_only(),
            has_allocation: connection.knows(BASE_ALLOCATION),
            bitmaps: connection.contexts_of(BITMAPS),
            pool: Pool::new(connection, limit),
            options,
        })
    }

    /// What was connected to.
    #[must_use]
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Whether nobody can write through this export. Somebody else may still.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    /// Whether the server tells what reads as zeros.
    #[must_use]
    pub fn has_allocation(&self) -> bool {
        self.has_allocation
    }

    /// The parts of `range` that the bitmap of [`NbdOptions::dirty_bitmap`] calls dirty: written
    /// since it began. Ascending and disjoint; what the server does not tell about counts as dirty.
    /// A hint: whether the bitmap is whole is for the
    /// caller to know.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] without a bitmap, and whatever breaks the connection.
    pub fn dirty(&self, range: Extent) -> io::Result<Vec<Extent>> {
        let name = self.options.dirty_bitmap.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        self.dirty_in(name, range)
    }

    fn dirty_in(&self, name: &str, range: Extent) -> io::Result<Vec<Extent>> {
        let (dirty, seen) = self.runs(&bitmap_context(name), STATUS_DIRTY, range)?;
        // What nobody was asked about may have been written.
        let end = range.end().min(self.len);
        let rest = Extent::between(seen, end);
        Ok(dirty.into_iter().chain((!rest.is_empty()).then_some(rest)).collect())
    }

    /// The bitmaps of [`NbdOptions::all_bitmaps`]. A server does not tell whether they are whole,
    /// nor what one mark stands for.
    #[must_use]
    pub fn change_trackers(self: &Arc<Self>) -> Vec<Box<dyn ChangeTracker>> {
        let tracker = |name: &String| {
            let facts = TrackerFacts {
                kind: "nbd bitmap",
                name: name.clone(),
                granularity: 1,
                beneath: [0; 32],
                unsound: None,
            };
            Box::new(NbdBitmap { disk: Arc::clone(self), facts }) as Box<dyn ChangeTracker>
        };
        self.bitmaps.iter().map(tracker).collect()
    }

    /// The runs of `range` that have `flag` in a context, and up to where that was asked.
    fn runs(&self, context: &str, flag: u32, range: Extent) -> io::Result<(Vec<Extent>, u64)> {
        let mut found: Vec<Extent> = Vec::new();
        let end = range.end().min(self.len);
        let minimum = u64::from(self.sizes.0);
        let mut at = range.start;
        while at < end && found.len() < RUNS_MAX {
            // Requests lie on whole units; what was answered before is not asked again.
            let from = at / minimum * minimum;
            let len = (end - from).min(STATUS_LEN_MAX).next_multiple_of(minimum);
            let len = u32::try_from(len).map_err(io::Error::other)?;
            // A server that does not tell is no worse than one that cannot.
            let answer = self.with(|connection| match connection.status(context, from, len) {
                Err(Failure::Refused(_)) => Ok(None),
                answer => answer.map(Some),
            })?;
            let Some(runs) = answer else { break };
            let mut start = from;
            for (len, flags) in runs {
                let run = Extent::new(start, len.into());
                start = run.end();
                let Some(run) = run.intersect(Extent::between(at, end)) else { continue };
                match found.last_mut() {
                    _ if flags & flag == 0 => {}
                    Some(last) if last.end() == run.start => last.len += run.len,
                    _ => found.push(run),
                }
            }
            // Each reply has a run, and no run is empty.
            at = start.max(at + 1);
        }
        Ok((found, at.min(end)))
    }

    fn with<T>(
        &self,
        work: impl FnMut(&mut Connection) -> std::result::Result<T, Failure>,
    ) -> io::Result<T> {
        let connect = || {
            let Agreed { connection, export, sizes } = open(&self.uri, &self.options)?;
            if export.size != self.len || sizes.0 > self.sizes.0 || sizes.1 < self.sizes.1 {
                return Err(Error::Changed { before: self.len, now: export.size });
            }
            Ok(connection)
        };
        self.pool.with(connect, work)
    }
}

/// A dirty bitmap behind a server.
struct NbdBitmap {
    disk: Arc<NbdDisk>,
    facts: TrackerFacts,
}

impl ChangeTracker for NbdBitmap {
    fn facts(&self) -> &TrackerFacts {
        &self.facts
    }

    fn changed(&self, range: Extent) -> io::Result<Vec<Extent>> {
        self.disk.dirty_in(&self.facts.name, range)
    }
}

/// What the contexts of QEMU's bitmaps begin with.
const BITMAPS: &str = "qemu:dirty-bitmap:";

fn bitmap_context(name: &str) -> String {
    format!("{BITMAPS}{name}")
}

fn open(uri: &Uri, options: &NbdOptions) -> Result<Agreed> {
    let stream = Stream::connect(&uri.address, options.timeout)
        .map_err(|source| Error::Connect { uri: uri.clone(), source })?;
    let bitmap = options.dirty_bitmap.as_ref().map(|name| bitmap_context(name));
    let contexts: Vec<&str> = std::iter::once(BASE_ALLOCATION).chain(bitmap.as_deref()).collect();
    shake(stream, uri, &contexts, options.all_bitmaps.then_some(BITMAPS))
}

impl ReadAt for NbdDisk {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > self.len) {
            let what = format!("{} bytes at offset {offset} reach past the end", out.len());
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
        }
        let as_len = |len: u32| usize::try_from(len).map_err(io::Error::other);
        let (minimum, maximum) = (as_len(self.sizes.0)?, as_len(self.sizes.1)?);
        let (mut at, mut rest) = (offset, out);
        while !rest.is_empty() {
            let inside = usize::try_from(at % minimum as u64).map_err(io::Error::other)?;
            let whole = rest.len() / minimum * minimum;
            let count = match (inside, whole) {
                (0, 1..) => {
                    let part = &mut rest[..whole.min(maximum)];
                    self.with(|connection| connection.read(part, at))?;
                    part.len()
                }
                // A part of a unit that is only given whole.
                _ => {
                    let mut unit = vec![0; minimum];
                    let from = at - inside as u64;
                    self.with(|connection| connection.read(&mut unit, from))?;
                    let count = rest.len().min(minimum - inside);
                    rest[..count].copy_from_slice(&unit[inside..inside + count]);
                    count
                }
            };
            at += count as u64;
            rest = &mut rest[count..];
        }
        Ok(())
    }

    /// What the server calls zeros; nothing where it does not tell.
    fn holes(&self, range: Extent) -> io::Result<Vec<Extent>> {
        if !self.has_allocation {
            return Ok(Vec::new());
        }
        Ok(self.runs(BASE_ALLOCATION, STATUS_ZERO, range)?.0)
    }
}

impl std::fmt::Debug for NbdDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct("NbdDisk");
        out.field("uri", &self.uri.to_string()).field("len", &self.len).finish_non_exhaustive()
    }
}
