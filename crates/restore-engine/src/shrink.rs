//! A filesystem made smaller for a smaller target: in a copy, so that the image stays as it is.
//!
//! The partition is restored into a sparse file, which takes as much space as the filesystem
//! uses; its own tool makes it smaller there and checks it; the restore takes the partition from
//! that file. Nothing of that touches the target. Partitions behind it begin earlier on the target
//! then: they are taken from the same file, in which their boot sectors say so.

use std::fs::File;
use std::path::{Path, PathBuf};

use aiv_chain::View;
use aiv_volume_io::partition::{Partition, PartitionKind};
use aiv_volume_io::{Extent, FileDisk, Job};

use crate::error::{Error, Refusal, Result};
use crate::identity;
use crate::moved::{self, Moved};
use crate::options::{RestoreOptions, Unused};
use crate::plan::RestorePlan;
use crate::run::{Around, Failed};
use crate::table::{Request, read_draft};
use crate::target::TargetFacts;
use crate::tools::{Tools, can_shrink, shrink_filesystem};

/// Partitions end at multiples of this, as all tools make them.
const ALIGNMENT: u64 = 1 << 20;

/// Primary partitions of an MBR have numbers up to this one; the others lie in chains of records.
const PRIMARIES: u32 = 4;

/// The partition that has to be smaller on a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToShrink {
    /// Its number.
    pub number: u32,
    /// What it holds, as `blkid` names it; empty when not known.
    pub filesystem: String,
    /// Its bytes on the source disk.
    pub before: Extent,
    /// The bytes it can have on the target.
    pub after: Extent,
    /// The partitions behind it, which begin earlier on the target. Ascending.
    pub moved: Vec<Moved>,
}

/// A partition made smaller, and those that move with it, in a file that is removed with this value.
#[derive(Debug)]
pub struct Shrunk {
    what: ToShrink,
    file: FileDisk,
    path: PathBuf,
}

impl ToShrink {
    /// The partition that must be smaller for `view` to go onto the target that `facts`
    /// describe; `None` when none has to, or when making one smaller does not help.
    ///
    /// # Errors
    /// [`Error::Table`] when the table of the point cannot be read.
    pub fn find(
        view: &View,
        facts: &TargetFacts,
        options: &RestoreOptions,
    ) -> Result<Option<Self>> {
        let request = Request::new(view, facts, options);
        if options.partition.is_some() || !request.is_for_smaller() {
            return Ok(None);
        }
        let Ok(draft) = read_draft(view, &request)? else { return Ok(None) };
        let Some(draft) = request.placed(draft) else { return Ok(None) };
        let Ok(usable) = draft.usable() else { return Ok(None) };
        let end = usable.end() - usable.end() % ALIGNMENT;
        let partitions = draft.partitions();
        let mut beyond = partitions.iter().filter(|p| p.extent.end() > usable.end());
        let single = match (beyond.next(), beyond.next()) {
            (Some(partition), None) => Some(Self {
                number: partition.number,
                filesystem: request.filesystem(partition.number),
                before: partition.extent,
                after: Extent::between(partition.extent.start, end),
                moved: Vec::new(),
            }),
            (None, _) => return Ok(None),
            _ => None,
        };
        let single = single.filter(|what| !what.after.is_empty());
        let is_enough = single.as_ref().is_some_and(|what| can_shrink(&what.filesystem));
        let with_moves = || Self::with_moves(&request, partitions, end);
        Ok(if is_enough { single } else { with_moves().or(single) })
    }

    /// The largest filesystem that can be made smaller, with all partitions behind it moved.
    fn with_moves(request: &Request<'_>, partitions: &[Partition], end: u64) -> Option<Self> {
        let is_movable =
            |p: &Partition| p.number <= PRIMARIES || matches!(p.kind, PartitionKind::Gpt(_));
        if !partitions.iter().all(|p| is_movable(p) && !p.kind.is_extended()) {
            return None;
        }
        let last = partitions.iter().map(|p| p.extent.end()).max()?;
        let delta = last.checked_sub(end)?.next_multiple_of(ALIGNMENT);
        let is_large =
            |p: &&Partition| p.extent.len > delta && can_shrink(&request.filesystem(p.number));
        let partition = partitions.iter().filter(is_large).max_by_key(|p| p.extent.len)?;
        let Extent { start, len } = partition.extent;
        let behind = partitions.iter().filter(|p| p.extent.start > start);
        let mut moved: Vec<Moved> = behind
            .map(|p| Moved {
                number: p.number,
                before: p.extent,
                after: Extent::new(p.extent.start - delta, p.extent.len),
            })
            .collect();
        moved.sort_by_key(|moved| moved.before.start);
        Some(Self {
            number: partition.number,
            filesystem: request.filesystem(partition.number),
            before: partition.extent,
            after: Extent::new(start, len - delta),
            moved,
        })
    }

    /// The bytes of the target that come from the copy.
    pub(crate) fn replaced(&self) -> Extent {
        let end = self.moved.last().map_or(self.after.end(), |moved| moved.after.end());
        Extent::between(self.after.start, end)
    }

    /// Bytes of the source disk between the partitions in the copy, which the copy has not.
    pub(crate) fn gaps(&self) -> u64 {
        let mut end = self.before.end();
        let gap = |moved: &Moved| {
            let gap = moved.before.start.saturating_sub(end);
            end = end.max(moved.before.end());
            gap
        };
        self.moved.iter().map(gap).sum()
    }

    /// Finds the partition that must be smaller, if there is one, and makes it so: see
    /// [`ToShrink::find`] and [`ToShrink::shrink`].
    ///
    /// # Errors
    /// As these.
    pub fn settle(
        view: &View,
        facts: &TargetFacts,
        options: &RestoreOptions,
        folder: &Path,
        tools: &dyn Tools,
        job: Job<'_>,
    ) -> Result<Option<Shrunk>> {
        let found = Self::find(view, facts, options)?;
        found.map(|what| what.shrink(view, facts, options, folder, tools, job)).transpose()
    }

    /// Makes the filesystem smaller in a new file in `folder`, which needs room for what it
    /// uses, and proves it there. `facts` are those of the target.
    ///
    /// # Errors
    /// [`Error::Refused`] when its filesystem cannot be made smaller, or not by that much;
    /// [`Error::Scratch`]; whatever restoring the partition fails with.
    pub fn shrink(
        self,
        view: &View,
        facts: &TargetFacts,
        options: &RestoreOptions,
        folder: &Path,
        tools: &dyn Tools,
        job: Job<'_>,
    ) -> Result<Shrunk> {
        // Before anything that takes long.
        facts.check_free()?;
        // Each restore has its own, also of one point to several targets.
        let own = identity::guid(&options.seed, u32::MAX);
        let name = format!("aiv-shrink-{}-{}-{own}.raw", view.point(), self.number);
        let path = folder.join(name);
        let scratch = |source| Error::Scratch { path: path.clone(), source };
        if path.try_exists().map_err(scratch)? {
            return Err(scratch(std::io::ErrorKind::AlreadyExists.into()));
        }
        let copy = RestoreOptions {
            partition: Some(self.number),
            unused: Unused::Leave,
            ..RestoreOptions::new(options.threads)
        };
        let missing = TargetFacts::missing_file(path.display().to_string());
        let plan = RestorePlan::new(view, &missing, copy, job)?;
        let refuse = |what: &Self, why: String| {
            let (number, filesystem) = (what.number, what.filesystem.clone());
            let (target, from, to) = (facts.label.clone(), what.before.len, what.after.len);
            Refusal::CannotShrink { target, number, filesystem, from, to, why }
        };
        // Nobody could say afterwards where these bytes went.
        if !plan.unreadable().is_empty() {
            return Err(refuse(&self, "parts of it could not be read".to_owned()).into());
        }
        let copied = plan.apply_at(view, &path, Around::default(), job);
        copied.map_err(|Failed { error, .. }| error)?;
        // From here on the file goes away with the value.
        let file = FileDisk::open_target(&path, false).map_err(Error::Target)?;
        let mut shrunk = Shrunk { what: self, file, path: path.clone() };
        let what = &shrunk.what;
        shrink_filesystem(&what.filesystem, &shrunk.path, what.after.len, tools)
            .map_err(|why| refuse(what, why))?;
        for moved in &what.moved {
            let part = path.with_extension(format!("{}.raw", moved.number));
            let removed = Removed(part.clone());
            let options = RestoreOptions { partition: Some(moved.number), ..copy };
            let plan = RestorePlan::new(view, &missing, options, job)?;
            if !plan.unreadable().is_empty() {
                let why = format!("parts of partition {} could not be read", moved.number);
                return Err(refuse(what, why).into());
            }
            let copied = plan.apply_at(view, &part, Around::default(), job);
            copied.map_err(|Failed { error, .. }| error)?;
            what.join(moved, &part, &path)
                .map_err(|source| Error::Scratch { path: part, source })?;
            drop(removed);
        }
        shrunk.file = FileDisk::open_source(&shrunk.path).map_err(Error::Target)?;
        Ok(shrunk)
    }
}

impl ToShrink {
    /// Puts the partition in the file `part` to its place in the file `whole`.
    fn join(&self, moved: &Moved, part: &Path, whole: &Path) -> std::io::Result<()> {
        let from = File::open(part)?;
        let to = File::options().read(true).write(true).open(whole)?;
        let at = moved.after.start - self.after.start;
        to.set_len(at + moved.after.len)?;
        moved::copy(&from, &to, at)?;
        moved::mend(&to, at, moved)?;
        to.sync_all()
    }
}

/// A file that is removed with this value.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        // Best effort: a copy that stays costs room and nothing else.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Shrunk {
    /// What was made smaller.
    #[must_use]
    pub fn what(&self) -> &ToShrink {
        &self.what
    }

    /// The smaller partition.
    pub(crate) fn disk(&self) -> &FileDisk {
        &self.file
    }
}

impl Drop for Shrunk {
    fn drop(&mut self) {
        // Best effort: a copy that stays costs room and nothing else.
        let _ = std::fs::remove_file(&self.path);
    }
}
