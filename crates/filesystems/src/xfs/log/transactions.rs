//! The transactions that wait in a log, one after the other.
//!
//! A record is a row of operations: 12 bytes that name a transaction and say how many bytes
//! follow, then those. Operations of several transactions are mixed, a transaction goes over
//! several records, and what did not fit into one record goes on in the next. The first words of
//! all blocks were exchanged for cycle numbers; the record's header has them. A transaction is
//! whole when it is committed, and counts from then on: what was not committed did not happen.
//!
//! Only records whose checksum is right are taken, all from the tail to the head without a gap.
//! Facts: `xfs_log_format.h`; `xlog_do_recovery_pass`, `xlog_recover_process_ophdr`,
//! `xlog_recover_add_to_trans` of `xfs_log_recover.c`.

use std::collections::HashMap;

use aiv_volume_io::{Job, ReadAt};

use super::covered::{
    CLIENT, COMMIT, FORMAT_AT, LITTLE_ENDIAN, OPERATION, SAVED_AT, SAVED_WORDS, START,
    TRANSACTION_HEADER, TRANSACTION_MAGIC,
};
use super::{BLOCK, HEADER_COVERS, LogState, RECORD_MAGIC, RECORD_MAX, UNMOUNT_FLAG};
use super::{Log, Stop, broken, dirty, log_of, sum_is_right};
use crate::bytes::{array, be32, be64, le16, le32};
use crate::xfs::superblock::Geometry;

/// `XLOG_CONTINUE_TRANS`, `XLOG_WAS_CONT_TRANS`, `XLOG_END_TRANS`.
const CONTINUES: u8 = 0x04;
const CONTINUED: u8 = 0x08;
const ENDS: u8 = 0x10;
/// The client of what concerns the log itself.
const CLIENT_LOG: u8 = 0xaa;
/// `XLOG_MAX_REGIONS_IN_ITEM`: a buffer of 64 KiB, in pieces of 128 bytes, every second changed.
const REGIONS_MAX: usize = 64 * 1024 / 128 / 2 + 1;
/// Memory for transactions that are not committed yet. The kernel commits after 64 MiB at the
/// latest.
const OPEN_BYTES_MAX: usize = 192 << 20;
/// What an operation takes beside its bytes.
const OPERATION_BYTES: usize = 96;

/// A change: what it is about, and the bytes it consists of.
#[derive(Debug, Default)]
pub(in crate::xfs) struct Item {
    pub(in crate::xfs) regions: Vec<Vec<u8>>,
    total: usize,
}

impl Item {
    /// `XFS_LI_*`: what it changes.
    pub(in crate::xfs) fn kind(&self) -> u16 {
        self.regions.first().filter(|region| region.len() >= 2).map_or(0, |region| le16(region, 0))
    }
}

/// A transaction that was committed.
#[derive(Debug, Default)]
pub(in crate::xfs) struct Transaction {
    /// Number of the record it begins in: lap and block.
    pub(in crate::xfs) number: u64,
    pub(in crate::xfs) items: Vec<Item>,
    header: Vec<u8>,
    bytes: usize,
}

/// What of a log has to be replayed.
pub(in crate::xfs) struct Waiting<'a> {
    log: Log<'a>,
    uuid: [u8; 16],
    /// Block and lap of the first record.
    tail: (u32, u32),
    /// Blocks from there to the head.
    blocks: u32,
}

impl<'a> Waiting<'a> {
    /// Finds both ends of what waits.
    pub(in crate::xfs) fn find(
        volume: &'a dyn ReadAt,
        geometry: &Geometry,
        uuid: [u8; 16],
    ) -> Result<Self, Stop> {
        let log = log_of(volume, geometry);
        let (head, cycle) = log.head()?;
        let window = log.window_before(head, cycle)?;
        log.check_after(head, cycle)?;
        let newest = log.record_before(window.len() / BLOCK, head, cycle, &window, &uuid)?;
        let number = newest.tail();
        let (Ok(lap), Ok(tail)) =
            (u32::try_from(number >> 32), u32::try_from(number & u64::from(u32::MAX)))
        else {
            return Err(broken(head));
        };
        let blocks = match cycle.checked_sub(lap) {
            Some(0) if tail < head => head - tail,
            Some(1) if tail >= head && tail < log.len => log.len - tail + head,
            _ => return Err(damaged(head, "its tail is nowhere")),
        };
        Ok(Self { log, uuid, tail: (tail, lap), blocks })
    }

    /// Hands over all transactions in the order in which they were committed.
    pub(in crate::xfs) fn walk(
        &self,
        job: Job<'_>,
        visit: &mut dyn FnMut(&Transaction) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        let mut open = Open { transactions: HashMap::new(), bytes: 0 };
        let mut done = 0;
        while done < self.blocks {
            job.check()?;
            done += self.record(done, &mut open, visit)?;
        }
        Ok(())
    }

    /// Reads blocks behind the tail, whatever is between them in the ring.
    fn read(&self, behind: u32, out: &mut [u8]) -> Result<(), Stop> {
        let first = self.place(behind).0;
        let room = (self.log.len - first) as usize * BLOCK;
        let (near, far) = out.split_at_mut(room.min(out.len()));
        self.log.read(first, near)?;
        if far.is_empty() { Ok(()) } else { self.log.read(0, far) }
    }

    /// Block in the log, and its lap.
    fn place(&self, behind: u32) -> (u32, u32) {
        let block = u64::from(self.tail.0) + u64::from(behind);
        let len = u64::from(self.log.len);
        let (lap, block) = (block / len, block % len);
        let narrow = |number| u32::try_from(number).unwrap_or(u32::MAX);
        (narrow(block), self.tail.1.saturating_add(narrow(lap)))
    }

    /// Takes the record that begins so many blocks behind the tail; its blocks.
    fn record(
        &self,
        behind: u32,
        open: &mut Open,
        visit: &mut dyn FnMut(&Transaction) -> Result<(), Stop>,
    ) -> Result<u32, Stop> {
        let (block, lap) = self.place(behind);
        let fault = |what| Err(damaged(block, what));
        let mut header = [0; BLOCK];
        self.read(behind, &mut header)?;
        let (version, len, size) = (be32(&header, 8), be32(&header, 12), be32(&header, 320));
        let number = u64::from(lap) << 32 | u64::from(block);
        if be32(&header, 0) != RECORD_MAGIC || be64(&header, 16) != number {
            return fault("it is not where it should be");
        }
        if !(1..=3).contains(&version)
            || len > RECORD_MAX
            || be32(&header, FORMAT_AT) != LITTLE_ENDIAN
        {
            return fault("version, length or byte order");
        }
        if ![[0; 16], self.uuid].contains(&array(&header, 304)) {
            return fault("it belongs to another filesystem");
        }
        let is_extended = version & 2 != 0 && size > HEADER_COVERS;
        let header_blocks = if is_extended { size.div_ceil(HEADER_COVERS) } else { 1 };
        let blocks = header_blocks.saturating_add(len.div_ceil(512));
        if blocks > self.blocks - behind || header_blocks > RECORD_MAX / HEADER_COVERS {
            return fault("it does not end where the log does");
        }
        let mut record = vec![0; blocks as usize * BLOCK];
        self.read(behind, &mut record)?;
        let (headers, body) = record.split_at(header_blocks as usize * BLOCK);
        if len > 0 && !sum_is_right(&record, body, len as usize) {
            return fault("checksum");
        }
        let mut body = body.to_vec();
        for (n, block) in body.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
            let (of, word) = (n / SAVED_WORDS, n % SAVED_WORDS);
            // Headers behind the first have a cycle number in front of the words.
            let at = if of == 0 { SAVED_AT } else { of * BLOCK + 4 } + word * 4;
            let Some(saved) = headers.get(at..at + 4) else {
                return fault("its header is too short");
            };
            block[..4].copy_from_slice(saved);
        }
        body.truncate(len as usize);
        let mut rest = &body[..];
        for _ in 0..be32(&header, 40) {
            let Some((head, behind)) = rest.split_at_checked(OPERATION) else {
                return fault("its operations do not fit");
            };
            let taken = usize::try_from(be32(head, 4)).ok();
            let Some((content, behind)) = taken.and_then(|len| behind.split_at_checked(len)) else {
                return fault("its operations do not fit");
            };
            rest = behind;
            if ![CLIENT, CLIENT_LOG].contains(&head[8]) {
                return fault("an operation of nobody");
            }
            let finished = open.take(be32(head, 0), head[9], content, number);
            let finished = finished.ok_or_else(|| damaged(block, "an impossible operation"))?;
            if let Some(transaction) = finished {
                visit(&transaction)?;
            }
        }
        Ok(blocks)
    }
}

fn damaged(block: u32, what: &'static str) -> Stop {
    dirty(LogState::Damaged { block, what })
}

/// Transactions that are not committed yet.
struct Open {
    transactions: HashMap<u32, Transaction>,
    bytes: usize,
}

impl Open {
    /// Takes an operation; the transaction if this commits it. `None` when it can be none.
    fn take(
        &mut self,
        id: u32,
        flags: u8,
        content: &[u8],
        number: u64,
    ) -> Option<Option<Transaction>> {
        if flags & UNMOUNT_FLAG != 0 {
            return Some(None);
        }
        if flags & START != 0 {
            let begun = Transaction { number, bytes: OPERATION_BYTES, ..Transaction::default() };
            self.bytes += OPERATION_BYTES;
            let is_new = content.is_empty() && self.transactions.insert(id, begun).is_none();
            return (is_new && self.bytes <= OPEN_BYTES_MAX).then_some(None);
        }
        // What began in front of the tail is in its place already.
        let Some(transaction) = self.transactions.get_mut(&id) else { return Some(None) };
        let flags = flags & !ENDS;
        match if flags & CONTINUED != 0 { flags & !CONTINUES } else { flags } {
            0 | CONTINUES => transaction.add(content)?,
            CONTINUED => transaction.go_on(content)?,
            COMMIT => {
                let whole = self.transactions.remove(&id)?;
                self.bytes -= whole.bytes;
                let is_whole = whole.items.iter().all(|item| item.regions.len() == item.total);
                return is_whole.then_some(Some(whole));
            }
            _ => return None,
        }
        transaction.bytes += content.len() + OPERATION_BYTES;
        self.bytes += content.len() + OPERATION_BYTES;
        (self.bytes <= OPEN_BYTES_MAX).then_some(None)
    }
}

impl Transaction {
    /// Adds a region: of the item that lacks some, else of a new one.
    fn add(&mut self, content: &[u8]) -> Option<()> {
        if content.is_empty() {
            return Some(());
        }
        if self.header.len() < TRANSACTION_HEADER {
            return self.add_header(content);
        }
        if self.items.last().is_none_or(|item| item.regions.len() == item.total) {
            // All descriptions say behind their kind how many regions there are.
            let total = usize::from(u16::from_le_bytes(*content.get(2..)?.first_chunk()?));
            if !(1..=REGIONS_MAX).contains(&total) {
                return None;
            }
            self.items.push(Item { regions: Vec::new(), total });
        }
        self.items.last_mut()?.regions.push(content.to_vec());
        Some(())
    }

    fn add_header(&mut self, content: &[u8]) -> Option<()> {
        self.header.extend_from_slice(content);
        let is_header = self.header.len() <= TRANSACTION_HEADER
            && (self.header.len() < 4 || le32(&self.header, 0) == TRANSACTION_MAGIC);
        is_header.then_some(())
    }

    /// Adds the rest of a region.
    fn go_on(&mut self, content: &[u8]) -> Option<()> {
        if self.header.len() < TRANSACTION_HEADER {
            return self.add_header(content);
        }
        self.items.last_mut()?.regions.last_mut()?.extend_from_slice(content);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: [u8; 16] = *b"NART\0\0\0\0\0\0\0\0\0\0\0\0";

    fn open() -> Open {
        Open { transactions: HashMap::new(), bytes: 0 }
    }

    /// A transaction of these operations, if they make one.
    fn taken(operations: &[(u8, &[u8])]) -> Option<Transaction> {
        let mut open = open();
        let mut last = None;
        for (flags, content) in operations {
            last = open.take(7, *flags, content, 42)?;
        }
        let whole = last?;
        assert_eq!(open.bytes, 0);
        Some(whole)
    }

    #[test]
    fn regions_become_items_whatever_they_are_cut_into() {
        let item = [0x3c, 0x12, 2, 0, 9, 9, 9, 9];
        let whole = taken(&[(START, &[]), (0, &HEADER), (0, &item), (0, b"region"), (COMMIT, &[])]);
        let cut = taken(&[
            (START, &[]),
            (CONTINUES, &HEADER[..5]),
            (CONTINUED | ENDS, &HEADER[5..]),
            (CONTINUES, &item[..5]),
            (CONTINUED | CONTINUES, &item[5..7]),
            (CONTINUED | ENDS, &item[7..]),
            (0, &[]),
            (CONTINUES, b"reg"),
            (CONTINUED | ENDS, b"ion"),
            (COMMIT, &[]),
        ]);
        for transaction in [whole.unwrap(), cut.unwrap()] {
            assert_eq!((transaction.number, transaction.items.len()), (42, 1));
            assert_eq!(transaction.items[0].kind(), 0x123c);
            assert_eq!(transaction.items[0].regions, [&item[..], b"region"]);
        }
    }

    #[test]
    fn operations_that_make_no_transaction_are_refused() {
        let item = [0x3c, 0x12, 2, 0];
        let cases: [&[(u8, &[u8])]; 9] = [
            &[(START, &[]), (START, &[])],
            &[(START, b"x")],
            &[(START, &[]), (0, b"XXXXXXXXXXXXXXXX")],
            &[(START, &[]), (0, &[b'N'; 17])],
            &[(START, &[]), (CONTINUED, &HEADER), (CONTINUED, b"x")],
            &[(START, &[]), (0, &HEADER), (0, b"abc")],
            &[(START, &[]), (0, &HEADER), (0, &[0x3c, 0x12, 0, 0])],
            &[(START, &[]), (0, &HEADER), (0, &item), (COMMIT, &[])],
            &[(START, &[]), (0x40, &HEADER)],
        ];
        for (n, case) in cases.into_iter().enumerate() {
            assert!(taken(case).is_none(), "case {n}");
        }
    }

    #[test]
    fn what_began_before_the_tail_is_passed_over() {
        let mut open = open();
        for flags in [0, CONTINUES, CONTINUED, COMMIT] {
            assert!(open.take(1, flags, b"rest", 9).unwrap().is_none());
        }
        assert!(open.take(1, UNMOUNT_FLAG, b"unmount", 9).unwrap().is_none());
    }

    #[test]
    fn transactions_that_never_end_do_not_take_all_memory() {
        let mut open = open();
        let region = vec![1; 1 << 20];
        open.take(0, START, &[], 1).unwrap();
        open.take(0, 0, &HEADER, 1).unwrap();
        let taken = (0..400).take_while(|_| open.take(0, CONTINUES, &region, 1).is_some()).count();
        assert!((150..200).contains(&taken), "{taken}");
    }
}
