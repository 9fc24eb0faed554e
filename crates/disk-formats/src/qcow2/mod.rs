//! QEMU's qcow2, versions 2 and 3: an L1 table of L2 tables of clusters.
//!
//! Facts: `docs/interop/qcow2.txt` of QEMU. What is not needed to read the disk as it is now is
//! not looked at: reference counts, internal snapshots. Bitmaps are hints for backups.

mod bitmaps;
mod header;

use std::io;
use std::path::Path;
use std::sync::Arc;

use aiv_volume_io::ReadAt;

pub(crate) use self::bitmaps::Bitmap;
use self::header::{Compression, Header};
use crate::bytes::be64;
use crate::follow::Files;
use crate::layer::{Layer, Place};
use crate::open::Understood;
use crate::pages::Pages;
use crate::{Error, Format, Result, inflate};

/// Host offset in an L1 or L2 entry: bits 9 to 55.
const OFFSET: u64 = 0x00FF_FFFF_FFFF_FE00;
/// The entry is the only one that refers to its cluster. Meaningless for reading, but the only
/// bit that tells offset 0 of an external data file from nothing at all.
const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
/// Reads as zeros (in entries of 8 bytes).
const ZERO: u64 = 1;
const L1_RESERVED: u64 = !(OFFSET | COPIED);
const L2_RESERVED: u64 = !(OFFSET | COPIED | COMPRESSED | ZERO);
/// Subclusters of a cluster, where entries have 16 bytes.
const SUBCLUSTERS: u64 = 32;

struct Qcow2 {
    header: Header,
    tables: Arc<Pages>,
    bitmaps: Vec<Bitmap>,
    /// The external data file, or the image itself.
    data: Arc<dyn ReadAt>,
}

pub(crate) fn open(file: Arc<dyn ReadAt>, path: &Path, files: &mut Files) -> Result<Understood> {
    let mut header = header::read(&*file)?;
    let parent = header.parent.take();
    let data = match &header.data_file {
        None => file.clone(),
        Some(name) => files.named(path, std::slice::from_ref(name))?.file,
    };
    let mut notes = std::mem::take(&mut header.notes);
    let tables = Arc::new(Pages::new(file));
    let found = header.bitmaps.take().map(|raw| bitmaps::read(&header, &raw, &tables));
    let bitmaps = found.transpose().unwrap_or_else(|error| {
        notes.push(format!("its dirty bitmaps are not used: {error}"));
        None
    });
    let bitmaps = bitmaps.unwrap_or_default();
    let layer = Box::new(Qcow2 { header, tables, bitmaps, data });
    Ok(Understood { layer, parent, identity: None, notes })
}

/// What an L2 table says about a cluster.
enum Cluster {
    Unallocated,
    Zero,
    Data(u64),
    /// Where, and how many bytes at most.
    Compressed(u64, u64),
    /// Host offset, or `None`, and the two rows of 32 bits.
    Sub(Option<u64>, u64),
}

impl Qcow2 {
    fn corrupt(section: &'static str, offset: u64, what: String) -> Error {
        Error::Corrupt { format: Format::Qcow2, section, offset, what }
    }

    /// The entry of the L2 table for the cluster that holds `at`, or how many bytes from the
    /// start of the table's share have no table.
    fn cluster(&self, at: u64) -> io::Result<Option<Cluster>> {
        let header = &self.header;
        let l1_at = header.l1_offset + (at >> header.l1_shift()) * 8;
        let l1 = be64(&self.tables.array::<8>(l1_at)?, 0);
        if l1 & L1_RESERVED != 0 {
            let what = format!("entry {l1:#x} has reserved bits");
            return Err(Self::corrupt("L1 table", l1_at, what).into());
        }
        let table = l1 & OFFSET;
        if table == 0 {
            return Ok(None);
        }
        self.check_inside("L1 table", l1_at, table, &**self.tables.file())?;
        let index = (at >> header.cluster_bits) % header.l2_entries();
        let l2_at = table + index * header.l2_entry_len();
        let mut record = [0; 16];
        let len = usize::try_from(header.l2_entry_len()).map_err(io::Error::other)?;
        self.tables.read(&mut record[..len], l2_at)?;
        let (entry, bitmap) = (be64(&record, 0), be64(&record, 8));
        self.understand(l2_at, entry, bitmap).map(Some)
    }

    fn understand(&self, l2_at: u64, entry: u64, bitmap: u64) -> io::Result<Cluster> {
        let corrupt = |what: String| io::Error::from(Self::corrupt("L2 table", l2_at, what));
        if entry & COMPRESSED != 0 {
            return self.compressed(entry, bitmap).map_err(corrupt);
        }
        let header = &self.header;
        let zero = entry & ZERO != 0;
        if entry & L2_RESERVED != 0 || zero && (header.version < 3 || header.extended) {
            return Err(corrupt(format!("entry {entry:#x} has reserved bits")));
        }
        let host = entry & OFFSET;
        let external = header.data_file.is_some();
        let is_allocated = host != 0 || external && entry & COPIED != 0;
        if is_allocated && !zero {
            self.check_inside("L2 table", l2_at, host, &*self.data)?;
        }
        if header.extended {
            let (allocated, zeros) = (bitmap & 0xFFFF_FFFF, bitmap >> 32);
            if allocated & zeros != 0 || !is_allocated && allocated != 0 {
                return Err(corrupt(format!("subclusters {bitmap:#x} contradict themselves")));
            }
            return Ok(Cluster::Sub(is_allocated.then_some(host), bitmap));
        }
        Ok(match (zero, is_allocated) {
            (true, _) => Cluster::Zero,
            (false, true) => Cluster::Data(host),
            (false, false) => Cluster::Unallocated,
        })
    }

    /// A compressed cluster begins at any byte and ends somewhere in its last sector.
    fn compressed(&self, entry: u64, bitmap: u64) -> std::result::Result<Cluster, String> {
        let header = &self.header;
        if entry & COPIED != 0 || header.data_file.is_some() || header.extended && bitmap != 0 {
            return Err(format!("compressed entry {entry:#x} contradicts itself"));
        }
        // Cluster bits are 9 to 21.
        let bits = 62 - (header.cluster_bits - 8);
        let host = entry & ((1 << bits) - 1);
        let sectors = (entry & (COMPRESSED - 1)) >> bits;
        let len = (sectors + 1) * 512 - host % 512;
        let file_len = self.data.len();
        if host >= file_len {
            return Err(format!("compressed cluster at {host}, the file ends at {file_len}"));
        }
        Ok(Cluster::Compressed(host, len.min(file_len - host)))
    }

    /// A cluster or table has to begin inside its file, on a cluster boundary.
    fn check_inside(
        &self,
        section: &'static str,
        at: u64,
        offset: u64,
        file: &dyn ReadAt,
    ) -> io::Result<()> {
        if !offset.is_multiple_of(self.header.cluster_len()) {
            let what = format!("offset {offset:#x} is not on a cluster boundary");
            return Err(Self::corrupt(section, at, what).into());
        }
        if offset >= file.len() {
            let what = format!("offset {offset:#x} lies past the end at {:#x}", file.len());
            return Err(Self::corrupt(section, at, what).into());
        }
        Ok(())
    }

    /// The run of equal subclusters at `inside` a cluster.
    fn subcluster(&self, host: Option<u64>, bitmap: u64, inside: u64) -> (u64, Place) {
        let size = self.header.cluster_len() / SUBCLUSTERS;
        let kind = |index: u64| (bitmap >> index & 1, bitmap >> (index + 32) & 1);
        let first = inside / size;
        let same = (first..SUBCLUSTERS).take_while(|index| kind(*index) == kind(first));
        let end = (first + same.count() as u64) * size;
        let place = match (kind(first), host) {
            ((1, _), Some(host)) => Place::Data { file: 0, offset: host + inside },
            ((_, 1), _) => Place::Zero,
            _ => Place::Parent,
        };
        (end - inside, place)
    }
}

impl Layer for Qcow2 {
    fn len(&self) -> u64 {
        self.header.size
    }

    fn find(&self, at: u64) -> io::Result<(u64, Place)> {
        let size = self.header.cluster_len();
        let inside = at % size;
        let rest = size - inside;
        Ok(match self.cluster(at)? {
            None => {
                let share = 1u64 << self.header.l1_shift();
                (share - at % share, Place::Parent)
            }
            Some(Cluster::Unallocated) => (rest, Place::Parent),
            Some(Cluster::Zero) => (rest, Place::Zero),
            Some(Cluster::Data(host)) => (rest, Place::Data { file: 0, offset: host + inside }),
            Some(Cluster::Compressed(..)) => (rest, Place::Packed { unit: at - inside }),
            Some(Cluster::Sub(host, bitmap)) => self.subcluster(host, bitmap, inside),
        })
    }

    fn bitmaps(&self) -> &[Bitmap] {
        &self.bitmaps
    }

    fn data(&self, index: usize) -> Option<&dyn ReadAt> {
        (index == 0).then_some(&*self.data)
    }

    fn unpack(&self, unit: u64) -> io::Result<Vec<u8>> {
        let Some(Cluster::Compressed(host, len)) = self.cluster(unit)? else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        // Both at most a cluster of 2 MiB and a sector.
        let as_len = |len: u64| usize::try_from(len).map_err(io::Error::other);
        let mut packed = vec![0; as_len(len)?];
        self.data.read_exact_at(&mut packed, host)?;
        let mut out = vec![0; as_len(self.header.cluster_len())?];
        let done = match self.header.compression {
            Compression::Deflate => inflate::deflate(&packed, &mut out, false),
            Compression::Zstd => inflate::zstd(&packed, &mut out),
        };
        let what = || format!("{len} compressed bytes are no cluster");
        done.map(|()| out).ok_or_else(|| Self::corrupt("compressed cluster", host, what()).into())
    }
}
