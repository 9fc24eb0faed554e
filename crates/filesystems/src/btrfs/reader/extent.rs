//! Items that say where parts of a file are.

use super::super::key::Item;
use super::compressed::{LEN_MAX, Method};
use crate::bytes::{le16, le64};
use crate::{Error, Result};

const INLINE: u8 = 0;
const REGULAR: u8 = 1;
const PREALLOCATED: u8 = 2;
const FIXED_LEN: usize = 21;
const FULL_LEN: usize = 53;

/// A part of a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct FileExtent<'a> {
    /// First byte in the file.
    pub(super) start: u64,
    /// Bytes, at least one; their end is a number.
    pub(super) len: u64,
    pub(super) content: Content<'a>,
}

/// What a part of a file consists of.
#[derive(Debug, Clone, Copy)]
pub(super) enum Content<'a> {
    /// A hole, or never written.
    Zeros,
    /// As it lies at a logical address.
    Plain { logical: u64 },
    /// A piece of an extent that is expanded as a whole.
    Packed { packed: Packed, offset: u64 },
    /// The item itself.
    Inline { stored: &'a [u8], method: Option<Method> },
}

/// A compressed extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Packed {
    pub(super) logical: u64,
    /// At most [`LEN_MAX`], like [`Self::len`].
    pub(super) stored_len: u64,
    pub(super) len: u64,
    pub(super) method: Method,
}

impl<'a> FileExtent<'a> {
    /// The item of a file that is `EXTENT_DATA`.
    pub(super) fn parse(item: Item<'a>, sector_size: u64) -> Result<Self> {
        let (data, start) = (item.data, item.key.offset);
        let damaged = |what: &str| {
            Err(Error::damaged(format!("an extent of a file at its byte {start}: {what}"), None))
        };
        if data.len() < FIXED_LEN {
            return damaged("its item is too short");
        }
        let ram_bytes = le64(data, 8);
        let method = match data[16] {
            0 => None,
            1 => Some(Method::Zlib),
            2 => Some(Method::Lzo),
            3 => Some(Method::Zstd),
            _ => return Err(unsupported("compressed")),
        };
        if data[17] != 0 || le16(data, 18) != 0 {
            return Err(unsupported("encoded"));
        }
        if data[20] == INLINE {
            let stored = &data[FIXED_LEN..];
            let is_short = match method {
                None => ram_bytes != stored.len() as u64,
                Some(_) => ram_bytes > LEN_MAX,
            };
            if start != 0 || ram_bytes == 0 || is_short {
                return damaged("it does not fit into its item");
            }
            let content = Content::Inline { stored, method };
            return Ok(Self { start, len: ram_bytes, content });
        }
        if ![REGULAR, PREALLOCATED].contains(&data[20]) || data.len() != FULL_LEN {
            return damaged("its kind is unknown");
        }
        let [logical, stored_len, offset, len] = [21, 29, 37, 45].map(|at| le64(data, at));
        let aligned = [start, logical, stored_len, offset, len];
        if !aligned.iter().all(|number| number.is_multiple_of(sector_size)) {
            return damaged("it does not consist of sectors");
        }
        if len == 0 || start.checked_add(len).is_none() {
            return damaged("its length is out of range");
        }
        if logical == 0 || data[20] == PREALLOCATED {
            return Ok(Self { start, len, content: Content::Zeros });
        }
        let whole = if method.is_some() { ram_bytes } else { stored_len };
        if offset.checked_add(len).is_none_or(|end| end > whole)
            || logical.checked_add(stored_len).is_none()
        {
            return damaged("it is longer than what it is a part of");
        }
        let Some(method) = method else {
            return Ok(Self { start, len, content: Content::Plain { logical: logical + offset } });
        };
        if ram_bytes > LEN_MAX || stored_len > LEN_MAX {
            return damaged("it is longer than compressed ones can be");
        }
        let packed = Packed { logical, stored_len, len: ram_bytes, method };
        Ok(Self { start, len, content: Content::Packed { packed, offset } })
    }

    /// Byte behind its last one in the file.
    pub(super) fn end(&self) -> u64 {
        self.start + self.len
    }
}

fn unsupported(how: &str) -> Error {
    Error::Unsupported { what: format!("a part of the file is {how} in a way that is not known") }
}
