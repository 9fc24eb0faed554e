//! Decides what a restore does, from the index of the image and the facts about the target.

use aiv_chain::meta::PartitionInfo;
use aiv_chain::{Digest, Kind, PointId, View};
use aiv_volume_io::partition::{DiskId, Patch};
use aiv_volume_io::{Extent, ExtentSet, FileKind, Job};

use crate::error::{Refusal, Result};
use crate::grow::Grow;
use crate::identity::{self, Identity};
use crate::options::RestoreOptions;
use crate::pieces::{Piece, Pieces};
use crate::region;
use crate::report::Note;
use crate::shrink::Shrunk;
use crate::table::{Layout, NewTable};
use crate::target::TargetFacts;

/// Ranges of unreadable blocks listed one by one, beside those META lists (an image holds at
/// most about as many there). What follows is listed as one range.
const UNREADABLE_MAX: usize = 1 << 20;

/// Pieces looked at between two looks at the stop button.
const PIECES_PER_CHECK: u64 = 1 << 12;

/// What a restore is going to do. Data: making one writes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestorePlan {
    pub(crate) point: PointId,
    pub(crate) state_root: Digest,
    pub(crate) region: Extent,
    pub(crate) block_size: u64,
    pub(crate) options: RestoreOptions,
    pub(crate) target: TargetFacts,
    pub(crate) unreadable: Vec<Extent>,
    pub(crate) notes: Vec<Note>,
    /// Written in place of what the image has there, or behind it. Ascending.
    pub(crate) patches: Vec<Patch>,
    /// What is written after the rest and before the head.
    pub(crate) late: ExtentSet,
    /// Bytes of the disk that come from a smaller copy of a partition.
    pub(crate) replaced: Option<Extent>,
    table: Option<NewTable>,
    disk_id: Option<DiskId>,
    partition: Option<PartitionInfo>,
    amounts: Amounts,
}

/// Bytes of the region by how the image has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amounts {
    /// Stored in the image.
    pub data: u64,
    /// In use and all zeros.
    pub zero: u64,
    /// Free by the filesystem's account.
    pub unused: u64,
    /// Left out on request.
    pub excluded: u64,
    /// In blocks that could not be read, or not in full, at the source.
    pub unreadable: u64,
}

impl Amounts {
    fn add(&mut self, piece: &Piece) {
        let amount = match piece.stretch.kind() {
            Kind::Data | Kind::Ref | Kind::Delta | Kind::Local | Kind::Parent => &mut self.data,
            Kind::Zero => &mut self.zero,
            Kind::Unused => &mut self.unused,
            Kind::Excluded => &mut self.excluded,
            Kind::Unreadable => &mut self.unreadable,
        };
        *amount += piece.extent.len;
    }
}

impl RestorePlan {
    /// Plans the restore of `view` to the target that `facts` describe. Reads the index of the
    /// image, and of its blocks those with a partition table.
    ///
    /// # Errors
    /// [`crate::Error::Refused`] when the target must not or cannot take the point;
    /// [`crate::Error::View`] and [`crate::Error::Undecided`] when the index is damaged;
    /// [`crate::Error::Canceled`].
    pub fn new(
        view: &View,
        facts: &TargetFacts,
        options: RestoreOptions,
        job: Job<'_>,
    ) -> Result<Self> {
        Self::with(view, facts, options, None, job)
    }

    /// The same, with one partition taken from where it was made smaller for this target, and
    /// those that move with it.
    ///
    /// # Errors
    /// As [`RestorePlan::new`].
    pub fn with(
        view: &View,
        facts: &TargetFacts,
        options: RestoreOptions,
        shrunk: Option<&Shrunk>,
        job: Job<'_>,
    ) -> Result<Self> {
        let image = view.image();
        let disk = &image.meta().disk;
        let (partition, region) = match options.partition {
            None => (None, Extent::new(0, view.geometry().len())),
            Some(number) => {
                let (partition, extent) = region::partition(disk, number)?;
                (Some(partition), extent)
            }
        };
        facts.check_free()?;
        let sectors = view.geometry().sector_size();
        let layout = if partition.is_some() {
            check_length(facts, region.len)?;
            if options.grow != Grow::None {
                return Err(Refusal::NothingToGrow("a single partition").into());
            }
            if options.identity.is_new() {
                return Err(Refusal::NoNewIdentity("a single partition").into());
            }
            Layout::of_partition(region.len, facts)
        } else {
            Layout::of_disk(view, facts, &options, shrunk.map(Shrunk::what))?
        };
        let region = Extent::new(region.start, layout.len);

        let mut amounts = Amounts::default();
        let listed: ExtentSet = image.meta().source_errors.iter().copied().collect();
        let mut unlisted = Vec::new();
        let replaced = shrunk.map(|shrunk| shrunk.what().replaced());
        let patched = layout.patches.iter().map(Patch::extent).chain(replaced);
        let patched: ExtentSet = patched.collect();
        let kept = patched.gaps_within(region).into_iter();
        let pieces = kept.flat_map(|part| Pieces::new(view, part));
        for (count, piece) in (1u64..).zip(pieces) {
            let piece = piece?;
            if count.is_multiple_of(PIECES_PER_CHECK) {
                job.check()?;
            }
            amounts.add(&piece);
            if piece.stretch.kind() == Kind::Unreadable {
                note_unlisted(&mut unlisted, &piece, &listed);
            }
        }
        let to_target = |e: Extent| Extent::new(e.start - region.start, e.len);
        let unreadable: ExtentSet = listed.within(region).chain(unlisted).map(to_target).collect();

        let mut notes = Vec::new();
        if partition.is_some() && !disk.table_problems.is_empty() {
            notes.push(Note::TableProblems(disk.table_problems.clone()));
        }
        let is_device = facts.kind == FileKind::BlockDevice;
        if partition.is_some() && is_device && facts.logical_sector_size != sectors {
            let target = facts.logical_sector_size;
            notes.push(Note::OtherSectorSize { source: sectors, target });
        }
        let is_source = |known: &Option<String>, imaged: &str| known.as_deref() == Some(imaged);
        if !disk.serial.is_empty() && is_source(&facts.serial, &disk.serial) {
            notes.push(Note::SourceDisk);
        }
        let excluded = &image.meta().excluded;
        let here = |volume: u64| (region.start..region.end()).contains(&volume);
        let files = match partition {
            None => excluded.file_count,
            Some(_) => excluded.files.iter().filter(|file| here(file.volume)).count() as u64,
        };
        if files > 0 || amounts.excluded > 0 {
            notes.push(Note::Excluded { files });
        }
        notes.extend(layout.notes);
        Ok(Self {
            point: view.point(),
            state_root: image.trailer().state_root,
            region,
            block_size: view.geometry().block_size().get().into(),
            options,
            target: facts.clone(),
            unreadable: unreadable.runs().to_vec(),
            notes,
            partition,
            patches: layout.patches,
            late: layout.late,
            table: layout.table,
            disk_id: layout.disk_id,
            replaced,
            amounts,
        })
    }

    /// The bytes of the source disk that are restored; their first one becomes byte zero of
    /// the target.
    #[must_use]
    pub fn region(&self) -> Extent {
        self.region
    }

    /// The partition that is restored, `None` for the whole disk.
    #[must_use]
    pub fn partition(&self) -> Option<&PartitionInfo> {
        self.partition.as_ref()
    }

    /// What was asked for.
    #[must_use]
    pub fn options(&self) -> &RestoreOptions {
        &self.options
    }

    /// The target as it was found.
    #[must_use]
    pub fn target(&self) -> &TargetFacts {
        &self.target
    }

    /// Bytes the target must have when the plan is applied. A file that does not exist is to be
    /// created with this length; a longer target keeps its own.
    #[must_use]
    pub fn target_len_needed(&self) -> u64 {
        self.patches.last().map_or(0, |patch| patch.extent().end()).max(self.region.len)
    }

    /// Whether an existing file must be extended to [`RestorePlan::target_len_needed`] first.
    /// The new bytes must read as zeros.
    #[must_use]
    pub fn extends_target(&self) -> bool {
        self.target.exists && self.target.len < self.target_len_needed()
    }

    /// The partition table the target will have; `None` for a partition, and for a disk without
    /// a sound table.
    #[must_use]
    pub fn table(&self) -> Option<&NewTable> {
        self.table.as_ref()
    }

    /// Takes note that the disk of another restore says it is the same one.
    ///
    /// # Errors
    /// [`crate::Error::Refused`] where none may, by what was asked for either of them.
    pub(crate) fn compare_identity(&mut self, other: &Self) -> Result<()> {
        if let Some(id) = self.disk_id.filter(|_| self.disk_id == other.disk_id) {
            let identities = [self.options.identity, other.options.identity];
            let identity = match identities.contains(&Identity::Unique) {
                true => Identity::Unique,
                false => self.options.identity,
            };
            let target = &self.target.label;
            let note = identity::collision(&other.target.label, id, identity, target)?;
            self.notes.push(note);
        }
        Ok(())
    }

    /// Bytes of the region by how the image has them, without those of a changed table and of a
    /// partition that was made smaller.
    #[must_use]
    pub fn amounts(&self) -> Amounts {
        self.amounts
    }

    /// Ranges of the target that will hold the fill pattern, because the source could not be
    /// read there. Ascending.
    #[must_use]
    pub fn unreadable(&self) -> &[Extent] {
        &self.unreadable
    }

    /// What the user should know beforehand.
    #[must_use]
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }
}

/// Refuses a device that is too small. Files can be extended.
fn check_length(facts: &TargetFacts, needed: u64) -> Result<()> {
    let (target, len) = (facts.label.clone(), facts.len);
    if facts.kind == FileKind::BlockDevice && len < needed {
        return Err(Refusal::TooSmall { target, needed, len }.into());
    }
    Ok(())
}

/// META says which bytes of a block are lost. Of a block it forgets, all bytes count as lost.
fn note_unlisted(unlisted: &mut Vec<Extent>, piece: &Piece, listed: &ExtentSet) {
    if listed.within(piece.extent).next().is_some() && piece.stretch.leaf().is_some() {
        return;
    }
    let full = unlisted.len() >= UNREADABLE_MAX;
    match unlisted.last_mut() {
        Some(last) if full || last.end() == piece.extent.start => {
            *last = Extent::between(last.start, piece.extent.end());
        }
        _ => unlisted.push(piece.extent),
    }
}
