//! Storages that stand in for others: without stamps, busy, counting.

use std::io;
use std::sync::{Arc, Mutex};

use aiv_testkit::MemStorage;
use aiv_volume_io::{FileEntry, ReadAt, Storage};

use crate::wrappers::pass_on;

/// A storage without stamps, in which something may happen before a listing.
pub(crate) struct Stampless(pub(crate) MemStorage, pub(crate) fn(&MemStorage));

impl Storage for Stampless {
    fn list(&self) -> io::Result<Vec<FileEntry>> {
        self.1(&self.0);
        let list = self.0.list()?.into_iter();
        Ok(list.map(|entry| FileEntry { stamp: 0, ..entry }).collect())
    }
    pass_on!(0: create, open, publish, remove, sync_dir, lease);
}

/// A storage that counts the files that are open.
pub(crate) struct Counting(pub(crate) MemStorage, pub(crate) Arc<Mutex<Open>>);

/// Files that are open now, and that were at most.
type Open = (usize, usize);

struct Counted(Arc<dyn ReadAt>, Arc<Mutex<Open>>);

impl ReadAt for Counted {
    fn len(&self) -> u64 {
        self.0.len()
    }
    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.lock().unwrap().0 -= 1;
    }
}

impl Storage for Counting {
    fn open(&self, name: &str) -> io::Result<Arc<dyn ReadAt>> {
        let file = self.0.open(name)?;
        let mut count = self.1.lock().unwrap();
        count.0 += 1;
        count.1 = count.1.max(count.0);
        Ok(Arc::new(Counted(file, Arc::clone(&self.1))))
    }
    pass_on!(0: create, publish, remove, list, sync_dir, lease);
}
