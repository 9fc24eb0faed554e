//! The names of a folder, one after the other.

use std::ops::ControlFlow;

use aiv_volume_io::Job;

use super::fork::{Fork, Place};
use super::inode::{Inode, Which};
use super::layout::{INDEX_AT, Layout};
use super::names::{Name, NameBlock, ShortNames};
use crate::reader::Entry;
use crate::{Error, Result};

/// A folder whose inode was read.
pub(super) struct Folder<'a> {
    pub(super) layout: &'a Layout<'a>,
    pub(super) inode: Inode,
}

/// What is told of a folder: the names that could be read, then the first fault.
struct Telling<'v> {
    visit: &'v mut dyn FnMut(Entry) -> ControlFlow<()>,
    fault: Option<Error>,
}

impl Telling<'_> {
    fn name(&mut self, folder: &Inode, name: Name<'_>) -> ControlFlow<()> {
        if name.is_dots() {
            return ControlFlow::Continue(());
        }
        if !name.is_possible() {
            self.fault.get_or_insert_with(|| folder.damaged("it has a name that is none"));
            return ControlFlow::Continue(());
        }
        (self.visit)(name.entry())
    }
}

impl<'a> Folder<'a> {
    pub(super) fn read(layout: &'a Layout<'a>, number: u64) -> Result<Self> {
        let inode = Inode::read(layout, number)?;
        if !inode.is_folder() {
            return Err(Error::WrongType { wanted: "folder" });
        }
        Ok(Self { layout, inode })
    }

    /// The names in the inode, where they are there.
    fn short_names(&self) -> Result<Option<ShortNames<'_>>> {
        match self.inode.fork(Which::Data)? {
            Some(Place::Local(bytes)) => {
                let names = ShortNames::new(self.layout, bytes, self.inode.len());
                names.map(Some).ok_or_else(|| self.inode.damaged("its names do not fit"))
            }
            _ => Ok(None),
        }
    }

    pub(super) fn fork(&self) -> Result<Fork> {
        let place = self.inode.fork(Which::Data)?;
        let place = place.ok_or_else(|| self.inode.damaged("it has no names"))?;
        Fork::read_records(self.layout, place, self.inode.number)
    }

    /// Tells all names, see [`Filesystem::entries`](crate::Filesystem::entries).
    pub(super) fn tell(
        &self,
        job: Job<'_>,
        visit: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut telling = Telling { visit, fault: None };
        if let Some(mut names) = self.short_names()? {
            while let Some(name) = names.next() {
                match name {
                    Ok(name) => {
                        if telling.name(&self.inode, name).is_break() {
                            return Ok(());
                        }
                    }
                    Err(()) => {
                        let fault = || self.inode.damaged("its names do not fit");
                        telling.fault.get_or_insert_with(fault);
                    }
                }
            }
            return telling.fault.map_or(Ok(()), Err);
        }
        let fork = self.fork()?;
        let mut block = vec![0; self.layout.folder_block_size()];
        for logical in self.blocks(&fork) {
            job.check()?;
            match self.tell_block(&fork, logical, &mut block, &mut telling) {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => return Ok(()),
                Err(error) => {
                    telling.fault.get_or_insert(error);
                }
            }
        }
        telling.fault.map_or(Ok(()), Err)
    }

    fn tell_block(
        &self,
        fork: &Fork,
        logical: u64,
        block: &mut [u8],
        telling: &mut Telling<'_>,
    ) -> Result<ControlFlow<()>> {
        let offset = fork.read_at(self.layout, logical, block)?;
        let names = NameBlock::new(self.layout, self.inode.number, block, offset)?;
        for name in names.names(self.inode.number) {
            if telling.name(&self.inode, name?).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// First blocks of all blocks of names that are there, in front of the index.
    fn blocks<'f>(&self, fork: &'f Fork) -> impl Iterator<Item = u64> + 'f {
        let blocks = 1_usize << self.layout.shape.folder_log;
        let step = blocks as u64;
        let end = INDEX_AT / self.layout.block_size();
        let mut next = 0;
        fork.runs.iter().flat_map(move |run| {
            let start = (run.logical / step * step).max(next);
            next = run.end().min(end).next_multiple_of(step).max(next);
            (start..run.end().min(end)).step_by(blocks)
        })
    }

    /// The name, where the folder is in its inode: `None` where it is not.
    pub(super) fn find_short(
        &self,
        is_it: impl Fn(&[u8]) -> bool,
    ) -> Result<Option<Option<Entry>>> {
        let Some(mut names) = self.short_names()? else { return Ok(None) };
        while let Some(name) = names.next() {
            let name = name.map_err(|()| self.inode.damaged("its names do not fit"))?;
            if !name.is_dots() && name.is_possible() && is_it(name.name) {
                return Ok(Some(Some(name.entry())));
            }
        }
        Ok(Some(None))
    }
}
