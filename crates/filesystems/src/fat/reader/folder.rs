//! What a folder says.

use std::ops::ControlFlow;

use aiv_volume_io::{Extent, Job};

use super::names::{LongName, short_name};
use super::record::{Role, first_cluster, role};
use super::{FOLDER_BYTES_MAX, Fat, ROOT};
use crate::clusters::{Chain, Record, visit_records};
use crate::{Error, FileId, FileType, Result};

/// A file or folder in a folder.
pub(super) struct Found {
    pub(super) long: Option<Vec<u8>>,
    pub(super) short: Vec<u8>,
    pub(super) id: FileId,
    pub(super) file_type: FileType,
}

impl Fat<'_> {
    /// Tells `visit` what is in a folder, in the order of the disk, until it breaks off.
    pub(super) fn scan(
        &self,
        folder: FileId,
        job: Job<'_>,
        visit: &mut dyn FnMut(Found) -> ControlFlow<()>,
    ) -> Result<()> {
        let (pieces, fault) = self.pieces(folder)?;
        let mut long = LongName::default();
        let flow = visit_records(&self.volume, pieces, job, &mut |record| {
            let Record::At(at, record) = record else {
                long.clear();
                return ControlFlow::Continue(());
            };
            let file_type = match role(record) {
                Role::End => return ControlFlow::Break(()),
                Role::LongName => {
                    long.take(record);
                    return ControlFlow::Continue(());
                }
                Role::Deleted | Role::Label | Role::DotOrDotDot => {
                    long.clear();
                    return ControlFlow::Continue(());
                }
                Role::File => FileType::File,
                Role::Folder => FileType::Folder,
            };
            let id = FileId { space: 0, number: at };
            visit(Found { long: long.of(record), short: short_name(record), id, file_type })
        })?;
        match fault.filter(|_| flow.is_continue()) {
            Some(what) => Err(Error::damaged(what, Some(folder.number))),
            None => Ok(()),
        }
    }

    /// Where a folder lies, and why there may be more of it.
    fn pieces(&self, folder: FileId) -> Result<(Vec<Extent>, Option<String>)> {
        let first = if folder == ROOT {
            let root = Extent::between(self.geometry.root_at, self.geometry.data_at);
            match self.geometry.root_cluster {
                None => return Ok((vec![root], None)),
                Some(cluster) => cluster,
            }
        } else {
            let record = self.record(folder)?;
            if role(&record) != Role::Folder {
                return Err(Error::WrongType { wanted: "folder" });
            }
            first_cluster(&record, &self.geometry)
        };
        let chain: Chain = self.chain(first, FOLDER_BYTES_MAX)?;
        let len: u64 = self.extents(&chain).map(|extent| extent.len).sum();
        let too_long = || "a folder is larger than any can be".to_owned();
        let fault = chain.fault.clone().or_else(|| (len >= FOLDER_BYTES_MAX.into()).then(too_long));
        Ok((self.extents(&chain).collect(), fault))
    }
}
