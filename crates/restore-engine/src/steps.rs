use std::fmt;

use aiv_volume_io::Extent;

use crate::options::Unused;
use crate::plan::RestorePlan;

/// One step of a plan, in the order they are taken. `Display` is a sentence for a dry run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PlanStep {
    /// The caller creates the file.
    Create {
        /// Its length in bytes.
        len: u64,
    },
    /// The caller extends the file.
    Extend {
        /// Length in bytes before.
        from: u64,
        /// Length in bytes after.
        to: u64,
    },
    /// Old contents at the beginning of the target are zeroed, so that what an interruption
    /// leaves is not taken for a disk. A delta restore that finds nothing to write skips it.
    ClearHead {
        /// Where, in the target. Free space in there is treated as everywhere.
        extent: Extent,
    },
    /// A backup partition table at the end of the target is zeroed, like the head.
    ClearEnd {
        /// Where, in the target.
        extents: Vec<Extent>,
    },
    /// Bytes from the image are written; in a delta restore, those that differ.
    Write {
        /// How many, at most.
        bytes: u64,
    },
    /// Bytes of a partition that was made smaller are written, its holes as zeros.
    WriteCopy {
        /// How many.
        bytes: u64,
    },
    /// Bytes of a partition table made for the target are written, and zeros to its old places.
    WriteTable {
        /// How many, at most.
        bytes: u64,
    },
    /// Bytes are made to read as zeros.
    Zero {
        /// How many.
        bytes: u64,
    },
    /// Free space is left alone, or discarded. (Zeroed free space counts in [`PlanStep::Zero`].)
    Free {
        /// What happens to it.
        unused: Unused,
        /// How many bytes.
        bytes: u64,
    },
    /// Everything written is synced, read back and compared.
    Verify {
        /// How many bytes, at most.
        bytes: u64,
    },
    /// A backup partition table at the end gets its contents, is synced, read back and compared.
    WriteEnd {
        /// Where, in the target.
        extents: Vec<Extent>,
    },
    /// The head gets its contents, is synced, read back and compared.
    WriteHead {
        /// Where, in the target.
        extent: Extent,
    },
}

impl RestorePlan {
    /// What applying the plan does, in order. Amounts are upper bounds: what the target holds
    /// already is not known before it is read.
    #[must_use]
    pub fn steps(&self) -> Vec<PlanStep> {
        let mut steps = Vec::new();
        let needed = self.target_len_needed();
        if !self.target().exists {
            steps.push(PlanStep::Create { len: needed });
        } else if self.extends_target() {
            steps.push(PlanStep::Extend { from: self.target().len, to: needed });
        }
        let head = Extent::new(0, self.head().len);
        if !self.head_is_blank() {
            steps.push(PlanStep::ClearHead { extent: head });
        }
        let late = self.ranges().late;
        if !late.is_empty() {
            steps.push(PlanStep::ClearEnd { extents: late.clone() });
        }
        let table = self.patches.iter().map(|patch| patch.extent().len).sum();
        let amounts = self.amounts();
        let unused = self.options().unused;
        let free = amounts.unused + amounts.excluded;
        let zero = if unused == Unused::Zero { amounts.zero + free } else { amounts.zero };
        let write = amounts.data + amounts.unreadable;
        steps.push(PlanStep::Write { bytes: write });
        let copy = self.replaced.map_or(0, |extent| extent.len);
        steps.push(PlanStep::WriteCopy { bytes: copy });
        steps.push(PlanStep::WriteTable { bytes: table });
        steps.push(PlanStep::Zero { bytes: zero });
        if unused != Unused::Zero {
            steps.push(PlanStep::Free { unused, bytes: free });
        }
        steps.push(PlanStep::Verify { bytes: write + copy + table + zero });
        if !late.is_empty() {
            steps.push(PlanStep::WriteEnd { extents: late });
        }
        steps.push(PlanStep::WriteHead { extent: head });
        let is_work = |step: &PlanStep| {
            !matches!(
                step,
                PlanStep::Write { bytes: 0 }
                    | PlanStep::WriteCopy { bytes: 0 }
                    | PlanStep::WriteTable { bytes: 0 }
                    | PlanStep::Zero { bytes: 0 }
                    | PlanStep::Free { bytes: 0, .. }
                    | PlanStep::Verify { bytes: 0 }
            )
        };
        steps.retain(is_work);
        steps
    }
}

impl fmt::Display for PlanStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { len } => write!(f, "create a file of {len} bytes"),
            Self::Extend { from, to } => write!(f, "extend the file from {from} to {to} bytes"),
            Self::ClearHead { extent } => {
                write!(f, "clear the first {} bytes until the end of the restore", extent.len)
            }
            Self::ClearEnd { extents } => {
                write!(f, "clear {} at the end as well", places(extents))
            }
            Self::WriteCopy { bytes } => {
                write!(f, "write {bytes} bytes of the partition that was made smaller")
            }
            Self::WriteTable { bytes } => {
                write!(f, "write {bytes} bytes of a partition table made for the target")
            }
            Self::WriteEnd { extents } => {
                write!(f, "write {} after the rest, and check them", places(extents))
            }
            Self::Write { bytes } => write!(f, "write {bytes} bytes from the image"),
            Self::Zero { bytes } => write!(f, "make {bytes} bytes read as zeros"),
            Self::Free { unused: Unused::Discard, bytes } => {
                write!(f, "discard {bytes} bytes of free space")
            }
            Self::Free { bytes, .. } => write!(f, "leave {bytes} bytes of free space as they are"),
            Self::Verify { bytes } => write!(f, "sync, read back and compare {bytes} bytes"),
            Self::WriteHead { extent } => {
                write!(f, "write the first {} bytes last, and check them", extent.len)
            }
        }
    }
}

fn places(extents: &[Extent]) -> String {
    let place = |extent: &Extent| format!("bytes {} to {}", extent.start, extent.end());
    extents.iter().map(place).collect::<Vec<_>>().join(", ")
}
