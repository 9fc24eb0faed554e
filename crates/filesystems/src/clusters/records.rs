//! The records of a folder.

use std::ops::ControlFlow;

use aiv_volume_io::{Extent, Job, ReadAt};

use crate::reader::VolumeOf;
use crate::{Error, Result};

/// Bytes of a record.
pub(crate) const RECORD: usize = 32;
/// Bytes read at once.
const STRIDE: u64 = 64 << 10;
/// Bytes that fail together.
const SECTOR: u64 = 512;

pub(crate) enum Record<'a> {
    /// At a byte offset of the volume.
    At(u64, &'a [u8; RECORD]),
    /// Some could not be read.
    Gap,
}

/// Tells `visit` all records in the pieces of a folder, until it breaks off: then that is the
/// answer.
///
/// # Errors
/// [`Error::Io`] after all that could be read, also when `visit` broke off before that;
/// [`Error::Canceled`] when `job` is stopped.
pub(crate) fn visit_records(
    volume: &VolumeOf<'_>,
    pieces: impl IntoIterator<Item = Extent>,
    job: Job<'_>,
    visit: &mut dyn FnMut(Record<'_>) -> ControlFlow<()>,
) -> Result<ControlFlow<()>> {
    let mut failed = None;
    let mut bytes = Vec::new();
    let answer = |flow, failed: Option<Error>| failed.map_or(Ok(flow), Err);
    for piece in pieces {
        let mut at = piece.start;
        while at < piece.end() {
            job.check()?;
            let mut len = STRIDE.min(piece.end() - at);
            if failed.is_some() {
                len = len.min(SECTOR);
            }
            bytes.resize(usize::try_from(len).unwrap_or_default(), 0);
            let read = volume.read_exact_at(&mut bytes, at);
            let flow = match read {
                Ok(()) => (at..)
                    .step_by(RECORD)
                    .zip(bytes.as_chunks().0)
                    .try_for_each(|(at, record)| visit(Record::At(at, record))),
                // Once more, in sectors.
                Err(source) if failed.is_none() => {
                    failed = Some(Error::Io { op: "read folder", offset: at, source });
                    continue;
                }
                Err(_) => visit(Record::Gap),
            };
            if flow.is_break() {
                return answer(flow, failed);
            }
            at += len;
        }
    }
    answer(ControlFlow::Continue(()), failed)
}
