//! What a folder says.

use std::ops::ControlFlow;

use aiv_volume_io::{Extent, Job, ReadAt};

use super::set::{FILE, Record, Set, further_records};
use super::{ExFat, ROOT};
use crate::clusters::{self, Chain, Run, Step, Window, follow, visit_records};
use crate::{Error, FileId, FileType, Result};

/// The specification ends folders here.
pub(super) const FOLDER_BYTES_MAX: u64 = 256 << 20;
/// Of an id: the clusters of the folder the record is in are in the table.
const CHAINED: u64 = 0;
/// They are neighbours.
const IN_ONE_PIECE: u64 = 1;

impl ExFat<'_> {
    /// Tells `visit` the sets of a folder, in the order of the disk, until it breaks off. One that
    /// is damaged is left out, and is the error at the end.
    pub(super) fn scan(
        &self,
        folder: FileId,
        job: Job<'_>,
        visit: &mut dyn FnMut(FileId, Set) -> ControlFlow<()>,
    ) -> Result<()> {
        let (chain, space) = self.folder_chain(folder)?;
        let mut sets = Sets::default();
        let flow = self.visit(&chain, job, &mut |at, record| {
            let Some(complete) = sets.take(at, record)? else { return ControlFlow::Continue(()) };
            match Set::read(&complete.records, &self.upcase) {
                Ok(set) => visit(FileId { space, number: complete.at }, set),
                Err(what) => {
                    sets.fault.get_or_insert((what, complete.at));
                    ControlFlow::Continue(())
                }
            }
        })?;
        sets.finish(flow.is_break());
        match (sets.fault, chain.fault) {
            (Some((what, at)), _) => Err(Error::damaged(what, Some(at))),
            (None, Some(what)) if flow.is_continue() => Err(Error::damaged(what, None)),
            _ => Ok(()),
        }
    }

    /// Tells `visit` the records of a folder and their places; `None` for those that cannot be
    /// read.
    pub(super) fn visit(
        &self,
        chain: &Chain,
        job: Job<'_>,
        visit: &mut dyn FnMut(u64, Option<&Record>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        visit_records(&self.volume, self.extents(chain), job, &mut |record| match record {
            clusters::Record::At(at, record) => visit(at, Some(record)),
            clusters::Record::Gap => visit(0, None),
        })
    }

    /// The clusters of a folder, and what its files have as [`FileId::space`].
    fn folder_chain(&self, folder: FileId) -> Result<(Chain, u64)> {
        if folder == ROOT {
            let chain = self.chain(self.geometry.root_cluster, FOLDER_BYTES_MAX, false)?;
            return Ok((chain, CHAINED));
        }
        let set = self.set(folder)?;
        if set.file_type() != FileType::Folder {
            return Err(Error::WrongType { wanted: "folder" });
        }
        if set.len > FOLDER_BYTES_MAX {
            return Err(Error::damaged("a folder is larger than any can be", Some(folder.number)));
        }
        let space = if set.in_one_piece { IN_ONE_PIECE } else { CHAINED };
        let mut chain = self.chain(set.first, set.len, set.in_one_piece)?;
        let found: u64 = self.extents(&chain).map(|extent| extent.len).sum();
        if found < set.len && chain.fault.is_none() {
            chain.fault = Some("the clusters of a folder end before it does".to_owned());
        }
        Ok((chain, space))
    }

    /// The clusters of so many bytes from a first one on.
    pub(super) fn chain(&self, first: u32, len: u64, in_one_piece: bool) -> Result<Chain> {
        let wanted = len.div_ceil(self.geometry.cluster_size.into());
        let max = u32::try_from(wanted).unwrap_or(u32::MAX).min(self.geometry.clusters);
        if max > 0 && !self.geometry.has(first) {
            let fault = Some(format!("its first cluster, {first}, is none"));
            return Ok(Chain { runs: Vec::new(), fault });
        }
        if in_one_piece {
            let left = self.geometry.clusters - first.saturating_sub(2).min(self.geometry.clusters);
            let run = Run { first, count: max.min(left) };
            return Ok(Chain { runs: vec![run], fault: None });
        }
        let mut window = self.window();
        follow(first, max, |cluster| self.step(&mut window, cluster))
    }

    fn window(&self) -> Window {
        let entries = u64::from(self.geometry.clusters) + 2;
        Window::new(Extent::new(self.geometry.table_at, entries * 4))
    }

    fn step(&self, window: &mut Window, cluster: u32) -> Result<Step> {
        const END: u32 = 0xffff_ffff;
        Ok(match u32::from_le_bytes(window.get(&self.volume, u64::from(cluster) * 4)?) {
            END => Step::End,
            next if self.geometry.has(next) => Step::To(next),
            _ => Step::Broken,
        })
    }

    /// Where a chain lies on the volume.
    pub(in crate::exfat) fn extents<'c>(
        &self,
        chain: &'c Chain,
    ) -> impl Iterator<Item = Extent> + use<'c, '_> {
        let cluster_size = u64::from(self.geometry.cluster_size);
        chain.runs.iter().map(move |run| {
            Extent::new(self.geometry.offset_of(run.first), u64::from(run.count) * cluster_size)
        })
    }

    /// The records of a file or folder other than the root, wherever its folder goes on.
    pub(super) fn set(&self, file: FileId) -> Result<Set> {
        let damaged = |what: &str| Error::damaged(what, Some(file.number));
        let cluster_size = u64::from(self.geometry.cluster_size);
        let heap =
            Extent::new(self.geometry.heap_at, u64::from(self.geometry.clusters) * cluster_size);
        let is_place = heap.contains(Extent::new(file.number, 32))
            && file.number.is_multiple_of(32)
            && matches!(file.space, CHAINED | IN_ONE_PIECE);
        if !is_place {
            return Err(damaged("a file has no record there"));
        }
        let mut at = file.number;
        let primary = self.record(at)?;
        let count = further_records(&primary).filter(|_| primary[0] == FILE);
        let count = count.ok_or_else(|| damaged("what is there is no record of a file"))?;
        let mut records = vec![primary];
        while records.len() <= count {
            at += 32;
            let index = (at - heap.start) / cluster_size;
            if (at - heap.start).is_multiple_of(cluster_size) {
                // `at` is the end of this one.
                let cluster = u32::try_from(index + 1).map_err(|_| damaged("no such cluster"))?;
                let next = match file.space {
                    IN_ONE_PIECE => cluster.checked_add(1).filter(|&next| self.geometry.has(next)),
                    _ => match self.step(&mut self.window(), cluster)? {
                        Step::To(next) => Some(next),
                        Step::End | Step::Broken => None,
                    },
                };
                let next = next.ok_or_else(|| damaged("the records of a file break off"))?;
                at = self.geometry.offset_of(next);
            }
            records.push(self.record(at)?);
        }
        Set::read(&records, &self.upcase).map_err(damaged)
    }

    fn record(&self, at: u64) -> Result<Record> {
        let mut record = [0; 32];
        self.volume.read_exact_at(&mut record, at).map_err(Error::io("read folder", at))?;
        Ok(record)
    }
}

/// A set whose records are complete.
struct Complete {
    at: u64,
    records: Vec<Record>,
}

/// Puts records together.
#[derive(Default)]
struct Sets {
    open: Option<(Complete, usize)>,
    /// The first that is wrong, and where.
    fault: Option<(&'static str, u64)>,
}

impl Sets {
    /// Takes the next record, and breaks off at the end of the folder.
    fn take(&mut self, at: u64, record: Option<&Record>) -> ControlFlow<(), Option<Complete>> {
        const IN_USE: u8 = 0x80;
        const SECONDARY: u8 = 0x40;
        const BENIGN: u8 = 0x20;
        /// Allocation bitmap, up-case table, label: of the root folder.
        const LONE: [u8; 3] = [0x81, 0x82, 0x83];
        let kind = record.map_or(0xff, |record| record[0]);
        let Some(record) = record.filter(|_| kind & (IN_USE | SECONDARY) == IN_USE | SECONDARY)
        else {
            self.close();
            let count = match record {
                Some(_) if kind == 0 => return ControlFlow::Break(()),
                Some(record) if kind == FILE => further_records(record),
                _ => None,
            };
            match (record, count) {
                (Some(record), Some(count)) => {
                    self.open = Some((Complete { at, records: vec![*record] }, count));
                }
                // The medium failed, which is an error of its own.
                (None, _) => {}
                _ if kind & IN_USE == 0 || kind & BENIGN != 0 || LONE.contains(&kind) => {}
                _ => {
                    self.fault.get_or_insert(("a record is of no known kind", at));
                }
            }
            return ControlFlow::Continue(None);
        };
        let Some((mut set, left)) = self.open.take() else {
            self.fault.get_or_insert(("a record belongs to no file", at));
            return ControlFlow::Continue(None);
        };
        set.records.push(*record);
        if left > 1 {
            self.open = Some((set, left - 1));
            return ControlFlow::Continue(None);
        }
        ControlFlow::Continue(Some(set))
    }

    /// Notes that a set is not complete.
    fn close(&mut self) {
        if let Some((set, _)) = self.open.take() {
            self.fault.get_or_insert(("the records of a file break off", set.at));
        }
    }

    fn finish(&mut self, ended: bool) {
        if !ended {
            self.close();
        }
    }
}
