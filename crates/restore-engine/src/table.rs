//! Decides what partition table the target gets, and which bytes that takes.

use aiv_chain::View;
use aiv_chain::meta::{DiskInfo, RegionInfo};
use aiv_volume_io::partition::{
    DiskId, Draft, Partition, Patch, SectorSize, TableAreaKind, TableKind, Unfit, read_table,
};
use aiv_volume_io::{Extent, ExtentSet, FileKind};

use crate::error::{Error, Refusal, Result};
use crate::grow::{self, Grow};
use crate::identity::{self, Identity};
use crate::options::{RestoreOptions, TableMode};
use crate::report::Note;
use crate::sectors;
use crate::shrink::ToShrink;
use crate::target::TargetFacts;

/// The partition table of the target after a restore of a whole disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTable {
    /// GPT or MBR.
    pub kind: TableKind,
    /// Bytes per sector it counts in.
    pub sector_size: u32,
    /// Whether any byte of it differs from the table of the source disk.
    pub is_changed: bool,
    /// Its partitions, ascending by number.
    pub rows: Vec<TableRow>,
}

/// One partition of a [`NewTable`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableRow {
    /// The table's own number.
    pub number: u32,
    /// Type GUID, or MBR type as `0x83`.
    pub type_id: String,
    /// Name in the table; empty for MBR.
    pub name: String,
    /// What lies in it, as `blkid` names it; empty when not known.
    pub filesystem: String,
    /// Its bytes on the source disk.
    pub before: Extent,
    /// Its bytes on the target.
    pub after: Extent,
}

/// What becomes of the ends of the target.
#[derive(Debug, Clone, Default)]
pub(crate) struct Layout {
    /// Bytes of the source disk that are restored, from its first one on.
    pub(crate) len: u64,
    /// Bytes that are written in place of those of the image, or behind them. Ascending.
    pub(crate) patches: Vec<Patch>,
    /// Bytes that tell what the disk is, beside its head: cleared first, written late.
    pub(crate) late: ExtentSet,
    pub(crate) table: Option<NewTable>,
    /// Who the table says the disk is.
    pub(crate) disk_id: Option<DiskId>,
    pub(crate) notes: Vec<Note>,
}

impl Layout {
    /// For a partition, which becomes all of the target as far as it goes.
    pub(crate) fn of_partition(len: u64, facts: &TargetFacts) -> Self {
        let mut notes = Vec::new();
        if facts.len > len {
            notes.push(Note::TargetLarger { rest: Extent::between(len, facts.len) });
        }
        Self { len, notes, ..Self::default() }
    }

    /// For a whole disk.
    pub(crate) fn of_disk(
        view: &View,
        facts: &TargetFacts,
        options: &RestoreOptions,
        shrunk: Option<&ToShrink>,
    ) -> Result<Self> {
        let request = Request::new(view, facts, options);
        if options.grow != Grow::None && options.table == TableMode::Keep {
            return Err(Refusal::NothingToGrow("a table that keeps its bytes").into());
        }
        if options.identity.is_new() && options.table == TableMode::Keep {
            return Err(Refusal::NoNewIdentity("a table that keeps its bytes").into());
        }
        let draft = read_draft(view, &request)?;
        let mut layout = match draft {
            Ok(draft) if request.asks_for_changes() => request.changed(draft, shrunk)?,
            Ok(draft) => request.unchanged(&draft)?,
            Err(unfit) => request.without_draft(unfit)?,
        };
        layout.clear_old_backup(facts, options.table);
        Ok(layout)
    }

    /// A backup GPT the target has from before must not outlive the disk it belonged to.
    fn clear_old_backup(&mut self, facts: &TargetFacts, mode: TableMode) {
        let Some(old) = facts.old_backup else { return };
        let restored = Extent::new(0, self.len);
        if restored.contains(old) {
            self.late = self.late.runs().iter().copied().chain([old]).collect();
        } else if mode != TableMode::Keep && restored.intersect(old).is_none() {
            let written: ExtentSet = self.patches.iter().map(Patch::extent).collect();
            let stale = written.gaps_within(old);
            for gap in &stale {
                let bytes = vec![0; crate::zeros::in_memory(gap.len)];
                self.patches.push(Patch { offset: gap.start, bytes, is_backup: true });
            }
            self.patches.sort_by_key(|patch| patch.offset);
            self.late = self.late.runs().iter().copied().chain(stale).collect();
            self.notes.push(Note::OldBackupCleared { extent: old });
        }
    }
}

/// What is asked of the table.
pub(crate) struct Request<'a> {
    view: &'a View,
    disk: &'a DiskInfo,
    facts: &'a TargetFacts,
    mode: TableMode,
    grow: Grow,
    identity: Identity,
    seed: [u8; 32],
    source_len: u64,
    source_sectors: u32,
    target_len: u64,
    target_sectors: u32,
}

impl<'a> Request<'a> {
    pub(crate) fn new(view: &'a View, facts: &'a TargetFacts, options: &RestoreOptions) -> Self {
        let source_len = view.geometry().len();
        let source_sectors = view.geometry().sector_size();
        let (target_len, target_sectors) = match facts.kind {
            FileKind::BlockDevice => (facts.len, facts.logical_sector_size),
            // A file is extended, and has no sectors.
            FileKind::RegularFile => (facts.len.max(source_len), source_sectors),
        };
        let disk = &view.image().meta().disk;
        let RestoreOptions { table: mode, grow, identity, seed, .. } = *options;
        Self {
            view,
            disk,
            facts,
            mode,
            grow,
            identity,
            seed,
            source_len,
            source_sectors,
            target_len,
            target_sectors,
        }
    }

    fn asks_for_changes(&self) -> bool {
        let other_place =
            (self.target_len, self.target_sectors) != (self.source_len, self.source_sectors);
        let other_table = self.grow != Grow::None || self.identity.is_new() || self.makes_gpt();
        self.mode != TableMode::Keep && (other_place || other_table)
    }

    /// Whether the table becomes one of another kind.
    fn makes_gpt(&self) -> bool {
        self.mode == TableMode::Gpt && self.disk.table != GPT
    }

    /// Refuses what only another table would make possible.
    fn check_fit(&self) -> Result<()> {
        let target = self.facts.label.clone();
        let (needed, found) = (self.source_sectors, self.target_sectors);
        if needed != found {
            return Err(Refusal::SectorSize { target, needed, found }.into());
        }
        let (needed, len) = (self.source_len, self.target_len);
        if len < needed {
            return Err(Refusal::TooSmall { target, needed, len }.into());
        }
        Ok(())
    }

    /// The disk as it was, with what is said about a larger target.
    fn as_it_was(&self) -> Result<Layout> {
        self.check_fit()?;
        let mut layout = Layout { len: self.source_len, ..Layout::default() };
        if self.target_len > self.source_len {
            let rest = Extent::between(self.source_len, self.target_len);
            layout.notes.push(Note::TargetLarger { rest });
            if self.disk.table == GPT {
                layout.notes.push(Note::BackupHeaderNotAtEnd);
            }
        }
        Ok(layout)
    }

    fn unchanged(&self, draft: &Draft) -> Result<Layout> {
        let is_backup =
            |kind| matches!(kind, TableAreaKind::GptBackupHeader | TableAreaKind::GptBackupEntries);
        let areas = draft.before().areas.iter().filter(|area| is_backup(area.kind));
        let late = areas.map(|area| area.extent).collect();
        let table = Some(self.describe(draft, false));
        let mut layout = Layout { late, table, ..self.as_it_was()? };
        layout.notes.extend(self.collisions(draft)?);
        layout.notes.extend(self.behind_mbr(draft));
        layout.disk_id = draft.disk_id();
        Ok(layout)
    }

    fn without_draft(&self, unfit: Unfit) -> Result<Layout> {
        let mut layout = self.as_it_was()?;
        if self.grow != Grow::None || self.identity.is_new() || self.makes_gpt() {
            return Err(Refusal::Table { target: self.facts.label.clone(), unfit }.into());
        }
        if self.asks_for_changes() && unfit != Unfit::NoTable {
            layout.notes.push(Note::TableKept(unfit));
        }
        // What cannot be changed still says who the disk is.
        let size = SectorSize::new(self.source_sectors);
        let table = size.and_then(|size| read_table(self.view, size).ok());
        layout.disk_id = table.and_then(|table| table.disk_id);
        layout.notes.extend(identity::collisions(layout.disk_id, self.identity, self.facts)?);
        Ok(layout)
    }

    /// The table made for the target.
    fn changed(&self, draft: Draft, shrunk: Option<&ToShrink>) -> Result<Layout> {
        let target = || self.facts.label.clone();
        let Some(mut draft) = self.placed(draft) else {
            let (needed, found) = (self.source_sectors, self.target_sectors);
            return Err(Refusal::SectorSize { target: target(), needed, found }.into());
        };
        if let Some(shrunk) = shrunk {
            draft
                .set_end(shrunk.number, shrunk.after.end())
                .and_then(|()| {
                    let mut moved = shrunk.moved.iter();
                    moved.try_for_each(|moved| draft.move_to(moved.number, moved.after.start))
                })
                .map_err(|unfit| Refusal::Table { target: target(), unfit })?;
        }
        self.check_filesystems()?;
        let is_shrunk = shrunk.is_some();
        let moved = shrunk.map_or(&[][..], |shrunk| &shrunk.moved);
        let gaps = shrunk.map_or(0, ToShrink::gaps);
        let shrunk = shrunk.map(|what| Note::Shrunk {
            number: what.number,
            from: what.before.len,
            to: what.after.len,
        });
        let mut notes = Vec::from_iter(shrunk);
        notes.extend(moved.iter().map(|moved| Note::Moved {
            number: moved.number,
            from: moved.before.start,
            to: moved.after.start,
        }));
        notes.extend((gaps > 0).then_some(Note::GapsCut { bytes: gaps }));
        grow::grow(&mut draft, self.grow, &mut notes)
            .and_then(|()| identity::change(&mut draft, self.identity, &self.seed, &mut notes))
            .map_err(|unfit| Refusal::Table { target: target(), unfit })?;
        notes.extend(self.collisions(&draft)?);
        notes.extend(self.behind_mbr(&draft));
        let patches = draft.patches().map_err(|unfit| match unfit {
            Unfit::PastEnd { number, end, .. } if self.target_len < self.source_len => {
                let (needed, len) = (draft.len_min(), self.target_len);
                Refusal::PartitionTooFar { target: target(), number, end, needed, len }
            }
            unfit => Refusal::Table { target: target(), unfit },
        })?;
        let len = self.source_len.min(self.target_len);
        let late: ExtentSet = patches.iter().filter(|p| p.is_backup).map(Patch::extent).collect();
        // Of a partition that was made smaller, nothing is left out.
        if self.target_len < self.source_len && !is_shrunk {
            let rest = Extent::between(self.target_len, self.source_len);
            notes.push(Note::TailCut { rest });
        }
        let end = late.runs().first().map_or(self.target_len, |run| run.start);
        if end > len {
            notes.push(Note::TargetLarger { rest: Extent::between(len, end) });
        }
        if self.source_sectors != self.target_sectors {
            let (source, target) = (self.source_sectors, self.target_sectors);
            notes.push(Note::SectorsConverted { source, target });
        }
        let is_changed = !patches.is_empty();
        if draft.kind() != draft.before().kind {
            notes.insert(0, Note::MadeGpt);
        }
        if is_changed {
            notes.insert(0, Note::TableFitted);
        }
        let disk_id = draft.disk_id();
        let table = Some(self.describe(&draft, is_changed));
        Ok(Layout { len, patches, late, table, notes, disk_id })
    }

    fn collisions(&self, draft: &Draft) -> Result<Vec<Note>> {
        identity::collisions(draft.disk_id(), self.identity, self.facts)
    }

    /// What of the target no partition of an MBR can have: it counts 2^32 sectors.
    fn behind_mbr(&self, draft: &Draft) -> Option<Note> {
        let end = u64::from(draft.sector_size().bytes()) << 32;
        let is_behind = draft.kind() == TableKind::Mbr && self.facts.len > end;
        is_behind.then(|| Note::BehindMbr { rest: Extent::between(end, self.facts.len) })
    }

    /// Refuses sectors that a filesystem cannot live on.
    fn check_filesystems(&self) -> Result<()> {
        let (needed, found) = (self.source_sectors, self.target_sectors);
        if needed == found {
            return Ok(());
        }
        let unusable = sectors::first_unusable(self.view, self.disk, needed, found);
        unusable.map_or(Ok(()), |(number, holds, why)| {
            let target = self.facts.label.clone();
            Err(Refusal::Sectors { target, needed, found, number, holds, why }.into())
        })
    }

    /// Whether the target has fewer bytes than the source disk, and the table may change.
    pub(crate) fn is_for_smaller(&self) -> bool {
        self.mode != TableMode::Keep && self.target_len < self.source_len
    }

    /// The draft for the target; `None` when nobody counts in its sectors.
    pub(crate) fn placed(&self, mut draft: Draft) -> Option<Draft> {
        draft.place(SectorSize::new(self.target_sectors)?, self.target_len);
        Some(draft)
    }

    /// What the partition of this number holds; empty when not known.
    pub(crate) fn filesystem(&self, number: u32) -> String {
        let is_it = |r: &&RegionInfo| r.partition.as_ref().is_some_and(|p| p.number == number);
        let region = self.disk.regions.iter().find(is_it);
        region.and_then(|r| Some(r.volume.as_ref()?.filesystem.clone())).unwrap_or_default()
    }

    fn describe(&self, draft: &Draft, is_changed: bool) -> NewTable {
        let row = |(before, after): (&Partition, &Partition)| TableRow {
            number: after.number,
            type_id: after.kind.to_string(),
            name: after.name.clone(),
            filesystem: self.filesystem(after.number),
            before: before.extent,
            after: after.extent,
        };
        NewTable {
            kind: draft.kind(),
            sector_size: draft.sector_size().bytes(),
            is_changed,
            rows: draft.before().partitions.iter().zip(draft.partitions()).map(row).collect(),
        }
    }
}

/// The words META uses for partition tables.
const GPT: &str = "gpt";
const MBR: &str = "mbr";

/// The table of the point, as far as it can be placed elsewhere.
pub(crate) fn read_draft(
    view: &View,
    request: &Request<'_>,
) -> Result<std::result::Result<Draft, Unfit>> {
    let table = request.disk.table.as_str();
    let Some(size) = SectorSize::new(request.source_sectors).filter(|_| matches!(table, GPT | MBR))
    else {
        return Ok(Err(Unfit::NoTable));
    };
    match Draft::read(view, size) {
        Ok(Ok(mut draft)) if request.makes_gpt() => {
            let made = draft.make_gpt(&mut |number| identity::guid(&request.seed, number));
            Ok(made.map(|()| draft))
        }
        Ok(draft) => Ok(draft),
        // Restoring the bytes as they are will meet the same damage, and name it.
        Err(_) if !request.asks_for_changes() => Ok(Err(Unfit::NoTable)),
        Err(error) => Err(Error::Table(error)),
    }
}
