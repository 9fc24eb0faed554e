//! Snapshots of logical volumes: with space of their own, or in the pool of a thin volume.

use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use aiv_volume_io::device::BlockDevice;

use super::SnapshotProvider;
use super::owner::{Leftovers, Owner};
use crate::error::SnapshotError;
use aiv_volume_io::programs::run;

/// How snapshots of this program are known.
const TAG: &str = "aivory-snapshot";
/// In front of the mark of the process that made one, in a tag of its own.
const OWNER: &str = "aivory-owner=";

/// Of a volume, for what is overwritten while it is read, unless somebody says otherwise.
const SHARE: u64 = 10;
const SPACE_MIN: u64 = 64 << 20;

/// Something may look at a device that just appeared, and keep it open for a moment.
const ATTEMPTS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(100);

/// A logical volume.
pub(crate) struct Lvm<'a> {
    group: String,
    volume: String,
    /// Where a thin volume has its blocks.
    pool: Option<String>,
    /// Bytes for what is overwritten.
    space: u64,
    /// Where `/proc` is found.
    root: &'a Path,
    owner: Owner,
}

impl<'a> Lvm<'a> {
    /// The logical volume that `device` is. `space` is for what is overwritten while the snapshot
    /// is there, in bytes; a thin volume has no need of it.
    pub(crate) fn of(
        device: &BlockDevice,
        root: &'a Path,
        space: Option<u64>,
        owner: impl FnOnce() -> Result<Owner, SnapshotError>,
    ) -> Result<Self, SnapshotError> {
        let number =
            format!("lv_kernel_major={} && lv_kernel_minor={}", device.major, device.minor);
        let fields = "vg_name,lv_name,lv_size,vg_free,pool_lv";
        let found = list(fields, &["--select", &number]).map_err(SnapshotError::Lvm)?;
        let fields = found.first().map(|line| line.split('|').collect::<Vec<_>>());
        let Some([group, volume, size, free, pool]) = fields.as_deref() else {
            return Err(SnapshotError::NoProvider { device: device.path.clone() });
        };
        let (size, free) = (size.parse().unwrap_or(0), free.parse().unwrap_or(u64::MAX));
        Ok(Self {
            group: (*group).to_owned(),
            volume: (*volume).to_owned(),
            pool: Some(*pool).filter(|pool| !pool.is_empty()).map(str::to_owned),
            space: space.unwrap_or_else(|| space_for(size, free)),
            root,
            owner: owner()?,
        })
    }

    fn full_name(&self, name: &str) -> String {
        format!("{}/{name}", self.group)
    }

    fn lost(&self, name: &str) -> SnapshotError {
        SnapshotError::Overflow { name: self.full_name(name) }
    }
}

/// Space for what is overwritten on a volume of `size` bytes, where `free` are left.
fn space_for(size: u64, free: u64) -> u64 {
    (size / SHARE).max(SPACE_MIN).min(free)
}

/// What `lvs` says, one line per volume, fields between `|`.
fn list(fields: &str, more: &[&str]) -> io::Result<Vec<String>> {
    let shape = ["--noheadings", "--separator", "|", "--units", "b", "--nosuffix", "--options"];
    let said = run("lvs", &[shape.as_slice(), &[fields], more].concat())?;
    Ok(said.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect())
}

/// Whether attributes as `lvs` prints them are those of a snapshot that holds: active, and in
/// health. `used` is how full its space is, in percent, where it has one.
fn holds(attributes: &str, used: &str) -> bool {
    let letter = |at: usize| attributes.as_bytes().get(at).copied();
    let has_room = used.is_empty() || used.parse::<f64>().is_ok_and(|used| used < 100.0);
    letter(4) == Some(b'a') && letter(8) == Some(b'-') && has_room
}

/// The name and the mark of a snapshot, of a line with its name and its tags.
fn marked(line: &str) -> (String, String) {
    let (name, tags) = line.split_once('|').unwrap_or((line, ""));
    let mark = tags.split(',').find_map(|tag| tag.strip_prefix(OWNER));
    (name.to_owned(), mark.unwrap_or_default().to_owned())
}

impl SnapshotProvider for Lvm<'_> {
    fn freezes(&self) -> bool {
        true
    }

    fn create(&self, name: &str) -> Result<(), SnapshotError> {
        let (origin, space) = (self.full_name(&self.volume), format!("{}b", self.space));
        let owner = format!("{OWNER}{}", self.owner);
        let mut words = vec!["--yes", "--snapshot", "--permission", "r", "--name", name];
        words.extend(["--addtag", TAG, "--addtag", &owner]);
        match self.pool {
            // It would only be made, and activated by nothing but a request of its own.
            Some(_) => words.extend(["--setactivationskip", "n"]),
            None => words.extend(["--size", &space]),
        }
        words.push(&origin);
        run("lvcreate", &words).map(drop).map_err(SnapshotError::Lvm)
    }

    fn show(&self, name: &str) -> Result<PathBuf, SnapshotError> {
        self.check(name)?;
        Ok(PathBuf::from(format!("/dev/{}", self.full_name(name))))
    }

    fn check(&self, name: &str) -> Result<(), SnapshotError> {
        let look = |name: &str, fields| {
            let found = list(fields, &[&self.full_name(name)]).map_err(SnapshotError::Lvm)?;
            Ok(found.into_iter().next().unwrap_or_default())
        };
        let line = look(name, "lv_attr,snap_percent")?;
        let (attributes, used) = line.split_once('|').unwrap_or_default();
        if !holds(attributes, used) {
            return Err(self.lost(name));
        }
        let Some(pool) = &self.pool else { return Ok(()) };
        let line = look(pool, "lv_attr,data_percent")?;
        let (attributes, used) = line.split_once('|').unwrap_or_default();
        if holds(attributes, used) { Ok(()) } else { Err(self.lost(pool)) }
    }

    fn remove(&self, name: &str) -> Result<(), SnapshotError> {
        // Whatever else has this name is not ours to remove.
        let wanted = format!("lv_tags={{{TAG}}} && lv_name={name}");
        let mut problem = None;
        for _ in 0..ATTEMPTS {
            let removed = run("lvremove", &["--yes", "--select", &wanted, &self.group]);
            let left = list("lv_name", &["--select", &wanted, &self.group]);
            if left.as_ref().is_ok_and(Vec::is_empty) {
                return Ok(());
            }
            problem = removed.err().or(left.err()).or(problem);
            sleep(PAUSE);
        }
        let problem = problem.unwrap_or_else(|| io::Error::other("lvremove: it is still there"));
        Err(SnapshotError::Lvm(problem))
    }

    fn remove_leftovers(&self) -> Leftovers {
        let wanted = format!("lv_tags={{{TAG}}} && origin={}", self.volume);
        let found = list("lv_name,lv_tags", &["--select", &wanted, &self.group]);
        let found = found.unwrap_or_default();
        let found = found.iter().map(|line| marked(line));
        let found = found.map(|(name, mark)| (self.full_name(&name), mark));
        // LVM removes nothing that is open, whoever has it open.
        let remove = |name: &str| run("lvremove", &["--yes", name]).map(drop);
        self.owner.remove_leftovers(self.root, found, remove)
    }

    fn title(&self, name: &str) -> String {
        self.full_name(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_of_lost_snapshots_are_told_from_those_that_hold() {
        // As lvs of LVM 2.03 prints them.
        assert!(holds("sri-a-s---", "12.50"));
        assert!(holds("Vri-a-tz--", ""));
        assert!(holds("Vri-aotz--", ""));
        assert!(holds("twi-aotz--", "40.00"));
        for (attributes, used) in [
            ("sri-I-s---", "100.00"),
            ("sri-a-s---", "100.00"),
            ("sri-S-s---", ""),
            ("sri---s---", ""),
            ("sri-a-s---", "?"),
            ("twi-aotzD-", "100.00"),
            ("twi-aotzM-", "40.00"),
            ("Vri-aotzF-", ""),
            ("", ""),
        ] {
            assert!(!holds(attributes, used), "{attributes} {used}");
        }
    }

    #[test]
    fn the_mark_is_told_from_other_tags() {
        for (line, name, mark) in [
            ("aiv-00000001|aivory-owner=a:1,aivory-snapshot", "aiv-00000001", "a:1"),
            ("aiv-00000001|aivory-snapshot,zoo", "aiv-00000001", ""),
            ("aiv-00000001|", "aiv-00000001", ""),
            ("aiv-00000001", "aiv-00000001", ""),
        ] {
            assert_eq!(marked(line), (name.to_owned(), mark.to_owned()), "{line}");
        }
    }

    #[test]
    fn space_is_a_share_of_the_volume_and_what_is_left_at_most() {
        assert_eq!(space_for(100 << 30, 50 << 30), 10 << 30);
        assert_eq!(space_for(100 << 20, 50 << 30), 64 << 20);
        assert_eq!(space_for(100 << 30, 4 << 20), 4 << 20);
    }
}
