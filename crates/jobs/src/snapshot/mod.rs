//! Snapshots: a device that goes on showing what another one held at a moment.
//!
//! Making one stops all writers for the moment it takes. From then on they go on, and what they
//! overwrite is set aside in a space of limited size. When that overflows, the snapshot is lost
//! or the writers have no more room, and the backup ends: whether it holds is asked now and then
//! while it is read, when reading fails, and once more after the last byte was read.

mod lvm;
mod owner;
mod zfs;

use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use aiv_backup_engine::Clock;
use aiv_volume_io::device::BlockDevice;
use aiv_volume_io::programs::run;
use aiv_volume_io::{Extent, ReadAt};

use crate::error::SnapshotError;
use crate::world::World;
use lvm::Lvm;
pub(crate) use owner::Leftovers;
use owner::Owner;
use zfs::Zfs;

/// Time between two looks at a snapshot that is read.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// One way to make snapshots of one device.
pub(crate) trait SnapshotProvider: Sync {
    /// Whether filesystems on the device are frozen for the moment without anybody asking for
    /// it.
    fn freezes(&self) -> bool;

    /// Makes a snapshot called `name`. As little as possible is done here: everybody waits.
    ///
    /// # Errors
    /// When there is none afterwards.
    fn create(&self, name: &str) -> Result<(), SnapshotError>;

    /// The device that shows a snapshot; called once.
    ///
    /// # Errors
    /// When there is none, or the snapshot does not hold.
    fn show(&self, name: &str) -> Result<PathBuf, SnapshotError>;

    /// Whether the snapshot still shows what it showed at first, and there is room for writers.
    ///
    /// # Errors
    /// [`SnapshotError::Overflow`], or why that cannot be told.
    fn check(&self, name: &str) -> Result<(), SnapshotError>;

    /// Removes a snapshot.
    ///
    /// # Errors
    /// When it is still there.
    fn remove(&self, name: &str) -> Result<(), SnapshotError>;

    /// Removes those that interrupted backups of this device left behind. Those of processes that
    /// run are left alone, and so are those of which that cannot be told.
    fn remove_leftovers(&self) -> Leftovers;

    /// What users call the snapshot `name`.
    fn title(&self, name: &str) -> String;
}

/// Who makes snapshots of `device`. `space` is for what is overwritten meanwhile, in bytes, where
/// that has a size of its own.
pub(crate) fn provider<'a>(
    device: &BlockDevice,
    space: Option<u64>,
    world: &'a dyn World,
) -> Result<Box<dyn SnapshotProvider + 'a>, SnapshotError> {
    if let Some(disk) = device.parent.as_ref().filter(|disk| zfs::is_volume(disk)) {
        let volume = Path::new("/dev").join(disk);
        return Err(SnapshotError::PartOfVolume { device: device.path.clone(), volume });
    }
    let root = world.root();
    let owner = || Owner::this_process(root, process::id()).map_err(SnapshotError::NoOwner);
    if zfs::is_volume(&device.name) {
        return Ok(Box::new(Zfs::of(device, root, owner()?, &run)?));
    }
    Ok(Box::new(Lvm::of(device, root, space, owner)?))
}

/// A snapshot that is removed when it is dropped.
pub(crate) struct Snapshot<'a> {
    provider: &'a dyn SnapshotProvider,
    name: String,
    is_removed: AtomicBool,
    /// What ran over. Should there be room again later, it has done so all the same.
    full: OnceLock<String>,
}

impl<'a> Snapshot<'a> {
    pub(crate) fn create(
        provider: &'a dyn SnapshotProvider,
        name: String,
    ) -> Result<Self, SnapshotError> {
        let created = provider.create(&name);
        // One that was made in part must not stay either.
        created.inspect_err(|_| drop(provider.remove(&name)))?;
        Ok(Self { provider, name, is_removed: AtomicBool::new(false), full: OnceLock::new() })
    }

    /// Its device.
    pub(crate) fn show(&self) -> Result<PathBuf, SnapshotError> {
        self.provider.show(&self.name)
    }

    pub(crate) fn check(&self) -> Result<(), SnapshotError> {
        let overflow = |name: &String| SnapshotError::Overflow { name: name.clone() };
        if let Some(name) = self.full.get() {
            return Err(overflow(name));
        }
        self.provider.check(&self.name).map_err(|error| match error {
            SnapshotError::Overflow { name } => overflow(self.full.get_or_init(|| name)),
            error => error,
        })
    }

    /// Removes it now, and tells when that failed.
    pub(crate) fn remove(self) -> Result<(), SnapshotError> {
        self.is_removed.store(true, Ordering::Relaxed);
        self.provider.remove(&self.name)
    }

    /// Its bytes, for as long as it holds.
    pub(crate) fn watch<'d>(
        &'d self,
        disk: &'d dyn ReadAt,
        clock: &'d dyn Clock,
    ) -> SnapshotDisk<'d> {
        SnapshotDisk { disk, snapshot: self, clock, looked: Mutex::new(clock.now()) }
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
    clock: &'a dyn Clock,
    /// When it was asked last whether the snapshot holds.
    looked: Mutex<Duration>,
}

impl SnapshotDisk<'_> {
    /// Asks whether the snapshot holds, if that was long ago.
    fn look(&self) -> io::Result<()> {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        if now.saturating_sub(*looked) < LOOK_EVERY {
            return Ok(());
        }
        *looked = now;
        self.snapshot.check().map_err(io::Error::other)
    }
}

impl ReadAt for SnapshotDisk<'_> {
    fn len(&self) -> u64 {
        self.disk.len()
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        self.look()?;
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

    /// A clock that stands still until somebody sleeps.
    #[derive(Default)]
    struct Hands(Mutex<Duration>);

    impl Clock for Hands {
        fn now(&self) -> Duration {
            *self.0.lock().unwrap()
        }

        fn sleep(&self, time: Duration) {
            *self.0.lock().unwrap() += time;
        }
    }

    /// Snapshots that are only talked about.
    #[derive(Default)]
    struct Told {
        there: Mutex<Vec<String>>,
        is_full: AtomicBool,
        cannot_create: bool,
    }

    impl SnapshotProvider for Told {
        fn freezes(&self) -> bool {
            true
        }

        fn create(&self, name: &str) -> Result<(), SnapshotError> {
            self.there.lock().unwrap().push(name.to_owned());
            match self.cannot_create {
                true => Err(SnapshotError::Overflow { name: "half made".to_owned() }),
                false => Ok(()),
            }
        }

        fn show(&self, _: &str) -> Result<PathBuf, SnapshotError> {
            Ok(PathBuf::from("/dev/null"))
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

        fn remove_leftovers(&self) -> Leftovers {
            Leftovers::default()
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
        let clock = Hands::default();
        let watched = snapshot.watch(&disk, &clock);
        let mut out = [0; 8];
        watched.read_exact_at(&mut out, 0).expect("read");
        assert_eq!((out, watched.len()), ([7; 8], 4096));
        let past = watched.read_exact_at(&mut out, 4095).expect_err("past the end");
        assert_eq!(past.kind(), io::ErrorKind::UnexpectedEof);
        told.is_full.store(true, Ordering::Relaxed);
        let lost = watched.read_exact_at(&mut out, 4095).expect_err("past the end");
        assert!(lost.to_string().contains("ran over"), "{lost}");
    }

    #[test]
    fn a_snapshot_that_ran_over_is_noticed_while_it_is_read_and_stays_lost() {
        let told = Told::default();
        let snapshot = Snapshot::create(&told, "a".to_owned()).expect("created");
        let disk = MemDisk::from_bytes(vec![7; 4096]);
        let clock = Hands::default();
        let watched = snapshot.watch(&disk, &clock);
        told.is_full.store(true, Ordering::Relaxed);
        watched.read_exact_at(&mut [0; 8], 0).expect("nobody looked yet");
        clock.sleep(LOOK_EVERY);
        let lost = watched.read_exact_at(&mut [0; 8], 0).expect_err("full");
        assert!(lost.to_string().contains("ran over"), "{lost}");
        told.is_full.store(false, Ordering::Relaxed);
        assert!(matches!(snapshot.check(), Err(SnapshotError::Overflow { name }) if name == "a"));
    }
}
