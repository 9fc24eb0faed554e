//! The header of a qcow2 file, and what of it makes the file unreadable.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use aiv_volume_io::ReadAt;

use crate::bytes::{be32, be64};
use crate::open::ParentRef;
use crate::{Error, Format, Result};

/// Version 2 ends here; of version 3 the header itself says how long it is.
const V2_LEN: u32 = 72;
const V3_LEN: u32 = 104;
/// Longest header believed: the specification allows any, and has given 112 bytes a meaning.
const HEADER_MAX: u32 = 4096;
/// Longest name of a backing file, by the specification.
const NAME_MAX: u32 = 1023;
/// QEMU opens no larger L1 table; in clusters of 64 KiB this is a disk of 2 PiB.
const L1_LEN_MAX: u64 = 32 << 20;
const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;
/// Smallest cluster with subclusters: 32 of them, 512 bytes each.
const EXTENDED_BITS_MIN: u32 = 14;
/// Extensions of the header: they lie in the first cluster, and nobody needs many.
const EXTENSIONS_MAX: usize = 64;

const DIRTY: u64 = 1;
const CORRUPT: u64 = 1 << 1;
const EXTERNAL: u64 = 1 << 2;
const COMPRESSION: u64 = 1 << 3;
const EXTENDED: u64 = 1 << 4;
const KNOWN: u64 = DIRTY | CORRUPT | EXTERNAL | COMPRESSION | EXTENDED;

const EXT_BACKING_FORMAT: u32 = 0xE279_2ACA;
const EXT_DATA_FILE: u32 = 0x4441_5441;
const EXT_BITMAPS: u32 = 0x2385_2875;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    Deflate,
    Zstd,
}

/// What reading needs, checked.
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) cluster_bits: u32,
    /// Bytes of the disk.
    pub(super) size: u64,
    /// First byte of the L1 table, which lies inside the file and covers the disk.
    pub(super) l1_offset: u64,
    pub(super) compression: Compression,
    /// Whether L2 entries have 16 bytes.
    pub(super) extended: bool,
    /// Set by who knows features that others damage by writing without knowing them.
    pub(super) autoclear: u64,
    /// The image was not closed properly.
    pub(super) is_dirty: bool,
    /// Data of the bitmaps extension.
    pub(super) bitmaps: Option<Vec<u8>>,
    pub(super) data_file: Option<PathBuf>,
    pub(super) parent: Option<ParentRef>,
    pub(super) notes: Vec<String>,
}

impl Header {
    pub(super) fn cluster_len(&self) -> u64 {
        1 << self.cluster_bits
    }

    pub(super) fn l2_entry_len(&self) -> u64 {
        if self.extended { 16 } else { 8 }
    }

    pub(super) fn l2_entries(&self) -> u64 {
        self.cluster_len() / self.l2_entry_len()
    }

    /// Binary logarithm of the bytes of the disk that one L1 entry stands for: at most 39.
    pub(super) fn l1_shift(&self) -> u32 {
        self.cluster_bits + self.cluster_bits - if self.extended { 4 } else { 3 }
    }
}

fn corrupt(offset: u64, what: String) -> Error {
    Error::Corrupt { format: Format::Qcow2, section: "header", offset, what }
}

fn unsupported(what: String) -> Error {
    Error::Unsupported { format: Format::Qcow2, what }
}

pub(super) fn read(file: &dyn ReadAt) -> Result<Header> {
    let mut fixed = [0; V3_LEN as usize + 8];
    let there = file.len().min(fixed.len() as u64);
    let count = usize::try_from(there).unwrap_or(fixed.len());
    file.read_exact_at(&mut fixed[..count], 0).map_err(Error::io("read the header", 0))?;
    if fixed[..4] != *b"QFI\xFB" || there < V2_LEN.into() {
        return Err(corrupt(0, "the file does not begin with one".into()));
    }
    let version = be32(&fixed, 4);
    if !(2..=3).contains(&version) {
        let what = format!("version {version} is not known, only 2 and 3; convert the image");
        return Err(unsupported(what));
    }
    let cluster_bits = be32(&fixed, 20);
    if !CLUSTER_BITS.contains(&cluster_bits) {
        return Err(corrupt(20, format!("clusters of 2^{cluster_bits} bytes, allowed is 9 to 21")));
    }
    if be32(&fixed, 32) != 0 {
        return Err(unsupported(
            "it is encrypted, and a backup of what is inside needs the key; back up the file as \
             raw bytes, or the disk from inside the running machine"
                .into(),
        ));
    }
    let v3 = version >= 3;
    let incompatible = if v3 { be64(&fixed, 72) } else { 0 };
    check_features(incompatible)?;
    let header_len = if v3 { be32(&fixed, 100) } else { V2_LEN };
    if v3 && !(V3_LEN..=HEADER_MAX).contains(&header_len) || header_len % 8 != 0 {
        return Err(corrupt(100, format!("header of {header_len} bytes")));
    }
    let type_is_there = header_len > V3_LEN;
    let compression = match (incompatible & COMPRESSION != 0, fixed[104]) {
        (false, _) => Compression::Deflate,
        (true, 1) if type_is_there => Compression::Zstd,
        (true, 0) if type_is_there => Compression::Deflate,
        (true, other) => return Err(unsupported(format!("compression {other} is not known"))),
    };
    let mut header = Header {
        version,
        cluster_bits,
        size: be64(&fixed, 24),
        l1_offset: be64(&fixed, 40),
        compression,
        extended: incompatible & EXTENDED != 0,
        autoclear: if v3 { be64(&fixed, 88) } else { 0 },
        is_dirty: incompatible & DIRTY != 0,
        bitmaps: None,
        data_file: None,
        parent: None,
        notes: Vec::new(),
    };
    if header.extended && cluster_bits < EXTENDED_BITS_MIN {
        return Err(corrupt(20, format!("subclusters in clusters of 2^{cluster_bits} bytes")));
    }
    check_l1(&header, be32(&fixed, 36), file.len())?;
    let mut extensions = extensions(file, header_len, header.cluster_len())?;
    header.bitmaps = extensions.bitmaps.take();
    header.parent = parent(file, be64(&fixed, 8), be32(&fixed, 16), &extensions)?;
    if incompatible & EXTERNAL != 0 {
        header.data_file = match &extensions.data_file {
            Some(name) if !name.is_empty() => Some(as_path(name)?),
            _ => return Err(unsupported("its data lies in another file that it names not".into())),
        };
    }
    if incompatible & DIRTY != 0 {
        header.notes.push(
            "the image was not closed properly; its reference counts are out of date, which does \
             not matter for reading"
                .into(),
        );
    }
    match be32(&fixed, 60) {
        0 => {}
        count => header.notes.push(format!(
            "{count} internal snapshots are not part of the disk and not in the backup"
        )),
    }
    Ok(header)
}

fn check_features(incompatible: u64) -> Result<()> {
    let unknown = incompatible & !KNOWN;
    if unknown != 0 {
        let what = format!("it uses incompatible features that are not known: {unknown:#x}");
        return Err(unsupported(what));
    }
    if incompatible & CORRUPT != 0 {
        let what = "marked as corrupt by the program that wrote it; repair a copy with \
                    `qemu-img check -r all`";
        return Err(corrupt(72, what.into()));
    }
    Ok(())
}

fn check_l1(header: &Header, entries: u32, file_len: u64) -> Result<()> {
    let needed = header.size.div_ceil(1 << header.l1_shift());
    let len = u64::from(entries) * 8;
    if u64::from(entries) < needed || len > L1_LEN_MAX {
        let what = format!("L1 table of {entries} entries, the disk needs {needed}");
        return Err(corrupt(36, what));
    }
    let end = header.l1_offset.checked_add(len);
    if !header.l1_offset.is_multiple_of(header.cluster_len())
        || end.is_none_or(|end| end > file_len)
    {
        let what = format!(
            "L1 table of {len} bytes at {:#x}, the file ends at {file_len:#x}",
            header.l1_offset
        );
        return Err(corrupt(40, what));
    }
    Ok(())
}

#[derive(Default)]
struct Extensions {
    backing_format: Option<Vec<u8>>,
    data_file: Option<Vec<u8>>,
    bitmaps: Option<Vec<u8>>,
}

fn extensions(file: &dyn ReadAt, from: u32, cluster_len: u64) -> Result<Extensions> {
    let mut found = Extensions::default();
    let mut at = u64::from(from);
    let room = cluster_len.min(file.len());
    for _ in 0..EXTENSIONS_MAX {
        // A header without extensions may end where the file or the cluster does.
        if at + 8 > room {
            return Ok(found);
        }
        let mut head = [0; 8];
        file.read_exact_at(&mut head, at).map_err(Error::io("read header extensions", at))?;
        let (kind, len) = (be32(&head, 0), be32(&head, 4));
        if kind == 0 {
            return Ok(found);
        }
        if u64::from(len) > room - at - 8 {
            return Err(corrupt(at, format!("extension of {len} bytes")));
        }
        let wanted = match kind {
            EXT_BACKING_FORMAT => Some(&mut found.backing_format),
            EXT_DATA_FILE => Some(&mut found.data_file),
            EXT_BITMAPS => Some(&mut found.bitmaps),
            _ => None,
        };
        if let Some(wanted) = wanted {
            if len > NAME_MAX {
                return Err(corrupt(
                    at,
                    format!("extension of {len} bytes, allowed is {NAME_MAX}"),
                ));
            }
            *wanted = Some(match kind {
                EXT_BITMAPS => data(file, at + 8, len)?,
                _ => text(file, at + 8, len)?,
            });
        }
        at += 8 + u64::from(len).next_multiple_of(8);
    }
    Err(corrupt(from.into(), format!("more than {EXTENSIONS_MAX} header extensions")))
}

fn parent(
    file: &dyn ReadAt,
    name_at: u64,
    name_len: u32,
    extensions: &Extensions,
) -> Result<Option<ParentRef>> {
    if name_at == 0 || name_len == 0 {
        return Ok(None);
    }
    let end = name_at.checked_add(name_len.into());
    if name_len > NAME_MAX || end.is_none_or(|end| end > file.len()) {
        return Err(corrupt(8, format!("name of the backing file: {name_len} bytes at {name_at}")));
    }
    let name = text(file, name_at, name_len)?;
    let format = match extensions.backing_format.as_deref() {
        None | Some(b"") => None,
        Some(b"raw" | b"file" | b"host_device") => Some(Format::Raw),
        Some(b"qcow2") => Some(Format::Qcow2),
        Some(b"vpc") => Some(Format::Vhd),
        Some(b"vhdx") => Some(Format::Vhdx),
        Some(b"vmdk") => Some(Format::Vmdk),
        Some(other) => {
            let other = String::from_utf8_lossy(other).into_owned();
            return Err(unsupported(format!("its backing file is of the format '{other}'")));
        }
    };
    Ok(Some(ParentRef { names: vec![as_path(&name)?], format, expected: Vec::new() }))
}

fn data(file: &dyn ReadAt, at: u64, len: u32) -> Result<Vec<u8>> {
    // At most 1,023 bytes.
    let mut out = vec![0; usize::try_from(len).unwrap_or_default()];
    file.read_exact_at(&mut out, at).map_err(Error::io("read a name or an extension", at))?;
    Ok(out)
}

fn text(file: &dyn ReadAt, at: u64, len: u32) -> Result<Vec<u8>> {
    let mut out = data(file, at, len)?;
    let end = out.iter().position(|byte| *byte == 0).unwrap_or(out.len());
    out.truncate(end);
    Ok(out)
}

/// QEMU takes a word and a colon in front of the first slash for a protocol: `nbd:`, `json:`.
fn as_path(name: &[u8]) -> Result<PathBuf> {
    let name = name.strip_prefix(b"file:").unwrap_or(name);
    let before_slash = name.split(|byte| *byte == b'/').next().unwrap_or_default();
    if name.is_empty() || before_slash.contains(&b':') {
        return Err(Error::NotAFile { name: String::from_utf8_lossy(name).into_owned() });
    }
    Ok(PathBuf::from(OsStr::from_bytes(name)))
}
