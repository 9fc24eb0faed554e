//! Removes image files, newest first, each only when what stays is proven not to need it.
//!
//! Nothing here is undone, so everything is asked again right before each step: what the folder
//! holds, who is writing into it, and whether the leases are still ours.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::time::Duration;

use aiv_image_format::SetId;
use aiv_volume_io::{Job, Lease, Storage};

use crate::ancestry::{Node, node, parent_node};
use crate::census::{Census, Snapshot};
use crate::error::{Error, Result};
use crate::facts::Facts;
use crate::folder::Folder;
use crate::split::remove_image;

/// Time between two tries to get the lease of a set while a backup runs.
const RETRY: Duration = Duration::from_millis(100);

/// A file that was to be removed and is still there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftFile {
    /// Name of the file in the folder.
    pub file: String,
    /// Why it stays.
    pub why: LeftReason,
}

/// Why a file stays.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeftReason {
    /// A backup of the set runs, or one that was interrupted left a file that builds on the
    /// point.
    Backup,
    /// This point could not be restored without it, or not as safely.
    Needed(aiv_image_format::PointId),
    /// Files of the folder cannot be told apart from what may need it.
    InDoubt(String),
}

/// What to remove from a folder.
pub(crate) struct Removal<'a> {
    pub storage: &'a dyn Storage,
    pub set: SetId,
    /// The lease that keeps others from merging the set.
    pub lease: &'a dyn Lease,
    /// The states that go.
    pub dropped: &'a HashSet<Node>,
    /// No other files than these, whatever they provide.
    pub only: Option<&'a BTreeSet<String>>,
    /// What else has to hold before the file of a state goes.
    pub also: &'a dyn Fn(&Facts) -> Result<()>,
    pub job: Job<'a>,
}

/// What became of it.
#[derive(Debug, Default)]
pub(crate) struct Removed {
    pub removed: Vec<String>,
    pub left: Vec<LeftFile>,
}

impl Removal<'_> {
    /// Removes while it holds the lease that backups of the set take. When one runs, it is tried
    /// again until `patience`, from which the time waited is taken, is used up.
    pub(crate) fn run(&self, patience: &mut Duration) -> Result<Removed> {
        let mut census = Census::default();
        let mut done = Removed::default();
        let snapshot = census.take(self.storage, self.job)?;
        if self.candidates(&snapshot).is_empty() {
            return Ok(done);
        }
        let Some(backups) = self.keep_backups_out(patience)? else {
            done.leave(&self.candidates(&snapshot), &LeftReason::Backup);
            return Ok(done);
        };
        self.forget();
        // What takes the place of these files may have been published by somebody who was stopped
        // before its name was durable.
        self.storage.sync_dir().map_err(Error::io("making durable what stays"))?;
        loop {
            let snapshot = census.take(self.storage, self.job)?;
            let candidates = self.candidates(&snapshot);
            if candidates.is_empty() {
                return Ok(done);
            }
            let Some(file) = newest(&candidates) else {
                // Images that name each other as parents have no newest.
                let why = LeftReason::InDoubt("its images name each other as parents".to_owned());
                done.leave(&candidates, &why);
                return Ok(done);
            };
            if let Some(why) = self.objection(&snapshot, file)? {
                done.leave(&candidates, &why);
                return Ok(done);
            }
            self.job.check()?;
            for lease in [self.lease, &*backups] {
                lease.check().map_err(Error::io("checking the leases before a removal"))?;
            }
            remove_image(self.storage, &file.file, &file.segments)?;
            done.removed.push(file.file.clone());
            done.removed.extend_from_slice(&file.segments);
        }
    }

    /// Tells the catalogue that these points go on purpose, so that nobody takes them for lost.
    /// Where there is none, nobody will. One that cannot be written costs a needless warning later, and no more.
    fn forget(&self) {
        if let Ok((_, mut catalogue)) = Folder::scan_with(self.storage, self.job)
            && catalogue.was_read()
        {
            for (_, point, _) in self.dropped {
                catalogue.forget(*point);
            }
            let _ = catalogue.write(self.storage);
        }
    }

    /// What speaks against removing a file now.
    fn objection(&self, snapshot: &Snapshot, file: &Facts) -> Result<Option<LeftReason>> {
        match snapshot.check_doubts(self.storage, self.set) {
            Ok(()) => {}
            Err(Error::InDoubt { file, why }) => {
                return Ok(Some(LeftReason::InDoubt(format!("{file}: {why}"))));
            }
            Err(error) => return Err(error),
        }
        if snapshot.part_on(self.storage, self.dropped).is_some() {
            return Ok(Some(LeftReason::Backup));
        }
        if let Err(point) = snapshot.prove_without(&file.file, self.dropped) {
            return Ok(Some(LeftReason::Needed(point)));
        }
        (self.also)(file)?;
        Ok(None)
    }

    fn candidates<'s>(&self, snapshot: &'s Snapshot) -> Vec<&'s Facts> {
        let mut going = snapshot.going(self.dropped);
        going.retain(|facts| self.only.is_none_or(|only| only.contains(&facts.file)));
        going
    }

    fn keep_backups_out(&self, patience: &mut Duration) -> Result<Option<Box<dyn Lease>>> {
        loop {
            match self.storage.lease(&format!("set-{}", self.set)) {
                Ok(lease) => return Ok(Some(lease)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let now = RETRY.min(*patience);
                    if now.is_zero() {
                        return Ok(None);
                    }
                    self.job.check()?;
                    std::thread::sleep(now);
                    *patience -= now;
                }
                Err(source) => return Err(Error::io("taking the lease of the set")(source)),
            }
        }
    }
}

impl Removed {
    fn leave(&mut self, files: &[&Facts], why: &LeftReason) {
        let left = files.iter().map(|f| LeftFile { file: f.file.clone(), why: why.clone() });
        self.left.extend(left);
    }
}

/// One of the files that no other of them builds on.
fn newest<'s>(candidates: &[&'s Facts]) -> Option<&'s Facts> {
    let parents: HashSet<Node> = candidates.iter().filter_map(|facts| parent_node(facts)).collect();
    candidates.iter().copied().find(|facts| !parents.contains(&node(facts)))
}
