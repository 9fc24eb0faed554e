//! VHDX files that no free program makes: differencing disks, and logs that were not replayed.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::tools::{MIB, Scratch};

const SECTOR: u64 = 512;
/// Linkage of every parent made here.
pub(crate) const DATA_ID: [u8; 16] = [0x11; 16];

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// GUID of the text, which must be upper case with hyphens.
pub(crate) fn guid(text: &str) -> [u8; 16] {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let mut id = [0; 16];
    for (byte, pair) in id.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    }
    id[..4].reverse();
    id[4..6].reverse();
    id[6..8].reverse();
    id
}

pub(crate) fn seal(bytes: &mut [u8]) {
    bytes[4..8].fill(0);
    let sum = crc32c::crc32c(bytes);
    bytes[4..8].copy_from_slice(&sum.to_le_bytes());
}

/// Computes the checksum of a record of `len` bytes in a file anew.
pub(crate) fn reseal(path: &Path, start: u64, len: usize) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, start).unwrap();
    seal(&mut bytes);
    file.write_all_at(&bytes, start).unwrap();
}

/// Offset of the block allocation table and of the metadata.
pub(crate) fn regions(path: &Path) -> (u64, u64) {
    let mut table = [0; 80];
    File::open(path).unwrap().read_exact_at(&mut table, 192 << 10).unwrap();
    let word = |at: usize| u64::from_le_bytes(table[at..at + 8].try_into().unwrap());
    let bat = guid("2DC27766-F623-4200-9D64-115E9BFD4A08");
    if table[16..32] == bat { (word(32), word(64)) } else { (word(64), word(32)) }
}

/// Where the log is, and how long.
pub(crate) fn log_place(path: &Path) -> (u64, u64) {
    let mut header = [0; 80];
    File::open(path).unwrap().read_exact_at(&mut header, 64 << 10).unwrap();
    let len = u32::from_le_bytes(header[68..72].try_into().unwrap());
    (u64::from_le_bytes(header[72..80].try_into().unwrap()), len.into())
}

/// One thing a log wants written.
pub(crate) enum Write {
    /// 4 KiB at an offset of the file.
    Data(u64, Vec<u8>),
    /// So many zeros at an offset.
    Zero(u64, u64),
}

/// An entry of a log.
pub(crate) fn log_entry(
    id: [u8; 16],
    sequence: u64,
    tail: u64,
    file_len: u64,
    writes: &[Write],
) -> Vec<u8> {
    let mut entry = vec![0; (64 + 32 * writes.len()).next_multiple_of(4096)];
    for (index, write) in writes.iter().enumerate() {
        let mut descriptor = [0; 32];
        put(&mut descriptor, 24, &sequence.to_le_bytes());
        match write {
            Write::Zero(at, len) => {
                put(&mut descriptor, 0, b"zero");
                put(&mut descriptor, 8, &len.to_le_bytes());
                put(&mut descriptor, 16, &at.to_le_bytes());
            }
            Write::Data(at, bytes) => {
                put(&mut descriptor, 0, b"desc");
                put(&mut descriptor, 4, &bytes[4092..]);
                put(&mut descriptor, 8, &bytes[..8]);
                put(&mut descriptor, 16, &at.to_le_bytes());
                let mut data = bytes.clone();
                put(&mut data, 0, b"data");
                put(&mut data, 4, &((sequence >> 32) as u32).to_le_bytes());
                put(&mut data, 4092, &(sequence as u32).to_le_bytes());
                entry.extend(data);
            }
        }
        put(&mut entry, 64 + 32 * index, &descriptor);
    }
    let len = entry.len() as u32;
    put(&mut entry, 0, b"loge");
    put(&mut entry, 8, &len.to_le_bytes());
    put(&mut entry, 12, &(tail as u32).to_le_bytes());
    put(&mut entry, 16, &sequence.to_le_bytes());
    put(&mut entry, 24, &(writes.len() as u32).to_le_bytes());
    put(&mut entry, 32, &id);
    put(&mut entry, 48, &file_len.to_le_bytes());
    put(&mut entry, 56, &file_len.to_le_bytes());
    seal(&mut entry);
    entry
}

/// Makes both headers of a file speak of a log with this id.
pub(crate) fn set_log_id(path: &Path, id: [u8; 16]) {
    let file = File::options().write(true).open(path).unwrap();
    for at in [64 << 10, 128 << 10] {
        file.write_all_at(&id, at + 48).unwrap();
        reseal(path, at, 4096);
    }
}

/// Makes both headers of a file say which content it has.
pub(crate) fn set_data_id(path: &Path, id: [u8; 16]) {
    let file = File::options().write(true).open(path).unwrap();
    for at in [64 << 10, 128 << 10] {
        file.write_all_at(&id, at + 32).unwrap();
        reseal(path, at, 4096);
    }
}

/// A differencing disk.
pub(crate) struct Differencing {
    pub(crate) len: u64,
    /// Name of the parent in the same folder, whose content has the id [`DATA_ID`].
    pub(crate) parent: &'static str,
    pub(crate) block_size: u64,
}

impl Differencing {
    /// Writes the file `name`, which has the given sectors of its own, and these blocks whole.
    pub(crate) fn make(
        &self,
        scratch: &Scratch,
        name: &str,
        sectors: &[(u64, Vec<u8>)],
        whole: &[(u64, u8)],
    ) {
        let file = File::create(scratch.path(name)).unwrap();
        file.write_all_at(b"vhdxfile", 0).unwrap();
        for (at, sequence) in [(64 << 10, 7u64), (128 << 10, 8)] {
            file.write_all_at(&header(sequence), at).unwrap();
        }
        for at in [192 << 10, 256 << 10] {
            file.write_all_at(&region_table(), at).unwrap();
        }
        file.write_all_at(&self.metadata(), 2 * MIB).unwrap();
        // 2^23 sectors of 512 bytes share a bitmap.
        let ratio = (1 << 23) * SECTOR / self.block_size;
        let per_block = self.block_size / SECTOR;
        let mut next = 4 * MIB;
        let mut take = |len: u64| {
            next += len;
            next - len
        };
        let entry = |index: u64, at: u64, state: u64| {
            file.write_all_at(&(at | state).to_le_bytes(), 3 * MIB + index * 8).unwrap();
        };
        let blocks = self.len.div_ceil(self.block_size);
        for group in 0..blocks.div_ceil(ratio) {
            let bitmap_at = take(MIB);
            let mut bitmap = vec![0u8; MIB as usize];
            for block in (group * ratio..(group + 1) * ratio).take_while(|block| *block < blocks) {
                let range = block * per_block..(block + 1) * per_block;
                let own: Vec<_> = sectors.iter().filter(|(at, _)| range.contains(at)).collect();
                if let Some((_, byte)) = whole.iter().find(|(index, _)| *index == block) {
                    let at = take(self.block_size);
                    file.write_all_at(&vec![*byte; self.block_size as usize], at).unwrap();
                    entry(block + block / ratio, at, 6);
                } else if !own.is_empty() {
                    let at = take(self.block_size);
                    entry(block + block / ratio, at, 7);
                    for (sector, bytes) in own {
                        let bit = sector - group * ratio * per_block;
                        bitmap[(bit / 8) as usize] |= 1 << (bit % 8);
                        file.write_all_at(bytes, at + (sector - range.start) * SECTOR).unwrap();
                    }
                }
            }
            file.write_all_at(&bitmap, bitmap_at).unwrap();
            entry(group * (ratio + 1) + ratio, bitmap_at, 6);
        }
        file.set_len(next).unwrap();
    }

    fn metadata(&self) -> Vec<u8> {
        let mut metadata = vec![0; 128 << 10];
        put(&mut metadata, 0, b"metadata");
        put(&mut metadata, 10, &6u16.to_le_bytes());
        let mut parameters = (self.block_size as u32).to_le_bytes().to_vec();
        parameters.extend(2u32.to_le_bytes());
        let items: [(&str, Vec<u8>, u32); 6] = [
            ("CAA16737-FA36-4D43-B3B6-33F0AA44E76B", parameters, 4),
            ("2FA54224-CD1B-4876-B211-5DBED83BF4B8", self.len.to_le_bytes().to_vec(), 6),
            ("BECA12AB-B2E6-4523-93EF-C309E000C746", vec![0x77; 16], 6),
            ("8141BF1D-A96F-4709-BA47-F233A8FAAB5F", 512u32.to_le_bytes().to_vec(), 6),
            ("CDA348C7-445D-4471-9CC9-E9885251C556", 512u32.to_le_bytes().to_vec(), 6),
            ("A8D35F2D-B30B-454D-ABF7-D3D84834AB0C", self.locator(), 4),
        ];
        let mut at = 64 << 10;
        for (index, (id, value, flags)) in items.into_iter().enumerate() {
            let entry = 32 + 32 * index;
            put(&mut metadata, entry, &guid(id));
            put(&mut metadata, entry + 16, &(at as u32).to_le_bytes());
            put(&mut metadata, entry + 20, &(value.len() as u32).to_le_bytes());
            put(&mut metadata, entry + 24, &flags.to_le_bytes());
            put(&mut metadata, at, &value);
            at += value.len().next_multiple_of(8);
        }
        metadata
    }

    fn locator(&self) -> Vec<u8> {
        let id: String = DATA_ID.iter().map(|byte| format!("{byte:02x}")).collect();
        let id = format!(
            "{{{}-{}-{}-{}-{}}}",
            &id[..8],
            &id[8..12],
            &id[12..16],
            &id[16..20],
            &id[20..]
        );
        let pairs = [
            ("parent_linkage", id),
            ("relative_path", format!(".\\{}", self.parent)),
            ("absolute_win32_path", format!("C:\\vm\\{}", self.parent)),
        ];
        let mut locator = guid("B04AEFB7-D19E-4A81-B789-25B8E9445913").to_vec();
        locator.extend([0, 0, 3, 0]);
        let mut text = Vec::new();
        for (key, value) in &pairs {
            let start = 20 + 12 * pairs.len() + text.len();
            let key: Vec<u8> = key.encode_utf16().flat_map(u16::to_le_bytes).collect();
            let value: Vec<u8> = value.encode_utf16().flat_map(u16::to_le_bytes).collect();
            locator.extend((start as u32).to_le_bytes());
            locator.extend(((start + key.len()) as u32).to_le_bytes());
            locator.extend((key.len() as u16).to_le_bytes());
            locator.extend((value.len() as u16).to_le_bytes());
            text.extend(key);
            text.extend(value);
        }
        locator.extend(text);
        locator
    }
}

fn header(sequence: u64) -> Vec<u8> {
    let mut header = vec![0; 4096];
    put(&mut header, 0, b"head");
    put(&mut header, 8, &sequence.to_le_bytes());
    put(&mut header, 16, &[0x22; 16]);
    put(&mut header, 32, &DATA_ID);
    put(&mut header, 66, &1u16.to_le_bytes());
    put(&mut header, 68, &(1u32 << 20).to_le_bytes());
    put(&mut header, 72, &MIB.to_le_bytes());
    seal(&mut header);
    header
}

fn region_table() -> Vec<u8> {
    let mut table = vec![0; 64 << 10];
    put(&mut table, 0, b"regi");
    put(&mut table, 8, &2u32.to_le_bytes());
    let regions = [
        ("2DC27766-F623-4200-9D64-115E9BFD4A08", 3 * MIB),
        ("8B7CA206-4790-4B9A-B8FE-575F050F886E", 2 * MIB),
    ];
    for (index, (id, at)) in regions.into_iter().enumerate() {
        put(&mut table, 16 + 32 * index, &guid(id));
        put(&mut table, 32 + 32 * index, &at.to_le_bytes());
        put(&mut table, 40 + 32 * index, &(1u32 << 20).to_le_bytes());
        put(&mut table, 44 + 32 * index, &1u32.to_le_bytes());
    }
    seal(&mut table);
    table
}
