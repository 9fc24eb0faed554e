use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use aiv_volume_io::{AppendFile, Extent, FileEntry, Lease, ReadAt, Storage};

use crate::fault::{Fault, FaultPlan, Op, Operation};

/// A [`Storage`] that passes everything on, counts it, and lets one chosen operation fail.
///
/// ```
/// use aiv_testkit::{Fault, FaultPlan, FaultStorage, MemStorage};
/// use aiv_volume_io::Storage;
///
/// let mut n = 0;
/// loop {
///     let storage = FaultStorage::failing(MemStorage::new(), FaultPlan::once(n, Fault::Enospc));
///     let result = storage.create("a").and_then(|mut f| f.append_all(b"x").and_then(|()| f.sync()));
///     if !storage.fired() {
///         assert!(result.is_ok());
///         break;
///     }
///     assert!(result.is_err(), "success was reported although {:?} failed", storage.trace().last());
///     n += 1;
/// }
/// assert_eq!(n, 3);
/// ```
#[derive(Debug)]
pub struct FaultStorage<S> {
    inner: Arc<S>,
    shared: Arc<Shared>,
}

impl<S> Clone for FaultStorage<S> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), shared: Arc::clone(&self.shared) }
    }
}

#[derive(Debug)]
struct Shared {
    plan: Option<FaultPlan>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    trace: Vec<Operation>,
    /// Operations so far that the planned fault can hit.
    hits: u64,
    fired: bool,
    /// Files being written, by their present name.
    open: HashMap<String, Weak<Mutex<Tail>>>,
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S: Storage> FaultStorage<S> {
    /// Counts and passes on; nothing fails.
    #[must_use]
    pub fn new(inner: S) -> Self {
        Self::with_plan(inner, None)
    }

    /// Fails as planned.
    #[must_use]
    pub fn failing(inner: S, plan: FaultPlan) -> Self {
        Self::with_plan(inner, Some(plan))
    }

    fn with_plan(inner: S, plan: Option<FaultPlan>) -> Self {
        let shared = Shared { plan, state: Mutex::default() };
        Self { inner: Arc::new(inner), shared: Arc::new(shared) }
    }

    /// The storage behind, to look at what the scenario left there.
    #[must_use]
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// Operations asked for so far, failed ones included.
    #[must_use]
    pub fn operations(&self) -> u64 {
        lock(&self.shared.state).trace.len() as u64
    }

    /// Whether the planned fault struck.
    #[must_use]
    pub fn fired(&self) -> bool {
        lock(&self.shared.state).fired
    }

    /// Everything asked for so far, in order.
    #[must_use]
    pub fn trace(&self) -> Vec<Operation> {
        lock(&self.shared.state).trace.clone()
    }

    /// Hands what a file being written still keeps back to the storage behind, as others are
    /// about to look at it: the page cache is shared, too.
    fn show(&self, name: &str) -> io::Result<()> {
        let tail = lock(&self.shared.state).open.get(name).and_then(Weak::upgrade);
        tail.map_or(Ok(()), |tail| lock(&tail).flush())
    }
}

impl Shared {
    /// Notes the operation and says how it must fail, if it must.
    fn enter(&self, op: Op, name: &str, bytes: usize) -> Option<Fault> {
        let mut state = lock(&self.state);
        let strikes = self.plan.filter(|plan| plan.fault.can_hit(op, bytes)).filter(|plan| {
            let number = state.hits;
            state.hits += 1;
            plan.strikes(number)
        });
        state.fired |= strikes.is_some();
        let failed = strikes.is_some();
        state.trace.push(Operation { op, name: name.to_owned(), failed });
        strikes.map(|plan| plan.fault)
    }

    fn check(&self, op: Op, name: &str) -> io::Result<()> {
        self.enter(op, name, 0).map_or(Ok(()), |fault| Err(fault.error()))
    }

    /// A file being written, with the end that is kept back.
    fn appender(self: &Arc<Self>, name: &str, tail: Tail) -> Box<dyn AppendFile> {
        let tail = Arc::new(Mutex::new(tail));
        lock(&self.state).open.insert(name.to_owned(), Arc::downgrade(&tail));
        Box::new(Appender { name: name.to_owned(), tail, shared: Arc::clone(self) })
    }

    /// Whether data must be kept back until it is synced, so that a sync can lose it.
    fn keeps_back(&self) -> bool {
        self.plan.is_some_and(|plan| plan.fault == Fault::SyncFailsThenSucceeds)
    }
}

impl<S: Storage> Storage for FaultStorage<S> {
    fn create(&self, name: &str) -> io::Result<Box<dyn AppendFile>> {
        self.shared.check(Op::Create, name)?;
        let tail = Tail { inner: self.inner.create(name)?, flushed: 0, kept: Vec::new() };
        Ok(self.shared.appender(name, tail))
    }

    fn reopen(&self, name: &str, len: u64) -> io::Result<Box<dyn AppendFile>> {
        let fault = self.shared.enter(Op::Reopen, name, 0);
        self.show(name)?;
        match fault {
            None => {}
            Some(Fault::SyncFailsThenSucceeds) => {
                let zeros = vec![0; usize::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?];
                self.inner.reopen(name, 0)?.append_all(&zeros)?;
                return Err(Fault::SyncFailsThenSucceeds.error());
            }
            Some(fault) => return Err(fault.error()),
        }
        let inner = self.inner.reopen(name, len)?;
        Ok(self.shared.appender(name, Tail { inner, flushed: len, kept: Vec::new() }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn ReadAt>> {
        self.shared.check(Op::Open, name)?;
        self.show(name)?;
        let inner = self.inner.open(name)?;
        Ok(Arc::new(Reader { name: name.to_owned(), inner, shared: Arc::clone(&self.shared) }))
    }

    fn publish(&self, from: &str, to: &str) -> io::Result<()> {
        self.shared.check(Op::Publish, from)?;
        self.inner.publish(from, to)?;
        let mut state = lock(&self.shared.state);
        if let Some(tail) = state.open.remove(from) {
            state.open.insert(to.to_owned(), tail);
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.shared.check(Op::Remove, name)?;
        self.inner.remove(name)?;
        lock(&self.shared.state).open.remove(name);
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<FileEntry>> {
        self.shared.check(Op::List, "")?;
        let open: Vec<String> = lock(&self.shared.state).open.keys().cloned().collect();
        open.iter().try_for_each(|name| self.show(name))?;
        self.inner.list()
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.shared.check(Op::SyncDir, "")?;
        self.inner.sync_dir()
    }

    fn free_bytes(&self) -> io::Result<Option<u64>> {
        self.inner.free_bytes()
    }

    fn lease(&self, name: &str) -> io::Result<Box<dyn Lease>> {
        self.shared.check(Op::Lease, name)?;
        let inner = self.inner.lease(name)?;
        Ok(Box::new(CheckedLease {
            name: name.to_owned(),
            inner,
            shared: Arc::clone(&self.shared),
        }))
    }
}

struct CheckedLease {
    name: String,
    inner: Box<dyn Lease>,
    shared: Arc<Shared>,
}

impl Lease for CheckedLease {
    fn token(&self) -> u64 {
        self.inner.token()
    }

    fn check(&self) -> io::Result<()> {
        self.shared.check(Op::CheckLease, &self.name)?;
        self.inner.check()
    }
}

/// The end of a file being written.
struct Tail {
    inner: Box<dyn AppendFile>,
    /// Bytes handed to `inner`.
    flushed: u64,
    /// Bytes after them that were appended and are kept back.
    kept: Vec<u8>,
}

impl std::fmt::Debug for Tail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tail").field("flushed", &self.flushed).finish_non_exhaustive()
    }
}

impl Tail {
    fn flush(&mut self) -> io::Result<()> {
        self.inner.append_all(&self.kept)?;
        self.flushed += self.kept.len() as u64;
        self.kept.clear();
        Ok(())
    }

    fn read(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let whole = Extent::new(offset, out.len() as u64);
        let front = whole.intersect(Extent::new(0, self.flushed)).map_or(0, |e| e.len);
        let front = usize::try_from(front).expect("no longer than the buffer");
        let (front, back) = out.split_at_mut(front);
        if !front.is_empty() {
            self.inner.read_exact_at(front, offset)?;
        }
        let at = offset.saturating_sub(self.flushed);
        crate::mem_storage::copy_range(&self.kept, back, at)
    }
}

struct Appender {
    name: String,
    tail: Arc<Mutex<Tail>>,
    shared: Arc<Shared>,
}

impl AppendFile for Appender {
    fn append(&mut self, data: &[u8]) -> io::Result<usize> {
        let data = match self.shared.enter(Op::Append, &self.name, data.len()) {
            Some(Fault::ShortWrite) => &data[..data.len() / 2],
            Some(fault) => return Err(fault.error()),
            None => data,
        };
        let mut tail = lock(&self.tail);
        if self.shared.keeps_back() {
            tail.kept.extend_from_slice(data);
            return Ok(data.len());
        }
        let count = tail.inner.append(data)?;
        tail.flushed += count as u64;
        Ok(count)
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let fault = self.shared.enter(Op::Read, &self.name, out.len());
        fail_read(fault, out, |part| lock(&self.tail).read(part, offset))
    }

    fn sync(&mut self) -> io::Result<()> {
        let fault = self.shared.enter(Op::Sync, &self.name, 0);
        let mut tail = lock(&self.tail);
        match fault {
            Some(Fault::SyncFailsThenSucceeds) => {
                tail.kept.fill(0);
                tail.flush()?;
                Err(Fault::SyncFailsThenSucceeds.error())
            }
            Some(fault) => Err(fault.error()),
            None => {
                tail.flush()?;
                tail.inner.sync()
            }
        }
    }
}

impl Drop for Appender {
    fn drop(&mut self) {
        // Closing a file syncs nothing, but its data is in the cache for all to read. The
        // storage behind may be failing, too; a drop has nobody to tell.
        let _ = lock(&self.tail).flush();
    }
}

struct Reader {
    name: String,
    inner: Arc<dyn ReadAt>,
    shared: Arc<Shared>,
}

impl ReadAt for Reader {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let fault = self.shared.enter(Op::Read, &self.name, out.len());
        fail_read(fault, out, |part| self.inner.read_exact_at(part, offset))
    }

    fn holes(&self, range: Extent) -> io::Result<Vec<Extent>> {
        self.inner.holes(range)
    }
}

fn fail_read(
    fault: Option<Fault>,
    out: &mut [u8],
    read: impl FnOnce(&mut [u8]) -> io::Result<()>,
) -> io::Result<()> {
    match fault {
        None => read(out),
        Some(fault) => {
            if fault == Fault::ShortRead {
                let half = out.len() / 2;
                read(&mut out[..half])?;
            }
            Err(fault.error())
        }
    }
}
