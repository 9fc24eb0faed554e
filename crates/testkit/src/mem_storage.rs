use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aiv_volume_io::{
    AppendFile, FileEntry, Lease, ReadAt, Storage, check_lease_name, check_name, check_reopened,
    is_listed,
};

use crate::random::Random;

/// A folder of files in memory. Clones share the folder; [`MemStorage::fork`] copies it.
///
/// Behaves as a local folder does: a removed file stays readable where it is open, an open
/// file keeps the length it had, names are checked by the same rules.
#[derive(Debug, Clone, Default)]
pub struct MemStorage {
    folder: Arc<Mutex<Folder>>,
}

#[derive(Debug, Default)]
struct Folder {
    files: BTreeMap<String, Inode>,
    /// Leases held now, with the token of the holder.
    leases: BTreeMap<String, u64>,
    tokens: Tokens,
    free_bytes: Option<u64>,
}

/// The last token of each lease. A folder keeps them for ever.
pub(crate) type Tokens = BTreeMap<String, u64>;

type Inode = Arc<Mutex<File>>;

#[derive(Debug, Clone, Default)]
struct File {
    /// Shared with readers, forks and crash states, and copied when appended to while shared.
    bytes: Arc<Vec<u8>>,
    /// How often another file was put in its place by [`MemStorage::insert`].
    replaced: u64,
}

impl File {
    /// Made from what the file is, not from a count of changes: so forks and the states after
    /// a crash have the stamps of the files they kept, as a real folder has, and no file that
    /// differs has the stamp of another by coincidence of counts.
    fn stamp(&self, name: &str) -> u64 {
        let content = crc32c::crc32c(&self.bytes).into();
        let name = crc32c::crc32c(name.as_bytes()).into();
        Random::new(&[content, name, self.replaced]).next().max(1)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemStorage {
    /// An empty folder.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A copy with a life of its own. Costs a pointer per file; nobody holds a lease in it.
    #[must_use]
    pub fn fork(&self) -> Self {
        let folder = lock(&self.folder);
        let copy = |(name, file): (&String, &Inode)| {
            (name.clone(), Arc::new(Mutex::new(lock(file).clone())))
        };
        let files = folder.files.iter().map(copy).collect();
        let leases = BTreeMap::new();
        let copy =
            Folder { files, leases, tokens: folder.tokens.clone(), free_bytes: folder.free_bytes };
        Self { folder: Arc::new(Mutex::new(copy)) }
    }

    /// The bytes of a file, `None` when there is none of that name.
    #[must_use]
    pub fn contents(&self, name: &str) -> Option<Arc<Vec<u8>>> {
        lock(&self.folder).files.get(name).map(|file| Arc::clone(&lock(file).bytes))
    }

    /// Puts a file there, replacing what was: for planting damage.
    pub fn insert(&self, name: &str, bytes: impl Into<Arc<Vec<u8>>>) {
        let mut folder = lock(&self.folder);
        let replaced = folder.files.get(name).map_or(0, |before| lock(before).replaced + 1);
        let inode = Arc::new(Mutex::new(File { bytes: bytes.into(), replaced }));
        folder.files.insert(name.to_owned(), inode);
    }

    /// What [`Storage::free_bytes`] answers from now on; `None`, as at first, for "cannot tell".
    /// Nothing counts it down and nothing is refused for want of space: that is a fault's work.
    pub fn set_free_bytes(&self, free: Option<u64>) {
        lock(&self.folder).free_bytes = free;
    }

    /// Takes a lease over and gives it back at once, as another machine can when the holder lost
    /// its lock without noticing: the holder's check fails from now on, and anybody may take
    /// the lease.
    pub fn steal_lease(&self, name: &str) {
        let mut folder = lock(&self.folder);
        folder.leases.remove(name);
        folder.next_token(name);
    }

    pub(crate) fn tokens(&self) -> Tokens {
        lock(&self.folder).tokens.clone()
    }

    pub(crate) fn set_tokens(&self, tokens: Tokens) {
        lock(&self.folder).tokens = tokens;
    }

    /// Names of all files, sorted; catalogues included, which are not listed.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        lock(&self.folder).files.keys().cloned().collect()
    }
}

impl<B: Into<Arc<Vec<u8>>>> FromIterator<(String, B)> for MemStorage {
    fn from_iter<I: IntoIterator<Item = (String, B)>>(files: I) -> Self {
        let inode = |bytes: B| Arc::new(Mutex::new(File { bytes: bytes.into(), replaced: 0 }));
        let files = files.into_iter().map(|(name, bytes)| (name, inode(bytes))).collect();
        Self { folder: Arc::new(Mutex::new(Folder { files, ..Folder::default() })) }
    }
}

impl Folder {
    fn next_token(&mut self, lease: &str) -> u64 {
        let token = self.tokens.entry(lease.to_owned()).or_default();
        *token += 1;
        *token
    }

    fn find(&self, name: &str) -> io::Result<&Inode> {
        check_name(name)?;
        self.check_way(name)?;
        if self.is_folder(name) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        self.files.get(name).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Refuses a name that cannot be given to a new file.
    fn check_free(&self, name: &str) -> io::Result<()> {
        check_name(name)?;
        self.check_way(name)?;
        if self.files.contains_key(name) || self.is_folder(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        Ok(())
    }

    /// A file cannot be a folder on the way to another.
    fn check_way(&self, name: &str) -> io::Result<()> {
        let mut folders = name.match_indices('/').map(|(at, _)| &name[..at]);
        if folders.any(|folder| self.files.contains_key(folder)) {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(())
    }

    fn is_folder(&self, name: &str) -> bool {
        let prefix = format!("{name}/");
        self.files.range(prefix.clone()..).next().is_some_and(|(file, _)| file.starts_with(&prefix))
    }
}

impl Storage for MemStorage {
    fn create(&self, name: &str) -> io::Result<Box<dyn AppendFile>> {
        let mut folder = lock(&self.folder);
        folder.check_free(name)?;
        let inode = Inode::default();
        folder.files.insert(name.to_owned(), Arc::clone(&inode));
        Ok(Box::new(Appender { inode }))
    }

    fn reopen(&self, name: &str, len: u64) -> io::Result<Box<dyn AppendFile>> {
        check_reopened(name)?;
        let inode = Arc::clone(lock(&self.folder).find(name)?);
        {
            let mut file = lock(&inode);
            let len = usize::try_from(len).ok().filter(|&len| len <= file.bytes.len());
            let len = len.ok_or(io::ErrorKind::InvalidInput)?;
            Arc::make_mut(&mut file.bytes).truncate(len);
        }
        Ok(Box::new(Appender { inode }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn ReadAt>> {
        let bytes = Arc::clone(&lock(lock(&self.folder).find(name)?).bytes);
        Ok(Arc::new(Reader { bytes }))
    }

    fn publish(&self, from: &str, to: &str) -> io::Result<()> {
        let mut folder = lock(&self.folder);
        let inode = Arc::clone(folder.find(from)?);
        folder.check_free(to)?;
        folder.files.remove(from);
        folder.files.insert(to.to_owned(), inode);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut folder = lock(&self.folder);
        folder.find(name)?;
        folder.files.remove(name);
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<FileEntry>> {
        let entry = |(name, file): (&String, &Inode)| {
            let file = lock(file);
            FileEntry { name: name.clone(), len: file.bytes.len() as u64, stamp: file.stamp(name) }
        };
        let folder = lock(&self.folder);
        Ok(folder.files.iter().filter(|(name, _)| is_listed(name)).map(entry).collect())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<Option<u64>> {
        Ok(lock(&self.folder).free_bytes)
    }

    fn lease(&self, name: &str) -> io::Result<Box<dyn Lease>> {
        check_lease_name(name)?;
        let mut folder = lock(&self.folder);
        if folder.leases.contains_key(name) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let token = folder.next_token(name);
        folder.leases.insert(name.to_owned(), token);
        Ok(Box::new(HeldLease { name: name.to_owned(), token, folder: Arc::clone(&self.folder) }))
    }
}

struct HeldLease {
    name: String,
    token: u64,
    folder: Arc<Mutex<Folder>>,
}

impl Lease for HeldLease {
    fn token(&self) -> u64 {
        self.token
    }

    fn check(&self) -> io::Result<()> {
        if lock(&self.folder).tokens.get(&self.name) == Some(&self.token) {
            return Ok(());
        }
        let message = format!("the lease {} was lost: it was taken over", self.name);
        Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
    }
}

impl Drop for HeldLease {
    fn drop(&mut self) {
        let mut folder = lock(&self.folder);
        // Whoever took it over keeps it.
        if folder.leases.get(&self.name) == Some(&self.token) {
            folder.leases.remove(&self.name);
        }
    }
}

struct Reader {
    bytes: Arc<Vec<u8>>,
}

impl ReadAt for Reader {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        copy_range(&self.bytes, out, offset)
    }
}

struct Appender {
    inode: Inode,
}

impl AppendFile for Appender {
    fn append(&mut self, data: &[u8]) -> io::Result<usize> {
        Arc::make_mut(&mut lock(&self.inode).bytes).extend_from_slice(data);
        Ok(data.len())
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        copy_range(&lock(&self.inode).bytes, out, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Fills `out` from `bytes` at `offset` or says that the bytes end before.
pub(crate) fn copy_range(bytes: &[u8], out: &mut [u8], offset: u64) -> io::Result<()> {
    let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
    let range = start..start.saturating_add(out.len());
    out.copy_from_slice(bytes.get(range).ok_or(io::ErrorKind::UnexpectedEof)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind<T>(result: io::Result<T>) -> io::ErrorKind {
        result.err().expect("should fail").kind()
    }

    fn put(storage: &MemStorage, name: &str, bytes: &[u8]) {
        storage.create(name).unwrap().append_all(bytes).unwrap();
    }

    #[test]
    fn clones_share_and_forks_do_not() {
        let storage = MemStorage::new();
        put(&storage, "a", b"1");
        let (clone, fork) = (storage.clone(), storage.fork());
        put(&storage, "b", b"2");
        assert_eq!(clone.names(), ["a", "b"]);
        assert_eq!(fork.names(), ["a"]);
    }

    #[test]
    fn an_open_file_outlives_its_name_and_keeps_its_length() {
        let storage = MemStorage::new();
        let mut file = storage.create("a").unwrap();
        file.append_all(b"12").unwrap();
        let open = storage.open("a").unwrap();
        file.append_all(b"34").unwrap();
        storage.remove("a").unwrap();
        let mut out = [0; 2];
        open.read_exact_at(&mut out, 0).unwrap();
        assert_eq!((&out, open.len()), (b"12", 2));
        assert_eq!(kind(open.read_exact_at(&mut out, 1)), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn names_clash_as_they_do_in_a_folder() {
        let storage = MemStorage::new();
        put(&storage, "a/b", b"");
        put(&storage, "c", b"");
        assert_eq!(kind(storage.create("a")), io::ErrorKind::AlreadyExists);
        assert_eq!(kind(storage.create("a/b")), io::ErrorKind::AlreadyExists);
        assert_eq!(kind(storage.create("a/b/c")), io::ErrorKind::NotADirectory);
        assert_eq!(kind(storage.open("a")), io::ErrorKind::IsADirectory);
        assert_eq!(kind(storage.publish("c", "a/b")), io::ErrorKind::AlreadyExists);
        assert_eq!(kind(storage.publish("x", "y")), io::ErrorKind::NotFound);
        assert_eq!(kind(storage.remove("../c")), io::ErrorKind::InvalidInput);
        assert_eq!(storage.names(), ["a/b", "c"]);
    }

    #[test]
    fn a_file_put_in_the_place_of_another_has_another_stamp_whatever_is_in_it() {
        let storage = MemStorage::new();
        let stamp = |storage: &MemStorage| storage.list().unwrap()[0].stamp;
        put(&storage, "a", b"1");
        let first = stamp(&storage);
        storage.insert("a", b"1".to_vec());
        let second = stamp(&storage);
        assert!(first != second && second == stamp(&storage.fork()));
    }

    #[test]
    fn a_lease_excludes_others_until_it_is_dropped() {
        let storage = MemStorage::new();
        let held = storage.lease("set").unwrap();
        assert_eq!(kind(storage.clone().lease("set")), io::ErrorKind::WouldBlock);
        storage.lease("other").unwrap();
        drop(held);
        storage.lease("set").unwrap();
    }

    #[test]
    fn a_stolen_lease_is_lost_for_good_and_belongs_to_who_takes_it_next() {
        let storage = MemStorage::new();
        let first = storage.lease("set").unwrap();
        let other = storage.lease("other").unwrap();
        first.check().unwrap();
        storage.steal_lease("set");
        assert_eq!(kind(first.check()), io::ErrorKind::PermissionDenied);
        other.check().unwrap();
        let second = storage.lease("set").unwrap();
        assert!(second.token() > first.token());
        assert_eq!(kind(first.check()), io::ErrorKind::PermissionDenied);
        drop(first);
        second.check().unwrap();
        assert_eq!(kind(storage.lease("set")), io::ErrorKind::WouldBlock);
    }
}
