//! A plan applied to a path: opens or creates the target, and tells what a failure left there.

use std::fmt;
use std::fs;
use std::path::Path;

use aiv_chain::View;
use aiv_volume_io::{FileDisk, Job};

use crate::error::{Error, Result};
use crate::plan::RestorePlan;
use crate::report::RestoreReport;
use crate::shrink::Shrunk;
use crate::tools::{Tools, grow_filesystems};
use crate::undo::save;

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

/// What a restore may use beside image and target.
#[derive(Clone, Copy, Default)]
pub struct Around<'a> {
    /// Where what is overwritten at the ends of an existing target is kept, a file that does not
    /// exist yet, and the time, in milliseconds since 1970 UTC.
    pub undo: Option<(&'a Path, u64)>,
    /// The partition that was made smaller, when the plan was made with one.
    pub shrunk: Option<&'a Shrunk>,
    /// What grows the filesystems of partitions that grew. Its failure does not fail the
    /// restore: it is in the notes of the report.
    pub tools: Option<&'a dyn Tools>,
}

impl RestorePlan {
    /// Restores `view` to the file or device at `path`, the one whose facts the plan was made
    /// for. It is claimed meanwhile: nobody can mount it, or restore to it as well. A file that
    /// is created for the plan does not outlive a failure.
    ///
    /// # Errors
    /// What [`RestorePlan::apply`] fails with, and [`Error::Target`] when the target cannot be
    /// opened, claimed or created; [`Error::Undo`] when what it holds cannot be kept.
    pub fn apply_at(
        self,
        view: &View,
        path: &Path,
        around: Around<'_>,
        job: Job<'_>,
    ) -> std::result::Result<RestoreReport, Failed> {
        let untouched = |error| Failed { error, left: Left::Untouched };
        let exists = self.target.exists;
        let target = self.open(path).map_err(untouched)?;
        if let (Some((undo, now)), true) = (around.undo, exists) {
            save(&self, &target, undo, now).map_err(untouched)?;
        }
        if self.extends_target() {
            let extended = target.set_len(self.target_len_needed());
            extended.map_err(Error::io("extending", self.target.len)).map_err(untouched)?;
        }
        let sector_size = target.logical_sector_size();
        let plan = self.clone();
        let mut result = self.apply_with(view, around.shrunk, &target, job);
        if let Err(Failed { left: left @ Left::Untouched, .. }) = &mut result
            && plan.extends_target()
            && exists
            && target.set_len(plan.target.len).is_err()
        {
            *left = Left::Part;
        }
        // The tools need it for themselves.
        drop(target);
        if let (Ok(report), Some(tools)) = (&mut result, around.tools) {
            report.notes.extend(grow_filesystems(&plan, path, sector_size, tools));
        }
        result.map_err(|failed| match exists {
            false if fs::remove_file(path).is_ok() => Failed { left: Left::NoFile, ..failed },
            _ => failed,
        })
    }

    fn open(&self, path: &Path) -> Result<FileDisk> {
        let opened = match self.target.exists {
            false => FileDisk::create_target(path, self.target_len_needed()),
            true => FileDisk::open_target(path, true),
        };
        opened.map_err(Error::Target)
    }
}
