//! A filesystem made smaller for a smaller target: in a copy, so that the image stays as it is.
//!
//! The partition is restored into a sparse file, which takes as much space as the filesystem
//! uses; its own tool makes it smaller there and checks it; the restore takes the partition from
//! that file. Nothing of that touches the target.

use std::path::{Path, PathBuf};

use aiv_chain::View;
use aiv_volume_io::{Extent, FileDisk, Job};

use crate::error::{Error, Refusal, Result};
use crate::options::{RestoreOptions, Unused};
use crate::plan::RestorePlan;
use crate::run::{Around, Failed};
use crate::table::{Request, read_draft};
use crate::target::TargetFacts;
use crate::tools::{Tools, shrink_filesystem};

/// Partitions end at multiples of this, as all tools make them.
const ALIGNMENT: u64 = 1 << 20;

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
}

/// A partition made smaller, in a file that is removed with this value.
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
        let mut beyond = draft.partitions().iter().filter(|p| p.extent.end() > usable.end());
        let (Some(partition), None) = (beyond.next(), beyond.next()) else { return Ok(None) };
        let after = Extent::between(partition.extent.start, end);
        Ok((!after.is_empty()).then(|| Self {
            number: partition.number,
            filesystem: request.filesystem(partition.number),
            before: partition.extent,
            after,
        }))
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
        let name = format!("aiv-shrink-{}-{}.raw", view.point(), self.number);
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
        shrunk.file = FileDisk::open_source(&shrunk.path).map_err(Error::Target)?;
        Ok(shrunk)
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
