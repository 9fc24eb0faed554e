//! Snapshots of volumes of ZFS.
//!
//! A snapshot of ZFS has no device unless the property `snapdev` of its volume is changed, and
//! then all snapshots of the volume get one. So a read-only clone is made of it, whose device is
//! read: no property of the volume is touched, and all there is to remove are two things of a
//! name that nobody else has.
//!
//! ZFS knows nothing of the filesystem on a volume: who wants it whole freezes it meanwhile. A
//! snapshot never runs over. It is the pool that runs full, and then nobody can write to it.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use aiv_volume_io::device::{self, BlockDevice, DeviceKind};

use super::SnapshotProvider;
use super::owner::{Leftovers, Owner};
use crate::error::SnapshotError;

/// How snapshots and clones of this program are known: the value begins with their own name, so that
/// one that is inherited from somewhere says nothing. Behind that and `:` is the mark of the process.
const TAG: &str = "aivory:snapshot";
/// Programs that make snapshots of everything there is leave those out that have this.
const NOT_FOR_OTHERS: &str = "com.sun:auto-snapshot=false";

/// Tells the name of the volume that a device shows, as udev asks for it.
const NAMERS: [&str; 2] = ["/usr/lib/udev/zvol_id", "/lib/udev/zvol_id"];
/// Of a name, in bytes, with that of a snapshot.
const NAME_MAX: usize = 255;

/// A pool, or a volume, that can take no more than this is full.
const ROOM_MIN: u64 = 1 << 20;

const PAUSE: Duration = Duration::from_millis(100);
/// Something may look at a device that just appeared, and keep it open for a moment.
const ATTEMPTS: u32 = 50;
/// The device of a clone appears some time after it: 20 s at most.
const ATTEMPTS_TO_SEE: u32 = 200;
/// Of those, the first, in which only devices that were not there before are asked for their names.
const ATTEMPTS_AT_NEW: u32 = 10;

/// Runs a program to its end and returns what it printed.
pub(super) type Run<'a> = &'a (dyn Fn(&str, &[&str]) -> io::Result<String> + Sync);

/// A volume of ZFS.
pub(super) struct Zfs<'a> {
    /// Its name, `POOL/NAME` or longer.
    volume: String,
    /// Its length in bytes.
    len: u64,
    /// Where `/sys` and `/proc` are found.
    root: &'a Path,
    owner: Owner,
    run: Run<'a>,
}

/// Whether the kernel names volumes of ZFS like that.
pub(super) fn is_volume(device: &str) -> bool {
    let number = device.strip_prefix("zd").unwrap_or_default();
    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether ZFS lets a volume have this name. Whatever is asked for with one is a word of its own
/// for a program, and never begins with a dash.
fn is_name(text: &str) -> bool {
    let is_part = |part: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.: ".contains(&byte);
        !part.is_empty() && part.bytes().all(allowed)
    };
    text.len() <= NAME_MAX
        && text.contains('/')
        && text.split('/').all(is_part)
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
}

/// Whether this program names its snapshots like that.
fn is_ours(name: &str) -> bool {
    let number = name.strip_prefix("aiv-").unwrap_or_default();
    number.len() == 8 && number.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn failed(error: io::Error) -> SnapshotError {
    match error.kind() {
        io::ErrorKind::NotFound => SnapshotError::NoProgram { source: error },
        _ => SnapshotError::Zfs(error),
    }
}

/// A snapshot of this program that is there.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    name: String,
    /// Of the process that made it.
    mark: String,
    clones: Vec<String>,
}

impl<'a> Zfs<'a> {
    /// The volume that `device` shows, a device for which [`is_volume`] holds.
    pub(super) fn of(
        device: &BlockDevice,
        root: &'a Path,
        owner: Owner,
        run: Run<'a>,
    ) -> Result<Self, SnapshotError> {
        let volume = name_of(device, run).map_err(failed)?;
        let words = ["list", "-H", "-p", "-t", "volume", "-o", "name,volsize", &volume];
        let said = run("zfs", &words).map_err(failed)?;
        if said.trim_end() != format!("{volume}\t{}", device.size) {
            let what = format!("{} is not the volume {volume}: {said}", device.path.display());
            return Err(SnapshotError::Zfs(io::Error::other(what)));
        }
        Ok(Self { volume, len: device.size, root, owner, run })
    }

    fn tag(&self, name: &str) -> String {
        format!("{TAG}={name}:{}", self.owner)
    }

    fn zfs(&self, words: &[&str]) -> io::Result<String> {
        (self.run)("zfs", words)
    }

    /// The volume, and after it a snapshot.
    fn snapshot(&self, name: &str) -> String {
        format!("{}@{name}", self.volume)
    }

    /// Beside the volume.
    fn clone_of(&self, name: &str) -> String {
        let parent = self.volume.rsplit_once('/').map_or("", |(parent, _)| parent);
        format!("{parent}/{name}")
    }

    /// Devices of volumes, of whichever.
    fn devices(&self) -> Result<Vec<BlockDevice>, SnapshotError> {
        let all = device::list(self.root).map_err(|e| SnapshotError::Zfs(io::Error::other(e)))?;
        let is = |device: &BlockDevice| device.kind == DeviceKind::Disk && is_volume(&device.name);
        Ok(all.into_iter().filter(is).collect())
    }

    /// Snapshots of the volume that this program made.
    fn ours(&self) -> io::Result<Vec<Found>> {
        let fields = format!("name,clones,{TAG}");
        let words = ["list", "-H", "-p", "-d", "1", "-t", "snapshot", "-o", &fields, &self.volume];
        Ok(self.zfs(&words)?.lines().filter_map(|line| self.found(line)).collect())
    }

    fn found(&self, line: &str) -> Option<Found> {
        let mut fields = line.split('\t');
        let name = fields.next()?.strip_prefix(&self.volume)?.strip_prefix('@')?;
        let (clones, tag) = (fields.next()?, fields.next()?);
        let (named, mark) = tag.split_once(':').unwrap_or((tag, ""));
        if !is_ours(name) || named != name {
            return None;
        }
        let clones = clones.split(',').filter(|clone| !clone.is_empty() && *clone != "-");
        Some(Found {
            name: name.to_owned(),
            mark: mark.to_owned(),
            clones: clones.map(str::to_owned).collect(),
        })
    }

    /// Destroys one of them. ZFS refuses that while the device of its clone is open.
    fn destroy(&self, found: &Found) -> io::Result<()> {
        let clone = self.clone_of(&found.name);
        // Whatever others made of it keeps it, and is not ours to remove.
        if let Some(other) = found.clones.iter().find(|other| **other != clone) {
            let snapshot = self.snapshot(&found.name);
            return Err(io::Error::other(format!("{snapshot} has another clone, {other}")));
        }
        if !found.clones.is_empty() {
            self.zfs(&["destroy", &clone])?;
        }
        self.zfs(&["destroy", &self.snapshot(&found.name)]).map(drop)
    }
}

/// The name of the volume that a device shows.
fn name_of(device: &BlockDevice, run: Run<'_>) -> io::Result<String> {
    let path = device.path.to_string_lossy();
    let ask = |namer: &&str| match run(namer, &[&path]) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        answer => Some(answer),
    };
    let none = || Err(io::Error::new(io::ErrorKind::NotFound, "zvol_id: no such program"));
    let said = NAMERS.iter().find_map(ask).unwrap_or_else(none)?;
    // It writes `+` for a blank, and no name has one.
    let name = said.trim_end_matches('\n').replace('+', " ");
    match is_name(&name) {
        true => Ok(name),
        false => Err(io::Error::other(format!("{path} is no volume of ZFS: {name:?}"))),
    }
}

impl SnapshotProvider for Zfs<'_> {
    fn freezes(&self) -> bool {
        false
    }

    fn create(&self, name: &str) -> Result<(), SnapshotError> {
        let words = ["snapshot", "-o", &self.tag(name), &self.snapshot(name)];
        self.zfs(&words).map(drop).map_err(failed)
    }

    fn show(&self, name: &str) -> Result<PathBuf, SnapshotError> {
        self.check(name)?;
        let before: BTreeSet<_> = self.devices()?.into_iter().map(|device| device.name).collect();
        let (tag, clone) = (self.tag(name), self.clone_of(name));
        let snapshot = self.snapshot(name);
        // With `volmode=dev` the kernel looks for no partitions in it.
        let options = ["-o", "readonly=on", "-o", "volmode=dev", "-o", NOT_FOR_OTHERS, "-o", &tag];
        let words = [&["clone"], &options[..], &[&snapshot, &clone]].concat();
        self.zfs(&words).map_err(failed)?;
        for attempt in 0..ATTEMPTS_TO_SEE {
            // Another one may have gone meanwhile, and its number was given to this one.
            let all = attempt >= ATTEMPTS_AT_NEW;
            let may_be = |device: &&BlockDevice| {
                !before.contains(&device.name) || (all && device.size == self.len)
            };
            for device in self.devices()?.iter().filter(may_be) {
                // The kernel says that it is read-only after it was opened once.
                let is_it = name_of(device, self.run).is_ok_and(|name| name == clone);
                if is_it && device.read_only && device.size == self.len {
                    return Ok(device.path.clone());
                }
            }
            sleep(PAUSE);
        }
        let what = format!("no read-only device of {clone} appeared");
        Err(SnapshotError::Zfs(io::Error::other(what)))
    }

    fn check(&self, _: &str) -> Result<(), SnapshotError> {
        let pool = self.volume.split('/').next().unwrap_or_default();
        let words = ["list", "-H", "-p", "-o", "name,available", pool, &self.volume];
        let said = self.zfs(&words).map_err(failed)?;
        // What is held for a volume of a fixed size is its own: the pool may be full without it.
        for name in [pool, &self.volume] {
            let line = said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('\t'));
            let room: Option<u64> = line.and_then(|room| room.parse().ok());
            if room.is_none_or(|room| room < ROOM_MIN) {
                return Err(SnapshotError::Overflow { name: name.to_owned() });
            }
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), SnapshotError> {
        let mut problem = None;
        for _ in 0..ATTEMPTS {
            let all = self.ours();
            let found = all.map(|all| all.into_iter().find(|found| found.name == name));
            match found.map(|found| found.map(|found| self.destroy(&found))) {
                Ok(None) => return Ok(()),
                // Gone, by what ZFS says; asked once more.
                Ok(Some(Ok(()))) => continue,
                Ok(Some(Err(error))) | Err(error) => problem = Some(error),
            }
            sleep(PAUSE);
        }
        let problem = problem.unwrap_or_else(|| io::Error::other("zfs: it is still there"));
        Err(failed(problem))
    }

    fn remove_leftovers(&self) -> Leftovers {
        let all = self.ours().unwrap_or_default();
        let marks = all.iter().map(|found| (self.snapshot(&found.name), found.mark.clone()));
        let remove = |title: &str| {
            let found = all.iter().find(|found| self.snapshot(&found.name) == title);
            found.map_or(Ok(()), |found| self.destroy(found))
        };
        self.owner.remove_leftovers(self.root, marks, remove)
    }

    fn title(&self, name: &str) -> String {
        self.snapshot(name)
    }
}

#[cfg(test)]
mod tests;
