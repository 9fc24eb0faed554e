//! Differencing VHDs, which no free program makes: by the specification, judged by libvhdi.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::tools::Scratch;

const SECTOR: u64 = 512;

/// What to make.
pub(crate) struct Differencing {
    pub(crate) len: u64,
    /// Name of the parent in the same folder.
    pub(crate) parent: &'static str,
    pub(crate) block_size: u32,
}

/// The unique id in the footer of a VHD.
pub(crate) fn footer_id(path: &Path) -> [u8; 16] {
    let file = File::open(path).unwrap();
    let mut id = [0; 16];
    file.read_exact_at(&mut id, file.metadata().unwrap().len() - 512 + 68).unwrap();
    id
}

/// Computes the checksum of a record in a file anew.
pub(crate) fn reseal(path: &Path, start: u64, len: usize, at: usize) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, start).unwrap();
    seal(&mut bytes, at);
    file.write_all_at(&bytes, start).unwrap();
}

fn seal(bytes: &mut [u8], at: usize) {
    bytes[at..at + 4].fill(0);
    let sum = !bytes.iter().fold(0u32, |sum, byte| sum.wrapping_add(u32::from(*byte)));
    bytes[at..at + 4].copy_from_slice(&sum.to_be_bytes());
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

impl Differencing {
    /// Writes the file `name`, which has the given sectors of its own.
    pub(crate) fn make(&self, scratch: &Scratch, name: &str, sectors: &[(u64, Vec<u8>)]) {
        let block = u64::from(self.block_size);
        let blocks = self.len.div_ceil(block);
        let footer = self.footer(name);
        let locator: Vec<u8> =
            format!(".\\{}", self.parent).encode_utf16().flat_map(u16::to_le_bytes).collect();
        let table_at = 1536;
        let locator_at = (table_at + blocks * 4).next_multiple_of(SECTOR);
        let mut next = locator_at + SECTOR;
        let header = self.header(scratch, table_at, blocks as u32, locator_at, &locator);

        let file = File::create(scratch.path(name)).unwrap();
        file.write_all_at(&footer, 0).unwrap();
        file.write_all_at(&header, 512).unwrap();
        file.write_all_at(&vec![0xFF; (locator_at - table_at) as usize], table_at).unwrap();
        file.write_all_at(&locator, locator_at).unwrap();
        let bitmap_len = (block / SECTOR).div_ceil(8).next_multiple_of(SECTOR);
        for index in 0..blocks {
            let range = index * block / SECTOR..(index + 1) * block / SECTOR;
            let own: Vec<_> = sectors.iter().filter(|(at, _)| range.contains(at)).collect();
            if own.is_empty() {
                continue;
            }
            let entry = (next / SECTOR) as u32;
            file.write_all_at(&entry.to_be_bytes(), table_at + index * 4).unwrap();
            let mut bitmap = vec![0; bitmap_len as usize];
            for (at, bytes) in own {
                let inside = at - range.start;
                bitmap[(inside / 8) as usize] |= 0x80u8 >> (inside % 8);
                file.write_all_at(bytes, next + bitmap_len + inside * SECTOR).unwrap();
            }
            file.write_all_at(&bitmap, next).unwrap();
            next += bitmap_len + block;
        }
        file.write_all_at(&footer, next).unwrap();
    }

    fn footer(&self, name: &str) -> Vec<u8> {
        let mut footer = vec![0; 512];
        put(&mut footer, 0, b"conectix");
        put(&mut footer, 8, &2u32.to_be_bytes());
        put(&mut footer, 12, &0x1_0000u32.to_be_bytes());
        put(&mut footer, 16, &512u64.to_be_bytes());
        put(&mut footer, 28, b"test");
        put(&mut footer, 32, &0x1_0000u32.to_be_bytes());
        put(&mut footer, 36, b"Wi2k");
        put(&mut footer, 40, &self.len.to_be_bytes());
        put(&mut footer, 48, &self.len.to_be_bytes());
        put(&mut footer, 60, &4u32.to_be_bytes());
        let mut id = [0x5A; 16];
        id[..name.len().min(16)].copy_from_slice(&name.as_bytes()[..name.len().min(16)]);
        put(&mut footer, 68, &id);
        seal(&mut footer, 64);
        footer
    }

    fn header(
        &self,
        scratch: &Scratch,
        table_at: u64,
        blocks: u32,
        locator_at: u64,
        locator: &[u8],
    ) -> Vec<u8> {
        let mut header = vec![0; 1024];
        put(&mut header, 0, b"cxsparse");
        put(&mut header, 8, &u64::MAX.to_be_bytes());
        put(&mut header, 16, &table_at.to_be_bytes());
        put(&mut header, 24, &0x1_0000u32.to_be_bytes());
        put(&mut header, 28, &blocks.to_be_bytes());
        put(&mut header, 32, &self.block_size.to_be_bytes());
        put(&mut header, 40, &footer_id(&scratch.path(self.parent)));
        let unicode: Vec<u8> = self.parent.encode_utf16().flat_map(u16::to_be_bytes).collect();
        put(&mut header, 64, &unicode);
        put(&mut header, 576, b"W2ru");
        put(&mut header, 580, &512u32.to_be_bytes());
        put(&mut header, 584, &(locator.len() as u32).to_be_bytes());
        put(&mut header, 592, &locator_at.to_be_bytes());
        seal(&mut header, 36);
        header
    }
}
