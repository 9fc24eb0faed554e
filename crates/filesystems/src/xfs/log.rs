//! Whether the log is empty, or as good as empty: it ends in an unmount record, or a replay would
//! write nothing but the superblock.
//!
//! The log is a ring of 512-byte blocks. Each write stamps the number of the lap ("cycle") into
//! the first word of every block; a block that begins a record has a magic there and the cycle
//! in its second word. So the end of the log, its head, is where the cycle drops by one. As in
//! the kernel (`xlog_find_head`, `xlog_check_unmount_rec` of `xfs_log_recover.c`), the head is
//! found by bisection, and the log is clean if the last record before the head ends at the head
//! and holds one operation, with the unmount flag. Where the kernel goes on to look for the
//! newest sound record among interrupted writes, this reader gives up.
//!
//! A filesystem that is frozen, which every snapshot does for a moment, writes all its metadata
//! to its place and then *covers* the log: it logs the superblock, twice at most, so that the
//! newest record says that nothing before these records is needed (`xfs_log_cover` of
//! `xfs_log.c`). Whether it is so is read from the records, see [`covered`].

use aiv_volume_io::ReadAt;

pub(super) mod covered;
pub(super) mod transactions;

use super::reason::{LogState, XfsReason};
use super::superblock::{Geometry, LogPlace};
use crate::Error;
use crate::bytes::{array, be32, be64, le32};
use crate::stop::Stop;

const BLOCK: usize = 512;
/// `XLOG_HEADER_MAGIC_NUM`, which is no valid cycle.
const RECORD_MAGIC: u32 = 0xfeed_babe;
/// `XLOG_TOTAL_REC_SHIFT`: blocks that may be under way at once, eight records of 256 KiB. A
/// crash leaves nothing out of order further from the head.
const WINDOW: u32 = 4096;
/// Cycle numbers one header block has room for: `XLOG_HEADER_CYCLE_SIZE` of data.
const HEADER_COVERS: u32 = 32 << 10;
const RECORD_MAX: u32 = 256 << 10;
const UNMOUNT_FLAG: u8 = 0x20;
/// Bytes of a record's header that are summed, on machines of 64 and of 32 bits.
const HEADER_SUMMED: [usize; 2] = [328, 324];
const EXTENSION_SUMMED: usize = 260;
const CRC_AT: usize = 32;
/// Records a covered log is read back through. The kernel writes two.
const COVER_RECORDS_MAX: usize = 4;

/// Why nothing has to be replayed before the records of a filesystem can be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LogEnd {
    /// It was unmounted.
    Unmounted,
    /// It is mounted, or was; all that the log holds is the superblock, as it is in its place.
    Covered,
}

pub(super) fn check_is_empty(
    volume: &dyn ReadAt,
    geometry: &Geometry,
    uuid: &[u8; 16],
) -> Result<LogEnd, Stop> {
    let log = log_of(volume, geometry);
    let (head, cycle) = log.head()?;
    let window = log.window_before(head, cycle)?;
    log.check_after(head, cycle)?;
    log.check_unmounted(head, cycle, &window, uuid)
}

fn log_of<'a>(volume: &'a dyn ReadAt, geometry: &Geometry) -> Log<'a> {
    let LogPlace { group, block, blocks } = geometry.log;
    let len = u64::from(blocks) * u64::from(geometry.block_size) / BLOCK as u64;
    let start = geometry.offset_of(group, block);
    Log { volume, start, len: u32::try_from(len).unwrap_or(u32::MAX) }
}

struct Log<'a> {
    volume: &'a dyn ReadAt,
    /// Byte offset in the volume.
    start: u64,
    /// Blocks of 512 bytes, at least 128.
    len: u32,
}

impl Log<'_> {
    fn read(&self, first: u32, out: &mut [u8]) -> Result<(), Stop> {
        let offset = self.start + u64::from(first) * BLOCK as u64;
        Ok(self.volume.read_exact_at(out, offset).map_err(Error::io("read log", offset))?)
    }

    fn cycle_at(&self, block: u32) -> Result<u32, Stop> {
        let mut bytes = [0; BLOCK];
        self.read(block, &mut bytes)?;
        Ok(cycle_of(&bytes))
    }

    /// The block behind the newest record, and the cycle it was written in. The head is 1 to
    /// `len`, where the latter means that the last lap ended exactly with the log.
    fn head(&self) -> Result<(u32, u32), Stop> {
        let newest = self.cycle_at(0)?;
        let oldest = self.cycle_at(self.len - 1)?;
        if newest == 0 {
            return Err(broken(0));
        }
        if newest == oldest {
            return Ok((self.len, newest));
        }
        if oldest != newest - 1 {
            return Err(broken(self.len - 1));
        }
        let (mut new, mut old) = (0, self.len - 1);
        while old - new > 1 {
            let middle = new + (old - new) / 2;
            match self.cycle_at(middle)? {
                cycle if cycle == newest => new = middle,
                cycle if cycle == oldest => old = middle,
                _ => return Err(broken(middle)),
            }
        }
        Ok((old, newest))
    }

    /// The blocks before the head, oldest first, that writes under way could have touched. All
    /// must be of the newest lap, or of the one before where the window wraps.
    fn window_before(&self, head: u32, cycle: u32) -> Result<Vec<u8>, Stop> {
        let mut window = Vec::new();
        let near = head.min(WINDOW);
        let far = (WINDOW - near).min(self.len - head);
        for (first, count, cycle) in [(self.len - far, far, cycle - 1), (head - near, near, cycle)]
        {
            let start = window.len();
            window.resize(start + count as usize * BLOCK, 0);
            self.read(first, &mut window[start..])?;
            check_cycles(&window[start..], first, cycle)?;
        }
        Ok(window)
    }

    /// What writes under way could have touched behind the head is all of the lap before.
    fn check_after(&self, head: u32, cycle: u32) -> Result<(), Stop> {
        let count = WINDOW.min(self.len - head);
        let mut blocks = vec![0; count as usize * BLOCK];
        self.read(head, &mut blocks)?;
        check_cycles(&blocks, head, cycle - 1)
    }

    /// Walks the records in front of the head backwards: the newest is an unmount record, or all
    /// that a replay would begin with cover the log.
    fn check_unmounted(
        &self,
        head: u32,
        cycle: u32,
        window: &[u8],
        uuid: &[u8; 16],
    ) -> Result<LogEnd, Stop> {
        let newest = self.record_before(window.len() / BLOCK, head, cycle, window, uuid)?;
        if newest.is_unmount() {
            return Ok(LogEnd::Unmounted);
        }
        let mut superblock = [0; BLOCK];
        self.volume.read_exact_at(&mut superblock, 0).map_err(Error::io("read superblock", 0))?;
        let tail = newest.tail();
        let mut record = newest;
        for _ in 0..COVER_RECORDS_MAX {
            if !covered::logs_superblock_only(record.header, record.body, &superblock) {
                break;
            }
            if record.number == tail {
                return Ok(LogEnd::Covered);
            }
            record = self.record_before(record.at, head, cycle, window, uuid)?;
        }
        Err(dirty(LogState::NotUnmounted))
    }

    /// The last record of the window that begins before its block `end`, where it has to end.
    fn record_before<'a>(
        &self,
        end: usize,
        head: u32,
        cycle: u32,
        window: &'a [u8],
        uuid: &[u8; 16],
    ) -> Result<Record<'a>, Stop> {
        let blocks = window.as_chunks::<BLOCK>().0;
        let Some(at) = blocks[..end].iter().rposition(|block| be32(block, 0) == RECORD_MAGIC)
        else {
            return Err(dirty(LogState::NoRecord { head }));
        };
        let header = &blocks[at];
        let body_len = be32(header, 12);
        let before_head = u32::try_from(blocks.len() - at).unwrap_or(u32::MAX);
        // A record that began at the end of the log in the lap before may end in this one.
        let (block, lap) = if before_head <= head {
            (head - before_head, cycle)
        } else {
            (self.len + head - before_head, cycle - 1)
        };
        let damaged = |what| Err(dirty(LogState::Damaged { block, what }));
        let version = be32(header, 8);
        if !(1..=3).contains(&version) || body_len == 0 || body_len > RECORD_MAX {
            return damaged("version or length");
        }
        let size = be32(header, 320);
        let extended = version & 2 != 0 && size > HEADER_COVERS;
        let header_blocks = if extended { size.div_ceil(HEADER_COVERS) } else { 1 };
        let body_blocks = body_len.div_ceil(512);
        if u64::from(header_blocks) + u64::from(body_blocks) != (end - at) as u64 {
            return Err(dirty(LogState::NotUnmounted));
        }
        let number = be64(header, 16);
        if number != u64::from(lap) << 32 | u64::from(block) {
            return damaged("its number is not its place");
        }
        if ![[0; 16], *uuid].contains(&array(header, 304)) {
            return damaged("it belongs to another filesystem");
        }
        let record = &window[at * BLOCK..end * BLOCK];
        let body = &record[header_blocks as usize * BLOCK..];
        if !sum_is_right(record, body, body_len as usize) {
            return damaged("checksum");
        }
        Ok(Record { at, number, header, body })
    }
}

/// A record whose place, length and sum are right.
struct Record<'a> {
    /// Its first block in the window.
    at: usize,
    /// Its log sequence number: lap and block.
    number: u64,
    header: &'a [u8; BLOCK],
    /// As it lies in the log: the first word of every block is a cycle number.
    body: &'a [u8],
}

impl Record<'_> {
    fn is_unmount(&self) -> bool {
        be32(self.header, 40) == 1 && self.body[9] & UNMOUNT_FLAG != 0
    }

    /// The record a replay begins with.
    fn tail(&self) -> u64 {
        be64(self.header, 24)
    }
}

/// `xlog_cksum`: the header without its own sum, the parts of header extensions that the body's
/// length calls for, the body. mkfs and old kernels write no sum but zero.
fn sum_is_right(record: &[u8], body: &[u8], body_len: usize) -> bool {
    let stored = le32(record, CRC_AT);
    let extensions = body_len.div_ceil(HEADER_COVERS as usize) - 1;
    let has_room = (extensions + 1) * BLOCK <= record.len() - body.len();
    let sum = |header_len: usize| {
        let mut sum = crc32c::crc32c(&record[..CRC_AT]);
        sum = crc32c::crc32c_append(sum, &[0; 4]);
        sum = crc32c::crc32c_append(sum, &record[CRC_AT + 4..header_len]);
        for extension in record[BLOCK..].chunks(BLOCK).take(extensions) {
            sum = crc32c::crc32c_append(sum, &extension[..EXTENSION_SUMMED]);
        }
        crc32c::crc32c_append(sum, &body[..body_len])
    };
    stored == 0 || has_room && HEADER_SUMMED.into_iter().any(|len| sum(len) == stored)
}

fn cycle_of(block: &[u8]) -> u32 {
    match be32(block, 0) {
        RECORD_MAGIC => be32(block, 4),
        cycle => cycle,
    }
}

fn check_cycles(blocks: &[u8], first: u32, expected: u32) -> Result<(), Stop> {
    for (block, bytes) in (first..).zip(blocks.as_chunks::<BLOCK>().0) {
        if cycle_of(bytes) != expected {
            return Err(broken(block));
        }
    }
    Ok(())
}

fn broken(block: u32) -> Stop {
    dirty(LogState::Cycles { block })
}

fn dirty(state: LogState) -> Stop {
    XfsReason::LogDirty(state).into()
}
