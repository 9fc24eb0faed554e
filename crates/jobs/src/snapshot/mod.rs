//! Snapshots: a device that goes on showing what another one held at a moment.
//!
//! Making one stops all writers for the moment it takes. From then on they go on, and what they
//! overwrite is set aside in a space of limited size. When that overflows, the snapshot is lost,
//! and with it the backup: it is asked whether it holds when reading fails, and once more after
//! the last byte was read.

mod lvm;

pub(crate) use lvm::Lvm;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use aiv_volume_io::{Extent, ReadAt};

use crate::error::SnapshotError;

/// One way to make snapshots of one device.
pub(crate) trait SnapshotProvider: Sync {
    /// Makes a snapshot called `name` and returns its device.
    ///
    /// # Errors
    /// When there is none afterwards.
    fn create(&self, name: &str) -> Result<PathBuf, SnapshotError>;

    /// Whether the snapshot still shows what it showed at first.
    ///
    /// # Errors
    /// [`SnapshotError::Overflow`], or why that cannot be told.
    fn check(&self, name: &str) -> Result<(), SnapshotError>;

    /// Removes a snapshot.
    ///
    /// # Errors
    /// When it is still there.
    fn remove(&self, name: &str) -> Result<(), SnapshotError>;

    /// Removes those that interrupted backups of this device left behind, and returns their
    /// names. What is in use is left alone.
    fn remove_leftovers(&self) -> Vec<String>;

    /// What users call the snapshot `name`.
    fn title(&self, name: &str) -> String;
}

/// A snapshot that is removed when it is dropped.
pub(crate) struct Snapshot<'a> {
    provider: &'a dyn SnapshotProvider,
    name: String,
    /// Its device.
    pub(crate) device: PathBuf,
    is_removed: AtomicBool,
}

impl<'a> Snapshot<'a> {
    pub(crate) fn create(
        provider: &'a dyn SnapshotProvider,
        name: String,
    ) -> Result<Self, SnapshotError> {
        let created = provider.create(&name);
        // One that was made in part must not stay either.
        let device = created.inspect_err(|_| drop(provider.remove(&name)))?;
        Ok(Self { provider, name, device, is_removed: AtomicBool::new(false) })
    }

    pub(crate) fn check(&self) -> Result<(), SnapshotError> {
        self.provider.check(&self.name)
    }

    /// Removes it now, and tells when that failed.
    pub(crate) fn remove(self) -> Result<(), SnapshotError> {
        self.is_removed.store(true, Ordering::Relaxed);
        self.provider.remove(&self.name)
    }

    /// Its bytes, for as long as it holds.
    pub(crate) fn watch<'d>(&'d self, disk: &'d dyn ReadAt) -> SnapshotDisk<'d> {
        SnapshotDisk { disk, snapshot: self }
    }
}

impl Drop for Snapshot<'_> {
    fn drop(&mut self) {
        if !self.is_removed.load(Ordering::Relaxed) {
            // Whatever is left is removed by the next backup of the device.
            let _ = self.provider.remove(&self.name);
        }
    }
}

/// The device of a snapshot. A lost one fails every read as a medium does, and each would be
/// taken for a bad sector.
pub(crate) struct SnapshotDisk<'a> {
    disk: &'a dyn ReadAt,
    snapshot: &'a Snapshot<'a>,
}

impl ReadAt for SnapshotDisk<'_> {
    fn len(&self) -> u64 {
        self.disk.len()
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        self.disk.read_exact_at(out, offset).map_err(|error| match self.snapshot.check() {
            Ok(()) => error,
            Err(lost) => io::Error::other(lost),
        })
    }

    fn holes(&self, range: Extent) -> io::Result<Vec<Extent>> {
        self.disk.holes(range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aiv_volume_io::MemDisk;
    use std::sync::Mutex;

    /// Snapshots that are only talked about.
    #[derive(Default)]
    struct Told {
        there: Mutex<Vec<String>>,
        is_full: AtomicBool,
        cannot_create: bool,
    }

    impl SnapshotProvider for Told {
        fn create(&self, name: &str) -> Result<PathBuf, SnapshotError> {
            self.there.lock().unwrap().push(name.to_owned());
            match self.cannot_create {
                true => Err(SnapshotError::Overflow { name: "half made".to_owned() }),
                false => Ok(PathBuf::from("/dev/null")),
            }
        }

        fn check(&self, name: &str) -> Result<(), SnapshotError> {
            match self.is_full.load(Ordering::Relaxed) {
                true => Err(SnapshotError::Overflow { name: name.to_owned() }),
                false => Ok(()),
            }
        }

        fn remove(&self, name: &str) -> Result<(), SnapshotError> {
            self.there.lock().unwrap().retain(|other| other != name);
            Ok(())
        }

        fn remove_leftovers(&self) -> Vec<String> {
            Vec::new()
        }

        fn title(&self, name: &str) -> String {
            name.to_owned()
        }
    }

    fn there(told: &Told) -> usize {
        told.there.lock().unwrap().len()
    }

    #[test]
    fn a_snapshot_is_removed_however_it_is_given_up() {
        let told = Told::default();
        let snapshot = Snapshot::create(&told, "a".to_owned()).expect("created");
        assert_eq!(there(&told), 1);
        drop(snapshot);
        assert_eq!(there(&told), 0);
        Snapshot::create(&told, "b".to_owned()).expect("created").remove().expect("removed");
        assert_eq!(there(&told), 0);
        let failing = Told { cannot_create: true, ..Told::default() };
        assert!(Snapshot::create(&failing, "c".to_owned()).is_err());
        assert_eq!(there(&failing), 0);
    }

    #[test]
    fn a_failed_read_of_a_lost_snapshot_is_no_bad_sector() {
        let told = Told::default();
        let snapshot = Snapshot::create(&told, "a".to_owned()).expect("created");
        let disk = MemDisk::from_bytes(vec![7; 4096]);
        let watched = snapshot.watch(&disk);
        let mut out = [0; 8];
        watched.read_exact_at(&mut out, 0).expect("read");
        assert_eq!((out, watched.len()), ([7; 8], 4096));
        let past = watched.read_exact_at(&mut out, 4095).expect_err("past the end");
        assert_eq!(past.kind(), io::ErrorKind::UnexpectedEof);
        told.is_full.store(true, Ordering::Relaxed);
        let lost = watched.read_exact_at(&mut out, 4095).expect_err("past the end");
        assert!(lost.to_string().contains("ran over"), "{lost}");
    }
}
