//! Files the Windows Overlay Filter compressed ("compact OS"): their bytes are in a stream of
//! their own, in chunks behind a table of where each ends.
//!
//! Facts: Microsoft, [MS-FSCC] 2.1.2.1 (`IO_REPARSE_TAG_WOF`) and `WOF_EXTERNAL_INFO`,
//! `FILE_PROVIDER_EXTERNAL_INFO_V1` of its headers; the table as wimlib describes it for WIM
//! resources.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use aiv_volume_io::{Extent, ReadAt};

use super::{lzx, xpress};
use crate::bytes::{le32, le64};
use crate::{Error, FileData, Result};

/// Entries of the table that are read at once.
const ENTRIES: u64 = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Xpress,
    Lzx,
}

/// What a reparse point of the filter says, read.
fn method(reparse: &[u8]) -> Result<(Method, u64)> {
    let unsupported = |what: String| Err(Error::Unsupported { what });
    let Some(data) = reparse.get(8..24) else {
        return Err(Error::damaged(
            "a reparse point of the Windows Overlay Filter is cut off",
            None,
        ));
    };
    match (le32(data, 0), le32(data, 4), le32(data, 8), le32(data, 12)) {
        (1, 2, 1, 0) => Ok((Method::Xpress, 4 << 10)),
        (1, 2, 1, 1) => Ok((Method::Lzx, lzx::CHUNK as u64)),
        (1, 2, 1, 2) => Ok((Method::Xpress, 8 << 10)),
        (1, 2, 1, 3) => Ok((Method::Xpress, 16 << 10)),
        (1, 1, ..) => {
            unsupported("its bytes are in a WIM file (Windows Overlay Filter)".to_owned())
        }
        (1, 2, 1, method) => unsupported(format!(
            "it is compressed by Windows in a way that is not known ({method})"
        )),
        _ => unsupported("it belongs to a Windows Overlay Filter that is not known".to_owned()),
    }
}

/// A compressed file. Remembers the chunk that was decompressed last.
pub(super) struct Wof<'a> {
    stream: Box<dyn FileData + 'a>,
    method: Method,
    chunk: u64,
    len: u64,
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    chunk: Option<(u64, Arc<[u8]>)>,
    /// The number of its first entry, and its bytes.
    table: Option<(u64, Vec<u8>)>,
}

impl<'a> Wof<'a> {
    /// The file of `len` bytes with this reparse point, whose stream is `stream`.
    pub(super) fn new(reparse: &[u8], len: u64, stream: Box<dyn FileData + 'a>) -> Result<Self> {
        let (method, chunk) = method(reparse)?;
        let wof = Self { stream, method, chunk, len, last: Mutex::default() };
        let table = wof.chunks().saturating_sub(1).checked_mul(wof.entry_size());
        match table.is_some_and(|table| table <= wof.stream.len()) {
            true => Ok(wof),
            false => Err(Error::damaged("what a file is compressed to has no room for it", None)),
        }
    }

    fn chunks(&self) -> u64 {
        self.len.div_ceil(self.chunk)
    }

    const fn entry_size(&self) -> u64 {
        if self.len > u32::MAX as u64 { 8 } else { 4 }
    }

    /// Where chunk `number` begins behind the table: where the one before it ends.
    fn start_of(&self, number: u64, last: &mut Last) -> io::Result<u64> {
        let Some(entry) = number.checked_sub(1) else { return Ok(0) };
        let count = self.chunks() - 1;
        let size = self.entry_size();
        if entry >= count {
            return Ok(self.stream.len() - count * size);
        }
        let first = entry / ENTRIES * ENTRIES;
        if last.table.as_ref().is_none_or(|(at, _)| *at != first) {
            let len = ENTRIES.min(count - first) * size;
            let mut table = vec![0; usize::try_from(len).map_err(io::Error::other)?];
            self.stream.read_exact_at(&mut table, first * size)?;
            last.table = Some((first, table));
        }
        let at = usize::try_from((entry - first) * size).map_err(io::Error::other)?;
        let table = last.table.as_ref().and_then(|(_, table)| table.get(at..));
        let table = table.ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(if size == 8 { le64(table, 0) } else { le32(table, 0).into() })
    }

    fn chunk(&self, number: u64) -> io::Result<Arc<[u8]>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, chunk)) = last.chunk.as_ref().filter(|(at, _)| *at == number) {
            return Ok(chunk.clone());
        }
        let damaged = || {
            let at = number * self.chunk;
            let what = format!("compressed data is damaged, from byte {at} of the file on");
            io::Error::new(io::ErrorKind::InvalidData, what)
        };
        let start = self.start_of(number, &mut last)?;
        let end = self.start_of(number + 1, &mut last)?;
        let len = self.chunk.min(self.len - number * self.chunk);
        let stored = end.checked_sub(start).filter(|stored| (1..=len).contains(stored));
        let table = (self.chunks() - 1) * self.entry_size();
        let at = table.checked_add(start).ok_or_else(damaged)?;
        let stored = usize::try_from(stored.ok_or_else(damaged)?).map_err(io::Error::other)?;
        if at.checked_add(stored as u64).is_none_or(|end| end > self.stream.len()) {
            return Err(damaged());
        }
        let mut packed = vec![0; stored];
        self.stream.read_exact_at(&mut packed, at)?;
        let chunk: Arc<[u8]> = if stored as u64 == len {
            packed.into()
        } else {
            let mut chunk = vec![0; usize::try_from(len).map_err(io::Error::other)?];
            let unpacked = match self.method {
                Method::Xpress => xpress::decompress(&packed, &mut chunk),
                Method::Lzx => lzx::decompress(&packed, &mut chunk),
            };
            unpacked.ok_or_else(damaged)?;
            chunk.into()
        };
        last.chunk = Some((number, chunk.clone()));
        Ok(chunk)
    }
}

impl ReadAt for Wof<'_> {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(out.len() as u64).filter(|&end| end <= self.len);
        if end.is_none() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut done = 0;
        while done < out.len() {
            let at = offset + done as u64;
            let chunk = self.chunk(at / self.chunk)?;
            let within = usize::try_from(at % self.chunk).map_err(io::Error::other)?;
            let rest = chunk.get(within..).unwrap_or_default();
            let now = rest.len().min(out.len() - done);
            if now == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            out[done..done + now].copy_from_slice(&rest[..now]);
            done += now;
        }
        Ok(())
    }

    fn holes(&self, _: Extent) -> io::Result<Vec<Extent>> {
        Ok(Vec::new())
    }
}

impl FileData for Wof<'_> {
    fn extents(&self) -> Result<Vec<Extent>> {
        self.stream.extents()
    }
}
