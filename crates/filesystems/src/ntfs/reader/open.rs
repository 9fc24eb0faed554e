//! The bytes of files and streams.

use super::Ntfs;
use super::compressed::Compressed;
use super::contents::{COMPRESSED, Clusters, Contents, ENCRYPTED};
use super::facts::{WOF_STREAM, utf16};
use super::file::{File, damaged};
use super::wof::Wof;
use crate::ntfs::reason::NtfsReason;
use crate::ntfs::record::DATA;
use crate::reader::Inline;
use crate::{Error, FileData, FileType, Result};

/// How a stream may be compressed.
const LZNT1: u16 = 1;

fn unsupported<T>(what: impl Into<String>) -> Result<T> {
    Err(Error::Unsupported { what: what.into() })
}

impl Ntfs {
    /// The bytes of a file as whoever opens it sees them.
    pub(super) fn open_main(&self, file: &File) -> Result<Box<dyn FileData + '_>> {
        let marks = self.information(file)?.map_or(0, |it| it.marks);
        let kind = self.kind_of(file, marks, None)?;
        match kind.file_type {
            FileType::File => match kind.wof {
                None if kind.is_elsewhere => unsupported("its bytes are shared (deduplicated)"),
                None => self.open_data(file, &[]),
                Some(reparse) => {
                    let len = self.first(file, DATA, &[])?.map_or(0, |attr| attr.len());
                    let stream = self.open_data(file, &utf16(WOF_STREAM))?;
                    Ok(Box::new(Wof::new(&reparse, len, stream)?))
                }
            },
            FileType::Reparse { tag } => {
                unsupported(format!("only a driver of Windows can read it (reparse tag {tag:#x})"))
            }
            _ => Err(Error::WrongType { wanted: "file" }),
        }
    }

    /// The bytes of a stream, the main one without a name, as they are stored for NTFS.
    pub(super) fn open_data(&self, file: &File, name: &[u8]) -> Result<Box<dyn FileData + '_>> {
        let pieces = self.pieces(file, DATA, name)?;
        if pieces.is_empty() {
            let what = match name {
                // A file that never had any.
                [] => return Ok(Box::new(Inline(Vec::new()))),
                _ => "has no such stream",
            };
            return Err(damaged(&NtfsReason::Record { record: file.number, what }));
        }
        let contents = Contents::of(&self.geometry, file.number, &pieces)?;
        if contents.flags & ENCRYPTED != 0 {
            return unsupported("it is encrypted (EFS)");
        }
        if contents.flags & COMPRESSED != 0 {
            if contents.flags & COMPRESSED != LZNT1 {
                return unsupported("it is compressed in a way that is not known");
            }
            let impossible = NtfsReason::Record {
                record: file.number,
                what: "is compressed in units of an impossible size",
            };
            let compressed = Compressed::new(&self.volume, contents);
            return Ok(Box::new(compressed.ok_or_else(|| damaged(&impossible))?));
        }
        match contents.place {
            Clusters::Resident(bytes) => Ok(Box::new(Inline(bytes))),
            Clusters::Runs(_) => {
                let pieces = contents.pieces(&self.volume)?;
                Ok(Box::new(pieces.finish(contents.size, contents.initialised)))
            }
        }
    }
}
