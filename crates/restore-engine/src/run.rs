//! A plan applied to a path: opens or creates the target, and tells what a failure left there.

use std::fmt;
use std::fs;
use std::path::Path;

use aiv_chain::View;
use aiv_volume_io::{FileDisk, Job};

use crate::error::{Error, Result};
use crate::plan::RestorePlan;
use crate::report::RestoreReport;
use crate::tools::{Tools, grow_filesystems};

/// What a restore that failed left at its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// What was there before: nothing was written.
    Untouched,
    /// Nothing: the file that was created for it was removed.
    NoFile,
    /// Part of a disk, which must not be used.
    Part,
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Untouched => "nothing was written",
            Self::NoFile => "the new file was removed",
            Self::Part => "the target holds part of a disk and must not be used",
        })
    }
}

/// Why a restore failed, and what it left.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Failed {
    /// What went wrong.
    pub error: Error,
    /// What is at the target now.
    pub left: Left,
}

impl RestorePlan {
    /// Restores `view` to the file or device at `path`, the one whose facts the plan was made
    /// for. It is claimed meanwhile: nobody can mount it, or restore to it as well. A file that
    /// is created for the plan does not outlive a failure.
    ///
    /// With `tools`, filesystems in partitions that grew are grown as well when all is proven.
    /// That does not fail the restore: it is in the notes of the report.
    ///
    /// # Errors
    /// What [`RestorePlan::apply`] fails with, and [`Error::Target`] when the target cannot be
    /// opened, claimed or created.
    pub fn apply_at(
        self,
        view: &View,
        path: &Path,
        tools: Option<&dyn Tools>,
        job: Job<'_>,
    ) -> std::result::Result<RestoreReport, Failed> {
        let untouched = |error| Failed { error, left: Left::Untouched };
        let exists = self.target.exists;
        let target = self.open(path).map_err(untouched)?;
        let sector_size = target.logical_sector_size();
        let plan = self.clone();
        let mut result = self.apply(view, &target, job);
        // The tools need it for themselves.
        drop(target);
        if let (Ok(report), Some(tools)) = (&mut result, tools) {
            report.notes.extend(grow_filesystems(&plan, path, sector_size, tools));
        }
        result.map_err(|error| {
            let left = match &error {
                _ if !exists && fs::remove_file(path).is_ok() => Left::NoFile,
                Error::Refused(_) | Error::OtherPoint { .. } => Left::Untouched,
                _ => Left::Part,
            };
            Failed { error, left }
        })
    }

    fn open(&self, path: &Path) -> Result<FileDisk> {
        let needed = self.target_len_needed();
        if !self.target.exists {
            return FileDisk::create_target(path, needed).map_err(Error::Target);
        }
        let target = FileDisk::open_target(path, true).map_err(Error::Target)?;
        if self.extends_target() {
            target.set_len(needed).map_err(Error::io("extending", self.target.len))?;
        }
        Ok(target)
    }
}
