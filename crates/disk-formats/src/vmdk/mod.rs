//! VMware's VMDK: a descriptor that names extents, flat or of grains, and a parent.
//!
//! Facts: VMware's "Virtual Disk Format" 5.0. Sparse extents of ESX (`COWD`, `SESPARSE`) are
//! refused.

mod descriptor;
mod sparse;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aiv_volume_io::ReadAt;

use self::descriptor::{Descriptor, ExtentKind};
use self::sparse::Sparse;
use crate::follow::{Files, names_of_windows};
use crate::format::is_descriptor;
use crate::layer::{Layer, Place};
use crate::open::{Identity, ParentRef, Understood};
use crate::{Error, Format, Result};

pub(super) const SECTOR: u64 = 512;

pub(crate) fn open(file: Arc<dyn ReadAt>, path: &Path, files: &mut Files) -> Result<Understood> {
    let mut head = [0; 64];
    let count = usize::try_from(file.len()).unwrap_or(usize::MAX).min(head.len());
    file.read_exact_at(&mut head[..count], 0).map_err(Error::io("read the header", 0))?;
    if !is_descriptor(&head) {
        let sparse = sparse::open(file)?;
        let descriptor = sparse.descriptor()?;
        let notes = sparse.notes();
        return Ok(understood(descriptor.as_ref(), Box::new(sparse), notes));
    }
    let descriptor = descriptor::read(&*file, 0, file.len())?;
    let mut parts = Parts { parts: Vec::new(), size: 0 };
    let mut notes = Vec::new();
    for extent in &descriptor.extents {
        let len = extent.len;
        let part = match &extent.kind {
            ExtentKind::Zero => Part::Zero,
            ExtentKind::Flat { name, offset } => {
                let opened = files.piece(path, name)?;
                let end = offset.checked_add(len);
                if end.is_none_or(|end| end > opened.file.len()) {
                    let what =
                        format!("{len} bytes at {offset}, the file has {}", opened.file.len());
                    return Err(Error::within(&opened.path)(corrupt("flat extent", 0, what)));
                }
                Part::Flat { file: opened.file, offset: *offset }
            }
            ExtentKind::Sparse { name } => {
                let opened = files.piece(path, name)?;
                let sparse = sparse::open(opened.file).map_err(Error::within(&opened.path))?;
                if sparse.len() < len {
                    let what = format!("{} bytes, the descriptor says {len}", sparse.len());
                    return Err(Error::within(&opened.path)(corrupt("sparse extent", 0, what)));
                }
                notes.extend(sparse.notes());
                Part::Sparse(Box::new(sparse))
            }
        };
        let start = parts.size;
        parts.size = start.checked_add(len).ok_or_else(|| {
            corrupt("descriptor", 0, "extents of more bytes than can be counted".into())
        })?;
        parts.parts.push((start, part));
    }
    Ok(understood(Some(&descriptor), Box::new(parts), notes))
}

fn understood(
    descriptor: Option<&Descriptor>,
    layer: Box<dyn Layer>,
    notes: Vec<String>,
) -> Understood {
    let parent = descriptor.and_then(|d| d.parent.as_ref()).map(|(cid, hint)| {
        let mut names = vec![PathBuf::from(hint)];
        for name in names_of_windows(std::slice::from_ref(hint)) {
            names.extend((names[0] != name).then_some(name));
        }
        ParentRef { names, format: Some(Format::Vmdk), expected: vec![Identity::Cid(*cid)] }
    });
    let identity = descriptor.map(|descriptor| Identity::Cid(descriptor.cid));
    Understood { layer, parent, identity, notes }
}

fn corrupt(section: &'static str, offset: u64, what: String) -> Error {
    Error::Corrupt { format: Format::Vmdk, section, offset, what }
}

fn unsupported(what: String) -> Error {
    Error::Unsupported { format: Format::Vmdk, what }
}

enum Part {
    Zero,
    Flat { file: Arc<dyn ReadAt>, offset: u64 },
    Sparse(Box<Sparse>),
}

/// Extents one after the other.
struct Parts {
    /// By their first byte on the disk.
    parts: Vec<(u64, Part)>,
    size: u64,
}

impl Parts {
    /// The extent that holds a byte, its number, and where it begins and ends.
    fn at(&self, at: u64) -> io::Result<(usize, u64, u64, &Part)> {
        let index = self.parts.partition_point(|(start, _)| *start <= at);
        let index = index.checked_sub(1).ok_or(io::ErrorKind::InvalidInput)?;
        let (start, part) = &self.parts[index];
        let end = self.parts.get(index + 1).map_or(self.size, |(next, _)| *next);
        Ok((index, *start, end, part))
    }
}

impl Layer for Parts {
    fn len(&self) -> u64 {
        self.size
    }

    fn find(&self, at: u64) -> io::Result<(u64, Place)> {
        let (index, start, end, part) = self.at(at)?;
        let (rest, inside) = (end - at, at - start);
        Ok(match part {
            Part::Zero => (rest, Place::Zero),
            Part::Flat { offset, .. } => {
                (rest, Place::Data { file: index, offset: offset + inside })
            }
            Part::Sparse(sparse) => {
                let (len, place) = sparse.find(inside)?;
                let place = match place {
                    Place::Data { offset, .. } => Place::Data { file: index, offset },
                    Place::Packed { unit } => Place::Packed { unit: start + unit },
                    place => place,
                };
                (len.min(rest), place)
            }
        })
    }

    fn data(&self, index: usize) -> Option<&dyn ReadAt> {
        match &self.parts.get(index)?.1 {
            Part::Zero => None,
            Part::Flat { file, .. } => Some(&**file),
            Part::Sparse(sparse) => sparse.data(0),
        }
    }

    fn unpack(&self, unit: u64) -> io::Result<Vec<u8>> {
        match self.at(unit)? {
            (_, start, _, Part::Sparse(sparse)) => sparse.unpack(unit - start),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}
