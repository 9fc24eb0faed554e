//! Snapshots of logical volumes: with space of their own, or in the pool of a thin volume.

use std::io;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use aiv_volume_io::device::BlockDevice;

use super::SnapshotProvider;
use crate::error::SnapshotError;
use aiv_volume_io::programs::run;

/// How snapshots of this program are known.
const TAG: &str = "aivory-snapshot";

/// Of a volume, for what is overwritten while it is read, unless somebody says otherwise.
const SHARE: u64 = 10;
const SPACE_MIN: u64 = 64 << 20;

/// Something may look at a device that just appeared, and keep it open for a moment.
const ATTEMPTS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(100);

/// A logical volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lvm {
    group: String,
    volume: String,
    /// Where a thin volume has its blocks.
    pool: Option<String>,
    /// Bytes for what is overwritten.
    space: u64,
}

impl Lvm {
    /// The logical volume that `device` is. `space` is for what is overwritten while the snapshot
    /// is there, in bytes; a thin volume has no need of it.
    pub(crate) fn of(device: &BlockDevice, space: Option<u64>) -> Result<Self, SnapshotError> {
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

impl SnapshotProvider for Lvm {
    fn freezes(&self) -> bool {
        true
    }

    fn create(&self, name: &str) -> Result<(), SnapshotError> {
        let (origin, space) = (self.full_name(&self.volume), format!("{}b", self.space));
        let mut words = vec!["--yes", "--snapshot", "--permission", "r", "--name", name];
        words.extend(["--addtag", TAG]);
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

    fn remove_leftovers(&self) -> Vec<String> {
        let wanted = format!("lv_tags={{{TAG}}} && origin={}", self.volume);
        let found = list("lv_name", &["--select", &wanted, &self.group]).unwrap_or_default();
        // That of a backup that is running is open, and LVM removes nothing that is.
        let remove = |name: &String| run("lvremove", &["--yes", &self.full_name(name)]).is_ok();
        found.into_iter().filter(remove).map(|name| self.full_name(&name)).collect()
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
    fn space_is_a_share_of_the_volume_and_what_is_left_at_most() {
        assert_eq!(space_for(100 << 30, 50 << 30), 10 << 30);
        assert_eq!(space_for(100 << 20, 50 << 30), 64 << 20);
        assert_eq!(space_for(100 << 30, 4 << 20), 4 << 20);
    }
}
