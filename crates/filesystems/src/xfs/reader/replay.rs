//! A volume as it is after its log is replayed.
//!
//! All committed transactions are gone through twice, as the kernel does: first for buffers that
//! were given up ("cancelled"), whose older changes must not be replayed over what came into
//! their place; then to apply buffers, new inodes, and inodes. What is newer on the volume than
//! in the log, by the numbers that records of version 5 carry, stays. Changes go into sectors that
//! are laid over the volume, which is not written.
//!
//! Whatever is not understood ends it, and nothing is replayed: kinds of items, an operation on a
//! file that was begun and has to be finished by the kernel, logs of version 4 or of machines with
//! another byte order. Trees of free space are replayed like any buffer, and read by nobody.
//!
//! Facts: `xfs_buf_item_recover.c`, `xfs_inode_item_recover.c`, `xfs_icreate_item.c`.

use std::collections::HashSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::io;
use std::sync::Arc;

use aiv_volume_io::{Job, ReadAt};

use super::super::log::covered::{BUFFER, CANCEL, CHUNK};
use super::super::log::transactions::{Item, Transaction, Waiting};
use super::super::superblock::Geometry;
use super::inode_item::{self, Logged};
use super::layout::{Layout, Shape};
use super::superblock::{self, Source};
use crate::bytes::{array, be16, be32, be64, le16, le32, le64};
use crate::reader::VolumeOf;
use crate::stop::Stop;
use crate::{Error, Result};

pub(super) const SECTOR: u64 = 512;
const SECTOR_LEN: usize = 512;
/// 128 MiB laid over a volume.
const SECTORS_MAX: usize = 1 << 18;
const CANCELED_MAX: usize = 1 << 20;
const BEGUN_MAX: usize = 1 << 16;
/// In a block of 64 KiB.
const NEW_INODES_MAX: u32 = 256;

const INODE: u16 = 0x123b;
const INODES_MADE: u16 = 0x123f;
/// Frees of extents, mappings of the reverse and the sharing tree, quota: no file is read by them.
const OF_NO_FILE: [u16; 14] = [
    0x1236, 0x1237, 0x123d, 0x123e, 0x1240, 0x1241, 0x1242, 0x1243, 0x124a, 0x124b, 0x124c, 0x124d,
    0x124e, 0x124f,
];
/// Mappings of a file, attributes, exchanges of contents: what begins one, and what ends it.
const BEGUN: [u16; 3] = [0x1244, 0x1246, 0x1248];
const ENDED: [u16; 3] = [0x1245, 0x1247, 0x1249];
/// `XFS_BLF_INODE_BUF`: of inodes, only chains of deleted ones are in it. And those of quota.
const INODE_CHAINS: u16 = 1 << 0;
const QUOTA: u16 = 0b1_1100;

/// Sectors laid over a volume.
#[derive(Default)]
pub(super) struct Overlay {
    sectors: BTreeMap<u64, Box<[u8; SECTOR_LEN]>>,
}

impl Overlay {
    /// Whether any byte of a record was replayed: its checksum is that of an older state then.
    pub(super) fn has(&self, offset: u64, len: usize) -> bool {
        let end = (offset + len as u64).div_ceil(SECTOR);
        self.sectors.range(offset / SECTOR..end).next().is_some()
    }

    fn lay_over(&self, out: &mut [u8], offset: u64) {
        let end = (offset + out.len() as u64).div_ceil(SECTOR);
        for (number, sector) in self.sectors.range(offset / SECTOR..end) {
            let start = number * SECTOR;
            let from = start.max(offset);
            let to = (start + SECTOR).min(offset + out.len() as u64);
            let within = |at: u64, base: u64| usize::try_from(at - base).unwrap_or(usize::MAX);
            let sector = sector.get(within(from, start)..within(to, start));
            let out = out.get_mut(within(from, offset)..within(to, offset));
            if let (Some(sector), Some(out)) = (sector, out) {
                out.copy_from_slice(sector);
            }
        }
    }
}

/// A volume under its overlay.
struct Overlaid<'v> {
    below: VolumeOf<'v>,
    overlay: Arc<Overlay>,
}

impl ReadAt for Overlaid<'_> {
    fn len(&self) -> u64 {
        self.below.len()
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        self.below.data().read_exact_at(out, offset)?;
        self.overlay.lay_over(out, offset);
        Ok(())
    }
}

/// The same filesystem after its log is replayed.
pub(super) fn laid_over(layout: Layout<'_>, overlay: Overlay) -> Layout<'_> {
    let overlay = Arc::new(overlay);
    let volume =
        VolumeOf::new(Arc::new(Overlaid { below: layout.volume, overlay: overlay.clone() }));
    Layout { volume, shape: layout.shape, overlay: Some(overlay) }
}

/// Reads what waits in the log; `sector` is the superblock, `geometry` has the log's place.
pub(super) fn overlay(
    layout: &Layout<'_>,
    geometry: &Geometry,
    sector: &[u8],
    job: Job<'_>,
) -> Result<Overlay> {
    if !layout.shape.self_describing {
        return Err(fault("logs of version 4 are not replayed"));
    }
    let volume = &layout.volume;
    let waiting = Waiting::find(volume, geometry, array(sector, 32)).map_err(error_of)?;
    let mut replay = Replay {
        volume,
        shape: &layout.shape,
        overlay: Overlay::default(),
        canceled: BTreeMap::new(),
        begun: HashSet::new(),
    };
    let first = waiting
        .walk(job, &mut |transaction| replay.count_canceled(transaction).map_err(Stop::Failed));
    first.map_err(error_of)?;
    let second =
        waiting.walk(job, &mut |transaction| replay.apply(transaction).map_err(Stop::Failed));
    second.map_err(error_of)?;
    if !replay.begun.is_empty() {
        return Err(fault("an operation on a file was begun and not finished"));
    }
    let mut replayed = sector.to_vec();
    replay.overlay.lay_over(&mut replayed, 0);
    if superblock::shape(&replayed, Source::Log).ok().as_ref() != Some(&layout.shape) {
        return Err(fault("it changes the size or the features of the filesystem"));
    }
    Ok(replay.overlay)
}

fn fault(what: &str) -> Error {
    Error::damaged(what, None)
}

fn error_of(stop: Stop) -> Error {
    match stop {
        Stop::Whole(reason) => fault(&reason.to_string()),
        Stop::Failed(error) => error,
    }
}

struct Replay<'a> {
    volume: &'a VolumeOf<'a>,
    shape: &'a Shape,
    overlay: Overlay,
    /// Buffers by place and length, and how often they are given up from here on.
    canceled: BTreeMap<(u64, u32), u32>,
    /// Operations that are not finished: what ends them, and their number.
    begun: HashSet<(u16, u64)>,
}

/// The description of a changed buffer.
struct Buffer<'a> {
    flags: u16,
    /// Sectors.
    len: u32,
    sector: u64,
    /// Pieces of 128 bytes that were changed, a bit each.
    map: &'a [u8],
}

impl<'a> Buffer<'a> {
    fn parse(item: &'a Item) -> Option<Self> {
        let region = item.regions.first()?;
        let words = region.get(16..20).map(|_| le32(region, 16))?;
        let map = region.get(20..)?.get(..usize::try_from(words).ok()?.checked_mul(4)?)?;
        let (flags, len, sector) = (le16(region, 4), le16(region, 6).into(), le64(region, 8));
        Some(Self { flags, len, sector, map })
    }

    fn bytes(&self) -> usize {
        self.len as usize * SECTOR_LEN
    }

    fn is_changed(&self, piece: usize) -> bool {
        self.map.get(piece / 8).is_some_and(|byte| byte >> (piece % 8) & 1 != 0)
    }
}

impl Replay<'_> {
    fn count_canceled(&mut self, transaction: &Transaction) -> Result<()> {
        for item in transaction.items.iter().filter(|item| item.kind() == BUFFER) {
            let buffer = Buffer::parse(item).ok_or_else(|| fault("a buffer is damaged"))?;
            if buffer.flags & CANCEL != 0 {
                *self.canceled.entry((buffer.sector, buffer.len)).or_default() += 1;
                if self.canceled.len() > CANCELED_MAX {
                    return Err(fault("too many buffers are given up"));
                }
            }
        }
        Ok(())
    }

    /// Buffers come before inodes, and what is given up comes last.
    fn apply(&mut self, transaction: &Transaction) -> Result<()> {
        let mut given_up = Vec::new();
        for item in &transaction.items {
            match item.kind() {
                BUFFER => {
                    let buffer = Buffer::parse(item).ok_or_else(|| fault("a buffer is damaged"))?;
                    let key = (buffer.sector, buffer.len);
                    if buffer.flags & CANCEL != 0 {
                        given_up.push(key);
                    } else if !self.canceled.contains_key(&key) {
                        self.apply_buffer(&buffer, &item.regions[1..], transaction.number)?;
                    }
                }
                INODES_MADE => self.make_inodes(item)?,
                _ => {}
            }
        }
        for item in &transaction.items {
            match item.kind() {
                BUFFER | INODES_MADE => {}
                INODE => self.apply_inode(item, transaction.number)?,
                kind if OF_NO_FILE.contains(&kind) => {}
                kind => self.follow(kind, item)?,
            }
        }
        for key in given_up {
            if let Some(count) = self.canceled.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    self.canceled.remove(&key);
                }
            }
        }
        Ok(())
    }

    /// Operations of several transactions.
    fn follow(&mut self, kind: u16, item: &Item) -> Result<()> {
        let region = item.regions.first().filter(|region| region.len() >= 16);
        let number = region.map(|region| le64(region, 8));
        let number = number.ok_or_else(|| fault("an operation is damaged"))?;
        if let Some(n) = BEGUN.iter().position(|begun| *begun == kind) {
            self.begun.insert((ENDED[n], number));
            return match self.begun.len() <= BEGUN_MAX {
                true => Ok(()),
                false => Err(fault("too many operations were begun and not finished")),
            };
        } else if ENDED.contains(&kind) {
            self.begun.remove(&(kind, number));
            return Ok(());
        }
        Err(fault(&format!("it has an item of the unknown kind {kind:#x}")))
    }

    fn apply_buffer(
        &mut self,
        buffer: &Buffer<'_>,
        regions: &[Vec<u8>],
        number: u64,
    ) -> Result<()> {
        let damaged = || fault("a buffer is damaged");
        if buffer.flags & (INODE_CHAINS | QUOTA) != 0 {
            return Ok(());
        }
        let offset = buffer.sector.checked_mul(SECTOR).ok_or_else(damaged)?;
        if self.newest(offset, buffer.bytes())?.is_some_and(|newest| newest >= number) {
            return Ok(());
        }
        let pieces = buffer.bytes() / CHUNK;
        let mut piece = 0;
        for region in regions {
            while piece < pieces && !buffer.is_changed(piece) {
                piece += 1;
            }
            let mut count = 0;
            while buffer.is_changed(piece + count) && (count + 1) * CHUNK <= region.len() {
                count += 1;
            }
            let is_whole = count > 0 && count * CHUNK == region.len() && piece + count <= pieces;
            if !is_whole {
                return Err(damaged());
            }
            self.lay(offset + (piece * CHUNK) as u64, region)?;
            piece += count;
        }
        Ok(())
    }

    /// Lays bytes over the volume.
    fn lay(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let end = offset.checked_add(bytes.len() as u64);
        let is_inside = end.is_some_and(|end| {
            end <= self.shape.geometry.filesystem_len() && end <= self.volume.len()
        });
        if !is_inside {
            return Err(fault("it changes what lies outside the filesystem"));
        }
        let (mut at, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let number = at / SECTOR;
            let sector = match self.overlay.sectors.entry(number) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => {
                    let mut sector = Box::new([0; SECTOR_LEN]);
                    let failed = Error::io("read what the log changes", number * SECTOR);
                    self.volume.read_exact_at(&mut *sector, number * SECTOR).map_err(failed)?;
                    entry.insert(sector)
                }
            };
            let place = usize::try_from(at % SECTOR).unwrap_or_default();
            let taken = rest.len().min(sector.len() - place);
            sector[place..place + taken].copy_from_slice(&rest[..taken]);
            (at, rest) = (at + taken as u64, &rest[taken..]);
        }
        match self.overlay.sectors.len() <= SECTORS_MAX {
            true => Ok(()),
            false => Err(fault("more waits in it than memory is set aside for")),
        }
    }

    /// The number of the last change that is in its place, where a block tells
    /// (`xlog_recover_get_buf_lsn`).
    fn newest(&self, offset: u64, len: usize) -> Result<Option<u64>> {
        let mut block = [0; 128];
        if len < block.len() || offset.saturating_add(128) > self.volume.len() {
            return Ok(None);
        }
        let failed = Error::io("read what the log changes", offset);
        self.volume.read_exact_at(&mut block, offset).map_err(failed)?;
        let (at, uuid_at) = match (&block[..4], be16(&block, 8)) {
            (b"XDB3" | b"XDD3" | b"XDF3", _) => (16, 24),
            (b"XSLM", _) => (48, 16),
            (b"BMA3", _) => (32, 40),
            (b"AB3B" | b"AB3C" | b"IAB3" | b"FIB3" | b"RMB3" | b"R3FC", _) => (24, 32),
            (_, 0x3df1 | 0x3dff | 0x3ebe | 0x3bee) => (24, 32),
            _ => return Ok(None),
        };
        let number = be64(&block, at);
        let is_ours = array(&block, uuid_at) == self.shape.meta_uuid;
        Ok((is_ours && number != 0 && number != u64::MAX).then_some(number))
    }

    /// Inodes as they are before anything is in them.
    fn make_inodes(&mut self, item: &Item) -> Result<()> {
        let damaged = || fault("new inodes are damaged");
        let region =
            item.regions.first().filter(|region| region.len() >= 28).ok_or_else(damaged)?;
        let [group, block, count, size, blocks, generation] =
            [4, 8, 12, 16, 20, 24].map(|at| be32(region, at));
        let (geometry, inode_size) = (&self.shape.geometry, self.shape.inode_size);
        let len = u64::from(count) * inode_size as u64;
        let is_possible = size as usize == inode_size
            && count <= NEW_INODES_MAX
            && len == u64::from(blocks) * u64::from(geometry.block_size)
            && group < geometry.groups
            && block.checked_add(blocks).is_some_and(|end| end <= geometry.blocks_of(group));
        if !is_possible {
            return Err(damaged());
        }
        let offset = geometry.offset_of(group, block);
        let address = u64::from(group) << geometry.group_log() | u64::from(block);
        // Where they were given up later, something else is there now.
        let first = offset / SECTOR;
        if self.canceled.range((first, 0)..=(first, u32::MAX)).next().is_some() {
            return Ok(());
        }
        for n in 0..u64::from(count) {
            let number = (address << self.shape.inodes_log) + n;
            let inode = inode_item::empty(self.shape, number, generation);
            self.lay(offset + n * inode_size as u64, &inode)?;
        }
        Ok(())
    }

    fn apply_inode(&mut self, item: &Item, number: u64) -> Result<()> {
        let logged = Logged::parse(item).ok_or_else(|| fault("an inode is damaged"))?;
        if self.canceled.contains_key(&logged.buffer()) {
            return Ok(());
        }
        let offset = logged.place();
        let mut inode = vec![0; self.shape.inode_size];
        let failed = Error::io("read what the log changes", offset);
        if offset.checked_add(inode.len() as u64).is_none_or(|end| end > self.volume.len()) {
            return Err(fault("it changes what lies outside the filesystem"));
        }
        self.volume.read_exact_at(&mut inode, offset).map_err(failed)?;
        self.overlay.lay_over(&mut inode, offset);
        if inode[..2] != *b"IN" {
            return Err(fault("it changes an inode that is none"));
        }
        let newest = be64(&inode, 112);
        if newest != 0 && newest != u64::MAX && newest > number {
            return Ok(());
        }
        let changed = logged.lay_over(self.shape, &mut inode, number);
        changed.ok_or_else(|| fault("an inode is damaged"))?;
        self.lay(offset, &inode)
    }
}
