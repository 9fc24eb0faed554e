//! Files of NTFS.
//!
//! Facts: Linux-NTFS project, "NTFS documentation"; Microsoft, [MS-FSCC] and [MS-XCA]; where they
//! are silent, what ntfs-3g does.
//!
//! A file is the reference of its first record: the number in `$MFT` and how often that was used,
//! which is checked. Names are those of Windows and POSIX; the short form beside a name is not
//! listed, but can be looked up. The filesystem's own files (records below 24) are not listed, as
//! ntfs-3g does it; they can be looked up, and read by their number.
//!
//! Not read: files that are encrypted or deduplicated, and what waits in `$LogFile`, which
//! describes changes of pages; a note says when there may be something.

mod compressed;
mod contents;
mod facts;
mod file;
mod folder;
mod huffman;
mod index;
mod information;
mod lznt1;
mod lzx;
mod names;
mod open;
mod reparse;
mod security;
mod table;
mod wof;
mod xpress;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, OnceLock};

use aiv_volume_io::Job;

use super::boot::Geometry;
use super::stream::Stream as Table;
use crate::reader::Volume;
use crate::{
    Attribute, Entry, Error, FileData, FileId, Filesystem, FilesystemKind, Metadata, ReaderNote,
    Result, Stream,
};
pub(crate) use table::open;

const ROOT: u64 = 5;
const UPPER_CASE: u64 = 10;

/// An NTFS volume whose files can be read.
pub(crate) struct Ntfs {
    volume: Volume,
    geometry: Geometry,
    /// The clusters of `$MFT`.
    table: Table,
    notes: Vec<ReaderNote>,
    case: OnceLock<Arc<names::UpCase>>,
    /// Security descriptors by their numbers.
    descriptors: Mutex<HashMap<u32, Arc<[u8]>>>,
}

impl Filesystem for Ntfs {
    fn kind(&self) -> FilesystemKind {
        FilesystemKind::Ntfs
    }

    fn notes(&self) -> &[ReaderNote] {
        &self.notes
    }

    fn root(&self) -> FileId {
        FileId { space: 0, number: ROOT | ROOT << 48 }
    }

    fn metadata(&self, file: FileId) -> Result<Metadata> {
        self.metadata_of(&self.file(file)?)
    }

    fn entries(
        &self,
        folder: FileId,
        job: Job<'_>,
        visit: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<()> {
        self.names_in(&self.file(folder)?, job, visit)
    }

    fn lookup(&self, folder: FileId, name: &[u8], job: Job<'_>) -> Result<Option<FileId>> {
        self.named_in(&self.file(folder)?, name, job)
    }

    fn open(&self, file: FileId) -> Result<Box<dyn FileData + '_>> {
        self.open_main(&self.file(file)?)
    }

    fn link_target(&self, link: FileId) -> Result<Vec<u8>> {
        self.target_of(&self.file(link)?)
    }

    fn attributes(&self, file: FileId) -> Result<Vec<Attribute>> {
        self.attributes_of(&self.file(file)?)
    }

    fn streams(&self, file: FileId) -> Result<Vec<Stream>> {
        self.streams_of(&self.file(file)?)
    }

    fn open_stream(&self, file: FileId, name: &[u8]) -> Result<Box<dyn FileData + '_>> {
        let units = names::units_of(name).filter(|units| !units.is_empty());
        let units = units.ok_or_else(|| Error::damaged("a file has no such stream", None))?;
        let name: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        self.open_data(&self.file(file)?, &name)
    }
}
