//! XFS volumes with records changed by hand, and their checksums made right again.

use std::fs;
use std::sync::Arc;

use aiv_filesystems::{Error, FileId, Filesystem};
use aiv_volume_io::{Extent, Job, MemDisk};

use crate::reader_tools::opened;
use crate::tools::Volume;
use crate::xfs_tools::field;

/// Where a record of the log has its checksum.
const LOG_SUM: usize = 32;

/// The checksum of a record, which has it at `sum`. Of a record of the log, unused bytes of the
/// header and of the last block are not part of it.
pub(crate) fn sum_of(record: &mut [u8], sum: usize) -> [u8; 4] {
    record[sum..sum + 4].fill(0);
    let crc = if sum == LOG_SUM {
        let len = u32::from_be_bytes(*record[12..].first_chunk().unwrap()) as usize;
        let body = &record[512..];
        crc32c::crc32c_append(crc32c::crc32c(&record[..328]), &body[..len.min(body.len())])
    } else {
        crc32c::crc32c(record)
    };
    crc.to_le_bytes()
}

/// A volume in memory.
#[derive(Clone)]
pub(crate) struct Forged {
    pub(crate) bytes: Vec<u8>,
    pub(crate) block: usize,
    pub(crate) folder_block: usize,
    pub(crate) inode: usize,
    is_5: bool,
    group_blocks: u64,
    group_log: u64,
}

impl Forged {
    pub(crate) fn new(volume: &Volume) -> Self {
        let sb = |name: &str| field(volume, "sb 0", name);
        let block = usize::try_from(sb("blocksize")).unwrap();
        Self {
            bytes: fs::read(&volume.path).unwrap(),
            block,
            folder_block: block << sb("dirblklog"),
            inode: usize::try_from(sb("inodesize")).unwrap(),
            is_5: sb("versionnum") & 0xf == 5,
            group_blocks: sb("agblocks"),
            group_log: sb("agblklog"),
        }
    }

    pub(crate) fn open(&self) -> Result<Box<dyn Filesystem>, Error> {
        opened(Arc::new(MemDisk::from_bytes(self.bytes.clone())))
    }

    /// The place of an inode.
    pub(crate) fn inode_at(&self, id: FileId) -> usize {
        let per_block = u64::try_from(self.block / self.inode).unwrap();
        let block = self.block_at(id.number / per_block);
        block + usize::try_from(id.number % per_block).unwrap() * self.inode
    }

    /// The place of a block address.
    pub(crate) fn block_at(&self, address: u64) -> usize {
        let group = address >> self.group_log;
        let block = group * self.group_blocks + (address & ((1 << self.group_log) - 1));
        usize::try_from(block).unwrap() * self.block
    }

    /// The first file or folder of this path.
    pub(crate) fn find(&self, path: &str) -> FileId {
        let filesystem = self.open().unwrap();
        path.split('/').fold(filesystem.root(), |folder, name| {
            filesystem.lookup(folder, name.as_bytes(), Job::silent()).unwrap().unwrap()
        })
    }

    /// The place of the inode of this path.
    pub(crate) fn inode_of(&self, path: &str) -> usize {
        self.inode_at(self.find(path))
    }

    pub(crate) fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub(crate) fn be(&self, at: usize, len: usize) -> u64 {
        self.bytes[at..at + len].iter().fold(0, |number, &byte| number << 8 | u64::from(byte))
    }

    /// The records of files that are recognised by their magic, and where their checksum is; in
    /// version 4 there is none.
    pub(crate) fn records(&self) -> Vec<(Extent, Option<usize>)> {
        let mut records = Vec::new();
        for at in (0..self.bytes.len()).step_by(256) {
            let start = &self.bytes[at..at + 16];
            let (len, sum) = match (&start[..4], &start[8..10]) {
                (b"XFSB", _) if at == 0 => (512, 224),
                ([0xfe, 0xed, 0xba, 0xbe], _) if at % 512 == 0 => {
                    let body = usize::try_from(self.be(at + 12, 4)).unwrap();
                    (512 + body.min(256 << 10).next_multiple_of(512), LOG_SUM)
                }
                (b"XDB3" | b"XDD3", _) => (self.folder_block, 4),
                (b"XD2B" | b"XD2D", _) => (self.folder_block, 0),
                (b"BMA3", _) => (self.block, 64),
                (b"BMAP", _) => (self.block, 0),
                (b"XARM" | b"XSLM", _) => (self.block, 12),
                (_, [0x3d, 0xf1 | 0xff]) => (self.folder_block, 12),
                (_, [0x3e | 0x3b, 0xbe | 0xee]) => (self.block, 12),
                (_, [0xd2, 0xf1 | 0xff] | [0xfe, 0xbe] | [0xfb, 0xee]) => (self.block, 0),
                ([b'I', b'N', mode, _], _) if at % self.inode == 0 && *mode != 0 => {
                    (self.inode, 100)
                }
                _ => continue,
            };
            if at + len <= self.bytes.len() {
                let sum = (self.is_5 && sum > 0).then_some(sum);
                records.push((Extent::new(at as u64, len as u64), sum));
            }
        }
        records
    }

    /// Makes the checksum of a record right again that begins at `at`, and is so long.
    pub(crate) fn seal(&mut self, at: usize, len: usize, sum: usize) {
        let crc = sum_of(&mut self.bytes[at..at + len], sum);
        self.put(at + sum, &crc);
    }

    /// Changes bytes of the inode of a file.
    pub(crate) fn change_inode(&mut self, path: &str, at: usize, bytes: &[u8]) {
        let inode = self.inode_of(path);
        self.put(inode + at, bytes);
        self.seal(inode, self.inode, 100);
    }
}
